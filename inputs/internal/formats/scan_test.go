package formats

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestQuickStepsAreWhatThePlainOnesAre compares steps that look at several bytes at a time, or remember, with plain ones.
func TestQuickStepsAreWhatThePlainOnesAre(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 3))
	random := func(of string, most int) string {
		b := make([]byte, r.IntN(most))
		for i := range b {
			b[i] = of[r.IntN(len(of))]
		}
		return string(b)
	}
	words := strings.Fields("v3 v2 v2.0 v2.1 v1 images users volumes networks servers AUTH_a AUTH identity placement latest nova-api x // /")
	var paths pathMemory
	for range 200_000 {
		s := random("aaaaaaa\x21\xa0\x00 ", 40)
		if got, want := space(s), strings.IndexByte(s, ' '); got != want {
			t.Fatalf("space of %q: %d, want %d", s, got, want)
		}
		s = `"` + random(`aaaaaa!\\"`, 24)
		text, rest, ok := quoted(s)
		if end := unescapedQuote(s, 1); ok != (end > 0) || ok && (text != s[1:end] || rest != s[end+1:]) || !ok && rest != s {
			t.Fatalf("quoted of %q: %q, %q, %v", s, text, rest, ok)
		}
		s = random("aaaaaaaaaaaaaaaaaa[", 60)
		want := strings.LastIndexByte(s[max(0, len(s)-40):], '[')
		if want >= 0 {
			want += max(0, len(s)-40)
		}
		if got := lastBracket(s, len(s)-21); got != want {
			t.Fatalf("last bracket of %q: %d, want %d", s, got, want)
		}
		s = random("0123456789", 22) + random("1- ", 4)
		word, tail, more := field(s)
		n, isNumber := digits(word)
		if !more || !isNumber {
			n, tail, isNumber = 0, s, false
		}
		if got, rest, ok := count(s); got != n || rest != tail || ok != isNumber {
			t.Fatalf("count of %q: %d, %q, %v", s, got, rest, ok)
		}
		var path []string
		for range r.IntN(5) {
			path = append(path, words[r.IntN(len(words))])
		}
		s = random("/", 3) + strings.Join(path, "/")
		if got := *paths.look(s); got != originOfPath(s) {
			t.Fatalf("origin of %q: %+v, want %+v", s, got, originOfPath(s))
		}
	}
}
