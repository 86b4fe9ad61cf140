package plugintest

import (
	"runtime"
	"unsafe"
	"weak"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// traces remembers where the strings of a batch are, without holding them.
type traces []weak.Pointer[byte]

// trace finds the memory that a batch's arena owns and its events show.
func trace(b *event.Batch) traces {
	var all traces
	add := func(s string) {
		if s != "" && b.Owns(s) {
			all = append(all, weak.Make(unsafe.StringData(s)))
		}
	}
	fields := schema.Fields()
	for i := range b.Events {
		e := &b.Events[i]
		add(event.View(e.Raw))
		for k := range fields {
			if p := fields[k].Text(e); p != nil {
				add(*p)
			}
		}
		for _, x := range e.Extra {
			add(x.Value.Str())
			for _, s := range x.Value.List() {
				add(s)
			}
		}
	}
	return all
}

// held reports whether anybody still has a string or a slice of the batch, whose owner spoiled and dropped it.
func (t traces) held() bool {
	return !eventually(func() bool {
		runtime.GC()
		for _, p := range t {
			if p.Value() != nil {
				return false
			}
		}
		return true
	}, moment)
}

// checkGone says so when anybody still has a string or a slice of batches that were shown long ago.
func (s *suite) checkGone(t traces) {
	s.Helper()
	if t.held() {
		s.broken(RuleKept, "calls later somebody still holds a string or a slice of an early batch: copy what is needed longer")
	}
}

// heap is how many bytes of this process live.
func heap() int64 {
	var least uint64
	for range 3 { // the second collection takes what pools held, the third what finalizers did
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if least == 0 || m.HeapAlloc < least {
			least = m.HeapAlloc
		}
	}
	return int64(least)
}

// scale says how growth is looked for: first after so many events, at last after most; a plugin whose memory still grew by each bytes for
// every event in every step has no bound.
type scale struct {
	first, most, few int   // few is how many events a call has
	each             int64 // bytes
}

// scale is fine where the heap can be counted: less than a word for each call. A process grows in steps of its own, behind which little
// can hide for long.
func (s *suite) scale() scale {
	if s.held != nil {
		return scale{first: 1 << 16, most: 1 << 18, few: 1 << 10, each: 16}
	}
	return scale{first: 1 << 10, most: 1 << 16, few: 8, each: 1}
}

// grows shows more and more events to instances and reports by how many bytes per event memory still grew at the end, 0 if it came to
// rest. held is what is held after so many events; each look is at factor times as many as the one before.
func (s *suite) grows(factor int, held func(events int) int64) (perEvent float64) {
	c := s.scale()
	n := c.first
	was := held(n)
	for n < c.most && !s.has(RuleWorks) {
		n *= factor
		now := held(n)
		more := int64(n - n/factor)
		if now-was < c.each*more {
			return 0
		}
		perEvent = float64(now-was) / float64(more)
		was = now
	}
	return perEvent
}

// checkGrowth looks for memory without a bound. The heap is everybody's: what grew is looked at again before it is said.
func (s *suite) checkGrowth(measure func() (perEvent float64)) {
	s.Helper()
	if s.has(RuleWorks, RuleContext, RuleUnchanged, RuleGoroutines) {
		return
	}
	grew := 0.0
	for range 2 {
		if grew = measure(); grew == 0 {
			return
		}
	}
	s.broken(RuleGrowth, "after %d events of as many requests memory still grows, by %.1f bytes for each", s.scale().most, grew)
}
