package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Processor(t, Spec, `{pattern: 'limit=\d+', fields: [query, message]}`)
}

// run shows events to the plugin and returns what it counted.
func run(t *testing.T, cfg string, env plugins.Env, events ...event.Event) (b *event.Batch, counted map[string]int64) {
	t.Helper()
	counted = map[string]int64{}
	in := plugintest.Build(t, Spec, cfg, plugintest.Env(func(e *plugins.Env) {
		e.Fields = env.Fields
		e.Count = func(name, reason string, n int64) { counted[name+" "+reason] += n }
	}))
	b = event.NewBatch("s")
	for _, e := range events {
		x := b.Append()
		x.Query, x.Path, x.Referer, x.Extra, x.Dropped = e.Query, e.Path, e.Referer, e.Extra, e.Dropped
	}
	if err := in.Plugin.(plugins.Processor).Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b, counted
}

func TestMasksEveryMatchInTheNamedFieldsOnly(t *testing.T) {
	b, counted := run(t, `{pattern: 'password=[^&]+', fields: [query, message]}`, plugins.Env{},
		event.Event{Query: "password=sesame&a=1&password=tiger", Path: "/password=sesame"},
		event.Event{Query: "a=1", Extra: []event.Field{{Key: "message", Value: event.StringValue("GET /?password=sesame")}}},
		event.Event{Query: "a=1"},
	)
	if got := b.Events[0].Query + " " + b.Events[0].Path; got != "***&a=1&*** /password=sesame" {
		t.Errorf("got %q", got)
	}
	if v, _ := b.Events[1].Get("message"); v.Str() != "GET /?***" {
		t.Errorf("message is %q", v.Str())
	}
	if got := fmt.Sprint(counted); got != "map[masked message:1 masked query:1]" {
		t.Errorf("counted %s", got)
	}
}

func TestGroupsCanBeKept(t *testing.T) {
	b, _ := run(t, `{pattern: '(?i)\b(password|token)=[^&]+', with: '$1=gone'}`, plugins.Env{}, event.Event{Query: "a=1&Token=sesame", Referer: "https://example.org/?password=x"})
	if got := b.Events[0].Query + " " + b.Events[0].Referer; got != "a=1&Token=gone https://example.org/?password=gone" {
		t.Errorf("got %q", got)
	}
}

func TestDroppedEventsAreLeftAlone(t *testing.T) {
	b, counted := run(t, `pattern: sesame`, plugins.Env{}, event.Event{Query: "sesame", Dropped: true})
	if b.Events[0].Query != "sesame" || len(counted) != 0 {
		t.Errorf("query %q, counted %v", b.Events[0].Query, counted)
	}
}

func TestFieldsOfEarlierPluginsHaveNames(t *testing.T) {
	b, _ := run(t, `{pattern: sesame, fields: [ticket]}`, plugins.Env{Fields: map[string]event.Kind{"ticket": event.String}},
		event.Event{Extra: []event.Field{{Key: "ticket", Value: event.StringValue("a sesame b")}}})
	if v, _ := b.Events[0].Get("ticket"); v.Str() != "a *** b" {
		t.Errorf("ticket is %q", v.Str())
	}
}

func TestAFaultIsSaidAtItsKey(t *testing.T) {
	for _, c := range []struct {
		cfg       Config
		key, says string
	}{
		{Config{Pattern: "["}, "pattern", "missing closing ]"},
		{Config{Pattern: "x*"}, "pattern", "matches the empty text"},
		{Config{Pattern: "x"}, "fields", "nothing to look at"},
		{Config{Pattern: "x", Fields: []string{"query", "qurey"}}, "fields[1]", `no field "qurey"`},
		{Config{Pattern: "x", Fields: []string{"api_response_code_int"}}, "fields[0]", "with text"},
		{Config{Pattern: "x", Fields: []string{"event_id"}}, "fields[0]", "can be changed"},
	} {
		_, err := New(c.cfg, plugins.Env{})
		var key conf.KeyError
		if !errors.As(err, &key) || key.Key != c.key || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: got %v, want %s at %s", c.cfg, err, c.says, c.key)
		}
	}
}

func BenchmarkProcess(b *testing.B) {
	p, err := New(Config{Pattern: `password=[^&]+`, Fields: []string{"query"}, With: "***"}, plugins.Env{Count: func(string, string, int64) {}})
	if err != nil {
		b.Fatal(err)
	}
	x := plugintest.Events(1000)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Process(b.Context(), x); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}
