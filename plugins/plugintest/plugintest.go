package plugintest

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// patience is how long something may take that must happen, moment how long is waited for what need not. The contract asks for an end
// within a second of the context; prompt leaves a slow machine three.
const (
	patience = 20 * time.Second
	moment   = time.Second
	prompt   = 3 * time.Second
)

// TB is what a suite needs of a test: every *testing.T, *testing.B and testing.TB has it, and Try brings one for commands. Fatalf does
// not return. All but Fatalf are called from several goroutines at once.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	TempDir() string
}

// Rule names what a suite looks for. Every finding begins with its rule.
type Rule string

// The rules.
const (
	RuleWorks      Rule = "works"      // an instance is built and opened, takes the samples without an error or a panic, and closes
	RuleKept       Rule = "kept"       // nothing of a batch is kept after the call
	RuleUnchanged  Rule = "unchanged"  // an output changes nothing; a processor neither adds nor moves events, nor touches dropped ones
	RuleContext    Rule = "context"    // a call ends within a second of its context, and nothing comes after it
	RuleGoroutines Rule = "goroutines" // no goroutine is left
	RuleIndex      Rule = "index"      // an answer speaks of events that there are, with their causes
	RuleSame       Rule = "same"       // the same batches give the same result
	RuleGrowth     Rule = "growth"     // memory has a bound
	RuleWorkers    Rule = "workers"    // eight at the same time do not get in each other's way
	RuleUndo       Rule = "undo"       // a token leads back to what was there when it was given
	RuleOrder      Rule = "order"      // the batches of a stream follow each other without a gap
	RuleSettled    Rule = "settled"    // what was not settled comes again, and nothing else does
)

// Option tells a suite what it cannot know.
type Option func(*options)

type options struct {
	prepare func(dir string) error
	observe func(dir string) []byte
	env     func(*plugins.Env)
	batches func() []*event.Batch
	stuck   any
	held    func() int64
}

// Prepare fills an instance's directory before the instance is built.
func Prepare(f func(dir string) error) Option { return func(o *options) { o.prepare = f } }

// Observe reads what the instance that was configured with dir has at its far end. Results of two instances are compared.
func Observe(f func(dir string) []byte) Option { return func(o *options) { o.observe = f } }

// Env changes what instances get from the agent.
func Env(f func(*plugins.Env)) Option { return func(o *options) { o.env = f } }

// Batches brings the sample batches, which must be equal at each call and belong to no pool.
func Batches(f func() []*event.Batch) Option { return func(o *options) { o.batches = f } }

// Stuck is a configuration under which a call never returns by itself, such as that of a far end that does not answer: the suite ends the
// call by its context.
func Stuck(cfg any) Option { return func(o *options) { o.stuck = cfg } }

// Held says how many bytes the plugin holds, for one that runs in a process of its own: without it the suite looks at the heap of this
// process.
func Held(f func() int64) Option { return func(o *options) { o.held = f } }

// suite is one run of a suite.
type suite struct {
	TB
	options
	spec plugins.Spec
	cfg  any

	mu    sync.Mutex // guards found
	found map[Rule]int
}

func newSuite(t TB, spec plugins.Spec, cfg any, opts []Option) *suite {
	s := &suite{TB: t, options: options{batches: samples}, spec: spec, cfg: cfg, found: map[Rule]int{}}
	for _, f := range opts {
		f(&s.options)
	}
	return s
}

// saidMost is how often a suite says of one rule how it was broken. More would only hide the others.
const saidMost = 3

// broken reports that the plugin broke a rule.
func (s *suite) broken(r Rule, format string, args ...any) {
	s.Helper()
	s.mu.Lock()
	s.found[r]++
	n := s.found[r]
	s.mu.Unlock()
	if n > saidMost {
		return
	}
	s.Errorf("%s: "+format, append([]any{r}, args...)...)
}

// has reports whether any of these rules was broken, so that what rests on them need not be said again.
func (s *suite) has(rules ...Rule) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rules {
		if s.found[r] > 0 {
			return true
		}
	}
	return false
}

