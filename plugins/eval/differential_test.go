package eval

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// testNames are the extra fields that the generated expressions know.
func testNames() Names {
	return Names{
		"zone": event.String, "tries_int": event.Int, "load_num": event.Float, "slow_bool": event.Bool,
		"seen_date": event.Time, "loose": event.Absent,
	}
}

// maker makes well-typed expressions and events from a source of chance.
type maker struct{ pick func(n int) int }

func seeded(seed uint64) *maker {
	r := rand.New(rand.NewPCG(seed, 1))
	return &maker{r.IntN}
}

// fromBytes takes its choices from data and, after its end, always the first.
func fromBytes(data []byte) *maker {
	return &maker{func(n int) int {
		if len(data) == 0 {
			return 0
		}
		v := int(data[0])
		data = data[1:]
		return v % n
	}}
}

func (m *maker) of(options ...string) string { return options[m.pick(len(options))] }

func (m *maker) boolean(depth int) string {
	if depth <= 0 {
		return m.of("true", "false", "slow_bool", "identity_unverified_bool", "truncated_bool", "has(user)", `has("zone")`,
			`has("nowhere")`, "has(loose)", "has(api_response_size_int)", "has(timestamp)", "has(tags)", "has(event_id)",
			"api_response_size_includes_headers_bool", "event_id_synthetic_bool")
	}
	d := depth - 1
	switch m.pick(22) {
	case 0:
		return fmt.Sprintf("(%s %s %s)", m.boolean(d), m.of("&&", "and", "||", "or"), m.boolean(d))
	case 1:
		return fmt.Sprintf("%s(%s)", m.of("!", "not "), m.boolean(d))
	case 2, 3:
		return fmt.Sprintf("(%s %s %s)", m.integer(d), m.comparison(), m.integer(d))
	case 4:
		return fmt.Sprintf("(%s %s %s)", m.float(d), m.comparison(), m.float(d))
	case 5:
		return fmt.Sprintf("(%s %s %s)", m.float(d), m.comparison(), m.integer(d))
	case 6:
		return fmt.Sprintf("(%s %s %s)", m.integer(d), m.comparison(), m.float(d))
	case 7, 8:
		return fmt.Sprintf("(%s %s %s)", m.text(d), m.comparison(), m.text(d))
	case 9:
		return fmt.Sprintf("(%s %s %s)", m.boolean(d), m.of("==", "!="), m.boolean(d))
	case 10:
		return fmt.Sprintf("(%s %s %s)", m.instant(), m.comparison(), m.instant())
	case 11:
		return fmt.Sprintf("(%s %s [%s, %s, %s])", m.text(d), m.of("in", "not in"), m.textLit(), m.textLit(), m.textLit())
	case 12:
		return fmt.Sprintf("(%s %s [%s, %s])", m.integer(d), m.of("in", "not in"), m.intLit(), m.intLit())
	case 13:
		return fmt.Sprintf("(%s %s [%s, %s])", m.float(d), m.of("in", "not in"), m.floatLit(), m.floatLit())
	case 14:
		lo := m.pick(600)
		return fmt.Sprintf("(%s %s %d..%d)", m.number(d), m.of("in", "not in"), lo, lo+m.pick(200)-20)
	case 15, 16:
		return fmt.Sprintf("(%s %s %s)", m.text(d), m.of("startsWith", "endsWith", "contains", "not contains"), m.text(d))
	case 17:
		return fmt.Sprintf("(%s matches %s)", m.anyText(d), m.of(`"^/v2"`, `"a|b"`, `"^$"`, `"[0-9]+"`, `"(?i)GET"`))
	case 18:
		return fmt.Sprintf("(%s ? %s : %s)", m.boolean(d), m.boolean(d), m.of(m.boolean(d), "nil"))
	case 19:
		return fmt.Sprintf("(%s ?? %s)", m.boolean(d), m.boolean(d))
	case 20:
		return fmt.Sprintf("(%s in %s)", m.text(d), m.of("tags", "suspect", "roles"))
	}
	// A value without a type beside one with a type.
	switch m.pick(6) {
	case 0:
		return fmt.Sprintf("(%s %s %s)", m.loose(), m.comparison(), m.text(d))
	case 1:
		return fmt.Sprintf("(%s %s %s)", m.integer(d), m.comparison(), m.loose())
	case 2:
		return fmt.Sprintf("(%s %s %s)", m.loose(), m.comparison(), m.float(d))
	case 3:
		return fmt.Sprintf("(%s %s %s)", m.loose(), m.of("==", "!="), m.boolean(d))
	case 4:
		return fmt.Sprintf("(%s %s [%s, %s])", m.loose(), m.of("in", "not in"), m.of("1", "0"), m.of("2", "-1"))
	}
	return fmt.Sprintf("(%s %s [%s, %s])", m.loose(), m.of("in", "not in"), m.textLit(), m.textLit())
}

