package http

import (
	nethttp "net/http"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// One server takes everything, another never answers.
func TestConformance(t *testing.T) {
	open := serve(t, status(nethttp.StatusAccepted))
	end := make(chan struct{})
	silent := serve(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		select {
		case <-r.Context().Done():
		case <-end:
		}
	})
	defer close(end)
	plugintest.Output(t, Spec, "url: "+open.URL, plugintest.Stuck("url: "+silent.URL))
}
