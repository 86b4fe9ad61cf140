//go:build blackbox

package scripts

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// box is a world of its own for one test: logs, state, output, configuration.
type box struct {
	t      testing.TB
	dir    string
	out    string // of the file output
	config string
	short  string // a folder for sockets, whose paths must be short
	starts int
	brief  bool // of many processes only the last one's log is shown
}

func newBox(t testing.TB) *box {
	t.Helper()
	dir := t.TempDir()
	ok(t, os.Chmod(filepath.Dir(dir), 0o755)) // for the tests with another user
	ok(t, os.Chmod(dir, 0o755))
	b := &box{t: t, dir: dir, out: filepath.Join(dir, "out", "out.ndjson"), config: filepath.Join(dir, "stacktrail.yaml")}
	var err error
	b.short, err = os.MkdirTemp("", "sock")
	ok(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(b.short) })
	ok(t, os.Chmod(b.short, 0o777))
	for _, d := range []string{"logs", "out"} {
		ok(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	return b
}

// log returns the path of a log file.
func (b *box) log(name string) string { return filepath.Join(b.dir, "logs", name) }

func (b *box) socket() string { return filepath.Join(b.short, "admin.sock") }

func (b *box) state() string { return filepath.Join(b.dir, "state") }

// setup is what a test wants of the configuration. Everything is YAML in flow style.
type setup struct {
	agent  string // more keys of agent
	tail   string // more keys of the input
	paths  []string
	output string // default: a file
	policy string // keys beside the output's
	also   string // another output
	every  string // checkpoint_interval; default: 100ms
}

// write makes the configuration.
func (b *box) write(s setup) {
	b.t.Helper()
	if len(s.paths) == 0 {
		s.paths = []string{b.log("*.log")}
	}
	if s.output == "" {
		s.output = fmt.Sprintf("file: {path: %q, rotate: {size: 0}}", b.out)
	}
	if s.policy != "" {
		s.policy = ", " + s.policy
	}
	if s.agent != "" {
		s.agent = ", " + s.agent
	}
	if s.tail != "" {
		s.tail = ", " + s.tail
	}
	if s.also != "" {
		s.also = "      - {" + s.also + "}\n"
	}
	paths, err := json.Marshal(s.paths)
	ok(b.t, err)
	text := fmt.Sprintf(`agent: {state_dir: %q, listen: "127.0.0.1:0", admin_socket: %q, checkpoint_interval: %s, node_id: box%s}
pipelines:
  - name: main
    inputs:
      - {tail: {paths: %s, timezone: UTC, sweep: 200ms%s}, id: in}
    outputs:
      - {%s, id: out%s}
%s`, b.state(), b.socket(), cmp.Or(s.every, "100ms"), s.agent, paths, s.tail, s.output, s.policy, s.also)
	ok(b.t, os.WriteFile(b.config, []byte(text), 0o644))
}

// stacktrail is the program under test.
func stacktrail(t testing.TB) string {
	t.Helper()
	p := os.Getenv("STACKTRAIL_BIN")
	if p == "" {
		t.Fatal("STACKTRAIL_BIN does not name the binary: run `make scripts`")
	}
	return p
}

// agent is a running process of the binary.
type agent struct {
	t       testing.TB
	cmd     *exec.Cmd
	logPath string
	done    chan struct{}
}

// start starts the agent with the box's configuration.
func (b *box) start() *agent {
	b.t.Helper()
	return b.launch(stacktrail(b.t), "run", "-c", b.config)
}

// launch starts any command line whose process becomes an agent.
func (b *box) launch(argv ...string) *agent {
	b.t.Helper()
	b.starts++
	a := &agent{t: b.t, logPath: filepath.Join(b.dir, fmt.Sprintf("agent-%d.log", b.starts)), done: make(chan struct{})}
	f := must[*os.File](b.t)(os.Create(a.logPath))
	defer f.Close()
	a.cmd = exec.Command(argv[0], argv[1:]...)
	a.cmd.Stdout, a.cmd.Stderr = f, f
	a.cmd.Dir = b.dir
	ok(b.t, a.cmd.Start())
	go func() {
		_ = a.cmd.Wait() // the exit code is looked at by whoever asks for it
		close(a.done)
	}()
	b.t.Cleanup(func() {
		if !a.ended() {
			a.kill()
		}
		if b.t.Failed() && (!b.brief || strings.HasSuffix(a.logPath, fmt.Sprintf("agent-%d.log", b.starts))) {
			b.t.Logf("%s:\n%s", filepath.Base(a.logPath), tailOf(a.text(), 6000))
		}
	})
	return a
}

func tailOf(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (a *agent) pid() int { return a.cmd.Process.Pid }

func (a *agent) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// signal sends a signal to this process alone.
func (a *agent) signal(s syscall.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.t.Fatalf("sending %v: %v", s, err)
	}
}

// kill ends it with SIGKILL and waits for it.
func (a *agent) kill() {
	a.t.Helper()
	a.signal(syscall.SIGKILL)
	<-a.done
}

// wait returns the exit code.
func (a *agent) wait() int {
	a.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	select {
	case <-a.done:
	case <-end.C:
		a.t.Fatalf("the agent did not end within %v", patience)
	}
	return a.cmd.ProcessState.ExitCode()
}

// stop sends TERM and expects a clean end.
func (a *agent) stop() {
	a.t.Helper()
	a.signal(syscall.SIGTERM)
	if code := a.wait(); code != 0 {
		a.t.Fatalf("exit code %d after TERM, want 0", code)
	}
}

// text is what it logged so far.
func (a *agent) text() string {
	b, err := os.ReadFile(a.logPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// says waits until the log holds this text; the test fails when the agent ends before.
func (a *agent) says(text string) {
	a.t.Helper()
	found := func() bool { return strings.Contains(a.text(), text) }
	waitFor(a.t, fmt.Sprintf("the log says %q", text), func() bool { return found() || a.ended() })
	if !found() {
		a.t.Fatalf("the agent ended with code %d and never said %q", a.wait(), text)
	}
}

// alive fails the test if the process has ended.
func (a *agent) alive() {
	a.t.Helper()
	if a.ended() {
		a.t.Fatalf("the agent ended with code %d", a.wait())
	}
}

// peak returns the most memory that the process ever had resident, in bytes; 0 when it has ended.
func (a *agent) peak() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.pid()))
	if err != nil {
		return 0
	}
	_, rest, found := bytes.Cut(b, []byte("VmHWM:"))
	if !found {
		return 0
	}
	n, _ := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
	return n << 10
}

