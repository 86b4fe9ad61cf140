package agent

import (
	"fmt"
	"io"
	"os"
	"slices"
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
	countLines    = "lines"
	countEvents   = "events"
	countUnparsed = "unparsed"
	countSkipped  = "skipped"
	countFormat   = "format"
)

// progress shows how far run --once, or a backfill, has come.
type progress struct {
	end  chan struct{}
	done sync.WaitGroup
}

// progressEvery is how often a line of progress is written where there is no terminal.
const progressEvery = 5 * time.Second

// startProgress returns nil, which is good to stop, where out is no terminal, unless lines are wanted there.
func startProgress(out *os.File, pipelines []*pipeline.Pipeline, lines bool) *progress {
	every, before, after := 500*time.Millisecond, "\r\x1b[K", ""
	if !term.IsTerminal(int(out.Fd())) {
		if !lines {
			return nil
		}
		every, before, after = progressEvery, "", "\n"
	}
	p := &progress{end: make(chan struct{})}
	p.done.Go(func() {
		began := time.Now()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-p.end:
				fmt.Fprint(out, before)
				return
			case <-tick.C:
				fmt.Fprint(out, before, progressLine(pipelines, time.Since(began), after == ""), after)
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

// barWidth is how many characters wide a progress bar is.
const barWidth = 24

// progressLine says files, bytes, events, rate and time left, with a bar for terminals. Sources whose length shows only at their ends,
// such as compressed ones, count as far as they were read.
func progressLine(pipelines []*pipeline.Pipeline, passed time.Duration, bar bool) string {
	var bytes, events, read, total int64
	done, files := 0, 0
	for _, p := range pipelines {
		for _, in := range p.Status().Inputs {
			for _, c := range in.Counts {
				switch c.Name {
				case countBytes:
					bytes += c.N
				case countEvents:
					events += c.N
				}
			}
			files += len(in.Streams)
			for i := range in.Streams {
				s := &in.Streams[i]
				read, total = read+s.Read, total+max(s.Size, s.Read)
				if s.Done || s.Read > 0 && s.Read >= s.Size {
					done++
				}
			}
		}
	}
	line := fmt.Sprintf("%d of %s, %s read, %s, %.0f events/s", done, count(files, "file"), human(bytes), count(int(events), "event"), float64(events)/max(passed.Seconds(), 0.001))
	if total == 0 || bytes == 0 {
		return line
	}
	if bar {
		full := int(barWidth * read / total)
		line = "[" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "] " + line
	}
	left := time.Duration(float64(total-read) / float64(bytes) * float64(passed))
	return line + fmt.Sprintf(", %d %%, about %v left", 100*read/total, left.Round(time.Second))
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
		case countBytes, countLines, countEvents, countUnparsed, countSkipped, countFormat:
		default:
			rest = append(rest, c)
		}
	}
	outside := int64(0)
	var apart []string
	for _, c := range in.Counts {
		if c.Name == countSkipped && slices.Contains([]string{"before_start", "after_end", "no_time"}, c.Reason) {
			outside += c.N
			apart = append(apart, fmt.Sprintf("%s %d", c.Reason, c.N))
		}
	}
	fmt.Fprintf(w, "  input     %-12s %s, %d lines: %d events, %d of them unparsed; %d service lines skipped\n",
		in.ID, human(sum[countBytes]), sum[countLines], sum[countEvents], sum[countUnparsed], sum[countSkipped]-outside)
	if outside > 0 {
		fmt.Fprintf(w, "            %-12s left out because of their time: %s\n", "", strings.Join(apart, ", "))
	}
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
