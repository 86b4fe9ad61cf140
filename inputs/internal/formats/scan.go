package formats

import (
	"math/bits"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// digits reads a number of 1 to 18 digits.
func digits(s string) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}

// count takes a number of 1 to 18 digits and the space behind it.
func count(s string) (n int64, rest string, ok bool) {
	i := 0
	for i < len(s) && s[i]-'0' <= 9 {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	if i == 0 || i > 18 || i == len(s) || s[i] != ' ' {
		return 0, s, false
	}
	return n, s[i+1:], true
}

func allDigits(s string) bool {
	_, ok := digits(s)
	return ok
}

// status3 reads a status of three digits.
func status3(s string) (int32, bool) {
	if len(s) != 3 {
		return 0, false
	}
	a, b, c := s[0]-'0', s[1]-'0', s[2]-'0'
	if a > 9 || b > 9 || c > 9 || a == 0 {
		return 0, false
	}
	return int32(a)*100 + int32(b)*10 + int32(c), true
}

// seconds reads "0.0081196"; decimals is how many digits stand after the point.
func seconds(s string) (d time.Duration, decimals int, ok bool) {
	i := 0
	var whole int64
	for i < len(s) && s[i]-'0' <= 9 && i < 9 {
		whole = whole*10 + int64(s[i]-'0')
		i++
	}
	if i == 0 || i >= len(s) || s[i] != '.' {
		return 0, 0, false
	}
	ns, n := fraction(s[i+1:])
	if n == 0 || i+1+n != len(s) {
		return 0, 0, false
	}
	return time.Duration(whole)*time.Second + time.Duration(ns), n, true
}

// field cuts s at the first space; ok is false without one.
func field(s string) (head, tail string, ok bool) {
	i := space(s)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// cutAt is strings.Cut for a separator of one byte, which is quicker.
func cutAt(s string, sep byte) (before, after string, found bool) {
	i := uint(strings.IndexByte(s, sep)) // so that one comparison says whether it is there and where it can be
	if i >= uint(len(s)) {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// space finds the first space; -1 if there is none. Most words are short, and a search of its own costs more than a look at two times
// eight bytes.
func space(s string) int {
	if len(s) < 16 {
		for i := 0; i < len(s); i++ {
			if s[i] == ' ' {
				return i
			}
		}
		return -1
	}
	x, y := bytesOf(' ', le64(s, 0)), bytesOf(' ', le64(s, 8))
	if x != 0 {
		return bits.TrailingZeros64(x) / 8
	}
	if y != 0 {
		return 8 + bits.TrailingZeros64(y)/8
	}
	if i := strings.IndexByte(s[16:], ' '); i >= 0 {
		return 16 + i
	}
	return -1
}

// bytesOf marks those of eight bytes that are c by their high bits; 0 if there is none. The lowest bit is right, above it there may be
// wrong ones.
func bytesOf(c byte, x uint64) uint64 {
	const l, h = 0x0101010101010101, 0x8080808080808080
	x ^= l * uint64(c)
	return (x - l) &^ x & h
}

// trimNewlines takes the bytes that end lines from the end of a text.
func trimNewlines(s string) string {
	for len(s) > 0 && (s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}

// trimColour takes the terminal's reset from the end of a line: oslo.log's, and as Apache's error log spells it.
func trimColour(s string) string {
	for {
		i := len(s) - 1
		if i < 3 || s[i] != 'm' {
			return s
		}
		i--
		for i > 0 && (s[i]-'0' <= 9 || s[i] == ';') {
			i--
		}
		if s[i] != '[' || i == 0 {
			return s
		}
		switch {
		case s[i-1] == 0x1b:
			s = s[:i-1]
		case i >= 4 && s[i-4:i] == `\x1b`:
			s = s[:i-4]
		default:
			return s
		}
	}
}

// isMethod reports whether s could be a method: letters, with '-' and '_' between.
func isMethod(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && (i == 0 || s[i] != '-' && s[i] != '_') {
			return false
		}
	}
	return true
}

// request puts a request line "METHOD TARGET[ HTTP/x.y]" into e. A text that is none sets nothing and reports false.
func request(e *event.Event, s string) bool {
	i := space(s)
	if i < 0 || !isMethod(s[:i]) {
		return false
	}
	method, target := s[:i], s[i+1:]
	if n := len(target); n >= 9 && target[n-9:n-3] == " HTTP/" && target[n-2] == '.' {
		e.HTTPVersion = target[n-8:]
		target = target[:n-9]
	} else if j := strings.LastIndexByte(target, ' '); j >= 0 && isProtocol(target[j+1:]) {
		e.HTTPVersion = target[j+1:]
		target = target[:j]
	}
	if target == "" {
		e.HTTPVersion = ""
		return false
	}
	e.Method = method
	e.Path, e.Query = splitTarget(target)
	return true
}

// splitTarget splits at the first question mark.
func splitTarget(s string) (path, query string) {
	i := uint(strings.IndexByte(s, '?')) // without one it is more than s is long
	if i < uint(len(s)) {
		return s[:i], s[i+1:]
	}
	return s, ""
}

// isProtocol reports whether s is HTTP/ and a number.
func isProtocol(s string) bool {
	if !strings.HasPrefix(s, "HTTP/") || len(s) > 8 || len(s) < 6 {
		return false
	}
	for _, c := range []byte(s[5:]) {
		if c != '.' && c-'0' > 9 {
			return false
		}
	}
	return true
}

// clients puts a list of addresses, as a server logs it, into e: the first is the client. peer says that the list's last
// address is the peer's own, so that a single one is no forwarded list.
func (p *Parser) clients(e *event.Event, list string, peer bool) {
	end := len(list)
	if i := strings.IndexByte(list, ','); i >= 0 {
		end, e.ForwardedFor = i, list
	} else if !peer && list != "-" {
		e.ForwardedFor = list
	}
	p.client(e, list[:end])
}

// client puts an address into e, or a suspicion.
func (p *Parser) client(e *event.Event, s string) {
	if isIPv4(s) {
		e.Client = s
		return
	}
	switch s {
	case "", "-", "unix", "<local>":
		return
	}
	if s = bareAddress(s); s != "" {
		e.Client = s
		return
	}
	p.suspect |= clientNotAnAddress
}

// bareAddress takes quotes, brackets and port from an address; "" if it is none.
func bareAddress(s string) string {
	s = strings.TrimSpace(s)
	if n := len(s); n > 2 && s[0] == '"' && s[n-1] == '"' {
		s = s[1 : n-1]
	}
	if len(s) > 0 && s[0] == '[' {
		i := strings.IndexByte(s, ']')
		if i < 0 || !isPort(s[i+1:]) || !isIPv6(s[1:i]) {
			return ""
		}
		return s[1:i]
	}
	if isIPv4(s) || isIPv6(s) {
		return s
	}
	if i := strings.IndexByte(s, ':'); i > 0 && isIPv4(s[:i]) && isPort(s[i:]) {
		return s[:i]
	}
	return ""
}

// isPort reports whether s is nothing, or a colon and digits.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	n, ok := digits(s[1:])
	return s[0] == ':' && ok && n < 65536
}

// isIPv4 reports whether s is an IPv4 address in the form that net/netip takes.
func isIPv4(s string) bool {
	if len(s) < 7 || len(s) > 15 {
		return false
	}
	n, at, dots := 0, 0, 0
	for i := 0; i < len(s); i++ {
		d := s[i] - '0'
		if d <= 9 {
			if at == 1 && n == 0 || at == 3 {
				return false
			}
			n = n*10 + int(d)
			at++
			continue
		}
		if s[i] != '.' || at == 0 || n > 255 {
			return false
		}
		dots++
		n, at = 0, 0
	}
	return dots == 3 && at > 0 && n <= 255
}

// isIPv6 reports whether s is an IPv6 address, without a zone, in the form that net/netip takes.
func isIPv6(s string) bool {
	if len(s) < 2 || len(s) > 45 {
		return false
	}
	groups, gap := 0, false
	i := 0
	if s[0] == ':' {
		if s[1] != ':' {
			return false
		}
		gap = true
		i = 2
		if i == len(s) {
			return true
		}
	}
	for {
		from := i
		for i < len(s) && hexValue[s[i]] >= 0 {
			i++
		}
		if i < len(s) && s[i] == '.' {
			// An embedded IPv4 address takes the room of two groups.
			groups += 2
			return isIPv4(s[from:]) && (groups == 8 && !gap || groups < 8 && gap)
		}
		if i == from || i-from > 4 {
			return false
		}
		groups++
		if i == len(s) {
			return groups == 8 && !gap || groups < 8 && gap
		}
		if s[i] != ':' || groups == 8 {
			return false
		}
		i++
		if i == len(s) {
			return false
		}
		if s[i] == ':' {
			if gap {
				return false
			}
			gap = true
			i++
			if i == len(s) {
				return groups < 8
			}
		}
	}
}

// hexValue is the value of a hexadecimal digit, -1 for other bytes.
var hexValue = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i := range 10 {
		t['0'+i] = int8(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = int8(10+i), int8(10+i)
	}
	return t
}()

// hex8 reports whether eight bytes are lower-case hexadecimal digits.
func hex8(x uint64) bool {
	const l, h = 0x0101010101010101, 0x8080808080808080
	if x&h != 0 {
		return false
	}
	// A digit: above '/' and not above '9'. A letter: above '`' and not above 'f'. No sum overflows its byte.
	digit := (x + l*(0x80-'0')) &^ (x + l*(0x80-':'))
	letter := (x + l*(0x80-'a')) &^ (x + l*(0x80-'g'))
	return (digit|letter)&h == h
}

// hex32 reports whether 32 bytes of s at i are lower-case hexadecimal digits.
func hex32(s string, i int) bool {
	s = s[i : i+32]
	return hex8(le64(s, 0)) && hex8(le64(s, 8)) && hex8(le64(s, 16)) && hex8(le64(s, 24))
}

// isID reports whether s is the id of a user or project: 32 or 64 hexadecimal digits, or a uuid.
func isID(s string) bool {
	switch len(s) {
	case 32:
		return hex32(s, 0) || allHex(s)
	case 64:
		return hex32(s, 0) && hex32(s, 32) || allHex(s)
	case 36:
		return isUUID(s)
	}
	return false
}

func allHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if hexValue[s[i]] < 0 {
			return false
		}
	}
	return true
}

// isUUID reports whether s has the shape 8-4-4-4-12.
func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	return hex8(le64(s, 0)) && hex8(le32(s, 9)|le32(s, 14)<<32) && hex8(le32(s, 19)|le32(s, 24)<<32) && hex8(le64(s, 28)) ||
		allHex(s[:8]) && allHex(s[9:13]) && allHex(s[14:18]) && allHex(s[19:23]) && allHex(s[24:])
}