// ticks returns the processor time that the process has used.
func (a *agent) ticks() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.pid()))
	if err != nil {
		return -1
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	user, _ := strconv.ParseInt(string(fields[11]), 10, 64)
	system, _ := strconv.ParseInt(string(fields[12]), 10, 64)
	return user + system
}

// quiet waits until the process does next to nothing any more.
func (a *agent) quiet() {
	a.t.Helper()
	last, still := a.ticks(), 0
	done := poll(100*time.Millisecond, patience, func() bool {
		now := a.ticks()
		if still++; now-last > 1 {
			last, still = now, 0
		}
		return still >= 15 || a.ended()
	})
	a.alive()
	if !done {
		a.t.Fatal("the agent never comes to rest")
	}
}

// result is what a command that runs to its end gave.
type result struct {
	code        int
	out, errors string
}

// command runs the binary to its end.
func command(t testing.TB, args ...string) result {
	t.Helper()
	return commandIn(t, "", nil, args...)
}

// commandIn does so in a folder, with something on standard input.
func commandIn(t testing.TB, dir string, stdin []byte, args ...string) result {
	t.Helper()
	cmd := exec.Command(stacktrail(t), args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// once runs `run --once` to its end and returns its report.
func (b *box) once() result {
	b.t.Helper()
	r := command(b.t, "run", "--once", "-c", b.config)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("run --once: code %d\n%s", r.code, tailOf(r.errors, 6000))
		}
	})
	return r
}

// size returns a file's size, 0 when there is none.
func size(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// outputs returns the files of the output in the order in which they were written, those put aside first.
func (b *box) outputs() []string {
	b.t.Helper()
	var list []string
	for n := 1; ; n++ {
		p := numbered(b.out, n)
		if _, err := os.Stat(p); err != nil {
			if p += ".gz"; size(p) == 0 {
				break
			}
		}
		list = append(list, p)
	}
	slices.Reverse(list)
	if _, err := os.Stat(b.out); err == nil {
		list = append(list, b.out)
	}
	return list
}

// committed is what the checkpoint says of the output.
type committed struct {
	length int64 // of the output file
	known  bool
}

// readCheckpoint reads the output's token out of the checkpoint.
func (b *box) readCheckpoint() (c committed, err error) {
	p, err := os.ReadFile(filepath.Join(b.state(), "checkpoint"))
	if err != nil {
		return c, err
	}
	_, doc, found := bytes.Cut(p, []byte{'\n'})
	if !found {
		return c, errors.New("checkpoint without a header")
	}
	var snap struct {
		Pipelines map[string]struct {
			Outputs map[string]struct {
				Token []byte `json:"token"`
			} `json:"outputs"`
		} `json:"pipelines"`
	}
	if err := json.Unmarshal(doc, &snap); err != nil {
		return c, err
	}
	var token struct {
		Files []struct {
			Path   string `json:"path"`
			Length int64  `json:"length"`
		} `json:"files"`
	}
	raw := snap.Pipelines["main"].Outputs["out"].Token
	if len(raw) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(raw, &token); err != nil {
		return c, err
	}
	for _, f := range token.Files {
		if f.Path == filepath.Base(b.out) {
			return committed{f.Length, true}, nil
		}
	}
	return c, nil
}

var cutBack = regexp.MustCompile(`msg="cut back to the last checkpoint".* bytes=(\d+)`)

// cutBytes returns how much the agent says to have cut off its output when it started.
func (a *agent) cutBytes() int64 { return cutBytes(a.text()) }

func cutBytes(log string) (n int64) {
	for _, m := range cutBack.FindAllStringSubmatch(log, -1) {
		v, _ := strconv.ParseInt(m[1], 10, 64)
		n += v
	}
	return n
}
