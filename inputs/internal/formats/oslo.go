package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// oslo takes a line of oslo.log: `DATE TIME[.,]mmm [PID ]LEVEL LOGGER [CONTEXT] MESSAGE`.
//
// Source: openstack/oslo.log oslo_log/_options.py, logging_context_format_string. The time is local, without a zone, when the
// line was written. The fraction can have four digits (1000, by rounding), stand behind a comma, be there twice
// (log_config_append) or not at all. Grizzly aligned the level to the right and put the logger in brackets. Lines of an exception
// have no context: the prefix of logging_exception_prefix is repeated on each of them. `[instance: UUID] ` may stand before the message.
//
// Apache's error log with ErrorLogFormat "%{cu}t %M" puts its own time, with microseconds, in front of all that its WSGI
// processes write: that is told here by its six digits, and what follows is read in turn.
func (p *Parser) oslo(s string, e *event.Event) Verdict {
	naive, utc, ok := p.iso(&p.isoHour, s)
	if !ok {
		if len(s) > 19 && s[10] == ' ' && s[16] == ':' {
			p.reason = ReasonBadTime
		}
		return Unparsed
	}
	if p.depth > 0 {
		utc = p.zoned(naive, utc, 0)
	}
	i := 19
	var ns int64
	if len(s) > 24 && s[19] == '.' && s[23] == ' ' {
		a, b, c := s[20]-'0', s[21]-'0', s[22]-'0'
		if a > 9 || b > 9 || c > 9 {
			return Unparsed
		}
		ns = int64(a)*1e8 + int64(b)*1e7 + int64(c)*1e6
		i = 23
	} else {
		for k := 0; k < 2 && i < len(s) && (s[i] == '.' || s[i] == ','); k++ {
			f, n := fraction(s[i+1:])
			if n == 0 {
				return Unparsed
			}
			if n >= 6 && k == 0 && s[i] == '.' && !p.env.inError {
				p.peeled("Apache error log")
				v := &p.env
				v.inError, v.timeOnly = true, !v.used
				v.errorTime, v.local, v.localSec, v.localNsec = naive, true, utc, f
				text := strings.TrimPrefix(s[i+1+n:], " ")
				verdict := p.inError(text, e)
				if p.reason == ReasonApacheError {
					p.apachePart(text)
				}
				return verdict
			}
			if k == 0 {
				ns = f
				if n == 4 && s[i+1:i+5] == "1000" {
					ns = 1e9
				}
			}
			i += 1 + n
		}
	}
	if i >= len(s) || s[i] != ' ' {
		return Unparsed
	}
	p.precise = i > 19
	i++

	// The process id may be missing, the level may be padded.
	var pid int64
	hasPID := false
	from := i
	for i < len(s) && s[i]-'0' <= 9 {
		pid = pid*10 + int64(s[i]-'0')
		i++
	}
	if i > from {
		if i-from > 10 || i >= len(s) || s[i] != ' ' {
			return p.ceph(s[from:], e)
		}
		hasPID = true
		i++
	}
	for i < len(s) && s[i] == ' ' {
		i++
	}
	level, n := osloLevel(s[i:])
	if n == 0 {
		return p.ceph(s[from:], e)
	}
	i += n
	for i < len(s) && s[i] == ' ' {
		i++
	}
	bracketed := i < len(s) && s[i] == '['
	if bracketed {
		i++
	}
	from = i
	m := &p.logger
	if !bracketed && m.n > 0 && i+m.n < len(s) && s[i+m.n] == ' ' && s[i:i+m.n] == string(m.text[:m.n]) {
		i += m.n
	} else {
		for i < len(s) && isLoggerByte(s[i]) {
			i++
		}
		m = nil
	}
	logger := s[from:i]
	if bracketed && i < len(s) && s[i] == ']' {
		i++
	}
	if logger == "" || i < len(s) && s[i] != ' ' {
		return Unparsed
	}

	p.quoted = false
	e.Time = time.Unix(utc, ns).UTC()
	if hasPID {
		e.SetProcessID(pid)
	}
	e.SetLevel(level)
	e.Logger = logger
	if !p.env.inError {
		p.writesMulti() // Apache puts its prefix on each line of a record
	}
	p.trace = false
	if m == nil {
		m = p.lookLogger(logger)
	}
	msg := ""
	context := false
	p.near.format = noFormat
	if i+1 < len(s) {
		msg = s[i+1:]
		if msg != "" && msg[0] == '[' {
			if n := p.context(msg, e); n > 0 {
				context = true
				msg = msg[n:]
			}
		}
	}
	return p.message(msg, m, context, e)
}

