package event

import (
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// Limits of one batch: it closes at whichever comes first, or when the reader has nothing more.
const (
	MaxBatchBytes   = 256 << 10 // of input: one block read; larger blocks gain nothing
	MaxBatchRecords = 1024
)

// Position is a place in a stream at a record boundary.
type Position struct {
	// Seq orders the positions of one stream; for a file it is the offset in the uncompressed content.
	Seq int64
	// Token is the input's own, opaque to everybody else: what it needs to find and prove the place again.
	Token string
}

// Span is the part of a stream that a batch covers: from before its first record to after its last.
type Span struct{ From, To Position }

// Set is a set of a pipeline's outputs, by their place in the configuration.
type Set uint64

// MaxOutputs is how many outputs one pipeline can have.
const MaxOutputs = 64

// All returns the set of the first n outputs.
func All(n int) Set {
	if n >= MaxOutputs {
		return ^Set(0)
	}
	return 1<<n - 1
}

// Has reports whether output i is in the set.
func (s Set) Has(i int) bool { return s>>i&1 != 0 }

// Batch is the unit of ownership, order, backpressure and acknowledgement. All its events come from one stream, in the order
// in which they stand there.
//
// Whoever got a batch from a Pool owns it until Sink.Send takes it. Between the last processor and its release nobody changes
// it.
type Batch struct {
	Stream string    // ordering key: same stream, same order
	Span   Span      // position before the first and after the last record
	ReadAt time.Time // when it was read; now() in expressions
	For    Set       // the outputs that it is for; the machine's to set
	Events []Event

	// Clean says that the arena's first block passed IsClean: Encode finds out, once for each batch that is encoded.
	Clean bool

	arena Arena
	enc   []encoding // one for each distinct encoder
	sel   [][]*Event // for each output what it gets

	pool    *Pool
	charged int64
	class   int
	refs    atomic.Int32
}

type encoding struct {
	owner any
	buf   []byte
	ends  []int32 // end of event i in buf
}

// encodeRoom is what encoders of the schema ask for before they write an event.
const encodeRoom = 4 << 10

// NewBatch makes a batch that belongs to no pool, for tests and for copies.
func NewBatch(stream string) *Batch { return &Batch{Stream: stream} }

// Arena is where the bytes of the batch's strings live.
func (b *Batch) Arena() *Arena { return &b.arena }

// Append adds an empty event and returns it. The pointer is valid until the next Append.
func (b *Batch) Append() *Event {
	n := len(b.Events)
	if n < cap(b.Events) {
		b.Events = b.Events[:n+1]
	} else {
		b.Events = append(b.Events, Event{})
	}
	e := &b.Events[n]
	e.batch, e.index = b, int32(n)
	e.Reset()
	return e
}

// Undo removes the event that was appended last.
func (b *Batch) Undo() { b.Events = b.Events[:len(b.Events)-1] }

// adopt points the events back at the batch after Events was reallocated.
func (b *Batch) adopt() {
	for i := range b.Events {
		b.Events[i].batch, b.Events[i].index = b, int32(i)
	}
}

// Selected returns the events that output i gets, in order. It is valid from the end of the processors until the release.
func (b *Batch) Selected(i int) []*Event {
	if i >= len(b.sel) {
		return nil
	}
	return b.sel[i]
}

// Select says which events output i gets. keep is nil for all that are not dropped. The machine calls it once after the
// last processor.
func (b *Batch) Select(i int, keep func(*Event) bool) []*Event {
	for len(b.sel) <= i {
		if len(b.sel) < cap(b.sel) {
			b.sel = b.sel[:len(b.sel)+1]
		} else {
			b.sel = append(b.sel, nil)
		}
		b.sel[len(b.sel)-1] = b.sel[len(b.sel)-1][:0]
	}
	s := b.sel[i][:0]
	for j := range b.Events {
		if e := &b.Events[j]; !e.Dropped && (keep == nil || keep(e)) {
			s = append(s, e)
		}
	}
	b.sel[i] = s
	return s
}

// Encode caches the encodings of the batch's events under owner: add appends one event to a buffer. wanted, if not nil, says
// which events are worth encoding. The machine calls it once per distinct encoder after the last processor.
func (b *Batch) Encode(owner any, wanted func(i int) bool, add func(dst []byte, e *Event) []byte) {
	n := len(b.enc)
	if n == 0 {
		b.Clean = IsClean(b.arena.buf[:b.arena.block])
	}
	if n < cap(b.enc) {
		b.enc = b.enc[:n+1]
	} else {
		b.enc = append(b.enc, encoding{})
	}
	c := &b.enc[n]
	c.owner, c.buf, c.ends = owner, c.buf[:0], c.ends[:0]
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped && (wanted == nil || wanted(i)) {
			c.buf = appendRoom(c.buf, encodeRoom)
			c.buf = add(c.buf, e)
		}
		c.ends = append(c.ends, int32(len(c.buf)))
	}
}

