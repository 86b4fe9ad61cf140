package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// priority reads `<PRI>` at the head of s, 0 to 191: facility times eight plus severity. n is its length, 0 if there is none.
func priority(s string) (severity int32, n int) {
	if s[0] != '<' {
		return 0, 0
	}
	i := strings.IndexByte(s[:min(len(s), 5)], '>')
	if i < 2 {
		return 0, 0
	}
	pri, ok := digits(s[1:i])
	if !ok || pri > 191 {
		return 0, 0
	}
	return int32(pri & 7), i + 1
}

// syslog5424 takes RFC 5424: `<PRI>1 TIME HOST APP PROCID MSGID STRUCTURED-DATA[ MESSAGE]`, each of them `-` if absent. The
// message may begin with a byte order mark.
func (p *Parser) syslog5424(s string, e *event.Event) Verdict {
	severity, n := priority(s)
	if n == 0 || !strings.HasPrefix(s[n:], "1 ") {
		return Unparsed
	}
	p.env.used = true
	rest := s[n+2:]
	stamp, rest, ok := field(rest)
	if !ok {
		return Unparsed
	}
	if stamp != "-" {
		if len(stamp) < 20 || stamp[10] != 'T' {
			return Unparsed
		}
		naive, _, ok := p.iso(&p.outerHour, stamp)
		if !ok {
			return Unparsed
		}
		i := 19
		var ns int64
		if stamp[i] == '.' {
			f, n := fraction(stamp[i+1:])
			ns = f
			i += 1 + n
		}
		off, n := offset(stamp[i:])
		if n == 0 || i+n != len(stamp) {
			return Unparsed
		}
		p.env.zonedTime(naive-off, ns, off)
	}
	host, rest, ok1 := field(rest)
	app, rest, ok2 := field(rest)
	proc, rest, ok3 := field(rest)
	_, rest, ok4 := field(rest)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return Unparsed
	}
	if rest, ok = structuredData(rest); !ok {
		return Unparsed
	}
	v := &p.env
	p.peeled("syslog (RFC 5424)")
	v.level, v.hasLevel = severity, true
	v.host = present(host)
	p.tag(present(app))
	if pid, ok := digits(proc); ok {
		v.pid, v.hasPID = pid, true
	}
	return p.tagged(strings.TrimPrefix(rest, "\ufeff"), e)
}

// structuredData steps over `-`, or elements in brackets, and the space behind them.
func structuredData(s string) (rest string, ok bool) {
	if strings.HasPrefix(s, "-") {
		s = s[1:]
	} else {
		if s == "" || s[0] != '[' {
			return s, false
		}
		for s != "" && s[0] == '[' {
			i, text := 1, false
			for ; i < len(s) && (text || s[i] != ']'); i++ {
				switch s[i] {
				case '\\':
					i++
				case '"':
					text = !text
				}
			}
			if i >= len(s) {
				return s, false
			}
			s = s[i+1:]
		}
	}
	return strings.TrimPrefix(s, " "), s == "" || s[0] == ' '
}

// syslogBSD takes RFC 3164 as files and journalctl -o short have it: `[<PRI>]Jan  2 15:04:05[.000000] [HOST ]TAG[PID]: MESSAGE`.
// Names of months may be in another case and have a point, as some locales have it (`sept.`). The year is the one that puts the
// time nearest before the file's modification.
func (p *Parser) syslogBSD(s string, e *event.Event) Verdict {
	severity, n := priority(s)
	if n == 0 && s[0] == '<' {
		return Unparsed
	}
	t := s[n:]
	mon, m := monthWord(t)
	if mon == 0 || len(t) < m+13 || t[m] != ' ' {
		return Unparsed
	}
	t = strings.TrimPrefix(t[m+1:], " ")
	d := 0
	for d < len(t) && t[d]-'0' <= 9 {
		d++
	}
	if d == 0 || d > 2 || len(t) < d+10 || t[d] != ' ' {
		return Unparsed
	}
	y := yearless{mon: mon, day: t[0] - '0'}
	if d == 2 {
		y.day = y.day*10 + t[1] - '0'
	}
	t = t[d+1:]
	y.h, y.m, y.sec = two(t, 0), two(t, 3), two(t, 6)
	if t[2] != ':' || t[5] != ':' || y.day < 1 || y.day > 31 || y.h > 23 || y.m > 59 || y.sec > 60 {
		return Unparsed
	}
	i := 8
	if t[i] == '.' {
		f, n := fraction(t[i+1:])
		y.nsec = f
		i += 1 + n
	}
	if i >= len(t) || t[i] != ' ' {
		return Unparsed
	}
	v := &p.env
	v.used, v.yearless = true, y
	if n > 0 {
		v.level, v.hasLevel = severity, true
	}
	return p.hostAndTag(t[i+1:], e)
}

// monthWord reads the name of a month of three to nine letters, with a point if it has one; n is its length.
func monthWord(s string) (mon, n int) {
	if len(s) > 3 && s[3] == ' ' {
		if mon = month(s[:3]); mon != 0 {
			return mon, 3
		}
	}
	for n < len(s) && n < 10 && (s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z' || s[n] >= 0x80) {
		n++
	}
	if n+1 < len(s) && s[n] == ' ' && s[n+1] > '9' {
		return 0, 0 // no day follows: most words are none of a month
	}
	if n < 3 || n < len(s) && s[n] != ' ' && (s[n] != '.' || n+1 < len(s) && s[n+1] != ' ') {
		return 0, 0
	}
	name := [3]byte{s[0] &^ 0x20, s[1] | 0x20, s[2] | 0x20}
	if mon = month(string(name[:])); mon == 0 {
		mon = foreignMonth(s[:n])
	}
	if n < len(s) && s[n] == '.' {
		n++
	}
	return mon, n
}

