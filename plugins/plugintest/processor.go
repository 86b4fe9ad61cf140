package plugintest

import (
	"context"
	"sync"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Processor proves a processor: two instances make the same of the same batches, eight at the same time too; it keeps nothing of a
// batch, adds and moves no events, leaves dropped ones alone, takes events one by one, ends with its context, and neither grows
// without bound nor leaves a goroutine behind.
func Processor(t TB, spec plugins.Spec, cfg any, opts ...Option) {
	t.Helper()
	s := newSuite(t, spec, cfg, opts)
	before := goroutines()
	plain := s.processAll()
	s.checkSame(plain)
	s.checkPoisoned(plain)
	s.checkDropped()
	s.checkAlone()
	s.checkInstances(plain)
	s.checkProcessContext()
	s.checkLeaks(before)
	s.checkGrowth(s.processorGrowth)
}

func (s *suite) processor(cfg any) plugins.Processor {
	s.Helper()
	in := s.make(cfg, s.TempDir())
	p := as[plugins.Processor](s, in)
	s.start(p)
	return p
}

// process calls Process and checks what it did to the batch as a whole.
func (s *suite) process(ctx context.Context, p plugins.Processor, b *event.Batch) error {
	s.Helper()
	was := make([]*event.Batch, len(b.Events))
	at := make([]int, len(b.Events))
	for i := range b.Events {
		was[i], at[i] = b.Events[i].Batch(), b.Events[i].Index()
	}
	err := guard(func() error { return p.Process(ctx, b) })
	if len(b.Events) != len(was) {
		s.broken(RuleUnchanged, "Process made %d events of %d; it marks what it drops and adds none", len(b.Events), len(was))
		return err
	}
	for i := range b.Events {
		if e := &b.Events[i]; e.Batch() != was[i] || e.Index() != at[i] {
			s.broken(RuleUnchanged, "Process moved event %d out of its place", i)
			break
		}
	}
	return err
}

// processAll shows the samples to a new instance and returns what it made of them.
func (s *suite) processAll() []string {
	s.Helper()
	p := s.processor(s.cfg)
	out := s.processWith(p)
	s.stop(p)
	return out
}

func (s *suite) processWith(p plugins.Processor) []string {
	s.Helper()
	var out []string
	for _, b := range s.batches() {
		if err := s.process(context.Background(), p, b); err != nil {
			s.broken(RuleWorks, "Process: %v", err)
			break
		}
		out = append(out, Encode(b))
	}
	return out
}

// checkSame compares instances. Chance rarely agrees with itself four times.
func (s *suite) checkSame(plain []string) {
	s.Helper()
	for range 3 {
		if i, again := s.differs(plain, s.processAll()); i >= 0 {
			s.broken(RuleSame, "of batch %d one instance made\n%s\nand another\n%s", i, short([]byte(plain[i])), short([]byte(again)))
			return
		}
	}
}

// differs compares results as far as both go; -1 says that they agree.
func (s *suite) differs(want, got []string) (i int, what string) {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return i, got[i]
		}
	}
	return -1, ""
}

// checkPoisoned overwrites each batch after its call and then lets go of it: nobody may miss it, and after a second round nobody may
// still have anything of the first. (Room that is used again for each call may keep what it held until then.)
func (s *suite) checkPoisoned(plain []string) {
	s.Helper()
	p := s.processor(s.cfg)
	defer s.stop(p)
	n := len(s.batches())
	var first traces
	for i := range 2 * n {
		out, left, ok := s.processAndSpoil(p, i%n)
		if !ok {
			return
		}
		if i < min(n, len(plain)) {
			first = append(first, left...)
			if out != plain[i] && !s.has(RuleSame) {
				s.broken(RuleKept, "of batch %d Process made, with the arenas of earlier ones overwritten,\n%s\ninstead of\n%s", i, short([]byte(out)), short([]byte(plain[i])))
				return
			}
		}
	}
	s.checkGone(first)
}

// processAndSpoil is a function of its own so that nothing of the batch stays on the stack of the suite.
func (s *suite) processAndSpoil(p plugins.Processor, i int) (out string, left traces, ok bool) {
	s.Helper()
	b := s.batches()[i]
	left = trace(b)
	err := s.process(context.Background(), p, b)
	if err != nil {
		s.broken(RuleWorks, "Process: %v", err)
	}
	out = Encode(b)
	spoil(b)
	return out, left, err == nil
}

