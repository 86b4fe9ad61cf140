package conf

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Decode reads n strictly into a copy of defaults, which must be a struct (or a map or list), and returns the copy with all faults.
// What n does not mention keeps its default; lists and maps that it mentions are replaced, not merged; defaults is never
// changed. Null empties a list or map, stands for an empty section where there is one, and is a fault for anything else. The zero
// Node as n is an empty section too. With faults, the value holds what could be read.
func Decode[T any](n Node, defaults T) (T, Faults) {
	out, faults := decode(n, reflect.ValueOf(&defaults).Elem())
	return out.Interface().(T), faults
}

// DecodeAny is Decode for callers that know the type only as a value: it returns a new value of the type of defaults.
func DecodeAny(n Node, defaults any) (any, Faults) {
	out, faults := decode(n, reflect.ValueOf(defaults))
	return out.Interface(), faults
}

// DecodeInto is Decode with the defaults in what the pointer into points to, which is replaced by the result.
func DecodeInto(n Node, into any) Faults {
	target := reflect.ValueOf(into).Elem()
	out, faults := decode(n, target)
	target.Set(out)
	return faults
}

func decode(n Node, defaults reflect.Value) (reflect.Value, Faults) {
	var d decoder
	out := deepCopy(defaults)
	if n.n == nil || n.IsNull() {
		if shapeOf(out.Type()) != shapeSection {
			return out, nil
		}
		n.n = &node{kind: Section, file: n.File(), line: n.Line(), column: n.Column()}
	}
	d.value(n, out, field{}, true)
	return out, d.faults.tidy()
}

type decoder struct{ faults Faults }

func (d *decoder) add(f Fault) { d.faults = append(d.faults, f) }

// reject reports that the value at n is not what was expected.
func (d *decoder) reject(n Node, expected, suggestion string, t reflect.Type) {
	f := n.Fault("expected %s, found %s", expected, n.found(isSecret(t)))
	f.Suggestion = suggestion
	d.add(f)
}

// value decodes n into v, which holds the default. item: v is no key's value but an item of a list, a map's value or the root.
func (d *decoder) value(n Node, v reflect.Value, f field, item bool) {
	if n.n.failed {
		return
	}
	t := v.Type()
	s := shapeOf(t)
	switch s {
	case shapeNode:
		v.Set(reflect.ValueOf(n))
		return
	case shapeAny:
		if x := d.plain(n); x != nil {
			v.Set(reflect.ValueOf(x))
		} else {
			v.SetZero()
		}
		return
	case shapeSection, shapeList, shapeMap:
		d.collection(n, v, f, s)
		return
	case shapePointer:
		d.pointer(n, v, f, item)
		return
	}
	if n.IsNull() {
		message := "empty value"
		switch def := defaultText(v); {
		case item:
		case f.required:
			message += "; this key is required"
		case s == shapeSecret && v.Interface().(Secret).Reveal() != "":
			message += "; remove the key to use the default"
		default:
			message += "; remove the key to use the default " + def
		}
		d.add(n.Fault("%s", message))
		return
	}
	if n.Kind() != Scalar {
		d.reject(n, expected(t), "", t)
		return
	}
	d.scalar(n, v, f, s)
}

func (d *decoder) collection(n Node, v reflect.Value, f field, s shape) {
	t := v.Type()
	switch {
	case n.IsNull() && s == shapeSection: // all that stands below it is commented out: the defaults hold
		n.n = &node{kind: Section, file: n.File(), line: n.Line(), column: n.Column()}
	case n.IsNull():
		v.SetZero()
	}
	switch {
	case n.IsNull():
	case s == shapeList && n.Kind() == List:
		items := n.Items()
		out := reflect.MakeSlice(t, len(items), len(items))
		for i, x := range items {
			out.Index(i).Set(fresh(t.Elem()))
			d.value(x, out.Index(i), element(f), true)
		}
		v.Set(out)
	case s == shapeMap && n.Kind() == Section:
		keys := n.Keys()
		out := reflect.MakeMapWithSize(t, len(keys))
		for _, k := range keys {
			x := fresh(t.Elem())
			d.value(k.Value, x, element(f), true)
			out.SetMapIndex(reflect.ValueOf(k.Name).Convert(t.Key()), x)
		}
		v.Set(out)
	case s == shapeSection && n.Kind() == Section:
		d.section(n, v)
		return
	default:
		suggestion := ""
		if _, templated := n.Template(); s == shapeList && n.Kind() == Scalar && !templated && !isSecret(t) && shapeOf(t.Elem()) != shapeSection {
			suggestion = "[" + flowText(n.Scalar(), n.n.tag) + "]"
		}
		d.reject(n, expected(t), suggestion, t)
		return
	}
	if f.required && v.Len() == 0 {
		d.add(n.Fault("must not be empty"))
	}
}

