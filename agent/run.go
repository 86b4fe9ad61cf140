package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

type runOptions struct {
	once        bool
	strictState bool
	backfill    *backfill // with once: what is read is only a part, with a state of its own
}

// machine is a running agent.
type machine struct {
	cfg       *config.Config
	log       *slog.Logger
	store     *checkpoint.Store
	pipelines []*pipeline.Pipeline
	others    map[string]checkpoint.Pipeline // of the checkpoint, not configured now: they may come back
	keptNode  string                         // node id that was made up, kept in the checkpoint
	asked     chan struct{}                  // somebody wants a checkpoint soon
	saveFails bool                           // the last checkpoint could not be stored
	running   atomic.Bool                    // the start is over
	streams   int                            // in the last checkpoint, or what was to be it
	started   time.Time
	beat      beat
}

// beat is the sign of life of the loop that saves positions.
type beat struct {
	mu        sync.Mutex
	turned    time.Time // when the loop turned last
	stored    time.Time // when everything was stored
	saveError string
	refusal   string // why the start is not over
}

// runAgent runs a checked configuration until a signal ends it or, with once, all sources are read.
func runAgent(ctx context.Context, cfg *config.Config, opt runOptions) error {
	log := newLogger(cfg.Agent.Log)
	limitMemory(int64(cfg.Agent.MemoryLimit), 0)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	store, err := checkpoint.Open(cfg.Agent.StateDir)
	if err != nil {
		var locked *checkpoint.LockedError
		switch {
		case !errors.As(err, &locked):
		case opt.backfill != nil:
			err = fmt.Errorf("this very backfill runs already: %w", err)
		case opt.once:
			err = fmt.Errorf("%w: run --once with another agent.state_dir, or stop that agent", err)
		}
		return fail(exitFailure, err)
	}
	defer func() { _ = store.Close() }() // the lock goes with the process anyway
	if len(cfg.Hosts) > 0 {
		guard, err := rpc.StartGuard(log, "plugin", "guard")
		if err != nil {
			log.Warn("processes that plugins start may outlive the agent", "error", err)
		} else {
			defer guard.Close()
		}
	}
	for _, h := range cfg.Hosts {
		h.SetLog(log)
	}
	defer cfg.ClosePlugins()
	m := &machine{cfg: cfg, log: log, store: store, asked: make(chan struct{}, 1)}
	snap, err := m.loadState(opt)
	if err != nil {
		return err
	}
	if err := m.build(snap, opt); err != nil {
		return fail(exitFailure, err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended, handled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(handled)
		m.signals(ended, stop)
	}()
	defer func() { close(ended); <-handled }()
	m.started = time.Now()
	m.turn()
	watch, err := m.serve(opt)
	if err != nil {
		return fail(exitFailure, err)
	}
	defer watch.Close()
	if !opt.once {
		if err := m.awaitRoom(ctx, roomEvery, func() error { return m.store.TryRoom(m.startRoom()) }); err != nil {
			return fail(exitFailure, err)
		}
		if ctx.Err() != nil {
			log.Info("stopped")
			return nil
		}
	}
	if err := m.startPipelines(ctx); err != nil {
		if _, faulty := errors.AsType[conf.Faults](err); ctx.Err() == nil || faulty || opt.once {
			return fail(exitFailure, err)
		}
		log.Info("stopped while starting, nothing was saved", "error", err)
		return nil
	}
	m.save(context.WithoutCancel(ctx), 0)
	m.running.Store(true)
	tellSystemd(m.log, daemon.SdNotifyReady)
	go m.feedWatchdog(ended)
	log.Info("started", "version", version, "pipelines", len(m.pipelines), "state_dir", cfg.Agent.StateDir, "listen", watch.Addr())
	var progress *progress
	if opt.once {
		progress = startProgress(os.Stderr, m.pipelines, opt.backfill != nil)
	}
	m.runAll(ctx)
	progress.stop()
	left, unread := 0, 0
	for _, p := range m.pipelines {
		s := p.Status()
		for _, o := range s.Outputs {
			left += int(o.InFlight)
		}
		for _, in := range s.Inputs {
			unread += len(in.Failures)
		}
		p.Close()
	}
	if opt.once {
		report(os.Stderr, m.pipelines, time.Since(m.started))
	}
	if m.saveFails {
		return fail(exitFailure, errors.New("the last positions could not be saved: what was sent since the last checkpoint will be sent again"))
	}
	if opt.once && left > 0 {
		return fail(exitFailure, fmt.Errorf("%d events are left for the next start", left))
	}
	if opt.once && unread > 0 {
		return fail(exitFailure, fmt.Errorf("%d sources could not be read to their ends", unread))
	}
	if opt.once && ctx.Err() != nil {
		return fail(exitFailure, errors.New("interrupted: the same command goes on from here"))
	}
	if opt.backfill != nil {
		return fail(exitFailure, opt.backfill.finish())
	}
	log.Info("stopped")
	return nil
}

// startPipelines starts all pipelines, side by side: what keeps one waiting is no reason for another to wait. Of faults of the configuration
// all are told.
func (m *machine) startPipelines(ctx context.Context) error {
	errs := make([]error, len(m.pipelines))
	var starting sync.WaitGroup
	for i, p := range m.pipelines {
		starting.Go(func() { errs[i] = p.Start(ctx) })
	}
	starting.Wait()
	var faults conf.Faults
	var first error
	for _, err := range errs {
		if f, ok := errors.AsType[conf.Faults](err); ok {
			faults = append(faults, f...)
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		return nil
	}
	for _, p := range m.pipelines {
		p.Close()
	}
	if len(faults) > 0 {
		faults.Sort()
		return faults
	}
	return first
}

// runAll runs the pipelines and saves their state on an interval, and at the end.
func (m *machine) runAll(ctx context.Context) {
	var pipelines, saver sync.WaitGroup
	for _, p := range m.pipelines {
		pipelines.Go(func() { p.Run(ctx) })
	}
	end := make(chan struct{})
	saver.Go(func() { m.saveOnInterval(context.WithoutCancel(ctx), end) })
	pipelines.Wait()
	close(end)
	saver.Wait()
	// Tokens that came too late for the last checkpoint are stored first: new ones are taken only then.
	if !m.save(ctx, 0) {
		return
	}
	// Twice: then the generation that is kept for the case that the last one is damaged says the same.
	for range 2 {
		m.saveFrom(func(p *pipeline.Pipeline) pipeline.Snapshot { return p.Final() })
	}
}

func (m *machine) saveOnInterval(ctx context.Context, end <-chan struct{}) {
	interval := m.cfg.Agent.CheckpointInterval
	tick := time.NewTicker(interval)
	defer tick.Stop()
	atRest := false // both generations of the checkpoint say the same
	for {
		select {
		case <-end:
			return
		case <-m.asked:
			atRest = false
			// New streams wait for it: no output is asked to sync.
			m.save(ctx, 0)
		case <-tick.C:
			dirty := m.saveFails
			for _, p := range m.pipelines {
				dirty = p.Dirty() || dirty
			}
			m.turn()
			if !dirty && atRest {
				m.saved(nil)
				continue
			}
			// When nothing changes any more one more checkpoint is stored: then both generations say the same.
			atRest = !dirty
			wait := interval
			if m.saveFails {
				wait = 0
			}
			m.save(ctx, wait)
		}
	}
}

// save takes a snapshot and stores it. With wait 0 outputs are not asked for new tokens.
func (m *machine) save(ctx context.Context, wait time.Duration) bool {
	return m.saveFrom(func(p *pipeline.Pipeline) pipeline.Snapshot { return p.Snapshot(ctx, wait) })
}

// saveFrom stores what take says of every pipeline, and tells them once it is safe.
func (m *machine) saveFrom(take func(*pipeline.Pipeline) pipeline.Snapshot) bool {
	snap := &checkpoint.Snapshot{NodeID: m.keptNode, Written: time.Now().UTC(), Pipelines: map[string]checkpoint.Pipeline{}}
	maps.Copy(snap.Pipelines, m.others)
	taken := make([]pipeline.Snapshot, len(m.pipelines))
	streams := 0
	for i, p := range m.pipelines {
		taken[i] = take(p)
		snap.Pipelines[m.cfg.Pipelines[i].Name] = taken[i].Pipeline
		streams += len(taken[i].Streams)
	}
	if streams != m.streams {
		m.streams = streams
		limitMemory(int64(m.cfg.Agent.MemoryLimit), streams)
	}
	err := m.store.Save(snap)
	m.saved(err)
	if err != nil {
		if !m.saveFails {
			m.log.Error("positions cannot be saved, will retry", "error", err)
		}
		m.saveFails = true
		for _, p := range m.pipelines {
			p.SaveFailed()
		}
		return false
	}
	if m.saveFails {
		m.log.Info("positions are saved again")
	}
	m.saveFails = false
	for i, p := range m.pipelines {
		p.Stored(taken[i])
	}
	return true
}

// loadState reads the checkpoint.
func (m *machine) loadState(opt runOptions) (*checkpoint.Snapshot, error) {
	snap, damage, err := m.store.Load(opt.strictState)
	if err != nil {
		if _, ok := errors.AsType[*checkpoint.NewerError](err); ok {
			return nil, fail(exitState, err)
		}
		return nil, fail(exitFailure, err)
	}
	for _, d := range damage {
		m.log.Error("checkpoint is damaged", "error", d)
	}
	if len(damage) > 0 && snap == nil {
		if opt.strictState {
			return nil, fail(exitState, errors.New("no checkpoint is good, and --strict-state is set: nothing was changed; 'stacktrail state repair' sets aside what is damaged, after which everything is read again"))
		}
		m.log.Error("starting without any position: everything is read again")
	}
	switch {
	case snap != nil:
	case opt.backfill != nil:
		snap = opt.backfill.seed
	default:
		snap = &checkpoint.Snapshot{}
	}
	return snap, nil
}

// build makes the pipelines.
func (m *machine) build(snap *checkpoint.Snapshot, opt runOptions) error {
	node := m.cfg.Agent.NodeID
	if node == "" {
		node, m.keptNode = nodeID(snap.NodeID)
	}
	var opts []event.PoolOption
	if !m.cfg.KeepsNothing {
		opts = append(opts, event.Forget)
	}
	pool := event.NewPool(int64(m.cfg.Agent.MemoryLimit), opts...)
	m.others = maps.Clone(snap.Pipelines)
	for _, c := range m.cfg.Pipelines {
		p, err := pipeline.New(c, pipeline.Deps{
			Log: m.log, Pool: pool, NodeID: node, StateDir: m.cfg.Agent.StateDir, Once: opt.once,
			StopTimeout: m.cfg.Agent.StopTimeout, DeadLetter: newDeadLetter, DeadLetterMax: int64(m.cfg.Agent.DeadLetterMax), State: snap.Pipelines[c.Name],
			RequestSnapshot: func() {
				select {
				case m.asked <- struct{}{}:
				default:
				}
			},
		})
		if err != nil {
			return fmt.Errorf("building pipeline %q: %w", c.Name, err)
		}
		m.pipelines = append(m.pipelines, p)
		delete(m.others, c.Name)
	}
	for name := range m.others {
		m.log.Info("checkpoint has a pipeline that is not configured, its positions are kept", "pipeline", name)
	}
	for _, w := range renamed(snap, m.cfg) {
		m.log.Warn(w)
	}
	return nil
}

// renamed says what looks like another name for what the checkpoint knows, and what that means: a pipeline or an input of a new name
// begins anew.
func renamed(snap *checkpoint.Snapshot, cfg *config.Config) (warnings []string) {
	missing := maps.Clone(snap.Pipelines)
	for _, p := range cfg.Pipelines {
		delete(missing, p.Name)
	}
	for _, p := range cfg.Pipelines {
		known, is := snap.Pipelines[p.Name]
		if !is {
			if len(missing) > 0 {
				warnings = append(warnings, fmt.Sprintf("pipeline %s is new, and the checkpoint knows %s, which is not configured: if that is another name for the same, everything is read and sent again",
					p.Name, strings.Join(slices.Sorted(maps.Keys(missing)), ", ")))
			}
			continue
		}
		gone := map[string]bool{}
		for _, s := range known.Streams {
			if !slices.ContainsFunc(p.Inputs, func(in pipeline.InputConfig) bool { return in.ID == s.Input }) {
				gone[s.Input] = true
			}
		}
		for _, in := range p.Inputs {
			if len(gone) > 0 && !slices.ContainsFunc(known.Streams, func(s checkpoint.Stream) bool { return s.Input == in.ID }) {
				warnings = append(warnings, fmt.Sprintf("input %s of pipeline %s is new, and the checkpoint knows %s, which is not configured: if that is another name for the same, everything is read and sent again",
					in.ID, p.Name, strings.Join(slices.Sorted(maps.Keys(gone)), ", ")))
			}
		}
	}
	return warnings
}

// nodeID returns the machine id, else the one that the checkpoint kept, else a new random one. kept is what the checkpoint has
// to keep from now on.
func nodeID(stored string) (id, kept string) {
	if stored != "" {
		return stored, stored
	}
	if b, err := os.ReadFile("/etc/machine-id"); err == nil {
		if id := strings.TrimSpace(string(b)); len(id) == 32 {
			return id, ""
		}
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails: see crypto/rand
	id = hex.EncodeToString(b)
	return id, id
}

// oneStop: timeout(1) and shells send a signal to a process and to its group; within this time that is one wish, not two.
const oneStop = 200 * time.Millisecond

// signals handles signals until the agent has ended.
func (m *machine) signals(ended <-chan struct{}, stop func()) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Stop(ch)
	var stopping time.Time // when the stop was asked for
	for {
		select {
		case <-ended:
			return
		case s := <-ch:
			switch s {
			case syscall.SIGHUP:
				m.log.Warn("reload is not built yet, HUP is ignored")
			case syscall.SIGUSR1:
				m.log.Info("reopening output files")
				for _, p := range m.pipelines {
					p.Reopen()
				}
			default:
				if !stopping.IsZero() && time.Since(stopping) < oneStop {
					continue
				}
				if !stopping.IsZero() {
					m.log.Error("stopped at once by a second signal", "signal", s.String())
					os.Exit(exitFailure)
				}
				stopping = time.Now()
				tellSystemd(m.log, daemon.SdNotifyStopping)
				m.log.Info("stopping", "signal", s.String(), "timeout", m.cfg.Agent.StopTimeout)
				stop()
			}
		}
	}
}

func newLogger(c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration allows no other word
	}
	opt := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opt))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opt))
}

// perStream is room for what the agent keeps of a stream: 5 KiB with ten thousand of them, on top of what a few take.
const perStream = 6 << 10

// limitMemory tells the garbage collector of memory_limit, which is for batches, and of what streams take beside it: a limit below
// what lives would have it collect all the time. Most data is recycled, so collections are rare; GOMEMLIMIT and GOGC of the user
// go first.
func limitMemory(limit int64, streams int) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit + limit/2 + int64(streams)*perStream)
	}
}
