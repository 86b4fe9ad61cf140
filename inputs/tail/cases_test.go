package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// compress does what gzip does to a file: it writes the compressed copy piece by piece beside it and removes it.
func compress(t testing.TB, path string) {
	t.Helper()
	compressAs(t, path, ".gz")
}

// flusher is a compressor.
type flusher interface {
	io.WriteCloser
	Flush() error
}

// compressAs compresses a file in the way of its new suffix, with its old time.
func compressAs(t testing.TB, path, suffix string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	fi, err := os.Stat(path)
	must(t, err)
	f, err := os.Create(path + suffix)
	must(t, err)
	var z flusher = gzip.NewWriter(f)
	if suffix == ".zst" {
		z, err = zstd.NewWriter(f)
		must(t, err)
	}
	for len(data) > 0 {
		n := min(len(data), 32<<10)
		_, err = z.Write(data[:n])
		must(t, err)
		must(t, z.Flush())
		data = data[n:]
	}
	must(t, z.Close())
	must(t, f.Close())
	must(t, os.Chtimes(path+suffix, fi.ModTime(), fi.ModTime()))
	must(t, os.Remove(path))
}

func TestCompressingAFullyReadFileGivesNothingNew(t *testing.T) { // R10
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path + "*")
	r := start(t, a, c)
	appendTo(t, path, textOf(0, 3000))
	until(t, "first lines", has(a, 3000))
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(3000, 3100))
	until(t, "lines after rotation", has(a, 3100))
	until(t, "rotated file drained", func() bool { return a.drained() == 1 })
	compress(t, path+".1")
	must(t, os.Rename(path+".1.gz", path+".2.gz"))
	appendTo(t, path, textOf(3100, 3200))
	until(t, "lines after compression", has(a, 3200))
	r.stop()
	a.crash()
	// Nor after a restart, nor when the state of the drained file has to be proved by its content.
	start(t, a, c)
	appendTo(t, path, textOf(3200, 3210))
	until(t, "lines after restart", has(a, 3210))
	wantLines(t, a, 3210)
	if n := len(a.streams); n != 2 {
		t.Errorf("%d streams, want 2", n)
	}
	if n := len(a.events); n != 3210 {
		t.Errorf("%d events arrived, want 3210", n)
	}
}

func TestALineInTwoPiecesIsOneEvent(t *testing.T) { // R19
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	start(t, a, testConfig(path))
	appendTo(t, path, "first\nsecond, begi")
	until(t, "first line", has(a, 1))
	for range 5 { // many wake-ups in between
		must(t, os.Chtimes(path, time.Now(), time.Now()))
		appendTo(t, path, ".")
	}
	appendTo(t, path, "nning and end\nthird\n")
	until(t, "all lines", has(a, 3))
	if got := a.texts(); got[1] != "second, begi.....nning and end" || got[2] != "third" {
		t.Errorf("got %q", got)
	}
	if a.all()[1].truncated {
		t.Error("flagged as truncated")
	}
}

func TestALastLineWithoutNewlineIsARecordAfterRotationAndLaterBytesAreAnother(t *testing.T) { // R20
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	r := start(t, a, c)
	appendTo(t, path, "first\nsecond wi")
	until(t, "first line", has(a, 1))
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, "thout end\n")
	until(t, "all records", has(a, 3))
	appendTo(t, path+".1", "late\nlater\n")
	until(t, "late records", has(a, 5))
	got := a.all()
	want := map[string]bool{"first": false, "second wi": true, "thout end": false, "late": false, "later": false}
	for _, g := range got {
		if cut, ok := want[g.text]; !ok || cut != g.truncated {
			t.Errorf("unexpected %+v", g)
		}
	}
	r.stop()
	// A replay over the cut finds the same records.
	var k plugins.Stream
	for _, s := range a.Known() {
		if s.Name == got[0].stream {
			k = s
		}
	}
	again := newFakeAgent(t)
	again.sent[k.Name] = event.Position{}
	must(t, newInput(t, again, c, false).Replay(context.Background(), k, event.Position{}, k.Start, again))
	var mine []got2
	for _, g := range got {
		if g.stream == k.Name {
			mine = append(mine, got2(g))
		}
	}
	for i, g := range again.all() {
		if i >= len(mine) || got2(g) != mine[i] {
			t.Errorf("replayed %d: %+v", i, g)
		}
	}
	if len(again.all()) != len(mine) {
		t.Errorf("replayed %d records of %d", len(again.all()), len(mine))
	}
}

