//go:build blackbox

package scripts

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shiftCode is added to Go's package time: the wall clock is ahead by as many seconds as a file says, which is read every 5 ms. Timers and
// differences go by the monotonic clock, which does not jump, as it is with a real clock that is set.
const shiftCode = `package time

import (
	"sync/atomic"
	"syscall"
)

var shift atomic.Int64

func readShift(path string) {
	f, err := open(path)
	if err != nil {
		return
	}
	var buf [32]byte
	n, _ := read(f, buf[:])
	closefd(f)
	v, sign := int64(0), int64(1)
	for _, c := range buf[:max(n, 0)] {
		switch {
		case c == '-':
			sign = -1
		case c >= '0' && c <= '9':
			v = v*10 + int64(c-'0')
		}
	}
	shift.Store(sign * v)
}

func init() {
	path, found := syscall.Getenv("STACKTRAIL_TEST_CLOCK")
	if !found {
		return
	}
	readShift(path)
	go func() {
		for {
			Sleep(5 * Millisecond)
			readShift(path)
		}
	}()
}
`

// shiftable builds the agent with a clock that can be set. Nothing else differs from the agent that is shipped.
func shiftable(t *testing.T, dir string) string {
	t.Helper()
	root := strings.TrimSpace(string(must[[]byte](t)(exec.Command("go", "env", "GOROOT").Output())))
	src := filepath.Join(root, "src", "time", "time.go")
	text := string(must[[]byte](t)(os.ReadFile(src)))
	const now = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(text, now) < 1 {
		t.Fatal("time.Now of this Go is not as this test knows it")
	}
	ok(t, os.WriteFile(filepath.Join(dir, "time.go"), []byte(strings.ReplaceAll(text, now, now+"\tsec += shift.Load()\n")), 0o644))
	ok(t, os.WriteFile(filepath.Join(dir, "shift.go"), []byte(shiftCode), 0o644))
	overlay := must[[]byte](t)(json.Marshal(map[string]map[string]string{"Replace": {
		src: filepath.Join(dir, "time.go"), filepath.Join(filepath.Dir(src), "shift.go"): filepath.Join(dir, "shift.go"),
	}}))
	ok(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644))
	bin := filepath.Join(dir, "stacktrail-shift")
	cmd := exec.Command("go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin, "../../agent/cmd/stacktrail")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the agent with another clock: %v\n%s", err, out)
	}
	return bin
}

// TestC06TheClockJumps has the clock jump by a day, forth and back, while logs grow and are rotated, while an output fails and is retried,
// and between two starts.
func TestC06TheClockJumps(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}, tail: "grace: 1s", policy: "retry: {initial: 50ms, max: 500ms}"})
	clock := filepath.Join(b.dir, "clock")
	set := func(seconds string) {
		ok(t, os.WriteFile(clock+".new", []byte(seconds), 0o644))
		ok(t, os.Rename(clock+".new", clock))
	}
	disk := tmpfs(t, filepath.Dir(b.out))
	bin := shiftable(t, b.dir)
	start := func() *agent {
		return b.launch("env", "STACKTRAIL_TEST_CLOCK="+clock, bin, "run", "-c", b.config)
	}
	set("0")
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(500)
	a := start()
	arrive(t, a, b.out, 500)
	day := func(seconds string) string {
		n := map[string]time.Duration{"0": 0, "86400": 24 * time.Hour, "-86400": -24 * time.Hour}[seconds]
		return "time=" + time.Now().Add(n).UTC().Format("2006-01-02")
	}
	for i, to := range []string{"86400", "0", "-86400", "86400", "-86400", "0"} {
		w.lines(200)
		if i%2 == 0 { // the output fails when the clock jumps, and works again afterwards
			arrive(t, a, b.out, w.count())
			before := strings.Count(a.text(), "output fails")
			shrink(t, disk)
			w.lines(300)
			waitFor(t, "the output fails", func() bool { return strings.Count(a.text(), "output fails") > before || a.ended() })
			set(to)
			w.lines(100)
			enlarge(t, disk)
			arrive(t, a, b.out, w.count())
		} else {
			set(to)
		}
		w.lines(200)
		ok(t, rename(w.path))
		w.reopen()
		w.lines(200)
		arrive(t, a, b.out, w.count())
		a.kill()
		w.lines(50)
		a = start()
		a.says("msg=started")
		if !strings.Contains(a.text(), day(to)) {
			t.Fatalf("the agent's clock was not shifted by %s: %.200s", to, a.text())
		}
		arrive(t, a, b.out, w.count())
	}
	settle(t, b, a, w)
}
