//go:build blackbox

package scripts

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The kill tests (C01): SIGKILL at random byte positions of the output, while the logs grow, and nothing may be missing or
// double in the file afterwards. The input is throttled by its writers, so that many checkpoints fall in a run.

const killsPerRun = 6

func TestC01KillNineLosesAndDoublesNothing(t *testing.T) {
	killSeeds(t, killCase{streams: 1})
}

func TestC01KillNineWithFourStreamsIntoOneFileLosesAndDoublesNothing(t *testing.T) {
	killSeeds(t, killCase{streams: 4})
}

// TestC01KillNineWhileTheOutputRotatesLosesAndDoublesNothing has the output put files aside and compress them all the while.
func TestC01KillNineWhileTheOutputRotatesLosesAndDoublesNothing(t *testing.T) {
	killSeeds(t, killCase{streams: 2, rotate: true})
}

type killCase struct {
	streams int
	rotate  bool
}

func killSeeds(t *testing.T, c killCase) {
	total := int64(number(t, "STACKTRAIL_KILL_MB", 40)) * 1e6
	for seed := range number(t, "STACKTRAIL_SEEDS", 5) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { killRun(t, uint64(seed), c, total) })
	}
}

func killRun(t *testing.T, seed uint64, c killCase, total int64) {
	rnd := seeded(seed<<8 | uint64(c.streams))
	b := newBox(t)
	s := setup{}
	if c.rotate {
		s.output = fmt.Sprintf("file: {path: %q, rotate: {size: %d, keep: 1000, compress: gzip}}", b.out, total/10)
	}
	b.write(s)
	out := sampleOutput(t)
	// From 8 MB/s on, a run takes about 5 seconds without its kills; big ones about 20.
	rate := max(8e6, total/20)

	k := &killer{t: t, b: b, rnd: rnd, rotate: c.rotate}
	var writers []*writer
	var writing sync.WaitGroup
	stop, written := make(chan struct{}), make(chan struct{})
	// The throttle holds after a start too: nobody writes on while the agent is further behind than it would be without kills.
	window := out.of(rate/10, rate/10/out.line)
	ahead := func() bool {
		var bytes, lines int64
		for _, w := range writers {
			bytes, lines = bytes+w.written.Load(), lines+w.numbers.Load()
		}
		return out.of(bytes, lines) > k.progress.Load()+window
	}
	for i := range c.streams {
		writers = append(writers, newWriter(t, b.log(fmt.Sprintf("api-%d.log", i)), i))
	}
	for _, w := range writers {
		writing.Go(func() { w.pace(total/int64(c.streams), rate/int64(c.streams), ahead, stop) })
	}
	go func() {
		writing.Wait()
		close(written)
	}()
	t.Cleanup(func() {
		close(stop)
		<-written
	})

	for _, at := range positions(rnd, out.of(total, total/out.line)) {
		k.life(fmt.Sprintf("the output holds %d bytes", at), func(length int64) bool { return length >= at })
	}
	k.early()
	k.life("everything is written", func(int64) bool {
		select {
		case <-written:
			return true
		default:
			return false
		}
	})
	throttled := len(k.cuts)
	// Once more without the throttle: with a backlog writes are large, and a kill is likely to tear one.
	for range 3 {
		before := k.length()
		for _, w := range writers {
			w.bytes(8e6 / int64(c.streams))
		}
		at := before + int64(0.9*float64(out.of(8e6, 8e6/out.line))*rnd.Float64()) // what comes is estimated
		k.life(fmt.Sprintf("the output holds %d bytes", at), func(length int64) bool { return length >= at })
	}
	r := b.once()
	if r.code != 0 {
		t.Fatalf("the last start ended with code %d", r.code)
	}
	k.cuts = append(k.cuts, cutBytes(r.errors))
	v := verify(t, writers, b.outputs()...)
	in := int64(0)
	for _, w := range writers {
		in += w.written.Load()
	}
	t.Logf("%d records, %s in, %s out in %d files; %d kills, %d of them within a line, %d snapshots, at most %d bytes between two, cut: %v bytes",
		v.records, mb(in), mb(k.length()), len(b.outputs()), k.kills, k.torn, k.snapshots, k.most, k.cuts)
	if k.snapshots < 10 {
		t.Errorf("only %d snapshots with a new length fell in the run, want 10 or more", k.snapshots)
	}
	if slices.Max(k.cuts) == 0 {
		t.Error("no start had anything to cut off: the kills hit nothing")
	}
	if c.rotate {
		return // the checkpoint tells the length of the newest file alone
	}
	for _, n := range k.cuts[:throttled+1] { // the next start cuts what the last kill left
		if n > 2*k.most {
			t.Errorf("a start cut %d bytes off, more than twice the most between two snapshots (%d)", n, k.most)
		}
	}
}

