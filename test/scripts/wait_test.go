//go:build blackbox

package scripts

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// patience bounds every wait for something that has to happen. It is no measure of speed.
const patience = 90 * time.Second

// waitFor looks every few milliseconds until cond holds; the test fails when it never does.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !poll(5*time.Millisecond, patience, cond) {
		t.Fatalf("waited %v in vain: %s", patience, what)
	}
}

// poll looks every so often until cond holds, and reports whether it did before the limit.
func poll(every, limit time.Duration, cond func() bool) bool {
	tick := time.NewTicker(every)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			return cond()
		}
	}
	return true
}

// beats calls f n times, at this distance: the pace of somebody outside, such as a writer or a rotator.
func beats(n int, every time.Duration, f func(i int)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		f(i)
	}
}

// number reads a size from the environment.
func number(t testing.TB, name string, byDefault int) int {
	t.Helper()
	v, ok := os.LookupEnv(name)
	if !ok {
		return byDefault
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number above 0", name, v)
	}
	return n
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5eed)) }

// need fails the test with a sentence when a program is missing, and returns its path.
func need(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p
		}
	}
	t.Fatalf("this test needs %s, which is not installed", name)
	return ""
}

func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("this test needs root %s", why)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
