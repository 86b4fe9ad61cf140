// Package formats turns lines of OpenStack access logs into events of the common schema, one line at a time and without
// allocating: strings of an event are views of the line. Each format has a file of its own that gives its grammar, its source
// and its units. The input tail calls it; package schema says what the fields mean.
package formats

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Verdict is what a line turned out to be.
type Verdict uint8

// The verdicts.
const (
	// Unparsed: no format knows the line. The event says so, with the reason and the text as its message.
	Unparsed Verdict = iota
	// Access: the event is the request that the line tells of, or, where audit records are wanted, what an audit filter says
	// about a request.
	Access
	// Service: the line is recognised, and it is no access line. With Records All the event is a service_log record, else it is
	// left empty.
	Service
)

// Records says which lines become events.
type Records uint8

// The choices of Records.
const (
	AccessOnly     Records = iota // access lines only
	AccessAndAudit                // audit records too
	All                           // audit records, and other recognised lines as service_log
)

// Options configure a Parser.
type Options struct {
	// Formats are the names of the formats to look for; nil, or just "auto", looks for all of them on each line.
	Formats []string
	// Location is the zone of times without one; nil is UTC.
	Location *time.Location
	// Records says whether audit records and lines of the service's own log become events too.
	Records Records
	// Template is the user's own format in the syntax of Apache's LogFormat or of uWSGI's log-format; "" for none.
	Template string
	// Regex is the user's own format as a regular expression with named groups; "" for none.
	Regex string
	// JSON is the user's own format for lines that are JSON objects: which member of the object, named by its path with dots,
	// is which field of the schema; nil for none.
	JSON map[string]string
}

// format numbers the formats; their order is that of Names.
type format uint8

const (
	noFormat format = iota
	novaEventlet
	osloEventlet
	novaRequestlog
	placementRequestlog
	uwsgiDefault
	apacheCombined
	apacheKolla
	apacheReqID
	haproxyHTTP
	haproxyCLF
	eventletCLF
	wsgiref
	ironicRequestlog
	startDonePair
	apacheVhost
	apacheOSALog
	nginxCombined
	nginxSkylineLog
	haproxyHTTPS
	swiftProxyLog
	swiftStorageLog
	rgwBeast
	cadf
	ownTemplate
	ownRegex
	ownJSON
	formatCount
)

var formatNames = [formatCount]string{
	novaEventlet: "nova-eventlet", osloEventlet: "oslo-eventlet", novaRequestlog: "nova-requestlog",
	placementRequestlog: "placement-requestlog", uwsgiDefault: "uwsgi", apacheCombined: "apache-combined",
	apacheKolla: "apache-kolla", apacheReqID: "apache-reqid", haproxyHTTP: "haproxy-http", haproxyCLF: "haproxy-clf",
	eventletCLF: "eventlet-clf", wsgiref: "wsgiref", ironicRequestlog: "ironic-requestlog", startDonePair: "start-done",
	apacheVhost: "apache-vhost", apacheOSALog: "apache-osa", nginxCombined: "nginx-combined", nginxSkylineLog: "nginx-skyline",
	haproxyHTTPS: "haproxy-https", swiftProxyLog: "swift-proxy", swiftStorageLog: "swift-storage", rgwBeast: "rgw-beast",
	cadf: "cadf", ownTemplate: "template", ownRegex: "regex", ownJSON: "json",
}

// Names lists the formats that Options.Formats may name, besides "auto" and the user's own.
func Names() []string { return append([]string(nil), formatNames[1:ownTemplate]...) }