// message decides by the logger what grammar the text after the prefix has.
func (p *Parser) message(whole string, m *loggerMemory, context bool, e *event.Event) Verdict {
	msg := whole
	if len(msg) > 0 && msg[0] == '[' {
		msg = withoutInstance(msg)
	}
	v := Unparsed
	switch m.which {
	case wsgiLogger:
		v = p.eventlet(msg, e)
	case novaRequestLogger, placementRequestLogger:
		v = p.requestlog(msg, m.which, e)
	case notificationLogger:
		v = p.notification(msg, e)
	case startDoneLogger:
		v = p.startDone(msg, e)
	case ironicLogger:
		v = p.ironic(msg, e)
	}
	if v == Unparsed && m.which == wsgiLogger && p.reason == "" {
		v = p.startDone(msg, e)
	}
	if m.which != notificationLogger || v != Access {
		p.fillOrigin(e, &m.from, &nobody)
	}
	if p.depth > 0 {
		p.fillOuter(e)
	}
	if v == Access {
		if e.RecordClass == "" {
			p.unverified(e)
		}
		if p.env.inError {
			p.misplaced(e, m)
		}
		return v
	}
	p.env.message = whole
	context = context && !p.odd
	p.osloPart(whole, m, context, e)
	if p.reason == "" && p.near.format != noFormat && p.open == 0 {
		return Unparsed // nearly an access line: no silence about what may be one in a new form
	}
	if p.reason == "" {
		p.reason = ReasonOslo
		if strings.HasPrefix(whole, tracebackHead) {
			// Lines of an exception that is logged repeat the prefix; eventlet's own tracebacks go on without.
			p.reason = ReasonTraceback
			if p.trace = context; context {
				p.traceAt = p.at
			}
		} else if !context && e.Level == 3 && e.Has&event.HasLevel != 0 {
			p.reason = ReasonTraceback
		}
	}
	return Service
}

// withoutInstance takes `[instance: UUID] ` off the head of a message.
func withoutInstance(s string) string {
	const head, uuid = "[instance: ", 36
	if n := len(head) + uuid; len(s) > n+1 && s[:len(head)] == head && isUUID(s[len(head):n]) && s[n:n+2] == "] " {
		return s[n+2:]
	}
	return s
}

func isLoggerByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '.' || c == '_' || c >= '0' && c <= '9' || c == '-'
}

// osloLevel reads a level's name and returns its syslog severity and the length with the space behind it.
func osloLevel(s string) (level int32, n int) {
	if strings.HasPrefix(s, "INFO ") {
		return 6, 5
	}
	if s == "" || s[0] > 'Z' {
		return 0, 0
	}
	name, _, ok := field(s[:min(len(s), 12)])
	if !ok {
		return 0, 0
	}
	switch name {
	case "WARNING", "WARN":
		level = 4
	case "ERROR":
		level = 3
	case "DEBUG", "TRACE":
		level = 7
	case "CRITICAL":
		level = 2
	case "AUDIT":
		level = 5
	default:
		return 0, 0
	}
	return level, len(name) + 1
}

