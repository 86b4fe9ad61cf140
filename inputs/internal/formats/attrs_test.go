package formats

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// TestAttributesAreWhatTheEncoderWrites compares objects with ones that are put together of the encoder's strings.
func TestAttributesAreWhatTheEncoderWrites(t *testing.T) {
	t.Parallel()
	p := newParser(t, "x.log", Options{})
	k := newKey(strings.Repeat("k", longestKey-len(`,"":`)))
	texts := []string{"", "a", "1234567", "12345678", "123456789", `"`, `a\b`, "a\x00b", "caf\u00e9", "\xff", strings.Repeat("x", 3000), strings.Repeat("\x01", 3000), strings.Repeat("12345678", 4) + "\n"}
	for n := range 300 { // every length, and every place of a byte that needs an escape
		texts = append(texts, strings.Repeat("y", n), strings.Repeat("z", n%40)+"\t"+strings.Repeat("z", n/40))
	}
	numbers := []int64{0, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 99_999, 100_000, 1<<63 - 1, -1, -1 << 63}
	for _, times := range []int{1, 5, 60} {
		for i, text := range texts {
			batch := event.NewBatch("x")
			p.arena = batch.Arena()
			e := batch.Append()
			o := p.newObject()
			var want []byte
			for range times {
				n := numbers[i%len(numbers)]
				o = o.number(&k, n)
				o = p.said(o, &k, text)
				o = o.yes(&k)
				want = fmt.Appendf(want, "%s%d%s%s%strue", k.text[:k.n], n, k.text[:k.n], event.AppendString(nil, text), k.text[:k.n])
			}
			p.end(o, e)
			v, _ := e.Get("attributes")
			if got := v.Str(); got != "{"+string(want[1:])+"}" || !json.Valid([]byte(got)) {
				t.Fatalf("%d times %q: %.200s", times, text, got)
			}
		}
	}
	o := p.newObject()
	e := event.NewBatch("x").Append()
	if p.end(o, e); len(e.Extra) != 0 {
		t.Error("nothing is an attribute")
	}
}

// TestCursorsStepsAreWhatTheirPartsAre compares the steps that take two things with the two steps.
func TestCursorsStepsAreWhatTheirPartsAre(t *testing.T) {
	t.Parallel()
	const most = "1234567890123456789"
	for _, s := range []string{"", "-", "1", "-1", "12 ", "-12 x", "x", "-x", " ", "1x", most, most[:18], most[:18] + " ", most + " ", "-" + most[:18] + " ", "7 vars in 8", "7 vars", "7 Vars in ", "-7 vars in "} {
		for i := range 2 {
			for _, bad := range []bool{false, true} {
				start := cursor{s: strings.Repeat("9", i) + s, i: i, bad: bad}
				check := func(what string, whole, parts func(c *cursor) int64) {
					a, b := start, start
					x, y := whole(&a), parts(&b)
					if a != b || !a.bad && x != y {
						t.Errorf("%s of %q from %d: %d and %+v, the parts are %d and %+v", what, start.s, i, x, a, y, b)
					}
				}
				both := func(num func(c *cursor) int64, lit string) func(c *cursor) int64 {
					return func(c *cursor) int64 {
						n := num(c)
						c.lit(lit)
						return n
					}
				}
				check("numTo", func(c *cursor) int64 { return c.numTo(' ') }, both((*cursor).num, " "))
				check("signedTo", func(c *cursor) int64 { return c.signedTo(' ') }, both((*cursor).signed, " "))
				check("signedLit", func(c *cursor) int64 { return c.signedLit(" vars in ") }, both((*cursor).signed, " vars in "))
				check("numLit", func(c *cursor) int64 { return c.numLit(" vars in ") }, both((*cursor).num, " vars in "))
			}
		}
	}
}

// TestHeadsOfSyslogAreRememberedAsTheyStand reads lines whose heads alternate as parsers do that know no other line.
func TestHeadsOfSyslogAreRememberedAsTheyStand(t *testing.T) {
	t.Parallel()
	const nova = `2026-03-02 10:15:30.123 4211 INFO nova.osapi_compute.wsgi.server [-] 192.0.2.9 "GET / HTTP/1.1" status: 200 len: 2154 time: 0.3120457`
	heads := []string{
		"ctl1 nova-api[4211]: ", "ctl1 nova-api[4212]: ", "ctl2 nova-api[4211]: ", "ctl1 nova-api: ", "nova-api[7]: ", "local1.info ctl1 nova-api[x]: ",
		"ctl1 proxy-server ", strings.Repeat("h", 90) + " nova-api[1]: ", strings.Repeat("h", 200) + " nova-api[1]: ", "c nova-api[4211]: ",
	}
	old := newParser(t, "syslog", Options{})
	read := func(p *Parser, line string) string {
		b := event.NewBatch("x")
		e := b.Append()
		v := p.Parse([]byte(line), e, b.Arena())
		host, _ := e.Get("log_host")
		return fmt.Sprint(v, p.Reason(), host.Str(), e.ProcessID, e.Program, e.Service, e.Path)
	}
	for i := range 3 * len(heads) * len(heads) {
		line := "Mar  2 10:15:30 " + heads[i/len(heads)%len(heads)] + nova
		if i%2 == 1 {
			line = "Mar  2 10:15:30 " + heads[i%len(heads)] + nova
		}
		if got, want := read(old, line), read(newParser(t, "syslog", Options{}), line); got != want {
			t.Errorf("%q: %s, by a new parser %s", line, got, want)
		}
	}
}

// TestEightDigitsAtATime compares what looks at eight bytes at a time with loops over them.
func TestEightDigitsAtATime(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		b := make([]byte, 8+r.IntN(40))
		for i := range b {
			b[i] = '0' + byte(r.IntN(10))
		}
		if r.IntN(2) == 0 {
			b[r.IntN(len(b))] = byte(r.IntN(256))
		}
		if r.IntN(2) == 0 {
			b[r.IntN(len(b))] = "/:\x80\x7f~!\"#%"[r.IntN(9)]
		}
		s := string(b)
		n := 0
		for n < 8 && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		if got := digitsOf(le64(s, 0)); got != n {
			t.Fatalf("%q begins with %d digits, not %d", s, n, got)
		}
		path := s[r.IntN(8):]
		odd := strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' || c == '#' })
		if holdsDecoded(path) != odd {
			t.Fatalf("%q: %v", path, !odd)
		}
	}
}
