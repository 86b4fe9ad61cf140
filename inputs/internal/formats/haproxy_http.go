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
	colon := strings.LastIndexByte(s[:sp], ':')
	if colon < 1 {
		return Unparsed
	}
	port, ok := digits(s[colon+1 : sp])
	if !ok {
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
	c := cursor{s: date, i: i + 2}
	front := c.word()
	if strings.HasSuffix(front, ":") && strings.IndexByte(front, '/') > 0 {
		// FRONTEND/BIND: and a text, such as "SSL handshake failure": a connection on which nobody asked for anything.
		p.reason = ReasonHAProxy
		return p.syslogService(e)
	}
	where := c.word()
	if c.bad {
		return p.parts(haproxyHTTP, atTail, c.rest())
	}
	slash := strings.LastIndexByte(where, '/')
	if slash < 1 {
		return p.parts(haproxyHTTP, atTail, c.rest())
	}
	back, server := where[:slash], where[slash+1:]

	var timers [5]int64
	more := false // figures are not final
	count := 0
	for ; count < len(timers); count++ {
		if c.i < len(c.s) && c.s[c.i] == '+' {
			more = true
			c.i++
		}
		timers[count] = c.signed()
		if c.bad || c.i >= len(c.s) || c.s[c.i] != '/' {
			count++
			break
		}
		c.i++
	}
	c.lit(" ")
	if c.bad {
		return p.parts(haproxyHTTP, atDuration, c.rest())
	}
	if count == 3 {
		p.reason = ReasonHAProxyTCP
		return Service
	}
	if count != 5 {
		return p.parts(haproxyHTTP, atDuration, c.rest())
	}
	status := c.signedTo(' ')
	if c.bad {
		return p.parts(haproxyHTTP, atStatus, c.rest())
	}
	if c.i < len(c.s) && c.s[c.i] == '+' {
		more = true
		c.i++
	}
	size := c.numTo(' ')
	if c.bad {
		return p.parts(haproxyHTTP, atSize, c.rest())
	}
	reqCookie, respCookie := "-", "-" // which most are
	if strings.HasPrefix(c.rest(), "- - ") {
		c.i += 4
	} else {
		reqCookie, respCookie = c.word(), c.word()
	}
	state := c.word()
	var conns [5]int64
	redispatched := false
	for k := range conns {
		if k == 4 && !c.bad && c.i < len(c.s) && c.s[c.i] == '+' {
			redispatched = true
			c.i++
		}
		end := byte('/')
		if k == 4 {
			end = ' '
		}
		conns[k] = c.numTo(end)
	}
	srvQueue := c.numTo('/')
	backQueue := c.num()
	if c.bad || len(state) != 4 {
		return p.parts(haproxyHTTP, atTail, c.rest())
	}

	// All that is counted is there; what follows may be cut.
	var blocks [2]string
	nblocks := 0
	cut := false
	rest := c.s[c.i:]
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
		if end := strings.LastIndexByte(req, '"'); end >= 0 {
			req, suffix = req[:end], req[end+1:]
			plain = strings.IndexByte(req, '"') < 0
		} else {
			cut = true
		}
	case rest == "" || rest == " ":
		cut = true
	default:
		return p.parts(haproxyHTTP, atRequest, rest)
	}
	tls, secure := haproxyTLS(suffix)
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

	if status >= 100 && status <= 999 {
		setStatus(e, int32(status))
	}
	taken := timers[4]
	if more {
		timers[4] = -1
	} else {
		e.SetSize(size)
		e.SetBool(event.BoolSizeIncludesHeaders, true)
		if taken >= 0 {
			e.SetDuration(time.Duration(min(taken, 1<<43)) * time.Millisecond)
		}
	}
	if p.depth > 0 {
		utc = p.zoned(naive, utc, max(0, taken)/1000)
		p.fillOuter(e)
	}
	e.Time = time.Unix(utc, ns).UTC()
	p.client(e, client)
	if cut {
		p.setCut(e)
	}

	o := p.newObject()
	if n := len(front); n > 1 && front[n-1] == '~' {
		front = front[:n-1]
		o = o.yes(&haproxyKeys.tls)
	}
	p.fillHAProxy(e, front, back)
	o = o.own(&haproxyKeys.frontend, front)
	o = o.own(&haproxyKeys.backend, back)
	o = o.own(&haproxyKeys.server, server)
	o = o.number(&haproxyKeys.clientPort, port)
	o = o.haproxyTimers(&timers)
	o = o.own(&haproxyKeys.terminationState, state)
	o = o.haproxyCounts(&conns, srvQueue, backQueue)
	if redispatched {
		o = o.yes(&haproxyKeys.redispatched)
	}
	if more {
		o = o.number(&haproxyKeys.bytesSoFar, size)
	}
	if reqCookie != "-" {
		o = p.said(o, &haproxyKeys.requestCookie, reqCookie)
	}
	if respCookie != "-" {
		o = p.said(o, &haproxyKeys.responseCookie, respCookie)
	}
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
	e.Plain = plain && strings.IndexByte(client, '"') < 0
	p.end(o, e)
	return Access
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

