package agent

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/stacktrail/stacktrail/agent/internal/monitor"
)

const (
	// stuckLoop: the loop that saves positions turns every checkpoint_interval. A disk that takes this long for it is broken.
	stuckLoop = time.Minute
	// stuckWrite: outputs give up a request long before. One that has not returned by then never will.
	stuckWrite = 15 * time.Minute
)

// serve starts metrics, health and the admin socket. Where the configuration does not name them a taken address is no reason not to
// run; and run --once then serves nothing.
func (m *machine) serve(opt runOptions) (*monitor.Server, error) {
	srv, a := &monitor.Server{}, m.cfg.Agent
	for _, part := range []struct {
		at   monitor.Config
		must bool
	}{
		{monitor.Config{Listen: a.Listen}, m.cfg.ListenSet},
		{monitor.Config{Socket: a.AdminSocket}, m.cfg.SocketSet},
	} {
		if opt.once && !part.must {
			continue
		}
		err := srv.Add(part.at, m.state, m.log)
		switch {
		case err != nil && part.must:
			srv.Close()
			return nil, err
		case err != nil:
			m.log.Warn("going on without", "error", err)
		}
	}
	return srv, nil
}

// state is what is shown of the agent.
func (m *machine) state() monitor.State {
	s := monitor.State{Version: version, PID: os.Getpid(), Started: m.started}
	longest := time.Duration(0)
	for _, p := range m.pipelines {
		st := p.Status()
		s.Pipelines = append(s.Pipelines, st)
		longest = max(longest, p.LongestWrite())
	}
	s.NotReady = monitor.NotReady(s.Pipelines)
	for _, h := range m.cfg.Hosts {
		p := h.Status()
		s.Plugins = append(s.Plugins, p)
		if p.Down != "" {
			s.NotReady = append(s.NotReady, fmt.Sprintf("plugin %s: %s", p.Path, p.Down))
		}
	}
	m.beat.mu.Lock()
	s.Checkpoint, s.SaveError = m.beat.stored, m.beat.saveError
	turned, refusal := m.beat.turned, m.beat.refusal
	m.beat.mu.Unlock()
	switch {
	case m.running.Load():
	case refusal != "":
		s.NotReady = append(s.NotReady, refusal)
	default:
		s.NotReady = append(s.NotReady, "starting: positions are compared with the logs, outputs are opened")
	}
	if s.SaveError != "" {
		s.NotReady = append(s.NotReady, "positions cannot be saved: "+s.SaveError)
	}
	switch since := time.Since(turned); {
	case since > stuckLoop+m.cfg.Agent.CheckpointInterval:
		s.Stuck = fmt.Sprintf("positions are being saved for %v", since.Round(time.Second))
	case longest > stuckWrite:
		s.Stuck = fmt.Sprintf("a write does not return for %v", longest.Round(time.Second))
	}
	return s
}

func (m *machine) turn() {
	m.beat.mu.Lock()
	defer m.beat.mu.Unlock()
	m.beat.turned = time.Now()
}

// saved notes how storing positions ended.
func (m *machine) saved(err error) {
	m.beat.mu.Lock()
	defer m.beat.mu.Unlock()
	m.beat.turned = time.Now()
	if m.beat.saveError = ""; err != nil {
		m.beat.saveError = err.Error()
		return
	}
	m.beat.stored = m.beat.turned
}

// tellSystemd passes the state on to systemd, if it started us.
func tellSystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd cannot be told", "state", state, "error", err)
	}
}

// feedWatchdog tells systemd, if it watches, that the loops turn, for as long as they do, also while the agent drains.
func (m *machine) feedWatchdog(ended <-chan struct{}) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 4)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if s := m.state(); s.Stuck != "" {
			m.log.Error("the watchdog is not fed", "reason", s.Stuck)
			continue
		}
		tellSystemd(m.log, daemon.SdNotifyWatchdog)
	}
}
