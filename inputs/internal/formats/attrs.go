package formats

import (
	"strconv"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Attributes are built in the parser's buffer: each key is appended as a constant `,"name":`, which costs a few moves, and its
// value behind it. done then makes an object of it.

// attr begins the attributes of a line.
func (p *Parser) attr() []byte { return p.buf[:0] }

// number appends a number.
func number(b []byte, v int64) []byte {
	switch u := uint64(v); {
	case u < 10:
		return append(b, '0'+byte(u))
	case u < 100:
		return append(b, '0'+byte(u/10), '0'+byte(u%10))
	case u < 1000:
		return append(b, '0'+byte(u/100), '0'+byte(u/10%10), '0'+byte(u%10))
	case u < 100_000:
		if u >= 10_000 {
			b = append(b, '0'+byte(u/10_000))
		}
		return append(b, '0'+byte(u/1000%10), '0'+byte(u/100%10), '0'+byte(u/10%10), '0'+byte(u%10))
	}
	return strconv.AppendInt(b, v, 10)
}

// done ends the object and hands it to the event; an empty one is no attribute.
func (p *Parser) done(b []byte, e *event.Event) {
	if len(b) == 0 {
		return
	}
	b[0] = '{'
	b = append(b, '}')
	p.buf = b
	e.Set("attributes", event.ObjectValue(p.arena.Copy(b)))
}
