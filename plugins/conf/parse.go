package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	maxNodes = 1_000_000 // with aliases resolved; bounds what a few bytes of aliases can cost
	maxDepth = 100       // far deeper than any configuration, far from what a stack minds
)

// Parse reads one YAML document. The file is only a name for positions. An empty document is an empty section.
// Aliases and merge keys are resolved. After a syntax error the Node is the zero Node; after faults that leave
// the rest readable (a duplicate key, a key that is no text) it is what could be read.
func Parse(file string, data []byte) (Node, Faults) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if f, bad := badCharacter(file, data); bad {
		return Node{}, Faults{f}
	}
	p := parser{file: file, open: map[*yaml.Node]bool{}}
	root, second, err := load(data)
	if err != nil {
		return Node{}, Faults{syntaxFault(file, data, err)}
	}
	if second != nil {
		p.fault(second, nil, "a file holds one document, here a second one starts; put it into a file of its own")
	}
	n := p.convert(root, nil, 0)
	if n == nil {
		return Node{}, p.faults.tidy()
	}
	if n.isNull() {
		n = &node{kind: Section, file: file, line: 1, column: 1}
	}
	return Node{n: n}, p.faults.tidy()
}

// load returns the root of the first document, nil when there is none, and the second document, nil when there is none.
func load(data []byte) (root, second *yaml.Node, err error) {
	defer func() {
		// The parser panics on states that it thinks impossible; a file must never end the agent.
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be read as YAML: %v", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	var first, next yaml.Node
	if err = d.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	root = &first
	if first.Kind == yaml.DocumentNode && len(first.Content) > 0 {
		root = first.Content[0]
	}
	if err = d.Decode(&next); err == nil {
		return root, &next, nil
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return root, nil, err
}

type parser struct {
	file   string
	faults Faults
	count  int
	full   bool
	open   map[*yaml.Node]bool // collections being converted, to find aliases to themselves
}

func (p *parser) fault(y *yaml.Node, at *step, format string, args ...any) *Fault {
	p.faults = append(p.faults, Fault{
		File: p.file, Line: y.Line, Column: y.Column, Path: Node{at: at}.Path(), Message: fmt.Sprintf(format, args...),
	})
	return &p.faults[len(p.faults)-1]
}

// convert copies y into a tree without aliases. It returns nil after a fault that leaves nothing to use.
func (p *parser) convert(y *yaml.Node, at *step, depth int) *node {
	if y == nil {
		return &node{kind: Scalar, tag: "!!null", file: p.file, line: 1, column: 1}
	}
	if p.full {
		return nil
	}
	if p.count++; p.count > maxNodes {
		p.full = true
		p.fault(y, at, "the document holds more than %d values once its aliases are resolved", maxNodes)
		return nil
	}
	if depth > maxDepth {
		p.fault(y, at, "nested more than %d levels deep", maxDepth)
		return nil
	}
	if y.Kind == yaml.AliasNode {
		if p.open[y.Alias] {
			p.fault(y, at, "the alias *%s stands inside of what it names", y.Value)
			return nil
		}
		return p.convert(y.Alias, at, depth)
	}
	n := &node{file: p.file, line: y.Line, column: y.Column}
	tag := y.ShortTag()
	p.open[y] = true
	defer delete(p.open, y)
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = Section
		if tag != "!!map" {
			p.fault(y, at, "the tag %s is not supported", quote(tag))
		}
		p.section(n, y, at, depth)
	case yaml.SequenceNode:
		n.kind = List
		if tag != "!!seq" {
			p.fault(y, at, "the tag %s is not supported", quote(tag))
		}
		for i, c := range y.Content {
			if x := p.convert(c, &step{up: at, index: i}, depth+1); x != nil {
				n.items = append(n.items, x)
			}
		}
	default:
		n.kind, n.text, n.tag, n.plain = Scalar, y.Value, tag, y.Style == 0
		switch tag {
		case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp":
		case "!!merge":
			n.tag = "!!str"
		default:
			p.fault(y, at, "the tag %s is not supported", quote(tag))
			return nil
		}
	}
	return n
}

// section fills n with the entries of y: its own first, then what merge keys bring in.
func (p *parser) section(n *node, y *yaml.Node, at *step, depth int) {
	first := make(map[string]*yaml.Node, len(y.Content)/2)
	var merges []*node
	var mergeKey *yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		for k.Kind == yaml.AliasNode {
			k = &yaml.Node{Kind: k.Alias.Kind, Tag: k.Alias.Tag, Style: k.Alias.Style, Value: k.Alias.Value, Line: k.Line, Column: k.Column}
		}
		at := &step{up: at, key: k.Value, index: -1}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			if mergeKey != nil {
				p.fault(k, at, `duplicate key "<<", first at line %d; write <<: [*a, *b]`, mergeKey.Line)
			}
			mergeKey = k
			merges = append(merges, p.merged(v, at, depth)...)
			continue
		}
		value := p.convert(v, at, depth+1)
		if value != nil && v.Kind == yaml.ScalarNode && v.Value == "" && value.isNull() {
			value.line, value.column = k.Line, k.Column // nothing is written there: its key is the place to look
		}
		if !p.keyOK(k, at) {
			continue
		}
		if dup := first[k.Value]; dup != nil {
			p.fault(k, at, "duplicate key %s, first at line %d", quote(k.Value), dup.Line)
			continue
		}
		first[k.Value] = k
		if value != nil {
			key := &node{kind: Scalar, file: p.file, line: k.Line, column: k.Column, text: k.Value, tag: "!!str"}
			n.pairs = append(n.pairs, pair{key, value})
		}
	}
	have := make(map[string]bool, len(first))
	for name := range first {
		have[name] = true
	}
	for _, m := range merges {
		for _, e := range m.pairs {
			if !have[e.key.text] {
				have[e.key.text] = true
				n.pairs = append(n.pairs, e)
			}
		}
	}
}