func (m *maker) comparison() string { return m.of("==", "!=", "<", "<=", ">", ">=") }

func (m *maker) loose() string {
	return m.of("loose", `field("loose")`, `field("other")`, `field("zone2")`, "attributes.k", `attributes["s"]`, "attributes?.n",
		`attributes["ü"]`, `metadata["none"]`)
}

func (m *maker) anyText(depth int) string {
	if m.pick(5) == 0 {
		return m.loose()
	}
	return m.text(depth)
}

func (m *maker) instant() string { return m.of("timestamp", "now()", "seen_date", "observed_date") }

func (m *maker) number(depth int) string {
	if m.pick(2) == 0 {
		return m.integer(depth)
	}
	return m.float(depth)
}

func (m *maker) intLit() string {
	return m.of("0", "1", "-1", "2", "200", "404", "500", "-7", "9223372036854775807", "9007199254740993", "0x10", "1_000")
}

func (m *maker) integer(depth int) string {
	if depth <= 0 || m.pick(3) == 0 {
		return m.of(m.intLit(), "api_response_code_int", "api_response_size_int", "process_id_int", "level", "log_offset_int",
			"tries_int", "request_body_size_int")
	}
	d := depth - 1
	switch m.pick(7) {
	case 0:
		return fmt.Sprintf("(%s ? %s : %s)", m.boolean(d), m.integer(d), m.of(m.integer(d), "nil"))
	case 1:
		return fmt.Sprintf("(%s ?? %s)", m.integer(d), m.integer(d))
	case 2:
		return fmt.Sprintf("%s(%s)", m.of("-", "+"), m.integer(d))
	}
	return fmt.Sprintf("(%s %s %s)", m.integer(d), m.of("+", "-", "*", "%"), m.integer(d))
}

func (m *maker) floatLit() string {
	return m.of("0.0", "1.5", "-2.25", "1e308", "9007199254740992.0", "0.1", "404.0", "5e-324")
}

func (m *maker) float(depth int) string {
	if depth <= 0 || m.pick(3) == 0 {
		return m.of(m.floatLit(), "api_response_time_num", "load_num")
	}
	d := depth - 1
	switch m.pick(8) {
	case 0:
		return fmt.Sprintf("(%s ? %s : %s)", m.boolean(d), m.float(d), m.of(m.float(d), "nil"))
	case 1:
		return fmt.Sprintf("(%s ?? %s)", m.float(d), m.float(d))
	case 2:
		return fmt.Sprintf("%s(%s)", m.of("-", "+"), m.float(d))
	case 3:
		return fmt.Sprintf("(%s / %s)", m.number(d), m.number(d))
	case 4:
		return fmt.Sprintf("(%s %s %s)", m.integer(d), m.of("+", "-", "*"), m.float(d))
	}
	return fmt.Sprintf("(%s %s %s)", m.float(d), m.of("+", "-", "*", "/"), m.number(d))
}

