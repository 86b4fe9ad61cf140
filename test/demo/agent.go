package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// countLines counts the complete lines of every log file below dir, by the file's path below dir. What is no log is left out.
func countLines(dir string) (map[string]int, error) {
	lines := map[string]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(d.Name(), ".log") {
			return err
		}
		text, err := readLog(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		lines[name] = bytes.Count(text, []byte{'\n'})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("counting lines: %w", err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("counting lines: there are no logs in %s", dir)
	}
	return lines, nil
}

func readLog(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return b, err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return io.ReadAll(z)
}

// summary is what the agent says about its run.
type summary struct {
	lines, events, unparsed, skipped     int
	dropped                              int // by processors
	offered, delivered, filtered, failed int // of the output
	formats, reasons                     map[string]int
	took                                 time.Duration
}

// runAgent runs the agent once, with nothing of our own environment that could change what it does.
func runAgent(ctx context.Context, o options) (summary, error) {
	cmd := exec.CommandContext(ctx, o.agent, "run", "--once", "-c", o.config)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "STACKTRAIL_") || strings.HasPrefix(s, "TZ=") })
	cmd.Env = append(cmd.Env, "TZ=UTC", "STACKTRAIL_LOGS="+o.logs, "STACKTRAIL_STATE="+filepath.Join(o.dir, "state"), "STACKTRAIL_OUT="+filepath.Join(o.dir, "out"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var said bytes.Buffer
	cmd.Stderr = &said
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return summary{}, fmt.Errorf("running the agent: %w; it said:\n%s", err, said.String())
	}
	s, err := parseSummary(said.String())
	s.took = time.Since(began)
	return s, err
}

var (
	inputLine     = regexp.MustCompile(`(?m)^  input .*?, (\d+) lines: (\d+) events, (\d+) of them unparsed; (\d+) service lines skipped$`)
	formatLine    = regexp.MustCompile(`(?m)^ {6,}format: (.*)$`)
	reasonLine    = regexp.MustCompile(`(?m)^ {6,}unparsed: (.*)$`)
	processorLine = regexp.MustCompile(`(?m)^  processor .*? dropped \(when\) (\d+)`)
	outputLine    = regexp.MustCompile(`(?m)^  output .*? (\d+) offered = (\d+) delivered \+ (\d+) filtered \+ (\d+) dead \+ (\d+) dropped`)
)

// parseSummary reads what run --once prints at its end.
func parseSummary(text string) (summary, error) {
	s := summary{formats: map[string]int{}, reasons: map[string]int{}}
	in, out := inputLine.FindStringSubmatch(text), outputLine.FindStringSubmatch(text)
	if in == nil || out == nil {
		return s, fmt.Errorf("reading the agent's summary: it is not as expected:\n%s", text)
	}
	s.lines, s.events, s.unparsed, s.skipped = number(in[1]), number(in[2]), number(in[3]), number(in[4])
	s.offered, s.delivered, s.filtered, s.failed = number(out[1]), number(out[2]), number(out[3]), number(out[4])+number(out[5])
	for _, m := range processorLine.FindAllStringSubmatch(text, -1) {
		s.dropped += number(m[1])
	}
	for _, list := range []struct {
		line *regexp.Regexp
		into map[string]int
	}{{formatLine, s.formats}, {reasonLine, s.reasons}} {
		if m := list.line.FindStringSubmatch(text); m != nil {
			for part := range strings.SplitSeq(m[1], ", ") {
				if i := strings.LastIndexByte(part, ' '); i > 0 {
					list.into[part[:i]] += number(part[i+1:])
				}
			}
		}
	}
	return s, nil
}

// number reads digits that an expression has found.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// shipped is an event as it stands in the agent's file.
type shipped struct {
	EventID     string   `json:"event_id"`
	LogFile     string   `json:"log_file"`
	Format      string   `json:"format"`
	RecordClass string   `json:"record_class"`
	RequestID   string   `json:"request_id"`
	Method      string   `json:"method"`
	Path        string   `json:"path"`
	Status      int      `json:"api_response_code_int"`
	Seconds     *float64 `json:"api_response_time_num"`

	file string // that it stands in
	line []byte
}

// readEvents reads all NDJSON files of a folder. A line that is no JSON object is an error.
func readEvents(dir string) ([]shipped, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		return nil, fmt.Errorf("looking for results: %w", err)
	}
	var events []shipped
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("reading results: %w", err)
		}
		n := 0
		for line := range bytes.Lines(text) {
			n++
			e := shipped{file: filepath.Base(f), line: line}
			if err := json.Unmarshal(line, &e); err != nil {
				return nil, fmt.Errorf("reading %s, line %d: %w", f, n, err)
			}
			events = append(events, e)
		}
		if len(text) > 0 && text[len(text)-1] != '\n' {
			return nil, fmt.Errorf("reading %s: the last line has no end", f)
		}
	}
	return events, nil
}

// result is everything that is known after the run.
type result struct {
	logs, out string
	read      map[string]int // lines, by file
	said      summary
	events    []shipped
}

// check compares the demo's own counts with the agent's and with what lies on disk.
func (r result) check() error {
	var errs []error
	equal := func(what string, got, want int) {
		if got != want {
			errs = append(errs, fmt.Errorf("the numbers do not add up: %s: %d and %d", what, got, want))
		}
	}
	lines := 0
	for _, n := range r.read {
		lines += n
	}
	s := r.said
	equal("lines in the files, lines that the agent read", lines, s.lines)
	equal("lines, events and other lines together", s.lines, s.events+s.skipped)
	equal("events, shipped and dropped ones together", s.events, len(r.events)+s.dropped)
	equal("events, offered to the output", s.events, s.offered)
	equal("dropped by processors, filtered at the output", s.dropped, s.filtered)
	equal("delivered by the output, lines on disk", s.delivered, len(r.events))
	equal("dead or given up", s.failed, 0)
	twice, nameless := 0, 0
	seen := map[string]bool{}
	for _, e := range r.events {
		switch {
		case e.EventID == "" || e.LogFile == "":
			nameless++
		case seen[e.EventID]:
			twice++
		}
		seen[e.EventID] = true
	}
	equal("events that were shipped twice", twice, 0)
	equal("events without an id or a file", nameless, 0)
	return errors.Join(errs...)
}
