package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// jsonLine is what is looked for in a line that is a JSON object; values stand as they do there.
type jsonLine struct {
	log, stream, at                                  string // docker; at also of others
	MESSAGE, hostField, ident, pid, realtime, prio   string // journald
	unit, container                                  string
	LOGGER, LOGLEVEL, REQUEST, USER, USERNAME        string // journald, from oslo.log with use_journal
	PROJECT, PROJECTNAME                             string
	payload, module, level, hostname, program, stamp string // kolla's fluentd
	message, name, levelname, created, asctime       string // oslo.log
	process, context, funcname, traceback            string
	request, user, project, logtag                   string
	eventType, typeURI                               string // notifications
	others                                           int    // members that tell nothing here
}

// read walks over the line.
func (j *jsonLine) read(s string) bool {
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		if v == "null" {
			continue
		}
		if at := j.member(k); at != nil {
			*at = v
		} else if k != "attrs" {
			j.others++
		}
	}
	return !m.bad
}

// member is the place of a member; nil of one that tells nothing.
func (j *jsonLine) member(k string) *string {
	switch k {
	case "log":
		return &j.log
	case "stream":
		return &j.stream
	case "logtag", "_p":
		return &j.logtag
	case "time", "@timestamp", "timestamp":
		return &j.at
	case "MESSAGE":
		return &j.MESSAGE
	case "_HOSTNAME":
		return &j.hostField
	case "SYSLOG_IDENTIFIER":
		return &j.ident
	case "_PID":
		return &j.pid
	case "__REALTIME_TIMESTAMP":
		return &j.realtime
	case "PRIORITY":
		return &j.prio
	case "_SYSTEMD_UNIT":
		return &j.unit
	case "CONTAINER_NAME":
		return &j.container
	case "LOGGER_NAME":
		return &j.LOGGER
	case "LOGGER_LEVEL":
		return &j.LOGLEVEL
	case "REQUEST_ID":
		return &j.REQUEST
	case "USER_ID":
		return &j.USER
	case "USER_NAME":
		return &j.USERNAME
	case "PROJECT_ID":
		return &j.PROJECT
	case "PROJECT_NAME":
		return &j.PROJECTNAME
	case "Payload":
		if j.payload == "" {
			return &j.payload
		}
	case "payload":
		return &j.payload
	case "python_module":
		return &j.module
	case "log_level", "level":
		return &j.level
	case "Hostname", "hostname", "host":
		return &j.hostname
	case "programname":
		return &j.program
	case "Timestamp":
		return &j.stamp
	case "message":
		return &j.message
	case "name":
		return &j.name
	case "levelname":
		return &j.levelname
	case "created":
		return &j.created
	case "asctime":
		return &j.asctime
	case "process", "Pid":
		return &j.process
	case "context":
		return &j.context
	case "funcname":
		return &j.funcname
	case "traceback":
		return &j.traceback
	case "request_id":
		return &j.request
	case "user_id":
		return &j.user
	case "tenant_id", "project_id":
		return &j.project
	case "event_type":
		return &j.eventType
	case "typeURI":
		return &j.typeURI
	}
	return nil
}

// object takes a line that is a JSON object: a wrap around a line (docker's json-file, journalctl -o json, fluentd as kolla and
// others run it), a record of oslo.log with use_json, or a notification. Any other is counted as JSON and left alone.
func (p *Parser) object(s string, e *event.Event) Verdict {
	var j jsonLine
	if !j.read(s) {
		return Unparsed
	}
	p.env.used = true
	switch {
	case j.MESSAGE != "":
		return p.journal(&j, e)
	case j.log != "":
		return p.docker(&j, e)
	case j.eventType != "" && j.payload != "" && j.payload[0] == '{':
		return p.cadfEnvelope(s, e)
	case j.typeURI != "" && j.eventType == "" && member(s, "eventType") != "":
		return p.cadfEvent(s, "", "", e)
	case j.module != "" && j.payload != "":
		return p.fluentd(&j, e)
	case j.payload != "" && j.payload[0] == '"':
		return p.plainWrap(&j, j.payload, e)
	case j.message != "" && j.name != "" && (j.levelname != "" || severity(p.str(j.level)) >= 0 && (j.funcname != "" || j.context != "")):
		return p.osloJSON(&j, e)
	case j.message != "" && j.message[0] == '"':
		return p.plainWrap(&j, j.message, e)
	}
	p.reason = ReasonJSON
	return Service
}

