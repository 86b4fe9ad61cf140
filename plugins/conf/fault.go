package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a configuration, at the place where a user has to change it.
// A Fault never holds the value of a secret or of an interpolated text.
type Fault struct {
	File         string
	Line, Column int    // from 1, Column in characters; 0 when there is no such place
	Path         string // such as pipelines[0].inputs[0].tail.paths; empty for the document
	Message      string // what was expected and what was found
	Suggestion   string // what the user may have meant, ready to be written instead; empty when nothing is near
}

// String returns `file:line:column: path: message (did you mean "x"?)` on one line, without the parts that are empty.
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		b.WriteByte(':')
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", f.Line, f.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if f.Path != "" {
		b.WriteString(f.Path)
		b.WriteString(": ")
	}
	b.WriteString(oneLine(f.Message))
	if f.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", f.Suggestion)
	}
	return b.String()
}

// Faults are all faults found in one go. As an error it prints one fault a line.
type Faults []Fault

// Error returns the faults, one a line, in the order in which they stand.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns f as an error, nil when there is no fault. Use it instead of assigning Faults to an error.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Sort orders the faults by file, line and column, in place. Faults at one place keep their order.
func (f Faults) Sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// tidy sorts the faults and drops repetitions.
func (f Faults) tidy() Faults {
	seen := make(map[Fault]bool, len(f))
	out := f[:0]
	for _, x := range f {
		if !seen[x] {
			seen[x] = true
			out = append(out, x)
		}
	}
	out.Sort()
	return out
}

// oneLine keeps foreign error texts from breaking the rule of one fault a line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// KeyError is an error of a Validate method that belongs to one key of the section.
type KeyError struct {
	Key string // relative to the section: url, rotate.size or paths[2]; empty: the section itself
	Err error
}

// Error returns the key and the error.
func (e KeyError) Error() string {
	if e.Key == "" {
		return e.Err.Error()
	}
	return e.Key + ": " + e.Err.Error()
}

// Unwrap returns the error without the key.
func (e KeyError) Unwrap() error { return e.Err }
