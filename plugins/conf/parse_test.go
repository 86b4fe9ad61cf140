package conf

import (
	"fmt"
	"strings"
	"testing"
)

// texts returns the faults as their users see them.
func texts(f Faults) []string {
	out := make([]string, len(f))
	for i, x := range f {
		out[i] = x.String()
	}
	return out
}

func wantFaults(t *testing.T, got Faults, want ...string) {
	t.Helper()
	g := strings.Join(texts(got), "\n")
	if w := strings.Join(want, "\n"); g != w {
		t.Errorf("faults:\n%s\nwant:\n%s", g, w)
	}
}

func parse(t *testing.T, text string) Node {
	t.Helper()
	n, faults := Parse("a.yaml", []byte(text))
	wantFaults(t, faults)
	return n
}

func TestParseFindsTheLineAndColumnOfEveryFault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want []string
	}{
		{"a: 1\n b: 2\n", []string{`a.yaml:2:2: not valid YAML: mapping values are not allowed in this context; put a text that holds ": " in quotes, or mend the indentation`}},
		{"a:\n  b: 1\n c: 2\n", []string{"a.yaml:3:2: not valid YAML: did not find expected key"}},
		{"a: [1, 2\nb: 3\n", []string{"a.yaml:2:1: not valid YAML: did not find expected ',' or ']'"}},
		{"a: {x: ${Y}}\n", []string{"a.yaml:1:8: not valid YAML: did not find expected ',' or '}'; inside of [] and {} put ${…} in quotes"}},
		{"k: \"ok\"\na: \"ok\" # x\nb: 'äöü\nc: 1\n", []string{"a.yaml:3:4: not valid YAML: found unexpected end of stream"}},
		{`a: "x`, []string{"a.yaml:1:4: not valid YAML: found unexpected end of stream"}},
		{"# one\na: *nope\n", []string{"a.yaml:2:4: not valid YAML: unknown anchor 'nope' referenced"}},
		{"a:\n\tb: 1\n", []string{"a.yaml:2:1: not valid YAML: found character that cannot start any token; indent with spaces, not with tabs"}},
		{"x: 1\n\ta: 1\n", []string{"a.yaml:2:1: not valid YAML: found a tab character that violates indentation; indent with spaces, not with tabs"}},
		{"ü: @x\n", []string{"a.yaml:1:4: not valid YAML: found character that cannot start any token"}},
		{"a: 1\nb\xff: 2\n", []string{"a.yaml:2:2: the byte 0xff is not UTF-8"}},
		{"a: 1\nü\x00: 2\n", []string{"a.yaml:2:2: the character U+0000 is not allowed"}},
		{"a: 1\n---\nb: 2\n", []string{"a.yaml:2:1: a file holds one document, here a second one starts; put it into a file of its own"}},
		{
			"a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n",
			[]string{`a.yaml:5:3: b.c: duplicate key "c", first at line 3`, `a.yaml:6:1: a: duplicate key "a", first at line 1`},
		},
		{
			"1: a\n2.5: b\ntrue: c\n~: d\n[x]: e\n",
			[]string{
				"a.yaml:1:1: a key must be a text, found the number 1; put it in quotes (did you mean \"\\\"1\\\"\"?)",
				"a.yaml:2:1: a key must be a text, found the number 2.5; put it in quotes (did you mean \"\\\"2.5\\\"\"?)",
				"a.yaml:3:1: a key must be a text, found the value true; put it in quotes (did you mean \"\\\"true\\\"\"?)",
				"a.yaml:4:1: a key must be a text, found nothing before the colon",
				"a.yaml:5:1: a key must be a text",
			},
		},
		{"a: !foo 1\nb: !!binary YQ==\n", []string{`a.yaml:1:4: a: the tag "!foo" is not supported`, `a.yaml:2:4: b: the tag "!!binary" is not supported`}},
		{"a: &x [*x]\n", []string{"a.yaml:1:8: a[0]: the alias *x stands inside of what it names"}},
		{"a:\n  <<: 5\n", []string{`a.yaml:2:7: a["<<"]: << wants a section or a list of sections, found the number 5`}},
	} {
		_, faults := Parse("a.yaml", []byte(c.text))
		if got, want := strings.Join(texts(faults), "\n"), strings.Join(c.want, "\n"); got != want {
			t.Errorf("%q:\n%s\nwant:\n%s", c.text, got, want)
		}
	}
}

