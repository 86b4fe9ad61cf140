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
// logasap Ta and BYTES begin with + and are no totals. A + at RETRIES is a redispatch. Escapes are as in haproxy-http. Lines are cut at 1,024 bytes: what is not
// whole is left out, and the record is truncated.
func (p *Parser) haproxyCLF(l *accessLine, rest string, e *event.Event) Verdict {
	if l.iso {
		return Unparsed
	}
	if !p.enabled(haproxyCLF) {
		return Unparsed
	}
	c := cursor{s: rest}
	c.lit(`"" "" `)
	port := c.numTo(' ')
	portOK := !c.bad
	ms := c.numTo(' ')
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
		timers[k] = c.signedTo(' ')
	}
	timersOK := !c.bad
	state := c.word()
	var conns [5]int64
	redispatched := false
	for k := range conns {
		redispatched = k == 4 && c.plus()
		conns[k] = c.numTo(' ')
	}
	srvQueue := c.numTo(' ')
	backQueue := c.numTo(' ')
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
	o := p.newObject()
	if e.Method == "" {
		o = p.said(o, &haproxyKeys.request, l.request)
	}
	if portOK {
		o = o.number(&haproxyKeys.clientPort, port)
	}
	if msOK {
		o = o.number(&haproxyKeys.acceptMS, ms)
	}
	if n := len(front); n > 1 && front[n-1] == '~' {
		front = front[:n-1]
		o = o.yes(&haproxyKeys.tls)
	}
	if !frontOK {
		front = ""
	}
	if !backOK {
		back = ""
	}
	p.fillHAProxy(e, front, back)
	if frontOK {
		o = o.own(&haproxyKeys.frontend, front)
	}
	if backOK {
		o = o.own(&haproxyKeys.backend, back)
	}
	if serverOK {
		o = o.own(&haproxyKeys.server, server)
	}
	if timersOK {
		o = o.haproxyTimers(&timers)
	}
	if countsOK {
		o = o.own(&haproxyKeys.terminationState, state)
		o = o.haproxyCounts(&conns, srvQueue, backQueue)
		if redispatched {
			o = o.yes(&haproxyKeys.redispatched)
		}
	}
	if more {
		o = o.number(&haproxyKeys.bytesSoFar, l.size)
	}
	if !cut {
		if reqCookie != "" {
			o = p.said(o, &haproxyKeys.requestCookie, reqCookie)
		}
		if respCookie != "" {
			o = p.said(o, &haproxyKeys.responseCookie, respCookie)
		}
		if h := strings.TrimSpace(c.s[c.i:]); h != "" {
			o = p.said(o, &haproxyKeys.headers, h)
		}
	}
	p.end(o, e)
	return Access
}
