//go:build blackbox

package scripts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Files that cannot be read and disks that are full.

// TestR27AnUnreadableFileIsNamedAndReadOnceItCanBe runs the agent as nobody, because root can read everything. (R27)
func TestR27AnUnreadableFileIsNamedAndReadOnceItCanBe(t *testing.T) {
	t.Parallel()
	needRoot(t, "to run the agent as another user")
	const nobody = 65534
	setpriv := need(t, "setpriv")
	b := newBox(t)
	b.write(setup{})
	for _, d := range []string{filepath.Join(b.dir, "out"), b.state()} {
		ok(t, os.MkdirAll(d, 0o755))
		ok(t, os.Chown(d, nobody, nobody))
	}
	// The other user may not be able to reach the binary where it is.
	bin := filepath.Join(b.dir, "stacktrail")
	ok(t, copyFile(stacktrail(t), bin))
	ok(t, os.Chmod(bin, 0o755))
	locked := newWriter(t, b.log("locked.log"), 1)
	open := newWriter(t, b.log("open.log"), 2)
	locked.lines(100)
	open.lines(100)
	ok(t, os.Chmod(locked.path, 0))
	a := b.launch(setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", bin, "run", "-c", b.config)
	arrive(t, a, b.out, 100)
	a.says(locked.path)
	if !strings.Contains(a.text(), "permission denied") {
		t.Error("the log does not say why the file is not read")
	}
	locked.lines(100)
	open.lines(100)
	arrive(t, a, b.out, 200)
	beats(8, 250*time.Millisecond, func(int) { open.lines(1) }) // several looks at the file that nobody may read
	if text := a.text(); strings.Contains(text, "can be read again") || strings.Count(text, "permission denied") != 1 {
		t.Errorf("a file that cannot be read is not named just once:\n%s", text)
	}
	ok(t, os.Chmod(locked.path, 0o644))
	arrive(t, a, b.out, 408)
	// Once more, while it is open: what is held open can still be read, so nothing has to happen, but nothing may be lost.
	ok(t, os.Chmod(locked.path, 0))
	locked.lines(100)
	open.lines(100)
	waitFor(t, "the neighbour goes on", func() bool {
		return size(b.out) > 0 && holds(b.out, string(record{2, open.count() - 1}.appendPath(nil)))
	})
	ok(t, os.Chmod(locked.path, 0o644))
	settle(t, b, a, locked, open)
	if n := strings.Count(a.text(), locked.path); n > 20 {
		t.Errorf("the file is named %d times in the log: that is noise", n)
	}
}

// TestR27AKillWhileALogIsUnreadableDoublesNothing kills the agent while it may not open one of its logs: at the start the output is
// cut back all the same, because the log is there, and what is missing of it comes once it can be read.
func TestR27AKillWhileALogIsUnreadableDoublesNothing(t *testing.T) {
	t.Parallel()
	needRoot(t, "to run the agent as another user")
	const nobody = 65534
	setpriv := need(t, "setpriv")
	b := newBox(t)
	b.write(setup{every: "2s"})
	for _, d := range []string{filepath.Join(b.dir, "out"), b.state()} {
		ok(t, os.MkdirAll(d, 0o755))
		ok(t, os.Chown(d, nobody, nobody))
	}
	bin := filepath.Join(b.dir, "stacktrail")
	ok(t, copyFile(stacktrail(t), bin))
	ok(t, os.Chmod(bin, 0o755))
	locked, open := newWriter(t, b.log("locked.log"), 1), newWriter(t, b.log("open.log"), 2)
	start := func() *agent {
		return b.launch(setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", bin, "run", "-c", b.config)
	}
	a, cut := start(), int64(0)
	for range 3 {
		locked.lines(100)
		open.lines(100)
		arrive(t, a, b.out, locked.count()+open.count())
		pause(t, b)
		locked.lines(100)
		open.lines(100)
		arrive(t, a, b.out, locked.count()+open.count())
		ok(t, os.Chmod(locked.path, 0))
		a.kill()
		open.lines(100)
		a = start()
		a.says("a source cannot be read at present")
		a.says("msg=started")
		cut += a.cutBytes()
		ok(t, os.Chmod(locked.path, 0o644))
		arrive(t, a, b.out, locked.count()+open.count())
	}
	a.stop()
	verify(t, []*writer{locked, open}, b.out)
	if cut == 0 {
		t.Error("nothing was cut back: the test proves nothing")
	}
}

// TestC04AFullDiskIsWaitedOut fills the small disk on which the output is, and makes room again. (C04 for the output)
func TestC04AFullDiskIsWaitedOut(t *testing.T) {
	t.Parallel()
	needRoot(t, "to mount a small disk")
	unshare := need(t, "unshare")
	b := newBox(t)
	b.write(setup{policy: "retry: {initial: 50ms, max: 200ms}"})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(500)
	// The disk is seen by the agent alone and goes with it; from outside it is reached through the process.
	script := `mount -t tmpfs -o size=16m stacktrail "$1" && shift && exec "$@"`
	disk := filepath.Dir(b.out)
	a := b.launch(unshare, "--mount", "sh", "-c", script, "sh", disk, stacktrail(t), "run", "-c", b.config)
	inside := fmt.Sprintf("/proc/%d/root%s", a.pid(), disk)
	out := filepath.Join(inside, filepath.Base(b.out))
	arrive(t, a, out, 500)

	for round := range 3 {
		ballast := filepath.Join(inside, "ballast")
		fill(t, ballast)
		w.lines(1000)
		waitFor(t, "the output fails", func() bool { return strings.Count(a.text(), "no space left on device") > round })
		w.lines(1000)
		n := (&arrivals{path: out}).lines()
		if n >= w.count() {
			t.Fatalf("round %d: the disk is full and all %d records are on it", round, n)
		}
		ok(t, os.Remove(ballast))
		arrive(t, a, out, w.count())
		waitFor(t, "the output works", func() bool { return strings.Count(a.text(), "output works again") > round })
	}
	verify(t, []*writer{w}, out)
	if size(filepath.Join(b.state(), "dead", "main", "out.ndjson")) > 0 {
		t.Error("records went to the dead letter because the disk was full")
	}
	a.stop()
}

// fill writes until there is no space any more.
func fill(t *testing.T, path string) {
	t.Helper()
	f := must[*os.File](t)(os.Create(path))
	defer f.Close()
	_, err := io.Copy(f, endless{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
}

// endless gives as much as is asked for.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestC04AFullStateDirectoryKeepsDelivering has the disk of the state full for a while: delivery goes on, a kill later repeats
// nothing because the output is cut back to the last position that could be saved. (C04)
func TestC04AFullStateDirectoryKeepsDelivering(t *testing.T) {
	t.Parallel()
	needRoot(t, "to mount a small disk")
	unshare := need(t, "unshare")
	b := newBox(t)
	b.write(setup{})
	ok(t, os.Mkdir(b.state(), 0o755))
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(500)
	script := `mount -t tmpfs -o size=1m stacktrail "$1" && shift && exec "$@"`
	a := b.launch(unshare, "--mount", "sh", "-c", script, "sh", b.state(), stacktrail(t), "run", "-c", b.config)
	arrive(t, a, b.out, 500)
	inside := fmt.Sprintf("/proc/%d/root%s", a.pid(), b.state())
	ballast := filepath.Join(inside, "ballast")
	fill(t, ballast)
	beats(10, 150*time.Millisecond, func(int) { w.lines(100) })
	arrive(t, a, b.out, w.count())
	a.says("positions cannot be saved")
	ok(t, os.Remove(ballast))
	w.lines(100)
	a.says("positions are saved again")
	settle(t, b, a, w)
}
