package formats

import (
	"github.com/stacktrail/stacktrail/plugins/event"
)

// place is where in a format a line parts from it.
type place uint8

const (
	atPrefix place = iota
	atClient
	atTime
	atRequest
	atStatus
	atSize
	atDuration
	atTail
	atEnd
	placeCount
)

var placeNames = [placeCount]string{
	atPrefix: "prefix", atClient: "client", atTime: "time", atRequest: "request", atStatus: "status", atSize: "size",
	atDuration: "duration", atTail: "tail", atEnd: "end",
}

// nearReasons are the reasons of lines that are nearly a format: `FORMAT:PLACE`. They are made once, for they become labels of
// metrics, and never hold text of a line.
var nearReasons = func() (r [formatCount][placeCount]string) {
	for f := range r {
		for at := range r[f] {
			r[f][at] = formatNames[f] + ":" + placeNames[at]
		}
	}
	return r
}()

// nearest is the format that a line followed the furthest.
type nearest struct {
	format format
	place  place
	at     int // bytes of the text in hand that fit
}

// parts notes that the text in hand followed a format to where rest begins, and no further.
func (p *Parser) parts(f format, at place, rest string) Verdict {
	n := nearest{f, at, max(0, len(p.inner)-len(rest))}
	if p.near.format == noFormat || n.at > p.near.at {
		p.near = n
	}
	if p.explain != nil {
		p.explain.Attempts = append(p.explain.Attempts, Attempt{Format: formatNames[f], Place: placeNames[at], At: n.at, Text: p.inner})
	}
	return Unparsed
}

// begins is parts for a text that may follow the format by chance: it is told to who asks, and is no reason.
func (p *Parser) begins(f format, at place, rest string) Verdict {
	before := p.near
	p.parts(f, at, rest)
	p.near = before
	return Unparsed
}

// Attempt is a format that a line followed in part.
type Attempt struct {
	Format string // its name
	Place  string // what was expected where the line parts from it
	At     int    // how many bytes of Text fit
	Text   string // the line without its envelopes
}

// Explanation says how a line was read.
type Explanation struct {
	Verdict  Verdict
	Reason   string    // see Reason
	Peeled   []string  // what was around the record, from the outside in
	Text     string    // the record without it
	Format   string    // of the record, if it is one
	Attempts []Attempt // the formats that it followed in part, in the order in which they were tried
}

// Explain parses a line as Parse does and says how. It allocates, and is for people.
func (p *Parser) Explain(line []byte, e *event.Event, a *event.Arena) Explanation {
	var x Explanation
	p.explain = &x
	defer func() { p.explain = nil }()
	x.Verdict = p.Parse(line, e, a)
	x.Reason, x.Text, x.Format = p.reason, p.inner, e.Format
	return x
}

// peeled notes an envelope for whoever asked for an explanation.
func (p *Parser) peeled(name string) {
	if p.explain != nil {
		p.explain.Peeled = append(p.explain.Peeled, name)
	}
}
