package plugintest

import (
	"context"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Processor proves a processor: two instances make the same of the same batches, it keeps nothing of them, adds no events, leaves
// dropped ones alone, and neither grows nor leaves a goroutine behind.
func Processor(t testing.TB, spec plugins.Spec, cfg any, opts ...Option) {
	t.Helper()
	o := collect(opts)
	leaks := Leaks(t)
	plain := processAll(t, spec, cfg, o, false)
	again := processAll(t, spec, cfg, o, false)
	poisoned := processAll(t, spec, cfg, o, true)
	for i := range plain {
		if plain[i] != again[i] {
			t.Errorf("Process is not deterministic: of batch %d it made\n%s\nand then\n%s", i, short([]byte(plain[i])), short([]byte(again[i])))
			break
		}
		if plain[i] != poisoned[i] {
			t.Errorf("Process kept something of a former batch: with the arenas overwritten it made\n%s\ninstead of\n%s", short([]byte(poisoned[i])), short([]byte(plain[i])))
			break
		}
	}
	checkDropped(t, spec, cfg, o)
	checkGrowth(t, spec, cfg, o)
	leaks()
}

func processor(t testing.TB, spec plugins.Spec, cfg any, o *options) plugins.Processor {
	t.Helper()
	in := build(t, spec, cfg, o, t.TempDir())
	p, ok := in.Plugin.(plugins.Processor)
	if !ok {
		t.Fatalf("%q makes no Processor", spec.Name)
	}
	start(t, p)
	return p
}

func process(t testing.TB, p plugins.Processor, b *event.Batch) {
	t.Helper()
	n := len(b.Events)
	if err := p.Process(context.Background(), b); err != nil {
		t.Errorf("Process: %v", err)
	}
	if len(b.Events) != n {
		t.Errorf("Process made %d events of %d; it marks what it drops and adds none", len(b.Events), n)
	}
	for i := range b.Events {
		if e := &b.Events[i]; e.Batch() != b || e.Index() != i {
			t.Errorf("Process moved event %d out of its place", i)
			break
		}
	}
}

func processAll(t testing.TB, spec plugins.Spec, cfg any, o *options, poison bool) []string {
	t.Helper()
	p := processor(t, spec, cfg, o)
	var out []string
	for _, b := range o.batches() {
		process(t, p, b)
		out = append(out, Encode(b))
		if poison {
			spoil(b)
		}
	}
	stop(t, p)
	return out
}

func checkDropped(t testing.TB, spec plugins.Spec, cfg any, o *options) {
	t.Helper()
	p := processor(t, spec, cfg, o)
	for _, b := range o.batches() {
		before := Encode(b)
		for i := range b.Events {
			b.Events[i].Dropped = true
		}
		process(t, p, b)
		for i := range b.Events {
			if !b.Events[i].Dropped {
				t.Errorf("Process brought a dropped event back")
			}
			b.Events[i].Dropped = false
		}
		if Encode(b) != before {
			t.Errorf("Process changed a dropped event")
			break
		}
	}
	stop(t, p)
}

// checkGrowth compares the allocations of early and late rounds over fresh copies of one batch.
func checkGrowth(t testing.TB, spec plugins.Spec, cfg any, o *options) {
	t.Helper()
	const rounds = 20
	p := processor(t, spec, cfg, o)
	one := o.batches()[0]
	measure := func() float64 {
		copies := make([]*event.Batch, rounds+1) // AllocsPerRun warms up once
		for i := range copies {
			copies[i] = one.Clone()
		}
		next := 0
		return testing.AllocsPerRun(rounds, func() {
			if err := p.Process(context.Background(), copies[next]); err != nil {
				t.Errorf("Process: %v", err)
			}
			next++
		})
	}
	measure() // warm up
	early := measure()
	for range 5 {
		measure()
	}
	if late := measure(); late > early*1.2+3 {
		t.Errorf("Process grows: %v allocations for a batch early, %v later", early, late)
	}
	stop(t, p)
}
