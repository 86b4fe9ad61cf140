package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// input is one input of a pipeline with its streams.
type input struct {
	InputConfig
	p        *Pipeline
	plug     plugins.Input
	replayer plugins.Replayer // plug, if it can read again
	counters Counters
	fails    failures
}

// stream is what the pipeline keeps of a stream beside the outputs' ledgers.
type stream struct {
	plugins.Stream
	in      *input
	lane    *lane
	opening sync.Mutex    // held while laggards are brought forward
	opened  bool          // guarded by opening
	durable chan struct{} // guarded by the pipeline's mu; closed once the checkpoint names the stream as what it is
	// reopened: the checkpoint says that it is drained, and it is not. guarded by the pipeline's mu.
	reopened bool
	told     bool                         // that it is handed on although no checkpoint names it; guarded by the pipeline's mu
	absent   map[string]checkpoint.Cursor // of outputs that are not configured now

	// What the last snapshot says of the stream, all guarded by the pipeline's mu.
	at    []event.Position  // where the outputs stand
	known event.Set         // outputs of which at says something
	saved checkpoint.Stream // encoded
	stale bool              // saved has to be made anew
}

// Known returns the input's streams of the checkpoint.
func (in *input) Known() []plugins.Stream {
	p := in.p
	p.mu.Lock()
	defer p.mu.Unlock()
	var known []plugins.Stream
	for _, st := range p.streams {
		if st.in != in {
			continue
		}
		s := st.Stream
		for i, o := range p.outputs {
			if at, _ := o.position(s.Name); i == 0 || at.Seq < s.Start.Seq {
				s.Start = at
			}
		}
		known = append(known, s)
	}
	slices.SortFunc(known, func(a, b plugins.Stream) int { return cmp.Compare(a.Name, b.Name) })
	return known
}

// Open declares a stream and brings outputs that are behind forward.
func (in *input) Open(ctx context.Context, s plugins.Stream) (event.Position, error) {
	p := in.p
	p.mu.Lock()
	st := p.streams[s.Name]
	if st == nil {
		st = &stream{Stream: s, in: in, lane: p.laneLocked(s.Lane), durable: make(chan struct{})}
		st.opened, st.stale, st.at = true, true, make([]event.Position, len(p.outputs))
		for _, o := range p.outputs {
			o.openStream(s.Name, s.Start)
		}
		p.streams[s.Name] = st
		p.mu.Unlock()
		p.dirty.Store(true)
		return s.Start, nil
	}
	if st.in != in {
		p.mu.Unlock()
		return event.Position{}, fmt.Errorf("stream %s belongs to input %q", s.Name, st.in.ID)
	}
	st.change(s)
	if st.Lane != s.Lane {
		st.Lane, st.lane = s.Lane, p.laneLocked(s.Lane)
	}
	p.mu.Unlock()
	st.opening.Lock()
	defer st.opening.Unlock()
	if !st.opened {
		if err := p.catchUp(ctx, st, s); err != nil {
			return event.Position{}, err
		}
		st.opened = true
	}
	_, head := p.outputs[0].position(s.Name)
	return head, nil
}

