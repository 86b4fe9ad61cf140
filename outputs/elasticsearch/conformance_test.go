package elasticsearch

import (
	"net/http"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// One server takes everything, another never answers. What stands at the far end is compared with real servers, in TestContract.
func TestConformance(t *testing.T) {
	open, silent := newFake(t), newFake(t)
	open.answer(created)
	end := make(chan struct{})
	silent.answer(func(_ http.ResponseWriter, r *http.Request, _ []string) {
		select {
		case <-r.Context().Done():
		case <-end:
		}
	})
	defer close(end)
	plugintest.Output(t, Spec, fakeConfig(open.URL), plugintest.Stuck(fakeConfig(silent.URL)))
}
