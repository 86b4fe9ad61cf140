// Package pipeline runs pipelines: inputs send batches through lanes of processors to the queues of outputs, whose runners write
// and retry. It keeps a cursor for every stream and output, and the accounts of every record. Start reading at Pipeline.Run,
// which also holds the order in which everything stops.
package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/ledger"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config says what a pipeline is made of. Ids are unique in the pipeline.
type Config struct {
	Name       string
	Inputs     []InputConfig
	Processors []ProcessorConfig
	Outputs    []OutputConfig
}

// InputConfig is an input with the policies that stand beside its key.
type InputConfig struct {
	ID, Type string
	Set      []event.Field // constant fields
	Build    func(plugins.Env) (plugins.Input, error)
}

// ProcessorConfig is a processor. Build is called once for each lane, and again after a failure.
type ProcessorConfig struct {
	ID, Type string
	Build    func(plugins.Env) (plugins.Processor, error)
	// Place puts what Open says against the configuration at its keys.
	Place func(error) conf.Faults
}

// OutputConfig is an output with the policies that the runner owns.
type OutputConfig struct {
	ID, Type string
	When     *eval.Condition // nil: everything
	Batch    Batch
	Queue    Queue
	Retry    Retry
	Workers  int
	// DeadLetter says that events which the output refuses for good are kept.
	DeadLetter bool
	Build      func(plugins.Env) (plugins.Output, error)
	// Place puts what Open says against the configuration at its keys.
	Place func(error) conf.Faults
}

// Batch limits what one call of an output's Write holds.
type Batch struct {
	Events int           `yaml:"events" min:"1" doc:"Most events in one write."`
	Bytes  conf.Size     `yaml:"bytes" min:"1KiB" doc:"About how much one write holds at most, encoded."`
	Linger time.Duration `yaml:"linger" doc:"How long a write that is not full waits for more events."`
}

// Queue bounds what waits for an output.
type Queue struct {
	Bytes  conf.Size `yaml:"bytes" min:"64KiB" doc:"How much waits for the output, in memory."`
	OnFull string    `yaml:"on_full" enum:"block|drop|reread|spool" doc:"What happens when the queue is full: block waits, drop counts and goes on."`
}

// Values of Queue.OnFull that are built.
const (
	OnFullBlock = "block"
	OnFullDrop  = "drop"
)

// Retry says how failed writes are tried again.
type Retry struct {
	Initial time.Duration `yaml:"initial" min:"1ms" doc:"Longest wait before the first retry; it doubles with each one."`
	Max     time.Duration `yaml:"max" min:"1ms" doc:"Longest wait between retries."`
	Limit   time.Duration `yaml:"limit" doc:"After this long an event goes to the dead letter; 0s: never."`
}

// Deps is what a pipeline needs from the agent.
type Deps struct {
	Log         *slog.Logger
	Pool        *event.Pool
	NodeID      string
	StateDir    string
	Once        bool          // read to the end of every source and stop
	StopTimeout time.Duration // for draining
	// DeadLetter makes the output behind a dead letter; nil: dead events are only counted and logged.
	DeadLetter func(path string, env plugins.Env) (plugins.Committer, error)
	// DeadLetterMax is how many bytes the dead letters of one output may take; 0: any number.
	DeadLetterMax int64
	// State is what the checkpoint knows of the pipeline.
	State checkpoint.Pipeline
	// RequestSnapshot asks the agent for a checkpoint soon.
	RequestSnapshot func()
}

