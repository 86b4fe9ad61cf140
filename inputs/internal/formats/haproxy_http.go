package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// haproxy takes a message of HAProxy, with or without a syslog prefix.
//
// haproxy-http is option httplog:
//
//	CLIENT:PORT [02/Jan/2006:15:04:05.000] FRONTEND[~] BACKEND/SERVER TR/Tw/Tc/Tr/Ta STATUS BYTES REQ-COOKIE RESP-COOKIE
//	STATE ACT/FE/BE/SRV/RETRIES SRVQUEUE/BEQUEUE [{REQUEST-HEADERS}] [{RESPONSE-HEADERS}] "METHOD TARGET HTTP/x.y"[ MORE]
//
// Source: HAProxy doc/configuration.txt 8.2.3. The time is the start, local, without a zone; the syslog prefix may tell the
// zone. Timers are milliseconds, -1 for a phase that was not reached; Ta is the request's duration. BYTES counts headers too. A
// plus before Ta or BYTES (option logasap) means that the figure is not final: both are then left out. STATUS -1 is none. `<BADREQ>` is
// no request. HAProxy writes quotes, # itself and what is not printable as #XX, in headers braces and | too (src/log.c, init_log), so
// the first quote begins the request, and no # is the client's: in the request that is undone.
//
// Captured headers are in braces only where a frontend captures some, and the line does not say which: they are attributes as they
// stand there, a request id among them too. With two blocks the second is the response's. An own log-format may add its unique id behind the request. HAProxy cuts the line at 1,024 bytes: without
// the closing quote the record is truncated.
func (p *Parser) haproxy(s string, e *event.Event) Verdict {
	if sp := space(s); sp >= 4 && sp+25 <= len(s) && s[sp+1] == '[' {
		return p.httplog(s, sp, e)
	}
	if p.env.from.program == "haproxy" {
		return p.apache(s, e)
	}
	return Unparsed
}

