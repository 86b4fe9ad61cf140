package pipeline

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
)

func plain(f *far, answer func([]*event.Event) error) func(plugins.Env) (plugins.Output, error) {
	return func(plugins.Env) (plugins.Output, error) { return &memory{f, answer}, nil }
}

func undoing(f *far, answer func([]*event.Event) error) func(plugins.Env) (plugins.Output, error) {
	return func(plugins.Env) (plugins.Output, error) { return &committer{memory{f, answer}}, nil }
}

func TestCrashesLoseAndDoubleNothingAtAnOutputThatCanUndo(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		streams := []string{"a", "b", "c"}
		const n = 3000
		one, two := &far{}, &far{}
		in := &numbers{streams: streams, n: n, batch: 40}
		r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{
			outputConfig("undo", undoing(one, nil)),
			outputConfig("once", plain(two, nil)),
		}})
		for range 6 { // a crash: the pipeline is cut off, and only what was stored last is known
			ctx, crash := context.WithCancel(context.Background())
			r.stop = 0
			p, finish := r.start(ctx, 200*time.Microsecond)
			done := make(chan struct{})
			go func() { p.Run(ctx); close(done) }()
			limit := len(one.all()) + rnd.IntN(n)
			for len(one.all()) < limit {
				select {
				case <-done:
					limit = 0
				case <-time.After(10 * time.Microsecond):
				}
			}
			crash()
			<-done
			finish(false)
		}
		r.stop = 5 * time.Second
		p := r.runOnce()
		exactly(t, one.all(), streams, n, nil)
		seen := map[string]bool{}
		for _, l := range two.all() {
			seen[l] = true
		}
		if len(seen) != n*len(streams) {
			t.Fatalf("seed %d: the output that cannot undo has %d of %d records", seed, len(seen), n*len(streams))
		}
		for _, o := range p.Status().Outputs {
			if !o.Balanced() || o.InFlight != 0 {
				t.Fatalf("seed %d: accounts of %s at rest: %+v", seed, o.ID, o.Accounts)
			}
		}
	}
}