type got2 got

func TestAHugeLineIsCutAndItsNeighboursArrive(t *testing.T) { // R21
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.pool = event.NewPool(2 << 20)
	start(t, a, testConfig(path))
	appendTo(t, path, textOf(0, 100))
	chunk := strings.Repeat("y", 1<<20)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	for range 50 {
		_, err = f.WriteString(chunk)
		must(t, err)
	}
	until(t, "lines before", has(a, 100))
	_, err = f.WriteString("\n" + textOf(100, 200))
	must(t, err)
	until(t, "lines after", has(a, 201))
	cut := a.all()[100]
	if !cut.truncated || len(cut.text) != 256<<10 || a.count("truncated", "") != 1 {
		t.Errorf("cut line: %d bytes, truncated %v, counted %d", len(cut.text), cut.truncated, a.count("truncated", ""))
	}
	a.mu.Lock()
	a.events = slices.DeleteFunc(a.events, func(g got) bool { return len(g.text) > 1000 })
	a.mu.Unlock()
	wantLines(t, a, 200)
	if _, peak := a.pool.Usage(); peak > 3<<20 {
		t.Errorf("the pool's peak is %d bytes", peak)
	}
}

func TestOddBytesNeverStopAFile(t *testing.T) { // R22
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	start(t, a, testConfig(path))
	appendTo(t, path, "crlf\r\n\n\r\na\x00b\n\xff\xfe bad\n\xef\xbb\xbfbom\n\x00\x00\x00\n"+strings.Repeat("\x00", 5000)+"\nlast\n")
	until(t, "all lines", func() bool { return slices.Contains(a.texts(), "last") })
	got := a.texts()
	for _, want := range []string{"crlf", "a\x00b", "\xff\xfe bad", "\xef\xbb\xbfbom", "last"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if n := a.count("skipped", "empty"); n != 2 {
		t.Errorf("%d empty lines counted, want 2", n)
	}
	if a.count("lines", "") != 9 {
		t.Errorf("%d lines counted, want 9", a.count("lines", ""))
	}
}

func TestEmptyFilesAndGlobsWithoutAMatchAreWaitedFor(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path, "")
	start(t, a, testConfig(path, filepath.Join(dir, "later", "**", "*.log")))
	until(t, "the empty file to be known", func() bool { return len(a.Known()) == 1 })
	must(t, os.MkdirAll(filepath.Join(dir, "later", "deep", "er"), 0o755))
	appendTo(t, filepath.Join(dir, "later", "deep", "er", "y.log"), textOf(0, 3))
	until(t, "file in a new folder", has(a, 3))
	appendTo(t, path, textOf(3, 5))
	until(t, "file that was empty", has(a, 5))
	wantLines(t, a, 5)
}

func TestTwinsAreTwoStreams(t *testing.T) { // R13
	t.Parallel()
	dir := t.TempDir()
	a := newFakeAgent(t)
	banner := strings.Repeat("same beginning ", 100) + "\n"
	n := 0
	for i := range 20 {
		appendTo(t, filepath.Join(dir, fmt.Sprintf("f%d.log", i)), banner+textOf(n, n+50))
		appendTo(t, filepath.Join(dir, fmt.Sprintf("f%d.log.1", i)), banner+textOf(n+50, n+100))
		n += 100
	}
	r := start(t, a, testConfig(filepath.Join(dir, "*.log*")))
	until(t, "all lines", has(a, n+40))
	r.stop()
	a.crash()
	start(t, a, testConfig(filepath.Join(dir, "*.log*")))
	appendTo(t, filepath.Join(dir, "f0.log"), textOf(n, n+1))
	until(t, "one more line", has(a, n+41))
	a.mu.Lock()
	a.events = slices.DeleteFunc(a.events, func(g got) bool { return g.text == strings.TrimSpace(banner) || g.text+"\n" == banner })
	streams := len(a.streams)
	a.mu.Unlock()
	wantLines(t, a, n+1)
	if streams != 40 {
		t.Errorf("%d streams, want 40", streams)
	}
}

