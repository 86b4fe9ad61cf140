package lines

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// End says what stands behind a block.
type End int

// The ends.
const (
	// More: nobody knows. A last line without a newline, and a record that further lines may continue, stay unused.
	More End = iota
	// Closed: nothing. A last line without a newline is a record that is flagged as truncated.
	Closed
	// Quiet: for a long time nothing. The last record is complete, and its length is part of its id; block ends with a newline.
	Quiet
	// Flush: nobody knows, and nobody waits. The last record is complete; only a line without a newline stays unused.
	Flush
)

// joiner makes one record of several lines.
//
// Which lines these are follows from the lines themselves and those before, never from where blocks end: a line that continues a
// record is joined to it as long as the record keeps within the limits and the line is not longer than peek. A line that cannot be
// joined for one of these reasons closes the record, flags it, and is a flagged record of its own that others may continue.
type joiner struct {
	enabled     bool
	start, rest *regexp.Regexp
	maxLines    int
	maxBytes    int
	peek        int
	apart       time.Duration

	last int64 // where the last line stands, if it belongs to a record that others can continue; far away if not
	rec  record

	pieces []string // of the open record's message
}

// far is a place in front of every file, from which nothing tells anything about its lines.
const far = -1 << 62

// record is the one that lines are joined to.
type record struct {
	open      bool
	from, to  int // in the block, with the last newline
	lines     int
	verdict   formats.Verdict
	kept      bool      // it has an event
	event     int       // its place in the batch
	name, why string    // how it counts
	line      []byte    // its first one, as it stands in the block
	text      int       // where its message begins in the block, -1 if that does not stand there as it is
	time      time.Time // of the last line that has one
	truncated bool
	decoded   bool
	memory    formats.Memory // of the parser before it
	last      int64          // the joiner's last before it
}

func newJoiner(c Config) (joiner, error) {
	j := joiner{
		maxLines: c.Multiline.MaxLines, maxBytes: int(c.Multiline.MaxBytes), apart: c.Multiline.Timeout, last: far,
		peek: int(min(c.Multiline.MaxBytes, c.MaxLine)),
	}
	for _, p := range []struct {
		expr string
		re   **regexp.Regexp
	}{{c.Multiline.Start, &j.start}, {c.Multiline.Continue, &j.rest}} {
		if p.expr == "" {
			continue
		}
		re, err := regexp.Compile(p.expr)
		if err != nil {
			return j, fmt.Errorf("compiling pattern of multiline: %w", err)
		}
		*p.re = re
	}
	j.enabled = c.Records == "all" || j.start != nil || j.rest != nil
	return j, nil
}

// Continuable reports whether a line that follows could continue the last record.
func (m *Maker) Continuable() bool { return m.join.last != far || m.unfinished() }

// StopAt has Join use nothing from that offset of the stream on: it looks at what stands there only to tell how the record before it
// ends.
func (m *Maker) StopAt(offset int64) { m.stop = offset }

// part says how a line stands to the record before it, as the user has it or else as the parser.
func (m *Maker) part(line []byte, v formats.Verdict) formats.Part {
	part := m.parser.Part()
	j := &m.join
	switch {
	case v == formats.Access:
		return formats.Whole
	case j.start != nil && j.start.Match(line):
		return formats.Head
	case j.rest != nil && j.rest.Match(line):
		return formats.Rest
	case j.start != nil && j.rest == nil:
		return formats.Rest
	case j.rest != nil && part == formats.Whole && v == formats.Unparsed:
		return formats.Head
	}
	return part
}

