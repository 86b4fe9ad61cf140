package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// fence is a block of code in a document.
type fence struct {
	line int // of its first line
	kind string
	text string
}

// fences returns the blocks of code of a Markdown document.
func fences(document string) []fence {
	var all []fence
	var in *fence
	n := 0
	for l := range strings.Lines(document) {
		n++
		kind, mark := strings.CutPrefix(strings.TrimSpace(l), "```")
		switch {
		case mark && in == nil:
			in = &fence{line: n + 1, kind: kind}
		case mark:
			all, in = append(all, *in), nil
		case in != nil:
			in.text += l
		}
	}
	return all
}

// documents returns the Markdown files for users, by their paths from the root.
func documents(t testing.TB) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, pattern := range []string{"*.md", "*/*/README.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			docs[strings.TrimPrefix(filepath.ToSlash(p), root+"/")] = string(b)
		}
	}
	return docs
}

// whole completes an example that shows a part of a configuration: just the agent, or the items of a pipeline. Items get ids, since
// an example may show several ways to write one thing.
func whole(text string) (string, error) {
	n, faults := conf.Parse("example", []byte(text))
	if err := faults.Err(); err != nil {
		return "", err
	}
	if _, ok := n.Get("pipelines"); ok {
		return text, nil
	}
	parts := map[string][]string{}
	items := 0
	for _, k := range n.Keys() {
		switch k.Name {
		case "agent":
			parts[k.Name] = []string{k.Value.Flow()}
		case "inputs", "processors", "outputs":
			for _, x := range k.Value.Items() {
				items++
				flow := x.Flow()
				if _, ok := x.Get("id"); !ok && x.Kind() == conf.Section {
					flow = strings.TrimSuffix(flow, "}") + fmt.Sprintf(", id: example-%d}", items)
				}
				parts[k.Name] = append(parts[k.Name], flow)
			}
		default:
			return "", fmt.Errorf("line %d: %q belongs to no configuration", k.KeyNode.Line(), k.Name)
		}
	}
	for kind, stopgap := range map[string]string{"inputs": "{stdin: {}}", "outputs": "{stdout: {}}"} {
		if parts[kind] == nil {
			parts[kind] = []string{stopgap}
		}
	}
	var out strings.Builder
	if a := parts["agent"]; a != nil {
		fmt.Fprintf(&out, "agent: %s\n", a[0])
	}
	out.WriteString("pipelines:\n  - name: example\n")
	for _, kind := range []string{"inputs", "processors", "outputs"} {
		fmt.Fprintf(&out, "    %s: [%s]\n", kind, strings.Join(parts[kind], ", "))
	}
	return out.String(), nil
}

// checkYAML reports what is wrong with an example of a configuration, but for files that a user has and we do not: tables,
// certificates.
func checkYAML(t testing.TB, reg *plugins.Registry, text string) error {
	t.Helper()
	if n, faults := conf.Parse("example", []byte(text)); len(faults) == 0 {
		if _, ok := n.Get("plugins"); ok {
			return nil // it names programs that are not here: what their plugins are called is not known
		}
	}
	full, err := whole(text)
	if err != nil {
		return err
	}
	err = loadText(t, reg, []byte(full))
	if faults, ok := errors.AsType[conf.Faults](err); ok {
		return slices.DeleteFunc(faults, func(f conf.Fault) bool {
			return strings.HasSuffix(f.Message, syscall.ENOENT.Error())
		}).Err()
	}
	return err
}

// commandLines returns the calls of stacktrail in a block of shell, in words, without the name of the program.
func commandLines(text string) [][]string {
	text = strings.ReplaceAll(text, "\\\n", " ")
	assignment := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	var all [][]string
	for line := range strings.Lines(text) {
		for _, words := range commands(strings.TrimPrefix(strings.TrimSpace(line), "$ ")) {
			for len(words) > 0 && (words[0] == "sudo" || words[0] == "exec" || assignment.MatchString(words[0])) {
				words = words[1:]
			}
			if len(words) > 0 && (words[0] == "stacktrail" || strings.HasSuffix(words[0], "/stacktrail")) {
				all = append(all, words[1:])
			}
		}
	}
	return all
}