func TestLinksToOneFileAreOneStream(t *testing.T) { // R16
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path, textOf(0, 10))
	must(t, os.Link(path, filepath.Join(dir, "a.log")))
	must(t, os.Symlink(path, filepath.Join(dir, "b.log")))
	c := testConfig(filepath.Join(dir, "*.log"))
	start(t, a, c)
	until(t, "old lines", has(a, 10))
	appendTo(t, path, textOf(10, 20))
	until(t, "new lines", has(a, 20))
	must(t, os.Remove(filepath.Join(dir, "a.log")))
	appendTo(t, path, textOf(20, 30))
	until(t, "lines after a link is gone", has(a, 30))
	wantLines(t, a, 30)
	if n := len(a.events); n != 30 {
		t.Errorf("%d events arrived, want 30", n)
	}
}

func TestASymlinkIsFollowedToEachOfItsTargets(t *testing.T) { // R15
	t.Parallel()
	dir := t.TempDir()
	other := t.TempDir()
	a := newFakeAgent(t)
	link := filepath.Join(dir, "cur.log")
	start(t, a, testConfig(link))
	for i := range 10 {
		target := filepath.Join(other, fmt.Sprintf("t%d", i))
		appendTo(t, target, textOf(i*10, i*10+5))
		tmp := filepath.Join(dir, "tmp")
		must(t, os.Symlink(target, tmp))
		must(t, os.Rename(tmp, link))
		until(t, "lines of target", has(a, i*10+5))
		appendTo(t, target, textOf(i*10+5, i*10+10))
		until(t, "more lines of target", has(a, i*10+10))
	}
	wantLines(t, a, 100)
}

func TestARemovedFileIsReadThroughItsDescriptor(t *testing.T) { // R03
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.gate = make(chan struct{})
	appendTo(t, path, textOf(0, 9000))
	start(t, a, testConfig(path))
	a.gate <- struct{}{}
	must(t, os.Rename(path, path+".1"))
	must(t, os.Remove(path+".1"))
	appendTo(t, path, textOf(9000, 9100))
	close(a.gate)
	until(t, "all lines", has(a, 9100))
	wantLines(t, a, 9100)
}

func TestAFileThatCannotBeReadIsNamedAndTriedAgain(t *testing.T) { // R27, R28
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	other := filepath.Join(dir, "y.log")
	appendTo(t, path, textOf(0, 10))
	appendTo(t, other, textOf(10, 20))
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), false)
	var broken atomic.Bool
	broken.Store(true)
	real := in.fs.open
	in.fs.open = func(p string) (*os.File, error) {
		if p == path && broken.Load() {
			return nil, &os.PathError{Op: "open", Path: p, Err: syscall.EACCES}
		}
		return real(p)
	}
	startInput(t, a, in)
	until(t, "the other file", has(a, 10))
	until(t, "the fault", func() bool { return strings.Contains(a.fault(path), "permission denied") })
	broken.Store(false)
	until(t, "all lines", has(a, 20))
	until(t, "no fault", func() bool { return a.fault(path) == "" })
	wantLines(t, a, 20)
}

func TestLossIsCountedByRange(t *testing.T) { // B04
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.gate = make(chan struct{})
	text := textOf(0, 9000)
	appendTo(t, path, text)
	r := start(t, a, testConfig(path))
	a.gate <- struct{}{}
	until(t, "a batch", has(a, 1))
	r.stop()
	close(a.gate)
	var read int64
	for _, p := range a.acked {
		read = p.Seq
	}
	a.crash()
	must(t, os.Remove(path))
	appendTo(t, path, textOf(20000, 20010))
	for i := range 2 { // a restart does not count it again
		r := start(t, a, testConfig(path))
		until(t, "the new file", func() bool { return slices.Contains(a.texts(), line(20009+i)) })
		until(t, "the old one to be given up", func() bool { return a.drained() == 1 })
		r.stop()
		a.crash()
		appendTo(t, path, textOf(20010+i, 20011+i))
	}
	if n := a.count("lost_bytes", "gone"); n != int64(len(text))-read {
		t.Errorf("%d bytes counted as lost, want %d", n, int64(len(text))-read)
	}
}

