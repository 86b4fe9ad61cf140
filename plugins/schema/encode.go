package schema

import (
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
}

type encField struct {
	key  string // `"name":"` or `"name":`, with a leading comma
	off  uintptr
	mask event.Mask
	slot slot
}

// NewEncoder makes an encoder.
func NewEncoder(opt EncodeOptions) *Encoder {
	c := &Encoder{opt: opt}
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
		c.fields = append(c.fields, encField{key, f.off, f.mask, f.slot})
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

// Scratch is what an encoding goroutine remembers between events.
type Scratch struct{ time event.TimeEncoder }

// Encode appends e's encoding to dst without looking for a cached one.
func (c *Encoder) Encode(dst []byte, e *event.Event, s *Scratch) []byte {
	dst = append(dst, `{"schema_version":"`+Version+`"`...)
	b := e.Batch()
	plain := e.Plain && b != nil && b.Clean
	for i := range c.fields {
		f := &c.fields[i]
		if f.slot == text {
			v := *(*string)(unsafe.Add(unsafe.Pointer(e), f.off))
			if v == "" {
				continue
			}
			dst = append(dst, f.key...)
			if plain && b.Contains(v) {
				dst = append(dst, v...)
			} else {
				dst = event.AppendEscaped(dst, v)
			}
			dst = append(dst, '"')
			continue
		}
		if f.mask != 0 && e.Has&f.mask == 0 {
			continue
		}
		switch f.slot {
		case instant:
			if !e.Time.IsZero() {
				dst = append(dst, f.key...)
				dst = s.time.Append(dst, e.Time)
			}
		case status:
			dst = append(dst, f.key...)
			dst = strconv.AppendInt(dst, int64(e.Status), 10)
		case size:
			dst = append(dst, f.key...)
			dst = strconv.AppendInt(dst, e.Size, 10)
		case duration:
			dst = append(dst, f.key...)
			dst = event.AppendSeconds(dst, e.Duration)
		case processID:
			dst = append(dst, f.key...)
			dst = strconv.AppendInt(dst, e.ProcessID, 10)
		case level:
			dst = append(dst, f.key...)
			dst = strconv.AppendInt(dst, int64(e.Level), 10)
		case offset:
			dst = append(dst, f.key...)
			dst = strconv.AppendInt(dst, e.Offset, 10)
		case boolean:
			dst = append(dst, f.key...)
			dst = strconv.AppendBool(dst, e.Bools&f.mask != 0)
		case eventID:
			dst = append(dst, f.key...)
			dst = e.AppendID(dst)
			dst = append(dst, '"')
		}
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