// Instance is a plugin that Build made.
type Instance struct {
	Plugin any
	Dir    string // $DIR of its configuration
	Env    plugins.Env
}

// Build makes an instance with a directory of its own; see the package comment for cfg. It opens and closes nothing.
func Build(t TB, spec plugins.Spec, cfg any, opts ...Option) Instance {
	t.Helper()
	s := newSuite(t, spec, cfg, opts)
	return s.make(s.cfg, t.TempDir())
}

// make prepares the directory and builds an instance.
func (s *suite) make(cfg any, dir string) Instance {
	s.Helper()
	if s.prepare != nil {
		if err := s.prepare(dir); err != nil {
			s.Fatalf("preparing %s: %v", dir, err)
		}
	}
	return s.build(cfg, dir, nil)
}

// build makes an instance in a directory that is prepared. change goes after the user's Env.
func (s *suite) build(cfg any, dir string, change func(*plugins.Env)) Instance {
	s.Helper()
	var mu sync.Mutex // guards encoders: a plugin may ask at any time
	encoders := map[schema.EncodeOptions]*schema.Encoder{}
	env := plugins.Env{
		Log: slog.New(slog.DiscardHandler), Pipeline: "test", ID: s.spec.Name, NodeID: "node", StateDir: dir + "/state",
		Pool: event.NewPool(64 << 20), Streams: NewStreams(), Fields: map[string]event.Kind{},
		Encoder: func(opt schema.EncodeOptions) *schema.Encoder {
			mu.Lock()
			defer mu.Unlock()
			if encoders[opt] == nil {
				encoders[opt] = schema.NewEncoder(opt)
			}
			return encoders[opt]
		},
		Count: func(string, string, int64) {}, Fail: func(string, error) {},
	}
	if s.env != nil {
		s.env(&env)
	}
	if change != nil {
		change(&env)
	}
	var p any
	err := guard(func() (err error) { p, err = s.spec.New(s.decode(cfg, dir), env); return err })
	if err != nil {
		s.broken(RuleWorks, "building %s %q: %v", s.spec.Kind, s.spec.Name, err)
		s.Fatalf("%s: without an instance there is nothing to try", RuleWorks)
	}
	return Instance{p, dir, env}
}

// decode makes the configuration that an instance is built of.
func (s *suite) decode(cfg any, dir string) any {
	s.Helper()
	switch c := cfg.(type) {
	case nil:
		return s.spec.Defaults
	case string:
		n, faults := conf.Parse("test.yaml", []byte(strings.ReplaceAll(c, "$DIR", dir)))
		if err := faults.Err(); err != nil {
			s.Fatalf("reading configuration: %v", err)
		}
		v, faults := conf.DecodeAny(n, s.spec.Defaults)
		if err := faults.Err(); err != nil {
			s.Fatalf("reading configuration: %v", err)
		}
		return v
	}
	return cfg
}

// as takes the plugin for what its kind says.
func as[P any](s *suite, in Instance) P {
	s.Helper()
	p, ok := in.Plugin.(P)
	if !ok {
		s.Fatalf("%s: %s %q built a %T, which is none", RuleWorks, s.spec.Kind, s.spec.Name, in.Plugin)
	}
	return p
}

// start opens an instance, if it wants that.
func (s *suite) start(p any) {
	s.Helper()
	if x, ok := p.(plugins.Opener); ok {
		if err := guard(func() error { return x.Open(context.Background()) }); err != nil {
			s.Fatalf("%s: Open: %v", RuleWorks, err)
		}
	}
}

// stop closes an instance, if it wants that.
func (s *suite) stop(p any) {
	s.Helper()
	if x, ok := p.(plugins.Closer); ok {
		if err := guard(x.Close); err != nil {
			s.broken(RuleWorks, "Close: %v", err)
		}
	}
}

// guard makes an error of a panic.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("it panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

func short(p []byte) []byte { return p[:min(len(p), 2000)] }
