package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Kind is the shape of a Node.
type Kind uint8

// The shapes of a Node. The zero Node is Invalid: there is no such place. A null is a Scalar.
const (
	Invalid Kind = iota
	Section
	List
	Scalar
)

// Node is one place in a parsed document: a value, the file and position where it stands, and its path.
// It is a small value to be copied; copies share the document, which only Interpolate changes.
type Node struct {
	n   *node
	key *node // the key under which the value stands, nil in lists and at the root
	at  *step // nil at the root
}

// Key is one entry of a section.
type Key struct {
	Name    string
	KeyNode Node // the key itself, for faults about the name
	Value   Node
}

// node is a value with aliases and merge keys resolved, so that every node stands at one place of the tree.
type node struct {
	kind         Kind
	file         string
	line, column int
	text         string // of a scalar, after interpolation
	tag          string // of a scalar: !!str, !!int, !!float, !!bool, !!null, !!timestamp
	plain        bool   // a scalar written without quotes, tag or block style
	template     string // the text before interpolation
	templated    bool
	failed       bool     // interpolation found a fault here; there is no text to judge
	pieces       []string // what was put in for each interpolation
	pairs        []pair
	items        []*node
}

type pair struct{ key, value *node }

// step is one step of a path; the root has none.
type step struct {
	up    *step
	key   string
	index int // -1 for a key
}

func (n *node) isNull() bool { return n.kind == Scalar && n.tag == "!!null" && !n.templated }

// resolve finds the tag of a text written without quotes.
func resolve(text string) string {
	return (&yaml.Node{Kind: yaml.ScalarNode, Value: text}).ShortTag()
}

// Kind returns the shape of the value.
func (n Node) Kind() Kind {
	if n.n == nil {
		return Invalid
	}
	return n.n.kind
}

// Line returns the line of the value, from 1, or 0 for the zero Node.
func (n Node) Line() int {
	if n.n == nil {
		return 0
	}
	return n.n.line
}

// Column returns the column of the value in characters, from 1, or 0 for the zero Node.
func (n Node) Column() int {
	if n.n == nil {
		return 0
	}
	return n.n.column
}

// File returns the name that was given to Parse.
func (n Node) File() string {
	if n.n == nil {
		return ""
	}
	return n.n.file
}

// Path returns where the value stands in the document, such as pipelines[0].inputs[0].tail; empty at the root.
func (n Node) Path() string {
	var steps []*step
	for s := n.at; s != nil; s = s.up {
		steps = append(steps, s)
	}
	var b strings.Builder
	for _, s := range slices.Backward(steps) {
		switch {
		case s.index >= 0:
			fmt.Fprintf(&b, "[%d]", s.index)
		case !plainKey(s.key):
			fmt.Fprintf(&b, "[%s]", quote(s.key))
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.key)
		}
	}
	return b.String()
}

// Keys returns the entries of a section in the order in which they are written; nil for other shapes.
func (n Node) Keys() []Key {
	if n.Kind() != Section {
		return nil
	}
	keys := make([]Key, len(n.n.pairs))
	for i, p := range n.n.pairs {
		at := &step{up: n.at, key: p.key.text, index: -1}
		keys[i] = Key{
			Name:    p.key.text,
			KeyNode: Node{n: p.key, key: p.key, at: at},
			Value:   Node{n: p.value, key: p.key, at: at},
		}
	}
	return keys
}

// Get returns the value of a key of a section, and whether there is one.
func (n Node) Get(name string) (Node, bool) {
	if n.Kind() == Section {
		for _, p := range n.n.pairs {
			if p.key.text == name {
				return Node{n: p.value, key: p.key, at: &step{up: n.at, key: name, index: -1}}, true
			}
		}
	}
	return Node{}, false
}

