package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What P7 and P8 do.
const (
	liveRate  = 1000             // lines a second
	liveFor   = 5 * time.Second  // of each run of P7
	idleFiles = 10_000           // of P8
	idleFor   = 30 * time.Second // over which P8 measures
	patience  = 2 * time.Minute  // for the agent to deliver something
	userHZ    = 100              // of the times in /proc, on every Linux that Go runs on
)

// follower is an agent that follows files and prints records.
type follower struct {
	cmd     *exec.Cmd
	records chan time.Time // when each came
	stderr  *strings.Builder
}

// follow starts the agent over these files. stop ends it.
func (b *bench) follow(ctx context.Context, dir, pattern string) (*follower, error) {
	config := filepath.Join(dir, "stacktrail.yaml")
	text := fmt.Sprintf("agent: {state_dir: %s, node_id: bench, listen: \"\", admin_socket: %s}\npipelines:\n  - name: bench\n    inputs:\n"+
		"      - tail: {timezone: UTC, paths: [%q]}\n    outputs:\n      - stdout: {}\n", filepath.Join(dir, "state"), filepath.Join(dir, "s"), pattern)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	f := &follower{cmd: exec.CommandContext(ctx, b.agent, "run", "-c", config), records: make(chan time.Time, 1<<16), stderr: &strings.Builder{}}
	f.cmd.Env = programEnv(2)
	f.cmd.Stderr = f.stderr
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go f.count(out)
	return f, nil
}

// count notes when each record came.
func (f *follower) count(out io.Reader) {
	defer close(f.records)
	r := bufio.NewReaderSize(out, 256<<10)
	for {
		if _, err := r.ReadSlice('\n'); err != nil {
			return
		}
		f.records <- time.Now()
	}
}

// next waits for n records and returns when they came.
func (f *follower) next(ctx context.Context, n int) ([]time.Time, error) {
	give := time.NewTimer(patience)
	defer give.Stop()
	var at []time.Time
	for len(at) < n {
		select {
		case t, ok := <-f.records:
			if !ok {
				return nil, &voidError{fmt.Errorf("the agent ended after %d records of %d: %s", len(at), n, f.stderr)}
			}
			at = append(at, t)
		case <-give.C:
			return nil, &voidError{fmt.Errorf("%d records of %d came within %v: %s", len(at), n, patience, f.stderr)}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return at, nil
}

// stop ends the agent. One record too many is an error.
func (f *follower) stop() error {
	err := f.cmd.Process.Signal(syscall.SIGTERM)
	more := 0
	for range f.records {
		more++
	}
	if more > 0 {
		err = errors.Join(err, &voidError{fmt.Errorf("%d records more came than lines were written", more)})
	}
	return errors.Join(err, f.cmd.Wait())
}

// latency measures P7: how long a line takes from its writing to the output, with the agent idle between lines.
func (b *bench) latency(ctx context.Context) (row, error) {
	x := row{name: "P7", what: "live tail at 1,000 lines/s: line written → record out, p99", goal: 25, must: 100, unit: "ms"}
	var p50, p99 []float64
	for i := range b.runs {
		b.say("P7: run %d of %d", i+1, b.runs)
		took, err := b.latencyOnce(ctx)
		if void, ok := errors.AsType[*voidError](err); ok {
			x.void = void
			break
		}
		if err != nil {
			return x, fmt.Errorf("measuring latency: %w", err)
		}
		slices.Sort(took)
		ms := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1e3 }
		p50, p99 = append(p50, ms(0.5)), append(p99, ms(0.99))
	}
	b.say("")
	if x.void == nil {
		slices.Sort(p50)
		slices.Sort(p99)
		x.value = p99[len(p99)/2]
		x.detail = fmt.Sprintf("p50 %.2f ms (goal < 10); medians of %d runs of %v; worst p99 %.1f ms", p50[len(p50)/2], b.runs, liveFor, p99[len(p99)-1])
	}
	return x, nil
}

func (b *bench) latencyOnce(ctx context.Context) (took []time.Duration, err error) {
	dir := filepath.Join(b.dir, "live")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w, err := os.Create(filepath.Join(dir, "nova-api.log"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	f, err := b.follow(ctx, dir, w.Name())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	g := newGenerator(7)
	if _, err := w.Write(g.next()); err != nil {
		return nil, err
	}
	if _, err := f.next(ctx, 1); err != nil { // it follows the file
		return nil, err
	}
	n := int(liveFor.Seconds() * liveRate)
	written := make([]time.Time, n)
	tick := time.NewTicker(time.Second / liveRate)
	defer tick.Stop()
	for i, began := 0, time.Now(); i < n; {
		<-tick.C
		for due := int(time.Since(began).Seconds() * liveRate); i < min(due, n); i++ {
			written[i] = time.Now()
			if _, err := w.Write(g.next()); err != nil {
				return nil, err
			}
		}
	}
	came, err := f.next(ctx, n)
	if err != nil {
		return nil, err
	}
	for i := range came { // one file, one output: the order is kept
		took = append(took, came[i].Sub(written[i]))
	}
	return took, nil
}

// idle measures P8: what the agent takes while ten thousand files that it follows do not change.
func (b *bench) idle(ctx context.Context) (x row, err error) {
	x = row{name: "P8", what: "10,000 idle files followed", goal: 1, must: 2, unit: "% of a core"}
	dir := filepath.Join(b.dir, "idle")
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o700); err != nil {
		return x, fmt.Errorf("measuring idle files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g := newGenerator(8)
	for i := range idleFiles {
		if err := os.WriteFile(filepath.Join(dir, "log", fmt.Sprintf("nova-api-%d.log", i)), g.next(), 0o600); err != nil {
			return x, fmt.Errorf("measuring idle files: %w", err)
		}
	}
	b.say("P8: reading %d files, then %v of rest", idleFiles, idleFor)
	f, err := b.follow(ctx, dir, filepath.Join(dir, "log", "*.log"))
	if err != nil {
		return x, fmt.Errorf("measuring idle files: %w", err)
	}
	share, rss, err := f.rest(ctx)
	err = errors.Join(err, f.stop())
	b.say("")
	if void, ok := errors.AsType[*voidError](err); ok {
		x.void = void
		return x, nil
	}
	x.value, x.detail = share, fmt.Sprintf("RSS %.0f MiB (goal ≤ 64)", float64(rss)/(1<<20))
	return x, err
}

// rest waits until all is read and measures the time after it.
func (f *follower) rest(ctx context.Context) (share float64, rss int64, err error) {
	if _, err := f.next(ctx, idleFiles); err != nil {
		return 0, 0, err
	}
	if err := wait(ctx, 5*time.Second); err != nil { // the last checkpoint
		return 0, 0, err
	}
	before, _, err := usage(f.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := wait(ctx, idleFor); err != nil {
		return 0, 0, err
	}
	after, rss, err := usage(f.cmd.Process.Pid)
	return 100 * float64(after-before) / float64(time.Since(began)), rss, err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// usage reads what a process has taken of the CPU so far, and its resident memory, from proc(5).
func usage(pid int) (cpu time.Duration, rss int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return 0, 0, fmt.Errorf("reading /proc/%d/stat: %d fields", pid, len(fields))
	}
	var ticks, pages int64
	for _, v := range []struct {
		to   *int64
		text string
	}{{&ticks, fields[11]}, {&ticks, fields[12]}, {&pages, fields[21]}} {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading /proc/%d/stat: %w", pid, err)
		}
		*v.to += n
	}
	return time.Duration(ticks) * time.Second / userHZ, pages * int64(os.Getpagesize()), nil
}
