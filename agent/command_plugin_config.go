package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// configure makes the configuration of every chosen plugin and has it checked, by the agent and by the plugin itself, as in dir.
func (p *program) configure(dir string) error {
	sections, err := p.readFile("$DIR")
	if err != nil {
		return err
	}
	placed, err := p.readFile(dir) // whose faults have places
	if err != nil {
		return err
	}
	if len(p.sets) > 0 && len(p.specs) != 1 {
		return fmt.Errorf("--set: %s has %s: say with --name which one is meant", p.path, count(len(p.specs), "plugin"))
	}
	p.configs = map[string]string{}
	for _, s := range p.specs {
		n, given := sections[ownName(s)]
		if given && len(p.sets) == 0 {
			if err := checkConfig(s, placed[ownName(s)]); err != nil {
				return err
			}
		}
		text, err := p.section(s, n, given)
		if err != nil {
			return err
		}
		p.configs[ownName(s)] = text
		n, faults := conf.Parse("flags", []byte(strings.ReplaceAll(text, "$DIR", dir)))
		if err := faults.Err(); err != nil {
			return err
		}
		if err := checkConfig(s, n); err != nil {
			return err
		}
	}
	return nil
}

// readFile finds the sections of the file by the plugins that they are for, with dir in the place of $DIR.
func (p *program) readFile(dir string) (map[string]conf.Node, error) {
	if p.file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(p.file)
	if err != nil {
		return nil, fail(exitFailure, fmt.Errorf("reading the configuration: %w", err))
	}
	root, faults := conf.Parse(p.file, bytes.ReplaceAll(text, []byte("$DIR"), []byte(dir)))
	faults = append(faults, conf.Interpolate(root, conf.SystemLookup())...)
	sections := map[string]conf.Node{}
	for _, k := range root.Keys() {
		var names []string
		found := false
		for _, s := range p.specs {
			names = append(names, s.Name)
			if k.Name == s.Name || k.Name == ownName(s) {
				sections[ownName(s)], found = k.Value, true
			}
		}
		if !found && p.name == "" { // with it the file may hold the others
			f := k.Value.KeyFault("%s has no plugin of this name; it has %s", filepath.Base(p.path), strings.Join(names, ", "))
			f.Suggestion = conf.Suggest(k.Name, names)
			faults = append(faults, f)
		}
	}
	if root.Kind() != conf.Section && len(faults) == 0 {
		faults = append(faults, root.Fault("it holds no configuration: write the plugin's name, and its keys below it"))
	}
	return sections, faults.Err()
}

// section makes the text of a configuration: what the file says, or else what the plugin's own examples say, and what the flags set.
func (p *program) section(s plugins.Spec, n conf.Node, given bool) (string, error) {
	values := map[string]any{}
	if given {
		if m, ok := plain(n).(map[string]any); ok {
			values = m
		}
	}
	for _, kv := range p.sets {
		key, text, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			return "", fmt.Errorf("--set %s: write KEY=VALUE", kv)
		}
		v, faults := conf.Parse("--set "+key, []byte(text))
		if err := faults.Err(); err != nil {
			return "", err
		}
		put(values, key, plain(v))
	}
	if !given {
		if missing := exampled(s, values); len(missing) > 0 {
			return "", fail(exitFailure, fmt.Errorf("%s %q needs a value for %s, for which it has no example: --set %s=…, or --config FILE",
				s.Kind, s.Name, strings.Join(missing, ", "), missing[0]))
		}
	}
	text, err := json.Marshal(values) // JSON is YAML
	return string(text), err
}

// exampled gives required keys that have no value the one of their example, and returns those that have none.
func exampled(s plugins.Spec, values map[string]any) (missing []string) {
	for _, k := range conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults) {
		if !k.Required || strings.ContainsAny(k.Path, "[*") || has(values, k.Path) {
			continue
		}
		if inside, _, nested := cutLast(k.Path); nested && !has(values, inside) && optional(s, inside) {
			continue
		}
		text := k.Example
		if text == "" && len(k.Enum) > 0 {
			text = k.Enum[0]
		}
		n, faults := conf.Parse("example", []byte(text))
		if text == "" || len(faults) > 0 {
			missing = append(missing, k.Path)
			continue
		}
		put(values, k.Path, plain(n))
	}
	return missing
}

// optional tells whether a section, or one around it, is off unless it is written.
func optional(s plugins.Spec, path string) bool {
	for _, k := range conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults) {
		if k.Optional && (path == k.Path || strings.HasPrefix(path, k.Path+".")) {
			return true
		}
	}
	return false
}

func cutLast(path string) (before, last string, ok bool) {
	at := strings.LastIndexByte(path, '.')
	if at < 0 {
		return "", path, false
	}
	return path[:at], path[at+1:], true
}

// has reports whether there is a value at a path.
func has(values map[string]any, path string) bool {
	for {
		name, rest, more := strings.Cut(path, ".")
		v, ok := values[name]
		if !more || !ok {
			return ok
		}
		if values, ok = v.(map[string]any); !ok {
			return false
		}
		path = rest
	}
}

// put sets the value at a path.
func put(values map[string]any, path string, v any) {
	name, rest, more := strings.Cut(path, ".")
	if !more {
		values[name] = v
		return
	}
	inside, ok := values[name].(map[string]any)
	if !ok {
		inside = map[string]any{}
		values[name] = inside
	}
	put(inside, rest, v)
}

// plain turns what is written in YAML into what JSON has.
func plain(n conf.Node) any {
	switch n.Kind() {
	case conf.Section:
		m := map[string]any{}
		for _, k := range n.Keys() {
			m[k.Name] = plain(k.Value)
		}
		return m
	case conf.List:
		l := make([]any, len(n.Items()))
		for i, x := range n.Items() {
			l[i] = plain(x)
		}
		return l
	}
	return n.Literal()
}

// checkConfig has a configuration checked as the agent does before data flows.
func checkConfig(s plugins.Spec, n conf.Node) error {
	cfg, faults := conf.DecodeAny(n, s.Defaults)
	if err := faults.Err(); err != nil {
		return err
	}
	if _, err := s.New(cfg, plugins.Env{Log: discardLog(), Pipeline: "verify", ID: s.Name, NodeID: "verify"}); err != nil {
		return n.Place(err, cfg).Err()
	}
	return nil
}
