package plugintest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// recorder is a testing.TB that keeps what a suite says.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// verdict runs a suite and returns what it found.
func verdict(t *testing.T, suite func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		suite(r)
	}()
	<-done
	return strings.Join(r.said, "\n")
}

// expect says that a suite must find this; "" for a plugin that is right.
func expect(t *testing.T, name, want string, suite func(testing.TB)) {
	t.Helper()
	got := verdict(t, suite)
	if want == "" && got != "" {
		t.Errorf("%s: a good plugin is blamed: %s", name, got)
	}
	if want != "" && !strings.Contains(got, want) {
		t.Errorf("%s: not found; the suite said %q", name, got)
	}
}

type none struct{}

// fake is an output of functions.
type fake struct {
	write func(ctx context.Context, events []*event.Event) error
	close func() error
}

func (f *fake) Write(ctx context.Context, events []*event.Event) error { return f.write(ctx, events) }

func (f *fake) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

func outputSpec(build func(dir string) plugins.Output) plugins.Spec {
	return plugins.OutputSpec("fake", "", none{}, func(_ none, env plugins.Env) (plugins.Output, error) {
		return build(strings.TrimSuffix(env.StateDir, "/state")), nil
	})
}

func appendFile(dir, text string) error {
	f, err := os.OpenFile(dir+"/out", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	_ = f.Close()
	return err
}

func readOut(dir string) []byte {
	p, _ := os.ReadFile(dir + "/out")
	return p
}

func TestOutputSuiteFindsEachFault(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	var mu sync.Mutex
	running := 0
	cases := []struct {
		name, want string
		write      func(dir string, ctx context.Context, e []*event.Event) error
	}{
		{"good", "", func(dir string, _ context.Context, e []*event.Event) error {
			mu.Lock()
			defer mu.Unlock()
			return appendFile(dir, e[0].Path+"\n")
		}},
		{"changes an event", "changed its events", func(_ string, _ context.Context, e []*event.Event) error { e[1].Path = "x"; return nil }},
		{"changes the slice", "changed the slice", func(_ string, _ context.Context, e []*event.Event) error { e[0], e[1] = e[1], e[0]; return nil }},
		{"index out of range", "index 25", func(_ string, _ context.Context, e []*event.Event) error {
			return &plugins.PartialError{Failed: map[int]error{len(e): os.ErrInvalid}}
		}},
		{"no cause", "without a cause", func(string, context.Context, []*event.Event) error {
			return &plugins.PartialError{Failed: map[int]error{0: nil}}
		}},
		{"nothing failed", "without a failed event", func(string, context.Context, []*event.Event) error { return &plugins.PartialError{} }},
		{"one at a time", "at the same time", func(string, context.Context, []*event.Event) error {
			mu.Lock()
			running++
			busy := running > 1
			mu.Unlock()
			for range 100 {
				runtime.Gosched()
			}
			mu.Lock()
			running--
			mu.Unlock()
			if busy {
				return os.ErrClosed
			}
			return nil
		}},
		{"deaf", "after its context is done", func(_ string, ctx context.Context, _ []*event.Event) error {
			if ctx.Err() != nil {
				<-block
			}
			return nil
		}},
		{"leaks", "goroutines were left", func(string, context.Context, []*event.Event) error {
			go func() { <-block }()
			return nil
		}},
	}
	for _, c := range cases {
		spec := outputSpec(func(dir string) plugins.Output {
			return &fake{write: func(ctx context.Context, e []*event.Event) error { return c.write(dir, ctx, e) }}
		})
		expect(t, c.name, c.want, func(tb testing.TB) { Output(tb, spec, nil, Observe(readOut)) })
	}
	keeps := outputSpec(func(dir string) plugins.Output {
		var kept []string
		return &fake{
			write: func(_ context.Context, e []*event.Event) error {
				mu.Lock()
				kept = append(kept, e[0].Path)
				mu.Unlock()
				return nil
			},
			close: func() error { return appendFile(dir, strings.Join(kept, "\n")) },
		}
	})
	expect(t, "keeps strings", "kept something", func(tb testing.TB) { Output(tb, keeps, nil, Observe(readOut)) })
}

// committer is an output that does not cut, or cuts too much.
type committer struct {
	dir  string
	size func(wanted int64) int64
}

func (c committer) Write(_ context.Context, e []*event.Event) error {
	enc := schema.NewEncoder(schema.EncodeOptions{Newline: true})
	var p []byte
	for _, x := range e {
		p = enc.Append(p, x)
	}
	return appendFile(c.dir, string(p))
}

func (c committer) Token() ([]byte, error) { return fmt.Append(nil, len(readOut(c.dir))), nil }

func (c committer) Restore(tok []byte) (int64, error) {
	if tok == nil {
		return 0, nil
	}
	var n int64
	if _, err := fmt.Sscan(string(tok), &n); err != nil {
		return 0, err
	}
	was := int64(len(readOut(c.dir)))
	return was - n, os.Truncate(c.dir+"/out", c.size(n))
}

func TestOutputSuiteFindsBadTokens(t *testing.T) {
	for _, c := range []struct {
		name, want string
		size       func(int64) int64
	}{
		{"good", "", func(n int64) int64 { return n }},
		{"cuts too much", "after Restore", func(n int64) int64 { return n - 1 }},
		{"cuts too little", "after Restore", func(n int64) int64 { return n + 1 }},
	} {
		spec := outputSpec(func(dir string) plugins.Output { return committer{dir, c.size} })
		expect(t, c.name, c.want, func(tb testing.TB) { Output(tb, spec, nil, Observe(readOut)) })
	}
}

type fakeProcessor func(b *event.Batch) error

func (f fakeProcessor) Process(_ context.Context, b *event.Batch) error { return f(b) }

func TestProcessorSuiteFindsEachFault(t *testing.T) {
	instances := 0
	var hoard [][]byte
	cases := []struct {
		name, want string
		build      func() fakeProcessor
	}{
		{"good", "", func() fakeProcessor {
			return func(b *event.Batch) error {
				for i := range b.Events {
					if e := &b.Events[i]; !e.Dropped {
						e.Dropped = e.Status == 300
						e.Path = strings.ToUpper(e.Path)
					}
				}
				return nil
			}
		}},
		{"differs", "not deterministic", func() fakeProcessor {
			instances++
			mine := instances
			return func(b *event.Batch) error {
				for i := range b.Events {
					if !b.Events[i].Dropped {
						b.Events[i].Service = strconv.Itoa(mine)
					}
				}
				return nil
			}
		}},
		{"keeps", "kept something", func() fakeProcessor {
			last := ""
			return func(b *event.Batch) error {
				for i := range b.Events {
					if e := &b.Events[i]; !e.Dropped {
						e.User, last = last, e.Path
					}
				}
				return nil
			}
		}},
		{"adds", "adds none", func() fakeProcessor { return func(b *event.Batch) error { b.Append(); return nil } }},
		{"moves", "out of its place", func() fakeProcessor {
			return func(b *event.Batch) error { b.Events[0], b.Events[1] = b.Events[1], b.Events[0]; return nil }
		}},
		{"changes dropped", "changed a dropped event", func() fakeProcessor {
			return func(b *event.Batch) error { b.Events[2].Path = "x"; return nil }
		}},
		{"brings back", "brought a dropped event back", func() fakeProcessor {
			return func(b *event.Batch) error { b.Events[2].Dropped = false; return nil }
		}},
		{"grows", "grows", func() fakeProcessor {
			n := 0
			return func(*event.Batch) error {
				n++
				for range n {
					hoard = append(hoard, make([]byte, 8))
				}
				return nil
			}
		}},
		{"fails", "Process: ", func() fakeProcessor { return func(*event.Batch) error { return os.ErrInvalid } }},
	}
	for _, c := range cases {
		spec := plugins.ProcessorSpec("fake", "", none{}, func(none, plugins.Env) (plugins.Processor, error) { return c.build(), nil })
		expect(t, c.name, c.want, func(tb testing.TB) { Processor(tb, spec, nil) })
	}
	_ = hoard
}

// fakeInput sends three lines of one stream in two batches.
type fakeInput struct {
	env   plugins.Env
	fault string
	block chan struct{}
}

var source = []string{"one", "two", "three"}

func (f *fakeInput) send(ctx context.Context, sink plugins.Sink, lines []string, from int64) error {
	b, err := f.env.Pool.Get(ctx, 100)
	if err != nil {
		return err
	}
	b.Stream = "s"
	at := from
	for _, l := range lines {
		e := b.Append()
		e.Raw, e.Path, e.Offset = []byte(l), l, at
		at += int64(len(l)) + 1
	}
	b.Span = event.Span{From: event.Position{Seq: from}, To: event.Position{Seq: at}}
	return sink.Send(ctx, b)
}

func (f *fakeInput) Run(ctx context.Context, sink plugins.Sink) error {
	if _, err := f.env.Streams.Open(ctx, plugins.Stream{Name: "s"}); err != nil {
		return err
	}
	if err := f.send(ctx, sink, source[:2], 0); err != nil && f.fault != "deaf when full" {
		return nil //nolint:nilerr // the context is done
	}
	from := int64(8)
	if f.fault == "gap" {
		from = 9
	}
	if f.fault != "loses when live" || f.env.Once {
		if err := f.send(ctx, sink, source[2:], from); err != nil && f.fault != "deaf when full" {
			return nil //nolint:nilerr // the context is done
		}
	}
	switch f.fault {
	case "leaks":
		go func() { <-f.block }()
	case "never ends":
		<-ctx.Done()
	}
	if f.env.Once {
		return nil
	}
	<-ctx.Done()
	if strings.HasPrefix(f.fault, "deaf") {
		<-f.block
	}
	return nil
}

func (f *fakeInput) CanReplay(context.Context, plugins.Stream, event.Position) error { return nil }

func (f *fakeInput) Replay(ctx context.Context, _ plugins.Stream, _, _ event.Position, sink plugins.Sink) error {
	lines := source
	if f.fault == "replays else" {
		lines = []string{"one", "two", "tree"}
	}
	return f.send(ctx, sink, lines, 0)
}

func TestInputSuiteFindsEachFault(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	for fault, want := range map[string]string{
		"": "", "gap": "from 9 after one to 8", "leaks": "goroutines were left", "deaf": "Run goes on",
		"deaf when full": "while the pipeline is full", "replays else": "Replay(s) gave",
	} {
		spec := plugins.InputSpec("fake", "", none{}, func(_ none, env plugins.Env) (plugins.Input, error) {
			return &fakeInput{env: env, fault: fault, block: block}, nil
		})
		expect(t, "input: "+fault, want, func(tb testing.TB) { Input(tb, spec, nil) })
	}
}
