package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// uncoloured reads a line that is no access line again without the terminal's colours, if it has some: devstack's have them around
// the level, the request id and the message, and Apache's error log spells the escape byte `\x1b`.
func (p *Parser) uncoloured(s string, e *event.Event, v Verdict) Verdict {
	esc := strings.IndexByte(s, 0x1b)
	if esc < 0 {
		if strings.IndexByte(s, '\\') < 0 {
			return v
		}
		if esc = strings.Index(s, `\x1b[`); esc < 0 {
			return v
		}
	}
	d := p.arena.Alloc(len(s))[:0]
	for i := 0; i < len(s); {
		if n := colour(s[i:]); n > 0 {
			i += n
			continue
		}
		d = append(d, s[i])
		i++
	}
	if len(d) == len(s) || len(d) == 0 {
		return v
	}
	wipe(e)
	p.reason, p.suspect = "", 0
	p.env, p.depth, p.near = envelope{}, 0, nearest{}
	p.peeled("colours")
	v = p.parse(event.View(d), e)
	p.depth = max(p.depth, 1)
	return v
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
