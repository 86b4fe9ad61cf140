package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// nginx-combined is
//
//	ADDRESS - USER [02/Jan/2006:15:04:05 +0000] "REQUEST" STATUS SIZE "REFERER" "USER-AGENT"[ SECONDS UPSTREAM-SECONDS]
//
// Source: nginx's log format combined; OpenStack-Ansible's nginx for keystone appended the two durations. It looks like
// apache-combined and means another time, the end: where no durations follow it is known by the name of the program or the file
// (nginx), or because it was chosen. The size is the body's. Quotes are escaped as \x22.

// nginx reports whether what looks like Apache's is nginx's.
func (p *Parser) nginx() bool {
	return p.env.from.program == "nginx" || p.fileNginx || p.mask>>nginxCombined&1 != 0 && p.mask>>apacheCombined&1 == 0
}

// nginxTail reads ` SECONDS UPSTREAM`; UPSTREAM is `-` or a list.
func nginxTail(s string) (took time.Duration, upstream string, ok bool) {
	w, rest, ok := field(strings.TrimPrefix(s, " "))
	if !ok || rest == "" {
		return 0, "", false
	}
	took, _, ok = seconds(w)
	if !ok || !isTimes(rest) {
		return 0, "", false
	}
	return took, present(rest), true
}

// isTimes reports whether s is nginx's list of what its upstreams took.
func isTimes(s string) bool {
	for _, c := range []byte(s) {
		if c-'0' > 9 && c != '.' && c != ',' && c != ' ' && c != '-' && c != ':' {
			return false
		}
	}
	return s != ""
}

// nginxSkyline finishes a line with quoted durations in front of the request; q is where the first quote stands.
//
// nginx-skyline is
//
//	ADDRESS - USER [02/Jan/2006:15:04:05 +0000] "SECONDS" "UPSTREAM-SECONDS" "REQUEST" STATUS SIZE "REFERER" "USER-AGENT" "FORWARDED"
//
// Source: kolla-ansible roles/skyline/templates/nginx.conf.j2. The time is the end, with its zone. The size is the body's. UPSTREAM is `-`,
// or a list where several servers were tried.
func (p *Parser) nginxSkyline(s string, q int, l *accessLine, e *event.Event) Verdict {
	word, rest, ok := quoted(s[q:])
	took, _, timed := seconds(word)
	if !ok || !timed || l.iso {
		return p.parts(nginxSkylineLog, atDuration, s[q:])
	}
	upstream, rest, ok := quoted(strings.TrimPrefix(rest, " "))
	if !ok || !isTimes(upstream) {
		return p.parts(nginxSkylineLog, atDuration, rest)
	}
	if !strings.HasPrefix(rest, ` "`) {
		return p.parts(nginxSkylineLog, atRequest, rest)
	}
	req, rest, ok := quoted(rest[1:])
	if !ok || rest == "" {
		return p.parts(nginxSkylineLog, atRequest, rest)
	}
	word, rest, ok = field(rest[1:])
	if l.status, l.hasStatus = status3(word); !ok || !l.hasStatus {
		return p.parts(nginxSkylineLog, atStatus, rest)
	}
	if l.size, rest, l.hasSize = count(rest); !l.hasSize {
		_, rest, _ = field(rest)
		return p.parts(nginxSkylineLog, atSize, rest)
	}
	var texts [3]string
	for i := range texts {
		if rest == "" || rest[0] != '"' {
			return p.parts(nginxSkylineLog, atTail, rest)
		}
		if texts[i], rest, ok = quoted(rest); !ok {
			return p.parts(nginxSkylineLog, atTail, rest)
		}
		rest = strings.TrimPrefix(rest, " ")
	}
	if rest != "" {
		return p.parts(nginxSkylineLog, atEnd, rest)
	}
	if !p.enabled(nginxSkylineLog) {
		return Unparsed
	}
	l.request = req
	p.agents(e, texts[0], texts[1])
	p.apacheCommon(l, e, nginxSkylineLog, true)
	e.TimestampBasis = basisEnd
	e.SetDuration(took)
	e.SetBool(event.BoolSizeIncludesHeaders, false)
	if f := p.unescape(texts[2]); f != "-" && f != "" {
		p.suspect &^= clientNotAnAddress
		p.clients(e, f, false)
	}
	if upstream != "-" {
		p.setUpstream(upstream, l, e)
	}
	return Access
}

// setUpstream keeps how long the upstream took, beside a request that is none.
func (p *Parser) setUpstream(took string, l *accessLine, e *event.Event) {
	o := p.said(p.newObject(), &nginxKeys.upstreamTime, took)
	if e.Method == "" && l.request != "" {
		o = p.said(o, &nginxKeys.request, l.request)
	}
	p.end(o, e)
}

// nginxKeys are the names of nginx's attributes.
var nginxKeys = struct{ upstreamTime, request key }{newKey("nginx_upstream_time"), newKey("nginx_request")}
