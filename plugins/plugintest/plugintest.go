package plugintest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// patience is how long something may take that must happen; prompt is how soon a plugin returns when its context is done.
const (
	patience = 20 * time.Second
	prompt   = time.Second
)

// Option tells a suite what it cannot know.
type Option func(*options)

type options struct {
	prepare func(dir string) error
	observe func(dir string) []byte
	env     func(*plugins.Env)
	batches func() []*event.Batch
}

// Prepare fills an instance's directory before the instance is built.
func Prepare(f func(dir string) error) Option { return func(o *options) { o.prepare = f } }

// Observe reads what the instance that was configured with dir has at its far end. Results of two instances are compared.
func Observe(f func(dir string) []byte) Option { return func(o *options) { o.observe = f } }

// Env changes what instances get from the agent.
func Env(f func(*plugins.Env)) Option { return func(o *options) { o.env = f } }

// Batches brings the sample batches, which must be equal at each call and belong to no pool.
func Batches(f func() []*event.Batch) Option { return func(o *options) { o.batches = f } }

func collect(opts []Option) *options {
	o := &options{batches: samples}
	for _, f := range opts {
		f(o)
	}
	return o
}

func samples() []*event.Batch {
	var all []*event.Batch
	for i := range 4 {
		b := Events(25)
		b.Stream = fmt.Sprintf("stream%d", i)
		all = append(all, b)
	}
	return all
}

// Instance is a plugin that Build made.
type Instance struct {
	Plugin any
	Dir    string // $DIR of its configuration
	Env    plugins.Env
}

// Build makes an instance with a directory of its own; see the package comment for cfg. It closes nothing.
func Build(t testing.TB, spec plugins.Spec, cfg any, opts ...Option) Instance {
	t.Helper()
	return build(t, spec, cfg, collect(opts), t.TempDir())
}

func build(t testing.TB, spec plugins.Spec, cfg any, o *options, dir string) Instance {
	t.Helper()
	if o.prepare != nil {
		if err := o.prepare(dir); err != nil {
			t.Fatalf("preparing %s: %v", dir, err)
		}
	}
	encoders := map[schema.EncodeOptions]*schema.Encoder{}
	env := plugins.Env{
		Log: slog.New(slog.DiscardHandler), Pipeline: "test", ID: spec.Name, NodeID: "node", StateDir: dir + "/state",
		Pool: event.NewPool(64 << 20), Streams: NewStreams(), Fields: map[string]event.Kind{},
		Encoder: func(opt schema.EncodeOptions) *schema.Encoder {
			if encoders[opt] == nil {
				encoders[opt] = schema.NewEncoder(opt)
			}
			return encoders[opt]
		},
		Count: func(string, string, int64) {}, Fail: func(string, error) {},
	}
	if o.env != nil {
		o.env(&env)
	}
	switch c := cfg.(type) {
	case nil:
		cfg = spec.Defaults
	case string:
		n, faults := conf.Parse("test.yaml", []byte(strings.ReplaceAll(c, "$DIR", dir)))
		if err := faults.Err(); err != nil {
			t.Fatalf("reading configuration: %v", err)
		}
		v, faults := conf.DecodeAny(n, spec.Defaults)
		if err := faults.Err(); err != nil {
			t.Fatalf("reading configuration: %v", err)
		}
		cfg = v
	}
	p, err := spec.New(cfg, env)
	if err != nil {
		t.Fatalf("building %s %q: %v", spec.Kind, spec.Name, err)
	}
	return Instance{p, dir, env}
}

// start opens an instance, if it wants that.
func start(t testing.TB, p any) {
	t.Helper()
	if x, ok := p.(plugins.Opener); ok {
		if err := x.Open(context.Background()); err != nil {
			t.Fatalf("Open: %v", err)
		}
	}
}

