package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func lines(t *testing.T, dir string) (sample, [][]byte) {
	t.Helper()
	s, err := generate(t.Context(), dir, 600_000, 2, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	var texts [][]byte
	for _, f := range s.files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, b)
	}
	return s, texts
}

func TestGeneratedLinesAreWhatTheSampleSays(t *testing.T) {
	s, texts := lines(t, t.TempDir())
	all := string(bytes.Join(texts, nil))
	if int64(len(all)) != s.bytes || int64(strings.Count(all, "\n")) != s.lines {
		t.Errorf("%d bytes and %d lines, the sample says %d and %d", len(all), strings.Count(all, "\n"), s.bytes, s.lines)
	}
	if n := int64(strings.Count(all, " status: 503 ")); n != s.failed || n < s.lines/failEvery || n > s.lines/failEvery+2 {
		t.Errorf("%d lines failed of %d, the sample says %d", n, s.lines, s.failed)
	}
	if n := int64(strings.Count(all, `"HEAD `) + strings.Count(all, `"OPTIONS `)); n != s.healthy || n == 0 {
		t.Errorf("%d health checks, the sample says %d", n, s.healthy)
	}
	if mean := s.bytes / s.lines; mean < 290 || mean > 310 {
		t.Errorf("a line has %d bytes", mean)
	}
	ids := map[string]bool{}
	for line := range strings.Lines(all) {
		_, id, ok := strings.Cut(line, " req-")
		if !ok {
			continue
		}
		if ids[id[:36]] {
			t.Fatalf("request id %s stands twice", id[:36])
		}
		ids[id[:36]] = true
	}
	if bytes.Equal(texts[0], texts[1]) {
		t.Error("the files are equal")
	}
	if _, again := lines(t, t.TempDir()); !bytes.Equal(bytes.Join(again, nil), []byte(all)) {
		t.Error("the same arguments made other lines")
	}
}

func TestReferenceReadsAllAndWritesInProportion(t *testing.T) {
	s, texts := lines(t, t.TempDir())
	for workers := 1; workers <= 2; workers++ {
		dir := t.TempDir()
		var out bytes.Buffer
		if err := reference(&out, append([]string{strconv.Itoa(workers), "180", dir}, s.files...)); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != strconv.FormatInt(s.lines, 10) {
			t.Errorf("%d workers: %s lines, want %d", workers, got, s.lines)
		}
		for i, text := range texts {
			info, err := os.Stat(filepath.Join(dir, fmt.Sprintf("reference%d", i)))
			if err != nil {
				t.Fatal(err)
			}
			// Each block is rounded down.
			if want := int64(len(text) * 9 / 5); info.Size() > want || info.Size() < want-2 {
				t.Errorf("%d workers wrote %d bytes for %d, want %d", workers, info.Size(), len(text), want)
			}
		}
	}
}