// element returns the rules that hold for what stands in a list or map.
func element(f field) field {
	f.required = false
	return f
}

func (d *decoder) pointer(n Node, v reflect.Value, f field, item bool) {
	elem := v.Type().Elem()
	s := shapeOf(elem)
	if n.IsNull() && (s == shapeSection || s == shapeList || s == shapeMap) {
		v.SetZero()
		if f.required {
			d.add(n.Fault("must not be empty"))
		}
		return
	}
	if n.IsNull() && v.IsNil() && !item && !f.required && s != shapeNode && s != shapeAny {
		d.add(n.Fault("empty value; remove the key to leave it unset"))
		return
	}
	p := reflect.New(elem)
	if v.IsNil() {
		p.Elem().Set(fresh(elem))
	} else {
		p.Elem().Set(v.Elem())
	}
	before := len(d.faults)
	d.value(n, p.Elem(), f, item)
	if len(d.faults) == before || s == shapeSection {
		v.Set(p)
	}
}

func (d *decoder) section(n Node, v reflect.Value) {
	l := layoutOf(v.Type())
	written := make(map[string]bool, len(l.fields))
	var rest reflect.Value
	for _, k := range n.Keys() {
		i := slices.IndexFunc(l.fields, func(f field) bool { return f.name == k.Name })
		switch {
		case i >= 0:
			written[k.Name] = true
			d.value(k.Value, v.FieldByIndex(l.fields[i].index), l.fields[i], false)
		case l.rest != nil:
			if !rest.IsValid() {
				rest = reflect.MakeMap(v.FieldByIndex(l.rest).Type())
			}
			x := fresh(rest.Type().Elem())
			d.value(k.Value, x, field{}, true)
			rest.SetMapIndex(reflect.ValueOf(k.Name).Convert(rest.Type().Key()), x)
		default:
			d.unknown(k, l.names())
		}
	}
	if rest.IsValid() {
		v.FieldByIndex(l.rest).Set(rest)
	}
	for _, f := range l.fields {
		if written[f.name] {
			continue
		}
		x := v.FieldByIndex(f.index)
		switch {
		case f.required:
			miss := n.missing(f.name)
			d.add(miss.Fault("required key %s is missing", quote(f.name)))
		case shapeOf(f.typ) == shapeSection:
			d.section(n.missing(f.name), x)
		}
	}
	for _, index := range l.inline {
		d.validate(n, exported(v.FieldByIndex(index)))
	}
	d.validate(n, v)
}

func (d *decoder) unknown(k Key, known []string) {
	f := k.KeyNode.Fault("unknown key %s", quote(k.Name))
	f.Suggestion = Suggest(k.Name, known)
	const most = 12 // more names than this explain nothing
	switch {
	case f.Suggestion != "":
	case len(known) == 0:
		f.Message += "; nothing can be set here"
	case len(known) <= most:
		f.Message += "; known are " + strings.Join(known, ", ")
	}
	d.add(f)
}

// validate calls the Validate method of v, if it has one. What it says about a key that has a fault already is dropped:
// such a key still has its default.
func (d *decoder) validate(n Node, v reflect.Value) {
	check, ok := reflect.TypeAssert[interface{ Validate() error }](v)
	if !ok {
		if check, ok = reflect.TypeAssert[interface{ Validate() error }](v.Addr()); !ok {
			return
		}
	}
	before, section := d.faults, n.Path()
	for _, f := range n.Place(check.Validate(), v.Interface()) {
		if f.Path == section || !slices.ContainsFunc(before, func(old Fault) bool { return old.Path != section && within(old.Path, f.Path) }) {
			d.add(f)
		}
	}
}