func stop(t testing.TB, p any) {
	t.Helper()
	if x, ok := p.(plugins.Closer); ok {
		if err := x.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// Batch returns a batch from pool (or one that belongs to none) whose arena holds the lines, one event each, with Raw and Offset
// set. The caller is its one owner.
func Batch(pool *event.Pool, stream string, lines ...string) *event.Batch {
	n := 0
	for _, l := range lines {
		n += len(l) + 1
	}
	var b *event.Batch
	if pool == nil {
		b = event.NewBatch(stream)
	} else {
		var err error
		if b, err = pool.Get(context.Background(), n); err != nil {
			panic(fmt.Sprintf("BUG: getting a batch: %v", err))
		}
		b.Stream = stream
	}
	block := b.Arena().Block(n)
	at := 0
	for _, l := range lines {
		copy(block[at:], l)
		block[at+len(l)] = '\n'
		e := b.Append()
		e.Raw, e.Offset = block[at:at+len(l):at+len(l)], int64(at)
		at += len(l) + 1
	}
	b.Span = event.Span{To: event.Position{Seq: int64(n)}}
	b.ReadAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return b
}

// Events returns a batch of n access events that belongs to no pool, with fields of each type, all strings in its arena. Every
// tenth event is unparsed.
func Events(n int) *event.Batch {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(`192.0.2.%d GET /v2.1/servers/%d limit=%d nova req-%08d`, i%250, i, i*3, i)
	}
	b := Batch(nil, "sample", lines...)
	for i := range b.Events {
		e := &b.Events[i]
		if i%10 == 9 {
			e.RecordClass, e.Error = event.ClassUnparsed, "no format matched"
			e.Set("message", event.StringValue(b.Arena().Copy(e.Raw)))
			continue
		}
		words := strings.Fields(event.View(e.Raw)) // views into the arena
		e.Client, e.Method, e.Path, e.Query, e.Service, e.RequestID = words[0], words[1], words[2], words[3], words[4], words[5]
		e.RecordClass, e.Kind = event.ClassAccess, "compute-api"
		e.Time = time.Date(2026, 1, 2, 3, 4, i%60, 0, time.UTC)
		e.SetStatus(int32(200 + i%4*100))
		e.SetSize(int64(i) * 100)
		e.SetDuration(time.Duration(i) * time.Millisecond)
		e.SetBool(event.BoolIdentityUnverified, i%7 == 0)
		e.Set("route", event.StringValue(b.Arena().CopyString("/servers/{id}")))
		e.Set("roles", event.ListValue([]string{b.Arena().CopyString("reader"), b.Arena().CopyString("member")}))
	}
	return b
}

// Encode returns the batch's events that are not dropped, as NDJSON with their offsets.
func Encode(b *event.Batch) string {
	enc := schema.NewEncoder(schema.EncodeOptions{Newline: true, EventID: true})
	var out []byte
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped {
			out = fmt.Appendf(out, "%d ", e.Offset)
			out = enc.Append(out, e)
		}
	}
	return string(out)
}

// pointers lists a batch's events as an output gets them.
func pointers(b *event.Batch) []*event.Event {
	var all []*event.Event
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

// spoil overwrites all that a call was shown: the arena, and the events themselves.
func spoil(b *event.Batch) {
	b.Arena().Poison()
	for i := range b.Events {
		e := &b.Events[i]
		for j := range e.Extra {
			e.Extra[j] = event.Field{Key: "spoiled", Value: event.StringValue("spoiled")}
		}
		e.Reset()
		e.Path, e.Service = "spoiled", "spoiled"
	}
}

// Leaks returns a function that fails the test when goroutines of this module run that did not when Leaks was called. It waits a while
// for them to end.
func Leaks(t testing.TB) func() {
	t.Helper()
	before := goroutines()
	return func() {
		t.Helper()
		var left []string
		if !eventually(func() bool {
			left = nil
			for id, stack := range goroutines() {
				if _, old := before[id]; !old {
					left = append(left, stack)
				}
			}
			return len(left) == 0
		}, time.Second) {
			t.Errorf("%d goroutines were left behind:\n%s", len(left), strings.Join(left, "\n\n"))
		}
	}
}

// goroutines returns the stacks of all goroutines that a plugin could have started, by their id.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	all := map[string]string{}
	for _, s := range strings.Split(string(buf), "\n\n")[1:] { // the first one is this
		head, _, _ := strings.Cut(s, "[")
		if strings.Contains(s, "testing.tRunner") && !strings.Contains(s, "created by github.com") || strings.Contains(s, "plugintest.call(") ||
			strings.Contains(s, "os/signal") || strings.Contains(s, "testing.(*T).Run") {
			continue
		}
		all[head] = s
	}
	return all
}

