package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// instance is one of a plugin's, on the agent's side. It is opened in the process before its first call, and again in every new process.
type instance struct {
	host *Host
	env  plugins.Env
	open openRequest

	// What a check of the configuration told.
	fields map[string]event.Kind
	writes []string
	linger time.Duration

	mu  sync.Mutex // guards all below
	at  *process   // in which it is open
	bad string     // why it cannot be opened
	// watched: the process is told when nobody holds the instance any more without having closed it.
	watched bool
}

// instance makes an instance. Where a configuration is only checked (there is no StateDir), the plugin is asked what it thinks of it.
func (h *Host) instance(d described, cfg any, env plugins.Env, linger time.Duration) (*instance, error) {
	h.secrets.learn(cfg)
	config, err := configJSON(cfg)
	if err != nil {
		return nil, err
	}
	x := &instance{host: h, env: env, linger: linger, open: openRequest{
		Instance: h.number.Add(1), Kind: d.Kind, Name: d.Name, Config: config,
		Env: openEnv{
			Pipeline: env.Pipeline, ID: env.ID, NodeID: env.NodeID, StateDir: env.StateDir, Once: env.Once, Repeats: env.Repeats,
			Fields: kindNames(env.Fields),
		},
	}}
	if env.Encoder != nil {
		x.open.Env.Naming = string(env.Encoder(schema.EncodeOptions{}).Options().Naming)
	}
	if x.open.Env.Naming == "" {
		x.open.Env.Naming = string(schema.OVH)
	}
	if env.StateDir == "" {
		if err := x.check(); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// check asks the plugin about the configuration.
func (x *instance) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), x.host.cfg.Timeout)
	defer cancel()
	p, err := x.host.running(ctx, 0)
	if err != nil {
		return err
	}
	req := x.open
	req.Check = true
	var r openReply
	if err := x.host.ask(ctx, p, methodOpen, req, &r); err != nil {
		if ctx.Err() != nil {
			err = x.host.give(p, methodOpen)
		}
		return fmt.Errorf("plugin %s cannot say whether this is right: %w", x.host.cfg.Path, err)
	}
	if err := r.err(&x.host.secrets); err != nil {
		return err
	}
	x.fields, x.writes = kindsByName(r.Fields), r.Writes
	return nil
}

// DefinedFields are the extra fields that the plugin says it defines.
func (x *instance) DefinedFields() map[string]event.Kind { return maps.Clone(x.fields) }

// WrittenPaths are the paths that the plugin says it writes.
func (x *instance) WrittenPaths() []string { return x.writes }

// DefaultLinger is the default of batch.linger that the plugin asks for.
func (x *instance) DefaultLinger() time.Duration { return x.linger }

// processor is a processor in a process of its own.
type processor struct{ *instance }

// output is an output in a process of its own.
type output struct{ *instance }

// ensureOpen opens the instance in a process, if it is not open there. What keeps it from that, but for the end of ctx and what others did to
// the process, is an openError.
func (x *instance) ensureOpen(ctx context.Context, p *process) error {
	open, cancel := context.WithTimeout(ctx, x.host.cfg.Timeout)
	defer cancel()
	err := x.openIn(open, p)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err() // whoever called has no more time: that is nobody's fault
	}
	err = x.host.ended(open, p, methodOpen, err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errAside) {
		return err
	}
	return &openError{err}
}

// openError is why an instance is not open: what its events wait for, and do not die of.
type openError struct{ err error }

// Error says why.
func (e *openError) Error() string {
	if _, refused := errors.AsType[*refusedError](e.err); refused {
		return e.err.Error()
	}
	return "the plugin cannot be opened: " + e.err.Error()
}

// Unwrap returns the cause.
func (e *openError) Unwrap() error { return e.err }

