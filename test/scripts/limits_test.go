//go:build blackbox

package scripts

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Many files, few descriptors, no notifications, one that is faster than the rest: R24, R25, R26, R29.

// descriptors is how many the process has open.
func (a *agent) descriptors() int {
	names, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.pid()))
	return len(names)
}

// delays watches a growing output and tells how long each record of some streams took from its writing to the file.
type delays struct {
	mu   sync.Mutex
	sent map[record]time.Time
	took []time.Duration
}

func (d *delays) write(w *writer) {
	d.mu.Lock()
	d.sent[record{w.stream, w.count()}] = time.Now()
	d.mu.Unlock()
	w.lines(1)
}

// watch reads the output until all that was written has arrived and more says that there will be no more.
func (d *delays) watch(t *testing.T, path string, more func() bool) {
	t.Helper()
	var at int64
	buf := make([]byte, 1<<20)
	f := must[*os.File](t)(os.Open(path))
	defer f.Close()
	done := poll(5*time.Millisecond, patience, func() bool {
		for {
			n, _ := f.ReadAt(buf, at)
			whole := strings.LastIndexByte(string(buf[:n]), '\n') + 1
			if whole == 0 {
				break
			}
			d.take(string(buf[:whole]))
			at += int64(whole)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		return !more() && len(d.sent) == 0
	})
	if !done {
		t.Errorf("%d records did not arrive", len(d.sent))
	}
}

func (d *delays) take(text string) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		_, rest, found := strings.Cut(text, `"path":"`)
		if !found {
			return
		}
		path, rest, _ := strings.Cut(rest, `"`)
		if r, is := recordOf(path); is {
			if at, waits := d.sent[r]; waits {
				d.took = append(d.took, now.Sub(at))
				delete(d.sent, r)
			}
		}
		text = rest
	}
}

func (d *delays) quantiles() (median, p99, most time.Duration) {
	slices.Sort(d.took)
	n := len(d.took)
	if n == 0 {
		return
	}
	return d.took[n/2], d.took[n*99/100], d.took[n-1]
}

// TestR24TenThousandIdleFilesAndTenBusyOnes: the busy ones are not held up by the idle ones, of which no descriptor is held for ever.
func TestR24TenThousandIdleFilesAndTenBusyOnes(t *testing.T) {
	idle := number(t, "STACKTRAIL_IDLE", 10_000)
	const busy = 10
	b := newBox(t)
	b.write(setup{paths: []string{b.log("*.log"), b.log("*/*.log")}, tail: "grace: 1s, unparsed: drop"})
	for i := range idle {
		dir := b.log(fmt.Sprintf("d%d", i/500))
		ok(t, os.MkdirAll(dir, 0o755))
		ok(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("idle-%dx.log", i)), fmt.Appendf(nil, "an old line of number %d\n", i), 0o644))
	}
	a := b.start()
	beside := newWriter(t, b.log("first.log"), 99)
	beside.lines(1)
	arrive(t, a, b.out, 1)
	waitFor(t, "all files are read", func() bool {
		return a.counter("stacktrail_input_unparsed_total", "")+a.counter("stacktrail_plugin_total", "unparsed") >= int64(idle) || strings.Count(b.streams(), "idle-") >= idle
	})
	a.quiet()
	before := a.ticks()
	begun := time.Now()
	beats(30, 100*time.Millisecond, func(int) {})
	share := float64(a.ticks()-before) / 100 / time.Since(begun).Seconds()
	resting := a.descriptors()

	d := &delays{sent: map[record]time.Time{}}
	var writers []*writer
	for i := range busy {
		writers = append(writers, newWriter(t, b.log(fmt.Sprintf("busy-%dx.log", i)), i))
	}
	var writing sync.WaitGroup
	finished := make(chan struct{})
	writing.Go(func() {
		beats(500, 10*time.Millisecond, func(int) {
			for _, w := range writers {
				d.write(w)
			}
		})
		close(finished)
	})
	d.watch(t, b.out, func() bool {
		select {
		case <-finished:
			return false
		default:
			return true
		}
	})
	writing.Wait()
	median, p99, most := d.quantiles()
	t.Logf("%d idle files: %d descriptors at rest, %d under load; %.1f%% of a processor at rest; %d MiB resident; busy lines took %v (median), %v (99%%), %v (most)",
		idle, resting, a.descriptors(), 100*share, a.peak()>>20, median, p99, most)
	if resting > 4300 { // it holds 4,096 files at most
		t.Errorf("%d descriptors are held for %d idle files", resting, idle)
	}
	if share > 0.5 {
		t.Errorf("%.0f%% of a processor is used for files in which nothing happens", 100*share)
	}
	if p99 > 10*time.Second {
		t.Errorf("a line of a busy file took %v", p99)
	}
	settle(t, b, a, append(writers, beside)...)
}

