//go:build blackbox

package scripts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The commands under `stacktrail plugin`.

// repository is the top of the checkout that the tests are in.
func repository(t *testing.T) string {
	t.Helper()
	return filepath.Dir(filepath.Dir(must[string](t)(os.Getwd())))
}

// inFolder runs a program in a folder; it must succeed.
func inFolder(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "No matching distribution") || strings.Contains(line, "Could not install packages") {
				t.Fatalf("pip cannot get what the Python SDK needs: %s", line)
			}
		}
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// edit changes a file; what is replaced must stand in it once.
func edit(t *testing.T, path, old, instead string) {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile(path)))
	if n := strings.Count(text, old); n != 1 {
		t.Fatalf("%s has %q %d times", path, old, n)
	}
	ok(t, os.WriteFile(path, []byte(strings.Replace(text, old, instead, 1)), 0o644))
}

// scaffold makes a plugin's folder in the box.
func (b *box) scaffold(name, kind, lang string) (dir string) {
	b.t.Helper()
	dir = filepath.Join(b.dir, name)
	r := command(b.t, "plugin", "new", name, "--kind", kind, "--lang", lang, "--dir", dir, "--replace", repository(b.t.(*testing.T)))
	if r.code != 0 {
		b.t.Fatalf("plugin new: code %d\n%s%s", r.code, r.out, r.errors)
	}
	return dir
}

// made says how a plugin is made of nothing.
type made struct{ kind, lang, code, old, instead, config, tested string }

// TestFromNothingToAPluginThatRuns: new, one function edited, verify, and in a pipeline.
func TestFromNothingToAPluginThatRuns(t *testing.T) {
	for name, m := range map[string]made{
		"label": {
			kind: "processor", lang: "go", code: "plugin.go",
			old: `e.Set("label", event.StringValue(p.Text))`, instead: `e.Query = p.Text`,
			config: "text: edited", tested: "ok",
		},
		"keep-lines": {
			kind: "output", lang: "go", code: "plugin.go",
			old: "lines = o.enc.Append(lines, e)", instead: `lines = append(append(lines, "edited "...), e.Path+"\n"...)`,
			config: "path: $OUT", tested: "ok",
		},
		"py-label": {
			kind: "processor", lang: "python", code: "py_label_plugin.py",
			old: `e["py_label"] = self.config.text`, instead: `e["query"] = self.config.text`,
			config: "text: edited", tested: "OK",
		},
		"py_lines": {
			kind: "output", lang: "python", code: "py_lines_plugin.py",
			old: `json.dumps({"event_id": e.id, "path": clean(e.get("path", "")), "client": clean(e.get("client", ""))})`, instead: `"edited " + clean(e.get("path", ""))`,
			config: "path: $OUT", tested: "OK",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			dir := b.scaffold(name, m.kind, m.lang)
			if out := inFolder(t, dir, "make", "test"); !strings.Contains(out, m.tested) {
				t.Errorf("the tests of a new plugin say\n%s", out)
			}
			edit(t, filepath.Join(dir, m.code), m.old, m.instead)
			bin := "STACKTRAIL=" + must[string](t)(filepath.Abs(stacktrail(t)))
			if out := inFolder(t, dir, "make", "verify", bin); !strings.Contains(out, "\nall rules hold\n") || !strings.Contains(out, "\nok    growth ") || strings.Contains(out, "FAIL") {
				t.Errorf("verify says\n%s", out)
			}
			inFolder(t, dir, "make", "run", bin)
			b.runs(t, filepath.Join(dir, name), name, m)
		})
	}
}

// runs has the plugin do its work in a pipeline.
func (b *box) runs(t *testing.T, program, name string, m made) {
	t.Helper()
	own := filepath.Join(b.dir, "out", "own")
	item := fmt.Sprintf("%s: {%s}", name, strings.ReplaceAll(m.config, "$OUT", own))
	s := setup{}
	if m.kind == "output" {
		s.also = item
	}
	b.write(s)
	text := strings.Replace(string(must[[]byte](t)(os.ReadFile(b.config))), "pipelines:", "plugins: [{path: "+program+"}]\npipelines:", 1)
	if m.kind == "processor" {
		text = strings.Replace(text, "    outputs:", "    processors: [{"+item+"}]\n    outputs:", 1)
	}
	ok(t, os.WriteFile(b.config, []byte(text), 0o644))
	const lines = 100
	newWriter(t, b.log("api.log"), 0).lines(lines)
	if r := b.once(); r.code != 0 {
		t.Fatalf("code %d", r.code)
	}
	path, mark := b.out, `"query":"edited"`
	if m.kind == "output" {
		path, mark = own, "edited /"
	}
	if n := bytes.Count(must[[]byte](t)(os.ReadFile(path)), []byte(mark)); n != lines {
		t.Errorf("%d of %d events show what the edited function does", n, lines)
	}
}