func TestAnOutputThatIsBehindGetsJustWhatItLacks(t *testing.T) {
	t.Parallel()
	const n = 2000
	one, two := &far{}, &far{}
	in := &numbers{streams: []string{"s"}, n: n, batch: 30}
	var refuse atomic.Bool
	refuse.Store(true)
	down := outputConfig("down", undoing(two, func([]*event.Event) error {
		if refuse.Load() && len(two.all()) >= 100 {
			return errors.New("down")
		}
		return nil
	}))
	down.Queue.Bytes = 64 << 20 // holds everything, so that the other one can finish
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{
		outputConfig("good", plain(one, nil)), down,
	}})
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = 20 * time.Millisecond
	p, finish := r.start(ctx, time.Millisecond)
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	for len(one.all()) < n {
		select {
		case <-done:
			t.Fatal("the pipeline ended early")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done
	finish(true)
	refuse.Store(false)
	r.stop = 5 * time.Second
	r.runOnce()
	exactly(t, one.all(), []string{"s"}, n, nil)
	exactly(t, two.all(), []string{"s"}, n, nil)
}

func TestAnswersOfAnOutput(t *testing.T) {
	t.Parallel()
	const n = 500
	bad := func(e *event.Event) bool { return e.Offset%37 == 5 }
	tests := map[string]struct {
		answer func(calls *int, events []*event.Event) error
		dies   bool
	}{
		"ordinary error": {answer: func(calls *int, _ []*event.Event) error {
			if *calls++; *calls%3 != 0 {
				return errors.New("not now")
			}
			return nil
		}},
		"throttle": {answer: func(calls *int, _ []*event.Event) error {
			if *calls++; *calls%3 != 0 {
				return &plugins.ThrottleError{Err: errors.New("slower"), After: time.Microsecond}
			}
			return nil
		}},
		"too large": {answer: func(_ *int, events []*event.Event) error {
			if len(events) > 3 {
				return plugins.ErrTooLarge
			}
			return nil
		}},
		"partial, retried": {answer: func(calls *int, events []*event.Event) error {
			*calls++
			failed := map[int]error{}
			for i := range events {
				if (i+*calls)%3 == 0 {
					failed[i] = errors.New("busy")
				}
			}
			if len(failed) == 0 {
				return nil
			}
			return &plugins.PartialError{Failed: failed}
		}},
		"partial, dead": {dies: true, answer: func(_ *int, events []*event.Event) error {
			failed := map[int]error{}
			for i, e := range events {
				if bad(e) {
					failed[i] = &plugins.PermanentError{Err: errors.New("bad document")}
				}
			}
			return &plugins.PartialError{Failed: failed}
		}},
		"permanent": {dies: true, answer: func(_ *int, events []*event.Event) error {
			if slices.ContainsFunc(events, bad) {
				return &plugins.PermanentError{Err: errors.New("bad document")}
			}
			return nil
		}},
		"panic": {dies: true, answer: func(_ *int, events []*event.Event) error {
			for _, e := range events {
				if bad(e) {
					panic("cannot digest this")
				}
			}
			return nil
		}},
		"lies about indexes": {answer: func(calls *int, _ []*event.Event) error {
			if *calls++; *calls%2 == 0 {
				return nil
			}
			return errors.Join(&plugins.PartialError{Failed: map[int]error{-1: errors.New("x"), 1 << 20: errors.New("y")}})
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &far{}
			calls := 0
			in := &numbers{streams: []string{"s"}, n: n, batch: 20}
			r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{
				outputConfig("o", plain(f, func(events []*event.Event) error { return test.answer(&calls, events) })),
			}})
			p := r.runOnce()
			o := p.Status().Outputs[0]
			dead := r.dead["/state/dead/p/o.ndjson"].all()
			want := int64(0)
			for i := range int64(n) {
				if test.dies && i%37 == 5 {
					want++
				}
			}
			if o.Dead != want || int64(len(dead)) != want || o.Delivered != n-want || !o.Balanced() {
				t.Errorf("accounts %+v, %d in the dead letter, want %d dead of %d", o.Accounts, len(dead), want, n)
			}
			seen := map[string]int{}
			for _, l := range append(f.all(), dead...) {
				seen[l]++
			}
			for i := range n {
				if k := fmt.Sprintf("s-%d", i); seen[k] != 1 {
					t.Fatalf("%s arrived %d times", k, seen[k])
				}
			}
		})
	}
}

func TestRetryLimitSendsToTheDeadLetter(t *testing.T) {
	t.Parallel()
	c := outputConfig("o", plain(&far{}, func([]*event.Event) error { return errors.New("down") }))
	c.Retry.Limit = time.Millisecond
	in := &numbers{streams: []string{"s"}, n: 100, batch: 20}
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{c}})
	o := r.runOnce().Status().Outputs[0]
	if o.Dead != 100 || len(r.dead["/state/dead/p/o.ndjson"].all()) != 100 {
		t.Errorf("accounts %+v", o.Accounts)
	}
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	t.Parallel()
	const n = 5000
	one, two := &far{}, &far{}
	release := make(chan struct{})
	slow := outputConfig("slow", plain(two, func([]*event.Event) error { <-release; return nil }))
	slow.Queue = Queue{Bytes: 64 << 10, OnFull: OnFullDrop}
	in := &numbers{streams: []string{"s"}, n: n, batch: 30}
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{
		outputConfig("fast", plain(one, nil)), slow,
	}})
	ctx := context.Background()
	p, finish := r.start(ctx, time.Millisecond)
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	for len(one.all()) < n {
		s := p.Status().Outputs[1]
		if !s.Balanced() {
			t.Fatalf("accounts %+v", s.Accounts)
		}
		runtime.Gosched()
	}
	close(release)
	<-done
	finish(true)
	exactly(t, one.all(), []string{"s"}, n, nil)
	o := p.Status().Outputs[1]
	if o.Dropped == 0 || o.Delivered+o.Dropped != n || int64(len(two.all())) != o.Delivered || !o.Balanced() {
		t.Errorf("accounts %+v, %d arrived", o.Accounts, len(two.all()))
	}
}

