package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// clfLine takes what begins as eventlet's own template does, with a space between date and hour and no zone.
//
// eventlet-clf is
//
//	CLIENT - - [02/Jan/2006 15:04:05] "REQUEST" STATUS SIZE SECONDS[ (txn: ID)]
//
// Source: eventlet/wsgi.py, DEFAULT_LOG_FORMAT; glance, heat, old neutron and keystone, trove and tacker write it behind the prefix
// of oslo.log, whose time, the end, has milliseconds and is taken. Swift writes it behind `STDERR: `, with its transaction: a second
// line for a request that its own log has too. CLIENT is X-Forwarded-For without spaces, a comma and the peer. SIZE counts
// headers. SECONDS has six decimals.
//
// wsgiref is
//
//	CLIENT - - [02/Jan/2006 15:04:05] "REQUEST" STATUS SIZE|-
//
// Source: Python's http.server and wsgiref, werkzeug: services run by hand, and what eventlet says on standard error about
// requests that it refuses. The time is local, when the answer began. The size, if there is one, is the body's; a line that ends
// within it cannot be told from a whole one.
func (p *Parser) clfLine(s string, e *event.Event) Verdict {
	i := space(s)
	if i < 0 || len(s) < i+28 || s[i:i+6] != " - - [" {
		return Unparsed
	}
	client, date := s[:i], s[i+6:]
	bare := e.Logger == ""
	f := eventletCLF
	if bare && !p.env.stderr {
		f = wsgiref
	}
	if date[11] != ' ' || date[20] != ']' || date[21] != ' ' {
		if date[2] == '/' && date[6] == '/' && date[20] == ']' {
			p.parts(f, atTime, date)
		}
		return Unparsed
	}
	naive, utc, ok := p.clf(&p.spacedHour, date, ' ')
	if !ok {
		return p.parts(f, atTime, date)
	}
	rest := date[22:]
	if rest == "" || rest[0] != '"' {
		if !bare {
			return p.parts(f, atRequest, rest)
		}
		if strings.HasPrefix(rest, "code ") || strings.Contains(rest, "timed out") {
			p.reason = ReasonWSGIRef
			return Service
		}
		return p.parts(wsgiref, atRequest, rest)
	}

	var t clfTail
	ok = t.read(rest)
	// The line of oslo.log has a duration, else it is cut. So it is where a quote of the request stands for its end.
	inside := ok && strings.IndexByte(rest[1:t.quote], '"') >= 0
	ok = ok && (t.timed || bare && !p.env.stderr) && (!inside || endsInProtocol(rest[1:t.quote]))
	if ok {
		f = eventletCLF
		if !t.timed {
			f = wsgiref
		}
	}
	if !ok {
		if p.mask>>f&1 == 0 || !p.cutCLF(e, rest[1:]) {
			return p.clfParts(f, rest)
		}
	} else {
		if !p.enabled(f) {
			return Unparsed
		}
		req := rest[1:t.quote]
		if !request(e, req) {
			p.setRequestText(e, `{"eventlet_request":`, req)
		}
		setStatus(e, t.status)
		if t.hasSize {
			e.SetSize(t.size)
			e.SetBool(event.BoolSizeIncludesHeaders, t.timed)
		}
		if t.timed {
			e.SetDuration(t.took)
		}
		if t.txn != "" {
			e.RequestID = t.txn
		}
		e.Plain = !inside && strings.IndexByte(client, '"') < 0 && (t.txn == "" || strings.IndexByte(t.txn, '"') < 0) && !p.quoted
	}
	p.clients(e, client, true)
	access(e, f, basisEnd)
	if bare {
		if p.depth > 0 {
			utc = p.zoned(naive, utc, 0)
			p.fillOuter(e)
		}
		e.Time = time.Unix(utc, 0).UTC()
		p.fillByPath(e)
	}
	return Access
}

