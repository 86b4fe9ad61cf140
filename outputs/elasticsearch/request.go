package elasticsearch

import (
	"bytes"
	"fmt"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

const (
	// keepBuffer: buffers that grew beyond this are not kept.
	keepBuffer = 16 << 20
	// keepRequests requests lie ready for the next calls.
	keepRequests = 8
	// answerBuffer is how much of an answer is read at once.
	answerBuffer = 32 << 10
)

// request is one call of Write: all its memory, which is used again.
type request struct {
	events []*event.Event
	ids    []byte // of each event, event.IDLen bytes
	skip   []bool // events that the server has already
	at     []int  // index of the event for each item of the body
	body   []byte
	packed sink
	zip    *gzip.Writer
	answer []byte
	failed map[int]error
}

// sink is a buffer to compress into.
type sink struct{ b []byte }

// Write appends p.
func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// id returns the id of event i.
func (r *request) id(i int) []byte { return r.ids[i*event.IDLen : (i+1)*event.IDLen] }

// key is an id that can be kept.
type key [event.IDLen]byte

func (r *request) key(i int) key { return key(r.id(i)) }

// begin takes the events of a call.
func (r *request) begin(events []*event.Event) {
	r.events = events
	r.ids, r.skip, r.failed = r.ids[:0], r.skip[:0], nil
	for _, e := range events {
		r.ids = e.AppendID(r.ids)
		r.skip = append(r.skip, false)
	}
}

// end lets go of what is not to be kept.
func (r *request) end() {
	r.events, r.failed = nil, nil
	if cap(r.body) > keepBuffer {
		r.body = nil
	}
	if cap(r.packed.b) > keepBuffer {
		r.packed.b = nil
	}
}

// build makes the body of all events that are not skipped.
func (r *request) build(o *output) {
	r.body, r.at = r.body[:0], r.at[:0]
	var c clock
	for i, e := range r.events {
		if r.skip[i] {
			continue
		}
		r.at = append(r.at, i)
		if o.index == nil {
			r.body = append(r.body, `{"create":{"_id":"`...)
		} else {
			var at time.Time
			if o.index.dated {
				at = c.of(e)
			}
			r.body = append(r.body, `{"create":{"_index":"`...)
			r.body = o.index.append(r.body, e, at)
			r.body = append(r.body, `","_id":"`...)
		}
		r.body = append(r.body, r.id(i)...)
		r.body = append(r.body, "\"}}\n"...)
		stamped := false
		if o.index == nil {
			at := c.of(e)
			// ECS calls the event's own instant so, and a name stands once.
			if stamped = o.naming() != schema.ECS || e.Time.IsZero(); stamped {
				r.body = append(r.body, `{"@timestamp":`...)
				r.body = event.AppendTime(r.body, at)
			}
		}
		from := len(r.body)
		r.body = o.enc.Append(r.body, e)
		if stamped {
			r.body[from] = ',' // it was the opening brace
		}
		// An object's text may have line ends between its parts. Here they would end the document.
		for doc := r.body[from : len(r.body)-1]; ; {
			at := bytes.IndexByte(doc, '\n')
			if at < 0 {
				break
			}
			doc[at] = ' '
			doc = doc[at+1:]
		}
	}
}

// compress makes the compressed body, if there is to be one, and returns what is to be sent.
func (r *request) compress(on bool) ([]byte, error) {
	if !on {
		return r.body, nil
	}
	r.packed.b = r.packed.b[:0]
	if r.zip == nil {
		z, err := gzip.NewWriterLevel(&r.packed, gzip.BestSpeed)
		if err != nil {
			return nil, fmt.Errorf("BUG: %w", err)
		}
		r.zip = z
	} else {
		r.zip.Reset(&r.packed)
	}
	if _, err := r.zip.Write(r.body); err != nil {
		return nil, err
	}
	if err := r.zip.Close(); err != nil {
		return nil, err
	}
	return r.packed.b, nil
}