// httplog is haproxy for what may be a line of option httplog; sp is where its first space stands.
func (p *Parser) httplog(s string, sp int, e *event.Event) Verdict {
	colon := sp - 1
	for colon > 0 && s[colon]-'0' <= 9 {
		colon--
	}
	if n := sp - 1 - colon; colon < 1 || s[colon] != ':' || n == 0 || n > 18 {
		return Unparsed
	}
	client := s[:colon]
	date := s[sp+2:]
	naive, utc, ok := p.clf(&p.clfHour, date, ':')
	i := 20
	var ns int64
	if ok && len(date) > i && date[i] == '.' {
		f, n := fraction(date[i+1:])
		ns = f
		i += 1 + n
	}
	if !ok || i+2 > len(date) || date[i] != ']' || date[i+1] != ' ' {
		return p.parts(haproxyHTTP, atTime, date)
	}
	front, rest, ok := field(date[i+2:])
	if ok && strings.HasSuffix(front, ":") && strings.IndexByte(front, '/') > 0 {
		// FRONTEND/BIND: and a text, such as "SSL handshake failure": a connection on which nobody asked for anything.
		p.reason = ReasonHAProxy
		return p.syslogService(e)
	}
	slash, end := 0, 0 // one loop for both, for the words are short
	for end < len(rest) && rest[end] != ' ' {
		if rest[end] == '/' {
			slash = end
		}
		end++
	}
	if !ok || end == len(rest) {
		return p.parts(haproxyHTTP, atTail, rest)
	}
	where, rest := rest[:end], rest[end+1:]
	if slash < 1 {
		return p.parts(haproxyHTTP, atTail, rest)
	}
	back, server := where[:slash], where[slash+1:]

	begun := p.newObject()
	if n := len(front); n > 1 && front[n-1] == '~' {
		front = front[:n-1]
		begun = begun.yes(&haproxyKeys.tls)
	}
	begun = begun.haproxyNames(front, back, server)
	begun = begun.figure(&haproxyKeys.accepted[0], s[colon+1:sp])
	o, g, at := begun.usualFigures(rest)
	if at == 0 {
		var v Verdict
		if o, g, at, v = p.anyFigures(begun, rest); v != Access {
			return v
		}
	}

	// All that is counted is there; what follows may be cut.
	var blocks [2]string
	nblocks := 0
	cut := false
	rest = rest[at:]
	for nblocks < 2 && strings.HasPrefix(rest, " {") {
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			cut = true
			break
		}
		blocks[nblocks] = rest[2:end]
		nblocks++
		rest = rest[end+1:]
	}
	req, suffix := "", ""
	plain := false
	switch {
	case cut:
	case strings.HasPrefix(rest, ` "`):
		req = rest[2:]
		if req, suffix, plain = cutAt(req, '"'); !plain {
			cut = true
		} else if strings.IndexByte(suffix, '"') >= 0 {
			end := strings.LastIndexByte(rest, '"')
			req, suffix, plain = rest[2:end], rest[end+1:], false
		}
	case rest == "" || rest == " ":
		cut = true
	default:
		return p.parts(haproxyHTTP, atRequest, rest)
	}
	var tls tlsTail
	secure := len(suffix) >= shortestTLS && tls.read(suffix)
	f := haproxyHTTP
	if secure {
		f = haproxyHTTPS
	}
	if !p.enabled(f) {
		return Unparsed
	}
	full := req
	if cut && req != "" {
		if m, target, ok := field(req); ok {
			if j := strings.IndexByte(target, ' '); j >= 0 {
				req = req[:len(m)+1+j]
			}
		}
	}
	text := p.unhash(req, cut)
	plain = plain && len(text) == len(req)
	known := text != "" && request(e, text)

	if g.status >= 100 && g.status <= 999 {
		setStatus(e, int32(g.status))
	}
	if !g.more {
		e.SetSize(g.size)
		e.SetBool(event.BoolSizeIncludesHeaders, true)
		if g.taken >= 0 {
			e.SetDuration(time.Duration(min(g.taken, 1<<43)) * time.Millisecond)
		}
	}
	if p.depth > 0 {
		utc = p.zoned(naive, utc, max(0, g.taken)/1000)
		p.fillOuter(e)
	}
	e.Time = time.Unix(utc, ns).UTC()
	p.client(e, client)
	if cut {
		p.setCut(e)
	}

	p.fillHAProxy(e, front, back)
	p.words = p.words || g.cookies
	switch {
	case nblocks == 2:
		if blocks[0] != "" {
			o = p.said(o, &haproxyKeys.requestHeaders, blocks[0])
		}
		if blocks[1] != "" {
			o = p.said(o, &haproxyKeys.responseHeaders, blocks[1])
		}
	case nblocks == 1 && blocks[0] != "":
		o = p.said(o, &haproxyKeys.headers, blocks[0])
	}
	if !known && full != "" {
		o = p.said(o, &haproxyKeys.request, full)
	}
	if secure {
		o = p.tlsAttributes(o, &tls)
	} else if suffix = strings.TrimPrefix(suffix, " "); suffix != "" && suffix != "-" {
		o = p.said(o, &haproxyKeys.uniqueID, suffix)
	}
	access(e, f, basisStart)
	e.Plain = plain && (len(e.Client) == len(client) || strings.IndexByte(client, '"') < 0)
	p.end(o, e)
	return Access
}

// haproxyFigures is what a line of option httplog counts, but for what is an attribute alone.
type haproxyFigures struct {
	status, size, taken int64
	more                bool // size and taken are not final
	cookies             bool // there is one among the attributes
}

