package agent

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
)

// screen is standard error with a line of progress at its end, which what is written takes the place of.
type screen struct {
	mu    sync.Mutex // guards all below
	w     io.Writer
	shown bool
}

const clearLine = "\r\x1b[K"

// Write writes what stays.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearLocked()
	return s.w.Write(p)
}

// show replaces the line of progress.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprint(s.w, clearLine, line) // who cannot be shown progress can still get records
	s.shown = true
}

func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearLocked()
}

func (s *screen) clearLocked() {
	if s.shown {
		_, _ = fmt.Fprint(s.w, clearLine)
		s.shown = false
	}
}

// parseProgressEvery is how often the line of progress changes.
const parseProgressEvery = 500 * time.Millisecond

// startParseProgress shows how far parse has come. It returns nil, which is good to stop, where nobody would see it: standard error is
// no terminal, or records go to a terminal too.
func startParseProgress(s *screen, out io.Writer, sources []*source, counters *pipeline.Counters) *progress {
	if !onTerminal(s.w) || onTerminal(out) {
		return nil
	}
	p := &progress{end: make(chan struct{})}
	p.done.Go(func() {
		began := time.Now()
		tick := time.NewTicker(parseProgressEvery)
		defer tick.Stop()
		for {
			select {
			case <-p.end:
				s.clear()
				return
			case <-tick.C:
				s.show(parseProgressLine(sources, counters.Get(countBytes), time.Since(began)))
			}
		}
	})
	return p
}

func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// parseProgressLine says how many bytes are read and how fast, and how many are left where every source tells how many it has.
func parseProgressLine(sources []*source, done int64, passed time.Duration) string {
	total := int64(0)
	for _, s := range sources {
		if s.size < 0 {
			total = 0
			break
		}
		total += s.size
	}
	rate := float64(done) / max(passed.Seconds(), 0.001)
	if total == 0 || done == 0 || done > total {
		return fmt.Sprintf("%s read, %s/s", human(done), human(int64(rate)))
	}
	left := time.Duration(float64(total-done) / rate * float64(time.Second))
	return fmt.Sprintf("%s of %s read, %d %%, %s/s, about %v left", human(done), human(total), 100*done/total, human(int64(rate)), left.Round(time.Second))
}
