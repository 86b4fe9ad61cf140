package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// envelopeKind is what a line came in.
type envelopeKind uint8

const (
	bare      envelopeKind = iota
	isoSyslog              // rsyslog's RFC 3339 form: its time has a zone
	bsdSyslog              // RFC 3164: its time has neither year nor zone
	fileName               // the name of the file
)

// envelope is what stands in front of a message.
type envelope struct {
	kind    envelopeKind
	sec     int64 // the outer time
	nsec    int64
	off     int64 // its zone
	timed   bool
	host    string
	pid     int64
	hasPID  bool
	from    origin // the tag's
	file    origin // the file's whose name stands at the head of the line
	message string // of a line that is no access line
}

// syslogISO takes rsyslog's RSYSLOG_FileFormat: `2006-01-02T15:04:05.000000+00:00 HOST TAG[PID]: MESSAGE`, and the pebble
// form `2006-01-02T15:04:05.000Z [SERVICE] MESSAGE`, whose time has a zone as well.
func (p *Parser) syslogISO(s string, e *event.Event) Verdict {
	naive, _, ok := p.iso(&p.outerHour, s)
	if !ok {
		return Unparsed
	}
	i := 19
	var ns int64
	if len(s) > i+1 && s[i] == '.' {
		f, n := fraction(s[i+1:])
		ns = f
		i += 1 + n
	}
	off, n := offset(s[i:])
	i += n
	if n == 0 || i >= len(s) || s[i] != ' ' {
		return Unparsed
	}
	v := &p.env
	v.kind, v.sec, v.nsec, v.off, v.timed = isoSyslog, naive-off, ns, off, true
	rest := s[i+1:]
	if len(rest) > 2 && rest[0] == '[' {
		if end := strings.IndexByte(rest, ']'); end > 1 && end+2 < len(rest) && rest[end+1] == ' ' {
			v.from = originOf(rest[1:end])
			if rest[1:end] == "pebble" {
				p.reason = ReasonPebble
				v.message = rest[end+2:]
				return p.syslogService(e)
			}
			v.from.program = rest[1:end]
			return p.wrapped(rest[end+2:], e)
		}
		return Unparsed
	}
	return p.hostAndTag(rest, e)
}

// syslogBSD takes RFC 3164 as files hold it: `[<PRI>]Jan  2 15:04:05 HOST TAG[PID]: MESSAGE`. The year is the one that puts the
// time nearest before the file's modification.
func (p *Parser) syslogBSD(s string, e *event.Event) Verdict {
	if s[0] == '<' {
		i := strings.IndexByte(s, '>')
		if i < 2 || i > 4 {
			return Unparsed
		}
		if _, ok := digits(s[1:i]); !ok {
			return Unparsed
		}
		s = s[i+1:]
	}
	if len(s) < 17 || s[3] != ' ' || s[6] != ' ' || s[9] != ':' || s[12] != ':' || s[15] != ' ' {
		return Unparsed
	}
	mon := month(s[:3])
	day, hh, mm, ss := two(s, 4), two(s, 7), two(s, 10), two(s, 13)
	if s[4] == ' ' {
		day = s[5] - '0'
	}
	if mon == 0 || day < 1 || day > 31 || hh > 23 || mm > 59 || ss > 60 {
		return Unparsed
	}
	v := &p.env
	v.kind = bsdSyslog
	if p.all && !p.mtime.IsZero() {
		// Access lines under this prefix have a time of their own; only other records need this one.
		v.sec, v.timed = p.withYear(mon, int(day), int(hh), int(mm), int(ss))
	}
	return p.hostAndTag(s[16:], e)
}

// withYear picks the year.
func (p *Parser) withYear(mon, day, hh, mm, ss int) (int64, bool) {
	last := p.mtime.Add(24 * time.Hour) // the zone may be wrong, and clocks differ
	for y := last.In(p.loc).Year(); y > last.Year()-9; y-- {
		t := time.Date(y, time.Month(mon), day, hh, mm, ss, 0, p.loc)
		if t.Day() == day && !t.After(last) { // 29 February
			return t.Unix(), true
		}
	}
	return 0, false
}

// hostAndTag reads `HOST TAG[PID]: MESSAGE`.
func (p *Parser) hostAndTag(s string, e *event.Event) Verdict {
	host, rest, ok := field(s)
	if !ok || host == "" {
		return Unparsed
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
	v := &p.env
	tag, rest := rest[:end], rest[end:]
	if rest[0] == '[' {
		i := strings.IndexByte(rest, ']')
		if i < 0 {
			return Unparsed
		}
		v.pid, v.hasPID = digits(rest[1:i])
		rest = rest[i+1:]
	}
	rest = strings.TrimPrefix(rest, ":")
	if rest == "" || rest[0] != ' ' {
		return Unparsed
	}
	v.host = host
	v.from = originOf(tag)
	v.from.program = tag
	return p.wrapped(rest[1:], e)
}

// wrapped goes on with what was in a syslog line.
func (p *Parser) wrapped(s string, e *event.Event) Verdict {
	p.env.message = s
	if p.env.from.program == "haproxy" {
		if v := p.haproxy(s, e); v != Unparsed || p.reason != "" {
			return v
		}
		p.reason = ReasonHAProxy
		return p.syslogService(e)
	}
	if len(s) > 19 && s[4] == '-' && s[7] == '-' && s[10] == ' ' && s[13] == ':' {
		if v := p.oslo(s, e); v != Unparsed || p.reason != "" {
			return v
		}
	} else if len(s) > 0 && (s[0] == '[' || s[0] == '{') {
		if v := p.bracket(s, e); v != Unparsed || p.reason != "" {
			return v
		}
	} else if v := p.apache(s, e); v != Unparsed || p.reason != "" {
		return v
	}
	return Unparsed
}

// syslogService fills a service_log record from the envelope alone.
func (p *Parser) syslogService(e *event.Event) Verdict {
	if p.all {
		p.fillOuter(e)
		if p.env.timed {
			e.Time = time.Unix(p.env.sec, p.env.nsec).UTC()
		}
		p.fillOrigin(e, &nobody, &nobody)
	}
	return Service
}

// fillOuter sets what only the envelope knows.
func (p *Parser) fillOuter(e *event.Event) {
	v := &p.env
	if v.hasPID && e.Has&event.HasProcessID == 0 {
		e.SetProcessID(v.pid)
	}
	if v.host != "" {
		e.Set("log_host", event.StringValue(v.host))
	}
}

// fileToken takes lines that collecting tools put a file's name in front of: `nova-api.log.1.2017-05-16_13:53:08 2017-05-16
// 00:00:00.008 …`. The name tells the program, better than the name of the collected file.
func (p *Parser) fileToken(s string, e *event.Event) Verdict {
	head := s[:min(len(s), 512)]
	i := strings.Index(head, ".log")
	if i <= 0 {
		return Unparsed
	}
	for j := i + 4; j+20 < len(s) && j < 512; j++ {
		c := s[j]
		if c == ' ' || c == '-' || c == ':' {
			if r := s[j+1:]; r[4] == '-' && r[7] == '-' && r[10] == ' ' && r[13] == ':' && !strings.ContainsAny(s[:j], ` "`) {
				p.env.kind = fileName
				p.env.file = originOfFile(s[:i+4])
				return p.oslo(r, e)
			}
		}
		if c <= ' ' || c == '"' {
			return Unparsed
		}
	}
	return Unparsed
}
