package pipeline

import (
	"maps"
	"sort"
	"sync"
	"sync/atomic"
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
	Name, Reason string
	N            int64
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
	Offered   int64 // records past the output's own cursor, each once
	Delivered int64
	Dead      int64 // in a dead letter, the output's own or the pipeline's
	Dropped   int64 // by the output's on_full: drop
	Filtered  int64 // dropped by a processor or refused by when
	InFlight  int64 // counted from the batches that are held
}

// Balanced reports whether every record is accounted for.
func (a Accounts) Balanced() bool {
	return a.Offered == a.Delivered+a.Dead+a.Dropped+a.Filtered+a.InFlight
}

// OutputStatus is an output's part of Status.
type OutputStatus struct {
	ID, Type string
	Accounts
	Retries   int64
	Requests  int64
	LastError string // of the request in hand; "" when the last one succeeded
}

// InputStatus is an input's part of Status.
type InputStatus struct {
	ID, Type string
	Counts   []Count
	Failures map[string]string // lasting conditions by key: files that cannot be read and the like
}

// ProcessorStatus is a processor's part of Status.
type ProcessorStatus struct {
	ID, Type string
	Counts   []Count
}

// Status is the state of a pipeline at one moment.
type Status struct {
	Name       string
	Inputs     []InputStatus
	Processors []ProcessorStatus
	Outputs    []OutputStatus
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
