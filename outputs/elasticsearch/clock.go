package elasticsearch

import (
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// clock finds the instant of an event for index names and @timestamp.
type clock struct {
	batch *event.Batch
	index int
	last  time.Time
}

// of returns the event's time in UTC, else that of the last event before it in its batch that has one, else when the batch was read.
func (c *clock) of(e *event.Event) time.Time {
	if !e.Time.IsZero() {
		return e.Time.UTC()
	}
	b := e.Batch()
	if b == nil {
		return time.Unix(0, 0).UTC()
	}
	if c.batch != b || c.index > e.Index() {
		*c = clock{batch: b, last: b.ReadAt}
	}
	for i := e.Index() - 1; i >= c.index; i-- {
		if at := b.Events[i].Time; !at.IsZero() {
			c.last = at
			break
		}
	}
	c.index = e.Index()
	return c.last.UTC()
}
