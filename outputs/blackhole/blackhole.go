// Package blackhole is an output that accepts everything and keeps nothing.
package blackhole

import (
	"context"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Config is the output's configuration.
type Config struct {
	Delay time.Duration `yaml:"delay" doc:"Pretend every write takes this long."`
}

// Spec describes the output to the agent.
var Spec = plugins.OutputSpec("blackhole", "Accept everything, keep nothing.", Config{}, New).Safe()

// New builds the output.
func New(c Config, _ plugins.Env) (plugins.Output, error) { return output{c.Delay}, nil }

type output struct{ delay time.Duration }

// Write waits for the delay and accepts the events.
func (o output) Write(ctx context.Context, _ []*event.Event) error {
	if o.delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(o.delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
