package formats

import (
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// suspicion is a set of reasons to doubt a record.
type suspicion uint8

const (
	forgedLine suspicion = 1 << iota
	clientNotAnAddress
	truncated
	decodedPath

	// openHead is a note among the parsers, never shown: the line's request goes on in the next line.
	openHead
)

// suspicions holds the list for each set, so that no line allocates one.
var suspicions = [1 << 4][]string{
	1:  {"forged-line"},
	2:  {"client-not-an-address"},
	3:  {"forged-line", "client-not-an-address"},
	4:  {"truncated"},
	5:  {"forged-line", "truncated"},
	6:  {"client-not-an-address", "truncated"},
	7:  {"forged-line", "client-not-an-address", "truncated"},
	8:  {"decoded-path"},
	9:  {"forged-line", "decoded-path"},
	10: {"client-not-an-address", "decoded-path"},
	11: {"forged-line", "client-not-an-address", "decoded-path"},
	12: {"truncated", "decoded-path"},
	13: {"forged-line", "truncated", "decoded-path"},
	14: {"client-not-an-address", "truncated", "decoded-path"},
	15: {"forged-line", "client-not-an-address", "truncated", "decoded-path"},
}

// maxPIDs is how many processes of a file are remembered: APIs have up to a worker for each core, and some are replaced.
const maxPIDs = 128

// ending is what the text of a line may owe to its client: with it, whether lines behind that one may be its client's work.
type ending uint8

const (
	endsPlain   ending = iota // nothing: its server writes what it got as it got it, or escaped
	endsMessage               // maybe a little: a service's message can quote a client
	endsPath                  // a path that is written decoded: what looks whole may have been completed by its client
	endsChosen                // it certainly ends, or breaks off, in what its client chose
)

// shape is what stands around lines.
type shape uint8

const (
	bareShape shape = iota
	jsonShape
	containerShape
	collectedShape
)

// witness remembers of a file's lines what tells a forged line from a true one. Who can have a text with newlines logged (in a path
// that is written decoded, in the name of a user) writes whole lines, but does not know which processes write the file.
type witness struct {
	pids   []process // the newest, in a ring that grows to maxPIDs
	issued []issue   // by hash of the request id; nil until a path is written decoded
	// exposed are processes that forged lines named, in a ring.
	exposed [8]int64
	exposes int
	witnessed
}

// witnessed is the part of it that is restored when lines are read again: a line must not vouch for itself.
type witnessed struct {
	n       int
	last    int   // place in pids of the process of the line before
	read    int64 // bytes of lines so far
	lastSec int64 // time of the newest line of a known process
	gap     int64 // the longest time between two lines, in seconds
	ending  ending
	head    int64 // where the last request stands whose path is written decoded, in bytes of lines
	doubted int64 // bytes of lines that were doubted since a known process wrote
	// contested is how many bytes of lines were doubted that named a known process.
	contested int64

	// What the file's lines are like.
	records  int       // access lines of known processes
	logger   uint64    // of the last record
	talker   uint64    // of the last message
	recently [2]string // formats
	formats  formatSet
	shapes   uint8
	projects [6]string
	served   int64 // requests that uWSGI counted
	coloured int   // request log's lines that end in a colour, less those that do not, to a bound
}

// process is one that writes the file, and where it did first and last, in bytes of lines.
type process struct {
	pid, at, born int64
	guessed       bool // it came behind a decoded path, so it may be one that the path's client made up
}

// issue is a request id and whose it is, as hashes.
type issue struct{ id, user uint64 }

// Bounds of what lines tell.
const (
	// rememberPID is how long a process is remembered, in bytes of lines: what is known of a line follows from what stands near it.
	rememberPID = 4 << 20
	// established is how many records tell what a file's lines are like. For a process that is not known fewer do.
	established, begun = 16, 3
	// A clock may be a little off, and lines of a minute are out of order at times.
	slackSec, minute, day = 2, 60, 24 * 60 * 60
	// idleTimes is how many times as long as ever before a file rests before a new process's line in the future is odd.
	idleTimes = 10
	// issuedIDs is how many request ids are remembered, of the newest.
	issuedIDs = 64
	// usualRequest is how long request lines are mostly allowed to be, maxOpen how long at most, and usualQuote how much of one a
	// message quotes.
	usualRequest, usualQuote = 8 << 10, 2 << 10
)

// knows reports whether the process wrote a line not long before, and notes that it did again.
func (w *witness) knows(pid int64) bool {
	if w.n == 0 {
		return false
	}
	if w.pids[w.last].pid != pid {
		i := slices.IndexFunc(w.pids[:min(w.n, len(w.pids))], func(x process) bool { return x.pid == pid })
		if i < 0 {
			return false
		}
		w.last = i
	}
	x := &w.pids[w.last]
	fresh := w.read-x.at <= rememberPID
	if fresh {
		x.at = w.read
	}
	return fresh
}

func (w *witness) learn(pid int64) {
	w.last = w.n % maxPIDs
	if w.last == len(w.pids) {
		w.pids = append(w.pids, process{})
	}
	w.pids[w.last] = process{pid, w.read, w.read, w.ending >= endsPath && w.n > 0}
	w.n++
}

// doubt looks for what speaks against a line that was recognised, and learns from it.
//
// A line by a process that is not known is no crime: it may be new, and in a new file all are. It is one if its logger is another
// project's than the file's, if its time runs back by less than where a clock is set or an older file begins, or if a client may have
// written what stands before it and more speaks against it: the time, or that the file has no other such lines. So it is with lines that name no process. A known process is doubted where a client may have
// written the line and the file has no other such lines.
func (p *Parser) doubt(s string, e *event.Event, v Verdict) {
	w := &p.seen
	w.read += int64(len(s)) + 1
	if w.n == 0 && e.Has&event.HasProcessID == 0 {
		return
	}
	around := bareShape
	if p.depth > 0 {
		around = p.shape(s)
	}
	if p.reason == ReasonNotEnabled {
		v = Access // so that what is flagged does not depend on which formats are wanted
	}
	behind := w.ending
	if p.open > 0 {
		behind = endsChosen
	}
	if e.Has&event.HasProcessID == 0 || around == collectedShape {
		if w.n > 0 {
			p.doubtNameless(s, e, v, behind, around)
		}
		return // what is collected comes from many processes, and its prefix is not the client's to write
	}
	known := w.knows(e.ProcessID)
	if !known && w.n > 0 && !p.newcomer(e, v, behind, around, int64(len(s))) {
		return
	}
	if known && behind >= endsPath && (v == Access || e.User != "") && p.impostor(e, v, behind, around, int64(len(s))) {
		p.suspect |= forgedLine
		return
	}
	if !known {
		w.learn(e.ProcessID)
	}
	p.trust(s, e, v, around)
}

// shape tells what stands around the line.
func (p *Parser) shape(s string) shape {
	env := &p.env
	switch {
	case env.container && env.from.program == "" && env.host == "":
		return containerShape
	case env.zoned || env.yearless.mon != 0 || env.container:
		return collectedShape
	case s[0] == '{' && !strings.HasPrefix(s, "{address space"):
		return jsonShape
	}
	return bareShape
}

// doubtNameless doubts lines of which no process is known, in a file that has others.
func (p *Parser) doubtNameless(s string, e *event.Event, v Verdict, behind ending, around shape) {
	w := &p.seen
	odd, most := false, int64(maxOpen)
	if behind == endsMessage {
		most = usualQuote
	}
	switch {
	case v == Access && behind == endsChosen:
		odd = around != collectedShape || w.shapes>>around&1 == 0
	case v == Access && behind >= endsMessage:
		odd = w.records >= established && p.unlike(e, v, around)
	case v == Unparsed && behind >= endsPath:
		odd = p.near.format != noFormat && (behind == endsChosen || endsRequest(s))
	}
	switch {
	case odd && w.patient(int64(len(s)), most):
		p.suspect |= forgedLine
	case v == Access:
		p.note(e, v, around)
		if around == collectedShape {
			w.ending = endsPlain
		}
	} // continuations leave open what is open
}

// patient reports whether what was doubted since a known process wrote can still be a part of one request.
func (w *witness) patient(n, most int64) bool {
	w.doubted += n + 1
	return w.doubted <= most
}

// impostor judges a line that names a process that is known. What the file's lines are like may change, so not too much is doubted.
func (p *Parser) impostor(e *event.Event, v Verdict, behind ending, around shape, n int64) bool {
	w := &p.seen
	if p.ofAnother(e) {
		return true
	}
	few := established
	if behind == endsChosen {
		few = 1
	}
	if w.records >= few && p.unlike(e, v, around) || behind == endsChosen && w.isForeign(e) {
		w.contested += n + 1
		return w.contested <= maxOpen
	}
	return false
}

// newcomer judges a line by a process that is not known, and reports whether the process is to be known from now on.
func (p *Parser) newcomer(e *event.Event, v Verdict, behind ending, around shape, n int64) bool {
	w := &p.seen
	foreign := w.isForeign(e)
	says := v == Access || e.User != ""
	if !says && behind != endsChosen && (behind != endsPath || !foreign) {
		return true
	}
	home := p.file.service
	if p.env.named {
		home = p.env.file.service
	}
	if e.Logger != "" && (isAlien(e.Service, home) || home == "placement" && w.records >= established && foreign) {
		if says {
			p.suspect |= forgedLine
		}
		return false
	}
	back := int64(0)
	if e.Logger != "" && !e.Time.IsZero() {
		back = w.lastSec - e.Time.Unix()
	}
	late, early := back > slackSec, -back > max(idleTimes*w.gap, 10*minute) && w.records >= established
	switch {
	case behind == endsChosen:
		if w.patient(n, maxOpen) {
			if says {
				p.suspect |= forgedLine
			}
			return false
		}
	case behind == endsPath:
		strange := w.records >= begun && foreign || w.records >= established && p.unlike(e, v, around) ||
			slices.Contains(w.exposed[:], e.ProcessID) || w.miscounts(p.served) || p.ofAnother(e)
		if strange && w.patient(n, maxOpen) || (late || early) && w.patient(n, usualRequest) {
			if says {
				p.suspect |= forgedLine
			}
			return false
		}
	case behind == endsMessage && w.records >= established && p.unlike(e, v, around) && w.patient(n, usualQuote):
		p.suspect |= forgedLine
		return false
	case late && (back < minute || behind == endsMessage && back < day):
		p.suspect |= forgedLine
	}
	return true
}

// miscounts reports whether n is not about how many requests uWSGI has served. Its workers count together, and a client can only guess.
func (w *witness) miscounts(n int64) bool {
	return n > 0 && w.served > 0 && (n < w.served/2 || n/2 > w.served+minute)
}

// trust learns from a line of a known process. One that may be made up does not vouch for what stands behind it.
func (p *Parser) trust(s string, e *event.Event, v Verdict, around shape) {
	w := &p.seen
	w.doubted = 0
	p.learn(s, e, v, around)
	if x := &w.pids[w.last]; x.guessed {
		w.ending = max(w.ending, endsPath)
		x.guessed = w.read-x.born < maxOpen
	}
}

// learn learns from a line of a known process.
func (p *Parser) learn(s string, e *event.Event, v Verdict, around shape) {
	w := &p.seen
	if e.Logger == "" {
		w.served = max(w.served, p.served)
		// A server's line: the time may be that of the request's start.
		w.ending = endsPlain
		if v == Access {
			w.records++
			p.note(e, v, around)
		}
		return
	}
	sec := e.Time.Unix()
	if d := sec - w.lastSec; d > 0 || d < -minute {
		if d > w.gap && w.lastSec != 0 {
			w.gap = d
		}
		w.lastSec = sec
	}
	if v != Access {
		if w.talker != p.logger.sum {
			w.talker = p.logger.sum
			p.note(e, v, around)
		}
		w.ending = endsMessage
		switch {
		case around == jsonShape || p.reason == ReasonCADF || p.reason == ReasonStartDone:
			w.ending = endsPlain
		case strings.HasPrefix(e.Logger, "keystone.") && strings.Contains(s, "Could not find "):
			w.ending = endsChosen
		}
		return
	}
	if w.logger != p.logger.sum || around != bareShape {
		w.logger = p.logger.sum
		p.note(e, v, around)
	}
	w.records++
	w.ending = endsPlain
	if p.logger.decoded() && around != jsonShape {
		p.trustPath(e)
	}
}

// trustPath learns from a line with a decoded path. Where such lines end in a colour, one that does not is broken off.
func (p *Parser) trustPath(e *event.Event) {
	w := &p.seen
	w.ending = endsPath
	switch {
	case p.faded:
		w.coloured = min(w.coloured+1, established)
	case w.coloured > 0:
		if w.coloured--; w.coloured > established/2 {
			w.ending = endsChosen
		}
	}
	if !w.pids[w.last].guessed {
		w.head = w.read
	}
	if w.issued == nil {
		w.issued = make([]issue, issuedIDs)
	}
	if p.whose.id == 0 {
		p.whose = issueOf(e)
	}
	if p.whose.id != 0 {
		w.issued[p.whose.id%issuedIDs] = p.whose
	}
}

// decoded reports whether the logger writes paths decoded.
func (m *loggerMemory) decoded() bool {
	return m.which == novaRequestLogger || m.which == placementRequestLogger || m.which == ironicLogger
}

// issueOf tells whose the request is; nothing if it has no id, or is nobody's.
func issueOf(e *event.Event) (k issue) {
	if e.RequestID != "" && e.User != "" {
		k = issue{xxh3.HashString(e.RequestID), xxh3.HashString(e.User)}
	}
	return k
}

// ofAnother reports whether the request id was that of another user before, where paths are written decoded.
func (p *Parser) ofAnother(e *event.Event) bool {
	if e.Logger == "" || !p.logger.decoded() || p.seen.issued == nil {
		return false
	}
	p.whose = issueOf(e)
	was := p.seen.issued[p.whose.id%issuedIDs]
	return was.id == p.whose.id && was.user != p.whose.user
}

// note keeps what a line is like.
func (p *Parser) note(e *event.Event, v Verdict, around shape) {
	w := &p.seen
	w.shapes |= 1 << around
	if v == Access && !w.recent(e) {
		w.recently = [2]string{e.Format, w.recently[0]}
		w.formats |= 1 << p.formatOf(e)
	}
	if e.Logger != "" && e.Service != "" && !w.hasProject(e.Service) {
		i := slices.Index(w.projects[:], "")
		w.projects[max(i, 0)] = e.Service
	}
}

func (w *witness) hasProject(service string) bool { return slices.Contains(w.projects[:], service) }

// unlike reports whether the file had no line that is like this one.
func (p *Parser) unlike(e *event.Event, v Verdict, around shape) bool {
	w := &p.seen
	return w.shapes>>around&1 == 0 || v == Access && !w.recent(e) && w.formats>>p.formatOf(e)&1 == 0 || w.isForeign(e)
}

// recent reports whether the format is one of the last two: most files have no more.
func (w *witness) recent(e *event.Event) bool {
	return e.Format != "" && (e.Format == w.recently[0] || e.Format == w.recently[1])
}

// formatOf is the format of a record, also of one that is not wanted.
func (p *Parser) formatOf(e *event.Event) format {
	if e.Format == "" {
		return p.unwanted
	}
	return formatByName(e.Format)
}

// isForeign reports whether the line's logger is of a project that wrote nothing to the file.
func (w *witness) isForeign(e *event.Event) bool {
	return e.Logger != "" && e.Service != w.projects[0] && e.Service != "" && !w.hasProject(e.Service)
}

// isRest reports whether a line that is no record is the end of a request whose beginning looked whole: so its client wrote what
// stands between them. Processes that came there are known no more.
func (p *Parser) isRest(s string) bool {
	w := &p.seen
	const decoded = 1<<novaRequestlog | 1<<placementRequestlog | 1<<ironicRequestlog
	if w.formats&decoded == 0 || w.head == 0 || w.read-w.head > maxOpen || !endsRequest(s) || requestQuote(s) >= 0 {
		return false
	}
	for i := range w.pids {
		if x := &w.pids[i]; x.guessed && x.born >= w.head {
			w.exposed[w.exposes%len(w.exposed)] = x.pid
			w.exposes++
			*x = process{pid: -1, at: w.read}
		}
	}
	return true
}

// isGlued reports whether a request holds the end of one line and the beginning of another one: a newline is missing, or its client
// wrote both.
func isGlued(request string) bool {
	_, rest, ok := strings.Cut(request, `" status: `)
	return ok && requestQuote(rest) >= 0
}

// isAlien reports whether a logger's project does not write to the files of another one. placement was a part of nova.
func isAlien(project, home string) bool {
	return project != "" && home != "" && project != home && (project != "nova" || home != "placement") && (project != "placement" || home != "nova")
}

// unproved marks lines with an identity where none was proved. On a 401 what stands in front of a service names the user that the
// client claimed to be. The rest is for services of which it is not known that they log that right: they have the same libraries as
// those of which it is known that they do not.
func unproved(e *event.Event) {
	if e.User == "" && e.ProjectID == "" {
		return
	}
	refused := e.Status == 401 && e.Has&event.HasStatus != 0
	switch e.Service {
	case "nova", "neutron", "glance", "cinder", "placement", "keystone", "swift":
		if refused && e.Logger == "" {
			e.SetBool(event.BoolIdentityUnverified, true)
		}
		return // for the service's own log unverified decides
	}
	if refused || e.Method == "OPTIONS" || isVersionPath(e.Path) {
		e.SetBool(event.BoolIdentityUnverified, true)
	}
}
