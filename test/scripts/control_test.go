//go:build blackbox

package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Signals, exit codes and the lock: what an operator and systemd rely on.

func TestC05ASecondInstanceIsRefusedAndToldThePid(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	for _, args := range [][]string{{"run", "-c", b.config}, {"run", "--once", "-c", b.config}} {
		r := command(t, args...)
		if r.code != 1 {
			t.Errorf("%v beside a running agent: exit code %d, want 1", args, r.code)
		}
		if !strings.Contains(r.errors, strconv.Itoa(a.pid())) {
			t.Errorf("%v does not name pid %d: %s", args, a.pid(), r.errors)
		}
	}
	w.lines(10)
	settle(t, b, a, w)
}

func TestC05ALockOfADeadAgentHoldsNobodyBack(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	a.kill()
	w.lines(10)
	a = b.start()
	settle(t, b, a, w)
}

func TestBadConfigurationExits78(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{tail: "exlude: [x]"})
	for _, args := range [][]string{{"check", "-c", b.config}, {"run", "-c", b.config}, {"run", "--once", "-c", b.config}, {"-c", b.config}} {
		r := command(t, args...)
		if r.code != 78 {
			t.Errorf("%v: exit code %d, want 78", args, r.code)
		}
		if !regexp.MustCompile(regexp.QuoteMeta(b.config) + `:5:\d+: .*exlude.*exclude`).MatchString(r.errors) {
			t.Errorf("%v does not say file, line, column and what may be meant: %s", args, r.errors)
		}
	}
	if _, err := os.Stat(b.state()); err == nil {
		t.Error("a start with a bad configuration touched the state directory")
	}
	r := command(t, "check", "-c", filepath.Join(b.dir, "nowhere.yaml"))
	if r.code != 78 {
		t.Errorf("a configuration that is not there: exit code %d, want 78", r.code)
	}
}

func TestWrongUsageExits2(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"run", "--nonsense"}, {"nonsense"}, {"run", "surplus"}, {"parse", "--format", "nonsense"}, {"parse", "--naming", "nonsense"}} {
		if r := command(t, args...); r.code != 2 || r.errors == "" {
			t.Errorf("%v: exit code %d, want 2 and a reason: %s", args, r.code, r.errors)
		}
	}
}

func TestC07StateOfANewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	newWriter(t, b.log("api.log"), 1).lines(10)
	ok(t, os.Mkdir(b.state(), 0o750))
	path := filepath.Join(b.state(), "checkpoint")
	state := "stacktrail-checkpoint 2 something of another time\n{}"
	ok(t, os.WriteFile(path, []byte(state), 0o640))
	for _, args := range [][]string{{"run", "-c", b.config}, {"run", "--once", "-c", b.config}} {
		if r := command(t, args...); r.code != 74 || !strings.Contains(r.errors, path) {
			t.Errorf("%v: exit code %d, want 74, and the file's name in: %s", args, r.code, r.errors)
		}
	}
	if p, err := os.ReadFile(path); err != nil || string(p) != state {
		t.Errorf("the newer state was touched: %q, %v", p, err)
	}
	if size(b.out) > 0 {
		t.Error("something was written without the state")
	}
}

func TestC03BothCheckpointsDamaged(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(100)
	if r := b.once(); r.code != 0 {
		t.Fatalf("code %d", r.code)
	}
	for _, n := range []string{"checkpoint", "checkpoint.prev"} {
		ok(t, os.WriteFile(filepath.Join(b.state(), n), []byte("junk"), 0o640))
	}
	for range 2 { // the second time the damaged ones are set aside, if they were not left
		if r := command(t, "run", "--once", "--strict-state", "-c", b.config); r.code != 74 {
			t.Errorf("with --strict-state: exit code %d, want 74", r.code)
		}
	}
	for _, n := range []string{"checkpoint", "checkpoint.prev"} {
		ok(t, os.WriteFile(filepath.Join(b.state(), n), []byte("junk"), 0o640))
	}
	r := b.once()
	if r.code != 0 || !strings.Contains(r.errors, "everything is read again") {
		t.Errorf("exit code %d, want 0 and a warning that everything is read again: %s", r.code, r.errors)
	}
	v := newVerifier(w)
	ok(t, v.file(b.out))
	if got := v.result(); len(got.missing)+len(got.corrupt) > 0 {
		t.Errorf("nothing may be missing:\n%s", got.faults())
	}
}