// Items returns the items of a list; nil for other shapes.
func (n Node) Items() []Node {
	if n.Kind() != List {
		return nil
	}
	items := make([]Node, len(n.n.items))
	for i, x := range n.n.items {
		items[i] = Node{n: x, at: &step{up: n.at, index: i}}
	}
	return items
}

// IsNull tells whether the value is written but empty: nothing, ~ or null.
func (n Node) IsNull() bool { return n.n != nil && n.n.isNull() }

// Scalar returns the text of a scalar, interpolated if Interpolate was called; empty for other shapes.
// The text may be a secret: do not print it.
func (n Node) Scalar() string {
	if n.Kind() != Scalar {
		return ""
	}
	return n.n.text
}

// Template returns the text of a scalar as it was before Interpolate changed it, and whether it did.
func (n Node) Template() (string, bool) {
	if n.n == nil || !n.n.templated {
		return "", false
	}
	return n.n.template, true
}

// Fault returns a fault at the value.
func (n Node) Fault(format string, args ...any) Fault {
	return Fault{
		File: n.File(), Line: n.Line(), Column: n.Column(), Path: n.Path(),
		Message: fmt.Sprintf(format, args...),
	}
}

// KeyFault returns a fault at the key under which the value stands, or at the value where there is no key.
func (n Node) KeyFault(format string, args ...any) Fault {
	if n.key != nil {
		n.n = n.key
	}
	return n.Fault(format, args...)
}

// missing returns the place of a key that is not there: an empty section at the position of n.
func (n Node) missing(name string) Node { return n.nothing(&step{up: n.at, key: name, index: -1}) }

func (n Node) nothing(at *step) Node {
	empty := &node{kind: Section, file: n.File(), line: n.Line(), column: n.Column()}
	return Node{n: empty, key: empty, at: at}
}

// find follows a relative path in the form of Path. Where the document ends early, the path goes on
// and the position stays that of the last key found.
func (n Node) find(path string) Node {
	for path != "" {
		var next Node
		var ok bool
		at := &step{up: n.at, index: -1}
		if rest, isIndex := strings.CutPrefix(path, "["); isIndex {
			if q, err := strconv.QuotedPrefix(rest); err == nil {
				at.key, _ = strconv.Unquote(q)
				rest = rest[len(q):]
			}
			inside, after, _ := strings.Cut(rest, "]")
			path = after
			if i, err := strconv.Atoi(inside); err == nil && i >= 0 {
				at.index = i
				if items := n.Items(); i < len(items) {
					next, ok = items[i], true
				}
			} else if inside != "" {
				at.key = inside
			}
		} else {
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			at.key, path = path[:end], path[end:]
		}
		if at.index < 0 {
			next, ok = n.Get(at.key)
		}
		if !ok {
			next = n.nothing(at)
		}
		if !ok && n.key != nil {
			// The section's key is where a user looks for what it lacks.
			next.n.file, next.n.line, next.n.column = n.key.file, n.key.line, n.key.column
		}
		n, path = next, strings.TrimPrefix(path, ".")
	}
	return n
}

// found says what stands at the place, in users' words. What must not be shown is not: hide keeps the text back.
func (n Node) found(hide bool) string {
	switch n.Kind() {
	case Section:
		return "a section"
	case List:
		return "a list"
	case Invalid:
		return "nothing"
	}
	if t, ok := n.Template(); ok {
		if hide {
			return "an interpolated text"
		}
		return "the value of " + quote(t)
	}
	what := "the text"
	switch n.n.tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		what = "the number"
	case "!!bool":
		what = "the value"
	}
	switch {
	case hide:
		return strings.Replace(what, "the", "a", 1)
	case what == "the text":
		return what + " " + quote(n.n.text)
	}
	return what + " " + cut(n.n.text)
}

// quote returns s in quotes, on one line and not too long for a message.
func quote(s string) string { return strconv.Quote(cut(s)) }

// cut shortens what would drown a message.
func cut(s string) string {
	const most = 60 // characters; enough to recognise a value
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

func plainKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}