// openIn opens the instance in a process, if it is not open there.
func (x *instance) openIn(ctx context.Context, p *process) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at == p {
		return nil
	}
	x.host.closeLost(ctx, p)
	var r openReply
	if err := x.host.ask(ctx, p, methodOpen, x.open, &r); err != nil {
		return err
	}
	if err := r.err(&x.host.secrets); err != nil {
		return &refusedError{err}
	}
	if !x.watched {
		x.watched = true
		runtime.AddCleanup(x, x.host.abandon, x.open.Instance)
	}
	x.at = p
	return nil
}

// refusedError is why the plugin does not open an instance.
type refusedError struct{ err error }

// Error says what the plugin said.
func (e *refusedError) Error() string { return "the plugin does not open: " + e.err.Error() }

// Unwrap returns what the plugin said.
func (e *refusedError) Unwrap() error { return e.err }

// tell shows in the health of the instance why it cannot work; nil: it can.
func (x *instance) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	x.mu.Lock()
	changed := text != x.bad
	x.bad = text
	x.mu.Unlock()
	if changed && x.env.Fail != nil {
		x.env.Fail("plugin "+x.env.ID, err)
	}
	if err != nil && x.env.Count != nil {
		x.env.Count("plugin_waits", "", 1)
	}
	if changed && err != nil && x.env.Log != nil {
		x.env.Log.Error("the plugin cannot work, will try again", "error", text)
	}
}

// hostCall is the memory of one call.
type hostCall struct {
	encoder encoder
	decoder decoder
	evs     []*event.Event
}

func (h *Host) newCall() *hostCall {
	if c, ok := h.calls.Get().(*hostCall); ok {
		return c
	}
	return &hostCall{encoder: encoder{fields: h.fields}, decoder: decoder{fields: h.fields}}
}

// Errors of a call that say what became of the process.
var (
	errDied  = errors.New("the plugin ended")
	errAside = errors.New("the plugin was ended because of another call")
)

// hungError is that of a call which was not answered in time: the agent has killed the process for it.
type hungError struct {
	call  string
	after time.Duration
	times int // on the same events; 0: it is not known what it hangs on
}

// Error says what became of the process, and why.
func (e *hungError) Error() string {
	if e.times > 0 {
		return fmt.Sprintf("the plugin did not answer within %v, %d times on these events (call %s), and was killed for it each time", e.after, e.times, e.call)
	}
	return fmt.Sprintf("the plugin did not answer within %v (call %s) and was killed for it", e.after, e.call)
}

// try makes one call with events. On success the caller frees the reply, which d has read.
func (x *instance) try(ctx context.Context, p *process, method string, c *hostCall) (*message, error) {
	if err := x.ensureOpen(ctx, p); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, x.host.cfg.Timeout)
	defer cancel()
	h := header{instance: x.open.Instance, sequence: x.host.seq.Add(1), count: len(c.evs)}
	in := x.host.bytes.frameOf(&c.encoder.writer, func() []byte { return c.encoder.batch(h, c.evs) })
	if len(in.data) > maxFrame {
		return nil, plugins.ErrTooLarge
	}
	size := len(in.data) // what was sent is not ours any more
	reply := new(message)
	if err := p.conn.Invoke(call, method, in, reply, grpc.MaxCallRecvMsgSize(mostReply(size, len(c.evs)))); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, x.host.ended(call, p, method, x.host.callError(err))
	}
	err := c.decoder.parse(reply.data)
	if err == nil {
		err = wrongReply(c.decoder.header, h)
	}
	if err == nil && c.decoder.kind == kindBatch {
		err = bad("a batch is no reply")
	}
	if err == nil {
		err = c.decoder.check()
	}
	if err == nil {
		err = c.decoder.bound(c.evs, size)
	}
	if err != nil {
		reply.free()
		return nil, fmt.Errorf("reading the plugin's reply: %w", x.host.secrets.err(err))
	}
	p.useful.Store(true)
	x.take(&c.decoder.said)
	return reply, nil
}