// docker reads `{"log":"MESSAGE\n","stream":"stdout","time":"2006-01-02T15:04:05.000000000Z"}`. A message without its newline
// goes on in the next line: it is flagged as truncated, and joined where lines are made. Shippers that send such objects on take the
// newline off and add members of their own; logtag P is theirs for the same.
func (p *Parser) docker(j *jsonLine, e *event.Event) Verdict {
	text := p.str(j.log)
	if tag := p.str(j.logtag); tag == "P" || tag == "" && j.stream != "" && j.others == 0 && !strings.HasSuffix(text, "\n") {
		p.env.cut = true
	}
	p.outerISO(p.str(j.at))
	p.env.container = true
	p.peeled("docker")
	return p.jsonContents(text, e)
}

// jsonContents goes on with the text of a member; lines that are no record are JSON to whoever counts.
func (p *Parser) jsonContents(text string, e *event.Event) Verdict {
	v := p.contents(p.plainText(text), e)
	if v == Unparsed && p.reason == "" && p.near.format == noFormat {
		p.reason = ReasonJSON
		return Service
	}
	return v
}

// journal reads a line of journalctl -o json. MESSAGE is an array of bytes where it holds what is not printable, such as a
// terminal's colours. The time is __REALTIME_TIMESTAMP, in microseconds.
func (p *Parser) journal(j *jsonLine, e *event.Event) Verdict {
	text := p.str(j.MESSAGE)
	if j.MESSAGE[0] == '[' {
		var ok bool
		if text, ok = p.byteArray(j.MESSAGE); !ok {
			p.reason = ReasonJSON
			return Service
		}
	}
	v := &p.env
	if us, ok := digits(p.str(j.realtime)); ok {
		v.zonedTime(us/1e6, us%1e6*1000, 0)
	}
	v.host = p.str(j.hostField)
	if pid, ok := digits(p.str(j.pid)); ok {
		v.pid, v.hasPID = pid, true
	}
	if n, ok := digits(p.str(j.prio)); ok && n < 8 {
		v.level, v.hasLevel = int32(n), true
	}
	p.tag(p.str(j.ident))
	if v.from.service == "" {
		for _, name := range [...]string{strings.TrimSuffix(p.str(j.unit), ".service"), p.str(j.container)} {
			if name == "" {
				continue
			}
			if o := originOf(name); o.service != "" {
				v.from.service, v.from.kind = o.service, o.kind
			}
		}
	}
	p.peeled("journal")
	text = p.plainText(trimNewlines(text))
	switch {
	case text == "":
		p.reason = ReasonBlank
		return Service
	case j.LOGGER != "":
		return p.osloJournal(j, text, e)
	}
	return p.tagged(text, e)
}

