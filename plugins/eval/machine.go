package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
	"github.com/expr-lang/expr/vm/runtime"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// budget bounds what one call inside an expression may make, in elements or bytes: the machine's own default.
const budget = 1e6

// machine runs an expression in expr-lang's virtual machine. An absent value is nil there, but a string, list or object whose
// type is known is "" or empty.
type machine struct {
	program *vm.Program
	refs    []*ref
	vm      vm.VM
	env     map[string]any
}

// virtual compiles the unit for the machine. The unit's tree is changed and of no other use afterwards.
func (u *unit) virtual(m **machine) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errorAt(u.src, u.place, fmt.Sprintf("the expression cannot be compiled: %v", r))
		}
	}()
	out := &machine{env: map[string]any{}}
	p := &patcher{u: u, done: map[ast.Node]ast.Node{}, used: map[string]bool{}}
	u.tree.Node = p.patch(u.tree.Node)
	if p.err != nil {
		return p.err
	}
	for name, f := range functions() {
		u.config.Functions[name] = &builtin.Function{Name: name, Func: f}
	}
	program, err := compiler.Compile(u.tree, u.config)
	if err != nil {
		// The compiler recovers from its own panics and adds a stack; its first line says what was wrong.
		line, _, _ := strings.Cut(err.Error(), "\n")
		return errorAt(u.src, u.place, line)
	}
	out.program = program
	for _, name := range slices.Sorted(maps.Keys(p.used)) {
		out.refs = append(out.refs, u.refs[name])
	}
	*m = out
	return nil
}

func (m *machine) clone() *machine {
	if m == nil {
		return nil
	}
	return &machine{program: m.program, refs: m.refs, env: map[string]any{}}
}

func (m *machine) run(e *event.Event) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			m.vm = vm.VM{}
			v, err = nil, fmt.Errorf("running the expression: %s", withoutQuotes(fmt.Sprint(r)))
		}
	}()
	for _, r := range m.refs {
		x, err := toAny(r.kind, r.get(e))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", r.name, err)
		}
		m.env[r.key] = x
	}
	v, err = m.vm.Run(m.program, m.env)
	if err != nil {
		return nil, brief(err)
	}
	return v, nil
}

// brief is an error of the machine without the picture of the expression that expr-lang draws below it, and without what it quotes:
// that may be an event's text, which has no place in a log.
func brief(err error) error {
	text := err.Error()
	var f *file.Error
	switch {
	case !errors.As(err, &f):
	case f.Prev != nil:
		text = f.Prev.Error()
	default:
		text = oneLine.Replace(f.Message)
	}
	return errors.New(withoutQuotes(text))
}

// withoutQuotes replaces what stands in quotes by "…".
func withoutQuotes(s string) string { return quoted.ReplaceAllString(s, `"…"`) }

// quoted matches a text in quotes, or from a quote that is never closed to the end.
var quoted = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*(?:\"|$)|`[^`]*(?:`|$)|'[^']*(?:'|$)")

// patcher puts calls of functions that know absent values in the place of operators.
type patcher struct {
	u    *unit
	done map[ast.Node]ast.Node // some nodes stand at two places
	used map[string]bool
	err  *Error
}

func (p *patcher) patch(n ast.Node) ast.Node {
	if m, ok := p.done[n]; ok {
		return m
	}
	m := p.rewrite(n)
	p.done[n] = m
	return m
}

func (p *patcher) refuse(n ast.Node, message string) ast.Node {
	if p.err == nil {
		p.err = errorAt(p.u.src, n.Location().From, message)
	}
	return n
}

// call makes a call that stands for n and has its type.
func call(n ast.Node, name string, args ...ast.Node) ast.Node {
	c := &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
	c.SetLocation(n.Location())
	c.SetNature(*n.Nature())
	return c
}

func constant(v any) ast.Node { return &ast.ConstantNode{Value: v} }

// emptied has the known type of n decide what nil is.
func emptied(n, patched ast.Node) ast.Node {
	switch kindOf(n.Nature()) {
	case event.String:
		return call(n, "$text", patched)
	case event.List:
		return call(n, "$list", patched)
	case event.Object:
		return call(n, "$map", patched)
	}
	return patched
}

