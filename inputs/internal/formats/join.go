package formats

import (
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Part says how a line stands to the record before it.
type Part uint8

// The parts.
const (
	Whole Part = iota // a record by itself, which no line continues
	Head              // begins a record that further lines may continue
	Rest              // continues the record before it; a record of its own where none is open
)

// Window is how many bytes back lines can tell anything about a line, but for pairs (PairWindow): what stands further back is
// forgotten, so that a reader that starts in the middle and is shown this much knows what one that read on knows.
const Window = 64 << 10

const tracebackHead = "Traceback (most recent call last):"

// memory is what lines before this one left open.
type memory struct {
	open       int  // bytes that an unfinished request of a requestlog may still take
	trace      bool // inside a raw Python traceback
	over       bool // the last raw traceback has ended: another one is a record of its own
	multi      bool // the writer of the last recognised line writes records of several lines
	warned     bool // the line before is a warning of Python's, whose source line may follow
	apacheTail bool // the file's Apache lines end in a user agent

	traceAt, multiAt, warnedAt int64 // where that was last seen

	prefix prefix
	fold   fold
}

// standing is how a line stands to those around it.
type standing struct {
	part    Part
	torn    bool
	odd     bool // its bracket is no context: it is an instance, or text of an exception
	noted   bool // its prefix is the one that is remembered; former is the one before it
	dyed    bool // a text in its JSON object has colours; see plainText
	precise bool // its oslo prefix has a fraction of a second
	repeats bool // it has a prefix as the record before it; stripped is what follows

	words    bool // see Words
	coloured bool // what is in its envelopes begins with a colour: it is read again without
	bleached bool // its colours were taken off

	faded    bool   // it ends in the terminal's reset
	whose    issue  // whose request it is, once that was asked
	served   int64  // how many requests its server counted so far
	unwanted format // what it is a record of, where that is not among the chosen ones
}

// prefix is what lines of one oslo record share: the lines of an exception repeat it.
type prefix struct {
	ok     bool
	hasPID bool
	logger uint64
	pid    int64
	time   time.Time
	at     int64
}

// Memory is what a Parser remembers of the lines before, to be given back when these are read again.
type Memory struct {
	m    memory
	seen witnessed
}

// Memory returns what the parser remembers now.
func (p *Parser) Memory() Memory { return Memory{p.memory, p.seen.witnessed} }

// Recall has the parser remember what it did when m was returned.
func (p *Parser) Recall(m Memory) { p.memory, p.seen.witnessed = m.m, m.seen }

// At tells where in the file the next line stands. Who never calls it has nothing forgotten. What lines from there on left among
// the pairs is forgotten, for they come again.
func (p *Parser) At(offset int64) {
	if offset <= p.at {
		p.pairs.rewind(offset)
	}
	p.at = offset
}

// Back is how many bytes back lines tell anything about those of this file: Window, or more where it has pairs of lines.
func (p *Parser) Back() int64 {
	if p.pairs.met {
		return PairWindow
	}
	return Window
}

// Part says how the last line stands to the record before it.
func (p *Parser) Part() Part { return p.part }

// Torn reports that the last line is from the middle of a record, whatever stands before it.
func (p *Parser) Torn() bool { return p.torn }

// Text is the last line without the prefix of its format, where it was no access line. It is a view of the line.
func (p *Parser) Text() string { return p.text }

// bare reports that the last line came in no envelope. The time that Apache's error log has before each line is none: it stands
// before each line of a record.
func (p *Parser) bare() bool { return !p.env.used || p.env.timeOnly }

func (p *Parser) writesMulti() { p.multi, p.multiAt = true, p.at }

func (p *Parser) inMulti() bool { return p.multi && p.at-p.multiAt < Window }

// rest is the part of a line that has no beginning of a record. What came in an envelope of its own has one.
func (p *Parser) rest() Part {
	if !p.bare() {
		return Whole
	}
	return Rest
}

// unparsedPart is the part of a line that begins as a record and that no format knows. Where nothing is known to write records of
// several lines, each line is one.
func (p *Parser) unparsedPart() Part {
	if p.bare() && p.inMulti() {
		return Head
	}
	return Whole
}

// osloPart finds the lines that repeat the prefix of the record before them: those of an exception, which have no context.
// A prefix without a fraction of a second would make one of different records.
func (p *Parser) osloPart(msg string, m *loggerMemory, context bool, e *event.Event) {
	p.part, p.over = Head, false
	own := prefix{ok: p.precise, hasPID: e.Has&event.HasProcessID != 0, logger: m.sum, pid: e.ProcessID, time: e.Time, at: p.at}
	exception := !context && own.ok && (e.Level == 3 || e.Level == 7)
	was := p.prefix
	p.prefix, p.former, p.noted = own, was, true
	if !exception {
		return
	}
	p.torn = own.hasPID && e.Level == 3
	near := was.ok && p.at-was.at < Window
	was.at = own.at
	if near && was == own {
		p.part, p.repeats, p.stripped = Rest, true, msg
		if p.odd && !strings.HasPrefix(p.unstripped, "[instance: ") {
			p.stripped = p.unstripped
		}
	}
}

// apachePart takes the text of a line of Apache's error log that has nothing but a time in front. What WSGI processes write there
// in several lines comes as several lines, each with its own time.
func (p *Parser) apachePart(text string) {
	p.part, p.stripped = Head, text
	p.repeats = text == "" || p.rawTrace(text) || text[0] == ' '
	if p.repeats && (text == "" || p.part == Head && text[0] == ' ') {
		p.part = Rest
	}
	p.reason = ReasonApacheError // rawTrace may have said something else
}

// warning takes a warning of Python's, `FILE:LINE: CATEGORY: TEXT`, and the indented source line after it.
func (p *Parser) warning(s string) bool {
	warned := p.warned && p.at-p.warnedAt < Window
	p.warned = false
	switch {
	case !p.bare():
		return false
	case isWarning(s):
		p.warned, p.warnedAt, p.part = true, p.at, Head
	case warned && s[0] == ' ':
		p.part = Rest
	default:
		return false
	}
	p.reason = ReasonWarning
	return true
}

func isWarning(s string) bool {
	s = s[:min(len(s), 512)]
	i := strings.Index(s, ".py:")
	if i <= 0 || strings.ContainsAny(s[:i], " \t\"") {
		return false
	}
	s = s[i+len(".py:"):]
	n := 0
	for n < len(s) && s[n]-'0' <= 9 {
		n++
	}
	category, ok := strings.CutPrefix(s[n:], ": ")
	if n == 0 || !ok {
		return false
	}
	category, _, ok = cutAt(category, ':')
	return ok && strings.HasSuffix(category, "Warning") && strings.IndexByte(category, ' ') < 0
}

// rawTrace takes the lines of a Python traceback without a prefix, and of the exceptions that it is chained to.
func (p *Parser) rawTrace(s string) bool {
	frame := strings.HasPrefix(s, `  File "`)
	switch {
	case frame, strings.HasPrefix(s, tracebackHead):
		p.part = p.rest()
		if p.over && p.at-p.traceAt < Window && !frame {
			p.part = Head
		}
		p.torn = frame
		p.trace, p.traceAt, p.over = true, p.at, false
	case isChained(s):
		p.part = p.rest()
		p.over = false
	case p.trace && p.at-p.traceAt < Window:
		// Source lines are indented; the first line that is not names the exception and ends the traceback.
		p.part = p.rest()
		p.trace = s[0] == ' '
		p.over = !p.trace
	default:
		p.over = false
		return false
	}
	p.reason = ReasonTraceback
	return true
}

func isChained(s string) bool {
	return s == "During handling of the above exception, another exception occurred:" ||
		s == "The above exception was the direct cause of the following exception:"
}