// merged returns the sections that stand behind a merge key, the strongest first.
func (p *parser) merged(v *yaml.Node, at *step, depth int) []*node {
	m := p.convert(v, at, depth+1)
	if m == nil {
		return nil
	}
	sections := []*node{m}
	if m.kind == List {
		sections = m.items
	}
	for _, s := range sections {
		if s.kind != Section {
			p.fault(v, at, "<< wants a section or a list of sections, found %s", Node{n: s}.found(false))
			return nil
		}
	}
	return sections
}

// keyOK reports keys that are no text.
func (p *parser) keyOK(k *yaml.Node, at *step) bool {
	if k.Kind != yaml.ScalarNode {
		p.fault(k, at.up, "a key must be a text")
		return false
	}
	switch tag := k.ShortTag(); tag {
	case "!!str", "!!timestamp", "!!merge":
		return true
	case "!!null":
		p.fault(k, at.up, "a key must be a text, found nothing before the colon")
	case "!!int", "!!float", "!!bool":
		what := Node{n: &node{kind: Scalar, tag: tag, text: k.Value}}.found(false)
		p.fault(k, at.up, "a key must be a text, found %s; put it in quotes", what).Suggestion = `"` + cut(k.Value) + `"`
	default:
		p.fault(k, at.up, "the tag %s is not supported", quote(tag))
	}
	return false
}

// badCharacter finds what the YAML parser refuses without saying where.
func badCharacter(file string, data []byte) (Fault, bool) {
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		message := ""
		switch {
		case r == utf8.RuneError && size <= 1:
			message = fmt.Sprintf("the byte 0x%02x is not UTF-8", data[i])
		case r == '\n':
			line, column = line+1, 0
		case r < ' ' && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfeff, r == 0xfffe, r == 0xffff:
			message = fmt.Sprintf("the character U+%04X is not allowed", r)
		}
		if message != "" {
			return Fault{File: file, Line: line, Column: column, Message: message}, true
		}
		i, column = i+size, column+1
	}
	return Fault{}, false
}

var yamlPlace = regexp.MustCompile(`^yaml: (?:line \d+: )?`)

// syntaxFault gives a syntax error its place. The YAML parser names a line at best, and often that of the
// surrounding block. But it reads from left to right: the shortest head of the file that fails in the same
// words ends in what it stumbled over.
func syntaxFault(file string, data []byte, cause error) Fault {
	words := yamlPlace.ReplaceAllString(cause.Error(), "")
	var at int
	if strings.Contains(words, "unexpected end of stream") {
		at = opening(data, words)
	} else {
		at = stumble(data, cause.Error())
	}
	head := data[:at]
	start := bytes.LastIndexByte(head, '\n') + 1
	f := Fault{
		File: file, Line: bytes.Count(head, []byte("\n")) + 1, Column: utf8.RuneCount(head[start:]) + 1,
		Message: "not valid YAML: " + words,
	}
	rest := data[start:]
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		rest = rest[:end]
	}
	switch indent := rest[:len(rest)-len(bytes.TrimLeft(rest, " \t"))]; {
	case bytes.IndexByte(indent, '\t') >= 0:
		f.Column = bytes.IndexByte(indent, '\t') + 1
		f.Message += "; indent with spaces, not with tabs"
	case strings.Contains(words, "',' or") && bytes.Contains(rest, []byte("${")):
		f.Message += "; inside of [] and {} put ${…} in quotes"
	case strings.Contains(words, "mapping values are not allowed"):
		f.Message += `; put a text that holds ": " in quotes, or mend the indentation`
	}
	return f
}

// stumble returns the start of the word at which reading ends with this error.
func stumble(data []byte, message string) int {
	low, high := 0, len(data)
	for low+1 < high {
		middle := (low + high) / 2
		if fails(data[:middle], message) {
			high = middle
		} else {
			low = middle
		}
	}
	at := max(high-1, 0)
	if at < len(data) && data[at] == '\t' {
		return at
	}
	for at > 0 && isBlank(data[at]) {
		at--
	}
	for at > 0 && !isBlank(data[at-1]) {
		at--
	}
	return at
}

// opening returns where the text starts that the end of the file cuts off: its quote. Every head of the file that goes beyond
// the quote fails alike, so it looks for the last line that begins outside of the text, then for the last quote that does.
func opening(data []byte, words string) int {
	budget := 4 << 20 // bytes to be read in search of the place, a few tenths of a second
	outside := func(end int) bool {
		budget -= end + 1
		return budget < 0 || !fails(data[:end], words)
	}
	end := len(data)
	for end > 0 {
		start := bytes.LastIndexByte(data[:end-1], '\n') + 1
		if outside(start) {
			break
		}
		end = start
	}
	for at := bytes.LastIndexAny(data[:end], "'\""); at >= 0; at = bytes.LastIndexAny(data[:at], "'\"") {
		if outside(at) {
			return at
		}
	}
	return end
}

// fails tells whether reading data ends with an error of these words.
func fails(data []byte, words string) bool {
	_, _, err := load(data)
	return err != nil && strings.HasSuffix(err.Error(), words)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
