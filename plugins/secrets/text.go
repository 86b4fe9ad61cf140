package secrets

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const (
	// maxDepth is how many times over a text may be encoded and still be looked through.
	maxDepth = 3
	// maxPasses are enough for any text in which one replacement uncovers the next; one that takes more is replaced as a whole.
	maxPasses = 6
)

// view is a text as it was read, or decoded from one.
type view struct {
	text string
	// For each byte of text: the piece of the original text that it came from, and in which round it was decoded. All nil for the
	// original itself.
	from, to []int32
	depth    []uint8
	round    uint8
}

func (v *view) deep(i int) uint8 {
	if v.depth == nil {
		return 0
	}
	return v.depth[i]
}

// origin returns the piece of the original text that text[from:to] came from.
func (v *view) origin(from, to int) (int, int) {
	if v.from == nil {
		return from, to
	}
	return int(v.from[from]), int(v.to[to-1])
}

// room is the memory of a decoded view.
type room struct {
	text     []byte
	from, to []int32
	depth    []uint8
}

// encoding is a way in which a text can be encoded, or several of them.
type encoding uint8

const (
	percent encoding = 1 << iota
	backslash
)

// decoder decodes texts in all the ways in which a value can have been encoded.
type decoder struct{ rooms [maxDepth]room }

// each calls do for the text and for what it decodes to, until do returns false. A value may hold what looks like one of the
// encodings, so each is undone alone, and then both together. With light the views do not know where in the original their bytes come
// from, which costs much less.
func (d *decoder) each(s string, light bool, do func(v *view) bool) {
	v := view{text: s}
	if !do(&v) {
		return
	}
	hasPercent, hasBackslash := strings.IndexByte(s, '%') >= 0, strings.IndexByte(s, '\\') >= 0
	if !hasPercent && !hasBackslash {
		return
	}
	mixed := false
	chain := func(e encoding, other byte, present bool) bool {
		v := view{text: s}
		for round := range maxDepth {
			next, ok := v.decode(e, light, &d.rooms[round])
			if !ok {
				break
			}
			mixed = mixed || present || strings.IndexByte(next.text, other) >= 0
			if !do(&next) {
				return false
			}
			v = next
		}
		return true
	}
	if hasPercent && !chain(percent, '\\', hasBackslash) || hasBackslash && !chain(backslash, '%', hasPercent) {
		return
	}
	if mixed {
		chain(percent|backslash, 0, false)
	}
}

// decode undoes one round of encoding. ok is false when there was nothing to undo. The result lives in r.
func (v *view) decode(e encoding, light bool, r *room) (next view, ok bool) {
	t := v.text
	i := 0
	for i < len(t) {
		var one [utf8.UTFMax]byte
		if i = e.next(t, i); i == len(t) {
			break
		}
		if n, _ := unescape(t[i:], &one); n > 0 {
			break
		}
		i++
	}
	if i >= len(t) {
		return view{}, false
	}
	r.text, r.from, r.to, r.depth = r.text[:0], r.from[:0], r.to[:0], r.depth[:0]
	round := v.round + 1
	if light {
		r.decode(e, t, i)
		return view{text: event.View(r.text), round: round}, true
	}
	for i = 0; i < len(t); {
		var one [utf8.UTFMax]byte
		n, out := 0, 0
		if e.has(t[i]) {
			n, out = unescape(t[i:], &one)
		}
		if n == 0 {
			from, to := v.origin(i, i+1)
			r.text, r.from, r.to, r.depth = append(r.text, t[i]), append(r.from, int32(from)), append(r.to, int32(to)), append(r.depth, v.deep(i))
			i++
			continue
		}
		from, to := v.origin(i, i+n)
		for _, c := range one[:out] {
			r.text, r.from, r.to, r.depth = append(r.text, c), append(r.from, int32(from)), append(r.to, int32(to)), append(r.depth, round)
		}
		i += n
	}
	return view{text: event.View(r.text), from: r.from, to: r.to, depth: r.depth, round: round}, true
}

