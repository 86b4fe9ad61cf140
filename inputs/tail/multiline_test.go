package tail

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// told is a record with all that must not depend on how its file was read.
type told struct {
	stream, id, raw, message string
	offset                   int64
	truncated                bool
}

// recorder is a sink that keeps whole records and hands them on.
type recorder struct {
	*fakeAgent
	mu  sync.Mutex // guards all
	all []told
}

func (r *recorder) Send(ctx context.Context, b *event.Batch) error {
	r.mu.Lock()
	for i := range b.Events {
		e := &b.Events[i]
		m, _ := e.Get("message")
		r.all = append(r.all, told{b.Stream, e.ID(), string(e.Raw), strings.Clone(m.Str()), e.Offset, e.Is(event.BoolTruncated)})
	}
	r.mu.Unlock()
	return r.fakeAgent.Send(ctx, b)
}

func (r *recorder) records() []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func follow(t testing.TB, r *recorder, c Config) (stop func()) {
	t.Helper()
	in := newInput(t, r.fakeAgent, c, false)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx, r) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func multilineConfig(path string) Config {
	c := testConfig(path)
	c.Records, c.Multiline.Timeout = "all", time.Minute
	return c
}

const (
	p1 = "2026-03-02 10:00:00.123 7 ERROR nova.api "
	p2 = "2026-03-02 10:00:01.456 7 INFO nova.api "
)

// exception is an oslo record of n+2 lines.
func exception(n, frames int) string {
	p := time.Date(2026, 3, 2, 10, 0, n, 0, time.UTC).Format("2006-01-02 15:04:05.000") + " 7 ERROR nova.api "
	var b strings.Builder
	fmt.Fprintf(&b, "%s[-] failure %d\n%sTraceback (most recent call last):\n", p, n, p)
	for i := range frames {
		fmt.Fprintf(&b, "%s  File \"/usr/lib/python3/nova/f%d.py\", line %d, in f\n%s    call()\n", p, i, i, p)
	}
	fmt.Fprintf(&b, "%sValueError: no\n", p)
	return b.String()
}

// raw is a record as it stands in an event.
func raw(s string) string { return strings.TrimSuffix(s, "\n") }

func texts(all []told) (s []string) {
	for _, r := range all {
		mark := ""
		if r.truncated {
			mark = "!"
		}
		s = append(s, mark+r.raw)
	}
	return s
}

func wantTexts(t testing.TB, all []told, want ...string) {
	t.Helper()
	if got := texts(all); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestATracebackInTwoPiecesIsOneEvent(t *testing.T) { // R23
	t.Parallel()
	for _, engine := range []string{"native", "nxadm"} {
		_, path := file1(t)
		r := &recorder{fakeAgent: newFakeAgent(t)}
		c := multilineConfig(path)
		c.Engine = engine
		text := exception(1, 9)
		appendTo(t, path, exception(0, 3)+text[:len(text)/2])
		follow(t, r, c)
		until(t, "first record", func() bool { return len(r.records()) == 1 })
		for _, piece := range []string{text[len(text)/2 : len(text)*3/4], text[len(text)*3/4:]} {
			appendTo(t, path, piece)
		}
		appendTo(t, path, p2+"[-] fine\n"+p2+"[-] and so on\n")
		until(t, "all records", func() bool { return len(r.records()) == 3 })
		wantTexts(t, r.records(), raw(exception(0, 3)), raw(text), p2+"[-] fine")
		if m := r.records()[1].message; !strings.HasPrefix(m, "failure 1\nTraceback (most recent call last):\n  File") || strings.Contains(m, "ERROR") {
			t.Errorf("%s: message %q", engine, m)
		}
	}
}

func TestARotationClosesARecordAndTheRestIsFlagged(t *testing.T) { // R23
	t.Parallel()
	for _, engine := range []string{"native", "nxadm"} {
		_, path := file1(t)
		r := &recorder{fakeAgent: newFakeAgent(t)}
		c := multilineConfig(path)
		c.Engine = engine
		text := exception(0, 6)
		half := strings.LastIndexByte(text[:len(text)/2], '\n') + 1
		appendTo(t, path, text[:half])
		stop := follow(t, r, c)
		until(t, "file seen", func() bool { return len(r.Known()) == 1 })
		must(t, os.Rename(path, path+".1"))
		appendTo(t, path, text[half:]+p2+"[-] fine\n"+p2+"[-] and so on\n")
		until(t, "all records", func() bool { return len(r.records()) == 3 })
		wantTexts(t, r.records(), raw(text[:half]), "!"+raw(text[half:]), p2+"[-] fine")
		stop()
		// What ends with its file has the same id in every run: the state may be lost.
		if first := r.records()[0]; first.id != withoutState(t, c, path+".1")[0].id {
			t.Error("the id of a record depends on when its file was rotated")
		}
	}
}

// withoutState reads a file as one that never had another name, with a state that knows nothing.
func withoutState(t testing.TB, c Config, path string) []told {
	t.Helper()
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c.Paths, c.Engine = []string{path}, "native"
	stop := follow(t, r, c)
	until(t, "a record", func() bool { return len(r.records()) > 0 })
	stop()
	return r.records()
}

func TestAQuietFileClosesItsLastRecordAndReplaysAlike(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"native", "nxadm"} {
		_, path := file1(t)
		r := &recorder{fakeAgent: newFakeAgent(t)}
		c := multilineConfig(path)
		c.Engine, c.Multiline.Timeout = engine, 100*time.Millisecond
		text := exception(0, 6)
		half := strings.LastIndexByte(text[:len(text)/2], '\n') + 1
		stop := follow(t, r, c)
		appendTo(t, path, text[:half]+p2+"unfinished")
		until(t, "half a record", func() bool { return len(r.records()) == 1 })
		appendTo(t, path, " line\n")
		until(t, "the line", func() bool { return len(r.records()) == 2 })
		appendTo(t, path, text[half:])
		until(t, "the rest", func() bool { return len(r.records()) == 3 })
		stop()
		want := r.records()
		wantTexts(t, want, raw(text[:half]), p2+"unfinished line", raw(text[half:]))
		replaysAlike(t, r, c, want)
		// Nor does a restart give anything else.
		again := &recorder{fakeAgent: r.fakeAgent}
		again.crash()
		stop = follow(t, again, c)
		appendTo(t, path, p2+"[-] fine\n")
		until(t, "the next record", func() bool { return len(again.records()) == 1 })
		stop()
		wantTexts(t, again.records(), p2+"[-] fine")
	}
}

