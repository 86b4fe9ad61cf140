package formats

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// ownFormats are the user's: a template, a regular expression, and a map of JSON members. They are tried before all others.
type ownFormats struct {
	any      bool
	template []step
	regex    *regexp.Regexp
	groups   []target // by the number of the group
	paths    []jsonGroup
}

// has reports whether the user has set that one.
func (o *ownFormats) has(f format) bool {
	switch f {
	case ownTemplate:
		return o.template != nil
	case ownRegex:
		return o.regex != nil
	case ownJSON:
		return o.paths != nil
	}
	return false
}

// compile makes them ready. Errors say where the fault is.
func (o *ownFormats) compile(opt Options) error {
	var err error
	if opt.Template != "" {
		if o.template, err = compileTemplate(opt.Template); err != nil {
			return fmt.Errorf("compiling template: %w", err)
		}
	}
	if opt.Regex != "" {
		if o.regex, o.groups, err = compileRegex(opt.Regex); err != nil {
			return fmt.Errorf("compiling regex: %w", err)
		}
	}
	if len(opt.JSON) > 0 {
		if o.paths, err = compileJSON(opt.JSON); err != nil {
			return fmt.Errorf("compiling json: %w", err)
		}
	}
	o.any = o.template != nil || o.regex != nil || o.paths != nil
	return nil
}

// CheckTemplate says what is wrong with a template, by its column; nil if nothing is.
func CheckTemplate(s string) error {
	_, err := compileTemplate(s)
	return err
}

// CheckRegex says what is wrong with the user's expression; nil if nothing is.
func CheckRegex(s string) error {
	_, _, err := compileRegex(s)
	return err
}

// CheckJSON says what is wrong with the user's map; nil if nothing is.
func CheckJSON(m map[string]string) error {
	_, err := compileJSON(m)
	return err
}

// role is what a piece of a line is put into.
type role uint8

const (
	toNothing role = iota
	toField        // a field of the schema, as it is
	toRequest      // METHOD TARGET PROTOCOL
	toTarget       // path and query
	toQuery
	toClient
	toForwarded
	toUser
	toProject
	toStatus
	toSize
	toSeconds // durations, by their unit
	toMillis
	toMicros
	toTime      // in any of the usual forms
	toEpoch     // seconds since 1970
	toEpochMs   // milliseconds since 1970
	toEpochUs   // microseconds since 1970
	toFraction  // of the second of the time before it: digits
	toAttribute // a text of the source's own
)

// target is where a piece goes.
type target struct {
	role   role
	field  *schema.Field
	key    string // `,"template_name":`, of an attribute
	sized  bool   // toSize: the size counts headers
	escape bool   // Apache's escapes are undone
}

// fieldTarget is the target of a schema field's name, or of one of the names below; for error messages known lists them.
func fieldTarget(name string) (target, bool) {
	switch name {
	case "request":
		return target{role: toRequest}, true
	case "target", "uri":
		return target{role: toTarget}, true
	case "client":
		return target{role: toClient}, true
	case "forwarded_for":
		return target{role: toForwarded}, true
	case "user":
		return target{role: toUser}, true
	case "project":
		return target{role: toProject}, true
	case "timestamp":
		return target{role: toTime}, true
	case "timestamp_epoch":
		return target{role: toEpoch}, true
	case "api_response_code_int":
		return target{role: toStatus}, true
	case "api_response_size_int":
		return target{role: toSize}, true
	case "api_response_time_num":
		return target{role: toSeconds}, true
	case "api_response_time_ms":
		return target{role: toMillis}, true
	case "api_response_time_us":
		return target{role: toMicros}, true
	case "query":
		return target{role: toQuery}, true
	}
	if f := schema.Lookup(name); f != nil && f.Settable() && (f.Type == event.String || f.Type == event.Int) && !isParsers(name) {
		return target{role: toField, field: f}, true
	}
	return target{}, false
}