// TestVerifyFindsABadPlugin: each fault under its rule, with the reason, and exit code 1.
func TestVerifyFindsABadPlugin(t *testing.T) {
	b := newBox(t)
	program := b.buildPlugin()
	script := func(name, text string) string {
		path := filepath.Join(b.dir, name)
		ok(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
		return path
	}
	config := filepath.Join(b.dir, "verify.yaml")
	write := func(text string) {
		t.Helper()
		ok(t, os.WriteFile(config, []byte(text), 0o644))
	}
	for _, c := range []struct{ what, path, config, says string }{
		{"no plugin", script("hello", "echo hello"), "mark: {pattern: x}", `FAIL  start      its first line is "hello"`},
		{"not there", filepath.Join(b.dir, "nothing"), "mark: {pattern: x}", "FAIL  start      open " + b.dir},
		{"crashes", program, "mark: {pattern: x, crash: /v2.1/servers/3}", "FAIL  first      the plugin ended: exit status 3"},
		{"hangs", program, "mark: {pattern: x, hang: /v2.1/servers/3}", "FAIL  first      the plugin did not answer within 1s"},
		{"far end", program, "append: {path: /proc/nothing/out}", "FAIL  first      opening: the plugin does not open: open /proc/nothing/out"},
		{"sigterm", script("deaf", "trap '' TERM\n"+program+"; sleep 300"), "mark: {pattern: x}", "FAIL  sigterm    2s after SIGTERM it still runs"},
		{"orphans", script("parent", "setsid sleep 300 >/dev/null 2>&1 &\nexec "+program), "mark: {pattern: x}", "FAIL  orphans    it left behind "},
	} {
		write(c.config)
		name, _, _ := strings.Cut(c.config, ":")
		r := command(t, "plugin", "verify", c.path, "--config", config, "--name", name, "--timeout", "1s")
		if r.code != 1 || !strings.Contains(r.out, c.says) || !strings.Contains(r.out, "why  ") || !strings.Contains(r.errors, "finding") {
			t.Errorf("%s: code %d, want 1 and %q\n%s%s", c.what, r.code, c.says, r.out, r.errors)
		}
	}
	for _, c := range []struct {
		what, config string
		args         []string
		code         int
		says         string
	}{
		{"no value", "", []string{"--name", "mark"}, 1, `processor "mark" needs a value for pattern, for which it has no example: --set pattern=`},
		{"unknown key", "mark: {patern: x}", nil, 78, "verify.yaml:1:8: mark.patern: unknown key \"patern\" (did you mean \"pattern\"?)"},
		{"unknown plugin", "marc: {pattern: x}", nil, 78, `did you mean "mark"?`},
		{"the plugin's own fault", "mark: {pattern: '['}", []string{"--name", "mark"}, 78, "verify.yaml:1:8: mark.pattern: error parsing regexp"},
		{"wrong name", "", []string{"--name", "marc"}, 2, `has no plugin "marc" (did you mean "mark"?); it has mark, append`},
		{"set of two", "", []string{"--set", "pattern=x"}, 2, "say with --name which one"},
		{"no set", "", []string{"--name", "mark", "--set", "pattern"}, 2, "write KEY=VALUE"},
	} {
		args := []string{"plugin", "verify", program}
		if c.config != "" {
			write(c.config)
			args = append(args, "--config", config)
		}
		r := command(t, append(args, c.args...)...)
		if r.code != c.code || !strings.Contains(r.errors, c.says) {
			t.Errorf("%s: code %d, want %d and %q\n%s%s", c.what, r.code, c.code, c.says, r.out, r.errors)
		}
	}
	if r := command(t, "plugin", "verify", program, "--name", "mark", "--set", "pattern=limit=[0-9]+"); r.code != 0 || !strings.Contains(r.out, "\nall rules hold\n") {
		t.Errorf("a good plugin: code %d\n%s%s", r.code, r.out, r.errors)
	}
}

// TestPluginListShowsWhatThereIs: what cannot be used stands there with the reason.
func TestPluginListShowsWhatThereIs(t *testing.T) {
	b := newBox(t)
	program := b.buildPlugin()
	b.writePlugin("{path: "+program+"}, {path: "+b.dir+"/gone}", "pattern: x", "blackhole: {}, id: more")
	dir := filepath.Join(b.dir, "plugins")
	ok(t, os.Mkdir(dir, 0o755))
	ok(t, os.WriteFile(filepath.Join(dir, "hello"), []byte("#!/bin/sh\necho hello\n"), 0o755))
	ok(t, os.WriteFile(filepath.Join(dir, "README"), []byte("no program\n"), 0o644))
	ok(t, os.Symlink(program, filepath.Join(dir, "collides")))

	r := command(t, "plugin", "list", "-c", b.config, "--dir", dir, "-o", "json")
	if r.code != 0 {
		t.Fatalf("code %d\n%s", r.code, r.errors)
	}
	var list []struct {
		Kind, Name, Source, Path, SHA256, Error string
		Protocol                                int
	}
	ok(t, json.Unmarshal([]byte(r.out), &list))
	sum, _, _ := strings.Cut(inFolder(t, b.dir, "sha256sum", program), " ")
	for _, want := range []struct {
		kind, name, source, path, sum, says string
		protocol                            int
	}{
		{"input", "tail", "built in", "", "", "", 0},
		{"output", "blackhole", "built in", "", "", "", 0},
		{"processor", "mark", "configured", program, sum, "", 1},
		{"output", "append", "configured", program, sum, "", 1},
		{"", "", "configured", b.dir + "/gone", "", "no such file", 0},
		{"", "", "found", dir + "/hello", "", "no handshake", 0},
		{"processor", "drop", "found", dir + "/collides", sum, "built into this agent", 1},
	} {
		i := slices.IndexFunc(list, func(l struct {
			Kind, Name, Source, Path, SHA256, Error string
			Protocol                                int
		},
		) bool {
			return l.Kind == want.kind && l.Name == want.name && l.Source == want.source && l.Path == want.path && l.Protocol == want.protocol
		})
		if i < 0 || want.sum != "" && list[i].SHA256 != want.sum || !strings.Contains(list[i].Error, want.says) || want.says == "" && list[i].Error != "" {
			t.Errorf("the list lacks %v:\n%s", want, r.out)
		}
	}
	if strings.Contains(r.out, "README") {
		t.Errorf("what cannot be executed is listed:\n%s", r.out)
	}
	r = command(t, "plugin", "list", "-c", b.config, "--dir", dir)
	if header, _, _ := strings.Cut(r.out, "\n"); r.code != 0 || strings.Join(strings.Fields(header), " ") != "KIND NAME VERSION PROTOCOL SHA256 KNOWN RUNS ERROR" {
		t.Errorf("code %d\n%s%s", r.code, r.out, r.errors)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--dir", b.dir + "/none"}, 1, "no such file"},
		{[]string{"-c", b.dir + "/none.yaml"}, 1, "no such file"},
		{[]string{"-o", "xml"}, 2, "use text or json"},
	} {
		if r := command(t, append([]string{"plugin", "list"}, c.args...)...); r.code != c.code || !strings.Contains(r.errors, c.says) {
			t.Errorf("%v: code %d, want %d and %q\n%s", c.args, r.code, c.code, c.says, r.errors)
		}
	}
}

// TestPluginNewRefusesWhatCannotBe: and leaves what is there alone.
func TestPluginNewRefusesWhatCannotBe(t *testing.T) {
	b := newBox(t)
	full := filepath.Join(b.dir, "full")
	ok(t, os.Mkdir(full, 0o755))
	ok(t, os.WriteFile(filepath.Join(full, "mine"), []byte("mine"), 0o644))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"mask", "--dir", full}, 1, "is not empty"},
		{[]string{"mask", "--dir", filepath.Join(full, "mine")}, 1, "not a directory"},
		{[]string{"My Mask"}, 2, `did you mean "my-mask"?`},
		{[]string{"9"}, 2, "is no name for a plugin"},
		{[]string{"../mask"}, 2, `did you mean "mask"?`},
		{[]string{"drop"}, 2, `processor "drop" is built into this agent, and a name may be taken once: what about "my-drop"?`},
		{[]string{"file"}, 2, `output "file" is built into this agent, and nobody could tell the two apart: what about "my-file"?`},
		{[]string{"tail", "--kind", "output"}, 2, `input "tail" is built into this agent`},
		{[]string{"level"}, 2, `"level" is a field of the common schema, which the new processor would overwrite: what about "my-level"?`},
		{[]string{"request-id", "--lang", "python"}, 2, `"request_id" is a field of the common schema, which the new processor would overwrite: what about "my-request-id"?`},
		{[]string{"mask", "--kind", "input"}, 2, "inputs cannot run in a process of their own yet"},
		{[]string{"mask", "--kind", "filter"}, 2, "use processor or output"},
		{[]string{"mask", "--lang", "rust"}, 2, "use go or python"},
		{[]string{"mask", "--lang", "python", "--module", "x"}, 2, "--module is for --lang go"},
		{[]string{"mask", "--module", "a b"}, 2, "is no module path"},
		{[]string{"mask", "--replace", b.dir}, 2, "is no checkout of"},
		{nil, 2, "accepts 1 arg"},
	} {
		r := commandIn(t, b.dir, nil, append([]string{"plugin", "new"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.errors, c.says) {
			t.Errorf("%v: code %d, want %d and %q\n%s%s", c.args, r.code, c.code, c.says, r.out, r.errors)
		}
	}
	if got := must[[]os.DirEntry](t)(os.ReadDir(full)); len(got) != 1 {
		t.Errorf("the folder that was full holds %v", got)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "mask")); err == nil {
		t.Error("a refused plugin has a folder")
	}
}