// Join does what Fill does, and leaves a record unused that the lines behind the block may continue. Where it used nothing, need
// says how long a block must be to tell, and done where the lines end that are complete.
func (m *Maker) Join(b *event.Batch, block []byte, at int64, limit int, end End) (used, done, need int) {
	defer m.putTools(m.takeTools())
	j, r := &m.join, &m.join.rec
	if !j.enabled {
		return m.plain(b, block, at, limit, end)
	}
	n, lines, events, complete := 0, 0, len(b.Events), 0
	for done < len(block) && (n < limit && at+int64(done) < m.stop || r.open || m.among(at+int64(done))) {
		line, next, cut := m.line(block, done, end)
		where := at + int64(done)
		among := m.among(where)
		if r.open && (next == 0 && len(block)-done > j.peek || next-done > j.peek+1) {
			m.beyond(b, block, done, where)
			continue
		}
		if next == 0 {
			break
		}
		if len(line) == 0 {
			switch {
			case r.open && m.fits(next, time.Time{}):
				m.extend(line, "", next, cut, false)
				lines++
				done = next
			case r.open:
				m.close(b, block, true)
			default:
				m.tally("skipped", "empty", 1)
				n++
				lines++
				done = next
			}
			continue
		}
		memory, outs := m.parser.Memory(), m.outputs()
		raw, a, f := line, assembled{}, byItself
		if m.outs != nil || formats.IsPart(line) {
			a, f = m.assemble(b, block, done, next, line, at, end)
		}
		if f == later {
			complete, need = bytes.LastIndexByte(block, '\n')+1, m.max+2
			break
		}
		if f == passed {
			m.pass(next)
			lines++
			done = next
			continue
		}
		if f == begins {
			line, raw, cut = a.text, a.raw, a.cut
		}
		line, decoded := m.decode(b, line, where)
		e, v, part := m.look(b, line, where)
		if r.open && part == formats.Rest && m.fits(next, e.Time) {
			b.Undo()
			m.extend(line, m.parser.Text(), next, cut, decoded)
			j.last = where
			lines++
			done = next
			continue
		}
		if r.open {
			m.close(b, block, part == formats.Rest)
		}
		if (n >= limit || where >= m.stop) && !among {
			b.Undo()
			m.parser.Recall(memory)
			m.recall(outs)
			break
		}
		if among {
			part = formats.Whole // a batch cannot end here, so no record can stay open
		}
		n++
		lines++
		torn := part == formats.Rest && (where-j.last < formats.Window || where == 0 && m.patterns()) || where == 0 && m.parser.Torn()
		*r = record{
			open: part != formats.Whole && len(line) < m.max, from: done, to: next, lines: 1,
			time: e.Time, decoded: decoded, memory: memory, last: j.last, line: raw, event: len(b.Events) - 1,
		}
		if m.outs != nil {
			m.outs.before = outs
		}
		e.Offset = where
		m.begin(b, e, line, v)
		r.truncated = cut || torn && r.kept
		m.place(part, where)
		if !r.open {
			if e := m.close(b, block, false); e != nil && f == begins {
				a.mark(e)
			}
		}
		done = next
	}
	used = done
	if r.open && end == More {
		used = r.from
		lines -= m.giveUp(b)
		need = max(j.maxBytes, r.to-r.from) + j.peek + 2 + need
	} else if r.open {
		if e := m.close(b, block, false); e != nil && end == Quiet {
			e.Length = int64(r.to - r.from)
		}
	}
	clear(j.pieces)
	m.tally("lines", "", int64(lines))
	m.tally("bytes", "", int64(used))
	m.tally("events", "", int64(len(b.Events)-events))
	return used, max(done, complete), need
}

// pass passes over a part of a line that was assembled before.
func (m *Maker) pass(next int) {
	r := &m.join.rec
	if !r.open {
		m.tally("joined", "", 1)
		return
	}
	r.to, r.text = next, -1
	r.lines++
}

func (m *Maker) patterns() bool { return m.join.start != nil || m.join.rest != nil }

