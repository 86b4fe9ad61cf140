package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// section is a part of a configuration whose keys are broken one by one: lines before it, keys that it needs, lines after it.
type section struct {
	name     string
	before   []string
	indent   string
	required map[string]string // key → value that is good
	after    []string
	docs     []conf.KeyDoc
}

func sections() []section {
	head := []string{"pipelines:", "  - name: p"}
	in, out := []string{"    inputs:", "      - tail: {paths: [/var/log/nova/*.log]}"}, []string{"    outputs:", "      - blackhole: {}"}
	good := map[string]map[string]string{
		"tail": {"paths": "[/var/log/nova/*.log]"}, "file": {"path": "/srv/out/x.ndjson"}, "drop": {"when": `'method == "GET"'`}, "enrich": {"remove": "[region]"},
		"elasticsearch": {"urls": "[https://192.0.2.1:9200]", "index": "openstack"}, "http": {"url": "https://192.0.2.1/in"},
	}
	plugin := map[plugins.Kind]func(name string) (before, after []string){
		plugins.KindInput: func(n string) ([]string, []string) {
			return slices.Concat(head, []string{"    inputs:", "      - " + n + ":"}), out
		},
		plugins.KindProcessor: func(n string) ([]string, []string) {
			return slices.Concat(head, in, []string{"    processors:", "      - " + n + ":"}), out
		},
		plugins.KindOutput: func(n string) ([]string, []string) {
			return slices.Concat(head, in, []string{"    outputs:", "      - " + n + ":"}), nil
		},
	}
	var all []section
	for _, s := range builtin() {
		before, after := plugin[s.Kind](s.Name)
		all = append(all, section{s.Name, before, "          ", good[s.Name], after, conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults)})
	}
	agent := config.DefaultAgent()
	all = append(all,
		section{"agent", []string{"agent:"}, "  ", nil, slices.Concat(head, in, out), conf.Describe(reflect.TypeOf(agent), agent)},
		section{"output policies", slices.Concat(head, in, []string{"    outputs:", "      - blackhole: {}"}), "        ", nil, nil, policies(config.DefaultOutputPolicies())},
		section{"input policies", slices.Concat(head, []string{"    inputs:", "      - tail: {paths: [/var/log/x.log]}"}), "        ", nil, out, policies(config.InputPolicies{})},
		section{"processor policies", slices.Concat(head, in, []string{"    processors:", "      - drop: {when: 'true'}"}), "        ", nil, out, policies(config.ProcessorPolicies{})},
	)
	return all
}

func policies(v any) []conf.KeyDoc { return conf.Describe(reflect.TypeOf(v), v) }

// text puts the section together with these key lines and returns the number of the first of them.
func (s section) text(keys []string) (string, int) {
	lines := slices.Clone(s.before)
	at := len(lines) + 1
	for _, k := range keys {
		lines = append(lines, s.indent+k)
	}
	return strings.Join(append(lines, s.after...), "\n") + "\n", at
}

// with returns the required keys but for the top-level key of path, then the line for path.
func (s section) with(path, value string) []string {
	top, rest, nested := strings.Cut(path, ".")
	keys := s.needed(top)
	if nested {
		return append(keys, fmt.Sprintf("%s: {%s: %s}", top, strings.ReplaceAll(rest, ".", ": {"), value)+strings.Repeat("}", strings.Count(rest, ".")))
	}
	return append(keys, top+": "+value)
}

func (s section) needed(but string) (keys []string) {
	for k, v := range s.required {
		if k != but {
			keys = append(keys, k+": "+v)
		}
	}
	slices.Sort(keys)
	return keys
}

