package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stacktrail/stacktrail/plugins"
)

// Config says which program a host runs, and how.
type Config struct {
	Path               string        `yaml:"path" required:"true" doc:"The plugin's program: an absolute path, without arguments."`
	SHA256             Checksum      `yaml:"sha256" doc:"Checksum of the program in hexadecimal digits; it is refused when it differs. Empty: any."`
	Timeout            time.Duration `yaml:"timeout" min:"100ms" doc:"A call that takes longer is given up, and the plugin killed and started again."`
	AllowWorldWritable bool          `yaml:"allow_world_writable" doc:"Run the program even though everybody may change it."`
}

// DefaultConfig holds the defaults.
func DefaultConfig() Config { return Config{Timeout: 30 * time.Second} }

// SetDefaults sets the defaults, for items of a list.
func (c *Config) SetDefaults() { *c = DefaultConfig() }

// Checksum is a SHA-256 in hexadecimal digits, or empty. A type of its own takes one that YAML would have for a number.
type Checksum string

// UnmarshalText refuses what is no checksum.
func (c *Checksum) UnmarshalText(b []byte) error {
	text := strings.ToLower(string(b))
	if text != "" && !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(text) {
		return errors.New("a checksum has 64 hexadecimal digits: see sha256sum")
	}
	*c = Checksum(text)
	return nil
}

// MarshalText returns the digits.
func (c Checksum) MarshalText() ([]byte, error) { return []byte(c), nil }

const (
	startTimeout = 10 * time.Second
	stopPatience = 2 * time.Second // between SIGTERM and SIGKILL
	leastBackoff = 100 * time.Millisecond
	mostBackoff  = 30 * time.Second
	// maxDeaths: what a plugin died of so often, it will die of again.
	maxDeaths = 3
)

// Host runs one plugin program: it starts it when it is needed, and again when it is gone, for any number of instances. It is safe for
// concurrent use. Whoever made it closes it.
type Host struct {
	cfg    Config
	fields *fields
	bytes  bytesPool
	calls  sync.Pool // of *hostCall
	number atomic.Uint32
	seq    atomic.Uint64
	log    atomic.Pointer[slog.Logger]
	// secrets are taken out of all that the plugin says.
	secrets masker
	tallies tallies
	lost    chan uint32   // instances that nobody closed
	slots   chan struct{} // full when mostCalls are under way

	// alone is held for reading by a call among others, for writing by one that the process may have died of: when it dies once more, that is
	// the one.
	alone sync.RWMutex

	lock chan struct{} // guards all below; a channel, so that waiting for it ends with a context
	proc *process
	wait time.Duration // before the next start
	next time.Time     // not started before
	vain int           // processes in a row that ended before they had done any work

	tried atomic.Pointer[process] // the last one that a call had for itself: what ends it then are the events

	mu       sync.Mutex // guards all below
	starts   int64
	deaths   int64
	down     string // why it does not run, "" while it does or nobody needs it
	current  *process
	offered  describeReply
	agreed   []described         // what configurations were checked against
	killed   map[*process]string // why the agent ended it
	isClosed bool
}

// mostCalls with events are under way at a time in one process. SDKs have threads for so many: a call that waits for one in the plugin would miss
// its deadline, and the process be killed for it.
const mostCalls = 64

// NewHost makes a host. Nothing is started yet.
func NewHost(c Config, log *slog.Logger) *Host {
	h := &Host{cfg: c, fields: newFields(), lock: make(chan struct{}, 1), lost: make(chan uint32, 1024), slots: make(chan struct{}, mostCalls)}
	h.SetLog(log)
	return h
}

// SetLog says where the plugin's log goes from now on.
func (h *Host) SetLog(log *slog.Logger) {
	h.log.Store(slog.New(maskedLog{log.Handler(), &h.secrets}).With("plugin", h.Name()))
}

// Name is the name of the program.
func (h *Host) Name() string { return filepath.Base(h.cfg.Path) }

// Path is the path of the program.
func (h *Host) Path() string { return h.cfg.Path }

// Status is what is shown of a plugin's process.
type Status struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Version  string `json:"version,omitempty"`
	SDK      string `json:"sdk,omitempty"`
	PID      int    `json:"pid,omitempty"` // 0: it does not run
	Restarts int64  `json:"restarts"`
	Deaths   int64  `json:"deaths"`         // how often it ended by itself or was killed for not answering
	Down     string `json:"down,omitempty"` // why it does not run although it should
}

// Status returns the state at present.
func (h *Host) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Status{
		Name: h.Name(), Path: h.cfg.Path, Version: h.secrets.line(h.offered.Version), SDK: h.secrets.line(h.offered.SDK),
		Restarts: max(0, h.starts-1), Deaths: h.deaths, Down: h.down,
	}
	if p := h.current; p != nil {
		select {
		case <-p.done:
			s.Deaths++
			if s.Down == "" {
				s.Down = downAfter(h.endOfLocked(p))
			}
		default:
			s.PID = p.number()
		}
	}
	return s
}