// osloJournal reads an entry that oslo.log sent itself, with use_journal: MESSAGE is the text that a file would have, or, where
// the format strings leave the prefix to the journal, the message alone; the logger, the request id and who asked are fields.
//
// Source: oslo_log/handlers.py, OSJournalHandler. The time is the journal's. A client can choose how a message begins, but not what
// is in the fields: a prefix that names another request was written by one.
func (p *Parser) osloJournal(j *jsonLine, text string, e *event.Event) Verdict {
	id := p.str(j.REQUEST)
	if hasPrefix(text) {
		v := p.tagged(text, e)
		if v == Access && e.RequestID != id && text[0] != '{' {
			p.suspect |= forgedLine
		}
		return v
	}
	if n := severity(p.str(j.LOGLEVEL)); n >= 0 {
		e.SetLevel(n)
	} else if p.env.hasLevel {
		e.SetLevel(p.env.level)
	}
	e.Time, e.RequestID = p.outerTime(), id
	if u := p.str(j.USER); u != "" {
		setUser(e, u)
	}
	if u := p.str(j.USERNAME); u != "" {
		e.UserName, e.User = u, u
	}
	if id := p.str(j.PROJECT); id != "" {
		setProject(e, id)
	}
	if n := p.str(j.PROJECTNAME); n != "" {
		e.Set("project_name", event.StringValue(n))
	}
	return p.jsonMessage(p.str(j.LOGGER), text, e)
}

// hasPrefix reports whether a text begins as a record of oslo.log in a file does: with a time, devstack's level or its colour, or as an
// object.
func hasPrefix(s string) bool {
	_, n := osloLevel(s)
	return n > 0 || s[0] == '{' || s[0] == 0x1b || len(s) > 19 && s[4] == '-' && s[7] == '-' && s[10] == ' ' && s[13] == ':'
}

// plainWrap reads an object that holds the line as it was in one member: kolla's fluentd around HAProxy's lines, and other
// shippers.
func (p *Parser) plainWrap(j *jsonLine, text string, e *event.Event) Verdict {
	p.outerISO(p.str(j.at))
	v := &p.env
	v.container = true
	if h := p.str(j.hostname); h != "" {
		v.host = h
	}
	p.tag(p.str(j.program))
	p.peeled("JSON")
	return p.jsonContents(p.str(text), e)
}

// outerISO keeps a time in ISO form with a zone.
func (p *Parser) outerISO(s string) {
	if len(s) < 20 || s[10] != 'T' {
		return
	}
	naive, _, ok := p.iso(&p.outerHour, s)
	if !ok {
		return
	}
	i := 19
	var ns int64
	if s[i] == '.' {
		f, n := fraction(s[i+1:])
		ns = f
		i += 1 + n
	}
	if off, n := offset(s[i:]); n > 0 && i+n == len(s) {
		p.env.zonedTime(naive-off, ns, off)
	}
}

// osloJSON takes a record of oslo.log's JSON formatter: one object, whose message is the text that the same grammars read.
//
// Source: oslo_log/formatters.py, JSONFormatter and FluentFormatter. The time is `created`, seconds since 1970; asctime is local
// and has no fraction. The context names what the text form's bracket holds. A record never reaches over its line.
func (p *Parser) osloJSON(j *jsonLine, e *event.Event) Verdict {
	level := j.levelname
	if level == "" {
		level = j.level
	}
	if !p.osloFields(e, p.str(level), p.str(j.process), p.str(j.hostname)) {
		p.reason = ReasonJSON
		return Service
	}
	if at, ok := epoch(p.str(j.created)); ok {
		e.Time = at
	} else if at, ok := p.localTime(p.str(j.asctime)); ok {
		e.Time = at
	} else if at, ok := p.localTime(p.str(j.at)); ok {
		e.Time = at
	} else {
		p.outerISO(p.str(j.at))
		e.Time = p.outerTime()
	}
	p.jsonContext(j.context, e)
	p.peeled("oslo.log JSON")
	return p.jsonMessage(p.str(j.name), p.str(j.message), e)
}

