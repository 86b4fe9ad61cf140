package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// notification takes the messages of the loggers oslo.messaging.notification.*: the notification as JSON.
//
// cadf is an audit record, class audit:
//
//	{"event_type": "audit.http.request|audit.http.response|identity.…", "payload": {CADF EVENT}, "timestamp": …}
//
// Source: keystonemiddleware/audit, which writes two records for each request (outcome pending, then the result with its status), and
// keystone/notifications.py, which has neither path nor status. They stay two records with the same cadf_id. The time is eventTime,
// the request's start, with its zone; the response's reporterTime less that is the duration. There is no method and no size.
// credential.token is never taken. Where records of class audit are not asked for, the line is a service line.
//
// The same envelope, or the bare CADF event, is taken from files that hold notifications as JSON lines. Other notifications, and
// Python's own spelling of them (_LogNotifier), are service lines.
func (p *Parser) notification(s string, e *event.Event) Verdict {
	if len(s) < 2 || s[0] != '{' {
		p.reason = ReasonCADF
		return Service
	}
	return p.cadfEnvelope(s, e)
}

// cadfEnvelope reads a notification.
func (p *Parser) cadfEnvelope(s string, e *event.Event) Verdict {
	kind, payload, recorded, publisher := "", "", "", ""
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		switch k {
		case "event_type":
			kind = p.str(v)
		case "payload":
			payload = v
		case "timestamp":
			recorded = p.str(v)
		case "publisher_id":
			publisher = p.str(v)
		}
	}
	if m.bad {
		p.reason = ReasonCADF
		p.parts(cadf, atTail, s[min(m.i, len(s)):])
		return Service
	}
	if payload == "" || payload[0] != '{' || kind == "" || member(payload, "typeURI") == "" {
		p.reason = ReasonCADF
		return Service
	}
	v := p.cadfEvent(payload, kind, publisher, e)
	if v == Access {
		if at, ok := p.naiveUTC(recorded); ok {
			e.Set("recorded_date", event.TimeValue(at))
		}
	}
	return v
}

// cadfEvent reads a CADF event. kind is the notification's type, "" for a bare event.
func (p *Parser) cadfEvent(s, kind, publisher string, e *event.Event) Verdict {
	if p.mask>>cadf&1 == 0 {
		p.reason = ReasonNotEnabled
		return Service
	}
	if !p.audit {
		p.reason = ReasonCADF
		return Service
	}
	var id, at, initiator, target, reason, chain string
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		switch k {
		case "id":
			id = p.str(v)
		case "eventTime":
			at = p.str(v)
		case "action":
			e.Set("action", event.StringValue(p.str(v)))
		case "outcome":
			e.Outcome = cadfOutcome(p.str(v))
		case "requestPath":
			e.Path, e.Query = splitTarget(p.str(v))
		case "initiator":
			initiator = v
		case "target":
			target = v
		case "reason":
			reason = v
		case "reporterchain":
			chain = v
		}
	}
	if m.bad {
		wipe(e)
		p.reason = ReasonCADF
		return Service
	}
	start, timed := p.stamp(at)
	if timed {
		e.Time = start
	}
	if end, ok := p.stamp(p.str(member(first(chain), "reporterTime"))); ok && timed && !end.Before(start) && end.Sub(start) <= maxAudited {
		e.SetDuration(end.Sub(start))
	}
	if code, ok := status3(p.str(member(reason, "reasonCode"))); ok {
		e.SetStatus(code)
	}
	identity := strings.HasPrefix(kind, "identity.")
	a := p.cadfInitiator(initiator, identity, e)
	if kind != "" {
		a = event.AppendString(append(a, `,"cadf_event_type":`...), kind)
	}
	if id != "" {
		a = event.AppendString(append(a, `,"cadf_id":`...), id)
	}
	if publisher != "" {
		a = event.AppendString(append(a, `,"cadf_publisher_id":`...), publisher)
	}
	a = p.cadfTarget(target, a)
	if t := p.str(member(reason, "reasonType")); t != "" && t != "HTTP" {
		a = event.AppendString(append(a, `,"cadf_reason":`...), t)
	}
	p.done(a, e)
	p.fillOrigin(e, &nobody, &p.last)
	if p.depth > 0 {
		p.fillOuter(e)
	}
	e.RecordClass = event.ClassAudit
	access(e, cadf, basisStart)
	return Access
}

// maxAudited is the longest time that is believed to lie between the two times of an event.
const maxAudited = 24 * time.Hour

