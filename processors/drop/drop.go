// Package drop is a processor that drops the events for which a condition holds.
//
//	processors:
//	  - drop: {when: 'method == "OPTIONS" || path == "/healthcheck"'}
//
// The condition is an expression over the common schema and over the extra fields that inputs and earlier processors define.
// An event whose condition cannot be evaluated is kept and counted.
package drop

import (
	"context"
	"log/slog"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Config is the processor's configuration.
type Config struct {
	When string `yaml:"when" required:"true" doc:"Expression that is true for the events to drop."`
}

// Spec describes the processor to the agent.
var Spec = plugins.ProcessorSpec("drop", "Drop the events for which a condition holds.", Config{}, New).Safe()

// New builds the processor. A condition that does not compile is a conf.KeyError with an *eval.Error inside.
func New(c Config, env plugins.Env) (plugins.Processor, error) {
	when, err := eval.CompileCondition(c.When, env.Fields)
	if err != nil {
		return nil, conf.KeyError{Key: "when", Err: err}
	}
	return &processor{when: when, count: env.Count, log: env.Log}, nil
}

type processor struct {
	when  *eval.Condition
	count func(name, reason string, n int64)
	log   *slog.Logger
	said  bool // the first failure was logged
}

func (p *processor) Process(_ context.Context, b *event.Batch) error {
	var dropped, failed int64
	for i := range b.Events {
		e := &b.Events[i]
		if e.Dropped {
			continue
		}
		holds, err := p.when.Eval(e)
		switch {
		case err != nil:
			failed++
			p.say(err)
		case holds:
			e.Dropped = true
			dropped++
		}
	}
	p.add("dropped", dropped)
	p.add("eval_errors", failed)
	return nil
}

func (p *processor) add(name string, n int64) {
	if n > 0 && p.count != nil {
		p.count(name, "when", n)
	}
}

// say logs why a condition failed for the first time; the counter tells about the others.
func (p *processor) say(err error) {
	if p.said || p.log == nil {
		return
	}
	p.said = true
	p.log.Warn("condition failed, event kept", "when", p.when.String(), "error", err)
}
