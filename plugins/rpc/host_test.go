package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// logged is a log that tests look at.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func host(t *testing.T, name string, change ...func(*Config)) (*Host, *logged) {
	t.Helper()
	c := DefaultConfig()
	c.Path = program(t, name)
	for _, f := range change {
		f(&c)
	}
	log := &logged{}
	h := NewHost(c, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(h.Close)
	return h, log
}

func quick(c *Config) { c.Timeout = 500 * time.Millisecond }

// build makes an instance of a plugin as the agent does.
func build(t *testing.T, h *Host, kind plugins.Kind, yaml string, env plugins.Env) any {
	t.Helper()
	spec, n := specOf(t, h, kind, yaml)
	cfg, faults := conf.DecodeAny(n, spec.Defaults)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	v, err := spec.New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func specOf(t *testing.T, h *Host, kind plugins.Kind, yaml string) (plugins.Spec, conf.Node) {
	t.Helper()
	list, err := h.Specs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, faults := conf.Parse("c.yaml", []byte(yaml))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for _, s := range list {
		if s.Kind == kind {
			return s, n
		}
	}
	t.Fatalf("there is no %s", kind)
	return plugins.Spec{}, n
}

func runEnv(t *testing.T) plugins.Env {
	t.Helper()
	return plugins.Env{StateDir: t.TempDir(), ID: "x", Count: func(string, string, int64) {}, Fail: func(string, error) {}, Log: slog.New(slog.DiscardHandler)}
}

func processorOf(t *testing.T, h *Host) plugins.Processor {
	t.Helper()
	return build(t, h, plugins.KindProcessor, "pattern: secret", runEnv(t)).(plugins.Processor)
}

func batchOf(paths ...string) *event.Batch {
	b := event.NewBatch("stream")
	for i, p := range paths {
		e := b.Append()
		e.Path, e.Query, e.Offset, e.Raw = p, "a=secret", int64(100*i), []byte("GET "+p)
		e.SetStatus(200)
	}
	return b
}

// gone waits until a process is gone.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

func TestAProcessorInAnotherProcessDoesWhatOneInThisDoes(t *testing.T) {
	h, log := host(t, "honest")
	env := runEnv(t)
	counted, failing := map[string]int64{}, map[string]string{}
	env.Count = func(name, reason string, n int64) { counted[name+"/"+reason] += n }
	env.Fail = func(key string, err error) {
		if failing[key] = ""; err != nil {
			failing[key] = err.Error()
		}
	}
	p := build(t, h, plugins.KindProcessor, "pattern: secret", env).(plugins.Processor)
	b := batchOf("/a", "/drop", "/b")
	b.Events[0].Set("kept", event.StringValue("yes"))
	id := b.Events[0].ID()
	if err := p.Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if e := &b.Events[0]; e.Query != "a=***" || e.Path != "/a" || e.ID() != id || e.Status != 200 {
		t.Errorf("the first event is %+v", e)
	}
	if v, _ := b.Events[0].Get("masked_int"); v.Int() != 1 {
		t.Error("a new field is missing")
	}
	if v, _ := b.Events[0].Get("kept"); v.Str() != "yes" {
		t.Error("a field got lost")
	}
	if b.Events[0].Dropped || !b.Events[1].Dropped || b.Events[2].Dropped {
		t.Error("the wrong events are dropped")
	}
	if counted["masked/query"] != 3 || failing["far end"] != "sulks" {
		t.Errorf("it counted %v and complained of %v", counted, failing)
	}
	eventually(t, "its log", func() bool {
		return strings.Contains(log.String(), `level=WARN msg="a batch" plugin=honest events=3`)
	})
}

// TestAnyGRPCServerCanBeAPlugin: nothing of go-plugin is needed on the other side.
func TestAnyGRPCServerCanBeAPlugin(t *testing.T) {
	h, log := host(t, "bare")
	p := processorOf(t, h)
	for range 3 {
		b := batchOf("/a")
		if err := p.Process(t.Context(), b); err != nil || b.Events[0].Query != "a=***" {
			t.Fatalf("%v, %+v", err, b.Events[0])
		}
	}
	eventually(t, "its log", func() bool { return strings.Count(log.String(), `msg="a batch"`) == 3 })
	if h.Status().Restarts != 0 {
		t.Error("it was started again")
	}
}

func TestAnOutputInAnotherProcessAnswersForEachEvent(t *testing.T) {
	h, _ := host(t, "honest")
	file := filepath.Join(t.TempDir(), "out")
	o := build(t, h, plugins.KindOutput, fmt.Sprintf("{path: %s, fail: /never, retry: /later}", file), runEnv(t)).(plugins.Output)
	if err := o.(plugins.Opener).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	one, two := batchOf("/a", "/never"), batchOf("/later", "/b")
	two.Stream = "other"
	evs := pointers(pointers(nil, one), two)
	err := o.Write(t.Context(), evs)
	partial, ok := errors.AsType[*plugins.PartialError](err)
	if !ok || len(partial.Failed) != 2 {
		t.Fatalf("the answer is %v", err)
	}
	if _, ok := errors.AsType[*plugins.PermanentError](partial.Failed[1]); !ok {
		t.Errorf("event 1: %v", partial.Failed[1])
	}
	if x, ok := errors.AsType[*plugins.ThrottleError](partial.Failed[2]); !ok || x.After != 1500*time.Millisecond {
		t.Errorf("event 2: %v", partial.Failed[2])
	}
	if err := o.(plugins.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s stream /a\n%s other /b\n", evs[0].ID(), evs[3].ID()); string(got) != want {
		t.Errorf("it wrote\n%s, want\n%s", got, want)
	}
}

// TestEachStartThatCannotBeIsRefusedByName: what is not a plugin, or not one for this agent.
func TestEachStartThatCannotBeIsRefusedByName(t *testing.T) {
	for name, want := range map[string]string{
		"cookie": "it ended before it was ready (exit status 1): is it a plugin, and of this agent?; it said last:",
		"old":    "it speaks protocol 0, this agent speaks 1",
		"exit0":  "it ended before it was ready (exit status 0)",
		"hello":  `its first line is "hello, world", which is no handshake`,
		"tcp":    "it listens on tcp",
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := host(t, name)
			_, err := h.Specs(t.Context())
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("the error is %v, want %s", err, want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("it has several lines: %v", err)
			}
		})
	}
}

