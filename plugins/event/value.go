package event

import (
	"math"
	"slices"
	"strconv"
	"time"
	"unsafe"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds of values that a field can hold.
const (
	Absent Kind = iota // no value: the zero Value
	String
	Int
	Float
	Bool
	Time
	List   // of strings
	Object // a JSON object
)

// String returns the kind's name as users read it.
func (k Kind) String() string {
	switch k {
	case String:
		return "string"
	case Int:
		return "int"
	case Float:
		return "float"
	case Bool:
		return "bool"
	case Time:
		return "time"
	case List:
		return "list"
	case Object:
		return "object"
	}
	return "absent"
}

// Field is a named value.
type Field struct {
	Key   string
	Value Value
}

// Value is the value of a field. The zero Value is absent. It is small, because values are passed around for every event; Equal
// compares, == does not.
type Value struct {
	_    [0]func()      // so that == does not compile
	at   unsafe.Pointer // first byte of a String or an Object, first string of a List, else nil
	num  int64          // how many there are; the number of other kinds
	kind Kind
}

func textValue(k Kind, s string) Value {
	return Value{kind: k, at: unsafe.Pointer(unsafe.StringData(s)), num: int64(len(s))}
}

// StringValue holds s; an empty string is absent.
func StringValue(s string) Value {
	if s == "" {
		return Value{}
	}
	return textValue(String, s)
}

// IntValue holds n.
func IntValue(n int64) Value { return Value{kind: Int, num: n} }

// FloatValue holds f; what JSON cannot say (NaN, infinities) is absent.
func FloatValue(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{kind: Float, num: int64(math.Float64bits(f))}
}

// BoolValue holds b.
func BoolValue(b bool) Value {
	v := Value{kind: Bool}
	if b {
		v.num = 1
	}
	return v
}

// TimeValue holds t in UTC; the zero time is absent.
func TimeValue(t time.Time) Value {
	if t.IsZero() {
		return Value{}
	}
	return Value{kind: Time, num: t.UnixNano()}
}

// ListValue holds the list, which the caller no longer changes; an empty one is absent.
func ListValue(l []string) Value {
	if len(l) == 0 {
		return Value{}
	}
	return Value{kind: List, at: unsafe.Pointer(unsafe.SliceData(l)), num: int64(len(l))}
}

// ObjectValue holds a JSON object as its text, which must be valid JSON; an empty text is absent.
func ObjectValue(text string) Value {
	if text == "" {
		return Value{}
	}
	return textValue(Object, text)
}

// Kind returns the value's type.
func (v Value) Kind() Kind { return v.kind }

// Str returns the text of a String or the JSON of an Object, else "".
func (v Value) Str() string {
	if v.kind != String && v.kind != Object {
		return ""
	}
	return unsafe.String((*byte)(v.at), v.num)
}

// Int returns the number of an Int, else 0.
func (v Value) Int() int64 {
	if v.kind == Int {
		return v.num
	}
	return 0
}

// Float returns the number of a Float or an Int, else 0.
func (v Value) Float() float64 {
	switch v.kind {
	case Float:
		return math.Float64frombits(uint64(v.num))
	case Int:
		return float64(v.num)
	}
	return 0
}

// Bool returns the truth of a Bool, else false.
func (v Value) Bool() bool { return v.kind == Bool && v.num != 0 }

// Time returns the instant of a Time in UTC, else the zero time.
func (v Value) Time() time.Time {
	if v.kind != Time {
		return time.Time{}
	}
	return time.Unix(0, v.num).UTC()
}

// List returns the strings of a List, else nil. The caller does not change them.
func (v Value) List() []string {
	if v.kind != List {
		return nil
	}
	return unsafe.Slice((*string)(v.at), v.num)
}

// Text renders the value for people and for templates: the string itself, numbers in decimal, times in RFC 3339, lists and
// objects as JSON.
func (v Value) Text() string {
	switch v.kind {
	case String, Object:
		return v.Str()
	case Int:
		return strconv.FormatInt(v.num, 10)
	case Float:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case Bool:
		return strconv.FormatBool(v.num != 0)
	}
	if v.kind == Absent {
		return ""
	}
	b := AppendValue(nil, v)
	if v.kind == Time {
		return string(b[1 : len(b)-1])
	}
	return string(b)
}

// Equal reports whether both hold the same value of the same kind.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.num == w.num && v.Str() == w.Str() && slices.Equal(v.List(), w.List())
}
