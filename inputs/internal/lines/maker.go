package lines

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/inputs/internal/routes"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/secrets"
)

// Maker makes records of lines. Each stream has its own, because a parser remembers what its file's lines look like. It is
// used from one goroutine at a time.
type Maker struct {
	parser *formats.Parser
	conf   *Config
	max    int
	common *common
	tools  // while it makes records
	count  func(name, reason string, n int64)

	positions bool
	notBefore time.Time
	notAfter  time.Time
	always    bool // of whatever time a record is
	path      string

	figures bool // the attributes of the record in hand are known to hold no text that could be a secret

	format   string // of the last record
	ofFormat int64  // how many of it were not tallied so far

	join   joiner
	outs   *container // nil where no line is a part of one
	parts  []physical // of the line in hand; kept for the next one
	texts  [][]byte   // the same
	latin1 bool
	stop   int64 // see StopAt

	counted []counter // of the batch in hand; few, searched linearly
}

type counter struct {
	name, reason string
	n            int64
}

// common is what all Makers have that were made of one. There may be ten thousand, of which few make records at a time.
type common struct {
	conf  Config
	tools sync.Pool // of *tools
}

// tools remember nothing of a stream.
type tools struct {
	routes *routes.Router
	hide   *secrets.Redactor // nil: nothing is masked
}

// takeTools has the tools at hand until putTools.
func (m *Maker) takeTools() *tools {
	t, ok := m.common.tools.Get().(*tools)
	if !ok {
		t = &tools{routes: m.conf.table.NewRouter()}
		if m.conf.MaskTokens {
			t.hide = newRedactor()
		}
	}
	m.tools = *t
	return t
}

func (m *Maker) putTools(t *tools) {
	if t.hide != nil {
		t.hide.Trim()
	}
	m.tools = tools{}
	m.common.tools.Put(t)
}

// Options are what a Maker needs beside the configuration.
type Options struct {
	// Count is Env.Count.
	Count func(name, reason string, n int64)
	// Positions sets LogFile and shows the offset.
	Positions bool
	// NotBefore drops records whose own time is before it, unless it is zero. Records without a time stay.
	NotBefore time.Time
	// NotAfter drops records whose own time is not before it, and those without a time, unless it is zero.
	NotAfter time.Time
}

// New makes a Maker.
func New(c Config, o Options) (*Maker, error) {
	loc, err := c.location()
	if err != nil {
		return nil, fmt.Errorf("loading time zone: %w", err)
	}
	p, err := formats.New(c.parserOptions(loc))
	if err != nil {
		return nil, fmt.Errorf("choosing formats: %w", err)
	}
	if c.table == nil {
		if err := c.Prepare(); err != nil {
			return nil, err
		}
	}
	j, err := newJoiner(c)
	if err != nil {
		return nil, err
	}
	return newMaker(&common{conf: c}, p, j, o), nil
}

func newMaker(x *common, p *formats.Parser, j joiner, o Options) *Maker {
	if o.Count == nil {
		o.Count = func(string, string, int64) {}
	}
	return &Maker{
		parser: p, common: x, conf: &x.conf, max: int(x.conf.MaxLine), count: o.Count, positions: o.Positions,
		notBefore: o.NotBefore, notAfter: o.NotAfter, always: o.NotBefore.IsZero() && o.NotAfter.IsZero(),
		join: j, stop: math.MaxInt64, latin1: x.conf.Encoding == "latin-1",
	}
}

// Fresh makes a Maker for another stream, with the configuration of m. It may be used beside m, and is far smaller than one of New.
// m must not have made records.
func (m *Maker) Fresh(o Options) *Maker { return newMaker(m.common, m.parser.Fresh(), m.join, o) }

// File tells what the lines come from: path, without what rotation appended, names the program, found is what positions show, and
// the file's time tells the year of times without one.
func (m *Maker) File(path, found string, mtime time.Time) {
	m.path = found
	m.join.last = far
	m.outs = nil
	m.parser.File(path, mtime)
}

