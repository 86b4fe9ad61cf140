package rpc

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Limits of a reply, see FRAME.md, Sizes. A reply may be small and still make much of a batch: one value may stand for all events.
const (
	leastReply   = 16 << 20 // what any reply may have, and any patch make
	leastOfEvent = 64 << 10 // what any event may get: it is alone when its batch is taken apart, and a batch has up to a thousand
	timesRequest = 8
	perItem      = 16 // of a list
	perNumber    = 8
	perField     = 64 // beside the name
	perFailure   = maxReason + 100
)

// mostReply is the size of the largest frame that is taken as a reply.
func mostReply(request, events int) int {
	return min(maxFrame, max(leastReply, timesRequest*request, perFailure*events))
}

// bound proves that a patch makes no more of the events than it may, before anything is made of them.
func (d *decoder) bound(evs []*event.Event, request int) error {
	if d.kind != kindPatch {
		return nil
	}
	most, sum := max(leastReply, timesRequest*request), 0
	d.sizes = slices.Grow(d.sizes[:0], d.count)[:d.count]
	clear(d.sizes)
	for i := range d.columns {
		c := &d.columns[i]
		if c.name == colDropped || c.k == 0 {
			continue
		}
		d.values(c)
		more := sizeOfKey(c.name)
		for i, j := range d.idx {
			if j < 0 || c.empty(int(j)) {
				continue
			}
			n := c.size(int(j)) + more
			d.sizes[i] += n
			if sum += n; sum > most {
				return fmt.Errorf("the patch makes more than %d bytes of %d events that had %d (column %q)", most, d.count, request, cut(c.name))
			}
		}
	}
	for i, n := range d.sizes {
		if n <= leastOfEvent {
			continue
		}
		if most := max(leastOfEvent, timesRequest*d.sizeOf(evs[i])); n > most {
			return fmt.Errorf("the patch makes %d bytes of event %d, at most %d are allowed", n, i, most)
		}
	}
	return nil
}

// sizeOfKey is what a value costs beside itself: room in its event, and its name in whatever is written of that.
func sizeOfKey(name string) int {
	if own(name) {
		return 0
	}
	return len(name) + perField
}

// sizeOf is what an event has, counted as what a patch makes.
func (d *decoder) sizeOf(e *event.Event) int {
	n := len(e.Raw)
	for i := range d.places {
		p := &d.places[i]
		switch {
		case p.text && *p.string(e) != "":
			n += sizeOfKey(p.name) + len(*p.string(e))
		case !p.text && e.Has&p.mask != 0:
			n += sizeOfKey(p.name) + perNumber
		}
	}
	for i := range e.Extra {
		v := &e.Extra[i].Value
		n += sizeOfKey(wireName(e.Extra[i].Key))
		switch v.Kind() {
		case event.String, event.Object:
			n += len(v.Str())
		case event.List:
			for _, s := range v.List() {
				n += len(s) + perItem
			}
		default:
			n += perNumber
		}
	}
	return n
}

// size is what value j makes of an event.
func (c *column) size(j int) int {
	switch c.typ {
	case event.String, event.Object, kindBytes:
		return len(c.at(j))
	case event.List:
		from, to := c.items(j)
		if from == to {
			return 0
		}
		begin := uint32(0)
		if from > 0 {
			begin = binary.LittleEndian.Uint32(c.ends[4*from-4:])
		}
		return int(binary.LittleEndian.Uint32(c.ends[4*to-4:])-begin) + perItem*(to-from)
	}
	return perNumber
}
