package formats

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// template is the user's own line format, in the syntax of Apache's LogFormat (`%h %l %u %t "%r" %>s %b`) or of uWSGI's log-format
// (`%(addr) [%(ltime)] "%(method) %(uri) %(proto)" %(status)`). It is compiled to steps that a line is scanned with from its
// front: a piece goes to where the text behind it in the template begins, within quotes to the next quote that no backslash
// escapes. A list of addresses may have spaces behind its commas. Units are those of the directives: %D and %(micros) are
// microseconds, %T and %(secs) seconds, %(msecs) milliseconds; %b, %B and %(rsize) count the body, %O and %(size) headers too.
type step struct {
	to     target
	piece  bool   // a piece comes before lit
	lit    string // text behind the piece
	quoted bool   // the piece stands in quotes
	least  int    // bytes that the piece has at least: times have spaces in them
	column int
}

// compileTemplate checks a template; its errors name the column, counted from 1.
func compileTemplate(s string) ([]step, error) {
	c := templateCompiler{s: s}
	for c.i < len(s) {
		if err := c.next(); err != nil {
			return nil, err
		}
	}
	return c.finish()
}

// templateCompiler goes over a template.
type templateCompiler struct {
	s       string
	i       int
	steps   []step
	lead    string // literal text before the first piece
	request bool
	status  bool
	timeFmt string // of a time that is spread over several directives, so far
	basis   string
}

// fault is an error at a place.
func fault(at int, format string, args ...any) error {
	return fmt.Errorf("column %d: %s", at+1, fmt.Sprintf(format, args...))
}

// next reads a directive or a byte of literal text.
func (c *templateCompiler) next() error {
	switch b := c.s[c.i]; {
	case b == '\\' && c.i+1 < len(c.s) && strings.IndexByte(`"\t`, c.s[c.i+1]) >= 0:
		lit := c.s[c.i+1 : c.i+2]
		if lit == "t" {
			lit = "\t"
		}
		c.literal(lit)
		c.i += 2
	case b != '%':
		c.literal(c.s[c.i : c.i+1])
		c.i++
	case strings.HasPrefix(c.s[c.i:], "%%"):
		c.literal("%")
		c.i += 2
	case strings.HasPrefix(c.s[c.i:], "%("):
		return c.uwsgi()
	default:
		return c.apache()
	}
	return nil
}

func (c *templateCompiler) literal(s string) {
	if n := len(c.steps); n > 0 {
		c.steps[n-1].lit += s
	} else {
		c.lead += s
	}
}

// apache reads `%[CONDITION][<|>][{NAME}]LETTER`.
func (c *templateCompiler) apache() error {
	from := c.i
	i := c.i + 1
	for i < len(c.s) && (c.s[i]-'0' <= 9 || strings.IndexByte("!,<>", c.s[i]) >= 0) {
		i++
	}
	name := ""
	if i < len(c.s) && c.s[i] == '{' {
		end := strings.IndexByte(c.s[i:], '}')
		if end < 0 {
			return fault(i, "the brace is not closed")
		}
		name = c.s[i+1 : i+end]
		i += end + 1
	}
	if i >= len(c.s) {
		return fault(from, "the directive has no letter; for a percent sign write %%%%")
	}
	letter := c.s[i]
	c.i = i + 1
	if letter == 't' {
		return c.time(from, name)
	}
	t, ok := apacheDirective(letter, name)
	if !ok {
		return fault(from, "unknown directive %s%s", c.s[from:c.i], apacheSuggestion(letter, name))
	}
	return c.piece(from, t)
}

// apacheDirective is what a directive of mod_log_config holds.
func apacheDirective(letter byte, name string) (target, bool) {
	switch letter {
	case 'h':
		return target{role: toClient}, true
	case 'a':
		if name == "c" {
			return attributeTarget("peer_address"), true
		}
		return target{role: toClient}, name == ""
	case 'A':
		return attributeTarget("local_address"), true
	case 'l':
		return target{role: toNothing}, true
	case 'u':
		return target{role: toUser, escape: true}, true
	case 'r':
		return target{role: toRequest, escape: true}, true
	case 'm':
		return textTarget("method"), true
	case 'U':
		return target{role: toTarget, escape: true}, true
	case 'q':
		return target{role: toQuery, escape: true}, true
	case 'H':
		return textTarget("http_version"), true
	case 's':
		return target{role: toStatus}, true
	case 'b', 'B':
		return target{role: toSize}, true
	case 'O':
		return target{role: toSize, sized: true}, true
	case 'D':
		return target{role: toMicros}, true
	case 'T':
		switch name {
		case "", "s":
			return target{role: toSeconds}, true
		case "ms":
			return target{role: toMillis}, true
		case "us":
			return target{role: toMicros}, true
		}
		return target{}, false
	case 'v', 'V':
		return textTarget("host"), true
	case 'P':
		if name == "" || name == "pid" {
			return textTarget("process_id_int"), true
		}
		return attributeTarget("thread"), true
	case 'i':
		return headerTarget(name), name != ""
	case 'o':
		switch strings.ToLower(name) {
		case "x-openstack-request-id", "x-compute-request-id":
			return textTarget("request_id"), true
		}
		return attributeTarget("response_" + name), name != ""
	case 'e', 'n', 'C', '^':
		return attributeTarget(name), name != ""
	case 'f', 'I', 'k', 'L', 'R', 'S', 'X', 'p':
		return attributeTarget(map[byte]string{
			'f': "file", 'I': "bytes_received", 'k': "keepalive_requests", 'L': "error_log_id", 'R': "handler", 'S': "bytes_transferred",
			'X': "connection_status", 'p': "port",
		}[letter]), true
	}
	return target{}, false
}

