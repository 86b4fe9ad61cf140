package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestR25MoreFilesThanDescriptors lets the input hold four files and gives it forty, which all grow, rotate and end in the middle
// of a line.
func TestR25MoreFilesThanDescriptors(t *testing.T) {
	t.Parallel()
	const files, each = 40, 20
	dir := t.TempDir()
	path := func(i int) string { return filepath.Join(dir, fmt.Sprintf("f%02d.log", i)) }
	a := newFakeAgent(t)
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), false)
	in.maxHeld = 4
	n := 0
	write := func(suffix string) {
		for i := range files {
			appendTo(t, path(i)+suffix, textOf(n, n+each))
			n += each
		}
	}
	write("")
	r := startInput(t, a, in)
	until(t, "what was there", has(a, n))
	write("")
	until(t, "what was appended", has(a, n))
	for i := range files {
		appendTo(t, path(i), line(n)) // without a newline
		n++
		must(t, os.Rename(path(i), path(i)+".1"))
	}
	until(t, "last lines of rotated files", has(a, n))
	write("")
	until(t, "what follows a rotation", has(a, n))
	wantLines(t, a, n)
	if got := len(a.Known()); got != 2*files {
		t.Errorf("the agent knows %d streams, want %d", got, 2*files)
	}
	r.stop()
	a.crash()
	write("")
	r = start(t, a, testConfig(filepath.Join(dir, "*.log")))
	until(t, "what was written meanwhile", has(a, n))
	r.stop()
	wantLines(t, a, n)
	if got := a.count("lost_bytes", "gone") + a.count("lost_files", "gone"); got != 0 {
		t.Errorf("%d counted as lost", got)
	}
}

func TestOnceReadsMoreFilesThanItMayHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 30 {
		appendTo(t, filepath.Join(dir, fmt.Sprintf("f%02d.log", i)), textOf(10*i, 10*i+10))
	}
	a := newFakeAgent(t)
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), true)
	in.maxHeld = 4
	must(t, in.Run(t.Context(), a))
	wantLines(t, a, 300)
}

// TestR25ASystemWithoutDescriptorsIsWaitedOut has the system refuse, whatever the input's own limit.
func TestR25ASystemWithoutDescriptorsIsWaitedOut(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	appendTo(t, path, textOf(0, 10))
	a := newFakeAgent(t)
	in := newInput(t, a, testConfig(path), false)
	var refused atomic.Int64
	in.fs.open = func(p string) (*os.File, error) {
		if refused.Add(1) <= 5 {
			return nil, &os.PathError{Op: "open", Path: p, Err: syscall.EMFILE}
		}
		return realSystem().open(p)
	}
	startInput(t, a, in)
	until(t, "the lines", has(a, 10))
	wantLines(t, a, 10)
}

func TestR18AFileThatLivesForAMomentIsReadOrCounted(t *testing.T) {
	t.Parallel()
	const files = 300
	dir := t.TempDir()
	a := newFakeAgent(t)
	c := testConfig(filepath.Join(dir, "*.log"))
	appendTo(t, filepath.Join(dir, "first.log"), line(0)+"\n")
	start(t, a, c)
	until(t, "the first file", has(a, 1))
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("f%03d.log", i))
		appendTo(t, path, line(i+1)+"\n")
		must(t, os.Remove(path))
	}
	settled := func() int64 { return int64(len(a.all())) + a.count("lost_files", "gone") }
	// What rotation moves about is known under its old name and not lost when its last one goes.
	for range 20 {
		for _, name := range []string{"m1.log", "m2.log", "m3.log"} {
			must(t, os.Rename(filepath.Join(dir, "first.log"), filepath.Join(dir, name)))
			must(t, os.Rename(filepath.Join(dir, name), filepath.Join(dir, "first.log")))
		}
	}
	must(t, os.Rename(filepath.Join(dir, "first.log"), filepath.Join(dir, "last.log")))
	must(t, os.Remove(filepath.Join(dir, "last.log")))
	until(t, "each to be read or counted", func() bool { return settled() >= files+1 })
	if got := settled(); got != files+1 {
		t.Errorf("%d files read or counted of %d", got, files+1)
	}
	t.Logf("%d read, %d counted", len(a.all())-1, a.count("lost_files", "gone"))
}