// Pipeline is a running pipeline.
type Pipeline struct {
	Deps
	cfg          Config
	log          *slog.Logger
	inputs       []*input
	outputs      []*output
	procCounters []Counters
	procFails    failures
	encoders     []encoderUse
	dead         *deadLetter         // for events that die in a processor
	deadToken    []byte              // of dead; only snapshots touch it
	stored       checkpoint.Pipeline // what the last snapshot that is safe on disk says; only Stored touches it
	saveFails    chan struct{}       // guarded by mu; closed while snapshots cannot be stored
	dirty        atomic.Bool         // something changed since the last snapshot
	procs        *opening            // of all lanes; nil: there are none
	openers      sync.WaitGroup      // what opens plugins
	stopOpening  func()              // ends openers; nil: Start was not called

	mu      sync.Mutex // guards the three below
	streams map[string]*stream
	lanes   []*lane
	laneOf  map[string]*lane
}

// encoderUse is an encoder with the outputs that share it.
type encoderUse struct {
	enc   *schema.Encoder
	users event.Set
}

// New builds a pipeline and its plugins. Nothing outside is touched until Start.
func New(cfg Config, d Deps) (*Pipeline, error) {
	p := &Pipeline{
		Deps: d, cfg: cfg, log: d.Log.With("pipeline", cfg.Name),
		procCounters: make([]Counters, len(cfg.Processors)),
		saveFails:    make(chan struct{}), streams: map[string]*stream{}, laneOf: map[string]*lane{},
	}
	for i, c := range cfg.Outputs {
		if err := p.addOutput(i, c); err != nil {
			return nil, err
		}
	}
	for _, c := range cfg.Inputs {
		in := &input{InputConfig: c, p: p}
		env := p.env(c.ID, &in.counters, &in.fails)
		env.Streams = in
		plug, err := c.Build(env)
		if err != nil {
			return nil, fmt.Errorf("building input %q: %w", c.ID, err)
		}
		in.plug = plug
		in.replayer, _ = plug.(plugins.Replayer)
		p.inputs = append(p.inputs, in)
	}
	for range max(2, 2*runtime.GOMAXPROCS(0)) {
		l, err := p.newLane()
		if err != nil {
			return nil, err
		}
		p.lanes = append(p.lanes, l)
	}
	if err := p.addDeadLetters(); err != nil {
		return nil, err
	}
	p.recall()
	return p, nil
}

// env is what an instance gets.
func (p *Pipeline) env(id string, c *Counters, f *failures) plugins.Env {
	env := plugins.Env{
		Log: p.log.With("id", id), Pipeline: p.cfg.Name, ID: id, NodeID: p.NodeID, Once: p.Once, Pool: p.Pool,
		Count: c.Add, Fail: p.procFails.set,
	}
	if f != nil {
		env.Fail = f.set
	}
	if p.StateDir != "" {
		env.StateDir = filepath.Join(p.StateDir, "plugins", p.cfg.Name, id)
	}
	return env
}

func (p *Pipeline) addOutput(i int, c OutputConfig) error {
	o := &output{
		OutputConfig: c, index: i, log: p.log.With("id", c.ID), dirty: &p.dirty, room: make(chan struct{}), retries: map[string]int64{}, writing: map[*runner]time.Time{},
		ledgers: map[string]*ledger.Ledger{}, held: map[*item]struct{}{}, touched: map[string]struct{}{}, stable: stable{moved: map[string]event.Position{}},
	}
	env := p.env(c.ID, &o.counters, &o.fails)
	env.Encoder = func(opt schema.EncodeOptions) *schema.Encoder { return p.encoder(i, opt) }
	plug, err := c.Build(env)
	if err != nil {
		return fmt.Errorf("building output %q: %w", c.ID, err)
	}
	o.plug = plug
	o.committer, _ = plug.(plugins.Committer)
	n := max(1, c.Workers)
	if o.committer != nil {
		n = 1
	}
	for range n {
		o.runners = append(o.runners, newRunner(o))
	}
	p.outputs = append(p.outputs, o)
	return nil
}

// encoder gives outputs with equal wishes the same encoder.
func (p *Pipeline) encoder(output int, opt schema.EncodeOptions) *schema.Encoder {
	for k := range p.encoders {
		if p.encoders[k].enc.Options() == opt {
			p.encoders[k].users |= 1 << output
			return p.encoders[k].enc
		}
	}
	enc := schema.NewEncoder(opt)
	p.encoders = append(p.encoders, encoderUse{enc, 1 << output})
	return enc
}

