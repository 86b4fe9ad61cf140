package enrich_test

import (
	"testing"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
	"github.com/stacktrail/stacktrail/processors/enrich"
)

func TestConformance(t *testing.T) {
	for _, cfg := range []string{
		`{set: {zone: '"RegionOne"', slow_bool: api_response_time_num > 0.01, user: 'user ?? request_id', path: upper(path)}, rename: {zone: region}, remove: [query]}`,
		`{rename: {path: was, was: path}}`,
	} {
		plugintest.Processor(t, enrich.Spec, cfg)
	}
}