// context reads the bracket at the head of s and returns its length with the space behind it; 0 if there is none.
//
// What its tokens mean follows from how many there are: `-` is no context; `GLOBAL REQUEST …` since 2022 (oslo.log 4.8.0), where
// GLOBAL is None, req-… or missing; `REQUEST …` before. Then 2 tokens are user and project, or project and user names with
// devstack's format, which has a global id; 5 are user, project, domain, user's domain, project's domain; 6 have the system
// scope after the domain.
func (p *Parser) context(s string, e *event.Event) int {
	if n := p.usualContext(s, e); n > 0 {
		return n
	}
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return 0
	}
	n := end + 1
	if n < len(s) && s[n] == ' ' {
		n++
	}
	text := s[1:end]
	p.odd, p.unstripped = text != "-" && !strings.Contains(text, "req-"), s
	p.quoted = strings.IndexByte(text, '"') >= 0
	if text == "-" {
		return n
	}
	var tok [9]string
	count := 0
	for rest := text; count < len(tok); count++ {
		i := strings.IndexByte(rest, ' ')
		if i < 0 {
			tok[count] = rest
			count++
			break
		}
		tok[count], rest = rest[:i], rest[i+1:]
	}
	t := tok[:count]
	global := count > 1 && strings.HasPrefix(t[1], "req-") && (t[0] == "None" || t[0] == "" || t[0] == "-" || strings.HasPrefix(t[0], "req-"))
	if global {
		e.GlobalRequestID = present(t[0])
		t = t[1:]
	}
	if len(t) == 0 || !strings.HasPrefix(t[0], "req-") {
		return n
	}
	e.RequestID = t[0]
	switch t = t[1:]; len(t) {
	case 2:
		user, project := present(t[0]), present(t[1])
		if global && !isID(user) && !isID(project) {
			user, project = project, user
		}
		setUser(e, user)
		setProject(e, project)
	case 5, 6:
		setUser(e, present(t[0]))
		setProject(e, present(t[1]))
		if d := present(t[2]); d != "" {
			e.Set("domain_id", event.StringValue(d))
		}
		if len(t) == 6 {
			if scope := present(t[3]); scope != "" {
				e.Set("system_scope", event.StringValue(scope))
			}
		}
		e.UserDomainID, e.ProjectDomainID = present(t[len(t)-2]), present(t[len(t)-1])
	}
	return n
}

// usualContext is context for the most frequent shape, where everything stands at fixed places:
// `[None req-UUID USER PROJECT - - UD PD] ` with 32 digits for user and project.
func (p *Parser) usualContext(s string, e *event.Event) int {
	const req, user, project, scope = 6, 47, 80, 113
	if len(s) < 121 || s[:10] != "[None req-" || s[46] != ' ' || s[79] != ' ' || s[112:117] != " - - " || !isUUID(s[req+4:req+40]) || !hex32(s, user) || !hex32(s, project) {
		return 0
	}
	rest := s[117:]
	if len(rest) >= 17 && rest[:17] == "default default] " {
		e.UserDomainID, e.ProjectDomainID = rest[:7], rest[8:15]
		rest = rest[17:]
	} else {
		end := strings.IndexByte(rest, ']')
		if end < 0 || end+1 >= len(rest) || rest[end+1] != ' ' {
			return 0
		}
		a, b, ok := field(rest[:end])
		if !ok || strings.ContainsAny(rest[:end], "\"") || strings.IndexByte(b, ' ') >= 0 {
			return 0
		}
		e.UserDomainID, e.ProjectDomainID = present(a), present(b)
		rest = rest[end+2:]
	}
	e.RequestID = s[req : req+40]
	e.UserID, e.ProjectID = s[user:user+32], s[project:project+32]
	e.User = e.UserID
	return len(s) - len(rest)
}

// present is s, or "" for the spellings of nothing.
func present(s string) string {
	if s == "-" || s == "None" {
		return ""
	}
	return s
}

// setUser puts an id or a name where it belongs.
func setUser(e *event.Event, s string) {
	if isID(s) {
		e.UserID = s
	} else {
		e.UserName = s
	}
	e.User = s
}

func setProject(e *event.Event, s string) {
	if isID(s) {
		e.ProjectID = s
	} else {
		e.Set("project_name", event.StringValue(s))
	}
}

