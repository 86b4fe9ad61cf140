// Program plugin is what P9 measures: a processor that sets one field of each event, and an output that keeps nothing, so that the way
// to another process and back is all that costs.
package main

import (
	"context"
	"runtime"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

type config struct{}

type plugin struct{}

// Process sets the query.
func (plugin) Process(_ context.Context, b *event.Batch) error {
	for i := range b.Events {
		b.Events[i].Query = "limit=***"
	}
	return nil
}

// Write keeps nothing.
func (plugin) Write(context.Context, []*event.Event) error { return nil }

func main() {
	runtime.GOMAXPROCS(1) // as the agent is measured; the agent gives a plugin no environment
	rpc.Serve(
		plugins.ProcessorSpec("touch", "Set the query.", config{}, func(config, plugins.Env) (plugins.Processor, error) { return plugin{}, nil }).Safe(),
		plugins.OutputSpec("void", "Keep nothing.", config{}, func(config, plugins.Env) (plugins.Output, error) { return plugin{}, nil }).Safe(),
	)
}
