// Package template parses the names that outputs make of events: text, {{ field }} and the dates %Y %m %d %H %M %j. What a name may
// hold, and how values are made to fit, is the output's to say.
package template

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Dates are the codes of dates: year, month, day, hour, minute, day of the year.
const Dates = "YmdHMj"

// Part is a piece of a name: a field, if Field is set, else a date, if Date is, else text.
type Part struct {
	Text   string
	Field  string
	Date   byte // one of Dates
	Column int  // in the template, from 1

	schema *schema.Field // nil for an extra field
}

// Parse parses a template that may have so many fields. makes says what it makes: "file name". Errors name the column.
func Parse(s, makes string, maxFields int) ([]Part, error) {
	var parts []Part
	fields := 0
	for i := 0; i < len(s); {
		column := utf8.RuneCountInString(s[:i]) + 1
		switch {
		case strings.HasPrefix(s[i:], "{{"):
			end := strings.Index(s[i:], "}}")
			if end < 0 {
				return nil, fmt.Errorf("column %d: {{ without }}", column)
			}
			p := Part{Field: strings.TrimSpace(s[i+2 : i+end]), Column: column}
			if p.Field == "" || strings.ContainsAny(p.Field, "{/% ") {
				return nil, fmt.Errorf("column %d: between {{ and }} stands the name of a field, found %q", column, p.Field)
			}
			if p.schema = schema.Lookup(p.Field); p.schema != nil {
				if err := p.fits(p.schema.Type, makes); err != nil {
					return nil, err
				}
			}
			if fields++; fields > maxFields {
				return nil, fmt.Errorf("column %d: more than %d fields", column, maxFields)
			}
			parts = append(parts, p)
			i += end + 2
		case s[i] == '%':
			if i+1 == len(s) {
				return nil, fmt.Errorf("column %d: %% at the end; %%%% stands for a percent sign", column)
			}
			switch code := s[i+1]; {
			case code == '%':
				parts = text(parts, "%", column)
			case strings.IndexByte(Dates, code) >= 0:
				parts = append(parts, Part{Date: code, Column: column})
			default:
				r, _ := utf8.DecodeRuneInString(s[i+1:])
				return nil, fmt.Errorf("column %d: unknown %%%c; known are %%Y %%m %%d %%H %%M %%j and %%%%", column, r)
			}
			i += 2
		default:
			n := len(s) - i
			for _, special := range []string{"%", "{{"} {
				if at := strings.Index(s[i:], special); at >= 0 {
					n = min(n, at)
				}
			}
			parts = text(parts, s[i:i+n], column)
			i += n
		}
	}
	return parts, nil
}

// text appends text to the parts.
func text(parts []Part, s string, column int) []Part {
	if n := len(parts); n > 0 && parts[n-1].IsText() {
		parts[n-1].Text += s
		return parts
	}
	return append(parts, Part{Text: s, Column: column})
}

// fits says why values of a type are not put into a name.
func (p *Part) fits(k event.Kind, makes string) error {
	if k == event.List || k == event.Object {
		return fmt.Errorf("column %d: field %q holds a %s, which makes no %s", p.Column, p.Field, k, makes)
	}
	return nil
}

// IsText reports whether p stands for itself.
func (p *Part) IsText() bool { return p.Field == "" && p.Date == 0 }

// Value is what the field holds in e, as it is. It is good as long as e is.
func (p *Part) Value(e *event.Event) string {
	if p.schema == nil {
		v, _ := e.Get(p.Field)
		return v.Text()
	}
	if s := p.schema.Text(e); s != nil {
		return *s
	}
	v := p.schema.Get(e)
	return v.Text()
}

// CheckFields finds fields that nobody defines: extra are those that there are beside the schema's, which is known only in a
// pipeline. Errors name the column.
func CheckFields(parts []Part, makes string, extra map[string]event.Kind) error {
	for _, p := range parts {
		if p.Field == "" || p.schema != nil {
			continue
		}
		k, ok := extra[p.Field]
		if !ok {
			known := slices.Collect(maps.Keys(extra))
			for _, f := range schema.Fields() {
				known = append(known, f.Name)
			}
			hint := ""
			if s := conf.Suggest(p.Field, known); s != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", s)
			}
			return fmt.Errorf("column %d: unknown field %q%s", p.Column, p.Field, hint)
		}
		if err := p.fits(k, makes); err != nil {
			return err
		}
	}
	return nil
}
