package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Input proves an input whose source Prepare fills with at least one record, better with several batches: with Env.Once its Run ends by
// itself; else it ends within a second of its context, even while the pipeline is full; nothing is sent and no goroutine is left
// afterwards; both give the same events; spans of a stream are without gaps. A Replayer gives the same events again, and after a
// crash exactly those that were not settled.
func Input(t TB, spec plugins.Spec, cfg any, opts ...Option) {
	t.Helper()
	s := newSuite(t, spec, cfg, opts)
	before := goroutines()
	var sinks []*Sink
	defer func() {
		s.checkLeaks(before)
		late := 0
		for _, sink := range sinks {
			late += sink.Late()
		}
		if late > 0 {
			s.broken(RuleContext, "%d batches were sent after Run returned", late)
		}
	}()
	once := s.runOnce()
	if sinks = append(sinks, once); s.has(RuleContext, RuleWorks) {
		return
	}
	run := s.runLive(once)
	sinks = append(sinks, run.sink, s.runBlocked())
	if s.has(RuleContext, RuleWorks, RuleOrder, RuleSame) {
		return
	}
	if !run.replayer {
		s.Logf("%s: not tried, for the input is no Replayer: what it sent is gone after a crash", RuleSettled)
		return
	}
	n := len(run.sink.Batches())
	for _, settled := range slices.Compact([]int{0, n / 2, n}) {
		sinks = append(sinks, s.restart(run, settled))
	}
}

// input makes an instance in a directory that is prepared.
func (s *suite) input(dir string, once bool, streams *Streams) plugins.Input {
	s.Helper()
	in := s.build(s.cfg, dir, func(e *plugins.Env) { e.Once, e.Streams = once, streams })
	p := as[plugins.Input](s, in)
	s.start(p)
	return p
}

// prepared makes a directory with a source in it.
func (s *suite) prepared() string {
	s.Helper()
	dir := s.TempDir()
	if s.prepare != nil {
		if err := s.prepare(dir); err != nil {
			s.Fatalf("preparing %s: %v", dir, err)
		}
	}
	return dir
}

// runToEnd runs an input that ends by itself.
func (s *suite) runToEnd(in plugins.Input, when string) *Sink {
	s.Helper()
	sink := NewSink()
	var err error
	if !call(func() { err = guard(func() error { return in.Run(context.Background(), sink) }) }, patience) {
		s.broken(RuleContext, "Run%s does not end by itself with Env.Once", when)
		return sink // it still runs: Close would wait for it
	}
	sink.Close()
	if err != nil {
		s.broken(RuleWorks, "Run%s: %v", when, err)
	}
	s.stop(in)
	return sink
}

func (s *suite) runOnce() *Sink {
	s.Helper()
	sink := s.runToEnd(s.input(s.prepared(), true, NewStreams()), "")
	if len(sink.Events()) == 0 && !s.has(RuleContext, RuleWorks) {
		s.broken(RuleWorks, "Run sent no event: Prepare must fill the source")
	}
	at := map[string]event.Position{}
	for _, b := range sink.Batches() {
		if b.Stream == "" {
			s.broken(RuleOrder, "Run sent a batch without a stream")
		}
		if last, ok := at[b.Stream]; ok && b.Span.From != last {
			s.broken(RuleOrder, "Run sent a batch of %s from %d after one to %d", b.Stream, b.Span.From.Seq, last.Seq)
		}
		if b.Span.To.Seq < b.Span.From.Seq {
			s.broken(RuleOrder, "Run sent a batch of %s from %d back to %d", b.Stream, b.Span.From.Seq, b.Span.To.Seq)
		}
		at[b.Stream] = b.Span.To
	}
	return sink
}

// live is what came of a run that followed its source.
type live struct {
	dir      string
	streams  *Streams
	sink     *Sink
	replayer bool
}

func (s *suite) runLive(once *Sink) live {
	s.Helper()
	l := live{dir: s.prepared(), streams: NewStreams(), sink: NewSink()}
	in := s.input(l.dir, false, l.streams)
	_, l.replayer = in.(plugins.Replayer)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	done := background(func() { err = guard(func() error { return in.Run(ctx, l.sink) }) })
	want := len(once.Events())
	if !l.sink.Wait(want) {
		s.broken(RuleSame, "Run sent %d events, with Env.Once %d", len(l.sink.Events()), want)
	}
	s.replays(in, l)
	cancel()
	if !within(done, prompt) {
		s.broken(RuleContext, "Run goes on %v after its context is done", prompt)
		return l
	}
	l.sink.Close()
	if err != nil && !errors.Is(err, context.Canceled) {
		s.broken(RuleWorks, "Run: %v", err)
	}
	if a, b := records(once), records(l.sink); !s.has(RuleSame) && !slices.Equal(a, b) {
		s.broken(RuleSame, "Run sent the records\n%s\nand with Env.Once\n%s", short([]byte(strings.Join(b, "\n"))), short([]byte(strings.Join(a, "\n"))))
	}
	s.stop(in)
	return l
}

