package plugintest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Batch returns a batch from pool (or one that belongs to none) whose arena holds the lines, one event each, with Raw and Offset
// set. The caller is its one owner.
func Batch(pool *event.Pool, stream string, lines ...string) *event.Batch {
	n := 0
	for _, l := range lines {
		n += len(l) + 1
	}
	var b *event.Batch
	if pool == nil {
		b = event.NewBatch(stream)
	} else {
		var err error
		if b, err = pool.Get(context.Background(), n); err != nil {
			panic(fmt.Sprintf("BUG: getting a batch: %v", err))
		}
		b.Stream = stream
	}
	block := b.Arena().Block(n)
	at := 0
	for _, l := range lines {
		copy(block[at:], l)
		block[at+len(l)] = '\n'
		e := b.Append()
		e.Raw, e.Offset = block[at:at+len(l):at+len(l)], int64(at)
		at += len(l) + 1
	}
	b.Span = event.Span{To: event.Position{Seq: int64(n)}}
	b.ReadAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return b
}

// Events returns a batch of n access events that belongs to no pool, with fields of each type, all strings in its arena. Every
// tenth event is unparsed.
func Events(n int) *event.Batch {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(`192.0.2.%d GET /v2.1/servers/%d limit=%d nova req-%08d`, i%250, i, i*3, i)
	}
	b := Batch(nil, "sample", lines...)
	for i := range b.Events {
		e := &b.Events[i]
		if i%10 == 9 {
			e.RecordClass, e.Error = event.ClassUnparsed, "no format matched"
			e.Set("message", event.StringValue(b.Arena().Copy(e.Raw)))
			continue
		}
		words := strings.Fields(event.View(e.Raw)) // views into the arena
		e.Client, e.Method, e.Path, e.Query, e.Service, e.RequestID = words[0], words[1], words[2], words[3], words[4], words[5]
		e.RecordClass, e.Kind = event.ClassAccess, "compute-api"
		e.Time = time.Date(2026, 1, 2, 3, 4, i%60, 0, time.UTC)
		e.SetStatus(int32(200 + i%4*100))
		e.SetSize(int64(i) * 100)
		e.SetDuration(time.Duration(i) * time.Millisecond)
		e.SetBool(event.BoolIdentityUnverified, i%7 == 0)
		e.Set("route", event.StringValue(b.Arena().CopyString("/servers/{id}")))
		e.Set("roles", event.ListValue([]string{b.Arena().CopyString("reader"), b.Arena().CopyString("member")}))
	}
	return b
}

// Encode returns the batch's events that are not dropped, as NDJSON with their offsets.
func Encode(b *event.Batch) string {
	enc := schema.NewEncoder(schema.EncodeOptions{Newline: true, EventID: true})
	var out []byte
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped {
			out = fmt.Appendf(out, "%d ", e.Offset)
			out = enc.Append(out, e)
		}
	}
	return string(out)
}

// spoil overwrites all that a call was shown, the arena and the events themselves, and takes the arena out of the batch.
func spoil(b *event.Batch) {
	b.Arena().Poison()
	*b.Arena() = event.Arena{}
	for i := range b.Events {
		e := &b.Events[i]
		for j := range e.Extra {
			e.Extra[j] = event.Field{Key: "spoiled", Value: event.StringValue("spoiled")}
		}
		e.Reset()
		e.Path, e.Service = "spoiled", "spoiled"
	}
}

// samples makes the batches that a suite shows to a plugin.
func samples() []*event.Batch {
	var all []*event.Batch
	for i := range 4 {
		b := Events(25)
		b.Stream = fmt.Sprintf("stream%d", i)
		all = append(all, b)
	}
	return all
}

// another makes a copy of the first few events of a batch, in memory of its own, that speaks of other requests: n is the number of the
// first one. Clients, users and projects come again, what is of one request alone does not.
func another(b *event.Batch, few, n int) *event.Batch {
	part := &event.Batch{Stream: b.Stream, Span: b.Span, ReadAt: b.ReadAt, Events: b.Events[:min(few, len(b.Events))]}
	c := part.Clone()
	c.ReadAt = c.ReadAt.Add(time.Duration(n) * time.Second)
	for i := range c.Events {
		e := &c.Events[i]
		number := strconv.Itoa(n + i)
		e.Offset += int64(n+i) << 10
		e.RequestID, e.Path, e.Query = "req-"+number, "/v2.1/servers/"+number, "marker="+number
		if !e.Time.IsZero() {
			e.Time = e.Time.Add(time.Duration(n+i) * time.Second)
		}
	}
	return c
}