// cadfOutcome is the outcome as the schema spells it.
func cadfOutcome(s string) string {
	switch s {
	case "pending", "success", "failure":
		return s
	}
	return "unknown"
}

// cadfInitiator reads who asked. In keystone's notifications the initiator's id is a made-up one where nobody has logged in
// yet; the user's id then stands beside it. It begins the attributes.
func (p *Parser) cadfInitiator(s string, identity bool, e *event.Event) []byte {
	id, user, name, status := "", "", "", ""
	a := p.attr()
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		switch k {
		case "id":
			id = p.str(v)
		case "user_id":
			user = p.str(v)
		case "name", "username", "user_name":
			name = p.str(v)
		case "project_id":
			if t := present(p.str(v)); t != "" {
				setProject(e, t)
			}
		case "request_id":
			e.RequestID = present(p.str(v))
		case "global_request_id":
			e.GlobalRequestID = present(p.str(v))
		case "domain_id":
			e.UserDomainID = present(p.str(v))
		case "credential":
			status = p.str(member(v, "identity_status"))
		case "host":
			p.client(e, p.str(member(v, "address")))
			e.UserAgent = p.str(member(v, "agent"))
		}
	}
	if user == "" && !identity {
		user = id
	}
	if user = present(user); user != "" && user != "unknown" {
		setUser(e, user)
	}
	if name = present(name); name != "" && name != "unknown" {
		e.UserName, e.User = name, name
	}
	if status != "" {
		a = event.AppendString(append(a, `,"cadf_identity_status":`...), status)
	}
	// A name that did not log in is what somebody typed.
	if status != "" && status != "Confirmed" || identity && e.UserID == "" || identity && e.Outcome == "failure" {
		e.SetBool(event.BoolIdentityUnverified, true)
	}
	return a
}

// cadfTarget reads what was asked for; its type tells the service where nothing else does.
func (p *Parser) cadfTarget(s string, a []byte) []byte {
	m := walk(s)
	p.last = origin{}
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		key := ""
		switch k {
		case "id":
			key = `,"cadf_target_id":`
		case "name":
			key = `,"cadf_target_name":`
		case "typeURI":
			key = `,"cadf_target_type_uri":`
		default:
			continue
		}
		text := p.str(v)
		if text == "" || text == "unknown" {
			continue
		}
		a = event.AppendString(append(a, key...), text)
		if k == "typeURI" {
			p.last = originOfType(text)
		}
	}
	return a
}

// originOfType tells the service from a CADF type.
func originOfType(uri string) origin {
	name := ""
	switch {
	case strings.HasPrefix(uri, "service/compute/baremetal"):
		name = "ironic"
	case strings.HasPrefix(uri, "service/compute"):
		name = "nova"
	case strings.HasPrefix(uri, "service/storage/block"):
		name = "cinder"
	case strings.HasPrefix(uri, "service/storage/image"):
		name = "glance"
	case strings.HasPrefix(uri, "service/storage/object"):
		name = "swift"
	case strings.HasPrefix(uri, "service/network"):
		name = "neutron"
	case strings.HasPrefix(uri, "service/orchestration"):
		name = "heat"
	case strings.HasPrefix(uri, "service/security"):
		name = "keystone"
	}
	o, _ := byProject(name)
	o.program = ""
	return o
}

// stamp reads `2006-01-02T15:04:05.000000+0000`.
func (p *Parser) stamp(s string) (time.Time, bool) {
	if len(s) < 20 || s[10] != 'T' {
		return time.Time{}, false
	}
	naive, _, ok := p.iso(&p.zonedHour, s)
	if !ok {
		return time.Time{}, false
	}
	i := 19
	var ns int64
	if s[i] == '.' {
		f, n := fraction(s[i+1:])
		ns = f
		i += 1 + n
	}
	off, n := offset(s[i:])
	return time.Unix(naive-off, ns).UTC(), n > 0 && i+n == len(s)
}

// naiveUTC reads `2006-01-02 15:04:05.000000`, which is UTC.
func (p *Parser) naiveUTC(s string) (time.Time, bool) {
	if len(s) < 20 || s[10] != ' ' || s[19] != '.' {
		return time.Time{}, false
	}
	naive, _, ok := p.iso(&p.zonedHour, s)
	ns, n := fraction(s[20:])
	return time.Unix(naive, ns).UTC(), ok && n > 0 && 20+n == len(s)
}
