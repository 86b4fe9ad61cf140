package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"

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
	p, err := x.host.running(ctx, false)
	if err != nil {
		return err
	}
	req := x.open
	req.Check = true
	var r openReply
	if err := p.ask(ctx, methodOpen, req, &r); err != nil {
		if ctx.Err() != nil {
			p.kill()
		}
		return fmt.Errorf("plugin %s cannot say whether this is right: %w", x.host.cfg.Path, err)
	}
	if err := r.err(); err != nil {
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

// openIn opens the instance in a process, if it is not open there.
func (x *instance) openIn(ctx context.Context, p *process) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at == p {
		return nil
	}
	x.host.closeLost(ctx, p)
	var r openReply
	if err := p.ask(ctx, methodOpen, x.open, &r); err != nil {
		return err
	}
	if err := r.err(); err != nil {
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
	errHung  = errors.New("the plugin did not answer")
	errAside = errors.New("the plugin was ended because of another call")
)

// try makes one call with events. On success the caller frees the reply, which d has read.
func (x *instance) try(ctx context.Context, p *process, method string, c *hostCall) (*message, error) {
	ctx, cancel := context.WithTimeout(ctx, x.host.cfg.Timeout)
	defer cancel()
	if err := x.openIn(ctx, p); err != nil {
		return nil, p.ended(ctx, err)
	}
	h := header{instance: x.open.Instance, sequence: x.host.seq.Add(1), count: len(c.evs)}
	in := x.host.bytes.frameOf(&c.encoder.writer, func() []byte { return c.encoder.batch(h, c.evs) })
	if len(in.data) > maxFrame {
		return nil, plugins.ErrTooLarge
	}
	reply := new(message)
	if err := p.conn.Invoke(ctx, method, in, reply); err != nil {
		return nil, p.ended(ctx, callError(err))
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
	if err != nil {
		reply.free()
		return nil, fmt.Errorf("reading the plugin's reply: %w", err)
	}
	p.useful.Store(true)
	x.take(&c.decoder.said)
	return reply, nil
}

// ended says what a call's error has to do with the process. A process that did not answer in time is killed.
func (p *process) ended(ctx context.Context, err error) error {
	var s *statusError
	var refused *refusedError
	if errors.As(err, &s) && s.code == codes.DeadlineExceeded {
		<-ctx.Done() // the other side looked at its clock a moment earlier
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		aside := p.killed.Load()
		p.kill()
		p.gone()
		if aside {
			return errAside
		}
		return errHung
	case errors.As(err, &refused):
		return err
	case errors.As(err, &s) && s.code != codes.Unavailable && s.code != codes.Internal && s.code != codes.Canceled && s.code != codes.Unknown:
		return err
	case !p.gone():
		return err
	case p.killed.Load():
		return errAside
	}
	return fmt.Errorf("%w: %s", errDied, exitText(p.exit))
}

// take passes on what the plugin counts and what it complains of.
func (x *instance) take(n *notesJSON) {
	const most = 100 // each name is a series of metrics
	for _, c := range n.Count[:min(len(n.Count), most)] {
		if c.name != "" && c.by > 0 && x.env.Count != nil {
			x.env.Count(cut(oneLine(c.name)), cut(oneLine(c.reason)), c.by)
		}
	}
	for _, f := range n.Fail[:min(len(n.Fail), most)] {
		if x.env.Fail == nil {
			break
		}
		if f.text == "" {
			x.env.Fail(cut(oneLine(f.key)), nil)
		} else {
			x.env.Fail(cut(oneLine(f.key)), textError(oneLine(f.text)))
		}
	}
}

// call makes a call until the plugin has answered. What the process dies of is tried again by itself, so that it is known whose fault it is:
// after maxDeaths the error says so. hangs: so many deadlines may pass.
func (x *instance) call(ctx context.Context, method string, c *hostCall, patient bool, hangs int) (*message, error) {
	deaths, hung, suspect := 0, 0, false
	for wait := leastBackoff; ; {
		reply, err := x.once(ctx, method, c, patient, suspect)
		var refused *refusedError
		switch {
		case err == nil:
			x.tell(nil)
			return reply, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errAside):
		case errors.Is(err, errDied):
			if suspect {
				deaths++
			}
			if suspect = true; deaths >= maxDeaths {
				return nil, fmt.Errorf("%w %d times on these events", err, deaths)
			}
		case errors.Is(err, errHung):
			if hung++; hung >= hangs {
				return nil, fmt.Errorf("%w within %v, %d times on these events", err, x.host.cfg.Timeout, hung)
			}
		case patient && errors.As(err, &refused):
			x.tell(err)
			if !pause(ctx, wait) {
				return nil, ctx.Err()
			}
			wait = min(2*wait, mostBackoff)
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
	p, err := x.host.running(ctx, false)
	if err != nil {
		return nil, err
	}
	return x.try(ctx, p, method, c)
}

// running returns the process. Who is not patient waits all the same, if not for ever, for the next one after it died of his own call: what he
// knows of its deaths would be lost.
func (x *instance) running(ctx context.Context, patient, alone bool) (*process, error) {
	if patient || !alone {
		return x.host.running(ctx, patient)
	}
	short, cancel := context.WithTimeout(ctx, x.host.cfg.Timeout)
	defer cancel()
	p, err := x.host.running(short, true)
	if err != nil && ctx.Err() == nil {
		return x.host.running(ctx, false)
	}
	return p, err
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
			err = x.failed(&c.decoder, len(c.evs))
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
func (x *processor) failed(d *decoder, n int) error {
	if len(d.failures) == 0 {
		return errors.New("the plugin answers Process with a verdict in which nothing failed")
	}
	f := d.failures[0]
	if f.index == wholeCall || n == 1 {
		return textError(oneLine(f.reason))
	}
	return fmt.Errorf("event %d: %s", f.index, oneLine(f.reason))
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
	_ = p.ask(ctx, methodClose, closeRequest{id}, &r) // what it failed with is told
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
	if err := p.ask(ctx, methodClose, closeRequest{x.open.Instance}, &r); err != nil {
		if ctx.Err() != nil {
			p.kill()
		}
		return fmt.Errorf("closing it in plugin %s: %w", x.host.cfg.Path, err)
	}
	if r.Error != "" {
		return textError(oneLine(r.Error))
	}
	return nil
}

// Open opens the instance. That the plugin refuses is an error; that its process does not run is told, and tried again with the first call.
func (x *instance) Open(ctx context.Context) error {
	open, cancel := context.WithTimeout(ctx, x.host.cfg.Timeout)
	defer cancel()
	p, err := x.host.running(open, false)
	if err == nil {
		err = x.openIn(open, p)
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
	switch {
	case errors.Is(err, errDied):
		return &plugins.PermanentError{Err: err}
	case err != nil:
		var down *downError
		var refused *refusedError
		if errors.As(err, &down) || errors.As(err, &refused) {
			x.tell(err)
		}
		return err
	}
	defer x.host.calls.Put(c)
	defer reply.free()
	if c.decoder.kind != kindVerdict {
		return errors.New("the plugin answers Write with something else than a verdict")
	}
	return verdictError(c.decoder.failures)
}

// verdictError turns a verdict into what an output says.
func verdictError(failures []failure) error {
	if len(failures) == 0 {
		return nil
	}
	if failures[0].index == wholeCall {
		return failures[0].err()
	}
	failed := make(map[int]error, len(failures))
	for _, f := range failures {
		failed[f.index] = f.err()
	}
	return &plugins.PartialError{Failed: failed}
}

// err is one failure as an error.
func (f failure) err() error {
	cause := error(textError(oneLine(f.reason)))
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
