package schema

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// EncodeOptions says what an output wants beside the fields that an event holds.
type EncodeOptions struct {
	// EventID adds event_id, which costs a hash for each event.
	EventID bool
	// Newline ends each encoding with a newline (NDJSON).
	Newline bool
	// Naming says what the fields are called; empty is OVH. The agent sets it from an output's key naming.
	Naming Naming
}

// Encoder turns events into JSON objects with the schema's names, in the schema's order, extra fields last. Encoders with
// equal options are interchangeable: outputs that want the same share one encoding of a batch. Append is safe for
// concurrent use.
type Encoder struct {
	opt    EncodeOptions
	fields []encField
	namer  *namer // nil for the schema's own names
	// scratches are for Append.
	scratches sync.Pool // of *Scratch
	// room is enough for all fields, with texts of textRoom, and for what is moved too much.
	room int
}

// Keys and texts are moved in pieces of a fixed size, whatever their length: that costs a third of a call. What is moved too much is
// overwritten by what comes next.
const (
	// keyRoom holds the longest key, `,"api_response_size_includes_headers_bool":`.
	keyRoom = 48
	// textRoom is how long a text is at most to be moved so: what event.Block has memory for. Numbers and times are shorter.
	textRoom = 64
	// halfRoom is enough for most texts, and for the keys of all.
	halfRoom = textRoom / 2
)

// Arrays within structs: the compiler moves these without a call, because they cannot overlap.
type (
	wideKey  struct{ bytes [keyRoom]byte }
	wideText struct{ bytes [textRoom]byte }
	half     struct{ bytes [halfRoom]byte }
)

type encField struct {
	key   [keyRoom]byte // `,"name":"` or `,"name":`
	n     uint8         // length of key
	slot  slot
	mask  event.Mask
	width uint8   // bytes of the whole number that stands at off; 0: none does
	off   uintptr // of a text or of such a number
}

// setNumber says where a whole number stands.
func (f *encField) setNumber() {
	switch f.slot {
	case status:
		f.width, f.off = 4, unsafe.Offsetof(shape.Status)
	case level:
		f.width, f.off = 4, unsafe.Offsetof(shape.Level)
	case size:
		f.width, f.off = 8, unsafe.Offsetof(shape.Size)
	case processID:
		f.width, f.off = 8, unsafe.Offsetof(shape.ProcessID)
	case offset:
		f.width, f.off = 8, unsafe.Offsetof(shape.Offset)
	}
}

// NewEncoder makes an encoder.
func NewEncoder(opt EncodeOptions) *Encoder {
	c := &Encoder{opt: opt}
	if opt.Naming != "" && opt.Naming != OVH {
		c.namer = newNamer(opt.Naming)
		return c
	}
	c.room = len(beginning) + keyRoom + textRoom
	for i := range table {
		f := &table[i]
		switch f.slot {
		case inExtra, constant:
			continue
		case eventID:
			if !opt.EventID {
				continue
			}
		}
		key := `,"` + f.Name + `":`
		if f.slot == text || f.slot == eventID {
			key += `"`
		}
		x := encField{n: uint8(len(key)), slot: f.slot, mask: f.mask, off: f.off}
		x.setNumber()
		if copy(x.key[:], key) < len(key) || f.slot == text && len(key) > halfRoom {
			panic("BUG: keyRoom is too small for " + f.Name)
		}
		c.fields = append(c.fields, x)
		c.room += len(key) + textRoom + len(`"`)
	}
	return c
}

// Options returns what the encoder was made with.
func (c *Encoder) Options() EncodeOptions { return c.opt }

// Append appends e's encoding to dst: from the batch's cache where it is there, else encoded now.
func (c *Encoder) Append(dst []byte, e *event.Event) []byte {
	if b := e.Batch(); b != nil {
		if p := b.Encoded(c, e.Index()); p != nil {
			return append(dst, p...)
		}
	}
	s, ok := c.scratches.Get().(*Scratch)
	if !ok {
		s = new(Scratch)
	}
	defer c.scratches.Put(s)
	return c.Encode(dst, e, s)
}

// Run returns the cached encodings of as many of the first events as stand next to each other in their batch, and how many these
// are, so that an output can write them without a copy. The bytes are good for as long as the events are.
func (c *Encoder) Run(events []*event.Event) (p []byte, n int) {
	if len(events) == 0 || events[0].Batch() == nil {
		return nil, 0
	}
	return events[0].Batch().EncodedRun(c, events)
}

// Scratch is what an encoding goroutine remembers between events.
type Scratch struct {
	time event.TimeEncoder
	// known are constants that were found to need no escaping, each in the pair that its address tells.
	known [1 << knownBits][2]knownText
}

// knownBits makes room for several times the names of formats, services, routes and the like that neighbours share.
const knownBits = 6

type knownText struct {
	text string
	copy wideText
}

// is reports whether v is the text, at the same place and so without a look at it.
func (k *knownText) is(v string) bool {
	return len(v) == len(k.text) && unsafe.StringData(v) == unsafe.StringData(k.text)
}

// place returns where v is remembered, if it is.
func (s *Scratch) place(v string) *[2]knownText {
	const golden = 0x9e3779b97f4a7c15 // spreads addresses that are near each other
	return &s.known[uint64(uintptr(unsafe.Pointer(unsafe.StringData(v))))*golden>>(64-knownBits)]
}