// positions are the places in the output at which to kill.
func positions(rnd *rand.Rand, expected int64) []int64 {
	var p []int64
	for range killsPerRun {
		p = append(p, int64(float64(expected)*(0.03+0.9*rnd.Float64())))
	}
	slices.Sort(p)
	return p
}

// killer starts the agent again and again, ends it in the middle, and watches its checkpoint.
type killer struct {
	t        testing.TB
	b        *box
	rnd      *rand.Rand
	rotate   bool
	progress atomic.Int64 // length of the output

	kills, snapshots int
	torn             int   // kills that left part of a line at the end
	most             int64 // output between two completed snapshots
	cuts             []int64
	atKill, known    int64 // length of the output at the last kill, and what the checkpoint said then
	certain          bool  // the two hold for the next start
}

// life runs the agent until something is the case, and kills it there.
func (k *killer) life(what string, until func(length int64) bool) {
	k.t.Helper()
	a := k.b.start()
	started, last := false, int64(-1)
	var seen os.FileInfo
	reached := poll(500*time.Microsecond, patience, func() bool {
		if a.ended() {
			return true
		}
		if fi, err := os.Stat(filepath.Join(k.b.state(), "checkpoint")); err == nil && (seen == nil || !os.SameFile(fi, seen) || !fi.ModTime().Equal(seen.ModTime())) {
			seen = fi
			if c, err := k.b.readCheckpoint(); err == nil && c.known {
				if last >= 0 && c.length > last {
					k.snapshots++
					k.most = max(k.most, c.length-last)
				}
				last = c.length
			}
		}
		if !started {
			started = strings.Contains(a.text(), "msg=started")
			return false
		}
		length := k.length()
		k.progress.Store(length)
		return until(length)
	})
	a.alive()
	if !reached {
		k.t.Fatalf("the output stands at %d bytes and it never happened that %s", k.length(), what)
	}
	a.kill()
	k.kills++
	n := a.cutBytes()
	k.cuts = append(k.cuts, n)
	if !k.rotate && k.certain && n != k.atKill-k.known {
		k.t.Errorf("start %d says to have cut %d bytes; the file had %d, the checkpoint knew of %d", k.kills, n, k.atKill, k.known)
	}
	// A token that does not list the file was taken before this life touched it: the file is cut to what it was at the start.
	k.known = k.atKill - n
	k.atKill, k.certain = size(k.b.out), true
	if c, err := k.b.readCheckpoint(); err == nil && c.known {
		k.known = c.length
	}
	if k.atKill > 0 && torn(k.t, k.b.out) {
		k.torn++
	}
}

// early kills the agent at some moment of its start. Nobody knows then whether the output was cut back by it.
func (k *killer) early() {
	a := k.b.start()
	limit := time.Duration(k.rnd.IntN(40)) * time.Millisecond
	poll(500*time.Microsecond, limit, a.ended)
	a.alive()
	a.kill()
	k.kills++
	k.cuts = append(k.cuts, a.cutBytes())
	k.certain = false
}

// length is how much output there is, whatever file it stands in.
func (k *killer) length() (n int64) {
	if !k.rotate {
		return size(k.b.out)
	}
	for _, p := range k.b.outputs() {
		if strings.HasSuffix(p, ".gz") {
			n += unpacked(p)
		} else {
			n += size(p)
		}
	}
	return n
}

// unpacked returns how long the content of a .gz file is, from its last bytes.
func unpacked(path string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	var b [4]byte
	if _, err := f.ReadAt(b[:], max(0, size(path)-4)); err != nil {
		return 0
	}
	return int64(binary.LittleEndian.Uint32(b[:]))
}

