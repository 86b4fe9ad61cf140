package formats

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// uncoloured reads a line that is no access line again without the terminal's colours, if it has some: devstack's have them around
// the level, the request id and the message, and Apache's error log spells the escape byte `\x1b`. In a JSON object they are seen
// once its strings are decoded: see plainText.
func (p *Parser) uncoloured(s string, e *event.Event, v Verdict) Verdict {
	if p.bleached {
		return v
	}
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
	p.standing = standing{faded: p.faded, bleached: true}
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

// undyed goes on with a message behind syslog's head that begins with a colour, as devstack's do. It gives what uncoloured would by
// reading the line from its begin again, for there are no colours in what was read so far. Where the message turns out to be no record
// that is left to uncoloured, and what was learned of the message is forgotten.
func (p *Parser) undyed(s string, e *event.Event) Verdict {
	was := p.memory
	p.bleached = true
	v, usual := p.dyedDevstack(s, e)
	if !usual {
		t, _ := p.withoutColours(s)
		v = p.tagged(t, e)
	}
	if v != Unparsed || p.reason != "" {
		return v
	}
	p.memory, p.standing = was, standing{faded: p.faded, coloured: true}
	return Unparsed
}

// dyedDevstack is devstack for the shape that its lines have in colour, which is read where it stands:
// `cLEVEL LOGGER [cNone req-UUID cNAME NAMEc] ccMESSAGE`, where c is a colour and MESSAGE has none. usual is false if s is not so.
func (p *Parser) dyedDevstack(s string, e *event.Event) (v Verdict, usual bool) {
	const c, uuid = 8, 36
	level, n := int32(0), 0
	if beginsColoured(s) {
		level, n = osloLevel(s[c:])
	}
	if n == 0 {
		return Unparsed, false
	}
	i := c + n
	for i < len(s) && isLoggerByte(s[i]) {
		i++
	}
	logger, rest := s[c+n:i], s[i:]
	const id = len(" [") + c + len("None ")
	if len(rest) < id+len("req-")+uuid+1+c || rest[:2] != " [" || !beginsColoured(rest[2:]) || rest[2+c:id+4] != "None req-" || strings.IndexByte(logger, '.') < 0 {
		return Unparsed, false
	}
	request, rest := rest[id:id+4+uuid], rest[id+4+uuid:]
	if rest[0] != ' ' || !beginsColoured(rest[1:]) || !isUUID(request[4:]) {
		return Unparsed, false
	}
	one, two, rest := dyedNames(rest[1+c:])
	if one == "" || len(rest) < c+2 || !beginsColoured(rest) || rest[c:c+2] != "] " {
		return Unparsed, false
	}
	for rest = rest[c+2:]; beginsColoured(rest); rest = rest[c:] {
	}
	if escape(rest) >= 0 {
		return Unparsed, false
	}
	p.depth++
	p.inner, p.env.message, p.near.format, p.quoted = rest, rest, noFormat, false
	e.RequestID = request
	user, project := present(one), present(two)
	if !isID(user) && !isID(project) {
		user, project = project, user // see context
	}
	setUser(e, user)
	setProject(e, project)
	return p.journalled(level, logger, rest, e), true
}

// dyedNames takes two words to the next colour; "" if there is something else.
func dyedNames(s string) (one, two, rest string) {
	between := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ' && between == 0 && i > 0:
			between = i
		case c == 0x1b && between > 0 && between+1 < i:
			return s[:between], s[between+1 : i], s[i:]
		case c <= ' ' || c == '"' || c == ']' || c == '\\':
			return "", "", s
		}
	}
	return "", "", s
}

// canUndye reports whether undyed can go on with s, behind a head in which there are no colours. A user's own format, and HAProxy's,
// are tried with colours first.
func (p *Parser) canUndye(s string) bool {
	return colour(s) > 0 && !p.bleached && p.depth == 1 && !p.own.any && p.explain == nil && p.env.from.program != "haproxy"
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

// beginsColoured reports whether s begins with a colour of the usual form: `ESC[00;36m`.
func beginsColoured(s string) bool {
	const (
		h     = 0x8080808080808080
		black = 0x6d30303b30305b1b // ESC[00;00m
		room  = 0x7f76767f76767f7f // where digits are up to 9 more do not reach the high bit, elsewhere nothing more
	)
	if len(s) < 8 {
		return false
	}
	x := le64(s, 0) ^ black
	return (x|(x+room))&h == 0
}
