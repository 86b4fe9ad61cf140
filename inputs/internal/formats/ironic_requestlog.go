package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// ironic takes the messages of ironic's request log.
//
// ironic-requestlog, logger ironic.api, since 32.0.0:
//
//	ADDRESS - METHOD TARGET - STATUS (N.NNms)
//
// Source: ironic/api/middleware/request_log.py. The time is oslo.log's: the end, local. ADDRESS is the first of X-Forwarded-For,
// else X-Real-IP, else the peer, else `unknown`. The path is decoded: it may hold spaces and newlines. STATUS may be `unknown`.
// The duration is in milliseconds. No size, no protocol.
func (p *Parser) ironic(s string, e *event.Event) Verdict {
	client, rest, ok := field(s)
	if !ok || !strings.HasPrefix(rest, "- ") {
		return Unparsed
	}
	method, target, ok := field(rest[2:])
	if !ok || !isMethod(method) || target == "" || target[0] != '/' && target[0] != '*' && !strings.HasPrefix(target, "http") {
		return Unparsed
	}
	status, took, head, ok := ironicTail(target)
	if !ok {
		if at, rest, near := ironicParts(target); near {
			return p.parts(ironicRequestlog, at, rest)
		}
	}
	if !p.enabled(ironicRequestlog) {
		if !ok {
			p.notWanted(e, p.suspect)
		}
		return Unparsed
	}
	e.Method = method
	p.clients(e, client, true)
	access(e, ironicRequestlog, basisEnd)
	if !ok {
		// The end of the line is missing, or the target goes on in the next line.
		p.parts(ironicRequestlog, atTail, target)
		if i := strings.LastIndex(target, " - "); i > 0 && len(target)-i < 20 {
			target = target[:i]
		}
		e.Path, e.Query = splitTarget(target)
		p.suspect |= openHead
		p.decoded(e)
		p.setCut(e)
		return Access
	}
	e.Path, e.Query = splitTarget(head)
	p.decoded(e)
	if status != 0 {
		setStatus(e, status)
	}
	e.SetDuration(took)
	e.Plain = strings.IndexByte(s, '"') < 0 && !p.quoted
	return Access
}

// ironicTail reads ` - STATUS (N.NNms)` from the end of s, behind a head.
func ironicTail(s string) (status int32, took time.Duration, head string, ok bool) {
	status, took, at, ok := ironicEnd(s)
	if !ok || at < 1 {
		return 0, 0, "", false
	}
	return status, took, s[:at], true
}

// ironicEnd is ironicTail for a line that may begin with that; at is where it does.
func ironicEnd(s string) (status int32, took time.Duration, at int, ok bool) {
	i := strings.LastIndex(s, " (")
	if i < 0 || !strings.HasSuffix(s, "ms)") {
		return 0, 0, 0, false
	}
	took, ok = millis(s[i+2 : len(s)-3])
	at = strings.LastIndex(s[:i], " - ")
	if !ok || at < 0 {
		return 0, 0, 0, false
	}
	if word := s[at+3 : i]; word != "unknown" {
		if status, ok = status3(word); !ok {
			return 0, 0, 0, false
		}
	}
	return status, took, at, true
}

// ironicParts finds where ` - STATUS (N.NNms)` parts from itself; near is false where it is only cut, or nowhere begun.
func ironicParts(s string) (at place, rest string, near bool) {
	i := strings.LastIndex(s, " - ")
	if i < 0 {
		return 0, "", false
	}
	c := cursor{s: s, i: i + 3}
	if word := c.word(); word != "unknown" {
		if _, ok := status3(word); !ok {
			return atStatus, s[i+3:], !c.bad && strings.HasPrefix(c.rest(), "(") && strings.HasSuffix(s, "ms)")
		}
	}
	from := c.i
	c.lit("(")
	c.num()
	if !c.bad && strings.HasPrefix(c.rest(), ".") {
		c.i++
		c.num()
	}
	c.lit("ms)")
	if c.bad {
		return atDuration, s[from:], !c.ended
	}
	return atEnd, c.rest(), c.i < len(s)
}

// millis reads milliseconds such as `12.34` or `5`.
func millis(s string) (time.Duration, bool) {
	whole, frac, pointed := cutAt(s, '.')
	n, ok := digits(whole)
	if !ok || n > 1<<43 {
		return 0, false
	}
	d := time.Duration(n) * time.Millisecond
	if pointed {
		ns, k := fraction(frac)
		if k == 0 || k != len(frac) {
			return 0, false
		}
		d += time.Duration(ns / 1000)
	}
	return d, true
}