func TestAPluginThatIsNeverReadyIsGivenUp(t *testing.T) {
	for name, want := range map[string]string{
		"silent":   "it was not ready in 10s: is it a plugin?; it said last: I say nothing",
		"nosocket": "no such file",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := host(t, name)
			_, err := h.Specs(t.Context())
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("the error is %v, want %s", err, want)
			}
		})
	}
}

func TestAProgramThatMustNotRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, self, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("good", 0o755)
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	write("open/in", 0o755)
	sum := sha256.Sum256(self)
	right := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		cfg  Config
		want string // "": it runs
	}{
		{Config{Path: "bin/mask"}, "is not absolute"},
		{Config{Path: dir}, "is a directory"},
		{Config{Path: filepath.Join(dir, "none")}, "no such file"},
		{Config{Path: write("norun", 0o644)}, "cannot be executed: chmod 0755"},
		{Config{Path: write("world", 0o757)}, "can be changed by everybody"},
		{Config{Path: filepath.Join(open, "in")}, "can be replaced by everybody"},
		{Config{Path: good, SHA256: Checksum(strings.Repeat("0", 64))}, "has the checksum " + right},
		{Config{Path: "/dev/null"}, "is no regular file"},
	} {
		c.cfg.Timeout = time.Minute
		h := NewHost(c.cfg, slog.New(slog.DiscardHandler))
		_, err := h.Specs(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.cfg, err, c.want)
		}
		h.Close()
	}
}

func TestWithAChecksumWhatWasReadIsWhatRuns(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(self)
	h, _ := host(t, "honest", func(c *Config) {
		c.SHA256 = Checksum(strings.ToUpper(hex.EncodeToString(sum[:])))
	})
	if err := processorOf(t, h).Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", h.Status().PID))
	if err != nil || filepath.Base(exe) == "3" {
		t.Errorf("it runs %s: %v", exe, err)
	}
}

func TestTheEnvironmentOfTheAgentStaysWithTheAgent(t *testing.T) {
	t.Setenv("CANARY", "secret")
	h, _ := host(t, "honest")
	processorOf(t, h)
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.Status().PID))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(env, []byte("CANARY")) || bytes.Contains(env, []byte("HOME=")) {
		t.Errorf("it has the environment %q", env)
	}
	group, err := syscall.Getpgid(h.Status().PID)
	if err != nil || group != h.Status().PID {
		t.Errorf("its group is %d: %v", group, err)
	}
}