// branch is emptied for a branch of n, which may be a nil of n's type.
func (p *patcher) branch(n, of ast.Node) ast.Node {
	x := p.patch(of)
	if _, ok := of.(*ast.NilNode); ok {
		return emptied(n, x)
	}
	return x
}

func (p *patcher) condition(n ast.Node) ast.Node {
	c := call(n, "$cond", p.patch(n))
	c.SetType(reflect.TypeFor[bool]())
	return c
}

func (p *patcher) all(nodes []ast.Node) {
	for i := range nodes {
		nodes[i] = p.patch(nodes[i])
	}
}

func (p *patcher) rewrite(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		if p.u.refs[n.Value] != nil {
			p.used[n.Value] = true
		}
	case *ast.UnaryNode:
		switch n.Operator {
		case "!", "not":
			return call(n, "$not", p.condition(n.Node))
		case "-":
			return call(n, "$neg", p.patch(n.Node))
		}
		return call(n, "$pos", p.patch(n.Node))
	case *ast.BinaryNode:
		return p.binary(n)
	case *ast.ChainNode:
		return p.patch(n.Node)
	case *ast.MemberNode:
		return emptied(n, call(n, "$index", p.patch(n.Node), p.patch(n.Property)))
	case *ast.SliceNode:
		from, to := constant(0), constant(math.MaxInt)
		if n.From != nil {
			from = p.patch(n.From)
		}
		if n.To != nil {
			to = p.patch(n.To)
		}
		return emptied(n, call(n, "$slice", p.patch(n.Node), from, to))
	case *ast.CallNode:
		m, ok := n.Callee.(*ast.MemberNode)
		if !ok {
			return p.refuse(n, "this is no function")
		}
		name, ok := m.Property.(*ast.StringNode)
		if !ok {
			return p.refuse(n, "this is no function")
		}
		args := []ast.Node{p.patch(m.Node), constant(name.Value)}
		for _, a := range n.Arguments {
			args = append(args, p.patch(a))
		}
		return emptied(n, call(n, "$method", args...))
	case *ast.BuiltinNode:
		return p.builtin(n)
	case *ast.PredicateNode:
		n.Node = p.patch(n.Node)
	case *ast.VariableDeclaratorNode:
		n.Value, n.Expr = p.patch(n.Value), p.patch(n.Expr)
	case *ast.SequenceNode:
		p.all(n.Nodes)
	case *ast.ConditionalNode:
		cond, a, b := p.condition(n.Cond), p.branch(n, n.Exp1), p.branch(n, n.Exp2)
		n.Cond, n.Exp1, n.Exp2 = cond, a, b
	case *ast.ArrayNode:
		p.all(n.Nodes)
	case *ast.MapNode:
		p.all(n.Pairs)
	case *ast.PairNode:
		n.Key, n.Value = p.patch(n.Key), p.patch(n.Value)
	}
	return n
}

func (p *patcher) binary(n *ast.BinaryNode) ast.Node {
	switch op := n.Operator; op {
	case "&&", "and", "||", "or":
		n.Left, n.Right = p.condition(n.Left), p.condition(n.Right)
		return n
	case "==", "!=", "<", "<=", ">", ">=":
		name := op
		if !mayBeText(n.Left.Nature()) || !mayBeText(n.Right.Nature()) {
			name += " known" // beside a number even an absent value without a type is no ""
		}
		return call(n, name, p.patch(n.Left), p.patch(n.Right))
	case "in":
		if r, ok := n.Right.(*ast.BinaryNode); ok && r.Operator == ".." {
			return call(n, "$between", p.patch(n.Left), p.patch(r.Left), p.patch(r.Right))
		}
		return call(n, "in", p.patch(n.Left), p.patch(n.Right))
	case "matches":
		if s, ok := n.Right.(*ast.StringNode); ok {
			re, err := regexp.Compile(s.Value)
			if err != nil {
				return p.refuse(n, err.Error())
			}
			return call(n, "matches", p.patch(n.Left), constant(re))
		}
		return call(n, "matches", p.patch(n.Left), p.patch(n.Right))
	case "??":
		left := call(n.Left, "$some", p.patch(n.Left))
		left.SetType(reflect.TypeFor[any]())
		n.Left, n.Right = left, p.branch(n, n.Right)
		return n
	default:
		return call(n, op, p.patch(n.Left), p.patch(n.Right))
	}
}

func mayBeText(n *nature.Nature) bool { return isUnknown(n) || kindOf(n) == event.String }

