package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/config"
)

func TestALoopThatDoesNotTurnIsStuck(t *testing.T) {
	t.Parallel()
	m := &machine{cfg: &config.Config{}}
	if s := m.state(); len(s.NotReady) != 1 || !strings.HasPrefix(s.NotReady[0], "starting") {
		t.Errorf("before the start is over: %q", s.NotReady)
	}
	m.running.Store(true)
	m.turn()
	if s := m.state(); s.Stuck != "" || len(s.NotReady) > 0 {
		t.Errorf("a loop that has just turned: %q %q", s.Stuck, s.NotReady)
	}
	m.beat.turned = time.Now().Add(-2 * stuckLoop)
	if s := m.state(); !strings.Contains(s.Stuck, "positions are being saved for 2m") {
		t.Errorf("a loop that has not turned for long: %q", s.Stuck)
	}
	m.saved(errors.New("no space"))
	if s := m.state(); s.Stuck != "" || len(s.NotReady) != 1 || !strings.Contains(s.NotReady[0], "no space") {
		t.Errorf("positions that cannot be saved: %q %q", s.Stuck, s.NotReady)
	}
	m.saved(nil)
	if s := m.state(); len(s.NotReady) > 0 {
		t.Errorf("positions are saved again: %q", s.NotReady)
	}
}