func (s *suite) checkDropped() {
	s.Helper()
	p := s.processor(s.cfg)
	defer s.stop(p)
	for _, b := range s.batches() {
		before := Encode(b)
		for i := range b.Events {
			b.Events[i].Dropped = true
		}
		if err := s.process(context.Background(), p, b); err != nil {
			s.broken(RuleWorks, "Process, with all events dropped: %v", err)
			return
		}
		for i := range b.Events {
			if !b.Events[i].Dropped {
				s.broken(RuleUnchanged, "Process brought a dropped event back")
				return
			}
			b.Events[i].Dropped = false
		}
		if Encode(b) != before {
			s.broken(RuleUnchanged, "Process changed a dropped event")
			return
		}
	}
}

// checkAlone shows events one by one, as the agent does after a failure: Events then holds one event of another batch, whose Index is
// that in its own batch.
func (s *suite) checkAlone() {
	s.Helper()
	p := s.processor(s.cfg)
	defer s.stop(p)
	for _, b := range s.batches() {
		for i := range b.Events {
			one := &event.Batch{Stream: b.Stream, Span: b.Span, ReadAt: b.ReadAt, Events: b.Events[i : i+1]}
			if err := s.process(context.Background(), p, one); err != nil {
				s.broken(RuleWorks, "Process, with event %d alone in b.Events as after a failure: %v", i, err)
				return
			}
		}
	}
	empty := event.NewBatch("empty")
	if err := s.process(context.Background(), p, empty); err != nil {
		s.broken(RuleWorks, "Process, with a batch without events: %v", err)
	}
}

const workers = 8

// checkInstances runs instances at the same time, as lanes do.
func (s *suite) checkInstances(plain []string) {
	s.Helper()
	if s.has(RuleSame, RuleWorks) {
		return
	}
	var all [workers]plugins.Processor
	for i := range all {
		all[i] = s.processor(s.cfg)
	}
	var wg sync.WaitGroup
	var got [workers][]string
	for i, p := range all {
		wg.Go(func() { got[i] = s.processWith(p) })
	}
	wg.Wait()
	for _, p := range all {
		s.stop(p)
	}
	for _, g := range got {
		if i, other := s.differs(plain, g); i >= 0 {
			s.broken(RuleWorkers, "with %d instances at the same time one made of batch %d\n%s\ninstead of\n%s", workers, i, short([]byte(other)), short([]byte(plain[i])))
			return
		}
	}
}

// checkProcessContext calls with a context that is done, and ends the context of a call that is stuck.
func (s *suite) checkProcessContext() {
	s.Helper()
	s.endsWithContext("Process", func(ctx context.Context, cfg any) (func(), func()) {
		p := s.processor(cfg)
		b := s.batches()[0]
		return func() { _ = s.process(ctx, p, b) }, func() { s.stop(p) }
	})
}

// endsWithContext has a call return soon after its context. begin makes an instance and returns the call and what closes the instance.
func (s *suite) endsWithContext(name string, begin func(context.Context, any) (run, end func())) {
	s.Helper()
	try := func(cfg any, how string, cancelled bool) {
		s.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		run, end := begin(ctx, cfg)
		if cancelled {
			cancel()
		}
		done := background(run)
		if !cancelled && within(done, moment/5) {
			s.broken(RuleContext, "%s returned by itself under the configuration that Stuck brings: it proves nothing", name)
		}
		cancel()
		if !within(done, prompt) {
			s.broken(RuleContext, "%s goes on %v after its context is done%s", name, prompt, how)
			return // it still runs: Close would wait for it
		}
		end()
	}
	try(s.cfg, "", true)
	if s.stuck != nil {
		try(s.stuck, " while it is stuck", false)
	}
}

// processorGrowth shows one instance ever more requests.
func (s *suite) processorGrowth() float64 {
	s.Helper()
	p := s.processor(s.cfg)
	defer s.stop(p)
	shown, few := 0, s.scale().few
	base := s.batches()
	return s.grows(2, func(events int) int64 {
		for shown < events && !s.has(RuleWorks) {
			b := another(base[shown%len(base)], few, shown)
			if err := s.process(context.Background(), p, b); err != nil {
				s.broken(RuleWorks, "Process, after %d events: %v", shown, err)
			}
			shown += max(1, len(b.Events))
		}
		if s.held != nil {
			return s.held()
		}
		return heap()
	})
}
