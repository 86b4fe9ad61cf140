//go:build blackbox

package scripts

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The rotations that happen on controller nodes (R01, R02, R04, R10, R19, R20), seen from outside, by a rotator of our own and by
// the real logrotate.

// load writes lines at some thousand a second until the function that it returns is called.
func load(w *writer) (end func()) {
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() { w.pace(1<<40, 2_000_000, nil, stop) }) // about 5,000 lines
	return func() {
		close(stop)
		writing.Wait()
	}
}

// settle waits until everything has arrived, stops the agent, and expects an exact copy.
func settle(t *testing.T, b *box, a *agent, writers ...*writer) verdict {
	t.Helper()
	n := 0
	for _, w := range writers {
		n += w.count()
	}
	arrive(t, a, b.out, n)
	a.stop()
	return verify(t, writers, b.out)
}

// renamers are the ways in which a log is rotated by renaming. Each reopens the writer afterwards.
func renamers(t *testing.T, b *box, w *writer) map[string]func() {
	plain := newLogrotate(t, b.dir, w.path, "nocompress", "nocreate")
	return map[string]func(){
		"own":       func() { ok(t, rename(w.path)); w.reopen() },
		"logrotate": func() { plain.rotate(); w.reopen() },
	}
}

func TestR01RenameRotationUnderLoad(t *testing.T) {
	for _, by := range []string{"own", "logrotate"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.write(setup{paths: []string{b.log("api.log*")}})
			w := newWriter(t, b.log("api.log"), 1)
			a := b.start()
			end := load(w)
			rotate := renamers(t, b, w)[by]
			beats(6, 700*time.Millisecond, func(int) { rotate() })
			end()
			settle(t, b, a, w)
			if fi, err := os.Stat(numbered(w.path, 6)); err != nil || fi.Size() == 0 {
				t.Errorf("the log was not rotated six times: %v", err)
			}
		})
	}
}

func TestR01R10RenameRotationByLogrotateWithDelayedCompression(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}})
	w := newWriter(t, b.log("api.log"), 1)
	l := newLogrotate(t, b.dir, w.path, "compress", "delaycompress", "create 0644")
	a := b.start()
	end := load(w)
	beats(5, 700*time.Millisecond, func(int) {
		l.rotate()
		w.reopen()
	})
	end()
	settle(t, b, a, w)
	if size(numbered(w.path, 5)+".gz") == 0 {
		t.Error("logrotate compressed nothing")
	}
}

func TestR08R09RenameRotationWhileTheAgentIsDown(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log")}})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(1000)
	a := b.start()
	arrive(t, a, b.out, 1000)
	w.lines(500)
	a.kill()
	w.lines(700)
	ok(t, rename(w.path))
	w.reopen()
	w.lines(300)
	ok(t, rename(w.path))
	ok(t, compress(numbered(w.path, 2)))
	w.reopen()
	w.lines(200)
	// What is now api.log.1 was never seen and no pattern matches it, but it was api.log while nobody looked.
	a = b.start()
	settle(t, b, a, w)
}

func TestR02AWriterThatKeepsTheRotatedFile(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}, tail: "grace: 10s"})
	old := newWriter(t, b.log("api.log"), 1)
	a := b.start()
	old.lines(500)
	arrive(t, a, b.out, 500)
	ok(t, rename(old.path))
	next := newWriter(t, b.log("api.log"), 2)
	beats(50, 100*time.Millisecond, func(int) { // five seconds
		old.lines(20)
		next.lines(20)
	})
	settle(t, b, a, old, next)
}

func TestR04CopytruncateUnderLoad(t *testing.T) {
	for _, by := range []string{"own", "logrotate"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.write(setup{paths: []string{b.log("api.log*")}})
			w := newWriter(t, b.log("api.log"), 1)
			w.lines(20_000) // what comes after a rotation is shorter than what was before
			a := b.start()
			l := newLogrotate(t, b.dir, w.path, "copytruncate", "nocompress")
			end := load(w)
			beats(5, 700*time.Millisecond, func(int) {
				w.mu.Lock() // nobody writes between the copy and the cut
				defer w.mu.Unlock()
				if by == "own" {
					ok(t, copytruncate(w.path))
				} else {
					l.rotate()
				}
			})
			end()
			settle(t, b, a, w)
			if size(numbered(w.path, 5)) == 0 {
				t.Error("the log was not rotated five times")
			}
		})
	}
}

// TestR04CopytruncateWhileTheWriterGoesOn does not hold the writer: what falls between copy and cut is in no file any more. All
// that still stands in one must have arrived, and nothing twice.
func TestR04CopytruncateWhileTheWriterGoesOn(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}, tail: "grace: 2s"})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(5000)
	a := b.start()
	l := newLogrotate(t, b.dir, w.path, "copytruncate", "nocompress")
	end := load(w)
	beats(5, 700*time.Millisecond, func(int) { l.rotate() })
	end()
	w.lines(1)
	last := string(record{1, w.count() - 1}.appendPath(nil))
	waitFor(t, "the last record arrives", func() bool { return holds(b.out, last) || a.ended() })
	a.stop()

	stands := newVerifier(w)
	names, err := filepath.Glob(w.path + "*")
	ok(t, err)
	for _, n := range names {
		ok(t, stands.lines(n))
	}
	v := newVerifier(w)
	ok(t, v.file(b.out))
	r := v.result()
	lost := 0
	for _, m := range r.missing {
		if stands.seen[m.stream][m.seq] > 0 {
			t.Errorf("record %v stands in a file and did not arrive", m)
		}
		lost++
	}
	t.Logf("%d of %d records fell between copy and cut", lost, w.count())
	if len(r.duplicate)+len(r.corrupt)+len(r.outOfOrder) > 0 {
		t.Errorf("nothing may be double, corrupt or out of order:\n%s", r.faults())
	}
}

