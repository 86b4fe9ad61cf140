package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// statusTail is the end of a line after its quoted request: ` status: 200 len: 15 …`.
type statusTail struct {
	quote   int // where the request's closing quote stands
	status  int32
	size    int64
	hasSize bool
	took    time.Duration
	timed   bool
	version string // microversion
	spaces  int    // before "len:"
}

// keyed reads backwards from end one `KEYVALUE`, where key ends in a space and the value has none.
func keyed(s string, end int, key string) (value string, start int, ok bool) {
	i := end - 1
	for low := max(0, end-40); i >= low && s[i] != ' '; i-- {
	}
	start = i + 1 - len(key)
	if start < 0 || i < 0 || s[start:i+1] != key || i+1 == end {
		return "", 0, false
	}
	return s[i+1 : end], start, true
}

// lengthAndStatus reads backwards ` len: N` and `" status: NNN` before it.
func (t *statusTail) lengthAndStatus(s string, end int) bool {
	v, i, ok := keyed(s, end, " len: ")
	if !ok {
		return false
	}
	if t.size, t.hasSize = digits(v); !t.hasSize && v != "None" && v != "-" {
		return false
	}
	t.spaces = 1
	if i > 0 && s[i-1] == ' ' {
		t.spaces = 2
		i--
	}
	const key = `" status: `
	if i < len(key)+3 || s[i-3-len(key):i-3] != key {
		return false
	}
	if t.status, ok = status3(s[i-3 : i]); !ok {
		return false
	}
	t.quote = i - 3 - len(key)
	return true
}

// cutRequest takes what is left of an access line whose end is missing: the request as far as it goes. The line may end
// anywhere, but what stands behind the request's last quote must be the begin of the fixed tail. Nothing of the tail is taken,
// for without the line's end what looks like it may be a part of the path. A request line of eventlet's ends in a protocol, one of
// a request log does not.
func (p *Parser) cutRequest(e *event.Event, req string, f format) bool {
	const key = `" status: `
	versioned := f == novaEventlet || f == osloEventlet
	if i := strings.LastIndex(req, key); i >= 0 {
		c := cursor{s: req, i: i + len(key)}
		if c.num(); !c.bad && c.i < len(req) && c.i-i-len(key) != 3 {
			return false
		}
		if !c.bad && strings.HasPrefix(req[c.i:], "  ") {
			c.i++
		}
		c.lit(" ")
		c.lit("len: ")
		if l := c.word(); !c.bad && l != "None" && l != "-" {
			if _, ok := digits(l); !ok {
				return false
			}
		}
		if !versioned {
			c.lit("microversion: ")
			c.word()
		}
		if f != placementRequestlog {
			c.lit("time: ")
			c.num()
			c.lit(".")
			c.num()
		}
		if c.bad && !c.ended || !c.bad && c.i != len(req) {
			return false
		}
		req = req[:i]
	} else if i := strings.LastIndexByte(req, '"'); i >= 0 && strings.HasPrefix(key, req[i:]) {
		req = req[:i]
	} else if i := strings.LastIndexByte(req, '"'); i >= 0 && versioned && endsInProtocol(req[:i]) {
		return false // the request is whole, and what follows it is nothing that is known
	} else if m, rest, ok := field(req); ok && versioned {
		// What stands behind a second space is part of a protocol.
		if j := strings.IndexByte(rest, ' '); j >= 0 {
			req = req[:len(m)+1+j]
		}
	}
	m, target, ok := field(req)
	if !ok || !isMethod(m) || target == "" || target[0] != '/' && target[0] != '*' && !strings.HasPrefix(target, "http") {
		return false
	}
	if versioned {
		request(e, req)
	} else {
		e.Method = m
		e.Path, e.Query = splitTarget(target)
	}
	p.setCut(e)
	return true
}

