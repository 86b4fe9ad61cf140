package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Serve makes the process a plugin that offers these specs, and returns when the agent ends it. It is all that main does. Started by a
// person, it says what it is and exits 1.
func Serve(specs ...plugins.Spec) {
	s, err := newServed(specs, slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  handshake(),
		VersionedPlugins: map[int]plugin.PluginSet{protocol: {pluginName: &both{service: s}}},
		GRPCServer:       newServer,
		Logger:           hclog.NewNullLogger(),
	})
}

// served is the plugin's side of the wire.
type served struct {
	*fields
	specs []plugins.Spec
	log   *slog.Logger
	calls sync.Pool // of *call
	bytes bytesPool

	mu        sync.Mutex // guards instances
	instances map[uint32]*running
}

// running is an instance.
type running struct {
	spec   plugins.Spec
	plug   any
	notes  notes
	mu     sync.Mutex // guards panics
	panics int        // calls in a row that panicked
}

func newServed(specs []plugins.Spec, log slog.Handler) (*served, error) {
	if len(specs) == 0 {
		return nil, errors.New("serving: there is no plugin to serve")
	}
	for _, s := range specs {
		if s.Kind == plugins.KindInput {
			return nil, fmt.Errorf("serving %q: inputs cannot run in a process of their own yet: build them into an agent with agent.Main", s.Name)
		}
	}
	if _, err := plugins.NewRegistry(specs...); err != nil {
		return nil, err
	}
	return &served{fields: newFields(), specs: specs, log: slog.New(log), instances: map[uint32]*running{}}, nil
}

// reply makes a message of JSON.
func reply(v any) (*message, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "writing a reply: %v", err)
	}
	return &message{data: b}, nil
}

// request reads JSON.
func request(in *message, v any) error {
	defer in.free()
	if !isObject(in.data) {
		return status.Error(codes.InvalidArgument, "reading a request: it is no JSON object")
	}
	if err := json.Unmarshal(in.data, v); err != nil {
		return status.Errorf(codes.InvalidArgument, "reading a request: %v", err)
	}
	return nil
}

func (s *served) describe(_ context.Context, in *message) (*message, error) {
	var req describeRequest
	if err := request(in, &req); err != nil {
		return nil, err
	}
	r := describeReply{SDK: "go 1"}
	if info, ok := debug.ReadBuildInfo(); ok {
		r.Version = info.Main.Version
	}
	for _, spec := range s.specs {
		r.Plugins = append(r.Plugins, describe(spec))
	}
	return reply(r)
}

func (s *served) open(ctx context.Context, in *message) (*message, error) {
	var req openRequest
	if err := request(in, &req); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.specs, func(x plugins.Spec) bool { return x.Kind == req.Kind && x.Name == req.Name })
	if i < 0 {
		return reply(openReply{Error: fmt.Sprintf("there is no %s %q here", req.Kind, req.Name)})
	}
	x := &running{spec: s.specs[i]}
	root, faults := conf.Parse("config", req.Config)
	cfg, more := conf.DecodeAny(root, x.spec.Defaults)
	if faults = append(faults, more...); len(faults) > 0 {
		return reply(openReply{Faults: faultsOf(faults)})
	}
	plug, err := safely(func() (any, error) { return x.spec.New(cfg, s.env(&req, x)) })
	if err != nil {
		return reply(openReply{Faults: faultsOf(root.Place(err, cfg))})
	}
	if _, undo := plug.(plugins.Committer); undo {
		return reply(openReply{Error: fmt.Sprintf("%s %q can cut back what it wrote, which does not work from another process: build it into an agent with agent.Main", req.Kind, req.Name)})
	}
	if req.Check {
		return reply(checked(cfg))
	}
	if o, ok := plug.(plugins.Opener); ok {
		ctx, cancel := before(ctx)
		defer cancel()
		if _, err := safely(func() (any, error) { return nil, o.Open(ctx) }); err != nil {
			if _, refuses := errors.AsType[conf.KeyError](err); refuses {
				return reply(openReply{Faults: faultsOf(root.Place(err, cfg))})
			}
			return reply(openReply{Error: err.Error()})
		}
	}
	x.plug = plug
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instances[req.Instance] = x
	return reply(openReply{})
}

// checked says what the agent wants to know of a good configuration.
func checked(cfg any) (r openReply) {
	if d, ok := cfg.(plugins.FieldDefiner); ok {
		r.Fields = kindNames(d.DefinedFields())
	}
	if w, ok := cfg.(plugins.PathWriter); ok {
		r.Writes = w.WrittenPaths()
	}
	return r
}

// env is what an instance gets.
func (s *served) env(req *openRequest, x *running) plugins.Env {
	e := req.Env
	return plugins.Env{
		Log:      s.log.With("pipeline", e.Pipeline, "id", e.ID),
		Pipeline: e.Pipeline, ID: e.ID, NodeID: e.NodeID, StateDir: e.StateDir, Once: e.Once, Repeats: e.Repeats,
		Fields: kindsByName(e.Fields),
		Encoder: func(opt schema.EncodeOptions) *schema.Encoder {
			opt.Naming = schema.Naming(e.Naming)
			return schema.NewEncoder(opt)
		},
		Count: x.notes.add, Fail: x.notes.set,
	}
}

