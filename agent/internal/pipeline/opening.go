package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

const (
	// openPatience is how long a start waits for what has to be opened: long enough for what works to be open, and for a plugin to say
	// what is wrong with its configuration. What takes longer is opened while the rest works.
	openPatience = 5 * time.Second
	leastReopen  = 500 * time.Millisecond
	mostReopen   = 30 * time.Second
)

// errOpening is why nothing passes before the first attempt has ended.
var errOpening = errors.New("opening takes long, and goes on")

// opening opens one output, or all processors of a pipeline, again and again until that works: a far end that is down keeps neither the
// agent nor its neighbours from working.
type opening struct {
	open  func(context.Context) error
	tell  func(error)   // is told of every attempt; nil: it is open
	tried chan struct{} // closed once there was an attempt
	done  chan struct{} // closed once it is open

	mu  sync.Mutex // guards all below, and is held while err is told
	err error      // why it is not open
	// ended: the first attempt has; late: the start went on before.
	ended, late bool
}

func newOpening(open func(context.Context) error, tell func(error)) *opening {
	return &opening{open: open, tell: tell, tried: make(chan struct{}), done: make(chan struct{}), err: errOpening}
}

// run opens until that works or ctx is done.
func (x *opening) run(ctx context.Context) {
	for wait := leastReopen; ; wait = min(2*wait, mostReopen) {
		err := x.open(ctx)
		if err != nil && ctx.Err() != nil {
			return
		}
		if x.note(err) || !sleep(ctx, wait) {
			return
		}
	}
}

// note keeps what became of an attempt and reports whether it was the last: it is open, or the start ends.
func (x *opening) note(err error) (last bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = err
	if !x.ended {
		x.ended = true
		close(x.tried)
		if _, refused := errors.AsType[*refusedError](err); refused && !x.late {
			return true // whoever started says so
		}
	}
	if err == nil {
		close(x.done)
	}
	x.tell(err)
	return err == nil
}

// await returns what became of the first attempt, nil where that takes too long for a start: this is told then.
func (x *opening) await(ctx context.Context) error {
	select {
	case <-x.tried:
	case <-ctx.Done():
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.ended {
		x.late = true
		x.tell(x.err)
		return nil
	}
	return x.err
}

// why says why it is not open; nil: it is, or there is nothing to open.
func (x *opening) why() error {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// pause waits before something is tried again, less long if it gets open meanwhile, and reports whether ctx is still good.
func (x *opening) pause(ctx context.Context, d time.Duration) bool {
	if x.why() == nil {
		return sleep(ctx, d)
	}
	short, cancel := context.WithTimeout(ctx, max(d, leastReopen)) // there is no attempt before
	defer cancel()
	select {
	case <-x.done:
	case <-short.Done():
	}
	return ctx.Err() == nil
}

// openPlugin opens a plugin, if it has to be.
func openPlugin(ctx context.Context, plug any) (err error) {
	op, ok := plug.(plugins.Opener)
	if !ok {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return op.Open(ctx)
}

// refusal is what a plugin says in Open against its configuration, at its places: nil where the configuration is not to blame.
func refusal(err error, place func(error) conf.Faults) error {
	_, key := errors.AsType[conf.KeyError](err)
	_, pointer := errors.AsType[*conf.KeyError](err)
	_, faults := errors.AsType[conf.Faults](err)
	switch {
	case !key && !pointer && !faults:
		return nil
	case place == nil:
		return err
	}
	return place(err).Err()
}

// openAll starts to open processors and outputs, and waits for a while. An error is a fault of a configuration; whatever else keeps them
// from being opened is told, and tried again until endOpening.
func (p *Pipeline) openAll(ctx context.Context) error {
	attempts, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the end of the draining
	p.stopOpening = stop
	var all []*opening
	if len(p.cfg.Processors) > 0 {
		p.procs = newOpening(p.openLanes, p.tellProcs())
		all = append(all, p.procs)
	}
	for _, o := range p.outputs {
		if _, ok := o.plug.(plugins.Opener); !ok || o.committer != nil {
			continue // one that can undo is opened when it is cut back
		}
		o.opening = newOpening(o.open, o.tellOpen)
		all = append(all, o.opening)
	}
	for _, x := range all {
		p.openers.Go(func() { x.run(attempts) })
	}
	patience, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	var faults conf.Faults
	var first error
	for _, x := range all {
		refused, ok := errors.AsType[*refusedError](x.await(patience))
		if !ok {
			continue
		}
		if first == nil {
			first = refused.error
		}
		if f, ok := errors.AsType[conf.Faults](refused.error); ok {
			faults = append(faults, f...)
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return first
}

// endOpening ends what openAll began.
func (p *Pipeline) endOpening() {
	if p.stopOpening != nil {
		p.stopOpening()
	}
	p.openers.Wait()
}

// refusedError says that a plugin refuses its configuration.
type refusedError struct{ error }

// Unwrap returns what it says.
func (e *refusedError) Unwrap() error { return e.error }

// openLanes opens the processors of all lanes. What keeps those of the first one from being opened would keep all.
func (p *Pipeline) openLanes(ctx context.Context) error {
	if err := p.lanes[0].openProcs(ctx); err != nil {
		return err
	}
	errs := make([]error, len(p.lanes))
	var rest sync.WaitGroup
	for i, l := range p.lanes[1:] {
		rest.Go(func() { errs[i] = l.openProcs(ctx) })
	}
	rest.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// tellProcs tells of the processors' opening in health, and in the log when that changes.
func (p *Pipeline) tellProcs() func(error) {
	said := ""
	return func(err error) {
		p.procFails.set(reopening, err)
		text := ""
		if err != nil {
			text = err.Error()
		}
		switch {
		case text == said:
		case err != nil:
			p.log.Error("processors cannot be opened and are tried again, events wait", "error", err)
		default:
			p.log.Info("processors are open now")
		}
		said = text
	}
}

// open opens the output.
func (o *output) open(ctx context.Context) error {
	err := openPlugin(ctx, o.plug)
	if err == nil {
		return nil
	}
	if refused := refusal(err, o.Place); refused != nil {
		return &refusedError{refused}
	}
	return fmt.Errorf("opening it: %w", err)
}

// tellOpen tells of the output's opening as of its requests.
func (o *output) tellOpen(err error) {
	if err != nil {
		o.note(err)
		return
	}
	o.mu.Lock()
	was := o.lastErr
	o.lastErr, o.failing = "", time.Time{}
	o.mu.Unlock()
	if was != "" {
		o.log.Info("output is open now")
	}
}
