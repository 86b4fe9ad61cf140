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
		for _, g := range append([]format{f}, p.alike(f, at)...) {
			p.explain.Attempts = append(p.explain.Attempts, Attempt{Format: formatNames[g], Place: placeNames[at], At: n.at, Text: p.inner})
		}
	}
	return Unparsed
}

// family is formats whose lines are alike up to a place.
type family struct {
	members formatSet
	to      place
}

// families says which formats share their beginning, the shortest first. One parser reads a family, and names the member that a line
// followed the furthest.
func families() []family {
	set := func(list ...format) (s formatSet) {
		for _, f := range list {
			s |= 1 << f
		}
		return s
	}
	return []family{
		{set(novaEventlet, osloEventlet), atStatus},
		{set(haproxyHTTP, haproxyHTTPS), atTail},
		{set(eventletCLF, wsgiref), atSize},
		{set(apacheCombined, apacheKolla, nginxCombined, haproxyCLF, swiftStorageLog, nginxSkylineLog), atTime},
		{set(apacheCombined, apacheKolla, nginxCombined, haproxyCLF), atSize},
	}
}

// alike lists the formats that a line followed just as far as f, where it parts at that place.
func (p *Parser) alike(f format, at place) (all []format) {
	for _, x := range families() {
		if x.members>>f&1 == 0 || at > x.to {
			continue
		}
		for g := novaEventlet; g < formatCount; g++ {
			if g != f && x.members>>g&1 != 0 && p.mask>>g&1 != 0 {
				all = append(all, g)
			}
		}
		return all
	}
	return nil
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