func (m *maker) textLit() string {
	return m.of(`""`, `"a"`, `"GET"`, `"/v2.1/servers"`, `"/v2"`, `"nova"`, `"ü\x00"`, `'say "hi"'`)
}

func (m *maker) text(depth int) string {
	if depth <= 0 || m.pick(3) == 0 {
		return m.of(m.textLit(), "path", "method", "user", "service", "zone", "original", "route", "schema_version", "event_id",
			"log_file", `field("path")`, `field("zone")`)
	}
	d := depth - 1
	switch m.pick(5) {
	case 0:
		return fmt.Sprintf("(%s ? %s : %s)", m.boolean(d), m.text(d), m.of(m.text(d), "nil"))
	case 1:
		return fmt.Sprintf("(%s ?? %s)", m.text(d), m.text(d))
	}
	return fmt.Sprintf("(%s + %s)", m.text(d), m.text(d))
}

func (m *maker) expression(depth int) string {
	switch m.pick(8) {
	case 0:
		return m.text(depth)
	case 1:
		return m.integer(depth)
	case 2:
		return m.float(depth)
	case 3:
		return m.of(m.instant(), m.loose(), "tags", fmt.Sprintf("(%s ? %s : %s)", m.boolean(depth), m.instant(), m.instant()))
	}
	return m.boolean(depth)
}

func (m *maker) value(k event.Kind) event.Value {
	switch k {
	case event.String:
		return event.StringValue(m.of("a", "b", "nova", "GET", "/v2.1/servers", "x\x00y", "ü", "\xff", `say "hi"`))
	case event.Int:
		n := [...]int64{0, 1, -1, 2, 200, 404, 499, 500, 503, math.MaxInt64, math.MinInt64, 1<<53 + 1, 7}
		return event.IntValue(n[m.pick(len(n))])
	case event.Float:
		f := [...]float64{0, 1.5, -2.25, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 404, 404.5, math.Copysign(0, -1)}
		return event.FloatValue(f[m.pick(len(f))])
	case event.Bool:
		return event.BoolValue(m.pick(2) == 0)
	case event.Time:
		t := [...]int64{1, 1700000000, 1700000001, -1, 4102444800}
		return event.TimeValue(time.Unix(t[m.pick(len(t))], int64(m.pick(2))))
	case event.List:
		return event.ListValue([]string{m.of("a", "b"), m.of("nova", "GET")})
	}
	return event.ObjectValue(m.of(`{"k":1}`, `{"k":"a","l":[1,2.5,null]}`, `{"k":true,"s":"","n":null}`, `{}`,
		`{ "k" : {"s":"}"} , "s" : "a\u0062\"" , "n":-0 }`, `{"k":[1,"k"],"n":1e400,"\u00fc":2.50,"s":"b","s":"nova"}`,
		`{"k":1e2,"n":123456789012345678901,"ü":"ü","s":"\ud800"}`, "{\"k\":\"\xff\",\"n\":503}"))
}

// event makes an event in which each field that the expressions use is there or not.
func (m *maker) event(present func() bool) *event.Event {
	b := event.NewBatch("s")
	if present() {
		b.ReadAt = time.Unix(1700000000, 0)
	}
	e := b.Append()
	for _, name := range []string{
		"path", "method", "user", "service", "original", "route", "log_file", "api_response_code_int",
		"api_response_size_int", "process_id_int", "level", "request_body_size_int", "api_response_time_num", "tags", "suspect",
		"roles", "attributes", "timestamp", "observed_date", "identity_unverified_bool", "truncated_bool", "event_id_synthetic_bool",
		"api_response_size_includes_headers_bool",
	} {
		if f := schema.Lookup(name); present() {
			f.Set(e, m.value(f.Type)) // what does not fit stays absent
		}
	}
	if present() {
		e.Has |= event.HasLogOffset
		e.Offset = m.value(event.Int).Int()
	}
	if present() {
		e.Duration, e.Has = time.Duration(m.value(event.Int).Int()), e.Has|event.HasDuration
	}
	kinds := [...]event.Kind{event.String, event.Int, event.Float, event.Bool, event.Time, event.List, event.Object}
	for _, name := range []string{"zone", "tries_int", "load_num", "slow_bool", "seen_date", "loose", "other"} {
		if !present() {
			continue
		}
		k, declared := testNames()[name]
		if !declared || k == event.Absent || m.pick(10) == 0 {
			k = kinds[m.pick(len(kinds))] // also of another type than was declared
		}
		e.Set(name, m.value(k))
	}
	return e
}

