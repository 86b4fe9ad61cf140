package pipeline

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// TestTheLogNamesTheProcessorInWhichAnEventDied: in each of the two lines, and the output's own dead letter names the output.
func TestTheLogNamesTheProcessorInWhichAnEventDied(t *testing.T) {
	t.Parallel()
	pass := funcProcessor(func(*event.Batch) error { return nil })
	bad := funcProcessor(func(b *event.Batch) error {
		for i := range b.Events {
			if b.Events[i].Offset == 3 {
				return errors.New("cannot digest this")
			}
		}
		return nil
	})
	build := func(p funcProcessor) func(plugins.Env) (plugins.Processor, error) {
		return func(plugins.Env) (plugins.Processor, error) { return p, nil }
	}
	r := newRig(t, Config{
		Name: "p", Inputs: []InputConfig{inputConfig(&numbers{streams: []string{"s"}, n: 10, batch: 20})},
		Processors: []ProcessorConfig{{ID: "good", Build: build(pass)}, {ID: "greedy", Build: build(bad)}},
		Outputs: []OutputConfig{outputConfig("picky", func(plugins.Env) (plugins.Output, error) {
			return &memory{far: &far{}, answer: func(events []*event.Event) error {
				if len(events) == 1 && events[0].Offset == 5 {
					return &plugins.PermanentError{Err: errors.New("no fives")}
				}
				for i, e := range events {
					if e.Offset == 5 {
						return &plugins.PartialError{Failed: map[int]error{i: &plugins.PermanentError{Err: errors.New("no fives")}}}
					}
				}
				return nil
			}}, nil
		})},
	})
	var log bytes.Buffer
	r.log = &log
	r.runOnce()
	for _, want := range []string{
		`level=ERROR msg="an event died in a processor" pipeline=p id=greedy `,
		`level=WARN msg="events went to the dead letter" pipeline=p id=greedy count=1 `,
		`level=WARN msg="events went to the dead letter" pipeline=p id=picky count=1 `,
	} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), `id=""`) {
		t.Errorf("somebody has no name:\n%s", log.String())
	}
}