// records lists what came, whatever its streams are called and in whatever order these came.
func records(k *Sink) []string {
	var all []string
	for _, e := range k.Events() {
		all = append(all, fmt.Sprintf("%d %s", e.Offset, e.Raw))
	}
	slices.Sort(all)
	return all
}

// replays reads every stream again, while the input runs.
func (s *suite) replays(in plugins.Input, l live) {
	s.Helper()
	r, ok := in.(plugins.Replayer)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, st := range l.streams.Known() {
		batches := ofStream(l.sink.Batches(), st.Name)
		if len(batches) == 0 {
			continue
		}
		s.replayPart(ctx, r, st, batches)
		if n := len(batches); n > 1 {
			s.replayPart(ctx, r, st, batches[n/2:])
		}
	}
}

// replayPart reads again what stands in consecutive batches.
func (s *suite) replayPart(ctx context.Context, r plugins.Replayer, st plugins.Stream, batches []*event.Batch) {
	s.Helper()
	from, to := batches[0].Span.From, batches[len(batches)-1].Span.To
	if err := guard(func() error { return r.CanReplay(ctx, st, from) }); err != nil {
		s.broken(RuleSettled, "CanReplay(%s): %v", st.Name, err)
		return
	}
	sink := NewSink()
	if err := guard(func() error { return r.Replay(ctx, st, from, to, sink) }); err != nil {
		s.broken(RuleSettled, "Replay(%s): %v", st.Name, err)
		return
	}
	for _, b := range sink.Batches() {
		if b.Stream != st.Name {
			s.broken(RuleSettled, "Replay(%s) sent a batch of %s", st.Name, b.Stream)
		}
		if b.Span.To.Seq > to.Seq {
			s.broken(RuleSettled, "Replay(%s) went to %d, beyond %d", st.Name, b.Span.To.Seq, to.Seq)
		}
	}
	if got, want := encoded(sink.Batches()), encoded(batches); got != want {
		s.broken(RuleSettled, "Replay(%s) gave\n%s\nlive was\n%s", st.Name, short([]byte(got)), short([]byte(want)))
	}
}

func ofStream(batches []*event.Batch, name string) []*event.Batch {
	return slices.DeleteFunc(slices.Clone(batches), func(b *event.Batch) bool { return b.Stream != name })
}

func encoded(batches []*event.Batch) string {
	var all strings.Builder
	for _, b := range batches {
		all.WriteString(Encode(b))
	}
	return all.String()
}

// runBlocked ends an input whose pipeline takes nothing.
func (s *suite) runBlocked() *Sink {
	s.Helper()
	in := s.input(s.prepared(), false, NewStreams())
	sink := NewBlockedSink()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := background(func() { _ = guard(func() error { return in.Run(ctx, sink) }) })
	if !eventually(func() bool { return sink.held() > 0 }, patience) {
		s.broken(RuleWorks, "Run sent nothing")
	}
	cancel()
	if !within(done, prompt) {
		if !s.has(RuleContext) {
			s.broken(RuleContext, "Run goes on %v after its context is done while the pipeline is full", prompt)
		}
		return sink
	}
	sink.Close()
	s.stop(in)
	return sink
}

// restart runs a new instance, as after a crash, with a checkpoint in which only the first batches are settled.
func (s *suite) restart(l live, settled int) *Sink {
	s.Helper()
	all := l.sink.Batches()
	at := map[string]event.Position{}
	for i, b := range all {
		if _, seen := at[b.Stream]; !seen {
			at[b.Stream] = b.Span.From
		}
		if i < settled {
			at[b.Stream] = b.Span.To
		}
	}
	known := l.streams.Known()
	for i := range known {
		if p, sent := at[known[i].Name]; sent {
			known[i].Start = p
			known[i].Drained = known[i].Drained && len(ofStream(all[settled:], known[i].Name)) == 0
		}
	}
	sink := s.runToEnd(s.input(l.dir, true, NewStreams(known...)), " after a restart")
	for name := range at {
		want, got := encoded(ofStream(all[settled:], name)), encoded(ofStream(sink.Batches(), name))
		if got != want {
			s.broken(RuleSettled, "after a restart with %d of %d batches settled Run sent of %s\n%s\ninstead of what was not settled\n%s", settled, len(all), name, short([]byte(got)), short([]byte(want)))
			break
		}
	}
	for _, b := range sink.Batches() {
		if _, old := at[b.Stream]; !old {
			s.broken(RuleSettled, "after a restart Run sent a stream %s that it did not send before: a stream keeps its name", b.Stream)
			break
		}
	}
	return sink
}
