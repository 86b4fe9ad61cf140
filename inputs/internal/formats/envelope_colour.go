package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// uncoloured reads a line that is no access line again without the terminal's colours, if it has some: devstack's have them around
// the level, the request id and the message, and Apache's error log spells the escape byte `\x1b`.
func (p *Parser) uncoloured(s string, e *event.Event, v Verdict) Verdict {
	esc := escape(s)
	if esc < 0 {
		return v
	}
	whole := len(s)
	d := p.arena.Alloc(whole)[:0]
	for i := esc; ; {
		d = append(d, s[:i]...)
		n := colour(s[i:])
		if n == 0 {
			d = append(d, s[i])
			n = 1
		}
		s = s[i+n:]
		if i = escape(s); i < 0 {
			d = append(d, s...)
			break
		}
	}
	if len(d) == whole || len(d) == 0 {
		return v
	}
	wipe(e)
	p.reason, p.suspect, p.coloured = "", 0, false
	p.env, p.depth, p.near = envelope{}, 0, nearest{}
	p.peeled("colours")
	v = p.parse(event.View(d), e)
	p.depth = max(p.depth, 1)
	return v
}

// escape finds the next escape byte, or a backslash that may spell one; -1 if there is none.
func escape(s string) int {
	i := strings.IndexByte(s, 0x1b)
	if j := strings.IndexByte(s[:max(i, 0)], '\\'); i >= 0 && j >= 0 {
		return j
	}
	if i < 0 {
		return strings.IndexByte(s, '\\')
	}
	return i
}

// colour is the length of an escape sequence that sets colours at the head of s; 0 if there is none.
func colour(s string) int {
	i := 0
	switch {
	case s[0] == 0x1b:
		i = 1
	case s[0] == '\\' && strings.HasPrefix(s, `\x1b`):
		i = 4
	default:
		return 0
	}
	if i >= len(s) || s[i] != '[' {
		return 0
	}
	for i++; i < len(s) && (s[i]-'0' <= 9 || s[i] == ';'); i++ {
	}
	if i == len(s) || s[i] != 'm' {
		return 0
	}
	return i + 1
}
