// Package elasticsearch is an output that writes to Elasticsearch 8 and 9 and OpenSearch 2 and 3, each event once.
//
// Events go out in _bulk requests with the operation create. The document's id is the event's, made of where the record stands: an
// event that is sent again is refused with a version conflict, which counts as delivered.
//
// # Where to
//
// With data_stream events go to one data stream and carry @timestamp. With index they go to plain indices, whose name may hold
// the event's date and fields; in values of fields capitals become small and what no name may hold an underscore. An event
// without a time takes that of the last event before it in its batch, else the time at which the batch was read. An index whose name is
// an alias that rolls over is not recommended: use a data stream.
//
// # What answers mean
//
// An event that fails is judged by the type of its error. What is the event's own fault (parsing, mapping conflict, strict mapping,
// field limit) dies. What is the destination's (index closed or missing, blocks, rights, limit of shards, template or pipeline
// missing, disk) is tried again for ever, with the reason in the agent's health. 429 and 503 are waited out. An error of an unknown type
// kills the event after ten tries in which its neighbours were taken. Only failed events are sent again. A request that is too large is
// halved. An answer that is cut, has another number of items, or is none at all is an unknown outcome: all is sent again.
//
// # Once, across rollovers
//
// A data stream refuses a known id only within its current backing index. So ids are looked up in all backing indices before
// sending where the server may have them: after a request of unknown outcome, always by a backfill, and for each stream from the
// agent's start until 100,000 events in a row were new, or until its events are younger than the start by ten minutes. One write must
// hold fewer than 100,000 events for this. It needs the rights read and view_index_metadata; without them a warning is logged and
// nothing is asked. What remains is a request that hung in the server, and is executed after the asking and across a rollover. The
// counter "known" says how many events the server had already: "asked" of those that were asked for, "conflict" of those that were
// refused.
//
// # Setup
//
// Diff and Apply compare and put a component template with a mapping for every field of the schema, an index template for the data
// stream or the indices, and the data stream. Without a data stream and without a template for it nothing is written, for the server
// would make a plain index with fields as they come.
package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	elastic "github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Spec describes the output to the agent.
var Spec = plugins.OutputSpec("elasticsearch", "Write to Elasticsearch or OpenSearch, each event once.", Config{
	Flavor: flavorAuto, Compress: gzipBodies, Timeout: defaultTimeout,
}, New).Safe().ByID()

const (
	defaultTimeout = time.Minute
	// strangeTries is how often an event of unknown fault is tried beside others that are taken.
	strangeTries = 10
	// maxHead is how much is read of an answer that is an error.
	maxHead = 64 << 10
)

// New builds the output.
func New(c Config, env plugins.Env) (plugins.Output, error) {
	return build(c, env, conf.SystemLookup())
}