// Encoded returns the cached encoding of event i under owner; nil if there is none. The bytes belong to the batch.
func (b *Batch) Encoded(owner any, i int) []byte {
	for k := range b.enc {
		c := &b.enc[k]
		if c.owner != owner || i >= len(c.ends) {
			continue
		}
		from := int32(0)
		if i > 0 {
			from = c.ends[i-1]
		}
		if from == c.ends[i] {
			return nil
		}
		return c.buf[from:c.ends[i]:c.ends[i]]
	}
	return nil
}

// EncodedRun returns the cached encodings under owner of as many of the first events as stand next to each other there, and how
// many these are. The bytes belong to the batch.
func (b *Batch) EncodedRun(owner any, events []*Event) (p []byte, n int) {
	for k := range b.enc {
		c := &b.enc[k]
		if c.owner != owner {
			continue
		}
		var from, to int32
		for _, e := range events {
			i := int(e.index)
			if e.batch != b || i >= len(c.ends) {
				break
			}
			start := int32(0)
			if i > 0 {
				start = c.ends[i-1]
			}
			if n == 0 {
				from, to = start, start
			}
			if start != to || c.ends[i] == start {
				break
			}
			to = c.ends[i]
			n++
		}
		return c.buf[from:to:to], n
	}
	return nil, 0
}

// Block is the address range of the arena's first block, the one that Clean speaks of. It is good until the batch is released. 64 bytes
// can be read from any place in it: there is as much memory behind it.
type Block struct{ from, size uintptr }

// Block returns the range of the first block.
func (b *Batch) Block() Block {
	return Block{uintptr(unsafe.Pointer(unsafe.SliceData(b.arena.buf))), uintptr(b.arena.block)}
}

// Has reports whether s is a view into the block.
func (r Block) Has(s string) bool {
	// Below the block the difference wraps around to more than any size.
	return len(s) > 0 && uintptr(unsafe.Pointer(unsafe.StringData(s)))-r.from < r.size
}

// Contains reports whether s is a view into the arena's first block.
func (b *Batch) Contains(s string) bool { return b.Block().Has(s) }

// Owns reports whether s is a view into any of the arena's memory, which is used again after the release.
func (b *Batch) Owns(s string) bool {
	p := uintptr(unsafe.Pointer(unsafe.StringData(s)))
	within := func(m []byte) bool {
		lo := uintptr(unsafe.Pointer(unsafe.SliceData(m)))
		return p >= lo && p < lo+uintptr(cap(m))
	}
	if within(b.arena.buf) {
		return true
	}
	return slices.ContainsFunc(b.arena.spill, within)
}

// Size is how many bytes of the arena are in use: about what was read.
func (b *Batch) Size() int { return len(b.arena.buf) + b.arena.spilled }

// Retain adds n owners; each of them calls Release once.
func (b *Batch) Retain(n int32) { b.refs.Add(n) }

// Release gives up one ownership. With the last one the batch goes back to its pool; nobody may touch it or anything that it
// holds afterwards.
func (b *Batch) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("BUG: batch released twice")
	}
	if b.pool != nil {
		b.pool.put(b)
	}
}

// Charge tells the pool what the batch holds by now, so that growth counts against the memory limit. It never waits.
func (b *Batch) Charge() {
	if b.pool != nil {
		b.pool.recharge(b, b.footprint())
	}
}

// Charged is what the batch counts against the memory limit, in bytes.
func (b *Batch) Charged() int64 { return b.charged }

// footprint adds up all memory that the batch keeps: arena, events, their overflow fields, selections and encodings.
func (b *Batch) footprint() int64 {
	n := int64(cap(b.arena.buf)) + int64(b.arena.spilled) + b.arena.listed() + int64(cap(b.Events))*int64(unsafe.Sizeof(Event{}))
	// Every event keeps its Extra from one use of the batch to the next. Looking at all of them each time would cost more than
	// it tells: every sixteenth stands for its neighbours.
	const stride = 16
	events := b.Events[:cap(b.Events)]
	for i := 0; i < len(events); i += stride {
		n += stride * int64(cap(events[i].Extra)) * int64(unsafe.Sizeof(Field{}))
	}
	for _, c := range b.enc[:cap(b.enc)] {
		n += int64(cap(c.buf)) + 4*int64(cap(c.ends))
	}
	for _, s := range b.sel[:cap(b.sel)] {
		n += 8 * int64(cap(s))
	}
	return n
}

