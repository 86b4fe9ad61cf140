package conf

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. It is written as 4MiB, 64KiB, 1GiB, 10MB, 500B or a plain number of bytes.
type Size int64

// sizeUnits from the largest binary unit down, then the decimal ones; String uses only the binary ones.
var sizeUnits = [...]struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"B", 1},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"kB", 1e3},
}

const binaryUnits = 5

// String returns the size in the largest binary unit that divides it: 4MiB, 1536KiB, 500B.
func (s Size) String() string {
	for _, u := range sizeUnits[:binaryUnits] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText returns the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size; the error says what a size looks like.
func (s *Size) UnmarshalText(text []byte) error {
	v, bad := parseSize(string(text))
	if bad != nil {
		return fmt.Errorf("reading size %q: %w", text, bad)
	}
	*s = v
	return nil
}

// valueError is why a text is no value of its type. It never quotes the text, which may be a secret.
type valueError struct{ message, suggestion string }

func (e *valueError) Error() string { return e.message }

func parseSize(text string) (Size, *valueError) {
	if strings.HasPrefix(text, "-") {
		return 0, &valueError{message: "a size must not be negative"}
	}
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	digits, unit := text[:end], text[end:]
	const example = "a size is a whole number with a unit, one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, such as 4MiB"
	if digits == "" {
		return 0, &valueError{message: example}
	}
	if unit == "" {
		unit = "B"
	}
	for _, u := range sizeUnits {
		if u.name != unit {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes {
			return 0, &valueError{message: "a size must be below 8388608TiB"}
		}
		return Size(n * u.bytes), nil
	}
	bad := &valueError{message: example}
	fraction := ""
	if strings.HasPrefix(unit, ".") {
		i := 1
		for i < len(unit) && unit[i] >= '0' && unit[i] <= '9' {
			i++
		}
		fraction, unit = unit[:i], unit[i:]
	}
	unit = strings.ToLower(strings.TrimSpace(unit))
	for _, u := range sizeUnits {
		lower := strings.ToLower(u.name)
		if unit != lower && (unit == "" || unit != lower[:1] && unit != strings.TrimSuffix(lower, "b")) {
			continue
		}
		if fraction == "" {
			bad.suggestion = digits + u.name
		} else if f, err := strconv.ParseFloat(digits+fraction, 64); err == nil {
			if b := f * float64(u.bytes); b == math.Trunc(b) && b < 1<<53 {
				bad.suggestion = Size(b).String()
			}
		}
		break
	}
	return 0, bad
}

const day = 24 * time.Hour

// parseDuration reads Go's syntax plus d for days.
func parseDuration(text string) (time.Duration, *valueError) {
	const units = "a duration is a number with a unit, one of ns, us, ms, s, m, h, d, such as 500ms, 5s or 1h30m"
	rest, negative := strings.CutPrefix(text, "-")
	if rest == "" || strings.HasPrefix(rest, "+") {
		return 0, &valueError{message: units}
	}
	var total time.Duration
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		unit := strings.IndexAny(rest[digits:], "0123456789.")
		if unit < 0 {
			unit = len(rest) - digits
		}
		number, name := rest[:digits], rest[digits:digits+unit]
		rest = rest[digits+unit:]
		factor := time.Duration(1)
		if name == "d" {
			name, factor = "h", 24
		}
		if name == "" || digits == 0 {
			return 0, &valueError{message: units, suggestion: betterDuration(text)}
		}
		part, err := time.ParseDuration(number + name)
		if err != nil {
			if strings.Trim(number, "0123456789") == "" && knownDurationUnit(name) {
				return 0, &valueError{message: "a duration must be below 106751d"}
			}
			return 0, &valueError{message: units, suggestion: betterDuration(text)}
		}
		if part > math.MaxInt64/factor || total > math.MaxInt64-part*factor {
			return 0, &valueError{message: "a duration must be below 106751d"}
		}
		total += part * factor
	}
	if negative {
		total = -total
	}
	return total, nil
}

func knownDurationUnit(name string) bool {
	_, err := time.ParseDuration("1" + name)
	return err == nil
}

// betterDuration guesses what a text like "5 sec" was meant to be; "" when it cannot.
func betterDuration(text string) string {
	compact := strings.ToLower(strings.ReplaceAll(text, " ", ""))
	number := strings.TrimRight(compact, "abcdefghijklmnopqrstuvwxyzµ")
	unit := ""
	switch compact[len(number):] {
	case "s", "sec", "secs", "second", "seconds":
		unit = "s"
	case "m", "min", "mins", "minute", "minutes":
		unit = "m"
	case "h", "hr", "hrs", "hour", "hours":
		unit = "h"
	case "d", "day", "days":
		unit = "d"
	case "w", "week", "weeks":
		if n, err := strconv.Atoi(number); err == nil && n < 1000 {
			number, unit = strconv.Itoa(7*n), "d"
		}
	case "ms", "msec", "msecs", "millis", "millisecond", "milliseconds":
		unit = "ms"
	}
	if unit == "" || number == "" || strings.Trim(number, "0123456789.") != "" {
		return ""
	}
	return number + unit
}

// formatDuration is the shortest text that parseDuration reads as d.
func formatDuration(d time.Duration) string {
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

const masked = "***"

// Secret is a text that never shows itself: every way of printing it gives ***. It is a value to be copied; the zero
// Secret is the empty text.
type Secret struct {
	// A Secret below an unexported field is printed by fmt without asking its methods. There fmt follows a pointer to
	// a struct for some verbs, but never a pointer to a pointer.
	p **secret
}

type secret struct{ text, template string }

func newSecret(text, template string) Secret {
	p := &secret{text, template}
	return Secret{&p}
}

// NewSecret returns a Secret with this text, for defaults and tests.
func NewSecret(text string) Secret { return newSecret(text, "") }

// Reveal returns the text itself. The caller must not print it.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return (*s.p).text
}

// Source returns the text as the configuration has it, such as ${file:/run/secrets/key}, and whether it holds
// an interpolation. A literal secret has no source.
func (s Secret) Source() (template string, ok bool) {
	if s.p == nil || (*s.p).template == "" {
		return "", false
	}
	return (*s.p).template, true
}

// Resolve reads the secret anew from its source, for instance after a 401; a literal secret is returned as it is.
func (s Secret) Resolve(lookup Lookup) (Secret, error) {
	template, ok := s.Source()
	if !ok {
		return s, nil
	}
	x := expansion{lookup: lookup}
	text := x.expand(template, 0)
	if len(x.problems) > 0 {
		return Secret{}, errors.New("reading secret: " + strings.Join(x.problems, "; "))
	}
	return newSecret(text, template), nil
}

// Equal tells whether both texts are the same; use it instead of ==.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns ***.
func (s Secret) String() string { return masked }

// GoString returns ***.
func (s Secret) GoString() string { return masked }

// Format writes *** for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// MarshalText returns ***, also to JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// LogValue returns *** to slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// UnmarshalText sets the text.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
