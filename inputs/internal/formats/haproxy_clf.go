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
	if p.usualCLF(l, rest, e) {
		return Access
	}
	return p.anyCLF(l, rest, e)
}

// anyCLF is haproxyCLF for whatever figures and texts there are.
func (p *Parser) anyCLF(l *accessLine, rest string, e *event.Event) Verdict {
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
	var counts [7]int64
	redispatched := false
	for k := range counts {
		if k == 4 {
			redispatched = c.plus()
		}
		counts[k] = c.numTo(' ')
	}
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
		o = o.number(&haproxyKeys.accepted[0], port)
	}
	if msOK {
		o = o.number(&haproxyKeys.accepted[1], ms)
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
		o = o.numbers(haproxyKeys.timers[:], timers[:])
	}
	if countsOK {
		o = o.own(&haproxyKeys.terminationState, state)
		o = o.numbers(haproxyKeys.counts[:], counts[:])
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

// usualCLF is haproxyCLF for what nearly all lines are: whole, for a request, without signs, cookies and headers. It writes the
// attributes while it reads, which is quicker, and reports false, with nothing said of the line, for others.
func (p *Parser) usualCLF(l *accessLine, rest string, e *event.Event) bool {
	const begin, end = `"" "" `, `"" "" `
	if i := space(l.request); i < 0 || !strings.HasPrefix(l.request[i:], " /") || !isMethod(l.request[:i]) || l.soFar || !strings.HasPrefix(rest, begin) {
		return false
	}
	o, _, i := p.newObject().figures(haproxyKeys.accepted[:], rest, len(begin), "  ")
	if i == 0 { // as where the fraction of the time has zeros in front
		var port, ms int64
		port, i = spacedNumber(rest, len(begin))
		ms, i = spacedNumber(rest, i)
		o = p.newObject().number(&haproxyKeys.accepted[0], port).number(&haproxyKeys.accepted[1], ms)
	}
	front, i := quotedName(rest, i)
	back, i := quotedName(rest, i)
	server, i := quotedName(rest, i)
	if i == 0 {
		return false
	}
	if n := len(front); n > 1 && front[n-1] == '~' {
		front = front[:n-1]
		o = o.yes(&haproxyKeys.tls)
	}
	o = o.haproxyNames(front, back, server)
	o, last, i := o.figures(haproxyKeys.timers[:], rest, i, "     ")
	if i == 0 {
		return false
	}
	taken, _ := digits(rest[last : i-1])
	if o, i = o.haproxyState(rest, i); i == 0 {
		return false
	}
	// The last one stands too near the end of the line for figures.
	if o, _, i = o.figures(haproxyKeys.counts[:6], rest, i, "      "); i == 0 {
		return false
	}
	queue, i := spacedNumber(rest, i)
	if i == 0 || rest[i:] != end && rest[i:] != end[:len(end)-1] {
		return false
	}
	o = o.number(&haproxyKeys.counts[6], queue)

	p.apacheCommon(l, e, haproxyCLF, true)
	if l.hasSize {
		e.SetBool(event.BoolSizeIncludesHeaders, true)
	}
	e.SetDuration(time.Duration(taken) * time.Millisecond)
	p.fillHAProxy(e, front, back)
	p.end(o, e)
	return true
}

// quotedName reads a name in quotes at i, and a space. next is behind it; 0 if something else is there, or i is 0.
func quotedName(s string, i int) (name string, next int) {
	if i == 0 || i >= len(s) || s[i] != '"' {
		return "", 0
	}
	end := i + 1
	for end < len(s) && s[end] != '"' {
		end++
	}
	if end+1 >= len(s) || s[end+1] != ' ' {
		return "", 0
	}
	return s[i+1 : end], end + 2
}
