package rpc

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Columns of the agent's own.
const (
	colStream  = "@stream"
	colOffset  = "@offset"
	colLength  = "@length"
	colLine    = "@line"
	colReadAt  = "@read_at"
	colRaw     = "@raw"
	colDropped = "@dropped"
)

// place is a fixed field of an event as the wire sees it.
type place struct {
	name string
	typ  event.Kind
	mask event.Mask
	off  uintptr // of texts
	text bool
	read bool // cannot be set
}

// get returns the field's number.
func (p *place) get(e *event.Event) int64 {
	switch p.mask {
	case event.HasStatus:
		return int64(e.Status)
	case event.HasSize:
		return e.Size
	case event.HasDuration:
		return floatBits(e.Duration.Seconds())
	case event.HasProcessID:
		return e.ProcessID
	case event.HasLevel:
		return int64(e.Level)
	case event.HasLogOffset:
		return e.Offset
	}
	if e.Bools&p.mask != 0 {
		return 1
	}
	return 0
}

// set sets the field's number.
func (p *place) set(e *event.Event, v int64) {
	switch p.mask {
	case event.HasStatus:
		e.SetStatus(int32(v))
	case event.HasSize:
		e.SetSize(v)
	case event.HasDuration:
		// Seconds came from nanoseconds: rounding gives these very ones back.
		e.SetDuration(time.Duration(math.Round(math.Float64frombits(uint64(v)) * float64(time.Second))))
	case event.HasProcessID:
		e.SetProcessID(v)
	case event.HasLevel:
		e.SetLevel(int32(v))
	case event.HasLogOffset:
		e.Has |= event.HasLogOffset
	default:
		e.SetBool(p.mask, v != 0)
	}
}

// string returns where the event keeps the text.
func (p *place) string(e *event.Event) *string {
	return (*string)(unsafe.Add(unsafe.Pointer(e), p.off))
}

// fields knows how the schema's fields go over the wire. It is read-only once it is made.
type fields struct {
	places []place
	index  map[string]int           // of places
	extra  map[string]event.Kind    // fields of the schema that stand in Extra
	fixed  map[string]*schema.Field // whose value is constant or computed: they never travel
}

func newFields() *fields {
	f := &fields{index: map[string]int{}, extra: map[string]event.Kind{}, fixed: map[string]*schema.Field{}}
	all := schema.Fields()
	for i := range all {
		x := &all[i]
		off, text := x.TextOffset()
		switch {
		case text || x.Mask() != 0:
			f.index[x.Name] = len(f.places)
			f.places = append(f.places, place{name: x.Name, typ: x.Type, mask: x.Mask(), off: off, text: text, read: !x.Settable()})
		case x.Name == timestamp:
		case x.Fixed():
			f.fixed[x.Name] = x
		default:
			f.extra[x.Name] = x.Type
		}
	}
	return f
}

const timestamp = "timestamp"

// wireName is the name of an extra field's column.
func wireName(name string) string {
	if strings.HasPrefix(name, "@") {
		return "@" + name
	}
	return name
}

// changes says which fields of a batch a patch has to carry.
type changes struct {
	places  uint64 // bits of fields.places
	time    bool
	raw     bool
	dropped bool
	extra   map[string]bool
}

// extras gathers the extra fields of a batch by column.
type extras struct {
	cols []extraColumn
	hint []int // column that the extra field at this place had last
	find map[extraKey]int
}

type extraKey struct {
	name string
	kind event.Kind
}

type extraColumn struct {
	extraKey
	at  []int32
	val []event.Value
}

// encoder turns events into frames. It is used by one goroutine at a time.
type encoder struct {
	*fields
	writer
	x extras
}

// batch encodes events, none of which is dropped. The frame is the encoder's until its next call.
func (c *encoder) batch(h header, evs []*event.Event) []byte {
	h.kind, h.count = kindBatch, len(evs)
	c.begin(h, nil)
	c.origin(evs)
	for i := range c.places {
		c.addPlace(&c.places[i], evs, false)
	}
	c.addTime(evs, false)
	c.addRaw(evs, false)
	c.gather(evs, nil)
	for i := range c.x.cols {
		c.addExtra(&c.x.cols[i])
	}
	return c.end()
}

