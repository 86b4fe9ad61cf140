package reference

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Docs returns the description of these plugins (a plugin's name, kind:name, or agent) as Markdown; without names, of everything.
// The error is for the user: a name is not known.
func Docs(reg *plugins.Registry, names []string) ([]byte, error) {
	specs, agent, err := lookup(reg, names)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if agent || len(names) == 0 {
		writeAgent(&b)
	}
	if len(names) == 0 {
		specs = all(reg)
	}
	for _, s := range specs {
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		if err := writePlugin(&b, reg, s, ""); err != nil {
			return nil, err
		}
	}
	return []byte(b.String()), nil
}

// writePlugin writes the page of a plugin; about is what more there is to say of it, in Markdown.
func writePlugin(b *strings.Builder, reg *plugins.Registry, s plugins.Spec, about string) error {
	fmt.Fprintf(b, "# %s\n\nThe %s `%s`: %s\n", s.Name, s.Kind, s.Name, escape(lowerFirst(s.Summary)))
	if about != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(about))
	}
	sample, err := Sample(reg, []string{string(s.Kind) + ":" + s.Name}, true)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n## To start from\n\n```yaml\n%s```\n\n## Keys\n\n", sample)
	if keys := keysOf(s); len(keys) > 0 {
		writeTable(b, keys)
	} else {
		b.WriteString("There is nothing to set.\n")
	}
	var beside []string
	for _, k := range policiesOf(s.Kind, s) {
		beside = append(beside, "`"+k.Name+"`")
	}
	fmt.Fprintf(b, "\nBeside `%s:` may stand %s, as with every %s: `stacktrail docs agent` describes them.\n"+
		"`stacktrail sample %s` prints a configuration with all keys.\n", s.Name, strings.Join(beside, ", "), s.Kind, nameIn(reg, s))
	return nil
}

// writeAgent writes the page of all that belongs to no plugin.
func writeAgent(b *strings.Builder) {
	doc := tree(config.Describe())
	b.WriteString(`# The configuration

Files given with ` + "`-c`" + ` and the ` + "`*.yaml`" + ` of a directory are merged: sections key by key, pipelines by name. Unknown keys are errors, and
all errors are reported together (` + "`stacktrail check`" + `). In values ` + "`${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `${file:/path}`" + `
and ` + "`${cred:name}`" + ` are replaced; ` + "`$$`" + ` is a dollar sign.

A size is a whole number with a unit, one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB. A duration is a number with a unit, one of ns, us,
ms, s, m, h, d, or several of these: 1h30m.

## agent

`)
	writeTable(b, find(doc, "agent").kids)
	list := find(doc, pluginsKey)
	fmt.Fprintf(b, "\n## %s\n\n%s\nA list; each item has these keys.\n\n", list.Name, escape(list.Doc))
	writeTable(b, list.kids)
	b.WriteString("\n## pipelines\n\nA list; each item has these keys.\n\n")
	writeTable(b, find(doc, "pipelines").kids)
	b.WriteString("\nEach item of `inputs`, `processors` and `outputs` is a section with one key that names the plugin and holds its configuration.\n" +
		"Beside it may stand the keys that follow.\n")
	for _, kind := range kinds() {
		fmt.Fprintf(b, "\n### Beside the key of %s\n\n", map[plugins.Kind]string{
			plugins.KindInput: "an input", plugins.KindProcessor: "a processor", plugins.KindOutput: "an output",
		}[kind])
		writeTable(b, policiesOf(kind, plugins.Spec{}))
	}
}

// writeTable writes a table of keys, those of sections with their paths.
func writeTable(b *strings.Builder, keys []*key) {
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	writeRows(b, keys, "")
}

