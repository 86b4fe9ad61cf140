package plugintest

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// fakeProcessor is a processor of a function.
type fakeProcessor func(ctx context.Context, b *event.Batch) error

func (f fakeProcessor) Process(ctx context.Context, b *event.Batch) error { return f(ctx, b) }

// each makes a processor that does something to every event that is not dropped.
func each(change func(e *event.Event)) fakeProcessor {
	return func(_ context.Context, b *event.Batch) error {
		for i := range b.Events {
			if e := &b.Events[i]; !e.Dropped {
				change(e)
			}
		}
		return nil
	}
}

// meet waits until so many are in it at the same time, or for a moment: nobody may come.
func meet(in *atomic.Int32, n int32) {
	in.Add(1)
	eventually(func() bool { return in.Load() >= n }, moment/50)
	in.Add(-1)
}

func TestProcessorSuiteFindsEachFaultAndOnlyIt(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	var instances, racing atomic.Int32
	var shared sync.Map
	cases := []struct {
		name  string
		rule  Rule
		text  string
		build func() fakeProcessor
	}{
		{"good", "", "", func() fakeProcessor {
			return each(func(e *event.Event) {
				e.Dropped = e.Status == 300
				e.Path = strings.ToUpper(e.Path)
			})
		}},
		{"good with a cache that has a bound", "", "", func() fakeProcessor {
			seen, ring := map[string]int{}, make([]string, 1<<12)
			next := 0
			return each(func(e *event.Event) {
				if _, ok := seen[e.RequestID]; !ok {
					delete(seen, ring[next])
					ring[next] = strings.Clone(e.RequestID)
					seen[ring[next]] = next
					next = (next + 1) % len(ring)
				}
			})
		}},
		{"keeps a string and shows it", RuleKept, "overwritten", func() fakeProcessor {
			last := ""
			return each(func(e *event.Event) { e.User, last = last, e.Path })
		}},
		{"uses room again", "", "", func() fakeProcessor {
			var room []string
			return each(func(e *event.Event) {
				room = append(room[:0], e.Path, e.Query)
				e.Path = room[0] + "?" + room[1]
			})
		}},
		{"keeps a string in secret", RuleKept, "still holds", func() fakeProcessor {
			first := ""
			return each(func(e *event.Event) { first = cmp.Or(first, e.Path) })
		}},
		{"keeps a slice", RuleKept, "still holds", func() fakeProcessor {
			var first []byte
			return each(func(e *event.Event) {
				if first == nil {
					first = e.Raw[:3]
				}
			})
		}},
		{"adds", RuleUnchanged, "adds none", func() fakeProcessor {
			return func(_ context.Context, b *event.Batch) error { b.Append(); return nil }
		}},
		{"moves", RuleUnchanged, "out of its place", func() fakeProcessor {
			return func(_ context.Context, b *event.Batch) error { slices.Reverse(b.Events); return nil }
		}},
		{"changes dropped ones", RuleUnchanged, "changed a dropped event", func() fakeProcessor {
			return func(_ context.Context, b *event.Batch) error {
				for i := range b.Events {
					b.Events[i].Path = "x"
				}
				return nil
			}
		}},
		{"brings back", RuleUnchanged, "brought a dropped event back", func() fakeProcessor {
			return func(_ context.Context, b *event.Batch) error {
				for i := range b.Events {
					b.Events[i].Dropped = false
				}
				return nil
			}
		}},
		{"counts on the index", RuleWorks, "alone", func() fakeProcessor {
			return func(_ context.Context, b *event.Batch) error {
				for i := range b.Events {
					if e := &b.Events[b.Events[i].Index()]; !e.Dropped {
						e.Service = "x"
					}
				}
				return nil
			}
		}},
		{"deaf", RuleContext, "after its context is done", func() fakeProcessor {
			return func(ctx context.Context, _ *event.Batch) error {
				if ctx.Err() != nil {
					<-block
				}
				return nil
			}
		}},
		{"leaks", RuleGoroutines, "left behind", func() fakeProcessor {
			return func(context.Context, *event.Batch) error { go func() { <-block }(); return nil }
		}},
		{"differs", RuleSame, "one instance made", func() fakeProcessor {
			mine := strconv.Itoa(int(instances.Add(1)))
			return each(func(e *event.Event) { e.Service = mine })
		}},
		{"hoards", RuleGrowth, "still grows", func() fakeProcessor {
			seen := map[string]bool{}
			return each(func(e *event.Event) { seen[strings.Clone(e.RequestID)] = true })
		}},
		{"hoards a little", RuleGrowth, "still grows", func() fakeProcessor {
			var calls []*int
			return func(context.Context, *event.Batch) error { calls = append(calls, new(int)); return nil }
		}},
		{"shares state with other instances", RuleWorkers, "at the same time", func() fakeProcessor {
			return each(func(e *event.Event) {
				shared.Store("path", strings.Clone(e.Path))
				if e.Offset == 0 {
					meet(&racing, 2)
				}
				p, _ := shared.Load("path")
				e.Path = p.(string) + strconv.Itoa(int(racing.Load()))
			})
		}},
		{"fails", RuleWorks, "Process: ", func() fakeProcessor {
			return func(context.Context, *event.Batch) error { return os.ErrInvalid }
		}},
		{"panics", RuleWorks, "it panicked", func() fakeProcessor {
			return func(_ context.Context, b *event.Batch) error { b.Events[len(b.Events)].Path = "x"; return nil }
		}},
	}
	for _, c := range cases {
		spec := plugins.ProcessorSpec("fake", "", none{}, func(none, plugins.Env) (plugins.Processor, error) { return c.build(), nil })
		expect(t, c.name, c.rule, c.text, func(tb TB) { Processor(tb, spec, nil) })
	}
}

// What is stuck has to end with its context, and what is said to be stuck has to be so.
func TestStuckEndsWithItsContext(t *testing.T) {
	type config struct {
		Stuck bool `yaml:"stuck" doc:"Be stuck."`
		Deaf  bool `yaml:"deaf" doc:"And deaf."`
	}
	block := make(chan struct{})
	defer close(block)
	spec := plugins.ProcessorSpec("fake", "", config{}, func(c config, _ plugins.Env) (plugins.Processor, error) {
		return fakeProcessor(func(ctx context.Context, _ *event.Batch) error {
			switch {
			case c.Deaf:
				<-block
			case c.Stuck:
				<-ctx.Done()
				return errors.New("stuck")
			}
			return nil
		}), nil
	})
	expect(t, "good", "", "", func(tb TB) { Processor(tb, spec, nil, Stuck("stuck: true")) })
	expect(t, "deaf", RuleContext, "while it is stuck", func(tb TB) { Processor(tb, spec, nil, Stuck(config{Deaf: true})) })
	expect(t, "not stuck", RuleContext, "proves nothing", func(tb TB) { Processor(tb, spec, nil, Stuck("{}")) })
}

// A plugin in a process of its own grows there.
func TestHeldStandsForTheHeap(t *testing.T) {
	for _, grows := range []bool{false, true} {
		var held atomic.Int64
		rule, each100 := Rule(""), int64(0)
		if grows {
			rule, each100 = RuleGrowth, 100
		}
		spec := plugins.ProcessorSpec("fake", "", none{}, func(none, plugins.Env) (plugins.Processor, error) {
			return each(func(*event.Event) { held.Add(each100) }), nil
		})
		expect(t, "held", rule, "still grows", func(tb TB) { Processor(tb, spec, nil, Held(held.Load)) })
	}
}
