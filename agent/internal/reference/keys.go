package reference

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// key is a key with the keys below it.
type key struct {
	conf.KeyDoc
	kids []*key
}

// section tells that the value is a section whose keys are known.
func (k *key) section() bool { return k.Type == "section" && len(k.kids) > 0 }

// tree hangs keys below the sections that hold them.
func tree(docs []conf.KeyDoc) []*key {
	var roots []*key
	at := map[string]*key{}
	for _, d := range docs {
		k := &key{KeyDoc: d}
		at[d.Path] = k
		up := strings.TrimSuffix(strings.TrimSuffix(d.Path, d.Name), ".")
		for up != "" && at[up] == nil {
			shorter := strings.TrimSuffix(strings.TrimSuffix(up, "[]"), ".*")
			if shorter == up {
				break
			}
			up = shorter
		}
		if parent := at[up]; parent != nil {
			parent.kids = append(parent.kids, k)
		} else {
			roots = append(roots, k)
		}
	}
	return roots
}

// find returns the key of that name.
func find(keys []*key, name string) *key {
	for _, k := range keys {
		if k.Name == name {
			return k
		}
	}
	return &key{}
}

func keysOf(s plugins.Spec) []*key {
	return tree(conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults))
}

func policiesOf(k plugins.Kind, s plugins.Spec) []*key { return tree(config.DescribePolicies(k, s)) }

// kinds lists the kinds of plugins in the order of a pipeline.
func kinds() []plugins.Kind {
	return []plugins.Kind{plugins.KindInput, plugins.KindProcessor, plugins.KindOutput}
}

// all lists the plugins of a registry by kind and name.
func all(reg *plugins.Registry) []plugins.Spec {
	var specs []plugins.Spec
	for _, k := range kinds() {
		for _, n := range reg.Names(k) {
			s, _ := reg.Lookup(k, n)
			specs = append(specs, s)
		}
	}
	return specs
}

// agentTopic is a name like a plugin's that stands for the section agent.
const agentTopic = "agent"

// Names lists what samples and docs can be asked for: agent, and the plugins. A name that two kinds have is written kind:name.
func Names(reg *plugins.Registry) []string {
	names := []string{agentTopic}
	for _, s := range all(reg) {
		names = append(names, nameIn(reg, s))
	}
	return names
}

func nameIn(reg *plugins.Registry, s plugins.Spec) string {
	for _, k := range kinds() {
		if _, is := reg.Lookup(k, s.Name); is && k != s.Kind {
			return string(s.Kind) + ":" + s.Name
		}
	}
	return s.Name
}

// lookup finds the plugins that users name, each once, and whether they named the agent too.
func lookup(reg *plugins.Registry, names []string) (specs []plugins.Spec, agent bool, err error) {
	taken := map[string]bool{}
	for _, name := range names {
		if name == agentTopic {
			agent = true
			continue
		}
		var found []plugins.Spec
		var same []string
		for _, s := range all(reg) {
			full := string(s.Kind) + ":" + s.Name
			if name == s.Name || name == full {
				found, same = append(found, s), append(same, full)
			}
		}
		switch len(found) {
		case 0:
			return nil, false, unknown(reg, name)
		case 1:
			if !taken[same[0]] {
				specs = append(specs, found[0])
			}
			taken[same[0]] = true
		default:
			return nil, false, fmt.Errorf("there are several plugins named %q: say which, %s", name, strings.Join(same, " or "))
		}
	}
	return specs, agent, nil
}

func unknown(reg *plugins.Registry, name string) error {
	candidates := Names(reg)
	for _, s := range all(reg) {
		candidates = append(candidates, string(s.Kind)+":"+s.Name)
	}
	if near := conf.Suggest(name, candidates); near != "" {
		return fmt.Errorf("there is no plugin %q (did you mean %q?)", name, near)
	}
	return fmt.Errorf("there is no plugin %q; known are %s", name, strings.Join(Names(reg), ", "))
}

// facts says in short what the description of a key does not: its type, limits and the values that are allowed.
func facts(k *key) []string {
	var list []string
	if k.Required {
		list = append(list, "required")
	}
	switch t := typeOf(k); {
	case len(k.Enum) > 0:
		list = append(list, "one of "+strings.Join(shown(k.Enum), ", "))
	case t != "":
		list = append(list, t)
	}
	if k.Min != "" {
		list = append(list, "at least "+k.Min)
	}
	if k.Max != "" {
		list = append(list, "at most "+k.Max)
	}
	return list
}

// typeOf is what a key's type is to readers. What may be written in several ways is left to its description.
func typeOf(k *key) string {
	if k.Type == "section" && len(k.kids) == 0 || k.Type == "any" {
		return ""
	}
	return k.Type
}

// shown quotes what would not be seen.
func shown(enum []string) []string {
	out := make([]string, len(enum))
	for i, e := range enum {
		if out[i] = e; e == "" {
			out[i] = `""`
		}
	}
	return out
}
