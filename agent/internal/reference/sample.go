package reference

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

//go:embed example.yaml
var exampleFile []byte

// Sample returns a commented configuration that passes a check. Without names it is the example of a whole pipeline. With names (a
// plugin's, kind:name, or agent) it is a pipeline of these plugins with every key at its default; what must be written, or is of
// no use otherwise, holds an example. minimal leaves away whatever has a default, and the comments. The error is for the user:
// a name is not known.
func Sample(reg *plugins.Registry, names []string, minimal bool) ([]byte, error) {
	specs, agent, err := lookup(reg, names)
	if err != nil {
		return nil, err
	}
	ex, err := readExample()
	if err != nil {
		return nil, err
	}
	s := sampler{reg: reg, ex: ex}
	switch {
	case len(names) == 0 && minimal:
		for _, k := range []struct {
			kind plugins.Kind
			name string
		}{{plugins.KindInput, "tail"}, {plugins.KindOutput, "file"}} {
			if spec, ok := reg.Lookup(k.kind, k.name); ok {
				specs = append(specs, spec)
			}
		}
		return text(s.pipeline(ex.name, specs, form{given: true, bare: true})), nil
	case len(names) == 0:
		return text(slices.Concat(header("An example. What is not written has its default: `stacktrail sample PLUGIN` shows every key of a plugin,",
			"`stacktrail sample agent` those of the agent, `stacktrail docs` explains them all."), s.whole())), nil
	case minimal:
		return text(append(raised(specs, true), s.pipeline("example", specs, form{given: true, bare: true})...)), nil
	}
	out := header("Every key with its default, and an example where there is none. A line that begins with # and no space is off;",
		"without the # it is on. ${VAR}, ${VAR:-default}, ${file:/path} and ${cred:name} may stand in any value.")
	if agent {
		out = slices.Concat(out, s.agent(form{}, memory(specs)), s.programs())
	} else {
		out = append(out, raised(specs, false)...)
	}
	return text(append(out, s.pipeline("example", specs, form{})...)), nil
}

// example is what example.yaml holds.
type example struct {
	agent conf.Node
	name  string
	items map[plugins.Kind][]conf.Node
}

func readExample() (example, error) {
	root, faults := conf.Parse("example.yaml", exampleFile)
	if err := faults.Err(); err != nil {
		return example{}, fmt.Errorf("BUG: reading the example: %w", err)
	}
	agent, _ := root.Get("agent")
	list, _ := root.Get("pipelines")
	ex := example{agent: agent, items: map[plugins.Kind][]conf.Node{}}
	for _, p := range list.Items() {
		n, _ := p.Get("name")
		ex.name = n.Scalar()
		for _, k := range kinds() {
			items, _ := p.Get(string(k) + "s")
			ex.items[k] = append(ex.items[k], items.Items()...)
		}
	}
	return ex, nil
}

// of returns the example's item of a plugin, and the section of the plugin in it. Without one both are the zero Node.
func (ex example) of(s plugins.Spec) (item, section conf.Node) {
	for _, item := range ex.items[s.Kind] {
		if section, ok := item.Get(s.Name); ok {
			return item, section
		}
	}
	return conf.Node{}, conf.Node{}
}

// sampler makes samples. Lines are made without indentation and moved by whoever puts them below a key.
type sampler struct {
	reg *plugins.Registry
	ex  example
}

// form says how much of a section is written.
type form struct {
	given bool // only keys that the example has, and required ones
	bare  bool // without comments
	plain bool // the example is shown only where there is no default
}

// width is how long lines may be.
const width = 110

func header(lines ...string) []string {
	out := make([]string, 0, len(lines)+1)
	for _, l := range lines {
		out = append(out, "# "+l)
	}
	return append(out, "")
}

func text(lines []string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }

// whole is the example with comments.
func (s *sampler) whole() []string {
	var specs []plugins.Spec
	for _, spec := range all(s.reg) {
		if _, section := s.ex.of(spec); section.Kind() != conf.Invalid {
			specs = append(specs, spec)
		}
	}
	return append(s.agent(form{given: true}, memory(specs)), s.pipeline(s.ex.name, specs, form{given: true})...)
}