// haproxyTimers writes HAProxy's five timers, those that have a value.
func (o object) haproxyTimers(t *[5]int64) object {
	if t[0] >= 0 {
		o = o.number(&haproxyKeys.timeRequestMS, t[0])
	}
	if t[1] >= 0 {
		o = o.number(&haproxyKeys.timeQueueMS, t[1])
	}
	if t[2] >= 0 {
		o = o.number(&haproxyKeys.timeConnectMS, t[2])
	}
	if t[3] >= 0 {
		o = o.number(&haproxyKeys.timeResponseMS, t[3])
	}
	if t[4] >= 0 {
		o = o.number(&haproxyKeys.timeActiveMS, t[4])
	}
	return o
}

// haproxyCounts writes HAProxy's counters of connections and queues at the time that the line was written.
func (o object) haproxyCounts(c *[5]int64, srvQueue, backQueue int64) object {
	o = o.number(&haproxyKeys.connections, c[0])
	o = o.number(&haproxyKeys.frontendConnections, c[1])
	o = o.number(&haproxyKeys.backendConnections, c[2])
	o = o.number(&haproxyKeys.serverConnections, c[3])
	o = o.number(&haproxyKeys.retries, c[4])
	o = o.number(&haproxyKeys.serverQueue, srvQueue)
	return o.number(&haproxyKeys.backendQueue, backQueue)
}

// haproxyKeys are the names of HAProxy's attributes.
var haproxyKeys = struct {
	frontend, backend, server, terminationState, requestCookie, responseCookie, requestHeaders, responseHeaders, headers, request, uniqueID, clientPort, bytesSoFar, tls, redispatched, timeRequestMS, timeQueueMS, timeConnectMS, timeResponseMS, timeActiveMS, connections, frontendConnections, backendConnections, serverConnections, retries, serverQueue, backendQueue, acceptMS, connectionError, tlsError, clientCertificateError, clientCAError, sni, tlsVersion, tlsCipher, tlsResumed key
}{
	frontend:               newKey("haproxy_frontend"),
	backend:                newKey("haproxy_backend"),
	server:                 newKey("haproxy_server"),
	terminationState:       newKey("haproxy_termination_state"),
	requestCookie:          newKey("haproxy_request_cookie"),
	responseCookie:         newKey("haproxy_response_cookie"),
	requestHeaders:         newKey("haproxy_request_headers"),
	responseHeaders:        newKey("haproxy_response_headers"),
	headers:                newKey("haproxy_headers"),
	request:                newKey("haproxy_request"),
	uniqueID:               newKey("haproxy_unique_id"),
	clientPort:             newKey("haproxy_client_port_int"),
	bytesSoFar:             newKey("haproxy_bytes_so_far_int"),
	tls:                    newKey("haproxy_tls_bool"),
	redispatched:           newKey("haproxy_redispatched_bool"),
	timeRequestMS:          newKey("haproxy_time_request_ms_int"),
	timeQueueMS:            newKey("haproxy_time_queue_ms_int"),
	timeConnectMS:          newKey("haproxy_time_connect_ms_int"),
	timeResponseMS:         newKey("haproxy_time_response_ms_int"),
	timeActiveMS:           newKey("haproxy_time_active_ms_int"),
	connections:            newKey("haproxy_connections_int"),
	frontendConnections:    newKey("haproxy_frontend_connections_int"),
	backendConnections:     newKey("haproxy_backend_connections_int"),
	serverConnections:      newKey("haproxy_server_connections_int"),
	retries:                newKey("haproxy_retries_int"),
	serverQueue:            newKey("haproxy_server_queue_int"),
	backendQueue:           newKey("haproxy_backend_queue_int"),
	acceptMS:               newKey("haproxy_accept_ms_int"),
	connectionError:        newKey("haproxy_connection_error"),
	tlsError:               newKey("haproxy_tls_error"),
	clientCertificateError: newKey("haproxy_client_certificate_error"),
	clientCAError:          newKey("haproxy_client_ca_error"),
	sni:                    newKey("haproxy_sni"),
	tlsVersion:             newKey("haproxy_tls_version"),
	tlsCipher:              newKey("haproxy_tls_cipher"),
	tlsResumed:             newKey("haproxy_tls_resumed_bool"),
}
