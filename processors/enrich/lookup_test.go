package enrich

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path, text, 0)
	return path
}

// write replaces a file as careful programs do; age tells its versions apart.
func write(t testing.TB, path, text string, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(age)
	if err := errors.Join(os.Chtimes(path+".new", at, at), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func decodeYAML(t testing.TB, yaml string) (Config, conf.Faults) {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(yaml))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return conf.Decode(n, Config{})
}

func buildLookup(t testing.TB, yaml string, env plugins.Env) *processor {
	t.Helper()
	c, faults := decodeYAML(t, yaml)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	p, err := New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*processor)
}

const projects = "id,name,tier,speed,active\np1,\"Acme, \"\"Ltd\"\"\",3,1.5,true\np2,Umbrella,,,false\n\"p\n3\",x,1,1,true\n"

func TestLookupContract(t *testing.T) {
	path := file(t, "paths.csv", "path,team\n/v2.1/servers/0,blue\n/v2.1/servers/1,red\n")
	plugintest.Processor(t, Spec, "{lookup: {table: "+path+", on: path, key: path, set: {team: team}}}")
}

func TestLookupSetsTypedFields(t *testing.T) {
	t.Parallel()
	csv := file(t, "projects.csv", "\ufeff"+projects)
	json := file(t, "projects.json", `[{"id": "p1", "name": "Acme, \"Ltd\"", "tier": 3, "speed": 1.5, "active": true}, {"active": false, "id": "p2", "name": "Umbrella", "tier": null}]`)
	for _, path := range []string{csv, json} {
		counts := map[string]int64{}
		p := buildLookup(t, `
lookup:
  table: `+path+`
  on: project_id
  key: id
  set: {project_name: name, tier_int: tier, api_response_time_num: speed, active_bool: active, label: tier}
set: {both: 'project_name + "/" + label', high_bool: tier_int > 2}
`, plugins.Env{Count: func(name, reason string, n int64) { counts[name+" "+reason] += n }})
		b := event.NewBatch("s")
		for _, id := range []string{"p1", "p2", "p9", ""} {
			e := b.Append()
			e.ProjectID = id
			e.Set("label", event.StringValue("old"))
		}
		if err := p.Process(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for i := range b.Events {
			e := &b.Events[i]
			for _, name := range []string{"project_name", "tier_int", "api_response_time_num", "active_bool", "label", "both", "high_bool"} {
				v := schema.Get(e, name)
				fmt.Fprintf(&out, "%s %s|", v.Kind(), v.Text())
			}
			out.WriteString("\n")
		}
		const want = "string Acme, \"Ltd\"|int 3|float 1.5|bool true|string 3|string Acme, \"Ltd\"/3|bool true|\n" +
			"string Umbrella|absent |absent |bool false|string old|string Umbrella/old|bool false|\n" +
			"absent |absent |absent |absent |string old|string /old|bool false|\n" +
			"absent |absent |absent |absent |string old|string /old|bool false|\n"
		if got := out.String(); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", path, got, want)
		}
		if fmt.Sprint(counts) != "map[lookup_missing project_id:1]" {
			t.Errorf("counted %v", counts)
		}
	}
}

func TestFaultyTablesAreFaultsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, lookup, want string }{
		{"a.csv", "id,name\n1,a\n2,b\n1,c\n", "", `2:3: lookup.table: FILE:4: "1" stands in line 2 already`},
		{"a.csv", "id,name\n\"1\n2\",a\n1,b\n1,c\n", "", `FILE:5: "1" stands in line 4 already`},
		{"a.csv", "id,nam\n1,a\n", "", `4:9: lookup.set.x: FILE has no column "name" (did you mean "nam"?)`},
		{"a.csv", "key,name\n1,a\n", "", `3:3: lookup.key: FILE has no column "id" (it has key, name)`},
		{"a.csv", "id,name\n", "", "FILE: the table has no rows"},
		{"a.csv", "", "", "FILE: the table has no rows"},
		{"a.csv", "id,name\n1,a\n2\n", "", "FILE:3: 1 cells where the first line has 2"},
		{"a.csv", "id,name\n1,a\n2,\"b\n", "", `FILE:3: column 6: extraneous or missing " in quoted-field`},
		{"a.csv", "id,id\n1,a\n", "", `FILE:1: two columns are named "id"`},
		{"a.csv", "id,name\n1,a\n,b\n", "", `FILE:3: column "id" is empty`},
		{"a.csv", "id,name\n1,a\n2,b\n", "x_int: name", `FILE:2: column "name": "a" is no whole number, as x_int wants`},
		{"a.csv", "id,name\n1,1e999\n", "x_num: name", `"1e999" is no number`},
		{"a.csv", "id,name\n1,yes\n", "x_bool: name", `"yes" is neither true nor false`},
		{"a.csv", "id,name\n1,a\n", "timestamp: name", "holds values of type time"},
		{"a.csv", "id,name\n1,a\n", "event_id: name", "event_id cannot be changed"},
		{"a.json", "[{\"id\": 1, \"name\": \"a\"},\n {\"id\": 1}]", "", `FILE:2: "1" stands in line 1 already`},
		{"a.json", "[\n{\"id\": 1,\n \"name\": [2]}]", "", `FILE:3: "name" holds a list or an object`},
		{"a.json", "[\n{\"id\": 1,\n name: 2}]", "", "FILE:3: invalid character 'n'"},
		{"a.json", "[\n{\"id\": 1, \"id\": 2}]", "", `FILE:2: "id" stands twice in one object`},
		{"a.json", "{\"a\": {}}", "", "FILE:1: expected a list of flat objects"},
		{"a.json", "[1]", "", "FILE:1: expected a list of flat objects"},
		{"a.json", "[{\"id\": 1, \"name\": 2},\n\n{\"id\"", "", "FILE:3: the JSON ends too early"},
		{"a.json", "", "", "FILE:1: the JSON ends too early"},
		{"a.json", "[]", "", "FILE: the table has no rows"},
		{"a.json", "[{\"id\": 1, \"name\": 2}]\nx", "", "FILE:2: something follows the list"},
		{"a.json", "[{\"id\": \"\", \"name\": 2}]", "", `FILE:1: column "id" is empty`},
		{"a.txt", "id,name\n1,a\n", "", "ends in .csv or .json"},
		{"a.csv", strings.Repeat("x", maxTable+1), "", "larger than 16MiB"},
	} {
		path := file(t, c.name, c.text)
		if c.lookup == "" {
			c.lookup = "x: name"
		}
		_, faults := decodeYAML(t, "lookup:\n  table: "+path+"\n  key: id\n  set: {"+c.lookup+"}\n  on: project_id\n")
		if len(faults) != 1 {
			t.Errorf("%s %.40q: %v", c.name, c.text, faults)
			continue
		}
		if got := strings.ReplaceAll(faults.Error(), path, "FILE"); !strings.Contains(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s %.40q: %s\nwant %s", c.name, c.text, got, c.want)
		}
	}
	for yaml, want := range map[string]string{
		"{table: /none/a.csv, on: path, key: k, set: {x: y}}":           "reading /none/a.csv: no such file",
		"{table: /, on: path, key: k, set: {x: y}}":                     "not a regular file",
		"{table: a.csv, on: path, key: k, set: {x: y}}":                 "expected an absolute path",
		"{table: /none/a.csv, on: path, key: k}":                        "lookup.set",
		"{table: /none/a.csv, key: k, set: {x: y}}":                     "lookup.on",
		"{table: /none/a.csv, on: path, key: k, set: {x: y}, other: 1}": "other",
	} {
		if _, faults := decodeYAML(t, "lookup: "+yaml); len(faults) == 0 || !strings.Contains(faults.Error(), want) {
			t.Errorf("%s: %v, want %s", yaml, faults, want)
		}
	}
}

func TestLookupNamesAreChecked(t *testing.T) {
	t.Parallel()
	path := file(t, "a.csv", projects)
	for on, want := range map[string]string{"projct_id": `did you mean "project_id"`, "roles": "a list cannot be looked up", "timestamp": "a time cannot"} {
		c, faults := decodeYAML(t, "lookup: {table: "+path+", on: "+on+", key: id, set: {x: name}}")
		if faults != nil {
			t.Fatal(faults)
		}
		_, err := New(c, plugins.Env{})
		var k conf.KeyError
		if !errors.As(err, &k) || k.Key != "lookup.on" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", on, err)
		}
	}
	c, faults := decodeYAML(t, "{lookup: {table: "+path+", on: project_id, key: id, set: {x: name, n_int: tier, path: name}}, remove: [x]}")
	if got := fmt.Sprint(c.DefinedFields()); faults != nil || got != "map[n_int:int]" {
		t.Errorf("defines %v, %v", got, faults)
	}
}