// torn reports whether a file ends within a line.
func torn(t testing.TB, path string) bool {
	t.Helper()
	f := must[*os.File](t)(os.Open(path))
	defer f.Close()
	end := make([]byte, 1)
	_, err := f.ReadAt(end, size(path)-1)
	ok(t, err)
	return end[0] != '\n'
}

// ratio says how much output comes of input: each record is longer by the same, more or less.
type ratio struct {
	line  int64   // bytes of a line, on average
	extra float64 // by how much a record is longer than its line, on average
}

func (r ratio) of(bytes, lines int64) int64 { return bytes + int64(float64(lines)*r.extra) }

// sampleOutput finds it out.
func sampleOutput(t *testing.T) ratio {
	t.Helper()
	const lines = 20_000
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("sample.log"), 0)
	w.lines(lines)
	if r := b.once(); r.code != 0 {
		t.Fatalf("code %d", r.code)
	}
	verify(t, []*writer{w}, b.out)
	in := w.written.Load()
	return ratio{line: in / lines, extra: float64(size(b.out)-in) / lines}
}

// TestC03CheckpointThatIsDamagedFallsBackToTheOneBefore kills the agent, damages the newest checkpoint in every way, and expects
// the output to be exact all the same: the files are cut back to what the older one knows. (C03)
func TestC03CheckpointThatIsDamagedFallsBackToTheOneBefore(t *testing.T) {
	for name, damage := range map[string]func(p []byte) []byte{
		"zeroed":                               func(p []byte) []byte { return make([]byte, len(p)) },
		"truncated":                            func(p []byte) []byte { return p[:len(p)/2] },
		"empty":                                func([]byte) []byte { return nil },
		"flipped":                              func(p []byte) []byte { p[len(p)/2] ^= 4; return p },
		"flipped, while the output compresses": func(p []byte) []byte { p[len(p)/2] ^= 4; return p },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			var s setup
			if strings.Contains(name, "compresses") {
				s.output = fmt.Sprintf("file: {path: %q, rotate: {size: 40000, keep: 1000, compress: gzip}}", b.out)
			}
			b.write(s)
			w := newWriter(t, b.log("api.log"), 1)
			stop := make(chan struct{})
			var writing sync.WaitGroup
			writing.Go(func() { w.pace(3e6, 3e6, nil, stop) })
			a := b.start()
			if s.output == "" {
				arrive(t, a, b.out, 1500)
			} else {
				writing.Wait()
				waitFor(t, "everything is compressed", func() bool { return size(numbered(b.out, 40)+".gz") > 0 && size(numbered(b.out, 1)+".gz") > 0 })
			}
			a.kill()
			close(stop)
			writing.Wait()
			path := filepath.Join(b.state(), "checkpoint")
			p, err := os.ReadFile(path)
			ok(t, err)
			ok(t, os.WriteFile(path, damage(p), 0o640))
			if r := b.once(); r.code != 0 || !strings.Contains(r.errors, "checkpoint is damaged") {
				t.Errorf("code %d:\n%s", r.code, r.errors)
			}
			verify(t, []*writer{w}, b.outputs()...)
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Errorf("the damaged checkpoint was not set aside: %v", err)
			}
		})
	}
}

// TestTermInTheMiddleLosesAndDoublesNothing stops cleanly under load, several times. (H06)
func TestTermInTheMiddleLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() { w.pace(6e6, 3e6, nil, stop) })
	for i := range 4 {
		a := b.start()
		a.says("msg=started") // the output may be long enough from before
		arrive(t, a, b.out, (i+1)*1000)
		a.signal([]syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2])
		if code := a.wait(); code != 0 {
			t.Fatalf("exit code %d after a signal to stop", code)
		}
		if n := a.cutBytes(); n != 0 {
			t.Errorf("after a clean stop %d bytes were cut", n)
		}
	}
	writing.Wait()
	close(stop)
	if r := b.once(); r.code != 0 {
		t.Fatalf("code %d", r.code)
	}
	verify(t, []*writer{w}, b.out)
}