// both compiles an expression for both evaluators. closures is nil when it is none of theirs.
func both(t testing.TB, src string) (closures func(*event.Event) (event.Value, error), virtual *machine) {
	t.Helper()
	u, err := analyse(src, testNames())
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	if n := u.native(); n != nil {
		if v := (&Value{u: u, val: n.value()}); v.val != nil {
			closures = v.Eval
		}
	}
	if err := u.virtual(&virtual); err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return closures, virtual
}

func sameValue(a, b event.Value) bool {
	if a.Kind() == event.Object && b.Kind() == event.Object {
		x, err1 := object(a.Str())
		y, err2 := object(b.Str())
		return err1 == nil && err2 == nil && fmt.Sprint(x) == fmt.Sprint(y)
	}
	if a.Kind() == event.Float && b.Kind() == event.Float {
		return math.Float64bits(a.Float()) == math.Float64bits(b.Float())
	}
	return a.Equal(b)
}

// differ says how the evaluators differ for the events; "" when they agree.
func differ(closures func(*event.Event) (event.Value, error), virtual *machine, e *event.Event) string {
	got, gotErr := closures(e)
	var want event.Value
	x, wantErr := virtual.run(e)
	if wantErr == nil {
		want, wantErr = fromAny(e, x)
	}
	if (gotErr == nil) != (wantErr == nil) || gotErr == nil && !sameValue(got, want) {
		return fmt.Sprintf("closures: %s %q, %v; machine: %s %q, %v", got.Kind(), got.Text(), gotErr, want.Kind(), want.Text(), wantErr)
	}
	return ""
}

func describe(e *event.Event) string {
	return fmt.Sprintf("%+v", *e)
}

func TestClosuresAndMachineAgree(t *testing.T) {
	const cases, events = 20000, 4
	native := 0
	for seed := range uint64(cases) {
		m := seeded(seed)
		src := m.expression(1 + m.pick(4))
		closures, virtual := both(t, src)
		if closures == nil {
			continue
		}
		native++
		for range events {
			e := m.event(func() bool { return m.pick(3) > 0 })
			if d := differ(closures, virtual, e); d != "" {
				t.Fatalf("seed %d: %s\n%s\n%s", seed, src, d, describe(e))
			}
		}
	}
	if native < cases*8/10 {
		t.Errorf("only %d of %d generated expressions became closures", native, cases)
	}
}

func FuzzDifferential(f *testing.F) {
	for seed := range byte(8) {
		b := make([]byte, 200)
		for i := range b {
			b[i] = byte(i*7) ^ (seed * 31)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := fromBytes(data)
		src := m.expression(1 + m.pick(5))
		if len(src) > 4000 {
			return
		}
		closures, virtual := both(t, src)
		if closures == nil {
			return
		}
		for range 2 {
			e := m.event(func() bool { return m.pick(3) > 0 })
			if d := differ(closures, virtual, e); d != "" {
				t.Fatalf("%s\n%s\n%s", src, d, describe(e))
			}
		}
	})
}