// TestP03MisbehaviourIsAnErrorAndNothingElse: what a plugin does wrong while it works.
func TestP03MisbehaviourIsAnErrorAndNothingElse(t *testing.T) {
	for name, want := range map[string]string{
		"count":    "the reply speaks of 7 events, the request of 2",
		"instance": "the reply is of instance 99",
		"garbage":  "malformed frame: 16 bytes are no header",
		"huge":     "message larger than max",
		"twice":    "it answers another call",
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := host(t, name)
			p := processorOf(t, h)
			var err error
			for range 2 {
				b := batchOf("/a", "/b")
				err = p.Process(t.Context(), b)
				if err != nil && (b.Events[0].Query != "a=secret" || b.Events[1].Query != "a=secret") {
					t.Error("the failed call changed events")
				}
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("the error is %v, want %s", err, want)
			}
			pid := h.Status().PID
			if pid == 0 {
				t.Fatal("it does not run any more")
			}
			if name == "huge" {
				small(t)
			}
			h.Close()
			gone(t, pid)
		})
	}
}

// small proves that this process did not take in what it refused.
func small(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if kb, err := strconv.Atoi(string(m[1])); err != nil || kb > 600<<10 {
		t.Errorf("the agent's memory grew to %d KiB: %v", kb, err)
	}
}

func TestAFloodOnStderrIsBounded(t *testing.T) {
	h, log := host(t, "flood")
	p := processorOf(t, h)
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	h.Close()
	eventually(t, "what was left out is told", func() bool { return strings.Contains(log.String(), "lines are left out") })
	if n := strings.Count(log.String(), "\n"); n > 5000 {
		t.Errorf("%d lines got through", n)
	}
}

func TestAPluginThatClosesItsPipesGoesOn(t *testing.T) {
	h, _ := host(t, "pipes")
	p := processorOf(t, h)
	for range 3 {
		if err := p.Process(t.Context(), batchOf("/a")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChildrenOfAPluginEndWithIt(t *testing.T) {
	for _, name := range []string{"fork", "daemon"} { // a daemon leaves the group
		h, log := host(t, name)
		child := childOf(t, h, log)
		pid := h.Status().PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+": the child is dead", func() bool { return dead(child) })
	}
}

// childOf has the plugin start a process.
func childOf(t *testing.T, h *Host, log *logged) (child int) {
	t.Helper()
	p := processorOf(t, h)
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child's number", func() bool {
		m := regexp.MustCompile(`child=(\d+)`).FindStringSubmatch(log.String())
		if m == nil {
			return false
		}
		child, _ = strconv.Atoi(m[1])
		return true
	})
	return child
}

// TestWhatAPluginStartedDoesNotOutliveTheAgent ends no plugin: the guard's work is to be seen.
func TestWhatAPluginStartedDoesNotOutliveTheAgent(t *testing.T) {
	h, log := host(t, "daemon")
	child := childOf(t, h, log)
	other := exec.Command("/bin/sleep", "1000") // of an agent whose number begins as ours does
	other.Env = []string{leftEnv + "=" + strings.TrimSuffix(ofAgent(), "-") + "0-x"}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	said := &logged{}
	g, err := StartGuard(slog.New(slog.NewTextHandler(said, nil)), "guard")
	if err != nil {
		t.Fatal(err)
	}
	pid := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.cmd.Process.Pid
	}
	first := pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another guard", func() bool { return pid() != first })
	if !strings.Contains(said.String(), "signal: killed") {
		t.Errorf("the log says %q", said)
	}
	if dead(child) {
		t.Error("the child is dead before the agent is")
	}
	g.Close()
	eventually(t, "the child is dead", func() bool { return dead(child) })
	if dead(other.Process.Pid) {
		t.Error("a process of another agent was ended")
	}
}

func TestAGuardThatDoesNotEndIsKilled(t *testing.T) {
	said := &logged{}
	g, err := StartGuard(slog.New(slog.NewTextHandler(said, nil)), "guard")
	if err != nil {
		t.Fatal(err)
	}
	pid := g.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	g.Close()
	if !dead(pid) || !strings.Contains(said.String(), "is killed") {
		t.Errorf("it lives: %t; the log says %q", !dead(pid), said)
	}
}

