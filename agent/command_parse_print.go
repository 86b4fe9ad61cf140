package agent

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// How parse prints records: each form appends one record to what a goroutine of several prepares, with that goroutine's scratch.
type form func(dst []byte, e *event.Event, s *schema.Scratch) []byte

// Values of --output.
const (
	outputJSON  = "json"
	outputText  = "text"
	outputTable = "table"
)

// formOf returns the form with that name of --output.
func formOf(opt parseOptions, naming schema.Naming) form {
	switch opt.output {
	case outputText:
		return columns().text
	case outputTable:
		return columns().cells
	}
	enc := schema.NewEncoder(schema.EncodeOptions{Newline: true, EventID: opt.eventID, Naming: naming})
	return enc.Encode
}

const textTime = "2006-01-02T15:04:05.000Z07:00"

// column is one of those that text and table show of a record.
type column struct {
	title string
	width int // in text
	right bool
	cell  func(dst []byte, e *event.Event) []byte
}

// layout is columns from left to right. The last one is not aligned.
type layout []column

func columns() layout {
	return layout{
		{"TIME", 24, false, func(dst []byte, e *event.Event) []byte {
			if e.Time.IsZero() {
				return dst
			}
			return e.Time.UTC().AppendFormat(dst, textTime)
		}},
		{"SERVICE", 10, false, func(dst []byte, e *event.Event) []byte { return appendShown(dst, e.Service) }},
		{"METHOD", 7, false, func(dst []byte, e *event.Event) []byte { return appendShown(dst, e.Method) }},
		{"STATUS", 6, true, func(dst []byte, e *event.Event) []byte {
			if e.Has&event.HasStatus == 0 {
				return dst
			}
			return strconv.AppendInt(dst, int64(e.Status), 10)
		}},
		{"DURATION", 11, true, func(dst []byte, e *event.Event) []byte {
			if e.Has&event.HasDuration == 0 {
				return dst
			}
			return append(dst, milliseconds(e.Duration)...)
		}},
		{"CLIENT", 15, false, func(dst []byte, e *event.Event) []byte { return appendShown(dst, e.Client) }},
		{"USER", 32, false, func(dst []byte, e *event.Event) []byte { return appendShown(dst, e.User) }},
		{"DOUBTS", 6, false, appendDoubts},
		{"REQUEST", 0, false, appendWhat},
	}
}

// appendDoubts appends what keeps a record from being taken at its word: a user that nobody proved must not look like one.
func appendDoubts(dst []byte, e *event.Event) []byte {
	var words []string
	if e.Is(event.BoolIdentityUnverified) {
		words = append(words, "identity-unverified")
	}
	if v, ok := e.Get("suspect"); ok {
		words = append(words, v.List()...)
	}
	if e.Is(event.BoolTruncated) {
		words = append(words, "truncated")
	}
	return appendShown(dst, strings.Join(words, ","))
}

// appendWhat appends what was asked for, or what another record says.
func appendWhat(dst []byte, e *event.Event) []byte {
	if e.RecordClass == event.ClassAccess || e.Path != "" {
		dst = appendShown(dst, e.Path)
		if e.Query != "" {
			dst = appendShown(append(dst, '?'), e.Query)
		}
		return dst
	}
	if e.RecordClass == event.ClassUnparsed {
		dst = append(appendShown(append(dst, "unparsed, "...), e.Error), ": "...)
	}
	if v, ok := e.Get("message"); ok {
		return appendShown(dst, v.Str())
	}
	return appendShown(dst, e.Action)
}

// milliseconds writes a duration in the one unit that lets columns be compared.
func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + "ms"
}

// appendShown appends a text as a terminal may have it; most need nothing.
func appendShown(dst []byte, s string) []byte {
	if len(s) <= shownMost {
		clean := true
		for i := range len(s) {
			clean = clean && s[i] >= ' ' && s[i] < 0x7f && s[i] != '"' && s[i] != '\\'
		}
		if clean {
			return append(dst, s...)
		}
	}
	return append(dst, shown(s)...)
}

// text appends a record as a line for people, in columns that are wide enough for what most records hold.
func (l layout) text(dst []byte, e *event.Event, _ *schema.Scratch) []byte {
	for i := range l {
		c := &l[i]
		from := len(dst)
		dst = c.cell(dst, e)
		if i < len(l)-1 {
			dst = append(align(dst, from, c.width, c.right), ' ', ' ')
		}
	}
	return append(bytes.TrimRight(dst, " "), '\n')
}

// align fills dst[from:], a cell, to a width; an empty one is a dash.
func align(dst []byte, from, width int, right bool) []byte {
	if len(dst) == from {
		dst = append(dst, '-')
	}
	n := width - utf8.RuneCount(dst[from:])
	if n <= 0 {
		return dst
	}
	end := len(dst)
	for range n {
		dst = append(dst, ' ')
	}
	if right {
		copy(dst[from+n:], dst[from:end])
		for i := range n {
			dst[from+i] = ' '
		}
	}
	return dst
}

// cells appends a record as cells with tabs between them, which no cell contains, for a table.
func (l layout) cells(dst []byte, e *event.Event, _ *schema.Scratch) []byte {
	for i := range l {
		if i > 0 {
			dst = append(dst, '\t')
		}
		dst = l[i].cell(dst, e)
	}
	return append(dst, '\n')
}

// table aligns lines of cells. How wide its columns are is found out from the first of them, so that it needs no more memory
// for a gigabyte; a later cell that is wider moves the rest of its line.
type table struct {
	w      io.Writer
	layout layout
	first  [][][]byte
	widths []int
	buf    []byte
}

const (
	tableFirst = 200 // lines that say how wide columns are
	tableMost  = 60  // a column is no wider
)

// Write takes whole lines.
func (t *table) Write(p []byte) (int, error) {
	t.buf = t.buf[:0]
	for line := range bytes.Lines(p) {
		cells := bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
		if t.widths != nil {
			t.line(cells)
			continue
		}
		for i, c := range cells {
			cells[i] = bytes.Clone(c) // p is the caller's
		}
		if t.first = append(t.first, cells); len(t.first) == tableFirst {
			t.begin()
		}
	}
	if _, err := t.w.Write(t.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// close prints a table that is shorter than what its widths would be found out from. Without records there is none.
func (t *table) close() error {
	if t.widths != nil || len(t.first) == 0 {
		return nil
	}
	t.buf = t.buf[:0]
	t.begin()
	_, err := t.w.Write(t.buf)
	return err
}

// begin finds the widths and prints the head and what waited.
func (t *table) begin() {
	var head [][]byte
	t.widths = make([]int, len(t.layout))
	for i, c := range t.layout {
		head = append(head, []byte(c.title))
		t.widths[i] = len(c.title)
		for _, cells := range t.first {
			t.widths[i] = max(t.widths[i], min(utf8.RuneCount(cells[i]), tableMost))
		}
	}
	t.line(head)
	for _, cells := range t.first {
		t.line(cells)
	}
	t.first = nil
}

func (t *table) line(cells [][]byte) {
	for i, c := range cells {
		from := len(t.buf)
		t.buf = append(t.buf, c...)
		if i < len(cells)-1 {
			t.buf = append(align(t.buf, from, t.widths[i], t.layout[i].right), ' ', ' ')
		}
	}
	t.buf = append(bytes.TrimRight(t.buf, " "), '\n')
}
