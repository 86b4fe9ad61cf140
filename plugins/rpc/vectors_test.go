package rpc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// vector is a test vector as FRAME.md describes it.
type vector struct {
	About    string          `json:"about"`
	Error    string          `json:"error,omitempty"`
	Reader   string          `json:"reader,omitempty"`
	Request  string          `json:"request,omitempty"`
	Kind     string          `json:"kind,omitempty"`
	Instance uint32          `json:"instance,omitempty"`
	Sequence string          `json:"sequence,omitempty"`
	Count    int             `json:"count,omitempty"`
	Columns  []vectorColumn  `json:"columns,omitempty"`
	Notes    json.RawMessage `json:"notes,omitempty"`
	Failures []vectorFailure `json:"failures,omitempty"`
	IDs      []string        `json:"ids,omitempty"`
	Bytes    string          `json:"bytes,omitempty"`

	frame []byte // of vectors that are no plain encoding of their meaning
}

type vectorColumn struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Values []any  `json:"values"`
}

type vectorFailure struct {
	Index   int    `json:"index"`
	Class   int    `json:"class"`
	AfterMS int    `json:"after_ms"`
	Reason  string `json:"reason"`
}

func kinds() map[string]byte {
	return map[string]byte{"batch": kindBatch, "patch": kindPatch, "verdict": kindVerdict}
}

func typeByName(t *testing.T, name string) event.Kind {
	for k := event.String; k <= kindBytes; k++ {
		if typeName(k) == name {
			return k
		}
	}
	t.Fatalf("unknown type %q", name)
	return 0
}

