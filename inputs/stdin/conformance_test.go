package stdin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := Spec
	build := spec.New
	spec.New = func(cfg any, env plugins.Env) (any, error) {
		p, err := build(cfg, env)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = f.Close() })
		p.(*input).in = f
		return p, nil
	}
	plugintest.Input(t, spec, "{}")
}