// decode decodes t, whose first escape stands at i, without noting where the bytes come from.
func (r *room) decode(e encoding, t string, i int) {
	r.text = append(r.text, t[:i]...)
	for i < len(t) {
		if e.has(t[i]) {
			var one [utf8.UTFMax]byte
			if n, out := unescape(t[i:], &one); n > 0 {
				r.text = append(r.text, one[:out]...)
				i += n
				continue
			}
		}
		next := e.next(t, i+1)
		r.text = append(r.text, t[i:next]...)
		i = next
	}
}

// has reports whether an escape of this kind can begin with c.
func (e encoding) has(c byte) bool {
	return c == '%' && e&percent != 0 || c == '\\' && e&backslash != 0
}

// next returns the place of the next character from i on that may begin an escape of this kind, the length of t if there is none.
func (e encoding) next(t string, i int) int {
	n := -1
	switch e {
	case percent:
		n = strings.IndexByte(t[i:], '%')
	case backslash:
		n = strings.IndexByte(t[i:], '\\')
	default: // to look for one of them through the whole text, again and again, would take the square of the time
		for ; i < len(t) && !e.has(t[i]); i++ {
		}
		return i
	}
	if n < 0 {
		return len(t)
	}
	return i + n
}

// nextEscape returns the place of the first character that may begin an escape, -1 if there is none.
func nextEscape(t string) int {
	a, b := strings.IndexByte(t, '%'), strings.IndexByte(t, '\\')
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// unescape reads one escape at the start of t: n bytes that stand for out[:m]; n is 0 if there is none.
func unescape(t string, out *[utf8.UTFMax]byte) (n, m int) {
	if len(t) < 2 {
		return 0, 0
	}
	if t[0] == '%' {
		if c, ok := hexByte(t, 1); ok {
			out[0] = c
			return 3, 1
		}
		return 0, 0
	}
	switch c := t[1]; c {
	case '"', '\\', '/', '\'':
		out[0] = c
		return 2, 1
	case 'n':
		out[0] = '\n'
		return 2, 1
	case 'r':
		out[0] = '\r'
		return 2, 1
	case 't':
		out[0] = '\t'
		return 2, 1
	case 'b':
		out[0] = '\b'
		return 2, 1
	case 'f':
		out[0] = '\f'
		return 2, 1
	case 'x':
		if c, ok := hexByte(t, 2); ok {
			out[0] = c
			return 4, 1
		}
	case 'u':
		r, ok := hexRune(t, 2)
		if !ok {
			return 0, 0
		}
		n = 6
		if utf16.IsSurrogate(r) && len(t) >= 8 && t[6] == '\\' && t[7] == 'u' {
			if low, ok := hexRune(t, 8); ok {
				if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
					r, n = both, 12
				}
			}
		}
		return n, utf8.EncodeRune(out[:], r)
	}
	return 0, 0
}

func hexByte(t string, at int) (byte, bool) {
	if len(t) < at+2 {
		return 0, false
	}
	a, b := hexDigit(t[at]), hexDigit(t[at+1])
	return byte(a<<4 | b), a >= 0 && b >= 0
}

