package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// apacheReqID takes an access log format that deployers add to have the request id of the response on the line.
//
// apache-reqid is
//
//	HOST IDENT USER [2006-01-02T15:04:05.000000+0000] "REQUEST" STATUS SIZE MICROS "USER-AGENT" REQUEST-ID
//
// Source: the LogFormat `%h %l %u [%{%Y-%m-%dT%H:%M:%S}t.%{usec_frac}t%{%z}t] "%r" %>s %b %D "%{User-Agent}i"
// %{x-openstack-request-id}o`. The time is the start, with microseconds and zone. The size is the body's. MICROS is the duration
// in microseconds. REQUEST-ID is `-` where the service gave none.
func (p *Parser) apacheReqID(l *accessLine, rest string, e *event.Event) Verdict {
	if rest == "" {
		return p.apacheCut(l.request, l, e)
	}
	if rest[0] != '"' {
		return p.parts(apacheReqID, atTail, rest)
	}
	ua, rest, ok := quoted(rest)
	if !ok || rest == "" || rest == " " {
		if ok {
			p.agents(e, "-", ua)
		}
		return p.apacheCut(l.request, l, e)
	}
	id := rest[1:]
	if rest[0] != ' ' || strings.IndexByte(id, ' ') >= 0 || strings.IndexByte(id, '"') >= 0 {
		return p.parts(apacheReqID, atEnd, rest)
	}
	if strings.HasPrefix("req-", id[:min(4, len(id))]) && len(id) < len("req-")+36 {
		// A request id can be any text that a caller sent, but one that is shorter than a uuid is more often cut.
		p.agents(e, "-", ua)
		return p.apacheCut(l.request, l, e)
	}
	if !p.enabled(apacheReqID) {
		return Unparsed
	}
	p.agents(e, "-", ua)
	if id != "-" {
		e.RequestID = id
	}
	p.timed(l, e, apacheReqID, true)
	return Access
}
