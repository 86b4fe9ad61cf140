package tail

import (
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestZZIdle(t *testing.T) {
	dir := t.TempDir()
	a := newFakeAgent(t)
	for i := range 10000 {
		appendTo(t, filepath.Join(dir, fmt.Sprintf("f%d.log", i)), textOf(i, i+1))
	}
	c := testConfig(filepath.Join(dir, "*.log"))
	c.Sweep = time.Second
	t0 := time.Now()
	start(t, a, c)
	until(t, "all", has(a, 10000))
	t.Log("found and read in", time.Since(t0))
	time.Sleep(3 * time.Second)
	c0, t0 := cpu(), time.Now()
	time.Sleep(5 * time.Second)
	t.Logf("idle CPU %.1f%%", 100*float64(cpu()-c0)/float64(time.Since(t0)))
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Log("heap", m.HeapAlloc>>20, "MiB; fds", func() int { e, _ := filepath.Glob("/proc/self/fd/*"); return len(e) }())
	var worst, sum time.Duration
	for i := range 300 {
		p := filepath.Join(dir, fmt.Sprintf("f%d.log", i*7))
		n := a.batchCount()
		t1 := time.Now()
		appendTo(t, p, "x\n")
		for a.batchCount() == n {
			runtime.Gosched()
		}
		d := time.Since(t1)
		sum += d
		worst = max(worst, d)
		time.Sleep(time.Millisecond)
	}
	t.Log("latency mean", sum/300, "worst", worst)
}

func (a *fakeAgent) batchCount() int { a.mu.Lock(); defer a.mu.Unlock(); return a.batches }