func TestAccountsBalanceAtEveryMoment(t *testing.T) {
	t.Parallel()
	const n = 20000
	cond, err := eval.CompileCondition("api_response_code_int < 400", nil)
	if err != nil {
		t.Fatal(err)
	}
	one, two := &far{}, &far{}
	filtered := outputConfig("some", undoing(two, func([]*event.Event) error {
		if rand.IntN(4) == 0 {
			return errors.New("not now")
		}
		return nil
	}))
	filtered.When = cond
	workers := outputConfig("all", plain(one, nil))
	workers.Workers = 4
	streams := []string{"a", "b", "c", "d"}
	in := &numbers{streams: streams, n: n, batch: 100}
	r := newRig(t, Config{
		Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{workers, filtered},
		Processors: []ProcessorConfig{{ID: "drop", Type: "drop", Build: func(plugins.Env) (plugins.Processor, error) {
			return funcProcessor(func(b *event.Batch) error {
				for i := range b.Events {
					b.Events[i].Dropped = b.Events[i].Offset%10 == 3
				}
				return nil
			}), nil
		}}},
	})
	ctx := context.Background()
	p, finish := r.start(ctx, time.Millisecond)
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	looked := 0
	for running := true; running; looked++ {
		select {
		case <-done:
			running = false
		default:
		}
		for _, o := range p.Status().Outputs {
			if !o.Balanced() || o.InFlight < 0 {
				t.Fatalf("look %d: %s: %+v", looked, o.ID, o.Accounts)
			}
		}
	}
	finish(true)
	dropped := func(i int64) bool { return i%10 == 3 }
	exactly(t, one.all(), streams, n, dropped)
	exactly(t, two.all(), streams, n, func(i int64) bool { return dropped(i) || 200+i%400 >= 400 })
	s := p.Status().Outputs
	total := int64(n * len(streams))
	if s[0].Offered != total || s[0].Delivered != int64(len(one.all())) || s[0].Filtered != total-s[0].Delivered || s[0].InFlight != 0 {
		t.Errorf("%+v", s[0].Accounts)
	}
	if s[1].Offered != total || s[1].Delivered != int64(len(two.all())) || s[1].Filtered != total-s[1].Delivered || s[1].InFlight != 0 {
		t.Errorf("%+v", s[1].Accounts)
	}
}

func TestOnlyTheEventThatFailsInAProcessorDies(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"error", "panic", "error, and the input cannot read again"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			const n = 1000
			f := &far{}
			input := inputConfig(&numbers{streams: []string{"s"}, n: n, batch: 50})
			if build := input.Build; strings.HasSuffix(how, "again") {
				input.Build = func(env plugins.Env) (plugins.Input, error) {
					in, err := build(env)
					return struct{ plugins.Input }{in}, err
				}
			}
			var opened, closed atomic.Int64
			r := newRig(t, Config{
				Name: "p", Inputs: []InputConfig{input},
				Outputs: []OutputConfig{outputConfig("o", undoing(f, nil))},
				Processors: []ProcessorConfig{{ID: "bad", Type: "bad", Build: func(plugins.Env) (plugins.Processor, error) {
					touched := map[string]bool{}
					return &openProcessor{opened: &opened, closed: &closed, funcProcessor: func(b *event.Batch) error {
						for i := range b.Events {
							e := &b.Events[i]
							if touched[e.RequestID] || strings.HasPrefix(e.Method, "seen") {
								return errors.New("an event came back that was changed before")
							}
							e.Method = "seen"
							touched[strings.Clone(e.RequestID)] = true
							if e.Offset%97 == 3 {
								if how == "panic" {
									panic("cannot digest this")
								}
								return errors.New("cannot digest this")
							}
						}
						return nil
					}}, nil
				}}},
			})
			o := r.runOnce().Status().Outputs[0]
			exactly(t, f.all(), []string{"s"}, n, func(i int64) bool { return i%97 == 3 })
			want := int64(0)
			for i := range int64(n) {
				if i%97 == 3 {
					want++
				}
			}
			if opened.Load() == 0 || opened.Load() != closed.Load() {
				t.Errorf("%d processors were opened and %d closed", opened.Load(), closed.Load())
			}
			if o.Dead != want || !o.Balanced() {
				t.Errorf("accounts %+v, want %d dead", o.Accounts, want)
			}
			if got := r.dead["/state/dead/p/processors.ndjson"].all(); int64(len(got)) != want {
				t.Errorf("%d in the dead letter of the processors, want %d", len(got), want)
			}
		})
	}
}

