package plugintest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

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

func paths(events []*event.Event) string {
	var all strings.Builder
	for _, e := range events {
		all.WriteString(e.Path + "\n")
	}
	return all.String()
}

func TestOutputSuiteFindsEachFaultAndOnlyIt(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	var racing atomic.Int32
	cases := []struct {
		name  string
		rule  Rule
		text  string
		build func(dir string) *fake
	}{
		{"good", "", "", func(dir string) *fake {
			return &fake{write: func(_ context.Context, e []*event.Event) error { return appendFile(dir, paths(e)) }}
		}},
		{"keeps a string and writes it later", RuleKept, "overwritten", func(dir string) *fake {
			var mu sync.Mutex
			last := ""
			return &fake{
				write: func(_ context.Context, e []*event.Event) error {
					mu.Lock()
					last = e[0].Path
					mu.Unlock()
					return nil
				},
				close: func() error { return appendFile(dir, last) },
			}
		}},
		{"keeps a string in secret", RuleKept, "still holds", func(string) *fake {
			var first atomic.Pointer[string]
			return &fake{write: func(_ context.Context, e []*event.Event) error {
				s := e[0].Path
				first.CompareAndSwap(nil, &s)
				return nil
			}}
		}},
		{"keeps an event", RuleKept, "overwritten", func(dir string) *fake {
			var mu sync.Mutex
			var last *event.Event
			return &fake{
				write: func(_ context.Context, e []*event.Event) error {
					mu.Lock()
					last = e[0]
					mu.Unlock()
					return nil
				},
				close: func() error {
					if last == nil {
						return nil
					}
					return appendFile(dir, last.Path)
				},
			}
		}},
		{"changes an event", RuleUnchanged, "changed its events", of(func(_ context.Context, e []*event.Event) error { e[1].Path = "x"; return nil })},
		{"changes the slice", RuleUnchanged, "changed the slice", of(func(_ context.Context, e []*event.Event) error { e[0], e[1] = e[1], e[0]; return nil })},
		{"index out of range", RuleIndex, "index 25 for 25", of(func(_ context.Context, e []*event.Event) error {
			return &plugins.PartialError{Failed: map[int]error{len(e): os.ErrInvalid}}
		})},
		{"no cause", RuleIndex, "without a cause", of(func(context.Context, []*event.Event) error {
			return &plugins.PartialError{Failed: map[int]error{0: nil}}
		})},
		{"nothing failed", RuleIndex, "without a failed event", of(func(context.Context, []*event.Event) error { return &plugins.PartialError{} })},
		{"deaf", RuleContext, "after its context is done", of(func(ctx context.Context, _ []*event.Event) error {
			if ctx.Err() != nil {
				<-block
			}
			return nil
		})},
		{"leaks", RuleGoroutines, "left behind", of(func(context.Context, []*event.Event) error { go func() { <-block }(); return nil })},
		{"hoards", RuleGrowth, "still grows", func(string) *fake {
			var mu sync.Mutex
			var all []string
			return &fake{write: func(_ context.Context, e []*event.Event) error {
				mu.Lock()
				defer mu.Unlock()
				for _, x := range e {
					all = append(all, strings.Clone(x.RequestID))
				}
				return nil
			}}
		}},
		{"one at a time", RuleWorkers, "one of 8", of(func(_ context.Context, e []*event.Event) error {
			if racing.Add(1) > 1 {
				racing.Add(-1)
				return os.ErrClosed
			}
			if len(e) > 8 { // not in the long row
				eventually(func() bool { return racing.Load() > 1 }, moment/50)
			}
			racing.Add(-1)
			return nil
		})},
		{"a buffer for all", RuleWorkers, "the far end has", func(dir string) *fake {
			// Each access has its lock, so the race detector is silent; the whole has none.
			var mu sync.Mutex
			var buf string
			var in atomic.Int32
			return &fake{write: func(_ context.Context, e []*event.Event) error {
				mu.Lock()
				buf = strings.Clone(paths(e[:1+len(e[0].RequestID)%2]))
				mu.Unlock()
				if len(e) > 8 { // not in the long row
					meet(&in, 2)
				}
				mu.Lock()
				defer mu.Unlock()
				text := buf
				buf = ""
				return appendFile(dir, text)
			}}
		}},
		{"fails", RuleWorks, "Write: ", of(func(context.Context, []*event.Event) error { return os.ErrInvalid })},
	}
	for _, c := range cases {
		spec := outputSpec(func(dir string) plugins.Output { return c.build(dir) })
		expect(t, c.name, c.rule, c.text, func(tb TB) { Output(tb, spec, nil, Observe(readOut)) })
	}
}

// of makes an output of a function without a state.
func of(write func(context.Context, []*event.Event) error) func(string) *fake {
	return func(string) *fake { return &fake{write: write} }
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
		name string
		rule Rule
		size func(int64) int64
	}{
		{"good", "", func(n int64) int64 { return n }},
		{"cuts too much", RuleUndo, func(n int64) int64 { return n - 1 }},
		{"cuts too little", RuleUndo, func(n int64) int64 { return n + 1 }},
	} {
		spec := outputSpec(func(dir string) plugins.Output { return committer{dir, c.size} })
		expect(t, c.name, c.rule, "after Restore", func(tb TB) { Output(tb, spec, nil, Observe(readOut)) })
	}
}
