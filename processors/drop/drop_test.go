package drop_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/processors/drop"
)

func process(t *testing.T, when string, fields map[string]event.Kind, b *event.Batch) map[string]int64 {
	t.Helper()
	counts := map[string]int64{}
	p, err := drop.New(drop.Config{When: when}, plugins.Env{
		Fields: fields,
		Count:  func(name, reason string, n int64) { counts[name+" "+reason] += n },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return counts
}

func paths(b *event.Batch) string {
	var kept []string
	for i := range b.Events {
		if !b.Events[i].Dropped {
			kept = append(kept, b.Events[i].Path)
		}
	}
	return strings.Join(kept, " ")
}

func batch(paths ...string) *event.Batch {
	b := event.NewBatch("s")
	for _, p := range paths {
		b.Append().Path = p
	}
	return b
}

func TestDropsWhereTheConditionHolds(t *testing.T) {
	b := batch("/a", "/healthcheck", "/b", "/healthcheck")
	counts := process(t, `path == "/healthcheck"`, nil, b)
	if got := paths(b); got != "/a /b" {
		t.Errorf("kept %q", got)
	}
	if want := "map[dropped when:2]"; fmt.Sprint(counts) != want {
		t.Errorf("counted %v, want %s", counts, want)
	}
}

func TestEventsDroppedBeforeAreLeftAlone(t *testing.T) {
	b := batch("/a", "/b")
	b.Events[0].Dropped = true
	if counts := process(t, `path == "/a"`, nil, b); len(counts) != 0 {
		t.Errorf("counted %v", counts)
	}
}

func TestFailedConditionKeepsTheEvent(t *testing.T) {
	b := batch("/a", "/b")
	b.Events[0].SetStatus(0)
	b.Events[1].SetStatus(7)
	counts := process(t, `100 % api_response_code_int == 2`, nil, b)
	if got := paths(b); got != "/a" {
		t.Errorf("kept %q", got)
	}
	if want := "map[dropped when:1 eval_errors when:1]"; fmt.Sprint(counts) != want {
		t.Errorf("counted %v, want %s", counts, want)
	}
}

func TestExtraFieldsAreKnownByName(t *testing.T) {
	b := batch("/a", "/b")
	b.Events[1].Set("region", event.StringValue("eu"))
	process(t, `region == "eu"`, map[string]event.Kind{"region": event.String}, b)
	if got := paths(b); got != "/a" {
		t.Errorf("kept %q", got)
	}
}

func TestBadConditionIsAnErrorOfItsKey(t *testing.T) {
	_, err := drop.New(drop.Config{When: `pth == "/a"`}, plugins.Env{})
	var key conf.KeyError
	var at *eval.Error
	if !errors.As(err, &key) || key.Key != "when" || !errors.As(err, &at) || at.Suggestion != "path" {
		t.Errorf("got %v", err)
	}
}

func TestProcessAllocatesNothing(t *testing.T) {
	p, err := drop.New(drop.Config{When: `method == "OPTIONS" || path == "/healthcheck"`}, plugins.Env{})
	if err != nil {
		t.Fatal(err)
	}
	b := batch("/a", "/b")
	if n := testing.AllocsPerRun(100, func() { _ = p.Process(t.Context(), b) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkProcess(b *testing.B) {
	p, err := drop.New(drop.Config{When: `method == "OPTIONS" || path == "/healthcheck"`}, plugins.Env{})
	if err != nil {
		b.Fatal(err)
	}
	x := event.NewBatch("s")
	for range 1024 {
		e := x.Append()
		e.Method, e.Path = "GET", "/v2.1/servers"
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Process(b.Context(), x); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/event")
}
