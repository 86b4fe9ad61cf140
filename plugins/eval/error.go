package eval

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Error is why an expression was refused, at its place.
type Error struct {
	Line, Column int // in the expression, from 1; columns in characters
	Offset       int // in bytes from its beginning
	Message      string
	Suggestion   string // a name that may have been meant; "" when none is near
	Name         string // the name that is unknown, where that is what is wrong

	excerpt string
}

// Error returns the place, the message, the suggestion and an excerpt in which an arrow points at the place, on one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d: %s", e.Line, e.Column, e.Message)
	if e.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", e.Suggestion)
	}
	if e.excerpt != "" {
		b.WriteString(", at ")
		b.WriteString(e.excerpt)
	}
	return b.String()
}

// errorAt makes an Error at a place counted in characters, as expr-lang counts.
func errorAt(src string, place int, message string) *Error {
	e := &Error{Line: 1, Column: 1, Message: oneLine.Replace(message)}
	seen := 0
	for i, r := range src {
		if seen == place {
			break
		}
		seen++
		e.Offset = i + len(string(r))
		if e.Column++; r == '\n' {
			e.Line++
			e.Column = 1
		}
	}
	e.Offset = min(e.Offset, len(src))
	const before, after = 24, 40 // characters around the place: enough to find it, short enough for one line
	text := []rune(src)
	at := min(place, len(text))
	lo, hi := max(0, at-before), min(len(text), at+after)
	left, right := string(text[lo:at]), string(text[at:hi])
	if lo > 0 {
		left = "…" + left
	}
	if hi < len(text) {
		right += "…"
	}
	if strings.TrimSpace(src) != "" {
		e.excerpt = oneLine.Replace(left + "→" + right)
	}
	return e
}

// translate turns an error of expr-lang into an Error that speaks of fields and their types.
func translate(src string, err error, names []string) *Error {
	var f *file.Error
	if !errors.As(err, &f) {
		return errorAt(src, 0, err.Error())
	}
	if name, ok := strings.CutPrefix(f.Message, "unknown name "); ok {
		return unknownName(src, f.From, name, names)
	}
	return errorAt(src, f.From, typeNames.Replace(f.Message))
}

func unknownName(src string, place int, name string, names []string) *Error {
	candidates := append(slices.Clone(names), "has", "field", "now")
	for _, b := range builtin.Builtins {
		candidates = append(candidates, b.Name)
	}
	e := errorAt(src, place, fmt.Sprintf("unknown name %q", name))
	e.Name = name
	e.Suggestion = conf.Suggest(name, candidates)
	if e.Suggestion == "" {
		e.Message += `; field("…") reads a field that is not declared`
	}
	return e
}

// oneLine keeps an expression of several lines from breaking a message, typeNames says types as the schema does.
// Both are read only.
var (
	oneLine   = strings.NewReplacer("\r", " ", "\n", " ", "\t", " ")
	typeNames = strings.NewReplacer("float64", "float", "time.Time", "time", "time.Duration", "duration",
		"map[string]interface {}", "object", "[]string", "list", "[]interface {}", "list", "interface {}", "unknown", "<nil>", "nil")
)
