package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// maskConfig is the configuration of the processor below.
type maskConfig struct {
	Pattern string `yaml:"pattern" required:"true" doc:"Go regular expression to mask in the query."`
	With    string `yaml:"with" doc:"What stands in its place."`
}

type mask struct {
	re   *regexp.Regexp
	with string
}

// newMask looks at the configuration and touches nothing outside.
func newMask(c maskConfig, _ plugins.Env) (plugins.Processor, error) {
	re, err := regexp.Compile(c.Pattern)
	if err != nil {
		return nil, conf.KeyError{Key: "pattern", Err: err}
	}
	return mask{re, c.With}, nil
}

// Process changes the events in place.
func (m mask) Process(_ context.Context, b *event.Batch) error {
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped {
			e.Query = m.re.ReplaceAllString(e.Query, m.with)
		}
	}
	return nil
}

// A processor, whole. The conformance suite has nothing to say against it; in a test it is
//
//	func TestConformance(t *testing.T) { plugintest.Processor(t, spec, `pattern: limit=\d+`) }
func ExampleProcessorSpec() {
	spec := plugins.ProcessorSpec("mask", "Mask a pattern in the query.", maskConfig{With: "***"}, newMask).Safe()

	prove(func(t plugintest.TB) {
		plugintest.Processor(t, spec, `pattern: limit=\d+`)

		p := plugintest.Build(t, spec, `pattern: limit=\d+`).Plugin.(plugins.Processor)
		b := plugintest.Events(3)
		fmt.Println("before:", b.Events[2].Query)
		fmt.Println("error: ", p.Process(context.Background(), b))
		fmt.Println("after: ", b.Events[2].Query)
	})
	// Output:
	// before: limit=6
	// error:  <nil>
	// after:  ***
	// findings: 0
}

// only takes requests to one service.
type only struct{ service string }

// errOther is why others are refused.
var errOther = errors.New("no request to this service")

// Write says of each event that it does not take why, by its index: the rest are safe.
func (o only) Write(ctx context.Context, events []*event.Event) error {
	failed := map[int]error{}
	for i, e := range events {
		if e.Service != o.service {
			failed[i] = &plugins.PermanentError{Err: errOther}
		}
	}
	if len(failed) > 0 {
		return &plugins.PartialError{Failed: failed}
	}
	return ctx.Err()
}

// An output that refuses some events for good: these go to the dead letter, and the others are settled.
func ExamplePartialError() {
	b := plugintest.Events(3)
	b.Events[1].Service = "cinder"
	err := only{"nova"}.Write(context.Background(), []*event.Event{&b.Events[0], &b.Events[1], &b.Events[2]})
	fmt.Println(err)
	var permanent *plugins.PermanentError
	if partial, ok := errors.AsType[*plugins.PartialError](err); ok {
		fmt.Println("event 1 dies:", errors.As(partial.Failed[1], &permanent))
	}
	// Output:
	// 1 events failed, the first: no request to this service
	// event 1 dies: true
}

// An output, whole. Without an error all that it was given is safe at the far end.
func ExampleOutputSpec() {
	type config struct {
		Service string `yaml:"service" doc:"The service whose requests are taken."`
	}
	spec := plugins.OutputSpec("only", "Take the requests to one service.", config{Service: "nova"}, func(c config, _ plugins.Env) (plugins.Output, error) {
		return only{c.Service}, nil
	}).Safe()

	prove(func(t plugintest.TB) {
		plugintest.Output(t, spec, nil, plugintest.Batches(func() []*event.Batch {
			return []*event.Batch{plugintest.Events(9)} // all of them to nova
		}))
	})
	// Output:
	// findings: 0
}

// three is an input that has three records, which it can read again whenever it is asked to.
type three struct{ env plugins.Env }

// Run reads on where the checkpoint says.
func (in three) Run(ctx context.Context, sink plugins.Sink) error {
	at, err := in.env.Streams.Open(ctx, plugins.Stream{Name: "three", Lane: "three"})
	if err != nil {
		return err
	}
	if err := in.send(ctx, sink, at.Seq, 3); err != nil || in.env.Once {
		return err
	}
	<-ctx.Done() // nothing will come any more
	return nil
}

// CanReplay says that everything is still there.
func (in three) CanReplay(context.Context, plugins.Stream, event.Position) error { return nil }

// Replay sends a part of the stream again.
func (in three) Replay(ctx context.Context, _ plugins.Stream, from, to event.Position, sink plugins.Sink) error {
	return in.send(ctx, sink, from.Seq, to.Seq)
}

// send sends each record in a batch of its own.
func (in three) send(ctx context.Context, sink plugins.Sink, from, to int64) error {
	for n := from; n < to; n++ {
		b, err := in.env.Pool.Get(ctx, 64) // waits while memory is in use
		if err != nil {
			return err
		}
		b.Stream, b.Span = "three", event.Span{From: event.Position{Seq: n}, To: event.Position{Seq: n + 1}}
		e := b.Append()
		e.Raw, e.Offset = fmt.Appendf(b.Arena().Alloc(16)[:0], "record %d", n), n
		if err := sink.Send(ctx, b); err != nil { // b is the sink's now
			return err
		}
	}
	return nil
}

// An input, whole, with everything that makes a restart lose and repeat nothing.
func ExampleInputSpec() {
	spec := plugins.InputSpec("three", "Have three records.", struct{}{}, func(_ struct{}, env plugins.Env) (plugins.Input, error) {
		return three{env}, nil
	}).Safe()

	prove(func(t plugintest.TB) { plugintest.Input(t, spec, nil) })
	// Output:
	// findings: 0
}

// prove runs suites as a command does, and prints what they found.
func prove(suites func(plugintest.TB)) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	found := plugintest.Try(dir, func(string, ...any) {}, suites)
	for _, f := range found {
		fmt.Println(f.Rule, f.Text)
	}
	fmt.Println("findings:", len(found))
}
