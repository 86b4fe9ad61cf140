package conf

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// KeyDoc describes one key of a configuration. Samples, docs and schema are made from it, and so are tests that break
// configurations key by key.
type KeyDoc struct {
	Path     string   // keys joined by dots; [] after a list's name stands for its items, * for the names in a map
	Name     string   // the last key of Path
	Type     string   // as users call it: duration, size, string, secret, section, "list of string", "map of number", …
	Default  string   // as it would be written in YAML; empty for required keys, sections and what has no default
	Required bool     // the key must be written
	Optional bool     // a section that is off unless it is written; its required keys count only then
	Enum     []string // the values allowed; nil when any is
	Min, Max string   // limits as they would be written; empty when there is none
	Doc      string   // one sentence
	Secret   bool     // the value must not be shown
	Example  string   // a value to start from, as it would be written in YAML; empty when the type names none
	Loose    bool     // the type reads the text itself, so that any scalar may be written
}

// Describe returns the keys that Decode reads into a value of type t, sections before what they hold, in
// the order of the struct's fields. defaults is a value of type t, or nil for zero defaults.
func Describe(t reflect.Type, defaults any) []KeyDoc {
	v := reflect.New(t).Elem()
	if defaults != nil {
		v = deepCopy(reflect.ValueOf(defaults))
	}
	d := describer{open: map[reflect.Type]bool{}}
	d.inside(v, "")
	return d.docs
}

type describer struct {
	docs []KeyDoc
	open map[reflect.Type]bool // structs being described, so that one that holds itself ends
}

// inside describes the keys below a value of any shape.
func (d *describer) inside(v reflect.Value, path string) {
	t := v.Type()
	switch shapeOf(t) {
	case shapePointer:
		if v.IsNil() {
			d.inside(fresh(t.Elem()), path)
		} else {
			d.inside(v.Elem(), path)
		}
	case shapeList:
		d.inside(fresh(t.Elem()), path+"[]")
	case shapeMap:
		d.inside(fresh(t.Elem()), strings.TrimPrefix(path+".*", "."))
	case shapeSection:
		if d.open[t] {
			return
		}
		d.open[t] = true
		defer delete(d.open, t)
		for _, f := range layoutOf(t).fields {
			d.key(v.FieldByIndex(f.index), f, path)
		}
	}
}

func (d *describer) key(v reflect.Value, f field, path string) {
	doc := KeyDoc{
		Path: strings.TrimPrefix(path+"."+f.name, "."), Name: f.name, Type: typeName(f.typ, 0), Required: f.required,
		Enum: f.enum, Min: f.min, Max: f.max, Doc: f.doc, Secret: isSecret(f.typ), Example: f.example, Loose: isLoose(f.typ),
		Optional: shapeOf(f.typ) == shapePointer && v.IsNil() && shapeOf(f.typ.Elem()) == shapeSection,
	}
	if !f.required {
		doc.Default = defaultText(v)
	}
	d.docs = append(d.docs, doc)
	d.inside(v, doc.Path)
}

// isLoose tells whether values of a type are read from any scalar by the type's own UnmarshalText.
func isLoose(t reflect.Type) bool {
	for shapeOf(t) == shapePointer {
		t = t.Elem()
	}
	return shapeOf(t) == shapeText
}

// typeName is what users call a type.
func typeName(t reflect.Type, depth int) string {
	if depth > maxDepth {
		return "any"
	}
	switch shapeOf(t) {
	case shapeSecret:
		return "secret"
	case shapeDuration:
		return "duration"
	case shapeSize:
		return "size"
	case shapeBool:
		return "bool"
	case shapeInt, shapeUint:
		return "integer"
	case shapeFloat:
		return "number"
	case shapeString:
		return "string"
	case shapeText:
		if t == reflect.TypeFor[time.Time]() {
			return "time"
		}
		if n, ok := reflect.TypeAssert[interface{ TypeName() string }](reflect.New(t)); ok {
			return n.TypeName()
		}
		return "string"
	case shapeSection, shapeNode:
		return "section"
	case shapeList:
		return "list of " + typeName(t.Elem(), depth+1)
	case shapeMap:
		return "map of " + typeName(t.Elem(), depth+1)
	case shapePointer:
		return typeName(t.Elem(), depth+1)
	}
	return "any"
}

// defaultText returns a default as it would be written in YAML, "" where there is none to write.
func defaultText(v reflect.Value) string {
	switch shapeOf(v.Type()) {
	case shapeSecret:
		if v.Interface().(Secret).Reveal() != "" {
			return masked
		}
		return `""`
	case shapeDuration:
		return formatDuration(time.Duration(v.Int()))
	case shapeBool, shapeInt, shapeUint, shapeFloat:
		return fmt.Sprint(v.Interface())
	case shapeString:
		return flowText(v.String(), "!!str")
	case shapeSize:
		return Size(v.Int()).String()
	case shapeText:
		if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok && !v.IsZero() {
			if text, err := m.MarshalText(); err == nil {
				return flowText(string(text), "!!str")
			}
		}
		return `""`
	case shapeList:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = defaultText(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case shapeMap:
		parts := make([]string, 0, v.Len())
		for _, k := range sortedKeys(v) {
			x := v.MapIndex(reflect.ValueOf(k).Convert(v.Type().Key()))
			parts = append(parts, flowText(k, "!!str")+": "+defaultText(x))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case shapePointer, shapeAny:
		if !v.IsNil() {
			return defaultText(v.Elem())
		}
	}
	return ""
}

// flowText writes a scalar so that YAML reads it back, also inside of [] and {}; tag is what it must be read as.
func flowText(s, tag string) string {
	safe := s != ""
	for _, r := range s {
		if !strings.ContainsRune("_./@%+-*", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			safe = false
		}
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		safe = false // texts here, but bools to older readers
	}
	if safe && !strings.ContainsRune("@%*-", rune(s[0])) && (resolve(s) == tag || tag != "!!str") {
		return s
	}
	if b, err := json.Marshal(s); err == nil {
		return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(b))
	}
	return strconv.Quote(s)
}