func build(c Config, env plugins.Env, lookup conf.Lookup) (*output, error) {
	o := &output{
		cfg: c, log: env.Log, fail: env.Fail, count: env.Count, free: make(chan *request, keepRequests),
		memory: newMemory(time.Now(), c.DataStream != nil, env.Repeats), auth: newCredentials(c, lookup),
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.fail == nil {
		o.fail = func(string, error) {}
	}
	if o.count == nil {
		o.count = func(string, string, int64) {}
	}
	switch {
	case c.DataStream != nil:
		o.stream = c.DataStream.Name()
	default:
		t, err := parseIndex(c.Index)
		if err != nil {
			return nil, conf.KeyError{Key: "index", Err: err}
		}
		if err := t.checkFields(env.Fields); err != nil {
			return nil, err
		}
		o.index = t
	}
	opt := schema.EncodeOptions{Newline: true} // the id stands beside the document
	if env.Encoder != nil {
		o.enc = env.Encoder(opt)
	} else {
		o.enc = schema.NewEncoder(opt)
	}
	base, err := web.NewTransport(c.TLS)
	if err != nil {
		return nil, conf.KeyError{Key: "tls", Err: err}
	}
	o.idle = base.CloseIdleConnections
	if o.cluster, err = newCluster(c, base, o.auth, o.log); err != nil {
		return nil, err
	}
	o.client, err = elastic.NewBaseClient(elastic.Config{
		Addresses: []string{"http://cluster"}, // the cluster below picks the address
		Transport: o.cluster, DisableRetry: true, DisableMetaHeader: true,
	})
	if err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	return o, nil
}

// output is safe for concurrent use.
type output struct {
	cfg     Config
	log     *slog.Logger
	fail    func(string, error)
	count   func(string, string, int64)
	enc     *schema.Encoder
	stream  string         // the data stream, or
	index   *indexTemplate // the plain indices
	client  *elastic.BaseClient
	cluster *cluster
	auth    *credentials
	idle    func()
	memory  *memory
	free    chan *request
	failing atomic.Bool // health says so
}

var (
	_ plugins.Output = (*output)(nil)
	_ plugins.Closer = (*output)(nil)
)

// Close lets go of connections.
func (o *output) Close() error {
	o.idle()
	return nil
}

// Write sends the events and returns when the server has them.
func (o *output) Write(ctx context.Context, events []*event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(events) == 0 {
		return nil
	}
	var r *request
	select {
	case r = <-o.free:
	default:
		r = &request{answer: make([]byte, answerBuffer)}
	}
	err := o.write(ctx, r, events)
	r.end()
	select {
	case o.free <- r:
	default:
	}
	if ctx.Err() == nil {
		o.health(err)
	}
	return err
}

// health reports faults that somebody has to mend, and their end.
func (o *output) health(err error) {
	if partial := (*plugins.PartialError)(nil); errors.As(err, &partial) {
		var lasting error
		for _, e := range partial.Failed {
			f, dead := (*fault)(nil), (*plugins.PermanentError)(nil)
			if !errors.As(e, &dead) && (!errors.As(e, &f) || !f.busy) {
				lasting = e
				break
			}
		}
		err = lasting
	} else if f := (*fault)(nil); errors.As(err, &f) && f.busy || errors.Is(err, plugins.ErrTooLarge) {
		return // it says nothing of the destination's health
	}
	if err != nil {
		o.failing.Store(true)
		o.fail("destination", err)
	} else if o.failing.CompareAndSwap(true, false) {
		o.fail("destination", nil)
	}
}

func (o *output) write(ctx context.Context, r *request, events []*event.Event) error {
	within, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	_, err := o.cluster.detect(within)
	cancel()
	if err != nil {
		return o.explain(err)
	}
	r.begin(events)
	if o.stream != "" {
		if err := o.ensure(ctx); err != nil {
			return err
		}
		if err := o.ask(ctx, r); err != nil {
			return err
		}
	}
	r.build(o)
	if len(r.at) == 0 {
		return nil
	}
	err = o.send(ctx, r)
	if err != nil {
		if o.stream != "" && isUnsure(err) {
			o.memory.doubt(r)
		}
		err = o.explain(err)
		if len(r.at) == len(events) {
			return err
		}
		return o.beside(r, err)
	}
	if len(r.failed) > 0 {
		return &plugins.PartialError{Failed: r.failed}
	}
	return nil
}

// beside says that all events failed but those that the server had already. The agent halves and waits only where an error speaks of
// all events: then the known ones are asked for once more.
func (o *output) beside(r *request, err error) error {
	if t := (*plugins.ThrottleError)(nil); errors.As(err, &t) || errors.Is(err, plugins.ErrTooLarge) {
		o.memory.doubtSkipped(r)
		return err
	}
	failed := make(map[int]error, len(r.at))
	for _, i := range r.at {
		failed[i] = err
	}
	return &plugins.PartialError{Failed: failed}
}

// send sends the body and puts what failed into r.failed. Its error speaks of all events that were sent.
func (o *output) send(ctx context.Context, r *request) error {
	data, err := r.compress(o.cfg.Compress == gzipBodies)
	if err != nil {
		return &unsentError{fmt.Errorf("compressing: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	if o.cfg.Compress == gzipBodies {
		header["Content-Encoding"] = []string{"gzip"}
	}
	body := &payload{data: data}
	defer body.detach()
	res, err := esapi.BulkRequest{
		Index: o.stream, Body: body, Pipeline: o.cfg.Pipeline, FilterPath: []string{answerFields}, Header: header,
		// Give up waiting for shards before we give up waiting for the answer.
		Timeout: o.cfg.Timeout / 2,
	}.Do(ctx, o.client)
	if err != nil {
		return err
	}
	defer web.Drain(res.Body)
	if res.StatusCode != http.StatusOK {
		raw := &http.Response{StatusCode: res.StatusCode, Header: res.Header}
		head := web.ReadHead(res.Body, maxHead)
		if tooLarge(res.StatusCode, head, int64(len(r.body)), len(r.at)) {
			return fmt.Errorf("the server refuses a request of %d bytes (%d): %w", len(r.body), res.StatusCode, plugins.ErrTooLarge)
		}
		return o.throttled(raw, statusFault(raw, head, o.auth.secrets()))
	}
	return o.judge(r, res)
}

// throttled adds the pause that the server asks for.
func (o *output) throttled(res *http.Response, err error) error {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return err
	}
	if after, ok := web.RetryAfter(res.Header, time.Now()); ok && after > 0 {
		return &plugins.ThrottleError{Err: err, After: after}
	}
	return err
}

// judge reads the answer and decides what becomes of each event.
func (o *output) judge(r *request, res *esapi.Response) error {
	type verdictOf struct {
		item, status int
		v            verdict
		e            *itemError
	}
	var bad []verdictOf
	conflicts, clean := 0, true
	var repeated map[int]bool
	err := readAnswer(res.Body, len(r.at), r.answer, func(i, status int, e *itemError) {
		clean = false
		v := classify(status, e)
		if v != delivered {
			bad = append(bad, verdictOf{i, status, v, e})
		} else if status/100 != 2 {
			conflicts++
			if repeated == nil {
				repeated = map[int]bool{}
			}
			repeated[i] = true
		}
	})
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if clean {
		o.memory.allTaken(r)
		return nil
	}
	if conflicts > 0 {
		o.count("known", "conflict", int64(conflicts))
	}
	m := o.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	next := 0
	for i := range r.at { // in order: a stream's run of new events ends at a known one
		if next < len(bad) && bad[next].item == i {
			next++
			continue
		}
		m.takenLocked(r, r.at[i], !repeated[i])
	}
	if len(bad) == 0 {
		return nil
	}
	besides, onlyStrange := len(bad) < len(r.at), true
	for _, b := range bad {
		onlyStrange = onlyStrange && b.v == strange
	}
	r.failed = make(map[int]error, len(bad))
	for _, b := range bad {
		i := r.at[b.item]
		text := b.e.String()
		if b.e.Type == "" {
			text = fmt.Sprintf("status %d without an error", b.status)
		}
		switch b.v {
		case document:
			m.forgetLocked(r.key(i))
			r.failed[i] = &plugins.PermanentError{Err: errors.New(text)}
			continue
		case strange:
			if o.isHopelessLocked(r.key(i), besides, onlyStrange) {
				m.forgetLocked(r.key(i))
				r.failed[i] = &plugins.PermanentError{Err: fmt.Errorf("%s (%d tries while its neighbours were taken)", text, strangeTries)}
				continue
			}
		}
		if b.status/100 == 5 && o.stream != "" {
			m.doubtLocked(r.key(i))
		}
		r.failed[i] = &fault{text: text, busy: b.v == busy}
	}
	return nil
}

// isHopelessLocked counts a try of an event that fails for an unknown reason and reports whether it was the last. A try counts when
// others were taken with it or since the last one, or when only such events are left of a request of which others were taken.
func (o *output) isHopelessLocked(k key, besides, onlyStrange bool) bool {
	s := o.memory.strange[k]
	if s == nil {
		s = &strangeItem{taken: o.memory.taken}
		o.memory.strange[k] = s
	}
	besides = besides || o.memory.taken > s.taken
	s.beside, s.taken, s.last = s.beside || besides, o.memory.taken, time.Now()
	if besides || s.beside && onlyStrange {
		s.tries++
	}
	return s.tries >= strangeTries
}

// explain turns an error of the connection into one that people can read. What has a meaning for the agent keeps it.
func (o *output) explain(err error) error {
	var (
		f        *fault
		throttle *plugins.ThrottleError
		partial  *plugins.PartialError
	)
	if err == nil || errors.As(err, &f) || errors.As(err, &throttle) || errors.As(err, &partial) || errors.Is(err, plugins.ErrTooLarge) {
		return err
	}
	return web.Fault(err)
}
