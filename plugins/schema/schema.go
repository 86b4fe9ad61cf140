// Package schema is the common schema: one table that says for every field its name, type, unit, meaning, where an event
// keeps it, and what it is called in ECS and OpenTelemetry. The JSON encoder, expressions, docs and namings read this table
// and nothing else.
//
// Names, types and order follow common schema version 1: fields 1 to 60 are those that all sources share, 61 to 80 those
// that only the lines of local OpenStack services have.
package schema

import (
	"time"
	"unsafe"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Version is the value of schema_version.
const Version = "1"

// Field is one row of the table. Tables are read-only.
type Field struct {
	Number int        // place in the schema
	Name   string     // snake_case, with its type in the suffix where the base schema has one
	Type   event.Kind // what Get returns when the field is present
	Unit   string     // s, bytes; empty when there is none
	Doc    string     // one phrase
	ECS    string     // name in the Elastic Common Schema; "" when it has none
	OTel   string     // name among OpenTelemetry's semantic conventions; "" when it has none

	off  uintptr // of the fixed field in event.Event
	mask event.Mask
	slot slot
}

// slot says how the event keeps the field.
type slot uint8

const (
	inExtra slot = iota
	constant
	text
	instant
	status
	size
	duration
	processID
	level
	offset
	boolean
	eventID
)

// Fixed reports whether the event has a place of its own for the field, so that access is a load and not a search.
func (f *Field) Fixed() bool { return f.slot != inExtra }

// Text returns the place of a fixed string field in e; nil for other fields. A view into the batch's arena may be stored there.
func (f *Field) Text(e *event.Event) *string {
	if f.slot != text {
		return nil
	}
	return (*string)(unsafe.Add(unsafe.Pointer(e), f.off))
}

// TextOffset returns the offset of a fixed string field in event.Event, for evaluators that compile it in.
func (f *Field) TextOffset() (off uintptr, ok bool) { return f.off, f.slot == text }

// Mask returns the field's bit in Event.Has, 0 when its presence is told otherwise.
func (f *Field) Mask() event.Mask { return f.mask }

// Get returns the field's value in e, absent when it has none.
func (f *Field) Get(e *event.Event) event.Value {
	switch f.slot {
	case text:
		return event.StringValue(*f.Text(e))
	case instant:
		return event.TimeValue(e.Time)
	case constant:
		return event.StringValue(Version)
	case eventID:
		return event.StringValue(e.ID())
	case inExtra:
		v, _ := e.Get(f.Name)
		return v
	}
	if e.Has&f.mask == 0 {
		return event.Value{}
	}
	switch f.slot {
	case status:
		return event.IntValue(int64(e.Status))
	case size:
		return event.IntValue(e.Size)
	case duration:
		return event.FloatValue(float64(e.Duration) / float64(time.Second))
	case processID:
		return event.IntValue(e.ProcessID)
	case level:
		return event.IntValue(int64(e.Level))
	case offset:
		return event.IntValue(e.Offset)
	}
	return event.BoolValue(e.Bools&f.mask != 0)
}

// Set sets the field in e to a value of the field's type; an absent value removes it. The value's strings must live as long as
// the event's batch. It reports false, and changes nothing, when the type is another or the field is not one that can be set
// (schema_version, event_id, log_offset_int). An int is taken where a float is wanted.
func (f *Field) Set(e *event.Event, v event.Value) bool {
	if f.slot == constant || f.slot == eventID || f.slot == offset {
		return false
	}
	if v.Kind() == event.Absent {
		f.unset(e)
		return true
	}
	if v.Kind() == event.Int && f.Type == event.Float {
		v = event.FloatValue(float64(v.Int()))
	}
	if v.Kind() != f.Type {
		return false
	}
	switch f.slot {
	case text:
		*f.Text(e) = v.Str()
	case instant:
		e.Time = v.Time()
	case inExtra:
		e.Set(f.Name, v)
	case status:
		if v.Int() != int64(int32(v.Int())) {
			return false
		}
		e.SetStatus(int32(v.Int()))
	case size:
		e.SetSize(v.Int())
	case duration:
		e.SetDuration(time.Duration(v.Float() * float64(time.Second)))
	case processID:
		e.SetProcessID(v.Int())
	case level:
		if v.Int() != int64(int32(v.Int())) {
			return false
		}
		e.SetLevel(int32(v.Int()))
	case boolean:
		e.SetBool(f.mask, v.Bool())
	}
	return true
}

// Settable reports whether Set can change the field.
func (f *Field) Settable() bool {
	return f.slot != constant && f.slot != eventID && f.slot != offset
}

func (f *Field) unset(e *event.Event) {
	switch f.slot {
	case text:
		*f.Text(e) = ""
	case instant:
		e.Time = time.Time{}
	case inExtra:
		e.Set(f.Name, event.Value{})
	default:
		e.Unset(f.mask)
	}
}

// Lookup finds a field by its name; nil when the schema has none of that name.
func Lookup(name string) *Field {
	for i := range table {
		if table[i].Name == name {
			return &table[i]
		}
	}
	return nil
}

// Fields returns the whole table in the schema's order. Nobody changes it.
func Fields() []Field { return table[:] }

// Get returns any field of e by name: of the schema, or an extra one.
func Get(e *event.Event, name string) event.Value {
	if f := Lookup(name); f != nil {
		return f.Get(e)
	}
	v, _ := e.Get(name)
	return v
}

// Set sets any field of e by name: of the schema (false when the type does not fit), or an extra one.
func Set(e *event.Event, name string, v event.Value) bool {
	if f := Lookup(name); f != nil {
		return f.Set(e, v)
	}
	e.Set(name, v)
	return true
}