// escaped appends v as the inside of a JSON string, and remembers it if it needs no escaping and is not of the batch b. A string of the
// batch's arena is used again under another content; s keeps any other one alive and so unchanged.
func (s *Scratch) escaped(dst []byte, v string, b *event.Batch) []byte {
	n := len(dst)
	dst = event.AppendEscaped(dst, v)
	if len(dst)-n == len(v) && len(v) <= textRoom && b != nil && !b.Owns(v) {
		k := s.place(v)
		k[1] = k[0]
		k[0].text = v
		copy(k[0].copy.bytes[:], v)
	}
	return dst
}

const beginning = `{"schema_version":"` + Version + `"`

// Encode appends e's encoding to dst without looking for a cached one.
func (c *Encoder) Encode(dst []byte, e *event.Event, s *Scratch) []byte {
	if c.namer != nil {
		return c.namer.encode(dst, e, c.opt)
	}
	var block event.Block // what is a view into it can be copied as it is
	if b := e.Batch(); b != nil && e.Plain && b.Clean {
		block = b.Block()
	}
	dst = append(dst, beginning...)
	for i := 0; ; i++ {
		if dst, i = c.plain(dst, i, e, block, s); i == len(c.fields) {
			break
		}
		dst = c.field(dst, i, e, block, s)
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		dst = append(dst, ',')
		dst = event.AppendString(dst, x.Key)
		dst = append(dst, ':')
		dst = event.AppendValue(dst, x.Value)
	}
	dst = append(dst, '}')
	if c.opt.Newline {
		dst = append(dst, '\n')
	}
	return dst
}

// plain appends the fields from i on for as long as they are absent, numbers of a few digits, bools, or short texts that are known to
// need no escaping. It returns the first field that is none of that, with room for it unless it is a text. Most of what is encoded
// passes here, so it checks the room once and calls nobody.
func (c *Encoder) plain(dst []byte, i int, e *event.Event, block event.Block, s *Scratch) ([]byte, int) {
	if cap(dst)-len(dst) < c.room {
		dst = slices.Grow(dst, c.room)
	}
	at := unsafe.Pointer(unsafe.SliceData(dst))
	n := len(dst)
	fields := c.fields
	for ; i < len(fields); i++ {
		f := &fields[i]
		if f.slot != text {
			if f.mask != 0 && e.Has&f.mask == 0 {
				continue
			}
			var word uint64 // what is written, the first byte in the lowest, and how many bytes of it
			var size int
			switch {
			case f.width > 0:
				v := int64(*(*int32)(unsafe.Add(unsafe.Pointer(e), f.off)))
				if f.width == 8 {
					v = *(*int64)(unsafe.Add(unsafe.Pointer(e), f.off))
				}
				if uint64(v) >= 1e8 {
					return dst[:n], i
				}
				word = digits(uint32(v))
				none := bits.TrailingZeros64(word|1<<56) / 8 // leading zeros, but for the last digit
				word, size = (word|zeros)>>(8*none), 8-none
			case f.slot != boolean:
				return dst[:n], i
			case e.Bools&f.mask != 0:
				word, size = 't'|'r'<<8|'u'<<16|'e'<<24, 4
			default:
				word, size = 'f'|'a'<<8|'l'<<16|'s'<<24|'e'<<32, 5
			}
			(*wideKey)(unsafe.Add(at, n)).bytes = f.key
			n += int(f.n)
			binary.LittleEndian.PutUint64((*[8]byte)(unsafe.Add(at, n))[:], word)
			n += size
			continue
		}
		v := *(*string)(unsafe.Add(unsafe.Pointer(e), f.off))
		if v == "" {
			continue
		}
		p := unsafe.StringData(v)
		if !block.Has(v) || len(v) > textRoom {
			k := s.place(v)
			switch {
			case k[0].is(v):
				p = &k[0].copy.bytes[0]
			case k[1].is(v):
				p = &k[1].copy.bytes[0]
			default:
				return dst[:n], i
			}
		}
		(*half)(unsafe.Add(at, n)).bytes = (*half)(unsafe.Pointer(&f.key)).bytes
		n += int(f.n)
		(*half)(unsafe.Add(at, n)).bytes = (*half)(unsafe.Pointer(p)).bytes
		if len(v) > halfRoom {
			(*half)(unsafe.Add(at, n+halfRoom)).bytes = (*half)(unsafe.Add(unsafe.Pointer(p), halfRoom)).bytes
		}
		n += len(v)
		*(*byte)(unsafe.Add(at, n)) = '"'
		n++
	}
	return dst[:n], i
}

// field appends the field at which plain stopped.
func (c *Encoder) field(dst []byte, i int, e *event.Event, block event.Block, s *Scratch) []byte {
	f := &c.fields[i]
	if f.slot == instant && e.Time.IsZero() {
		return dst
	}
	dst = append(dst, f.key[:]...)[:len(dst)+int(f.n)]
	switch f.slot {
	case text:
		v := *(*string)(unsafe.Add(unsafe.Pointer(e), f.off))
		if block.Has(v) {
			dst = append(dst, v...)
		} else {
			dst = s.escaped(dst, v, e.Batch())
		}
		dst = append(dst, '"')
	case instant:
		dst = s.time.Append(dst, e.Time)
	case duration:
		dst = event.AppendSeconds(dst, e.Duration)
	case status:
		dst = strconv.AppendInt(dst, int64(e.Status), 10)
	case size:
		dst = strconv.AppendInt(dst, e.Size, 10)
	case processID:
		dst = strconv.AppendInt(dst, e.ProcessID, 10)
	case level:
		dst = strconv.AppendInt(dst, int64(e.Level), 10)
	case offset:
		dst = strconv.AppendInt(dst, e.Offset, 10)
	case eventID:
		dst = append(e.AppendID(dst), '"')
	}
	return dst
}