// Back is how many bytes of what stands before the place to read from Prime should be shown, as far as the lines tell that the parser
// has seen.
func (m *Maker) Back() int64 { return m.parser.Back() }

// MaxLine is the length, in bytes, at which lines are cut.
func (m *Maker) MaxLine() int { return m.max }

// Fill appends the lines of block to the batch, until it holds limit records, and returns how many bytes it used. block must
// live in the batch's arena, begin at a record boundary, and stand at offset at of the stream. A last line without a newline
// stays unused; if end is set, it is a record that is flagged as truncated. A record of several lines ends with the block at the
// latest: who can show them again calls Join. b.ReadAt must be set.
func (m *Maker) Fill(b *event.Batch, block []byte, at int64, limit int, end bool) (used int) {
	last := Flush
	if end {
		last = Closed
	}
	used, _, _ = m.Join(b, block, at, limit, last)
	return used
}

// plain is Join where records have one line, but for those that a container's runtime cut.
func (m *Maker) plain(b *event.Batch, block []byte, at int64, limit int, end End) (used, done, need int) {
	n, events := 0, len(b.Events)
lines:
	for used < len(block) && (n < limit && at+int64(used) < m.stop || m.among(at+int64(used))) {
		i := bytes.IndexByte(block[used:], '\n')
		cut := false
		next := used + i + 1
		if i < 0 {
			if end != Closed {
				break
			}
			i, next, cut = len(block)-used, len(block), true
		}
		line := block[used : used+i]
		if len(line) > m.max {
			line, cut = line[:m.max], true
		}
		if m.outs != nil || formats.IsPart(line) {
			a, f := m.assemble(b, block, used, next, trimEnd(line), at, end)
			switch f {
			case later:
				done, need = bytes.LastIndexByte(block, '\n')+1, m.max+2
				break lines
			case passed:
				m.tally("joined", "", 1)
			case begins:
				m.assembled(b, &a, at+int64(used))
			default:
				m.add(b, line, nil, at+int64(used), cut)
			}
		} else {
			m.add(b, line, nil, at+int64(used), cut)
		}
		n++
		used = next
	}
	m.tally("lines", "", int64(n))
	m.tally("bytes", "", int64(used))
	m.tally("events", "", int64(len(b.Events)-events))
	return used, max(used, done), need
}

// FillCut appends the one line that head, which lives in the batch's arena, is the beginning of: it stands at offset at of the
// stream, is longer than MaxLine and takes length bytes there with its newline.
func (m *Maker) FillCut(b *event.Batch, head []byte, at, length int64) {
	defer m.putTools(m.takeTools())
	events := len(b.Events)
	m.parser.Continues(false)
	m.add(b, head[:min(len(head), m.max)], nil, at, true)
	m.tally("events", "", int64(len(b.Events)-events))
	m.tally("lines", "", 1)
	m.tally("bytes", "", length)
}

// add appends the record of a line and returns its event, if it has one. text is the line if it does not stand in the file as it is.
func (m *Maker) add(b *event.Batch, line, text []byte, at int64, cut bool) *event.Event {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if cut {
		m.tally("truncated", "", 1)
	}
	if len(line) == 0 {
		m.tally("skipped", "empty", 1)
		return nil
	}
	if text == nil {
		text = line
	}
	if at == 0 || m.latin1 {
		text, _ = m.decode(b, text, at)
	}
	e := b.Append()
	m.parser.At(at)
	v := m.parser.Parse(text, e, b.Arena())
	if m.join.enabled {
		m.place(m.part(text, v), at)
	}
	if v == formats.Access && m.always {
		m.access(e)
	} else if name, why, keep := m.judge(e, v); !keep {
		m.tally(name, why, 1)
		b.Undo()
		return nil
	} else if name != "" {
		m.tally(name, why, 1)
	}
	e.Offset = at
	m.figures = !m.parser.Words()
	m.finish(b, e, v, line, cut)
	m.figures = false
	return e
}

