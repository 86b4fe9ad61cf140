package plugintest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Output proves an output: it keeps nothing of what Write showed it and changes nothing, ends with its context, answers with indexes
// that exist, works from eight goroutines at once (unless it is a Committer), goes back to its tokens (if it is one), and neither grows
// without bound nor leaves a goroutine behind. With Observe, what stands at the far end is compared too.
func Output(t TB, spec plugins.Spec, cfg any, opts ...Option) {
	t.Helper()
	s := newSuite(t, spec, cfg, opts)
	before := goroutines()
	plain := s.writePlain()
	s.checkSpoiled(plain)
	s.checkWorkers()
	s.checkTokens()
	// From here on nobody looks at the far end: Observe may stand for one that all instances share.
	s.checkReleased()
	s.checkWriteContext()
	s.checkLeaks(before)
	s.checkGrowth(s.outputGrowth)
}

func (s *suite) output(cfg any, dir string) plugins.Output {
	s.Helper()
	return s.opened(s.make(cfg, dir))
}

// opened opens the output that an instance holds.
func (s *suite) opened(in Instance) plugins.Output {
	s.Helper()
	out := as[plugins.Output](s, in)
	s.start(out)
	return out
}

func (s *suite) restore(out plugins.Output) {
	s.Helper()
	if c, ok := out.(plugins.Committer); ok {
		if err := guard(func() error { _, err := c.Restore(nil); return err }); err != nil {
			s.Fatalf("%s: Restore: %v", RuleUndo, err)
		}
	}
}

func (s *suite) look(dir string) []byte {
	if s.observe == nil {
		return nil
	}
	return s.observe(dir)
}

// pointers lists a batch's events as an output gets them.
func pointers(b *event.Batch) []*event.Event {
	var all []*event.Event
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

// write calls Write and checks its answer and that nothing changed.
func (s *suite) write(ctx context.Context, out plugins.Output, b *event.Batch) error {
	s.Helper()
	events := pointers(b)
	before := Encode(b)
	err := guard(func() error { return out.Write(ctx, events) })
	if Encode(b) != before {
		s.broken(RuleUnchanged, "Write changed its events")
	}
	for i, e := range events {
		if e != &b.Events[i] {
			s.broken(RuleUnchanged, "Write changed the slice of events at %d", i)
			break
		}
	}
	if partial, ok := errors.AsType[*plugins.PartialError](err); ok {
		s.checkPartial(partial, len(events))
	}
	return err
}

// writeWell calls Write, which has no reason to fail. A PartialError that makes no sense was said already.
func (s *suite) writeWell(out plugins.Output, b *event.Batch, when string) (ok bool) {
	s.Helper()
	err := s.write(context.Background(), out, b)
	if err != nil && !s.has(RuleIndex) {
		s.broken(RuleWorks, "Write%s: %v", when, err)
	}
	return err == nil
}

func (s *suite) checkPartial(p *plugins.PartialError, n int) {
	s.Helper()
	if len(p.Failed) == 0 {
		s.broken(RuleIndex, "Write returned a PartialError without a failed event")
	}
	for i, cause := range p.Failed {
		if i < 0 || i >= n {
			s.broken(RuleIndex, "Write returned a PartialError with index %d for %d events", i, n)
		}
		if cause == nil {
			s.broken(RuleIndex, "Write returned a PartialError without a cause for event %d", i)
		}
	}
}

// writePlain writes the samples and returns what then stands at the far end.
func (s *suite) writePlain() []byte {
	s.Helper()
	dir := s.TempDir()
	out := s.output(s.cfg, dir)
	s.restore(out)
	for _, b := range s.batches() {
		if !s.writeWell(out, b, "") {
			break
		}
	}
	s.stop(out)
	return s.look(dir)
}

// checkSpoiled overwrites each batch after its call and then lets go of it: nobody may miss it.
func (s *suite) checkSpoiled(plain []byte) {
	s.Helper()
	if s.has(RuleWorks, RuleIndex) {
		return
	}
	dir := s.TempDir()
	out := s.output(s.cfg, dir)
	s.restore(out)
	for i := range s.batches() {
		s.writeAndSpoil(out, i)
	}
	s.stop(out)
	if spoiled := s.look(dir); !bytes.Equal(plain, spoiled) {
		s.broken(RuleKept, "with the arena overwritten after each call the far end has\n%s\ninstead of\n%s", short(spoiled), short(plain))
	}
}

// checkReleased writes two rounds: after the second nobody may still have anything of the first. (Room that is used again for each
// call may keep what it held until then.)
func (s *suite) checkReleased() {
	s.Helper()
	if s.has(RuleWorks, RuleIndex) {
		return
	}
	out := s.output(s.cfg, s.TempDir())
	defer s.stop(out)
	s.restore(out)
	var first traces
	for round := range 2 {
		for i := range s.batches() {
			if left := s.writeAndSpoil(out, i); round == 0 {
				first = append(first, left...)
			}
		}
	}
	s.checkGone(first)
}

// writeAndSpoil is a function of its own so that nothing of the batch stays on the stack of the suite.
func (s *suite) writeAndSpoil(out plugins.Output, i int) traces {
	s.Helper()
	b := s.batches()[i]
	left := trace(b)
	s.writeWell(out, b, "")
	spoil(b)
	return left
}

// checkWriteContext calls with a context that is done, and ends the context of a call that is stuck. An answer of nil is fine if all is
// written.
func (s *suite) checkWriteContext() {
	s.Helper()
	s.endsWithContext("Write", func(ctx context.Context, cfg any) (func(), func()) {
		out := s.output(cfg, s.TempDir())
		s.restore(out)
		b := s.batches()[0]
		return func() { _ = s.write(ctx, out, b) }, func() { s.stop(out) }
	})
}

// checkWorkers writes from several goroutines: but for the order the far end has what it has when one writes all.
func (s *suite) checkWorkers() {
	s.Helper()
	if s.has(RuleWorks) {
		return
	}
	one, committer := s.writeBy(1)
	if committer {
		s.Logf("%s: not tried, for a Committer has one writer", RuleWorkers)
		return
	}
	many, _ := s.writeBy(workers)
	if !bytes.Equal(one, many) && !s.has(RuleWorkers) {
		s.broken(RuleWorkers, "with %d writers at the same time the far end has, sorted,\n%s\nand with one\n%s", workers, short(many), short(one))
	}
}

// writeBy writes the samples several times, so many at once, and returns what the far end then has, sorted.
func (s *suite) writeBy(atOnce int) (sorted []byte, committer bool) {
	s.Helper()
	dir := s.TempDir()
	out := s.output(s.cfg, dir)
	defer s.stop(out)
	if _, committer = out.(plugins.Committer); committer {
		return nil, true
	}
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for range workers / atOnce {
				for _, b := range s.batches() {
					if err := s.write(context.Background(), out, b); err != nil && !s.has(RuleIndex) {
						s.broken(RuleWorkers, "Write, one of %d at the same time: %v", atOnce, err)
					}
				}
			}
		})
	}
	wg.Wait()
	return sortText(s.look(dir)), false
}