// Parser parses the lines of one file in their order: it remembers a little of the lines before (the hour of the last time,
// the last logger, whether a record is still open). It is not safe for concurrent use.
type Parser struct {
	mask  formatSet
	loc   *time.Location
	all   bool
	audit bool
	own   *ownFormats // shared by all that are made of one

	file origin // what the file's name tells
	// fileNginx: the file is nginx's.
	fileNginx bool
	last      origin // what the line itself told last
	mtime     time.Time
	reason    string
	arena     *event.Arena
	suspect   suspicion
	seen      witness
	env       envelope

	inner   string // what is in hand: the line without the envelopes peeled so far
	depth   int    // envelopes that were looked into
	near    nearest
	explain *Explanation // who asks for one

	isoHour, outerHour, clfHour, zonedHour, ctimeHour, spacedHour hour

	logger loggerMemory
	tags   tagMemory
	heads  headMemory
	fronts tagMemory // of HAProxy
	pairs  pairs

	memory                      // what lines before this one left open
	standing                    // of this line
	at                   int64  // where it stands
	text                 string // what it says, without its prefix
	stripped, unstripped string // without and with what stands before the text; see standing
	former               prefix // see standing

	quoted   bool // the line's context holds a quote
	undyeing bool // see plainText
	noEscape bool // Apache's line in hand has no backslash, so there is nothing to undo
	inMiddle bool // see Continues

	buf []byte

	paths        pathMemory
	yearlessHour hour
}

// formatSet is a set of formats.
type formatSet uint32

// New makes a parser. An unknown format is an error that names the nearest ones.
func New(o Options) (*Parser, error) {
	p := &Parser{loc: o.Location, all: o.Records == All, audit: o.Records != AccessOnly, own: &ownFormats{}}
	if p.loc == nil {
		p.loc = time.UTC
	}
	if err := p.own.compile(o); err != nil {
		return nil, err
	}
	for _, n := range o.Formats {
		if n == "auto" {
			if len(o.Formats) > 1 {
				return nil, errors.New("choosing formats: auto stands for all of them and stands alone")
			}
			continue
		}
		f := formatByName(n)
		if f == noFormat {
			return nil, fmt.Errorf("choosing formats: unknown format %q%s", n, nearestName(n, formatNames[1:ownTemplate]))
		}
		if f >= ownTemplate && !p.own.has(f) {
			return nil, fmt.Errorf("choosing formats: %s is the name of your own format, and the key %s is not set", n, n)
		}
		p.mask |= 1 << f
	}
	if p.mask == 0 {
		p.mask = 1<<formatCount - 1
	}
	p.File("", time.Time{})
	return p, nil
}

// Fresh makes a parser with the options of p that has seen no line. It may be used beside p.
func (p *Parser) Fresh() *Parser {
	q := &Parser{mask: p.mask, loc: p.loc, all: p.all, audit: p.audit, own: p.own}
	q.File("", time.Time{})
	return q
}

func formatByName(n string) format {
	for i := novaEventlet; i < formatCount; i++ {
		if formatNames[i] == n {
			return i
		}
	}
	return noFormat
}

// nearestName suggests the nearest name, or up to three that n is a part of, or all of them.
func nearestName(n string, known []string) string {
	near := within(n, known)
	if best := conf.Suggest(n, known); best != "" {
		near = []string{best}
	}
	if len(near) == 0 {
		return " (known are auto, " + strings.Join(known, ", ") + ")"
	}
	return " (did you mean " + strings.Join(near[:min(3, len(near))], ", ") + "?)"
}

// within returns the names that n is a part of.
func within(n string, known []string) (names []string) {
	for _, k := range known {
		if n != "" && strings.Contains(k, n) {
			names = append(names, k)
		}
	}
	return names
}

// File tells the parser which file the next lines come from: its name may name the program, mtime gives the year of times
// that have none (zero: this year is not known and such times stay absent). It forgets what earlier lines left open.
func (p *Parser) File(path string, mtime time.Time) {
	p.file = originOfFile(strings.Clone(path))
	p.fileNginx = strings.Contains(path, "nginx")
	p.mtime, p.yearlessHour = mtime, hour{}
	p.memory = memory{}
	p.seen = witness{}
	p.pairs.forget()
}

// Reason says why the last line was Unparsed, or what kind of Service line it was. It is one of the Reason constants, "" after
// an Access line.
func (p *Parser) Reason() string { return p.reason }

// Words reports whether the attributes that the last Parse set hold a text that somebody else than the server made up. Mostly they
// are figures, codes and names of the server's configuration.
func (p *Parser) Words() bool { return p.words }

