package schema

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func TestTableIsWhole(t *testing.T) {
	t.Parallel()
	names, ecs, otel := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, f := range Fields() {
		if f.Number != i+1 {
			t.Errorf("%s has number %d in place %d", f.Name, f.Number, i+1)
		}
		for set, name := range map[*map[string]bool]string{&names: f.Name, &ecs: f.ECS, &otel: f.OTel} {
			if name == "" || (*set)[name] {
				t.Errorf("%s: the name %q is empty or taken", f.Name, name)
			}
			(*set)[name] = true
		}
		if f.Doc == "" || f.Type == event.Absent {
			t.Errorf("%s lacks its meaning or type", f.Name)
		}
	}
	if len(Fields()) != 80 {
		t.Errorf("%d fields, want 80", len(Fields()))
	}
}

func sampleValue(k event.Kind) event.Value {
	switch k {
	case event.Int:
		return event.IntValue(7)
	case event.Float:
		return event.FloatValue(0.25)
	case event.Bool:
		return event.BoolValue(true)
	case event.Time:
		return event.TimeValue(time.Unix(1795231776, 543578000))
	case event.List:
		return event.ListValue([]string{"a", `b"`})
	case event.Object:
		return event.ObjectValue(`{"k":1}`)
	}
	return event.StringValue("text \"quoted\" \\ é \x01 \xff")
}

func TestEveryFieldIsSetReadUnsetAndEncoded(t *testing.T) {
	t.Parallel()
	enc := NewEncoder(EncodeOptions{EventID: true})
	for _, f := range Fields() {
		e := event.NewBatch("s").Append()
		if !f.Settable() {
			if f.Set(e, sampleValue(f.Type)) {
				t.Errorf("%s can be set", f.Name)
			}
			continue
		}
		want := sampleValue(f.Type)
		if !f.Set(e, want) || !f.Get(e).Equal(want) || !Get(e, f.Name).Equal(want) {
			t.Errorf("%s: set %v, got %v", f.Name, want.Text(), f.Get(e).Text())
		}
		var m map[string]any
		if err := json.Unmarshal(enc.Append(nil, e), &m); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		var v any
		if err := json.Unmarshal(event.AppendValue(nil, want), &v); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(m[f.Name], v) || len(m) != 3 { // schema_version, event_id and the field
			t.Errorf("%s is encoded as %v in %v", f.Name, m[f.Name], m)
		}
		for _, k := range []event.Kind{event.String, event.Int, event.Bool, event.Time, event.List, event.Object} {
			if k != f.Type && (k != event.Int || f.Type != event.Float) && f.Set(e, sampleValue(k)) {
				t.Errorf("%s takes a %s", f.Name, k)
			}
		}
		if !f.Set(e, event.Value{}) || f.Get(e).Kind() != event.Absent {
			t.Errorf("%s cannot be removed", f.Name)
		}
	}
}

// TestCachedCleanAndPlainEncodingsAreTheSame holds the shortcuts of the encoder against the long way: views of the block of any length,
// up to its very end, constants that it remembers from other events, and memory that is used again under another content.
func TestCachedCleanAndPlainEncodingsAreTheSame(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	enc := NewEncoder(EncodeOptions{Newline: true})
	var constants []string
	for n := 1; n < 100; n++ {
		constants = append(constants, strings.Repeat("c", n))
	}
	constants = append(constants, `from the "heap"`, "é", "a\nb")
	pool := event.NewPool(1 << 20)
	var used Scratch
	for range 5000 {
		b := event.NewBatch("s")
		if r.IntN(2) == 0 {
			var err error
			if b, err = pool.Get(t.Context(), 1<<10); err != nil {
				t.Fatal(err)
			}
		}
		text := make([]byte, 300)
		for i := range text {
			text[i] = byte(' ' + r.IntN(95))
			if text[i] == '"' {
				text[i] = '_'
			}
		}
		if r.IntN(2) == 0 {
			text[r.IntN(len(text))] = []byte{0xff, '\\', 0x01}[r.IntN(3)]
		}
		block := b.Arena().Block(len(text))
		copy(block, text)
		b.Clean = event.IsClean(block)
		e := b.Append()
		for i := range table {
			f := &table[i]
			p := f.Text(e)
			switch {
			case p == nil:
			case r.IntN(3) == 0:
				at := r.IntN(len(text))
				*p = event.View(block[at:min(len(text), at+1+r.IntN(1<<r.IntN(8)))])
			case r.IntN(2) == 0:
				*p = constants[r.IntN(len(constants))]
			}
		}
		e.SetDuration(time.Duration(r.Int64N(1e10)))
		var fresh Scratch
		long := string(enc.Encode(nil, e, &fresh))
		if got := string(enc.Encode(nil, e, &used)); got != long {
			t.Fatalf("what is remembered gives\n%s\nthe long way\n%s", got, long)
		}
		e.Plain = true
		if got := string(enc.Encode(nil, e, &used)); got != long {
			t.Fatalf("the short cut gives\n%s\nthe long way\n%s", got, long)
		}
		b.Encode(enc, nil, func(dst []byte, e *event.Event) []byte { return enc.Encode(dst, e, &used) })
		if got := string(enc.Append(nil, e)); got != long {
			t.Fatalf("the cache gives\n%s\nnot\n%s", got, long)
		}
		if !json.Valid([]byte(long)) {
			t.Fatalf("no JSON: %s", long)
		}
		if b.Charged() > 0 {
			b.Release()
		}
	}
}

