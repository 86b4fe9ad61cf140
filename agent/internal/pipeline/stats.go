package pipeline

import (
	"maps"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Counters are the counters that plugins keep through Env.Count, by name and reason. They are safe for concurrent use.
type Counters struct {
	m sync.Map // counterKey → *atomic.Int64
}

type counterKey struct{ name, reason string }

// Add adds n to a counter.
func (c *Counters) Add(name, reason string, n int64) {
	k := counterKey{name, reason}
	v, ok := c.m.Load(k)
	if !ok {
		v, _ = c.m.LoadOrStore(k, new(atomic.Int64))
	}
	v.(*atomic.Int64).Add(n)
}

// Get returns the sum of a counter over all reasons.
func (c *Counters) Get(name string) (sum int64) {
	for _, x := range c.All() {
		if x.Name == name {
			sum += x.N
		}
	}
	return sum
}

// Count is the state of one counter.
type Count struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
	N      int64  `json:"n"`
}

// All returns every counter, ordered by name and reason.
func (c *Counters) All() []Count {
	var all []Count
	c.m.Range(func(k, v any) bool {
		key := k.(counterKey)
		all = append(all, Count{key.name, key.reason, v.(*atomic.Int64).Load()})
		return true
	})
	sort.Slice(all, func(i, j int) bool {
		if all[i].Name != all[j].Name {
			return all[i].Name < all[j].Name
		}
		return all[i].Reason < all[j].Reason
	})
	return all
}

// Accounts is what became of the records that were offered to an output. At every moment Offered is the sum of the others.
type Accounts struct {
	Offered   int64 `json:"offered"` // records past the output's own cursor, each once
	Delivered int64 `json:"delivered"`
	Dead      int64 `json:"dead"`      // in a dead letter, the output's own or the pipeline's
	Dropped   int64 `json:"dropped"`   // by the output's on_full: drop
	Filtered  int64 `json:"filtered"`  // dropped by a processor or refused by when
	InFlight  int64 `json:"in_flight"` // counted from the batches that are held
}

// Balanced reports whether every record is accounted for.
func (a Accounts) Balanced() bool {
	return a.Offered == a.Delivered+a.Dead+a.Dropped+a.Filtered+a.InFlight
}

// OutputStatus is an output's part of Status.
type OutputStatus struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Accounts
	InFlightBytes int64             `json:"in_flight_bytes"` // memory of the batches that are held, those in hand included
	Requests      int64             `json:"requests"`
	Retries       map[string]int64  `json:"retries"`         // by reason
	RequestTime   Histogram         `json:"-"`               // seconds
	Oldest        time.Time         `json:"oldest,omitzero"` // when the oldest batch that is held was read
	LastDelivered time.Time         `json:"last_delivered,omitzero"`
	LastError     string            `json:"last_error,omitempty"` // of the request in hand; "" when the last one succeeded
	FailingSince  time.Time         `json:"failing_since,omitzero"`
	Failures      map[string]string `json:"failures,omitempty"` // lasting conditions by key
	Counts        []Count           `json:"counts,omitempty"`
}

// Retried is how many writes were tried again.
func (s *OutputStatus) Retried() (n int64) {
	for _, k := range s.Retries {
		n += k
	}
	return n
}

// InputStatus is an input's part of Status.
type InputStatus struct {
	ID       string            `json:"id"`
	Type     string            `json:"type"`
	Counts   []Count           `json:"counts,omitempty"`
	Failures map[string]string `json:"failures,omitempty"` // lasting conditions by key: files that cannot be read and the like
	Streams  []StreamStatus    `json:"streams,omitempty"`
}

// Lag is how many bytes some output lacks of the input's open sources, as far as these tell their size.
func (s *InputStatus) Lag() (bytes int64) {
	for i := range s.Streams {
		bytes += s.Streams[i].Lag()
	}
	return bytes
}

// Unread is when the file was written last that was not written for the longest time and holds bytes that were not handed on; the zero
// time where there is none, as far as sources tell.
func (s *InputStatus) Unread() (oldest time.Time) {
	for i := range s.Streams {
		st := &s.Streams[i]
		if st.Size > st.Read && !st.Written.IsZero() && (oldest.IsZero() || st.Written.Before(oldest)) {
			oldest = st.Written
		}
	}
	return oldest
}

// StreamStatus says how far a stream is read and delivered.
type StreamStatus struct {
	Name   string           `json:"name"`
	Source string           `json:"source"`         // path
	Size   int64            `json:"size"`           // bytes that there are; -1: not known
	Read   int64            `json:"read"`           // bytes handed on
	At     map[string]int64 `json:"at"`             // by output: bytes that it has
	Done   bool             `json:"done,omitempty"` // read to its end, and will not grow
	// Written is when the source was written last; the zero time where that is not known.
	Written time.Time `json:"written,omitzero"`
}

// Lag is how many bytes the output that is furthest behind lacks.
func (s *StreamStatus) Lag() int64 {
	end := s.Size
	if end < 0 {
		end = s.Read
	}
	lag := max(0, end-s.Read)
	for _, at := range s.At {
		lag = max(lag, end-at)
	}
	return lag
}

// ProcessorStatus is a processor's part of Status.
type ProcessorStatus struct {
	ID     string  `json:"id"`
	Type   string  `json:"type"`
	Counts []Count `json:"counts,omitempty"`
}

// Status is the state of a pipeline at one moment.
type Status struct {
	Name       string            `json:"name"`
	Inputs     []InputStatus     `json:"inputs"`
	Processors []ProcessorStatus `json:"processors"`
	Outputs    []OutputStatus    `json:"outputs"`
	Failures   map[string]string `json:"failures,omitempty"` // lasting conditions of processors and their dead letter
}

// bounds are the upper bounds of a Histogram's buckets in seconds.
var bounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Histogram counts durations.
type Histogram struct {
	buckets [len(bounds)]uint64
	Count   uint64
	Sum     float64 // seconds
}

func (h *Histogram) add(d time.Duration) {
	s := d.Seconds()
	h.Count++
	h.Sum += s
	if i := sort.SearchFloat64s(bounds[:], s); i < len(bounds) {
		h.buckets[i]++
	}
}

// Cumulative returns how many durations were at most so long, by upper bound in seconds.
func (h *Histogram) Cumulative() map[float64]uint64 {
	m := make(map[float64]uint64, len(bounds))
	sum := uint64(0)
	for i, b := range bounds {
		sum += h.buckets[i]
		m[b] = sum
	}
	return m
}

// failures are the lasting conditions that a plugin reported through Env.Fail.
type failures struct {
	mu sync.Mutex // guards m
	m  map[string]string
}

func (f *failures) set(key string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.m, key)
		return
	}
	if f.m == nil {
		f.m = map[string]string{}
	}
	f.m[key] = err.Error()
}

func (f *failures) all() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := make(map[string]string, len(f.m))
	maps.Copy(m, f.m)
	return m
}
