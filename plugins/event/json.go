package event

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, one for each bad byte.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	b = AppendEscaped(b, s)
	return append(b, '"')
}

// AppendEscaped appends s as the inside of a JSON string: AppendString without the quotes.
func AppendEscaped(b []byte, s string) []byte {
	if needsNoEscape(s) {
		return append(b, s...)
	}
	return appendEscapedSlow(b, s)
}

// needsNoEscape looks at eight bytes at a time: printable ASCII without quote and backslash.
func needsNoEscape(s string) bool {
	const l, h = 0x0101010101010101, 0x8080808080808080
	i := 0
	var acc uint64
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		acc |= x | (x - l*0x20) | ((x ^ l*'"') - l) | ((x ^ l*'\\') - l)
	}
	if acc&h != 0 {
		return false
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func appendEscapedSlow(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				i++
				start = i
				continue
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(b, s[start:]...)
}

// AppendSeconds appends d in seconds with the shortest fraction.
func AppendSeconds(b []byte, d time.Duration) []byte {
	n := uint64(d)
	if d < 0 {
		b = append(b, '-')
		n = -n
	}
	if n < 10e9 {
		b = append(b, byte('0'+n/1e9))
	} else {
		b = strconv.AppendUint(b, n/1e9, 10)
	}
	return appendFraction(b, uint32(n%1e9))
}

// appendFraction appends the nanoseconds as a decimal fraction without trailing zeros.
func appendFraction(b []byte, ns uint32) []byte {
	if ns == 0 {
		return b
	}
	high, low := ns/1e5, ns%1e5 // four digits and five, made beside each other
	b = append(b, '.', byte('0'+high/1000), byte('0'+high/100%10), byte('0'+high/10%10), byte('0'+high%10),
		byte('0'+low/10000), byte('0'+low/1000%10), byte('0'+low/100%10), byte('0'+low/10%10), byte('0'+low%10))
	if low == 0 {
		b = b[:len(b)-5]
	}
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// AppendTime appends t as a quoted RFC 3339 time in UTC with the shortest fraction.
func AppendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		b = t.AppendFormat(b, time.RFC3339Nano)
		return append(b, '"')
	}
	sec := t.Unix()
	day := sec / 86400
	if sec < 0 && sec%86400 != 0 {
		day--
	}
	in := uint32(sec - day*86400)
	y, m, d := t.Date()
	b = append(b, byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-')
	b = append(b, byte('0'+m/10), byte('0'+m%10), '-', byte('0'+d/10), byte('0'+d%10), 'T')
	b = appendClock(b, in)
	b = appendFraction(b, uint32(t.Nanosecond()))
	return append(b, 'Z', '"')
}

func appendClock(b []byte, s uint32) []byte {
	h, m := s/3600, s/60%60
	s %= 60
	return append(b, byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10))
}

// TimeEncoder appends times as AppendTime does and remembers the text of the last second. It is not safe for concurrent use.
type TimeEncoder struct {
	second int64
	text   [20]byte // `"2006-01-02T15:04:05`
}

// Append appends t as a quoted RFC 3339 time in UTC with the shortest fraction.
func (c *TimeEncoder) Append(b []byte, t time.Time) []byte {
	second := t.Unix()
	if second < 0 || second > 253402300799 { // before 1970, after 9999
		return AppendTime(b, t)
	}
	if second != c.second || c.text[0] == 0 {
		copy(c.text[:], AppendTime(c.text[:0:0], time.Unix(second, 0)))
		c.second = second
	}
	b = append(b, c.text[:]...)
	b = appendFraction(b, uint32(t.Nanosecond()))
	return append(b, 'Z', '"')
}

// AppendFloat appends f in the shortest form that JSON knows; f is finite.
func AppendFloat(b []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}

// AppendValue appends v as JSON; an absent value as null.
func AppendValue(b []byte, v Value) []byte {
	switch v.kind {
	case String:
		return AppendString(b, v.Str())
	case Object:
		return append(b, v.Str()...)
	case Int:
		return strconv.AppendInt(b, v.num, 10)
	case Float:
		return AppendFloat(b, v.Float())
	case Bool:
		return strconv.AppendBool(b, v.num != 0)
	case Time:
		return AppendTime(b, v.Time())
	case List:
		b = append(b, '[')
		for i, s := range v.List() {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendString(b, s)
		}
		return append(b, ']')
	}
	return append(b, "null"...)
}

// IsClean reports that b holds only printable ASCII without backslash, and newlines: text that JSON can carry as it is, but
// for the newlines and the quotes. One pass decides for a whole block of lines.
func IsClean(b []byte) bool {
	const l, h = 0x0101010101010101, 0x8080808080808080
	// While no byte has its high bit set, adding 0x60 sets it in just the bytes from 0x20 on. What eight words tell is laid side by side,
	// one bit of each byte for each word, and counted at once.
	var high uint64
	printable, i := 0, 0
	for ; i+64 <= len(b); i += 64 {
		p := b[i : i+64 : i+64]
		x0, x1 := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
		x2, x3 := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
		x4, x5 := binary.LittleEndian.Uint64(p[32:]), binary.LittleEndian.Uint64(p[40:])
		x6, x7 := binary.LittleEndian.Uint64(p[48:]), binary.LittleEndian.Uint64(p[56:])
		high |= x0 | x1 | x2 | x3 | x4 | x5 | x6 | x7
		printable += bits.OnesCount64((x0+l*0x60)&h | (x1+l*0x60)&h>>1 | (x2+l*0x60)&h>>2 | (x3+l*0x60)&h>>3 |
			(x4+l*0x60)&h>>4 | (x5+l*0x60)&h>>5 | (x6+l*0x60)&h>>6 | (x7+l*0x60)&h>>7)
	}
	control := i - printable
	for ; i < len(b); i++ {
		high |= uint64(b[i])
		if b[i] < 0x20 {
			control++
		}
	}
	return high&h == 0 && control == bytes.Count(b, []byte{'\n'}) && bytes.IndexByte(b, '\\') < 0
}

// appendRoom makes room for n more bytes, growing to powers of two so that reused buffers settle quickly.
func appendRoom(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	return slices.Grow(b, 1<<bits.Len(uint(len(b)+n))-len(b))
}
