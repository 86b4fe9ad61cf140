//go:build blackbox

package scripts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Two readers of one line: testdata/readers holds lines of each format with the records that a reader of the catalogue and the
// schema expects, who did not look at the parser. A block is one log file:
//
//	# why this line is here
//	! file=cinder-api.log timezone=Europe/Berlin   what is not the default
//	> a line as it stands in the log
//	>" "a line with bytes, quoted as in Go\x1b[00m"
//	= {"method": "GET", …}                         a record, with each field that it has
//	= none                                         or no record at all
//
// Not written out, as every record has them: schema_version, source_system, log_file, and log_offset_int where it is 0.
type reading struct {
	place    string // file and line of the block
	file     string // the log's name; most lines are read from a name that says nothing
	timezone string
	records  string
	auto     bool // auto is expected to come to the same
	log      []byte
	want     []event
}

// TestTwoReadersOfALineAgree compares field by field, by the format's name and with auto.
func TestTwoReadersOfALineAgree(t *testing.T) {
	t.Parallel()
	for _, format := range listedFormats(t) {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			readings := readReadings(t, format)
			if n := len(readings); n < 20 {
				t.Errorf("%d lines, want 20", n)
			}
			compareReadings(t, format, readings)
			compareReadings(t, "auto", slices.DeleteFunc(readings, func(r reading) bool { return !r.auto }))
		})
	}
}

// listedFormats asks the program which formats there are: one without expectations is found so.
func listedFormats(t *testing.T) (names []string) {
	t.Helper()
	r := command(t, "formats")
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+): `).FindAllStringSubmatch(r.out, -1) {
		names = append(names, m[1])
	}
	if r.code != 0 || len(names) == 0 {
		t.Fatalf("formats: exit code %d, %d formats", r.code, len(names))
	}
	return names
}

func readReadings(t *testing.T, format string) (all []reading) {
	t.Helper()
	path := filepath.Join("testdata", "readers", format+".txt")
	text, err := os.ReadFile(path)
	ok(t, err)
	fresh := func() reading { return reading{file: "lines.log", timezone: "UTC", records: "access", auto: true} }
	now, done := fresh(), false
	flush := func() {
		if len(now.log) > 0 && !done {
			t.Errorf("%s has lines and no expectation", now.place)
		}
		if done {
			all = append(all, now)
		}
		now, done = fresh(), false
	}
	for i, line := range strings.Split(string(text), "\n") {
		place := fmt.Sprintf("%s:%d", path, i+1)
		mark, rest, _ := strings.Cut(line, " ")
		switch mark {
		case "":
			flush()
		case "#":
		case "!":
			now.options(t, place, rest)
		case ">":
			now.add(place, rest)
		case `>"`:
			raw, err := strconv.Unquote(rest)
			ok(t, err)
			now.add(place, raw)
		case "=":
			done = true
			now.expect(t, place, rest)
		default:
			t.Fatalf("%s: %q begins no line of such a file", place, mark)
		}
	}
	flush()
	return all
}

func (r *reading) add(place, line string) {
	r.place = cmp.Or(r.place, place)
	r.log = append(append(r.log, line...), '\n')
}

func (r *reading) options(t *testing.T, place, text string) {
	t.Helper()
	for o := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "file":
			r.file = value
		case "timezone":
			r.timezone = value
		case "records":
			r.records = value
		case "auto":
			r.auto = value != "no"
		default:
			t.Fatalf("%s: unknown option %q", place, name)
		}
	}
}

func (r *reading) expect(t *testing.T, place, text string) {
	t.Helper()
	if text == "none" {
		return
	}
	e := event{"schema_version": "1", "source_system": "openstack", "log_offset_int": 0.0}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatalf("%s: %v", place, err)
	}
	r.want = append(r.want, e)
}

// compareReadings parses all the lines, each in a file of its own, in one run per zone and class of records.
func compareReadings(t *testing.T, format string, readings []reading) {
	t.Helper()
	dir := t.TempDir()
	runs := map[[2]string][]string{}
	for i, r := range readings {
		file := filepath.Join(dir, strconv.Itoa(i), r.file)
		ok(t, os.Mkdir(filepath.Dir(file), 0o755))
		ok(t, os.WriteFile(file, r.log, 0o644))
		written := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC) // what has no year is of this one
		ok(t, os.Chtimes(file, written, written))
		runs[[2]string{r.timezone, r.records}] = append(runs[[2]string{r.timezone, r.records}], file)
	}
	got := map[string][]event{}
	for how, files := range runs {
		p := commandIn(t, dir, nil, append([]string{"parse", "--format", format, "--timezone", how[0], "--records", how[1]}, files...)...)
		if p.code != 0 {
			t.Fatalf("parse: exit code %d\n%s", p.code, tailOf(p.errors, 3000))
		}
		for line := range strings.Lines(p.out) {
			var e event
			ok(t, json.Unmarshal([]byte(line), &e))
			got[e.text("log_file")] = append(got[e.text("log_file")], e)
		}
	}
	for i, r := range readings {
		file := filepath.Join(dir, strconv.Itoa(i), r.file)
		if len(got[file]) != len(r.want) {
			t.Errorf("%s, format %s: %d records, want %d", r.place, format, len(got[file]), len(r.want))
			continue
		}
		for n, want := range r.want {
			want["log_file"] = file
			compareRecords(t, fmt.Sprintf("%s, format %s", r.place, format), want, got[file][n])
		}
	}
}

// compareRecords names each field that is missing, wrong or too many.
func compareRecords(t *testing.T, where string, want, got event) {
	t.Helper()
	fields := maps.Clone(want)
	maps.Copy(fields, got)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		w, wanted := want[name]
		g, is := got[name]
		switch {
		case !is:
			t.Errorf("%s: %s is missing, want %v", where, name, w)
		case !wanted:
			t.Errorf("%s: %s is %v, want none", where, name, g)
		case name == "attributes":
			a, _ := w.(map[string]any)
			b, _ := g.(map[string]any)
			compareRecords(t, where+", attributes", a, b)
		case !agree(w, g):
			t.Errorf("%s: %s is %v, want %v", where, name, g, w)
		}
	}
}

// agree compares values of JSON; times taken are the result of a division.
func agree(w, g any) bool {
	x, isNumber := w.(float64)
	y, both := g.(float64)
	if isNumber && both {
		return math.Abs(x-y) < 1e-9
	}
	return reflect.DeepEqual(w, g)
}