// within tells whether one path leads to the other.
func within(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	rest, ok := strings.CutPrefix(b, a)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Place turns the error of a Validate method, or of building something from the section, into faults: KeyErrors at their
// keys, others at the section, each part of a joined error by itself. Secrets of config and interpolated texts
// below n are masked in the messages. A nil error gives no faults.
func (n Node) Place(err error, config any) Faults {
	if err == nil {
		return nil
	}
	var hidden [][2]string // text, replacement
	secretsIn(reflect.ValueOf(config), 0, func(s string) { hidden = append(hidden, [2]string{s, masked}) })
	n.interpolated(func(text, instead string) { hidden = append(hidden, [2]string{text, instead}) })
	slices.SortStableFunc(hidden, func(a, b [2]string) int { return cmp.Compare(len(b[0]), len(a[0])) })
	var faults Faults
	place(n, err, func(at Node, message string) {
		for _, h := range hidden {
			for _, form := range []string{h[0], strings.Trim(strconv.Quote(h[0]), `"`), url.QueryEscape(h[0]), url.PathEscape(h[0])} {
				if form != "" {
					message = strings.ReplaceAll(message, form, h[1])
				}
			}
		}
		faults = append(faults, at.KeyFault("%s", message))
	})
	return faults
}

func place(n Node, err error, report func(Node, string)) {
	switch e := err.(type) { //nolint:errorlint // the tree of joined errors is walked one level at a time
	case KeyError:
		place(n.find(e.Key), e.Err, report)
	case *KeyError:
		place(n.find(e.Key), e.Err, report)
	case interface{ Unwrap() []error }:
		for _, x := range e.Unwrap() {
			place(n, x, report)
		}
	case Faults:
		for _, f := range e {
			report(n, f.Message)
		}
	case nil:
	default:
		if k := (KeyError{}); errors.As(err, &k) {
			n = n.find(k.Key)
		}
		report(n, err.Error())
	}
}

// secretsIn yields the texts of the Secrets in v.
func secretsIn(v reflect.Value, depth int, yield func(string)) {
	if !v.IsValid() || depth > maxDepth {
		return
	}
	switch shapeOf(v.Type()) {
	case shapeSecret:
		if v.CanInterface() {
			if text := v.Interface().(Secret).Reveal(); text != "" {
				yield(text)
			}
		}
	case shapeSection:
		for i := range v.NumField() {
			secretsIn(v.Field(i), depth+1, yield)
		}
	case shapeList:
		for i := range v.Len() {
			secretsIn(v.Index(i), depth+1, yield)
		}
	case shapeMap:
		for _, x := range v.Seq2() {
			secretsIn(x, depth+1, yield)
		}
	case shapePointer, shapeAny:
		secretsIn(v.Elem(), depth+1, yield)
	}
}

// interpolated yields the interpolated texts below n: whole with what is written instead, and what was put in.
func (n Node) interpolated(yield func(text, instead string)) {
	for _, k := range n.Keys() {
		k.Value.interpolated(yield)
	}
	for _, x := range n.Items() {
		x.interpolated(yield)
	}
	const tooShort = 4 // masking shorter texts would garble every message
	if n.Kind() == Scalar && n.n.templated {
		for _, text := range append([]string{n.n.text}, n.n.pieces...) {
			switch {
			case len(text) < tooShort:
			case text == n.n.text:
				yield(text, n.n.template)
			default:
				yield(text, masked)
			}
		}
	}
}

// plain decodes n into what has no type of its own: map[string]any, []any, string, int64, uint64, float64, bool or nil.
func (d *decoder) plain(n Node) any {
	switch n.Kind() {
	case Section:
		out := make(map[string]any, len(n.n.pairs))
		for _, k := range n.Keys() {
			out[k.Name] = d.plain(k.Value)
		}
		return out
	case List:
		items := n.Items()
		out := make([]any, len(items))
		for i, x := range items {
			out[i] = d.plain(x)
		}
		return out
	}
	text := n.Scalar()
	switch n.n.tag {
	case "!!null":
		return nil
	case "!!bool":
		if text == "true" || text == "false" {
			return text == "true"
		}
		d.reject(n, "true or false", strings.ToLower(text), nil)
	case "!!int":
		if i, err := wholeNumber(text, strconv.ParseInt); err == nil {
			return i
		}
		if u, err := wholeNumber(text, strconv.ParseUint); err == nil {
			return u
		}
		d.reject(n, "a number that fits into 64 bits, written in decimal, 0x or 0o", "", nil)
	case "!!float":
		if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
		d.reject(n, "a number", "", nil)
	}
	return text
}

// wholeNumber reads decimal, 0x and 0o; a leading zero, which means different things to different readers, is refused.
func wholeNumber[N int64 | uint64](text string, parse func(string, int, int) (N, error)) (N, error) {
	digits, negative := strings.CutPrefix(text, "-")
	if !negative {
		digits = strings.TrimPrefix(text, "+")
	}
	base := 10
	switch {
	case strings.HasPrefix(digits, "0x"):
		base = 16
	case strings.HasPrefix(digits, "0o"):
		base = 8
	case len(digits) > 1 && digits[0] == '0', digits == "", digits[0] == '-', digits[0] == '+':
		return 0, strconv.ErrSyntax
	}
	if base != 10 {
		digits = digits[2:]
		if digits == "" || digits[0] == '-' || digits[0] == '+' {
			return 0, strconv.ErrSyntax
		}
	}
	if negative {
		digits = "-" + digits
	}
	return parse(digits, base, 64)
}

func (d *decoder) scalar(n Node, v reflect.Value, f field, s shape) {
	text, t := n.Scalar(), v.Type()
	_, templated := n.Template()
	tag := n.n.tag
	bare := templated || n.n.plain // may be read as something else than text
	switch s {
	case shapeSecret, shapeString:
		if tag != "!!str" && tag != "!!timestamp" && !templated {
			d.reject(n, expected(t)+"; put it in quotes", quotedUnless(s == shapeSecret, text), t)
			return
		}
		if f.required && text == "" {
			d.add(n.Fault("must not be empty"))
			return
		}
		if s == shapeSecret {
			template, _ := n.Template()
			v.Set(reflect.ValueOf(newSecret(text, template)))
			return
		}
		if f.enum != nil && !slices.Contains(f.enum, text) {
			d.notListed(n, f.enum)
			return
		}
		v.SetString(text)
	case shapeText:
		if f.required && text == "" {
			d.add(n.Fault("must not be empty"))
			return
		}
		if f.enum != nil && !slices.Contains(f.enum, text) {
			d.notListed(n, f.enum)
			return
		}
		d.text(n, v)
	case shapeBool:
		if bare && (text == "true" || text == "false") {
			v.SetBool(text == "true")
			return
		}
		d.reject(n, "true or false", likelyBool(text, templated), t)
	case shapeDuration:
		x, bad := parseDuration(text)
		switch {
		case bad != nil && !templated && (tag == "!!int" || tag == "!!float"):
			d.add(n.Fault("%s has no unit; write %ss", n.found(false), cut(text)))
		case bad != nil:
			d.badValue(n, bad)
		case x < 0 && !f.neg:
			d.add(n.Fault("a duration must not be negative here"))
		case inRange(d, n, int64(x), f, s, func(i int64) string { return formatDuration(time.Duration(i)) }):
			v.SetInt(int64(x))
		}
	case shapeSize:
		x, bad := parseSize(text)
		if bad != nil {
			d.badValue(n, bad)
		} else if inRange(d, n, int64(x), f, s, func(i int64) string { return Size(i).String() }) {
			v.SetInt(int64(x))
		}
	case shapeInt:
		x, err := wholeNumber(text, strconv.ParseInt)
		if bare && (errors.Is(err, strconv.ErrRange) || err == nil && v.OverflowInt(x)) {
			least, most := int64(-1)<<(t.Bits()-1), int64(1)<<(t.Bits()-1)-1
			d.add(n.Fault("must be between %d and %d", least, most))
		} else if d.number(n, err, bare, t) && inRange(d, n, x, f, s, func(i int64) string { return strconv.FormatInt(i, 10) }) {
			v.SetInt(x)
		}
	case shapeUint:
		x, err := wholeNumber(text, strconv.ParseUint)
		_, negative := wholeNumber(text, strconv.ParseInt)
		if bare && (errors.Is(err, strconv.ErrRange) || err == nil && v.OverflowUint(x) || err != nil && negative == nil) {
			d.add(n.Fault("must be between 0 and %d", uint64(math.MaxUint64)>>(64-t.Bits())))
		} else if d.number(n, err, bare, t) && inRange(d, n, x, f, s, func(i uint64) string { return strconv.FormatUint(i, 10) }) {
			v.SetUint(x)
		}
	case shapeFloat:
		x, err := strconv.ParseFloat(text, 64)
		if err == nil && (math.IsInf(x, 0) || math.IsNaN(x)) {
			err = strconv.ErrRange
		}
		if d.number(n, err, bare, t) && inRange(d, n, x, f, s, func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }) {
			v.SetFloat(x)
		}
	default:
		panic(fmt.Sprintf("BUG: a configuration cannot hold a %s", t))
	}
}