func (p *Pipeline) addDeadLetters() error {
	if p.DeadLetter == nil {
		return nil
	}
	add := func(id, path string, fails *failures, log *slog.Logger) (*deadLetter, error) {
		env := p.env(id, new(Counters), nil)
		env.Log = log
		env.StateDir = filepath.Join(p.StateDir, "dead", p.cfg.Name, id+".state")
		env.Encoder = schema.NewEncoder
		path = filepath.Join(p.StateDir, "dead", p.cfg.Name, path)
		out, err := p.DeadLetter(path, env)
		if err != nil {
			return nil, fmt.Errorf("building the dead letter of %q: %w", id, err)
		}
		return &deadLetter{out: out, output: id, path: path, max: p.DeadLetterMax, fail: fails.set, log: log}, nil
	}
	var err error
	for _, o := range p.outputs {
		if !o.DeadLetter {
			continue
		}
		if o.dead, err = add(o.ID, o.ID+".ndjson", &o.fails, o.log); err != nil {
			return err
		}
	}
	p.dead, err = add("", "processors.ndjson", &p.procFails, p.log) // which processor it was, each event says
	return err
}

// recall takes over what the checkpoint knows. An output that it does not know starts where the most advanced of the others
// stands. One that was not configured for a while goes on where it stood: streams that came meanwhile it gets from their
// beginning.
func (p *Pipeline) recall() {
	if len(p.State.Streams) > 0 {
		for _, o := range p.outputs {
			if _, known := p.State.Outputs[o.ID]; !known {
				p.log.Info("new output starts where the others stand", "id", o.ID)
			}
		}
	}
	for _, s := range p.State.Streams {
		in := p.inputByID(s.Input)
		if in == nil {
			continue // its input is not configured any more; carried over by Snapshot
		}
		st := &stream{in: in, durable: make(chan struct{}), at: make([]event.Position, len(p.outputs)), stale: true}
		close(st.durable)
		st.Stream = plugins.Stream{Name: s.Name, Lane: s.Lane, Meta: s.Meta, Drained: s.Drained}
		st.lane = p.laneLocked(s.Lane)
		st.absent = maps.Clone(s.Cursors)
		var most event.Position
		for _, c := range s.Cursors {
			if c.Seq >= most.Seq {
				most = position(c)
			}
		}
		for _, o := range p.outputs {
			at := most
			if _, known := p.State.Outputs[o.ID]; known {
				at = event.Position{}
			}
			if c, ok := s.Cursors[o.ID]; ok {
				at = position(c)
			}
			o.openStream(s.Name, at)
			delete(st.absent, o.ID)
		}
		p.streams[s.Name] = st
	}
}

func position(c checkpoint.Cursor) event.Position {
	return event.Position{Seq: c.Seq, Token: string(c.Token)}
}

func (p *Pipeline) inputByID(id string) *input {
	for _, in := range p.inputs {
		if in.ID == id {
			return in
		}
	}
	return nil
}

// streamInfo returns what is kept of a stream.
func (p *Pipeline) streamInfo(name string) plugins.Stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.streams[name]; st != nil {
		return st.Stream
	}
	return plugins.Stream{Name: name}
}

// Start opens the processors and the outputs and cuts those that can undo back to the checkpoint. Nothing is sent before it has returned.
// What cannot be opened now is opened later, and its events wait, unless a plugin refuses its configuration.
func (p *Pipeline) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.endOpening()
		}
	}()
	if err := p.openAll(ctx); err != nil {
		return err
	}
	for _, o := range p.outputs {
		known := p.State.Outputs[o.ID]
		refuse := ""
		if known.Token != nil || known.DeadToken != nil {
			if refuse, err = p.unreadable(ctx, o); err != nil {
				return err
			}
		}
		if err := o.start(ctx, known.Token, known.DeadToken, refuse); err != nil {
			return err
		}
		// From here on there is a state to cut back to, even if the next checkpoint is the first one.
		o.commit()
	}
	if p.dead != nil {
		p.deadToken = p.State.Outputs[""].DeadToken
		if err := restore(p.dead.out, p.deadToken, "", p.dead.log); err != nil {
			return fmt.Errorf("restoring the dead letter of the processors: %w", err)
		}
	}
	return nil
}

