package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func TestQuantilesAreWithinTheStatedErrorOfExactOnes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for about, next := range map[string]func() time.Duration{
		"a second or so":   func() time.Duration { return time.Duration(math.Exp(r.NormFloat64()*2) * 1e9) },
		"microseconds":     func() time.Duration { return time.Duration(r.Int64N(200_000)) },
		"all alike":        func() time.Duration { return 301 * time.Millisecond },
		"of all sizes":     func() time.Duration { return time.Duration(math.Exp(r.Float64() * math.Log(1e14))) },
		"none or two days": func() time.Duration { return time.Duration(r.IntN(2)) * 48 * time.Hour },
	} {
		for _, n := range []int{1, 2, 3, 99, 20_000} {
			var h histogram
			var exact []time.Duration
			for range n {
				d := next()
				h.add(d)
				exact = append(exact, d)
			}
			slices.Sort(exact)
			for _, q := range []float64{0, 0.5, 0.95, 0.99, 1} {
				want := exact[max(1, int(math.Ceil(q*float64(n))))-1]
				off := (h.quantile(q) - want).Abs()
				if limit := max(want/(2*histogramSteps), time.Microsecond/2) + 1; off > limit && want < 38*time.Hour {
					t.Errorf("%s, %d of them: quantile %v is %v, exactly %v: off by %v and not by %v at most", about, n, q, h.quantile(q), want, off, limit)
				}
			}
		}
	}
	var none histogram
	if none.quantile(0.5) != 0 {
		t.Error("a histogram of nothing has a median")
	}
}

func TestBucketsMeetWithoutGaps(t *testing.T) {
	t.Parallel()
	last := -1
	for us := range 1 << 20 {
		k := bucketOf(time.Duration(us) * time.Microsecond)
		if k != last && k != last+1 {
			t.Fatalf("%d µs are in bucket %d after %d", us, k, last)
		}
		last = k
	}
	if k := bucketOf(math.MaxInt64); k != histogramBuckets-1 {
		t.Errorf("the longest duration is in bucket %d of %d", k, histogramBuckets)
	}
}

// summaryOf adds requests to a summary in chunks of so many.
func summaryOf(requests []event.Event, chunk int) *summary {
	var s summary
	var in interned
	for part := range slices.Chunk(requests, chunk) {
		var t tally
		in.begin(&t)
		for i := range part {
			in.add(&t, &part[i])
		}
		s.add(&t)
	}
	return &s
}

func TestSummaryIsBoundedAndDoesNotDependOnTheChunks(t *testing.T) {
	t.Parallel()
	const routes, each = 3 * summaryRoutes, 3
	var requests []event.Event
	for i := range routes * each {
		e := event.Event{
			Service: "nova", Method: "GET", Route: fmt.Sprintf("/%d", i%routes), RecordClass: event.ClassAccess,
			Time: time.Unix(int64(1000+i), 0),
		}
		e.SetStatus(int32(200 + 100*(i%5))) // 600 is none of the classes
		e.SetDuration(time.Duration(i) * time.Millisecond)
		requests = append(requests, e)
	}
	requests = append(requests, event.Event{RecordClass: event.ClassServiceLog, Time: time.Unix(5, 0)}, event.Event{RecordClass: event.ClassUnparsed, Time: time.Unix(1, 0)})
	var want string
	for _, chunk := range []int{1, 7, 1024, len(requests)} {
		s := summaryOf(requests, chunk)
		var b bytes.Buffer
		if err := s.json(&b, nil); err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = b.String()
		} else if b.String() != want {
			t.Errorf("in chunks of %d the summary is another one", chunk)
		}
		var n int64
		var classes [statusClasses]int64
		list := s.sorted()
		for _, r := range list {
			n += r.n
			for i, k := range r.classes {
				classes[i] += k
			}
		}
		if len(list) != summaryRoutes+1 || list[summaryRoutes].key.route != otherRoute || n != routes*each || classes != [statusClasses]int64{n / 5, n / 5, n / 5, n / 5, n / 5} {
			t.Errorf("%d routes with %d requests, %v by class", len(list), n, classes)
		}
		if !s.first.Equal(time.Unix(5, 0)) || !s.last.Equal(time.Unix(1000+routes*each-1, 0)) {
			t.Errorf("time from %v to %v", s.first, s.last)
		}
	}
}

const parseLine = `2026-03-02 10:15:%02d.123 4211 INFO nova.osapi_compute.wsgi.server [req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a%02d 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - -] 192.0.2.9 "%s HTTP/1.1" status: %d len: 15 time: %s` + "\n"