func TestRestartsAndRotationsAtRandomMomentsLoseAndDoubleNothing(t *testing.T) { // C01, R08, R09
	t.Parallel()
	for _, style := range []string{"rename", "copytruncate"} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(style, seed), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(seed, 1))
				_, path := file1(t)
				paths := path
				if seed%2 == 1 {
					paths = path + "*"
				}
				a := newFakeAgent(t)
				a.ack, a.ackSome = false, rand.New(rand.NewPCG(seed, 2))
				c := testConfig(paths)
				n := 0
				rotate := func() {
					for i := 60; i > 1; i-- {
						_ = os.Rename(fmt.Sprintf("%s.%d.gz", path, i), fmt.Sprintf("%s.%d.gz", path, i+1))
					}
					if _, err := os.Stat(path + ".1"); err == nil {
						must(t, os.Rename(path+".1", path+".2"))
						compress(t, path+".2")
					}
					if style == "rename" {
						must(t, os.Rename(path, path+".1"))
						appendTo(t, path, "")
						return
					}
					copyTruncate(t, path, path+".1", "")
				}
				defer func() {
					if t.Failed() {
						wantLines(t, a, n)
						for _, s := range a.Known() {
							t.Logf("%s drained %v at %d meta %s", s.Name[:8], s.Drained, s.Start.Seq, s.Meta)
						}
					}
				}()
				for range 6 {
					t.Log("start")
					r := start(t, a, c)
					for range 1 + rnd.IntN(4) {
						k := 1 + rnd.IntN(3000)
						appendTo(t, path, textOf(n, n+k))
						n += k
						t.Logf("append %d..%d", n-k, n)
						at := len(a.all())
						until(t, "some lines", has(a, min(n, at+1)))
						if rnd.IntN(3) == 0 {
							until(t, "all lines before the rotation", has(a, n))
							t.Log("rotate")
							rotate()
						}
					}
					if rnd.IntN(2) == 0 {
						until(t, "all lines", has(a, n))
					}
					r.stop()
					a.crash()
					for range rnd.IntN(3) { // rotations while nobody looks
						k := 1 + rnd.IntN(1000)
						appendTo(t, path, textOf(n, n+k))
						n += k
						t.Logf("down: append to %d, rotate", n)
						rotate()
					}
				}
				start(t, a, c)
				until(t, "all lines", has(a, n))
				wantLines(t, a, n)
				if lost := a.count("lost_bytes", "gone"); lost != 0 {
					t.Errorf("%d bytes counted as lost", lost)
				}
			})
		}
	}
}

func TestReplayGivesTheSameRecordsFromWhereverTheFileLies(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	c.MaxLine = 2000
	r := start(t, a, c)
	appendTo(t, path, textOf(0, 2000)+strings.Repeat("z", 400000)+"\n\r\n\n"+textOf(2000, 4000))
	until(t, "all lines", has(a, 4001))
	r.stop()
	k := a.Known()[0]
	live := a.all()
	check := func(where string) {
		t.Helper()
		in := newInput(t, newFakeAgent(t), c, false)
		must(t, in.CanReplay(context.Background(), k, k.Start))
		again := newFakeAgent(t)
		again.sent[k.Name] = event.Position{}
		must(t, in.Replay(context.Background(), k, event.Position{}, k.Start, again))
		if !slices.Equal(again.all(), live) {
			t.Errorf("%s: %d records replayed, %d were read", where, len(again.all()), len(live))
		}
		if again.sent[k.Name] != k.Start {
			t.Errorf("%s: replay ended at %v, not at %v", where, again.sent[k.Name], k.Start)
		}
	}
	check("in place")
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(0, 1)+"but something else\n")
	check("rotated")
	compress(t, path+".1")
	check("compressed")
	must(t, os.Remove(path+".1.gz"))
	in := newInput(t, newFakeAgent(t), c, false)
	err := in.CanReplay(context.Background(), k, k.Start)
	if !errors.Is(err, plugins.ErrGone) || !strings.Contains(err.Error(), "none of 1 files holds it") {
		t.Errorf("CanReplay of a removed file: %v", err)
	}
}

