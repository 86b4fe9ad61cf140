package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// apacheTimed takes the formats with the duration between size and the quoted fields: apache-kolla and apache-reqid.
//
// apache-kolla is
//
//	FORWARDED IDENT USER [02/Jan/2006:15:04:05 +0000] "REQUEST" STATUS SIZE MICROS "REFERER" "USER-AGENT"
//
// Source: kolla-ansible roles/*/templates/*-wsgi.conf.j2, `%{X-Forwarded-For}i %l %u %t "%r" %>s %b %D "%{Referer}i"
// "%{User-Agent}i"`; Sunbeam's keystone has the same. FORWARDED is the whole header, spaces and all, `-` for a direct
// request; the peer is not on the line. The time is the start, with its zone. The size is the body's. MICROS is the duration in
// microseconds.
func (p *Parser) apacheTimed(l *accessLine, rest string, e *event.Event) Verdict {
	if l.iso {
		return p.apacheReqID(l, rest, e)
	}
	if rest == "" {
		return p.apacheCut(l.request, l, e)
	}
	if rest[0] != '"' {
		return p.parts(apacheKolla, atTail, rest)
	}
	ref, rest, ok := quoted(rest)
	if !ok || rest == "" || rest == " " {
		return p.apacheCut(l.request, l, e)
	}
	if !strings.HasPrefix(rest, ` "`) {
		return p.parts(apacheKolla, atTail, rest)
	}
	ua, rest, ok := quoted(rest[1:])
	if !ok {
		p.agents(e, ref, "-")
		return p.apacheCut(l.request, l, e)
	}
	if rest != "" {
		return p.parts(apacheKolla, atEnd, rest)
	}
	if !p.enabled(apacheKolla) {
		return Unparsed
	}
	p.apacheTail = true
	p.agents(e, ref, ua)
	p.timed(l, e, apacheKolla, false)
	return Access
}

// timed fills the fields of a format with %b and %D.
func (p *Parser) timed(l *accessLine, e *event.Event, f format, peer bool) {
	p.apacheCommon(l, e, f, peer)
	if l.hasSize {
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	e.SetDuration(micros(l.micros))
}
