package plugintest

import (
	"context"
	"slices"
	"sync"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Sink collects copies of the batches that an input sends, and releases the batches after spoiling them. It is safe for concurrent use.
type Sink struct {
	mu      sync.Mutex
	batches []*event.Batch
	closed  bool
	late    int
	block   bool
	waiting int
}

// NewSink makes an empty sink.
func NewSink() *Sink { return &Sink{} }

// NewBlockedSink makes a sink whose Send takes the batch only when its context is done, like that of a pipeline that is full.
func NewBlockedSink() *Sink { return &Sink{block: true} }

// Send takes a batch.
func (s *Sink) Send(ctx context.Context, b *event.Batch) error {
	if s.block {
		s.mu.Lock()
		s.waiting++
		s.mu.Unlock()
		<-ctx.Done()
	}
	c := b.Clone()
	b.Arena().Poison()
	b.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		s.late++
	case !s.block:
		s.batches = append(s.batches, c)
	}
	return ctx.Err()
}

// Batches returns the copies, in the order in which the batches came.
func (s *Sink) Batches() []*event.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

// Events returns all events that came, in order.
func (s *Sink) Events() []*event.Event {
	var all []*event.Event
	for _, b := range s.Batches() {
		all = append(all, pointers(b)...)
	}
	return all
}

// Wait waits until n events came, and reports whether they did.
func (s *Sink) Wait(n int) bool {
	return eventually(func() bool { return len(s.Events()) >= n }, patience)
}

// held says how many batches came to a blocked sink.
func (s *Sink) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// Close makes the sink count what comes from now on as late.
func (s *Sink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// Late says how many batches came after Close.
func (s *Sink) Late() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late
}
