package main

import (
	"context"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Input(t, Spec, `{argv: [/bin/sh, -c, "echo one; echo two; head -c 100000 /dev/zero | tr '\\0' x; echo; echo four"], every: 1h}`)
}

// Neither the program nor what it started outlives Run.
func TestAProgramThatGoesOnEndsWithTheContext(t *testing.T) {
	in := plugintest.Build(t, Spec, `{argv: [/bin/sh, -c, "echo one; sleep 3600; echo two"]}`).Plugin.(plugins.Input)
	ctx, cancel := context.WithCancel(t.Context())
	sink, done := plugintest.NewSink(), make(chan error)
	go func() { done <- in.Run(ctx, sink) }()
	if !sink.Wait(1) {
		t.Error("the first line did not come while the program ran")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