// catchUp replays a stream to the outputs that are behind, piece by piece from the lowest cursor to the highest, so that every
// output gets just what it lacks.
func (p *Pipeline) catchUp(ctx context.Context, st *stream, s plugins.Stream) error {
	for {
		heads := make([]event.Position, len(p.outputs))
		for i, o := range p.outputs {
			_, heads[i] = o.position(s.Name)
		}
		low := slices.MinFunc(heads, bySeq)
		next := slices.MaxFunc(heads, bySeq)
		if next.Seq == low.Seq {
			return nil // all stand at one place
		}
		var behind event.Set
		for i, at := range heads {
			if at.Seq == low.Seq {
				behind |= 1 << i
			} else if at.Seq < next.Seq {
				next = at
			}
		}
		err := st.in.replay(ctx, s, low, next, behind)
		if errors.Is(err, plugins.ErrGone) {
			p.log.Error("records are gone before an output got them", "stream", s.Name, "from", low.Seq, "to", next.Seq, "error", err)
			st.in.counters.Add("lost_bytes", "gone", next.Seq-low.Seq)
			for i, o := range p.outputs {
				if behind.Has(i) {
					o.skip(s.Name, next)
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		for i, o := range p.outputs {
			if _, at := o.position(s.Name); behind.Has(i) && at.Seq < next.Seq {
				o.skipTo(s.Name, next) // the end of the piece held no record
			}
		}
	}
}

func bySeq(a, b event.Position) int { return cmp.Compare(a.Seq, b.Seq) }

// replay has the input read a part of a stream again for some outputs.
func (in *input) replay(ctx context.Context, s plugins.Stream, from, to event.Position, outs event.Set) error {
	if in.replayer == nil {
		return fmt.Errorf("input %q cannot read stream %s again: %w", in.ID, s.Name, plugins.ErrGone)
	}
	in.p.log.Info("reading again for outputs that are behind", "stream", s.Name, "from", from.Seq, "to", to.Seq)
	return in.replayer.Replay(ctx, s, from, to, &sink{in, outs})
}

// Update replaces what is kept of a stream.
func (in *input) Update(s plugins.Stream) {
	p := in.p
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.streams[s.Name]
	if st == nil || st.in != in {
		return
	}
	st.change(s)
	if st.Lane != s.Lane {
		st.Lane, st.lane = s.Lane, p.laneLocked(s.Lane)
	}
	p.dirty.Store(true)
}

// change takes over what the input says of the stream. What the checkpoint says to be drained need not be there any more at a restart, so
// nothing that goes on there is handed on before the checkpoint says otherwise. The caller holds the pipeline's mu.
func (st *stream) change(s plugins.Stream) {
	if st.Drained && !s.Drained {
		select {
		case <-st.durable:
			st.durable, st.reopened = make(chan struct{}), true
		default:
		}
	}
	st.Meta, st.Drained, st.stale = s.Meta, s.Drained, true
}

// Forget removes a stream.
func (in *input) Forget(name string) {
	p := in.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.streams[name]; st == nil || st.in != in {
		return
	}
	delete(p.streams, name)
	for _, o := range p.outputs {
		o.forgetStream(name)
	}
	p.dirty.Store(true)
}

// laneLocked returns the lane of a lineage; new ones are dealt out in turn. The caller holds mu.
func (p *Pipeline) laneLocked(key string) *lane {
	l := p.laneOf[key]
	if l == nil {
		l = p.lanes[len(p.laneOf)%len(p.lanes)]
		p.laneOf[key] = l
	}
	return l
}

// tellUnnamed says that a stream is handed on that no checkpoint names.
func (p *Pipeline) tellUnnamed(st *stream) {
	p.mu.Lock()
	told := st.told
	st.told = true
	p.mu.Unlock()
	if !told {
		p.log.Warn("positions cannot be saved: a new source is delivered all the same, and after a crash it would be read as one that was never seen",
			"stream", st.Name, "lane", st.Lane)
	}
}

// SaveFailed tells the pipeline that its last snapshot could not be stored. Stored takes it back.
func (p *Pipeline) SaveFailed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.saveFails:
	default:
		close(p.saveFails)
	}
}

// sink is what an input sends its batches to: those that are read live are for all outputs, those of a replay for some.
type sink struct {
	in   *input
	outs event.Set
}

// Send takes a batch through its stream's lane.
func (s *sink) Send(ctx context.Context, b *event.Batch) error {
	p := s.in.p
	p.mu.Lock()
	st := p.streams[b.Stream]
	var durable, failing chan struct{}
	if st != nil {
		durable = st.durable
		if !st.reopened {
			failing = p.saveFails
		}
	}
	p.mu.Unlock()
	if st == nil || st.in != s.in {
		b.Release()
		return fmt.Errorf("BUG: input %q sent a batch of stream %q that it did not open", s.in.ID, b.Stream)
	}
	select {
	case <-durable:
	default:
		// The stream's first batch: the checkpoint has to name the stream before anything of it is handed on. While no checkpoint can be
		// stored that would hold up all: after a crash it is then read from where new streams begin.
		p.RequestSnapshot()
		select {
		case <-durable:
		case <-failing:
			p.tellUnnamed(st)
		case <-ctx.Done():
			b.Release()
			return ctx.Err()
		}
	}
	b.For = s.outs
	return st.lane.pass(ctx, s.in, b)
}
