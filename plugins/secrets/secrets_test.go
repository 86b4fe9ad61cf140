package secrets

import (
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func record(line, client, query string) *event.Event {
	b := event.NewBatch("s")
	block := b.Arena().Block(len(line))
	copy(block, line)
	e := b.Append()
	e.Raw = block
	at := func(s string) string {
		i := strings.Index(line, s)
		return event.View(block[i : i+len(s)])
	}
	e.Client, e.Query = at(client), at(query)
	return e
}

// What is found in place says nothing of other fields, else it stands nowhere.
func TestInPlaceIsInPlace(t *testing.T) {
	t.Parallel()
	const line = "192.0.2.77 GET /x?access_token=192.0.2.77"
	e := record(line, "192.0.2.77", "access_token=192.0.2.77")
	if done := New(Options{Detect: All, InPlace: true}).Event(e); done != Changed || e.Client != "192.0.2.77" || e.Query != "access_token=***" || string(e.Raw) != "192.0.2.77 GET /x?access_token=***" {
		t.Errorf("%d: client %q, query %q, %q", done, e.Client, e.Query, e.Raw)
	}
	e = record(line, "192.0.2.77", "access_token=192.0.2.77")
	if done := New(Options{Detect: All}).Event(e); done != Changed || e.Client != "***" || e.Query != "access_token=***" || string(e.Raw) != "*** GET /x?access_token=***" {
		t.Errorf("%d: client %q, query %q, %q", done, e.Client, e.Query, e.Raw)
	}
}

func TestSeesWhatItWouldFind(t *testing.T) {
	t.Parallel()
	r := New(Options{Detect: All})
	for text, want := range map[string]bool{"limit=1&marker=6a1b2c3d": false, "access_token=x": true, "access%5ftoken=x": true, "/v3/auth/tokens": true, "": false} {
		if r.Sees(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
