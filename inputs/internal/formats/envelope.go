package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// envelope is what stands around a message: what a container's runtime, an init, syslog or a web server put there.
type envelope struct {
	used      bool  // there may be one
	sec, nsec int64 // the innermost time with a zone
	off       int64 // its zone
	zoned     bool
	local     bool  // the prefix of Apache's error log has a time without a zone
	localSec  int64 // it, read in the parser's zone
	localNsec int64
	yearless  yearless // the innermost time without a year

	host      string
	pid       int64
	hasPID    bool
	level     int32
	hasLevel  bool
	container bool   // the line comes from a container, whose runtime does not name the program
	inError   bool   // the line comes from Apache's error log
	timeOnly  bool   // nothing is around the line but that log's time
	errorTime int64  // its time there, in Unix seconds read as UTC; 0: not known
	stderr    bool   // swift says that a server wrote it on its standard error
	cut       bool   // the envelope itself says that this is not the whole line
	from      origin // the tag's
	file      origin // the file's whose name stands at the head of the line
	named     bool   // there is one
	message   string // of a line that is no access line
}

// yearless is a time of RFC 3164.
type yearless struct {
	mon            int
	day, h, m, sec uint8
	nsec           int64
}

// zonedTime keeps a time with its zone.
func (v *envelope) zonedTime(sec, nsec, off int64) {
	v.sec, v.nsec, v.off, v.zoned = sec, nsec, off, true
	v.yearless.mon = 0
}

// tagMemory remembers the last program's name: lines of one file share it.
type tagMemory struct {
	text [48]byte
	n    int
	from origin
}

// look returns what a name tells.
func (m *tagMemory) look(name string) *origin {
	if m.n == 0 || len(name) != m.n || string(m.text[:m.n]) != name {
		m.from = originOf(name)
		if m.n = copy(m.text[:], name); m.n < len(name) {
			m.n = 0
		}
	}
	return &m.from
}

// tag keeps the name of the program that wrote; one that tells nothing does not hide one further out that does.
func (p *Parser) tag(name string) {
	if name == "" {
		return
	}
	v := &p.env
	if o := p.tags.look(name); o.service != "" || v.from.service == "" || v.container {
		v.from.service, v.from.kind = o.service, o.kind
	}
	v.from.program = name
}

// outerTime is the time of the innermost envelope that has one: when the line was written. Zero if there is none, or if its
// year cannot be known.
func (p *Parser) outerTime() time.Time {
	v := &p.env
	switch {
	case v.yearless.mon != 0:
		if p.mtime.IsZero() {
			return time.Time{}
		}
		y := &v.yearless
		if sec, ok := p.withYear(y.mon, int(y.day), int(y.h), int(y.m), int(y.sec)); ok {
			return time.Unix(sec, y.nsec).UTC()
		}
	case v.zoned:
		return time.Unix(v.sec, v.nsec).UTC()
	case v.local:
		return time.Unix(v.localSec, v.localNsec).UTC()
	}
	return time.Time{}
}

// withYear picks the year that puts a time without one nearest before the file's modification.
func (p *Parser) withYear(mon, day, hh, mm, ss int) (int64, bool) {
	h, hourOf := &p.yearlessHour, uint64(mon)<<16|uint64(day)<<8|uint64(hh)
	if h.ok && h.k0 == hourOf && h.whole && ss < 60 {
		return h.utc + int64(mm)*60 + int64(ss), true
	}
	last := p.mtime.Add(24 * time.Hour) // the zone may be wrong, and clocks differ
	for y := last.In(p.loc).Year(); y > last.Year()-9; y-- {
		t := time.Date(y, time.Month(mon), day, hh, mm, ss, 0, time.UTC)
		if t.Day() != day && ss < 60 {
			continue // 29 February
		}
		sec, again := readings(p.loc, t.Unix())
		if sec > last.Unix() {
			continue
		}
		if sec != again {
			sec = p.local(t.Unix(), endsLate)
		}
		// The hour has one year if all of it lies before the file's modification, and all of it would lie behind it in the next year.
		const almostYear = 364 * 24 * 60 * 60
		h.k0 = hourOf
		h.ok = h.set(p.loc, y, mon, day, hh) && h.utc+3600 <= last.Unix() && h.utc+almostYear > last.Unix()
		return sec, true
	}
	return 0, false
}

// zonedLine takes what begins with a time in ISO form that has a zone:
//
//	2006-01-02T15:04:05.000Z [SERVICE] MESSAGE            pebble, the init of Canonical's containers
//	2006-01-02T15:04:05.000000000Z stdout F|P MESSAGE     CRI, the files of Kubernetes' runtimes; P: the line goes on in the next
//	2006-01-02T15:04:05.000+0000 THREAD LEVEL MESSAGE     Ceph
//	2006-01-02T15:04:05.000000+00:00 [FACILITY.PRIO ]HOST TAG[PID]: MESSAGE    rsyslog, journalctl -o short-iso
//
// Parts of a line (P) are joined where lines are made; one that comes here alone is flagged as truncated.
func (p *Parser) zonedLine(s string, e *event.Event) Verdict {
	naive, _, ok := p.iso(&p.outerHour, s)
	if !ok {
		return Unparsed
	}
	i := 19
	var ns int64
	if len(s) > i+1 && (s[i] == '.' || s[i] == ',') {
		f, n := fraction(s[i+1:])
		ns = f
		i += 1 + n
	}
	off, n := offset(s[i:])
	i += n
	if n == 0 || i >= len(s) || s[i] != ' ' {
		return Unparsed
	}
	p.env.used = true
	p.env.zonedTime(naive-off, ns, off)
	rest := s[i+1:]
	if len(rest) > 2 && rest[0] == '[' {
		return p.pebble(rest, e)
	}
	if t, ok := strings.CutPrefix(rest, "stdout "); ok {
		return p.cri(t, e)
	}
	if t, ok := strings.CutPrefix(rest, "stderr "); ok {
		return p.cri(t, e)
	}
	if v := p.ceph(rest, e); v != Unparsed || p.reason != "" {
		return v
	}
	return p.hostAndTag(rest, e)
}

