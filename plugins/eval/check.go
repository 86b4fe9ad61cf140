package eval

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/checker/nature"
	exprconf "github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/parser"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Keys under which has(), field() and now() stand among the names, which no identifier can be.
const (
	hasKey   = "has "
	fieldKey = "field "
	nowKey   = "now()"
)

// ref is a name that an expression may use: a field, whether one is there, or the time of reading.
type ref struct {
	key   string
	name  string        // of the field
	field *schema.Field // nil when the field is extra
	kind  event.Kind    // event.Absent when only known at run time
	has   bool
	now   bool
}

// get returns what the name stands for in e. The kind of what it returns is the ref's or absent.
func (r *ref) get(e *event.Event) event.Value {
	if r.now {
		if b := e.Batch(); b != nil {
			return event.TimeValue(b.ReadAt)
		}
		return event.Value{}
	}
	var v event.Value
	if r.field != nil {
		v = r.field.Get(e)
	} else {
		v, _ = e.Get(r.name)
	}
	switch {
	case r.has:
		return event.BoolValue(v.Kind() != event.Absent)
	case r.kind == event.Absent, v.Kind() == r.kind:
		return v
	case r.kind == event.Float && v.Kind() == event.Int:
		return event.FloatValue(v.Float())
	}
	return event.Value{}
}

// unit is an expression that passed all checks. It is shared by all instances and never changes.
type unit struct {
	src     string
	tree    *parser.Tree
	config  *exprconf.Config
	refs    map[string]*ref
	kind    event.Kind
	unknown bool // the kind shows only at run time
	place   int  // of the root
}

// literal returns the value of an expression that is a single literal.
func (u *unit) literal() (event.Value, bool) {
	switch n := u.tree.Node.(type) {
	case *ast.StringNode:
		return event.StringValue(n.Value), true
	case *ast.IntegerNode:
		return event.IntValue(int64(n.Value)), true
	case *ast.FloatNode:
		return event.FloatValue(n.Value), true
	case *ast.BoolNode:
		return event.BoolValue(n.Value), true
	}
	return event.Value{}, false
}

