//go:build blackbox

package scripts

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse over real logs, compared with what an independent reader found in them (test/testdata/golden/NOTES.md).

const testdata = "../testdata"

// realLogs is the folder with the logs.
func realLogs(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(testdata, "real-logs"))
	ok(t, err)
	return dir
}

type counts struct {
	Lines   int            `json:"lines"`
	Formats map[string]int `json:"formats"`
}

func goldenCounts(t *testing.T) map[string]counts {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(testdata, "golden", "bundle-counts.json"))
	ok(t, err)
	var c map[string]counts
	ok(t, json.Unmarshal(p, &c))
	return c
}

// event is a record as JSON has it.
type event map[string]any

// parsed runs parse over files, or over stdin, and returns its events.
func parsed(t *testing.T, stdin []byte, files ...string) (events []event, errors string) {
	t.Helper()
	r := commandIn(t, realLogs(t), stdin, append([]string{"parse", "--timezone", "UTC", "--mask-tokens=false"}, files...)...)
	if r.code != 0 {
		t.Fatalf("parse: exit code %d\n%s", r.code, tailOf(r.errors, 3000))
	}
	for line := range strings.Lines(r.out) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("parse printed what is no JSON: %v: %q", err, line)
		}
		events = append(events, e)
	}
	return events, r.errors
}

func (e event) text(name string) string { s, _ := e[name].(string); return s }

func TestParseFindsEveryRequestLineAndNoOther(t *testing.T) {
	t.Parallel()
	want := goldenCounts(t)
	events, errs := parsed(t, nil, slices.Sorted(maps.Keys(want))...)
	got := map[string]map[string]int{}
	for _, e := range events {
		if e.text("record_class") != "api_access" {
			t.Errorf("%s: class %q among access records", e.text("log_file"), e.text("record_class"))
		}
		f := e.text("log_file")
		if got[f] == nil {
			got[f] = map[string]int{}
		}
		got[f][e.text("format")]++
	}
	for _, d := range halves() {
		if d.record {
			want[d.file].Formats["placement-requestlog"]++
		} else {
			want[d.file].Formats["placement-requestlog"]--
		}
	}
	lines := 0
	for file, c := range want {
		lines += c.Lines
		if !maps.Equal(c.Formats, got[file]) {
			t.Errorf("%s: found %v, want %v", file, got[file], c.Formats)
		}
	}
	if !strings.Contains(errs, fmt.Sprintf(" %d lines: ", lines)) {
		t.Errorf("the summary does not say %d lines: %s", lines, tailOf(errs, 400))
	}
}

// names are the golden fields in the common schema.
var names = map[string]string{
	"format": "format", "method": "method", "path": "path", "query": "query", "status": "api_response_code_int",
	"size": "api_response_size_int", "time": "api_response_time_num", "client": "client",
	"request_id": "request_id", "user_id": "user_id", "project_id": "project_id",
}

func TestParseReadsEveryFieldOfRealLogs(t *testing.T) {
	t.Parallel()
	events, _ := parsed(t, nil, slices.Sorted(maps.Keys(goldenCounts(t)))...)
	found := map[string]event{}
	for _, e := range events {
		found[place(e, "log_file", "log_offset_int")] = e
	}
	p, err := os.ReadFile(filepath.Join(testdata, "golden", "bundle-records.ndjson"))
	ok(t, err)
	n := 0
	used := map[string]int{}
	for line := range bytes.Lines(p) {
		var want event
		ok(t, json.Unmarshal(line, &want))
		at := place(want, "file", "offset")
		got, is := found[at]
		if !is && slices.ContainsFunc(halves(), func(h half) bool { return !h.record && at == h.place() }) {
			continue
		}
		if !is {
			t.Errorf("%s: no record", at)
			continue
		}
		n++
		for golden, name := range names {
			w, g := want[golden], got[name]
			if same(w, g) {
				continue
			}
			if why := explanation(want, golden, w, g); why != "" {
				used[why]++
				continue
			}
			t.Errorf("%s line %v, %s: %s is %v, want %v", at, want["line"], want["format"], name, g, w)
		}
	}
	extra := 0
	for _, h := range halves() {
		if !h.record {
			continue
		}
		extra++
		e, is := found[h.place()]
		if marks, _ := e["suspect"].([]any); !is || !slices.Contains(marks, any("truncated")) || e["api_response_code_int"] != nil {
			t.Errorf("%s: the head of a torn line is %v, want a record without a status, with suspect: truncated", h.place(), e)
		}
	}
	if n+extra != len(events) {
		t.Errorf("%d records were compared, %d are heads of torn lines, there are %d", n, extra, len(events))
	}
	for _, d := range differences() {
		if used[d.why] != d.times {
			t.Errorf("explained %d times and not %d: %s", used[d.why], d.times, d.why)
		}
	}
}

