package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// uncoloured reads a line that is no access line again without the terminal's colours, if it has some: devstack's have them around
// the level, the request id and the message, and Apache's error log spells the escape byte `\x1b`. In a JSON object they are seen
// once its strings are decoded: see plainText.
func (p *Parser) uncoloured(s string, e *event.Event, v Verdict) Verdict {
	t, bare := p.withoutColours(s)
	wrapped := p.dyed
	p.dyed = false
	if t == "" || !bare && !wrapped {
		return v
	}
	wipe(e)
	p.reason, p.suspect, p.coloured = "", 0, false
	p.env, p.depth, p.near = envelope{}, 0, nearest{}
	if p.noted {
		p.prefix = p.former // a line does not repeat itself
	}
	p.standing = standing{faded: p.faded}
	if p.explain != nil {
		*p.explain = Explanation{}
	}
	if bare {
		p.peeled("colours")
	}
	p.undyeing = wrapped
	v = p.parse(t, e)
	p.undyeing, p.dyed = false, false
	p.depth = max(p.depth, 1)
	return v
}

// plainText is the text of a member of a JSON object without colours where the line is read again for them. Before that it only
// notes that there are some.
func (p *Parser) plainText(s string) string {
	t, ok := s, false
	if p.undyeing {
		if t, ok = p.withoutColours(s); ok {
			p.peeled("colours")
		}
		return t
	}
	for i := escape(t); i >= 0 && !p.dyed; i = escape(t) {
		p.dyed = colour(t[i:]) > 0
		t = t[i+1:]
	}
	return s
}

// withoutColours returns s without the sequences that set colours; ok is false if it has none.
func (p *Parser) withoutColours(s string) (t string, ok bool) {
	i := escape(s)
	if i < 0 {
		return s, false
	}
	whole, next := s, escape
	if strings.IndexByte(s, '\\') < 0 {
		next = func(s string) int { return strings.IndexByte(s, 0x1b) }
	}
	d := p.arena.Alloc(len(s))[:0]
	for {
		d = append(d, s[:i]...)
		n := colour(s[i:])
		if n == 0 {
			d = append(d, s[i])
			n = 1
		}
		s = s[i+n:]
		if i = next(s); i < 0 {
			d = append(d, s...)
			break
		}
	}
	if len(d) == len(whole) {
		return whole, false
	}
	return event.View(d), true
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
