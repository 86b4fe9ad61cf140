package pipeline

import (
	"context"
	"maps"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Snapshot is a pipeline's state for the checkpoint.
type Snapshot struct {
	checkpoint.Pipeline
	fresh   []chan struct{} // of streams that no checkpoint has named so far
	numbers []int           // of the outputs' stable moments
}

// Dirty reports whether anything changed since the last call, and forgets it.
func (p *Pipeline) Dirty() bool { return p.dirty.Swap(false) }

// Snapshot takes the state of the pipeline. Outputs that can undo are asked for a moment at which no batch is partly written,
// for at most wait; one that cannot give it in time, because its far end does not answer, stays where its last snapshot
// was. With wait 0 they are not asked at all. A new token is taken only after the last snapshot was stored: the caller sees
// to that.
func (p *Pipeline) Snapshot(ctx context.Context, wait time.Duration) Snapshot {
	if wait > 0 {
		var asked []<-chan struct{}
		for _, o := range p.outputs {
			if o.committer != nil {
				asked = append(asked, o.askStable())
			}
		}
		deadline := time.NewTimer(wait)
		defer deadline.Stop()
	answers:
		for _, ch := range asked {
			select {
			case <-ch:
			case <-deadline.C:
				break answers
			case <-ctx.Done():
				break answers
			}
		}
	}
	return p.gather(wait > 0)
}

// Final takes the state of the pipeline after Run has returned.
func (p *Pipeline) Final() Snapshot {
	for _, o := range p.outputs {
		if o.committer != nil && !o.partlyWritten() {
			o.commit()
		}
	}
	return p.gather(true)
}

// partlyWritten reports whether a batch was cut off in the middle.
func (o *output) partlyWritten() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for it := range o.held {
		if it.next > 0 {
			return true
		}
	}
	return false
}

// gather puts the snapshot together from what is stable. With refresh, outputs that cannot undo, and so are stable at any
// moment, are brought up to date first.
func (p *Pipeline) gather(refresh bool) Snapshot {
	s := Snapshot{Pipeline: checkpoint.Pipeline{Outputs: map[string]checkpoint.Output{}}}
	// Outputs that are not configured now may come back: what is known of them is kept.
	maps.Copy(s.Outputs, p.State.Outputs)
	stables := make([]stable, len(p.outputs))
	for i, o := range p.outputs {
		if refresh && o.committer == nil {
			o.commit()
		}
		stables[i] = o.takeStable()
		s.numbers = append(s.numbers, stables[i].number)
		s.Outputs[o.ID] = checkpoint.Output{Token: stables[i].token, DeadToken: stables[i].deadToken}
	}
	if p.dead != nil {
		if refresh {
			// After the cursors: what died behind them may stand here twice after a crash, but never not at all.
			p.dead.mu.Lock()
			if token, err := p.dead.out.Token(); err == nil {
				p.deadToken = token
			} else {
				p.log.Warn("dead letter cannot make its data safe", "error", err)
			}
			p.dead.mu.Unlock()
		}
		s.Outputs[""] = checkpoint.Output{DeadToken: p.deadToken}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range stables {
		for name, at := range stables[i].moved {
			if st := p.streams[name]; st != nil {
				st.at[i], st.stale = at, true
				st.known |= 1 << i
			}
		}
	}
	s.Streams = make([]checkpoint.Stream, 0, len(p.streams))
	for _, st := range p.streams {
		if st.known != 1<<len(p.outputs)-1 {
			continue // opened since the cursors were taken
		}
		if st.stale {
			p.encodeStream(st)
		}
		select {
		case <-st.durable:
		default:
			s.fresh = append(s.fresh, st.durable)
		}
		s.Streams = append(s.Streams, st.saved)
	}
	for _, c := range p.State.Streams {
		if p.inputByID(c.Input) == nil {
			s.Streams = append(s.Streams, c) // of an input that is not configured now: it may come back
		}
	}
	return s
}

// encodeStream makes what the checkpoint says of a stream. The caller holds mu.
func (p *Pipeline) encodeStream(st *stream) {
	c := checkpoint.Stream{
		Input: st.in.ID, Name: st.Name, Lane: st.Lane, Meta: st.Meta, Drained: st.Drained, Cursors: make(map[string]checkpoint.Cursor, len(st.at)),
	}
	maps.Copy(c.Cursors, st.absent)
	behind := false
	for i, o := range p.outputs {
		at := st.at[i]
		c.Cursors[o.ID] = checkpoint.Cursor{Seq: at.Seq, Token: []byte(at.Token)}
		if _, head := o.position(st.Name); at.Seq < head.Seq {
			behind = true
		}
	}
	c.Drained = st.Drained && !behind // not for an output that is behind
	st.saved, st.stale = c.Encoded(), behind && st.Drained
}

// commit makes what is written safe and the present moment the one that snapshots speak of. For an output that can undo,
// nothing may be written meanwhile and no batch be partly written.
func (o *output) commit() {
	var token, deadToken []byte
	if o.committer != nil {
		var err error
		if token, err = o.committer.Token(); err != nil {
			o.log.Warn("output cannot make its data safe; the checkpoint keeps its last position", "error", err)
			return
		}
	}
	if o.dead != nil {
		// While this lock is held no event dies without being settled too.
		o.dead.mu.Lock()
		defer o.dead.mu.Unlock()
		var err error
		if deadToken, err = o.dead.out.Token(); err != nil {
			o.log.Warn("dead letter cannot make its data safe; the checkpoint keeps its last position", "error", err)
			return
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.committer != nil {
		o.stable.token = token
	}
	if o.dead != nil {
		o.stable.deadToken = deadToken
	}
	for name := range o.touched {
		o.stable.moved[name] = o.ledgers[name].Position()
	}
	clear(o.touched)
	o.stable.number++
}

// takeStable returns the last stable moment. The cursors that moved are told once.
func (o *output) takeStable() stable {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stable
	o.stable.moved = map[string]event.Position{}
	return s
}

// Stored tells the pipeline that a snapshot is safe on disk: the first batches of its streams may pass.
func (p *Pipeline) Stored(s Snapshot) {
	for i, o := range p.outputs {
		o.mu.Lock()
		o.stored = s.numbers[i]
		o.mu.Unlock()
		// The snapshot before this one is kept for the case that this one turns out to be damaged.
		known := p.stored.Outputs[o.ID]
		confirm(o.plug, known.Token)
		if o.dead != nil {
			confirm(o.dead.out, known.DeadToken)
		}
	}
	if p.dead != nil {
		confirm(p.dead.out, p.stored.Outputs[""].DeadToken)
	}
	p.stored = s.Pipeline
	p.mu.Lock()
	select {
	case <-p.saveFails:
		p.saveFails = make(chan struct{})
	default:
	}
	p.mu.Unlock()
	for _, durable := range s.fresh {
		close(durable)
	}
}

// confirm tells an output that cares that no older token will be asked for.
func confirm(out any, token []byte) {
	if c, ok := out.(plugins.Confirmer); ok && token != nil {
		c.Stored(token)
	}
}