func TestOpenCanReplayFromTheReadersOwnGoroutine(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	appendTo(t, path, textOf(0, 500))
	r := start(t, a, c)
	until(t, "first lines", has(a, 500))
	r.stop()
	a.crash()
	in := newInput(t, a, c, false)
	laggard := newFakeAgent(t)
	a.replay = func(k plugins.Stream) error {
		laggard.sent[k.Name] = event.Position{}
		return in.Replay(context.Background(), k, event.Position{}, a.acked[k.Name], laggard)
	}
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(500, 510))
	a.mu.Lock()
	first := a.events[0].stream
	a.mu.Unlock()
	old := a.replay
	a.replay = func(k plugins.Stream) error {
		if k.Name != first {
			return nil
		}
		return old(k)
	}
	startInput(t, a, in)
	until(t, "all lines", has(a, 510))
	wantLines(t, laggard, 500)
	wantLines(t, a, 510)
}

func TestOnceReadsToTheEndAndLeavesAnUnfinishedLine(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	appendTo(t, path, textOf(100, 200)+"unfinis")
	appendTo(t, path+".1", textOf(0, 100))
	compress(t, path+".1")
	appendTo(t, filepath.Join(dir, "y.log"), "only a piece")
	a := newFakeAgent(t)
	runOnce(t, a, testConfig(filepath.Join(dir, "*.log*")))
	wantLines(t, a, 200)
	if got := a.texts(); got[0] != line(0) || got[100] != line(100) {
		t.Error("the older file does not come first")
	}
	if n := a.count("unterminated", ""); n != 2 {
		t.Errorf("%d unfinished lines reported, want 2", n)
	}
	c := testConfig(filepath.Join(dir, "*.log*"))
	c.Unterminated = "read"
	b := newFakeAgent(t)
	runOnce(t, b, c)
	if got := b.texts(); len(got) != 202 || !slices.Contains(got, "unfinis") || !slices.Contains(got, "only a piece") {
		t.Errorf("%d records", len(got))
	}
}

func TestADamagedCompressedFileIsNamedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	appendTo(t, path+".1", textOf(0, 20000))
	compress(t, path+".1")
	data, err := os.ReadFile(path + ".1.gz")
	must(t, err)
	must(t, os.WriteFile(path+".1.gz", data[:len(data)/2], 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "x.log.2.gz"), []byte("this is no gzip at all"), 0o644))
	appendTo(t, path+".3", textOf(40000, 40010))
	compressAs(t, path+".3", ".zst")
	data, err = os.ReadFile(path + ".3.zst")
	must(t, err)
	data[len(data)-1] ^= 1 // the checksum
	must(t, os.WriteFile(path+".3.zst", data, 0o644))
	appendTo(t, path, textOf(30000, 30010))
	a := newFakeAgent(t)
	start(t, a, testConfig(path+"*"))
	until(t, "the good file", func() bool { return slices.Contains(a.texts(), line(30009)) })
	until(t, "the fault", func() bool { return strings.Contains(a.fault(path+".1.gz"), "incomplete") })
	until(t, "the other fault", func() bool { return strings.Contains(a.fault(path+".2.gz"), "invalid header") })
	until(t, "the fault of zstd", func() bool { return strings.Contains(a.fault(path+".3.zst"), "damaged") })
	if got := a.texts(); len(got) < 5000 || got[0] != line(0) {
		t.Errorf("only %d records", len(got))
	}
}

