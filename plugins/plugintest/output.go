package plugintest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Output proves an output: it keeps nothing of what Write showed it and changes nothing, returns soon when its context is done,
// answers with indexes that exist, works from eight goroutines at once (unless it is a Committer), goes back to its
// tokens (if it is one), and leaves no goroutine behind. With Observe, what stands at the far end is compared too.
func Output(t testing.TB, spec plugins.Spec, cfg any, opts ...Option) {
	t.Helper()
	o := collect(opts)
	leaks := Leaks(t)
	plain := writeAll(t, spec, cfg, o, false)
	poisoned := writeAll(t, spec, cfg, o, true)
	if !bytes.Equal(plain, poisoned) {
		t.Errorf("Write kept something of its events: with the arena overwritten after each call the far end has\n%s\ninstead of\n%s", short(poisoned), short(plain))
	}
	checkContext(t, spec, cfg, o)
	checkWorkers(t, spec, cfg, o)
	checkTokens(t, spec, cfg, o)
	leaks()
}

func short(p []byte) []byte { return p[:min(len(p), 2000)] }

// write calls Write and checks its answer.
func write(ctx context.Context, t testing.TB, out plugins.Output, b *event.Batch) error {
	t.Helper()
	events := pointers(b)
	before := Encode(b)
	err := out.Write(ctx, events)
	if Encode(b) != before {
		t.Errorf("Write changed its events")
	}
	for i, e := range events {
		if e != &b.Events[i] {
			t.Errorf("Write changed the slice of events at %d", i)
			break
		}
	}
	if partial, ok := errors.AsType[*plugins.PartialError](err); ok {
		if len(partial.Failed) == 0 {
			t.Errorf("Write returned a PartialError without a failed event")
		}
		for i, cause := range partial.Failed {
			if i < 0 || i >= len(events) {
				t.Errorf("Write returned a PartialError with index %d for %d events", i, len(events))
			}
			if cause == nil {
				t.Errorf("Write returned a PartialError without a cause for event %d", i)
			}
		}
	}
	return err
}

func output(t testing.TB, spec plugins.Spec, cfg any, o *options, dir string) (Instance, plugins.Output) {
	t.Helper()
	in := build(t, spec, cfg, o, dir)
	out, ok := in.Plugin.(plugins.Output)
	if !ok {
		t.Fatalf("%q makes no Output", spec.Name)
	}
	start(t, out)
	return in, out
}

func restore(t testing.TB, out plugins.Output, token []byte) {
	t.Helper()
	if c, ok := out.(plugins.Committer); ok {
		if _, err := c.Restore(token); err != nil {
			t.Fatalf("Restore: %v", err)
		}
	}
}

func writeAll(t testing.TB, spec plugins.Spec, cfg any, o *options, poison bool) []byte {
	t.Helper()
	in, out := output(t, spec, cfg, o, t.TempDir())
	restore(t, out, nil)
	for _, b := range o.batches() {
		if err := write(context.Background(), t, out, b); err != nil {
			t.Errorf("Write: %v", err)
		}
		if poison {
			spoil(b)
		}
	}
	stop(t, out)
	if o.observe == nil {
		return nil
	}
	return o.observe(in.Dir)
}

func checkContext(t testing.TB, spec plugins.Spec, cfg any, o *options) {
	t.Helper()
	_, out := output(t, spec, cfg, o, t.TempDir())
	restore(t, out, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := o.batches()[0]
	if !call(func() { _ = write(ctx, t, out, b) }, prompt) { // an answer of nil is fine if all is written
		t.Errorf("Write goes on %v after its context is done", prompt)
		return // it still runs: Close would wait for it
	}
	stop(t, out)
}

func checkWorkers(t testing.TB, spec plugins.Spec, cfg any, o *options) {
	t.Helper()
	_, out := output(t, spec, cfg, o, t.TempDir())
	if _, committer := out.(plugins.Committer); !committer {
		const workers = 8
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for _, b := range o.batches() {
					if err := write(context.Background(), t, out, b); err != nil {
						t.Errorf("Write, one of %d at the same time: %v", workers, err)
					}
					spoil(b)
				}
			})
		}
		wg.Wait()
	}
	stop(t, out)
}

// checkTokens writes, takes a token, writes more, and restores from the token on a new instance: what stands at the far end
// after the rest is written again must be what one run without a crash leaves.
func checkTokens(t testing.TB, spec plugins.Spec, cfg any, o *options) {
	t.Helper()
	dir := t.TempDir()
	in, out := output(t, spec, cfg, o, dir)
	c, ok := out.(plugins.Committer)
	if !ok {
		stop(t, out)
		return
	}
	restore(t, out, nil)
	batches := o.batches()
	half := len(batches) / 2
	token := func() []byte {
		p, err := c.Token()
		if err != nil {
			t.Fatalf("Token: %v", err)
		}
		return p
	}
	token()
	for _, b := range batches[:half] {
		if err := write(context.Background(), t, out, b); err != nil {
			t.Errorf("Write: %v", err)
		}
	}
	tok := token()
	atToken := o.look(in.Dir)
	for _, b := range batches[half:] {
		if err := write(context.Background(), t, out, b); err != nil {
			t.Errorf("Write: %v", err)
		}
	}
	whole := o.look(in.Dir)
	stop(t, out)

	o2 := *o
	o2.prepare = nil
	_, out = output(t, spec, cfg, &o2, dir)
	cut, err := out.(plugins.Committer).Restore(tok)
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	if o.observe != nil {
		if cut <= 0 {
			t.Errorf("Restore cut %d bytes though much was written after the token", cut)
		}
		if got := o.look(dir); !bytes.Equal(got, atToken) {
			t.Errorf("after Restore the far end has\n%s\ninstead of what was there at the token\n%s", short(got), short(atToken))
		}
	}
	for _, b := range o.batches()[half:] {
		if err := write(context.Background(), t, out, b); err != nil {
			t.Errorf("Write after Restore: %v", err)
		}
	}
	stop(t, out)
	if got := o.look(dir); !bytes.Equal(got, whole) {
		t.Errorf("after Restore and the same writes the far end has\n%s\ninstead of\n%s", short(got), short(whole))
	}
}

func (o *options) look(dir string) []byte {
	if o.observe == nil {
		return nil
	}
	return o.observe(dir)
}