// usualFigures takes the figures at the head of s where they are as in nearly all lines, without signs and cookies, and writes their
// attributes meanwhile. next is where they end; 0 says that they are others: see anyFigures.
func (o object) usualFigures(s string) (written object, g haproxyFigures, next int) {
	o, last, i := o.figures(haproxyKeys.timers[:], s, 0, "//// ")
	if i == 0 {
		return nil, g, 0
	}
	g.taken, _ = digits(s[last : i-1])
	if g.status, i = spacedNumber(s, i); i == 0 {
		return nil, g, 0
	}
	if g.size, i = spacedNumber(s, i); i == 0 || !strings.HasPrefix(s[i:], "- - ") {
		return nil, g, 0
	}
	if o, i = o.haproxyState(s, i+4); i == 0 {
		return nil, g, 0
	}
	if o, _, i = o.figures(haproxyKeys.counts[:], s, i, "//// / "); i == 0 {
		return nil, g, 0
	}
	return o, g, i - 1
}

// anyFigures is usualFigures for whatever figures there are. The verdict is another one than Access where the line parts or tells of a
// connection alone.
func (p *Parser) anyFigures(o object, s string) (written object, g haproxyFigures, next int, v Verdict) {
	c := cursor{s: s}
	var timers [5]int64
	n := 0
	for n < len(timers) {
		g.more = c.plus() || g.more
		timers[n] = c.signed()
		n++
		if c.bad || c.i >= len(c.s) || c.s[c.i] != '/' {
			break
		}
		c.i++
	}
	c.lit(" ")
	switch {
	case c.bad:
		return nil, g, 0, p.parts(haproxyHTTP, atDuration, c.rest())
	case n == 3:
		p.reason = ReasonHAProxyTCP
		return nil, g, 0, Service
	case n != len(timers):
		return nil, g, 0, p.parts(haproxyHTTP, atDuration, c.rest())
	}
	if g.status = c.signedTo(' '); c.bad {
		return nil, g, 0, p.parts(haproxyHTTP, atStatus, c.rest())
	}
	g.more = c.plus() || g.more
	if g.size = c.numTo(' '); c.bad {
		return nil, g, 0, p.parts(haproxyHTTP, atSize, c.rest())
	}
	reqCookie, respCookie, state := c.word(), c.word(), c.word()
	var counts [7]int64
	for k := range 4 {
		counts[k] = c.numTo('/')
	}
	redispatched := c.plus()
	counts[4] = c.numTo(' ')
	counts[5] = c.numTo('/')
	counts[6] = c.num()
	if c.bad || len(state) != 4 {
		return nil, g, 0, p.parts(haproxyHTTP, atTail, c.rest())
	}

	if g.taken = timers[4]; g.more {
		timers[4] = -1
	}
	o = o.numbers(haproxyKeys.timers[:], timers[:])
	o = o.own(&haproxyKeys.terminationState, state)
	o = o.numbers(haproxyKeys.counts[:], counts[:])
	if redispatched {
		o = o.yes(&haproxyKeys.redispatched)
	}
	if g.more {
		o = o.number(&haproxyKeys.bytesSoFar, g.size)
	}
	if reqCookie != "-" {
		g.cookies, o = true, o.own(&haproxyKeys.requestCookie, reqCookie)
	}
	if respCookie != "-" {
		g.cookies, o = true, o.own(&haproxyKeys.responseCookie, respCookie)
	}
	return o, g, c.i, Access
}

// haproxyState reads the four bytes of the state at i and a space, and writes it. next is behind that; 0 if something else is there.
func (o object) haproxyState(s string, i int) (written object, next int) {
	if i+5 > len(s) {
		return nil, 0
	}
	t := s[i : i+5]
	if t[0] == ' ' || t[1] == ' ' || t[2] == ' ' || t[3] == ' ' || t[4] != ' ' {
		return nil, 0
	}
	return o.own(&haproxyKeys.terminationState, t[:4]), i + 5
}

// haproxyNames writes the names of HAProxy's configuration.
func (o object) haproxyNames(front, back, server string) object {
	o = o.own(&haproxyKeys.frontend, front)
	o = o.own(&haproxyKeys.backend, back)
	return o.own(&haproxyKeys.server, server)
}

