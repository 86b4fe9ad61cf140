package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// shape is what a Go type is to a configuration. Decode and Describe share this view of types.
type shape uint8

const (
	unsupported shape = iota
	shapeNode
	shapeSecret
	shapeDuration
	shapeSize
	shapeText // implements encoding.TextUnmarshaler
	shapeBool
	shapeInt
	shapeUint
	shapeFloat
	shapeString
	shapeAny
	shapePointer
	shapeList
	shapeMap
	shapeSection
)

func shapeOf(t reflect.Type) shape {
	switch t {
	case reflect.TypeFor[Node]():
		return shapeNode
	case reflect.TypeFor[Secret]():
		return shapeSecret
	case reflect.TypeFor[time.Duration]():
		return shapeDuration
	case reflect.TypeFor[Size]():
		return shapeSize
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) && t.Kind() != reflect.Pointer {
		return shapeText
	}
	switch t.Kind() {
	case reflect.Bool:
		return shapeBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return shapeInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return shapeUint
	case reflect.Float32, reflect.Float64:
		return shapeFloat
	case reflect.String:
		return shapeString
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return shapeAny
		}
	case reflect.Pointer:
		return shapePointer
	case reflect.Slice:
		return shapeList
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return shapeMap
		}
	case reflect.Struct:
		return shapeSection
	}
	return unsupported
}

// field is one key of a section.
type field struct {
	index    []int
	name     string
	doc      string
	typ      reflect.Type
	required bool
	neg      bool
	enum     []string
	min, max string
	example  string
}

// layout is what a struct is to a configuration.
type layout struct {
	fields []field
	inline [][]int // embedded structs, which may have a Validate of their own
	rest   []int   // the map that takes unknown keys; nil when they are refused
}

func layoutOf(t reflect.Type) layout {
	var l layout
	l.add(t, nil)
	return l
}

func (l *layout) add(t reflect.Type, index []int) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		at := append(append([]int(nil), index...), f.Index...)
		if options == "inline" {
			switch shapeOf(f.Type) {
			case shapeSection:
				l.add(f.Type, at)
				l.inline = append(l.inline, at)
			case shapeMap:
				l.rest = at
			default:
				panic(fmt.Sprintf("BUG: %s.%s cannot be inline", t, f.Name))
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		x := field{
			index: at, name: name, typ: f.Type, doc: f.Tag.Get("doc"),
			required: f.Tag.Get("required") == "true", neg: f.Tag.Get("neg") == "true",
			min: f.Tag.Get("min"), max: f.Tag.Get("max"), example: f.Tag.Get("example"),
		}
		if enum, ok := f.Tag.Lookup("enum"); ok {
			x.enum = strings.Split(enum, "|")
		}
		l.fields = append(l.fields, x)
	}
}

func (l *layout) names() []string {
	names := make([]string, len(l.fields))
	for i, f := range l.fields {
		names[i] = f.name
	}
	return names
}

// fresh returns a new settable value of type t with the defaults of its SetDefaults method, if it has one.
func fresh(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	if d, ok := reflect.TypeAssert[interface{ SetDefaults() }](p); ok {
		d.SetDefaults()
	}
	return p.Elem()
}

// deepCopy returns a settable copy of v that shares no slice, map or pointer with it, but for unexported fields and
// for what a pointer to a type with its own text form points to: Decode replaces those whole.
func deepCopy(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	unshare(out)
	return out
}

// unshare replaces what v, a copy, still shares with its original.
func unshare(v reflect.Value) {
	switch t := v.Type(); shapeOf(t) {
	case shapeSection:
		for i := range v.NumField() {
			// An embedded struct of an unexported type cannot be set, but its exported fields can.
			if x := v.Field(i); x.CanSet() || t.Field(i).Anonymous && x.Kind() == reflect.Struct {
				unshare(x)
			}
		}
	case shapeList:
		if !v.IsNil() {
			out := reflect.MakeSlice(t, v.Len(), v.Len())
			for i := range v.Len() {
				out.Index(i).Set(deepCopy(v.Index(i)))
			}
			v.Set(out)
		}
	case shapeMap:
		if !v.IsNil() {
			out := reflect.MakeMapWithSize(t, v.Len())
			for k, x := range v.Seq2() {
				out.SetMapIndex(k, deepCopy(x))
			}
			v.Set(out)
		}
	case shapePointer:
		if !v.IsNil() && shapeOf(t.Elem()) != shapeText {
			p := reflect.New(t.Elem())
			p.Elem().Set(deepCopy(v.Elem()))
			v.Set(p)
		}
	case shapeAny:
		if !v.IsNil() {
			v.Set(deepCopy(v.Elem()))
		}
	}
}

// exported returns v such that its methods can be called: an embedded struct of an unexported type is copied, field by
// exported field.
func exported(v reflect.Value) reflect.Value {
	if v.CanInterface() {
		return v
	}
	out := reflect.New(v.Type()).Elem()
	for i := range v.NumField() {
		if x := v.Field(i); x.CanInterface() {
			out.Field(i).Set(x)
		}
	}
	return out
}

// limit reads a min or max tag as a number of the field's own unit.
func limit[N int64 | uint64 | float64](text string, s shape) (n N, ok bool) {
	if text == "" {
		return 0, false
	}
	var err error
	switch s {
	case shapeDuration:
		d, bad := parseDuration(text)
		if n = N(d); bad != nil {
			err = bad
		}
	case shapeSize:
		b, bad := parseSize(text)
		if n = N(b); bad != nil {
			err = bad
		}
	case shapeInt:
		var i int64
		i, err = strconv.ParseInt(text, 10, 64)
		n = N(i)
	case shapeUint:
		var u uint64
		u, err = strconv.ParseUint(text, 10, 64)
		n = N(u)
	default:
		var f float64
		f, err = strconv.ParseFloat(text, 64)
		n = N(f)
	}
	if err != nil {
		panic("BUG: a min or max tag cannot be read: " + text)
	}
	return n, true
}