// replaysAlike reads all streams again, whole and from each record on.
func replaysAlike(t testing.TB, r *recorder, c Config, want []told) {
	t.Helper()
	for _, k := range r.Known() {
		var mine []told
		for _, w := range want {
			if w.stream == k.Name {
				mine = append(mine, w)
			}
		}
		again := &recorder{fakeAgent: newFakeAgent(t)}
		again.sent[k.Name] = event.Position{}
		must(t, newInput(t, again.fakeAgent, c, false).Replay(context.Background(), k, event.Position{}, k.Start, again))
		if got := again.records(); !slices.Equal(got, mine) {
			t.Errorf("replayed\n%+v\nwant\n%+v", got, mine)
		}
	}
}

func TestAContinuationAfterAClosedRecordIsFlagged(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path)
	c.Multiline.Timeout = 50 * time.Millisecond
	stop := follow(t, r, c)
	text := exception(0, 2)
	var want []string
	for i, line := range strings.SplitAfter(raw(text), "\n") {
		appendTo(t, path, raw(line)+"\n")
		until(t, "the line", func() bool { return len(r.records()) == i+1 })
		if i > 0 {
			line = "!" + line
		}
		want = append(want, raw(line))
	}
	stop()
	wantTexts(t, r.records(), want...)
	ids := map[string]bool{}
	for _, x := range r.records() {
		ids[x.id] = true
	}
	if len(ids) != len(want) {
		t.Errorf("%d ids of %d records", len(ids), len(want))
	}
	replaysAlike(t, r, c, r.records())
}

func TestPlacesOfClosedRecordsAreBounded(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path)
	c.Sweep, c.Multiline.Timeout = 10*time.Millisecond, 10*time.Millisecond
	follow(t, r, c)
	for i := range 80 {
		appendTo(t, path, fmt.Sprintf("%s[-] record %d\n", p2, i))
		until(t, "the record", func() bool { return len(r.records()) == i+1 })
	}
	m, err := decodeMeta(r.Known()[0].Meta)
	must(t, err)
	if n := len(m.Quiets); n == 0 || n > 64 {
		t.Errorf("%d places are kept", n)
	}
}

func TestAReplayThatEndsAnywhereGivesTheSameRecords(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path)
	c.Multiline.MaxLines = 5
	text := exception(0, 4) + novaLine + "\n" + exception(1, 1) + exception(2, 20) + novaLine + "\n"
	appendTo(t, path, text)
	must(t, newInput(t, r.fakeAgent, c, true).Run(context.Background(), r))
	want, k := r.records(), r.Known()[0]
	if len(want) < 10 || !want[0].truncated || !want[1].truncated {
		t.Fatalf("records are %q", texts(want))
	}
	place := func(i int) event.Position {
		if i == 0 {
			return event.Position{}
		}
		off := int64(len(text))
		if i < len(want) {
			off = want[i].offset
		}
		return event.Position{Seq: off, Token: tokenOf(xxh3.HashString(text[max(0, off-proof):off]))}
	}
	for from := range want {
		for to := from + 1; to <= len(want); to++ {
			again := &recorder{fakeAgent: newFakeAgent(t)}
			again.sent[k.Name] = place(from)
			must(t, newInput(t, again.fakeAgent, c, false).Replay(context.Background(), k, place(from), place(to), again))
			if got := again.records(); !slices.Equal(got, want[from:to]) {
				t.Fatalf("from %d to %d: replayed\n%+v\nwant\n%+v", from, to, got, want[from:to])
			}
		}
	}
}