// unreadable says which stream could not be read again after an output was cut back; "" when all can. The error is that of ctx: the question
// was not answered, so nothing may be done to the output.
func (p *Pipeline) unreadable(ctx context.Context, o *output) (string, error) {
	for _, s := range p.State.Streams {
		if s.Drained {
			continue
		}
		in := p.inputByID(s.Input)
		if in == nil || in.replayer == nil {
			return fmt.Sprintf("input %q cannot read stream %s again", s.Input, s.Name), nil
		}
		at, _ := o.position(s.Name)
		err := in.replayer.CanReplay(ctx, p.streamInfo(s.Name), at)
		switch {
		case err != nil && ctx.Err() != nil:
			return "", ctx.Err()
		case errors.Is(err, plugins.ErrLater):
			p.log.Warn("a source cannot be read at present: what is missing of it comes later", "stream", s.Name, "error", err)
		case err != nil:
			return err.Error(), nil
		}
	}
	return "", nil
}

// Run runs the pipeline until ctx is done or, with Once, until every source is read to its end; then it drains. It returns when
// nothing of it runs any more. What could not be sent is named in the log.
func (p *Pipeline) Run(ctx context.Context) {
	// Everything stops in this order: inputs, then the queues drain, then, at the deadline, what still hangs is cut off.
	writeCtx, cutOff := context.WithCancel(context.WithoutCancel(ctx))
	defer cutOff()
	defer p.endOpening()
	var runners, inputs sync.WaitGroup
	for _, o := range p.outputs {
		for _, r := range o.runners {
			runners.Go(func() { r.run(writeCtx) })
		}
	}
	for _, in := range p.inputs {
		inputs.Go(func() { in.run(ctx) })
	}
	inputs.Wait()
	for _, o := range p.outputs {
		o.close()
	}
	drained := make(chan struct{})
	go func() {
		runners.Wait()
		close(drained)
	}()
	defer func() {
		for _, o := range p.outputs {
			o.tellEnd()
		}
	}()
	select {
	case <-drained:
		return
	case <-ctx.Done():
	}
	deadline := time.NewTimer(p.StopTimeout)
	defer deadline.Stop()
	select {
	case <-drained:
	case <-deadline.C:
		p.log.Warn("stop timeout passed, leaving the rest for the next start", "timeout", p.StopTimeout)
		cutOff()
		<-drained
	}
	p.tellLeft()
}

// run runs the input, again and again when it fails.
func (in *input) run(ctx context.Context) {
	all := event.All(len(in.p.outputs))
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := in.runOnce(ctx, &sink{in, all})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if in.p.Once {
				return
			}
			in.p.log.Info("input has nothing more to read", "id", in.ID)
			return
		}
		in.p.log.Error("input failed, will run it again", "id", in.ID, "error", err, "in", wait)
		in.fails.set("run", err)
		if !sleep(ctx, wait) {
			return
		}
		in.fails.set("run", nil)
	}
}

func (in *input) runOnce(ctx context.Context, s plugins.Sink) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return in.plug.Run(ctx, s)
}

// tellLeft names what is left for the next start: by stream, the place up to which each output has it.
func (p *Pipeline) tellLeft() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, st := range p.streams {
		for _, o := range p.outputs {
			if at, head := o.position(name); at.Seq < head.Seq {
				p.log.Warn("left for the next start", "id", o.ID, "file", st.Lane, "stream", name, "from", at.Seq, "to", head.Seq)
			}
		}
	}
}

