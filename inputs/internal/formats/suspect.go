package formats

import (
	"slices"
	"strings"

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

// witness remembers of a file's lines what tells a forged line from a true one. Who can have a text with newlines logged (in a path
// that is written decoded, in the name of a user) writes whole lines, but does not know which processes write the file.
type witness struct {
	pids []process // the newest, in a ring that grows to maxPIDs
	witnessed
}

// witnessed is the part of it that is restored when lines are read again: a line must not vouch for itself.
type witnessed struct {
	n       int
	last    int   // place in pids of the process of the line before
	read    int64 // bytes of lines so far
	lastSec int64 // time of the newest line of a known process
	// open says that the line before ends in a text that its client chose.
	open bool
}

// process is one that writes the file, and where it did last, in bytes of lines.
type process struct{ pid, at int64 }

// rememberPID is how long a process is remembered, in bytes of lines: what is known of a line follows from what stands near it.
const rememberPID = 4 << 20

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
	w.pids[w.last] = process{pid, w.read}
	w.n++
}

// doubt looks for what speaks against a line that was recognised, and learns from it.
//
// A line by a process that is not known is no crime: it may be new, and in a new file all are. It is one if its logger is another
// project's than the file's, if its time is before that of lines that stand before it, or if the line before ends in a name
// that a client chose. A record of another server's format, which has no process, is doubted only behind such a name.
func (p *Parser) doubt(s string, e *event.Event, v Verdict) {
	w := &p.seen
	w.read += int64(len(s)) + 1
	if p.env.zoned || p.env.yearless.mon != 0 || p.env.container {
		return // what is collected comes from many processes, and its prefix is not the client's to write
	}
	if e.Has&event.HasProcessID == 0 {
		if w.open && v == Access && w.n > 0 {
			p.suspect |= forgedLine
		}
		return // continuations leave what is open open
	}
	pid := e.ProcessID
	open := w.open
	w.open = false
	if w.knows(pid) {
		w.known(s, e)
		return
	}
	if w.n > 0 && (v == Access || e.User != "") {
		home := p.file.service
		if p.env.named {
			home = p.env.file.service
		}
		const slack, day = 2, 24 * 60 * 60
		back := w.lastSec - e.Time.Unix()
		switch {
		case open || e.Logger != "" && isAlien(e.Service, home):
			w.open = open
			p.suspect |= forgedLine
			return // and its process stays unknown
		case back > slack && back < day && e.Logger != "":
			p.suspect |= forgedLine
		}
	}
	w.learn(pid)
	w.known(s, e)
}

// known notes a line of a process that is known.
func (w *witness) known(s string, e *event.Event) {
	if e.Logger == "" {
		return // a server's line: the time may be that of the request's start
	}
	if sec := e.Time.Unix(); sec > w.lastSec || w.lastSec-sec > 60 {
		w.lastSec = sec
	}
	if strings.HasPrefix(e.Logger, "keystone.") {
		w.open = strings.Contains(s, "] Could not find ")
	}
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
