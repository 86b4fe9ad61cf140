package agent

import (
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
)

func TestNewNamesForWhatTheCheckpointKnowsAreWarnedOf(t *testing.T) {
	t.Parallel()
	snap := &checkpoint.Snapshot{Pipelines: map[string]checkpoint.Pipeline{
		"p": {Streams: []checkpoint.Stream{{Input: "api", Name: "s"}}},
	}}
	conf := func(name string, inputs ...string) *config.Config {
		p := pipeline.Config{Name: name}
		for _, in := range inputs {
			p.Inputs = append(p.Inputs, pipeline.InputConfig{ID: in})
		}
		return &config.Config{Pipelines: []pipeline.Config{p}}
	}
	for _, test := range []struct {
		cfg  *config.Config
		want string // "": no warning
	}{
		{conf("p", "api"), ""},
		{conf("p", "api", "more"), ""},
		{conf("q", "api"), "pipeline q is new, and the checkpoint knows p"},
		{conf("p", "logs"), "input logs of pipeline p is new, and the checkpoint knows api"},
	} {
		got := strings.Join(renamed(snap, test.cfg), "\n")
		if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.cfg.Pipelines[0].Name, got, test.want)
		}
	}
	if got := renamed(&checkpoint.Snapshot{}, conf("p", "api")); got != nil {
		t.Errorf("a first start: %q", got)
	}
}
