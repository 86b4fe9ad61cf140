package schema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Naming says what fields are called. Names of ECS and OTel are written with their dots, one key each.
type Naming string

// The namings.
const (
	OVH  Naming = "ovh"  // the schema's own names
	ECS  Naming = "ecs"  // the Elastic Common Schema
	OTel Naming = "otel" // OpenTelemetry's semantic conventions
)

// Namings lists all of them, the default first.
func Namings() []Naming { return []Naming{OVH, ECS, OTel} }

// NamingByName returns the naming of that name; "" is the default.
func NamingByName(name string) (Naming, error) {
	if name == "" {
		return OVH, nil
	}
	if n := Naming(name); slices.Contains(Namings(), n) {
		return n, nil
	}
	return "", fmt.Errorf("unknown naming %q: use ovh, ecs or otel", name)
}

// NameOf returns what the naming calls the field; "" where it leaves it out.
func (n Naming) NameOf(f *Field) string {
	switch n {
	case ECS:
		return f.ECS
	case OTel:
		return f.OTel
	case OVH:
	}
	return f.Name
}

// extraPrefix stands before the name of a field that the schema does not know.
func (n Naming) extraPrefix() string {
	switch n {
	case ECS:
		return "labels."
	case OTel:
		return "x."
	case OVH:
	}
	return ""
}

// constants of each record that the schema does not have.
func (n Naming) constants() string {
	if n == ECS {
		return `,"ecs.version":"9.0.0","event.kind":"event"`
	}
	return ""
}

// appendDataset appends the name of a kind with that of its system: openstack.compute_api.
func appendDataset(dst []byte, system, kind string) []byte {
	if system != "" {
		dst = event.AppendEscaped(dst, system)
		dst = append(dst, '.')
	}
	from := len(dst)
	dst = event.AppendEscaped(dst, kind)
	for i, c := range dst[from:] {
		if c == '-' || c == '/' {
			dst[from+i] = '_'
		}
	}
	return dst
}

// isAddress reports whether s can be an address: what is none is not put where far ends keep addresses.
func isAddress(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefABCDEF:.") == "" && strings.ContainsAny(s, ":.")
}

// severities holds OpenTelemetry's number for each level of syslog.
var severities = [...]int64{21, 19, 18, 17, 13, 10, 9, 5}

// levelNames are those of syslog.
var levelNames = [...]string{"emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"}

// isMethod reports whether OpenTelemetry knows the method.
func isMethod(s string) bool {
	switch s {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return true
	}
	return false
}

// namer appends the fields of events under a naming other than the schema's own. It is made once for an encoder.
type namer struct {
	naming Naming
	keys   [len(table)]string // `,"name":`
	extras map[string]string  // by the schema's name
}

func newNamer(n Naming) *namer {
	w := &namer{naming: n, extras: map[string]string{}}
	for i := range table {
		f := &table[i]
		w.keys[i] = `,"` + n.NameOf(f) + `":`
		if f.slot == inExtra {
			w.extras[f.Name] = w.keys[i]
		}
	}
	return w
}

// encode appends an event.
func (w *namer) encode(dst []byte, e *event.Event, opt EncodeOptions) []byte {
	begin := len(dst)
	for i := range table {
		f := &table[i]
		switch f.slot {
		case inExtra:
			continue
		case eventID:
			if !opt.EventID {
				continue
			}
		case constant, text, instant, status, size, duration, processID, level, offset, boolean:
		}
		v := f.Get(e)
		if v.Kind() == event.Absent || f.Name == "user" && (e.UserID != "" || e.UserName != "") {
			continue // user says what another field says
		}
		dst = w.field(dst, w.keys[i], f, v, e)
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		if key, known := w.extras[x.Key]; known {
			dst = append(dst, key...)
		} else {
			dst = append(dst, `,"`...)
			dst = append(dst, w.naming.extraPrefix()...)
			dst = event.AppendEscaped(dst, x.Key)
			dst = append(dst, `":`...)
		}
		dst = event.AppendValue(dst, x.Value)
	}
	dst = w.derive(append(dst, w.naming.constants()...), e)
	dst[begin] = '{' // in place of the first comma
	dst = append(dst, '}')
	if opt.Newline {
		dst = append(dst, '\n')
	}
	return dst
}

// field appends one field, in the form that the naming gives it.
func (w *namer) field(dst []byte, key string, f *Field, v event.Value, e *event.Event) []byte {
	plain := func(key string) []byte { return event.AppendValue(append(dst, key...), v) }
	switch f.Name {
	case "kind":
		dst = append(append(dst, key...), '"')
		return append(appendDataset(dst, e.SourceSystem, v.Str()), '"')
	case "http_version":
		version, is := strings.CutPrefix(v.Str(), "HTTP/")
		if is && w.naming == OTel {
			dst = append(dst, `,"network.protocol.name":"http"`...)
		}
		return event.AppendString(append(dst, key...), version)
	case "api_response_time_num":
		if w.naming == ECS {
			return strconv.AppendInt(append(dst, key...), int64(e.Duration), 10)
		}
		return event.AppendSeconds(append(dst, key...), e.Duration)
	case "client":
		if w.naming == ECS && !isAddress(v.Str()) {
			return plain(`,"source.address":`)
		}
	case "level":
		n := v.Int()
		known := n >= 0 && n < int64(len(severities))
		if w.naming == OTel && known {
			return strconv.AppendInt(append(dst, key...), severities[n], 10)
		}
		if w.naming == ECS && known {
			return append(append(append(plain(key), `,"log.level":"`...), levelNames[n]...), '"')
		}
	case "method":
		if w.naming == OTel && !isMethod(v.Str()) {
			dst = append(append(dst, key...), `"_OTHER"`...)
			return plain(`,"http.request.method_original":`)
		}
	}
	return plain(key)
}

// derive appends what others look for and what stands in another field already.
func (w *namer) derive(dst []byte, e *event.Event) []byte {
	switch w.naming {
	case ECS:
		switch e.RecordClass {
		case event.ClassAccess:
			dst = append(dst, `,"event.category":["api","web"]`...)
		case event.ClassAudit:
			dst = append(dst, `,"event.category":["configuration"]`...)
		}
		if e.Action != "" {
			if _, own := e.Get("action_name"); !own {
				dst = event.AppendString(append(dst, `,"event.action":`...), e.Action)
			}
			dst = append(append(append(dst, `,"event.type":["`...), eventType(e.Action)...), `"]`...)
		}
	case OTel:
		if e.Outcome == "failure" && e.Has&event.HasStatus != 0 {
			dst = append(strconv.AppendInt(append(dst, `,"error.type":"`...), int64(e.Status), 10), '"')
		}
	case OVH:
	}
	return dst
}

// eventType is the Elastic Common Schema's word for an action.
func eventType(action string) string {
	verb, _, _ := strings.Cut(action, "/")
	switch verb {
	case "read":
		return "access"
	case "create":
		return "creation"
	case "update":
		return "change"
	case "delete":
		return "deletion"
	case "login", "authenticate":
		return "start"
	}
	return "info"
}
