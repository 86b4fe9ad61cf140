package formats

import "time"

// hour remembers the last hour that a time stood in: nearly all lines share it with the line before. An hour and not a day,
// because the offset of a zone changes between hours.
type hour struct {
	k0, k1, k2 uint64 // the text of the hour, as loaded from the line
	naive, utc int64  // its begin in Unix seconds, read as UTC and read in the parser's zone
	whole      bool   // the zone's offset is the same all over the hour, and nothing in it comes twice
	ok         bool
}

// le64 loads eight bytes of s.
func le64(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// two reads two digits; above 99 if they are none.
func two(s string, i int) uint8 {
	a, b := s[i]-'0', s[i+1]-'0'
	if a > 9 || b > 9 {
		return 255
	}
	return a*10 + b
}

// set fills the hour from numbers.
func (h *hour) set(loc *time.Location, y, m, d, hh int) bool {
	h.ok = false
	if m < 1 || m > 12 || d < 1 || d > 31 || hh > 23 || y < 1 {
		return false
	}
	t := time.Date(y, time.Month(m), d, hh, 0, 0, 0, time.UTC)
	if t.Day() != d {
		return false
	}
	h.naive = t.Unix()
	begin, again := readings(loc, h.naive)
	end, endAgain := readings(loc, h.naive+3599)
	h.utc = begin
	h.whole = begin == again && end == endAgain && end-begin == 3599
	h.ok = true
	return true
}

// readings returns the instants that a local time can mean: it comes twice where a clock is set back, the later one then is the second.
// A time that a clock leaves out is read as if it had not been set yet.
func readings(loc *time.Location, naive int64) (earlier, later int64) {
	const day = 24 * 60 * 60
	at := func(sec int64) int64 {
		_, off := time.Unix(sec, 0).In(loc).Zone()
		return int64(off)
	}
	before, after := at(naive-day), at(naive+day)
	a, b := naive-before, naive-after
	if at(b) == after && at(a) != before {
		return b, b
	}
	if before <= after || at(b) != after || at(a) != before {
		return a, a
	}
	return a, b
}

// fold is where a log stands in an hour that comes twice.
type fold struct {
	newest int64 // its newest local time, read as UTC
	first  int64 // the newest one before the clock was set back
	second bool
}

// local turns a local time into an instant. One that comes twice is the earlier one until the order of the lines says otherwise: it
// goes back by late or more, which is more than lines are out of order. A line that is late stands where the first time ended, and soon
// after that.
func (p *Parser) local(naive, late int64) int64 {
	const elsewhere, straggling = 3 * 60 * 60, 10
	earlier, later := readings(p.loc, naive)
	if earlier == later {
		return earlier
	}
	f, twice := &p.fold, later-earlier
	late = min(late, twice/2)
	switch back := f.newest - naive; {
	case back > elsewhere || back < -elsewhere:
		*f = fold{newest: naive}
	case !f.second && back >= late:
		*f = fold{newest: naive, first: f.newest, second: true}
	case f.second && -back > twice/2 && naive <= f.first+straggling && f.newest+twice-f.first < late:
		return earlier
	case back < 0:
		f.newest = naive
	}
	if f.second {
		return later
	}
	return earlier
}

// instant returns the instant mm:ss into the hour, read as UTC and read in the zone.
func (p *Parser) instant(h *hour, m, s uint8) (naive, utc int64) {
	n := int64(m)*60 + int64(s)
	naive, utc = h.naive+n, h.utc+n
	if !h.whole && h != &p.outerHour && h != &p.zonedHour { // which are of times with a zone
		late := int64(endsLate)
		if h != &p.isoHour {
			late = startsLate
		}
		utc = p.local(naive, late)
	}
	return naive, utc
}

// A service's own log is written as its lines' times are, but for those of several processes. The time of a server's line can be that
// of the request's start, and the line is written at its end.
const (
	endsLate   = 5 * 60
	startsLate = 30 * 60
)

// iso reads "2006-01-02 15:04:05", with any byte between day and hour, from the head of s, which has 19 bytes at least.
func (p *Parser) iso(h *hour, s string) (naive, utc int64, ok bool) {
	k0, k1 := le64(s, 0), le64(s, 5)
	if k0 != h.k0 || k1 != h.k1 || !h.ok {
		h.k0, h.k1 = k0, k1
		c, y, m, d, hh := two(s, 0), two(s, 2), two(s, 5), two(s, 8), two(s, 11)
		h.ok = false
		if c > 99 || y > 99 || s[4] != '-' || s[7] != '-' || !h.set(p.loc, int(c)*100+int(y), int(m), int(d), int(hh)) {
			return 0, 0, false
		}
	}
	m, sec := two(s, 14), two(s, 17)
	if s[13] != ':' || s[16] != ':' || m > 59 || sec > 60 {
		return 0, 0, false
	}
	naive, utc = p.instant(h, m, sec)
	return naive, utc, true
}

// clf reads "02/Jan/2006:15:04:05" from the head of s, which has 20 bytes at least; sep is the byte before the hour.
func (p *Parser) clf(h *hour, s string, sep byte) (naive, utc int64, ok bool) {
	k0, k1 := le64(s, 0), le64(s, 6)
	if k0 != h.k0 || k1 != h.k1 || !h.ok {
		h.k0, h.k1 = k0, k1
		c, y, d, hh := two(s, 7), two(s, 9), two(s, 0), two(s, 12)
		h.ok = false
		if c > 99 || y > 99 || s[2] != '/' || s[6] != '/' || s[11] != sep || !h.set(p.loc, int(c)*100+int(y), month(s[3:6]), int(d), int(hh)) {
			return 0, 0, false
		}
	}
	m, sec := two(s, 15), two(s, 18)
	if s[14] != ':' || s[17] != ':' || m > 59 || sec > 60 {
		return 0, 0, false
	}
	naive, utc = p.instant(h, m, sec)
	return naive, utc, true
}

// ctime reads "Mon Jan  2 15:04:05 2006" from the head of s, which has 24 bytes at least.
func (p *Parser) ctime(s string) (naive, utc int64, ok bool) {
	h := &p.ctimeHour
	k0, k1, k2 := le64(s, 0), le64(s, 5), le64(s, 16)&^0xffffffff|uint64(s[19])
	if k0 != h.k0 || k1 != h.k1 || k2 != h.k2 || !h.ok {
		h.k0, h.k1, h.k2 = k0, k1, k2
		day := two(s, 8)
		if s[8] == ' ' {
			day = s[9] - '0'
		}
		c, y, hh := two(s, 20), two(s, 22), two(s, 11)
		h.ok = false
		if c > 99 || y > 99 || s[3] != ' ' || s[7] != ' ' || s[10] != ' ' || s[19] != ' ' || !h.set(p.loc, int(c)*100+int(y), month(s[4:7]), int(day), int(hh)) {
			return 0, 0, false
		}
	}
	m, sec := two(s, 14), two(s, 17)
	if s[13] != ':' || s[16] != ':' || m > 59 || sec > 60 {
		return 0, 0, false
	}
	naive, utc = p.instant(h, m, sec)
	return naive, utc, true
}

// month reads an English month's three letters; 0 if they are none.
func month(s string) int {
	switch s {
	case "Jan":
		return 1
	case "Feb":
		return 2
	case "Mar":
		return 3
	case "Apr":
		return 4
	case "May":
		return 5
	case "Jun":
		return 6
	case "Jul":
		return 7
	case "Aug":
		return 8
	case "Sep":
		return 9
	case "Oct":
		return 10
	case "Nov":
		return 11
	case "Dec":
		return 12
	}
	return 0
}

// offset reads a zone as "+0100", "+01:00" or "Z" at the head of s; n is its length, 0 if there is none.
func offset(s string) (sec int64, n int) {
	if s == "" {
		return 0, 0
	}
	if s[0] == 'Z' {
		return 0, 1
	}
	if len(s) < 5 || s[0] != '+' && s[0] != '-' {
		return 0, 0
	}
	n = 5
	h, m := two(s, 1), two(s, 3)
	if s[3] == ':' {
		if len(s) < 6 {
			return 0, 0
		}
		m, n = two(s, 4), 6
	}
	if h > 15 || m > 59 {
		return 0, 0
	}
	sec = int64(h)*3600 + int64(m)*60
	if s[0] == '-' {
		sec = -sec
	}
	return sec, n
}

// fraction reads the digits of a fraction of a second at the head of s; n is how many, 0 for none.
func fraction(s string) (ns int64, n int) {
	for n < len(s) {
		d := s[n] - '0'
		if d > 9 {
			break
		}
		if n < 9 {
			ns = ns*10 + int64(d)
		}
		n++
	}
	return ns * powers[min(n, 9)], n
}

// powers are what the first n digits of a fraction are to be multiplied with to give nanoseconds.
var powers = [10]int64{1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 100, 10, 1}

// zoned turns a time without a zone into an instant. utc is its reading in the parser's zone. Where the line has an outer time
// with a zone, that one decides: the two lie no more than a quarter of an hour apart, or that and a whole number of quarter
// hours, which then is the zone. taken is how long the request lasted after the time, in seconds, if it is the begin.
func (p *Parser) zoned(naive, utc, taken int64) int64 {
	const quarter, widest = 15 * 60, 14 * 3600
	if !p.env.zoned {
		return utc
	}
	d := naive + taken - p.env.sec // the zone's offset less the time that the line took to the log
	near := func(off int64) bool { return d-off <= quarter && off-d <= quarter }
	if near(p.env.off) {
		return naive - p.env.off
	}
	if near(naive - utc) {
		return utc
	}
	k := (d + quarter/2) / quarter
	if d+quarter/2 < 0 {
		k = -((-d + quarter/2) / quarter)
	}
	if off := k * quarter; off <= widest && off >= -widest {
		return naive - off
	}
	return utc
}
