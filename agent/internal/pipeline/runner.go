package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// runner is one worker of an output: it collects events into requests, writes them, and retries. Batches of one stream always
// go to the same runner, so their order holds with any number of workers.
type runner struct {
	o     *output
	wake  chan struct{}
	queue []*item // guarded by o.mu, like the two below
	// events is how many events stand in queue untaken.
	events int
	// due is a snapshot's wish for a stable moment; answered by closing it.
	due chan struct{}

	evs []*event.Event // the request in hand, reused
	its []*item
}

func newRunner(o *output) *runner { return &runner{o: o, wake: make(chan struct{}, 1)} }

func (r *runner) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run works until the queue is closed and empty, or ctx is done.
func (r *runner) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		r.serveSnapshot()
		wait, more := r.collect()
		if !more {
			return
		}
		if wait == 0 {
			if !r.deliver(ctx, r.evs, r.its) {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// collect takes the next request from the queue. wait says how long to wait for more before asking again; more is false when
// nothing will come any more.
func (r *runner) collect() (wait time.Duration, more bool) {
	o := r.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(r.queue) == 0 {
		return time.Hour, !o.closed
	}
	maxEvents, maxBytes := o.Batch.Events, int64(o.Batch.Bytes)
	if o.Batch.Linger > 0 && !o.closed && !o.crowded && r.due == nil && r.events < maxEvents && r.bytes() < maxBytes && r.queue[0].next == 0 {
		if wait := o.Batch.Linger - time.Since(r.queue[0].arrived); wait > 0 {
			return wait, true
		}
	}
	// A snapshot waits for the batch in hand only.
	onlyRest := r.due != nil && o.committer != nil
	r.evs, r.its = r.evs[:0], r.its[:0]
	var bytes, freed int64
	taken := 0
	for _, it := range r.queue {
		for it.next < len(it.events) {
			e := it.events[it.next]
			if len(r.evs) > 0 && (len(r.evs) == maxEvents || bytes+it.weight > maxBytes) {
				break
			}
			bytes += it.weight
			r.evs, r.its = append(r.evs, e), append(r.its, it)
			it.next++
		}
		if it.next < len(it.events) {
			break
		}
		freed += it.bytes
		taken++
		if onlyRest {
			break
		}
	}
	clear(r.queue[:taken])
	r.queue = append(r.queue[:0], r.queue[taken:]...)
	r.events -= len(r.evs)
	if taken > 0 {
		o.takenLocked(freed)
	}
	return 0, true
}

// bytes adds up the weight of what stands in the queue untaken.
func (r *runner) bytes() (sum int64) {
	for _, it := range r.queue {
		sum += it.weight * int64(len(it.events)-it.next)
	}
	return sum
}

// deliver writes events until all of them are settled. It returns false when ctx ended before that.
func (r *runner) deliver(ctx context.Context, evs []*event.Event, its []*item) bool {
	o := r.o
	began := time.Now()
	backoff := o.Retry.Initial
	panics := 0
	for len(evs) > 0 {
		err := o.opening.why()
		if err == nil {
			err = r.timedWrite(ctx, evs)
		}
		if err != nil && ctx.Err() != nil {
			return false
		}
		o.note(r.failure(err, len(evs)))
		if err == nil {
			return o.settle(ctx, evs, its, outcomeDelivered, "")
		}
		var partial *plugins.PartialError
		var permanent *plugins.PermanentError
		var throttle *plugins.ThrottleError
		reason := retryError
		if _, ok := errors.AsType[*panicError](err); ok {
			panics++
			reason = retryPanic
		}
		wait := time.Duration(0)
		switch {
		case errors.As(err, &partial) && valid(partial, len(evs)):
			n := len(evs)
			var ok bool
			if evs, its, ok = r.settlePartial(ctx, partial, evs, its); !ok {
				return false
			}
			if len(evs) == 0 {
				return true
			}
			if len(evs) < n {
				backoff, began = o.Retry.Initial, time.Now()
			}
			reason = retryPartial
		case errors.As(err, &permanent), errors.Is(err, plugins.ErrTooLarge), panics >= maxPanics:
			if len(evs) == 1 {
				return o.settle(ctx, evs, its, outcomeDead, err.Error())
			}
			half := len(evs) / 2
			return r.deliver(ctx, evs[:half:half], its[:half:half]) && r.deliver(ctx, evs[half:], its[half:])
		case errors.As(err, &throttle):
			wait, reason = throttle.After, retryThrottled
		}
		if o.Retry.Limit > 0 && time.Since(began) >= o.Retry.Limit {
			return o.settle(ctx, evs, its, outcomeDead, fmt.Sprintf("retry limit of %v reached: %v", o.Retry.Limit, err))
		}
		o.mu.Lock()
		o.retries[reason]++
		o.mu.Unlock()
		// Full jitter: anything up to the present backoff, so that many agents do not come back at once.
		wait += time.Duration(rand.Int64N(int64(backoff) + 1))
		backoff = min(2*backoff, o.Retry.Max)
		if !o.opening.pause(ctx, wait) {
			return false
		}
	}
	return true
}

// failure is what of an answer says that the output does not work: nil where the far end took the request and refused events for good.
func (r *runner) failure(err error, n int) error {
	refused := func(err error) bool {
		var permanent *plugins.PermanentError
		return errors.As(err, &permanent) || errors.Is(err, plugins.ErrTooLarge)
	}
	var partial *plugins.PartialError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &partial) && valid(partial, n):
		for _, i := range slices.Sorted(maps.Keys(partial.Failed)) {
			if cause := partial.Failed[i]; !refused(cause) {
				return cause
			}
		}
		return nil
	case refused(err):
		return nil
	}
	return err
}

