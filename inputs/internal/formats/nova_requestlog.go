package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// requestlog takes the messages of nova's and placement's request logs.
//
// nova-requestlog, logger nova.api.openstack.requestlog, since 16.0.0:
//
//	ADDRESS "METHOD URI" status: NNN len: N|None microversion: V|- time: S.SSSSSS
//
// Source: nova/api/openstack/requestlog.py. The time is oslo.log's: the end, local. ADDRESS is the whole X-Forwarded-For,
// spaces and all, where proxy headers are parsed. No protocol. The path is decoded: it may hold spaces, quotes and newlines, so
// whoever asks for a path can write lines into the log. len is the body's. time is in seconds.
func (p *Parser) requestlog(s string, which loggerKind, e *event.Event) Verdict {
	f := novaRequestlog
	if which == placementRequestLogger {
		f = placementRequestlog
	}
	if strings.HasPrefix(s, "Starting request: ") {
		return Unparsed // placement's DEBUG twin, without a status
	}
	q := requestQuote(s)
	if q < 0 {
		return p.unquoted(f, s)
	}
	client := s[:q-1]
	t, ok := requestTail(s)
	if !ok || t.quote <= q || t.timed != (f == novaRequestlog) {
		wanted, before := p.enabled(f), p.suspect
		switch cut := p.cutRequest(e, s[q+1:], f); {
		case !wanted && cut:
			p.notWanted(e, before)
			return Unparsed
		case !wanted:
			return Unparsed
		case !cut:
			return p.statusParts(f, s[q:])
		}
		p.suspect |= openHead
		p.decoded(e)
		p.clients(e, client, true)
		access(e, f, basisEnd)
		return Access
	}
	if !p.enabled(f) {
		return Unparsed
	}
	req := s[q+1 : t.quote]
	m, target, ok := field(req)
	if ok && isMethod(m) && target != "" {
		e.Method = m
		e.Path, e.Query = splitTarget(target)
		p.decoded(e)
	} else {
		p.setRequestText(e, `{"requestlog_request":`, req)
	}
	setStatus(e, t.status)
	if t.hasSize {
		e.SetSize(t.size)
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	if t.timed {
		e.SetDuration(t.took)
	}
	if t.version != "-" && t.version != "" {
		*extra(e, "api_microversion") = event.StringValue(t.version)
	}
	p.clients(e, client, true)
	access(e, f, basisEnd)
	inside := strings.IndexByte(req, '"') >= 0
	if inside && isGlued(req) {
		p.suspect |= forgedLine
	}
	e.Plain = strings.IndexByte(client, '"') < 0 && !inside && !p.quoted
	return Access
}

// notWanted drops the head of a request of a format that is not among the chosen ones, but for this: what follows is inside it.
func (p *Parser) notWanted(e *event.Event, before suspicion) {
	e.Method, e.Path, e.Query = "", "", ""
	e.Unset(event.BoolTruncated)
	p.suspect = before | openHead
}

// requestQuote finds the quote that begins the request: the first one after a space that a method follows; -1 if there is none.
func requestQuote(s string) int {
	for i := 1; i < len(s); i++ {
		j := strings.IndexByte(s[i:], '"')
		if j < 0 {
			return -1
		}
		i += j
		if s[i-1] != ' ' {
			continue
		}
		if m, _, ok := field(s[i+1 : min(len(s), i+40)]); ok && isMethod(m) {
			return i
		}
	}
	return -1
}

// requestTail reads the fixed tail of a request log's line from its end.
func requestTail(s string) (t statusTail, ok bool) {
	end := len(s)
	if v, i, ok := keyed(s, end, " time: "); ok {
		var decimals int
		if t.took, decimals, ok = seconds(v); !ok || decimals < 6 {
			return t, false
		}
		t.timed = true
		end = i
	}
	v, i, ok := keyed(s, end, " microversion: ")
	if !ok {
		return t, false
	}
	t.version = v
	return t, t.lengthAndStatus(s, i) && t.spaces == 1
}

// endsRequest reports whether a line ends as a request log's line does: nova's, placement's or ironic's.
func endsRequest(s string) bool {
	if _, ok := requestTail(s); ok {
		return true
	}
	_, _, _, ok := ironicEnd(s)
	return ok
}

// decoded marks a path that holds what no path in a request line can hold: it was decoded, and what stood there before is
// not known.
func (p *Parser) decoded(e *event.Event) {
	if holdsDecoded(e.Path) {
		p.suspect |= decodedPath
	}
}

// holdsDecoded looks at eight bytes at a time, the last ones together with some before them.
func holdsDecoded(s string) bool {
	if len(s) >= 8 {
		for i := 0; i+8 < len(s); i += 8 {
			if isDecoded(le64(s, i)) {
				return true
			}
		}
		return isDecoded(le64(s, len(s)-8))
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' || c == '#' {
			return true
		}
	}
	return false
}

// isDecoded reports whether one of eight bytes is such a one.
func isDecoded(x uint64) bool {
	const l, h = 0x0101010101010101, 0x8080808080808080
	return (x|(x-l*(' '+1))|(x+l)|((x^l*'"')-l)|((x^l*'%')-l)|((x^l*'#')-l))&h != 0
}