// ceph takes what stands behind the time in Ceph's log: `THREAD LEVEL MESSAGE`, the thread in hexadecimal. The gateway's access
// lines are there; all else is another program's.
func (p *Parser) ceph(s string, e *event.Event) Verdict {
	if len(s) < 8 || !allHex(s[:8]) {
		return Unparsed
	}
	thread, rest, ok := field(s)
	if !ok || len(thread) < 8 || !allHex(thread) {
		return Unparsed
	}
	level, rest, ok := field(strings.TrimLeft(rest, " "))
	if n, number := digits(strings.TrimPrefix(level, "-")); !ok || !number || n > 30 {
		return Unparsed
	}
	p.peeled("ceph")
	if strings.HasPrefix(rest, "beast: 0x") {
		return p.peel(rest, e)
	}
	p.reason = ReasonSyslog
	p.env.message = rest
	return p.syslogService(e)
}

// pebble reads `[SERVICE] MESSAGE`.
func (p *Parser) pebble(s string, e *event.Event) Verdict {
	end := strings.IndexByte(s, ']')
	if end <= 1 || end+2 >= len(s) || s[end+1] != ' ' {
		return Unparsed
	}
	v := &p.env
	p.peeled("pebble")
	v.container = true
	if s[1:end] == "pebble" {
		p.reason = ReasonPebble
		v.message = s[end+2:]
		return p.syslogService(e)
	}
	p.tag(s[1:end])
	return p.peel(s[end+2:], e)
}

// cri reads `F|P MESSAGE`.
func (p *Parser) cri(s string, e *event.Event) Verdict {
	if len(s) < 2 || s[0] != 'F' && s[0] != 'P' {
		return Unparsed
	}
	p.env.container = true
	p.env.cut = p.env.cut || s[0] == 'P'
	tags := strings.IndexByte(s, ' ')
	if tags < 1 || tags > 8 {
		return Unparsed
	}
	p.peeled("cri")
	return p.contents(s[tags+1:], e)
}

// contents goes on with a text that may be nothing.
func (p *Parser) contents(s string, e *event.Event) Verdict {
	s = trimColour(trimNewlines(s))
	if s == "" {
		p.reason = ReasonBlank
		return Service
	}
	if p.inMiddle {
		p.reason, p.env.message, p.env.cut = ReasonContinuation, s, true
		return p.syslogService(e)
	}
	return p.peel(s, e)
}

// fileToken takes lines that collecting tools put a file's name in front of: `nova-api.log.1.2017-05-16_13:53:08 2017-05-16
// 00:00:00.008 …`. The name tells the program, better than the name of the collected file.
func (p *Parser) fileToken(s string, e *event.Event) Verdict {
	head := s[:min(len(s), 512)]
	if i := space(head); i >= 0 {
		head = head[:i]
	}
	i := strings.Index(head, ".log")
	if i <= 0 {
		return Unparsed
	}
	for j := i + 4; j+20 < len(s) && j < 512; j++ {
		c := s[j]
		if c == ' ' || c == '-' || c == ':' {
			if r := s[j+1:]; r[4] == '-' && r[7] == '-' && r[10] == ' ' && r[13] == ':' && !strings.ContainsAny(s[:j], ` "`) {
				p.env.used, p.env.named = true, true
				p.env.file = originOfFile(s[:i+4])
				p.peeled("file name")
				return p.peel(r, e)
			}
		}
		if c <= ' ' || c == '"' {
			return Unparsed
		}
	}
	return Unparsed
}

// syslogService fills a service_log record from the envelope alone.
func (p *Parser) syslogService(e *event.Event) Verdict {
	if p.all {
		p.fillOuter(e)
		p.fillLevel(e)
		e.Time = p.outerTime()
		p.fillOrigin(e, &nobody, &nobody)
	}
	return Service
}

// fillLevel sets the level of a line that is no access line.
func (p *Parser) fillLevel(e *event.Event) {
	if p.env.hasLevel && e.Has&event.HasLevel == 0 {
		e.SetLevel(p.env.level)
	}
}

// fillOuter sets what only the envelope knows.
func (p *Parser) fillOuter(e *event.Event) {
	v := &p.env
	if v.hasPID && e.Has&event.HasProcessID == 0 {
		e.SetProcessID(v.pid)
	}
	if v.host != "" {
		*extra(e, "log_host") = event.StringValue(v.host)
	}
}