// ended says what a call's error has to do with the process. A process that did not answer in time is killed.
func (h *Host) ended(ctx context.Context, p *process, method string, err error) error {
	var s *statusError
	var refused *refusedError
	if errors.As(err, &s) && s.code == codes.DeadlineExceeded {
		<-ctx.Done() // the other side looked at its clock a moment earlier
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		if p.killed.Load() {
			p.kill()
			p.gone()
			return errAside
		}
		hung := h.give(p, method)
		p.gone()
		return hung
	case errors.As(err, &refused), s == nil: // it did answer
		return err
	case s.code != codes.Unavailable && s.code != codes.Internal && s.code != codes.Canceled && s.code != codes.Unknown:
		return err
	case !p.gone():
		return err
	case p.killed.Load():
		return errAside
	}
	return fmt.Errorf("%w: %s", errDied, exitText(p.exit))
}

// call makes a call until the plugin has answered. What the process dies of is tried again by itself, so that it is known whose fault it is:
// after maxDeaths the error says so. hangs: so many deadlines may pass.
func (x *instance) call(ctx context.Context, method string, c *hostCall, patient bool, hangs int) (*message, error) {
	deaths, hung, suspect := 0, 0, false
	for wait := leastBackoff; ; {
		reply, err := x.once(ctx, method, c, patient, suspect)
		var closed *openError
		var hang *hungError
		switch {
		case err == nil:
			x.tell(nil)
			return reply, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &closed): // whatever it is, the events are not at fault
			if !patient {
				return nil, err
			}
			x.tell(err)
			if !pause(ctx, wait) {
				return nil, ctx.Err()
			}
			wait = min(2*wait, mostBackoff)
		case errors.Is(err, errAside):
		case errors.Is(err, errDied):
			if suspect {
				deaths++
			}
			if suspect = true; deaths >= maxDeaths {
				return nil, fmt.Errorf("%w %d times on these events", err, deaths)
			}
		case errors.As(err, &hang):
			if hung++; hung >= hangs {
				if hangs > 1 {
					hang.times = hung
				}
				return nil, hang
			}
		default:
			return nil, err
		}
	}
}

// once makes a call once. alone: while no other call runs.
func (x *instance) once(ctx context.Context, method string, c *hostCall, patient, alone bool) (*message, error) {
	for {
		// Who waits for the process to start keeps nobody else waiting.
		if _, err := x.running(ctx, patient, alone); err != nil {
			return nil, err
		}
		reply, err := x.locked(ctx, method, c, alone)
		if _, down := errors.AsType[*downError](err); !down || !patient {
			return reply, err
		}
	}
}