// TestR25FewerDescriptorsThanFiles has a limit of 64 descriptors and 300 files that all grow, before and after a kill.
func TestR25FewerDescriptorsThanFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{tail: "grace: 300ms", paths: []string{b.log("*.log*")}})
	start := func() *agent {
		return b.launch(need(t, "sh"), "-c", `ulimit -n 64; exec "$@"`, "sh", stacktrail(t), "run", "-c", b.config)
	}
	var writers []*writer
	for i := range 300 {
		w := newWriter(t, b.log(fmt.Sprintf("api-%dx.log", i)), i)
		w.lines(3)
		writers = append(writers, w)
	}
	a := start()
	arrive(t, a, b.out, 900)
	for _, w := range writers {
		w.lines(2)
	}
	arrive(t, a, b.out, 1500)
	if n := a.descriptors(); n > 64 {
		t.Fatalf("%d descriptors: the limit was not set", n)
	}
	a.kill()
	for i, w := range writers {
		w.lines(2)
		if i%10 == 0 {
			ok(t, rename(w.path))
			w.reopen()
			w.lines(1)
		}
	}
	a = start()
	arrive(t, a, b.out, 2100+30)
	for i, w := range writers {
		if i%10 == 1 { // rotated while the agent is short of descriptors
			w.lines(1)
			ok(t, rename(w.path))
			w.reopen()
			w.lines(1)
		}
	}
	total := 0
	for _, w := range writers {
		total += w.count()
	}
	arrive(t, a, b.out, total)
	a.stop()
	v := newVerifier(writers...)
	ok(t, v.file(b.out))
	v.result().exact(t)
	if n := strings.Count(a.text(), "too many open files"); n > 400 {
		t.Errorf("the lack of descriptors is said %d times: that is noise", n)
	}
}

// TestR26WithoutNotificationsFilesAreLookedAtRegularly takes inotify away from the agent in two ways: no instance is to be had, or too
// few watches. The limits are those of a user namespace, so nothing outside is touched.
func TestR26WithoutNotificationsFilesAreLookedAtRegularly(t *testing.T) {
	needRoot(t, "for a user namespace with limits of its own")
	unshare := need(t, "unshare")
	for name, limit := range map[string]string{"no instance": "max_inotify_instances", "three watches": "max_inotify_watches"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.write(setup{paths: []string{b.log("*/*.log*")}})
			n := "0"
			if limit == "max_inotify_watches" {
				n = "3"
			}
			var writers []*writer
			for i := range 12 {
				ok(t, os.Mkdir(b.log(fmt.Sprint("d", i)), 0o755))
				writers = append(writers, newWriter(t, b.log(fmt.Sprintf("d%d/api.log", i)), i))
				writers[i].lines(10)
			}
			a := b.launch(unshare, "--user", "--map-root-user", "sh", "-c", `echo `+n+` >/proc/sys/user/`+limit+` && exec "$@"`, "sh",
				stacktrail(t), "run", "-c", b.config)
			arrive(t, a, b.out, 120)
			for round := range 5 {
				for i, w := range writers {
					w.lines(5)
					if i%5 == round {
						ok(t, rename(w.path))
						w.reopen()
						w.lines(2)
					}
				}
				lines := 0
				for _, w := range writers {
					lines += w.count()
				}
				arrive(t, a, b.out, lines)
			}
			late := newWriter(t, b.log("d3/late.log"), 50)
			late.lines(5)
			settle(t, b, a, append(writers, late)...)
			if n := strings.Count(a.text(), "level=WARN"); n != 1 || !strings.Contains(a.text(), "the system does not tell of changes") {
				t.Errorf("%d warnings, want one that says that files are looked at regularly:\n%s", n, a.text())
			}
		})
	}
}

// TestR29AFastFileDoesNotHoldUpSlowOnes: one file at 50 MB/s, twenty at a line a second. While the fast one lags, the slow ones do not.
func TestR29AFastFileDoesNotHoldUpSlowOnes(t *testing.T) {
	b := newBox(t)
	b.write(setup{})
	total := int64(number(t, "STACKTRAIL_FAST_MB", 250)) * 1e6
	fast := newWriter(t, b.log("a-fast.log"), 1)
	var slow []*writer
	for i := range 20 {
		slow = append(slow, newWriter(t, b.log(fmt.Sprintf("slow-%dx.log", i)), 10+i))
		slow[i].lines(1)
	}
	a := b.start()
	arrive(t, a, b.out, 20)
	d := &delays{sent: map[record]time.Time{}}
	var writing sync.WaitGroup
	finished, stop := make(chan struct{}), make(chan struct{})
	writing.Go(func() { fast.pace(total, 50e6, nil, stop) })
	writing.Go(func() {
		beats(int(total/50e6)*20, 50*time.Millisecond, func(i int) { d.write(slow[i%20]) })
	})
	go func() { writing.Wait(); close(finished) }()
	most := int64(0)
	d.watch(t, b.out, func() bool {
		select {
		case <-finished:
			return false
		default:
			return true
		}
	})
	_, body := a.get("/metrics")
	_ = body
	most = max(most, a.counter("stacktrail_file_lag_bytes", ""))
	median, p99, worst := d.quantiles()
	t.Logf("%d lines of slow files took %v (median), %v (99%%), %v (most); the fast one was then %s behind", len(d.took), median, p99, worst, mb(most))
	if worst > 10*time.Second {
		t.Errorf("a line of a slow file took %v", worst)
	}
	if code, text := a.get("/livez"); code != http.StatusOK {
		t.Errorf("/livez: %s", text)
	}
	settle(t, b, a, append(slow, fast)...)
}