// judge says how a record counts, if not as an event alone, and whether it is an event.
func (m *Maker) judge(e *event.Event, v formats.Verdict) (name, why string, keep bool) {
	if reason := m.outside(e); reason != "" && (v != formats.Service || m.conf.Records == "all") {
		return "skipped", reason, false
	}
	switch v {
	case formats.Access:
	case formats.Service:
		if m.conf.Records != "all" {
			return "skipped", m.parser.Reason(), false
		}
	default:
		why = m.parser.Reason()
		if m.conf.Unparsed == "drop" {
			return "dropped_unparsed", why, false
		}
		name = "unparsed"
		e.RecordClass = event.ClassUnparsed
		if e.Error == "" {
			e.Error = why
		}
	}
	if v == formats.Access {
		m.access(e)
	}
	return name, why, true
}

// access counts an access record by its format.
func (m *Maker) access(e *event.Event) {
	if m.format != e.Format {
		m.tallyFormat()
		m.format = e.Format
	}
	m.ofFormat++
}

// finish sets what is not of the parser's making. raw is the record as it stands in the file.
func (m *Maker) finish(b *event.Batch, e *event.Event, v formats.Verdict, raw []byte, cut bool) {
	e.Raw = raw
	if e.Offset == 0 || m.latin1 {
		if text, decoded := m.decode(b, raw, e.Offset); decoded {
			e.SetRaw(text) // the id is made of what stands in the file
		}
	}
	if cut {
		e.SetBool(event.BoolTruncated, true)
	}
	if m.conf.Original {
		e.Set("original", event.StringValue(event.View(e.Raw)))
	}
	if m.conf.Observed {
		e.Set("observed_date", event.TimeValue(b.ReadAt))
	}
	if m.positions {
		e.LogFile = m.path
		e.Has |= event.HasLogOffset
	}
	m.meaning(e, v, b.Arena())
}

// outside says why a record is left out because of its time; "" if it is not.
func (m *Maker) outside(e *event.Event) string {
	switch {
	case e.Time.IsZero():
		if !m.notAfter.IsZero() {
			return "no_time"
		}
	case e.Time.Before(m.notBefore):
		return "before_start"
	case !m.notAfter.IsZero() && !e.Time.Before(m.notAfter):
		return "after_end"
	}
	return ""
}

// Prime shows the parser lines that come before those to read, so that it remembers what it would if it had read them. data
// begins and ends at line boundaries and stands at offset at of the stream. No records are made.
func (m *Maker) Prime(data []byte, at int64) {
	b := event.NewBatch("")
	for len(data) > 0 {
		line, where := data, at
		at += int64(bytes.IndexByte(data, '\n') + 1)
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if line = line[:min(len(line), m.max)]; len(line) == 0 {
			continue
		}
		p, o, in, ok := m.piece(line, where)
		if ok {
			if o.open = far; p.More {
				o.open, o.at = where, p.Time()
			}
		}
		m.parser.Continues(in)
		line, _ = m.decode(b, line, where)
		_, _, part := m.look(b, line, where)
		m.place(part, where)
		b.Undo()
	}
}

func (m *Maker) tally(name, reason string, n int64) {
	for i := range m.counted {
		if c := &m.counted[i]; c.name == name && c.reason == reason {
			c.n += n
			return
		}
	}
	m.counted = append(m.counted, counter{name, reason, n})
}

func (m *Maker) tallyFormat() {
	if m.ofFormat > 0 {
		m.tally("format", m.format, m.ofFormat)
		m.ofFormat = 0
	}
}

// Flush hands what was counted to Count: once for a batch, when it is sure to be sent.
func (m *Maker) Flush() {
	m.tallyFormat()
	for i := range m.counted {
		if c := &m.counted[i]; c.n != 0 {
			m.count(c.name, c.reason, c.n)
			c.n = 0
		}
	}
	if len(m.counted) > 64 {
		m.counted = m.counted[:0]
	}
}

// Discard forgets what was counted since the last Flush: the batch was given up.
func (m *Maker) Discard() {
	m.ofFormat = 0
	for i := range m.counted {
		m.counted[i].n = 0
	}
}
