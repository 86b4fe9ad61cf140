package enrich_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
	"github.com/stacktrail/stacktrail/processors/enrich"
)

func config(t testing.TB, yaml string) enrich.Config {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(yaml))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	c, faults := conf.Decode(n, enrich.Spec.Defaults.(enrich.Config))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

// run processes one event and returns what was counted.
func run(t *testing.T, yaml string, fields map[string]event.Kind, e *event.Event) map[string]int64 {
	t.Helper()
	counts := map[string]int64{}
	p, err := enrich.New(config(t, yaml), plugins.Env{
		Fields: fields,
		Count:  func(name, reason string, n int64) { counts[name+" "+reason] += n },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Process(t.Context(), e.Batch()); err != nil {
		t.Fatal(err)
	}
	return counts
}

func request() *event.Event {
	e := event.NewBatch("s").Append()
	e.Method, e.Path, e.UserID = "GET", "/v2.1/servers", "u1"
	e.SetStatus(503)
	e.SetDuration(2500 * time.Millisecond)
	return e
}

func expect(t *testing.T, e *event.Event, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got := schema.Get(e, name).Text(); got != text {
			t.Errorf("%s = %q, want %q", name, got, text)
		}
	}
}

func TestSetsRenamesAndRemovesInThisOrder(t *testing.T) {
	e := request()
	counts := run(t, `
remove: [method, region]
rename: {slow_bool: late_bool, path: route}
set:
  region: '"RegionOne"'
  label: region + "/" + method
  slow_bool: api_response_time_num > 2
  user: user ?? user_id
  api_response_time_num: api_response_code_int
  twice: api_response_code_int * 2
`, nil, e)
	expect(t, e, map[string]string{
		"label": "RegionOne/GET", "late_bool": "true", "slow_bool": "", "user": "u1", "route": "/v2.1/servers", "path": "",
		"method": "", "region": "", "api_response_time_num": "503", "twice": "1006",
	})
	if len(counts) != 0 {
		t.Errorf("counted %v", counts)
	}
}

func TestSetsHappenInTheOrderOfTheFile(t *testing.T) {
	e := request()
	var yaml, want strings.Builder
	yaml.WriteString("set:\n  f0: '\"0\"'\n")
	want.WriteString("0")
	for i := 1; i < 20; i++ {
		fmt.Fprintf(&yaml, "  f%d: f%d + \"%d\"\n", i, i-1, i%10)
		fmt.Fprintf(&want, "%d", i%10)
	}
	run(t, yaml.String(), nil, e)
	expect(t, e, map[string]string{"f19": want.String()})
}

func TestFieldsDefinedEarlierAreKnownByName(t *testing.T) {
	e := request()
	e.Set("tries_int", event.IntValue(3))
	run(t, `{set: {tries_int: tries_int + 1}, rename: {tries_int: attempts_int}}`, map[string]event.Kind{"tries_int": event.Int}, e)
	expect(t, e, map[string]string{"attempts_int": "4", "tries_int": ""})
}

func TestAbsentValueRemovesTheField(t *testing.T) {
	e := request()
	run(t, `set: {path: user, method: nil, api_response_code_int: api_response_size_int}`, nil, e)
	expect(t, e, map[string]string{"path": "", "method": "", "api_response_code_int": ""})
}

func TestFailedSetLeavesTheFieldAloneAndIsCounted(t *testing.T) {
	e := request()
	e.Set("loose", event.StringValue("text"))
	counts := run(t, `
set:
  api_response_code_int: api_response_code_int % 0
  api_response_size_int: field("loose")
  level: 9223372036854775807
rename: {loose: process_id_int}
`, nil, e)
	expect(t, e, map[string]string{
		"api_response_code_int": "503", "api_response_size_int": "", "level": "", "process_id_int": "", "loose": "text",
	})
	want := "map[eval_errors rename.loose:1 eval_errors set.api_response_code_int:1 " +
		"eval_errors set.api_response_size_int:1 eval_errors set.level:1]"
	if fmt.Sprint(counts) != want {
		t.Errorf("counted %v, want %s", counts, want)
	}
}

func TestDroppedEventsAreLeftAlone(t *testing.T) {
	e := request()
	e.Dropped = true
	run(t, `remove: [path]`, nil, e)
	expect(t, e, map[string]string{"path": "/v2.1/servers"})
}

func TestRenameOfAnAbsentFieldChangesNothing(t *testing.T) {
	e := request()
	run(t, `rename: {user: user_id}`, nil, e)
	expect(t, e, map[string]string{"user_id": "u1"})
}

func TestWhatIsWrongIsNamedByItsKey(t *testing.T) {
	for _, c := range []struct{ yaml, key, message string }{
		{`set: {path: pth}`, "set.path", `did you mean "path"`},
		{`set: {region: RegionOne}`, "set.region", `'"RegionOne"'`},
		{`set: {path: 1 + 2}`, "set.path", "path holds values of type string, this is int"},
		{`set: {api_response_code_int: 1.5}`, "set.api_response_code_int", "type int"},
		{`set: {"a b": pth}`, `set["a b"]`, "unknown name"},
		{`rename: {usr: x}`, "rename.usr", `did you mean "user"`},
		{`rename: {path: level}`, "rename.path", "level holds values of type int"},
		{`remove: [path, paht]`, "remove[1]", "unknown field"},
	} {
		_, err := enrich.New(config(t, c.yaml), plugins.Env{})
		var key conf.KeyError
		if !errors.As(err, &key) || key.Key != c.key || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v, want %s: %s", c.yaml, err, c.key, c.message)
		}
	}
	_, err := enrich.New(config(t, `set: {a: pth, b: '1 +', c: path}`), plugins.Env{})
	var at *eval.Error
	if !errors.As(err, &at) || !strings.Contains(err.Error(), "set.a") || !strings.Contains(err.Error(), "set.b") {
		t.Errorf("not all faults are reported: %v", err)
	}
}