func hexRune(t string, at int) (rune, bool) {
	if len(t) < at+4 {
		return 0, false
	}
	n, err := strconv.ParseUint(t[at:at+4], 16, 16)
	return rune(n), err == nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// span is a piece of a text and what is to stand there instead.
type span struct {
	from, to int
	with     string
}

// rewriter holds the memory that rewriting texts takes.
type rewriter struct {
	spans []span
	bufs  [2][]byte
	out   []byte // of an object
}

// keepRoom: what grew beyond this for an outsized record is given up after its batch.
const keepRoom = 256 << 10

// Trim forgets the values of the events before and gives up memory that only outsized records need. It is called after a batch.
func (p *Redactor) Trim() {
	clear(p.values)
	clear(p.keyed)
	p.values, p.keyed = p.values[:0], p.keyed[:0]
	for i := range p.detect.decode.rooms {
		if r := &p.detect.decode.rooms[i]; cap(r.text) > keepRoom {
			*r = room{}
		}
	}
	for i := range p.rewrite.bufs {
		if cap(p.rewrite.bufs[i]) > keepRoom {
			p.rewrite.bufs[i] = nil
		}
	}
	if cap(p.rewrite.out) > keepRoom {
		p.rewrite.out = nil
	}
}

// find calls found for what the detectors find in s. The text is good during the call.
func (r *rewriter) find(p *Redactor, s string, found func(string)) {
	if !p.detect.triggered(s) {
		return
	}
	p.detect.decode.each(s, false, func(v *view) bool {
		p.detect.find(v, func(from, to int) { found(v.text[from:to]) })
		return true
	})
}

// text returns s without values and without what detectors find; hit is false when s is clean. The result lives as long as e's batch.
func (r *rewriter) text(p *Redactor, e *event.Event, s string) (out string, hit bool) {
	cur := s
	for pass := range maxPasses {
		// Only what detectors look at can come to light by a replacement: values end where words end.
		if pass > 0 && !p.detecting || !r.search(p, cur) {
			if pass == 0 {
				return s, false
			}
			if b := e.Batch(); b != nil {
				return b.Arena().CopyString(cur), true
			}
			return strings.Clone(cur), true
		}
		buf := r.bufs[pass%2][:0]
		at := 0
		for _, x := range r.spans {
			buf = append(buf, cur[at:x.from]...)
			buf = append(buf, x.with...)
			at = x.to
		}
		buf = append(buf, cur[at:]...)
		r.bufs[pass%2] = buf
		cur = event.View(buf)
	}
	return mask, true
}

// record is text for what is the record, or was taken from it as it stands: keyed values are replaced there, too. Where they are too
// many, nothing is left of it.
func (r *rewriter) record(p *Redactor, e *event.Event, s string) (out string, hit bool) {
	if len(p.keyed) > maxValues {
		return withheld, s != withheld
	}
	if !r.searchKeyed(p, e, s) {
		return r.text(p, e, s)
	}
	var buf []byte
	at := 0
	for _, x := range r.spans {
		buf = append(append(buf, s[at:x.from]...), x.with...)
		at = x.to
	}
	buf = append(buf, s[at:]...)
	if b := e.Batch(); b != nil {
		out = b.Arena().Copy(buf)
	} else {
		out = string(buf)
	}
	out, _ = r.text(p, e, out)
	return out, true
}

// searchKeyed is search for keyed values in what was taken from the record.
func (r *rewriter) searchKeyed(p *Redactor, e *event.Event, s string) bool {
	if len(p.keyed) == 0 || s == "" {
		return false
	}
	values := p.values
	p.values = p.keyed
	r.spans = r.spans[:0]
	p.detect.decode.each(s, false, func(v *view) bool {
		r.values(p, v)
		return true
	})
	p.values = values
	if within(s, e.Raw) {
		from := offset(s, e.Raw)
		r.spans = slices.DeleteFunc(r.spans, func(x span) bool {
			return slices.ContainsFunc(p.parts, func(f span) bool { return f.from <= from+x.from && from+x.to <= f.to })
		})
	}
	if len(r.spans) == 0 {
		return false
	}
	r.merge()
	return true
}

// search fills spans with what is to be replaced in s, in order, without overlaps.
func (r *rewriter) search(p *Redactor, s string) bool {
	if s == "" {
		return false
	}
	r.spans = r.spans[:0]
	detecting := p.detecting && p.detect.triggered(s)
	if !detecting && !p.encoded(s) {
		if p.holdsValue(s) {
			v := view{text: s}
			r.values(p, &v)
		}
	} else {
		p.detect.decode.each(s, false, func(v *view) bool {
			r.values(p, v)
			if detecting {
				p.detect.find(v, func(from, to int) { r.add(v, from, to, p.replacement(v.text[from:to])) })
			}
			return true
		})
	}
	if len(r.spans) == 0 {
		return false
	}
	r.merge()
	// What would be replaced by itself is left alone.
	kept := r.spans[:0]
	for _, x := range r.spans {
		if s[x.from:x.to] != x.with {
			kept = append(kept, x)
		}
	}
	r.spans = kept
	return len(kept) > 0
}

// encoded reports whether a value may stand in s in an encoded form: whether any stands more often in what s decodes to. A value that
// holds an escape itself, or stands before one, may stand there less often, so that the numbers tell nothing.
func (p *Redactor) encoded(s string) bool {
	if nextEscape(s) < 0 {
		return false
	}
	p.counts = p.counts[:0]
	for i := range p.values {
		x := &p.values[i]
		if nextEscape(x.text) >= 0 {
			return true
		}
		n, before := count(s, x)
		if before {
			return true
		}
		p.counts = append(p.counts, n)
	}
	found := false
	p.detect.decode.each(s, true, func(v *view) bool {
		for i := range p.values {
			if n, _ := count(v.text, &p.values[i]); n > p.counts[i] && v.round > 0 {
				found = true
			}
		}
		return !found
	})
	return found
}

// count says how often a value stands in t, and whether one of them stands before what may be an escape.
func count(t string, x *value) (n int, before bool) {
	if x.whole {
		if t == x.text {
			n = 1
		}
		return n, false
	}
	for _, text := range [...]string{x.text, x.plus} {
		for at := 0; text != ""; {
			from := index(t, text, at)
			if from < 0 {
				break
			}
			n++
			at = from + len(text)
			before = before || at < len(t) && (t[at] == '%' || t[at] == '\\')
		}
	}
	return n, before
}

func (r *rewriter) add(v *view, from, to int, with string) {
	a, b := v.origin(from, to)
	r.spans = append(r.spans, span{a, b, with})
}

// values looks for the values that must not stand anywhere.
func (r *rewriter) values(p *Redactor, v *view) {
	for i := range p.values {
		x := &p.values[i]
		if x.whole {
			if v.text == x.text {
				r.add(v, 0, len(v.text), x.with)
			}
			continue
		}
		r.occurrences(v, x.text, x.with)
		if x.plus != "" {
			r.occurrences(v, x.plus, x.with)
		}
	}
}

func (r *rewriter) occurrences(v *view, text, with string) {
	for at := 0; ; {
		from := index(v.text, text, at)
		if from < 0 {
			return
		}
		at = from + len(text)
		r.add(v, from, at, with)
	}
}

// index returns where text stands in t at at or later, not within a word; -1 if it does not.
func index(t, text string, at int) int {
	for {
		i := strings.Index(t[at:], text)
		if i < 0 {
			return -1
		}
		from, to := at+i, at+i+len(text)
		if (from == 0 || !isWord(text[0]) || !isWord(t[from-1])) && (to == len(t) || !isWord(text[len(text)-1]) || !isWord(t[to])) {
			return from
		}
		at = from + 1
	}
}

// merge sorts the spans and joins those that overlap: the longest says what stands there.
func (r *rewriter) merge() {
	slices.SortFunc(r.spans, func(a, b span) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return b.to - a.to
	})
	out := r.spans[:1]
	size := out[0].to - out[0].from // of the one that says
	for _, x := range r.spans[1:] {
		last := &out[len(out)-1]
		if x.from >= last.to {
			out = append(out, x)
			size = x.to - x.from
			continue
		}
		if n := x.to - x.from; n > size {
			last.with, size = x.with, n
		}
		last.to = max(last.to, x.to)
	}
	r.spans = out
}