// eventually polls until ok or the time is up.
func eventually(ok func() bool, limit time.Duration) bool {
	if ok() {
		return true
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		select {
		case <-tick.C:
			if ok() {
				return true
			}
		case <-end.C:
			return ok()
		}
	}
}

// call runs f in a goroutine and reports whether it returned within the limit.
func call(f func(), limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	end := time.NewTimer(limit)
	defer end.Stop()
	select {
	case <-done:
		return true
	case <-end.C:
		return false
	}
}

// Streams is an input's side of a checkpoint, in memory. It is safe for concurrent use.
type Streams struct {
	mu     sync.Mutex
	known  map[string]plugins.Stream
	opened map[string]int
}

// NewStreams makes one that knows these streams already, each up to its Start.
func NewStreams(known ...plugins.Stream) *Streams {
	s := &Streams{known: map[string]plugins.Stream{}, opened: map[string]int{}}
	for _, k := range known {
		s.known[k.Name] = k
	}
	return s
}

// Known returns the streams in the order of their names.
func (s *Streams) Known() []plugins.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Values(s.known))
	slices.SortFunc(all, func(a, b plugins.Stream) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Open returns the stored position of a known stream, else the stream's Start.
func (s *Streams) Open(ctx context.Context, st plugins.Stream) (event.Position, error) {
	if err := ctx.Err(); err != nil {
		return event.Position{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.known[st.Name]; ok {
		st.Start = old.Start
	}
	s.known[st.Name] = st
	s.opened[st.Name]++
	return st.Start, nil
}

// Update replaces what the input keeps of the stream.
func (s *Streams) Update(st plugins.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.known[st.Name]; ok {
		st.Start = old.Start
		s.known[st.Name] = st
	}
}

// Forget removes the stream.
func (s *Streams) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, name)
}

// Advance stores a position, as a checkpoint does when everything before it is settled.
func (s *Streams) Advance(name string, to event.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.known[name]; ok {
		st.Start = to
		s.known[name] = st
	}
}

// Opened says how often Open was called for the stream.
func (s *Streams) Opened(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[name]
}

// Sink collects copies of the batches that an input sends, and releases the batches after spoiling them. It is safe for concurrent use.
type Sink struct {
	mu      sync.Mutex
	batches []*event.Batch
	closed  bool
	late    int
	block   bool
	waiting int
}

// NewSink makes an empty sink.
func NewSink() *Sink { return &Sink{} }

// NewBlockedSink makes a sink whose Send takes the batch only when its context is done, like that of a pipeline that is full.
func NewBlockedSink() *Sink { return &Sink{block: true} }

// Send takes a batch.
func (s *Sink) Send(ctx context.Context, b *event.Batch) error {
	if s.block {
		s.mu.Lock()
		s.waiting++
		s.mu.Unlock()
		<-ctx.Done()
	}
	c := b.Clone()
	b.Arena().Poison()
	b.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.late++
	}
	if !s.block {
		s.batches = append(s.batches, c)
	}
	return ctx.Err()
}

// Batches returns the copies, in the order in which the batches came.
func (s *Sink) Batches() []*event.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

// Events returns all events that came, in order.
func (s *Sink) Events() []*event.Event {
	var all []*event.Event
	for _, b := range s.Batches() {
		all = append(all, pointers(b)...)
	}
	return all
}

// Wait waits until n events came, and reports whether they did.
func (s *Sink) Wait(n int) bool {
	return eventually(func() bool { return len(s.Events()) >= n }, patience)
}

// held says how many batches came to a blocked sink.
func (s *Sink) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// Close makes the sink count what comes from now on as late.
func (s *Sink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// Late says how many batches came after Close.
func (s *Sink) Late() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late
}

// byStream encodes all events of a sink, per stream.
func (s *Sink) byStream() map[string]string {
	all := map[string]*bytes.Buffer{}
	for _, b := range s.Batches() {
		if all[b.Stream] == nil {
			all[b.Stream] = &bytes.Buffer{}
		}
		all[b.Stream].WriteString(Encode(b))
	}
	out := map[string]string{}
	for k, v := range all {
		out[k] = v.String()
	}
	return out
}
