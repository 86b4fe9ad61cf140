package plugintest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Streams is an input's side of a checkpoint, in memory. It is safe for concurrent use.
type Streams struct {
	mu     sync.Mutex
	known  map[string]plugins.Stream
	opened map[string]int
}

// NewStreams makes one that knows these streams already, each up to its Start.
func NewStreams(known ...plugins.Stream) *Streams {
	s := &Streams{known: map[string]plugins.Stream{}, opened: map[string]int{}}
	for _, k := range known {
		s.known[k.Name] = k
	}
	return s
}

// Known returns the streams in the order of their names.
func (s *Streams) Known() []plugins.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Values(s.known))
	slices.SortFunc(all, func(a, b plugins.Stream) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Open returns the stored position of a known stream, else the stream's Start.
func (s *Streams) Open(ctx context.Context, st plugins.Stream) (event.Position, error) {
	if err := ctx.Err(); err != nil {
		return event.Position{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.known[st.Name]; ok {
		st.Start = old.Start
	}
	s.known[st.Name] = st
	s.opened[st.Name]++
	return st.Start, nil
}

// Update replaces what the input keeps of the stream.
func (s *Streams) Update(st plugins.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.known[st.Name]; ok {
		st.Start = old.Start
		s.known[st.Name] = st
	}
}

// Forget removes the stream.
func (s *Streams) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, name)
}

// Advance stores a position, as a checkpoint does when everything before it is settled.
func (s *Streams) Advance(name string, to event.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.known[name]; ok {
		st.Start = to
		s.known[name] = st
	}
}

// Opened says how often Open was called for the stream.
func (s *Streams) Opened(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[name]
}