// locked makes a call with the lock that it needs, if the process runs or starts at once.
func (x *instance) locked(ctx context.Context, method string, c *hostCall, alone bool) (*message, error) {
	select {
	case x.host.slots <- struct{}{}:
		defer func() { <-x.host.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if alone {
		x.host.alone.Lock()
		defer x.host.alone.Unlock()
	} else {
		x.host.alone.RLock()
		defer x.host.alone.RUnlock()
	}
	p, err := x.host.running(ctx, 0)
	if err != nil {
		return nil, err
	}
	if alone {
		x.host.tried.Store(p)
	}
	return x.try(ctx, p, method, c)
}

// shortPatience: a process that ended is back after about so long, in less time than it would take to call again.
const shortPatience = time.Second

// running returns the process. Who is not patient waits a moment all the same, and longer for the next one after it died of his own call: what he
// knows of its deaths would be lost.
func (x *instance) running(ctx context.Context, patient, alone bool) (*process, error) {
	switch {
	case patient:
		return x.host.running(ctx, forever)
	case alone:
		return x.host.running(ctx, max(x.host.cfg.Timeout, shortPatience))
	}
	return x.host.running(ctx, shortPatience)
}

// pause waits and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Process has the plugin process the events that are not dropped. It waits for as long as the plugin does not start; an error means that the
// plugin failed on these events.
func (x *processor) Process(ctx context.Context, b *event.Batch) error {
	c := x.host.newCall()
	c.evs = pointers(c.evs[:0], b)
	if len(c.evs) == 0 {
		return nil
	}
	reply, err := x.call(ctx, methodProcess, c, true, maxDeaths)
	if err == nil {
		defer x.host.calls.Put(c)
		defer reply.free()
		if c.decoder.kind == kindVerdict {
			err = x.failed(&c.decoder, len(c.evs), &x.host.secrets)
		}
	}
	if err != nil {
		x.closeHere(ctx)
		return err
	}
	c.decoder.apply(b.Arena(), c.evs)
	return nil
}

// failed is the error of a processor's verdict.
func (x *processor) failed(d *decoder, n int, secrets *masker) error {
	if len(d.failures) == 0 {
		return errors.New("the plugin answers Process with a verdict in which nothing failed")
	}
	f := d.failures[0]
	if f.index == wholeCall || n == 1 {
		return textError(secrets.line(f.reason))
	}
	return fmt.Errorf("event %d: %s", f.index, secrets.line(f.reason))
}

// closeHere closes an instance that failed: the lane makes a fresh one.
func (x *instance) closeHere(ctx context.Context) {
	x.mu.Lock()
	p, id := x.at, x.open.Instance
	x.at, x.open.Instance, x.watched = nil, x.host.number.Add(1), false
	x.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case <-p.done:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	var r closeReply
	_ = x.host.ask(ctx, p, methodClose, closeRequest{id}, &r) // what it failed with is told
}

// Close closes the instance in the plugin.
func (x *instance) Close() error {
	x.mu.Lock()
	p := x.at
	x.at = nil
	x.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil // with all that it held
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), x.host.cfg.Timeout)
	defer cancel()
	var r closeReply
	if err := x.host.ask(ctx, p, methodClose, closeRequest{x.open.Instance}, &r); err != nil {
		if ctx.Err() != nil {
			err = x.host.give(p, methodClose)
		}
		return fmt.Errorf("closing it in plugin %s: %w", x.host.cfg.Path, err)
	}
	if r.Error != "" {
		return textError(x.host.secrets.line(r.Error))
	}
	return nil
}

// Open opens the instance. That the plugin refuses is an error; anything else that keeps it from that is told, and tried again with the first call.
func (x *instance) Open(ctx context.Context) error {
	p, err := x.host.running(ctx, 0)
	if err == nil {
		err = x.ensureOpen(ctx, p)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, refused := errors.AsType[*refusedError](err); refused {
		return err
	}
	x.tell(err)
	return nil
}

// Write has the plugin write the events.
func (x *output) Write(ctx context.Context, events []*event.Event) error {
	c := x.host.newCall()
	c.evs = append(c.evs[:0], events...)
	reply, err := x.call(ctx, methodWrite, c, false, 1)
	var down *downError
	var closed *openError
	switch {
	case errors.As(err, &down), errors.As(err, &closed):
		x.tell(err)
		return err
	case errors.Is(err, errDied):
		return &plugins.PermanentError{Err: err}
	case err != nil:
		return err
	}
	defer x.host.calls.Put(c)
	defer reply.free()
	if c.decoder.kind != kindVerdict {
		return errors.New("the plugin answers Write with something else than a verdict")
	}
	return verdictError(c.decoder.failures, &x.host.secrets)
}

// verdictError turns a verdict into what an output says.
func verdictError(failures []failure, secrets *masker) error {
	if len(failures) == 0 {
		return nil
	}
	if failures[0].index == wholeCall {
		return failures[0].err(secrets)
	}
	failed := make(map[int]error, len(failures))
	for _, f := range failures {
		failed[f.index] = f.err(secrets)
	}
	return &plugins.PartialError{Failed: failed}
}

// err is one failure as an error.
func (f failure) err(secrets *masker) error {
	cause := error(textError(secrets.line(f.reason)))
	if f.reason == "" {
		cause = errors.New("the plugin gives no reason")
	}
	switch f.class {
	case classPermanent:
		return &plugins.PermanentError{Err: cause}
	case classThrottle:
		return &plugins.ThrottleError{Err: cause, After: time.Duration(f.after) * time.Millisecond}
	case classTooLarge:
		return fmt.Errorf("%w: %w", plugins.ErrTooLarge, cause)
	}
	return cause
}