// misplaced marks a record in Apache's error log that does not fit there: WSGI processes' records of several lines have the
// log's prefix on each line, so a newline in a user's name makes a whole record of what follows it. A true record was written
// when Apache wrote the line, and by the service whose file it is.
func (p *Parser) misplaced(e *event.Event, m *loggerMemory) {
	const widest = 15 * 60
	_, off := e.Time.In(p.loc).Zone()
	if d := e.Time.Unix() + int64(off) - p.env.errorTime; p.env.errorTime != 0 && (d > widest || d < -widest) {
		p.suspect |= forgedLine
	}
	if p.file.service != "" && m.from.service != "" && p.file.service != m.from.service {
		p.suspect |= forgedLine
	}
}

// devstack takes oslo.log's line as devstack sets it for systemd: `LEVEL LOGGER [CONTEXT] MESSAGE`. Source: devstack's
// functions, setup_systemd_logging. The time and the process are the journal's.
func (p *Parser) devstack(s string, e *event.Event) Verdict {
	level, n := osloLevel(s)
	if n == 0 {
		return Unparsed
	}
	i := n
	for i < len(s) && isLoggerByte(s[i]) {
		i++
	}
	logger := s[n:i]
	if !strings.Contains(logger, ".") || i+2 >= len(s) || s[i] != ' ' || s[i+1] != '[' {
		return Unparsed
	}
	msg := s[i+1:]
	p.quoted = false
	if n = p.context(msg, e); n == 0 {
		return Unparsed
	}
	return p.journalled(level, logger, msg[n:], e)
}

// journalled goes on behind the context of a line without a time of its own.
func (p *Parser) journalled(level int32, logger, msg string, e *event.Event) Verdict {
	e.Time = p.outerTime()
	e.SetLevel(level)
	e.Logger = logger
	p.multi, p.trace = true, false
	return p.message(msg, p.lookLogger(logger), true, e)
}

// unverified marks access lines that may carry the identity of another request. nova, neutron and glance log a 401, an
// OPTIONS and a request for the versions with the id, user and project of the request before it on the same connection or
// thread: they never reach the filter that sets the context anew. cinder and placement are right.
func (p *Parser) unverified(e *event.Event) {
	switch e.Service {
	case "nova", "neutron", "glance":
	default:
		return
	}
	if e.Kind == kindMetadata {
		return // never carries an identity
	}
	if e.Status == 401 && e.Has&event.HasStatus != 0 || e.Method == "OPTIONS" || isVersionPath(e.Path) {
		e.SetBool(event.BoolIdentityUnverified, true)
	}
}

// isVersionPath reports whether a path asks for the list of versions or for one version: "/", "/v2.1", "/v2.1/", "/versions",
// under any one mount prefix that is a service's.
func isVersionPath(s string) bool {
	if len(s) > 64 || len(s) == 0 || s[0] != '/' {
		return false
	}
	if len(s) > 6 && s[1] == 'v' && (s[3] == '/' || s[5] == '/') {
		return false // the everyday path: more than the version
	}
	for len(s) > 1 && s[1] == '/' {
		s = s[1:]
	}
	if len(s) > 1 && s[len(s)-1] == '/' {
		s = s[:len(s)-1]
	}
	if s == "/" || s == "/versions" {
		return true
	}
	seg := s[1:]
	if i := strings.IndexByte(seg, '/'); i >= 0 {
		switch seg[:i] {
		case "compute", "nova", "networking", "neutron", "image", "glance", "openstack-nova", "openstack-neutron", "openstack-glance":
			return isVersionPath(seg[i:])
		}
		return false
	}
	switch seg {
	case "compute", "nova", "networking", "image":
		return true
	}
	if len(seg) < 2 || seg[0] != 'v' || seg[1]-'0' > 9 {
		return false
	}
	for _, c := range []byte(seg[1:]) {
		if c-'0' > 9 && c != '.' {
			return false
		}
	}
	return true
}