// parseFile writes a file of three requests and a line that no format knows.
func parseFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nova-api.log")
	text := "\x1b]0;x\a\n" +
		fmt.Sprintf(parseLine, 30, 1, "GET /v2.1/servers/detail?limit=2", 200, "0.3120000") +
		fmt.Sprintf(parseLine, 31, 2, "OPTIONS /v2.1/", 401, "0.0010000") +
		fmt.Sprintf(parseLine, 32, 3, `DELETE /v2.1/servers/`+"\u202e\x07", 204, "12.5000000")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parseOutput runs parse in this process.
func parseOutput(t *testing.T, args ...string) (out, errs string, err error) {
	t.Helper()
	cmd := newRootCommand(builtins(t))
	var o, e bytes.Buffer
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(append([]string{"parse", "--timezone", "UTC"}, args...))
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

func TestParsePrintsLinesForPeople(t *testing.T) {
	t.Parallel()
	path := parseFile(t)
	for form, want := range map[string]string{
		"text": "" +
			"2026-03-02T10:15:30.123Z  nova        GET         200      312.0ms  192.0.2.9        1b2c3d4e5f60718293a4b5c6d7e8f901  -       /v2.1/servers/detail?limit=2\n" +
			"2026-03-02T10:15:31.123Z  nova        OPTIONS     401        1.0ms  192.0.2.9        1b2c3d4e5f60718293a4b5c6d7e8f901  identity-unverified  /v2.1/\n" +
			"2026-03-02T10:15:32.123Z  nova        DELETE      204    12500.0ms  192.0.2.9        1b2c3d4e5f60718293a4b5c6d7e8f901  -       /v2.1/servers/\\u202e\\a\n",
		"table": "" +
			"TIME                      SERVICE  METHOD   STATUS   DURATION  CLIENT     USER                              DOUBTS               REQUEST\n" +
			"2026-03-02T10:15:30.123Z  nova     GET         200    312.0ms  192.0.2.9  1b2c3d4e5f60718293a4b5c6d7e8f901  -                    /v2.1/servers/detail?limit=2\n" +
			"2026-03-02T10:15:31.123Z  nova     OPTIONS     401      1.0ms  192.0.2.9  1b2c3d4e5f60718293a4b5c6d7e8f901  identity-unverified  /v2.1/\n" +
			"2026-03-02T10:15:32.123Z  nova     DELETE      204  12500.0ms  192.0.2.9  1b2c3d4e5f60718293a4b5c6d7e8f901  -                    /v2.1/servers/\\u202e\\a\n",
	} {
		out, errs, err := parseOutput(t, "-o", form, path)
		if err != nil || out != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", form, err, out, want)
		}
		for _, w := range []string{path + `:0: no-format: \x1b]0;x\a` + "\n", " 4 lines: 4 events, 1 of them unparsed", "format: nova-eventlet 3\n", "time: 2026-03-02T10:15:30.123Z to 2026-03-02T10:15:32.123Z\n", "requests  2xx  3xx  4xx  5xx  else"} {
			if !strings.Contains(errs, w) {
				t.Errorf("%s: %q is missing in\n%s", form, w, errs)
			}
		}
		if strings.ContainsAny(out+errs, "\x1b\a") || strings.Contains(out, "\r") {
			t.Errorf("%s: %q would upset a terminal", form, out+errs)
		}
	}
	if out, _, err := parseOutput(t, "-o", "table", "--unparsed-events", path); err != nil || !strings.Contains(out, `unparsed, no-format: \x1b]0;x\a`) {
		t.Errorf("an unparsed line as an event: %v\n%s", err, out)
	}
}

func TestTableWithoutRecordsIsEmpty(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "empty.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, err := parseOutput(t, "-o", "table", path)
	if err != nil || out != "" || !strings.Contains(errs, " 0 lines: ") {
		t.Errorf("%v, printed %q, said %q", err, out, errs)
	}
}

func TestTableTakesItsWidthsFromTheFirstLines(t *testing.T) {
	t.Parallel()
	var whole, pieces bytes.Buffer
	var text strings.Builder
	for i := range 3 * tableFirst {
		fmt.Fprintf(&text, "t\tnova\tGET\t200\t%d.0ms\t%s\tü\t\t/x\n", i, strings.Repeat("a", i%7+i/tableFirst*10))
	}
	a, b := &table{w: &whole, layout: columns()}, &table{w: &pieces, layout: columns()}
	if _, err := a.Write([]byte(text.String())); err != nil || a.close() != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if _, err := b.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.close(); err != nil || whole.String() != pieces.String() {
		t.Errorf("%v; what comes in pieces is printed in another way", err)
	}
	lines := strings.Split(strings.TrimSuffix(whole.String(), "\n"), "\n")
	if len(lines) != 1+3*tableFirst {
		t.Fatalf("%d lines", len(lines))
	}
	at := len([]rune(lines[0][:strings.Index(lines[0], "REQUEST")]))
	for i, line := range lines[1 : 1+tableFirst] {
		if got := len([]rune(line[:strings.Index(line, "/x")])); got != at {
			t.Errorf("line %d: the last column begins at %d, want %d", i+1, got, at)
		}
	}
}

