package tail

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// got is a record as it arrived.
type got struct {
	stream    string
	offset    int64
	text      string
	truncated bool
}

// fakeAgent is the agent's side of the contract: a checkpoint in memory and a sink that remembers all.
type fakeAgent struct {
	t    testing.TB
	pool *event.Pool

	mu       sync.Mutex // guards all below
	streams  map[string]plugins.Stream
	acked    map[string]event.Position
	sent     map[string]event.Position // of this run
	events   []got                     // in order of arrival, over all runs
	counts   map[string]int64
	faults   map[string]string
	ack      bool          // settle at once
	ackSome  *rand.Rand    // settle now and then
	gate     chan struct{} // Send waits for a value, if not nil
	replay   func(k plugins.Stream) error
	log      *journal // what is logged, if not nil
	batches  int
	unopened []string
}

func newFakeAgent(t testing.TB) *fakeAgent {
	return &fakeAgent{
		t: t, pool: event.NewPool(8 << 20), streams: map[string]plugins.Stream{}, acked: map[string]event.Position{},
		sent: map[string]event.Position{}, counts: map[string]int64{}, faults: map[string]string{}, ack: true,
	}
}

func (a *fakeAgent) Known() []plugins.Stream {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []plugins.Stream
	for name, s := range a.streams {
		s.Start = a.acked[name]
		all = append(all, s)
	}
	return all
}

func (a *fakeAgent) Open(_ context.Context, s plugins.Stream) (event.Position, error) {
	a.mu.Lock()
	_, known := a.streams[s.Name]
	if !known {
		a.acked[s.Name] = s.Start
	}
	a.streams[s.Name] = s
	at := a.acked[s.Name]
	if _, twice := a.sent[s.Name]; twice {
		a.t.Errorf("stream %s opened twice", s.Name)
	}
	a.sent[s.Name] = at
	replay := a.replay
	a.mu.Unlock()
	if replay != nil {
		return at, replay(s)
	}
	return at, nil
}

func (a *fakeAgent) Update(s plugins.Stream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.streams[s.Name]; !ok {
		a.unopened = append(a.unopened, s.Name)
		return
	}
	a.streams[s.Name] = s
}

func (a *fakeAgent) Forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.streams, name)
}

func (a *fakeAgent) Send(ctx context.Context, b *event.Batch) error {
	defer b.Release()
	a.mu.Lock()
	gate := a.gate
	a.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at, open := a.sent[b.Stream]
	if !open {
		a.t.Errorf("batch of stream %s, which is not open", b.Stream)
	}
	if b.Span.From != at {
		a.t.Errorf("stream %s: batch starts at %v, the one before ended at %v", b.Stream, b.Span.From, at)
	}
	if b.Span.To.Seq <= b.Span.From.Seq || b.ReadAt.IsZero() {
		a.t.Errorf("bad batch: %+v read at %v", b.Span, b.ReadAt)
	}
	if len(b.Events) > event.MaxBatchRecords {
		a.t.Errorf("batch of %d records", len(b.Events))
	}
	a.record(b)
	a.sent[b.Stream] = b.Span.To
	if a.ack || a.ackSome != nil && a.ackSome.IntN(3) == 0 {
		a.acked[b.Stream] = b.Span.To
	}
	a.batches++
	return nil
}

// hold has each Send from now on wait for a value in the channel that it returns, or for its end.
func (a *fakeAgent) hold() chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gate = make(chan struct{})
	return a.gate
}

func (a *fakeAgent) record(b *event.Batch) {
	for i := range b.Events {
		e := &b.Events[i]
		if e.Offset < b.Span.From.Seq || e.Offset >= b.Span.To.Seq {
			a.t.Errorf("offset %d outside of %v", e.Offset, b.Span)
		}
		a.events = append(a.events, got{b.Stream, e.Offset, string(e.Raw), e.Is(event.BoolTruncated)})
	}
}

// all returns the records that arrived, each once even if it was sent again after a restart, in the order of first arrival.
func (a *fakeAgent) all() []got {
	a.mu.Lock()
	defer a.mu.Unlock()
	type key struct {
		stream string
		offset int64
	}
	seen := map[key]string{}
	var out []got
	for _, g := range a.events {
		k := key{g.stream, g.offset}
		if old, ok := seen[k]; ok {
			if old != g.text {
				a.t.Errorf("stream %s offset %d: %q and %q", g.stream, g.offset, short(old), short(g.text))
			}
			continue
		}
		seen[k] = g.text
		out = append(out, g)
	}
	return out
}