// number reports a text that is no number, or a number in quotes.
func (d *decoder) number(n Node, err error, bare bool, t reflect.Type) bool {
	if err == nil && bare {
		return true
	}
	suggestion := ""
	if err == nil {
		suggestion = n.Scalar()
	} else if digits := strings.TrimLeft(n.Scalar(), "0"); bare && n.n.tag == "!!int" && len(digits) < len(n.Scalar()) && isDigits(digits) {
		if _, templated := n.Template(); !templated {
			suggestion = digits
		}
	}
	d.reject(n, expected(t), suggestion, t)
	return false
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func inRange[N int64 | uint64 | float64](d *decoder, n Node, x N, f field, s shape, format func(N) string) bool {
	if least, ok := limit[N](f.min, s); ok && x < least {
		d.add(n.Fault("must be at least %s", format(least)))
		return false
	}
	if most, ok := limit[N](f.max, s); ok && x > most {
		d.add(n.Fault("must be at most %s", format(most)))
		return false
	}
	return true
}

func (d *decoder) badValue(n Node, bad *valueError) {
	f := n.Fault("%s, found %s", bad.message, strings.TrimPrefix(n.found(false), "the text "))
	if _, templated := n.Template(); !templated {
		f.Suggestion = bad.suggestion
	}
	d.add(f)
}

func (d *decoder) notListed(n Node, enum []string) {
	shown := make([]string, len(enum))
	for i, e := range enum {
		if shown[i] = e; e == "" {
			shown[i] = `""`
		}
	}
	f := n.Fault("expected one of %s, found %s", strings.Join(shown, ", "), n.found(false))
	if _, templated := n.Template(); !templated {
		f.Suggestion = Suggest(n.Scalar(), enum)
	}
	d.add(f)
}

func (d *decoder) text(n Node, v reflect.Value) {
	x := reflect.New(v.Type())
	err := x.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Scalar()))
	if err == nil {
		v.Set(x.Elem())
		return
	}
	if _, templated := n.Template(); templated {
		d.reject(n, expected(v.Type()), "", v.Type()) // the error may quote what must not be shown
		return
	}
	d.add(n.Fault("%s", err))
}

