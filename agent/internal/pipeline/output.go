package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/ledger"
)

// output is one output of a pipeline: its queue, its accounts, its cursors. The runners that empty the queue are in runner.go.
type output struct {
	OutputConfig
	index     int
	plug      plugins.Output
	committer plugins.Committer // plug, if it can undo
	dead      *deadLetter       // nil: none is wanted
	log       *slog.Logger
	dirty     *atomic.Bool // the pipeline's: something changed since the last snapshot
	counters  Counters
	fails     failures
	opening   *opening // nil: there is nothing to open

	mu       sync.Mutex // guards all below: every transition of an item happens under it
	ledgers  map[string]*ledger.Ledger
	touched  map[string]struct{} // streams in which the cursor may have moved since the last stable moment
	runners  []*runner
	held     map[*item]struct{}
	queued   int64 // bytes of the items that no runner has taken whole
	crowded  bool  // something found no room: nothing lingers then
	room     chan struct{}
	accounts Accounts         // without InFlight
	retries  map[string]int64 // by reason
	requests int64
	took     Histogram // of requests
	lastErr  string
	failing  time.Time             // since when requests fail
	good     time.Time             // when something was delivered last
	writing  map[*runner]time.Time // since when a runner is in a request
	unsaid   int64                 // events dropped since it was said last
	saidAt   time.Time             // when that was
	closed   bool
	stable   stable // what a snapshot says
	stored   int    // number of the last stable moment that is in a checkpoint
}

// stable is an output's state at a moment when no batch was partly written: tokens and cursors belong together.
type stable struct {
	token     []byte
	deadToken []byte
	moved     map[string]event.Position // cursors that moved since the last snapshot
	// number counts the stable moments of the output; stored is the number of the last one that is safe on disk. Tokens are taken
	// anew only when the last ones were stored: a plugin lets go of what older ones need.
	number int
}

// item is a batch in the hands of one output.
type item struct {
	out     *output
	batch   *event.Batch
	stream  string
	ticket  ledger.Ticket
	bytes   int64 // that it takes in the queue
	weight  int64 // of each of its events in a write: about twice the line
	arrived time.Time
	events  []*event.Event
	next    int // first event that no request has taken
	left    int // events that are not settled
	died    []deadEvent
}

type deadEvent struct {
	e         *event.Event
	reason    string
	processor string // in which it died; empty: in the output
}

// openStream gives the output a cursor in a stream.
func (o *output) openStream(name string, at event.Position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ledgers[name] == nil {
		o.ledgers[name] = ledger.New(at)
		o.stable.moved[name] = at
	}
}

func (o *output) forgetStream(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.ledgers, name)
	delete(o.touched, name)
	delete(o.stable.moved, name)
}

// position returns where the output stands in a stream and up to where it was handed on.
func (o *output) position(name string) (at, head event.Position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.ledgers[name]; l != nil {
		return l.Position(), l.Head()
	}
	return event.Position{}, event.Position{}
}

// enqueue hands the events that the output selected of b to it: it waits for room, or drops, as on_full says. dead is how many
// records of b died in a processor. The batch is retained for as long as the output holds it. The error is ctx's: then
// nothing happened.
func (o *output) enqueue(ctx context.Context, b *event.Batch, events []*event.Event, dead int) error {
	it := &item{
		out: o, batch: b, stream: b.Stream, bytes: b.Charged(), events: events, left: len(events),
		weight: 128 + 2*int64(b.Size()/max(1, len(b.Events))),
	}
	o.mu.Lock()
	if len(events) > 0 && o.queued > 0 && o.queued+it.bytes > int64(o.Queue.Bytes) {
		if o.Queue.OnFull == OnFullDrop {
			o.hurryLocked()
			o.accounts.Dropped += int64(len(events))
			o.account(b, len(events), dead)
			o.settleLocked(b.Stream, b.Span.To)
			o.tellDropsLocked(b, len(events))
			o.mu.Unlock()
			return nil
		}
		stalled := time.NewTimer(stallAfter)
		defer stalled.Stop()
		for o.queued > 0 && o.queued+it.bytes > int64(o.Queue.Bytes) {
			o.hurryLocked()
			room := o.room
			o.mu.Unlock()
			select {
			case <-room:
				stalled.Reset(stallAfter)
			case <-stalled.C:
				o.log.Warn("output takes nothing, reading waits for it", "for", stallAfter)
			case <-ctx.Done():
				return ctx.Err()
			}
			o.mu.Lock()
		}
	}
	defer o.mu.Unlock()
	o.account(b, len(events), dead)
	if len(events) == 0 {
		o.settleLocked(b.Stream, b.Span.To)
		return nil
	}
	l := o.ledgers[b.Stream]
	it.ticket = l.Add(b.Span.To)
	it.arrived = time.Now()
	b.Retain(1)
	o.held[it] = struct{}{}
	o.queued += it.bytes
	r := o.runners[0]
	if n := len(o.runners); n > 1 {
		r = o.runners[xxh3.HashString(b.Stream)%uint64(n)]
	}
	r.queue = append(r.queue, it)
	r.events += len(events)
	r.signal()
	return nil
}

const (
	// stallAfter is how long an output may take nothing before it is said.
	stallAfter = 15 * time.Second
	// dropsEvery is how often drops are said while they go on.
	dropsEvery = 30 * time.Second
)