func (p *patcher) builtin(n *ast.BuiltinNode) ast.Node {
	f := p.u.config.Builtins[n.Name]
	switch {
	case n.Name == "get":
		args := make([]ast.Node, len(n.Arguments))
		for i, a := range n.Arguments {
			args[i] = p.patch(a)
		}
		return emptied(n, call(n, "$index", args...))
	case f == nil:
		return p.refuse(n, fmt.Sprintf("unknown function %q", n.Name))
	case f.Predicate:
		list := n.Arguments[0]
		n.Arguments[0] = call(list, "$list", p.patch(list))
		for i, a := range n.Arguments[1:] {
			q, ok := a.(*ast.PredicateNode)
			if !ok {
				n.Arguments[i+1] = p.patch(a)
				continue
			}
			switch n.Name {
			case "all", "none", "any", "one", "filter", "count", "find", "findIndex", "findLast", "findLastIndex":
				q.Node = p.condition(q.Node)
			default:
				q.Node = p.patch(q.Node)
			}
		}
		return emptied(n, n)
	}
	args := []ast.Node{constant(f)}
	for _, a := range n.Arguments {
		args = append(args, p.patch(a))
	}
	return emptied(n, call(n, "$call", args...))
}

type function = func(args ...any) (any, error)

// functions are what the machine calls in the place of operators. No name of a field or function is like theirs.
func functions() map[string]function {
	m := map[string]function{
		"$cond": func(a ...any) (any, error) { return condition(a[0]) },
		"$not": func(a ...any) (any, error) {
			b, err := condition(a[0])
			return !b, err
		},
		"$neg": func(a ...any) (any, error) {
			if a[0] == nil {
				return nil, nil
			}
			return runtime.Negate(a[0]), nil
		},
		"$pos": func(a ...any) (any, error) {
			if a[0] != nil {
				runtime.ToFloat64(a[0]) // refuses what is no number
			}
			return a[0], nil
		},
		"$text": func(a ...any) (any, error) {
			if a[0] == nil {
				return "", nil
			}
			return a[0], nil
		},
		"$list": func(a ...any) (any, error) {
			if a[0] == nil {
				return []any{}, nil
			}
			return a[0], nil
		},
		"$map": func(a ...any) (any, error) {
			if a[0] == nil {
				return map[string]any{}, nil
			}
			return a[0], nil
		},
		"$some": func(a ...any) (any, error) {
			if isEmpty(a[0]) {
				return nil, nil
			}
			return a[0], nil
		},
		"$index":  func(a ...any) (any, error) { return index(a[0], a[1]) },
		"$slice":  slice,
		"$method": method,
		"$call":   callBuiltin,
		"$between": func(a ...any) (any, error) {
			if a[0] == nil || a[1] == nil || a[2] == nil {
				return false, nil
			}
			lo, hi := runtime.ToInt(a[1]), runtime.ToInt(a[2])
			switch x := a[0].(type) {
			case int:
				return lo <= x && x <= hi, nil
			case float64:
				return float64(lo) <= x && x <= float64(hi) && x == math.Trunc(x), nil
			}
			return false, nil
		},
		"in": func(a ...any) (any, error) {
			if a[0] == nil || a[1] == nil {
				return false, nil
			}
			return runtime.In(a[0], a[1]), nil
		},
		"..": func(a ...any) (any, error) {
			if a[0] == nil || a[1] == nil {
				return []int{}, nil
			}
			lo, hi := runtime.ToInt(a[0]), runtime.ToInt(a[1])
			if lo <= hi && uint64(hi)-uint64(lo) >= budget {
				return nil, errors.New("a range of more than a million numbers")
			}
			return runtime.MakeRange(lo, hi), nil
		},
		"matches": func(a ...any) (any, error) {
			s, err := text(a[0])
			if err != nil {
				return nil, err
			}
			if re, ok := a[1].(*regexp.Regexp); ok {
				return re.MatchString(s), nil
			}
			pattern, err := text(a[1])
			if err != nil {
				return nil, err
			}
			re, err := regexp.Compile(pattern)
			if err != nil {
				return nil, err
			}
			return re.MatchString(s), nil
		},
		"startsWith": onTexts(strings.HasPrefix),
		"endsWith":   onTexts(strings.HasSuffix),
		"contains":   onTexts(strings.Contains),

		"+":  arithmetic(runtime.Add),
		"-":  arithmetic(runtime.Subtract),
		"*":  arithmetic(runtime.Multiply),
		"**": arithmetic(func(a, b any) any { return runtime.Exponent(a, b) }),
		"/": arithmetic(func(a, b any) any {
			if runtime.ToFloat64(b) == 0 {
				panic(errZero)
			}
			return runtime.Divide(a, b)
		}),
		"%": arithmetic(func(a, b any) any {
			if runtime.ToInt(b) == 0 {
				panic(errZero)
			}
			return runtime.Modulo(a, b)
		}),
	}
	m["^"] = m["**"]
	for op, holds := range map[string]func(a, b any) bool{
		"==": runtime.Equal, "<": runtime.Less, "<=": runtime.LessOrEqual, ">": runtime.More, ">=": runtime.MoreOrEqual,
	} {
		m[op] = func(a ...any) (any, error) { return compare(holds, a[0], a[1], true), nil }
		m[op+" known"] = func(a ...any) (any, error) { return compare(holds, a[0], a[1], false), nil }
	}
	m["!="] = func(a ...any) (any, error) { return !compare(runtime.Equal, a[0], a[1], true), nil }
	m["!= known"] = func(a ...any) (any, error) { return !compare(runtime.Equal, a[0], a[1], false), nil }
	return m
}