func TestARecordCanBeLargerThanABlock(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path)
	c.Multiline.MaxLines, c.Multiline.MaxBytes = 100_000, 1<<20
	text := exception(0, 5000)
	if len(text) < 2*event.MaxBatchBytes {
		t.Fatalf("it has only %d bytes", len(text))
	}
	appendTo(t, path, novaLine+"\n"+text[:len(text)-100])
	follow(t, r, c)
	until(t, "the line before", func() bool { return len(r.records()) == 1 })
	appendTo(t, path, text[len(text)-100:]+novaLine+"\n")
	until(t, "all records", func() bool { return len(r.records()) == 3 })
	wantTexts(t, r.records(), novaLine, raw(text), novaLine)
}

func TestOnceAndCompressedFilesCloseTheirLastRecord(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path)
	c.Paths = []string{path, filepath.Join(dir, "y.log.1.gz")}
	text := exception(0, 3)
	appendTo(t, path, text)
	appendTo(t, filepath.Join(dir, "y.log.1"), text)
	compress(t, filepath.Join(dir, "y.log.1"))
	in := newInput(t, r.fakeAgent, c, true)
	must(t, in.Run(context.Background(), r))
	wantTexts(t, r.records(), raw(text), raw(text))
	if n := r.count("lines", ""); n != 2*int64(strings.Count(text, "\n")) || r.count("events", "") != 2 || r.count("joined", "") != n-2 {
		t.Errorf("counted %v", r.counts)
	}
}

func TestADamagedCompressedFileGivesItsLastWholeLines(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	text := exception(0, 4200) // its last 403 lines are beyond the limit of lines
	appendTo(t, path, text)
	compress(t, path)
	data, err := os.ReadFile(path + ".gz")
	must(t, err)
	must(t, os.WriteFile(path+".gz", data[:len(data)-9], 0o644))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path+".gz", old, old))
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path + ".gz")
	in := newInput(t, r.fakeAgent, c, true)
	must(t, in.Run(context.Background(), r))
	n := 0
	for _, x := range r.records() {
		n += strings.Count(x.raw, "\n") + 1
	}
	if n < 8390 || int64(n) != r.count("lines", "") {
		t.Errorf("%d lines, %d counted", n, r.count("lines", ""))
	}
}

// TestRecordsAreTheSameHoweverTheirFileGrew lets a file grow in random steps while the input stops, crashes and starts again, and
// compares with what reading it in one go gives.
func TestRecordsAreTheSameHoweverTheirFileGrew(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		var b strings.Builder
		for i := range 150 {
			switch rnd.IntN(4) {
			case 0:
				b.WriteString(novaLine + "\n")
			case 1:
				fmt.Fprintf(&b, "%s[-] text %d\nof several lines\n\nand more\n", p2, i)
			default:
				b.WriteString(exception(i, rnd.IntN(30)*rnd.IntN(30)))
			}
		}
		b.WriteString(novaLine + "\n")
		text := b.String()

		dir := t.TempDir()
		path := filepath.Join(dir, "x.log")
		c := multilineConfig(path)
		c.Multiline.MaxLines, c.Multiline.MaxBytes = 200, 32<<10
		whole := &recorder{fakeAgent: newFakeAgent(t)}
		must(t, os.WriteFile(path, []byte(text), 0o644))
		must(t, newInput(t, whole.fakeAgent, c, true).Run(context.Background(), whole))
		want := whole.records()

		must(t, os.Remove(path))
		a := newFakeAgent(t)
		a.ack, a.ackSome = false, rand.New(rand.NewPCG(seed, 6))
		r := &recorder{fakeAgent: a}
		for at := 0; at < len(text); {
			stop := follow(t, r, c)
			for range 1 + rnd.IntN(6) {
				n := min(1+rnd.IntN(1+rnd.IntN(len(text)/4)), len(text)-at)
				appendTo(t, path, text[at:at+n])
				at += n
				if seen := len(r.records()); rnd.IntN(2) == 0 {
					poll(func() bool { return len(r.records()) > seen })
				}
			}
			if at == len(text) {
				until(t, "the last record", func() bool {
					all := r.records()
					return len(all) > 0 && all[len(all)-1].offset == want[len(want)-1].offset
				})
			}
			stop()
			a.crash()
		}
		got := unique(t, r.records())
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d records, want %d; %s", seed, len(got), len(want), firstDifference(got, want))
		}
	}
}

// poll waits for a short time.
func poll(ok func() bool) {
	limit := time.NewTimer(50 * time.Millisecond)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit.C:
			return
		case <-tick.C:
		}
	}
}

// unique drops what was sent again after a restart: it must be the very same.
func unique(t testing.TB, all []told) (first []told) {
	t.Helper()
	seen := map[int64]told{}
	for _, x := range all {
		if old, ok := seen[x.offset]; !ok {
			seen[x.offset] = x
			first = append(first, x)
		} else if old != x {
			t.Errorf("sent again: %+v, was %+v", x, old)
		}
	}
	slices.SortFunc(first, func(a, b told) int { return int(a.offset - b.offset) })
	return first
}

func firstDifference(a, b []told) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("at %d\n%+v\nwant\n%+v", i, a[i], b[i])
		}
	}
	return "one is shorter"
}

var _ plugins.Sink = (*recorder)(nil)