func (s *sampler) agent(f form, limit conf.Size) []string {
	k := find(tree(config.Describe()), "agent")
	find(k.kids, "memory_limit").Default = limit.String()
	f.plain = !f.given // defaults, where all keys are shown
	return slices.Concat(s.comment(k, f, width), []string{"agent:"}, indent(s.keys(k.kids, s.ex.agent, f, width-2)), []string{""})
}

// pluginsKey is the section of the plugins that are programs.
const pluginsKey = "plugins"

// programs is that section, switched off: which programs there are, nobody knows here.
func (s *sampler) programs() []string {
	k := find(tree(config.Describe()), pluginsKey)
	find(k.kids, "path").Example = "/usr/lib/stacktrail/plugins/mask"
	return slices.Concat(s.comment(k, form{}, width), off(s.collection(k, form{}, width-1)), []string{""})
}

// memory is the default of memory_limit, or as much more as these plugins need.
func memory(specs []plugins.Spec) conf.Size {
	p := config.DefaultOutputPolicies()
	var need conf.Size
	for _, spec := range specs {
		if spec.Kind == plugins.KindOutput {
			need += p.Queue.Bytes + p.Batch.Bytes
		}
	}
	return max(config.DefaultAgent().MemoryLimit, 2*need)
}

// raised sets memory_limit where these plugins need more than the default.
func raised(specs []plugins.Spec, bare bool) []string {
	limit := memory(specs)
	switch {
	case limit == config.DefaultAgent().MemoryLimit:
		return nil
	case bare:
		return []string{"agent:", "  memory_limit: " + limit.String()}
	}
	return []string{"agent:", "  # So many outputs need more than the default.", "  memory_limit: " + limit.String(), ""}
}

// pipeline is a pipeline of these plugins, with one of the kinds that it cannot do without.
func (s *sampler) pipeline(name string, specs []plugins.Spec, f form) []string {
	keys := find(tree(config.Describe()), "pipelines").kids
	out := []string{"pipelines:", "  - name: " + name}
	for _, kind := range kinds() {
		var items []string
		for _, spec := range specs {
			if spec.Kind == kind {
				items = append(items, s.item(spec, f)...)
			}
		}
		if items == nil && kind != plugins.KindProcessor {
			items = s.item(s.stopgap(kind), form{given: true, bare: true})
		}
		if items != nil {
			k := find(keys, string(kind)+"s")
			out = append(out, indent(indent(s.comment(k, form{given: true, bare: f.bare}, width-4)))...)
			out = append(out, "    "+k.Name+":")
			out = append(out, indent(indent(indent(items)))...)
		}
	}
	return out
}

// stopgap is a plugin that completes a pipeline.
func (s *sampler) stopgap(kind plugins.Kind) plugins.Spec {
	for _, name := range []string{"stdin", "stdout"} {
		if spec, ok := s.reg.Lookup(kind, name); ok {
			return spec
		}
	}
	for _, name := range s.reg.Names(kind) {
		spec, _ := s.reg.Lookup(kind, name)
		return spec
	}
	return plugins.Spec{Kind: kind, Name: "plugin", Defaults: struct{}{}}
}

// item is a plugin with what stands beside it.
func (s *sampler) item(spec plugins.Spec, f form) []string {
	item, section := s.ex.of(spec)
	var out []string
	if !f.bare {
		out = wrap(spec.Summary, width-6)
	}
	keys := s.keys(keysOf(spec), section, f, width-10)
	if live(keys) {
		out = append(append(out, "- "+spec.Name+":"), indent(indent(keys))...)
	} else {
		out = append(append(out, "- "+spec.Name+": {}"), indent(indent(keys))...)
	}
	if f.bare {
		return out
	}
	if !f.given {
		f.plain = true
		out = append(out, indent(wrap("Beside the plugin's key stands what every "+string(spec.Kind)+" has.", width-8))...)
	}
	return append(out, indent(s.keys(policiesOf(spec.Kind, spec), item, f, width-8))...)
}

// live tells whether there is more than comments.
func live(lines []string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return !strings.HasPrefix(strings.TrimSpace(l), "#") })
}

