package reference

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

type place struct {
	Host string `yaml:"host" required:"true" doc:"Where it is."`
	Port int    `yaml:"port" min:"1" max:"65535"`
}

type settings struct {
	Target string           `yaml:"target" required:"true" example:"/srv/x" doc:"Where to * write <it>."`
	Codec  string           `yaml:"codec" enum:"|gzip" doc:"How."`
	Count  int              `yaml:"count" required:"true"`
	Wait   time.Duration    `yaml:"wait" min:"1ms"`
	Key    conf.Secret      `yaml:"key"`
	Near   *place           `yaml:"near" doc:"Off unless written."`
	Far    []place          `yaml:"far"`
	By     map[string]place `yaml:"by"`
	Free   conf.Node        `yaml:"free" doc:"Anything."`
	Maybe  *bool            `yaml:"maybe"`
}

func registry(t *testing.T) *plugins.Registry {
	t.Helper()
	build := func(any, plugins.Env) (any, error) { return nil, nil } //nolint:nilnil // never called
	reg, err := plugins.NewRegistry(
		plugins.Spec{Kind: plugins.KindInput, Name: "src", Summary: "Read.", Defaults: struct{}{}, New: build},
		plugins.Spec{Kind: plugins.KindInput, Name: "twin", Summary: "Read.", Defaults: struct{}{}, New: build},
		plugins.Spec{Kind: plugins.KindOutput, Name: "twin", Summary: "HTTP it.", Defaults: struct{}{}, New: build},
		plugins.Spec{
			Kind: plugins.KindOutput, Name: "dst", Summary: "Write.",
			Defaults: settings{Codec: "gzip", Wait: time.Second, Key: conf.NewSecret("hunter2")}, New: build,
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func sample(t *testing.T, minimal bool, names ...string) string {
	t.Helper()
	b, err := Sample(registry(t), names, minimal)
	if err != nil {
		t.Fatal(err)
	}
	if _, faults := conf.Parse("sample", b); len(faults) > 0 {
		t.Errorf("%v in\n%s", faults, b)
	}
	return string(b)
}

// TestNoKeyOfTheConfigurationIsUndocumented: whatever section it stands in.
func TestNoKeyOfTheConfigurationIsUndocumented(t *testing.T) {
	t.Parallel()
	docs, err := Docs(registry(t), []string{"agent"})
	if err != nil {
		t.Fatal(err)
	}
	all := sample(t, false, "agent")
	for _, k := range config.Describe() {
		section, rest, below := strings.Cut(k.Path, ".")
		section = strings.TrimSuffix(section, "[]")
		_, page, found := strings.Cut(string(docs), "\n## "+section+"\n")
		page, _, _ = strings.Cut(page, "\n## ")
		if !found || below && !strings.Contains(page, "| `"+rest+"` | ") {
			t.Errorf("the docs do not have %s", k.Path)
		}
		if k.Name != "processors" && !strings.Contains(all, k.Name+":") { // these are optional, and there are none in general
			t.Errorf("the sample does not have %s", k.Path)
		}
	}
}

func TestSampleShowsEveryShapeOfKey(t *testing.T) {
	t.Parallel()
	got := sample(t, false, "dst")
	want := `    outputs:
      # Write.
      - dst:
          # Where to * write <it>. (required)
          target: /srv/x
          # How. (one of "", gzip)
          codec: gzip
          # (required, integer)
          count: 0
          # (duration, at least 1ms)
          wait: 1s
          # (secret)
          #key:
          # Off unless written.
          #near:
          #  # Where it is. (required)
          #  host: ""
          #  # (integer, at least 1, at most 65535)
          #  port: 0
          # (list of section)
          far: []
          #far:
          #  - # Where it is. (required)
          #    host: ""
          #    # (integer, at least 1, at most 65535)
          #    port: 0
          # (map of section)
          by: {}
          #by:
          #  NAME:
          #    # Where it is. (required)
          #    host: ""
          #    # (integer, at least 1, at most 65535)
          #    port: 0
          # Anything.
          #free:
          #maybe:
        # Beside the plugin's key stands what every output has.
`
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(got, "      - src: {}\n") {
		t.Errorf("there is no input:\n%s", got)
	}
	if strings.Contains(got, "hunter2") {
		t.Error("a secret is shown")
	}
}

func TestSampleMinimalHoldsWhatIsRequired(t *testing.T) {
	t.Parallel()
	want := "pipelines:\n  - name: example\n    inputs:\n      - src: {}\n    outputs:\n      - dst:\n          target: /srv/x\n          count: 0\n"
	if got := sample(t, true, "dst", "output:dst"); got != want {
		t.Errorf("got\n%s", got)
	}
}

// What is switched off can be switched on, all at once.
func TestWhatIsOffIsYAMLToo(t *testing.T) {
	t.Parallel()
	var lines []string
	for l := range strings.Lines(sample(t, false, "dst")) {
		text := strings.TrimLeft(l, " ")
		if on, off := strings.CutPrefix(text, "#"); off && !strings.HasPrefix(on, " ") {
			l = l[:len(l)-len(text)] + on
		} else if off && strings.HasPrefix(on, "  ") {
			l = l[:len(l)-len(text)] + on
		} else if strings.Contains(l, "far: []") || strings.Contains(l, "by: {}") {
			continue
		}
		lines = append(lines, l)
	}
	n, faults := conf.Parse("on", []byte(strings.Join(lines, "")))
	if len(faults) > 0 {
		t.Fatalf("%v in\n%s", faults, strings.Join(lines, ""))
	}
	p, _ := n.Get("pipelines")
	outs, _ := p.Items()[0].Get("outputs")
	section, _ := outs.Items()[0].Get("dst")
	var names []string
	for _, k := range section.Keys() {
		names = append(names, k.Name)
	}
	if want := "target codec count wait key near far by free maybe"; strings.Join(names, " ") != want {
		t.Errorf("got %v, want %s", names, want)
	}
}

func TestNamesAreFoundOrSuggested(t *testing.T) {
	t.Parallel()
	reg := registry(t)
	for name, want := range map[string]string{
		"dts":       `there is no plugin "dts" (did you mean "dst"?)`,
		"input:dst": `there is no plugin "input:dst" (did you mean "input:src"?)`,
		"zebra":     `there is no plugin "zebra"; known are agent, src, input:twin, dst, output:twin`,
		"twin":      `there are several plugins named "twin": say which, input:twin or output:twin`,
	} {
		for _, ask := range []func() error{
			func() error { _, err := Sample(reg, []string{name}, false); return err },
			func() error { _, err := Docs(reg, []string{name}); return err },
		} {
			if err := ask(); err == nil || err.Error() != want {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
	if got := sample(t, true, "output:twin", "input:twin"); !strings.Contains(got, "inputs:\n      - twin: {}\n    outputs:\n      - twin: {}") {
		t.Errorf("got\n%s", got)
	}
}

func TestManyOutputsGetTheMemoryThatTheyNeed(t *testing.T) {
	t.Parallel()
	build := func(any, plugins.Env) (any, error) { return nil, nil } //nolint:nilnil // never called
	var specs []plugins.Spec
	var names []string
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		specs, names = append(specs, plugins.Spec{Kind: plugins.KindOutput, Name: n, Defaults: struct{}{}, New: build}), append(names, n)
	}
	reg, err := plugins.NewRegistry(specs...)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]bool{4: false, 5: true} {
		b, err := Sample(reg, names[:n], false)
		if err != nil || strings.Contains(string(b), "memory_limit: 80MiB") != want {
			t.Errorf("%d outputs: %v\n%s", n, err, b)
		}
		b, err = Sample(reg, append(names[:n:n], "agent"), false)
		if err != nil || strings.Contains(string(b), "memory_limit: 80MiB") != want || strings.Count(string(b), "memory_limit:") != 1 {
			t.Errorf("%d outputs and the agent: %v\n%s", n, err, b)
		}
	}
}

func TestDocsTellTypeDefaultAndMeaning(t *testing.T) {
	t.Parallel()
	b, err := Docs(registry(t), []string{"dst", "output:twin"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# dst\n\nThe output `dst`: write.\n",
		"| `target` | string | required | Where to \\* write \\<it>. |\n",
		"| `codec` | `\"\"`, `gzip` | `gzip` | How. |\n",
		"| `key` | secret | `***` |  |\n",
		"| `near` | section | off | Off unless written. |\n| `near.host` | string | required | Where it is. |\n",
		"| `far[].port` | integer | `0` | At least 1. At most 65535. |\n", "| `by.*.host` |",
		"`stacktrail sample dst` prints", "# twin\n\nThe output `twin`: HTTP it.\n", "There is nothing to set.", "`stacktrail sample output:twin` prints",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is missing in\n%s", want, b)
		}
	}
	b, err = Docs(registry(t), nil)
	if err != nil || !strings.Contains(string(b), "| `memory_limit` | size |") || !strings.Contains(string(b), "# src\n") || strings.Contains(string(b), "hunter2") {
		t.Errorf("%v\n%s", err, b)
	}
}

func TestFieldsListTheWholeSchema(t *testing.T) {
	t.Parallel()
	got := string(Fields())
	for _, want := range []string{
		"\n| 7 | `timestamp` | time |  | when it happened, UTC | `@timestamp` | `timestamp` |\n", "\n| 22 | `api_response_size_int` | int | bytes | size of the response | ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestSchemaHasEveryShapeOfKey(t *testing.T) {
	t.Parallel()
	b, err := Schema(registry(t))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Defs map[string]struct {
			Properties map[string]any
			Required   []string
			Type       any
		} `json:"$defs"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	dst := doc.Defs["output-dst"]
	if !reflect.DeepEqual(dst.Required, []string{"target", "count"}) || dst.Type != "object" {
		t.Errorf("got %v %v", dst.Required, dst.Type)
	}
	for name, want := range map[string]string{
		"target": `{"description":"Where to * write \u003cit\u003e.","minLength":1,"type":"string"}`,
		"codec":  `{"anyOf":[{"enum":["","gzip"]},{"$ref":"#/$defs/interpolated"}],"default":"gzip","description":"How."}`,
		"wait":   `{"anyOf":[{"$ref":"#/$defs/duration"},{"$ref":"#/$defs/interpolated"}],"default":"1s","description":"At least 1ms."}`,
		"key":    `{"type":"string"}`,
		"free":   `{"description":"Anything."}`,
		"maybe":  `{"anyOf":[{"type":"boolean"},{"$ref":"#/$defs/interpolated"}]}`,
	} {
		got, err := json.Marshal(dst.Properties[name])
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if strings.Contains(string(b), "hunter2") {
		t.Error("a secret is shown")
	}
}
