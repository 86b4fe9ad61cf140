package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Names of the fields that a dead letter adds to the event.
const (
	deadReasonField = "dead_reason"
	deadTimeField   = "dead_time"
	deadOutputField = "dead_output"
)

// deadLetter is where the events go that an output will never accept: NDJSON, written by an output that can undo, with the
// event as it was about to be sent and the reason.
type deadLetter struct {
	out    plugins.Committer
	log    *slog.Logger
	output string
	path   string // of the file that is written; those put aside lie beside it
	max    int64  // bytes of them all; 0: any number
	fail   func(key string, err error)

	mu sync.Mutex // held while dead events are written and settled, so that a snapshot never falls between the two
}

// writeLocked writes dead events and waits for as long as that does not work: an output stops at its cursor rather than lose
// one. It returns false when ctx ended. The caller holds mu.
func (d *deadLetter) writeLocked(ctx context.Context, died []deadEvent) bool {
	log := d.log
	if id := died[0].processor; id != "" {
		log = log.With("id", id)
	}
	evs := make([]*event.Event, len(died))
	now := time.Now()
	for i, x := range died {
		evs[i] = d.letter(x.e, x.reason, now)
	}
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
		err := d.full()
		if err == nil {
			err = d.out.Write(ctx, evs)
		}
		d.fail("dead letter", err)
		if err == nil {
			log.Warn("events went to the dead letter", "count", len(died), "reason", died[0].reason)
			return true
		}
		var partial *plugins.PartialError
		if errors.As(err, &partial) && valid(partial, len(evs)) {
			var rest []*event.Event
			for i := range evs {
				if _, failed := partial.Failed[i]; failed {
					rest = append(rest, evs[i])
				}
			}
			evs = rest
		}
		log.Error("dead letter cannot be written, its output waits", "error", err)
		if !sleep(ctx, wait) {
			return false
		}
	}
}

// full returns an error once the dead letters take all the room that they may.
func (d *deadLetter) full() error {
	if d.max == 0 {
		return nil
	}
	dir, base := filepath.Split(d.path)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for dead letters: %w", err)
	}
	var sum int64
	for _, e := range entries {
		if e.Name() != base && !strings.HasPrefix(e.Name(), base+".") {
			continue
		}
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() {
			sum += st.Size()
		}
	}
	if sum >= d.max {
		return fmt.Errorf("dead letters take %d MiB, agent.dead_letter_max is %v: look at them with 'stacktrail dlq', then remove the oldest %s.*",
			sum>>20, conf.Size(d.max), d.path)
	}
	return nil
}

// letter makes the dead letter's copy of an event.
func (d *deadLetter) letter(e *event.Event, reason string, now time.Time) *event.Event {
	c := e.Clone()
	c.Dropped = false
	c.Set(deadReasonField, event.StringValue(reason))
	c.Set(deadTimeField, event.TimeValue(now))
	c.Set(deadOutputField, event.StringValue(d.output))
	return c
}

// positionOnly makes the letter of an event that died in a processor: what it was is not to be trusted, so only its place and the
// reason are told.
func positionOnly(e *event.Event) *event.Event {
	b := event.NewBatch(e.Batch().Stream)
	b.Span, b.ReadAt = e.Batch().Span, e.Batch().ReadAt
	c := b.Append()
	c.Offset = e.Offset
	c.Has |= event.HasLogOffset
	c.LogFile = e.LogFile
	c.RecordClass = e.RecordClass
	return c
}

// quiet is the log of a dead letter's restore, which has the same fate as its output's, and that is said already.
func quiet(*slog.Logger) *slog.Logger { return slog.New(slog.DiscardHandler) }

// restore cuts a plugin that can undo back to a token.
func restore(plug plugins.Output, token []byte, refuse string, log *slog.Logger) error {
	c, ok := plug.(plugins.Committer)
	if !ok {
		return nil
	}
	if refuse != "" && token != nil {
		log.Warn("kept what was written after the last checkpoint: repetitions are possible", "reason", refuse)
		token = nil
	}
	cut, err := c.Restore(token)
	var kept *plugins.KeptError
	switch {
	case errors.As(err, &kept):
		log.Warn("kept what was written after the last checkpoint: repetitions are possible", "reason", kept.Reason)
	case err != nil:
		return err
	case cut > 0:
		log.Info("cut back to the last checkpoint", "bytes", cut)
	}
	return nil
}