// commands splits a line of shell into commands and these into words. It knows quotes, backslashes, comments, pipes and redirections;
// more than that an example should not need.
func commands(line string) [][]string {
	var all [][]string
	var words []string
	var word strings.Builder
	quote, open, target := rune(0), false, false
	end := func() {
		if open && !target {
			words = append(words, word.String())
		}
		if open {
			target = false
		}
		word.Reset()
		open = false
	}
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, open = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ' || r == '\t' || r == '\n':
			end()
		case r == '#' && !open:
			return append(all, words)
		case r == '|' || r == ';' || r == '&':
			end()
			all, words, target = append(all, words), nil, false
		case r == '>' || r == '<':
			if strings.Trim(word.String(), "0123456789") == "" {
				word.Reset() // the number of a descriptor
				open = false
			}
			end()
			target = true
		default:
			word.WriteRune(r)
			open = true
		}
	}
	end()
	return append(all, words)
}

// checkCommand reports what is wrong with a call of stacktrail: commands, flags, their values and the number of arguments.
func checkCommand(reg *plugins.Registry, args []string) error {
	tree := newRootCommand(reg)
	cmd, rest, err := tree.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	args = cmd.Flags().Args()
	if err := cmd.ValidateArgs(args); err != nil {
		return err
	}
	if cmd.ValidArgsFunction != nil { // names of plugins
		known, _ := cmd.ValidArgsFunction(cmd, nil, "")
		for _, a := range args {
			_, name, kind := strings.Cut(a, ":")
			if !kind {
				name = a
			}
			if !slices.Contains(known, name) && !slices.Contains(known, a) {
				return fmt.Errorf("%s: there is no plugin %s", cmd.Name(), a)
			}
		}
	}
	return cmd.ValidateRequiredFlags()
}

func TestExamplesOfDocumentsAreGood(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	yamls, calls := 0, 0
	for name, doc := range documents(t) {
		for _, f := range fences(doc) {
			switch f.kind {
			case "yaml":
				yamls++
				if err := checkYAML(t, reg, f.text); err != nil {
					t.Errorf("%s:%d: the example is refused: %v", name, f.line, err)
				}
			case "", "sh", "bash", "shell", "console":
				for _, args := range commandLines(f.text) {
					calls++
					if err := checkCommand(reg, args); err != nil {
						t.Errorf("%s:%d: stacktrail %s: %v", name, f.line, strings.Join(args, " "), err)
					}
				}
			}
		}
	}
	if yamls < 2 || calls < 3 {
		t.Errorf("only %d configurations and %d commands were found", yamls, calls)
	}
}

// Every command says in its help how it is called, and that is right.
func TestExamplesOfCommandsAreGood(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		lines := commandLines(c.Example)
		if c.Runnable() && !c.Hidden && len(lines) == 0 { // a hidden one is for programs
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, args := range lines {
			if err := checkCommand(reg, args); err != nil {
				t.Errorf("%s: stacktrail %s: %v", c.CommandPath(), strings.Join(args, " "), err)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(reg))
}

func TestBadExamplesAreFound(t *testing.T) {
	t.Parallel()
	reg := builtins(t)
	blocks := fences("text\n```yaml\na: b\n```\n\n- item\n  ```sh\n  x\n  ```\n")
	if len(blocks) != 2 || blocks[0] != (fence{3, "yaml", "a: b\n"}) || blocks[1].kind != "sh" || blocks[1].line != 8 {
		t.Errorf("got %+v", blocks)
	}
	for _, text := range []string{
		"processors:\n  - dorp: {when: 'true'}\n", "agent: {state: /x}\n", "outputs: [{file: {}}]\n", "a: [", "urls: []\n",
		"pipelines: [{name: x}]\n", "processors: [{drop: {when: 'pth == 1'}}]\n",
	} {
		if checkYAML(t, reg, text) == nil {
			t.Errorf("passes: %s", text)
		}
	}
	for _, text := range []string{"processors:\n  - drop: {when: 'method == \"GET\"'}\n  - drop: {when: 'true'}\n", "agent: {memory_limit: 32MiB}\n"} {
		if err := checkYAML(t, reg, text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	got := commandLines("make build\n$ X=1 sudo bin/stacktrail run -c 'a b.yaml' --once   # stacktrail no\nzcat x | stacktrail parse \\\n  --format auto > out 2>err && stacktrail check\necho stacktrail\n")
	if want := "[[run -c a b.yaml --once] [parse --format auto] [check]]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for call, good := range map[string]bool{
		"run -c x.yaml --once": true, "-c x.yaml": true, "sample input:tail": true, "completion zsh": true, "parse a b": true,
		"run --onec": false, "rnu": false, "check x.yaml": false, "sample nothing": false, "completion tcsh": false, "version -o": false,
	} {
		if err := checkCommand(reg, strings.Fields(call)); (err == nil) != good {
			t.Errorf("stacktrail %s: %v", call, err)
		}
	}
	if err := checkCommand(reg, nil); err != nil {
		t.Error(err)
	}
}