// foreignMonth reads the name of a month that does not begin as the English one does, as German, French, Spanish and Portuguese
// locales have it.
func foreignMonth(s string) int {
	lower := func(b byte) byte {
		if b >= 'A' && b <= 'Z' {
			return b | 0x20
		}
		return b
	}
	name := [4]byte{lower(s[0]), lower(s[1]), lower(s[2])}
	if len(s) > 3 {
		name[3] = lower(s[3])
	}
	switch string(name[:3]) {
	case "ene":
		return 1
	case "f\xc3\xa9", "fev":
		return 2
	case "m\xc3\xa4", "mrz":
		return 3
	case "abr", "avr":
		return 4
	case "mai":
		return 5
	case "jui":
		if name[3] == 'l' {
			return 7
		}
		return 6
	case "ago", "ao\xc3":
		return 8
	case "set":
		return 9
	case "okt", "out":
		return 10
	case "dez", "dic", "d\xc3\xa9":
		return 12
	}
	return 0
}

// hostAndTag reads `[FACILITY.PRIO ][HOST ]TAG[PID]: MESSAGE`. Old swift has no colon behind its tag. fluentd as kolla runs it takes
// the host away.
func (p *Parser) hostAndTag(s string, e *event.Event) Verdict {
	v, m := &p.env, &p.heads
	if n := m.n; n > 0 && n < len(s) && s[:n] == string(m.text[:n]) {
		p.peeled("syslog")
		if m.host != [2]uint8{} {
			v.host = s[m.host[0]:m.host[1]]
		}
		if m.hasPID {
			v.pid, v.hasPID = m.pid, true
		}
		p.tag(s[m.tag[0]:m.tag[1]])
		if s[n] == 0x1b && m.bare && p.canUndye(s[n:]) {
			return p.undyed(s[n:], e)
		}
		return p.tagged(s[n:], e)
	}
	m.n = 0
	host, rest, ok := field(s)
	if !ok || host == "" {
		return Unparsed
	}
	if isFacility(host) {
		if host, rest, ok = field(rest); !ok || host == "" {
			return Unparsed
		}
	}
	if n := len(host); host[n-1] == ':' && n > 1 {
		rest, host = s[len(s)-len(rest)-1-n:], ""
	}
	end := 0
	for end < len(rest) {
		if c := rest[end]; c == '[' || c == ':' && (end+1 == len(rest) || rest[end+1] == ' ') || c <= ' ' || c == ']' || c == '"' {
			break
		}
		end++
	}
	if end == 0 || end == len(rest) || rest[end] == ']' || rest[end] == '"' {
		return Unparsed
	}
	var head headMemory
	at := len(s) - len(rest)
	tag, rest := rest[:end], rest[end:]
	if rest[0] == '[' {
		i := strings.IndexByte(rest, ']')
		if i < 0 {
			return Unparsed
		}
		if pid, ok := digits(rest[1:i]); ok {
			v.pid, v.hasPID = pid, true
			head.pid, head.hasPID = pid, true
		}
		rest = rest[i+1:]
	}
	rest = strings.TrimPrefix(rest, ":")
	if rest == "" || rest[0] != ' ' {
		return Unparsed
	}
	p.peeled("syslog")
	if n := len(s) - len(rest) + 1; n <= len(head.text) {
		*m = head
		m.n = copy(m.text[:], s[:n])
		m.bare = escape(s[:n]) < 0
		m.tag = [2]uint8{uint8(at), uint8(at + end)}
		if host != "" {
			m.host = [2]uint8{uint8(at - 1 - len(host)), uint8(at - 1)}
		}
	}
	if host != "" {
		v.host = host
	}
	p.tag(tag)
	return p.tagged(rest[1:], e)
}

// headMemory remembers what stood between the time and the message of the last line, which is the same for all lines of a process.
type headMemory struct {
	text      [96]byte
	n         int      // how long it is; 0: nothing is remembered
	bare      bool     // there is no escape in it
	host, tag [2]uint8 // where they begin and end
	pid       int64
	hasPID    bool
}

// isFacility reports whether a word is what rsyslog puts in front where a template asks for it: `local1.info`.
func isFacility(s string) bool {
	f, prio, ok := cutAt(s, '.')
	if !ok {
		return false
	}
	switch prio {
	case "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug":
	default:
		return false
	}
	switch f {
	case "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp":
		return true
	}
	return len(f) == 6 && strings.HasPrefix(f, "local")
}

// tagged goes on with what was in a syslog line.
func (p *Parser) tagged(s string, e *event.Event) Verdict {
	s = trimColour(s)
	if s == "" {
		p.reason = ReasonBlank
		return Service
	}
	if p.env.from.program == "haproxy" {
		p.inner, p.env.message, p.near.format = s, s, noFormat
		p.depth++
		if v := p.haproxy(s, e); v != Unparsed || p.reason != "" {
			return v
		}
		if p.near.format != noFormat {
			return Unparsed
		}
		p.reason = ReasonHAProxy
		return p.syslogService(e)
	}
	return p.peel(s, e)
}