func TestStartSaysWhereToBegin(t *testing.T) { // R30
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path, textOf(0, 10)+"unfinis")
	appendTo(t, path+".1", textOf(500, 510))
	c := testConfig(path + "*")
	c.Start = "end"
	r := start(t, a, c)
	until(t, "the streams", func() bool { return len(a.Known()) == 2 })
	appendTo(t, path, "hed\n"+textOf(10, 12))
	until(t, "new lines", has(a, 3))
	later := filepath.Join(filepath.Dir(path), "x.log-later") // of a lineage of its own
	appendTo(t, later, "first\n")
	until(t, "a file that appears later", has(a, 4))
	r.stop()
	a.crash()
	appendTo(t, path, textOf(12, 14))
	start(t, a, c)
	until(t, "lines written meanwhile", has(a, 6))
	if got := a.texts(); got[0] != "unfinished" || got[1] != line(10) || got[5] != line(13) {
		t.Errorf("got %q", got)
	}
	b := newFakeAgent(t)
	_, path = file1(t)
	appendTo(t, path, access("01")+access("02")+access("03"))
	c = testConfig(path)
	c.Start = "2026-01-02T00:00:00Z"
	start(t, b, c)
	until(t, "records", has(b, 2))
	if n := b.count("skipped", "before_start"); n != 1 {
		t.Errorf("%d records skipped, want 1", n)
	}
}

func TestR30AStartTimeReachesIntoRotatedFiles(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	write := func(suffix, day string, n int) {
		appendTo(t, path+suffix, strings.Repeat(access(day), n))
		at, err := time.Parse(time.DateOnly, "2026-01-"+day)
		must(t, err)
		at = at.Add(20 * time.Hour)
		must(t, os.Chtimes(path+suffix, at, at))
	}
	write(".4", "01", 1)
	write(".3", "02", 2)
	compress(t, path+".3")
	write(".2", "03", 4)
	compressAs(t, path+".2", ".zst")
	write(".1", "04", 8)
	write("", "05", 16)
	a := newFakeAgent(t)
	c := testConfig(path)
	c.Start = "2026-01-03T00:00:00Z"
	r := start(t, a, c)
	until(t, "records", has(a, 28))
	until(t, "the rotated files to be done", func() bool { return a.drained() == 2 })
	r.stop()
	a.crash()
	appendTo(t, path, access("06"))
	start(t, a, c)
	until(t, "a later start to go on", has(a, 29))
	if got := a.texts(); !strings.Contains(got[0], "03/Jan") || !strings.Contains(got[4], "04/Jan") || len(got) != 29 {
		t.Errorf("%d records, the first: %q", len(got), got[0])
	}
}

func access(day string) string {
	return `192.0.2.1 - - [` + day + `/Jan/2026:10:00:00 +0000] "GET /v3/users HTTP/1.1" 200 310 "-" "curl/8"` + "\n"
}

