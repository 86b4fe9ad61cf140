package agent

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Events of the short run and what the long one has more, and the most allocations that each of these may cost.
const (
	allocBase   = 100_000
	allocMore   = 200_000
	allocLimit  = 0.05
	allocConfig = `
agent: {state_dir: %[1]s/state, node_id: test, memory_limit: 16MiB, log: {level: error}}
pipelines:
  - name: main
    inputs:
      - tail: {paths: [%[1]s/nova-api.log], timezone: UTC}
    processors:
      - drop: {when: 'method in ["HEAD", "OPTIONS"] && api_response_code_int < 300'}
      - enrich: {set: {slo: 'api_response_code_int >= 500 ? "bad" : "good"'}}
    outputs:
      - file: {path: %[1]s/out.ndjson, rotate: {size: 0}}
`
)

// What a run allocates once cancels out between a short and a long run; what is left is the price of an event. test/bench shows
// the figure that is logged here.
func TestAllocationsPerEvent(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "64MiB") // else the agent sets the limit of this whole process
	mallocs := func(lines int) float64 {
		dir := t.TempDir()
		writeAccessLog(t, filepath.Join(dir, "nova-api.log"), lines)
		config := filepath.Join(dir, "stacktrail.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, allocConfig, dir), 0o600); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if code := run([]string{"run", "--once", "-c", config}, nil); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		runtime.ReadMemStats(&after)
		if got, want := linesOf(t, filepath.Join(dir, "out.ndjson")), lines-lines/50; got != want {
			t.Fatalf("%d records of %d lines, want %d", got, lines, want)
		}
		return float64(after.Mallocs - before.Mallocs)
	}
	mallocs(allocBase) // what happens only once in a process
	short, long := mallocs(allocBase), mallocs(allocBase+allocMore)
	perEvent := max(0, (long-short)/allocMore)
	t.Logf("allocations per event: %.5f", perEvent)
	if perEvent > allocLimit {
		t.Errorf("%.4f allocations per event (%.0f for %d events, %.0f for %d), at most %v are allowed",
			perEvent, short, allocBase, long, allocBase+allocMore, allocLimit)
	}
}

// writeAccessLog writes lines of nova-api, every fiftieth one a health check.
func writeAccessLog(t *testing.T, path string, lines int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 256<<10)
	for i := range lines {
		method, status := "GET", 200
		switch {
		case i%50 == 49:
			method = "HEAD"
		case i%200 == 37:
			status = 503
		}
		fmt.Fprintf(w, "2026-03-02 %02d:%02d:%02d.%03d 4211 INFO nova.osapi_compute.wsgi.server [None req-0f1d2c3b-4a59-4e68-9c77-%012x "+
			"1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.%d,192.0.2.2 "+
			"\"%s /v2.1/servers/detail?all_tenants=True&limit=%d HTTP/1.1\" status: %d len: %d time: 0.%07d\n",
			6+i/3600000, i/60000%60, i/1000%60, i%1000, i, 3+i%250, method, 100+i%100, status, 200+i%20000, 10000+i)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func linesOf(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		n++
	}
	return n
}
