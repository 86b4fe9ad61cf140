package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// The fields of swift-proxy, by their place.
const (
	swClient = iota
	swRemote
	swDate
	swMethod
	swPath
	swProtocol
	swStatus
	swReferer
	swAgent
	swToken
	swReceived
	swSent
	swETag
	swTransaction
	swHeaders
	swTook
	swSource
	swInfo
	swStart
	swEnd
	swPolicy
	swUser
	swiftFields
)

// swiftProxy takes the access line of swift's proxy.
//
// swift-proxy is fields with single spaces between:
//
//	CLIENT PEER 02/Jan/2006/15/04/05 METHOD PATH PROTOCOL STATUS REFERER USER-AGENT TOKEN RECEIVED SENT ETAG TRANSACTION HEADERS
//	SECONDS SOURCE INFO START END [POLICY [USER-ID]]
//
// Source: swift/common/middleware/proxy_logging.py, log_msg_template; 18 fields before 2013 (no START, END), 20, 21 since 2014, 22 since 2025. Values are
// percent-encoded, `-` if absent: undone once. The time is the end, in UTC: END has nanoseconds, the date seconds. SENT is the
// body's size. SECONDS has four decimals. PATH holds the query behind %3F. TOKEN, some first characters of the token or, in old
// releases, all of it, is never taken. SOURCE names the middleware whose sub-request this is. A line over log_max_line_length has
// ` ... ` in its middle: what stands beside that is left out, and the record is truncated.
func (p *Parser) swiftProxy(s string, e *event.Event) Verdict {
	var f [swiftFields]string
	n := 0
	rest := s
	for n < len(f) {
		i := 1
		if !strings.HasPrefix(rest, "- ") { // which most are
			i = space(rest)
		}
		if i < 0 {
			f[n] = rest
			n++
			rest = ""
			break
		}
		f[n], rest = rest[:i], rest[i+1:]
		n++
		if n == swDate+1 && !isSwiftDate(f[swDate]) {
			return Unparsed
		}
	}
	if n <= swProtocol {
		if n > swDate && isSwiftDate(f[swDate]) {
			return p.parts(swiftProxyLog, atRequest, rest)
		}
		return Unparsed
	}
	sec, ok := p.swiftDate(f[swDate])
	if !ok {
		return p.parts(swiftProxyLog, atTime, s[len(f[0])+len(f[1])+2:])
	}
	cut := false
	for i := swMethod; i < n; i++ {
		if f[i] == "..." {
			// The field before the mark lost its end.
			for j := i - 1; j < len(f); j++ {
				f[j] = ""
			}
			cut = true
			break
		}
	}
	status, hasStatus := status3(f[swStatus])
	took, _, timed := seconds(f[swTook])
	switch {
	case !isMethod(f[swMethod]) && (f[swMethod] != "" || !cut) && f[swMethod] != "-":
		return p.parts(swiftProxyLog, atRequest, fromField(s, swMethod))
	case cut:
	case !hasStatus:
		return p.parts(swiftProxyLog, atStatus, fromField(s, swStatus))
	case n < swStart || rest != "":
		return p.swiftShort(e, &f, n, rest)
	case f[swSent] != "-" && !allDigits(f[swSent]):
		return p.parts(swiftProxyLog, atSize, fromField(s, swSent))
	case f[swTook] != "-" && !timed:
		return p.parts(swiftProxyLog, atDuration, fromField(s, swTook))
	}
	if !p.enabled(swiftProxyLog) {
		return Unparsed
	}
	if cut && f[swMethod] == "" {
		return p.parts(swiftProxyLog, atRequest, s)
	}
	e.Time = time.Unix(sec, 0).UTC()
	if _, frac, _ := cutAt(f[swEnd], '.'); len(frac) == 9 {
		if at, ok := epoch(f[swEnd]); ok {
			e.Time = at
		}
	} else if n > swEnd {
		cut = true
	}
	p.swiftRequest(e, &f)
	if cut {
		p.setCut(e)
	}
	if hasStatus {
		setStatus(e, status)
	}
	if sent, ok := digits(f[swSent]); ok {
		e.SetSize(sent)
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	if timed {
		e.SetDuration(took)
	}
	if isID(f[swUser]) {
		e.UserID, e.User = f[swUser], f[swUser]
	}
	access(e, swiftProxyLog, basisEnd)
	p.fillSwift(e)
	p.swiftAttributes(e, &f)
	return Access
}

// swiftAttributes keeps what the schema has no field for.
func (p *Parser) swiftAttributes(e *event.Event, f *[swiftFields]string) {
	o := p.newObject()
	if r := present(f[swRemote]); r != "" {
		o = p.said(o, &swiftKeys[swRemote], r)
	}
	for i := swETag; i <= swPolicy; i++ {
		if k := &swiftKeys[i]; k.n > 0 && f[i] != "" && f[i] != "-" {
			o = p.said(o, k, f[i])
		}
	}
	p.end(o, e)
}

// swiftKeys are the names of the fields that become attributes as they are.
var swiftKeys = [swiftFields]key{
	swRemote: newKey("swift_remote_address"), swETag: newKey("swift_client_etag"), swHeaders: newKey("swift_headers"),
	swSource: newKey("swift_source"), swInfo: newKey("swift_log_info"), swStart: newKey("swift_start_time"), swEnd: newKey("swift_end_time"),
	swPolicy: newKey("swift_policy_index"),
}

// fromField is the line from its nth field on.
func fromField(s string, n int) string {
	for range n {
		_, s, _ = field(s)
	}
	return s
}

// swiftShort takes a line that has another number of fields than any release writes: its end is missing, so the last field
// there is not taken.
func (p *Parser) swiftShort(e *event.Event, f *[swiftFields]string, n int, rest string) Verdict {
	if rest != "" {
		return p.parts(swiftProxyLog, atEnd, rest)
	}
	if !p.enabled(swiftProxyLog) {
		return Unparsed
	}
	sec, _ := p.swiftDate(f[swDate])
	e.Time = time.Unix(sec, 0).UTC()
	f[n-1] = ""
	p.swiftRequest(e, f)
	if status, ok := status3(f[swStatus]); ok {
		setStatus(e, status)
	}
	if sent, ok := digits(f[swSent]); ok {
		e.SetSize(sent)
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	if took, _, ok := seconds(f[swTook]); ok {
		e.SetDuration(took)
	}
	access(e, swiftProxyLog, basisEnd)
	p.fillSwift(e)
	p.setCut(e)
	p.swiftAttributes(e, f)
	return Access
}

// swiftRequest fills what a request is.
func (p *Parser) swiftRequest(e *event.Event, f *[swiftFields]string) {
	e.Method = present(f[swMethod])
	e.Path, e.Query = splitTarget(p.percent(present(f[swPath])))
	if isProtocol(f[swProtocol]) {
		e.HTTPVersion = f[swProtocol]
	}
	if c := f[swClient]; !strings.HasPrefix(c, "{") { // {MD5}…: anonymised
		p.client(e, c)
	}
	e.Referer = p.percent(present(f[swReferer]))
	e.UserAgent = p.percent(present(f[swAgent]))
	e.RequestID = present(f[swTransaction])
	if received, ok := digits(f[swReceived]); ok {
		e.Set("request_body_size_int", event.IntValue(received))
	}
}

// swiftOrigin is that of swift's own lines, which name no program.
var swiftOrigin = origin{service: "swift", kind: "object-store"}

// fillSwift sets the origin of swift's own lines.
func (p *Parser) fillSwift(e *event.Event) {
	p.fillOrigin(e, &swiftOrigin, &nobody)
	if p.depth > 0 {
		p.fillOuter(e)
	}
}

// isSwiftDate knows `02/Jan/2006/15/04/05` by its shape.
func isSwiftDate(s string) bool {
	return len(s) == 20 && s[2] == '/' && s[6] == '/' && s[11] == '/' && s[14] == '/' && s[17] == '/'
}

// beginsSwift reports whether a date of swift stands behind two words.
func beginsSwift(s string) bool {
	i := space(s)
	j := i + 1 + space(s[i+1:])
	return i > 0 && j > i && j+21 < len(s) && s[j+21] == ' ' && isSwiftDate(s[j+1:j+21])
}

// swiftDate reads `02/Jan/2006/15/04/05`, in UTC.
func (p *Parser) swiftDate(s string) (sec int64, ok bool) {
	if !isSwiftDate(s) {
		return 0, false
	}
	h := &p.clfHour // other formats have another byte before the hour
	k0, k1 := le64(s, 0), le64(s, 6)
	if k0 != h.k0 || k1 != h.k1 || !h.ok {
		h.k0, h.k1 = k0, k1
		c, y := two(s, 7), two(s, 9)
		h.ok = false
		if c > 99 || y > 99 || !h.set(p.loc, int(c)*100+int(y), month(s[3:6]), int(two(s, 0)), int(two(s, 12))) {
			return 0, false
		}
	}
	m, ss := two(s, 15), two(s, 18)
	if m > 59 || ss > 60 {
		return 0, false
	}
	return h.naive + int64(m)*60 + int64(ss), true
}

// epoch reads seconds since 1970 with a fraction, such as 1772446530.671491099.
func epoch(s string) (time.Time, bool) {
	whole, frac, pointed := cutAt(s, '.')
	sec, ok := digits(whole)
	ns, n := fraction(frac)
	if !ok || len(whole) < 9 || len(whole) > 11 || n != len(frac) || pointed && n == 0 {
		return time.Time{}, false
	}
	return time.Unix(sec, ns).UTC(), true
}

// percent undoes percent-encoding once. A text with escapes is rewritten in the arena.
func (p *Parser) percent(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	d := p.arena.Alloc(len(s))[:0]
	for ; i >= 0; i = strings.IndexByte(s, '%') {
		d = append(d, s[:i]...)
		if i+2 < len(s) && hexValue[s[i+1]] >= 0 && hexValue[s[i+2]] >= 0 {
			d = append(d, byte(hexValue[s[i+1]])<<4|byte(hexValue[s[i+2]]))
			i += 2
		} else {
			d = append(d, '%')
		}
		s = s[i+1:]
	}
	return event.View(append(d, s...))
}
