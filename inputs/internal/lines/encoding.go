package lines

import (
	"bytes"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const byteOrderMark = "\xef\xbb\xbf"

// decode makes UTF-8 of what stands at an offset of the stream. What needs no change is returned as it is.
func (m *Maker) decode(b *event.Batch, text []byte, at int64) (out []byte, changed bool) {
	if m.latin1 {
		return fromLatin1(b, text)
	}
	if at == 0 && bytes.HasPrefix(text, []byte(byteOrderMark)) {
		return text[len(byteOrderMark):], true
	}
	return text, false
}

// fromLatin1 writes each byte as the character of its number.
func fromLatin1(b *event.Batch, text []byte) (out []byte, changed bool) {
	high := 0
	for _, c := range text {
		high += int(c >> 7)
	}
	if high == 0 {
		return text, false
	}
	out = b.Arena().Alloc(len(text) + high)[:0]
	for _, c := range text {
		if c < 0x80 {
			out = append(out, c)
		} else {
			out = append(out, 0xc0|c>>6, 0x80|c&0x3f)
		}
	}
	return out, true
}

// UTF16 names the encoding if head, which is how a file begins, is UTF-16: it has the byte order mark, or every other byte is NUL.
// Otherwise it returns "". Runs of NULs, as a crash leaves them, are none.
func UTF16(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		return "UTF-16LE"
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		return "UTF-16BE"
	}
	const fewest = 8 // characters that make a pattern
	pairs := len(head) / 2
	if pairs < fewest {
		return ""
	}
	var nul [2]int
	for i, c := range head[:2*pairs] {
		if c == 0 {
			nul[i&1]++
		}
	}
	switch most, few := pairs*9/10, pairs/10; {
	case nul[1] >= most && nul[0] <= few:
		return "UTF-16LE"
	case nul[0] >= most && nul[1] <= few:
		return "UTF-16BE"
	}
	return ""
}

// Compression names how a stream is compressed of which head is the beginning: gzip or zstd; "" if it is not.
func Compression(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b\x08")):
		return "gzip"
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return "zstd"
	}
	return ""
}