func short(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func (a *fakeAgent) texts() []string {
	var out []string
	for _, g := range a.all() {
		out = append(out, g.text)
	}
	return out
}

func (a *fakeAgent) count(name, reason string) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[name+"/"+reason]
}

func (a *fakeAgent) fault(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.faults[key]
}

// crash forgets everything that was not settled, as a restart after kill -9 does.
func (a *fakeAgent) crash() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = map[string]event.Position{}
	a.streams, a.acked = maps.Clone(a.streams), maps.Clone(a.acked)
}

func (a *fakeAgent) drained() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, s := range a.streams {
		if s.Drained {
			n++
		}
	}
	return n
}

func (a *fakeAgent) env(once bool) plugins.Env {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("TAIL_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if a.log != nil {
		log = slog.New(slog.NewTextHandler(a.log, nil))
	}
	return plugins.Env{
		Log: log, Pipeline: "p", ID: "tail", NodeID: "node", Once: once, Pool: a.pool, Streams: a,
		Count: func(name, reason string, n int64) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.counts[name+"/"+reason] += n
		},
		Fail: func(key string, err error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if err == nil {
				delete(a.faults, key)
				return
			}
			a.faults[key] = err.Error()
		},
	}
}

// testConfig is quick enough for tests.
func testConfig(paths ...string) Config {
	c := Defaults()
	c.Paths, c.Sweep, c.Grace = paths, 20*time.Millisecond, 300*time.Millisecond
	return c
}

// running is an input that runs.
type running struct {
	in   *input
	stop func()
}

func newInput(t testing.TB, a *fakeAgent, c Config, once bool) *input {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	in, err := New(c, a.env(once))
	if err != nil {
		t.Fatal(err)
	}
	return in.(*input)
}

func start(t testing.TB, a *fakeAgent, c Config) *running {
	t.Helper()
	return startInput(t, a, newInput(t, a, c, false))
}

func startInput(t testing.TB, a *fakeAgent, in *input) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx, a) }()
	r := &running{in: in}
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(60 * time.Second):
				t.Error("Run does not end")
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func runOnce(t testing.TB, a *fakeAgent, c Config) {
	t.Helper()
	in := newInput(t, a, c, true)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := in.Run(ctx, a); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if ctx.Err() != nil {
		t.Fatal("Run does not end")
	}
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

func line(i int) string {
	return fmt.Sprintf("<%08d %s>", i, strings.Repeat("x", 20+i*7%150))
}

func textOf(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(line(i))
		b.WriteByte('\n')
	}
	return b.String()
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantLines demands lines 0 to n, each once, nothing else, and those of one stream in order.
func wantLines(t testing.TB, a *fakeAgent, n int) {
	t.Helper()
	seen := map[string]int{}
	last := map[string]int64{}
	for _, g := range a.all() {
		seen[g.text]++
		if at, ok := last[g.stream]; ok && g.offset < at {
			t.Errorf("stream %s: offset %d after %d", g.stream, g.offset, at)
		}
		last[g.stream] = g.offset
	}
	missing, doubled := []int{}, []int{}
	for i := range n {
		switch seen[line(i)] {
		case 0:
			missing = append(missing, i)
		case 1:
		default:
			doubled = append(doubled, i)
		}
		delete(seen, line(i))
	}
	if len(missing) > 0 || len(doubled) > 0 {
		t.Errorf("of %d lines %d are missing %v, %d doubled %v", n, len(missing), head(missing), len(doubled), head(doubled))
	}
	for text := range seen {
		t.Errorf("nobody wrote %q", short(text))
	}
}

func head(s []int) []int { return slices.Clone(s[:min(len(s), 5)]) }

func has(a *fakeAgent, n int) func() bool { return func() bool { return len(a.all()) >= n } }

func file1(t testing.TB) (dir, path string) {
	dir = t.TempDir()
	return dir, filepath.Join(dir, "x.log")
}