// le32 loads four bytes of s.
func le32(s string, i int) uint64 {
	s = s[i : i+4]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

// access fills what all access lines share.
func access(e *event.Event, f format, basis string) {
	e.Format, e.TimestampBasis = formatNames[f], basis
}

const (
	basisStart = "start"
	basisEnd   = "end"
)

// setStatus sets the status and the outcome that follows from it.
func setStatus(e *event.Event, status int32) {
	e.SetStatus(status)
	if status < 400 {
		e.Outcome = "success"
	} else {
		e.Outcome = "failure"
	}
}

// setCut marks a record whose end is missing.
func (p *Parser) setCut(e *event.Event) {
	e.SetBool(event.BoolTruncated, true)
	p.suspect |= truncated
}

// numberAt reads a number of 1 to 18 digits that stands at i and returns where it ends, which is behind s if there is none.
func numberAt(s string, i int) (n int64, end int) {
	end = i
	for end < len(s) && s[end]-'0' <= 9 {
		n = n*10 + int64(s[end]-'0')
		end++
	}
	if k := end - i; k == 0 || k > 18 {
		return 0, len(s) + 1
	}
	return n, end
}

// isTextAt reports whether t stands at i.
func isTextAt(s string, i int, t string) bool { return len(s)-i >= len(t) && s[i:i+len(t)] == t }
