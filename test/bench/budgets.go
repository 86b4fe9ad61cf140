package main

import (
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
	"time"
)

// bench is one call of this program.
type bench struct {
	agent, self string // binaries
	dir         string
	size        int64
	runs        int
	progress    io.Writer
	terminal    bool // what progress is
}

// stubPatience is how long a request's head may take.
const stubPatience = time.Minute

// P4's memory_limit.
const smallMemory = "16MiB"

// measure measures these budgets. An agent that fails makes its row void; err says that nothing can be measured.
func (b *bench) measure(ctx context.Context, wanted []string) ([]row, error) {
	has := func(name string) bool { return slices.Contains(wanted, name) }
	var rows []row
	if has("P1") || has("P2") || has("P4") || has("P5") || has("P6") || has("drop") {
		r, err := b.oneFile(ctx, has)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	if has("P3") {
		r, err := b.fourFiles(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	if has("parse") {
		r, err := b.parseFiles(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	for _, live := range []struct {
		name    string
		measure func(context.Context) (row, error)
	}{{"P7", b.latency}, {"P8", b.idle}} {
		if !has(live.name) {
			continue
		}
		r, err := live.measure(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	if has("P9") {
		r, err := b.plugins(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	if has("formats") {
		r, err := b.formats(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	if has("P4") {
		b.say("allocations per event, by the agent's own test")
		rows = append(rows, allocations(ctx))
		b.say("")
	}
	slices.SortStableFunc(rows, func(x, y row) int {
		return slices.Index(names(), x.name) - slices.Index(names(), y.name)
	})
	return rows, ctx.Err()
}

// sample makes the lines in n files.
func (b *bench) sample(ctx context.Context, name string, n int) (sample, error) {
	said := int64(0)
	s, err := generate(ctx, filepath.Join(b.dir, name), b.size, n, func(written int64) {
		if b.terminal || written-said >= 100e6 {
			said = written
			b.say("generating lines: %d of %d MB", written/1e6, b.size/1e6)
		}
	})
	b.say("")
	return s, err
}

// say shows what is being done: on a terminal in one line that the next one overwrites. An empty one ends it.
func (b *bench) say(format string, args ...any) {
	switch text := fmt.Sprintf(format, args...); {
	case b.terminal:
		fmt.Fprint(b.progress, "\r\x1b[K", text)
	case text != "":
		fmt.Fprintln(b.progress, text)
	}
}

// series are the costs of a program in all runs.
type series struct {
	costs []cost
	void  error
}

// add notes a run. It returns only errors that are not the program's own.
func (s *series) add(c cost, err error) error {
	if void, ok := errors.AsType[*voidError](err); ok {
		s.void = void
		return nil
	}
	s.costs = append(s.costs, c)
	return err
}

// least of what f says of a run: what disturbs a run makes it dearer, never cheaper.
func (s *series) least(f func(cost) float64) float64 {
	if len(s.costs) == 0 {
		return 0
	}
	v := f(s.costs[0])
	for _, c := range s.costs[1:] {
		v = min(v, f(c))
	}
	return v
}

// median of what f says of a run, to show how much it was disturbed; the mean of the middle two where their number is even.
func (s *series) median(f func(cost) float64) float64 {
	var v []float64
	for _, c := range s.costs {
		v = append(v, f(c))
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func (c cost) perEvent(lines int64) float64 { return float64(c.cpu) / float64(lines) }

func (c cost) seconds() float64 { return c.wall.Seconds() }

// oneFile measures P1, P2 and the memory of P4 over one file. Each run of the agent follows one of the reference program.
func (b *bench) oneFile(ctx context.Context, has func(string) bool) ([]row, error) {
	s, err := b.sample(ctx, "one", 1)
	if err != nil {
		return nil, err
	}
	stub, err := startBulk(ctx)
	if err != nil {
		return nil, err
	}
	defer stub.close()
	nobody, err := deadAddress(ctx)
	if err != nil {
		return nil, err
	}
	var reference, same, write, drop, small, send, twice, hindered series // same: the reference program, writing as much as P1
	type kind struct {
		name string
		job  job
		to   *series
	}
	kinds := []kind{
		{"P1", job{}, &write},
		{"P2", job{dropAll: true}, &drop},
		{"P4", job{memory: smallMemory}, &small},
		{"P5", job{bulk: stub}, &send},
		{"P6", job{}, &write},
		{"P6", job{second: true}, &twice},
		{"drop", job{dead: nobody}, &hindered},
	}
	if !has("P1") && has("drop") && !has("P6") {
		kinds = append(kinds, kind{"drop", job{}, &write})
	}
	if has("P1") { // which is what P6 is compared with
		kinds = slices.Delete(kinds, 4, 5)
	}
	for i := range b.runs {
		for _, k := range kinds {
			if !has(k.name) || k.to.void != nil {
				continue
			}
			b.say("%s: run %d of %d", k.name, i+1, b.runs)
			if err := reference.add(b.runReference(ctx, s, 1, referencePercent)); err != nil {
				return nil, err
			}
			if err := k.to.add(b.runAgent(ctx, s, k.job, 1)); err != nil {
				return nil, err
			}
			if n := len(write.costs); k.name == "P1" && n > 0 {
				if err := same.add(b.runReference(ctx, s, 1, int(100*write.costs[n-1].written/s.bytes))); err != nil {
					return nil, err
				}
			}
		}
	}
	b.say("")
	perEvent := func(c cost) float64 { return c.perEvent(s.lines) }
	r := reference.least(perEvent)
	var rows []row
	for _, p := range []struct {
		name, what string
		of         *series
		goal, must float64
	}{
		{"P1", "file → parse → 2 expressions → NDJSON file", &write, 2.5, 4},
		{"P2", "the same, every event dropped", &drop, 1.1, 1.7},
		{"P5", "file → parse → Elasticsearch _bulk (a stub), gzip", &send, 6, 11},
	} {
		if !has(p.name) {
			continue
		}
		ns := p.of.least(perEvent)
		x := row{name: p.name, what: p.what, void: p.of.void, value: ns / r, goal: p.goal, must: p.must, unit: "R"}
		user := p.of.least(func(c cost) float64 { return float64(c.user) / float64(s.lines) })
		x.detail = fmt.Sprintf("R %.0f ns, agent %.0f ns CPU per event (user %.0f); medians %.0f, %.0f", r, ns, user, reference.median(perEvent), p.of.median(perEvent))
		if p.name == "P1" {
			written := p.of.least(func(c cost) float64 { return float64(c.written) })
			x.detail += fmt.Sprintf("; %.2f M events/s; %.2f bytes written for each byte read, %.2f times what R's program takes to write as many", 1e3/ns, written/float64(s.bytes), ns/same.least(perEvent))
		}
		rows = append(rows, x)
	}
	if has("drop") {
		alone, with := write.least(cost.seconds), hindered.least(cost.seconds)
		rows = append(rows, row{
			name: "drop", what: "P1 beside a dead output with on_full: drop", void: errors.Join(write.void, hindered.void), value: alone / with, goal: 0.9, must: 0.9, more: true,
			unit: "of P1's rate", detail: fmt.Sprintf("wall time %.3f s alone, %.3f s beside it", alone, with),
		})
	}
	if has("P6") {
		one, two := write.least(perEvent), twice.least(perEvent)
		rows = append(rows, row{
			name: "P6", what: "a second output of the same encoding", void: errors.Join(write.void, twice.void), value: 100 * (two/one - 1), goal: 40, must: 70,
			unit: "%", detail: fmt.Sprintf("one file %.0f ns, two files %.0f ns CPU per event", one, two),
		})
	}
	if has("P4") {
		var most int64
		for _, c := range small.costs {
			most = max(most, c.rss)
		}
		rows = append(rows, row{
			name: "P4", what: "peak RSS under P1, memory_limit: " + smallMemory, void: small.void,
			value: float64(most) / (1 << 20), goal: 32, must: 64, unit: "MiB",
			detail: fmt.Sprintf("agent %.0f ns CPU per event", small.least(perEvent)),
		})
	}
	return rows, nil
}

// fourFiles measures P3: what a second core gives to the agent, against what it gives to the reference program.
func (b *bench) fourFiles(ctx context.Context) (row, error) {
	x := row{name: "P3", what: "speed-up by a second core, P1 over four files, wall time", goal: 0.9, must: 0.75, unit: "of R's", more: true}
	s, err := b.sample(ctx, "four", 4)
	if err != nil {
		return x, err
	}
	var reference, agent [2]series
	for i := range b.runs {
		b.say("P3: run %d of %d", i+1, b.runs)
		for cores := range 2 {
			if err := reference[cores].add(b.runReference(ctx, s, cores+1, referencePercent)); err != nil {
				return x, err
			}
			if agent[cores].void != nil {
				continue
			}
			if err := agent[cores].add(b.runAgent(ctx, s, job{}, cores+1)); err != nil {
				return x, err
			}
		}
	}
	b.say("")
	x.void = errors.Join(agent[0].void, agent[1].void)
	var wall [4]float64
	for i, p := range []*series{&reference[0], &reference[1], &agent[0], &agent[1]} {
		wall[i] = p.least(cost.seconds)
	}
	ofR, ofAgent := wall[0]/wall[1], wall[2]/wall[3]
	x.value = ofAgent / ofR
	x.detail = fmt.Sprintf("R %.2f (%.3f s → %.3f s), agent %.2f (%.3f s → %.3f s)", ofR, wall[0], wall[1], ofAgent, wall[2], wall[3])
	return x, nil
}

// allocations runs the test in which the agent counts them, because a process cannot be asked from outside.
func allocations(ctx context.Context) row {
	x := row{name: "P4", what: "allocations per event, memory_limit: " + smallMemory, goal: 0.01, must: 0.05}
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^TestAllocationsPerEvent$", "github.com/stacktrail/stacktrail/agent")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	m := regexp.MustCompile(`allocations per event: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		x.void = fmt.Errorf("counting allocations: the test says nothing of them (%w):\n%s", err, out)
		return x
	}
	// A test that fails says its figure too, and the figure is judged here.
	x.value, err = strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		x.void = fmt.Errorf("counting allocations: %w", err)
	}
	x.detail = fmt.Sprintf("in %.1f s", time.Since(began).Seconds())
	return x
}