func TestAnEmptyDocumentIsAnEmptySection(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "~\n", "\ufeff"} {
		n := parse(t, text)
		if n.Kind() != Section || len(n.Keys()) != 0 || n.Line() != 1 || n.Column() != 1 {
			t.Errorf("%q: kind %d with %d keys at %d:%d", text, n.Kind(), len(n.Keys()), n.Line(), n.Column())
		}
	}
}

func TestAliasesAndMergeKeysAreResolved(t *testing.T) {
	t.Parallel()
	n := parse(t, "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 9\nd: *a\ne: {<<: *b}\nf: {\"<<\": 1}\n")
	got := map[string]string{}
	for _, section := range n.Keys() {
		for _, k := range section.Value.Keys() {
			got[k.Value.Path()] = fmt.Sprintf("%s %d:%d", k.Value.Scalar(), k.Value.Line(), k.Value.Column())
		}
	}
	want := map[string]string{
		"a.x": "1 1:11", "a.y": "2 1:17", "b.y": "3 2:11", "b.z": "4 2:17",
		"c.x": "9 5:6", "c.y": "2 1:17", "c.z": "4 2:17", "d.x": "1 1:11", "d.y": "2 1:17",
		"e.y": "3 2:11", "e.z": "4 2:17", `f["<<"]`: "1 8:11",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAliasBombsAndDeepNestingAreRefused(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 20; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	_, faults := Parse("a.yaml", []byte(b.String()))
	if len(faults) != 1 || !strings.Contains(faults[0].Message, "more than 1000000 values") || faults[0].Line == 0 {
		t.Errorf("bomb: %v", faults)
	}
	_, faults = Parse("a.yaml", []byte("a: "+strings.Repeat("[", 500)+strings.Repeat("]", 500)))
	wantFaults(t, faults, "a.yaml:1:104: a"+strings.Repeat("[0]", 100)+": nested more than 100 levels deep")
}

func TestNodesKnowTheirPlace(t *testing.T) {
	t.Parallel()
	n := parse(t, "pipelines:\n  - name: x\n    inputs: [{tail: {paths: [a, b]}}]\n    set: {\"a b\": ~}\n")
	for path, want := range map[string]string{
		"pipelines":                            "2:3",
		"pipelines[0].inputs[0].tail.paths":    "3:29",
		"pipelines[0].inputs[0].tail.paths[1]": "3:33",
		`pipelines[0].set["a b"]`:              "4:18",
		"pipelines[0].nothing.here[3].x":       "1:1",
	} {
		at := n.find(path)
		if got := fmt.Sprintf("%d:%d", at.Line(), at.Column()); got != want && !strings.Contains(path, "nothing") {
			t.Errorf("%s stands at %s, want %s", path, got, want)
		}
		if at.Path() != path || at.File() != "a.yaml" {
			t.Errorf("path %s in %s, want %s", at.Path(), at.File(), path)
		}
	}
	if x := n.find(`pipelines[0].set["a b"]`); !x.IsNull() || x.Kind() != Scalar {
		t.Error("~ is not null")
	}
	if got := n.find("pipelines[0].set").KeyFault("x %d", 1).String(); got != "a.yaml:4:5: pipelines[0].set: x 1" {
		t.Error(got)
	}
	if got := (Node{}).Fault("x").String(); got != "x" {
		t.Error(got)
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	names := []string{"paths", "exclude", "format", "on_full", "a", "id"}
	for name, want := range map[string]string{
		"path": "paths", "pahts": "paths", "exlude": "exclude", "Format": "format", "onfull": "on_full", "on-full": "on_full",
		"zzz": "", "": "", "b": "", "ids": "id", "elasticsearch": "", strings.Repeat("x", 1000): "",
	} {
		if got := Suggest(name, names); got != want {
			t.Errorf("Suggest(%q) = %q, want %q", name, got, want)
		}
	}
}