// The reasons, few and fixed: they become labels of metrics.
const (
	ReasonNoFormat   = "no-format"          // unparsed: no format knows the line
	ReasonNotEnabled = "format-not-enabled" // service: an access line of a format that is not among the chosen ones
	ReasonBadTime    = "bad-time"           // unparsed: the shape fits, the time is none

	ReasonOslo         = "oslo"             // a line of a service's own log
	ReasonTraceback    = "traceback"        // a line of a Python traceback
	ReasonContinuation = "continuation"     // a further line of a record that began before
	ReasonForgedRest   = "forged-rest"      // the end of a request whose client wrote the lines before it
	ReasonWarning      = "python-warning"   // a warning of Python's own, with its source line
	ReasonStartDone    = "start-done"       // half of a pair of lines for one request (cinder, manila)
	ReasonCADF         = "cadf"             // an audit notification
	ReasonWSGIRef      = "wsgiref-other"    // a development server about a request that it refused
	ReasonJSON         = "json"             // a JSON object
	ReasonApacheError  = "apache-error-log" // a line of Apache's error log, whatever stands in it
	ReasonUWSGI        = "uwsgi-other"      // uWSGI about itself
	ReasonApacheDummy  = "apache-dummy"     // Apache waking its own processes
	ReasonHAProxy      = "haproxy-other"    // HAProxy about itself
	ReasonHAProxyTCP   = "haproxy-tcp"      // a connection without HTTP data
	ReasonPebble       = "pebble"           // a container's init
	ReasonSyslog       = "other-program"    // a line of another program in syslog, the journal or a container's log
	ReasonTail         = "tail-header"      // ==> file <==
	ReasonBlank        = "blank"            // nothing on the line
)

// maxOpen is how far a request line that contains newlines can reach: no server takes longer request lines.
const maxOpen = 64 << 10

// Parse fills e, which is empty but for what is the caller's (Raw, Offset), from a line without its newline. The strings are
// views of the line, which stands in the arena; what must be rewritten, and attributes, is put into the arena.
func (p *Parser) Parse(line []byte, e *event.Event, a *event.Arena) Verdict {
	s := event.View(line)
	p.arena, p.reason, p.suspect, p.standing = a, "", 0, standing{}
	p.pairs.begin()
	p.near.format = noFormat
	if p.depth != 0 {
		p.depth = 0
		if p.env.used {
			p.env = envelope{}
		}
	}
	if n := len(s); n > 0 && s[n-1] == 'm' {
		s = trimColour(s)
		p.faded = len(s) < n
	}
	v := p.parse(s, e)
	if v != Access {
		v = p.uncoloured(s, e, v)
	}
	if v == Access && isDummy(e) {
		at := e.Time
		wipe(e)
		v, e.Time, p.reason = Service, at, ReasonApacheDummy
	}
	p.doubt(s, e, v)
	if p.open > 0 && v != Unparsed {
		p.inside(s, v)
	}
	if p.suspect&forgedLine != 0 {
		p.pairs.undo() // a forged line is no half of a true one
	}
	if p.suspect&openHead != 0 {
		p.open = maxOpen
		p.suspect &^= openHead
	}
	if v == Access {
		e.SourceSystem = sourceSystem
		if e.RecordClass == "" {
			e.RecordClass = event.ClassAccess
			unproved(e)
		}
		if p.env.cut {
			p.setCut(e)
		}
		p.trace = false
		if p.suspect != 0 {
			if p.suspect&forgedLine != 0 {
				e.SetBool(event.BoolIdentityUnverified, true)
			}
			e.Set("suspect", event.ListValue(suspicions[p.suspect]))
		}
		return v
	}
	return p.other(s, e, v)
}

const sourceSystem = "openstack"

// inside marks a recognised line after a request line that is still open: who asks for a path with newlines in it can write whole
// lines into the log. What is complete by itself may end the request, or its client wrote the end as well: from
// then on a process that is known is believed. So, when a head was cut by a crash, true lines are marked as well, until one ends as a
// request does, or the room is used up.
func (p *Parser) inside(s string, v Verdict) {
	p.open -= len(s) + 1
	p.suspect |= forgedLine
	if endsRequest(s) {
		p.open = 0
		if v == Access {
			p.seen.ending = endsChosen
		}
	}
}