// eventlet takes the message of an eventlet WSGI server: nova's template and oslo.service's, and names those that are none.
func (p *Parser) eventlet(s string, e *event.Event) Verdict {
	q := strings.IndexByte(s, '"')
	if q < 0 {
		return p.unquoted(p.eventletOf(e), s)
	}
	quotes := false // in the client's part
	if q == 0 || s[q-1] != ' ' {
		// A forwarded list has no spaces, but may have quotes: it ends at the first space.
		sp := strings.IndexByte(s, ' ')
		if sp > 0 && strings.HasPrefix(s[sp:], " - - [") {
			return p.clfLine(s, e)
		}
		if sp < 0 || sp+1 >= len(s) || s[sp+1] != '"' {
			return p.unquoted(p.eventletOf(e), s)
		}
		q, quotes = sp+1, true
	}
	client := s[:q-1]
	if strings.IndexByte(client, ' ') >= 0 {
		if v := p.clfLine(s, e); v != Unparsed || p.reason != "" || p.near.format != noFormat {
			return v
		}
		return p.unquoted(p.eventletOf(e), s)
	}

	var t statusTail
	if v, i, ok := keyed(s, len(s), " time: "); ok && t.lengthAndStatus(s, i) && t.quote > q {
		var decimals int
		if t.took, decimals, ok = seconds(v); ok && decimals >= 6 {
			f := novaEventlet
			if t.spaces == 2 {
				f = osloEventlet
			}
			if !p.enabled(f) {
				return Unparsed
			}
			req := s[q+1 : t.quote]
			if !request(e, req) {
				p.setRequestText(e, `{"eventlet_request":`, req)
			}
			setStatus(e, t.status)
			if t.hasSize {
				e.SetSize(t.size)
				e.SetBool(event.BoolSizeIncludesHeaders, true)
			}
			e.SetDuration(t.took)
			p.clients(e, client, true)
			access(e, f, basisEnd)
			inside := strings.IndexByte(req, '"') >= 0
			if inside && isGlued(req) {
				p.suspect |= forgedLine
			}
			e.Plain = !quotes && !inside && !p.quoted
			return Access
		}
	}
	f := p.eventletOf(e)
	if isWSGIText(client) {
		return Unparsed
	}
	if p.mask>>f&1 == 0 || !p.cutRequest(e, s[q+1:], f) {
		if isRequestLine(s[q+1:]) {
			return p.statusParts(f, s[q:])
		}
		return Unparsed
	}
	p.clients(e, client, true)
	access(e, f, basisEnd)
	return Access
}

// eventletOf is the format that a logger's server writes.
func (p *Parser) eventletOf(e *event.Event) format {
	if strings.HasSuffix(e.Logger, "neutron.wsgi") || strings.HasPrefix(e.Logger, "eventlet.") {
		return osloEventlet
	}
	return novaEventlet
}

// unquoted notes where a line parts that has an access line's end and no request in quotes.
func (p *Parser) unquoted(f format, s string) Verdict {
	_, rest, ok := field(s)
	if ok && strings.Contains(rest, " status: ") && strings.Contains(rest, " len: ") {
		return p.parts(f, atRequest, rest)
	}
	return Unparsed
}

// statusParts notes where ` status: NNN len: N …` parts from what a server writes behind its request. s begins at the request's quote.
func (p *Parser) statusParts(f format, s string) Verdict {
	const key = `" status: `
	i := strings.LastIndex(s, key)
	if i < 0 {
		return p.parts(f, atStatus, s)
	}
	c := cursor{s: s, i: i + len(key)}
	at := c.i
	if _, ok := status3(c.word()); !ok {
		return p.parts(f, atStatus, s[at:])
	}
	if at = c.i; strings.HasPrefix(c.rest(), " ") {
		c.i++
	}
	c.lit("len: ")
	if v := c.word(); c.bad || v != "None" && v != "-" && !allDigits(v) {
		return p.parts(f, atSize, s[at:])
	}
	at = c.i
	if f == novaRequestlog || f == placementRequestlog {
		c.lit("microversion: ")
		if c.word(); c.bad {
			return p.parts(f, atTail, s[at:])
		}
		at = c.i
	}
	if f != placementRequestlog {
		c.lit("time: ")
		w := c.rest()
		if j := space(w); j >= 0 {
			w = w[:j]
		}
		if _, n, ok := seconds(w); c.bad || !ok || n < 6 {
			return p.parts(f, atDuration, s[at:])
		}
		at = c.i + len(w)
	}
	return p.parts(f, atEnd, s[at:])
}

// isWSGIText reports whether the text before a quote cannot be a client: `(4211) accepted ('…` and other talk.
func isWSGIText(s string) bool { return s == "" || s[0] == '(' }

// setRequestText keeps a request line that is none as an attribute; key is the begin of the object.
func (p *Parser) setRequestText(e *event.Event, key, text string) {
	p.buf = event.AppendString(append(p.buf[:0], key...), text)
	p.buf = append(p.buf, '}')
	p.setAttributes(e)
}

// setAttributes hands the object in buf to the event.
func (p *Parser) setAttributes(e *event.Event) {
	p.words = true
	*extra(e, "attributes") = event.ObjectValue(p.arena.Copy(p.buf))
}
