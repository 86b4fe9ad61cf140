package rpc

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// looseText is a text that may be written as any scalar: what its type makes of it, only the plugin knows.
type looseText string

// UnmarshalText takes any text.
func (t *looseText) UnmarshalText(b []byte) error {
	*t = looseText(b)
	return nil
}

// MarshalText returns the text.
func (t looseText) MarshalText() ([]byte, error) { return []byte(t), nil }

// defaultsOf makes a struct with its defaults of the keys that a plugin describes: package conf checks, documents and samples it as it does with
// the configuration of a plugin that is built in.
func defaultsOf(keys []keyDoc) (defaults any, err error) {
	defer func() {
		if p := recover(); p != nil { // conf and reflect take what they are given for the work of a compiler
			defaults, err = nil, fmt.Errorf("its configuration cannot be understood: %v", p)
		}
	}()
	t := shaper{keys: map[string][]keyDoc{}}
	const most = 1000 // keys; a configuration of more is none
	if len(keys) > most {
		return nil, fmt.Errorf("its configuration has %d keys, at most %d are possible", len(keys), most)
	}
	for _, k := range keys {
		at := strings.LastIndexByte(k.Path, '.')
		t.keys[k.Path[:max(at, 0)]] = append(t.keys[k.Path[:max(at, 0)]], k)
	}
	v := reflect.New(t.section("")).Elem()
	if t.err == nil {
		t.defaults(v, "")
	}
	if t.err != nil {
		return nil, t.err
	}
	conf.Describe(v.Type(), v.Interface()) // panics now, not when somebody asks for docs
	return v.Interface(), nil
}

// shaper makes types of descriptions.
type shaper struct {
	keys map[string][]keyDoc // by the path of the section that holds them
	err  error
}

func (s *shaper) fail(k keyDoc, format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("its key %q: "+format, append([]any{k.Path}, args...)...)
	}
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// section makes the struct of the keys below a path.
func (s *shaper) section(path string) reflect.Type {
	var fields []reflect.StructField
	seen := map[string]bool{}
	for i, k := range s.keys[path] {
		name := lastName(k.Path)
		if name == "" || seen[name] || strings.ContainsAny(name, ",*[]\"`") {
			s.fail(k, "its name is empty, stands twice, or has letters that a name cannot have")
			return reflect.TypeFor[struct{}]()
		}
		seen[name] = true
		t := s.typeOf(k, k.Type, k.Path)
		switch {
		case k.Type == "section" && k.Optional, k.Default == "" && !k.Required && scalar(t):
			t = reflect.PointerTo(t)
		case strings.ContainsAny(path, "[*") && scalar(t) && !k.Required && !s.zero(k, t):
			t = reflect.PointerTo(t) // what is not written below an item keeps the plugin's own default
		}
		fields = append(fields, reflect.StructField{Name: "F" + strconv.Itoa(i), Type: t, Tag: s.tag(k, name, t)})
	}
	return reflect.StructOf(fields)
}

// scalar tells whether a type is written as one word.
func scalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return t == reflect.TypeFor[conf.Secret]()
	case reflect.Slice, reflect.Map, reflect.Interface:
		return false
	}
	return true
}

// zero tells whether the default is what a fresh value of the type is.
func (s *shaper) zero(k keyDoc, t reflect.Type) bool {
	v, err := valueOf(t, k.Default)
	return err == nil && v.IsZero()
}

// unwritten marks keys whose default breaks their own limits: such a one is not sent.
const unwritten = "unwritten"