// spacedNumber reads a number of 1 to 18 digits at i, and a space. next is behind it; 0 if something else is there.
func spacedNumber(s string, i int) (n int64, next int) {
	n, end := numberAt(s, i)
	if !isTextAt(s, end, " ") {
		return 0, 0
	}
	return n, end + 1
}

// unhash undoes HAProxy's escapes. Of the last one of a text that was cut a part may be missing: what is there is left out.
func (p *Parser) unhash(s string, cut bool) string {
	i := strings.IndexByte(s, '#')
	if i < 0 {
		return s
	}
	d := append(p.arena.Alloc(len(s))[:0], s[:i]...)
	for ; i < len(s); i++ {
		switch {
		case s[i] == '#' && i+2 < len(s) && hexValue[s[i+1]] >= 0 && hexValue[s[i+2]] >= 0:
			d = append(d, byte(hexValue[s[i+1]])<<4|byte(hexValue[s[i+2]]))
			i += 2
		case s[i] == '#' && i+3 > len(s) && cut:
			return event.View(d)
		default:
			d = append(d, s[i])
		}
	}
	return event.View(d)
}

// fillHAProxy sets the origin: the frontend's name tells the service, else the backend's, else the path.
func (p *Parser) fillHAProxy(e *event.Event, front, back string) {
	from := p.fronts.look(front)
	if from.service == "" {
		from = &p.last
		if p.last = originOf(back); p.last.service == "" {
			from = p.paths.look(e.Path)
		}
	}
	p.fillOrigin(e, &nobody, from)
	if e.Program == "" {
		e.Program = "haproxy"
	}
}

// haproxyKeys are the names of HAProxy's attributes.
var haproxyKeys = struct {
	frontend, backend, server, terminationState, uniqueID key
	requestCookie, responseCookie, request                key
	requestHeaders, responseHeaders, headers              key
	bytesSoFar, tls, redispatched                         key
	accepted                                              [2]key // the client's port, and the fraction of the accept's time
	timers                                                [5]key // TR, Tw, Tc, Tr, Ta
	counts                                                [7]key // from ACT to BEQUEUE
	tlsTail                                               [8]key // as the type has them
}{
	frontend:         newKey("haproxy_frontend"),
	backend:          newKey("haproxy_backend"),
	server:           newKey("haproxy_server"),
	terminationState: newKey("haproxy_termination_state"),
	requestCookie:    newKey("haproxy_request_cookie"),
	responseCookie:   newKey("haproxy_response_cookie"),
	requestHeaders:   newKey("haproxy_request_headers"),
	responseHeaders:  newKey("haproxy_response_headers"),
	headers:          newKey("haproxy_headers"),
	request:          newKey("haproxy_request"),
	uniqueID:         newKey("haproxy_unique_id"),
	bytesSoFar:       newKey("haproxy_bytes_so_far_int"),
	tls:              newKey("haproxy_tls_bool"),
	redispatched:     newKey("haproxy_redispatched_bool"),
	accepted:         [...]key{newKey("haproxy_client_port_int"), newKey("haproxy_accept_ms_int")},
	timers: [...]key{
		newKey("haproxy_time_request_ms_int"), newKey("haproxy_time_queue_ms_int"), newKey("haproxy_time_connect_ms_int"),
		newKey("haproxy_time_response_ms_int"), newKey("haproxy_time_active_ms_int"),
	},
	counts: [...]key{
		newKey("haproxy_connections_int"), newKey("haproxy_frontend_connections_int"), newKey("haproxy_backend_connections_int"),
		newKey("haproxy_server_connections_int"), newKey("haproxy_retries_int"), newKey("haproxy_server_queue_int"), newKey("haproxy_backend_queue_int"),
	},
	tlsTail: [...]key{
		newKey("haproxy_connection_error"), newKey("haproxy_tls_error"), newKey("haproxy_client_certificate_error"), newKey("haproxy_client_ca_error"),
		newKey("haproxy_tls_resumed_bool"), newKey("haproxy_sni"), newKey("haproxy_tls_version"), newKey("haproxy_tls_cipher"),
	},
}
