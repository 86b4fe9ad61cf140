package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/doc/comment"
	goparser "go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

var update = flag.Bool("update", false, "write the files that are made from the code")

// root is the root of the repository, seen from this folder.
const root = ".."

func builtins(t testing.TB) *plugins.Registry {
	t.Helper()
	reg, err := plugins.NewRegistry(builtin()...)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// packageDoc returns the package comment of a plugin as Markdown, its examples as fenced blocks.
func packageDoc(s plugins.Spec) (string, error) {
	dir := filepath.Join(root, string(s.Kind)+"s", s.Name)
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	var texts []string
	for _, name := range names {
		f, err := goparser.ParseFile(token.NewFileSet(), name, nil, goparser.PackageClauseOnly|goparser.ParseComments)
		if err != nil {
			return "", err
		}
		if f.Doc != nil && !strings.HasSuffix(name, "_test.go") {
			texts = append(texts, f.Doc.Text())
		}
	}
	if len(texts) != 1 {
		return "", fmt.Errorf("%s has %d package comments", dir, len(texts))
	}
	text := markdown(texts[0])
	if rest, ok := strings.CutPrefix(text, "Package "+s.Name+" "); ok {
		return "`" + s.Name + "` " + rest, nil
	}
	return text, nil
}

// markdown returns a comment as Markdown, its examples as fenced blocks.
func markdown(text string) string {
	var p comment.Parser
	doc := p.Parse(text)
	print := comment.Printer{HeadingLevel: 2, HeadingID: func(*comment.Heading) string { return "" }}
	var out strings.Builder
	for _, b := range doc.Content {
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		if c, ok := b.(*comment.Code); ok {
			kind := ""
			if n, faults := conf.Parse("", []byte(c.Text)); len(faults) == 0 && n.Kind() == conf.Section {
				kind = "yaml"
			}
			out.WriteString("```" + kind + "\n" + c.Text + "```\n")
			continue
		}
		out.Write(print.Markdown(&comment.Doc{Content: []comment.Block{b}}))
	}
	return out.String()
}

// grammars returns by its name what the code says of each format of lines, as Markdown: in a comment above its parser a paragraph
// begins with the format's name, and what follows, up to another format, is about it.
func grammars(t *testing.T) map[string]string {
	t.Helper()
	list, err := listFormats(builtins(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, regexp.QuoteMeta(f.Name))
	}
	begin := regexp.MustCompile(`^(` + strings.Join(names, "|") + `)( is\b| takes\b|,|:)`)
	files, err := filepath.Glob(filepath.Join(root, "inputs", "internal", "formats", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := goparser.ParseFile(token.NewFileSet(), path, nil, goparser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range f.Comments {
			name := ""
			for paragraph := range strings.SplitSeq(group.Text(), "\n\n") {
				if m := begin.FindStringSubmatch(paragraph); m != nil {
					name = m[1]
					if found[name] != "" {
						t.Errorf("%s: another comment says how %s is written", path, name)
					}
				}
				if name != "" {
					found[name] += paragraph + "\n\n"
				}
			}
		}
	}
	ours := regexp.MustCompile(`\s+Function \w+ reads it\.`) // is of no use to who reads no code
	for name, text := range found {
		found[name] = markdown(ours.ReplaceAllString(text, ""))
		if !strings.Contains(text, "Source: ") {
			t.Errorf("%s: the comment does not name the source of its grammar: %q", name, text)
		}
	}
	return found
}

func TestGeneratedFilesAreFresh(t *testing.T) {
	t.Parallel()
	files, err := reference.Files(builtins(t), packageDoc, grammars(t))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, f := range files {
		made[f.Path] = true
		path := filepath.Join(root, filepath.FromSlash(f.Path))
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil {
			t.Errorf("%v: make generate writes it", err)
		} else if !bytes.Equal(got, f.Data) {
			t.Errorf("%s is stale: make generate writes it anew\n%s", f.Path, firstDifference(got, f.Data))
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "configs", "reference"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := "configs/reference/" + e.Name(); !made[name] {
			t.Errorf("%s is made from nothing: remove it", name)
		}
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is\n\t%s\nand should be\n\t%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("it has %d lines and should have %d", len(g), len(w))
}

// offline finds no variables, and a text in every file.
func offline() conf.Lookup {
	return conf.Lookup{
		Env: func(name string) (string, bool) {
			if name == "CREDENTIALS_DIRECTORY" {
				return "/run/credentials", true
			}
			return "", false
		},
		ReadFile: func(string) ([]byte, error) { return []byte("an-example-of-a-secret"), nil },
	}
}

// loadText checks a configuration as `stacktrail check` does.
func loadText(t testing.TB, reg *plugins.Registry, text []byte) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(config.Source{Files: []string{file}, Lookup: offline()}, reg)
	return err
}

// unknownKey tells whether a configuration was refused because of a key that nobody knows.
func unknownKey(err error) bool {
	var faults conf.Faults
	return errors.As(err, &faults) && slices.ContainsFunc(faults, func(f conf.Fault) bool {
		return strings.Contains(f.Message, "unknown key") || strings.Contains(f.Message, "plugin and no policy of this name")
	})
}

// data is a configuration as a validator of JSON sees it.
func data(t testing.TB, text []byte) map[string]any {
	t.Helper()
	n, faults := conf.Parse("config", text)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	v, faults := conf.Decode(n, map[string]any{})
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return v
}

func compiled(t testing.TB, reg *plugins.Registry) *jsonschema.Schema {
	t.Helper()
	b, err := reference.Schema(reg)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSamplesPassCheckAndSchema(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	schema := compiled(t, reg)
	for _, minimal := range []bool{false, true} {
		requests := [][]string{nil, reference.Names(reg)}
		for _, n := range reference.Names(reg) {
			requests = append(requests, []string{n})
		}
		for _, names := range requests {
			b, err := reference.Sample(reg, names, minimal)
			if err != nil {
				t.Errorf("%v: %v", names, err)
				continue
			}
			if err := loadText(t, reg, b); err != nil {
				t.Errorf("sample %v (minimal: %v) is refused:\n%v\n%s", names, minimal, err, b)
			}
			if err := schema.Validate(data(t, b)); err != nil {
				t.Errorf("sample %v (minimal: %v) is refused by the schema:\n%v\n%s", names, minimal, err, b)
			}
		}
	}
}

// Every key of every plugin stands in its sample, if only switched off.
func TestSamplesNameEveryKey(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	for _, s := range sections() {
		name := s.name
		if strings.Contains(name, " ") {
			name = map[string]string{"output policies": "blackhole", "input policies": "stdin", "processor policies": "drop"}[name]
		}
		b, err := reference.Sample(reg, []string{name}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.docs {
			if d.Name != "" && !strings.Contains(string(b), d.Name+":") {
				t.Errorf("the sample of %s does not name %s", s.name, d.Path)
			}
		}
	}
}

func TestConfigsPassCheckAndSchema(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	schema := compiled(t, reg)
	n := 0
	err := filepath.WalkDir(filepath.Join(root, "configs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		n++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := loadText(t, reg, b); err != nil {
			t.Errorf("%s is refused:\n%v", path, err)
		}
		if err := schema.Validate(data(t, b)); err != nil {
			t.Errorf("%s is refused by the schema:\n%v", path, err)
		}
		return nil
	})
	if err != nil || n < 3 {
		t.Fatalf("%d files, %v", n, err)
	}
}

// A configuration with every key is changed in every place. The schema must refuse unknown keys wherever the agent does, and must
// accept whatever the agent accepts.
func TestSchemaAgreesWithTheAgent(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	schema := compiled(t, reg)
	unknown, kept, strict := 0, 0, 0
	seen := map[string]bool{}
	for _, name := range reference.Names(reg) {
		b, err := reference.Sample(reg, []string{name}, false)
		if err != nil {
			t.Fatal(err)
		}
		doc := data(t, b)
		judge := func(where string, extra bool) {
			if seen[where] {
				return // it is no part of the plugin
			}
			seen[where] = true
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			agent, machine := loadText(t, reg, text), schema.Validate(data(t, text))
			switch {
			case agent == nil && machine != nil:
				t.Errorf("%s, %s: the agent accepts what the schema refuses: %v", name, where, machine)
			case extra && unknownKey(agent) && machine == nil:
				t.Errorf("%s, %s: the schema accepts a key that the agent does not know: %v", name, where, agent)
			case extra && unknownKey(agent):
				unknown++
			case agent == nil:
				kept++
			case machine != nil:
				strict++
			}
		}
		mutate(doc, "", judge)
	}
	if unknown < 10 || kept < 10 || strict < 100 {
		t.Errorf("only %d unknown keys, %d good and %d wrong values were tried", unknown, kept, strict)
	}
}

// mutate adds a key to each section below v and replaces each value, one at a time, and has the result judged.
func mutate(v any, where string, judge func(where string, extra bool)) {
	replace := func(set func(any), old any, where string) {
		for _, x := range []any{nil, "", "x y", "5s", "1KiB", true, int64(-1), int64(7), 1.5, "${SOME:-0}", []any{"x"}, map[string]any{"x": "y"}} {
			set(x)
			judge(fmt.Sprintf("%s = %#v", where, x), false)
		}
		set(old)
	}
	switch v := v.(type) {
	case map[string]any:
		v["no_such_key"] = "x"
		judge(where+".no_such_key", true)
		delete(v, "no_such_key")
		for _, k := range slices.Sorted(func(yield func(string) bool) {
			for k := range v {
				if !yield(k) {
					return
				}
			}
		}) {
			old := v[k]
			mutate(old, where+"."+k, judge)
			replace(func(x any) { v[k] = x }, old, where+"."+k)
			delete(v, k)
			judge("no "+where+"."+k, false)
			v[k] = old
		}
	case []any:
		for i, old := range v {
			at := fmt.Sprintf("%s[%d]", where, i)
			mutate(old, at, judge)
			if _, plugin := old.(map[string]any); !plugin {
				replace(func(x any) { v[i] = x }, old, at)
			}
		}
	}
}

func TestSchemaRefusesWhatIsWrong(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	schema := compiled(t, reg)
	const (
		in  = "    inputs: [{tail: {paths: [/var/log/x.log]}}]\n"
		out = "    outputs: [{stdout: {}}]\n"
		top = "pipelines:\n  - name: p\n"
	)
	for about, text := range map[string]string{
		"unknown key at the top":       "agnet: {}\n" + top + in + out,
		"unknown key of the agent":     "agent: {state: /x}\n" + top + in + out,
		"unknown key of a pipeline":    top + in + out + "    output: []\n",
		"unknown key of a plugin":      top + "    inputs: [{tail: {paths: [/x], path: /y}}]\n" + out,
		"unknown key beside a plugin":  top + in + "    outputs: [{stdout: {}, wehn: 'true'}]\n",
		"unknown plugin":               top + in + "    outputs: [{stdoutt: {}}]\n",
		"a processor as an output":     top + in + "    outputs: [{drop: {when: 'true'}}]\n",
		"two plugins in one item":      top + in + "    outputs: [{stdout: {}, blackhole: {}}]\n",
		"no plugin":                    top + in + "    outputs: [{id: x}]\n",
		"no outputs":                   top + in,
		"empty outputs":                top + in + "    outputs: []\n",
		"no pipelines":                 "agent: {}\n",
		"a required key is missing":    top + "    inputs: [{tail: {}}]\n" + out,
		"a value that is none of many": top + in + "    outputs: [{stdout: {}, naming: ovhh}]\n",
		"a size without a unit it has": top + in + "    outputs: [{stdout: {}, queue: {bytes: 4 megs}}]\n",
		"a duration without a unit":    top + in + "    outputs: [{stdout: {}, retry: {max: 30}}]\n",
		"a number out of range":        top + in + "    outputs: [{stdout: {}, workers: 65}]\n",
		"a text for a bool":            top + in + "    outputs: [{stdout: {pretty: 'yes'}}]\n",
	} {
		if loadText(t, reg, []byte(text)) == nil {
			t.Errorf("%s: the agent accepts it", about)
		}
		if schema.Validate(data(t, []byte(text))) == nil {
			t.Errorf("%s: the schema accepts it", about)
		}
	}
	for about, text := range map[string]string{
		"nothing below a plugin": top + in + "    outputs:\n      - stdout:\n",
		"interpolated values":    top + in + "    outputs: [{stdout: {pretty: '${P:-true}'}, workers: '${W:-2}', naming: '${N:-ovh}', retry: {max: '${M:-1m}'}, queue: {bytes: '${B:-1MiB}'}}]\n",
		"a size as a number":     top + in + "    outputs: [{stdout: {}, queue: {bytes: 70000}}]\n",
		"an octal number":        top + in + "    outputs: [{file: {path: /srv/x.ndjson, mode: 0o640}}]\n",
		"a long duration":        top + in + "    outputs: [{stdout: {}, retry: {max: 1d12h30m1.5s}}]\n",
	} {
		if err := loadText(t, reg, []byte(text)); err != nil {
			t.Errorf("%s: the agent refuses it: %v", about, err)
		}
		if err := schema.Validate(data(t, []byte(text))); err != nil {
			t.Errorf("%s: the schema refuses it: %v", about, err)
		}
	}
}

func output(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRootCommand(builtins(t))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestCommandsPrintWhatIsMadeFromTheCode(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]string{
		"sample": "\n  - name: controller\n", "sample tail": "          grace: 30s\n", "sample --minimal": "pipelines:\n  - name: controller\n",
		"docs file": "| `rotate.keep` | integer | `7` |", "docs": "# The configuration\n", "schema": `"additionalProperties": false`,
		"completion bash": "__start_stacktrail", "completion zsh": "#compdef stacktrail", "completion fish": "complete -c stacktrail",
		"__complete docs fi": "file\n",
	} {
		got, err := output(t, strings.Fields(call)...)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("stacktrail %s: %v, and %q is missing in\n%s", call, err, want, got)
		}
	}
	for call, want := range map[string]string{
		"sample tial": `did you mean "tail"?`, "docs nothing-like-it": "known are agent, ", "schema x": "unknown command", "completion tcsh": `invalid argument "tcsh"`,
	} {
		_, err := output(t, strings.Fields(call)...)
		var exit *exitError
		if err == nil || !strings.Contains(err.Error(), want) || errors.As(err, &exit) {
			t.Errorf("stacktrail %s: got %v, want a fault of usage with %q", call, err, want)
		}
	}
}
