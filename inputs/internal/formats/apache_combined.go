package formats

import (
	"math/bits"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// apache takes a line of an access log of Apache, and HAProxy's httplog clf, which begins alike, and hands it to its format.
//
// apache-combined is
//
//	HOST IDENT USER [02/Jan/2006:15:04:05 +0000] "REQUEST" STATUS SIZE "REFERER" "USER-AGENT"[ N(us)|Nμs]
//
// Source: Apache's LogFormat `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`; devstack appends `%D(us)`, nova-operator
// `%Dμs` (U+03BC): microseconds. `common` is the same without the last two fields. The time is the start, with its zone. The
// size is the body's with %b and counts headers with %O, which Debian's combined has: the line does not tell, so neither does
// the event. Apache escapes quotes, backslashes and what is not printable: undone once.
func (p *Parser) apache(s string, e *event.Event) Verdict {
	if q := unescapedQuote(s, 0); q >= 0 {
		p.noEscape = strings.IndexByte(s, '\\') < 0
		v := p.apacheLine(s, q, e)
		p.noEscape = false
		return v
	}
	if beginsSwift(s) {
		return Unparsed // what is below would look through the whole line in vain
	}
	// Development servers talk without quotes.
	if v := p.clfLine(s, e); v != Unparsed || p.reason != "" || p.near.format != noFormat {
		return v
	}
	return p.unasked(s)
}

// apacheLine is apache for a line with quotes, of which it is known whether there are escapes; q is where the first one stands.
func (p *Parser) apacheLine(s string, q int, e *event.Event) Verdict {
	if q < 22 || s[q-1] != ' ' || s[q-2] != ']' {
		if v := p.apacheOSA(s, q, e); v != Unparsed || p.reason != "" || p.near.format != noFormat {
			return v
		}
		return p.unasked(s)
	}
	b := q - len(`[02/Jan/2006:15:04:05 +0000] `)
	if b < 0 || s[b] != '[' {
		b = lastBracket(s[:q-2], q-len(`[02/Jan/2006 15:04:05] `))
	}
	if b < 2 || s[b-1] != ' ' {
		return Unparsed
	}
	if q-3-b == 20 {
		return p.clfLine(s, e)
	}
	var l accessLine
	l.sec, l.nsec, l.iso, l.bad = p.apacheTime(s[b+1 : q-2])
	// HOST may be a list with spaces, or whatever a client sent as X-Forwarded-For: the two fields behind it are read from its end.
	head := s[:b-1]
	i := strings.LastIndexByte(head, ' ')
	if i < 1 {
		return Unparsed
	}
	l.user = head[i+1:]
	head = head[:i]
	if i = strings.LastIndexByte(head, ' '); i < 1 {
		return Unparsed
	}
	l.host = head[:i]
	if i = space(s); i < len(l.host) {
		l.readVhost(i)
	}
	if l.bad {
		return p.parts(p.apacheFormat(&l), atTime, s[b:])
	}

	end := unescapedQuote(s, q+1)
	if end < 0 {
		return p.apacheCut(s[q+1:], &l, e)
	}
	if strings.HasPrefix(s[end+1:], ` "`) {
		return p.nginxSkyline(s, q, &l, e)
	}
	l.request, l.closed = s[q+1:end], true
	l.plain = p.noEscape || strings.IndexByte(s[:end], '\\') < 0 // so the only quotes are the request's
	proxy := p.env.from.program == "haproxy"

	// From here on a line may end anywhere, but may not hold anything else.
	tail := s[end+1:]
	if len(tail) > 5 && tail[0] == ' ' && tail[4] == ' ' {
		l.status, l.hasStatus = status3(tail[1:4])
	}
	rest := tail[min(5, len(tail)):]
	if !l.hasStatus {
		var status string
		var more bool
		status, rest, more = field(strings.TrimPrefix(tail, " "))
		if tail != "" && tail[0] != ' ' {
			return p.parts(p.apacheFormat(&l), atStatus, tail)
		}
		if !more {
			if _, ok := digits(rest); len(rest) > 3 || !ok && rest != "" {
				return p.parts(p.apacheFormat(&l), atStatus, rest)
			}
			return p.apacheCut(l.request, &l, e)
		}
		if l.status, l.hasStatus = status3(status); !l.hasStatus && (!proxy || status != "-1") {
			return p.parts(p.apacheFormat(&l), atStatus, tail)
		}
	}
	size, more := "", true
	if l.size, rest, l.hasSize = count(rest); !l.hasSize {
		if size, rest, more = field(rest); !more {
			size, rest = rest, ""
		}
		if proxy && len(size) > 1 && size[0] == '+' {
			l.soFar, size = true, size[1:]
		}
		if l.size, l.hasSize = digits(size); !l.hasSize && size != "-" && size != "" {
			return p.parts(p.apacheFormat(&l), atSize, s[len(s)-len(rest)-len(size):])
		}
	}
	switch {
	case rest == "":
		if p.apacheTail || more || proxy || l.iso || size == "" {
			// More must follow, so the size may be cut as well.
			l.hasSize = l.hasSize && more
			return p.apacheCut(l.request, &l, e)
		}
		return p.apacheCombined(&l, e, "", "", "")
	case strings.HasPrefix(rest, `"" "" `) || proxy:
		return p.haproxyCLF(&l, rest, e)
	case rest[0] == '"':
		ref, rest, ok := quoted(rest)
		if !ok || rest == "" || rest == " " {
			return p.apacheCut(l.request, &l, e)
		}
		if !strings.HasPrefix(rest, ` "`) {
			return p.parts(p.apacheFormat(&l), atTail, rest)
		}
		ua, rest, ok := quoted(rest[1:])
		if !ok {
			p.agents(e, ref, "-")
			return p.apacheCut(l.request, &l, e)
		}
		if strings.HasPrefix(rest, ` "`) {
			return p.swiftStorage(&l, e, ref, ua, rest)
		}
		return p.apacheCombined(&l, e, ref, ua, rest)
	}
	l.timed = true
	if l.micros, rest, l.hasMicros = count(rest); !l.hasMicros {
		_, rest, more := field(rest)
		if _, ok := digits(rest); more || !ok {
			return p.parts(p.apacheFormat(&l), atDuration, rest)
		}
		return p.apacheCut(l.request, &l, e)
	}
	return p.apacheTimed(&l, rest, e)
}

// accessLine is what all of Apache's formats begin with.
type accessLine struct {
	host, user, request string
	sec, nsec           int64
	iso                 bool // the time is in ISO form
	bad                 bool
	status              int32
	hasStatus           bool
	size                int64
	hasSize             bool
	soFar               bool // HAProxy: the size is no total
	timed               bool // a number stands behind the size
	micros              int64
	hasMicros           bool
	closed              bool // the request has its closing quote
	vhost               string
	vport               int64
	plain               bool // nothing so far contains a quote
}

// apacheTime reads `02/Jan/2006:15:04:05 +0000`, or `2006-01-02T15:04:05.000000+0000` as apache-reqid has it.
func (p *Parser) apacheTime(s string) (sec, nsec int64, iso, bad bool) {
	switch {
	case len(s) == 26 && s[2] == '/' && s[20] == ' ':
		naive, _, ok := p.clf(&p.zonedHour, s, ':')
		off, n := offset(s[21:])
		return naive - off, 0, false, !ok || n != 5
	case len(s) >= 24 && s[4] == '-' && s[10] == 'T':
		naive, _, ok := p.iso(&p.outerHour, s)
		i := 19
		if s[i] == '.' {
			f, n := fraction(s[i+1:])
			nsec = f
			i += 1 + n
		}
		off, n := offset(s[i:])
		return naive - off, nsec, true, !ok || n == 0 || i+n != len(s)
	}
	return 0, 0, len(s) > 4 && s[4] == '-', true
}

// lastBracket finds the last opening bracket within the 40 bytes at the end of s; -1 if there is none. Mostly it is the one at likely.
func lastBracket(s string, likely int) int {
	b, from := -1, max(0, len(s)-40)
	if likely >= from && s[likely] == '[' {
		b, from = likely, likely+1
	}
	for i := strings.IndexByte(s[from:], '['); i >= 0; i = strings.IndexByte(s[from:], '[') {
		b, from = from+i, from+i+1
	}
	return b
}

// unescapedQuote finds the next quote, from i on, that no backslash escapes; -1 if there is none.
func unescapedQuote(s string, i int) int {
	for {
		j := strings.IndexByte(s[i:], '"')
		if j < 0 {
			return -1
		}
		i += j
		if i == 0 || s[i-1] != '\\' {
			return i
		}
		k := i - 1
		for k > 0 && s[k-1] == '\\' {
			k--
		}
		if (i-k)%2 == 0 {
			return i
		}
		i++
	}
}

// quoted reads the quoted text at the head of s. Many are short.
func quoted(s string) (text, rest string, ok bool) {
	if len(s) > 8 {
		if at := bytesOf('"', le64(s, 1)); at != 0 {
			if end := 1 + bits.TrailingZeros64(at)/8; s[end-1] != '\\' {
				return s[1:end], s[end+1:], true
			}
		}
	}
	end := unescapedQuote(s, 1)
	if end < 0 {
		return "", s, false
	}
	return s[1:end], s[end+1:], true
}

// apacheCommon fills what the formats share. peer says that HOST is the connection's peer, not a header.
func (p *Parser) apacheCommon(l *accessLine, e *event.Event, f format, peer bool) {
	e.Time = time.Unix(l.sec, l.nsec).UTC()
	req := l.request
	if f == haproxyCLF { // whose escapes are its own
		req = p.unhash(req, !l.closed)
	} else {
		req = p.unescape(req)
	}
	if f != swiftStorageLog && !request(e, req) && f != haproxyCLF {
		key := `{"apache_request":`
		if f == nginxCombined || f == nginxSkylineLog {
			key = `{"nginx_request":`
		}
		if l.request != "" {
			p.setRequestText(e, key, l.request)
		}
	}
	if l.hasStatus {
		setStatus(e, l.status)
	}
	if l.hasSize {
		e.SetSize(l.size)
	}
	p.clients(e, p.unescape(l.host), peer)
	if l.user != "-" && l.user != `""` && l.user != "" {
		e.UserName = p.unescape(l.user)
		e.User = e.UserName
	}
	access(e, f, basisStart)
	if f != haproxyCLF && f != swiftStorageLog { // which know better
		p.fillByPath(e)
	}
	if p.depth > 0 {
		p.fillOuter(e)
	}
	e.Plain = l.plain && len(req) == len(l.request)
}

// apacheCombined finishes a line of that format, or of those that differ from it in little. tail is what stands behind the user
// agent.
func (p *Parser) apacheCombined(l *accessLine, e *event.Event, ref, ua, tail string) Verdict {
	if l.iso {
		return Unparsed
	}
	if isStorageServer(p.env.from.program) {
		return p.apacheCut(l.request, l, e)
	}
	f := apacheCombined
	switch {
	case l.vhost != "":
		f = apacheVhost
	case p.nginx():
		f = nginxCombined
	}
	upstream := ""
	if tail != "" {
		took, times, ok := nginxTail(tail)
		switch n, micro := apacheMicros(tail); {
		case micro:
			took = micros(n)
		case ok:
			f, upstream = nginxCombined, times
		default:
			return p.parts(f, atTail, tail)
		}
		if !p.enabled(f) {
			return Unparsed
		}
		e.SetDuration(took)
	}
	if !p.enabled(f) {
		return Unparsed
	}
	p.apacheTail = p.apacheTail || ua != ""
	p.agents(e, ref, ua)
	p.apacheCommon(l, e, f, true)
	switch f {
	case apacheVhost:
		p.setVhost(l, e)
	case nginxCombined:
		e.TimestampBasis = basisEnd
		if l.hasSize {
			e.SetBool(event.BoolSizeIncludesHeaders, false)
		}
		if upstream != "" {
			p.setUpstream(upstream, l, e)
		}
	}
	return Access
}

// isDummy knows Apache's requests to itself, which wake its processes. Nobody asked for anything. Any client can send that name:
// only the host's own addresses are believed, or none, where a header stands for it.
func isDummy(e *event.Event) bool {
	return e.Method == "OPTIONS" && e.Path == "*" && strings.HasSuffix(e.UserAgent, "(internal dummy connection)") &&
		(e.Client == "::1" || e.Client == "127.0.0.1" || e.Client == "")
}

// apacheFormat is the format that a line follows so far.
func (p *Parser) apacheFormat(l *accessLine) format {
	switch {
	case l.iso:
		return apacheReqID
	case l.timed:
		return apacheKolla
	case p.env.from.program == "haproxy":
		return haproxyCLF
	case isStorageServer(p.env.from.program):
		return swiftStorageLog
	case l.vhost != "":
		return apacheVhost
	case p.nginx():
		return nginxCombined
	}
	return apacheCombined
}

// unasked notes where a line parts that begins as Apache's do and has no request in quotes behind its time.
func (p *Parser) unasked(s string) Verdict {
	const stamp = `[02/Jan/2006:15:04:05 +0000] `
	i := strings.Index(s, " [")
	if i < 5 || len(s) < i+1+len(stamp) {
		return Unparsed
	}
	if t := s[i+1:]; t[3] == '/' && t[7] == '/' && t[12] == ':' && t[21] == ' ' && t[27] == ']' && t[28] == ' ' && strings.Count(s[:i], " ") >= 2 {
		return p.parts(p.apacheFormat(&accessLine{}), atRequest, t[len(stamp):])
	}
	return Unparsed
}

// apacheMicros reads ` N(us)` or ` Nμs`.
func apacheMicros(s string) (n int64, ok bool) {
	if s[0] != ' ' || s[len(s)-1]-'0' <= 9 {
		return 0, false
	}
	return digits(strings.TrimSuffix(strings.TrimSuffix(s[1:], "(us)"), "μs"))
}

// agents sets referer and user agent.
func (p *Parser) agents(e *event.Event, ref, ua string) {
	if ref != "-" {
		e.Referer = p.unescape(ref)
	}
	if ua != "-" {
		e.UserAgent = p.unescape(ua)
	}
}

// apacheCut takes a line whose end is missing: an access record without what may have been cut.
func (p *Parser) apacheCut(req string, l *accessLine, e *event.Event) Verdict {
	f := p.apacheFormat(l)
	if !l.closed {
		m, rest, ok := field(req)
		if !ok || !isMethod(m) || rest == "" || rest[0] != '/' && rest[0] != '*' && !strings.HasPrefix(rest, "http") {
			return p.parts(f, atRequest, req)
		}
		// What stands after a second space is part of a protocol. A backslash at the end lost what it escapes.
		if i := strings.IndexByte(rest, ' '); i >= 0 {
			req = req[:len(m)+1+i]
		}
		req = strings.TrimRight(req, `\`)
	}
	if !p.enabled(f) {
		return Unparsed
	}
	l.request = req
	p.apacheCommon(l, e, f, f != apacheKolla)
	if f != apacheCombined && l.hasSize {
		e.SetBool(event.BoolSizeIncludesHeaders, f == haproxyCLF)
	}
	if l.hasMicros {
		e.SetDuration(micros(l.micros))
	}
	switch f {
	case apacheVhost:
		p.setVhost(l, e)
	case nginxCombined:
		e.TimestampBasis = basisEnd
	case haproxyCLF:
		p.fillByPath(e)
	case swiftStorageLog:
		p.storageRequest(l, e)
		p.fillSwift(e)
	}
	e.Plain = false
	p.setCut(e)
	return Access
}

// micros is n microseconds, within what a duration can hold.
func micros(n int64) time.Duration { return time.Duration(min(n, 1<<52)) * time.Microsecond }

// unescape undoes Apache's escapes.
func (p *Parser) unescape(s string) string {
	if p.noEscape {
		return s
	}
	return p.unescaped(s)
}

// unescaped is unescape for a line with escapes. A text with some is rewritten in the arena.
func (p *Parser) unescaped(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	d := p.arena.Alloc(len(s))[:0]
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			d = append(d, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'n':
			d = append(d, '\n')
		case 'r':
			d = append(d, '\r')
		case 't':
			d = append(d, '\t')
		case 'b':
			d = append(d, '\b')
		case 'v':
			d = append(d, '\v')
		case 'f':
			d = append(d, '\f')
		case 'a':
			d = append(d, '\a')
		case 'x':
			if i+2 < len(s) && hexValue[s[i+1]] >= 0 && hexValue[s[i+2]] >= 0 {
				d = append(d, byte(hexValue[s[i+1]])<<4|byte(hexValue[s[i+2]]))
				i += 2
				continue
			}
			d = append(d, '\\', 'x')
		case '"', '\\':
			d = append(d, c)
		default:
			d = append(d, '\\', c)
		}
	}
	return event.View(d)
}
