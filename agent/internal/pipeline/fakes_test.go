package pipeline

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// numbers is an input of streams that hold the numbers 0 to n-1, one record each.
type numbers struct {
	env     plugins.Env
	streams []string
	n       int64
	batch   int64
	gone    map[string]bool // streams that can no longer be read again
}

func (in *numbers) Run(ctx context.Context, sink plugins.Sink) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(in.streams))
	for _, s := range in.streams {
		wg.Go(func() {
			at, err := in.env.Streams.Open(ctx, plugins.Stream{Name: s, Lane: s})
			if err == nil {
				err = in.send(ctx, s, at.Seq, in.n, sink)
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	if !in.env.Once {
		<-ctx.Done()
	}
	return nil
}

func (in *numbers) send(ctx context.Context, stream string, from, to int64, sink plugins.Sink) error {
	for from < to {
		end := min(to, from+1+rand.Int64N(in.batch))
		b, err := in.env.Pool.Get(ctx, 1024)
		if err != nil {
			return err
		}
		b.Stream, b.Span = stream, event.Span{From: event.Position{Seq: from}, To: event.Position{Seq: end}}
		for i := from; i < end; i++ {
			e := b.Append()
			e.Offset = i
			e.RequestID = b.Arena().CopyString(fmt.Sprintf("%s-%d", stream, i))
			e.SetStatus(int32(200 + i%400))
		}
		if err := sink.Send(ctx, b); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (in *numbers) CanReplay(ctx context.Context, s plugins.Stream, _ event.Position) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if in.gone[s.Name] {
		return fmt.Errorf("stream %s: %w", s.Name, plugins.ErrGone)
	}
	return nil
}

func (in *numbers) Replay(ctx context.Context, s plugins.Stream, from, to event.Position, sink plugins.Sink) error {
	if in.gone[s.Name] {
		return fmt.Errorf("stream %s: %w", s.Name, plugins.ErrGone)
	}
	return in.send(ctx, s.Name, from.Seq, to.Seq, sink)
}

// far is what survives a crash of the agent: the lines that an output wrote.
type far struct {
	mu    sync.Mutex
	lines []string
}

func (f *far) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.lines...)
}

// memory is an output that writes to far and, as a committer, can cut it back. answer, if set, decides what Write does.
type memory struct {
	far    *far
	answer func(events []*event.Event) error
}

func (o *memory) Write(ctx context.Context, events []*event.Event) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if o.answer != nil {
		err := o.answer(events)
		p, partly := err.(*plugins.PartialError) //nolint:errorlint // a wrapped one is a lie of the test's
		if err != nil && !partly {
			return err
		}
		if partly {
			for i, e := range events {
				if _, failed := p.Failed[i]; !failed {
					o.add(e)
				}
			}
			return err
		}
	}
	for _, e := range events {
		o.add(e)
	}
	return nil
}

func (o *memory) add(e *event.Event) {
	o.far.mu.Lock()
	defer o.far.mu.Unlock()
	id := e.RequestID
	if id == "" {
		id = e.Batch().Stream + "-" + strconv.FormatInt(e.Offset, 10)
	}
	o.far.lines = append(o.far.lines, string(append([]byte(nil), id...)))
}

// committer is memory that can undo.
type committer struct{ memory }

func (o *committer) Token() ([]byte, error) {
	o.far.mu.Lock()
	defer o.far.mu.Unlock()
	return binary.LittleEndian.AppendUint64(nil, uint64(len(o.far.lines))), nil
}

func (o *committer) Restore(token []byte) (int64, error) {
	if token == nil {
		return 0, nil
	}
	o.far.mu.Lock()
	defer o.far.mu.Unlock()
	n := binary.LittleEndian.Uint64(token)
	cut := len(o.far.lines) - int(n)
	if cut < 0 {
		return 0, &plugins.KeptError{Reason: "shorter than the token says"}
	}
	o.far.lines = o.far.lines[:n]
	return int64(cut), nil
}

// funcProcessor is a processor made of a function.
type funcProcessor func(*event.Batch) error

func (f funcProcessor) Process(_ context.Context, b *event.Batch) error { return f(b) }

// openProcessor counts that it is opened and closed, and fails when it is used otherwise.
type openProcessor struct {
	funcProcessor
	opened, closed *atomic.Int64
	open           bool
}

func (p *openProcessor) Open(context.Context) error {
	p.open = true
	p.opened.Add(1)
	return nil
}

func (p *openProcessor) Process(ctx context.Context, b *event.Batch) error {
	if !p.open {
		return errors.New("it is not open")
	}
	return p.funcProcessor.Process(ctx, b)
}

func (p *openProcessor) Close() error {
	p.open = false
	p.closed.Add(1)
	return nil
}

func outputConfig(id string, build func(plugins.Env) (plugins.Output, error)) OutputConfig {
	return OutputConfig{
		ID: id, Type: id, Workers: 1, DeadLetter: true, Build: build,
		Batch: Batch{Events: 50, Bytes: 1 << 20}, Queue: Queue{Bytes: 1 << 20, OnFull: OnFullBlock},
		Retry: Retry{Initial: time.Microsecond, Max: 10 * time.Microsecond},
	}
}

func inputConfig(in *numbers) InputConfig {
	return InputConfig{ID: "numbers", Type: "numbers", Build: func(env plugins.Env) (plugins.Input, error) {
		in.env = env
		return in, nil
	}}
}

// rig is a state directory in memory around a pipeline.
type rig struct {
	t      *testing.T
	cfg    Config
	dead   map[string]*far // dead letters by path
	state  checkpoint.Pipeline
	before checkpoint.Pipeline // the state before that
	pool   *event.Pool
	stop   time.Duration

	log     io.Writer // nil: nowhere
	dir     string    // "/state" if empty
	deadMax int64
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	return &rig{t: t, cfg: cfg, dead: map[string]*far{}, pool: event.NewPool(64 << 20), stop: 5 * time.Second}
}

// build builds a pipeline on what the state says.
func (r *rig) build(asked chan<- struct{}) *Pipeline {
	r.t.Helper()
	log := io.Discard
	if r.log != nil {
		log = r.log
	}
	p, err := New(r.cfg, Deps{
		Log: slog.New(slog.NewTextHandler(log, nil)), Pool: r.pool, NodeID: "node", StateDir: cmp.Or(r.dir, "/state"), DeadLetterMax: r.deadMax, Once: true,
		StopTimeout: r.stop, State: r.state,
		DeadLetter: func(path string, _ plugins.Env) (plugins.Committer, error) {
			if r.dead[path] == nil {
				r.dead[path] = &far{}
			}
			return &committer{memory{far: r.dead[path]}}, nil
		},
		RequestSnapshot: func() {
			select {
			case asked <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// start builds and starts a pipeline on what the state says, and stores its snapshots until the returned function is called.
// That one takes a last one if final is set.
func (r *rig) start(ctx context.Context, every time.Duration) (p *Pipeline, finish func(final bool)) {
	r.t.Helper()
	asked := make(chan struct{}, 1)
	p = r.build(asked)
	if err := p.Start(ctx); err != nil {
		r.t.Fatal(err)
	}
	store := func(s Snapshot) {
		r.before, r.state = r.state, s.Pipeline
		p.Stored(s)
	}
	store(p.Snapshot(ctx, 0))
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-asked:
				store(p.Snapshot(ctx, 0))
			case <-tick.C:
				store(p.Snapshot(ctx, time.Second))
			}
		}
	}()
	return p, func(final bool) {
		close(end)
		<-ended
		if final {
			store(p.Final())
		}
		p.Close()
	}
}

// runOnce runs to the end of every source.
func (r *rig) runOnce() *Pipeline {
	r.t.Helper()
	ctx := context.Background()
	p, finish := r.start(ctx, time.Millisecond)
	p.Run(ctx)
	finish(true)
	return p
}

// exactly fails unless the lines are all numbers of the streams, each once, in order within their stream.
func exactly(t *testing.T, lines []string, streams []string, n int64, except func(i int64) bool) {
	t.Helper()
	next := map[string]int64{}
	skip := func(s string) {
		for except != nil && next[s] < n && except(next[s]) {
			next[s]++
		}
	}
	for _, l := range lines {
		var s string
		var i int64
		for k := len(l) - 1; k >= 0; k-- {
			if l[k] == '-' {
				s = l[:k]
				i, _ = strconv.ParseInt(l[k+1:], 10, 64)
				break
			}
		}
		skip(s)
		if i != next[s] {
			t.Fatalf("stream %q: got %d, want %d", s, i, next[s])
		}
		next[s]++
	}
	for _, s := range streams {
		skip(s)
		if next[s] != n {
			t.Fatalf("stream %q: %d records of %d arrived", s, next[s], n)
		}
	}
}