// look processes one event and returns what it got.
func look(t *testing.T, p *processor) string {
	t.Helper()
	e := event.NewBatch("s").Append()
	e.ProjectID = "p1"
	if err := p.Process(t.Context(), e.Batch()); err != nil {
		t.Fatal(err)
	}
	return schema.Get(e, "x").Text()
}

func TestChangedTableIsReadAgainAndAFaultyOneIsNot(t *testing.T) {
	t.Parallel()
	path := file(t, "a.csv", "id,name\np1,one\n")
	counts := map[string]int64{}
	failed := map[string]string{}
	p := buildLookup(t, "lookup: {table: "+path+", on: project_id, key: id, set: {x: name}}", plugins.Env{
		Count: func(name, reason string, n int64) { counts[name+" "+reason] += n },
		Fail:  func(key string, err error) { failed[key] = fmt.Sprint(err) },
	})
	now := time.Unix(1_800_000_000, 0)
	p.lookup.now = func() time.Time { return now }
	// settled lets a second pass, and whatever is read be taken.
	settled := func() string {
		now = now.Add(lookEvery)
		look(t, p)
		for p.lookup.busy {
			p.lookup.fresh <- <-p.lookup.fresh // it is there
			look(t, p)
		}
		return look(t, p)
	}
	if got := look(t, p); got != "one" {
		t.Errorf("got %q", got)
	}
	write(t, path, "id,name\np1,two\n", time.Second)
	if got := look(t, p); got != "one" || p.lookup.busy {
		t.Errorf("within a second: %q", got)
	}
	if got := settled(); got != "two" {
		t.Errorf("after a change: %q", got)
	}
	write(t, path, "id,name\np1,three\np1,four\n", 2*time.Second)
	if got := settled(); got != "two" || !strings.Contains(failed["lookup"], "a.csv:3: \"p1\" stands in line 2 already") {
		t.Errorf("with a faulty table: %q, health %q", got, failed["lookup"])
	}
	before := counts["lookup_reloads failed"]
	if settled(); counts["lookup_reloads failed"] != before || before != 1 {
		t.Errorf("a faulty table is read again and again: %v", counts)
	}
	write(t, path, "id,name\np1,five\n", 3*time.Second)
	if got := settled(); got != "five" || failed["lookup"] != "<nil>" {
		t.Errorf("mended: %q, health %q", got, failed["lookup"])
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if got := settled(); got != "five" || !strings.Contains(failed["lookup"], "no such file") {
		t.Errorf("gone: %q, health %q", got, failed["lookup"])
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if got := settled(); got != "five" || failed["lookup"] != "<nil>" {
		t.Errorf("back: %q, health %q", got, failed["lookup"])
	}
	if counts["lookup_reloads ok"] != 2 {
		t.Errorf("counted %v", counts)
	}
}

// A table that broke between the check of the configuration and the first event holds events back; none passes without its fields.
func TestFirstTableIsWaitedFor(t *testing.T) {
	t.Parallel()
	path := file(t, "a.csv", "id,name\np1,one\n")
	synctest.Test(t, func(t *testing.T) {
		p := buildLookup(t, "lookup: {table: "+path+", on: project_id, key: id, set: {x: name}}", plugins.Env{})
		write(t, path, "", time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*lookEvery/2)
		defer cancel()
		if err := p.Process(ctx, event.NewBatch("s")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		done := make(chan string)
		go func() { done <- look(t, p) }()
		synctest.Wait()
		write(t, path, "id,name\np1,two\n", 2*time.Second)
		if got := <-done; got != "two" {
			t.Errorf("got %q", got)
		}
	})
}

func TestLookupAllocatesNothing(t *testing.T) {
	path := file(t, "a.csv", "id,name\np1,one\n")
	p := buildLookup(t, "lookup: {table: "+path+", on: project_id, key: id, set: {project_domain_id: name}}", plugins.Env{})
	b := event.NewBatch("s")
	for range 100 {
		b.Append().ProjectID = "p1"
	}
	if err := p.Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = p.Process(t.Context(), b) }); n > 1 {
		t.Errorf("%v allocations a batch", n)
	}
}