// sortText brings text into an order that does not depend on who wrote first: that of its lines, and where it is not made of lines that
// of its bytes.
func sortText(p []byte) []byte {
	if !bytes.HasSuffix(p, []byte("\n")) {
		p = bytes.Clone(p)
		slices.Sort(p)
		return p
	}
	lines := slices.SortedFunc(bytes.Lines(p), bytes.Compare)
	return bytes.Join(lines, nil)
}

// checkTokens writes, takes a token, writes more, and restores from the token on a new instance: what stands at the far end
// after the rest is written again must be what one run without a crash leaves.
func (s *suite) checkTokens() {
	s.Helper()
	dir := s.TempDir()
	in := s.make(s.cfg, dir)
	out := s.opened(in)
	c, ok := out.(plugins.Committer)
	if !ok || s.has(RuleWorks) {
		s.stop(out)
		return
	}
	s.restore(out)
	batches := s.batches()
	half := len(batches) / 2
	s.token(c)
	for _, b := range batches[:half] {
		s.writeWell(out, b, "")
	}
	tok := s.token(c)
	atToken := s.look(dir)
	for _, b := range batches[half:] {
		s.writeWell(out, b, "")
	}
	whole := s.look(dir)
	s.stop(out)

	c = as[plugins.Committer](s, s.build(s.cfg, dir, nil)) // Prepare is for the first one
	s.start(c)
	cut, err := c.Restore(tok)
	if err != nil {
		s.Fatalf("%s: Restore: %v", RuleUndo, err)
	}
	if s.observe != nil {
		if cut <= 0 {
			s.broken(RuleUndo, "Restore cut %d bytes though much was written after the token", cut)
		}
		if got := s.look(dir); !bytes.Equal(got, atToken) {
			s.broken(RuleUndo, "after Restore the far end has\n%s\ninstead of what was there at the token\n%s", short(got), short(atToken))
		}
	}
	for _, b := range s.batches()[half:] {
		s.writeWell(c, b, " after Restore")
	}
	s.stop(c)
	if got := s.look(dir); !bytes.Equal(got, whole) {
		s.broken(RuleUndo, "after Restore and the same writes the far end has\n%s\ninstead of\n%s", short(got), short(whole))
	}
}

func (s *suite) token(c plugins.Committer) (p []byte) {
	s.Helper()
	if err := guard(func() (err error) { p, err = c.Token(); return err }); err != nil {
		s.Fatalf("%s: Token: %v", RuleUndo, err)
	}
	return p
}

// outputGrowth has instances write ever more and compares what goes away with each of them: a far end in this process may grow.
func (s *suite) outputGrowth() float64 {
	s.Helper()
	if s.held != nil {
		return s.heldGrowth()
	}
	return s.grows(4, func(events int) int64 {
		out := s.output(s.cfg, s.TempDir())
		s.restore(out)
		s.writeMany(out, 0, events)
		with := heap()
		s.stop(out)
		out = nil
		return with - heap()
	})
}

// heldGrowth has one instance write ever more.
func (s *suite) heldGrowth() float64 {
	s.Helper()
	out := s.output(s.cfg, s.TempDir())
	defer s.stop(out)
	s.restore(out)
	shown := 0
	return s.grows(2, func(events int) int64 {
		s.writeMany(out, shown, events)
		shown = events
		return s.held()
	})
}

func (s *suite) writeMany(out plugins.Output, from, to int) {
	s.Helper()
	base := s.batches()
	c, committer := out.(plugins.Committer)
	for at := from; at < to && !s.has(RuleWorks); {
		b := another(base[at%len(base)], s.scale().few, at)
		if !s.writeWell(out, b, " in a long row") {
			return
		}
		at += max(1, len(b.Events))
		if committer && at%512 == 0 {
			s.token(c)
		}
	}
}