// other finishes a line that is no access line.
func (p *Parser) other(s string, e *event.Event, v Verdict) Verdict {
	if v == Unparsed {
		v = p.leftover(s)
	}
	switch {
	case p.repeats:
		p.text = p.stripped
	case p.env.message != "":
		p.text = p.env.message
	default:
		p.text = s
	}
	if p.reason != ReasonTraceback && p.reason != ReasonBlank && !p.repeats {
		p.trace = false
	}
	if v == Service && !p.all {
		wipe(e)
		return v
	}
	if v == Unparsed {
		anonymous(e) // whom a line names that is no record is nobody's word
	}
	e.SourceSystem = sourceSystem
	if p.env.cut {
		e.SetBool(event.BoolTruncated, true)
	}
	if e.Kind == "" {
		p.fillOrigin(e, &p.file, &nobody)
	}
	if p.depth > 0 {
		p.fillLevel(e)
		if e.Time.IsZero() {
			e.Time = p.outerTime()
		}
	}
	if v == Service {
		e.RecordClass = event.ClassServiceLog
	} else {
		e.RecordClass, e.Error = event.ClassUnparsed, p.reason
	}
	if p.env.message != "" {
		e.Set("message", event.StringValue(p.env.message))
	} else {
		e.Set("message", event.StringValue(s))
	}
	if p.suspect != 0 {
		if p.suspect&forgedLine != 0 {
			e.SetBool(event.BoolIdentityUnverified, true)
		}
		e.Set("suspect", event.ListValue(suspicions[p.suspect]))
	}
	return v
}

// anonymous takes away who asked and for which request.
func anonymous(e *event.Event) {
	e.RequestID, e.GlobalRequestID = "", ""
	e.User, e.UserID, e.UserName, e.UserDomainID = "", "", "", ""
	e.ProjectID, e.ProjectDomainID = "", ""
	for _, f := range [...]string{"domain_id", "project_name", "system_scope"} {
		e.Set(f, event.Value{})
	}
}

// wipe empties e but for what is the caller's.
func wipe(e *event.Event) {
	raw, off, n, file, shown := e.Raw, e.Offset, e.Length, e.LogFile, e.Has&event.HasLogOffset
	e.Reset()
	e.Raw, e.Offset, e.Length, e.LogFile, e.Has = raw, off, n, file, shown
}

// parse takes the everyday line straight to its format; all others are looked into.
func (p *Parser) parse(s string, e *event.Event) Verdict {
	if len(s) > 19 && s[4] == '-' && s[7] == '-' && s[10] == ' ' && s[13] == ':' && !p.own.any {
		p.inner, p.env.message = s, ""
		return p.oslo(s, e)
	}
	if s == "" {
		p.reason, p.env.message = ReasonBlank, ""
		return Service
	}
	return p.peel(s, e)
}

// maxDepth is how many envelopes are peeled: a container's runtime, its init, syslog, Apache's error log and a file's name
// stand around a record at worst.
const maxDepth = 8

// peel finds out by the first bytes what s is: a record of some format, or an envelope, whose content is peeled in turn.
func (p *Parser) peel(s string, e *event.Event) Verdict {
	if s == "" || p.depth == maxDepth {
		return Unparsed
	}
	p.depth++
	p.inner, p.env.message, p.near.format = s, s, noFormat
	if p.own.any {
		if v := p.ownFormat(s, e); v != Unparsed || p.reason != "" {
			return v
		}
	}
	if len(s) > 19 && s[4] == '-' && s[7] == '-' && s[13] == ':' {
		switch s[10] {
		case ' ':
			return p.oslo(s, e)
		case 'T':
			return p.zonedLine(s, e)
		}
	}
	if s[0] == 0x1b {
		p.coloured = colour(s) > 0
		return Unparsed // a colour, with which nothing begins: see uncoloured
	}
	if c := s[0]; c < '0' || c > '9' {
		if strings.HasPrefix(s, "beast: 0x") {
			return p.beast(s, e)
		}
		if v := p.byFirstByte(s, e); v != Unparsed || p.reason != "" {
			return v
		}
	}
	if p.coloured {
		return Unparsed
	}
	if v := p.haproxy(s, e); v != Unparsed || p.reason != "" {
		return v
	}
	if v := p.apache(s, e); v != Unparsed || p.reason != "" {
		return v
	}
	return p.swiftProxy(s, e)
}