// apacheSuggestion names the directive that was meant.
func apacheSuggestion(letter byte, name string) string {
	switch letter {
	case 'T':
		return "; %T takes {s}, {ms} or {us}"
	case 'i', 'o', 'e', 'n', 'C':
		return fmt.Sprintf("; write the name in braces, as in %%{User-Agent}%c", letter)
	}
	other := letter ^ 0x20
	if _, ok := apacheDirective(other, name); ok && (other|0x20 >= 'a' && other|0x20 <= 'z') {
		return fmt.Sprintf("; did you mean %%%c?", other)
	}
	return "; known are %h %a %l %u %t %r %m %U %q %H %s %b %B %O %D %T %v %V %P %{NAME}i %{NAME}o %{NAME}e and uWSGI's %(name)"
}

// headerTarget is what a header of the request holds.
func headerTarget(name string) target {
	switch strings.ToLower(name) {
	case "user-agent":
		return target{role: toField, field: schema.Lookup("user_agent"), escape: true}
	case "referer":
		return target{role: toField, field: schema.Lookup("referer"), escape: true}
	case "host":
		return textTarget("host")
	case "x-forwarded-for":
		return target{role: toForwarded, escape: true}
	case "x-openstack-request-id":
		return textTarget("global_request_id")
	}
	t := attributeTarget("request_" + name)
	t.escape = true
	return t
}

func textTarget(field string) target { return target{role: toField, field: schema.Lookup(field)} }

// attributeTarget is an attribute, with a name of small letters.
func attributeTarget(name string) target {
	key := []byte(`,"template_`)
	for _, b := range []byte(strings.ToLower(name)) {
		if b >= 'a' && b <= 'z' || b >= '0' && b <= '9' {
			key = append(key, b)
		} else {
			key = append(key, '_')
		}
	}
	return target{role: toAttribute, key: string(key) + `":`}
}

// uwsgi reads `%(NAME)`.
func (c *templateCompiler) uwsgi() error {
	from := c.i
	end := strings.IndexByte(c.s[c.i:], ')')
	if end < 0 {
		return fault(from, "the parenthesis is not closed")
	}
	name := c.s[c.i+2 : c.i+end]
	c.i += end + 1
	if v, ok := strings.CutPrefix(name, "var."); ok && v != "" {
		switch v {
		case "HTTP_X_FORWARDED_FOR":
			return c.piece(from, target{role: toForwarded})
		case "HTTP_USER_AGENT":
			return c.piece(from, textTarget("user_agent"))
		case "HTTP_REFERER":
			return c.piece(from, textTarget("referer"))
		}
		return c.piece(from, attributeTarget(v))
	}
	if strings.HasPrefix(name, "metric.") {
		return c.piece(from, attributeTarget(name))
	}
	t, ok := uwsgiVariables()[name]
	if !ok {
		var known []string
		for n := range uwsgiVariables() {
			known = append(known, n)
		}
		return fault(from, "unknown variable %s%s", c.s[from:c.i], suggest(name, known))
	}
	err := c.piece(from, t)
	if err == nil && name == "ctime" {
		c.steps[len(c.steps)-1].least = 24
	}
	if err == nil && name == "ltime" {
		c.steps[len(c.steps)-1].least = 26
	}
	return err
}