// isParsers reports whether the parser alone says what the field is.
func isParsers(name string) bool {
	switch name {
	case "format", "record_class", "source_system", "timestamp_basis", "log_file", "error", "original", "outcome", "suspect":
		return true
	}
	return false
}

// fieldNames lists what fieldTarget takes.
func fieldNames() []string {
	names := []string{"request", "target", "timestamp_epoch", "project", "api_response_time_ms", "api_response_time_us"}
	for _, f := range schema.Fields() {
		if _, ok := fieldTarget(f.Name); ok {
			names = append(names, f.Name)
		}
	}
	return names
}

// suggest words a suggestion of the nearest of these names, or of one that name is a part of or has as one; "" if there is none.
func suggest(name string, known []string) string {
	best := conf.Suggest(name, known)
	for _, k := range known {
		if best == "" && len(name) > 2 && (strings.Contains(k, name) || strings.Contains(name, k) && len(k) > 3) {
			best = k
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// suggestField words a suggestion of the field of that name, or of what else people call it.
func suggestField(name string) string {
	names := fieldNames()
	calls := map[string]string{
		"status": "api_response_code_int", "code": "api_response_code_int", "size": "api_response_size_int", "bytes": "api_response_size_int",
		"duration": "api_response_time_num", "latency": "api_response_time_num", "verb": "method", "url": "target", "address": "client",
		"remote_addr": "client", "time": "timestamp", "date": "timestamp", "agent": "user_agent", "protocol": "http_version",
	}
	words := slices.Sorted(maps.Keys(calls))
	best := conf.Suggest(name, append(names, words...))
	switch field, word := calls[best]; {
	case word:
		return fmt.Sprintf("; did you mean %s?", field)
	case best != "":
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return suggest(name, names)
}

// ownRecord gathers what several pieces make together.
type ownRecord struct {
	sec, nsec, frac int64
	timed           bool
	attrs           []byte
	bad             bool
}

// put stores a piece of a line. What does not fit its target sets bad.
func (p *Parser) put(e *event.Event, r *ownRecord, t *target, s string) {
	if t.escape {
		s = p.unescape(s)
	}
	if s == "" || s == "-" {
		return
	}
	switch t.role {
	case toField:
		p.putField(e, r, t, s)
	case toRequest:
		if !request(e, s) {
			r.attrs = event.AppendString(append(r.attrs, `,"request":`...), s)
		}
	case toTarget:
		path, query := splitTarget(s)
		e.Path = path
		if query != "" {
			e.Query = query
		}
	case toQuery:
		e.Query = strings.TrimPrefix(s, "?")
	case toClient:
		r.bad = r.bad || !isList(s)
		p.clients(e, s, true)
	case toForwarded:
		e.Client = ""
		p.clients(e, s, false)
	case toUser:
		setUser(e, s)
	case toProject:
		setProject(e, s)
	case toStatus:
		n, ok := status3(s)
		if r.bad = r.bad || !ok; ok {
			setStatus(e, n)
		}
	case toSize:
		n, ok := digits(s)
		if r.bad = r.bad || !ok; ok {
			e.SetSize(n)
			if t.field == nil {
				e.SetBool(event.BoolSizeIncludesHeaders, t.sized)
			}
		}
	case toSeconds, toMillis, toMicros:
		p.putDuration(e, r, t, s)
	case toTime, toEpoch, toEpochMs, toEpochUs, toFraction:
		p.putTime(r, t, s)
	case toAttribute:
		r.attrs = event.AppendString(append(r.attrs, t.key...), s)
	}
}

// isList reports whether s has spaces behind commas only.
func isList(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' && (i == 0 || s[i-1] != ',') {
			return false
		}
	}
	return true
}

// putField stores a field that has no rule of its own.
func (p *Parser) putField(e *event.Event, r *ownRecord, t *target, s string) {
	if t.field.Type == event.String {
		if _, ok := t.field.TextOffset(); ok {
			*t.field.Text(e) = s
		} else {
			e.Set(t.field.Name, event.StringValue(s))
		}
		return
	}
	n, ok := digits(s)
	if !ok || !t.field.Set(e, event.IntValue(n)) {
		r.bad = true
	}
}

// putDuration stores a duration.
func (p *Parser) putDuration(e *event.Event, r *ownRecord, t *target, s string) {
	d, ok := millis(s)
	switch {
	case !ok:
	case t.role == toSeconds:
		d, _, ok = seconds(s)
		if n, whole := digits(s); whole {
			d, ok = time.Duration(min(n, 1<<33))*time.Second, true
		}
	case t.role == toMicros:
		d /= 1000
	}
	if r.bad = r.bad || !ok; ok {
		e.SetDuration(d)
	}
}

// putTime stores a time, or a part of one.
func (p *Parser) putTime(r *ownRecord, t *target, s string) {
	ok := false
	switch t.role {
	case toTime:
		if s[0] == '[' || s[len(s)-1] == ']' {
			s = strings.Trim(s, "[]")
		}
		r.sec, r.nsec, ok = p.anyTime(s)
	case toEpoch:
		var at time.Time
		if at, ok = epoch(s); ok {
			r.sec, r.nsec = at.Unix(), int64(at.Nanosecond())
		}
	case toEpochMs:
		var n int64
		n, ok = digits(s)
		r.sec, r.nsec = n/1e3, n%1e3*1e6
	case toEpochUs:
		var n int64
		n, ok = digits(s)
		r.sec, r.nsec = n/1e6, n%1e6*1e3
	case toFraction:
		f, n := fraction(s)
		if n == 0 || n != len(s) {
			r.bad = true
		}
		r.frac = f
		return
	}
	r.timed = r.timed || ok
	r.bad = r.bad || !ok
}

// anyTime reads a time in one of the usual forms: Apache's, ISO with or without a zone, ctime, seconds since 1970.
func (p *Parser) anyTime(s string) (sec, nsec int64, ok bool) {
	switch {
	case len(s) == 26 && s[2] == '/' && s[20] == ' ':
		sec, _, _, bad := p.apacheTime(s)
		return sec, 0, !bad
	case len(s) >= 20 && s[2] == '/':
		naive, utc, ok := p.clf(&p.clfHour, s, ':')
		if !ok {
			return 0, 0, false
		}
		if s[20:] == "" {
			return utc, 0, true
		}
		ns, n := fraction(s[min(21, len(s)):])
		rest := strings.TrimPrefix(s[min(21+n, len(s)):], " ")
		if s[20] != '.' || n == 0 {
			return 0, 0, false
		}
		if off, m := offset(rest); m > 0 && m == len(rest) {
			return naive - off, ns, true
		}
		return utc, ns, rest == ""
	case len(s) >= 19 && s[4] == '-':
		return p.isoTime(s)
	case len(s) == 24 && s[3] == ' ':
		_, utc, ok := p.ctime(s)
		return utc, 0, ok
	}
	at, ok := epoch(s)
	return at.Unix(), int64(at.Nanosecond()), ok
}

// isoTime reads a time in ISO form.
func (p *Parser) isoTime(s string) (sec, nsec int64, ok bool) {
	naive, utc, ok := p.iso(&p.isoHour, s)
	if !ok {
		return 0, 0, false
	}
	i := 19
	if i < len(s) && (s[i] == '.' || s[i] == ',') {
		f, n := fraction(s[i+1:])
		nsec = f
		i += 1 + n
	}
	rest := strings.TrimPrefix(s[i:], " ")
	if off, n := offset(rest); n > 0 && n == len(rest) {
		return naive - off, nsec, true
	}
	return utc, nsec, rest == ""
}

// ownFormat tries the user's formats.
func (p *Parser) ownFormat(s string, e *event.Event) Verdict {
	o := p.own
	if o.template != nil && p.mask>>ownTemplate&1 != 0 {
		if p.scanTemplate(s, e) == Access {
			return Access
		}
	}
	if o.regex != nil && p.mask>>ownRegex&1 != 0 {
		if p.matchRegex(s, e) == Access {
			return Access
		}
	}
	if o.paths != nil && p.mask>>ownJSON&1 != 0 && s[0] == '{' {
		if p.readJSON(s, e) == Access {
			return Access
		}
	}
	return Unparsed
}

// finishOwn turns what was gathered into a record.
func (p *Parser) finishOwn(e *event.Event, r *ownRecord, f format, basis string) Verdict {
	if r.bad || e.Has&event.HasStatus == 0 && e.Method == "" && e.Path == "" {
		sure := e.Method != "" || e.Path != ""
		p.buf = r.attrs
		wipe(e)
		p.suspect = 0
		if sure {
			return p.parts(f, atTail, "")
		}
		return p.begins(f, atTail, "")
	}
	if r.timed {
		e.Time = time.Unix(r.sec, r.nsec+r.frac).UTC()
	} else if p.depth > 1 {
		e.Time = p.outerTime()
	}
	if e.User == "" {
		e.User = e.UserName
		if e.User == "" {
			e.User = e.UserID
		}
	}
	kind, service, program := e.Kind, e.Service, e.Program
	p.fillByPath(e)
	if kind != "" {
		e.Kind = kind
	}
	if service != "" {
		e.Service = service
	}
	if program != "" {
		e.Program = program
	}
	if p.depth > 1 {
		p.fillOuter(e)
	}
	p.done(r.attrs, e)
	access(e, f, basis)
	return Access
}

// compileRegex checks a regular expression: its groups are named after fields.
func compileRegex(s string) (*regexp.Regexp, []target, error) {
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, nil, err
	}
	groups := make([]target, re.NumSubexp()+1)
	seen := map[string]bool{}
	named := 0
	for i, n := range re.SubexpNames() {
		if n == "" {
			continue
		}
		t, ok := fieldTarget(n)
		if !ok {
			return nil, nil, fmt.Errorf("column %d: group %q is no field of the schema%s", columnOf(s, "(?P<"+n+">", "(?<"+n+">"), n, suggestField(n))
		}
		if seen[n] {
			return nil, nil, fmt.Errorf("group %q is there twice", n)
		}
		seen[n] = true
		named++
		groups[i] = t
	}
	if named == 0 {
		return nil, nil, errors.New("it has no named group; write (?P<api_response_code_int>[0-9]{3}) and the like, with names of fields")
	}
	if !seen["request"] && !seen["path"] && !seen["target"] && !seen["uri"] {
		return nil, nil, errors.New("no group holds the request; name one request, target or path")
	}
	return re, groups, nil
}

// columnOf is where one of the texts first stands, counted from 1.
func columnOf(s string, texts ...string) int {
	for _, t := range texts {
		if i := strings.Index(s, t); i >= 0 {
			return i + 1
		}
	}
	return 1
}

// matchRegex reads a line with the user's expression. Go's matcher allocates the list of groups for each line that matches.
func (p *Parser) matchRegex(s string, e *event.Event) Verdict {
	at := p.own.regex.FindStringSubmatchIndex(s)
	if at == nil {
		return p.begins(ownRegex, atPrefix, s)
	}
	r := ownRecord{attrs: p.attr()}
	for i := range p.own.groups {
		if t := &p.own.groups[i]; t.role != toNothing && at[2*i] >= 0 {
			p.put(e, &r, t, s[at[2*i]:at[2*i+1]])
		}
	}
	return p.finishOwn(e, &r, ownRegex, basisStart)
}

// pathsAtOnce is how many members are looked for in one walk over an object.
const pathsAtOnce = 16

// jsonPath is one entry of the user's map.
type jsonPath struct {
	to   target
	flat string // with its dots
	keys []string
}

// jsonGroup is entries that are looked for in one walk.
type jsonGroup struct {
	paths []jsonPath
	roots []jsonRoot
	deep  jsonSet // those of several names
}

// jsonRoot is a member in which entries of the user's map are, or which is one.
type jsonRoot struct {
	name  string
	below jsonSet
}

// jsonSet is a set of the paths of a group.
type jsonSet uint

// group puts paths into groups.
func group(paths []jsonPath) (groups []jsonGroup) {
	for some := range slices.Chunk(paths, pathsAtOnce) {
		g := jsonGroup{paths: some}
		for i, x := range some {
			r := slices.IndexFunc(g.roots, func(r jsonRoot) bool { return r.name == x.keys[0] })
			if r < 0 {
				r = len(g.roots)
				g.roots = append(g.roots, jsonRoot{name: x.keys[0]})
			}
			g.roots[r].below |= 1 << i
			if len(x.keys) > 1 {
				g.deep |= 1 << i
			}
		}
		groups = append(groups, g)
	}
	return groups
}

// compileJSON checks the user's map from fields to members.
func compileJSON(m map[string]string) ([]jsonGroup, error) {
	var paths []jsonPath
	request := false
	for _, name := range slices.Sorted(maps.Keys(m)) {
		t, ok := fieldTarget(name)
		if !ok {
			return nil, fmt.Errorf("%q is no field of the schema%s", name, suggestField(name))
		}
		if m[name] == "" || strings.HasPrefix(m[name], ".") || strings.HasSuffix(m[name], ".") || strings.Contains(m[name], "..") {
			return nil, fmt.Errorf("%s: %q is no path to a member; write its name, with dots between the names of nested ones", name, m[name])
		}
		request = request || name == "request" || name == "path" || name == "target" || name == "uri"
		paths = append(paths, jsonPath{t, m[name], strings.Split(m[name], ".")})
	}
	if !request {
		return nil, errors.New("no entry is the request; map request, target or path")
	}
	return group(paths), nil
}

// readJSON reads an object with the user's map. An object without any of the members of the request is none of these.
func (p *Parser) readJSON(s string, e *event.Event) Verdict {
	r := ownRecord{attrs: p.attr()}
	for i := range p.own.paths {
		g := &p.own.paths[i]
		var found [pathsAtOnce]string
		g.find(s, &found)
		for i := range g.paths {
			if v := found[i]; v != "" {
				p.put(e, &r, &g.paths[i].to, p.str(v))
			}
		}
	}
	return p.finishOwn(e, &r, ownJSON, basisStart)
}

// find looks for the members of the object that s is. Of two with one name the first counts. A path of several names is that of a
// nested member, or of one of a flat object with dots in its names.
func (g *jsonGroup) find(s string, found *[pathsAtOnce]string) {
	nested := jsonSet(0) // found as such
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		if v == "null" {
			continue
		}
		for i := range g.roots {
			if r := &g.roots[i]; k == r.name {
				g.root(v, r.below&^nested, found)
				nested |= r.below
				break
			}
		}
		for left := g.deep &^ nested; left != 0; left &= left - 1 {
			if i := bits.TrailingZeros(uint(left)); k == g.paths[i].flat && found[i] == "" {
				found[i] = v
			}
		}
	}
}

// root takes a member that paths begin with.
func (g *jsonGroup) root(v string, which jsonSet, found *[pathsAtOnce]string) {
	for left := which; left != 0; left &= left - 1 {
		i := bits.TrailingZeros(uint(left))
		if found[i] = v; g.deep>>i&1 != 0 {
			found[i] = ""
		}
	}
	if which &= g.deep; which != 0 {
		g.findBelow(v, which, found)
	}
}

// findBelow looks for the second names of those paths in one walk over the object that s is, and for further names in what it finds.
func (g *jsonGroup) findBelow(s string, which jsonSet, found *[pathsAtOnce]string) {
	m := walk(s)
	for k, v, ok := m.next(); ok; k, v, ok = m.next() {
		for left := which; left != 0; left &= left - 1 {
			i := bits.TrailingZeros(uint(left))
			if k != g.paths[i].keys[1] {
				continue
			}
			which &^= 1 << i
			if found[i] = v; v == "null" {
				found[i] = ""
			}
			for _, k := range g.paths[i].keys[2:] {
				found[i] = member(found[i], k)
			}
		}
		if which == 0 {
			return
		}
	}
}