// half is a part of a line of placement's request log that a newline in a decoded path tore into several. The golden records
// take physical lines by themselves: no record where the status is missing, one where a forged line happens to end like a whole
// one. The parser looks at both: the head is the request, without a status and marked; what follows it is its rest, and a forged
// request in there is none.
type half struct {
	file   string
	offset int
	record bool // a head; else a rest
}

func (h half) place() string { return fmt.Sprintf("%s:%d", h.file, h.offset) }

func halves() []half {
	const log = "placement-uwsgi/placement-api.log"
	return []half{
		{log, 21933, true},
		{log, 22158, false},
		{log, 24653, true},
		{log, 27251, true},
		{log, 29197, true},
		{log, 29422, false},
		{log, 31883, true},
		{log + ".3.gz", 18594, true},
	}
}

// difference is one way in which a record may differ from the golden one.
type difference struct {
	why   string
	times int // in all the logs, exactly
	holds func(want event, field string, w, g any) bool
}

func differences() []difference {
	return []difference{
		{
			why:   "a target that ends in '?': the golden record has an empty query, in the schema an empty string is an absent one",
			times: 11,
			holds: func(_ event, field string, w, g any) bool { return field == "query" && w == "" && g == nil },
		},
		{
			why:   "the project stands in the path: the golden record takes it from the line's context alone",
			times: 5,
			holds: func(want event, field string, w, g any) bool {
				id, _ := g.(string)
				return field == "project_id" && w == nil && id != "" && strings.Contains(want.text("path"), "/"+id+"/")
			},
		},
		{
			why:   "the first element of the list of clients is no address: the golden record takes the first that is one, the schema none",
			times: 5,
			holds: func(want event, field string, _, g any) bool {
				return field == "client" && g == nil && slices.Contains([]string{
					"nova-api-eventlet/nova-api.log.3.gz 69", "nova-api-eventlet/nova-api.log.3.gz 70",
					"nova-api-eventlet/nova-api.log.3.gz 261",
					"keystone-apache-modwsgi/keystone_wsgi_main_access_kolla.log 57",
					"keystone-apache-modwsgi/keystone_wsgi_main_access_kolla.log.2.gz 26",
				}, fmt.Sprint(want["file"], " ", want["line"]))
			},
		},
	}
}

func explanation(want event, field string, w, g any) string {
	for _, d := range differences() {
		if d.holds(want, field, w, g) {
			return d.why
		}
	}
	return ""
}

func place(e event, file, offset string) string {
	at, _ := e[offset].(float64)
	return fmt.Sprintf("%s:%d", e.text(file), int64(at))
}

func same(a, b any) bool {
	x, isNumber := a.(float64)
	y, both := b.(float64)
	if isNumber && both {
		return math.Abs(x-y) < 1e-9
	}
	return a == b
}

// TestParseGivesTheSameFromStandardInput feeds each file, uncompressed, to standard input.
func TestParseGivesTheSameFromStandardInput(t *testing.T) {
	t.Parallel()
	for file := range goldenCounts(t) {
		fromFile, _ := parsed(t, nil, file)
		fromStdin, _ := parsed(t, content(t, filepath.Join(realLogs(t), file)))
		if len(fromFile) != len(fromStdin) {
			t.Errorf("%s: %d records, from standard input %d", file, len(fromFile), len(fromStdin))
			continue
		}
		for i := range fromFile {
			a, b := fromFile[i], fromStdin[i]
			for name := range names {
				// What stands in the file's name and not on the line is not known from standard input; these fields stand on it.
				if !same(a[name], b[name]) {
					t.Errorf("%s: record %d: %s is %v, from standard input %v", file, i, name, a[name], b[name])
				}
			}
			if !same(a["log_offset_int"], b["log_offset_int"]) {
				t.Errorf("%s: record %d: offset %v, from standard input %v", file, i, a["log_offset_int"], b["log_offset_int"])
			}
		}
	}
}

