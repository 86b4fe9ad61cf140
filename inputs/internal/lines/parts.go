package lines

import (
	"bytes"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Lines that a container's runtime cut are put together again before they are parsed: formats.Piece says how they look. A record is
// made at the place of the first part, with its id, and the other parts are passed over; lines of the other output that stand among
// them are records as everywhere. All of that, down to where no line is without its end, takes at most max_line bytes of the file, and the times of two parts lie no more than
// multiline.timeout apart. If the last part does not come within that, or while the file is quiet, what is there is a truncated record;
// parts that come later are no requests, whatever they look like, but continuations.

// output is what is known of the parts of lines of one output of a container.
type output struct {
	first, end int64     // the line that was put together last: its other parts stand behind first and before end
	open       int64     // where the last part stands that was not followed by another one; far away if there is none
	at         time.Time // its time
}

// outputs are those of a container.
type outputs [formats.Outputs]output

// container is what is known of a file that a container's runtime writes.
type container struct {
	now    outputs
	before outputs // the open record
	start  int64   // where the first of the lines in hand begins whose parts stand among each other
}

// assembled is a line made of parts.
type assembled struct {
	text []byte // as if it had not been cut
	raw  []byte // the parts as they stand in the file
	span int    // bytes of the file from the first part to the end of the last one
	cut  bool   // the end is missing
	late bool   // because the file was quiet
}

// fate is what becomes of a line that may be a part of one.
type fate uint8

const (
	byItself fate = iota // it is a line like others
	passed               // it is in a record that was made before
	begins               // it begins an assembled line
	later                // nobody knows yet where its line ends
)

// outputs returns what is known of the outputs, for lines that may be read again.
func (m *Maker) outputs() outputs {
	if m.outs == nil {
		return outputs{{open: far}, {open: far}}
	}
	return m.outs.now
}

// recall has the outputs be what outputs returned.
func (m *Maker) recall(o outputs) {
	if m.outs != nil {
		m.outs.now = o
	}
}

// among reports whether lines before that place are parts that were used already, so that no batch can end there.
func (m *Maker) among(where int64) bool {
	if m.outs == nil {
		return false
	}
	for i := range m.outs.now {
		if where < m.outs.now[i].end {
			return true
		}
	}
	return false
}

// unfinished reports whether a line of a container has no end so far.
func (m *Maker) unfinished() bool {
	if m.outs == nil {
		return false
	}
	for i := range m.outs.now {
		if m.outs.now[i].open != far {
			return true
		}
	}
	return false
}

// assembled makes a record of an assembled line.
func (m *Maker) assembled(b *event.Batch, a *assembled, at int64) {
	if e := m.add(b, a.raw, a.text, at, a.cut); e != nil {
		a.mark(e)
	}
}

// mark sets what is special about an assembled record.
func (a *assembled) mark(e *event.Event) {
	e.Plain = false // the text does not stand in the block
	if a.late {
		e.Length = int64(a.span)
	}
}

// piece reads a line of a container's log. It is asked of all lines, once one was a part. in says that the line goes on in the middle of
// one that has a record already.
func (m *Maker) piece(line []byte, where int64) (p formats.Piece, o *output, in, ok bool) {
	if m.outs == nil && !formats.IsPart(line) {
		return p, nil, false, false
	}
	if p, ok = formats.PieceOf(line); !ok {
		return p, nil, false, false
	}
	if m.outs == nil {
		m.outs = &container{now: m.outputs(), before: m.outputs()}
	}
	o = &m.outs.now[p.Output]
	in = where > o.open && where-o.open < formats.Window && m.near(&p, o.at)
	return p, o, in, true
}

// near reports whether the runtime got a part not long after that time.
func (m *Maker) near(p *formats.Piece, at time.Time) bool {
	t := p.Time()
	return !t.IsZero() && t.Sub(at).Abs() <= m.join.apart
}

// assemble looks whether the line from..next of the block is a part, and finds the others. How it is to be parsed is told to the parser.
func (m *Maker) assemble(b *event.Batch, block []byte, from, next int, line []byte, at int64, end End) (a assembled, f fate) {
	where := at + int64(from)
	p, o, in, ok := m.piece(line, where)
	m.parser.Continues(false)
	switch {
	case !ok:
		return a, byItself
	case where > o.first && where < o.end:
		return a, passed
	}
	if !p.More {
		m.parser.Continues(in)
		o.open = far
		return a, byItself
	}
	if !m.among(where) {
		if end == More && !m.settled(block, from) {
			return a, later
		}
		m.outs.start = where
	}
	parts, last, silent := m.others(block, from, next, &p, end, at)
	stop := parts[len(parts)-1].next
	m.parser.Continues(in)
	*o = output{first: where, end: at + int64(stop), open: far}
	a.span, a.cut = stop-from, last.More
	if last.More {
		o.open, o.at = at+int64(parts[len(parts)-1].from), last.Time()
		a.late = silent && end == Quiet
	}
	a.text, a.raw = m.put(b, block, &p, line, parts, !last.More)
	return a, begins
}

// physical is a part as it stands in the block.
type physical struct{ from, next, text, end int }

// settled reports whether the block tells what becomes of the part at from, and of all that are begun before that one has its end: a
// batch cannot end among them.
func (m *Maker) settled(block []byte, from int) bool {
	var open [formats.Outputs]bool
	for i := from; len(block)-from <= m.max; {
		line, next, _ := m.line(block, i, More)
		if next == 0 {
			return false
		}
		if p, ok := formats.PieceOf(line); ok {
			if open[p.Output] = p.More; !slices.Contains(open[:], true) {
				return true
			}
		}
		i = next
	}
	return true
}

// others finds the parts that follow the one in from..next, which is the first of those returned. silent says that the block is over
// before the last one.
func (m *Maker) others(block []byte, from, next int, p *formats.Piece, end End, at int64) (parts []physical, last formats.Piece, silent bool) {
	parts, last = append(m.parts[:0], physical{from, next, from + p.From, from + p.To}), *p
	room := int(m.outs.start-at) + m.max // no part ends behind it
	for i := next; last.More; {
		line, next, cut := m.line(block, i, end)
		if next == 0 || cut || next > room {
			silent = next == 0 && len(block) <= room
			break
		}
		if q, ok := formats.PieceOf(line); ok && q.Like(p) {
			if !m.near(&q, last.Time()) {
				break
			}
			parts, last = append(parts, physical{i, next, i + q.From, i + q.To}), q
		}
		i = next
	}
	m.parts = parts[:0]
	return parts, last, silent
}

// put puts the parts together. A single one is taken as it is.
func (m *Maker) put(b *event.Batch, block []byte, p *formats.Piece, line []byte, parts []physical, whole bool) (text, raw []byte) {
	if len(parts) == 1 {
		return line, line
	}
	last := parts[len(parts)-1]
	texts, together := m.texts[:0], true
	for i, x := range parts {
		texts = append(texts, block[x.text:x.end])
		together = together && (i == 0 || x.from == parts[i-1].next)
	}
	text = p.Join(line, texts, whole, b.Arena())
	clear(texts)
	m.texts = texts[:0]
	if together {
		return text, trimEnd(block[parts[0].from:last.next])
	}
	n := 0
	for _, x := range parts {
		n += x.next - x.from
	}
	raw = b.Arena().Alloc(n)[:0]
	for _, x := range parts {
		raw = append(raw, block[x.from:x.next]...)
	}
	return text, trimEnd(raw)
}

// trimEnd takes the end of line off a record.
func trimEnd(raw []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte{'\n'}), []byte{'\r'})
}