func TestParseSummaryForPrograms(t *testing.T) {
	t.Parallel()
	path := parseFile(t)
	_, errs, err := parseOutput(t, "--summary", "json", "--unparsed-events", path)
	var doc summaryJSON
	if err := errors.Join(err, json.Unmarshal([]byte(errs), &doc)); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	if len(doc.Routes) != 3 || doc.First == nil || doc.Last == nil || doc.Last.Sub(*doc.First) != 2*time.Second {
		t.Fatalf("%+v", doc)
	}
	for _, r := range doc.Routes {
		if r.Method == "DELETE" && (r.Class2xx != 1 || r.Requests != 1 || r.P99 == nil || *r.P99 != 12.5) {
			t.Errorf("%+v", r)
		}
	}
	for _, c := range doc.Counts {
		if c.Name == countUnparsed && (c.Reason != "no-format" || c.N != 1) {
			t.Errorf("%+v", c)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	path := parseFile(t)
	missing := filepath.Join(t.TempDir(), "missing.log")
	for _, c := range []struct {
		args  []string
		want  string
		usage bool
	}{
		{[]string{"-o", "tabel", path}, `--output: unknown value "tabel"; use json, text or table (did you mean "table"?)`, true},
		{[]string{"-o", "yaml", path}, `use json, text or table`, true},
		{[]string{"--summary", "jsn", path}, `use text or json (did you mean "json"?)`, true},
		{[]string{"--naming", "esc", path}, "--naming", true},
		{[]string{"--format", "uwgsi", path, path}, "did you mean uwsgi?", true},
		{[]string{"--timezone", "Europe/Pari", path}, "--timezone", true},
		{[]string{missing, path}, "opening " + missing + ": ", false},
		{[]string{path, filepath.Dir(path)}, "it is a directory; name the files in it", false},
	} {
		out, errs, err := parseOutput(t, c.args...)
		var exit *exitError
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &exit) == c.usage {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
		if !c.usage && (strings.Count(out, "\n") != 3 || !strings.Contains(errs, " 4 lines: ")) {
			t.Errorf("%v: what can be read is not printed: %q, %q", c.args, out, errs)
		}
	}
}

func TestProgressOfParse(t *testing.T) {
	t.Parallel()
	known, unknown := &source{size: 3 << 20}, &source{size: -1}
	for _, c := range []struct {
		sources []*source
		done    int64
		want    string
	}{
		{[]*source{known, known}, 3 << 20, "3.0 MiB of 6.0 MiB read, 50 %, 1.5 MiB/s, about 2s left"},
		{[]*source{known, unknown}, 3 << 20, "3.0 MiB read, 1.5 MiB/s"},
		{[]*source{known}, 4 << 20, "4.0 MiB read, 2.0 MiB/s"},
		{[]*source{known}, 0, "0B read, 0B/s"},
	} {
		if got := parseProgressLine(c.sources, c.done, 2*time.Second); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	var w bytes.Buffer
	s := &screen{w: &w}
	s.show("50 %")
	if _, err := s.Write([]byte("a line\n")); err != nil {
		t.Fatal(err)
	}
	s.clear()
	if want := clearLine + "50 %" + clearLine + "a line\n"; w.String() != want {
		t.Errorf("%q, want %q", w.String(), want)
	}
	if startParseProgress(s, &w, nil, nil) != nil {
		t.Error("progress is shown where there is no terminal")
	}
}

func TestFormatsPageNamesEveryFormatWithItsGrammar(t *testing.T) {
	t.Parallel()
	page, err := output(t, "docs", "formats")
	if err != nil {
		t.Fatal(err)
	}
	list, err := listFormats(builtins(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		_, about, ok := strings.Cut(page, "\n## "+f.Name+"\n")
		about, _, _ = strings.Cut(about, "\n## ")
		if !ok || !strings.Contains(about, f.Example) || !strings.Contains(about, "Source: ") || !strings.Contains(about, "`"+f.Fields[len(f.Fields)-1]+"`") {
			t.Errorf("%s: the page says %q", f.Name, about)
		}
	}
	if _, err := output(t, "docs", "formats", "x"); err == nil {
		t.Error("docs formats took an argument")
	}
	if text, err := output(t, "docs", "tail"); err != nil || !strings.Contains(text, "# tail") {
		t.Errorf("docs tail: %v", err)
	}
}