// content returns a file's content, uncompressed.
func content(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	ok(t, err)
	if !strings.HasSuffix(path, ".gz") {
		return p
	}
	z, err := gzip.NewReader(bytes.NewReader(p))
	ok(t, err)
	p, err = io.ReadAll(z)
	ok(t, err)
	return p
}

// TestParsedRecordsAgreeWithWhatTheClientSaw joins on the request id.
func TestParsedRecordsAgreeWithWhatTheClientSaw(t *testing.T) {
	t.Parallel()
	python := need(t, "python3")
	r := commandIn(t, realLogs(t), nil, append([]string{"parse", "--timezone", "UTC", "--mask-tokens=false"}, slices.Sorted(maps.Keys(goldenCounts(t)))...)...)
	if r.code != 0 {
		t.Fatalf("parse: exit code %d\n%s", r.code, tailOf(r.errors, 3000))
	}
	join := exec.Command(python, filepath.Join(testdata, "join.py"), filepath.Join(testdata, "real-logs", "requests.ndjson"))
	join.Stdin = strings.NewReader(r.out)
	out, err := join.CombinedOutput()
	if err != nil {
		t.Errorf("join.py: %v\n%s", err, tailOf(string(out), 6000))
	}
	t.Logf("%s", out)
	if !regexp.MustCompile(`ids met: [1-9]\d\d`).Match(out) {
		t.Error("hardly any record was joined")
	}
}

// TestTheReportOfOnceAgreesWithTheWriterAndTheFile compares the accounts at rest with the writer's and the file's own counts.
func TestTheReportOfOnceAgreesWithTheWriterAndTheFile(t *testing.T) { // O02
	t.Parallel()
	b := newBox(t)
	b.write(setup{policy: "when: api_response_code_int != 500"})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(5000)
	w.raw([]byte("  a line that goes on with the one before\n"))
	odd := newWriter(t, b.log("odd.log"), 3)
	odd.raw([]byte("no format knows this line\n"))
	other := newWriter(t, b.log("other.log"), 2)
	other.lines(3000)
	other.raw([]byte("and this one has no newline"))
	filtered := 0
	for _, x := range []*writer{w, other} {
		for seq := range x.count() {
			if (record{x.stream, seq}).status() == 500 {
				filtered++
			}
		}
	}
	for round := range 2 {
		r := b.once()
		if r.code != 0 {
			t.Fatalf("code %d", r.code)
		}
		input := report(t, r.errors, `input +in +.*, (\d+) lines: (\d+) events, (\d+) of them unparsed; (\d+) service lines skipped`)
		output := report(t, r.errors, `output +out +(\d+) offered = (\d+) delivered \+ (\d+) filtered \+ (\d+) dead \+ (\d+) dropped`)
		wantIn, wantOut := []int{8002, 8001, 1, 1}, []int{8001, 8001 - filtered, filtered, 0, 0}
		if round == 1 { // everything is read already
			wantIn, wantOut = []int{0, 0, 0, 0}, []int{0, 0, 0, 0, 0}
		}
		if !slices.Equal(input, wantIn) {
			t.Errorf("input: lines, events, unparsed, skipped are %v, want %v", input, wantIn)
		}
		if !slices.Equal(output, wantOut) {
			t.Errorf("output: offered, delivered, filtered, dead, dropped are %v, want %v", output, wantOut)
		}
		if n := (&arrivals{path: b.out}).lines(); n != 8001-filtered {
			t.Errorf("the file holds %d records, want %d", n, 8001-filtered)
		}
		if !strings.Contains(r.errors, other.path) {
			t.Error("the report does not name the file whose last line has no newline")
		}
	}
}

// report takes the numbers out of a line of the report.
func report(t *testing.T, text, pattern string) (n []int) {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Errorf("the report has no line like %q:\n%s", pattern, text)
		return nil
	}
	for _, s := range m[1:] {
		v, err := strconv.Atoi(s)
		ok(t, err)
		n = append(n, v)
	}
	return n
}
