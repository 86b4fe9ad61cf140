package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

const (
	// outputRoom is what a start writes for an output at least: a block for its journal, one for that of its dead letter.
	outputRoom = 2 * 4096
	// roomEvery is how often a start that waits for room looks again.
	roomEvery = time.Second
	// moreTime asks systemd for as much time as several such looks take.
	moreTime = "EXTEND_TIMEOUT_USEC=60000000"
)

// startRoom is how much the state directory has to take before the outputs are opened: their journals, and two checkpoints.
func (m *machine) startRoom() int {
	n := 2 * m.store.Size()
	for i := range m.cfg.Pipelines {
		n += (len(m.cfg.Pipelines[i].Outputs) + 1) * outputRoom
	}
	return n
}

// awaitRoom returns when try succeeds, or ctx is done. An output that cuts back has to have its journal on the disk before it writes:
// without it nobody could take back what is written now, and after a crash it would be there twice. So a start on a full disk waits
// with everything as it is.
func (m *machine) awaitRoom(ctx context.Context, every time.Duration, try func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for waited := false; ; waited = true {
		err := try()
		m.turn()
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			m.setRefusal("")
			if waited && err == nil {
				m.log.Info("there is room in the state directory again")
			}
			return err
		}
		if !waited {
			m.log.Error("the start waits until there is room in the state directory: nothing is read or sent before", "state_dir", m.cfg.Agent.StateDir, "error", err)
			m.setRefusal(fmt.Sprintf("the start waits until there is room in the state directory: %v", err))
		}
		tellSystemd(m.log, moreTime)
		if watched, _ := daemon.SdWatchdogEnabled(false); watched > 0 {
			tellSystemd(m.log, daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// setRefusal notes why the start is not over; "" is no particular reason.
func (m *machine) setRefusal(why string) {
	m.beat.mu.Lock()
	defer m.beat.mu.Unlock()
	m.beat.refusal = why
}