// compare compares where both are there. texts: what is absent beside a string is "".
func compare(holds func(a, b any) bool, a, b any, texts bool) bool {
	if a == nil || b == nil {
		_, left := a.(string)
		_, right := b.(string)
		switch {
		case texts && left:
			b = ""
		case texts && right:
			a = ""
		default:
			return false
		}
	}
	return holds(a, b)
}

func arithmetic(op func(a, b any) any) function {
	return func(a ...any) (any, error) {
		if a[0] == nil || a[1] == nil {
			return nil, nil
		}
		return op(a[0], a[1]), nil
	}
}

func onTexts(holds func(a, b string) bool) function {
	return func(a ...any) (any, error) {
		s, err := text(a[0])
		if err != nil {
			return nil, err
		}
		t, err := text(a[1])
		if err != nil {
			return nil, err
		}
		return holds(s, t), nil
	}
}

func text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("a string is wanted here, not %v", reflect.TypeOf(v))
}

func condition(v any) (bool, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	}
	return false, fmt.Errorf("a condition is true or false, this is %v", reflect.TypeOf(v))
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []string:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// index is a member of a list or an object; nil when there is none or an empty string.
func index(from, at any) (any, error) {
	v, err := inside(from, at)
	if v == "" {
		return nil, err
	}
	return v, err
}

func inside(from, at any) (any, error) {
	if from == nil || at == nil {
		return nil, nil
	}
	switch m := from.(type) {
	case map[string]any:
		if k, ok := at.(string); ok {
			return m[k], nil
		}
	}
	v := reflect.ValueOf(from)
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		i := runtime.ToInt(at)
		if i < 0 {
			i += v.Len()
		}
		if i < 0 || i >= v.Len() {
			return nil, nil
		}
		return v.Index(i).Interface(), nil
	case reflect.Map:
		return runtime.Fetch(from, at), nil
	}
	return nil, fmt.Errorf("nothing is inside %v", reflect.TypeOf(from))
}

func slice(a ...any) (any, error) {
	for _, x := range a {
		if x == nil {
			return nil, nil
		}
	}
	return runtime.Slice(a[0], a[1], a[2]), nil
}

// method calls a method of a time or a duration.
func method(a ...any) (any, error) {
	for _, x := range a {
		if x == nil {
			return nil, nil
		}
	}
	name, _ := a[1].(string)
	switch a[0].(type) {
	case time.Time, time.Duration:
	default:
		return nil, fmt.Errorf("%v has no method %s", reflect.TypeOf(a[0]), name)
	}
	f := reflect.ValueOf(a[0]).MethodByName(name)
	if !f.IsValid() {
		return nil, fmt.Errorf("%v has no method %s", reflect.TypeOf(a[0]), name)
	}
	in := make([]reflect.Value, len(a)-2)
	for i := range in {
		in[i] = reflect.ValueOf(a[i+2])
	}
	out := f.Call(in)
	if len(out) == 0 {
		return nil, nil
	}
	if len(out) == 2 {
		if err, ok := reflect.TypeAssert[error](out[1]); ok && err != nil {
			return nil, err
		}
	}
	return out[0].Interface(), nil
}