// dead tells whether a process that nobody may have waited for does not run any more.
func dead(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestAPluginThatIgnoresTermIsKilled(t *testing.T) {
	h, _ := host(t, "term")
	processorOf(t, h)
	pid := h.Status().PID
	h.Close()
	gone(t, pid)
}

// TestP02APluginThatDoesNotAnswerIsKilledAndTheOthersGoOn: only the events that it hangs on fail, and those after the third time.
func TestP02APluginThatDoesNotAnswerIsKilledAndTheOthersGoOn(t *testing.T) {
	h, _ := host(t, "hang", quick)
	p, q := processorOf(t, h), processorOf(t, h)
	first := h.Status().PID
	err := p.Process(t.Context(), batchOf("/poison"))
	if err == nil || !strings.Contains(err.Error(), "did not answer within 500ms, 3 times on these events") {
		t.Fatalf("the error is %v", err)
	}
	gone(t, first)
	for _, x := range []plugins.Processor{p, q} {
		if err := x.Process(t.Context(), batchOf("/a")); err != nil {
			t.Fatal(err)
		}
	}
	if s := h.Status(); s.Restarts != 3 || s.Down != "" {
		t.Errorf("its status is %+v", s)
	}
}

// TestABatchThatKillsThePluginDiesAndItsNeighboursDoNot: eight lanes share the process.
func TestABatchThatKillsThePluginDiesAndItsNeighboursDoNot(t *testing.T) {
	h, _ := host(t, "crash")
	var lanes sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		p := processorOf(t, h)
		lanes.Go(func() {
			for {
				b := batchOf("/a", "/b")
				if err := p.Process(context.Background(), b); err != nil || b.Events[1].Query != "a=***" {
					t.Errorf("a neighbour suffered: %v", err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	p := processorOf(t, h)
	for range 2 {
		err := p.Process(t.Context(), batchOf("/a", "/poison"))
		if err == nil || !strings.Contains(err.Error(), "the plugin ended: exit status 3 3 times on these events") {
			t.Errorf("the error is %v", err)
		}
	}
	close(done)
	lanes.Wait()
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Error(err)
	}
}

func TestAnOutputsBatchThatKillsThePluginIsGivenUp(t *testing.T) {
	h, _ := host(t, "crash")
	o := build(t, h, plugins.KindOutput, "path: "+filepath.Join(t.TempDir(), "out"), runEnv(t)).(plugins.Output)
	err := o.Write(t.Context(), pointers(nil, batchOf("/poison")))
	if _, ok := errors.AsType[*plugins.PermanentError](err); !ok {
		t.Errorf("the error is %v", err)
	}
	eventually(t, "others are written", func() bool { return o.Write(t.Context(), pointers(nil, batchOf("/a"))) == nil })
}

func TestAKilledPluginCostsARetryOnly(t *testing.T) {
	h, _ := host(t, "honest")
	p := processorOf(t, h)
	for range 5 {
		if err := p.Process(t.Context(), batchOf("/a")); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(h.Status().PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if s := h.Status(); s.Restarts != 4 {
		t.Errorf("its status is %+v", s)
	}
}

func TestTheDeathOfAPluginThatHasNothingToDoIsSaidAtOnce(t *testing.T) {
	h, log := host(t, "honest")
	p := processorOf(t, h)
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	const said = `msg="plugin ended, will start it again for the next events"`
	eventually(t, "the log says that it ended", func() bool { return strings.Contains(log.String(), said) })
	const down = "it ended (signal: killed) and is started again for the next events"
	if s := h.Status(); s.PID != 0 || s.Restarts != 0 || s.Deaths != 1 || s.Down != down {
		t.Errorf("its status is %+v", s)
	}
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	if s := h.Status(); s.Restarts != 1 || s.Deaths != 1 || s.Down != "" {
		t.Errorf("when it runs again its status is %+v", s)
	}
	if n := strings.Count(log.String(), said); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

func TestARestartLeavesNothingBehind(t *testing.T) {
	h, _ := host(t, "honest")
	p := processorOf(t, h)
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	restart := func(n int) {
		for range n {
			if err := p.Process(t.Context(), batchOf("/a")); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(h.Status().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Process(t.Context(), batchOf("/a")); err != nil {
			t.Fatal(err)
		}
	}
	restart(2)
	files, routines := open(), runtime.NumGoroutine()
	restart(10)
	eventually(t, "descriptors and goroutines are as many as before", func() bool {
		return open() <= files+2 && runtime.NumGoroutine() <= routines+4
	})
}

func TestAPanicIsAnErrorOfItsBatch(t *testing.T) {
	h, log := host(t, "honest")
	p := processorOf(t, h)
	for path, want := range map[string]string{"/panic": "plugin panicked: on purpose", "/error": "on purpose"} {
		if err := p.Process(t.Context(), batchOf(path)); err == nil || err.Error() != want {
			t.Errorf("%s: the error is %v", path, err)
		}
	}
	eventually(t, "the trace is in the log", func() bool { return strings.Contains(log.String(), "goroutine") })
	if h.Status().Restarts != 0 {
		t.Error("it was started again")
	}
}

func TestAPluginThatKeepsToItsDeadlineIsNotKilled(t *testing.T) {
	h, _ := host(t, "honest", quick)
	err := processorOf(t, h).Process(t.Context(), batchOf("/wait"))
	if err == nil || !strings.Contains(err.Error(), "deadline exceeded") || h.Status().Restarts != 0 {
		t.Errorf("the error is %v, its status %+v", err, h.Status())
	}
}

func TestStoppingTheAgentEndsACallAtOnce(t *testing.T) {
	h, _ := host(t, "hang")
	ctx, cancel := context.WithCancel(t.Context())
	p := processorOf(t, h)
	end := make(chan error)
	go func() { end <- p.Process(ctx, batchOf("/poison")) }()
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// TestAConfigurationIsCheckedLikeABuiltIns: the same faults at the same places, whether the plugin is built in or in another process.
func TestAConfigurationIsCheckedLikeABuiltIns(t *testing.T) {
	h, _ := host(t, "honest")
	far, _ := specOf(t, h, plugins.KindProcessor, "{}")
	near := specs()[0]
	for _, yaml := range []string{
		"pattern: x", "{}", "patern: x", "pattern: 5", "pattern: x\nlimits: {time: 5}", "pattern: x\nlimits: {size: 2GiB}", "pattern: x\nlimits: {tim: 5s}",
		"pattern: x\nmode: sof", "pattern: x\nmode: soft\nlimits: {time: 5m}", "pattern: '['", "pattern: x\nrules: [{drop: true}]", "pattern: x\nrules: {a: b}",
		"pattern: x\nrules: [{when: a, drop: maybe}]", "pattern: x\nratio: 2", "pattern: x\nworkers: -9", "pattern: x\nextra: {size: 1}",
		"pattern: x\nnames: {a: b}\nmore: {a: [1, {b: c}]}\nkey: k\nrules: [{when: a, drop: true, many: 3}]", "pattern: ''", "pattern: x\nwith:",
	} {
		a, b := faultsIn(t, near, yaml), faultsIn(t, far, yaml)
		if a != b {
			t.Errorf("%q: built in it says\n%s\nand from another process\n%s", yaml, a, b)
		}
	}
	if a, b := describe(near), describe(far); fmt.Sprint(a.Config) != fmt.Sprint(b.Config) {
		t.Errorf("its keys are\n%v\nand were\n%v", b.Config, a.Config)
	}
}

func faultsIn(t *testing.T, s plugins.Spec, yaml string) string {
	t.Helper()
	n, faults := conf.Parse("c.yaml", []byte(yaml))
	cfg, more := conf.DecodeAny(n, s.Defaults)
	if faults = append(faults, more...); len(faults) == 0 {
		_, err := s.New(cfg, plugins.Env{Log: slog.New(slog.DiscardHandler)})
		faults = n.Place(err, cfg)
	}
	return faults.Error()
}

func TestWhatAPluginNeedsToKnowOfTheConfigurationArrives(t *testing.T) {
	h, _ := host(t, "honest")
	v := build(t, h, plugins.KindProcessor, "pattern: x", plugins.Env{})
	if f := v.(plugins.FieldDefiner).DefinedFields(); f["masked_int"] != event.Int {
		t.Errorf("it defines %v", f)
	}
	o := build(t, h, plugins.KindOutput, "path: /run/x", plugins.Env{})
	if w := o.(plugins.PathWriter).WrittenPaths(); len(w) != 1 || w[0] != "/run/x" {
		t.Errorf("it writes %v", w)
	}
	if l := o.(plugins.Lingering).DefaultLinger(); l != 2*time.Second {
		t.Errorf("it lingers %v", l)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