// TestPluginBenchMeasuresBesideWhatIsBuiltIn: every figure is there; what it is depends on the machine.
func TestPluginBenchMeasuresBesideWhatIsBuiltIn(t *testing.T) {
	b := newBox(t)
	config := filepath.Join(b.dir, "verify.yaml")
	ok(t, os.WriteFile(config, []byte("mark: {pattern: 'limit=[0-9]+'}\nappend: {path: $DIR/out.ndjson}\n"), 0o644))
	r := command(t, "plugin", "bench", b.buildPlugin(), "--config", config, "--for", "300ms", "-o", "json")
	if r.code != 0 {
		t.Fatalf("code %d\n%s", r.code, r.errors)
	}
	var rows []struct {
		Kind, Name string
		BuiltIn    bool    `json:"built_in"`
		Batch      int     `json:"batch"`
		Rate       float64 `json:"events_per_second"`
		Call       float64 `json:"call_us"`
		Agent      float64 `json:"agent_cpu_ns"`
		Plugin     float64 `json:"plugin_cpu_ns"`
	}
	ok(t, json.Unmarshal([]byte(r.out), &rows))
	var names []string
	for _, x := range rows {
		names = append(names, x.Kind+" "+x.Name)
		if x.Batch < 500 || x.Rate <= 0 || x.Call <= 0 || !x.BuiltIn && (x.Agent <= 0 || x.Plugin <= 0) || x.BuiltIn && x.Plugin != 0 {
			t.Errorf("%+v", x)
		}
	}
	if want := []string{"processor mark", "processor drop", "output append", "output blackhole"}; !slices.Equal(names, want) {
		t.Errorf("measured %v, want %v", names, want)
	}
	if r := command(t, "plugin", "bench", config); r.code != 1 || !strings.Contains(r.errors, "cannot be executed") {
		t.Errorf("what is no program: code %d\n%s", r.code, r.errors)
	}
}

// TestTheSqliteExampleIsProvedInADatabaseOfItsOwn: an output really writes, and not where the README's own database is.
func TestTheSqliteExampleIsProvedInADatabaseOfItsOwn(t *testing.T) {
	b := newBox(t)
	program := b.buildExample("sqlite")
	folder := "../../plugins/examples/sqlite"
	if text := string(must[[]byte](t)(os.ReadFile(filepath.Join(folder, "README.md")))); !strings.Contains(text, "plugin verify $PWD/bin/sqlite --config verify.yaml") {
		t.Error("the README proves it with another configuration")
	}
	r := commandIn(t, folder, nil, "plugin", "verify", program, "--config", "verify.yaml")
	if r.code != 0 || !strings.Contains(r.out, "all rules hold") {
		t.Errorf("code %d\n%s%s", r.code, r.out, r.errors)
	}
}