// patch encodes what changed in events.
func (c *encoder) patch(h header, notes []byte, evs []*event.Event, ch *changes) []byte {
	h.kind, h.count = kindPatch, len(evs)
	c.begin(h, notes)
	for m := ch.places; m != 0; m &= m - 1 {
		c.addPlace(&c.places[bits.TrailingZeros64(m)], evs, true)
	}
	if ch.time {
		c.addTime(evs, true)
	}
	if ch.raw {
		c.addRaw(evs, true)
	}
	if len(ch.extra) > 0 {
		c.gather(evs, ch.extra)
		for i := range c.x.cols {
			delete(ch.extra, c.x.cols[i].name)
			c.addExtra(&c.x.cols[i])
		}
		for _, name := range slices.Sorted(maps.Keys(ch.extra)) { // no event has it any more
			c.none(wireName(name), event.String)
		}
	}
	if ch.dropped {
		clear(c.has)
		for i, e := range evs {
			c.setNum(i, 0)
			if e.Dropped {
				c.nums[i] = 1
			}
		}
		c.addNums(colDropped, event.Bool, false)
	}
	return c.end()
}

// origin adds where the events come from.
func (c *encoder) origin(evs []*event.Event) {
	for i, e := range evs {
		c.texts[i] = ""
		if b := e.Batch(); b != nil {
			c.texts[i] = b.Stream
		}
	}
	c.addTexts(colStream, event.String, false)
	c.addEach(colOffset, event.Int, evs, func(e *event.Event) (int64, bool) { return e.Offset, true })
	c.addEach(colLength, event.Int, evs, func(e *event.Event) (int64, bool) { return e.Length, e.Length > 0 })
	c.addEach(colLine, event.Int, evs, func(e *event.Event) (int64, bool) { return int64(e.LineHash()), true })
	c.addEach(colReadAt, event.Time, evs, func(e *event.Event) (int64, bool) {
		if b := e.Batch(); b != nil && !b.ReadAt.IsZero() {
			return b.ReadAt.UnixNano(), true
		}
		return 0, false
	})
}

func (c *encoder) addEach(name string, typ event.Kind, evs []*event.Event, get func(*event.Event) (int64, bool)) {
	clear(c.has)
	for i, e := range evs {
		if v, ok := get(e); ok {
			c.setNum(i, v)
		}
	}
	c.addNums(name, typ, false)
}

func (c *encoder) addPlace(p *place, evs []*event.Event, keep bool) {
	if p.text {
		for i, e := range evs {
			c.texts[i] = *p.string(e)
		}
		c.addTexts(p.name, p.typ, keep)
		return
	}
	clear(c.has)
	some := false
	for i, e := range evs {
		if e.Has&p.mask != 0 {
			c.setNum(i, p.get(e))
			some = true
		}
	}
	if some || keep {
		c.addNums(p.name, p.typ, keep)
	}
}

func (c *encoder) addTime(evs []*event.Event, keep bool) {
	clear(c.has)
	for i, e := range evs {
		if !e.Time.IsZero() {
			c.setNum(i, e.Time.UnixNano())
		}
	}
	c.addNums(timestamp, event.Time, keep)
}

func (c *encoder) addRaw(evs []*event.Event, keep bool) {
	for i, e := range evs {
		c.texts[i] = event.View(e.Raw)
	}
	c.addTexts(colRaw, kindBytes, keep)
}

// gather collects the extra fields of the events; with only, just those of these names.
func (c *encoder) gather(evs []*event.Event, only map[string]bool) {
	x := &c.x
	for i := range x.cols {
		clear(x.cols[i].val)
		x.cols[i].at, x.cols[i].val = x.cols[i].at[:0], x.cols[i].val[:0]
		x.cols[i].extraKey = extraKey{}
	}
	x.cols, x.hint = x.cols[:0], x.hint[:0]
	if x.find == nil {
		x.find = map[extraKey]int{}
	}
	clear(x.find)
	for i, e := range evs {
		for j := range e.Extra {
			f := &e.Extra[j]
			if only != nil && !only[f.Key] {
				continue
			}
			k := x.column(j, extraKey{f.Key, f.Value.Kind()}, c.fields)
			if k < 0 {
				continue
			}
			col := &x.cols[k]
			if n := len(col.at); n > 0 && col.at[n-1] == int32(i) {
				continue // a second one of that name in one event
			}
			col.at, col.val = append(col.at, int32(i)), append(col.val, f.Value)
		}
	}
}

// column finds the column of an extra field that is the j-th of its event, -1 when it has none.
func (x *extras) column(j int, key extraKey, f *fields) int {
	for len(x.hint) <= j {
		x.hint = append(x.hint, -1)
	}
	if k := x.hint[j]; k >= 0 && x.cols[k].extraKey == key {
		return k
	}
	k, ok := x.find[key]
	if !ok {
		if k = -1; x.travels(key, f) {
			k = len(x.cols)
			if k < cap(x.cols) {
				x.cols = x.cols[:k+1]
			} else {
				x.cols = append(x.cols, extraColumn{})
			}
			x.cols[k].extraKey = key
		}
		x.find[key] = k
	}
	x.hint[j] = k
	return k
}

