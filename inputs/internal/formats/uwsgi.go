package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// uwsgi takes uWSGI's default request line.
//
//	[pid: N|app: N|req: N/N] ADDR (USER) {N vars in N bytes} [Www Mmm dD hh:mm:ss yyyy] METHOD URI => generated N bytes
//	in N msecs|micros [via CALL() ](PROTO STATUS) N headers in N bytes (N switches on core N)
//
// Source: unbit/uwsgi core/logging.c:742. The time is the start, local, without a zone. The size is the body's. ADDR is the whole
// X-Forwarded-For with log-x-forwarded-for, in which a client can write what it likes: it ends at the first (USER) that all the rest
// fits behind. USER holds no space with a parenthesis behind it. URI has no spaces and is raw; PROTO is all the rest of the request
// line and can hold anything, so METHOD and URI are read from the front and the status from the end.
//
// Lines over about 4 KB (logging.c:747) have dashes for METHOD, URI and PROTO and 0.0.0.0 for ADDR: these are absent, and the
// record is truncated. `{address space usage: …}` of memory-report may stand in front.
func (p *Parser) uwsgi(s string, e *event.Event) Verdict {
	whole := s
	if s[0] == '{' {
		i := strings.Index(s, "[pid: ")
		if i < 0 {
			return Unparsed
		}
		s = s[i:]
	}
	var h uwsgiHead
	from := h.usual(s)
	if from == 0 {
		c := cursor{s: s}
		if h.read(&c); c.bad {
			return p.parts(uwsgiDefault, atPrefix, c.rest())
		}
		from = c.i
	}
	var u uwsgiLine
	for k := from; ; {
		closing := closingBrace(s[k:])
		if closing < 0 {
			if k == from {
				p.parts(uwsgiDefault, atClient, s[from:])
			}
			return Unparsed
		}
		if u.read(p, s, from, k+closing) {
			break
		}
		if p.reason != "" {
			return Unparsed
		}
		u = uwsgiLine{}
		k += closing + 1
	}

	t := &u.tail
	dashed := u.method == "-" && u.uri == "-"
	if u.method != "" && u.uri != "" && !dashed {
		e.Method = u.method
		e.Path, e.Query = splitTarget(u.uri)
		if isProtocol(t.proto) {
			e.HTTPVersion = t.proto
		}
	}
	if dashed || u.cut {
		p.setCut(e)
	}
	if !dashed {
		p.clients(e, u.addr, true)
	}
	if u.user != "" && u.user != "-" {
		e.UserName, e.User = u.user, u.user
	}
	e.SetProcessID(h.pid)
	p.served = h.total
	taken := int64(0)
	if !u.cut {
		if t.status >= 100 && t.status <= 999 {
			setStatus(e, int32(t.status))
		}
		e.SetSize(t.size)
		e.SetBool(event.BoolSizeIncludesHeaders, false)
		e.SetDuration(t.took)
		taken = int64(t.took / time.Second)
		if strings.Contains(t.proto, arrow) {
			p.suspect |= forgedLine
		}
	}
	utc := u.utc
	if p.depth > 0 {
		utc = p.zoned(u.naive, utc, taken)
		p.fillOuter(e)
	}
	e.Time = time.Unix(utc, 0).UTC()
	p.fillByPath(e)

	o := p.newObject()
	o = o.number(&uwsgiKeys.app, h.app)
	o = o.number(&uwsgiKeys.appRequest, h.req)
	o = o.number(&uwsgiKeys.request, h.total)
	o = o.number(&uwsgiKeys.vars, u.vars)
	o = o.number(&uwsgiKeys.varsBytes, u.varBytes)
	if !u.cut {
		o = o.number(&uwsgiKeys.headerCount, t.headers)
		o = o.number(&uwsgiKeys.headerBytes, t.headerBytes)
		o = o.number(&uwsgiKeys.switches, t.switches)
		o = o.number(&uwsgiKeys.core, t.core)
		if t.via != "" {
			o = p.said(o, &uwsgiKeys.via, t.via)
		}
		if !dashed && t.proto != "" && e.HTTPVersion == "" {
			o = p.said(o, &uwsgiKeys.protocol, t.proto)
		}
	}
	access(e, uwsgiDefault, basisStart)
	e.Plain = strings.IndexByte(whole, '"') < 0
	p.writesMulti()
	p.end(o, e)
	return Access
}

// closingBrace finds `) {`; -1 if there is none.
func closingBrace(s string) int {
	for i := 0; ; i++ {
		j := strings.IndexByte(s[i:], '{')
		if i += j; j < 0 {
			return -1
		}
		if i >= 2 && s[i-2:i] == ") " {
			return i - 2
		}
	}
}

// arrow stands between the request and the response.
const arrow = "=> generated "

// uwsgiHead is the line up to ADDR.
type uwsgiHead struct{ pid, app, req, total int64 }