// tellDropsLocked says what on_full: drop dropped: the first batch at once, then sums. The caller holds mu.
func (o *output) tellDropsLocked(b *event.Batch, n int) {
	o.unsaid += int64(n)
	if time.Since(o.saidAt) < dropsEvery {
		return
	}
	o.log.Warn("queue is full, events are dropped", "count", o.unsaid, "total", o.accounts.Dropped, "stream", b.Stream,
		"from", b.Span.From.Seq, "to", b.Span.To.Seq)
	o.unsaid, o.saidAt = 0, time.Now()
}

// tellEnd says at the end what was dropped since it was said last.
func (o *output) tellEnd() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unsaid > 0 {
		o.log.Warn("queue was full, events were dropped", "count", o.unsaid, "total", o.accounts.Dropped)
		o.unsaid = 0
	}
}

// account counts a batch as offered. The caller holds mu.
func (o *output) account(b *event.Batch, selected, dead int) {
	n := len(b.Events)
	o.accounts.Offered += int64(n)
	o.accounts.Dead += int64(dead)
	o.accounts.Filtered += int64(n - selected - dead)
}

// settleLocked moves the cursor over a part of the stream that needs no writing, once everything before it is settled.
func (o *output) settleLocked(stream string, to event.Position) {
	l := o.ledgers[stream]
	l.Settle(l.Add(to))
	o.touched[stream] = struct{}{}
}

// skip moves the output's cursor to a position that its records are proved to be lost before.
func (o *output) skip(stream string, to event.Position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledgers[stream] = ledger.New(to)
	o.touched[stream] = struct{}{}
}

// skipTo moves the end of what was handed on over a part of the stream that holds no record.
func (o *output) skipTo(stream string, to event.Position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(stream, to)
}

// Outcomes of an event at an output.
const (
	outcomeDelivered = iota
	outcomeDead
)

// settle ends events of items that are in hand: they are delivered, or dead for the reason given. Items whose last event is
// settled leave the output. It returns false when ctx ended before a dead letter could be written.
func (o *output) settle(ctx context.Context, evs []*event.Event, its []*item, outcome int, reason string) bool {
	var done []*item
	o.mu.Lock()
	for i, it := range its {
		if outcome == outcomeDelivered {
			o.accounts.Delivered++
			it.left--
		} else {
			it.died = append(it.died, deadEvent{evs[i], reason, ""})
		}
		if it.left == len(it.died) {
			done = append(done, it)
		}
	}
	o.mu.Unlock()
	for _, it := range done {
		if !o.finish(ctx, it) {
			return false
		}
	}
	return true
}

// finish writes the dead events of an item to the dead letter and lets the item go. Both are one step for snapshots.
func (o *output) finish(ctx context.Context, it *item) bool {
	if len(it.died) > 0 && o.dead != nil {
		o.dead.mu.Lock()
		defer o.dead.mu.Unlock()
		if !o.dead.writeLocked(ctx, it.died) {
			return false
		}
	}
	o.mu.Lock()
	o.accounts.Dead += int64(len(it.died))
	o.ledgers[it.stream].Settle(it.ticket)
	o.touched[it.stream] = struct{}{}
	delete(o.held, it)
	o.mu.Unlock()
	o.dirty.Store(true)
	it.batch.Release()
	return true
}

// dropping reports that the output most likely drops what comes now, so that encoding it would be in vain. What it takes all the same is
// encoded when it is sent.
func (o *output) dropping() bool {
	if o.Queue.OnFull != OnFullDrop {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.crowded
}

// hurryLocked has the runners send what they have, however little: there is no room for more. The caller holds mu.
func (o *output) hurryLocked() {
	if o.crowded {
		return
	}
	o.crowded = true
	for _, r := range o.runners {
		r.signal()
	}
}

// taken tells those who wait for room that items have left the queue. The caller holds mu.
func (o *output) takenLocked(bytes int64) {
	o.queued -= bytes
	o.crowded = false
	close(o.room)
	o.room = make(chan struct{})
}

// status returns the accounts, all of one moment.
func (o *output) status() OutputStatus {
	s := OutputStatus{ID: o.ID, Type: o.Type, Failures: o.fails.all(), Counts: o.counters.All()}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.Accounts, s.Requests, s.Retries, s.RequestTime = o.accounts, o.requests, maps.Clone(o.retries), o.took
	s.LastError, s.FailingSince, s.LastDelivered = o.lastErr, o.failing, o.good
	for it := range o.held {
		s.InFlight += int64(it.left)
		s.InFlightBytes += it.bytes
		if read := it.batch.ReadAt; s.Oldest.IsZero() || read.Before(s.Oldest) {
			s.Oldest = read
		}
	}
	return s
}

// longestWrite is how long the oldest of the present requests has lasted.
func (o *output) longestWrite() (d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, since := range o.writing {
		d = max(d, time.Since(since))
	}
	return d
}

// close ends the queue: the runners return once it is empty.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, r := range o.runners {
		r.signal()
	}
}

// start cuts a committer, which it opens first, back to what the checkpoint knows. token is nil when that is nothing; refuse,
// if not "", is why nothing may be cut.
func (o *output) start(ctx context.Context, token, deadToken []byte, refuse string) error {
	if o.committer != nil {
		if err := o.open(ctx); err != nil {
			return fmt.Errorf("output %q: %w", o.ID, err)
		}
	}
	if err := restore(o.plug, token, refuse, o.log); err != nil {
		return fmt.Errorf("restoring output %q: %w", o.ID, err)
	}
	o.stable.token, o.stable.deadToken = token, deadToken
	if o.dead != nil {
		if err := restore(o.dead.out, deadToken, refuse, quiet(o.dead.log)); err != nil {
			return fmt.Errorf("restoring the dead letter of output %q: %w", o.ID, err)
		}
	}
	return nil
}