// hanging is a box whose output takes nothing.
func hanging(t *testing.T, stopTimeout string) (*box, *writer, *agent) {
	b := newBox(t)
	b.write(setup{output: "blackhole: {delay: 1h}", agent: "stop_timeout: " + stopTimeout})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(3000)
	a := b.start()
	a.says("msg=started")
	waitFor(t, "the stream stands in the checkpoint", func() bool { return holds(filepath.Join(b.state(), "checkpoint"), "cursors") })
	return b, w, a
}

func TestTermWithAnOutputThatHangsNamesWhatIsLeft(t *testing.T) { // H06
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		b, w, a := hanging(t, "1s")
		began := time.Now()
		a.signal(s)
		if code := a.wait(); code != 0 {
			t.Errorf("exit code %d after %v, want 0", code, s)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the end took %v, stop_timeout is 1s", took)
		}
		left := regexp.MustCompile(`msg="left for the next start".* file=(\S+) .*from=(\d+) to=(\d+)`).FindStringSubmatch(a.text())
		if left == nil || left[1] != w.path || left[2] != "0" || left[3] == "0" {
			t.Errorf("the log does not name what is left of %s: %v", w.path, left)
		}
		b.write(setup{})
		if r := b.once(); r.code != 0 {
			t.Errorf("code %d", r.code)
		}
		verify(t, []*writer{w}, b.out)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	b, w, a := hanging(t, "1h")
	a.signal(syscall.SIGTERM)
	a.says("msg=stopping")
	a.alive()
	// Signals that come at nearly the same moment count as one: see the agent.
	waitFor(t, "the agent has ended", func() bool {
		if !a.ended() {
			a.signal(syscall.SIGTERM)
		}
		return a.ended()
	})
	if code := a.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	b.write(setup{})
	if r := b.once(); r.code != 0 {
		t.Errorf("code %d", r.code)
	}
	verify(t, []*writer{w}, b.out)
}

func TestHupAndUsr1NeverKill(t *testing.T) { // H01
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	a := b.start()
	a.says("msg=started")
	for i := range 50 {
		a.signal([]syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1}[i%2])
		w.lines(20)
	}
	arrive(t, a, b.out, 1000)
	a.says("HUP is ignored")
	a.alive()
	settle(t, b, a, w)
}

// TestUsr1ReopensAnOutputThatWasMoved rotates the output as an operator's logrotate does.
func TestUsr1ReopensAnOutputThatWasMoved(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	a := b.start()
	var parts []string
	for i := range 4 {
		n := w.count()
		w.lines(300)
		arrive(t, a, b.out, 300)
		// Before the signal everything still goes to the moved file.
		moved := fmt.Sprintf("%s.moved-%d", b.out, i)
		ok(t, os.Rename(b.out, moved))
		w.lines(100)
		arrive(t, a, moved, 400)
		a.signal(syscall.SIGUSR1)
		waitFor(t, "the signal arrives", func() bool { return strings.Count(a.text(), "reopening output files") == i+1 })
		parts = append(parts, moved)
		if w.count() != n+400 {
			t.Fatal("the writer lost count")
		}
	}
	w.lines(50)
	arrive(t, a, b.out, 50)
	a.stop()
	verify(t, []*writer{w}, append(parts, b.out)...)
}

// TestOutputsAtTheirOwnPace is B02 from outside: an output that hangs, with on_full: drop, holds up no other.
func TestAnOutputThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{output: fmt.Sprintf(`blackhole: {delay: 1h}, id: stuck, queue: {on_full: drop, bytes: 64KiB}}
      - {file: {path: %q}`, b.out), agent: "stop_timeout: 100ms"})
	w := newWriter(t, b.log("api.log"), 1)
	a := b.start()
	w.lines(20_000)
	arrive(t, a, b.out, 20_000)
	a.stop()
	verify(t, []*writer{w}, b.out)
}