// travels tells whether an extra field has a column: what hides behind the name of a fixed field has none.
func (x *extras) travels(key extraKey, f *fields) bool {
	if _, fixed := f.index[key.name]; fixed || key.name == timestamp || f.fixed[key.name] != nil {
		return false
	}
	return key.kind != event.Absent && key.name != "" && utf8.ValidString(key.name) && len(key.name) < maxName && len(x.cols) < maxColumns-2*64
}

func (c *encoder) addExtra(x *extraColumn) {
	name := wireName(x.name)
	switch x.kind {
	case event.String, event.Object:
		clear(c.texts)
		for n, i := range x.at {
			c.texts[i] = x.val[n].Str()
		}
		c.addTexts(name, x.kind, false)
	case event.List:
		c.lists = slices.Grow(c.lists[:0], c.count)[:c.count]
		clear(c.lists)
		for n, i := range x.at {
			c.lists[i] = x.val[n].List()
		}
		c.addLists(name, false)
	default:
		clear(c.has)
		for n, i := range x.at {
			c.setNum(int(i), number(x.val[n]))
		}
		c.addNums(name, x.kind, false)
	}
}

// number is how a number, bool or time stands among nums.
func number(v event.Value) int64 {
	switch v.Kind() {
	case event.Float:
		return floatBits(v.Float())
	case event.Bool:
		if v.Bool() {
			return 1
		}
		return 0
	case event.Time:
		return v.Time().UnixNano()
	}
	return v.Int()
}

// decoder turns the columns of frames into events.
type decoder struct {
	*fields
	frame
	idx  []int32 // of the column at hand: which value each event has
	some []int32 // room for it
	all  []int32 // 0, 1, 2, …
	zero []int32

	sizes []int // what a patch makes of each event
}

// values sets idx for a column.
func (d *decoder) values(c *column) {
	switch c.layout {
	case layoutAll:
		for len(d.all) < d.count {
			d.all = append(d.all, int32(len(d.all)))
		}
		d.idx = d.all[:d.count]
	case layoutSame:
		if len(d.zero) < d.count {
			d.zero = make([]int32, d.count)
		}
		d.idx = d.zero[:d.count]
	default:
		d.some = c.index(d.some, d.count)
		d.idx = d.some
	}
}

// check proves that the columns fit the schema; of a batch also that each event has what its id is made of, of a patch that nothing is in it
// that must not be.
func (d *decoder) check() error {
	patch := d.kind == kindPatch
	for i := range d.columns {
		c := &d.columns[i]
		typ, read := d.typeOf(c.name)
		removes := patch && c.k == 0 && !own(c.name) // whatever its type is
		switch {
		case patch && read:
			return bad("a patch must not hold %q", c.name)
		case typ != event.Absent && !d.first(i):
			return bad("two columns %q, which has one type", c.name)
		case removes, typ != event.Absent && typ == c.typ, typ == event.Float && c.typ == event.Int:
		case typ != event.Absent:
			return bad("%q is a %s, and the column holds a %s", c.name, typeName(typ), typeName(c.typ))
		case c.typ == kindBytes && !own(c.name):
			return bad("%q cannot hold bytes", c.name)
		}
		if err := d.checkValues(c, patch); err != nil {
			return err
		}
	}
	if d.kind == kindBatch {
		return d.checkOrigin()
	}
	return nil
}

// checkValues proves what not every value of a type keeps to.
func (d *decoder) checkValues(c *column, patch bool) error {
	if p, ok := d.index[c.name]; ok && (d.places[p].mask == event.HasStatus || d.places[p].mask == event.HasLevel) {
		for j := range c.k {
			if v := c.num(j); v != int64(int32(v)) {
				return bad("%q is %d, which does not fit into 32 bits", c.name, v)
			}
		}
	}
	if c.typ == event.Object && patch {
		for j := range c.k {
			if t := c.at(j); len(t) > 0 && (!json.Valid(t) || t[0] != '{') {
				return bad("%q holds a text that is no JSON object", c.name)
			}
		}
	}
	return nil
}

// checkOrigin proves that every event has a place and a hash: an id made without them would be another event's.
func (d *decoder) checkOrigin() error {
	if d.count == 0 {
		return nil
	}
	whole := func(name string) bool {
		return slices.ContainsFunc(d.columns, func(c column) bool {
			return c.name == name && (c.layout != layoutSome || c.k == d.count)
		})
	}
	for _, name := range [...]string{colOffset, colLine} {
		if !whole(name) {
			return bad("not every event has %q", name)
		}
	}
	return nil
}