// callBuiltin calls a function of the language; of anything absent it makes nothing.
func callBuiltin(a ...any) (any, error) {
	f, ok := a[0].(*builtin.Function)
	if !ok {
		return nil, errors.New("BUG: no function to call")
	}
	args := a[1:]
	for _, x := range args {
		if x == nil {
			return nil, nil
		}
	}
	switch {
	case f.Fast != nil && len(args) == 1:
		return f.Fast(args[0]), nil
	case f.Safe != nil:
		v, size, err := f.Safe(args...)
		if err == nil && size > budget {
			err = errors.New("the result is too large")
		}
		return v, err
	case f.Func != nil:
		return f.Func(args...)
	}
	return nil, fmt.Errorf("BUG: %s cannot be called", f.Name)
}

// toAny is what the machine works with for a value of a field of this kind.
func toAny(kind event.Kind, v event.Value) (any, error) {
	if kind == event.Absent {
		if kind = v.Kind(); kind == event.Absent {
			return nil, nil
		}
	}
	switch kind {
	case event.String:
		return v.Str(), nil
	case event.List:
		if v.Kind() == event.Absent {
			return []string{}, nil
		}
		return v.List(), nil
	case event.Object:
		if v.Kind() == event.Absent {
			return map[string]any{}, nil
		}
		return object(v.Str())
	}
	switch v.Kind() {
	case event.Int:
		return int(v.Int()), nil
	case event.Float:
		return v.Float(), nil
	case event.Bool:
		return v.Bool(), nil
	case event.Time:
		return v.Time(), nil
	}
	return nil, nil
}

// object reads the text of an object. Whole numbers are ints, as long as they fit.
func object(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("decoding an object: %w", err)
	}
	for k, v := range m {
		m[k] = numbers(v)
	}
	return m, nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return int(n)
		}
		f, err := v.Float64()
		if err != nil {
			return nil // beyond what a float holds
		}
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// fromAny makes a value of what the machine returned. Its strings are copied, for they may be views of anything.
func fromAny(e *event.Event, x any) (event.Value, error) {
	switch x := x.(type) {
	case nil:
		return event.Value{}, nil
	case string:
		return event.StringValue(keep(e, x)), nil
	case bool:
		return event.BoolValue(x), nil
	case int:
		return event.IntValue(int64(x)), nil
	case float64:
		return floatValue(x)
	case time.Time:
		if y := x.Year(); y < 1678 || y > 2261 {
			return event.Value{}, errors.New("a time before 1678 or after 2261 cannot be kept")
		}
		return event.TimeValue(x), nil
	case time.Duration:
		return event.FloatValue(x.Seconds()), nil
	}
	v := reflect.ValueOf(x)
	switch {
	case v.CanInt():
		return event.IntValue(v.Int()), nil
	case v.CanUint():
		if v.Uint() > math.MaxInt64 {
			return event.Value{}, errors.New("the result is too large for an int")
		}
		return event.IntValue(int64(v.Uint())), nil
	case v.CanFloat():
		return floatValue(v.Float())
	}
	switch v.Kind() {
	case reflect.String:
		return event.StringValue(keep(e, v.String())), nil
	case reflect.Slice, reflect.Array:
		list := make([]string, v.Len())
		for i := range list {
			s, ok := reflect.TypeAssert[string](v.Index(i))
			if !ok {
				return event.Value{}, fmt.Errorf("a list holds strings, not %v", reflect.TypeOf(v.Index(i).Interface()))
			}
			list[i] = keep(e, s)
		}
		return event.ListValue(list), nil
	case reflect.Map:
		if v.Len() == 0 {
			return event.Value{}, nil
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(x); err != nil {
			return event.Value{}, fmt.Errorf("encoding an object: %w", err)
		}
		return event.ObjectValue(keep(e, strings.TrimSuffix(b.String(), "\n"))), nil
	}
	return event.Value{}, fmt.Errorf("no field can hold %v", reflect.TypeOf(x))
}

func floatValue(f float64) (event.Value, error) {
	if !finite(f) {
		return event.Value{}, errEndless
	}
	return event.FloatValue(f), nil
}
