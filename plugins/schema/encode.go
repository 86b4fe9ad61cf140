package schema

import (
	"slices"
	"strconv"
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
}

// steady tells the fields whose values are names of formats, services and the like: neighbours among them make a group, because they
// are mostly the same constants in one event as in the one before, and then written in one go.
func steady(name string) bool {
	switch name {
	case "source_system", "kind", "record_class", "program", "service", "outcome", "format", "timestamp_basis":
		return true
	}
	return false
}

// keyRoom is the room that every key is copied in at once, whatever its length: moves of a fixed size cost a third of a call. It
// holds the longest key, `,"api_response_size_includes_headers_bool":`.
const keyRoom = 48

type encField struct {
	key  [keyRoom]byte // `,"name":"` or `,"name":`
	n    uint8         // length of key
	slot slot
	mask event.Mask
	off  uintptr
	// group is how many fields make up the group that begins here; 0 within and outside of groups.
	group int
}

// NewEncoder makes an encoder.
func NewEncoder(opt EncodeOptions) *Encoder {
	c := &Encoder{opt: opt}
	if opt.Naming != "" && opt.Naming != OVH {
		c.namer = newNamer(opt.Naming)
		return c
	}
	first := -1 // of the group that the field before belongs to
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
		if copy(x.key[:], key) < len(key) {
			panic("BUG: keyRoom is too small for " + f.Name)
		}
		c.fields = append(c.fields, x)
		switch {
		case !steady(f.Name):
			first = -1
		case first < 0:
			first = len(c.fields) - 1
			fallthrough
		default:
			c.fields[first].group++
		}
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
	var s Scratch
	return c.Encode(dst, e, &s)
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
	// clean holds for each field the last constant that was found to need no escaping.
	clean [len(table)]string
	// groups holds by its first field how a group was written last, if all of it was clean constants.
	groups [len(table)][]byte
}

// group writes the group of steady fields that begins at field i to d[n:] and returns both.
func (c *Encoder) group(d []byte, n int, e *event.Event, s *Scratch, i int) ([]byte, int) {
	fields := c.fields[i : i+c.fields[i].group]
	last := s.groups[i]
	for k := range fields {
		v := *(*string)(unsafe.Add(unsafe.Pointer(e), fields[k].off))
		if was := s.clean[i+k]; len(v) != len(was) || len(v) > 0 && unsafe.StringData(v) != unsafe.StringData(was) {
			last = nil
			break
		}
	}
	if len(last) > 0 {
		if len(d)-n < len(last) {
			d = room(d[:n], len(last))
		}
		return d, n + copy(d[n:], last)
	}
	b := e.Batch()
	p, constant := d[:n], b != nil
	for k := range fields {
		f := &fields[k]
		v := *(*string)(unsafe.Add(unsafe.Pointer(e), f.off))
		s.clean[i+k] = ""
		if v == "" {
			continue
		}
		p = append(p, f.key[:f.n]...)
		from := len(p)
		p = event.AppendEscaped(p, v)
		// A string of the arena is used again under another content; s keeps any other one alive and so unchanged.
		if constant = constant && len(p)-from == len(v) && !b.Owns(v); constant {
			s.clean[i+k] = v
		}
		p = append(p, '"')
	}
	s.groups[i] = s.groups[i][:0]
	if constant {
		s.groups[i] = append(s.groups[i], p[n:]...)
	}
	return p[:cap(p)], len(p)
}

// Encode appends e's encoding to dst without looking for a cached one.
func (c *Encoder) Encode(dst []byte, e *event.Event, s *Scratch) []byte {
	if c.namer != nil {
		return c.namer.encode(dst, e, c.opt)
	}
	const begin = `{"schema_version":"` + Version + `"`
	n := len(dst)
	d := room(dst, 1<<10)
	n += copy(d[n:], begin)
	b := e.Batch()
	var plain event.Block // what is a view into it can be copied as it is
	if e.Plain && b != nil && b.Clean {
		plain = b.Block()
	}
	fields := c.fields
	for i := 0; i < len(fields); i++ {
		f := &fields[i]
		if f.group > 0 {
			d, n = c.group(d, n, e, s, i)
			i += f.group - 1
			continue
		}
		if f.slot == text {
			v := *(*string)(unsafe.Add(unsafe.Pointer(e), f.off))
			if v == "" {
				continue
			}
			if len(d)-n < keyRoom+6*len(v)+1 { // an escaped byte takes six at most
				d = room(d[:n], keyRoom+6*len(v)+1)
			}
			*(*[keyRoom]byte)(d[n:]) = f.key
			n += int(f.n)
			if last := s.clean[i]; len(v) == len(last) && unsafe.StringData(v) == unsafe.StringData(last) {
				n += copy(d[n:], v)
			} else if plain.Has(v) {
				n += copy(d[n:], v)
			} else {
				grown := len(event.AppendEscaped(d[:n], v)) - n
				n += grown
				// A string of the arena is used again under another content; s keeps any other one alive and so unchanged.
				if grown == len(v) && b != nil && !b.Owns(v) {
					s.clean[i] = v
				}
			}
			d[n] = '"'
			n++
			continue
		}
		if f.mask != 0 && e.Has&f.mask == 0 || f.slot == instant && e.Time.IsZero() {
			continue
		}
		const most = 64 // bytes of any value below
		if len(d)-n < keyRoom+most {
			d = room(d[:n], keyRoom+most)
		}
		*(*[keyRoom]byte)(d[n:]) = f.key
		n += int(f.n)
		p := d[:n]
		switch f.slot {
		case instant:
			p = s.time.Append(p, e.Time)
		case status:
			p = appendInt(p, int64(e.Status))
		case size:
			p = appendInt(p, e.Size)
		case duration:
			p = event.AppendSeconds(p, e.Duration)
		case processID:
			p = appendInt(p, e.ProcessID)
		case level:
			p = appendInt(p, int64(e.Level))
		case offset:
			p = appendInt(p, e.Offset)
		case boolean:
			p = strconv.AppendBool(p, e.Bools&f.mask != 0)
		case eventID:
			p = append(e.AppendID(p), '"')
		}
		n = len(p)
	}
	dst = d[:n]
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

// pairs holds the numbers 00 to 99.
const pairs = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"

// appendInt appends v in decimal. Most numbers of access lines have few digits.
func appendInt(b []byte, v int64) []byte {
	if v < 0 || v >= 1e6 {
		return strconv.AppendInt(b, v, 10)
	}
	n := uint32(v)
	switch {
	case n < 10:
		return append(b, byte('0'+n))
	case n < 100:
		return append(b, pairs[2*n], pairs[2*n+1])
	case n < 1000:
		r := n % 100
		return append(b, byte('0'+n/100), pairs[2*r], pairs[2*r+1])
	case n < 10000:
		q, r := n/100, n%100
		return append(b, pairs[2*q], pairs[2*q+1], pairs[2*r], pairs[2*r+1])
	}
	return appendPair(appendInt(b, int64(n/100)), n%100)
}

func appendPair(b []byte, r uint32) []byte { return append(b, pairs[2*r], pairs[2*r+1]) }

// room returns all of b's memory, with room for at least n bytes after its length.
func room(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = slices.Grow(b, n)
	}
	return b[:cap(b)]
}
