package pipeline

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// lane carries batches through the processors to the outputs' queues. Its processors, conditions and encoder scratch are its
// own, so they need no locks of theirs. What has to stay in order uses one lane.
type lane struct {
	p *Pipeline

	mu      sync.Mutex // held while a batch passes
	procs   []plugins.Processor
	open    int               // how many of them are
	conds   []*eval.Condition // when of each output, nil where there is none
	scratch schema.Scratch
}

func (p *Pipeline) newLane() (*lane, error) {
	l := &lane{p: p}
	var err error
	if l.procs, err = p.newProcessors(); err != nil {
		return nil, err
	}
	for _, o := range p.outputs {
		var c *eval.Condition
		if o.When != nil {
			c = o.When.Clone()
		}
		l.conds = append(l.conds, c)
	}
	return l, nil
}

func (p *Pipeline) newProcessors() ([]plugins.Processor, error) {
	var procs []plugins.Processor
	for i, c := range p.cfg.Processors {
		v, err := c.Build(p.env(c.ID, &p.procCounters[i], nil))
		if err != nil {
			return nil, fmt.Errorf("building processor %q: %w", c.ID, err)
		}
		procs = append(procs, v)
	}
	return procs, nil
}

// pass takes a batch through the lane: constant fields, processors, then every output that it is for. It owns b. The error is
// ctx's: outputs that did not get the batch will read it again after a restart.
func (l *lane) pass(ctx context.Context, in *input, b *event.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer b.Release()
	l.setConstants(in, b)
	if l.p.procs == nil {
		return l.freeze(ctx, b, 0)
	}
	select {
	case <-l.p.procs.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	var spare *event.Batch // what was read, should a processor fail on an input that cannot read again
	if in.replayer == nil {
		spare = b.Clone()
	}
	err := l.process(ctx, b)
	if err == nil {
		return l.freeze(ctx, b, 0)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return l.takeApart(ctx, in, b, spare, err)
}

func (l *lane) setConstants(in *input, b *event.Batch) {
	for _, f := range in.Set {
		for i := range b.Events {
			schema.Set(&b.Events[i], f.Key, f.Value)
		}
	}
}

func (l *lane) process(ctx context.Context, b *event.Batch) error {
	for i := range l.procs {
		if err := processOne(ctx, l.procs[i], b); err != nil {
			return &processorError{l.p.cfg.Processors[i].ID, err}
		}
	}
	return nil
}

// processorError says in which processor something failed.
type processorError struct {
	id  string
	err error
}

// Error names the processor and says what failed.
func (e *processorError) Error() string { return fmt.Sprintf("processor %q: %v", e.id, e.err) }

// Unwrap returns what failed.
func (e *processorError) Unwrap() error { return e.err }

func processOne(ctx context.Context, p plugins.Processor, b *event.Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return p.Process(ctx, b)
}

// takeApart deals with a batch on which a processor failed: the batch is built anew from the source, and its events pass fresh
// processors one by one. The one that fails dies; nothing passes a processor that did not run.
func (l *lane) takeApart(ctx context.Context, in *input, b, spare *event.Batch, cause error) error {
	l.p.log.Warn("a processor failed, taking its batch apart", "error", cause, "stream", b.Stream, "offset", b.Span.From.Seq)
	l.closeProcs()
	again := []*event.Batch{spare}
	if spare == nil {
		var err error
		if again, err = l.readAgain(ctx, in, b); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// The source is gone: all that is left is to name what died.
			return l.bury(ctx, b, fmt.Errorf("%w; reading it again: %w", cause, err))
		}
	}
	for _, nb := range again {
		nb.For = b.For
		l.setConstants(in, nb)
		dead := 0
		for i := range nb.Events {
			if err := l.freshProcs(ctx); err != nil {
				return err
			}
			one := &event.Batch{Stream: nb.Stream, Span: nb.Span, ReadAt: nb.ReadAt, For: nb.For, Events: nb.Events[i : i+1]}
			err := l.process(ctx, one)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				continue
			}
			l.closeProcs()
			if !l.p.buryOne(ctx, &nb.Events[i], err) {
				return ctx.Err()
			}
			nb.Events[i].Dropped = true
			dead++
		}
		nb.Retain(1)
		err := l.freeze(ctx, nb, dead)
		nb.Release()
		if err != nil {
			return err
		}
	}
	return l.freshProcs(ctx)
}

// freshProcs makes processors where the last ones failed. What they need may be gone for a while: it is waited for, as nothing passes
// a processor that did not run.
func (l *lane) freshProcs(ctx context.Context) error {
	if l.procs != nil {
		return nil
	}
	var err error
	if l.procs, err = l.p.newProcessors(); err != nil {
		return err
	}
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		if err = l.openProcs(ctx); err == nil || ctx.Err() != nil {
			l.p.procFails.set(reopening, nil)
			return ctx.Err()
		}
		l.p.procFails.set(reopening, err)
		l.p.log.Error("a fresh processor cannot be opened and is waited for", "error", err)
		sleep(ctx, pause)
	}
}

