package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// parseFiles measures the command parse: what a second core gives, with one file and with four. Records go to the null device: what a
// disk or a reader takes is not the agent's. Before that what they are is compared: on two cores every byte is what it is on one.
func (b *bench) parseFiles(ctx context.Context) ([]row, error) {
	var rows []row
	for _, of := range []struct {
		name, what string
		files      int
	}{{"one", "one file", 1}, {"four", "four files", 4}} {
		x := row{name: "parse", what: "speed-up of parse by a second core, " + of.what + ", wall time", goal: 1.8, must: 1.7, unit: "times", more: true}
		s, err := b.sample(ctx, "parse-"+of.name, of.files)
		if err != nil {
			return nil, err
		}
		var cores [2]series
		if err := b.sameRecords(ctx, s); err != nil {
			if _, ok := errors.AsType[*voidError](err); !ok {
				return nil, err
			}
			x.void = err
		}
		for i := range b.runs {
			b.say("parse: run %d of %d over %s", i+1, b.runs, of.what)
			for n := range cores {
				if x.void != nil {
					continue
				}
				if err := cores[n].add(b.runParse(ctx, s, n+1, nil)); err != nil {
					return nil, err
				}
				x.void = cores[n].void
			}
		}
		b.say("")
		one, two := cores[0].least(cost.seconds), cores[1].least(cost.seconds)
		if x.void == nil {
			x.value = one / two
			x.detail = fmt.Sprintf("%.3f s → %.3f s, %.0f → %.0f MB/s", one, two, float64(s.bytes)/1e6/one, float64(s.bytes)/1e6/two)
		}
		rows = append(rows, x)
		for _, f := range s.files {
			if err := os.Remove(f); err != nil { // the next sample is as large
				return nil, fmt.Errorf("removing the lines: %w", err)
			}
		}
	}
	return rows, nil
}

// sameRecords checks that parse prints as many records as there are lines, and the same bytes on one core and on two.
func (b *bench) sameRecords(ctx context.Context, s sample) error {
	b.say("parse: comparing what one core and two print")
	var sums [2][]byte
	for n := range sums {
		h := sha256.New()
		lines := &lineCounter{}
		if _, err := b.runParse(ctx, s, n+1, io.MultiWriter(h, lines)); err != nil {
			return err
		}
		if lines.n != s.lines {
			return &voidError{fmt.Errorf("checking the output: %d records of %d lines on %d cores", lines.n, s.lines, n+1)}
		}
		sums[n] = h.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return &voidError{errors.New("checking the output: two cores print something else than one")}
	}
	return nil
}

// lineCounter counts newlines.
type lineCounter struct{ n int64 }

// Write counts.
func (c *lineCounter) Write(p []byte) (int, error) {
	c.n += int64(bytes.Count(p, []byte("\n")))
	return len(p), nil
}

// runParse runs parse over the sample on this many cores. Its error is a voidError where the agent did not do its job.
func (b *bench) runParse(ctx context.Context, s sample, cores int, out io.Writer) (cost, error) {
	cmd := exec.CommandContext(ctx, b.agent, append([]string{"parse", "--timezone", "UTC", "--summary", "json"}, s.files...)...)
	cmd.Env = programEnv(cores)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr // none is the null device
	began := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(began)}
	if ctx.Err() != nil {
		return c, ctx.Err()
	}
	if err != nil {
		return c, &voidError{fmt.Errorf("running parse: %w:\n%s", err, stderr.String())}
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err := checkSummary(stderr.Bytes(), s.lines); err != nil {
		return c, &voidError{fmt.Errorf("checking the summary of parse: %w:\n%s", err, stderr.String())}
	}
	return c, nil
}

// checkSummary checks that every line became a record and is counted.
func checkSummary(text []byte, lines int64) error {
	var doc struct {
		Counts []struct {
			Name string `json:"name"`
			N    int64  `json:"n"`
		} `json:"counts"`
		Routes []struct {
			Requests int64 `json:"requests"`
		} `json:"routes"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	got := map[string]int64{}
	for _, c := range doc.Counts {
		got[c.Name] += c.N
	}
	for _, r := range doc.Routes {
		got["requests"] += r.Requests
	}
	for _, name := range []string{"lines", "events", "format", "requests"} {
		if got[name] != lines {
			return fmt.Errorf("%s are %d, %d are right", name, got[name], lines)
		}
	}
	if got["unparsed"] != 0 {
		return fmt.Errorf("%d lines are unparsed", got["unparsed"])
	}
	return nil
}