// read takes the head.
func (h *uwsgiHead) read(c *cursor) {
	c.lit("[pid: ")
	h.pid = c.numLit("|app: ")
	h.app = c.signedLit("|req: ")
	h.req = c.signedLit("/")
	h.total = c.numLit("] ")
}

// usual is read for a head that fits and has no minus, without a cursor, which would have to say where it parts. It returns where
// ADDR begins; 0 if that is not so.
func (h *uwsgiHead) usual(s string) int {
	if !isTextAt(s, 0, "[pid: ") {
		return 0
	}
	i := 6
	if h.pid, i = numberAt(s, i); !isTextAt(s, i, "|app: ") {
		return 0
	}
	if h.app, i = numberAt(s, i+6); !isTextAt(s, i, "|req: ") {
		return 0
	}
	if h.req, i = numberAt(s, i+6); !isTextAt(s, i, "/") {
		return 0
	}
	if h.total, i = numberAt(s, i+1); !isTextAt(s, i, "] ") {
		return 0
	}
	return i + 2
}

// uwsgiLine is the line from ADDR on.
type uwsgiLine struct {
	addr, user, method, uri string
	vars, varBytes          int64
	naive, utc              int64 // the time
	tail                    uwsgiTail
	cut                     bool // the end is missing
}

// read takes the line from ADDR, which begins at from, where closing is the end of `(USER) {`. False if the rest does not fit, or if
// the format is not wanted.
func (u *uwsgiLine) read(p *Parser, s string, from, closing int) bool {
	open := closing
	for open--; open > from && (s[open] != '(' || s[open-1] != ' '); open-- {
	}
	if open <= from {
		p.parts(uwsgiDefault, atClient, s[from:])
		return false
	}
	u.addr, u.user = s[from:open-1], s[open+1:closing]
	c := cursor{s: s, i: closing + len(") {")}
	if i := u.variables(s, c.i); i > 0 {
		c.i = i
	} else {
		u.vars = c.numLit(" vars in ")
		u.varBytes = c.numLit(" bytes} [")
	}
	ok := !c.bad && len(s) >= c.i+26 && s[c.i+24] == ']' && s[c.i+25] == ' '
	if ok {
		u.naive, u.utc, ok = p.ctime(s[c.i:])
	}
	if !ok {
		p.parts(uwsgiDefault, atTime, c.rest())
		return false
	}
	c.i += 26
	return p.enabled(uwsgiDefault) && u.request(p, &c)
}

// variables takes `N vars in N bytes} [` at i and returns where the time begins; 0 if that is not there.
func (u *uwsgiLine) variables(s string, i int) int {
	if u.vars, i = numberAt(s, i); !isTextAt(s, i, " vars in ") {
		return 0
	}
	if u.varBytes, i = numberAt(s, i+9); !isTextAt(s, i, " bytes} [") {
		return 0
	}
	return i + 9
}

// request reads on behind the time, where the request is a fact: what is missing was cut.
func (u *uwsgiLine) request(p *Parser, c *cursor) bool {
	line := c.rest()
	if u.method = c.word(); c.bad {
		u.cut = true
	} else {
		rest := c.rest()
		switch {
		case strings.HasPrefix(rest, " "+arrow): // no request line at all
			c.i += 1 + len(arrow)
		case strings.HasPrefix(rest, arrow) && u.method == "":
			c.i += len(arrow)
		default:
			if u.uri = c.word(); c.bad {
				u.uri, u.cut = rest, true
			} else {
				c.lit(arrow)
			}
		}
	}
	if !u.cut && (c.bad || !u.tail.usual(c.rest())) && !u.tail.read(c) {
		if !c.ended {
			p.parts(uwsgiDefault, u.tail.at, c.rest())
			return false
		}
		u.cut = true
	}
	if u.method == "" && u.uri != "" || u.cut && (u.uri == "" || !isMethod(u.method) && u.method != "-") {
		p.parts(uwsgiDefault, atRequest, line)
		return false
	}
	return true
}

// uwsgiTail is the part of the line after "=> generated ".
type uwsgiTail struct {
	size, status, headers, headerBytes, switches, core int64
	took                                               time.Duration
	via, proto                                         string

	at place // what was read last
}

// read takes the tail; false if it is not there whole.
func (t *uwsgiTail) read(c *cursor) bool {
	t.at = atSize
	t.size = c.numLit(" bytes in ")
	if !c.bad {
		t.at = atDuration
	}
	n := c.num()
	if c.bad {
		return false
	}
	rest := c.s[c.i:]
	switch {
	case strings.HasPrefix(rest, " msecs "):
		t.took = time.Duration(min(n, 1<<43)) * time.Millisecond
		c.i += len(" msecs ")
	case strings.HasPrefix(rest, " micros "):
		t.took = time.Duration(min(n, 1<<53)) * time.Microsecond
		c.i += len(" micros ")
	default:
		return false
	}
	if strings.HasPrefix(c.s[c.i:], "via ") {
		c.i += len("via ")
		t.via = strings.TrimSuffix(c.word(), "()")
	}
	t.at = atTail
	c.lit("(")
	if c.bad {
		return false
	}
	from := c.i
	if t.finish(c) {
		return true
	}
	// The protocol has spaces: find the end of the line's fixed part from behind.
	end := strings.LastIndex(c.s[from:], ") ")
	for end > 0 {
		i := from + strings.LastIndexByte(c.s[from:from+end], ' ')
		if i < from {
			break
		}
		d := cursor{s: c.s, i: i + 1}
		t.proto = c.s[from:i]
		if t.rest(&d) {
			return true
		}
		end = strings.LastIndex(c.s[from:from+end], ") ")
	}
	return false
}

