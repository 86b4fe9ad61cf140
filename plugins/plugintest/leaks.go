package plugintest

import (
	"runtime"
	"strings"
	"time"
)

// Leaks returns a function that fails the test when goroutines run that did not when Leaks was called. It waits a while for them to end.
func Leaks(t TB) func() {
	t.Helper()
	before := goroutines()
	return func() {
		t.Helper()
		if left := before.left(); len(left) > 0 {
			t.Errorf("%s: %d were left behind:\n%s", RuleGoroutines, len(left), strings.Join(left[:min(len(left), saidMost)], "\n\n"))
		}
	}
}

// stacks holds the stacks of goroutines by their id.
type stacks map[string]string

// left returns the stacks of those that run now and did not when before was taken, once they had time to end.
func (before stacks) left() (left []string) {
	eventually(func() bool {
		left = nil
		for id, stack := range goroutines() {
			if _, old := before[id]; !old {
				left = append(left, stack)
			}
		}
		return len(left) == 0
	}, patience/10)
	return left
}

// checkLeaks looks for goroutines that did not run before the suite did.
func (s *suite) checkLeaks(before stacks) {
	s.Helper()
	if left := before.left(); len(left) > 0 {
		s.broken(RuleGoroutines, "%d were left behind:\n%s", len(left), strings.Join(left[:min(len(left), saidMost)], "\n\n"))
	}
}

// goroutines returns the stacks of all goroutines that a plugin could have started, by their id: not those of tests, and not those in
// which a suite waits for a plugin, about which it speaks anyway.
func goroutines() stacks {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	all := stacks{}
	for _, s := range strings.Split(string(buf[:n]), "\n\n")[1:] { // the first one is this
		head, _, _ := strings.Cut(s, "[")
		if strings.Contains(s, "testing.tRunner(") || strings.Contains(s, "testing.(*T).Run(") || strings.Contains(s, "plugintest.background.func") || strings.Contains(s, "os/signal") {
			continue
		}
		all[head] = s
	}
	return all
}

// eventually polls until ok or the time is up.
func eventually(ok func() bool, limit time.Duration) bool {
	if ok() {
		return true
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		select {
		case <-tick.C:
			if ok() {
				return true
			}
		case <-end.C:
			return ok()
		}
	}
}

// background runs f in a goroutine of the suite.
func background(f func()) (done <-chan struct{}) {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		f()
	}()
	return ch
}

// within reports whether done is closed within the limit.
func within(done <-chan struct{}, limit time.Duration) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	select {
	case <-done:
		return true
	case <-end.C:
		return false
	}
}

// call runs f in a goroutine and reports whether it returned within the limit.
func call(f func(), limit time.Duration) bool { return within(background(f), limit) }
