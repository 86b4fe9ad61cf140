package drop_test

import (
	"testing"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
	"github.com/stacktrail/stacktrail/processors/drop"
)

func TestConformance(t *testing.T) {
	for _, cfg := range []string{`when: method == "GET" && api_response_code_int >= 300`, `when: 100 % api_response_code_int == 2`, `when: lower(path) contains "servers/1"`} {
		plugintest.Processor(t, drop.Spec, cfg)
	}
}
