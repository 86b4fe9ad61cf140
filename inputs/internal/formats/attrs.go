package formats

import (
	"encoding/binary"
	"strconv"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Attributes are built in the parser's buffer. The formats with many of them write through an object, which moves names by whole
// words of memory; the others append each name as a constant `,"name":` and its value behind it. Either is handed over at the end.

// attr begins the attributes of a line.
func (p *Parser) attr() []byte { return p.buf[:0] }

// done ends the object and hands it to the event; an empty one is no attribute.
func (p *Parser) done(b []byte, e *event.Event) {
	if len(b) == 0 {
		return
	}
	b[0] = '{'
	b = append(b, '}')
	p.buf = b
	p.setAttributes(e)
}

// extra makes room for a field of that name; an event has few of them, mostly none before. What is put there in its place does not
// have to be moved.
func extra(e *event.Event, name string) *event.Value {
	n := len(e.Extra)
	for i := range n {
		if x := &e.Extra[i]; x.Key == name {
			return &x.Value
		}
	}
	if n < cap(e.Extra) {
		e.Extra = e.Extra[:n+1]
	} else {
		e.Extra = append(e.Extra, event.Field{})
	}
	e.Extra[n].Key = name
	return &e.Extra[n].Value
}

// longestKey is how many bytes a key has at most, with its comma, quotes and colon.
const longestKey = 40

// key is the name of an attribute as it is written: `,"name":`.
type key struct {
	text [longestKey]byte
	n    int
}

func newKey(name string) (k key) {
	text := `,"` + name + `":`
	if k.n = copy(k.text[:], text); k.n < len(text) {
		panic("BUG: the key of an attribute is too long: " + name)
	}
	return k
}

// object writes attributes. There is always room for what has a bounded length.
type object struct {
	b     []byte // as long as there is memory
	n     int    // how much of it is written
	words bool   // see Words
}

// slack is the room that a key and a number need.
const slack = longestKey + 24

// newObject begins the attributes of a line.
func (p *Parser) newObject() object {
	if cap(p.buf) < 1<<10 {
		p.buf = make([]byte, 1<<10)
	}
	return object{b: p.buf[:cap(p.buf)]}
}

// end hands the attributes to the event; none are no attribute.
func (p *Parser) end(o *object, e *event.Event) {
	p.buf = o.b
	if o.n > 0 {
		before := p.words
		p.done(o.b[:o.n], e)
		p.words = before || o.words
	}
}

// room makes sure that n bytes fit, and a key and a number behind them.
func (o *object) room(n int) {
	if len(o.b)-o.n < n+2*slack {
		o.b = append(o.b[:o.n], make([]byte, n+1<<10)...)
		o.b = o.b[:cap(o.b)]
	}
}

// name writes a key. The bytes behind it are overwritten by what follows.
func (o *object) name(k *key) {
	*(*[longestKey]byte)(o.b[o.n:]) = k.text
	o.n += k.n
}

// number writes an attribute that is a number.
func (o *object) number(k *key, v int64) {
	o.name(k)
	if uint64(v) < 10 {
		o.b[o.n] = '0' + byte(v)
		o.n++
	} else {
		o.n = len(number(o.b[:o.n], v))
	}
	o.room(0)
}

// yes writes an attribute that is true.
func (o *object) yes(k *key) {
	o.name(k)
	o.n += copy(o.b[o.n:], "true")
	o.room(0)
}

// text writes an attribute that is a text.
func (o *object) text(k *key, s string) {
	o.words = true
	o.own(k, s)
}

// own writes a text of the server's own: a name of its configuration, a code. Eight bytes at a time are looked at and moved; a
// text that needs escapes is written again.
func (o *object) own(k *key, s string) {
	const l, h = 0x0101010101010101, 0x8080808080808080
	o.name(k)
	o.room(6*len(s) + 2)
	b := o.b[o.n:]
	b[0] = '"'
	b = b[1:]
	var odd uint64
	for i := 0; i < len(s); i += 8 {
		var x uint64
		if i+8 <= len(s) {
			x = le64(s, i)
		} else {
			x = tail(s, i)
		}
		odd |= x | (x - l*0x20) | ((x ^ l*'"') - l) | ((x ^ l*'\\') - l)
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	if odd&h != 0 {
		o.n = len(event.AppendString(o.b[:o.n], s))
		return
	}
	b[len(s)] = '"'
	o.n += len(s) + 2
}

// tail loads the last bytes of s, from i on, which are less than eight; the word is filled up with spaces.
func tail(s string, i int) uint64 {
	x := uint64(0x2020202020202020)
	for k := len(s) - 1; k >= i; k-- {
		x = x<<8 | uint64(s[k])
	}
	return x
}

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
