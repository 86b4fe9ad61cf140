package event

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestStringsSurviveJSON(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "xyz", `"`, `\`, "\n", "\t", "\x00", "\x1f", "\x7f", "é", "日本", "\xff", "\xe6\x97", "\u2028", "😀", "01234567"}
	for range 20000 {
		var s strings.Builder
		for range r.IntN(12) {
			s.WriteString(alphabet[r.IntN(len(alphabet))])
		}
		enc := AppendString(nil, s.String())
		var back string
		if err := json.Unmarshal(enc, &back); err != nil {
			t.Fatalf("%q becomes %s: %v", s.String(), enc, err)
		}
		if want := strings.ToValidUTF8(mark(s.String()), "\ufffd"); back != want {
			t.Fatalf("%q comes back as %q, want %q", s.String(), back, want)
		}
		if !utf8.Valid(enc) {
			t.Fatalf("%q becomes invalid UTF-8", s.String())
		}
	}
}

// mark puts U+FFFD in the place of each bad byte; ToValidUTF8 would join neighbours.
func mark(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

func TestTimesAndSecondsAreExact(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var c TimeEncoder
	for range 20000 {
		at := time.Unix(r.Int64N(9e9)-1e9, []int64{0, 1, 1000, 120e6, r.Int64N(1e9)}[r.IntN(5)]).UTC()
		want := `"` + at.Format(time.RFC3339Nano) + `"`
		if got := string(AppendTime(nil, at)); got != want {
			t.Fatalf("AppendTime gives %s, want %s", got, want)
		}
		if got := string(c.Append(nil, at)); got != want {
			t.Fatalf("TimeEncoder gives %s, want %s", got, want)
		}
		d := time.Duration(r.Int64N(1 << r.IntN(62)))
		f := json.Number(AppendSeconds(nil, d))
		if back, err := time.ParseDuration(f.String() + "s"); err != nil || back != d {
			t.Fatalf("%d ns become %s s, which is %d ns (%v)", d, f, back, err)
		}
	}
	for d, want := range map[time.Duration]string{0: "0", 72535000: "0.072535", 13904381 * time.Microsecond: "13.904381", time.Second: "1", -1500 * time.Millisecond: "-1.5"} {
		if got := string(AppendSeconds(nil, d)); got != want {
			t.Errorf("%v becomes %s, want %s", d, got, want)
		}
	}
}

func TestIsCleanAgreesWithALookAtEveryByte(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(' ' + r.IntN(90))
			if b[i] == '\\' || r.IntN(20) == 0 {
				b[i] = '\n'
			}
		}
		if len(b) > 0 && r.IntN(2) == 0 {
			b[r.IntN(len(b))] = []byte{'\\', 0x80, 0xff, 0, '\t', '\r', 0x1f, 'x'}[r.IntN(8)]
		}
		want := true
		for _, c := range b {
			if c >= 0x80 || c == '\\' || (c < 0x20 && c != '\n') {
				want = false
			}
		}
		if got := IsClean(b); got != want {
			t.Fatalf("%q: got %v", b, got)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\xff\"\\\n\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(AppendString(nil, s), &back); err != nil || back != mark(s) {
			t.Fatalf("%q comes back as %q (%v)", s, back, err)
		}
	})
}

func BenchmarkIsClean(b *testing.B) {
	block := bytes.Repeat([]byte("2026-11-21 03:41:09.820 406 INFO nova \"GET /v2.1/servers HTTP/1.1\" status: 200 len: 408\n"), 3000)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if !IsClean(block) {
			b.Fatal("not clean")
		}
	}
}