func writeRows(b *strings.Builder, keys []*key, up string) {
	for _, k := range keys {
		var notes []string
		kind := typeOf(k)
		if len(k.Enum) > 0 {
			var values []string
			for _, e := range shown(k.Enum) {
				values = append(values, "`"+e+"`")
			}
			kind = strings.Join(values, ", ")
		}
		if k.Min != "" {
			notes = append(notes, "At least "+k.Min+".")
		}
		if k.Max != "" {
			notes = append(notes, "At most "+k.Max+".")
		}
		def := ""
		switch {
		case k.Required:
			def = "required"
		case k.Optional:
			def = "off"
		case k.Default != "":
			def = "`" + strings.ReplaceAll(k.Default, "|", "\\|") + "`"
		}
		name := up + k.Name
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, kind, def, strings.TrimSpace(escape(k.Doc)+" "+strings.Join(notes, " ")))
		sep := "."
		switch {
		case strings.HasPrefix(k.Type, "list of"):
			sep = "[]."
		case strings.HasPrefix(k.Type, "map of"):
			sep = ".*."
		}
		writeRows(b, k.kids, name+sep)
	}
}

// Fields returns the table of the schema as Markdown.
func Fields() []byte {
	var b strings.Builder
	b.WriteString(`# Fields

The common schema, version ` + schema.Version + `. Fields 1 to 60 are shared by all sources, those above are of local OpenStack services. ` + "`x.`" + ` stands for
a namespace of our own.

| number | name | type | unit | meaning | ECS | OpenTelemetry |
|---|---|---|---|---|---|---|
`)
	for _, f := range schema.Fields() {
		b.WriteString("| " + strings.Join([]string{
			strconv.Itoa(f.Number), "`" + f.Name + "`", f.Type.String(), f.Unit, escape(f.Doc), code(f.ECS), code(f.OTel),
		}, " | ") + " |\n")
	}
	return []byte(b.String())
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// escape keeps Markdown from reading prose as markup.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "<", `\<`, "|", `\|`, "[", `\[`, "`", "\\`").Replace(s)
}

// lowerFirst makes a sentence the continuation of one, but for words that are written in capitals.
func lowerFirst(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if word == "" || word != strings.ToUpper(word[:1])+strings.ToLower(word[1:]) {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// File is a file of the repository that is made from the code.
type File struct {
	Path string // from the root of the repository, with slashes
	Data []byte
}

// generated is how made files begin.
const generated = "Made by `make generate`: change the code that it describes, not this file."

// Files returns all files of the repository that are made from the code. about returns what more there is to say of a plugin, in
// Markdown, for its page; grammars says by its name how each format of lines is written, in Markdown too.
func Files(reg *plugins.Registry, about func(plugins.Spec) (string, error), grammars map[string]string) ([]File, error) {
	var files []File
	page := func(path string, body string) {
		files = append(files, File{path, []byte("<!-- " + generated + " -->\n\n" + body)})
	}
	for _, s := range all(reg) {
		more, err := about(s)
		if err != nil {
			return nil, err
		}
		var b strings.Builder
		if err := writePlugin(&b, reg, s, more); err != nil {
			return nil, err
		}
		page(string(s.Kind)+"s/"+s.Name+"/README.md", b.String())
		sample, err := Sample(reg, []string{string(s.Kind) + ":" + s.Name}, false)
		if err != nil {
			return nil, err
		}
		files = append(files, File{fmt.Sprintf("configs/reference/%s-%s.yaml", s.Kind, s.Name), slices.Concat([]byte("# "+generated+"\n#\n"), sample)})
	}
	sample, err := Sample(reg, []string{agentTopic}, false)
	if err != nil {
		return nil, err
	}
	files = append(files, File{"configs/reference/agent.yaml", slices.Concat([]byte("# "+generated+"\n#\n"), sample)})
	var b strings.Builder
	writeAgent(&b)
	page("configs/reference/README.md", b.String())
	page("configs/reference/fields.md", string(Fields()))
	formats, err := formatsPage(reg, grammars)
	if err != nil {
		return nil, err
	}
	page("configs/reference/formats.md", string(formats))
	kept, err := json.MarshalIndent(grammars, "", "  ")
	if err != nil {
		return nil, err
	}
	files = append(files, File{grammarsPath, append(kept, '\n')})
	machine, err := Schema(reg)
	if err != nil {
		return nil, err
	}
	files = append(files, File{"configs/schema.json", machine})
	return files, nil
}