// line returns the line at from and where the next one begins; 0 if it is not complete.
func (m *Maker) line(block []byte, from int, end End) (line []byte, next int, cut bool) {
	i := bytes.IndexByte(block[from:], '\n')
	next = from + i + 1
	if i < 0 {
		if end != Closed {
			return nil, 0, false
		}
		i, next, cut = len(block)-from, len(block), true
	}
	line = block[from : from+i]
	if len(line) > m.max {
		line, cut = line[:m.max], true
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, next, cut
}

// look parses a line into a new event.
func (m *Maker) look(b *event.Batch, line []byte, where int64) (*event.Event, formats.Verdict, formats.Part) {
	e := b.Append()
	m.parser.At(where)
	v := m.parser.Parse(line, e, b.Arena())
	return e, v, m.part(line, v)
}

// beyond closes the open record before a line that is too long to be joined. Whether it would have been shows in its beginning.
func (m *Maker) beyond(b *event.Batch, block []byte, from int, where int64) {
	memory := m.parser.Memory()
	m.parser.Continues(false)
	head, _ := m.decode(b, block[from:from+m.join.peek], where)
	_, _, part := m.look(b, head, where)
	b.Undo()
	m.parser.Recall(memory)
	m.close(b, block, part == formats.Rest)
}

// fits reports whether a line that ends at next keeps the record within its limits.
func (m *Maker) fits(next int, at time.Time) bool {
	j, r := &m.join, &m.join.rec
	if r.lines >= j.maxLines || next-r.from > j.maxBytes {
		return false
	}
	if at.IsZero() {
		return true
	}
	near := r.time.IsZero() || at.Sub(r.time).Abs() <= j.apart
	r.time = at
	return near
}

// extend joins a line to the open record.
func (m *Maker) extend(line []byte, text string, next int, cut, decoded bool) {
	j, r := &m.join, &m.join.rec
	if len(text) != len(line) || next-r.to != len(line)+1 {
		r.text = -1
	}
	j.pieces = append(j.pieces, text)
	r.to = next
	r.lines++
	r.truncated = r.truncated || cut
	r.decoded = r.decoded || decoded
}

// place notes where a line stands that may be continued.
func (m *Maker) place(part formats.Part, where int64) {
	m.join.last = far
	if part != formats.Whole {
		m.join.last = where
	}
}

// begin begins a record with the event of its first line, or without one.
func (m *Maker) begin(b *event.Batch, e *event.Event, line []byte, v formats.Verdict) {
	j, r := &m.join, &m.join.rec
	r.verdict = v
	r.name, r.why, r.kept = m.judge(e, v)
	if !r.kept {
		b.Undo()
		return
	}
	message, _ := e.Get("message")
	text := message.Str()
	j.pieces = append(j.pieces[:0], text)
	r.text = -1
	if !r.decoded && r.to-r.from == len(line)+1 && strings.HasSuffix(event.View(line), text) {
		r.text = r.to - 1 - len(text)
	}
}

// giveUp undoes the open record and returns how many lines it had.
func (m *Maker) giveUp(b *event.Batch) int {
	r := &m.join.rec
	if r.kept {
		b.Undo()
	}
	m.parser.Recall(r.memory)
	if m.outs != nil {
		m.outs.now = m.outs.before
	}
	m.join.last = r.last
	r.open = false
	return r.lines
}

// close finishes the open record and returns its event, if it has one.
func (m *Maker) close(b *event.Batch, block []byte, truncated bool) *event.Event {
	r := &m.join.rec
	r.open = false
	if r.name == "unparsed" {
		m.tally(r.name, r.why, 1)
	} else if r.name != "" {
		m.tally(r.name, r.why, int64(r.lines))
	}
	if r.truncated = r.truncated || truncated && r.kept; r.truncated {
		m.tally("truncated", "", 1)
	}
	if !r.kept {
		return nil
	}
	e := &b.Events[r.event]
	raw := r.line
	if r.lines > 1 {
		m.tally("joined", "", int64(r.lines-1))
		raw = bytes.TrimSuffix(bytes.TrimSuffix(block[r.from:r.to], []byte{'\n'}), []byte{'\r'})
		e.Set("message", event.StringValue(m.message(b, raw, block)))
		e.Plain = false
	}
	m.finish(b, e, r.verdict, raw, r.truncated)
	return e
}

// message joins the texts of the open record's lines.
func (m *Maker) message(b *event.Batch, raw, block []byte) string {
	j, r := &m.join, &m.join.rec
	if r.text >= 0 {
		return strings.TrimRight(event.View(block[r.text:r.from+len(raw)]), "\n")
	}
	n := len(j.pieces)
	for _, p := range j.pieces {
		n += len(p)
	}
	text := b.Arena().Alloc(n)[:0]
	for _, p := range j.pieces {
		text = append(append(text, p...), '\n')
	}
	return strings.TrimRight(event.View(text), "\n")
}