func TestReferenceSaysWhatItCannotRead(t *testing.T) {
	err := reference(&bytes.Buffer{}, []string{"1", "180", t.TempDir(), filepath.Join(t.TempDir(), "missing")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOutputCountsOnlyIfItIsExact(t *testing.T) {
	good := strings.Repeat(`{"slo":"good"}`+"\n", 30_000) + `{"slo":"bad"}` + "\n"
	want := expected{lines: 30_002, records: 30_001, bad: 1}
	if size, err := want.output(strings.NewReader(good)); err != nil || size != int64(len(good)) {
		t.Errorf("size %d of %d, error %v", size, len(good), err)
	}
	for what, text := range map[string]string{
		"a record is missing":   good[15:],
		"a record is twice":     good + `{"slo":"good"}` + "\n",
		"a mark is missing":     strings.Replace(good, "bad", "good", 1),
		"the end is torn":       good[:len(good)-2],
		"there is half a line":  good + `{"slo`,
		"there are no newlines": strings.Repeat("x", 1<<20),
	} {
		if _, err := want.output(strings.NewReader(text)); err == nil {
			t.Errorf("%s, and nobody says so", what)
		}
	}
}

const goodReport = `pipeline bench
  input     tail         286.1 MiB, 100 lines: 100 events, 0 of them unparsed; 0 service lines skipped
            tail         format: nova-eventlet 100
  output    file         100 offered = 98 delivered + 2 filtered + 0 dead + 0 dropped; 1 writes, 0 retries
took 1s
`

func TestReportCountsOnlyIfItIsExact(t *testing.T) {
	want := expected{lines: 100, records: 98}
	if err := want.report(goodReport); err != nil {
		t.Error(err)
	}
	for _, change := range [][2]string{
		{"100 lines", "99 lines"},
		{"0 of them unparsed", "1 of them unparsed"},
		{"98 delivered", "97 delivered"},
		{"0 dead", "1 dead"},
		{"100 offered", "101 offered"},
		{"  output ", "  outptu "},
		{"  input ", ""},
	} {
		if err := want.report(strings.Replace(goodReport, change[0], change[1], 1)); err == nil {
			t.Errorf("%q for %q, and nobody says so", change[1], change[0])
		}
	}
}

const goodSummary = `{"counts":[{"name":"events","n":9},{"name":"format","reason":"a","n":4},{"name":"format","reason":"b","n":5},{"name":"lines","n":9}],"routes":[{"requests":7},{"requests":2}]}`

func TestSummaryCountsOnlyIfItIsExact(t *testing.T) {
	if err := checkSummary([]byte(goodSummary), 9); err != nil {
		t.Error(err)
	}
	for _, change := range [][2]string{
		{`"lines","n":9`, `"lines","n":8`},
		{`"events","n":9`, `"unparsed","n":9`},
		{`"a","n":4`, `"a","n":3`},
		{`"requests":2`, `"requests":1`},
		{"{", ""},
	} {
		if err := checkSummary([]byte(strings.Replace(goodSummary, change[0], change[1], 1)), 9); err == nil {
			t.Errorf("%q for %q, and nobody says so", change[1], change[0])
		}
	}
}

func TestVerdicts(t *testing.T) {
	less, more := row{goal: 2.5, must: 4}, row{goal: 0.9, must: 0.75, more: true}
	for _, c := range []struct {
		r     row
		value float64
		void  error
		want  string
	}{
		{less, 2.5, nil, goalMet},
		{less, 2.51, nil, mustMet},
		{less, 4, nil, mustMet},
		{less, 4.01, nil, missed},
		{less, 1, errors.New("void"), missed},
		{more, 0.9, nil, goalMet},
		{more, 0.89, nil, mustMet},
		{more, 0.75, nil, mustMet},
		{more, 0.74, nil, missed},
	} {
		c.r.value, c.r.void = c.value, c.void
		if got := c.r.verdict(); got != c.want {
			t.Errorf("%v of goal %v and must %v: %s, want %s", c.value, c.r.goal, c.r.must, got, c.want)
		}
	}
}

func TestTableShowsEveryBudgetAndWhyOneIsVoid(t *testing.T) {
	var out strings.Builder
	printTable(&out, []row{
		{name: "P1", what: "one", value: 3.456, unit: "R", goal: 2.5, must: 4},
		{name: "P2", what: "two", void: errors.New("no output"), goal: 1.1, must: 1.7},
	})
	for _, want := range []string{"3.46 R", "≤ 2.5", mustMet, missed, "P2 (two) is void: no output"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the table:\n%s", want, out.String())
		}
	}
}

func TestTheCheapestRunCounts(t *testing.T) {
	s := series{costs: []cost{{wall: 9 * time.Second}, {wall: time.Second}, {wall: 2 * time.Second}}}
	if got := s.least(cost.seconds); got != 1 {
		t.Errorf("least of three: %v", got)
	}
	if got := s.median(cost.seconds); got != 2 {
		t.Errorf("median of three: %v", got)
	}
	s.costs = s.costs[:2]
	if got := s.median(cost.seconds); got != 5 {
		t.Errorf("median of two: %v", got)
	}
}

func TestUnknownArgumentsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-only", "P9"}, {"-runs", "0"}, {"-size", "10"}, {"P1"}, {"-size", "a lot"}} {
		if _, err := run(args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
