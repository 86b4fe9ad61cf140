package formats

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// TestUsualFiguresOfHAProxyAreReadAsAllAre reads figures in the quick way and in the general one.
func TestUsualFiguresOfHAProxyAreReadAsAllAre(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	p := newParser(t, "x.log", Options{})
	usual := 0
	for range 30_000 {
		n := func() string { return oddFigure(r, 60) }
		s := fmt.Sprintf("%s/%s/%s/%s/%s %s %s %s %s %s %s/%s/%s/%s/%s %s/%s%s", n(), n(), n(), n(), n(), n(), n(), pick(r, 30, "-", "a=b", ""), pick(r, 30, "-", "+"),
			pick(r, 30, "----", "SC--", "--", "", `-"--`, "é--"), n(), n(), n(), n(), n(), n(), n(), pick(r, 3, ` "GET / HTTP/1.1"`, " {a} ", "", " ", "x"))
		s = damage(r, s)
		o, g, next := p.newObject().usualFigures(s)
		got := string(o)
		if next == 0 {
			continue
		}
		usual++
		wantO, wantG, wantNext, v := p.anyFigures(p.newObject(), s)
		if v != Access || got != string(wantO) || g != wantG || next != wantNext {
			t.Fatalf("%q: %s %+v %d, in general %s %+v %d %v", s, got, g, next, wantO, wantG, wantNext, v)
		}
	}
	if usual < 1000 {
		t.Errorf("only %d were usual", usual)
	}
}

// TestUsualLinesOfCLFAreReadAsAllAre does the same for whole lines of option httplog clf.
func TestUsualLinesOfCLFAreReadAsAllAre(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	p, q := newParser(t, "haproxy.log", Options{}), newParser(t, "haproxy.log", Options{})
	usual := 0
	for range 30_000 {
		n := func() string { return oddFigure(r, 60) }
		name := func() string {
			return pick(r, 30, "nova_api", "cinder_api~", "ctl1", "~", "", `a\b`, "a b", "<NOSRV>", strings.Repeat("n", 40))
		}
		rest := fmt.Sprintf(`"" "" %s %s "%s" "%s" "%s" %s %s %s %s %s %s %s %s %s %s %s %s %s %s`, n(), n(), name(), name(), name(), n(), n(), n(), n(), n(),
			pick(r, 30, "----", "SC--", "--", "", `-"--`), n(), n(), n(), n(), n(), n(), n(), pick(r, 3, `"" "" `, `"" ""`, `"a" "" `, `"" "b"`, `"" "`, `"" "" "h"`, `"" ""  `))
		rest = damage(r, rest)
		l := accessLine{host: "192.0.2.9", user: "-", status: 200, hasStatus: true, size: 12, hasSize: r.IntN(30) > 0, soFar: r.IntN(30) == 0, closed: true}
		l.request = pick(r, 10, "GET /v3/volumes?limit=2 HTTP/1.1", "GET / HTTP/1.1", "GET /", "GET  /", "<BADREQ>", "G#45T /", "1 /a", "GET /a#20b HTTP/1.1", "GET x", "")
		read := func(p *Parser, how func(l *accessLine, rest string, e *event.Event) Verdict) string {
			b := event.NewBatch("x")
			e, l := b.Append(), l
			p.arena, p.standing, p.reason = b.Arena(), standing{}, ""
			v := how(&l, rest, e)
			e.Time = e.Time.UTC()
			a, _ := e.Get("attributes")
			return fmt.Sprint(v, p.words, p.suspect, e.Method, e.Path, e.Query, e.HTTPVersion, e.Status, e.Size, e.Duration, e.Has, e.Bools, e.Service, e.Program, e.Format, e.Plain, a.Str())
		}
		was := false
		got := read(p, func(l *accessLine, rest string, e *event.Event) Verdict {
			if was = p.usualCLF(l, rest, e); was {
				return Access
			}
			return Unparsed
		})
		if !was {
			continue
		}
		usual++
		if want := read(q, q.anyCLF); got != want {
			t.Fatalf("%q, %+v:\n%s, in general\n%s", rest, l, got, want)
		}
	}
	if usual < 1000 {
		t.Errorf("only %d were usual", usual)
	}
}

// TestTheTailOfHTTPSIsReadAsItsGrammarSays compares it with one that is cut piece by piece.
func TestTheTailOfHTTPSIsReadAsItsGrammarSays(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	read := 0
	for range 30_000 {
		n := func() string { return pick(r, 6, "0", "12", "", "1f", "-") }
		s := pick(r, 10, " ", "", "  ") + strings.Join([]string{n(), n(), n(), n(), n()}, "/") + " " + pick(r, 6, "api.example.org", "-", "", "0") + "/" + pick(r, 6, "TLSv1.3", "-") + "/" + pick(r, 6, "TLS_AES_256_GCM_SHA384", "-", "")
		s = damage(r, s)
		var want tlsTail
		codes, names, ok := strings.Cut(strings.TrimPrefix(s, " "), " ")
		c, m := strings.Split(codes, "/"), strings.Split(names, "/")
		if ok = ok && len(c) == 5 && len(m) == 3 && allDigits(c[0]) && !strings.Contains(names, " "); ok {
			copy(want[:], append(c, m...))
		}
		var got tlsTail
		if got.read(s) != ok {
			t.Fatalf("%q: %v", s, !ok)
		}
		if !ok {
			continue
		}
		read++
		for i := range got {
			if got[i] != want[i] && (got[i] != "" || want[i] != "0") {
				t.Fatalf("%q: %q, %q wanted", s, got, want)
			}
		}
	}
	if read < 1000 {
		t.Errorf("only %d were read", read)
	}
}

// pick chooses the first text mostly, one time in n any of them.
func pick(r *rand.Rand, n int, texts ...string) string {
	if r.IntN(n) > 0 {
		return texts[0]
	}
	return texts[r.IntN(len(texts))]
}

// oddFigure is a number, one time in n an odd one.
func oddFigure(r *rand.Rand, n int) string {
	if r.IntN(n) > 0 {
		return strconv.Itoa(r.IntN([]int{10, 1000, 9_999_999}[r.IntN(3)]))
	}
	return pick(r, 1, "007", "00", "-1", "+5", "", "12345678", "123456789012345678", "1234567890123456789", "x")
}

// damage cuts a text, or changes one byte of it, one time in three.
func damage(r *rand.Rand, s string) string {
	at := r.IntN(len(s))
	switch r.IntN(6) {
	case 0:
		return s[:at]
	case 1:
		return s[:at] + string("0 /\"-+:\x00\xff"[r.IntN(9)]) + s[at+1:]
	}
	return s
}
