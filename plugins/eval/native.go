package eval

import (
	"cmp"
	"errors"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/expr-lang/expr/ast"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// code is a subtree as closures. Which of them are set depends on its kind; both operands of an operator are always evaluated,
// as the machine does, because either may fail.
type code struct {
	kind event.Kind // event.Absent: dynamic

	str  func(*frame) string // "" when absent
	num  func(*frame) (int64, bool)
	flt  func(*frame) (float64, bool)
	yes  func(*frame) bool         // of a Bool, as a condition
	tri  func(*frame) (v, ok bool) // of a Bool that may be absent; nil when it never is
	inst func(*frame) (time.Time, bool)
	dyn  func(*frame) event.Value // of a List, an Object and what is dynamic
	cat  []func(*frame) string    // the parts that str puts together

	lit  any     // string, int64, float64 or bool of a literal
	text bool    // str reads the fixed field at off
	off  uintptr // in event.Event
	none bool    // nil
	part bool    // dyn is a member of an object: good for operators, no result
}

// Failures of dynamic values.
var (
	errNoText  = errors.New("a string is wanted here, and the field holds another type")
	errNoBool  = errors.New("a condition is true or false, and the field holds another type")
	errNoOrder = errors.New("the field holds a type that cannot be compared with this one")
)

// maxParts bounds the parts of one concatenation, whose views stand on the stack.
const maxParts = 8

// native compiles the unit to closures; nil when any part of it has to run in the machine.
func (u *unit) native() *code { return u.code(u.tree.Node) }

func (u *unit) code(n ast.Node) *code {
	switch n := n.(type) {
	case *ast.NilNode:
		return &code{none: true}
	case *ast.StringNode:
		s := n.Value
		return &code{kind: event.String, lit: s, str: func(*frame) string { return s }}
	case *ast.IntegerNode:
		return intLit(int64(n.Value))
	case *ast.FloatNode:
		return floatLit(n.Value)
	case *ast.BoolNode:
		b := n.Value
		return &code{kind: event.Bool, lit: b, yes: func(*frame) bool { return b }}
	case *ast.IdentifierNode:
		if r := u.refs[n.Value]; r != nil {
			return r.code()
		}
	case *ast.ChainNode:
		return u.code(n.Node)
	case *ast.MemberNode:
		return u.member(n)
	case *ast.UnaryNode:
		return u.unary(n)
	case *ast.BinaryNode:
		return u.binary(n)
	case *ast.ConditionalNode:
		c, a, b := u.code(n.Cond), u.code(n.Exp1), u.code(n.Exp2)
		if c == nil || a == nil || b == nil {
			return nil
		}
		return choose(c.condition(), a, b)
	}
	return nil
}

func intLit(v int64) *code {
	return &code{kind: event.Int, lit: v, num: func(*frame) (int64, bool) { return v, true }}
}

func floatLit(v float64) *code {
	return &code{kind: event.Float, lit: v, flt: func(*frame) (float64, bool) { return v, true }}
}

// condition is the code as a condition, in which absent is false; nil when it is none.
func (c *code) condition() func(*frame) bool {
	switch {
	case c.kind == event.Bool:
		return c.yes
	case c.kind == event.Absent && c.dyn != nil:
		dyn := c.dyn
		return func(f *frame) bool {
			v := dyn(f)
			if v.Kind() != event.Bool && v.Kind() != event.Absent {
				f.fail(errNoBool)
			}
			return v.Bool()
		}
	}
	return nil
}

// value is the code as a value.
func (c *code) value() func(*frame) event.Value {
	switch c.kind {
	case event.String:
		str := c.str
		if s, ok := c.lit.(string); ok {
			v := event.StringValue(s)
			return func(*frame) event.Value { return v }
		}
		return func(f *frame) event.Value { return event.StringValue(str(f)) }
	case event.Int:
		num := c.num
		return func(f *frame) event.Value {
			if v, ok := num(f); ok {
				return event.IntValue(v)
			}
			return event.Value{}
		}
	case event.Float:
		flt := c.flt
		return func(f *frame) event.Value {
			v, ok := flt(f)
			if !ok {
				return event.Value{}
			}
			if !finite(v) {
				f.fail(errEndless)
			}
			return event.FloatValue(v)
		}
	case event.Bool:
		tri := c.either()
		return func(f *frame) event.Value {
			if v, ok := tri(f); ok {
				return event.BoolValue(v)
			}
			return event.Value{}
		}
	case event.Time:
		inst := c.inst
		return func(f *frame) event.Value {
			if v, ok := inst(f); ok {
				return event.TimeValue(v)
			}
			return event.Value{}
		}
	}
	switch {
	case c.none:
		return func(*frame) event.Value { return event.Value{} }
	case c.part:
		return nil
	}
	dyn := c.dyn
	return func(f *frame) event.Value {
		v := dyn(f)
		if v.Kind() == event.Object && strings.Trim(v.Str(), "{} \t\r\n") == "" {
			return event.Value{} // an empty object is absent
		}
		return v
	}
}

// either is a Bool with its presence.
func (c *code) either() func(*frame) (bool, bool) {
	if c.tri != nil {
		return c.tri
	}
	yes := c.yes
	return func(f *frame) (bool, bool) { return yes(f), true }
}

func boolCode(yes func(*frame) bool) *code { return &code{kind: event.Bool, yes: yes} }

func boolFrom(tri func(*frame) (bool, bool)) *code {
	return &code{kind: event.Bool, tri: tri, yes: func(f *frame) bool { v, ok := tri(f); return v && ok }}
}

// float is the code as a number with a fraction; nil when it is no number.
func (c *code) float() func(*frame) (float64, bool) {
	switch c.kind {
	case event.Float:
		return c.flt
	case event.Int:
		if v, ok := c.lit.(int64); ok {
			x := float64(v)
			return func(*frame) (float64, bool) { return x, true }
		}
		num := c.num
		return func(f *frame) (float64, bool) { v, ok := num(f); return float64(v), ok }
	}
	return nil
}

// asText is the code as a string; nil when it cannot be one.
func (c *code) asText() func(*frame) string {
	switch {
	case c.kind == event.String:
		return c.str
	case c.kind == event.Absent && c.dyn != nil:
		dyn := c.dyn
		return func(f *frame) string {
			v := dyn(f)
			if v.Kind() == event.String {
				return v.Str()
			}
			if v.Kind() != event.Absent {
				f.fail(errNoText)
			}
			return ""
		}
	}
	return nil
}

// code reads the field that the ref stands for.
func (r *ref) code() *code {
	if r.field != nil && !r.has {
		if off, ok := r.field.TextOffset(); ok {
			return &code{kind: event.String, text: true, off: off, str: func(f *frame) string {
				return *(*string)(unsafe.Add(unsafe.Pointer(f.e), off))
			}}
		}
		if c := r.masked(); c != nil {
			return c
		}
	}
	if r.has {
		return r.presence()
	}
	get := r.get
	if r.field == nil && !r.now || r.field != nil && !r.field.Fixed() {
		if kind, name := r.kind, r.name; kind == event.String {
			return &code{kind: kind, str: func(f *frame) string {
				for i := range f.e.Extra {
					if x := &f.e.Extra[i]; x.Key == name {
						if x.Value.Kind() != event.String {
							return ""
						}
						return x.Value.Str()
					}
				}
				return ""
			}}
		}
	}
	switch r.kind {
	case event.String:
		return &code{kind: r.kind, str: func(f *frame) string { return get(f.e).Str() }}
	case event.Int:
		return &code{kind: r.kind, num: func(f *frame) (int64, bool) {
			v := get(f.e)
			return v.Int(), v.Kind() == event.Int
		}}
	case event.Float:
		return &code{kind: r.kind, flt: func(f *frame) (float64, bool) {
			v := get(f.e)
			return v.Float(), v.Kind() == event.Float
		}}
	case event.Bool:
		return boolFrom(func(f *frame) (bool, bool) {
			v := get(f.e)
			return v.Bool(), v.Kind() == event.Bool
		})
	case event.Time:
		return &code{kind: r.kind, inst: func(f *frame) (time.Time, bool) {
			v := get(f.e)
			return v.Time(), v.Kind() == event.Time
		}}
	}
	return &code{kind: r.kind, dyn: func(f *frame) event.Value { return get(f.e) }}
}

// masked reads a number or bool that the event has a place for; nil for other fields.
func (r *ref) masked() *code {
	mask := r.field.Mask()
	number := func(num func(*frame) (int64, bool)) *code { return &code{kind: event.Int, num: num} }
	switch {
	case mask == 0:
		return nil
	case mask == event.HasStatus:
		return number(func(f *frame) (int64, bool) { return int64(f.e.Status), f.e.Has&event.HasStatus != 0 })
	case mask == event.HasSize:
		return number(func(f *frame) (int64, bool) { return f.e.Size, f.e.Has&event.HasSize != 0 })
	case mask == event.HasProcessID:
		return number(func(f *frame) (int64, bool) { return f.e.ProcessID, f.e.Has&event.HasProcessID != 0 })
	case mask == event.HasLevel:
		return number(func(f *frame) (int64, bool) { return int64(f.e.Level), f.e.Has&event.HasLevel != 0 })
	case mask == event.HasLogOffset:
		return number(func(f *frame) (int64, bool) { return f.e.Offset, f.e.Has&event.HasLogOffset != 0 })
	case mask == event.HasDuration:
		return &code{kind: event.Float, flt: func(f *frame) (float64, bool) {
			return float64(f.e.Duration) / float64(time.Second), f.e.Has&event.HasDuration != 0
		}}
	case r.kind == event.Bool:
		return &code{
			kind: event.Bool,
			yes:  func(f *frame) bool { return f.e.Has&f.e.Bools&mask != 0 },
			tri:  func(f *frame) (bool, bool) { return f.e.Bools&mask != 0, f.e.Has&mask != 0 },
		}
	}
	return nil
}

func (r *ref) presence() *code {
	if r.field != nil {
		if off, ok := r.field.TextOffset(); ok {
			return boolCode(func(f *frame) bool { return *(*string)(unsafe.Add(unsafe.Pointer(f.e), off)) != "" })
		}
		if mask := r.field.Mask(); mask != 0 {
			return boolCode(func(f *frame) bool { return f.e.Has&mask != 0 })
		}
	}
	get := r.get
	return boolCode(func(f *frame) bool { return get(f.e).Bool() })
}

// member reads a member of a field that is an object, under a literal name.
func (u *unit) member(n *ast.MemberNode) *code {
	id, ok1 := n.Node.(*ast.IdentifierNode)
	key, ok2 := n.Property.(*ast.StringNode)
	if !ok1 || !ok2 {
		return nil
	}
	r := u.refs[id.Value]
	if r == nil || r.kind != event.Object {
		return nil
	}
	name, get := key.Value, r.get
	return &code{part: true, dyn: func(f *frame) event.Value {
		object := get(f.e).Str()
		if object == "" {
			return event.Value{}
		}
		v, err := member(object, name)
		if err != nil {
			f.fail(err)
		}
		return v
	}}
}

func (u *unit) unary(n *ast.UnaryNode) *code {
	c := u.code(n.Node)
	if c == nil {
		return nil
	}
	switch n.Operator {
	case "!", "not":
		if yes := c.condition(); yes != nil {
			return boolCode(func(f *frame) bool { return !yes(f) })
		}
	case "+":
		if c.kind == event.Int || c.kind == event.Float {
			return c
		}
	case "-":
		switch lit := c.lit.(type) {
		case int64:
			return intLit(-lit)
		case float64:
			return floatLit(-lit)
		}
		switch c.kind {
		case event.Int:
			num := c.num
			return &code{kind: c.kind, num: func(f *frame) (int64, bool) { v, ok := num(f); return -v, ok }}
		case event.Float:
			flt := c.flt
			return &code{kind: c.kind, flt: func(f *frame) (float64, bool) { v, ok := flt(f); return -v, ok }}
		}
	}
	return nil
}

func (u *unit) binary(n *ast.BinaryNode) *code {
	l := u.code(n.Left)
	if l == nil {
		return nil
	}
	switch n.Operator {
	case "in":
		return u.in(l, n.Right)
	case "matches":
		pattern, ok := n.Right.(*ast.StringNode)
		str := l.asText()
		if !ok || str == nil {
			return nil
		}
		re, err := regexp.Compile(pattern.Value)
		if err != nil {
			return nil
		}
		return boolCode(func(f *frame) bool { return re.MatchString(str(f)) })
	}
	r := u.code(n.Right)
	if r == nil {
		return nil
	}
	switch n.Operator {
	case "&&", "and":
		if a, b := l.condition(), r.condition(); a != nil && b != nil {
			return boolCode(func(f *frame) bool { return a(f) && b(f) })
		}
	case "||", "or":
		if a, b := l.condition(), r.condition(); a != nil && b != nil {
			return boolCode(func(f *frame) bool { return a(f) || b(f) })
		}
	case "==", "!=", "<", "<=", ">", ">=":
		return comparison(n.Operator, l, r)
	case "startsWith", "endsWith", "contains":
		return textTest(n.Operator, l, r)
	case "+", "-", "*", "/", "%":
		return arith(n.Operator, l, r)
	case "??":
		return coalesce(l, r)
	}
	return nil
}

func comparison(op string, l, r *code) *code {
	if l.none || r.none {
		return nil
	}
	switch {
	case l.kind == event.Absent || r.kind == event.Absent:
		return dynamicComparison(op, l, r)
	case l.kind == event.String && r.kind == event.String:
		return compareTexts(op, l, r)
	case l.kind == event.Int && r.kind == event.Int:
		if v, ok := r.lit.(int64); ok {
			return boolCode(orderedLit(op, l.num, v))
		}
		return boolCode(ordered(op, l.num, r.num))
	case l.float() != nil && r.float() != nil:
		switch v := r.lit.(type) {
		case int64:
			return boolCode(orderedLit(op, l.float(), float64(v)))
		case float64:
			return boolCode(orderedLit(op, l.float(), v))
		}
		return boolCode(ordered(op, l.float(), r.float()))
	case l.kind == event.Bool && r.kind == event.Bool:
		a, b := l.either(), r.either()
		switch op {
		case "==", "!=":
			want := op == "=="
			return boolCode(func(f *frame) bool {
				x, xok := a(f)
				y, yok := b(f)
				return (xok && yok && x == y) == want
			})
		}
	case l.kind == event.Time && r.kind == event.Time:
		a, b := l.inst, r.inst
		holds := signTest(op)
		return boolCode(func(f *frame) bool {
			x, xok := a(f)
			y, yok := b(f)
			if !xok || !yok {
				return op == "!="
			}
			return holds(x.Compare(y))
		})
	}
	return nil
}

// signTest says what the sign of a comparison means.
func signTest(op string) func(int) bool {
	switch op {
	case "==":
		return func(s int) bool { return s == 0 }
	case "!=":
		return func(s int) bool { return s != 0 }
	case "<":
		return func(s int) bool { return s < 0 }
	case "<=":
		return func(s int) bool { return s <= 0 }
	case ">":
		return func(s int) bool { return s > 0 }
	}
	return func(s int) bool { return s >= 0 }
}

func ordered[T int64 | float64](op string, l, r func(*frame) (T, bool)) func(*frame) bool {
	switch op {
	case "==":
		return func(f *frame) bool { a, x := l(f); b, y := r(f); return x && y && a == b }
	case "!=":
		return func(f *frame) bool { a, x := l(f); b, y := r(f); return !x || !y || a != b }
	case "<":
		return func(f *frame) bool { a, x := l(f); b, y := r(f); return x && y && a < b }
	case "<=":
		return func(f *frame) bool { a, x := l(f); b, y := r(f); return x && y && a <= b }
	case ">":
		return func(f *frame) bool { a, x := l(f); b, y := r(f); return x && y && a > b }
	}
	return func(f *frame) bool { a, x := l(f); b, y := r(f); return x && y && a >= b }
}

func orderedLit[T int64 | float64](op string, l func(*frame) (T, bool), b T) func(*frame) bool {
	switch op {
	case "==":
		return func(f *frame) bool { a, ok := l(f); return ok && a == b }
	case "!=":
		return func(f *frame) bool { a, ok := l(f); return !ok || a != b }
	case "<":
		return func(f *frame) bool { a, ok := l(f); return ok && a < b }
	case "<=":
		return func(f *frame) bool { a, ok := l(f); return ok && a <= b }
	case ">":
		return func(f *frame) bool { a, ok := l(f); return ok && a > b }
	}
	return func(f *frame) bool { a, ok := l(f); return ok && a >= b }
}

func compareTexts(op string, l, r *code) *code {
	a, b, off := l.str, r.str, l.off
	if s, ok := r.lit.(string); ok && l.text {
		switch op {
		case "==":
			return boolCode(func(f *frame) bool { return *(*string)(unsafe.Add(unsafe.Pointer(f.e), off)) == s })
		case "!=":
			return boolCode(func(f *frame) bool { return *(*string)(unsafe.Add(unsafe.Pointer(f.e), off)) != s })
		}
	}
	switch op {
	case "==":
		return boolCode(func(f *frame) bool { return a(f) == b(f) })
	case "!=":
		return boolCode(func(f *frame) bool { return a(f) != b(f) })
	}
	holds := signTest(op)
	return boolCode(func(f *frame) bool { return holds(strings.Compare(a(f), b(f))) })
}

// dynamicComparison compares a value whose type shows only at run time with one whose type is known.
func dynamicComparison(op string, l, r *code) *code {
	if l.kind != event.Absent {
		flipped := map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
		op, l, r = flipped[op], r, l
	}
	dyn := l.dyn
	equality := op == "==" || op == "!="
	holds := signTest(op)
	// other says what becomes of a value that is there, of a type that cannot be ordered with the known one.
	other := func(f *frame) bool {
		if !equality {
			f.fail(errNoOrder)
		}
		return op == "!="
	}
	switch r.kind {
	case event.String:
		str := r.str
		return boolCode(func(f *frame) bool {
			v, s := dyn(f), str(f)
			switch v.Kind() {
			case event.Absent, event.String:
				return holds(strings.Compare(v.Str(), s))
			}
			return other(f)
		})
	case event.Int:
		num := r.num
		return boolCode(func(f *frame) bool {
			v := dyn(f)
			n, ok := num(f)
			switch {
			case !ok || v.Kind() == event.Absent:
				return op == "!="
			case v.Kind() == event.Int:
				return holds(cmp.Compare(v.Int(), n))
			case v.Kind() == event.Float:
				return floatHolds(op, v.Float(), float64(n))
			}
			return other(f)
		})
	case event.Float:
		flt := r.flt
		return boolCode(func(f *frame) bool {
			v := dyn(f)
			n, ok := flt(f)
			switch {
			case !ok || v.Kind() == event.Absent:
				return op == "!="
			case v.Kind() == event.Int || v.Kind() == event.Float:
				return floatHolds(op, v.Float(), n)
			}
			return other(f)
		})
	case event.Bool:
		if !equality {
			return nil
		}
		tri := r.either()
		return boolCode(func(f *frame) bool {
			v := dyn(f)
			b, ok := tri(f)
			return (ok && v.Kind() == event.Bool && v.Bool() == b) == (op == "==")
		})
	}
	return nil
}

func floatHolds(op string, a, b float64) bool {
	switch op {
	case "==":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

func textTest(op string, l, r *code) *code {
	a, b, off := l.asText(), r.asText(), l.off
	if a == nil || b == nil {
		return nil
	}
	if s, ok := r.lit.(string); ok && l.text {
		switch op {
		case "startsWith":
			return boolCode(func(f *frame) bool {
				return strings.HasPrefix(*(*string)(unsafe.Add(unsafe.Pointer(f.e), off)), s)
			})
		case "endsWith":
			return boolCode(func(f *frame) bool {
				return strings.HasSuffix(*(*string)(unsafe.Add(unsafe.Pointer(f.e), off)), s)
			})
		}
		return boolCode(func(f *frame) bool {
			return strings.Contains(*(*string)(unsafe.Add(unsafe.Pointer(f.e), off)), s)
		})
	}
	switch op {
	case "startsWith":
		return boolCode(func(f *frame) bool { x := a(f); return strings.HasPrefix(x, b(f)) })
	case "endsWith":
		return boolCode(func(f *frame) bool { x := a(f); return strings.HasSuffix(x, b(f)) })
	}
	return boolCode(func(f *frame) bool { x := a(f); return strings.Contains(x, b(f)) })
}

// in compiles membership in a list of literals, in a range of literal numbers and in a field that is a list.
func (u *unit) in(l *code, right ast.Node) *code {
	switch n := right.(type) {
	case *ast.ArrayNode:
		return u.inLiterals(l, n)
	case *ast.BinaryNode:
		if n.Operator != ".." {
			return nil
		}
		a, b := u.code(n.Left), u.code(n.Right)
		if a == nil || b == nil {
			return nil
		}
		lo, ok1 := a.lit.(int64)
		hi, ok2 := b.lit.(int64)
		if !ok1 || !ok2 {
			return nil
		}
		switch l.kind {
		case event.Int:
			num := l.num
			return boolCode(func(f *frame) bool { v, ok := num(f); return ok && lo <= v && v <= hi })
		case event.Float:
			flt, lo, hi := l.flt, float64(lo), float64(hi)
			return boolCode(func(f *frame) bool {
				v, ok := flt(f)
				return ok && lo <= v && v <= hi && v == math.Trunc(v)
			})
		}
	case *ast.IdentifierNode:
		r := u.refs[n.Value]
		if r == nil || r.kind != event.List || l.kind != event.String {
			return nil
		}
		str, get := l.str, r.get
		return boolCode(func(f *frame) bool { s := str(f); return slices.Contains(get(f.e).List(), s) })
	}
	return nil
}

func (u *unit) inLiterals(l *code, n *ast.ArrayNode) *code {
	var texts []string
	var ints []int64
	var floats []float64
	for _, x := range n.Nodes {
		c := u.code(x)
		if c == nil {
			return nil
		}
		switch v := c.lit.(type) {
		case string:
			texts = append(texts, v)
		case int64:
			ints = append(ints, v)
			floats = append(floats, float64(v))
		case float64:
			floats = append(floats, v)
		default:
			return nil
		}
	}
	all := len(n.Nodes)
	switch l.kind {
	case event.String:
		if len(texts) == all {
			return boolCode(inTexts(l, texts))
		}
	case event.Int:
		num := l.num
		if len(ints) == all {
			return boolCode(func(f *frame) bool { v, ok := num(f); return ok && slices.Contains(ints, v) })
		}
	case event.Float:
		flt := l.flt
		if len(floats) == all {
			return boolCode(func(f *frame) bool { v, ok := flt(f); return ok && slices.Contains(floats, v) })
		}
	case event.Absent:
		if l.dyn == nil {
			return nil
		}
		dyn := l.dyn
		if len(texts) == all {
			return boolCode(func(f *frame) bool {
				v := dyn(f)
				return v.Kind() == event.String && slices.Contains(texts, v.Str())
			})
		}
		if len(ints) == all {
			return boolCode(func(f *frame) bool {
				switch v := dyn(f); v.Kind() {
				case event.Int:
					return slices.Contains(ints, v.Int())
				case event.Float:
					return slices.Contains(floats, v.Float())
				}
				return false
			})
		}
	}
	return nil
}

// inTexts looks through a short list and asks a set for a long one.
func inTexts(l *code, texts []string) func(*frame) bool {
	const short = 8 // about where a look through costs as much as a hash
	str, off := l.str, l.off
	if len(texts) > short {
		set := make(map[string]struct{}, len(texts))
		for _, s := range texts {
			set[s] = struct{}{}
		}
		return func(f *frame) bool { _, ok := set[str(f)]; return ok }
	}
	if l.text {
		return func(f *frame) bool {
			return slices.Contains(texts, *(*string)(unsafe.Add(unsafe.Pointer(f.e), off)))
		}
	}
	return func(f *frame) bool { return slices.Contains(texts, str(f)) }
}

func arith(op string, l, r *code) *code {
	if op == "+" && l.kind == event.String && r.kind == event.String {
		return concat(l, r)
	}
	if l.kind == event.Int && r.kind == event.Int && op != "/" {
		a, b := l.num, r.num
		c := &code{kind: event.Int}
		switch op {
		case "+":
			c.num = func(f *frame) (int64, bool) { x, p := a(f); y, q := b(f); return x + y, p && q }
		case "-":
			c.num = func(f *frame) (int64, bool) { x, p := a(f); y, q := b(f); return x - y, p && q }
		case "*":
			c.num = func(f *frame) (int64, bool) { x, p := a(f); y, q := b(f); return x * y, p && q }
		case "%":
			c.num = func(f *frame) (int64, bool) {
				x, p := a(f)
				y, q := b(f)
				if !p || !q {
					return 0, false
				}
				if y == 0 {
					f.fail(errZero)
					return 0, false
				}
				return x % y, true
			}
		}
		return c
	}
	a, b := l.float(), r.float()
	if a == nil || b == nil || op == "%" {
		return nil
	}
	c := &code{kind: event.Float}
	switch op {
	case "+":
		c.flt = func(f *frame) (float64, bool) { x, p := a(f); y, q := b(f); return x + y, p && q }
	case "-":
		c.flt = func(f *frame) (float64, bool) { x, p := a(f); y, q := b(f); return x - y, p && q }
	case "*":
		c.flt = func(f *frame) (float64, bool) { x, p := a(f); y, q := b(f); return x * y, p && q }
	case "/":
		c.flt = func(f *frame) (float64, bool) {
			x, p := a(f)
			y, q := b(f)
			if !p || !q {
				return 0, false
			}
			if y == 0 {
				f.fail(errZero)
				return 0, false
			}
			return x / y, true
		}
	}
	return c
}

// concat puts strings together in the frame's buffer. All parts are evaluated before the first is copied, for they may use the
// buffer themselves.
func concat(l, r *code) *code {
	parts := slices.Concat(l.parts(), r.parts())
	if len(parts) > maxParts {
		parts = []func(*frame) string{l.str, r.str}
	}
	return &code{kind: event.String, cat: parts, str: func(f *frame) string {
		var views [maxParts]string
		for i, part := range parts {
			views[i] = part(f)
		}
		from := len(f.buf)
		for _, s := range views[:len(parts)] {
			f.buf = append(f.buf, s...)
		}
		return event.View(f.buf[from:])
	}}
}

func (c *code) parts() []func(*frame) string {
	if c.cat != nil {
		return c.cat
	}
	return []func(*frame) string{c.str}
}

// choose is ?: for branches of one kind, or of one kind and nil.
func choose(cond func(*frame) bool, a, b *code) *code {
	if a.none && !b.none {
		a = nothing(b.kind)
	}
	if b.none && !a.none {
		b = nothing(a.kind)
	}
	if cond == nil || a == nil || b == nil || a.kind != b.kind {
		return nil
	}
	c := &code{kind: a.kind}
	switch a.kind {
	case event.String:
		c.str = func(f *frame) string {
			if cond(f) {
				return a.str(f)
			}
			return b.str(f)
		}
	case event.Int:
		c.num = pick(cond, a.num, b.num)
	case event.Float:
		c.flt = pick(cond, a.flt, b.flt)
	case event.Bool:
		return boolFrom(pick(cond, a.either(), b.either()))
	case event.Time:
		c.inst = pick(cond, a.inst, b.inst)
	default:
		return nil
	}
	return c
}

func pick[T any](cond func(*frame) bool, a, b func(*frame) (T, bool)) func(*frame) (T, bool) {
	return func(f *frame) (T, bool) {
		if cond(f) {
			return a(f)
		}
		return b(f)
	}
}

// nothing is an absent value of a kind; nil for kinds that have none here.
func nothing(k event.Kind) *code {
	c := &code{kind: k}
	switch k {
	case event.String:
		c.str = func(*frame) string { return "" }
	case event.Int:
		c.num = absent[int64]
	case event.Float:
		c.flt = absent[float64]
	case event.Bool:
		return boolFrom(absent[bool])
	case event.Time:
		c.inst = absent[time.Time]
	default:
		return nil
	}
	return c
}

func absent[T any](*frame) (v T, ok bool) { return v, false }

// coalesce is ?? for operands of one kind.
func coalesce(l, r *code) *code {
	if l.none || r.none || l.kind != r.kind {
		return nil
	}
	c := &code{kind: l.kind}
	switch l.kind {
	case event.String:
		a, b := l.str, r.str
		c.str = func(f *frame) string {
			if s := a(f); s != "" {
				return s
			}
			return b(f)
		}
	case event.Int:
		c.num = first(l.num, r.num)
	case event.Float:
		c.flt = first(l.flt, r.flt)
	case event.Bool:
		return boolFrom(first(l.either(), r.either()))
	case event.Time:
		c.inst = first(l.inst, r.inst)
	default:
		return nil
	}
	return c
}

func first[T any](a, b func(*frame) (T, bool)) func(*frame) (T, bool) {
	return func(f *frame) (T, bool) {
		if v, ok := a(f); ok {
			return v, true
		}
		return b(f)
	}
}
