package plugintest

import (
	"context"
	"errors"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Input proves an input whose source Prepare fills with at least one record: with Env.Once its Run ends by itself; else it ends within a
// second of its context, even while the pipeline is full; nothing is sent and no goroutine is left afterwards; both give
// the same events; spans of a stream are without gaps; and a Replayer gives the same events again.
func Input(t testing.TB, spec plugins.Spec, cfg any, opts ...Option) {
	t.Helper()
	o := collect(opts)
	leaks := Leaks(t)
	once := runOnce(t, spec, cfg, o)
	if once == nil {
		return
	}
	runLive(t, spec, cfg, o, once)
	runBlocked(t, spec, cfg, o)
	leaks()
}

func input(t testing.TB, spec plugins.Spec, cfg any, o *options, dir string, once bool) (Instance, plugins.Input) {
	t.Helper()
	o2 := *o
	o2.env = func(e *plugins.Env) {
		e.Once = once
		if o.env != nil {
			o.env(e)
		}
	}
	in := build(t, spec, cfg, &o2, dir)
	p, ok := in.Plugin.(plugins.Input)
	if !ok {
		t.Fatalf("%q makes no Input", spec.Name)
	}
	start(t, p)
	return in, p
}

func runOnce(t testing.TB, spec plugins.Spec, cfg any, o *options) *Sink {
	t.Helper()
	_, in := input(t, spec, cfg, o, t.TempDir(), true)
	sink := NewSink()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	if !call(func() { err = in.Run(ctx, sink) }, patience) {
		t.Errorf("Run does not end by itself with Env.Once")
		return nil
	}
	sink.Close()
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(sink.Events()) == 0 {
		t.Errorf("Run sent no event: Prepare must fill the source")
	}
	at := map[string]event.Position{}
	for _, b := range sink.Batches() {
		if b.Stream == "" {
			t.Errorf("Run sent a batch without a stream")
		}
		if last, ok := at[b.Stream]; ok && b.Span.From != last {
			t.Errorf("Run sent a batch of %s from %d after one to %d", b.Stream, b.Span.From.Seq, last.Seq)
		}
		if b.Span.To.Seq < b.Span.From.Seq {
			t.Errorf("Run sent a batch of %s from %d back to %d", b.Stream, b.Span.From.Seq, b.Span.To.Seq)
		}
		at[b.Stream] = b.Span.To
	}
	stop(t, in)
	if n := sink.Late(); n > 0 {
		t.Errorf("%d batches were sent after Run returned", n)
	}
	return sink
}

func runLive(t testing.TB, spec plugins.Spec, cfg any, o *options, once *Sink) {
	t.Helper()
	dir := t.TempDir()
	inst, in := input(t, spec, cfg, o, dir, false)
	sink := NewSink()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx, sink) }()
	want := len(once.Events())
	if !sink.Wait(want) {
		t.Errorf("Run sent %d events, with Env.Once %d", len(sink.Events()), want)
	}
	replays(t, inst, in, sink)
	cancel()
	var err error
	if !call(func() { err = <-done }, prompt) {
		t.Errorf("Run goes on %v after its context is done", prompt)
		return
	}
	sink.Close()
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if got := len(sink.Events()); got != want {
		t.Errorf("Run sent %d events, with Env.Once %d", got, want)
	}
	stop(t, in)
	if n := sink.Late(); n > 0 {
		t.Errorf("%d batches were sent after Run returned", n)
	}
}

// replays reads every stream again.
func replays(t testing.TB, inst Instance, in plugins.Input, live *Sink) {
	t.Helper()
	r, ok := in.(plugins.Replayer)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	first, last := map[string]event.Position{}, map[string]event.Position{}
	for _, b := range live.Batches() {
		if _, ok := first[b.Stream]; !ok {
			first[b.Stream] = b.Span.From
		}
		last[b.Stream] = b.Span.To
	}
	want := live.byStream()
	for _, s := range inst.Env.Streams.Known() {
		if _, sent := first[s.Name]; !sent {
			continue
		}
		if err := r.CanReplay(ctx, s, first[s.Name]); err != nil {
			t.Errorf("CanReplay(%s): %v", s.Name, err)
			continue
		}
		sink := NewSink()
		if err := r.Replay(ctx, s, first[s.Name], last[s.Name], sink); err != nil {
			t.Errorf("Replay(%s): %v", s.Name, err)
			continue
		}
		for _, b := range sink.Batches() {
			if b.Stream != s.Name {
				t.Errorf("Replay(%s) sent a batch of %s", s.Name, b.Stream)
			}
			if b.Span.To.Seq > last[s.Name].Seq {
				t.Errorf("Replay(%s) went to %d, beyond %d", s.Name, b.Span.To.Seq, last[s.Name].Seq)
			}
		}
		if got := sink.byStream()[s.Name]; got != want[s.Name] {
			t.Errorf("Replay(%s) gave\n%s\nlive was\n%s", s.Name, short([]byte(got)), short([]byte(want[s.Name])))
		}
	}
}

// runBlocked ends an input whose pipeline takes nothing.
func runBlocked(t testing.TB, spec plugins.Spec, cfg any, o *options) {
	t.Helper()
	_, in := input(t, spec, cfg, o, t.TempDir(), false)
	sink := NewBlockedSink()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = in.Run(ctx, sink)
	}()
	if !eventually(func() bool { return sink.held() > 0 }, patience) {
		t.Errorf("Run sent nothing")
	}
	cancel()
	if !call(func() { <-done }, prompt) {
		t.Errorf("Run goes on %v after its context is done while the pipeline is full", prompt)
		return
	}
	sink.Close()
	stop(t, in)
	if n := sink.Late(); n > 0 {
		t.Errorf("%d batches were sent after Run returned", n)
	}
}