// byFirstByte tries what begins in a way of its own.
func (p *Parser) byFirstByte(s string, e *event.Event) Verdict {
	switch c := s[0]; {
	case c == '[':
		return p.bracket(s, e)
	case c == '{':
		if strings.HasPrefix(s, "{address space usage: ") {
			return p.uwsgi(s, e)
		}
		return p.object(s, e)
	case c == 0:
		// A crash can leave a run of NULs where a file was extended and never written.
		if t := strings.TrimLeft(s, "\x00"); t != "" {
			return p.peel(t, e)
		}
	case c == '=' && strings.HasPrefix(s, "==> "):
		if strings.HasSuffix(s, " <==") {
			p.reason = ReasonTail
			return Service
		}
	case c == '<' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '/' || c == '.' || c >= 0x80:
		return p.byWord(s, e)
	}
	return Unparsed
}

// byWord tries what begins with a word.
func (p *Parser) byWord(s string, e *event.Event) Verdict {
	if s[0] == '<' {
		if v := p.syslog5424(s, e); v != Unparsed || p.reason != "" {
			return v
		}
	}
	if v := p.syslogBSD(s, e); v != Unparsed || p.reason != "" || p.coloured {
		return v
	}
	if v := p.devstack(s, e); v != Unparsed || p.reason != "" {
		return v
	}
	if rest, ok := strings.CutPrefix(s, "STDERR: "); ok {
		p.env.used, p.env.stderr = true, true
		return p.peel(rest, e)
	}
	return p.fileToken(s, e)
}

// bracket takes lines that begin with a bracket: uWSGI's, and Apache's default error log.
func (p *Parser) bracket(s string, e *event.Event) Verdict {
	if strings.HasPrefix(s, "[pid: ") {
		return p.uwsgi(s, e)
	}
	return p.apacheError(s, e)
}

// enabled reports whether the format is among the chosen ones, and keeps the reason if not.
func (p *Parser) enabled(f format) bool {
	if p.mask>>f&1 != 0 {
		return true
	}
	p.reason, p.unwanted = ReasonNotEnabled, f
	return false
}

// leftover decides about a line that no format knows. Services that write records of several lines begin each record with its
// time; what has no beginning of a record, in a file where such a record came before, continues it.
func (p *Parser) leftover(s string) Verdict {
	if p.open > 0 {
		p.open -= len(s) + 1
		if endsRequest(s) {
			p.open = 0
		}
		p.reason, p.part = ReasonContinuation, p.rest()
		return Service
	}
	switch p.reason {
	case "":
	case ReasonNotEnabled:
		return Service
	default:
		p.part = p.unparsedPart()
		return Unparsed
	}
	if p.depth > 0 && p.inner != "" {
		s = p.inner
	}
	if p.warning(s) || p.rawTrace(s) {
		return Service
	}
	if isUWSGIOther(s) {
		p.writesMulti()
		p.reason, p.part = ReasonUWSGI, Head
		return Service
	}
	if p.isRest(s) {
		p.suspect |= forgedLine
		p.reason, p.part = ReasonForgedRest, p.rest()
		return Service
	}
	if p.near.format == noFormat && p.env.from.program != "" && !p.env.container {
		p.reason = ReasonSyslog
		return Service
	}
	if p.inMulti() && !beginsRecord(s) {
		p.reason, p.part = ReasonContinuation, p.rest()
		return Service
	}
	if p.near.format != noFormat {
		p.reason, p.part = nearReasons[p.near.format][p.near.place], p.unparsedPart()
		return Unparsed
	}
	if p.env.container {
		p.reason = ReasonSyslog
		return Service
	}
	p.reason, p.part = ReasonNoFormat, p.unparsedPart()
	return Unparsed
}

// beginsRecord reports whether the line could be the beginning of a record of some writer, read or not.
func beginsRecord(s string) bool {
	if s[0] == 0 || strings.HasPrefix(s, "[pid: ") {
		return true
	}
	if len(s) >= 19 && s[0] >= '0' && s[0] <= '9' && s[4] == '-' && s[7] == '-' {
		return true
	}
	return s[0] == '{' && isAt(s, blanks(s, 1), '"')
}
