package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Limits and constants of FRAME.md.
const (
	maxFrame   = 64 << 20
	maxEvents  = 1 << 20
	maxColumns = 4096
	maxName    = math.MaxUint16
	maxReason  = 4096
	maxNotes   = 64 << 10

	frameVersion = 1
	headerSize   = 32
)

// Kinds of frames.
const (
	kindBatch   = 1
	kindPatch   = 2
	kindVerdict = 3
)

// Layouts of columns.
const (
	layoutAll  = 0
	layoutSame = 1
	layoutSome = 2
)

// kindBytes is the type of a column that holds bytes; the others are those of event.Kind.
const kindBytes event.Kind = 8

// header begins every frame.
type header struct {
	kind     byte
	instance uint32
	sequence uint64
	count    int
}

// frame is a frame that was read. Its columns and texts are views into the bytes that it was read from.
type frame struct {
	header
	notes    []byte
	said     notesJSON // what the notes hold
	columns  []column
	failures []failure
}

// failure is what a verdict says of one event, or of the whole call.
type failure struct {
	index  int // wholeCall for all
	class  byte
	after  uint32 // milliseconds
	reason string
}

const (
	wholeCall  = -1
	wholeIndex = math.MaxUint32
)

// Classes of failures.
const (
	classRetry     = 1
	classPermanent = 2
	classThrottle  = 3
	classTooLarge  = 4
)

// column is a column that was read and proved: every access to its k values is within its bytes.
type column struct {
	name   string
	typ    event.Kind
	layout byte
	k      int
	bits   []byte // of layoutSome
	fixed  []byte // values of one size
	lists  []byte // ends of lists
	ends   []byte // ends of texts
	text   []byte
}

// bad is why a frame cannot be read.
func bad(format string, args ...any) error { return fmt.Errorf("malformed frame: "+format, args...) }

// scanner walks over bytes that are not to be trusted.
type scanner struct {
	b   []byte
	err error
}

func (s *scanner) take(n int) []byte {
	if s.err != nil || n < 0 || n > len(s.b) {
		if s.err == nil {
			s.err = bad("%d bytes are missing", n-len(s.b))
		}
		return nil
	}
	p := s.b[:n:n]
	s.b = s.b[n:]
	return p
}