// uwsgiVariables are those of uWSGI's log-format. Source: unbit/uwsgi core/logging.c, uwsgi_register_logchunk.
func uwsgiVariables() map[string]target {
	m := map[string]target{
		"addr": {role: toClient}, "user": {role: toUser}, "method": textTarget("method"), "uri": {role: toTarget}, "proto": textTarget("http_version"),
		"status": {role: toStatus}, "size": {role: toSize, sized: true}, "rsize": {role: toSize}, "cl": textTarget("request_body_size_int"),
		"time": {role: toEpoch}, "epoch": {role: toEpoch}, "ctime": {role: toTime}, "ltime": {role: toTime}, "tmsecs": {role: toEpochMs},
		"tmicros": {role: toEpochUs}, "msecs": {role: toMillis}, "micros": {role: toMicros}, "secs": {role: toSeconds},
		"pid": textTarget("process_id_int"), "host": textTarget("host"), "uagent": textTarget("user_agent"), "referer": textTarget("referer"),
	}
	for _, n := range []string{"hsize", "wid", "rid", "vars", "switches", "headers", "core", "ftime", "pktsize", "modifier1", "modifier2", "vszM", "rssM", "werr", "rerr", "ioerr", "ptime"} {
		m[n] = attributeTarget(n)
	}
	return m
}

// time reads the directive %t in its forms. Several of them in a row, with what stands between, are one time.
func (c *templateCompiler) time(from int, name string) error {
	name, end := strings.CutPrefix(name, "end:")
	name = strings.TrimPrefix(name, "begin:")
	if end {
		c.basis = basisEnd
	}
	switch name {
	case "":
		c.literal("[")
		if err := c.piece(from, target{role: toTime}); err != nil {
			return err
		}
		c.literal("]")
		return nil
	case "sec":
		return c.piece(from, target{role: toEpoch})
	case "msec":
		return c.piece(from, target{role: toEpochMs})
	case "usec":
		return c.piece(from, target{role: toEpochUs})
	}
	if n := len(c.steps); n > 0 && c.timeFmt != "" {
		if last := &c.steps[n-1]; last.to.role == toTime && (last.lit == "" || strings.Contains(".,T ", last.lit)) {
			c.timeFmt += last.lit + name
			last.lit = ""
			if strings.Contains(c.timeFmt, "%T") || strings.Contains(c.timeFmt, "%S") {
				last.least = 19
			}
			return c.timeShape(from)
		}
	}
	c.timeFmt = name
	if name == "msec_frac" || name == "usec_frac" {
		return c.piece(from, target{role: toFraction})
	}
	if err := c.piece(from, target{role: toTime}); err != nil {
		return err
	}
	if strings.Contains(name, "%T") || strings.Contains(name, "%S") {
		c.steps[len(c.steps)-1].least = 19
	}
	return nil
}

// timeShape checks the form of a time that is written with strftime's letters.
func (c *templateCompiler) timeShape(from int) error {
	f := strings.NewReplacer("%T", "%H:%M:%S", "%F", "%Y-%m-%d", "msec_frac", "%f", "usec_frac", "%f", ",%f", ".%f").Replace(c.timeFmt)
	f = strings.TrimSuffix(strings.TrimSuffix(f, "%z"), " ")
	f = strings.TrimSuffix(f, ".%f")
	switch f {
	case "%Y-%m-%d", "%Y-%m-%d ", "%Y-%m-%dT", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S":
		return nil
	}
	return fault(from, "no time in the form %q is read; use %%t, %%{sec}t, %%{usec}t, or %%{%%Y-%%m-%%dT%%H:%%M:%%S}t with .%%{usec_frac}t and %%{%%z}t", c.timeFmt)
}

// piece adds a directive.
func (c *templateCompiler) piece(from int, t target) error {
	if n := len(c.steps); n > 0 && c.steps[n-1].lit == "" {
		return fault(from, "nothing stands between this directive and the one before it, so a line cannot be split there")
	}
	switch t.role {
	case toRequest, toTarget:
		c.request = true
	case toStatus:
		c.status = true
	}
	c.steps = append(c.steps, step{to: t, piece: true, column: from + 1})
	return nil
}

// finish checks the whole.
func (c *templateCompiler) finish() ([]step, error) {
	if len(c.steps) == 0 {
		return nil, errors.New("it has no directive; write it as in Apache's LogFormat, such as %h %l %u %t \"%r\" %>s %b")
	}
	if !c.request {
		return nil, errors.New("no directive holds the request; write %r, or %m and %U, or %(uri)")
	}
	if c.timeFmt != "" {
		for i := range c.steps {
			if s := &c.steps[i]; s.to.role == toTime && c.s[s.column-1:min(len(c.s), s.column+1)] == "%{" {
				if err := c.timeShape(s.column - 1); err != nil {
					return nil, err
				}
			}
		}
	}
	before := c.lead
	for i := range c.steps {
		s := &c.steps[i]
		s.quoted = strings.HasSuffix(before, `"`) && strings.HasPrefix(s.lit, `"`)
		before = s.lit
	}
	lead := step{lit: c.lead}
	lead.column = 1
	if c.basis == basisEnd {
		lead.to.sized = true
	}
	return append([]step{lead}, c.steps...), nil
}

