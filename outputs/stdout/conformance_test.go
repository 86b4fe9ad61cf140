package stdout

import (
	"os"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// A pipe that nobody reads takes 64 KiB at most, and then nothing.
func TestConformanceWithAPipeThatNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for err == nil { // until it is full
		if err = w.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
			_, err = w.Write(make([]byte, pipeRoom))
		}
	}
	devNull, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	spec := plugins.OutputSpec("stdout", "", Config{}, func(c Config, env plugins.Env) (plugins.Output, error) {
		if c.Pretty {
			return build(c, env, file{w}), nil
		}
		return build(c, env, file{devNull}), nil
	})
	plugintest.Output(t, spec, nil, plugintest.Stuck("pretty: true"))
}
