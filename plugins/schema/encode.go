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
}

// Encoder turns events into JSON objects with the schema's names, in the schema's order, extra fields last. Encoders with
// equal options are interchangeable: outputs that want the same share one encoding of a batch. Append is safe for
// concurrent use.
type Encoder struct {
	opt    EncodeOptions
	fields []encField
	steps  []step
}

// step is a run of fields that are written together: one field, or a group of neighbours whose values are names of formats,
// services and the like. Those are mostly the same constants in one event as in the one before, and then written in one go.
type step struct{ first, end int }

// steady tells the fields that make groups.
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
}

// NewEncoder makes an encoder.
func NewEncoder(opt EncodeOptions) *Encoder {
	c := &Encoder{opt: opt}
	before := false // the field before is a steady one
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
		n := len(c.fields)
		if k := len(c.steps) - 1; k >= 0 && steady(f.Name) && before {
			c.steps[k].end = n
		} else {
			c.steps = append(c.steps, step{n - 1, n})
		}
		before = steady(f.Name)
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

// constant reports whether the fields of a group hold the same constants as last time.
func (s *Scratch) constant(c *Encoder, e *event.Event, g step) bool {
	for i := g.first; i < g.end; i++ {
		v, last := *(*string)(unsafe.Add(unsafe.Pointer(e), c.fields[i].off)), s.clean[i]
		if len(v) != len(last) || len(v) > 0 && unsafe.StringData(v) != unsafe.StringData(last) {
			return false
		}
	}
	return true
}

// Encode appends e's encoding to dst without looking for a cached one.
func (c *Encoder) Encode(dst []byte, e *event.Event, s *Scratch) []byte {
	const begin = `{"schema_version":"` + Version + `"`
	n := len(dst)
	d := room(dst, 1<<10)
	n += copy(d[n:], begin)
	b := e.Batch()
	plain := e.Plain && b != nil && b.Clean
	for _, g := range c.steps {
		from, group := n, g.end-g.first > 1
		if group {
			if last := s.groups[g.first]; len(last) > 0 && s.constant(c, e, g) {
				if len(d)-n < len(last) {
					d = room(d[:n], len(last))
				}
				n += copy(d[n:], last)
				continue
			}
			s.groups[g.first] = s.groups[g.first][:0]
		}
		for i := g.first; i < g.end; i++ {
			f := &c.fields[i]
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
				} else if plain && b.Contains(v) {
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
				p = strconv.AppendInt(p, int64(e.Status), 10)
			case size:
				p = strconv.AppendInt(p, e.Size, 10)
			case duration:
				p = event.AppendSeconds(p, e.Duration)
			case processID:
				p = strconv.AppendInt(p, e.ProcessID, 10)
			case level:
				p = strconv.AppendInt(p, int64(e.Level), 10)
			case offset:
				p = strconv.AppendInt(p, e.Offset, 10)
			case boolean:
				p = strconv.AppendBool(p, e.Bools&f.mask != 0)
			case eventID:
				p = append(e.AppendID(p), '"')
			}
			n = len(p)
		}
		if group && s.constant(c, e, g) {
			s.groups[g.first] = append(s.groups[g.first], d[from:n]...)
		}
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

// room returns all of b's memory, with room for at least n bytes after its length.
func room(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = slices.Grow(b, n)
	}
	return b[:cap(b)]
}
