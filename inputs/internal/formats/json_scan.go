package formats

import (
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// members walks over the members of a JSON object without building anything: values are views of the text. What is no JSON
// sets bad; numbers and words are taken as they stand.
type members struct {
	s   string
	i   int
	bad bool
}

// walk begins at the object that s is.
func walk(s string) members {
	if len(s) < 2 || s[0] != '{' {
		return members{bad: true}
	}
	return members{s: s, i: 1}
}

// next returns the next member: its key without quotes, escapes and all, and its value as it stands; ok is false at the end.
func (m *members) next() (key, value string, ok bool) {
	if m.bad {
		return "", "", false
	}
	s, i := m.s, blanks(m.s, m.i)
	if isAt(s, i, '}') {
		m.i = blanks(s, i+1)
		m.bad = m.i != len(s)
		return "", "", false
	}
	if m.i > 1 {
		if !isAt(s, i, ',') {
			return m.stop(i)
		}
		i = blanks(s, i+1)
	}
	if !isAt(s, i, '"') {
		return m.stop(i)
	}
	n := jsonString(s[i:])
	if n == 0 {
		return m.stop(i)
	}
	key = s[i+1 : i+n-1]
	if i = blanks(s, i+n); !isAt(s, i, ':') {
		return m.stop(i)
	}
	i = blanks(s, i+1)
	if n = jsonValue(s[i:]); n == 0 {
		return m.stop(i)
	}
	m.i = i + n
	return key, s[i : i+n], true
}

// stop ends the walk where something else stands than what should.
func (m *members) stop(i int) (key, value string, ok bool) {
	m.i, m.bad = i, true
	return "", "", false
}

func isAt(s string, i int, c byte) bool { return i < len(s) && s[i] == c }

// blanks steps over what may stand between the parts of an object.
func blanks(s string, i int) int {
	for i < len(s) && s[i] <= ' ' && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// jsonString is the length of the string at the head of s with its quotes; 0 if it has no end.
func jsonString(s string) int {
	if len(s) > 8 { // most are short
		if at := bytesOf('"', le64(s, 1)); at != 0 {
			if i := 1 + bits.TrailingZeros64(at)/8; s[i-1] != '\\' {
				return i + 1
			}
		}
	}
	for i := 1; ; {
		j := strings.IndexByte(s[i:], '"')
		if j < 0 {
			return 0
		}
		i += j
		k := i
		for k > 1 && s[k-1] == '\\' {
			k--
		}
		i++
		if (i-1-k)%2 == 0 {
			return i
		}
	}
}

// jsonValue is the length of the value at the head of s; 0 if there is none.
func jsonValue(s string) int {
	if s == "" {
		return 0
	}
	switch s[0] {
	case '"':
		return jsonString(s)
	case '{', '[':
		depth := 0
		for i := 0; i < len(s); i++ {
			switch s[i] {
			case '"':
				n := jsonString(s[i:])
				if n == 0 {
					return 0
				}
				i += n - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return 0
	}
	i := 0
	for i < len(s) && (s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z' || s[i] >= '0' && s[i] <= '9' || s[i] == '-' || s[i] == '+' || s[i] == '.') {
		i++
	}
	return i
}

// member looks for a member of the object that s is; "" if it has none, or null.
func member(s, key string) string {
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		if k == key {
			if v == "null" {
				return ""
			}
			return v
		}
	}
	return ""
}

// first is the first element of the array that s is; "" if it has none.
func first(s string) string {
	if s == "" || s[0] != '[' {
		return ""
	}
	s = strings.TrimLeft(s[1:], " \t\r\n")
	return s[:jsonValue(s)]
}

// str is the text of a value: of a string without its escapes, of a number or a word as it stands; "" of anything else. A text
// with escapes is rewritten in the arena.
func (p *Parser) str(v string) string {
	if v == "" || v[0] == '{' || v[0] == '[' || v == "null" {
		return ""
	}
	if v[0] != '"' {
		return v
	}
	v = v[1 : len(v)-1]
	if strings.IndexByte(v, '\\') < 0 {
		return v
	}
	d := p.arena.Alloc(len(v))[:0]
	for v != "" {
		i := strings.IndexByte(v, '\\')
		if i < 0 || i+1 == len(v) {
			d = append(d, v...)
			break
		}
		d = append(d, v[:i]...)
		n := 2
		switch v[i+1] {
		case 'n':
			d = append(d, '\n')
		case 'r':
			d = append(d, '\r')
		case 't':
			d = append(d, '\t')
		case 'b':
			d = append(d, '\b')
		case 'f':
			d = append(d, '\f')
		case 'u':
			r, size := escapedRune(v[i:])
			if size == 0 {
				d = append(d, '\\', 'u')
				break
			}
			d = utf8.AppendRune(d, r)
			n = size
		default:
			d = append(d, v[i+1])
		}
		v = v[i+n:]
	}
	return event.View(d)
}

// escapedRune reads `\uXXXX`, or two of them that make one character; n is its length, 0 if it is none.
func escapedRune(s string) (r rune, n int) {
	hi, ok := hex4(s)
	if !ok {
		return 0, 0
	}
	if hi >= 0xd800 && hi < 0xdc00 && len(s) >= 12 {
		if lo, ok := hex4(s[6:]); ok && lo >= 0xdc00 && lo < 0xe000 {
			return (hi-0xd800)<<10 + lo - 0xdc00 + 0x10000, 12
		}
	}
	return hi, 6
}

// hex4 reads `\uXXXX`.
func hex4(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for i := 2; i < 6; i++ {
		h := hexValue[s[i]]
		if h < 0 {
			return 0, false
		}
		r = r<<4 | rune(h)
	}
	return r, true
}

// byteArray decodes an array of numbers from 0 to 255, as journald writes a message that is no plain text.
func (p *Parser) byteArray(v string) (string, bool) {
	d := p.arena.Alloc(len(v) / 2)[:0]
	for rest := v[1 : len(v)-1]; rest != ""; {
		var word string
		word, rest, _ = cutAt(rest, ',')
		n, ok := digits(strings.TrimSpace(word))
		if !ok || n > 255 || len(d) == cap(d) {
			return "", false
		}
		d = append(d, byte(n))
	}
	return event.View(d), true
}