// analyse parses and type-checks an expression.
func analyse(src string, extra Names) (u *unit, err error) {
	defer func() {
		if r := recover(); r != nil {
			u, err = nil, errorAt(src, 0, fmt.Sprintf("the expression cannot be read: %v", r))
		}
	}()
	u = &unit{src: src, refs: map[string]*ref{}}
	var names []string
	for i := range schema.Fields() {
		f := &schema.Fields()[i]
		u.refs[f.Name] = &ref{key: f.Name, name: f.Name, field: f, kind: f.Type}
		names = append(names, f.Name)
	}
	config := exprconf.CreateNew()
	config.Optimize = false
	for name, kind := range extra {
		if u.refs[name] != nil || config.Builtins[name] != nil || name == "has" || name == "field" {
			continue // the schema's own field; a function keeps its name, field("…") reads such a field
		}
		u.refs[name] = &ref{key: name, name: name, kind: kind}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range []string{"has", "field", "now"} {
		config.Functions[name] = &builtin.Function{Name: name, Func: func(...any) (any, error) { return nil, nil }}
	}
	config.WithEnv(map[string]any{})
	u.config = config

	for i, r := range []rune(src) {
		if r == 0 {
			return nil, errorAt(src, i, "an expression holds no NUL")
		}
	}
	tree, err := parser.ParseWithConfig(src, config)
	if err != nil {
		return nil, translate(src, err, names)
	}
	u.tree = tree
	x := &expander{u: u, names: names, calls: map[ast.Node]ast.Node{}}
	ast.Walk(&tree.Node, x)
	if x.err != nil {
		return nil, x.err
	}
	for _, r := range u.refs {
		config.Env.Fields[r.key] = natureOf(&config.NtCache, r.kind)
	}
	if _, err = checker.Check(tree, config); err != nil {
		return nil, translate(src, err, names)
	}
	l := &limits{u: u}
	ast.Walk(&tree.Node, l)
	if l.err != nil {
		return nil, l.err
	}
	root := tree.Node.Nature()
	u.place = tree.Node.Location().From
	u.kind = kindOf(root)
	u.unknown = isUnknown(root)
	if u.kind == event.Absent && !u.unknown && !root.Nil {
		return nil, errorAt(src, u.place, "the result is "+typeNames.Replace(root.String())+", which no field can hold")
	}
	return u, nil
}

// expander puts names in the place of calls of has, field and now.
type expander struct {
	u     *unit
	names []string
	calls map[ast.Node]ast.Node
	err   *Error
}

// Visit implements ast.Visitor.
func (x *expander) Visit(n *ast.Node) {
	call, ok := (*n).(*ast.CallNode)
	if !ok || x.err != nil {
		return
	}
	id, ok := call.Callee.(*ast.IdentifierNode)
	if !ok {
		return
	}
	place := call.Location().From
	switch id.Value {
	case "now":
		if len(call.Arguments) > 0 {
			x.err = errorAt(x.u.src, place, "now() takes nothing: it is when the batch was read")
			return
		}
		x.put(n, &ref{key: nowKey, kind: event.Time, now: true})
	case "has", "field":
		var arg ast.Node
		if len(call.Arguments) == 1 {
			arg = call.Arguments[0]
		}
		name := ""
		switch a := arg.(type) {
		case *ast.StringNode:
			name = a.Value
		case *ast.IdentifierNode:
			name = x.ident(a)
			if id.Value == "field" && name != "" {
				x.err = errorAt(x.u.src, place, fmt.Sprintf("field() takes a name in quotes: field(%q)", a.Value))
				return
			}
		}
		if x.err != nil {
			return
		}
		if name == "" {
			want := `field() takes one name in quotes: field("name")`
			if id.Value == "has" {
				want = `has() takes one name of a field: has(user) or has("user")`
			}
			x.err = errorAt(x.u.src, place, want)
			return
		}
		known := x.u.refs[name]
		switch {
		case id.Value == "has":
			r := &ref{key: hasKey + name, name: name, kind: event.Bool, has: true}
			if known != nil {
				r.field = known.field
			}
			x.put(n, r)
		case known != nil:
			x.put(n, known)
		default:
			x.put(n, &ref{key: fieldKey + name, name: name})
		}
	}
}

// ident returns the name of the field that the argument of has is.
func (x *expander) ident(a *ast.IdentifierNode) string {
	if r := x.u.refs[a.Value]; r != nil && r.name == a.Value {
		return a.Value
	}
	x.err = unknownName(x.u.src, a.Location().From, a.Value, x.names)
	return ""
}

func (x *expander) put(n *ast.Node, r *ref) {
	x.u.refs[r.key] = r
	ast.Patch(n, &ast.IdentifierNode{Value: r.key})
}

// limits refuses what the language has and expressions here do not.
type limits struct {
	u   *unit
	err *Error
}

// Visit implements ast.Visitor.
func (l *limits) Visit(n *ast.Node) {
	refuse := func(m ast.Node, format string, args ...any) {
		if l.err == nil {
			l.err = errorAt(l.u.src, m.Location().From, fmt.Sprintf(format, args...))
		}
	}
	switch n := (*n).(type) {
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			refuse(n, "$env is not to be had: name the fields")
		}
	case *ast.BytesNode:
		refuse(n, "no field holds bytes: write a string")
	case *ast.BinaryNode:
		if _, ok := n.Left.(*ast.NilNode); ok && n.Operator != "??" {
			refuse(n, "nothing is compared with nil: has(name) tells whether a field is there")
		}
		if _, ok := n.Right.(*ast.NilNode); ok && n.Operator != "??" {
			refuse(n, "nothing is compared with nil: has(name) tells whether a field is there")
		}
	case *ast.MemberNode:
		if k := n.Nature().Kind; k == reflect.Func && !n.Method {
			refuse(n, "a method is to be called: write () after it")
		}
	}
}

func natureOf(c *nature.Cache, k event.Kind) nature.Nature {
	switch k {
	case event.String:
		return c.NatureOf("")
	case event.Int:
		return c.NatureOf(0)
	case event.Float:
		return c.NatureOf(0.0)
	case event.Bool:
		return c.NatureOf(false)
	case event.Time:
		return c.NatureOf(time.Time{})
	case event.List:
		return c.NatureOf([]string{})
	case event.Object:
		return c.NatureOf(map[string]any{})
	}
	return nature.Nature{}
}

func isUnknown(n *nature.Nature) bool {
	return !n.Nil && (n.Type == nil || n.Type.Kind() == reflect.Interface)
}

// kindOf says what kind of value a type becomes; event.Absent when it is unknown or becomes none.
func kindOf(n *nature.Nature) event.Kind {
	if n.Nil || n.Type == nil {
		return event.Absent
	}
	switch n.Type {
	case reflect.TypeFor[time.Time]():
		return event.Time
	case reflect.TypeFor[time.Duration]():
		return event.Float
	}
	switch n.Type.Kind() {
	case reflect.String:
		return event.String
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return event.Int
	case reflect.Float32, reflect.Float64:
		return event.Float
	case reflect.Bool:
		return event.Bool
	case reflect.Slice, reflect.Array:
		return event.List
	case reflect.Map:
		return event.Object
	}
	return event.Absent
}