// TestEveryFaultOfEveryKeyIsNamedAtItsPlace breaks every key of every section in every way that fits it.
func TestEveryFaultOfEveryKeyIsNamedAtItsPlace(t *testing.T) {
	t.Parallel()
	reg, err := plugins.NewRegistry(builtin()...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cases, secs := 0, sections()
	for si, s := range secs {
		whole, _ := s.text(s.needed(""))
		if len(s.docs) > 0 {
			if err := load(t, reg, filepath.Join(dir, fmt.Sprintf("whole%d.yaml", si)), whole); err != nil {
				t.Errorf("%s: the good configuration is refused: %v\n%s", s.name, err, whole)
				continue
			}
		}
		for _, d := range s.docs {
			if strings.ContainsAny(d.Path, "[*") {
				continue // inside lists and maps of the user's own
			}
			breaks := map[string]string{}
			switch {
			case strings.HasPrefix(d.Type, "list"), strings.HasPrefix(d.Type, "map"), d.Type == "section":
				breaks["wrong type"] = "nothing_of_the_kind"
			default:
				breaks["wrong type"] = "[[1], {a: 2}]"
			}
			switch d.Type {
			case "duration", "size":
				breaks["bad unit"] = "5parsec"
				breaks["no number"] = "much"
			case "number", "integer":
				breaks["no number"] = "much"
			case "bool":
				breaks["no bool"] = "perhaps"
			}
			if len(d.Enum) > 0 {
				breaks["bad enum"] = d.Enum[0] + "x"
			}
			for what, value := range breaks {
				cases++
				text, at := s.text(s.with(d.Path, value))
				expect(t, reg, filepath.Join(dir, "f.yaml"), s.name+"."+d.Path+" "+what, text, at+len(s.needed(strings.SplitN(d.Path, ".", 2)[0])), "")
			}
			if strings.Contains(d.Path, ".") {
				continue
			}
			keys := s.with(d.Path, sampleOf(d))
			line := func(at int) int { return at + len(keys) - 1 }
			cases += 2
			text, at := s.text(append(slices.Clone(keys), d.Name+": "+sampleOf(d)))
			expect(t, reg, filepath.Join(dir, "f.yaml"), s.name+"."+d.Path+" duplicated", text, line(at)+1, "")
			neighbour := d.Name + "q"
			text, at = s.text(append(s.needed(""), neighbour+": 1"))
			want := d.Name
			if len(d.Name) < 3 {
				want = "" // nothing is near a name that short
			}
			expect(t, reg, filepath.Join(dir, "f.yaml"), s.name+"."+neighbour+" unknown", text, at+len(s.needed("")), want)
			if d.Required {
				cases++
				text, at = s.text(s.needed(d.Name))
				expect(t, reg, filepath.Join(dir, "f.yaml"), s.name+"."+d.Path+" missing", text, -at, "")
			}
		}
	}
	t.Logf("%d broken configurations in %d sections", cases, len(secs))
	if cases < 190 {
		t.Errorf("only %d cases: the sections' keys were not found", cases)
	}
}

// sampleOf is a good value for a key.
func sampleOf(d conf.KeyDoc) string {
	switch {
	case len(d.Enum) > 0:
		return d.Enum[0]
	case d.Default != "":
		return d.Default
	case strings.HasPrefix(d.Type, "list"):
		return "[/var/log/x.log]"
	case d.Type == "section":
		return "{}"
	case d.Type == "bool":
		return "false"
	}
	return "x"
}

func load(t *testing.T, reg *plugins.Registry, path, text string) error {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(config.Source{Files: []string{path}, Lookup: conf.SystemLookup()}, reg)
	return err
}

// expect fails unless loading names a fault on that line, with a column, and with the suggestion where one is given. A negative
// line stands for it or one of the three above: what is missing is told where it should be.
func expect(t *testing.T, reg *plugins.Registry, path, what, text string, line int, suggestion string) {
	t.Helper()
	var faults conf.Faults
	if err := load(t, reg, path, text); !errors.As(err, &faults) {
		t.Errorf("%s: no fault was found (%v) in\n%s", what, err, text)
		return
	}
	for _, f := range faults {
		at := f.Line == line || (line < 0 && f.Line <= -line && f.Line >= -line-3)
		if f.File == path && at && f.Column > 0 && (suggestion == "" || f.Suggestion == suggestion) {
			return
		}
	}
	t.Errorf("%s: no fault on line %d (suggesting %q) among\n%v\nin\n%s", what, line, suggestion, faults, text)
}

func TestFaultyExpressionsAndNamesAreNamedAtTheirPlace(t *testing.T) {
	t.Parallel()
	reg, err := plugins.NewRegistry(builtin()...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "f.yaml")
	const base = `pipelines:
  - name: p
    inputs:
      - tail: {paths: [/var/log/nova/*.log]}
        set: {region: RegionOne}
    processors:
      - drop: {when: 'true'}
      - enrich: {set: {slow_bool: 'api_response_time_num > 2'}}
    outputs:
      - file: {path: /srv/out/x.ndjson}
        when: slow_bool && region == "RegionOne"
`
	if err := load(t, reg, path, base); err != nil {
		t.Fatalf("the good configuration is refused: %v", err)
	}
	tests := []struct {
		from, to   string
		line       int
		suggestion string
		says       string
	}{
		{"'true'", "'metod == \"GET\"'", 7, "", `"method"`},
		{"'true'", "'method = 1'", 7, "", ""},
		{"'true'", "'method > 1'", 7, "", ""},
		{"'true'", "'method'", 7, "", "true or false"},
		{"'true'", "''", 7, "", ""},
		{"'true'", "'(('", 7, "", ""},
		{"slow_bool &&", "slow_bol &&", 11, "", `"slow_bool"`},
		{"set: {slow_bool: 'api_response_time_num > 2'}", "set: {api_response_code_int: 'method'}", 8, "", ""},
		{"set: {slow_bool: 'api_response_time_num > 2'}", "set: {event_id: 'method'}", 8, "", ""},
		{"region: RegionOne", "api_response_code_int: RegionOne", 5, "", "int"},
		{"- drop:", "- drp:", 7, "drop", "drop, enrich"},
		{"- tail:", "- tial:", 4, "tail", "stdin, tail"},
		{"- file:", "- fle:", 10, "file", ""},
		{"path: /srv/out/x.ndjson", "path: /var/log/nova/x.log", 4, "", "exclude"},
		{"path: /srv/out/x.ndjson", "path: x.ndjson", 10, "", "absolute"},
		{"path: /srv/out/x.ndjson", "path: '/srv/{{servce}}.ndjson'", 10, "", ""},
		{"        when: slow_bool", "        queue: {on_full: reread}\n        when: slow_bool", 11, "", "not built yet"},
		{"        when: slow_bool", "        workers: 2\n        when: slow_bool", 11, "", "one worker"},
		{"        when: slow_bool", "        queue: {bytes: 100MiB}\n        when: slow_bool", 1, "", "memory_limit"},
		{"- name: p", "- name: ../p", 2, "", "good name"},
		{"- name: p", "- {name: q, inputs: [], outputs: [blackhole: {}]}\n  - name: p", 2, "", "empty"},
		{"pipelines:", "plugins: [{path: /no/such/plugin}]\npipelines:", 1, "", "no such file"},
		{"pipelines:", "plugins: [{path: bin/mask}]\npipelines:", 1, "", "not absolute"},
		{"pipelines:", "plugins: [{pth: /x}]\npipelines:", 1, "path", "unknown key"},
		{"pipelines:", "plugins: [{path: /dev/null, sha256: 12}]\npipelines:", 1, "", "64 hexadecimal digits"},
		{"region: RegionOne", "region: '${NO_SUCH_VARIABLE_HERE}'", 5, "", "NO_SUCH_VARIABLE_HERE"},
		{"- drop: {when: 'true'}", "-", 7, "", "names no plugin"},
		{"- drop: {when: 'true'}", "- {}", 7, "", "names no plugin"},
		{"    outputs:", "    outputs:\n      - null", 10, "", "names no plugin"},
		{"- drop: {when: 'true'}", "- {id: a, drop: {when: 'true'}}\n      - {id: a, drop: {when: 'true'}}", 8, "", "two processors"},
	}
	for _, test := range tests {
		text := strings.Replace(base, test.from, test.to, 1)
		if text == base {
			t.Fatalf("nothing to replace: %s", test.from)
		}
		var faults conf.Faults
		if err := load(t, reg, path, text); !errors.As(err, &faults) {
			t.Errorf("%s: no fault (%v)", test.to, err)
			continue
		}
		found := false
		for _, f := range faults {
			found = found || (f.Line == test.line && f.Column > 0 && strings.Contains(f.String(), test.says) && (test.suggestion == "" || f.Suggestion == test.suggestion))
		}
		if !found {
			t.Errorf("%s: no such fault on line %d among\n%v", test.to, test.line, faults)
		}
	}
}

func TestTwoOutputsCannotShareAFile(t *testing.T) {
	t.Parallel()
	reg, err := plugins.NewRegistry(builtin()...)
	if err != nil {
		t.Fatal(err)
	}
	const text = `pipelines:
  - name: p
    inputs: [{stdin: {}}]
    outputs:
      - {id: a, file: {path: /srv/out/x.ndjson}}
      - {id: b, file: {path: /srv/out/x.ndjson}}
`
	expect(t, reg, filepath.Join(t.TempDir(), "f.yaml"), "two outputs", text, 6, "")
}
