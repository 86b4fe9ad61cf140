package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cost is what a run of a program took.
type cost struct {
	cpu  time.Duration
	user time.Duration // the part of cpu that is not the kernel's
	wall time.Duration
	// rss is the peak. The kernel counts what this process held when it started the child too, so it can only be too high.
	rss int64
	// written is how many bytes the output has.
	written int64
}

// programEnv is the environment of a program that is measured on this many cores.
func programEnv(cores int) []string {
	return append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "STACKTRAIL_")
	}), "GOMAXPROCS="+strconv.Itoa(cores))
}

// start runs a program to its end and returns what it cost and what it printed.
func start(ctx context.Context, cores int, name string, args ...string) (cost, string, string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = programEnv(cores)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(began)}
	if s := cmd.ProcessState; s != nil {
		c.user = s.UserTime()
		c.cpu = c.user + s.SystemTime()
		if u, ok := s.SysUsage().(*syscall.Rusage); ok {
			c.rss = u.Maxrss << 10
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return c, stdout.String(), stderr.String(), err
}

// warm writes a file of this many bytes and removes it, so that the program that runs next gets pages that the machine has at
// hand. A virtual machine gives freed pages back to its host within seconds (free page reporting), and the first touch of a page
// that has to come from the host again costs ten times what writing it costs: 2.6 s of system time for 1 GB instead of 0.25 s.
func (b *bench) warm(bytes int64) (err error) {
	f, err := os.CreateTemp(b.dir, "warm")
	if err != nil {
		return fmt.Errorf("warming the page cache: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, referenceBlock)
	for written := int64(0); written < bytes; written += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("warming the page cache: %w", err)
		}
	}
	return nil
}

// runReference runs the reference program over the sample on this many cores, a goroutine each. It writes percent of what it reads.
func (b *bench) runReference(ctx context.Context, s sample, cores, percent int) (cost, error) {
	dir := filepath.Join(b.dir, "reference")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return cost{}, fmt.Errorf("running the reference program: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := b.warm(s.bytes * int64(percent) / 100); err != nil {
		return cost{}, err
	}
	args := append([]string{referenceFlag, strconv.Itoa(cores), strconv.Itoa(percent), dir}, s.files...)
	c, out, text, err := start(ctx, cores, b.self, args...)
	if err != nil {
		return c, fmt.Errorf("running the reference program: %w: %s", err, text)
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err != nil || n != s.lines {
		return c, fmt.Errorf("running the reference program: it found %q lines of %d", strings.TrimSpace(out), s.lines)
	}
	return c, nil
}

// job is what the agent is asked to do.
type job struct {
	dropAll bool
	memory  string // memory_limit; empty: the default
	second  bool   // a second file of the same records
	bulk    *bulk  // send everything there instead of to a file, without processors
	dead    string // address of a second output that nobody answers at, with on_full: drop
}

// Conditions of the drop processor.
const (
	dropHealthy    = `method in ["HEAD", "OPTIONS"] && api_response_code_int < 300`
	dropEverything = `method in ["HEAD", "OPTIONS"] || api_response_code_int < 600`
)

// configuration writes the agent's configuration. The output is never rotated, so that one file can be counted at the end.
func configuration(s sample, j job, dir string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "agent:\n  state_dir: %s\n  node_id: bench\n", filepath.Join(dir, "state"))
	if j.memory != "" {
		fmt.Fprintf(&w, "  memory_limit: %s\n", j.memory)
	}
	w.WriteString("pipelines:\n  - name: bench\n    inputs:\n      - tail:\n          timezone: UTC\n          paths:\n")
	for _, f := range s.files {
		fmt.Fprintf(&w, "            - %s\n", f)
	}
	if j.bulk != nil {
		fmt.Fprintf(&w, "    outputs:\n      - elasticsearch: {urls: [%q], index: bench, compress: gzip}\n", j.bulk.url)
		return w.String()
	}
	when := dropHealthy
	if j.dropAll {
		when = dropEverything
	}
	fmt.Fprintf(&w, "    processors:\n      - drop: {when: '%s'}\n", when)
	w.WriteString("      - enrich:\n          set: {slo: 'api_response_code_int >= 500 ? \"bad\" : \"good\"'}\n    outputs:\n")
	for _, name := range j.files() {
		fmt.Fprintf(&w, "      - file:\n          path: %s\n          rotate: {size: 0}\n        id: %s\n", filepath.Join(dir, name), strings.TrimSuffix(name, ".ndjson"))
	}
	if j.dead != "" {
		fmt.Fprintf(&w, "      - http: {url: %q}\n        id: dead\n        queue: {on_full: drop}\n        batch: {linger: 0s}\n"+
			"        retry: {initial: 5ms, max: 5ms, limit: 10ms}\n        dead_letter: false\n", j.dead)
	}
	return w.String()
}

// outputFactor is how many bytes an output writes for each byte read, at most.
const outputFactor = 3

// files are the files that the agent is to write.
func (j job) files() []string {
	switch {
	case j.bulk != nil:
		return nil
	case j.second:
		return []string{"out.ndjson", "second.ndjson"}
	}
	return []string{"out.ndjson"}
}

// voidError says that a run of the agent does not count.
type voidError struct{ err error }

func (e *voidError) Error() string { return e.err.Error() }

func (e *voidError) Unwrap() error { return e.err }

// runAgent runs the agent over the sample with run --once, on this many cores, and checks what it wrote. Its error is a
// voidError where the agent did not do its job.
func (b *bench) runAgent(ctx context.Context, s sample, j job, cores int) (cost, error) {
	dir := filepath.Join(b.dir, "agent")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return cost{}, fmt.Errorf("running the agent: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	config := filepath.Join(dir, "stacktrail.yaml")
	if err := os.WriteFile(config, []byte(configuration(s, j, dir)), 0o600); err != nil {
		return cost{}, fmt.Errorf("running the agent: %w", err)
	}
	if err := b.warm(s.bytes * outputFactor * max(1, int64(len(j.files())))); err != nil {
		return cost{}, err
	}
	c, _, report, err := start(ctx, cores, b.agent, "run", "--once", "-c", config)
	if ctx.Err() != nil {
		return c, err
	}
	if err != nil {
		return c, &voidError{fmt.Errorf("running the agent: %w:\n%s", err, report)}
	}
	want := expect(s, j)
	if err := errors.Join(want.report(report), j.checkDead(report, want)); err != nil {
		return c, &voidError{fmt.Errorf("checking the agent's report: %w:\n%s", err, report)}
	}
	if j.bulk != nil {
		if n := j.bulk.take(); n != want.records {
			return c, &voidError{fmt.Errorf("checking the output: the server got %d events of %d", n, want.records)}
		}
		return c, nil
	}
	for _, name := range j.files() {
		n, err := want.file(filepath.Join(dir, name))
		if err != nil {
			return c, &voidError{fmt.Errorf("checking the output: %w", err)}
		}
		c.written += n
	}
	return c, nil
}

// file checks a file that the agent wrote and returns its size.
func (w expected) file(path string) (size int64, err error) {
	out, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && w.records == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }() // only read
	return w.output(out)
}

// expected is what has to come of a sample.
type expected struct{ lines, records, bad int64 }

func expect(s sample, j job) expected {
	switch {
	case j.dropAll:
		return expected{lines: s.lines}
	case j.bulk != nil:
		return expected{lines: s.lines, records: s.lines}
	}
	return expected{lines: s.lines, records: s.lines - s.healthy, bad: s.failed}
}

// report checks what the agent says of its input and of its output.
func (w expected) report(text string) error {
	in := numbers(`(?m)^ +input .*, (\d+) lines: (\d+) events, (\d+) of them unparsed; (\d+) service`, text)
	if !slices.Equal(in, []int64{w.lines, w.lines, 0, 0}) {
		return fmt.Errorf("it read %v lines, events, unparsed and skipped ones, %d parsed lines are right", in, w.lines)
	}
	out := numbers(`(?m)^ +output .* (\d+) offered = (\d+) delivered \+ (\d+) filtered \+ (\d+) dead \+ (\d+) dropped`, text)
	if !slices.Equal(out, []int64{w.lines, w.records, w.lines - w.records, 0, 0}) {
		return fmt.Errorf("it wrote %v (offered, delivered, filtered, dead, dropped), %d of %d are right", out, w.records, w.lines)
	}
	return nil
}

// checkDead checks that the dead output accounts for every event.
func (j job) checkDead(text string, want expected) error {
	if j.dead == "" {
		return nil
	}
	n := numbers(`(?m)^ +output +dead +(\d+) offered = (\d+) delivered \+ (\d+) filtered \+ (\d+) dead \+ (\d+) dropped;`, text)
	if len(n) != 5 || n[0] != want.lines || n[1] != 0 || n[0] != n[2]+n[3]+n[4] || n[4] == 0 {
		return fmt.Errorf("the dead output accounts for %v (offered, delivered, filtered, dead, dropped) of %d", n, want.lines)
	}
	return nil
}

func numbers(pattern, text string) (n []int64) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	for i := 1; i < len(m); i++ {
		v, err := strconv.ParseInt(m[i], 10, 64)
		if err != nil {
			return nil
		}
		n = append(n, v)
	}
	return n
}

// output counts the records, and those that the second expression marked.
func (w expected) output(r io.Reader) (size int64, err error) {
	var got expected
	buf := make([]byte, 0, 256<<10)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		size += int64(n)
		whole := bytes.LastIndexByte(buf, '\n') + 1
		got.records += int64(bytes.Count(buf[:whole], []byte("}\n")))
		got.bad += int64(bytes.Count(buf[:whole], []byte(`"slo":"bad"`)))
		rest := copy(buf, buf[whole:])
		buf = buf[:rest]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return size, err
		}
		if rest == cap(buf) {
			return size, errors.New("there is a line without an end")
		}
	}
	if len(buf) > 0 {
		return size, fmt.Errorf("its last %d bytes are no whole line", len(buf))
	}
	if got.records != w.records || got.bad != w.bad {
		return size, fmt.Errorf("it has %d records, %d of them bad: %d and %d are right", got.records, got.bad, w.records, w.bad)
	}
	return size, nil
}
