package routes

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unsafe"
)

func lower(s string) string { return strings.ToLower(s) }

func lowest(s set) int { return bits.TrailingZeros64(uint64(s)) }

// versionOf returns the segment if it is a version: v2, v2.1, latest, 1.0 or 2006-01-02; else "".
func versionOf(s string) string {
	if len(s) < 2 || len(s) > 12 {
		return ""
	}
	switch c := s[0]; {
	case c == 'v':
		if isNumber(s[1:]) {
			return s
		}
	case c == 'l':
		if s == "latest" {
			return s
		}
	case c >= '0' && c <= '9':
		if len(s) == 10 && s[4] == '-' && s[7] == '-' {
			if allDigits(s[:4]) && allDigits(s[5:7]) && allDigits(s[8:]) {
				return s
			}
		} else if i := strings.IndexByte(s, '.'); i > 0 && isNumber(s) {
			return s
		}
	}
	return ""
}

// versionWord is how the versions of services name a version.
func versionWord(v string) string {
	if len(v) == 10 && v[4] == '-' {
		return wordDate
	}
	return v
}

// isNumber reports whether s is digits, or digits, a dot and digits, and short.
func isNumber(s string) bool {
	dots := 0
	for i := range len(s) {
		if s[i] == '.' {
			dots++
		} else if s[i]-'0' > 9 {
			return false
		}
	}
	return dots <= 1 && len(s) > 0 && len(s) <= 8 && s[0] != '.' && s[len(s)-1] != '.'
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i]-'0' > 9 {
			return false
		}
	}
	return s != ""
}

// isID reports whether s is what OpenStack gives out as an id: 32 or 64 hexadecimal digits, or a uuid.
func isID(s string) bool {
	switch len(s) {
	case 32, 64:
		return isHex(s)
	case 36:
		return isUUID(s) && isHex(s[:8]) && isHex(s[9:13]) && isHex(s[14:18]) && isHex(s[19:23]) && isHex(s[24:])
	}
	return false
}

// isUUID reports whether s has the shape 8-4-4-4-12.
func isUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
}

// harmless reports whether a segment can be no secret: ids are none, and neither are short words.
func harmless(s string) bool {
	const short = 8
	return isUUID(s) || len(s) < short && strings.IndexByte(s, '=') < 0 && strings.IndexByte(s, '%') < 0 || len(s) <= 32 && isHex(s)
}

// isHex reports whether s is lower hexadecimal digits, eight at a time.
func isHex(s string) bool {
	const h, l = 0x8080808080808080, 0x0101010101010101
	p := unsafe.Slice(unsafe.StringData(s), len(s))
	for ; len(p) >= 8; p = p[8:] {
		x := binary.LittleEndian.Uint64(p)
		// The high bit of each byte says whether it is at least, or more than, a bound; sums do not reach the next byte.
		digit := (x + (0x80-'0')*l) &^ (x + (0x7f-'9')*l)
		letter := (x + (0x80-'a')*l) &^ (x + (0x7f-'f')*l)
		if (digit|letter)&^x&h != h {
			return false
		}
	}
	for _, c := range p {
		if c-'0' > 9 && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// trimSuffix takes .json or .xml off the last segment, as the oldest clients write it.
func trimSuffix(s string, last bool) string {
	if !last || len(s) < 5 || s[len(s)-1] != 'n' && s[len(s)-1] != 'l' {
		return s
	}
	if t, ok := strings.CutSuffix(s, ".json"); ok && t != "" {
		return t
	}
	if t, ok := strings.CutSuffix(s, ".xml"); ok && t != "" {
		return t
	}
	return s
}

// index finds a value by a room and a word. It is a table with open addressing: one look costs a few nanoseconds, a third of a map's.
type index struct {
	entries []entry
	mask    uint32
}

type entry struct {
	word  string
	value uint64
	room  uint32
}

func newIndex(n int) index {
	size := 1 << bits.Len(uint(2*n))
	return index{make([]entry, size), uint32(size - 1)}
}

// put adds a value, which is not 0, for a word that is not there.
func (x *index) put(room uint32, word string, value uint64) {
	i := hash(room, word) & x.mask
	for x.entries[i].value != 0 {
		i = (i + 1) & x.mask
	}
	x.entries[i] = entry{word, value, room}
}

// get returns the value, 0 if there is none.
func (x *index) get(room uint32, word string) uint64 {
	for i := hash(room, word) & x.mask; ; i = (i + 1) & x.mask {
		e := &x.entries[i]
		if e.value == 0 || e.room == room && e.word == word {
			return e.value
		}
	}
}

// hash mixes the room with the word's length, beginning and end. Words that differ in their middle only are rare, and cost a comparison.
func hash(room uint32, s string) uint32 {
	const k1, k2 = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f
	var a, b uint64
	p := unsafe.Slice(unsafe.StringData(s), len(s))
	switch n := len(p); {
	case n >= 8:
		a, b = binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[n-8:])
	case n >= 4:
		a, b = uint64(binary.LittleEndian.Uint32(p)), uint64(binary.LittleEndian.Uint32(p[n-4:]))
	case n > 0:
		a = uint64(p[0])<<16 | uint64(p[n/2])<<8 | uint64(p[n-1])
	}
	hi, lo := bits.Mul64(a^k1^uint64(room)<<32, b^k2^uint64(len(s))<<56^uint64(room))
	return uint32(hi ^ lo ^ lo>>32)
}
