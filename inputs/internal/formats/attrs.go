package formats

import (
	"encoding/binary"
	"fmt"
	"math/bits"
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

// object is the attributes of a line as far as they are written. Its methods return it with one more, so that where it ends is known
// without memory. There is always room for what has a bounded length, up to that many bytes between two texts.
type object []byte

const (
	bounded = 2 << 10
	slack   = longestKey + 24 // what a key and a number need
)

// newObject begins the attributes of a line.
func (p *Parser) newObject() object {
	if cap(p.buf) < bounded {
		p.buf = make([]byte, bounded)
	}
	return p.buf[:0]
}

// end hands the attributes to the event; none are no attribute.
func (p *Parser) end(o object, e *event.Event) {
	p.buf = o
	if len(o) > 0 {
		before := p.words
		p.done(o, e)
		p.words = before
	}
}

// name writes a key. The bytes behind it are overwritten by what follows.
func (o object) name(k *key) object {
	n := len(o)
	*(*[longestKey]byte)(o[n : n+longestKey]) = k.text
	return o[:n+k.n]
}

// number writes an attribute that is a number, three digits at a time.
func (o object) number(k *key, v int64) object {
	o = o.name(k)
	n, u := len(o), uint64(v)
	if u >= 1e6 {
		return strconv.AppendInt(o, v, 10)
	}
	o = o[:n+8]
	if u >= 1000 {
		n += putDigits(o[n:], triples[u/1000])
		binary.LittleEndian.PutUint32(o[n:], triples[u%1000])
		return o[:n+3]
	}
	return o[:n+putDigits(o[n:], triples[u])]
}

// numbers writes attributes that are numbers, those that are not negative.
func (o object) numbers(keys []key, values []int64) object {
	for i, v := range values {
		if v >= 0 {
			o = o.number(&keys[i], v)
		}
	}
	return o
}

// figures reads a number at i for each key and writes it as it stands there, which is quicker than to make a number of it and a text
// again. Behind each number stands its byte of behind. last is where the last one begins, next is behind its byte; 0 says that
// something is not so, or that a number has zeros in front or more than seven digits, or stands within eight bytes of the end.
func (o object) figures(keys []key, s string, i int, behind string) (written object, last, next int) {
	n := len(o)
	b := o[:n+len(keys)*slack]
	behind = behind[:len(keys)]
	for j := range keys {
		if uint(i) > uint(len(s)) || len(s)-i < 8 {
			return nil, 0, 0
		}
		x := le64(s, i)
		last = i
		if byte(x>>8) == behind[j] && byte(x)-'0' <= 9 { // which most are
			i++
		} else {
			length := digitsOf(x)
			if length < 2 || length > 7 || byte(x) == '0' || byte(x>>(8*length)) != behind[j] {
				return nil, 0, 0
			}
			i += length
		}
		k := &keys[j]
		*(*[longestKey]byte)(b[n:]) = k.text
		n += k.n
		binary.LittleEndian.PutUint64(b[n:], x)
		n += i - last
		i++
	}
	return b[:n], last, i
}

// digitsOf is how many of eight bytes, from the lowest on, are digits.
func digitsOf(x uint64) int {
	const l, h = 0x0101010101010101, 0x8080808080808080
	x ^= l * '0'
	return bits.TrailingZeros64((x+l*(0x80-10)|x)&h) / 8
}

// figure writes an attribute that is a number of 1 to 18 digits.
func (o object) figure(k *key, s string) object {
	if len(s) > 1 && s[0] == '0' {
		v, _ := digits(s)
		return o.number(k, v)
	}
	return append(o.name(k), s...)
}

// triples are the numbers below 1000: three digits, and how many of them stand in front of the first one that counts.
var triples = func() (t [1000]uint32) {
	for i := range t {
		t[i] = uint32(le32(fmt.Sprintf("%03d\x00", i), 0)) | uint32(3-len(strconv.Itoa(i)))<<24
	}
	return t
}()

// putDigits writes a number without what stands in front, and a few bytes behind it, and says how long it is.
func putDigits(b []byte, triple uint32) int {
	without := triple >> 24
	binary.LittleEndian.PutUint32(b, triple>>(8*without))
	return int(3 - without)
}

// yes writes an attribute that is true.
func (o object) yes(k *key) object { return append(o.name(k), "true"...) }

// said writes a text that somebody else than the server may have made up: see Words.
func (p *Parser) said(o object, k *key, s string) object {
	p.words = true
	return o.own(k, s)
}

// own writes a text of the server's own: a name of its configuration, a code. Eight bytes at a time are looked at and moved, the last
// ones together with some before them; a text that needs escapes is written again.
func (o object) own(k *key, s string) object {
	if need := 6*len(s) + slack + bounded; cap(o)-len(o) < need {
		o = append(make([]byte, 0, 2*cap(o)+need), o...)
	}
	o = o.name(k)
	n := len(o)
	b := o[n : n+1+max(8, len(s))+1]
	b[0] = '"'
	b = b[1:]
	var x, special uint64
	if len(s) < 8 {
		x = short(s)
		binary.LittleEndian.PutUint64(b, x)
	} else {
		for i := 0; i+8 < len(s); i += 8 {
			x = le64(s, i)
			binary.LittleEndian.PutUint64(b[i:], x)
			special |= odd(x)
		}
		x = le64(s, len(s)-8)
		binary.LittleEndian.PutUint64(b[len(s)-8:], x)
	}
	if special |= odd(x); special&0x8080808080808080 != 0 {
		return event.AppendString(o, s)
	}
	b[len(s)] = '"'
	return o[:n+len(s)+2]
}

// odd sets the high bit of a byte if some byte must be escaped or is no ASCII.
func odd(x uint64) uint64 {
	const l = 0x0101010101010101
	return x | (x - l*0x20) | ((x ^ l*'"') - l) | ((x ^ l*'\\') - l)
}

// short loads less than eight bytes; the word is filled up with spaces.
func short(s string) uint64 {
	const blank = 0x2020202020202020
	n := len(s)
	if n < 4 {
		x := uint64(blank)
		for k := n - 1; k >= 0; k-- {
			x = x<<8 | uint64(s[k])
		}
		return x
	}
	shift := 8 * uint(n-4) // how far the last four bytes stand behind the first four
	return le32(s, 0) | le32(s, n-4)<<shift | blank<<(shift+32)
}