// buryOne writes an event that died in a processor to the pipeline's dead letter.
func (p *Pipeline) buryOne(ctx context.Context, e *event.Event, cause error) bool {
	reason, id := cause.Error(), ""
	if x, ok := errors.AsType[*processorError](cause); ok {
		id = x.id
	}
	p.log.Error("an event died in a processor", "id", id, "error", reason, "stream", e.Batch().Stream, "offset", e.Offset)
	if p.dead == nil {
		return true
	}
	p.dead.mu.Lock()
	defer p.dead.mu.Unlock()
	return p.dead.writeLocked(ctx, []deadEvent{{positionOnly(e), reason, id}})
}

// Reopen has outputs let go of their files.
func (p *Pipeline) Reopen() {
	for _, o := range p.outputs {
		if r, ok := o.plug.(plugins.Reopener); ok {
			r.Reopen()
		}
	}
}

// Close closes all plugins. Run has returned, or was never called.
func (p *Pipeline) Close() {
	p.endOpening()
	for _, in := range p.inputs {
		p.closeOne(in.ID, in.plug)
	}
	for _, l := range p.lanes {
		l.closeProcs()
	}
	for _, o := range p.outputs {
		p.closeOne(o.ID, o.plug)
		if o.dead != nil {
			p.closeOne(o.ID, o.dead.out)
		}
	}
	if p.dead != nil {
		p.closeOne("", p.dead.out)
	}
}

func (p *Pipeline) closeOne(id string, v any) {
	if c, ok := v.(plugins.Closer); ok {
		if err := c.Close(); err != nil {
			p.log.Warn("closing failed", "id", id, "error", err)
		}
	}
}

// Status returns the accounts of everything. Each output's are of one moment.
func (p *Pipeline) Status() Status {
	s := Status{Name: p.cfg.Name}
	for _, in := range p.inputs {
		s.Inputs = append(s.Inputs, InputStatus{in.ID, in.Type, in.counters.All(), in.fails.all(), p.streamsOf(in)})
	}
	for i, c := range p.cfg.Processors {
		s.Processors = append(s.Processors, ProcessorStatus{c.ID, c.Type, p.procCounters[i].All()})
	}
	s.Failures = p.procFails.all()
	for _, o := range p.outputs {
		s.Outputs = append(s.Outputs, o.status())
	}
	return s
}

// LongestWrite is how long the oldest of the present writes has lasted.
func (p *Pipeline) LongestWrite() (d time.Duration) {
	for _, o := range p.outputs {
		d = max(d, o.longestWrite())
	}
	return d
}

// streamsOf says how far an input's open streams are, ordered by source.
func (p *Pipeline) streamsOf(in *input) []StreamStatus {
	sizes := map[string]plugins.Source{}
	if m, ok := in.plug.(plugins.Measurer); ok {
		for _, s := range m.Sources() {
			sizes[s.Stream] = s
		}
	}
	var all []StreamStatus
	p.mu.Lock()
	for name, st := range p.streams {
		if st.in != in {
			continue
		}
		s := StreamStatus{Name: name, Source: st.Lane, Size: -1, At: map[string]int64{}, Done: st.Drained}
		for _, o := range p.outputs {
			at, head := o.position(name)
			s.At[o.ID], s.Read = at.Seq, max(s.Read, head.Seq)
		}
		all = append(all, s)
	}
	p.mu.Unlock()
	for i := range all {
		s := &all[i]
		if src, open := sizes[s.Name]; open {
			// It was measured before the positions were taken.
			s.Source, s.Size, s.Written = src.Name, src.Size, src.Written
			if s.Size >= 0 {
				s.Size = max(s.Size, s.Read)
			}
		}
	}
	slices.SortFunc(all, func(a, b StreamStatus) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Name, b.Name))
	})
	return all
}
