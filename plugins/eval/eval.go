package eval

import (
	"errors"
	"math"
	"unsafe"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Names are the extra fields that an expression may use by name beside the schema's, with their kinds; event.Absent for a kind
// that is not known.
type Names map[string]event.Kind

// frame is what one evaluation works on. It belongs to one Condition or Value.
type frame struct {
	e   *event.Event
	err error  // the first failure
	buf []byte // strings put together; views into it are valid during one evaluation
}

func (f *frame) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// begin readies the frame for an event.
func (f *frame) begin(e *event.Event) {
	f.e = e
	if len(f.buf) > 0 {
		f.buf = f.buf[:0]
	}
}

// end returns the failure of the evaluation, if any.
func (f *frame) end() error {
	err := f.err
	f.err = nil
	return err
}

// Failures that both evaluators know.
var (
	errZero    = errors.New("dividing by zero")
	errEndless = errors.New("the result is not a finite number")
)

// Condition is a compiled expression that is true or false. One instance serves one goroutine: see Clone.
type Condition struct {
	u     *unit
	yes   func(*frame) bool // nil when the machine runs it
	m     *machine
	frame frame
}

// CompileCondition compiles an expression that must be a bool. The error is an *Error.
func CompileCondition(src string, extra Names) (*Condition, error) {
	u, err := analyse(src, extra)
	if err != nil {
		return nil, err
	}
	if k := u.kind; k != event.Bool && !u.unknown {
		return nil, errorAt(src, u.place, "a condition is true or false, this is "+article(k))
	}
	c := &Condition{u: u}
	if n := u.native(); n != nil {
		if c.yes = n.condition(); c.yes != nil {
			return c, nil
		}
	}
	return c, u.virtual(&c.m)
}

// Clone returns another instance of the condition, for another goroutine.
func (c *Condition) Clone() *Condition { return &Condition{u: c.u, yes: c.yes, m: c.m.clone()} }

// Native reports whether the whole expression became closures.
func (c *Condition) Native() bool { return c.yes != nil }

// String returns the expression as it was written.
func (c *Condition) String() string { return c.u.src }

// Eval evaluates the condition for e. An absent result is false. After an error, which says why this event could not be judged,
// the result means nothing: the caller decides what a failed condition does, and counts it. Eval keeps nothing of e that it
// would look at later.
func (c *Condition) Eval(e *event.Event) (bool, error) {
	if c.yes == nil {
		v, err := c.m.run(e)
		if err != nil {
			return false, err
		}
		return condition(v)
	}
	c.frame.begin(e)
	v := c.yes(&c.frame)
	if c.frame.err != nil {
		return false, c.frame.end()
	}
	return v, nil
}

// Value is a compiled expression of any type. One instance serves one goroutine: see Clone.
type Value struct {
	u     *unit
	val   func(*frame) event.Value
	m     *machine
	frame frame
}

// CompileValue compiles an expression whose result a field can hold. The error is an *Error.
func CompileValue(src string, extra Names) (*Value, error) {
	u, err := analyse(src, extra)
	if err != nil {
		return nil, err
	}
	v := &Value{u: u}
	if n := u.native(); n != nil {
		if v.val = n.value(); v.val != nil {
			return v, nil
		}
	}
	return v, u.virtual(&v.m)
}

// Clone returns another instance of the value, for another goroutine.
func (v *Value) Clone() *Value { return &Value{u: v.u, val: v.val, m: v.m.clone()} }

// Native reports whether the whole expression became closures.
func (v *Value) Native() bool { return v.val != nil }

// Constant returns the value of an expression that is a single literal; ok is false for any other.
func (v *Value) Constant() (c event.Value, ok bool) { return v.u.literal() }

// String returns the expression as it was written.
func (v *Value) String() string { return v.u.src }

// Kind returns the kind of the result where it is known before there is an event, else event.Absent. A duration is a float, in
// seconds.
func (v *Value) Kind() event.Kind { return v.u.kind }

// Eval evaluates the expression for e. An absent result removes the field that is set. Strings of the result live as long as
// e's batch: they are constants, fields of e, or copies in the batch's arena; without a batch, on the heap.
func (v *Value) Eval(e *event.Event) (event.Value, error) {
	if v.val == nil {
		x, err := v.m.run(e)
		if err != nil {
			return event.Value{}, err
		}
		return fromAny(e, x)
	}
	f := &v.frame
	f.begin(e)
	out := v.val(f)
	if f.err != nil {
		return event.Value{}, f.end()
	}
	if out.Kind() == event.String && f.owns(out.Str()) {
		return event.StringValue(keep(e, out.Str())), nil
	}
	return out, nil
}

// owns reports whether s is a view into the buffer, which the next evaluation overwrites.
func (f *frame) owns(s string) bool {
	if len(s) == 0 || len(f.buf) == 0 {
		return false
	}
	at := uintptr(unsafe.Pointer(unsafe.StringData(s)))
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(f.buf)))
	return at >= lo && at < lo+uintptr(len(f.buf))
}

// keep copies s to where it lives as long as e's batch.
func keep(e *event.Event, s string) string {
	if b := e.Batch(); b != nil {
		return b.Arena().CopyString(s)
	}
	return string(append([]byte(nil), s...))
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func article(k event.Kind) string {
	switch k {
	case event.Int, event.Object:
		return "an " + k.String()
	case event.Absent:
		return "nil"
	}
	return "a " + k.String()
}