// safely calls the plugin's own code.
func safely[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			_, _ = fmt.Fprintf(os.Stderr, "plugin panicked: %v\n%s", p, debug.Stack())
			err = &panicError{p}
		}
	}()
	return f()
}

// panicError is what a panic of the plugin becomes.
type panicError struct{ value any }

// Error says what the panic said.
func (e *panicError) Error() string { return fmt.Sprintf("plugin panicked: %v", e.value) }

func (s *served) close(_ context.Context, in *message) (*message, error) {
	var req closeRequest
	if err := request(in, &req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	x := s.instances[req.Instance]
	delete(s.instances, req.Instance)
	s.mu.Unlock()
	if x == nil {
		return reply(closeReply{})
	}
	c, ok := x.plug.(plugins.Closer)
	if !ok {
		return reply(closeReply{})
	}
	if _, err := safely(func() (any, error) { return nil, c.Close() }); err != nil {
		return reply(closeReply{Error: err.Error()})
	}
	return reply(closeReply{})
}

// call is the memory of one call.
type call struct {
	decoder
	encoder encoder
	batches []*event.Batch
	evs     []*event.Event
	before  []event.Event
	extra   []event.Field // of before
}

// begin reads a call's frame and finds its instance. The caller ends it.
func (s *served) begin(in *message) (*call, *running, error) {
	c, ok := s.calls.Get().(*call)
	if !ok {
		c = &call{decoder: decoder{fields: s.fields}, encoder: encoder{fields: s.fields}}
	}
	batches, err := c.decoder.batches(in.data, c.batches)
	if err != nil {
		in.free()
		return nil, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	c.batches, c.evs = batches, c.evs[:0]
	for _, b := range batches {
		c.evs = pointers(c.evs, b)
	}
	s.mu.Lock()
	x := s.instances[c.instance]
	s.mu.Unlock()
	if x == nil {
		in.free()
		return nil, nil, status.Errorf(codes.NotFound, "instance %d is not open", c.instance)
	}
	return c, x, nil
}

// end gives the memory of a call back: what the plugin saw only where it vows to keep nothing of it.
func (s *served) end(c *call, x *running, in *message) {
	if x.spec.KeepsNothing {
		in.free()
	} else {
		c.batches = nil
	}
	s.calls.Put(c)
}

func (s *served) process(ctx context.Context, in *message) (*message, error) {
	c, x, err := s.begin(in)
	if err != nil {
		return nil, err
	}
	defer s.end(c, x, in)
	p, ok := x.plug.(plugins.Processor)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s %q is no processor", x.spec.Kind, x.spec.Name)
	}
	ctx, cancel := before(ctx)
	defer cancel()
	c.remember()
	for _, b := range c.batches {
		if _, err = safely(func() (any, error) { return nil, p.Process(ctx, b) }); err != nil {
			break
		}
	}
	if err == nil && c.resized() {
		err = errors.New("the plugin changed the number of events: it may only mark them as dropped")
	}
	return s.bytes.frameOf(&c.encoder.writer, func() []byte {
		if err != nil {
			return c.verdict(x.notes.take(), []failure{{wholeCall, classPermanent, 0, err.Error()}})
		}
		return c.encoder.patch(c.header, x.notes.take(), c.evs, c.changed())
	}), nil
}

// remember keeps what the events are before the plugin sees them.
func (c *call) remember() {
	c.before, c.extra = c.before[:0], c.extra[:0]
	for _, b := range c.batches {
		c.before = append(c.before, b.Events...)
		for i := range b.Events {
			c.extra = append(c.extra, b.Events[i].Extra...)
		}
	}
}

func (c *call) resized() bool {
	n := 0
	for _, b := range c.batches {
		n += len(b.Events)
	}
	return n != len(c.before)
}

// changed compares the events with what they were.
func (c *call) changed() *changes {
	ch := &changes{}
	extra := c.extra
	for i, e := range c.evs {
		old := &c.before[i]
		was := extra[:len(old.Extra)]
		extra = extra[len(was):]
		if ch.dropped = ch.dropped || e.Dropped; e.Dropped {
			continue // nobody sees what else was done to it
		}
		c.compare(ch, old, e)
		if !sameExtra(was, e.Extra) {
			ch.extras(was, e.Extra)
		}
	}
	return ch
}

// compare notes which fields of an event differ.
func (c *call) compare(ch *changes, old, e *event.Event) {
	for i := range c.places {
		p, bit := &c.places[i], uint64(1)<<i
		switch {
		case ch.places&bit != 0 || p.read:
		case p.text:
			// Nearly always both are the same view: no need to look at the bytes.
			a, b := *p.string(old), *p.string(e)
			if (len(a) != len(b) || unsafe.StringData(a) != unsafe.StringData(b)) && a != b {
				ch.places |= bit
			}
		case old.Has&p.mask != e.Has&p.mask, e.Has&p.mask != 0 && p.get(old) != p.get(e):
			ch.places |= bit
		}
	}
	ch.time = ch.time || old.Time != e.Time
	ch.raw = ch.raw || event.View(old.Raw) != event.View(e.Raw)
}

func sameExtra(a, b []event.Field) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || !a[i].Value.Equal(b[i].Value) {
			return false
		}
	}
	return true
}