// own tells whether a column is the agent's own.
func own(name string) bool { return strings.HasPrefix(name, "@") && !strings.HasPrefix(name, "@@") }

// typeOf returns what a column of that name holds, Absent if anything, and whether only the agent sets it.
func (d *decoder) typeOf(name string) (typ event.Kind, read bool) {
	if p, ok := d.index[name]; ok {
		return d.places[p].typ, d.places[p].read
	}
	if typ, ok := d.extra[name]; ok {
		return typ, false
	}
	switch name {
	case timestamp:
		return event.Time, false
	case colStream:
		return event.String, true
	case colOffset, colLength, colLine:
		return event.Int, true
	case colReadAt:
		return event.Time, true
	case colRaw:
		return kindBytes, false
	case colDropped:
		return event.Bool, false
	}
	return event.Absent, own(name) || d.fixed[name] != nil
}

func typeName(k event.Kind) string {
	if k == kindBytes {
		return "bytes"
	}
	return k.String()
}

// fill gives fresh events what a batch says. Their texts are views into the frame. It is the plugin's side.
func (d *decoder) fill(evs []*event.Event) {
	for i := range d.columns {
		c := &d.columns[i]
		d.values(c)
		switch c.name {
		case colOffset:
			d.nums(evs, c, func(e *event.Event, v int64) { e.Offset = v })
		case colLength:
			d.nums(evs, c, func(e *event.Event, v int64) { e.Length = v })
		case colLine:
			d.nums(evs, c, func(e *event.Event, v int64) { e.SetLineHash(uint64(v)) })
		case colRaw:
			for i, j := range d.idx {
				if j >= 0 {
					evs[i].Raw = c.at(int(j))
				}
			}
		default:
			if own(c.name) || d.fixed[c.name] != nil {
				continue // what it says of the batch is read by streams; the rest is not known
			}
			d.set(evs, c, func(n int) []string { return make([]string, n) }, true)
		}
	}
}

func (d *decoder) nums(evs []*event.Event, c *column, set func(*event.Event, int64)) {
	for i, j := range d.idx {
		if j >= 0 {
			set(evs[i], c.num(int(j)))
		}
	}
}

// set sets a field in all events. d.idx is the column's. fresh: events that have no value have none already.
func (d *decoder) set(evs []*event.Event, c *column, room func(int) []string, fresh bool) {
	if c.name == timestamp {
		for i, j := range d.idx {
			if j >= 0 {
				evs[i].Time = unixNano(c.num(int(j)))
			} else {
				evs[i].Time = time.Time{}
			}
		}
		return
	}
	if n, ok := d.index[c.name]; ok {
		d.setPlace(evs, c, &d.places[n])
		return
	}
	name := strings.Clone(strings.TrimPrefix(c.name, "@"))
	asFloat := c.typ == event.Int && d.extra[name] == event.Float
	for i, j := range d.idx {
		if j < 0 {
			if !fresh {
				evs[i].Set(name, event.Value{})
			}
			continue
		}
		v := c.value(int(j), room)
		if asFloat {
			v = event.FloatValue(float64(v.Int()))
		}
		if !fresh {
			evs[i].Set(name, v)
		} else if v.Kind() != event.Absent {
			evs[i].Extra = append(evs[i].Extra, event.Field{Key: name, Value: v})
		}
	}
}

func (d *decoder) setPlace(evs []*event.Event, c *column, p *place) {
	if c.k == 0 { // whatever the type: see check
		for _, e := range evs {
			if p.text {
				*p.string(e) = ""
			} else {
				e.Unset(p.mask)
			}
		}
		return
	}
	if p.text {
		d.setTexts(evs, c, p)
		return
	}
	for i, j := range d.idx {
		switch {
		case j < 0:
			evs[i].Unset(p.mask)
		case c.typ == event.Bool:
			p.set(evs[i], int64(c.fixed[j]))
		case c.typ == event.Int && p.typ == event.Float:
			p.set(evs[i], floatBits(float64(c.num(int(j)))))
		default:
			p.set(evs[i], c.num(int(j)))
		}
	}
}

func (d *decoder) setTexts(evs []*event.Event, c *column, p *place) {
	if c.layout == layoutAll { // by far the most
		from := uint32(0)
		for i, e := range evs {
			end := binary.LittleEndian.Uint32(c.ends[4*i:])
			*p.string(e) = event.View(c.text[from:end])
			from = end
		}
		return
	}
	for i, j := range d.idx {
		s := ""
		if j >= 0 {
			s = event.View(c.at(int(j)))
		}
		*p.string(evs[i]) = s
	}
}

