package blackhole

import (
	"testing"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Output(t, Spec, nil, plugintest.Stuck("delay: 1h"))
}