func TestNumbersAreWrittenInDecimal(t *testing.T) {
	t.Parallel()
	enc := NewEncoder(EncodeOptions{})
	var s Scratch
	for _, base := range []int64{0, 10, 100, 1000, 10000, 100000, 1e6, 12345678, 1e7, 90807060, 1e8, 1e9, 1 << 31, 1 << 62, -1, -1 << 63} {
		for d := int64(-3); d <= 3; d++ {
			v := base + d
			e := event.NewBatch("s").Append()
			e.SetLevel(int32(v))
			e.SetStatus(int32(v))
			e.SetSize(v)
			e.SetProcessID(v)
			e.Offset, e.Has = v, e.Has|event.HasLogOffset
			want := fmt.Sprintf(`{"schema_version":"1","level":%d,"api_response_code_int":%d,"api_response_size_int":%d,"process_id_int":%d,"log_offset_int":%d}`,
				int32(v), int32(v), v, v, v)
			if got := string(enc.Encode(nil, e, &s)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	}
}

func TestBoolsAreWritten(t *testing.T) {
	t.Parallel()
	e := event.NewBatch("s").Append()
	e.SetBool(event.BoolTruncated, true)
	e.SetBool(event.BoolIdentityUnverified, false)
	var s Scratch
	const want = `{"schema_version":"1","identity_unverified_bool":false,"truncated_bool":true}`
	if got := string(NewEncoder(EncodeOptions{}).Encode(nil, e, &s)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	enc := NewEncoder(EncodeOptions{Newline: true})
	e := sampleEvent()
	buf := make([]byte, 0, 4096)
	var s Scratch
	if n := testing.AllocsPerRun(100, func() { buf = enc.Encode(buf[:0], e, &s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func sampleEvent() *event.Event {
	b := event.NewBatch("s")
	line := []byte("GET /v2.1/servers 192.0.2.7 req-f4e1ea9e-7b52-4821-9f29-63fd58bf2799 0c32fec09490474ba83958da17e4a8a6 HTTP/1.1")
	block := b.Arena().Block(len(line))
	copy(block, line)
	b.Clean = true
	e := b.Append()
	e.Plain = true
	e.Time = time.Unix(1795231776, 543000000)
	e.Method, e.Path, e.Client, e.RequestID = event.View(block[:3]), event.View(block[4:17]), event.View(block[18:27]), event.View(block[28:68])
	e.UserID = event.View(block[69:101])
	e.User, e.HTTPVersion = e.UserID, event.View(block[102:])
	e.SourceSystem, e.Kind, e.RecordClass, e.Service, e.Program = "openstack", "compute-api", event.ClassAccess, "nova", "nova-api"
	e.Format, e.TimestampBasis, e.Outcome, e.Logger = "nova-eventlet", "end", "success", "nova.osapi_compute.wsgi.server"
	e.SetStatus(200)
	e.SetSize(408)
	e.SetDuration(72535 * time.Microsecond)
	e.SetProcessID(406)
	return e
}

func BenchmarkEncode(b *testing.B) {
	enc := NewEncoder(EncodeOptions{Newline: true})
	e := sampleEvent()
	var s Scratch
	buf := enc.Encode(make([]byte, 0, 4096), e, &s)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = enc.Encode(buf[:0], e, &s)
	}
}
