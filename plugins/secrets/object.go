package secrets

import (
	"encoding/json"
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// walker copies a JSON text and lets others change its strings and numbers.
type walker struct {
	src  string
	at   int
	out  []byte
	keys int // that were changed
	// text returns what stands for a string; sensitive says that its key is that of a secret.
	text func(s string, sensitive bool) (string, bool)
	// name returns what stands for a key.
	name func(s string) (string, bool)
	// number says that a number is to become null.
	number func(text string, sensitive bool) bool
	// secret classifies keys.
	secret func(key string) bool
}

// maxKeys is how many keys of an object may have to be changed; one with more goes as a whole.
const maxKeys = 16

// deepest is how deep a JSON text may be nested.
const deepest = 100

// walk copies the whole text; false if it is no JSON.
func (w *walker) walk(sensitive bool) bool {
	return w.value(sensitive, 0) && (w.space() || w.at == len(w.src)) && w.at == len(w.src)
}

// space copies white space and reports whether there is something after it.
func (w *walker) space() bool {
	for w.at < len(w.src) {
		switch c := w.src[w.at]; c {
		case ' ', '\t', '\n', '\r':
			w.out = append(w.out, c)
			w.at++
		default:
			return true
		}
	}
	return false
}

func (w *walker) take(c byte) bool {
	if w.at >= len(w.src) || w.src[w.at] != c {
		return false
	}
	w.out = append(w.out, c)
	w.at++
	return true
}

func (w *walker) value(sensitive bool, depth int) bool {
	if depth > deepest || !w.space() {
		return false
	}
	switch c := w.src[w.at]; c {
	case '{':
		return w.object(depth)
	case '[':
		w.take('[')
		if w.space() && w.take(']') {
			return true
		}
		for {
			if !w.value(sensitive, depth+1) || !w.space() {
				return false
			}
			if w.take(']') {
				return true
			}
			if !w.take(',') {
				return false
			}
		}
	case '"':
		s, raw, ok := w.literal()
		if !ok {
			return false
		}
		if out, hit := w.text(s, sensitive); hit {
			w.out = event.AppendString(w.out, out)
		} else {
			w.out = append(w.out, raw...)
		}
		return true
	}
	from := w.at
	for w.at < len(w.src) && strings.IndexByte(",]} \t\n\r", w.src[w.at]) < 0 {
		w.at++
	}
	raw := w.src[from:w.at]
	if !json.Valid([]byte(raw)) {
		return false
	}
	if c := raw[0]; (c == '-' || c >= '0' && c <= '9') && w.number(raw, sensitive) {
		raw = "null"
	}
	w.out = append(w.out, raw...)
	return true
}

func (w *walker) object(depth int) bool {
	w.take('{')
	if w.space() && w.take('}') {
		return true
	}
	for {
		if !w.space() {
			return false
		}
		key, raw, ok := w.literal()
		if !ok {
			return false
		}
		if out, hit := w.name(key); hit {
			if w.keys++; w.keys > maxKeys {
				return false
			}
			w.key(out)
		} else {
			w.out = append(w.out, raw...)
		}
		if !w.space() || !w.take(':') || !w.value(w.secret(key), depth+1) || !w.space() {
			return false
		}
		if w.take('}') {
			return true
		}
		if !w.take(',') {
			return false
		}
	}
}

// key writes a changed key, which must be none that another member has.
func (w *walker) key(name string) {
	for {
		literal := string(event.AppendString(nil, name))
		if !hasKey(w.src, literal) && !hasKey(event.View(w.out), literal) {
			w.out = append(w.out, literal...)
			return
		}
		name += "_"
	}
}

// hasKey reports whether a string with a colon after it stands in a JSON text.
func hasKey(text, literal string) bool {
	for {
		_, after, found := strings.Cut(text, literal)
		if !found {
			return false
		}
		if strings.HasPrefix(strings.TrimLeft(after, " \t\n\r"), ":") {
			return true
		}
		text = after
	}
}

// literal reads a string.
func (w *walker) literal() (s, raw string, ok bool) {
	if w.at >= len(w.src) || w.src[w.at] != '"' {
		return "", "", false
	}
	from := w.at
	plain := true
	for i := from + 1; i < len(w.src); i++ {
		switch w.src[i] {
		case '\\':
			plain = false
			i++
		case '"':
			raw = w.src[from : i+1]
			w.at = i + 1
			if plain {
				return raw[1 : len(raw)-1], raw, true
			}
			return s, raw, json.Unmarshal([]byte(raw), &s) == nil
		}
	}
	return "", "", false
}

// json is what text is for objects. A text that is no JSON becomes "".
func (r *rewriter) json(p *Redactor, e *event.Event, s string, sensitive bool) (out string, hit bool) {
	if !sensitive && !p.detect.triggered(s) && nextEscape(s) < 0 && !p.holdsValue(s) {
		return s, false
	}
	w := walker{
		src: s, out: r.out[:0],
		text: func(t string, sensitive bool) (string, bool) {
			if sensitive && t != "" && !isMask(t) {
				return p.replacement(t), true
			}
			return r.text(p, e, t)
		},
		name: func(t string) (string, bool) { return r.text(p, e, t) },
		number: func(t string, sensitive bool) bool {
			for i := range p.values {
				sensitive = sensitive || p.values[i].text == t
			}
			return sensitive
		},
		secret: p.detect.secretKey,
	}
	ok := w.walk(sensitive)
	r.out = w.out
	switch {
	case !ok:
		return "", true
	case string(w.out) == s:
		return s, false
	}
	if b := e.Batch(); b != nil {
		return b.Arena().Copy(w.out), true
	}
	return string(w.out), true
}

// holdsValue reports whether any value stands in s, even within a word.
func (p *Redactor) holdsValue(s string) bool {
	for i := range p.values {
		x := &p.values[i]
		if strings.Contains(s, x.text) || x.plus != "" && strings.Contains(s, x.plus) {
			return true
		}
	}
	return false
}

// object calls found for what the detectors find in a JSON text.
func (r *rewriter) object(p *Redactor, s string, sensitive bool, found func(string)) {
	w := walker{
		src: s, out: r.out[:0],
		text: func(t string, sensitive bool) (string, bool) {
			if sensitive && t != "" {
				found(t)
			}
			r.find(p, t, found)
			return "", false
		},
		name: func(t string) (string, bool) {
			r.find(p, t, found)
			return "", false
		},
		number: func(string, bool) bool { return false },
		secret: p.detect.secretKey,
	}
	w.walk(sensitive) // one that is no JSON goes as a whole later
	r.out = w.out
}

// keyedTexts calls do for each string and number in a JSON text whose key is that of a secret.
func (p *Redactor) keyedTexts(s string, sensitive bool, do func(string)) {
	keyed := func(t string, sensitive bool) bool {
		if sensitive {
			do(t)
		}
		return false
	}
	w := walker{
		src: s, out: p.rewrite.out[:0],
		text:   func(t string, sensitive bool) (string, bool) { return "", keyed(t, sensitive) },
		name:   func(string) (string, bool) { return "", false },
		number: keyed,
		secret: p.detect.secretKey,
	}
	w.walk(sensitive)
	p.rewrite.out = w.out
}

// walkStrings calls do for each string in a JSON text that is no key.
func walkStrings(s string, do func(string)) {
	w := walker{
		src:    s,
		text:   func(t string, _ bool) (string, bool) { do(t); return "", false },
		name:   func(string) (string, bool) { return "", false },
		number: func(string, bool) bool { return false },
		secret: func(string) bool { return false },
	}
	w.walk(false)
}