// usual is read for a tail that is all of s, whose protocol is one word, and whose numbers have no minus.
func (t *uwsgiTail) usual(s string) bool {
	var i int
	if t.size, i = numberAt(s, 0); !isTextAt(s, i, " bytes in ") {
		return false
	}
	took, i := numberAt(s, i+10)
	switch {
	case isTextAt(s, i, " msecs "):
		t.took = time.Duration(min(took, 1<<43)) * time.Millisecond
		i += 7
	case isTextAt(s, i, " micros "):
		t.took = time.Duration(min(took, 1<<53)) * time.Microsecond
		i += 8
	default:
		return false
	}
	if !isTextAt(s, i, "(") {
		return false
	}
	s = s[i+1:]
	if i = space(s); i < 0 {
		return false
	}
	t.proto = s[:i]
	if t.status, i = numberAt(s, i+1); !isTextAt(s, i, ") ") {
		return false
	}
	if t.headers, i = numberAt(s, i+2); !isTextAt(s, i, " headers in ") {
		return false
	}
	if t.headerBytes, i = numberAt(s, i+12); !isTextAt(s, i, " bytes (") {
		return false
	}
	if t.switches, i = numberAt(s, i+8); !isTextAt(s, i, " switches") || !isTextAt(s, i+9, " on core ") {
		return false
	}
	t.core, i = numberAt(s, i+18)
	return i == len(s)-1 && s[i] == ')'
}

// finish reads on where the protocol is one word.
func (t *uwsgiTail) finish(c *cursor) bool {
	t.proto = c.word()
	return t.rest(c)
}

// rest reads `STATUS) N headers in N bytes (N switches on core N)` to the line's end.
func (t *uwsgiTail) rest(c *cursor) bool {
	t.at = atStatus
	t.status = c.signedLit(") ")
	if !c.bad {
		t.at = atTail
	}
	t.headers = c.numLit(" headers in ")
	t.headerBytes = c.numLit(" bytes (")
	t.switches = c.numLit(" switches on core ")
	t.core = c.numLit(")")
	return !c.bad && c.i == len(c.s)
}

// isUWSGIOther knows the lines that uWSGI writes about itself and its workers by how they begin.
func isUWSGIOther(s string) bool {
	switch s[0] {
	case '*':
		return strings.HasPrefix(s, "*** ")
	case '[':
		return strings.HasPrefix(s, "[uwsgi-") || strings.HasPrefix(s, "[uWSGI] ")
	case '!':
		return strings.HasPrefix(s, "!!! uWSGI ")
	case '.':
		return strings.HasPrefix(s, "...") && strings.Contains(s, "uWSGI")
	case 'u':
		return strings.HasPrefix(s, "uwsgi_") || strings.HasPrefix(s, "uWSGI ") || strings.HasPrefix(s, "uwsgi socket ")
	case 's':
		return strings.HasPrefix(s, "spawned uWSGI ")
	case 'S':
		if strings.HasPrefix(s, "SIGPIPE: writing to a closed pipe") {
			return true
		}
	case 'W':
		if strings.HasPrefix(s, "WSGI app ") {
			return true
		}
	case 'D':
		return strings.HasPrefix(s, "DAMN ! worker ")
	case 'w':
		return strings.HasPrefix(s, "worker ") && strings.Contains(s, " buried after ")
	}
	// `Sat Nov 21 03:35:26 2026 - uwsgi_response_write…`
	return len(s) > 30 && s[3] == ' ' && s[7] == ' ' && s[13] == ':' && s[16] == ':' && s[24:27] == " - " && month(s[4:7]) > 0
}

// uwsgiKeys are the names of uWSGI's attributes.
var uwsgiKeys = struct {
	via, protocol, app, appRequest, request, vars, varsBytes, headerCount, headerBytes, switches, core key
}{
	via:         newKey("uwsgi_via"),
	protocol:    newKey("uwsgi_protocol"),
	app:         newKey("uwsgi_app_int"),
	appRequest:  newKey("uwsgi_app_request_int"),
	request:     newKey("uwsgi_request_int"),
	vars:        newKey("uwsgi_vars_int"),
	varsBytes:   newKey("uwsgi_vars_bytes_int"),
	headerCount: newKey("uwsgi_header_count_int"),
	headerBytes: newKey("uwsgi_header_bytes_int"),
	switches:    newKey("uwsgi_switches_int"),
	core:        newKey("uwsgi_core_int"),
}