func TestKeepsTheTailWhenAStreamCannotBeReadAgain(t *testing.T) {
	t.Parallel()
	const n = 1000
	f := &far{}
	in := &numbers{streams: []string{"s"}, n: n, batch: 20, gone: map[string]bool{}}
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{outputConfig("o", undoing(f, nil))}})
	p, finish := r.start(context.Background(), time.Hour) // no snapshot but the one that names the stream
	p.Run(context.Background())
	finish(false)
	in.gone["s"] = true
	_, finish = r.start(context.Background(), time.Hour)
	finish(false)
	if len(f.all()) != n {
		t.Errorf("%d records are left of %d: they were cut off although they cannot be read again", len(f.all()), n)
	}
}

// TestAStartThatIsStoppedDecidesNothing: whether a stream can be read again was not found out, so nothing is kept for good and nothing is cut.
func TestAStartThatIsStoppedDecidesNothing(t *testing.T) {
	t.Parallel()
	const n = 1000
	f := &far{}
	in := &numbers{streams: []string{"s"}, n: n, batch: 20}
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: []OutputConfig{outputConfig("o", undoing(f, nil))}})
	p, finish := r.start(context.Background(), time.Hour) // no snapshot but the one that names the stream
	p.Run(context.Background())
	finish(false)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	p = r.build(make(chan struct{}, 1))
	if err := p.Start(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("the start says %v", err)
	}
	p.Close()
	if len(f.all()) != n {
		t.Errorf("%d records are left of %d", len(f.all()), n)
	}
	r.runOnce()
	exactly(t, f.all(), in.streams, n, nil)
}

func TestAnOutputThatWasNotConfiguredForAWhileGoesOnWhereItStood(t *testing.T) {
	t.Parallel()
	one, two := &far{}, &far{}
	in := &numbers{streams: []string{"a"}, n: 100, batch: 10}
	both := []OutputConfig{outputConfig("stays", undoing(one, nil)), outputConfig("leaves", undoing(two, nil))}
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(in)}, Outputs: both})
	r.runOnce()
	for i := range 2 { // two runs without it, one more record and one more stream in each
		r.cfg.Outputs = both[:1]
		in.n += 50
		in.streams = append(in.streams, fmt.Sprintf("late%d", i))
		r.runOnce()
	}
	r.cfg.Outputs = both
	in.n += 50
	r.runOnce()
	exactly(t, one.all(), in.streams, in.n, nil)
	exactly(t, two.all(), in.streams, in.n, nil)
}

// confirmed is an output that can undo and notes which tokens it is told to be stored.
type confirmed struct {
	committer
	mu    sync.Mutex
	taken map[string]bool
	last  []byte
	false []string
}

func (o *confirmed) Token() ([]byte, error) {
	token, err := o.committer.Token()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken[string(token)] = true
	return token, err
}

func (o *confirmed) Stored(token []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.taken[string(token)] {
		o.false = append(o.false, hex.EncodeToString(token))
	}
	o.last = token
}

// check expects that the output was last told of the token that the generation of the checkpoint before the last one holds.
func (o *confirmed) check(t *testing.T, want []byte) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.false) > 0 {
		t.Errorf("told of tokens that were never taken: %s", o.false)
	}
	if len(want) == 0 || !bytes.Equal(o.last, want) {
		t.Errorf("the output was last told of token %x, want %x", o.last, want)
	}
}

