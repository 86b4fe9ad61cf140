package reference

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// object is a JSON object. Encoding sorts its keys, so that the output is stable.
type object = map[string]any

// Patterns of what stands in strings. They allow no less than package conf does.
const (
	sizePattern         = `^[0-9]+(B|KiB|MiB|GiB|TiB|KB|kB|MB|GB|TB)?$`
	durationPattern     = `^([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))*$`
	interpolatedPattern = `\$\{.+\}`
)

// Schema returns the JSON Schema (draft 2020-12) of a whole configuration, for editors. A file that is merged with others may lack
// what these hold.
func Schema(reg *plugins.Registry) ([]byte, error) {
	defs := object{
		"size":         object{"type": []string{"string", "integer"}, "pattern": sizePattern, "minimum": 0},
		"duration":     object{"type": "string", "pattern": durationPattern},
		"interpolated": object{"type": "string", "pattern": interpolatedPattern},
	}
	items := map[string]object{}
	for _, kind := range kinds() {
		properties, required := properties(policiesOf(kind, plugins.Spec{}))
		var one []object
		for _, name := range reg.Names(kind) {
			spec, _ := reg.Lookup(kind, name)
			def := string(kind) + "-" + name
			s := sectionOf(keysOf(spec))
			s["description"] = spec.Summary
			defs[def] = s
			properties[name] = reference(def)
			one = append(one, object{"required": []string{name}})
		}
		item := closed(properties, required)
		item["oneOf"] = one
		defs[string(kind)] = item
		items[string(kind)+"s"] = reference(string(kind))
	}
	doc := tree(config.Describe())
	pipeline, required := properties(find(doc, "pipelines").kids)
	for name, item := range items {
		list, ok := pipeline[name].(object)
		if !ok {
			return nil, fmt.Errorf("BUG: a pipeline has no %s", name)
		}
		list["items"] = item
		for _, k := range required {
			if k == name {
				list["minItems"] = 1
			}
		}
	}
	defs["pipeline"] = closed(pipeline, required)
	top, required := properties(doc)
	list, ok := top["pipelines"].(object)
	if !ok {
		return nil, fmt.Errorf("BUG: a configuration has no %s", "pipelines")
	}
	list["items"], list["minItems"] = reference("pipeline"), 1
	root := closed(top, required)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of stacktrail"
	root["$defs"] = defs
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		return nil, fmt.Errorf("encoding the schema: %w", err)
	}
	return b.Bytes(), nil
}

func reference(def string) object { return object{"$ref": "#/$defs/" + def} }

// closed is a section with these keys and no others.
func closed(properties object, required []string) object {
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// sectionOf is a section that may also be left empty, if it needs nothing.
func sectionOf(keys []*key) object {
	s := closed(properties(keys))
	if s["required"] == nil {
		s["type"] = []string{"object", "null"}
	}
	return s
}

func properties(keys []*key) (properties object, required []string) {
	properties = object{}
	for _, k := range keys {
		properties[k.Name] = describe(k)
		if k.Required {
			required = append(required, k.Name)
		}
	}
	return properties, required
}

// describe is what a key's value may be, with what there is to say of it.
func describe(k *key) object {
	s := value(k, k.Type)
	doc := k.Doc
	if k.Type == "size" || k.Type == "duration" { // what a pattern cannot say
		if k.Min != "" {
			doc += " At least " + k.Min + "."
		}
		if k.Max != "" {
			doc += " At most " + k.Max + "."
		}
	}
	if doc = strings.TrimSpace(doc); doc != "" {
		s["description"] = doc
	}
	if !k.Required && k.Default != "" && !k.Secret && !k.section() {
		if n, faults := conf.Parse("default", []byte("x: "+k.Default)); len(faults) == 0 {
			if v, ok := n.Get("x"); ok {
				s["default"] = plain(v)
			}
		}
	}
	return s
}

// value is what a value of a type may be; k has the keys of the sections in it and the rules of the scalars.
func value(k *key, t string) object {
	if item, ok := strings.CutPrefix(t, "list of "); ok {
		s := object{"type": []string{"array", "null"}, "items": value(k, item)}
		if k.Required && t == k.Type {
			s["type"], s["minItems"] = "array", 1
		}
		return s
	}
	if item, ok := strings.CutPrefix(t, "map of "); ok {
		s := object{"type": []string{"object", "null"}, "additionalProperties": value(k, item)}
		if k.Required && t == k.Type {
			s["type"], s["minProperties"] = "object", 1
		}
		return s
	}
	var s object
	switch t {
	case "section":
		if len(k.kids) == 0 {
			return object{} // read by the plugin itself
		}
		s = sectionOf(k.kids)
		if k.Optional {
			s["type"] = []string{"object", "null"}
		}
		return s
	case "any":
		return object{}
	case "size", "duration":
		return object{"anyOf": []object{reference(t), reference("interpolated")}}
	case "bool":
		s = object{"type": "boolean"}
	case "integer", "number":
		s = object{"type": t}
		for name, limit := range map[string]string{"minimum": k.Min, "maximum": k.Max} {
			if limit != "" {
				s[name] = json.Number(limit)
			}
		}
	default: // texts, secrets and types with a text form of their own
		s = object{"type": "string"}
		if k.Loose {
			s = object{"type": []string{"string", "number", "boolean"}}
		}
		if k.Enum == nil {
			if k.Required && t == k.Type && !k.Loose {
				s["minLength"] = 1
			}
			return s
		}
		s = object{"enum": k.Enum}
	}
	return object{"anyOf": []object{s, reference("interpolated")}}
}

// plain is a node as JSON has it.
func plain(n conf.Node) any {
	switch n.Kind() {
	case conf.Section:
		o := object{}
		for _, k := range n.Keys() {
			o[k.Name] = plain(k.Value)
		}
		return o
	case conf.List:
		list := make([]any, 0, len(n.Items()))
		for _, x := range n.Items() {
			list = append(list, plain(x))
		}
		return list
	}
	return n.Literal()
}