// keys writes the keys of a section; values is that section in the example.
func (s *sampler) keys(keys []*key, values conf.Node, f form, width int) []string {
	var out []string
	for _, k := range keys {
		v, has := values.Get(k.Name)
		if f.given && !has && !k.Required {
			continue
		}
		out = append(out, s.comment(k, f, width)...)
		out = append(out, s.key(k, v, f, width)...)
	}
	return out
}

// key writes one key with the example v, or its default, or, if there is none, switched off.
func (s *sampler) key(k *key, v conf.Node, f form, width int) []string {
	has := v.Kind() != conf.Invalid
	switch {
	case k.section():
		kids := s.keys(k.kids, v, f, width-2)
		lines := append([]string{k.Name + ":"}, indent(kids)...)
		if !live(kids) {
			lines[0] += " {}"
		}
		if k.Optional && !has {
			return off(lines)
		}
		return lines
	case has && (!f.plain || k.Required):
		return block(k.Name, v, width)
	case !k.Required && k.Default != "" && k.Default != masked:
		lines := []string{k.Name + ": " + k.Default}
		if len(k.kids) > 0 {
			lines = append(lines, off(s.collection(k, f, width-1))...)
		}
		return lines
	case k.Example != "":
		return []string{k.Name + ": " + k.Example}
	case has:
		return off(block(k.Name, v, width-1))
	case k.Required:
		return []string{k.Name + ": " + blank(k.Type)}
	}
	return off([]string{k.Name + ":"})
}

// masked is what a default that must not be shown looks like.
const masked = "***"

// blank is what the user has to replace.
func blank(t string) string {
	switch {
	case strings.HasPrefix(t, "list of"):
		return "[]"
	case t == "section", strings.HasPrefix(t, "map of"):
		return "{}"
	case t == "bool":
		return "false"
	case t == "integer", t == "number":
		return "0"
	case t == "duration":
		return "1s"
	case t == "size":
		return "1MiB"
	}
	return `""`
}

// collection shows one entry of a list or map of sections.
func (s *sampler) collection(k *key, f form, width int) []string {
	kids := s.keys(k.kids, conf.Node{}, f, width-4)
	if strings.HasPrefix(k.Type, "map of") {
		return append([]string{k.Name + ":", "  NAME:"}, indent(indent(kids))...)
	}
	lines := indent(indent(kids))
	for i := range lines {
		if i == 0 && len(lines[0]) > len("    ") {
			lines[0] = "  - " + lines[0][len("    "):]
		}
	}
	return append([]string{k.Name + ":"}, lines...)
}

// comment says what a key is for.
func (s *sampler) comment(k *key, f form, width int) []string {
	if f.bare {
		return nil
	}
	say := k.Doc
	if !f.given && k.Type != "section" {
		list := slices.DeleteFunc(facts(k), func(f string) bool { return f == "string" || f == "bool" }) // the value shows it
		if len(list) > 0 {
			say = strings.TrimSpace(say + " (" + strings.Join(list, ", ") + ")")
		}
	}
	return wrap(say, width)
}

// block writes a value below its key: on one line where that is short, else an entry on each line.
func block(name string, v conf.Node, width int) []string {
	const short = 60
	one := name + ": " + v.Flow()
	n := utf8.RuneCountInString(one)
	entries := len(v.Keys()) + len(v.Items())
	if v.Kind() == conf.Scalar || entries == 0 || n <= min(short, width) {
		return []string{one}
	}
	out := []string{name + ":"}
	for _, k := range v.Keys() {
		out = append(out, indent(block(k.Name, k.Value, width-2))...)
	}
	for _, x := range v.Items() {
		out = append(out, "  - "+x.Flow())
	}
	return out
}

// indent moves lines to the right by a step.
func indent(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		if out[i] = l; l != "" {
			out[i] = "  " + l
		}
	}
	return out
}

// off makes lines comments. Without a space after the #, unlike in prose.
func off(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = "#" + l
	}
	return out
}

// wrap breaks prose into comment lines.
func wrap(prose string, width int) []string {
	var out []string
	line := "#"
	for word := range strings.FieldsSeq(prose) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width && line != "#" {
			out, line = append(out, line), "#"
		}
		line += " " + word
	}
	if line != "#" {
		out = append(out, line)
	}
	return out
}
