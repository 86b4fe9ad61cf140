package conf

import (
	"reflect"
	"testing"
)

func TestFlowReadsBack(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: 1\nb: [x, 'y z', \"5\", null, true, 1.5]\nc:\n  d: ~\n": `{a: 1, b: [x, "y z", "5", null, true, 1.5], c: {d: null}}`,
		`w: 'method == "GET"'`:                 `{w: 'method == "GET"'}`,
		`w: "it's \"x\""`:                      `{w: "it's \"x\""}`,
		"p: [/var/log/a*.log, '*.gz', 'a\tb']": `{p: [/var/log/a*.log, "*.gz", "a\tb"]}`,
		"e: {}\nl: []":                         `{e: {}, l: []}`,
		"t: 2026-01-02":                        `{t: "2026-01-02"}`,
		"v: ${X:-y}":                           `{v: "${X:-y}"}`,
	} {
		n := parse(t, text)
		got := n.Flow()
		if got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
		a, f := Decode(n, map[string]any{})
		wantFaults(t, f)
		b, f := Decode(parse(t, got), map[string]any{})
		wantFaults(t, f)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s reads back as %v, not %v", got, b, a)
		}
	}
	n := parse(t, "v: ${X}")
	wantFaults(t, Interpolate(n, Lookup{Env: func(string) (string, bool) { return "secret", true }}))
	if got := n.Flow(); got != `{v: "${X}"}` {
		t.Errorf("got %s", got)
	}
	if got := (Node{}).Flow(); got != "null" {
		t.Errorf("got %s", got)
	}
}

type exampled struct {
	Path string  `yaml:"path" required:"true" example:"/var/log/x.log"`
	Mode *modeOf `yaml:"mode"`
	Name string  `yaml:"name"`
}

type modeOf int

func (m *modeOf) UnmarshalText([]byte) error { return nil }

func TestDescribeTellsExamplesAndWhatReadsAnyScalar(t *testing.T) {
	t.Parallel()
	d := Describe(reflect.TypeFor[exampled](), nil)
	if len(d) != 3 || d[0].Example != "/var/log/x.log" || d[0].Loose || !d[1].Loose || d[1].Example != "" || d[2].Loose {
		t.Errorf("got %+v", d)
	}
}
