package tail

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestTheOtherEngineLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	c.Engine = "nxadm"
	r := start(t, a, c)
	n := 0
	for round := range 4 {
		appendTo(t, path, textOf(n, n+100))
		n += 100
		until(t, "first lines", has(a, n))
		for range 20 {
			l := line(n) + "\n"
			appendTo(t, path, l[:10])
			appendTo(t, path, l[10:])
			n++
			until(t, "live line", has(a, n))
		}
		if round%2 == 0 {
			_ = os.Rename(path+".1", path+".2")
			must(t, os.Rename(path, path+".1"))
			appendTo(t, path, textOf(n, n+50))
		} else {
			copyTruncate(t, path, path+".1", textOf(n, n+50))
		}
		n += 50
		until(t, "lines after rotation", has(a, n))
	}
	wantLines(t, a, n)
	r.stop()
	a.crash()
	appendTo(t, path, textOf(n, n+10))
	n += 10
	start(t, a, c)
	until(t, "lines after restart", has(a, n))
	wantLines(t, a, n)
}

func TestTheOtherEngineIsReallyUsedAndLeftWhenItLies(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	appendTo(t, path, textOf(0, 2))
	f, err := os.Open(path)
	must(t, err)
	h := newHandle(f)
	woken := make(chan struct{}, 100)
	e, err := startEngine(h, int64(len(textOf(0, 1))), false, func() { woken <- struct{}{} })
	must(t, err)
	if got := <-e.lines; got != line(1) {
		t.Errorf("got %q", got)
	}
	c := open(h, false)
	buf := make([]byte, 64)
	if !agrees(t.Context(), c, 0, line(0), buf) || agrees(t.Context(), c, 0, line(1), buf) || agrees(t.Context(), c, 0, line(0)[:5], buf) {
		t.Error("the file and the library are compared wrongly")
	}
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path+".1", textOf(2, 3))
	if got := <-e.lines; got != line(2) {
		t.Errorf("got %q", got)
	}
	e.stop()
	select {
	case <-e.done:
	case <-time.After(10 * time.Second):
		t.Error("the engine does not end")
	}
	c.close()
	if h.refs.Load() != 0 {
		t.Errorf("%d owners are left", h.refs.Load())
	}
}

func TestANamedPipeIsFollowedAcrossItsWriters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(path, 0o600))
	a := newFakeAgent(t)
	r := start(t, a, testConfig(path))
	n := 0
	for range 3 {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = w.WriteString(textOf(n, n+50))
		must(t, err)
		must(t, w.Close())
		n += 50
		until(t, "lines of a writer", has(a, n))
	}
	wantLines(t, a, n)
	r.stop()
	k := a.Known()
	if len(k) != 1 || k[0].Start.Seq != int64(len(textOf(0, n))) {
		t.Fatalf("checkpoint: %+v", k)
	}
	in := newInput(t, newFakeAgent(t), testConfig(path), false)
	if err := in.CanReplay(t.Context(), k[0], k[0].Start); err == nil {
		t.Error("a named pipe can be replayed")
	}
	a.crash()
	start(t, a, testConfig(path))
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer w.Close()
	_, err = w.WriteString(textOf(n, n+5))
	must(t, err)
	until(t, "lines after restart", has(a, n+5))
	wantLines(t, a, n+5)
}