// reset empties the batch for its next user and keeps its memory. Arenas of plugins that may have kept something are given
// up instead: forget says so.
func (b *Batch) reset(forget bool) {
	b.Stream, b.Span, b.For, b.Clean, b.ReadAt = "", Span{}, 0, false, time.Time{}
	b.Events, b.enc, b.sel = b.Events[:0], b.enc[:0], b.sel[:0]
	b.arena.reset()
	if forget {
		b.arena.buf = make([]byte, 0, cap(b.arena.buf))
		b.arena.lists = nil
	}
}

// Clone returns a deep copy that belongs to no pool and needs no release.
func (b *Batch) Clone() *Batch {
	c := &Batch{Stream: b.Stream, Span: b.Span, ReadAt: b.ReadAt, For: b.For, Events: make([]Event, len(b.Events))}
	for i := range b.Events {
		b.Events[i].copyTo(&c.Events[i])
	}
	c.adopt()
	return c
}

// Arena hands out memory that lives as long as its batch.
type Arena struct {
	buf     []byte
	block   int // length of the first block: what Batch.Clean speaks of
	spill   [][]byte
	spilled int
	lists   []string // room for lists
	full    [][]string
}

// Alloc returns n bytes that live as long as the batch. They are not zeroed.
func (a *Arena) Alloc(n int) []byte {
	if at := len(a.buf); n <= cap(a.buf)-at {
		a.buf = a.buf[:at+n]
		return a.buf[at : at+n : at+n]
	}
	// What does not fit goes to a block of its own: the first one never moves, views into it stay.
	if k := len(a.spill); k > 0 {
		if s := a.spill[k-1]; n <= cap(s)-len(s) {
			at := len(s)
			a.spill[k-1] = s[:at+n]
			return s[at : at+n : at+n]
		}
	}
	size := max(n, 16<<10)
	a.spill = append(a.spill, make([]byte, n, size))
	a.spilled += size
	return a.spill[len(a.spill)-1][:n:n]
}

// blockMargin is how much memory there is at least behind the first block: see Block.
const blockMargin = 64

// Block allocates the first block, which the reader fills with raw lines, and remembers how far it goes. It must be the
// arena's first allocation. Shrink it with SetBlock when less was read.
func (a *Arena) Block(n int) []byte {
	if len(a.buf) != 0 || a.block != 0 {
		panic("BUG: the block is not the arena's first allocation")
	}
	if n+blockMargin > cap(a.buf) {
		a.buf = make([]byte, 0, n+blockMargin)
	}
	a.buf = a.buf[:n]
	a.block = n
	return a.buf
}

// SetBlock cuts the first block to n bytes; the rest can be allocated again.
func (a *Arena) SetBlock(n int) {
	a.buf = a.buf[:n]
	a.block = n
}

// Copy copies p into the arena and returns a view of the copy.
func (a *Arena) Copy(p []byte) string {
	if len(p) == 0 {
		return ""
	}
	d := a.Alloc(len(p))
	copy(d, p)
	return View(d)
}

// CopyString copies s into the arena and returns a view of the copy.
func (a *Arena) CopyString(s string) string {
	if s == "" {
		return ""
	}
	d := a.Alloc(len(s))
	copy(d, s)
	return View(d)
}

// listed is the memory of the lists.
func (a *Arena) listed() int64 {
	n := cap(a.lists)
	for _, l := range a.full {
		n += cap(l)
	}
	return int64(n) * int64(unsafe.Sizeof(""))
}

// Strings returns room for a list of n strings that lives as long as the batch. It is not cleared.
func (a *Arena) Strings(n int) []string {
	if at := len(a.lists); n <= cap(a.lists)-at {
		a.lists = a.lists[:at+n]
		return a.lists[at : at+n : at+n]
	}
	// What was handed out stays where it is; the next use of the batch begins with room for all.
	const least = 64
	if cap(a.lists) > 0 {
		a.full = append(a.full, a.lists)
	}
	a.lists = make([]string, n, max(n, least, 2*cap(a.lists)))
	return a.lists[:n:n]
}

// Poison overwrites all that the arena holds, so that whoever kept a view of it is found out. Conformance suites use it.
func (a *Arena) Poison() {
	for _, s := range append(a.spill, a.buf[:cap(a.buf)]) {
		for i := range s {
			s[i] = 0xdb
		}
	}
	for _, l := range append(a.full, a.lists[:cap(a.lists)]) {
		for i := range l {
			l[i] = "\xdb"
		}
	}
}

func (a *Arena) reset() {
	a.buf, a.block = a.buf[:0], 0
	clear(a.spill)
	a.spill, a.spilled = a.spill[:0], 0
	clear(a.full)
	a.full, a.lists = a.full[:0], a.lists[:0]
}

// View returns p as a string without copying it. p must not change while the string is in use.
func View(p []byte) string { return unsafe.String(unsafe.SliceData(p), len(p)) }