func (s *shaper) tag(k keyDoc, name string, t reflect.Type) reflect.StructTag {
	tag := "yaml:" + strconv.Quote(name) + " doc:" + strconv.Quote(k.Doc)
	add := func(key, value string) {
		if value != "" {
			tag += " " + key + ":" + strconv.Quote(value)
		}
	}
	if k.Required {
		add("required", "true")
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.String {
		add("enum", strings.Join(k.Enum, "|"))
	}
	add("example", k.Example)
	add("neg", "true") // durations below zero are the plugin's to refuse
	for key, value := range map[string]string{"min": k.Min, "max": k.Max} {
		if value == "" {
			continue
		}
		switch t.Kind() {
		case reflect.Int64, reflect.Float64:
			limit, err := valueOf(t, value)
			if err != nil {
				s.fail(k, "its %s %q cannot be read: %v", key, value, err)
				continue
			}
			add(key, value)
			if def := reflect.Zero(t); s.zero(k, t) && (key == "min" && less(def, limit) || key == "max" && less(limit, def)) {
				add(unwritten, "true")
			}
		}
	}
	return reflect.StructTag(tag)
}

func less(a, b reflect.Value) bool {
	if a.CanFloat() {
		return a.Float() < b.Float()
	}
	return a.Int() < b.Int()
}

// typeOf makes the type of that name.
func (s *shaper) typeOf(k keyDoc, name, path string) reflect.Type {
	if len(path) > len(k.Path)+64 {
		s.fail(k, "its type is nested too deeply")
		return reflect.TypeFor[string]()
	}
	if rest, ok := strings.CutPrefix(name, "list of "); ok {
		return reflect.SliceOf(s.typeOf(k, rest, path+"[]"))
	}
	if rest, ok := strings.CutPrefix(name, "map of "); ok {
		return reflect.MapOf(reflect.TypeFor[string](), s.typeOf(k, rest, path+".*"))
	}
	switch name {
	case "string":
		if k.Loose {
			return reflect.TypeFor[looseText]()
		}
		return reflect.TypeFor[string]()
	case "bool":
		return reflect.TypeFor[bool]()
	case "integer":
		return reflect.TypeFor[int64]()
	case "number":
		return reflect.TypeFor[float64]()
	case "duration":
		return reflect.TypeFor[time.Duration]()
	case "size":
		return reflect.TypeFor[conf.Size]()
	case "secret":
		return reflect.TypeFor[conf.Secret]()
	case "any":
		return reflect.TypeFor[any]()
	case "section":
		if len(s.keys[path]) == 0 {
			return reflect.TypeFor[conf.Node]()
		}
		return s.section(path)
	}
	s.fail(k, "unknown type %q", name)
	return reflect.TypeFor[string]()
}

// defaults fills in the defaults of a section.
func (s *shaper) defaults(v reflect.Value, path string) {
	for i, k := range s.keys[path] {
		f := v.Field(i)
		switch {
		case k.Type == "section":
			if f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[conf.Node]() {
				s.defaults(f, k.Path)
			}
		case k.Required || k.Default == "" || f.Kind() == reflect.Pointer:
		default:
			x, err := valueOf(f.Type(), k.Default)
			if err != nil {
				s.fail(k, "its default %q cannot be read: %v", k.Default, err)
				return
			}
			f.Set(x)
		}
	}
}

// valueOf reads a value as it would be written in YAML.
func valueOf(t reflect.Type, text string) (reflect.Value, error) {
	root, faults := conf.Parse("", []byte("v: "+text+"\n"))
	if len(faults) == 0 {
		holder := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "V", Type: t, Tag: `yaml:"v" neg:"true"`}})).Elem()
		var out any
		if out, faults = conf.DecodeAny(root, holder.Interface()); len(faults) == 0 {
			return reflect.ValueOf(out).Field(0), nil
		}
	}
	return reflect.Value{}, textError(oneLine(faults[0].Message))
}

// configJSON is a decoded configuration as it travels.
func configJSON(cfg any) (json.RawMessage, error) {
	v, _ := travel(reflect.ValueOf(cfg))
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return b, nil
}

// travel turns a value into what JSON has; ok is false for what is absent.
func travel(v reflect.Value) (x any, ok bool) {
	switch x := v.Interface().(type) {
	case conf.Node:
		return travelNode(x), x.Kind() != conf.Invalid
	case conf.Secret:
		return x.Reveal(), x.Reveal() != ""
	case time.Duration:
		return strconv.FormatInt(int64(x), 10) + "ns", true
	case conf.Size:
		return int64(x), true
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil, false
		}
		if v.Kind() == reflect.Interface {
			return v.Interface(), true // conf made it of plain values
		}
		return travel(v.Elem())
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			tag := v.Type().Field(i).Tag
			if tag.Get(unwritten) != "" && v.Field(i).IsZero() {
				continue
			}
			if x, ok := travel(v.Field(i)); ok {
				name, _, _ := strings.Cut(tag.Get("yaml"), ",")
				m[name] = x
			}
		}
		return m, true
	case reflect.Slice:
		l := make([]any, v.Len())
		for i := range l {
			l[i], _ = travel(v.Index(i))
		}
		return l, true
	case reflect.Map:
		m := map[string]any{}
		for k, e := range v.Seq2() {
			m[k.String()], _ = travel(e)
		}
		return m, true
	}
	return v.Interface(), true
}

// travelNode turns what was written under a key without a type into what JSON has.
func travelNode(n conf.Node) any {
	switch n.Kind() {
	case conf.Section:
		m := map[string]any{}
		for _, k := range n.Keys() {
			m[k.Name] = travelNode(k.Value)
		}
		return m
	case conf.List:
		l := make([]any, len(n.Items()))
		for i, x := range n.Items() {
			l[i] = travelNode(x)
		}
		return l
	}
	return n.Literal()
}
