package file

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/outputs/internal/template"
	"github.com/stacktrail/stacktrail/plugins/event"
)

const (
	// A value's share of a name. File systems take 255 bytes; the ending of the template and of a rotation must fit beside it.
	maxValue = 200
	// A name's length before a rotation adds .123456.gz or the compression its dot and .gz.tmp.
	maxName = 220
	// Longer templates would make paths beyond the kernel's 4096 bytes.
	maxTemplate = 1024
	maxFields   = 8
)

// pathTemplate is a parsed path: a literal base directory, and what is below it.
type pathTemplate struct {
	base   string // absolute; nothing is ever written outside of it
	parts  []template.Part
	static bool // there are neither fields nor dates
	step   time.Duration
	// tailHasField says that the last component holds a value, which might look like the name of a file put aside.
	tailHasField bool
}

// makes is what a template makes names of, in messages.
const makes = "file name"

// parseTemplate parses a configured path. Errors name the column.
func parseTemplate(s string) (*pathTemplate, error) {
	switch {
	case !strings.HasPrefix(s, "/"):
		return nil, errors.New("must be absolute")
	case strings.HasSuffix(s, "/"):
		return nil, errors.New("must name a file, not a directory")
	case len(s) > maxTemplate:
		return nil, fmt.Errorf("must not be longer than %d bytes", maxTemplate)
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return nil, fmt.Errorf("column %d: control characters make no file name", utf8.RuneCountInString(s[:i])+1)
	}
	parts, err := template.Parse(s, makes, maxFields)
	if err != nil {
		return nil, err
	}
	t := &pathTemplate{parts: parts, static: true, step: 24 * time.Hour}
	for i := range parts {
		t.static = t.static && parts[i].IsText()
		switch parts[i].Date {
		case 'H':
			t.step = min(t.step, time.Hour)
		case 'M':
			t.step = time.Minute
		}
	}
	return t, t.confine()
}

// confine cuts the literal base off the template.
func (t *pathTemplate) confine() error {
	for _, p := range t.parts {
		for c := range strings.SplitSeq(p.Text, "/") {
			if c == ".." {
				return fmt.Errorf("column %d: .. is not allowed", p.Column)
			}
			if len(c) > maxName {
				return fmt.Errorf("column %d: a name must not be longer than %d bytes", p.Column, maxName)
			}
		}
	}
	first := &t.parts[0]
	cut := strings.LastIndexByte(first.Text, '/')
	t.base = filepath.Clean("/" + first.Text[:cut])
	first.Text = first.Text[cut+1:]
	if first.Text == "" {
		t.parts = t.parts[1:]
	}
	if t.base == "/" && !t.static {
		return errors.New("column 2: a directory must come before the first field or date: values stay below it")
	}
	for _, p := range t.parts {
		switch {
		case p.Field != "":
			t.tailHasField = true
		case strings.Contains(p.Text, "/"):
			t.tailHasField = false
		}
	}
	return nil
}

// renderer makes paths. Its buffers are used again, so a path is valid until the next one.
type renderer struct {
	buf  []byte
	unit int64 // the step for which dates is filled
	date [6][]byte
}

// render returns the event's path below the base. Values are made safe: each stays within one component.
func (r *renderer) render(t *pathTemplate, e *event.Event, at time.Time) []byte {
	dst := r.buf[:0]
	component := 0
	for i := range t.parts {
		p := &t.parts[i]
		switch {
		case p.Field != "":
			dst = appendSafe(dst, p.Value(e))
		case p.Date != 0:
			r.dates(t, at)
			dst = append(dst, r.date[strings.IndexByte(template.Dates, p.Date)]...)
		default:
			text := p.Text
			for {
				slash := strings.IndexByte(text, '/')
				if slash < 0 {
					break
				}
				dst = endComponent(append(dst, text[:slash]...), component)
				dst = append(dst, '/')
				component, text = len(dst), text[slash+1:]
			}
			dst = append(dst, text...)
		}
	}
	dst = endComponent(dst, component)
	if t.tailHasField && looksRotated(dst[component:]) {
		dst = append(dst, '_')
	}
	r.buf = dst
	return dst
}

// endComponent makes dst[from:] a harmless name: neither empty, nor a step up, nor too long.
func endComponent(dst []byte, from int) []byte {
	switch name := dst[from:]; {
	case len(name) == 0, string(name) == ".", string(name) == "..":
		return append(dst[:from], '_')
	case len(name) > maxName:
		const digits = 16
		sum := xxh3.Hash(name)
		dst = append(dst[:from+maxName-digits-1], '_')
		return fmt.Appendf(dst, "%016x", sum)
	}
	return dst
}

// appendSafe appends a value as a part of a name: slashes, control characters and invalid UTF-8 become underscores, as does
// an empty value and one that leads up.
func appendSafe(dst []byte, s string) []byte {
	if s == "" || s == "." || s == ".." {
		return append(dst, '_')
	}
	if len(s) > maxValue {
		s = s[:maxValue]
	}
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f || c == '/' {
				c = '_'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || unicode.IsControl(r) {
			dst = append(dst, '_')
		} else {
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return dst
}

// dates renders the date codes, once for each step of the clock.
func (r *renderer) dates(t *pathTemplate, at time.Time) {
	step := int64(t.step / time.Second)
	unit := at.Unix() / step
	if at.Unix()%step < 0 {
		unit-- // before 1970
	}
	if r.unit == unit && r.date[0] != nil {
		return
	}
	r.unit = unit
	at = at.UTC()
	for i, layout := range [...]string{"2006", "01", "02", "15", "04", "002"} {
		r.date[i] = at.AppendFormat(r.date[i][:0], layout)
	}
}

// values appends what the event's fields contribute to its path: what max_paths counts.
func (t *pathTemplate) values(dst []byte, e *event.Event) []byte {
	for i := range t.parts {
		if p := &t.parts[i]; p.Field != "" {
			dst = append(appendSafe(dst, p.Value(e)), '/')
		}
	}
	return dst
}

// maxSlot bounds the numbers of files put aside, so that a date at the end of a name is not taken for one.
const maxSlot = 999999

// slot reads the name of a file put aside: base.N or base.N.gz.
func slot(base, name string) (n int, gz, ok bool) {
	rest, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return 0, false, false
	}
	rest, gz = strings.CutSuffix(rest, ".gz")
	n, err := strconv.Atoi(rest)
	if err != nil || n < 1 || n > maxSlot || strconv.Itoa(n) != rest {
		return 0, false, false
	}
	return n, gz, true
}

// looksRotated reports whether a name could be that of another file put aside or being compressed. A value must not
// make one: a rotation would take the file away.
func looksRotated(name []byte) bool {
	if c := name[len(name)-1]; c != 'z' && c != 'p' && (c < '0' || c > '9') {
		return false // most names, without an allocation
	}
	s := strings.TrimSuffix(string(name), ".gz")
	if strings.HasSuffix(s, tempSuffix) {
		return true
	}
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return false
	}
	_, _, ok := slot(s[:dot], s)
	return ok
}

const tempSuffix = ".gz.tmp"

// familyOf returns the path whose files are compressed there.
func familyOf(temp string) string {
	dir, name := path.Split(temp)
	return dir + strings.TrimSuffix(strings.TrimPrefix(name, "."), tempSuffix)
}

// tempName is where a file of this path's family is compressed.
func tempName(name string) string {
	dir, base := path.Split(name)
	return dir + "." + base + tempSuffix
}
