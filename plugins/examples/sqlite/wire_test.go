package main

import (
	"log/slog"
	"os"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

// TestMain makes the test's own program the plugin when it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("STACKTRAIL_PLUGIN") != "" {
		rpc.Serve(Spec)
		return
	}
	os.Exit(m.Run())
}

// The same suite once more, with all calls going through another process.
func TestConformanceOverTheWire(t *testing.T) {
	c := rpc.DefaultConfig()
	c.Path, _ = os.Executable()
	h := rpc.NewHost(c, slog.New(slog.DiscardHandler))
	defer h.Close()
	specs, err := h.Specs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What the connection itself has running is running before the suite looks for what was left behind.
	plugintest.Try(t.TempDir(), t.Logf, func(t plugintest.TB) { suite(t, specs[0]) })
	suite(t, specs[0])
}

func suite(t plugintest.TB, spec plugins.Spec) {
	plugintest.Output(t, spec, `{path: $DIR/events.db}`, plugintest.Observe(func(dir string) []byte { return []byte(ask(t, dir, "SELECT event FROM events ORDER BY id")) }))
}