// clfParts notes where `" STATUS SIZE SECONDS` parts from what a server writes behind its request.
func (p *Parser) clfParts(f format, s string) Verdict {
	i := strings.LastIndex(s, `" `)
	if i < 0 {
		return p.parts(f, atStatus, s)
	}
	c := cursor{s: s, i: i + 2}
	at := c.i
	if _, ok := status3(c.word()); !ok {
		return p.parts(f, atStatus, s[at:])
	}
	at = c.i
	size, rest, more := field(c.rest())
	if !more {
		size = rest
	}
	if size != "-" && !allDigits(size) {
		return p.parts(f, atSize, s[at:])
	}
	if f == wsgiref {
		return p.parts(f, atEnd, s[at+len(size):])
	}
	if w, _, _ := cutAt(rest, ' '); more {
		at = len(s) - len(rest)
		if _, n, ok := seconds(w); ok && n >= 6 {
			return p.parts(f, atEnd, s[at+len(w):])
		}
	}
	return p.parts(f, atDuration, s[at:])
}

// endsInProtocol reports whether a request line is whole.
func endsInProtocol(s string) bool {
	return isProtocol(s[strings.LastIndexByte(s, ' ')+1:])
}

// clfTail is the end of a line after its request.
type clfTail struct {
	quote   int // where the request's closing quote stands
	status  int32
	size    int64
	hasSize bool
	took    time.Duration
	timed   bool
	txn     string
}

// read reads `" STATUS SIZE[ SECONDS][ (txn: ID)]` from the end of s: the request may hold quotes. It reports whether that is there.
func (t *clfTail) read(s string) bool {
	end := len(s)
	if end > 0 && s[end-1] == ')' {
		i := strings.LastIndex(s, " (txn: ")
		if i < 0 {
			return false
		}
		t.txn, end = s[i+7:end-1], i
	}
	w, i := lastWord(s, end)
	took, decimals, timed := seconds(w)
	if timed {
		if decimals < 6 {
			return false
		}
		t.took, t.timed = took, true
		end = i
		w, i = lastWord(s, end)
	}
	if t.size, t.hasSize = digits(w); !t.hasSize && w != "-" {
		return false
	}
	w, i = lastWord(s, i)
	var ok bool
	if t.status, ok = status3(w); !ok || i < 2 || s[i-1] != '"' {
		return false
	}
	t.quote = i - 1
	return t.quote > 0
}

// lastWord returns what stands between the last space before end and end, and where that space is; -1 if there is none.
func lastWord(s string, end int) (w string, space int) {
	if end < 0 {
		return "", -1
	}
	i := strings.LastIndexByte(s[:end], ' ')
	return s[i+1 : end], i
}

// isTransaction reports whether s is the begin of ` (txn: ID)`, or nothing.
func isTransaction(s string) bool {
	const key = " (txn: "
	return strings.HasPrefix(key, s) || strings.HasPrefix(s, key) && space(s[len(key):]) < 0
}

// cutCLF takes what is left of a request whose line's end is missing. Nothing behind the request is taken.
func (p *Parser) cutCLF(e *event.Event, req string) bool {
	if i := strings.LastIndexByte(req, '"'); i >= 0 {
		c := cursor{s: req, i: i + 1}
		c.lit(" ")
		status := c.num()
		c.lit(" ")
		if !c.bad && (status < 100 || status > 999) {
			return false
		}
		c.num()
		c.lit(" ")
		c.num()
		c.lit(".")
		c.num()
		if c.bad && !c.ended || !c.bad && !isTransaction(c.rest()) {
			return false
		}
		req = req[:i]
	} else if m, rest, ok := field(req); ok {
		if j := strings.IndexByte(rest, ' '); j >= 0 {
			req = req[:len(m)+1+j]
		}
	}
	m, target, ok := field(req)
	if !ok || !isMethod(m) || target == "" || target[0] != '/' && target[0] != '*' && !strings.HasPrefix(target, "http") {
		return false
	}
	request(e, req)
	p.setCut(e)
	return true
}
