// Package event holds the data that flows through the agent: events, the batches that own them, and the bounded pool that
// batches come from.
//
// A batch is the unit of ownership, order, backpressure and acknowledgement. Its events' strings are views into the
// batch's arena: reading them costs nothing, keeping them after the call that showed them is a bug. Package plugins says
// who owns a batch when; package schema gives every field its public name.
package event

import "time"

// Event is one API request, audit record or log line in the common schema.
//
// A string field that is empty is absent. Time is absent when it is zero. The numbers and bools say by a bit in Has
// whether they hold a value; use the Set methods, which keep value and bit together. Everything that few lines have
// stands in Extra.
//
// The strings are valid until the batch is released; whoever needs them longer copies them (strings.Clone).
type Event struct {
	Time time.Time // the instant on the line, UTC; TimestampBasis says whether the request's start or its end

	Method          string // GET, POST, …
	Path            string // as on the line, up to the first '?'
	Query           string // after the first '?', without it
	HTTPVersion     string // HTTP/1.1
	Host            string // host that the client asked for
	Client          string // first address of the forwarded list, without port and brackets
	ForwardedFor    string // X-Forwarded-For as logged
	UserAgent       string
	Referer         string
	RequestID       string
	GlobalRequestID string // the caller's request id
	User            string // principal's label: user_name, else user_id, else access_key_id
	UserID          string
	UserName        string
	UserDomainID    string
	ProjectID       string
	ProjectDomainID string
	Logger          string // oslo logger
	Program         string // process as the line or the file names it: nova-api, haproxy
	Service         string // OpenStack project: nova, cinder, …
	Kind            string // compute-api, volume-api, …
	RecordClass     string // one of the Class constants
	Format          string // name of the format that matched
	TimestampBasis  string // start or end
	Outcome         string // success, failure, pending, unknown
	SourceSystem    string // openstack, ovhcloud, …
	LogFile         string // path as configured and found; only where positions are asked for
	Error           string // why a line is unparsed
	Route           string // template of the path, e.g. /servers/{id}/action
	ResourceType    string // server, volume, …
	ResourceID      string
	APIVersion      string // v2.1
	Action          string // read, create, update, delete, …

	Duration  time.Duration // of the request; in the schema seconds
	Size      int64         // of the response in bytes
	ProcessID int64
	Offset    int64 // of the record's first byte in the uncompressed stream
	Length    int64 // of the record for records that were closed by wall time, else 0; part of the id only then
	Status    int32 // HTTP status
	Level     int32 // syslog severity, 0 to 7

	// Has tells which of the numbers and bools hold a value, Bools holds the bools.
	Has   Mask
	Bools Mask

	// Dropped marks an event that a processor dropped: no output sees it.
	Dropped bool
	// Plain is the parser's word that no string field which it set to a view into the arena contains a quote or a
	// newline. It lets the
	// JSON encoder copy such views of a clean arena unread. Processors need not care.
	Plain bool

	Extra []Field // every other field, searched linearly
	Raw   []byte  // the record as read, without the newline

	batch *Batch
	// line is the hash of the first line as it was read, once Raw was replaced; 0: Raw is what was read.
	line  uint64
	index int32
}

// Mask is a set of an Event's numeric and bool fields.
type Mask uint16

// The numeric and bool fields of Event.
const (
	HasStatus Mask = 1 << iota
	HasSize
	HasDuration
	HasProcessID
	HasLevel
	HasLogOffset // the offset is shown as log_offset_int
	BoolIdentityUnverified
	BoolTruncated
	BoolSizeIncludesHeaders
	BoolEventIDSynthetic
)

// Values of Event.RecordClass.
const (
	ClassAccess     = "api_access"
	ClassAudit      = "audit"
	ClassServiceLog = "service_log"
	ClassUnparsed   = "unparsed"
)

// SetStatus sets the HTTP status.
func (e *Event) SetStatus(v int32) { e.Status, e.Has = v, e.Has|HasStatus }

// SetSize sets the response's size in bytes.
func (e *Event) SetSize(v int64) { e.Size, e.Has = v, e.Has|HasSize }

// SetDuration sets how long the request took.
func (e *Event) SetDuration(v time.Duration) { e.Duration, e.Has = v, e.Has|HasDuration }

// SetProcessID sets the id of the process that wrote the line.
func (e *Event) SetProcessID(v int64) { e.ProcessID, e.Has = v, e.Has|HasProcessID }

// SetLevel sets the syslog severity, 0 to 7.
func (e *Event) SetLevel(v int32) { e.Level, e.Has = v, e.Has|HasLevel }

// SetBool sets one of the Bool… fields.
func (e *Event) SetBool(field Mask, v bool) {
	e.Has |= field
	if v {
		e.Bools |= field
	} else {
		e.Bools &^= field
	}
}

// Unset makes numeric and bool fields absent.
func (e *Event) Unset(fields Mask) { e.Has &^= fields; e.Bools &^= fields }

// Is reports whether the Bool… field is present and true.
func (e *Event) Is(field Mask) bool { return e.Has&e.Bools&field != 0 }

// Get returns the extra field of that name; ok is false when there is none. It does not look at the fixed fields: package
// schema finds any field by name.
func (e *Event) Get(key string) (v Value, ok bool) {
	for i := range e.Extra {
		if e.Extra[i].Key == key {
			return e.Extra[i].Value, true
		}
	}
	return Value{}, false
}

// Set sets the extra field of that name. An absent value removes it.
func (e *Event) Set(key string, v Value) {
	for i := range e.Extra {
		if e.Extra[i].Key != key {
			continue
		}
		if v.kind == Absent {
			e.Extra = append(e.Extra[:i], e.Extra[i+1:]...)
		} else {
			e.Extra[i].Value = v
		}
		return
	}
	if v.kind != Absent {
		e.Extra = append(e.Extra, Field{key, v})
	}
}

// SetRaw replaces Raw, by a processor that takes something out of it, and keeps the event's id, which is made of what was read. raw
// must live as long as the event's batch and is not changed any more.
func (e *Event) SetRaw(raw []byte) {
	if e.line == 0 {
		e.line = hashLine(e.Raw)
	}
	e.Raw = raw
}

// Batch returns the batch that owns the event; nil for an event that was made outside of one.
func (e *Event) Batch() *Batch { return e.batch }

// Index is the event's place in Batch().Events.
func (e *Event) Index() int { return int(e.index) }

// Reset makes the event empty but for its place in its batch. The memory of Extra is kept.
func (e *Event) Reset() {
	x := e.Extra
	*e = Event{Extra: x[:0], batch: e.batch, index: e.index}
}