func TestConfigFaultsAreNamed(t *testing.T) {
	t.Parallel()
	c := testConfig("relative.log", "/var/log/[a-.log", "/var/log/")
	c.Exclude = []string{"[x"}
	c.Start, c.Timezone, c.Format = "yesterday", "Mars/Olympus", "nova-evntlet"
	err := errors.Join(c.Validate(), c.Config.Validate())
	for _, want := range []string{
		"paths[0]: ", "paths[1]: ", "paths[2]: ", "exclude[0]: ", "start: ", "timezone: unknown time zone", "format: ", "nova-eventlet",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	c = testConfig("/var/log/{nova,cinder}/**/*.log")
	c.Exclude = []string{"*-debug.log", "/var/log/nova/old/**"}
	for path, want := range map[string]bool{
		"/var/log/nova/a.log": true, "/var/log/cinder/x/y/a.log": true, "/var/log/glance/a.log": false,
		"/var/log/nova/a-debug.log": false, "/var/log/nova/old/x/a.log": false,
	} {
		if c.Follows(path) != want {
			t.Errorf("Follows(%s) is %v", path, !want)
		}
	}
}

func TestRotationNames(t *testing.T) {
	t.Parallel()
	for name, stem := range map[string]string{
		"x.log": "x.log", "x.log.1": "x.log", "x.log.2.gz": "x.log", "x.log-20260101": "x.log", "x.log-20260101.gz": "x.log",
		"x.log-2026010113": "x.log", "x.log-20260101-1700000000": "x.log", "x.log-20260101-1700000000.gz": "x.log", "x.log.2.zst": "x.log",
		"x.log.gz": "x.log", "x-12345678.log": "x-12345678.log", "x.log-99999999": "x.log-99999999", ".1": ".1", "-20260101": "-20260101",
		"x.log.123456": "x.log.123456", ".gz": ".gz", ".old": ".old",
		"x.log.2026-11-21": "x.log", "x.log.2026-11-21_13-05-22": "x.log", "x.log-20261121130522": "x.log", "x.log-20261121-1305": "x.log",
		"x.log-2026-11-21": "x.log", "x.log.old": "x.log", "x.log.2026-11-21.gz": "x.log", "x.log.2026-11-21_13-05-22.gz": "x.log",
		"x.log-20261121130522.gz": "x.log", "x.log-20261121-1305.gz": "x.log", "x.log-2026-11-21.gz": "x.log", "x.log.old.gz": "x.log",
		"x.log.20261121": "x.log", "x.log.2026-11-21_13": "x.log", "x.log-20261121T13:05:22": "x.log", "x.log.0": "x.log",
		"x.log-2026-11-2": "x.log-2026-11-2", "x.log-2026-13-21": "x.log-2026-13-21", "x.log-20261121-2505": "x.log-20261121-2505",
		"x.log-20261121-": "x.log-20261121-", "x-2026-11-21.log": "x-2026-11-21.log", "2026-11-21": "2026-11-21", "x.log-20261121-130": "x.log-20261121-130",
		"x.log-20261121-13-05:22": "x.log-20261121-13-05:22", "x.log.older": "x.log.older",
	} {
		if got := rotationOf(name).stem; got != stem {
			t.Errorf("%s: stem %s, want %s", name, got, stem)
		}
	}
	for _, pair := range [][2]string{
		{"/x.log.2.gz", "/x.log.1"},
		{"/x.log.1", "/x.log"},
		{"/x.log-20260101", "/x.log-20260102.gz"},
		{"/x.log-20260101-1700000000", "/x.log-20260101-1700000001"},
		{"/x.log.1", "/x.log.0"},
		{"/x.log.old", "/x.log"},
		{"/x.log.2026-11-20", "/x.log.2026-11-21.gz"},
		{"/x.log-20261121", "/x.log-2026112101"},
		{"/x.log-20261121-1305", "/x.log-20261121-1306"},
		{"/x.log-20261121130522", "/x.log-20261121-1306"},
		{"/x.log-20260131-1700000000", "/x.log-20260201"},
	} {
		if is, known := older(pair[0], pair[1]); !is || !known {
			t.Errorf("%s is not older than %s", pair[0], pair[1])
		}
	}
}

func TestAnInodeThatIsUsedAgainIsAnotherFile(t *testing.T) { // R12
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	n := 0
	for range 30 { // the agent sees each file, but not how it goes
		appendTo(t, path, textOf(n, n+10))
		n += 10
		r := start(t, a, c)
		until(t, "lines", has(a, n))
		r.stop()
		a.crash()
		must(t, os.Remove(path))
	}
	start(t, a, c)
	for range 12 { // and here neither
		appendTo(t, path, textOf(n, n+10))
		n += 10
		until(t, "lines", has(a, n))
		must(t, os.Remove(path))
	}
	wantLines(t, a, n)
}

func TestAFolderMayBeReplaced(t *testing.T) { // R17
	t.Parallel()
	dir := t.TempDir()
	logs := filepath.Join(dir, "logs")
	path := filepath.Join(logs, "x.log")
	must(t, os.Mkdir(logs, 0o755))
	a := newFakeAgent(t)
	appendTo(t, path, textOf(0, 10))
	start(t, a, testConfig(filepath.Join(logs, "*.log")))
	until(t, "first lines", has(a, 10))
	for i := range 5 {
		old := filepath.Join(dir, fmt.Sprint("old", i))
		must(t, os.Rename(logs, old))
		appendTo(t, filepath.Join(old, "x.log"), textOf(10+i*20, 20+i*20))
		must(t, os.Mkdir(logs, 0o755))
		appendTo(t, path, textOf(20+i*20, 30+i*20))
		until(t, "lines of both", has(a, 30+i*20))
	}
	wantLines(t, a, 110)
}

func TestR28AFileSystemThatFailsIsSaidOnceAndWaitedOut(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	a.log = &journal{}
	appendTo(t, path, textOf(0, 10))
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), false)
	var broken atomic.Bool
	var looks atomic.Int64
	in.fs.stat = func(p string) (os.FileInfo, error) {
		if broken.Load() {
			looks.Add(1)
			return nil, &os.PathError{Op: "stat", Path: p, Err: syscall.EIO}
		}
		return os.Stat(p)
	}
	startInput(t, a, in)
	until(t, "first lines", has(a, 10))
	broken.Store(true)
	until(t, "many looks", func() bool { return looks.Load() > 40 })
	if a.fault(dir) == "" {
		t.Error("that the folder cannot be looked at does not show")
	}
	broken.Store(false)
	until(t, "the fault to pass", func() bool { return a.fault(dir) == "" && a.fault(path) == "" })
	appendTo(t, path, textOf(10, 20))
	until(t, "lines after it", has(a, 20))
	wantLines(t, a, 20)
	if n := a.log.count("cannot be read"); n > 2 { // the folder, and perhaps the file
		t.Errorf("said %d times that something cannot be read", n)
	}
	if n := a.log.count("no file matches"); n != 0 {
		t.Error("said that no file matches, although nobody could look")
	}
}

