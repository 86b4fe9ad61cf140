package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// apacheOSA takes lines of Apache that leave the time to whoever takes them.
//
// apache-osa is
//
//	HOST IDENT USER ["FORWARDED" ]"REQUEST" STATUS SIZE "REFERER" "USER-AGENT"
//
// Source: OpenStack-Ansible, os_keystone keystone_apache_custom_log_format, piped to logger; its httpd role before that has no
// FORWARDED. The time is that of syslog or the journal, when the line was written: the end. The size is the body's. Escapes
// are Apache's, undone once. q is where the first quote stands.
func (p *Parser) apacheOSA(s string, q int, e *event.Event) Verdict {
	if q < 6 || s[q-1] != ' ' {
		return Unparsed
	}
	host, rest, ok := field(s[:q])
	_, user, ok2 := field(rest)
	if !ok || !ok2 || user == "" || user[len(user)-1] != ' ' || strings.Count(user, " ") != 1 {
		return Unparsed
	}
	user = user[:len(user)-1]
	first, rest, ok := quoted(s[q:])
	if !ok {
		return Unparsed
	}
	forwarded, req := "", first
	if strings.HasPrefix(rest, ` "`) {
		forwarded = first
		if req, rest, ok = quoted(rest[1:]); !ok {
			return p.parts(apacheOSALog, atRequest, s[q:])
		}
	}
	word, after, ok := field(strings.TrimPrefix(rest, " "))
	status, okStatus := status3(word)
	if !ok || !okStatus || rest[0] != ' ' {
		if isRequestLine(req) {
			p.parts(apacheOSALog, atStatus, rest)
		}
		return Unparsed
	}
	sizeWord, rest, ok := field(after)
	size, hasSize := digits(sizeWord)
	if !ok || !hasSize && sizeWord != "-" {
		return p.parts(apacheOSALog, atSize, after)
	}
	ref, ua, cut, ok := osaTexts(rest)
	if !ok {
		return p.parts(apacheOSALog, atTail, rest)
	}
	if !p.enabled(apacheOSALog) {
		return Unparsed
	}
	if cut {
		p.setCut(e)
	}
	if !request(e, p.unescape(req)) {
		p.setRequestText(e, `{"apache_request":`, req)
	}
	setStatus(e, status)
	if hasSize {
		e.SetSize(size)
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	if forwarded != "" && forwarded != "-" {
		p.clients(e, p.unescape(forwarded), false)
	} else {
		p.client(e, p.unescape(host))
	}
	if user != "-" && user != `""` {
		e.UserName = p.unescape(user)
		e.User = e.UserName
	}
	p.agents(e, ref, ua)
	access(e, apacheOSALog, basisEnd)
	e.Time = p.outerTime()
	p.fillByPath(e)
	p.fillOuter(e)
	return Access
}

// osaTexts reads `"REFERER" "USER-AGENT"`; cut says that the line ends within.
func osaTexts(s string) (ref, ua string, cut, ok bool) {
	if s == "" {
		return "-", "-", true, true
	}
	if s[0] != '"' {
		return "", "", false, false
	}
	ref, rest, whole := quoted(s)
	if !whole || rest == "" || rest == " " {
		return "-", "-", true, true
	}
	if !strings.HasPrefix(rest, ` "`) {
		return "", "", false, false
	}
	ua, rest, whole = quoted(rest[1:])
	if !whole {
		return ref, "-", true, true
	}
	return ref, ua, false, rest == ""
}

// isRequestLine reports whether a text could be a request line.
func isRequestLine(s string) bool {
	m, target, ok := field(s)
	return ok && isMethod(m) && target != "" && (target[0] == '/' || target[0] == '*')
}