// TestR04LinesBetweenCopyAndCutDoNotMakeTheCopyNews has the agent read lines that copytruncate does not copy: the copy ends before
// what was read, and nothing in it is new. (R04)
func TestR04LinesBetweenCopyAndCutDoNotMakeTheCopyNews(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	w, bystander := newWriter(t, b.log("api.log"), 1), newWriter(t, b.log("beside.api.log"), 7)
	b.write(setup{paths: []string{b.log("api.log*"), bystander.path}, tail: "grace: 1s"})
	w.lines(2000)
	a := b.start()
	arrive(t, a, b.out, 2000)
	ok(t, copyFile(w.path, numbered(w.path, 1)))
	w.lines(50)
	arrive(t, a, b.out, 2050)
	ok(t, os.Truncate(w.path, 0))
	w.lines(100)
	arrive(t, a, b.out, 2150)
	pulse(t, b, a, bystander, 10) // longer than the grace
	a.stop()
	a = b.start()
	pulse(t, b, a, bystander, 8)
	settle(t, b, a, w, bystander)
}

func TestR10CompressingAFileThatWasReadGivesNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}, tail: "grace: 300ms"})
	bystander := newWriter(t, b.log("api.log-beside.log"), 7)
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(3000)
	a := b.start()
	arrive(t, a, b.out, 3000)
	ok(t, rename(w.path))
	w.reopen()
	w.lines(100)
	arrive(t, a, b.out, 3100)
	ok(t, compress(numbered(w.path, 1)))
	pulse(t, b, a, bystander, 10)
	ok(t, shift(w.path)) // api.log.2.gz
	pulse(t, b, a, bystander, 5)
	a.stop()
	a = b.start() // and nothing new for a new process either
	pulse(t, b, a, bystander, 5)
	settle(t, b, a, w, bystander)
}

// TestR12ANewFileWithTheInodeOfARemovedOneIsAFileOfItsOwn has a file be compressed and removed, and another log begin, to which the
// file system gives the number that has become free. (R12)
func TestR12ANewFileWithTheInodeOfARemovedOneIsAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("*.log*")}, tail: "grace: 300ms"})
	bystander := newWriter(t, b.log("beside.log"), 7)
	a := b.start()
	pulse(t, b, a, bystander, 1)
	writers := []*writer{bystander}
	have := 1
	for i := range 8 {
		w := newWriter(t, b.log("api-"+strconv.Itoa(i)+".log"), 10+i)
		writers = append(writers, w)
		w.lines(50)
		have += 50
		arrive(t, a, b.out, have)
		ok(t, rename(w.path))
		ok(t, compress(numbered(w.path, 1)))
		ok(t, w.f.Close())
		pulse(t, b, a, bystander, 3)
		have += 3
	}
	a.stop()
	a = b.start() // a new process has to recognise every one of them
	pulse(t, b, a, bystander, 5)
	settle(t, b, a, writers...)
}

// pulse has lines go through a file beside, one after the other, each when the one before has arrived: the agent has looked
// around that often. Nothing else may be on its way meanwhile.
func pulse(t *testing.T, b *box, a *agent, w *writer, n int) {
	t.Helper()
	c := &arrivals{path: b.out}
	have := c.lines()
	beats(n, 250*time.Millisecond, func(i int) { // a sweep is 200ms
		w.lines(1)
		arrive(t, a, b.out, have+i+1)
	})
}

func TestR19ALineInTwoPiecesIsOneRecord(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	line := record{1, 10}.appendLine(nil)
	w.raw(line[:len(line)/2])
	bystander := newWriter(t, b.log("api.log-beside.log"), 7)
	pulse(t, b, a, bystander, 12)
	w.raw(line[len(line)/2:])
	w.mu.Lock()
	w.seq++
	w.mu.Unlock()
	if r := settle(t, b, a, w, bystander); len(r.others) > 0 {
		t.Errorf("records beside the written ones: %+v", r.others)
	}
}

func TestR20ALastLineWithoutANewlineIsARecordOnceTheFileIsRotated(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}, tail: "grace: 300ms, original: true"})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	half := string(record{3, 0}.appendLine(nil))
	half = half[:strings.Index(half, "?")+4]
	w.raw([]byte(half))
	ok(t, rename(w.path))
	w.reopen()
	w.lines(10)
	arrive(t, a, b.out, 21)
	a.stop()
	r := verify(t, []*writer{w}, b.out)
	if len(r.others) != 1 || !r.others[0].Truncated || r.others[0].Original != half {
		t.Errorf("the last line of the rotated file became %+v, want one record of it, flagged truncated_bool", r.others)
	}
}