func TestAnOutputLearnsThatItsTokenIsStored(t *testing.T) {
	t.Parallel()
	out := &confirmed{committer: committer{memory{far: &far{}}}, taken: map[string]bool{}}
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(&numbers{streams: []string{"a"}, n: 3000, batch: 40})}, Outputs: []OutputConfig{
		outputConfig("undo", func(plugins.Env) (plugins.Output, error) { return out, nil }),
	}})
	r.runOnce()
	out.check(t, r.before.Outputs["undo"].Token)
}

func TestAFullDeadLetterStopsItsOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "dead", "p", "es.ndjson")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".1", make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, other := &far{}, &far{}
	refuse := func([]*event.Event) error { return &plugins.PermanentError{Err: errors.New("no")} }
	r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(&numbers{streams: []string{"a"}, n: 10, batch: 5})}, Outputs: []OutputConfig{
		outputConfig("es", plain(f, refuse)), outputConfig("file", plain(other, nil)),
	}})
	r.dir, r.deadMax = dir, 1000
	p, finish := r.start(context.Background(), time.Millisecond)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	full := func() string { return p.Status().Outputs[0].Failures["dead letter"] }
	wait(t, "the full dead letter is named", func() bool { return strings.Contains(full(), "agent.dead_letter_max") })
	wait(t, "the other output has all", func() bool { return len(other.all()) == 10 })
	if s := p.Status().Outputs[0]; s.Dead != 0 || s.InFlight != 10 {
		t.Errorf("%+v", s.Accounts)
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	wait(t, "it goes on", func() bool { return p.Status().Outputs[0].Dead == 10 })
	if full() != "" {
		t.Errorf("still named: %s", full())
	}
	stop()
	<-done
	finish(true)
	if n := len(r.dead[path].all()); n != 10 {
		t.Errorf("%d dead letters", n)
	}
}

// wait polls until cond holds.
func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 60_000 {
		if cond() {
			return
		}
		<-tick.C
	}
	t.Fatalf("waited in vain: %s", what)
}

func TestAnOutputThatRefusesEventsForGoodDoesNotFail(t *testing.T) {
	t.Parallel()
	permanent, busy := &plugins.PermanentError{Err: errors.New("no")}, errors.New("busy")
	for _, test := range []struct {
		err  error
		want error
	}{
		{nil, nil},
		{busy, busy},
		{permanent, nil},
		{plugins.ErrTooLarge, nil},
		{&plugins.PartialError{Failed: map[int]error{0: permanent, 2: permanent}}, nil},
		{&plugins.PartialError{Failed: map[int]error{0: permanent, 2: busy}}, busy},
		{&panicError{"x"}, &panicError{"x"}},
	} {
		if got := (&runner{}).failure(test.err, 3); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
	if got := (&runner{}).failure(&plugins.PartialError{Failed: map[int]error{7: permanent}}, 3); got == nil {
		t.Error("an answer that speaks of events that do not exist is no failure")
	}
}

// A full queue is sent at once, whatever the linger: what it waits for cannot come.
func TestAFullQueueDoesNotLinger(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 2} {
		f := &far{}
		o := outputConfig("es", plain(f, nil))
		o.Batch.Linger, o.Batch.Events, o.Batch.Bytes, o.Workers = time.Hour, 1<<20, 1<<30, workers
		o.Queue.Bytes = 64 << 10
		r := newRig(t, Config{Name: "p", Inputs: []InputConfig{inputConfig(&numbers{streams: []string{"a", "b"}, n: 5000, batch: 100})}, Outputs: []OutputConfig{o}})
		done := make(chan struct{})
		go func() { r.runOnce(); close(done) }()
		wait(t, "everything is written", func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		})
		if n := len(f.all()); n != 10_000 {
			t.Errorf("%d records", n)
		}
	}
}
