package event

import "strings"

// Clone returns a deep copy of the event that owns all its memory. It keeps its stream and offset and so its id.
func (e *Event) Clone() *Event {
	b := &Batch{Events: make([]Event, 1)}
	if e.batch != nil {
		b.Stream, b.Span, b.ReadAt = e.batch.Stream, e.batch.Span, e.batch.ReadAt
	}
	e.copyTo(&b.Events[0])
	b.adopt()
	return &b.Events[0]
}

// copyTo copies the event and all that it points to.
func (e *Event) copyTo(d *Event) {
	*d = *e
	for _, s := range d.texts() {
		*s = strings.Clone(*s)
	}
	d.Raw = append([]byte(nil), e.Raw...)
	d.Extra = make([]Field, len(e.Extra))
	for i, f := range e.Extra {
		d.Extra[i] = Field{strings.Clone(f.Key), f.Value.clone()}
	}
	d.Plain = false // its strings are no views into a checked block any more
}

func (v Value) clone() Value {
	switch v.kind {
	case String, Object:
		return textValue(v.kind, strings.Clone(v.Str()))
	case List:
		l := make([]string, v.num)
		for i, s := range v.List() {
			l[i] = strings.Clone(s)
		}
		return ListValue(l)
	}
	return v
}

// texts lists all fixed string fields.
func (e *Event) texts() []*string {
	return []*string{
		&e.Method, &e.Path, &e.Query, &e.HTTPVersion, &e.Host, &e.Client, &e.ForwardedFor, &e.UserAgent, &e.Referer,
		&e.RequestID, &e.GlobalRequestID, &e.User, &e.UserID, &e.UserName, &e.UserDomainID, &e.ProjectID, &e.ProjectDomainID,
		&e.Logger, &e.Program, &e.Service, &e.Kind, &e.RecordClass, &e.Format, &e.TimestampBasis, &e.Outcome, &e.SourceSystem,
		&e.LogFile, &e.Error, &e.Route, &e.ResourceType, &e.ResourceID, &e.APIVersion, &e.Action,
	}
}