// scanTemplate reads a line with the user's template.
func (p *Parser) scanTemplate(s string, e *event.Event) Verdict {
	p.noEscape = strings.IndexByte(s, '\\') < 0
	v := p.templateLine(s, e)
	p.noEscape = false
	return v
}

// templateLine is scanTemplate for a line of which it is known whether there are escapes.
func (p *Parser) templateLine(s string, e *event.Event) Verdict {
	steps := p.own.template
	if !strings.HasPrefix(s, steps[0].lit) {
		return p.begins(ownTemplate, atPrefix, s)
	}
	rest := s[len(steps[0].lit):]
	r := ownRecord{attrs: p.attr()}
	plain, sure := true, false // sure: what was read is no chance
	for i := 1; i < len(steps); i++ {
		t := &steps[i]
		end := t.end(rest)
		if end < 0 || t.quoted && !strings.HasPrefix(rest[end:], t.lit) {
			return p.notTemplate(e, &r, sure, t.place(), rest)
		}
		piece := rest[:end]
		// Figures have no quotes, and a quoted text without escapes has none.
		if text := t.to.role < toStatus || t.to.role == toAttribute; plain && text && (!t.quoted || !p.noEscape) {
			plain = byteNear(piece, '"') < 0
		}
		p.put(e, &r, &t.to, piece)
		if r.bad {
			return p.notTemplate(e, &r, sure, t.place(), rest)
		}
		sure = sure || r.timed || e.Method != "" || e.Has&event.HasStatus != 0
		rest = rest[end+len(t.lit):]
	}
	if rest != "" {
		return p.notTemplate(e, &r, sure, atEnd, rest)
	}
	basis := basisStart
	if steps[0].to.sized {
		basis = basisEnd
	}
	v := p.finishOwn(e, &r, ownTemplate, basis)
	e.Plain = v == Access && plain
	return v
}

// notTemplate gives up on a line.
func (p *Parser) notTemplate(e *event.Event, r *ownRecord, sure bool, at place, rest string) Verdict {
	p.buf = r.attrs
	wipe(e)
	p.suspect = 0
	if sure {
		return p.parts(ownTemplate, at, rest)
	}
	return p.begins(ownTemplate, at, rest)
}

// end is where a piece ends; -1 if what must follow it is not there.
func (t *step) end(s string) int {
	if t.quoted {
		if s == "" {
			return -1
		}
		if len(s) >= 8 { // many are short
			if at := bytesOf('"', le64(s, 0)); at != 0 {
				if i := bits.TrailingZeros64(at) / 8; i == 0 || s[i-1] != '\\' {
					return i
				}
			}
		}
		return unescapedQuote(s, 0)
	}
	if t.lit == "" {
		return len(s)
	}
	if len(s) < t.least {
		return -1
	}
	if n := len(apacheStamp); t.to.role == toTime && len(s) > n && s[n] == t.lit[0] && strings.IndexByte(s[t.least:n], t.lit[0]) < 0 && strings.HasPrefix(s[n:], t.lit) {
		return n
	}
	at := t.least
	for {
		i := byteNear(s[at:], t.lit[0])
		if i < 0 {
			return -1
		}
		at += i
		if len(t.lit) > 1 && !strings.HasPrefix(s[at:], t.lit) {
			at++
			continue
		}
		if at == 0 || s[at-1] != ',' || t.least > 0 || t.lit[0] != ' ' || t.to.role != toClient && t.to.role != toForwarded {
			return at
		}
		at++ // a space behind a comma is within the list
	}
}

// apacheStamp is how long the usual time is.
const apacheStamp = "02/Jan/2006:15:04:05 +0000"

// byteNear is strings.IndexByte for what is mostly found within the first bytes: a search of its own costs more than a look at eight.
func byteNear(s string, c byte) int {
	if len(s) < 8 {
		for i := 0; i < len(s); i++ {
			if s[i] == c {
				return i
			}
		}
		return -1
	}
	if at := bytesOf(c, le64(s, 0)); at != 0 {
		return bits.TrailingZeros64(at) / 8
	}
	if i := strings.IndexByte(s[8:], c); i >= 0 {
		return 8 + i
	}
	return -1
}

// place is where in a line the piece stands.
func (t *step) place() place {
	switch t.to.role {
	case toClient, toForwarded, toUser:
		return atClient
	case toTime, toEpoch, toEpochMs, toEpochUs, toFraction:
		return atTime
	case toRequest, toTarget, toQuery:
		return atRequest
	case toStatus:
		return atStatus
	case toSize:
		return atSize
	case toSeconds, toMillis, toMicros:
		return atDuration
	}
	return atTail
}