// Reasons of retries.
const (
	retryError     = "error"     // the far end could not be reached, or refused everything
	retryPartial   = "partial"   // some of the events
	retryThrottled = "throttled" // the far end asked for a pause
	retryPanic     = "panic"     // the plugin panicked
)

// timedWrite writes, and notes how long it took.
func (r *runner) timedWrite(ctx context.Context, evs []*event.Event) error {
	o, began := r.o, time.Now()
	o.mu.Lock()
	o.writing[r] = began
	o.mu.Unlock()
	err := r.write(ctx, evs)
	o.mu.Lock()
	delete(o.writing, r)
	o.requests++
	o.took.add(time.Since(began))
	o.mu.Unlock()
	return err
}

// maxPanics is how often a plugin may panic on the same events before they are taken apart: a batch that kills an output must
// not do so for ever.
const maxPanics = 3

// valid reports whether a PartialError speaks of events that exist. A plugin that lies is treated as if it had failed.
func valid(p *plugins.PartialError, n int) bool {
	for i := range p.Failed {
		if i < 0 || i >= n {
			return false
		}
	}
	return true
}

// settlePartial settles what a PartialError says of: delivered, dead, and returns the rest, which is to be tried again.
func (r *runner) settlePartial(ctx context.Context, p *plugins.PartialError, evs []*event.Event, its []*item) ([]*event.Event, []*item, bool) {
	var ok, again, dead struct {
		evs []*event.Event
		its []*item
	}
	var reasons []string
	for i := range evs {
		cause, failed := p.Failed[i]
		var permanent *plugins.PermanentError
		switch {
		case !failed:
			ok.evs, ok.its = append(ok.evs, evs[i]), append(ok.its, its[i])
		case errors.As(cause, &permanent), errors.Is(cause, plugins.ErrTooLarge):
			dead.evs, dead.its = append(dead.evs, evs[i]), append(dead.its, its[i])
			reasons = append(reasons, cause.Error())
		default:
			again.evs, again.its = append(again.evs, evs[i]), append(again.its, its[i])
		}
	}
	if !r.o.settle(ctx, ok.evs, ok.its, outcomeDelivered, "") {
		return nil, nil, false
	}
	for i := range dead.evs {
		if !r.o.settle(ctx, dead.evs[i:i+1], dead.its[i:i+1], outcomeDead, reasons[i]) {
			return nil, nil, false
		}
	}
	return again.evs, again.its, true
}

// panicError is what a plugin's panic becomes.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("plugin panicked: %v", e.value) }

func (r *runner) write(ctx context.Context, evs []*event.Event) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return r.o.plug.Write(ctx, evs)
}

// note remembers how the last request ended and says so when that changed.
func (o *output) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	o.mu.Lock()
	was := o.lastErr
	o.lastErr = text
	switch {
	case text == "":
		o.failing, o.good = time.Time{}, time.Now()
	case was == "":
		o.failing = time.Now()
	}
	o.mu.Unlock()
	switch {
	case was == "" && text != "":
		o.log.Warn("output fails, will retry", "error", text)
	case was != "" && text == "":
		o.log.Info("output works again")
	}
}

// sleep waits and reports whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askStable asks a committer's runner for a stable moment. The channel is closed once there was one.
func (o *output) askStable() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.runners[0]
	if r.due == nil {
		r.due = make(chan struct{})
	}
	r.signal()
	return r.due
}

// serveSnapshot answers a snapshot that is due, if no batch is partly written. It runs in the runner's own goroutine, so
// nothing is written meanwhile.
func (r *runner) serveSnapshot() {
	o := r.o
	o.mu.Lock()
	due := r.due
	partly := len(r.queue) > 0 && r.queue[0].next > 0
	stored := o.stored == o.stable.number
	o.mu.Unlock()
	if due == nil || partly {
		return
	}
	if stored { // else the last answer came too late for its snapshot: it goes into this one
		o.commit()
	}
	o.mu.Lock()
	r.due = nil
	o.mu.Unlock()
	close(due)
}
