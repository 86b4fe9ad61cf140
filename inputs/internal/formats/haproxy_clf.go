package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// haproxyCLF takes the end of a line of option httplog clf.
//
// haproxy-clf is
//
//	CLIENT - - [02/Jan/2006:15:04:05 +0000] "REQUEST" STATUS BYTES "" "" PORT MS "FRONTEND" "BACKEND" "SERVER" TR Tw Tc Tr Ta
//	STATE ACT FE BE SRV RETRIES SRVQUEUE BEQUEUE "REQ-COOKIE" "RESP-COOKIE" REQUEST-HEADERS RESPONSE-HEADERS
//
// Source: HAProxy src/log.c, clf_http_log_format. The time is the request's start, in whole seconds and UTC; MS is the
// fraction of another time, the accept, so it is no part of it. Timers are milliseconds, BYTES counts headers too; with option
// logasap Ta and BYTES begin with + and are no totals. A + at RETRIES is a redispatch. Lines are cut at 1,024 bytes: what is not
// whole is left out, and the record is truncated.
func (p *Parser) haproxyCLF(l *apacheLine, rest string, e *event.Event) Verdict {
	if l.iso {
		return Unparsed
	}
	if !p.enabled(haproxyCLF) {
		return Unparsed
	}
	c := cursor{s: rest}
	c.lit(`"" "" `)
	port := c.num()
	c.lit(" ")
	portOK := !c.bad
	ms := c.num()
	c.lit(" ")
	msOK := !c.bad
	front := c.text()
	frontOK := !c.bad
	back := c.text()
	backOK := !c.bad
	server := c.text()
	serverOK := !c.bad
	var timers [5]int64
	more := l.soFar // figures are not final
	for k := range timers {
		more = c.plus() || more
		timers[k] = c.signed()
		c.lit(" ")
	}
	timersOK := !c.bad
	state := c.word()
	var conns [5]int64
	redispatched := false
	for k := range conns {
		redispatched = k == 4 && c.plus()
		conns[k] = c.num()
		c.lit(" ")
	}
	srvQueue := c.num()
	c.lit(" ")
	backQueue := c.num()
	c.lit(" ")
	countsOK := !c.bad
	reqCookie := c.text()
	respCookie := c.text()
	cut := c.bad
	if cut && !c.ended || countsOK && len(state) != 4 {
		return p.parts(haproxyCLF, atTail, rest[c.i:])
	}

	if more {
		l.hasSize, timers[4] = false, -1
	}
	p.apacheCommon(l, e, haproxyCLF, true)
	if l.hasSize {
		e.SetBool(event.BoolSizeIncludesHeaders, true)
	}
	if timersOK && timers[4] >= 0 {
		e.SetDuration(time.Duration(min(timers[4], 1<<43)) * time.Millisecond)
	}
	if cut {
		p.setCut(e)
	}
	a := p.attr()
	if e.Method == "" {
		a = event.AppendString(append(a, `,"haproxy_request":`...), l.request)
	}
	if portOK {
		a = number(append(a, `,"haproxy_client_port_int":`...), port)
	}
	if msOK {
		a = number(append(a, `,"haproxy_accept_ms_int":`...), ms)
	}
	if n := len(front); n > 1 && front[n-1] == '~' {
		front = front[:n-1]
		a = append(a, `,"haproxy_tls_bool":true`...)
	}
	if !frontOK {
		front = ""
	}
	if !backOK {
		back = ""
	}
	p.fillHAProxy(e, front, back)
	if frontOK {
		a = event.AppendString(append(a, `,"haproxy_frontend":`...), front)
	}
	if backOK {
		a = event.AppendString(append(a, `,"haproxy_backend":`...), back)
	}
	if serverOK {
		a = event.AppendString(append(a, `,"haproxy_server":`...), server)
	}
	if timersOK {
		a = haproxyTimers(a, &timers)
	}
	if countsOK {
		a = event.AppendString(append(a, `,"haproxy_termination_state":`...), state)
		a = haproxyCounts(a, &conns, srvQueue, backQueue)
		if redispatched {
			a = append(a, `,"haproxy_redispatched_bool":true`...)
		}
	}
	if more {
		a = number(append(a, `,"haproxy_bytes_so_far_int":`...), l.size)
	}
	if !cut {
		if reqCookie != "" {
			a = event.AppendString(append(a, `,"haproxy_request_cookie":`...), reqCookie)
		}
		if respCookie != "" {
			a = event.AppendString(append(a, `,"haproxy_response_cookie":`...), respCookie)
		}
		if h := strings.TrimSpace(c.s[c.i:]); h != "" {
			a = event.AppendString(append(a, `,"haproxy_headers":`...), h)
		}
	}
	p.done(a, e)
	return Access
}
