package plugintest

import (
	"context"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// fakeInput sends the lines of its source, each in a batch of its own, and has a fault.
type fakeInput struct {
	env    plugins.Env
	fault  string
	block  chan struct{}
	closed chan struct{}
	own    map[string]int // where an input believes to stand that asks nobody; by directory
}

var source = []string{"one", "two", "three", "four"}

// line sends line i.
func (f *fakeInput) line(ctx context.Context, sink plugins.Sink, i int) error {
	b, err := f.env.Pool.Get(ctx, 100)
	if err != nil {
		return err
	}
	b.Stream = "s"
	from := int64(len(strings.Join(source[:i], " ")))
	e := b.Append()
	e.Raw, e.Offset = []byte(source[i]), from
	b.Span = event.Span{From: event.Position{Seq: from}, To: event.Position{Seq: int64(len(strings.Join(source[:i+1], " ")))}}
	if f.fault == "other when live" && !f.env.Once {
		e.Raw = []byte("else")
	}
	if f.fault == "gap" && i == 2 {
		b.Span.From.Seq++
	}
	return sink.Send(ctx, b)
}

// after is the number of the first line after a position.
func after(p event.Position) int {
	i := 0
	for i < len(source) && int64(len(strings.Join(source[:i+1], " "))) <= p.Seq {
		i++
	}
	return i
}

func (f *fakeInput) Run(ctx context.Context, sink plugins.Sink) error {
	at, err := f.env.Streams.Open(ctx, plugins.Stream{Name: "s"})
	if err != nil {
		return nil //nolint:nilerr // the context is done
	}
	i := after(at)
	switch f.fault {
	case "believes itself":
		i = f.own[f.env.StateDir]
	case "begins anew":
		i = 0
	}
	for ; i < len(source); i++ {
		if err := f.line(ctx, sink, i); err != nil {
			if f.fault == "deaf when full" {
				<-f.block
			}
			return nil //nolint:nilerr // the context is done
		}
		f.own[f.env.StateDir] = i + 1
	}
	switch f.fault {
	case "leaks":
		go func() { <-f.block }()
	case "sends after its end":
		go func() {
			<-f.closed
			_ = f.line(context.WithoutCancel(ctx), sink, 0)
		}()
	}
	if f.env.Once {
		return nil
	}
	<-ctx.Done()
	if f.fault == "deaf" {
		<-f.block
	}
	return nil
}

func (f *fakeInput) Close() error {
	close(f.closed)
	return nil
}

// again is the same input, able to read again.
type again struct{ *fakeInput }

func (f again) CanReplay(context.Context, plugins.Stream, event.Position) error {
	if f.fault == "cannot replay" {
		return plugins.ErrGone
	}
	return nil
}

func (f again) Replay(ctx context.Context, _ plugins.Stream, from, to event.Position, sink plugins.Sink) error {
	i, end := after(from), after(to)
	switch f.fault {
	case "replays too little":
		end--
	case "replays from the beginning":
		i = 0
	}
	for ; i < end; i++ {
		if err := f.line(ctx, sink, i); err != nil {
			return err
		}
	}
	return nil
}

func TestInputSuiteFindsEachFaultAndOnlyIt(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	for _, c := range []struct {
		fault string
		rule  Rule
		text  string
	}{
		{"", "", ""},
		{"gap", RuleOrder, "after one to"},
		{"leaks", RuleGoroutines, "left behind"},
		{"deaf", RuleContext, "after its context is done"},
		{"deaf when full", RuleContext, "while the pipeline is full"},
		{"sends after its end", RuleContext, "sent after Run returned"},
		{"other when live", RuleSame, "Run sent the records"},
		{"cannot replay", RuleSettled, "CanReplay(s)"},
		{"replays too little", RuleSettled, "Replay(s) gave"},
		{"replays from the beginning", RuleSettled, "Replay(s) gave"},
		{"believes itself", RuleSettled, "with 0 of 4 batches settled"},
		{"begins anew", RuleSettled, "with 2 of 4 batches settled"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			own := map[string]int{}
			spec := plugins.InputSpec("fake", "", none{}, func(_ none, env plugins.Env) (plugins.Input, error) {
				return again{&fakeInput{env: env, fault: c.fault, block: block, closed: make(chan struct{}), own: own}}, nil
			})
			expect(t, c.fault, c.rule, c.text, func(tb TB) { Input(tb, spec, nil) })
		})
	}
}

// An input that cannot read again is held to the rest of the rules.
func TestInputWithoutReplay(t *testing.T) {
	spec := plugins.InputSpec("fake", "", none{}, func(_ none, env plugins.Env) (plugins.Input, error) {
		return &fakeInput{env: env, fault: "begins anew", closed: make(chan struct{}), own: map[string]int{}}, nil
	})
	expect(t, "no replay", "", "", func(tb TB) { Input(tb, spec, nil) })
}
