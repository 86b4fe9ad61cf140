package event

import (
	"context"
	"sync"
	"unsafe"
)

// Two sizes of batches are pooled: full blocks, and small ones for the live end, where a batch holds a line or two.
const (
	classSmall = iota
	classLarge
	classes
)

const (
	smallBytes   = 16 << 10
	smallRecords = 64
	// Room beside the block for what the parser writes itself (attributes, unescaped texts).
	arenaSlack = 16 << 10
	// keepFactor: batches that grew beyond this multiple of their fresh size are not pooled.
	keepFactor = 6
)

// Pool hands out batches and bounds the memory of all that are alive: its bound is the agent's backpressure. It is safe for
// concurrent use.
type Pool struct {
	limit  int64
	forget bool

	mu      sync.Mutex // guards all below
	used    int64      // charged for batches in use and in free
	peak    int64
	free    [classes][]*Batch
	waiting []chan struct{} // first come, first served
}

// PoolOption changes how a pool behaves.
type PoolOption func(*Pool)

// Forget makes the pool give every batch a fresh arena: for pipelines with a plugin that may keep what it saw.
func Forget(p *Pool) { p.forget = true }

// NewPool makes a pool whose batches together hold at most about limit bytes; a single batch may go over it while it is being
// filled, by what it grows.
func NewPool(limit int64, opts ...PoolOption) *Pool {
	p := &Pool{limit: limit}
	for _, o := range opts {
		o(p)
	}
	return p
}

// Get returns an empty batch for about n bytes of input and waits while the pool is empty. The caller is its one owner. The
// error is ctx's.
func (p *Pool) Get(ctx context.Context, n int) (*Batch, error) {
	class := classLarge
	if n <= smallBytes {
		class = classSmall
	}
	need := freshCost(class, n)
	p.mu.Lock()
	if len(p.waiting) > 0 { // who waits already goes first
		if err := p.waitUnlock(ctx, true); err != nil {
			return nil, err
		}
		p.mu.Lock()
	}
	for last := true; ; last = false {
		b := p.takeLocked(class)
		for b == nil && p.used+need > p.limit && p.evictLocked() {
		}
		// An empty pool always gives one batch, however small its limit is.
		if b == nil && (p.used+need <= p.limit || p.used == 0) {
			p.used += need
			p.peak = max(p.peak, p.used)
			b = p.fresh(class, n)
			b.charged = need
		}
		if b != nil {
			if p.used+freshCost(classSmall, 0) <= p.limit || len(p.free[classSmall])+len(p.free[classLarge]) > 0 {
				p.passOnLocked() // there may be enough for the next one too
			}
			p.mu.Unlock()
			b.refs.Store(1)
			return b, nil
		}
		if err := p.waitUnlock(ctx, last); err != nil {
			return nil, err
		}
		p.mu.Lock()
	}
}

// waitUnlock gives up the lock and waits for memory to come back: at the end of the line if last, else at its head.
func (p *Pool) waitUnlock(ctx context.Context, last bool) error {
	ch := make(chan struct{}, 1)
	if last {
		p.waiting = append(p.waiting, ch)
	} else {
		p.waiting = append([]chan struct{}{ch}, p.waiting...)
	}
	p.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.waiting {
		if w == ch {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	p.passOnLocked() // it was woken too late: the next one gets its turn
	return ctx.Err()
}

// passOnLocked wakes the first in the line.
func (p *Pool) passOnLocked() {
	if len(p.waiting) > 0 {
		p.waiting[0] <- struct{}{}
		p.waiting = p.waiting[1:]
	}
}

func (p *Pool) takeLocked(class int) *Batch {
	f := p.free[class]
	if len(f) == 0 {
		return nil
	}
	b := f[len(f)-1]
	f[len(f)-1] = nil
	p.free[class] = f[:len(f)-1]
	return b
}

// evictLocked gives up a free batch, small ones first: they are cheap to make again.
func (p *Pool) evictLocked() bool {
	for class := range p.free {
		if b := p.takeLocked(class); b != nil {
			p.used -= b.charged
			return true
		}
	}
	return false
}

func (p *Pool) put(b *Batch) {
	b.reset(p.forget)
	if Poisoned {
		b.arena.Poison()
	}
	size := b.footprint()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used += size - b.charged
	b.charged = size
	if size > keepFactor*freshCost(b.class, 0) {
		p.used -= size
	} else {
		p.free[b.class] = append(p.free[b.class], b)
	}
	p.passOnLocked()
}

func (p *Pool) recharge(b *Batch, size int64) {
	p.mu.Lock()
	p.used += size - b.charged
	p.peak = max(p.peak, p.used)
	b.charged = size
	p.mu.Unlock()
}

func (p *Pool) fresh(class, n int) *Batch {
	b := &Batch{pool: p, class: class}
	if class == classSmall {
		b.arena.buf = make([]byte, 0, smallBytes+smallBytes/4)
		b.Events = make([]Event, 0, smallRecords)
	} else {
		b.arena.buf = make([]byte, 0, max(MaxBatchBytes, n)+arenaSlack)
		b.Events = make([]Event, 0, MaxBatchRecords)
	}
	return b
}

func freshCost(class, n int) int64 {
	if class == classSmall {
		return smallBytes + smallBytes/4 + smallRecords*int64(unsafe.Sizeof(Event{}))
	}
	return int64(max(MaxBatchBytes, n)+arenaSlack) + MaxBatchRecords*int64(unsafe.Sizeof(Event{}))
}

// Usage returns what is charged now and what was charged at most, in bytes.
func (p *Pool) Usage() (used, peak int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, p.peak
}

// BatchCost is what a full batch costs before it holds any encoding, in bytes. Configuration checks use it.
func BatchCost() int64 { return freshCost(classLarge, MaxBatchBytes) }