// Whatever stands in a configuration: an error or a result, never a panic.
func FuzzAnyText(f *testing.F) {
	for _, src := range []string{
		`path == "/v2" && (user ?? "x") in ["a"]`, `filter(tags, # != "a") | map(upper(#)) | join(",")`, "let x = 1; x + 1", "a ?: b",
		`{"a": 1}.a`, `attributes?.n["x"][1:2]`, "now().Hour() > 3 ? nil : 1..3", `if true {1} else {2}`, "#", "$env", "sum([1,2], #)",
		`groupBy(tags, len(#))`, `reduce([1, 2], #acc + #, 0)`, `date("x") - now()`, "has(has)", "field(now())", "::len(path)", "nil ?? nil",
	} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		e := seeded(1).event(func() bool { return true })
		if v, err := CompileValue(src, testNames()); err == nil {
			_, _ = v.Eval(e)
			_, _ = v.Eval(&event.Event{})
		}
		if c, err := CompileCondition(src, testNames()); err == nil {
			_, _ = c.Eval(e)
			_, _ = c.Clone().Eval(&event.Event{})
		}
	})
}

// Where nothing is absent, the language is expr-lang's own.
func TestMachineIsPlainExprWhereNothingIsAbsent(t *testing.T) {
	compared := 0
	for seed := range uint64(6000) {
		m := seeded(seed)
		src := m.expression(1 + m.pick(4))
		if strings.ContainsAny(src, "/%") || strings.Contains(src, "nil") || strings.Contains(src, "??") ||
			strings.Contains(src, "has(") || strings.Contains(src, "loose") || strings.Contains(src, "attributes") ||
			strings.Contains(src, "metadata") || strings.Contains(src, "field(") || strings.Contains(src, "now()") {
			continue // where expr-lang differs by design, or lacks the function
		}
		_, virtual := both(t, src)
		e := m.event(func() bool { return true })
		env := map[string]any{}
		complete := true
		for _, r := range virtual.refs {
			x, err := toAny(r.kind, r.get(e))
			if err != nil {
				t.Fatal(err)
			}
			complete = complete && x != nil && x != ""
			env[r.key] = x
		}
		if !complete {
			continue
		}
		p, err := expr.Compile(src, expr.Env(env))
		if err != nil {
			t.Fatalf("%s: %v", src, err)
		}
		want, wantErr := expr.Run(p, env)
		got, gotErr := virtual.run(e)
		if (wantErr == nil) != (gotErr == nil) || wantErr == nil && fmt.Sprint(want) != fmt.Sprint(got) {
			t.Fatalf("seed %d: %s\nplain: %v, %v; machine: %v, %v\n%s", seed, src, want, wantErr, got, gotErr, describe(e))
		}
		compared++
	}
	if compared < 1000 {
		t.Errorf("only %d expressions could be compared", compared)
	}
}

func TestEveryFieldReadsAlikeInBothEvaluators(t *testing.T) {
	m := seeded(1)
	for i := range schema.Fields() {
		f := &schema.Fields()[i]
		for _, src := range []string{f.Name, "has(" + f.Name + ")", "field(" + strconv.Quote(f.Name) + ")"} {
			closures, virtual := both(t, src)
			if closures == nil {
				t.Errorf("%s is not native", src)
				continue
			}
			e := event.NewBatch("s").Append()
			if d := differ(closures, virtual, e); d != "" {
				t.Errorf("%s, absent: %s", src, d)
			}
			if f.Settable() && !f.Set(e, m.value(f.Type)) {
				if !f.Set(e, event.IntValue(3)) {
					t.Fatalf("%s cannot be set", f.Name)
				}
			}
			e.Offset, e.Has = 77, e.Has|event.HasLogOffset
			if d := differ(closures, virtual, e); d != "" {
				t.Errorf("%s: %s", src, d)
			}
			if v, err := closures(e); err != nil || src == f.Name && !v.Equal(f.Get(e)) {
				t.Errorf("%s = %q, %v; the schema says %q", src, v.Text(), err, f.Get(e).Text())
			}
		}
	}
}