// reopening is the key of a failure that lasts.
const reopening = "opening processors"

// openProcs opens the processors. It may be called again after an error: those that are open stay open.
func (l *lane) openProcs(ctx context.Context) error {
	for ; l.open < len(l.procs); l.open++ {
		err, c := openPlugin(ctx, l.procs[l.open]), l.p.cfg.Processors[l.open]
		if err == nil {
			continue
		}
		if refused := refusal(err, c.Place); refused != nil {
			return &refusedError{refused}
		}
		return fmt.Errorf("opening processor %q: %w", c.ID, err)
	}
	return nil
}

// closeProcs closes the processors.
func (l *lane) closeProcs() {
	for i, v := range l.procs {
		l.p.closeOne(l.p.cfg.Processors[i].ID, v)
	}
	l.procs, l.open = nil, 0
}

// readAgain reads the span of a batch for a second time.
func (l *lane) readAgain(ctx context.Context, in *input, b *event.Batch) ([]*event.Batch, error) {
	var got collector
	s := l.p.streamInfo(b.Stream)
	if err := in.replayer.Replay(ctx, s, b.Span.From, b.Span.To, &got); err != nil {
		return nil, err
	}
	n := 0
	for _, x := range got.batches {
		n += len(x.Events)
	}
	if n != len(b.Events) {
		return nil, fmt.Errorf("the source now has %d records where %d were read", n, len(b.Events))
	}
	return got.batches, nil
}

// collector is a sink that keeps copies of what it is sent.
type collector struct{ batches []*event.Batch }

// Send keeps a copy of b and releases it.
func (c *collector) Send(_ context.Context, b *event.Batch) error {
	x := b.Clone()
	x.ReadAt = b.ReadAt
	c.batches = append(c.batches, x)
	b.Release()
	return nil
}

// bury ends a whole batch in the pipeline's dead letter.
func (l *lane) bury(ctx context.Context, b *event.Batch, cause error) error {
	for i := range b.Events {
		if !l.p.buryOne(ctx, &b.Events[i], cause) {
			return ctx.Err()
		}
		b.Events[i].Dropped = true
	}
	if err := l.freshProcs(ctx); err != nil {
		return err
	}
	return l.freeze(ctx, b, len(b.Events))
}

// freeze ends the processing of b: it selects and encodes for the outputs and hands the batch to their queues. dead is how many
// of its records died in a processor.
func (l *lane) freeze(ctx context.Context, b *event.Batch, dead int) error {
	p := l.p
	for i, o := range p.outputs {
		if !b.For.Has(i) {
			continue
		}
		var keep func(*event.Event) bool
		if c := l.conds[i]; c != nil {
			failed := 0
			keep = func(e *event.Event) bool {
				ok, err := c.Eval(e)
				if err != nil {
					failed++
					return true // what cannot be judged is sent
				}
				return ok
			}
			b.Select(i, keep)
			if failed > 0 {
				o.counters.Add("eval_errors", "when", int64(failed))
			}
			continue
		}
		b.Select(i, nil)
	}
	l.encode(b)
	b.Charge()
	for i, o := range p.outputs {
		if !b.For.Has(i) {
			continue
		}
		if err := o.enqueue(ctx, b, b.Selected(i), dead); err != nil {
			return err
		}
	}
	p.dirty.Store(true)
	// What was just encoded is still in the processor's cache: the runners that were woken go first.
	runtime.Gosched()
	return nil
}

// encode caches one encoding of the batch for each distinct encoder of the outputs that get any of it.
func (l *lane) encode(b *event.Batch) {
	for k := range l.p.encoders {
		enc := &l.p.encoders[k]
		n, all := 0, false
		for i, o := range l.p.outputs {
			if enc.users.Has(i) && b.For.Has(i) && !o.dropping() {
				s := len(b.Selected(i))
				n += s
				all = all || l.conds[i] == nil
			}
		}
		if n == 0 {
			continue
		}
		var wanted func(int) bool
		if !all {
			want := make([]bool, len(b.Events))
			for i := range l.p.outputs {
				if enc.users.Has(i) && b.For.Has(i) {
					for _, e := range b.Selected(i) {
						want[e.Index()] = true
					}
				}
			}
			wanted = func(i int) bool { return want[i] }
		}
		b.Encode(enc.enc, wanted, func(dst []byte, e *event.Event) []byte { return enc.enc.Encode(dst, e, &l.scratch) })
	}
}
