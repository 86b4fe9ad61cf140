package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// beast takes the access line of Ceph's object gateway.
//
// rgw-beast is
//
//	[CEPH-PREFIX ]beast: 0xHANDLE: ADDRESS - USER [02/Jan/2006:15:04:05.000 +0000] "REQUEST" STATUS SIZE RANGE ["REFERER"|-]
//	["USER-AGENT"|-] - latency=S.SSSSSSSSSs
//
// Source: Ceph src/rgw/rgw_asio_frontend.cc. RANGE is `-` or the Range header. What follows it is, by release, the user agent, or referer
// and user agent, each quoted or `-`. Older releases have an ISO time in the brackets and `-` for the latency. The time is the
// start, with its zone. SIZE is the body's. The latency is in seconds. USER is a user's id in the gateway, or `anonymous`.
func (p *Parser) beast(s string, e *event.Event) Verdict {
	rest := s[len("beast: 0x"):]
	i := strings.Index(rest, ": ")
	if i < 1 || i > 18 {
		return p.parts(rgwBeast, atPrefix, rest)
	}
	rest = rest[i+2:]
	client, tail, ok := field(rest)
	if !ok || !strings.HasPrefix(tail, "- ") {
		return p.parts(rgwBeast, atClient, rest)
	}
	user, tail, ok := field(tail[2:])
	if !ok || tail == "" || tail[0] != '[' {
		return p.parts(rgwBeast, atTime, tail)
	}
	end := strings.IndexByte(tail, ']')
	if end < 0 {
		return p.parts(rgwBeast, atTime, tail)
	}
	at, ok := p.beastTime(tail[1:end])
	if !ok {
		return p.parts(rgwBeast, atTime, tail)
	}
	if !strings.HasPrefix(tail[end:], `] "`) {
		return p.parts(rgwBeast, atRequest, tail[end:])
	}
	req, rest, ok := quoted(tail[end+2:])
	if !ok || rest == "" {
		return p.parts(rgwBeast, atRequest, tail[end+2:])
	}
	word, rest, ok := field(rest[1:])
	status, good := status3(word)
	if !ok || !good {
		return p.parts(rgwBeast, atStatus, rest)
	}
	word, rest, ok = field(rest)
	size, hasSize := digits(word)
	if !ok || !hasSize && word != "-" {
		return p.parts(rgwBeast, atSize, rest)
	}
	j := strings.LastIndexByte(rest, ' ')
	if j < 0 {
		return p.parts(rgwBeast, atTail, rest)
	}
	took, timed := beastLatency(rest[j+1:])
	if !timed && rest[j+1:] != "-" {
		return p.parts(rgwBeast, atDuration, rest[j+1:])
	}
	byteRange, texts, ok := beastTexts(rest[:j])
	if !ok {
		return p.parts(rgwBeast, atTail, rest)
	}
	if !p.enabled(rgwBeast) {
		return Unparsed
	}
	e.Time = at
	if !request(e, req) {
		p.setRequestText(e, `{"rgw_request":`, req)
	}
	setStatus(e, status)
	if hasSize {
		e.SetSize(size)
		e.SetBool(event.BoolSizeIncludesHeaders, false)
	}
	if timed {
		e.SetDuration(took)
	}
	p.client(e, client)
	if user != "-" && user != "anonymous" {
		e.UserName, e.User = user, user
	}
	e.Referer, e.UserAgent = present(texts[0]), present(texts[1])
	access(e, rgwBeast, basisStart)
	p.fillSwift(e)
	if byteRange != "" && e.Method != "" {
		p.done(event.AppendString(append(p.attr(), `,"rgw_range":`...), byteRange), e)
	}
	return Access
}

// beastTime reads `02/Jan/2006:15:04:05.000 +0000`, or an ISO time.
func (p *Parser) beastTime(s string) (time.Time, bool) {
	if len(s) < 20 {
		return time.Time{}, false
	}
	var naive int64
	var ok bool
	i := 20
	if s[4] == '-' {
		i = 19
		naive, _, ok = p.iso(&p.zonedHour, s)
	} else {
		naive, _, ok = p.clf(&p.zonedHour, s, ':')
	}
	if !ok {
		return time.Time{}, false
	}
	var ns int64
	if i < len(s) && s[i] == '.' {
		f, n := fraction(s[i+1:])
		ns = f
		i += 1 + n
	}
	off, n := offset(strings.TrimPrefix(s[i:], " "))
	if n == 0 || !strings.HasSuffix(s[i:], s[len(s)-n:]) || len(strings.TrimPrefix(s[i:], " ")) != n {
		return time.Time{}, false
	}
	return time.Unix(naive-off, ns).UTC(), true
}

// beastLatency reads `latency=0.010000000s`.
func beastLatency(s string) (time.Duration, bool) {
	w, ok := strings.CutPrefix(s, "latency=")
	if !ok || !strings.HasSuffix(w, "s") {
		return 0, false
	}
	d, _, ok := seconds(w[:len(w)-1])
	return d, ok
}

// beastTexts reads `RANGE AGENT X` or `RANGE REFERER AGENT X`: what stands between size and latency.
func beastTexts(s string) (byteRange string, texts [2]string, ok bool) {
	var words [4]string
	n := 0
	for s != "" {
		if n == len(words) {
			return "", texts, false
		}
		if s[0] == '"' {
			if words[n], s, ok = quoted(s); !ok {
				return "", texts, false
			}
			s = strings.TrimPrefix(s, " ")
		} else {
			words[n], s, _ = cutAt(s, ' ')
		}
		n++
	}
	switch n {
	case 3: // RANGE AGENT -
		texts[1] = words[1]
	case 4: // RANGE REFERER AGENT -
		texts = [2]string{words[1], words[2]}
	case 2:
		texts[1] = words[1]
	default:
		return "", texts, false
	}
	return present(words[0]), texts, true
}
