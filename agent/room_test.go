package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/config"
)

func TestAStartWaitsForRoomAndSaysSo(t *testing.T) {
	t.Parallel()
	m := &machine{cfg: &config.Config{}, log: slog.New(slog.DiscardHandler)}
	looks := 0
	err := m.awaitRoom(t.Context(), time.Millisecond, func() error {
		switch looks++; looks {
		case 1:
			return syscall.ENOSPC
		case 2:
			m.beat.turned = time.Now().Add(-2 * stuckLoop)
			if s := m.state(); !strings.Contains(strings.Join(s.NotReady, "\n"), "no space left") {
				t.Errorf("while it waits: %q", s.NotReady)
			}
			return syscall.EDQUOT
		}
		if s := m.state(); s.Stuck != "" {
			t.Errorf("a start that waits is taken for stuck: %s", s.Stuck)
		}
		return nil
	})
	if s := m.state(); err != nil || looks != 3 || strings.Contains(strings.Join(s.NotReady, "\n"), "room") {
		t.Errorf("after %d looks: %v, %q", looks, err, s.NotReady)
	}
}

func TestAWaitForRoomEndsWithTheAgentAndWithOtherFaults(t *testing.T) {
	t.Parallel()
	m := &machine{cfg: &config.Config{}, log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	if err := m.awaitRoom(ctx, time.Hour, func() error { stop(); return syscall.ENOSPC }); err != nil {
		t.Errorf("stopped: %v", err)
	}
	if err := m.awaitRoom(t.Context(), time.Hour, func() error { return syscall.EACCES }); !errors.Is(err, syscall.EACCES) {
		t.Errorf("no right to write: %v", err)
	}
}