// encode lays a vector's meaning out.
func (v *vector) encode(t *testing.T) []byte {
	t.Helper()
	seq, err := strconv.ParseUint(v.Sequence, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var w writer
	var notes bytes.Buffer
	if v.Notes != nil {
		if err := json.Compact(&notes, v.Notes); err != nil {
			t.Fatal(err)
		}
	}
	w.begin(header{kind: kinds()[v.Kind], instance: v.Instance, sequence: seq, count: v.Count}, notes.Bytes())
	for _, c := range v.Columns {
		w.vectorColumn(t, c, v.Kind == "patch")
	}
	for _, f := range v.Failures {
		w.fail(failure{f.Index, byte(f.Class), uint32(f.AfterMS), f.Reason})
	}
	return slices.Clone(w.end())
}

func (w *writer) vectorColumn(t *testing.T, c vectorColumn, keep bool) {
	t.Helper()
	typ := typeByName(t, c.Type)
	clear(w.has)
	clear(w.texts)
	w.lists = make([][]string, w.count)
	if len(c.Values) != w.count {
		t.Fatalf("%s has %d values for %d events", c.Name, len(c.Values), w.count)
	}
	for i, v := range c.Values {
		if v == nil {
			continue
		}
		switch typ {
		case event.Int, event.Time:
			n, err := strconv.ParseInt(v.(string), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			w.setNum(i, n)
		case event.Float:
			w.setNum(i, floatBits(floatOf(t, v)))
		case event.Bool:
			w.setNum(i, 0)
			if v.(bool) {
				w.nums[i] = 1
			}
		case event.List:
			for _, x := range v.([]any) {
				w.lists[i] = append(w.lists[i], textOf(x))
			}
		default:
			w.texts[i] = textOf(v)
		}
	}
	switch typ {
	case event.List:
		w.addLists(c.Name, keep)
	case event.String, event.Object, kindBytes:
		w.addTexts(c.Name, typ, keep)
	default:
		w.addNums(c.Name, typ, keep)
	}
}

// floatOf returns the float that JSON has.
func floatOf(t *testing.T, v any) float64 {
	t.Helper()
	if n, ok := v.(json.Number); ok {
		f, err := n.Float64()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	return v.(float64)
}

// minusZero is -0.0 as any reader of JSON takes it for a float with a sign. Go would write -0, which is an int elsewhere.
const minusZero = json.Number("-0.0")

func textOf(v any) string {
	if m, ok := v.(map[string]any); ok {
		b, err := hex.DecodeString(m["hex"].(string))
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	return v.(string)
}

func jsonText(b []byte, asBytes bool) any {
	if asBytes || !utf8.Valid(b) {
		return map[string]any{"hex": hex.EncodeToString(b)}
	}
	return string(b)
}

// meaning reads a frame into what a vector says.
func meaning(f *frame) vector {
	v := vector{Instance: f.instance, Sequence: strconv.FormatUint(f.sequence, 10), Count: f.count, Notes: f.notes}
	for name, k := range kinds() {
		if k == f.kind {
			v.Kind = name
		}
	}
	for i := range f.columns {
		c := &f.columns[i]
		x := vectorColumn{Name: strings.Clone(c.name), Type: typeName(c.typ), Values: make([]any, f.count)}
		for i, j := range c.index(nil, f.count) {
			if j < 0 || c.empty(int(j)) {
				continue
			}
			x.Values[i] = c.vectorValue(int(j))
		}
		v.Columns = append(v.Columns, x)
	}
	for _, x := range f.failures {
		v.Failures = append(v.Failures, vectorFailure{x.index, int(x.class), int(x.after), x.reason})
	}
	return v
}

func (c *column) vectorValue(j int) any {
	switch c.typ {
	case event.Int, event.Time:
		return strconv.FormatInt(c.num(j), 10)
	case event.Float:
		if f := math.Float64frombits(uint64(c.num(j))); f != 0 || !math.Signbit(f) {
			return f
		}
		return minusZero
	case event.Bool:
		return c.fixed[j] != 0
	case event.List:
		from, to := c.items(j)
		l := []any{}
		for k := from; k < to; k++ {
			l = append(l, jsonText(c.at(k), false))
		}
		return l
	}
	return jsonText(c.at(j), c.typ == kindBytes)
}

// ids computes the ids of a batch's events as a plugin does.
func ids(t *testing.T, frame []byte) (list []string) {
	t.Helper()
	d := decoder{fields: newFields()}
	batches, err := d.batches(frame, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		for i := range b.Events {
			list = append(list, b.Events[i].ID())
		}
	}
	return list
}

const vectorDir = "testdata/vectors"

// TestVectorsMeanWhatTheySay proves both directions of the codec by the files that other SDKs are proved by. With UPDATE_VECTORS set
// it writes the files.
func TestVectorsMeanWhatTheySay(t *testing.T) {
	if os.Getenv("UPDATE_VECTORS") != "" {
		writeVectors(t)
	}
	names, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil || len(names) < 20 {
		t.Fatalf("there are %d vectors: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) { testVector(t, name) })
	}
}

func testVector(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := os.ReadFile(strings.TrimSuffix(name, ".json") + ".bin")
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	d := decoder{fields: newFields()}
	err = d.parse(bin)
	if err == nil {
		err = d.check()
	}
	if v.Error != "" {
		if err == nil {
			t.Fatalf("was read, and has this fault: %s", v.About)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	got := meaning(&d.frame)
	got.About, got.Request, got.Bytes, got.IDs = v.About, v.Request, v.Bytes, v.IDs
	if a, b := compact(t, got), compact(t, v); a != b {
		t.Errorf("was read as\n%s\nand means\n%s", a, b)
	}
	if v.Bytes == "exact" {
		if again := v.encode(t); !bytes.Equal(again, bin) {
			t.Errorf("its meaning was encoded as\n%x\nand it is\n%x", again, bin)
		}
	}
	if v.Kind == "batch" {
		if got := ids(t, bin); !slices.Equal(got, v.IDs) {
			t.Errorf("ids are %v, want %v", got, v.IDs)
		}
	}
}

// compact writes a vector so that two of one meaning are written alike.
func compact(t *testing.T, v vector) string {
	t.Helper()
	b, err := json.Marshal(v)
	var plain any
	if err == nil {
		err = json.Unmarshal(b, &plain)
	}
	if err == nil {
		b, err = json.Marshal(plain)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writeVectors writes the files anew.
func writeVectors(t *testing.T) {
	t.Helper()
	all := vectors(t)
	old, err := filepath.Glob(filepath.Join(vectorDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		v := all[name]
		if v.frame == nil {
			v.Bytes, v.frame = "exact", v.encode(t)
		}
		if v.Error == "" && v.Kind == "batch" {
			v.IDs = ids(t, v.frame)
		}
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		for ext, b := range map[string][]byte{".json": append(text, '\n'), ".bin": v.frame} {
			if err := os.WriteFile(filepath.Join(vectorDir, name+ext), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func col(name, typ string, values ...any) vectorColumn { return vectorColumn{name, typ, values} }

func list(items ...any) any { return items }

func raw(s string) any { return jsonText([]byte(s), true) }

// vectors makes all vectors. Their order of columns is free.
func vectors(t *testing.T) map[string]vector {
	line := "192.0.2.7 GET /v2.1/servers?limit=1"
	three := vector{
		About: "Three events with all types of columns in all layouts. Empty is absent; one text is not UTF-8; a name has two types; an extra field's own name begins with @.",
		Kind:  "batch", Instance: 7, Sequence: "18446744073709551615", Count: 3,
		Columns: []vectorColumn{
			col("@stream", "string", "s1", "s1", "s1"),
			col("@offset", "int", "0", "36", "9007199254740993"),
			col("@length", "int", nil, nil, "120"),
			col("@line", "int", "-1", "1311768467463790320", "7"),
			col("@read_at", "time", "1700000000000000001", "1700000000000000001", "1700000000000000001"),
			col("method", "string", "GET", "GET", "GET"),
			col("path", "string", "/v2.1/servers", "/v2.1/flavors/é", raw("/\xff\xfe")),
			col("query", "string", "limit=1", nil, nil),
			col("user_agent", "string", "curl/8", nil, "x"),
			col("api_response_code_int", "int", "200", "200", "200"),
			col("api_response_size_int", "int", "0", nil, "123456789012345"),
			col("api_response_time_num", "float", 0.290000001, 0.0, nil),
			col("truncated_bool", "bool", true, false, nil),
			col("identity_unverified_bool", "bool", false, false, false),
			col("log_offset_int", "int", "0", "36", "9007199254740993"),
			col("timestamp", "time", "1700000000123456789", nil, "-1"),
			col("@raw", "bytes", raw(line), raw("b"), raw("c\x00\xff")),
			col("recorded_date", "time", "0", "0", "0"),
			col("roles", "list", list("admin", "", "member"), nil, list("reader")),
			col("suspect", "list", list("twice"), list("twice"), list("twice")),
			col("attributes", "object", nil, `{"a":[1,{"b":null}]}`, nil),
			col("zone", "string", "north", nil, nil),
			col("zone", "int", nil, "4", nil),
			col("load", "float", 1.5, 1.5, 1.5),
			col("@@timestamp", "string", "own", nil, nil),
		},
	}
	all := map[string]vector{
		"batch-none": {About: "A batch without events.", Kind: "batch", Sequence: "1"},
		"batch-one": {About: "One event. One is too few for layout same.", Kind: "batch", Instance: 1, Sequence: "2", Count: 1, Columns: []vectorColumn{
			col("@stream", "string", "0123456789abcdef"), col("@offset", "int", "4096"), col("@line", "int", "1"), col("method", "string", "POST"), col("path", "string", "/v3/auth/tokens"),
			col("api_response_code_int", "int", "201"), col("truncated_bool", "bool", false), col("@raw", "bytes", raw("POST /v3/auth/tokens")),
		}},
		"batch-three": three,
		"batch-bitmap": {About: "Nine events: a bitmap of two bytes.", Kind: "batch", Instance: 1, Sequence: "3", Count: 9, Columns: []vectorColumn{
			col("@stream", "string", "a", "a", "a", "a", "b", "b", "b", "a", "a"),
			col("@offset", "int", "1", "2", "3", "4", "1", "2", "3", "5", "6"),
			col("@line", "int", "1", "1", "1", "1", "1", "1", "1", "1", "1"),
			col("level", "int", "0", nil, nil, "3", nil, nil, nil, "-1", "7"),
			col("logger", "string", nil, nil, nil, nil, nil, nil, nil, nil, "nova.api"),
			col("roles", "list", nil, nil, nil, nil, nil, nil, list("a", "b"), nil, list("c")),
		}},
		"batch-half": {
			About: "Exactly half of the texts and lists are there: layout all. Floats are the same only if their bytes are: 0.0 beside -0.0. An object without members is a value.",
			Kind:  "batch", Instance: 1, Sequence: "4", Count: 4, Columns: []vectorColumn{
				col("@stream", "string", "a", "a", "a", "a"),
				col("@offset", "int", "1", "2", "3", "4"),
				col("@line", "int", "-9223372036854775808", "9223372036854775807", "5", "-1"),
				col("method", "string", nil, "GET", nil, "PUT"),
				col("query", "string", nil, "a", nil, nil),
				col("@raw", "bytes", raw("a"), nil, raw("b"), nil),
				col("roles", "list", list("a"), nil, list(""), nil),
				col("attributes", "object", "{}", "{}", nil, nil),
				col("zero", "float", 0.0, minusZero, 0.0, 0.0),
				col("minus", "float", minusZero, minusZero, minusZero, minusZero),
			},
		},
		"patch-removes": {
			About: "A column without values removes the field, whatever its type is.", Request: "batch-three", Kind: "patch", Instance: 7, Sequence: "18446744073709551615", Count: 3,
			Columns: []vectorColumn{col("api_response_code_int", "string", nil, nil, nil), col("zone", "bytes", nil, nil, nil), col("attributes", "int", nil, nil, nil)},
		},
		"patch-none": {About: "Nothing changed.", Request: "batch-three", Kind: "patch", Instance: 7, Sequence: "18446744073709551615", Count: 3},
		"patch-all": {
			About: "A text is replaced in one event and lost in another, a field is removed from all, a new one is defined, the second event is dropped; with notes.", Request: "batch-three",
			Kind: "patch", Instance: 7, Sequence: "18446744073709551615", Count: 3,
			Notes: json.RawMessage(`{"count":[["masked","password",2]],"fail":[["disk",""]]}`),
			Columns: []vectorColumn{
				col("path", "string", "/***", nil, raw("/\xff\xfe")),
				col("query", "string", nil, nil, nil),
				col("api_response_time_num", "float", nil, 1.25, nil),
				col("masked_int", "int", "1", "1", "1"),
				col("zone", "int", "1", nil, nil), col("zone", "string", nil, "n", nil),
				col("@raw", "bytes", raw("***"), raw("***"), raw("***")),
				col("@dropped", "bool", false, true, false),
			},
		},
		"verdict-ok": {About: "All are accepted.", Request: "batch-three", Kind: "verdict", Instance: 7, Sequence: "18446744073709551615", Count: 3},
		"verdict-some": {
			About: "One event to try again, one to the dead letter; the third is accepted.", Request: "batch-three", Kind: "verdict", Instance: 7, Sequence: "18446744073709551615", Count: 3,
			Failures: []vectorFailure{{2, classRetry, 0, "table is locked"}, {0, classPermanent, 0, "über"}},
		},
		"verdict-throttle": {
			About: "The whole call waits, and the plugin says so in its notes.", Request: "batch-three", Kind: "verdict", Instance: 7, Sequence: "18446744073709551615", Count: 3,
			Notes:    json.RawMessage(`{"fail":[["far end","asks for a pause"]]}`),
			Failures: []vectorFailure{{wholeCall, classThrottle, 1500, "429"}},
		},
		"verdict-large": {
			About: "The whole call is too large.", Request: "batch-three", Kind: "verdict", Instance: 7, Sequence: "18446744073709551615", Count: 3,
			Failures: []vectorFailure{{wholeCall, classTooLarge, 0, ""}},
		},
	}
	all["verdict-none"] = vector{
		About: "A batch without events can fail as a whole.", Request: "batch-none", Kind: "verdict", Sequence: "1",
		Failures: []vectorFailure{{wholeCall, classRetry, 0, "not now"}},
	}
	same := vector{
		About: "Layout same of no events: one value that no event has.", Kind: "batch", Instance: 1, Sequence: "6", Bytes: "any",
		Columns: []vectorColumn{{"a", "string", []any{}}},
	}
	same.frame = rawFrame(kindBatch, 6, 0, 1, rawColumn("a", 1, layoutSame, u32(1), "x"))
	all["batch-none-same"] = same
	loose := vector{
		About: "Layouts that an encoder would not pick, no @stream, and a column of the agent's own that is not known: all is read.",
		Kind:  "batch", Instance: 1, Sequence: "5", Count: 2, Bytes: "any",
		Columns: []vectorColumn{
			col("@future", "bytes", raw("x"), raw("y")), col("@line", "int", "1", "1"), col("@offset", "int", "8", "9"), col("method", "string", nil, nil), col("query", "string", "a", nil), col("level", "int", "3", "4"),
			col("path", "string", "/", "/"), col("logger", "string", nil, nil), col("roles", "list", nil, list("r")),
		},
	}
	loose.frame = rawFrame(kindBatch, 5, 2, 9,
		rawColumn("@future", 8, layoutAll, u32(1, 2), "xy"), rawColumn("@line", 2, layoutSame, u64(1)), rawColumn("@offset", 2, layoutSome, "\x03", u64(8), u64(9)), rawColumn("method", 1, layoutAll, u32(0, 0)),
		rawColumn("query", 1, layoutSome, "\x01", u32(1), "a"), rawColumn("level", 2, layoutSome, "\x03", u64(3), u64(4)),
		rawColumn("path", 1, layoutAll, u32(1, 2), "//"), rawColumn("logger", 1, layoutSame, u32(0)), rawColumn("roles", 6, layoutAll, u32(0, 1), u32(1), "r"))
	all["batch-loose"] = loose
	for name, f := range faulty(t, &three) {
		f.v.frame = f.frame
		all["bad-"+name] = f.v
	}
	return all
}

type fault struct {
	v     vector
	frame []byte
}

// faulty makes frames that are to be refused.
func faulty(t *testing.T, good *vector) map[string]fault {
	ok := good.encode(t)
	change := func(at int, b ...byte) []byte {
		c := slices.Clone(ok)
		copy(c[at:], b)
		return c
	}
	bare := func(count int, cols ...string) []byte { return rawFrame(kindBatch, 1, count, len(cols), cols...) }
	offset, line := rawColumn("@offset", 2, layoutSame, u64(1)), rawColumn("@line", 2, layoutSame, u64(1))
	batch := func(count int, cols ...string) []byte { return bare(count, append([]string{offset, line}, cols...)...) }
	patch := func(cols ...string) []byte {
		return rawFrame(kindPatch, 1, 2, len(cols), append([]string{u32(0)}, cols...)...)
	}
	verdict := func(n int, parts ...string) []byte {
		return rawFrame(kindVerdict, 1, 2, n, append([]string{u32(0)}, parts...)...)
	}
	failure := func(index, class, after int, reason string) string {
		return u32(index) + string([]byte{byte(class)}) + u32(after, len(reason)) + reason
	}
	fail := func(index, class int) string { return failure(index, class, 0, "x") }
	noted := func(notes string) []byte { return rawFrame(kindPatch, 1, 2, 0, u32(len(notes)), notes) }
	out := map[string]fault{}
	add := func(name, about string, frame []byte) {
		v := vector{About: about, Error: name}
		if strings.HasPrefix(name, "patch-schema-") {
			v.Reader = "agent"
		}
		out[name] = fault{v, frame}
	}
	add("magic", "another magic", change(0, 'X'))
	add("version", "version 2 of the frame", change(4, 2))
	add("kind", "an unknown kind", change(5, 9))
	add("flags", "an unknown flag", change(6, 1))
	add("short", "the last byte is missing", ok[:len(ok)-1])
	add("header", "less than a header", ok[:31])
	add("long", "a byte follows, and the header does not know of it", append(slices.Clone(ok), 0))
	add("columns", "the header says one column less than there are", change(28, byte(len(good.Columns)-1)))
	add("more-columns", "the header says one column more than there are", change(28, byte(len(good.Columns)+1)))
	add("events", "more than 1,048,576 events", batch(1<<20+1))
	add("columns-many", "4,097 columns", batch(1, bools(maxColumns-1)...))
	add("name", "a column without a name", batch(1, rawColumn("", 1, layoutAll, u32(1), "a")))
	add("name-utf8", "a name that is not UTF-8", batch(1, rawColumn("a\xff", 4, layoutAll, "\x00")))
	add("type", "an unknown type", batch(1, rawColumn("a", 9, layoutAll, u32(1), "a")))
	add("type-zero", "type 0", batch(1, rawColumn("a", 0, layoutAll)))
	add("layout", "an unknown layout", batch(1, rawColumn("a", 1, 3, u32(1), "a")))
	add("ends-back", "an end goes back", batch(3, rawColumn("a", 1, layoutAll, u32(2, 1, 2), "ab")))
	add("ends-beyond", "an end lies beyond the texts", batch(2, rawColumn("a", 1, layoutAll, u32(1, 3), "ab")))
	add("ends-before", "bytes follow the last text", batch(2, rawColumn("a", 1, layoutAll, u32(1, 1), "ab")))
	add("ends-huge", "an end of 4 GiB", batch(1, rawColumn("a", 1, layoutAll, u32(math.MaxUint32), "ab")))
	add("list-huge", "a list of 4 Gi items", batch(1, rawColumn("a", 6, layoutAll, u32(math.MaxUint32))))
	add("list-back", "a list's end goes back", batch(3, rawColumn("a", 6, layoutAll, u32(1, 0, 1), u32(1), "a")))
	add("bitmap", "a bit beyond the last event", batch(2, rawColumn("a", 4, layoutSome, "\x05", "\x00\x00")))
	add("bitmap-short", "two bits and one value", batch(2, rawColumn("a", 4, layoutSome, "\x03", "\x00")))
	add("bool", "a bool that is 2", batch(1, rawColumn("a", 4, layoutAll, "\x02")))
	add("nan", "a float that is NaN", batch(1, rawColumn("a", 3, layoutAll, u64(0x7ff8000000000001))))
	add("infinite", "a float that is infinite", batch(1, rawColumn("a", 3, layoutAll, u64(0x7ff0000000000000))))
	add("int-short", "ints of 7 bytes", batch(1, rawColumn("a", 2, layoutAll, "1234567")))
	add("twice", "two columns of one name and type", batch(1, rawColumn("a", 4, layoutAll, "\x00"), rawColumn("a", 4, layoutAll, "\x00")))
	add("both", "an event has values in two columns of one name", batch(1, rawColumn("a", 4, layoutAll, "\x00"), rawColumn("a", 1, layoutAll, u32(1), "x")))
	add("notes", "notes that are longer than the frame", rawFrame(kindPatch, 1, 2, 0, u32(5), "{}"))
	add("no-offset", "events without @offset", bare(2, line))
	add("no-line", "events without @line", bare(2, offset))
	add("some-line", "an event without @line", bare(2, offset, rawColumn("@line", 2, layoutSome, "\x01", u64(1))))
	add("own-line", "@line is a list", bare(1, offset, rawColumn("@line", 6, layoutAll, u32(1), u32(1), "a")))
	add("own-stream", "@stream is an int", batch(1, rawColumn("@stream", 2, layoutAll, u64(1))))
	add("own-read-at", "@read_at is an int", batch(1, rawColumn("@read_at", 2, layoutAll, u64(1))))
	add("own-raw", "@raw is a string", batch(1, rawColumn("@raw", 1, layoutAll, u32(1), "a")))
	add("own-twice", "@line stands there in two types", batch(1, rawColumn("@line", 1, layoutSome, "\x00")))
	add("bytes", "a field that holds bytes", batch(1, rawColumn("a", 8, layoutAll, u32(1), "a")))
	add("notes-json", "notes that are no JSON", noted(`{"count":`))
	add("notes-list", "notes that are a list", noted(`[]`))
	add("notes-utf8", "notes that are not UTF-8", noted("{\"a\":\"\xff\"}"))
	add("notes-count", "notes that count by a text", noted(`{"count":[["a","","1"]]}`))
	add("notes-fail", "notes with a failure without its text", noted(`{"fail":[["a"]]}`))
	add("notes-long", "notes of 65,537 bytes", noted(`{"a":"`+strings.Repeat("x", maxNotes-7)+`"}`))
	add("patch-raw", "a patch sets @raw to a string", patch(rawColumn("@raw", 1, layoutSame, u32(1), "x")))
	add("patch-dropped", "a patch holds @dropped as an int, even if for no event", patch(rawColumn("@dropped", 2, layoutSome, "\x00")))
	add("patch-future", "a patch sets a column of the agent's own that is not known", patch(rawColumn("@future", 1, layoutSame, u32(1), "x")))
	add("patch-bytes", "a patch sets a field to bytes", patch(rawColumn("a", 8, layoutSame, u32(1), "x")))
	add("patch-schema-twice", "a patch holds two columns of a field of the schema", patch(rawColumn("method", 1, layoutSame, u32(1), "x"), rawColumn("method", 2, layoutSome, "\x00")))
	add("patch-id", "a patch sets event_id", patch(rawColumn("event_id", 1, layoutSame, u32(1), "x")))
	add("patch-offset", "a patch sets @offset", patch(rawColumn("@offset", 2, layoutSame, u64(1))))
	add("patch-schema-type", "a patch gives a field of the schema another type", patch(rawColumn("method", 2, layoutSame, u64(1))))
	add("patch-schema-range", "a patch sets a status that does not fit into 32 bits", patch(rawColumn("api_response_code_int", 2, layoutSame, u64(1<<32))))
	add("patch-object", "a patch sets an object that is none", patch(rawColumn("a", 7, layoutSame, u32(5), `{"a":`)))
	add("verdict-beyond", "the third of two events failed", verdict(1, fail(2, 1)))
	add("verdict-twice", "an event failed twice", verdict(2, fail(1, 1), fail(1, 1)))
	add("verdict-both", "the whole call and an event failed", verdict(2, fail(math.MaxUint32, 1), fail(1, 1)))
	add("verdict-class", "an unknown class", verdict(1, fail(1, 9)))
	add("verdict-many", "more failures than events", verdict(3, fail(0, 1), fail(1, 1), fail(1, 1)))
	add("verdict-pause", "a pause of a failure that is no throttle", verdict(1, failure(1, classRetry, 5, "x")))
	add("verdict-utf8", "a reason that is not UTF-8", verdict(1, failure(1, classRetry, 0, "\xff")))
	add("verdict-reason", "a reason of 4,097 bytes", verdict(1, failure(1, classRetry, 0, strings.Repeat("x", maxReason+1))))
	return out
}

// bools are columns of one bool each.
func bools(n int) (cols []string) {
	for i := range n {
		cols = append(cols, rawColumn(fmt.Sprint("c", i), 4, layoutAll, "\x00"))
	}
	return cols
}

func rawFrame(kind byte, sequence, count, n int, parts ...string) []byte {
	body := strings.Join(parts, "")
	return fmt.Appendf(nil, "STKF\x01%c\x00\x00%s%s%s%s%s%s", kind, u32(32+len(body)), u32(1), u64(uint64(sequence)), u32(count), u32(n), body)
}

func rawColumn(name string, typ, layout byte, payload ...string) string {
	p := strings.Join(payload, "")
	n := binary.LittleEndian.AppendUint16(nil, uint16(len(name)))
	return string(n) + name + string([]byte{typ, layout}) + u32(len(p)) + p
}

func u32(values ...int) string {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return string(b)
}

func u64(v uint64) string { return string(binary.LittleEndian.AppendUint64(nil, v)) }

// FuzzFrame feeds both sides what is no frame: they refuse it or read it, and what is read can be written again.
func FuzzFrame(f *testing.F) {
	names, _ := filepath.Glob(filepath.Join(vectorDir, "*.bin"))
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 10_000 { // what is large takes long, and shows nothing more
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{fields: newFields()}
		if d.parse(b) != nil || d.count > 1<<8 { // what is large takes long, and shows nothing more
			return
		}
		if d.check() != nil {
			return
		}
		switch d.kind {
		case kindBatch:
			fuzzBatch(t, b)
		case kindPatch:
			fuzzPatch(t, &d)
		}
	})
}

// fuzzBatch: what a plugin reads and writes again is the same.
func fuzzBatch(t *testing.T, b []byte) {
	flat := func(b []byte) []*event.Event {
		d := decoder{fields: newFields()}
		batches, err := d.batches(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		var evs []*event.Event
		for _, x := range batches {
			for i := range x.Events {
				evs = append(evs, &x.Events[i])
			}
		}
		return evs
	}
	one := flat(b)
	e := encoder{fields: newFields()}
	again := slices.Clone(e.batch(header{instance: 1}, one))
	two := flat(again)
	if len(one) != len(two) {
		t.Fatalf("%d events became %d", len(one), len(two))
	}
	for i := range one {
		sameEvent(t, e.fields, one[i], two[i])
	}
}

// fuzzPatch: a patch that is accepted can be applied, makes no more than it was counted for, and leaves events that can be encoded.
func fuzzPatch(t *testing.T, d *decoder) {
	b := event.NewBatch("s")
	for range d.count {
		e := b.Append()
		e.Path, e.Raw = "/x", []byte("raw")
		e.Set("a", event.StringValue("x"))
	}
	evs := pointers(nil, b)
	if d.bound(evs, 1000) != nil {
		return
	}
	was := make([]int, len(evs))
	for i, e := range evs {
		was[i] = d.sizeOf(e)
	}
	d.apply(b.Arena(), evs)
	for i, e := range evs {
		if n := d.sizeOf(e); n > was[i]+d.sizes[i] {
			t.Fatalf("event %d had %d bytes and has %d, and the patch was to make %d", i, was[i], n, d.sizes[i])
		}
	}
	e := encoder{fields: newFields()}
	var again decoder
	again.fields = e.fields
	if err := again.parse(e.batch(header{}, evs)); err != nil {
		t.Fatal(err)
	}
}

// sameEvent compares all that travels. The order of extra fields is free.
func sameEvent(t *testing.T, p *fields, a, b *event.Event) {
	t.Helper()
	if a.ID() != b.ID() || a.Batch().Stream != b.Batch().Stream || !a.Batch().ReadAt.Equal(b.Batch().ReadAt) {
		t.Fatalf("ids differ: %s %s", a.ID(), b.ID())
	}
	x, y := *a.Clone(), *b.Clone()
	if len(x.Extra) != len(y.Extra) {
		t.Fatalf("extra fields differ:\n%v\n%v", x.Extra, y.Extra)
	}
	for _, f := range x.Extra {
		if v, _ := y.Get(f.Key); !v.Equal(f.Value) {
			t.Fatalf("%s differs: %v %v", f.Key, f.Value, v)
		}
	}
	if !bytes.Equal(x.Raw, y.Raw) {
		t.Fatal("raw differs")
	}
	for i := range p.places {
		if f := &p.places[i]; f.text && *f.string(&x) != *f.string(&y) || !f.text && (x.Has&f.mask != y.Has&f.mask || x.Has&f.mask != 0 && f.get(&x) != f.get(&y)) {
			t.Fatalf("%s differs", f.name)
		}
	}
	if !reflect.DeepEqual(x.Time, y.Time) {
		t.Fatalf("time differs: %v %v", x.Time, y.Time)
	}
}

// FuzzDescribe has a plugin say nonsense about its configuration: it is refused, or what comes of it can be used.
func FuzzDescribe(f *testing.F) {
	for _, s := range append(specs(), benchSpecs()...) {
		b, err := json.Marshal(describe(s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte("pattern: x\nrules: [{when: a}]\nlimits: {time: 5s}"))
	}
	f.Fuzz(func(t *testing.T, text, yaml []byte) {
		var d described
		if json.Unmarshal(text, &d) != nil {
			return
		}
		h := NewHost(DefaultConfig(), discard())
		s, err := h.spec(d)
		if err != nil {
			return
		}
		n, faults := conf.Parse("c", yaml)
		if len(faults) > 0 {
			return
		}
		cfg, faults := conf.DecodeAny(n, s.Defaults)
		if len(faults) > 0 {
			return
		}
		if _, err := configJSON(cfg); err != nil {
			t.Fatal(err)
		}
	})
}
