package plugintest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// Finding is one rule that a plugin broke.
type Finding struct {
	Rule Rule // "" when the suite itself could not go on
	Text string
}

// Try runs a suite outside of a test, as a command does, and returns what it found. Directories are made below dir, which the caller
// removes afterwards; log takes what the suite says while it works.
//
//	found := plugintest.Try(dir, log.Printf, func(t plugintest.TB) { plugintest.Output(t, spec, cfg) })
func Try(dir string, log func(format string, args ...any), suite func(TB)) []Finding {
	t := &trial{dir: dir, log: log}
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		if err := guard(func() error { suite(t); return nil }); err != nil {
			t.Errorf("%v", err)
		}
	}()
	<-done
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.found
}

// trial is the TB of a command.
type trial struct {
	dir string
	log func(format string, args ...any)

	mu    sync.Mutex // guards the two below
	dirs  int
	found []Finding
}

func (t *trial) Helper() {}

func (t *trial) Logf(format string, args ...any) { t.log(format, args...) }

func (t *trial) Errorf(format string, args ...any) {
	f := Finding{Text: fmt.Sprintf(format, args...)}
	if head, rest, ok := strings.Cut(f.Text, ": "); ok && known(Rule(head)) {
		f = Finding{Rule(head), rest}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found = append(t.found, f)
}

func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *trial) TempDir() string {
	t.mu.Lock()
	t.dirs++
	dir := filepath.Join(t.dir, strconv.Itoa(t.dirs))
	t.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("making a directory: %v", err)
	}
	return dir
}

func known(r Rule) bool {
	switch r {
	case RuleWorks, RuleKept, RuleUnchanged, RuleContext, RuleGoroutines, RuleIndex, RuleSame, RuleGrowth, RuleWorkers, RuleUndo, RuleOrder, RuleSettled:
		return true
	}
	return false
}