func (s *scanner) u8() byte {
	if p := s.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (s *scanner) u16() int {
	if p := s.take(2); p != nil {
		return int(binary.LittleEndian.Uint16(p))
	}
	return 0
}

func (s *scanner) u32() uint32 {
	if p := s.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// parse reads a frame into f, whose memory is used again. It trusts nothing: what it returns without an error keeps every rule of FRAME.md
// that does not need the schema.
func (f *frame) parse(b []byte) error {
	*f = frame{columns: f.columns[:0], failures: f.failures[:0]}
	switch {
	case len(b) < headerSize:
		return bad("%d bytes are no header", len(b))
	case len(b) > maxFrame:
		return bad("%d bytes are more than %d", len(b), maxFrame)
	case string(b[:4]) != "STKF":
		return bad("it begins with %q", b[:4])
	case b[4] != frameVersion:
		return bad("its version is %d, this side reads %d", b[4], frameVersion)
	case b[6] != 0 || b[7] != 0:
		return bad("unknown flags %x", b[6:8])
	case int64(binary.LittleEndian.Uint32(b[8:])) != int64(len(b)):
		return bad("it has %d bytes and says %d", len(b), binary.LittleEndian.Uint32(b[8:]))
	}
	f.kind, f.instance, f.sequence = b[5], binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint64(b[16:])
	count, n := binary.LittleEndian.Uint32(b[24:]), binary.LittleEndian.Uint32(b[28:])
	if count > maxEvents {
		return bad("%d events are more than %d", count, maxEvents)
	}
	f.count = int(count)
	s := scanner{b: b[headerSize:]}
	if f.kind != kindBatch {
		size := s.u32()
		if size > maxNotes {
			return bad("%d bytes of notes are more than %d", size, maxNotes)
		}
		f.notes = s.take(int(size))
	}
	if s.err != nil {
		return s.err
	}
	var err error
	if f.said, err = parseNotes(f.notes); err != nil {
		return err
	}
	switch f.kind {
	case kindBatch, kindPatch:
		err = f.parseColumns(&s, n)
	case kindVerdict:
		err = f.parseFailures(&s, n)
	default:
		return bad("unknown kind %d", f.kind)
	}
	switch {
	case s.err != nil:
		return s.err
	case err != nil:
		return err
	case len(s.b) > 0:
		return bad("%d bytes follow its end", len(s.b))
	}
	return nil
}

func (f *frame) parseFailures(s *scanner, n uint32) error {
	if int64(n) > int64(max(f.count, 1)) {
		return bad("%d failures for %d events", n, f.count)
	}
	seen := make(map[uint32]bool, min(n, maxColumns))
	for range n {
		index := s.u32()
		x := failure{index: int(index), class: s.u8(), after: s.u32()}
		size := s.u32()
		if s.err == nil && size > maxReason {
			return bad("a reason has %d bytes, at most %d are allowed", size, maxReason)
		}
		x.reason = string(s.take(int(size)))
		switch {
		case s.err != nil:
			return s.err
		case x.class < classRetry || x.class > classTooLarge:
			return bad("unknown class %d of a failure", x.class)
		case x.after != 0 && x.class != classThrottle:
			return bad("a pause with class %d of a failure", x.class)
		case !utf8.ValidString(x.reason):
			return bad("a reason that is not UTF-8")
		case index == wholeIndex && n > 1:
			return bad("the whole call failed, and single events did")
		case index == wholeIndex:
			x.index = wholeCall
		case x.index >= f.count:
			return bad("event %d failed, and there are %d", x.index, f.count)
		case seen[index]:
			return bad("event %d failed twice", x.index)
		}
		seen[index] = true
		f.failures = append(f.failures, x)
	}
	return nil
}

func (f *frame) parseColumns(s *scanner, n uint32) error {
	if n > maxColumns {
		return bad("%d columns are more than %d", n, maxColumns)
	}
	for range n {
		name := s.take(s.u16())
		c := column{typ: event.Kind(s.u8()), layout: s.u8()}
		payload := s.take(int(s.u32()))
		switch {
		case s.err != nil:
			return s.err
		case len(name) == 0:
			return bad("a column has no name")
		case !utf8.Valid(name):
			return bad("the name %q is not UTF-8", name)
		}
		c.name = event.View(name)
		if err := c.parse(payload, f.count); err != nil {
			return fmt.Errorf("%w (column %q)", err, c.name)
		}
		f.columns = append(f.columns, c)
	}
	types := make(map[string][]int, len(f.columns)) // columns of each name
	for i := range f.columns {
		name := f.columns[i].name
		for _, j := range types[name] {
			if f.columns[i].typ == f.columns[j].typ {
				return bad("two columns %q of one type", name)
			}
			if overlap(&f.columns[i], &f.columns[j], f.count) {
				return bad("an event has two values of %q", name)
			}
		}
		types[name] = append(types[name], i)
	}
	return nil
}

// overlap tells whether an event has a value in both columns.
func overlap(a, b *column, count int) bool {
	x, y := a.index(nil, count), b.index(nil, count)
	for i := range count {
		if x[i] >= 0 && y[i] >= 0 && !a.empty(int(x[i])) && !b.empty(int(y[i])) {
			return true
		}
	}
	return false
}

// parse reads and proves the payload of a column.
func (c *column) parse(p []byte, count int) error {
	s := scanner{b: p}
	switch c.layout {
	case layoutAll:
		c.k = count
	case layoutSame:
		c.k = 1
	case layoutSome:
		c.bits = s.take((count + 7) / 8)
		for _, b := range c.bits {
			c.k += bits.OnesCount8(b)
		}
		if n := len(c.bits); count%8 != 0 && n > 0 && c.bits[n-1]>>(count%8) != 0 {
			return bad("a bit is set beyond the last event")
		}
	default:
		return bad("unknown layout %d", c.layout)
	}
	var err error
	switch c.typ {
	case event.Int, event.Time:
		c.fixed = s.take(8 * c.k)
	case event.Float:
		c.fixed = s.take(8 * c.k)
		err = c.checkFloats()
	case event.Bool:
		c.fixed = s.take(c.k)
		for _, b := range c.fixed {
			if b > 1 {
				return bad("%d is no bool", b)
			}
		}
	case event.String, event.Object, kindBytes:
		err = c.parseTexts(&s, c.k)
	case event.List:
		c.lists = s.take(4 * c.k)
		var items int
		if items, err = checkEnds(c.lists); err == nil {
			err = c.parseTexts(&s, items)
		}
	case event.Absent:
		fallthrough
	default:
		return bad("unknown type %d", c.typ)
	}
	switch {
	case s.err != nil:
		return s.err
	case err != nil:
		return err
	case len(s.b) > 0:
		return bad("%d bytes too many", len(s.b))
	}
	return nil
}

func (c *column) checkFloats() error {
	for i := range len(c.fixed) / 8 {
		if x := math.Float64frombits(binary.LittleEndian.Uint64(c.fixed[8*i:])); math.IsNaN(x) || math.IsInf(x, 0) {
			return bad("%v is no number", x)
		}
	}
	return nil
}

func (c *column) parseTexts(s *scanner, n int) error {
	if n > maxFrame/4 {
		return bad("%d texts are too many", n)
	}
	c.ends = s.take(4 * n)
	size, err := checkEnds(c.ends)
	if err != nil {
		return err
	}
	c.text = s.take(size)
	return nil
}

// checkEnds proves that ends never go back, and returns the last one.
func checkEnds(ends []byte) (int, error) {
	last := uint32(0)
	for i := 0; i+4 <= len(ends); i += 4 {
		end := binary.LittleEndian.Uint32(ends[i:])
		if end < last {
			return 0, errors.New("malformed frame: an end goes back")
		}
		last = end
	}
	return int(last), nil
}

// index fills in for each event which value of the column is its own, -1 where it has none.
func (c *column) index(to []int32, count int) []int32 {
	to = to[:0]
	n := int32(0)
	for i := range count {
		switch {
		case c.layout == layoutSame:
			to = append(to, 0)
		case c.layout == layoutAll || c.bits[i>>3]>>(i&7)&1 != 0:
			to = append(to, n)
			n++
		default:
			to = append(to, -1)
		}
	}
	return to
}

// at returns text j.
func (c *column) at(j int) []byte {
	from := uint32(0)
	if j > 0 {
		from = binary.LittleEndian.Uint32(c.ends[4*j-4:])
	}
	return c.text[from:binary.LittleEndian.Uint32(c.ends[4*j:])]
}

// num returns value j of a column of numbers.
func (c *column) num(j int) int64 { return int64(binary.LittleEndian.Uint64(c.fixed[8*j:])) }

// items returns the range of texts that are the items of list j.
func (c *column) items(j int) (from, to int) {
	if j > 0 {
		from = int(binary.LittleEndian.Uint32(c.lists[4*j-4:]))
	}
	return from, int(binary.LittleEndian.Uint32(c.lists[4*j:]))
}

// empty tells whether value j is one that means absent.
func (c *column) empty(j int) bool {
	switch c.typ {
	case event.String, event.Object, kindBytes:
		return len(c.at(j)) == 0
	case event.List:
		from, to := c.items(j)
		return from == to
	}
	return false
}

// value returns value j. strings takes what it needs of room for the items of lists.
func (c *column) value(j int, room func(int) []string) event.Value {
	switch c.typ {
	case event.String:
		return event.StringValue(event.View(c.at(j)))
	case event.Object:
		return event.ObjectValue(event.View(c.at(j)))
	case event.Int:
		return event.IntValue(c.num(j))
	case event.Float:
		return event.FloatValue(math.Float64frombits(uint64(c.num(j))))
	case event.Bool:
		return event.BoolValue(c.fixed[j] != 0)
	case event.Time:
		return event.TimeValue(unixNano(c.num(j)))
	case event.List:
		from, to := c.items(j)
		l := room(to - from)
		for i := range l {
			l[i] = event.View(c.at(from + i))
		}
		return event.ListValue(l)
	}
	return event.Value{}
}
