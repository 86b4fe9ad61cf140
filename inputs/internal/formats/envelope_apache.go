package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// apacheError takes the default form of Apache's error log, where WSGI processes' standard error ends up:
//
//	[Mon Jan 02 15:04:05.000000 2006] [MODULE:LEVEL] [pid N:tid N] [client|remote ADDR:PORT] MESSAGE
//
// Source: Apache's ErrorLogFormat. The time is local, when the line was written. With `%{cu}t %M` the prefix is the time
// alone, in ISO form with six digits: function oslo takes that. Control bytes of the message are escaped (`\x1b[00m`). A record of
// several lines becomes one line each, all with this prefix: whoever can put a newline into a record can put a record
// behind such a prefix, so what is found there is believed only where it fits (see inError).
func (p *Parser) apacheError(s string, e *event.Event) Verdict {
	if len(s) < 31 || s[4] != ' ' || s[8] != ' ' || s[11] != ' ' || s[14] != ':' || s[17] != ':' {
		return Unparsed
	}
	end := strings.IndexByte(s, ']')
	if end < 25 || end > 34 || month(s[5:8]) == 0 {
		return Unparsed
	}
	p.env.used = true
	rest := s[end+1:]
	blocks := 0
	for blocks < 4 && strings.HasPrefix(rest, " [") {
		i := strings.IndexByte(rest, ']')
		if i < 0 || !isApacheBlock(rest[2:i], blocks) {
			break
		}
		if blocks > 0 && strings.HasPrefix(rest[2:i], "pid ") {
			n := 6
			for n < i && rest[n]-'0' <= 9 {
				n++
			}
			p.env.pid, p.env.hasPID = digits(rest[6:n])
		}
		rest = rest[i+1:]
		blocks++
	}
	if blocks == 0 {
		return Unparsed
	}
	p.peeled("Apache error log")
	p.env.inError = true
	p.errorClock(s[1:end])
	return p.inError(strings.TrimPrefix(rest, " "), e)
}

// isApacheBlock reports whether the text of a bracket can stand in the prefix of Apache's error log.
func isApacheBlock(s string, n int) bool {
	if n == 0 {
		return !strings.Contains(s, " ") // core:error, or error
	}
	return strings.HasPrefix(s, "pid ") || strings.HasPrefix(s, "client ") || strings.HasPrefix(s, "remote ")
}

// inError goes on with a message of Apache's error log. What is no record of a service is Apache's own word.
func (p *Parser) inError(s string, e *event.Event) Verdict {
	p.depth = max(p.depth, 1)
	p.env.used = true
	if s == "" {
		p.reason = ReasonApacheError
		return Service
	}
	v := p.peel(trimColour(s), e)
	if v == Unparsed && p.reason == "" {
		p.reason = ReasonApacheError
		return Service
	}
	return v
}

// errorClock reads `Mon Jan 02 15:04:05.000000 2006`.
func (p *Parser) errorClock(s string) {
	n := 0
	var ns int64
	if s[19] == '.' {
		ns, n = fraction(s[20:])
		n++
	}
	if len(s) != 24+n || s[19+n] != ' ' {
		return
	}
	d := p.arena.Alloc(24)
	copy(d, s[:19])
	copy(d[19:], s[19+n:])
	if naive, utc, ok := p.ctime(event.View(d)); ok {
		v := &p.env
		v.errorTime, v.local, v.localSec, v.localNsec = naive, true, utc, ns
	}
}