// downAfter says why a plugin that ended does not run.
func downAfter(end string) string {
	return "it ended (" + end + ") and is started again for the next events"
}

// downError says that the plugin does not run.
type downError struct{ err error }

// Error says why.
func (e *downError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *downError) Unwrap() error { return e.err }

// forever is the patience of who has nothing else to do.
const forever time.Duration = math.MaxInt64

// running returns the process, and starts it if there is none. Where it cannot be started at once it waits for the next start, with so much
// patience in all; then an error says why it does not run.
func (h *Host) running(ctx context.Context, patience time.Duration) (*process, error) {
	began := time.Now()
	for {
		p, wait, err := h.tryStart(ctx)
		if err == nil || ctx.Err() != nil {
			return p, errors.Join(err, ctx.Err())
		}
		if wait > patience-time.Since(began) {
			return nil, &downError{fmt.Errorf("plugin %s does not run: %w", h.cfg.Path, err)}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// tryStart returns the process or tries once to start it, if it is time for that. wait is when to ask again.
func (h *Host) tryStart(ctx context.Context) (p *process, wait time.Duration, err error) {
	select {
	case h.lock <- struct{}{}:
		defer func() { <-h.lock }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if h.proc != nil {
		select {
		case <-h.proc.done:
			h.buryLocked()
		default:
			return h.proc, 0, nil
		}
	}
	h.mu.Lock()
	closed, down := h.isClosed, h.down
	h.mu.Unlock()
	if closed {
		return nil, mostBackoff, errors.New("the agent is stopping")
	}
	if wait := time.Until(h.next); wait > 0 {
		return nil, wait, errors.New(down)
	}
	if err := h.startLocked(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		h.backOffLocked()
		err = h.secrets.err(err)
		h.note(err)
		return nil, max(time.Until(h.next), 1), err
	}
	return h.proc, 0, nil
}

// startLocked starts the process and asks what it has. The caller holds lock.
func (h *Host) startLocked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := startProcess(ctx, h.cfg, h.log.Load())
	if err != nil {
		return err
	}
	var offered describeReply
	if err := h.ask(ctx, p, methodDescribe, describeRequest{Protocol: protocol}, &offered); err != nil {
		late := ctx.Err() != nil
		p.end()
		if late {
			return fmt.Errorf("it did not say in %v what it has", startTimeout)
		}
		return fmt.Errorf("asking what it has: %w", err)
	}
	if err := h.keepsTo(offered); err != nil {
		p.end()
		return err
	}
	h.proc = p
	h.mu.Lock()
	h.starts++
	again := h.starts > 1
	h.current, h.down, h.offered = p, "", offered
	h.mu.Unlock()
	go h.attend(p)
	if again {
		h.log.Load().Info("plugin runs again", "path", h.cfg.Path, "pid", p.number())
	}
	return nil
}

// attend waits for the end of a process, so that it is said at once, and not with the next events: there may be none for long.
func (h *Host) attend(p *process) {
	<-p.done
	h.lock <- struct{}{}
	defer func() { <-h.lock }()
	if h.proc == p {
		h.buryLocked()
	}
}

// buryLocked clears up behind a process that is gone. The caller holds lock.
func (h *Host) buryLocked() {
	p := h.proc
	p.disconnect()
	h.proc = nil
	if h.vain++; p.useful.Load() {
		h.vain = 0
	}
	// Events that end it are tried alone and then given up: their neighbours need not wait for that.
	if h.vain == 0 || h.vain <= mostVain && h.tried.Load() == p {
		h.wait = 0
	}
	h.backOffLocked()
	h.mu.Lock()
	end := h.endOfLocked(p)
	delete(h.killed, p)
	h.deaths++
	h.current, h.down = nil, downAfter(end)
	h.mu.Unlock()
	h.log.Load().Warn("plugin ended, will start it again for the next events", "path", h.cfg.Path, "exit", end, "in", time.Until(h.next).Round(time.Millisecond))
}

// mostVain is how often in a row events may end the process before it is taken for broken: maxDeaths and one more for each time that a batch of
// 32,768 events is halved.
const mostVain = 64

// give kills a process that did not answer a call and returns the error that says so.
func (h *Host) give(p *process, method string) error {
	hung := &hungError{call: path.Base(method), after: h.cfg.Timeout}
	h.mu.Lock()
	if h.killed == nil {
		h.killed = map[*process]string{}
	}
	if p == h.current && h.killed[p] == "" {
		h.killed[p] = fmt.Sprintf("killed: it did not answer %s within %v", hung.call, hung.after)
	}
	h.mu.Unlock()
	p.kill()
	return hung
}

// endOfLocked says how a process that is gone has ended. The caller holds mu.
func (h *Host) endOfLocked(p *process) string {
	if why := h.killed[p]; why != "" {
		return why
	}
	return exitText(p.exit)
}

// backOffLocked puts the next start off: twice as long each time, until a process has done some work.
func (h *Host) backOffLocked() {
	h.wait = min(max(2*h.wait, leastBackoff), mostBackoff)
	h.next = time.Now().Add(h.wait)
}

// note remembers why the plugin does not run, and says so once.
func (h *Host) note(err error) {
	text := err.Error()
	h.mu.Lock()
	was := h.down
	h.down = text
	h.mu.Unlock()
	if was != text {
		h.log.Load().Error("plugin does not start, will try again", "path", h.cfg.Path, "error", text)
	}
}

// mostJSON is the size of the largest reply of JSON that is taken.
const mostJSON = 1 << 20

// ask makes a call of JSON.
func (h *Host) ask(ctx context.Context, p *process, method string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("writing a request: %w", err)
	}
	var reply message
	if err := p.conn.Invoke(ctx, method, &message{data: b}, &reply, grpc.MaxCallRecvMsgSize(mostJSON)); err != nil {
		return h.callError(err)
	}
	defer reply.free()
	if err := json.Unmarshal(reply.data, out); err != nil {
		return fmt.Errorf("reading its reply: %w", h.secrets.err(err))
	}
	return nil
}

// callError is gRPC's error in one line.
func (h *Host) callError(err error) error {
	s := status.Convert(err)
	return &statusError{s.Code(), h.secrets.line(s.Message())}
}

// statusError is a status other than OK.
type statusError struct {
	code codes.Code
	text string
}

// Error names code and text.
func (e *statusError) Error() string { return fmt.Sprintf("%s (%s)", e.text, e.code) }

// abandon has an instance closed that nobody holds any more.
func (h *Host) abandon(id uint32) {
	select {
	case h.lost <- id:
	default: // the process keeps it until it ends
	}
}

// closeLost closes what was abandoned.
func (h *Host) closeLost(ctx context.Context, p *process) {
	for {
		select {
		case id := <-h.lost:
			var r closeReply
			_ = h.ask(ctx, p, methodClose, closeRequest{id}, &r) // there is nobody to tell
		default:
			return
		}
	}
}

// Stop ends the process. The host starts it again when it is needed.
func (h *Host) Stop() {
	h.lock <- struct{}{}
	defer func() { <-h.lock }()
	if h.proc == nil {
		return
	}
	h.proc.stop(stopPatience)
	h.proc, h.next, h.wait, h.vain = nil, time.Time{}, 0, 0
	h.tried.Store(nil)
	h.mu.Lock()
	clear(h.killed)
	h.current, h.starts, h.deaths, h.down = nil, 0, 0, ""
	h.mu.Unlock()
}

// Close ends the process for good.
func (h *Host) Close() {
	h.mu.Lock()
	h.isClosed = true
	h.mu.Unlock()
	h.Stop()
}

// Specs asks the plugin what it has and returns it as specs that behave like those of built-in plugins. The process runs afterwards.
func (h *Host) Specs(ctx context.Context) ([]plugins.Spec, error) {
	if _, _, err := h.tryStart(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	offered := h.offered
	h.mu.Unlock()
	if len(offered.Plugins) == 0 {
		return nil, errors.New("it has no plugin")
	}
	var specs []plugins.Spec
	for _, d := range offered.Plugins {
		s, err := h.spec(d)
		if err != nil {
			return nil, fmt.Errorf("its %s %q: %w", oneLine(string(d.Kind)), cut(oneLine(d.Name)), err)
		}
		specs = append(specs, s)
	}
	h.mu.Lock()
	h.agreed = offered.Plugins
	h.mu.Unlock()
	return specs, nil
}

// spec makes the spec of what a plugin describes.
func (h *Host) spec(d described) (plugins.Spec, error) {
	if !regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`).MatchString(d.Name) {
		return plugins.Spec{}, errors.New("a name begins with a small letter and has small letters, digits, '-' and '_' in it")
	}
	if d.Kind != plugins.KindProcessor && d.Kind != plugins.KindOutput {
		return plugins.Spec{}, errors.New("only processors and outputs run in a process of their own")
	}
	defaults, err := defaultsOf(d.Config)
	if err != nil {
		return plugins.Spec{}, err
	}
	linger, err := time.ParseDuration(d.Linger)
	if err != nil && d.Linger != "" {
		return plugins.Spec{}, fmt.Errorf("linger %q is no duration", cut(d.Linger))
	}
	s := plugins.Spec{
		Kind: d.Kind, Name: d.Name, Summary: oneLine(d.Summary), Defaults: defaults,
		KeepsNothing: true, // it sees a copy of everything
		KnowsIDs:     d.KnowsIDs,
	}
	s.New = func(cfg any, env plugins.Env) (any, error) {
		x, err := h.instance(d, cfg, env, linger)
		if err != nil {
			return nil, err
		}
		if d.Kind == plugins.KindOutput {
			return &output{x}, nil
		}
		return &processor{x}, nil
	}
	return s, nil
}
