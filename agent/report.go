package agent

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Names of the counters that inputs keep through Env.Count and that reports show.
const (
	countBytes    = "bytes"
	countTotal    = "total_bytes" // of the sources when they were opened, for the time left
	countLines    = "lines"
	countEvents   = "events"
	countUnparsed = "unparsed"
	countSkipped  = "skipped"
	countFormat   = "format"
)

// progress shows on a terminal how far run --once has come.
type progress struct {
	end  chan struct{}
	done sync.WaitGroup
}

// startProgress returns nil, which is good to stop, where out is no terminal.
func startProgress(out *os.File, pipelines []*pipeline.Pipeline) *progress {
	if !term.IsTerminal(int(out.Fd())) {
		return nil
	}
	p := &progress{end: make(chan struct{})}
	p.done.Go(func() {
		began := time.Now()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.end:
				fmt.Fprint(out, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprint(out, "\r\x1b[K", progressLine(pipelines, time.Since(began)))
			}
		}
	})
	return p
}

func (p *progress) stop() {
	if p == nil {
		return
	}
	close(p.end)
	p.done.Wait()
}

// progressLine says bytes, events, rate and time left.
func progressLine(pipelines []*pipeline.Pipeline, passed time.Duration) string {
	var bytes, total, events int64
	for _, p := range pipelines {
		for _, in := range p.Status().Inputs {
			for _, c := range in.Counts {
				switch c.Name {
				case countBytes:
					bytes += c.N
				case countTotal:
					total += c.N
				case countEvents:
					events += c.N
				}
			}
		}
	}
	s := passed.Seconds()
	line := fmt.Sprintf("%s read, %d events, %.0f events/s", human(bytes), events, float64(events)/max(s, 0.001))
	if total > bytes && bytes > 0 {
		left := time.Duration(float64(total-bytes) / float64(bytes) * float64(passed))
		line += fmt.Sprintf(", %d %%, about %v left", 100*bytes/total, left.Round(time.Second))
	}
	return line
}

// human writes bytes as people read them.
func human(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return conf.Size(n).String()
}

// report says what run --once did, by pipeline, input and output.
func report(w io.Writer, pipelines []*pipeline.Pipeline, took time.Duration) {
	for _, p := range pipelines {
		s := p.Status()
		fmt.Fprintf(w, "pipeline %s\n", s.Name)
		for _, in := range s.Inputs {
			reportInput(w, in)
		}
		for _, pr := range s.Processors {
			if text := joinCounts(pr.Counts); text != "" {
				fmt.Fprintf(w, "  processor %-12s %s\n", pr.ID, text)
			}
		}
		for _, o := range s.Outputs {
			fmt.Fprintf(w, "  output    %-12s %d offered = %d delivered + %d filtered + %d dead + %d dropped", o.ID, o.Offered, o.Delivered, o.Filtered, o.Dead, o.Dropped)
			if o.InFlight > 0 {
				fmt.Fprintf(w, " + %d not sent (%s)", o.InFlight, o.LastError)
			}
			fmt.Fprintf(w, "; %d writes, %d retries\n", o.Requests, o.Retried())
		}
	}
	fmt.Fprintf(w, "took %v\n", took.Round(time.Millisecond))
}

func reportInput(w io.Writer, in pipeline.InputStatus) {
	sum := map[string]int64{}
	var rest []pipeline.Count
	for _, c := range in.Counts {
		sum[c.Name] += c.N
		switch c.Name {
		case countBytes, countTotal, countLines, countEvents, countUnparsed, countSkipped, countFormat:
		default:
			rest = append(rest, c)
		}
	}
	fmt.Fprintf(w, "  input     %-12s %s, %d lines: %d events, %d of them unparsed; %d service lines skipped\n",
		in.ID, human(sum[countBytes]), sum[countLines], sum[countEvents], sum[countUnparsed], sum[countSkipped])
	for _, name := range []string{countFormat, countUnparsed} {
		var of []string
		for _, c := range in.Counts {
			if c.Name == name {
				of = append(of, fmt.Sprintf("%s %d", c.Reason, c.N))
			}
		}
		if len(of) > 0 {
			fmt.Fprintf(w, "            %-12s %s: %s\n", "", name, strings.Join(of, ", "))
		}
	}
	if text := joinCounts(rest); text != "" {
		fmt.Fprintf(w, "            %-12s %s\n", "", text)
	}
	for key, text := range in.Failures {
		fmt.Fprintf(w, "            %-12s %s: %s\n", "", key, text)
	}
}

func joinCounts(counts []pipeline.Count) string {
	var parts []string
	for _, c := range counts {
		name := c.Name
		if c.Reason != "" {
			name += " (" + c.Reason + ")"
		}
		parts = append(parts, fmt.Sprintf("%s %d", name, c.N))
	}
	return strings.Join(parts, ", ")
}