// isSecret tells whether a text at a place of this type may be a secret.
func isSecret(t reflect.Type) bool {
	for t != nil {
		switch shapeOf(t) {
		case shapeSecret:
			return true
		case shapePointer, shapeList, shapeMap:
			t = t.Elem()
		default:
			return false
		}
	}
	return false
}

// expected says in users' words what belongs to a place of type t.
func expected(t reflect.Type) string {
	switch shapeOf(t) {
	case shapeSection, shapeMap:
		return "a section"
	case shapeList:
		return "a list"
	case shapeBool:
		return "true or false"
	case shapeInt, shapeUint:
		return "a whole number"
	case shapeFloat:
		return "a number"
	case shapeDuration:
		return "a duration such as 5s"
	case shapeSize:
		return "a size such as 4MiB"
	case shapePointer:
		return expected(t.Elem())
	case shapeText:
		if name := typeName(t, 0); name != "string" {
			return "a " + name
		}
	}
	return "a text"
}

// likelyBool returns the bool that a text was meant to be, "" when it cannot be told.
func likelyBool(text string, templated bool) string {
	if templated {
		return ""
	}
	switch strings.ToLower(text) {
	case "yes", "y", "on", "1", "true", "enabled":
		return "true"
	case "no", "n", "off", "0", "false", "disabled":
		return "false"
	}
	return Suggest(text, []string{"true", "false"})
}

func quotedUnless(hidden bool, text string) string {
	if hidden {
		return ""
	}
	return `"` + cut(text) + `"`
}

// sortedKeys returns the keys of a map with string keys in order.
func sortedKeys(v reflect.Value) []string {
	keys := map[string]bool{}
	for k := range v.Seq2() {
		keys[k.String()] = true
	}
	return slices.Sorted(maps.Keys(keys))
}
