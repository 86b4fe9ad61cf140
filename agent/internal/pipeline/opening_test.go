package pipeline

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// gate opens as it is told.
type gate struct {
	open  atomic.Pointer[func(context.Context) error]
	tries atomic.Int64
}

func newGate(open func(context.Context) error) *gate {
	g := &gate{}
	g.open.Store(&open)
	return g
}

func (g *gate) Open(ctx context.Context) error {
	g.tries.Add(1)
	return (*g.open.Load())(ctx)
}

func (g *gate) now(open func(context.Context) error) { g.open.Store(&open) }

func isUp(context.Context) error { return nil }

func isDown(context.Context) error { return errors.New("the far end is down") }

func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// gatedOutput and gatedProcessor are used only once they are open: anything else fails the test.
type gatedOutput struct {
	*gate
	memory
}

type gatedProcessor struct {
	*gate
	funcProcessor
}

// gated is a rig whose first output and whose processor, if one is given, have a gate.
func gated(t *testing.T, out, proc *gate) (r *rig, first, second *far) {
	first, second = &far{}, &far{}
	cfg := Config{
		Name: "main", Inputs: []InputConfig{inputConfig(&numbers{streams: []string{"a", "b", "c"}, n: 500, batch: 20})},
		Outputs: []OutputConfig{
			outputConfig("gated", func(plugins.Env) (plugins.Output, error) { return &gatedOutput{out, memory{far: first}}, nil }),
			outputConfig("free", func(plugins.Env) (plugins.Output, error) { return &memory{far: second}, nil }),
		},
	}
	for i := range cfg.Outputs {
		cfg.Outputs[i].Queue.Bytes = 64 << 20
		cfg.Outputs[i].Retry = Retry{Initial: time.Second, Max: 10 * time.Second}
	}
	if proc != nil {
		pass := funcProcessor(func(*event.Batch) error { return nil })
		cfg.Processors = []ProcessorConfig{{ID: "gated", Type: "gated", Build: func(plugins.Env) (plugins.Processor, error) {
			return &gatedProcessor{proc, pass}, nil
		}}}
	}
	return newRig(t, cfg), first, second
}

// running runs a pipeline of the rig until the returned function is called, or, with wait, until it is at its end.
func (r *rig) running() (p *Pipeline, end func(wait bool)) {
	ctx, stop := context.WithCancel(context.Background())
	p, finish := r.start(ctx, time.Second)
	over := make(chan struct{})
	go func() {
		defer close(over)
		p.Run(ctx)
	}()
	return p, func(wait bool) {
		if !wait {
			stop()
		}
		<-over
		stop()
		finish(true)
	}
}

func TestAFarEndThatIsDownAtTheStartKeepsNothingElseFromWorking(t *testing.T) {
	for name, open := range map[string]func(context.Context) error{"down": isDown, "hangs": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(open)
				r, first, second := gated(t, g, nil)
				began := time.Now()
				p, end := r.running()
				if took := time.Since(began); took > openPatience {
					t.Errorf("the start took %v", took)
				}
				<-time.After(time.Minute)
				synctest.Wait()
				exactly(t, second.all(), []string{"a", "b", "c"}, 500, nil)
				if n := len(first.all()); n > 0 {
					t.Errorf("%d events were written to what is not open", n)
				}
				s := p.Status().Outputs[0]
				if s.LastError == "" || s.InFlight != 1500 || s.Dead > 0 || name == "down" && !strings.Contains(s.LastError, "opening it: the far end is down") {
					t.Errorf("its status is %+v", s)
				}
				if name == "down" && (g.tries.Load() < 4 || g.tries.Load() > 20) {
					t.Errorf("it was opened %d times in a minute", g.tries.Load())
				}
				if name == "hangs" {
					end(false)
					return // it hangs for as long as the agent runs
				}
				g.now(isUp)
				end(true)
				exactly(t, first.all(), []string{"a", "b", "c"}, 500, nil)
				if s := p.Status().Outputs[0]; s.LastError != "" || s.Delivered != 1500 {
					t.Errorf("its status is %+v", s)
				}
			})
		})
	}
}

func TestEventsWaitForProcessorsThatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(isDown)
		r, first, second := gated(t, newGate(isUp), g)
		p, end := r.running()
		if g.tries.Load() != 1 {
			t.Errorf("it was opened %d times for one start: the first lane decides", g.tries.Load())
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if n := len(second.all()); n > 0 {
			t.Errorf("%d events passed a processor that did not run", n)
		}
		if why := p.Status().Failures[reopening]; !strings.Contains(why, `processor "gated": the far end is down`) {
			t.Errorf("health says %q", why)
		}
		g.now(isUp)
		end(true)
		exactly(t, first.all(), []string{"a", "b", "c"}, 500, nil)
		exactly(t, second.all(), []string{"a", "b", "c"}, 500, nil)
		if s := p.Status(); len(s.Failures) > 0 || s.Outputs[0].Dead > 0 {
			t.Errorf("the status is %+v", s)
		}
	})
}

// TestAHangingOpenCostsAStartOnce: lanes and outputs hang side by side, and what hangs is said while it does.
func TestAHangingOpenCostsAStartOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, proc := newGate(hangs), newGate(hangs)
		r, _, _ := gated(t, out, proc)
		began := time.Now()
		p, end := r.running()
		if took := time.Since(began); took > openPatience {
			t.Errorf("the start took %v", took)
		}
		if s := p.Status(); s.Failures[reopening] == "" || s.Outputs[0].LastError == "" {
			t.Errorf("nobody says that something hangs: %+v", s)
		}
		end(false)
	})
}

func TestALimitOfRetriesHoldsForWhatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, first, _ := gated(t, newGate(isDown), nil)
		r.cfg.Outputs[0].Retry.Limit = time.Minute
		p, end := r.running()
		end(true)
		if s := p.Status().Outputs[0]; len(first.all()) > 0 || s.Dead != 1500 {
			t.Errorf("its status is %+v", s)
		}
	})
}

func TestAStopDoesNotWaitForWhatIsNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, second := gated(t, newGate(isDown), newGate(isDown))
		_, end := r.running()
		<-time.After(time.Minute)
		began := time.Now()
		end(false)
		if took := time.Since(began); took > r.stop {
			t.Errorf("the stop took %v", took)
		}
		if len(second.all()) > 0 {
			t.Error("events passed a processor that did not run")
		}
		// Nothing is lost: the next start has it all.
		r2, first, second := gated(t, newGate(isUp), newGate(isUp))
		r2.state = r.state
		r2.runOnce()
		exactly(t, first.all(), []string{"a", "b", "c"}, 500, nil)
		exactly(t, second.all(), []string{"a", "b", "c"}, 500, nil)
	})
}

func TestARefusedConfigurationEndsTheStart(t *testing.T) {
	root, _ := conf.Parse("c.yaml", []byte("a:\n  n: 5\n"))
	at, _ := root.Get("a")
	place := func(err error) conf.Faults { return at.Place(err, nil) }
	refuses := func(context.Context) error { return conf.KeyError{Key: "n", Err: errors.New("is too small")} }
	panics := func(context.Context) error { panic("at the disco") }
	for name, c := range map[string]struct {
		out, proc func(context.Context) error
		faults    int
	}{
		"output": {refuses, isUp, 1}, "processor": {isUp, refuses, 1}, "both": {refuses, refuses, 2},
		"one beside a far end that is down": {isDown, refuses, 1}, "one beside one that hangs": {hangs, refuses, 1}, "a panic is none": {panics, isUp, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _, _ := gated(t, newGate(c.out), newGate(c.proc))
				r.cfg.Outputs[0].Place, r.cfg.Processors[0].Place = place, place
				p, err := New(r.cfg, Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Pool: r.pool, NodeID: "node"})
				if err != nil {
					t.Fatal(err)
				}
				err = p.Start(t.Context())
				faults, _ := errors.AsType[conf.Faults](err)
				if len(faults) != c.faults || (err != nil) != (c.faults > 0) {
					t.Fatalf("the start says %v", err)
				}
				for _, f := range faults {
					if f.String() != "c.yaml:2:6: a.n: is too small" && f.String() != "c.yaml:2:3: a.n: is too small" {
						t.Errorf("the fault is %v", f)
					}
				}
				p.Close()
			})
		})
	}
}