// fluentd takes what kolla's fluentd made of a line of oslo.log: its prefix in members. The request id has lost its `req-`, as
// kolla's expression reads it: it is given back.
func (p *Parser) fluentd(j *jsonLine, e *event.Event) Verdict {
	if !p.osloFields(e, p.str(j.level), p.str(j.process), p.str(j.hostname)) {
		p.reason = ReasonJSON
		return Service
	}
	if at, ok := p.localTime(p.str(j.stamp)); ok {
		e.Time = at
	}
	if id := present(p.str(j.request)); strings.HasPrefix(id, "req-") {
		e.RequestID = id
	} else if isUUID(id) {
		d := p.arena.Alloc(len(id) + 4)
		copy(d, "req-")
		copy(d[4:], id)
		e.RequestID = event.View(d)
	}
	if u := present(p.str(j.user)); u != "" {
		setUser(e, u)
	}
	if id := present(p.str(j.project)); id != "" {
		setProject(e, id)
	}
	p.tag(p.str(j.program))
	p.peeled("fluentd")
	return p.jsonMessage(p.str(j.module), p.str(j.payload), e)
}

// jsonMessage reads the message by its logger.
func (p *Parser) jsonMessage(logger, msg string, e *event.Event) Verdict {
	msg = trimColour(p.plainText(trimNewlines(msg)))
	if logger == "" {
		p.reason = ReasonJSON
		return Service
	}
	e.Logger = logger
	p.inner, p.near, p.quoted = msg, nearest{}, true
	v := p.message(msg, p.lookLogger(logger), true, e)
	p.suspect &^= openHead // a record ends with its object
	if v == Access {
		e.Plain = false
	}
	p.trace = false
	return v
}

// osloFields sets level, process and host.
func (p *Parser) osloFields(e *event.Event, level, process, host string) bool {
	n := severity(level)
	if n < 0 {
		return false
	}
	e.SetLevel(n)
	if pid, ok := digits(process); ok {
		e.SetProcessID(pid)
	}
	if host != "" {
		p.env.host = host
	}
	return true
}

// severity is the syslog severity of a level's name; -1 if it is none.
func severity(s string) int32 {
	switch s {
	case "INFO", "info":
		return 6
	case "WARNING", "WARN", "warning", "warn":
		return 4
	case "ERROR", "error":
		return 3
	case "DEBUG", "TRACE", "debug", "trace":
		return 7
	case "CRITICAL", "critical":
		return 2
	case "AUDIT", "audit":
		return 5
	}
	return -1
}

// localTime reads `2006-01-02 15:04:05[.,]000` in the parser's zone.
func (p *Parser) localTime(s string) (time.Time, bool) {
	if len(s) < 19 || s[10] != ' ' && s[10] != 'T' {
		return time.Time{}, false
	}
	var ns int64
	if len(s) > 19 {
		f, n := fraction(s[20:])
		if s[19] != '.' && s[19] != ',' || n == 0 || 20+n != len(s) {
			return time.Time{}, false
		}
		ns = f
	}
	_, utc, ok := p.iso(&p.isoHour, s)
	return time.Unix(utc, ns).UTC(), ok
}

// jsonContext reads the context of an oslo.log record.
func (p *Parser) jsonContext(s string, e *event.Event) {
	userName, projectName := "", ""
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		switch k {
		case "request_id":
			e.RequestID = p.str(v)
		case "global_request_id":
			e.GlobalRequestID = p.str(v)
		case "user", "user_id":
			if u := present(p.str(v)); u != "" {
				setUser(e, u)
			}
		case "project", "project_id", "tenant":
			if id := present(p.str(v)); id != "" {
				setProject(e, id)
			}
		case "user_domain":
			e.UserDomainID = present(p.str(v))
		case "project_domain":
			e.ProjectDomainID = present(p.str(v))
		case "domain":
			if d := present(p.str(v)); d != "" {
				e.Set("domain_id", event.StringValue(d))
			}
		case "system_scope":
			if d := present(p.str(v)); d != "" {
				e.Set("system_scope", event.StringValue(d))
			}
		case "user_name":
			userName = p.str(v)
		case "project_name":
			projectName = p.str(v)
		}
	}
	if userName != "" && e.UserID != "" {
		e.UserName, e.User = userName, userName
	}
	if projectName != "" {
		e.Set("project_name", event.StringValue(projectName))
	}
}