func TestConfigRefusesWhatNoFieldsCouldMakeRight(t *testing.T) {
	for yaml, place := range map[string]string{
		`set: {event_id: path}`:        "event_id cannot be changed",
		`set: {schema_version: '"2"'}`: "schema_version cannot be changed",
		`remove: [log_offset_int]`:     "remove[0]: log_offset_int",
		`rename: {path: event_id}`:     "event_id cannot be changed",
		`rename: {event_id: id}`:       "event_id cannot be changed",
		`rename: {path: path}`:         "the new name is the old one",
		`set: [a]`:                     "set: expected a section",
		`set: {a: [1]}`:                "set.a: expected a text",
		`set: {a: }`:                   "set.a: expected a text",
		`remove: [""]`:                 "a field needs a name",
	} {
		n, faults := conf.Parse("test.yaml", []byte(yaml))
		if faults != nil {
			t.Fatal(faults)
		}
		_, faults = conf.Decode(n, enrich.Config{})
		if !strings.Contains(faults.Error(), place) {
			t.Errorf("%s: %q, want %q", yaml, faults.Error(), place)
		}
	}
}

func TestFaultsStandAtTheirLine(t *testing.T) {
	n, faults := conf.Parse("test.yaml", []byte("set:\n  a: path\n  event_id: path\n"))
	if faults != nil {
		t.Fatal(faults)
	}
	_, faults = conf.Decode(n, enrich.Config{})
	if len(faults) != 1 || faults[0].Line != 3 {
		t.Errorf("got %v", faults)
	}
}

func TestDefinedFieldsHaveTheirKinds(t *testing.T) {
	c := config(t, `
set: {a: '"x"', b: a + "y", c: earlier > 2, d: earlier, e: 1, path: '"/"', gone: 1, f: this is bad}
rename: {e: g, path: h}
remove: [gone]
`)
	want := map[string]event.Kind{
		"a": event.String, "b": event.String, "c": event.Bool, "d": event.Absent, "f": event.Absent, "g": event.Int, "h": event.String,
	}
	if got := c.DefinedFields(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var _ plugins.FieldDefiner = c
}

// The JSON encoder copies views of a clean block unread where the parser promised that no fixed field holds a quote.
func TestQuotedTextInAFixedFieldIsNoViewOfTheBlock(t *testing.T) {
	for _, yaml := range []string{`set: {path: original}`, `rename: {original: path}`, `set: {path: 'has(user) ? user : original'}`} {
		b := event.NewBatch("s")
		const raw = `GET "/x"`
		block := b.Arena().Block(len(raw))
		copy(block, raw)
		view := event.View(block)
		e := b.Append()
		e.Plain = true
		schema.Set(e, "original", event.StringValue(view))
		if !b.Contains(view) {
			t.Fatal("the test's view is not in the block")
		}
		run(t, yaml, nil, e)
		if e.Path != raw || b.Contains(e.Path) {
			t.Errorf("%s: path = %q, a view of the block: %v", yaml, e.Path, b.Contains(e.Path))
		}
	}
}

func TestProcessDoesNotGrow(t *testing.T) {
	p, err := enrich.New(config(t, `set: {region: '"RegionOne"', slow_bool: api_response_time_num > 2}`), plugins.Env{})
	if err != nil {
		t.Fatal(err)
	}
	b := request().Batch()
	if n := testing.AllocsPerRun(100, func() { _ = p.Process(t.Context(), b) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkProcess(b *testing.B) {
	p, err := enrich.New(config(b, `set: {region: '"RegionOne"', slow_bool: api_response_time_num > 2}`), plugins.Env{})
	if err != nil {
		b.Fatal(err)
	}
	x := event.NewBatch("s")
	for range 1024 {
		x.Append().SetDuration(time.Second)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Process(b.Context(), x); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/event")
}