// extras notes which extra fields differ.
func (c *changes) extras(a, b []event.Field) {
	if c.extra == nil {
		c.extra = map[string]bool{}
	}
	find := func(l []event.Field, key string) event.Value {
		for i := range l {
			if l[i].Key == key {
				return l[i].Value
			}
		}
		return event.Value{}
	}
	for _, l := range [][]event.Field{a, b} {
		for i := range l {
			if key := l[i].Key; !find(a, key).Equal(find(b, key)) {
				c.extra[key] = true
			}
		}
	}
}

// verdict lays out a verdict.
func (c *call) verdict(notes []byte, failures []failure) []byte {
	h := c.header
	h.kind = kindVerdict
	w := &c.encoder.writer
	w.begin(h, notes)
	for _, f := range failures {
		w.fail(f)
	}
	return w.end()
}

func (s *served) write(ctx context.Context, in *message) (*message, error) {
	c, x, err := s.begin(in)
	if err != nil {
		return nil, err
	}
	defer s.end(c, x, in)
	o, ok := x.plug.(plugins.Output)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s %q is no output", x.spec.Kind, x.spec.Name)
	}
	ctx, cancel := before(ctx)
	defer cancel()
	_, err = safely(func() (any, error) { return nil, o.Write(ctx, c.evs) })
	failures := x.failures(err, len(c.evs))
	return s.bytes.frameOf(&c.encoder.writer, func() []byte { return c.verdict(x.notes.take(), failures) }), nil
}

// maxPanics is how often an output may panic on end before its events are taken apart.
const maxPanics = 3

// failures turns the answer of an output into a verdict.
func (x *running) failures(err error, n int) []failure {
	_, panicked := errors.AsType[*panicError](err)
	x.mu.Lock()
	if panicked {
		x.panics++
	} else {
		x.panics = 0
	}
	panics := x.panics
	x.mu.Unlock()
	var partial *plugins.PartialError
	switch {
	case err == nil:
		return nil
	case panics >= maxPanics:
		return []failure{{wholeCall, classPermanent, 0, err.Error()}}
	case !errors.As(err, &partial):
		return []failure{failureOf(wholeCall, err)}
	}
	var out []failure
	for i, cause := range partial.Failed {
		if i < 0 || i >= n {
			return []failure{failureOf(wholeCall, fmt.Errorf("the plugin says that event %d failed, and there are %d", i, n))}
		}
		out = append(out, failureOf(i, cause))
	}
	slices.SortFunc(out, func(a, b failure) int { return a.index - b.index })
	return out
}

func failureOf(index int, err error) failure {
	f := failure{index: index, class: classRetry}
	if err == nil {
		err = errors.New("the plugin gives no reason")
	}
	f.reason = err.Error()
	var permanent *plugins.PermanentError
	var throttle *plugins.ThrottleError
	switch {
	case errors.As(err, &permanent):
		f.class = classPermanent
	case errors.Is(err, plugins.ErrTooLarge):
		f.class = classTooLarge
	case errors.As(err, &throttle):
		f.class = classThrottle
		f.after = uint32(min(max(throttle.After, 0)/time.Millisecond, 1<<31))
		if throttle.Err != nil {
			f.reason = throttle.Err.Error()
		}
	}
	return f
}

// notes gathers what an instance counts and what is wrong with it, until the next reply takes it along.
type notes struct {
	mu    sync.Mutex
	count map[[2]string]int64
	fail  map[string]string
}

func (n *notes) add(name, reason string, by int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.count == nil {
		n.count = map[[2]string]int64{}
	}
	n.count[[2]string{name, reason}] += by
}

func (n *notes) set(key string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail == nil {
		n.fail = map[string]string{}
	}
	n.fail[key] = ""
	if err != nil {
		n.fail[key] = err.Error()
	}
}

// take returns them as JSON, nil when there are none.
func (n *notes) take() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.count) == 0 && len(n.fail) == 0 {
		return nil
	}
	var out notesJSON
	for k, v := range n.count {
		out.Count = append(out.Count, noteCount{k[0], k[1], v})
	}
	for k, v := range n.fail {
		out.Fail = append(out.Fail, noteFail{k, v})
	}
	b, err := json.Marshal(out)
	if err != nil || len(b) > maxNotes {
		return nil // so many names are no counters: they wait in vain, the events do not
	}
	clear(n.count)
	clear(n.fail)
	return b
}