func TestNotBeingAbleToLookIsNotGone(t *testing.T) { // R25, R28
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path, textOf(0, 10))
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), false)
	var broken atomic.Bool
	real := in.fs
	in.fs.readDir = func(p string) ([]os.DirEntry, error) {
		if broken.Load() {
			return nil, &os.PathError{Op: "open", Path: p, Err: syscall.EMFILE}
		}
		return real.readDir(p)
	}
	in.fs.stat = func(p string) (os.FileInfo, error) {
		if broken.Load() {
			return nil, &os.PathError{Op: "stat", Path: p, Err: syscall.EIO}
		}
		return real.stat(p)
	}
	startInput(t, a, in)
	until(t, "first lines", has(a, 10))
	broken.Store(true)
	until(t, "the fault", func() bool { return strings.Contains(a.fault(path), "input/output error") })
	for i := range 40 {
		appendTo(t, path, textOf(10+i, 11+i))
		until(t, "lines meanwhile", has(a, 11+i))
	}
	since := time.Now()
	until(t, "the grace to pass", func() bool { return time.Since(since) > 500*time.Millisecond })
	if n := a.drained(); n != 0 {
		t.Errorf("%d streams were given up", n)
	}
	broken.Store(false)
	until(t, "no fault", func() bool { return a.fault(path) == "" && a.fault(dir) == "" })
	appendTo(t, path, textOf(50, 51))
	until(t, "all lines", has(a, 51))
	wantLines(t, a, 51)
}

func TestATwinThatTookAFilesPlaceMeanwhileIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	banner := strings.Repeat("same beginning ", 150) + "\n"
	a := newFakeAgent(t)
	appendTo(t, path, banner+textOf(0, 200))
	r := start(t, a, testConfig(path))
	until(t, "first lines", has(a, 201))
	r.stop()
	a.crash()
	// In place, so that even the inode is the same.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = f.WriteString(banner + textOf(200, 600))
	must(t, err)
	must(t, f.Close())
	start(t, a, testConfig(path))
	until(t, "all lines", has(a, 602))
	a.mu.Lock()
	a.events = slices.DeleteFunc(a.events, func(g got) bool { return g.text+"\n" == banner })
	a.mu.Unlock()
	wantLines(t, a, 600)
}
