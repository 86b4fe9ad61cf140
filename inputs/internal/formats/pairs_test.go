package formats

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const pairLine = `2026-03-02 %s 30 INFO cinder.api.openstack.wsgi [None req-%08d-4a59-4e68-9c77-8b86a5945a01 - - - - - -] %s`

func startLine(at time.Duration, id int) string {
	return fmt.Sprintf(pairLine, clock(at), id, "DELETE http://192.0.2.2:8776/v3/volumes")
}

func doneLine(at time.Duration, id int) string {
	return fmt.Sprintf(pairLine, clock(at), id, "http://192.0.2.2:8776/v3/volumes returned with HTTP 202")
}

func clock(d time.Duration) string { return time.Unix(0, 0).UTC().Add(d).Format("15:04:05.000") }

func TestSecondLineTakesWhatTheFirstKnows(t *testing.T) {
	p := newParser(t, "cinder-api.log", Options{})
	parse(p, startLine(0, 1))
	parse(p, startLine(time.Second, 2))
	e, v := parse(p, doneLine(3*time.Second, 1))
	if v != Access || e.Method != "DELETE" || e.Duration != 3*time.Second {
		t.Errorf("verdict %d, method %q, %v", v, e.Method, e.Duration)
	}
	if e, _ = parse(p, doneLine(4*time.Second, 1)); e.Method != "" || e.Has&event.HasDuration != 0 {
		t.Errorf("a first line served twice: %q %v", e.Method, e.Duration)
	}
	if e, _ = parse(p, doneLine(62*time.Second, 2)); e.Method != "" {
		t.Errorf("joined over more than a minute: %q", e.Method)
	}
	parse(p, startLine(time.Second, 3))
	if e, _ = parse(p, doneLine(0, 3)); e.Method != "" {
		t.Error("joined back in time")
	}
	parse(p, startLine(time.Second, 4))
	p.File("cinder-api.log", mtime)
	if e, _ = parse(p, doneLine(time.Second, 4)); e.Method != "" {
		t.Error("joined across files")
	}
}

func TestOpenFirstLinesAreBoundedInNumberAndContent(t *testing.T) {
	p := newParser(t, "cinder-api.log", Options{})
	for i := range maxPairs + 10 {
		parse(p, startLine(0, i))
	}
	if n := len(p.pairs.ring); n != maxPairs {
		t.Errorf("%d are remembered", n)
	}
	if e, _ := parse(p, doneLine(time.Second, 9)); e.Method != "" {
		t.Error("the oldest was not forgotten")
	}
	if e, _ := parse(p, doneLine(time.Second, 10)); e.Method != "DELETE" {
		t.Error("one within the bound was forgotten")
	}

	for _, c := range []struct {
		behind int64
		method string
	}{{PairWindow - 1, "DELETE"}, {PairWindow, ""}} {
		p = newParser(t, "cinder-api.log", Options{})
		p.At(100)
		parse(p, startLine(0, 1))
		p.At(100 + c.behind)
		if e, _ := parse(p, doneLine(time.Second, 1)); e.Method != c.method {
			t.Errorf("method %q over %d bytes, want %q", e.Method, c.behind, c.method)
		}
	}
}

// TestFirstLinesOfOtherRequestsAreNotJoined has a request id twice, as who chooses ids or forges lines has it.
func TestFirstLinesOfOtherRequestsAreNotJoined(t *testing.T) {
	owned := func(l, user, project string) string {
		return strings.Replace(l, " - - - - - -]", " "+user+" "+project+" - - - -]", 1)
	}
	const one, other = "1b2c3d4e5f60718293a4b5c6d7e8f901", "ffffffffffffffffffffffffffffffff"
	for _, c := range []struct{ start, done, method string }{
		{owned(startLine(0, 1), one, one), owned(doneLine(1, 1), one, one), "DELETE"},
		{startLine(0, 1), owned(doneLine(1, 1), one, one), "DELETE"},
		{owned(startLine(0, 1), one, one), owned(doneLine(1, 1), other, one), ""},
		{owned(startLine(0, 1), one, one), owned(doneLine(1, 1), one, other), ""},
		{strings.Replace(startLine(0, 1), "/volumes", "/backups", 1), doneLine(1, 1), ""},
	} {
		p := newParser(t, "cinder-api.log", Options{})
		parse(p, c.start)
		if e, v := parse(p, c.done); v != Access || e.Method != c.method {
			t.Errorf("verdict %d, method %q, want %q: %s", v, e.Method, c.method, c.done)
		}
	}
}

// script is a log of first and second lines, with times that jump, and where its lines begin.
func script(r *rand.Rand, n int) (lines []string, at []int64) {
	place := int64(0)
	for i := range n {
		id, now := r.IntN(8), time.Duration(i+r.IntN(70))*time.Second
		l := startLine(now, id)
		if r.IntN(2) == 0 {
			l = doneLine(now, id)
		}
		lines, at = append(lines, l), append(at, place)
		place += int64(len(l)) + 1 + r.Int64N(PairWindow/8)
	}
	return lines, at
}

// TestPairsDoNotDependOnWhereReadingBegan reads from the middle, after showing the parser what stands in the window before, and gets
// what reading all gives; so it does where lines are read twice.
func TestPairsDoNotDependOnWhereReadingBegan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	joined := 0
	lines, at := script(r, 200)
	read := func(p *Parser, i int) string {
		p.At(at[i])
		e, _ := parse(p, lines[i])
		return fmt.Sprint(e.Method, e.Duration)
	}
	whole, twice := newParser(t, "cinder-api.log", Options{}), newParser(t, "cinder-api.log", Options{})
	var want []string
	for i := range lines {
		want = append(want, read(whole, i))
		if want[i] != "0s" {
			joined++
		}
		for back := r.IntN(3); back >= 0; back-- {
			for k := max(0, i-back); k <= i; k++ {
				if got := read(twice, k); got != want[k] {
					t.Fatalf("read again, line %d: %s, want %s", k, got, want[k])
				}
			}
		}
	}
	for cut := range lines {
		p := newParser(t, "cinder-api.log", Options{})
		for i := range lines {
			switch {
			case i >= cut:
				if got := read(p, i); got != want[i] {
					t.Fatalf("begun at %d, line %d: %s, want %s", cut, i, got, want[i])
				}
			case at[i] > at[cut]-PairWindow:
				read(p, i)
			}
		}
	}
	if joined < 20 {
		t.Errorf("only %d of %d lines were joined", joined, len(lines))
	}
}

// TestAForgedLineIsNoHalfOfATrueRequest has a line that is forged give its method, and take it away.
func TestAForgedLineIsNoHalfOfATrueRequest(t *testing.T) {
	const nobody = "2026-03-02 00:00:00.000 %d WARNING keystone.auth.plugins.core [None req-1f1d2c3b-4a59-4e68-9c77-8b86a5945a02 u p - - - -] Could not find user: x"
	forge := func(l string) string {
		return strings.Replace(strings.Replace(l, " 30 INFO", " 1 INFO", 1), " - - - - - -]", " u p - - - -]", 1)
	}
	p := newParser(t, "keystone.log", Options{})
	name := fmt.Sprintf(nobody, 30)
	for _, l := range []string{name, startLine(0, 1), name, forge(strings.ReplaceAll(startLine(0, 1), "DELETE", "GET")), name, forge(doneLine(time.Second, 1))} {
		parse(p, l)
	}
	if e, _ := parse(p, doneLine(2*time.Second, 1)); e.Method != "DELETE" || e.Duration != 2*time.Second {
		t.Errorf("method %q, %v", e.Method, e.Duration)
	}
}
