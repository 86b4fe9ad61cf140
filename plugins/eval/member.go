package eval

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/event"
)

var errObject = errors.New("decoding an object: its text is broken")

// member returns a member of an object without decoding the rest. What is itself a list or an object comes as an Object, which
// only says that it is nothing simpler. As with the machine's decoder, of members alike the last one counts.
func member(object, key string) (event.Value, error) {
	s := scanner{text: object}
	var raw string
	if !s.take('{') {
		return event.Value{}, errObject
	}
	for first := true; !s.take('}'); first = false {
		if !first && !s.take(',') {
			return event.Value{}, errObject
		}
		k, ok := s.value()
		simple := s.simple
		if !ok || k[0] != '"' || !s.take(':') {
			return event.Value{}, errObject
		}
		v, ok := s.value()
		if !ok {
			return event.Value{}, errObject
		}
		if simple && k[1:len(k)-1] == key || !simple && unquote(k) == key {
			raw = v
		}
	}
	if raw == "" {
		return event.Value{}, nil
	}
	switch raw[0] {
	case '"':
		if text := raw[1 : len(raw)-1]; isPlain(text) {
			return event.StringValue(text), nil
		}
		return event.StringValue(unquote(raw)), nil
	case '{', '[':
		return event.ObjectValue(raw), nil
	case 't', 'f':
		return event.BoolValue(raw == "true"), nil
	case 'n':
		return event.Value{}, nil
	}
	if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
		return event.IntValue(n), nil
	}
	f, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return event.Value{}, nil // beyond what a float holds
	}
	return event.FloatValue(f), nil
}

// isPlain reports whether the inside of a JSON string stands for itself.
func isPlain(s string) bool { return strings.IndexByte(s, '\\') < 0 && utf8.ValidString(s) }

// unquote decodes a JSON string that has escapes.
func unquote(raw string) string {
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return ""
	}
	return s
}

// scanner finds where JSON values end. It trusts that the text is valid, but never reads past its end.
type scanner struct {
	text   string
	at     int
	simple bool // the string that was read last is ASCII without escapes
}

func (s *scanner) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t' || s.text[s.at] == '\n' || s.text[s.at] == '\r') {
		s.at++
	}
}

func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// value returns the next value as it is written. It is not empty when ok.
func (s *scanner) value() (raw string, ok bool) {
	s.space()
	from, depth := s.at, 0
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case '"':
			if !s.quoted() {
				return "", false
			}
		case '{', '[':
			depth++
			s.at++
			continue
		case '}', ']':
			depth--
			s.at++
			if depth < 0 {
				return "", false
			}
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return "", false
			}
			s.at++
			continue
		default:
			for s.at++; s.at < len(s.text) && !ends(s.text[s.at]); s.at++ {
			}
		}
		if depth == 0 {
			return s.text[from:s.at], true
		}
	}
	return "", false
}

// ends reports whether c ends a number or a word.
func ends(c byte) bool { return c == ',' || c == ':' || c == ']' || c == '}' || c <= ' ' }

// quoted skips a string from its opening quote.
func (s *scanner) quoted() bool {
	s.simple = true
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return true
		case c == '\\':
			s.simple = false
			s.at++
		case c >= utf8.RuneSelf:
			s.simple = false
		}
	}
	return false
}