// apply changes events as a patch says that check has passed. What it keeps is copied into the batch's arena. It is the agent's side.
func (d *decoder) apply(a *event.Arena, evs []*event.Event) {
	for i := range d.columns {
		c := &d.columns[i]
		d.values(c)
		if len(c.text) > 0 {
			t := a.Alloc(len(c.text))
			copy(t, c.text)
			c.text = t
		}
		switch c.name {
		case colDropped:
			for i, j := range d.idx {
				evs[i].Dropped = j >= 0 && c.fixed[j] != 0
			}
			continue
		case colRaw:
			for i, j := range d.idx {
				var raw []byte
				if j >= 0 {
					raw = c.at(int(j))
				}
				evs[i].SetRaw(raw)
			}
			continue
		}
		if d.first(i) {
			d.set(evs, c, a.Strings, false)
			continue
		}
		// The first column of the name has cleared the field where it has no value itself.
		d.add(evs, c, a.Strings)
	}
}

// first tells whether no column before this one has its name.
func (d *decoder) first(i int) bool {
	return !slices.ContainsFunc(d.columns[:i], func(c column) bool { return c.name == d.columns[i].name })
}

// add sets an extra field in the events that have a value in the column.
func (d *decoder) add(evs []*event.Event, c *column, room func(int) []string) {
	name := strings.Clone(strings.TrimPrefix(c.name, "@"))
	for i, j := range d.idx {
		if j >= 0 && !c.empty(int(j)) {
			evs[i].Set(name, c.value(int(j), room))
		}
	}
}

// streams returns for each event the stream that it comes from and when it was read, as columns that may be nil.
func (d *decoder) streams() (stream, readAt *column) {
	for i := range d.columns {
		switch d.columns[i].name {
		case colStream:
			stream = &d.columns[i]
		case colReadAt:
			readAt = &d.columns[i]
		}
	}
	return stream, readAt
}

// textAt returns the text of event i in a column that may be nil.
func textAt(c *column, idx []int32, i int) string {
	if c == nil || idx[i] < 0 {
		return ""
	}
	return event.View(c.at(int(idx[i])))
}

// wrongReply says why a reply is not that to the request; nil if it is.
func wrongReply(h, want header) error {
	switch {
	case h.sequence != want.sequence:
		return fmt.Errorf("the reply has sequence %d, the request %d: it answers another call", h.sequence, want.sequence)
	case h.instance != want.instance:
		return fmt.Errorf("the reply is of instance %d, the request of %d", h.instance, want.instance)
	case h.count != want.count:
		return fmt.Errorf("the reply speaks of %d events, the request of %d", h.count, want.count)
	}
	return nil
}

// batches reads a frame of kind batch into batches of one stream and time each, taking what reuse has. It is the plugin's side.
func (d *decoder) batches(b []byte, reuse []*event.Batch) ([]*event.Batch, error) {
	if err := d.parse(b); err != nil {
		return nil, err
	}
	if d.kind != kindBatch {
		return nil, bad("kind %d is no batch", d.kind)
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	stream, readAt := d.streams()
	var streams, times []int32
	if stream != nil {
		streams = stream.index(nil, d.count)
	}
	if readAt != nil {
		times = readAt.index(nil, d.count)
	}
	at := func(i int) int64 {
		if readAt == nil || times[i] < 0 {
			return 0
		}
		return readAt.num(int(times[i]))
	}
	var out []*event.Batch
	for i := 0; i < d.count; {
		var x *event.Batch
		x, reuse = nextBatch(reuse)
		name, read := textAt(stream, streams, i), at(i)
		x.Stream = name
		if read != 0 {
			x.ReadAt = unixNano(read)
		}
		from := i
		for i++; i < d.count && textAt(stream, streams, i) == name && at(i) == read; i++ {
		}
		x.Events = slices.Grow(x.Events, i-from)
		for range i - from {
			x.Append()
		}
		out = append(out, x)
	}
	evs := make([]*event.Event, 0, d.count)
	for _, x := range out {
		evs = pointers(evs, x)
	}
	d.fill(evs)
	return out, nil
}

func nextBatch(reuse []*event.Batch) (*event.Batch, []*event.Batch) {
	if len(reuse) == 0 {
		return event.NewBatch(""), nil
	}
	b := reuse[0]
	b.Events, b.ReadAt = b.Events[:0], time.Time{}
	return b, reuse[1:]
}

// pointers appends pointers to the events of a batch that are not dropped.
func pointers(evs []*event.Event, b *event.Batch) []*event.Event {
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped {
			evs = append(evs, e)
		}
	}
	return evs
}
