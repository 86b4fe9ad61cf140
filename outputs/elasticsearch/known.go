package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/plugins/event"
)

const (
	// newInARow: after so many events in a row that the server did not have, a stream is past what an earlier run may have sent. It is
	// far above what one request holds, for that is the only place where a gap can be.
	newInARow = 100_000
	// settleIn: events younger than the agent's start by this much were not there to be sent by an earlier run. It is this much
	// because clocks of logs differ.
	settleIn = 10 * time.Minute
	// askPause is how long nothing is asked after the server forbade it.
	askPause = 5 * time.Minute
	// lookAgain is how often is looked whether the data stream is still there.
	lookAgain = time.Second
	// askAtOnce ids are asked in one request.
	askAtOnce = 10_000
	// forgetAfter is how long an id is kept that nobody sends any more (its event reached the agent's retry limit), once there are
	// more than keepUnsure of them.
	forgetAfter = time.Hour
	keepUnsure  = 1 << 16
)

// memory is what the output knows of ids that may stand in a data stream already: create refuses a known id in the current
// backing index only.
type memory struct {
	began  time.Time
	stream bool // it is a data stream that is written to
	always bool // anything may stand there already

	mu      sync.Mutex           // guards what follows
	streams map[string]int       // for each stream how many new events in a row; -1: past what an earlier run sent
	unsure  map[key]time.Time    // events of requests of unknown outcome, and when that was
	pruned  time.Time            // when they were looked through last
	strange map[key]*strangeItem // events that fail for an unknown reason
	paused  time.Time            // nothing is asked until then
	seen    time.Time            // when the data stream was there
	taken   uint64               // events that the server took
}

// strangeItem is an event that the server refuses for a reason that says nothing.
type strangeItem struct {
	tries  int
	beside bool   // others of its request were taken
	taken  uint64 // memory.taken at its last try
	last   time.Time
}

func newMemory(now time.Time, stream, always bool) *memory {
	return &memory{began: now, stream: stream, always: always, streams: map[string]int{}, unsure: map[key]time.Time{}, strange: map[key]*strangeItem{}}
}

// mustAsk returns the places of the events that are to be asked for.
func (m *memory) mustAsk(r *request, now time.Time) (places []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.paused) {
		return nil
	}
	settling := now.Sub(m.began) <= settleIn
	var last *event.Batch
	old := true
	for i, e := range r.events {
		if b := e.Batch(); b != last || i == 0 {
			last, old = b, m.streams[streamOf(e)] >= 0
		}
		ask := m.always || old && (settling || e.Time.Sub(m.began) <= settleIn)
		if !ask && len(m.unsure) > 0 {
			if _, ask = m.unsure[r.key(i)]; ask {
				m.unsure[r.key(i)] = now
			}
		}
		if ask {
			places = append(places, i)
		}
	}
	return places
}

func streamOf(e *event.Event) string {
	if b := e.Batch(); b != nil {
		return b.Stream
	}
	return ""
}

// takenLocked notes that the server has event i; isNew says that it had not before.
func (m *memory) takenLocked(r *request, i int, isNew bool) {
	m.taken++
	if len(m.unsure) > 0 || len(m.strange) > 0 {
		m.forgetLocked(r.key(i))
	}
	if !m.stream {
		return
	}
	s := streamOf(r.events[i])
	n := m.streams[s]
	switch {
	case n < 0:
		return
	case !isNew:
		n = 0
	default:
		if n++; n >= newInARow {
			n = -1
		}
	}
	m.setLocked(s, n)
}

// setLocked keeps a copy of the stream's name: the batch's is not ours.
func (m *memory) setLocked(stream string, n int) {
	if _, known := m.streams[stream]; !known {
		stream = strings.Clone(stream)
	}
	m.streams[stream] = n
}

// allTaken notes that every event of the request was taken.
func (m *memory) allTaken(r *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.unsure) > 0 || len(m.strange) > 0 {
		for _, i := range r.at {
			m.takenLocked(r, i, true)
		}
		return
	}
	m.taken += uint64(len(r.at))
	if !m.stream {
		return
	}
	for from := 0; from < len(r.at); {
		e := r.events[r.at[from]]
		to := from + 1
		for to < len(r.at) && r.events[r.at[to]].Batch() == e.Batch() {
			to++
		}
		if s := streamOf(e); m.streams[s] >= 0 {
			n := m.streams[s] + to - from
			if n >= newInARow {
				n = -1
			}
			m.setLocked(s, n)
		}
		from = to
	}
}

// forgetLocked ends what is known of an event that is settled.
func (m *memory) forgetLocked(k key) {
	delete(m.unsure, k)
	delete(m.strange, k)
}

// doubt notes that nobody knows what became of the events that were sent.
func (m *memory) doubt(r *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range r.at {
		m.doubtLocked(r.key(i))
	}
}

// doubtSkipped has the events that the server had already asked for again.
func (m *memory) doubtSkipped(r *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, skipped := range r.skip {
		if skipped {
			m.doubtLocked(r.key(i))
		}
	}
}

func (m *memory) doubtLocked(k key) {
	now := time.Now()
	m.unsure[k] = now
	if len(m.unsure)+len(m.strange) > keepUnsure && now.Sub(m.pruned) > forgetAfter {
		m.pruned = now
		maps.DeleteFunc(m.unsure, func(_ key, at time.Time) bool { return now.Sub(at) > forgetAfter })
		maps.DeleteFunc(m.strange, func(_ key, s *strangeItem) bool { return now.Sub(s.last) > forgetAfter })
	}
}

func (m *memory) pause(until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = until
}

// ensure makes sure that there is a data stream to write to, or a template that one is made from: else the server would make a plain
// index of that name, with fields as they come.
func (o *output) ensure(ctx context.Context) error {
	m := o.memory
	m.mu.Lock()
	fresh := time.Since(m.seen) < lookAgain
	m.mu.Unlock()
	if fresh {
		return nil
	}
	names, err := o.backing(ctx)
	switch {
	case isStatus(err, http.StatusForbidden): // then asking says what this means
	case err != nil:
		return fmt.Errorf("looking for the data stream: %w", err)
	case len(names) == 0:
		err := o.call(ctx, http.MethodHead, "/"+o.stream, "", nil, nil)
		switch {
		case err == nil:
			return &fault{text: o.stream + " is a plain index and no data stream: remove it, or write to another name"}
		case !isStatus(err, http.StatusNotFound) && !isStatus(err, http.StatusForbidden):
			return fmt.Errorf("looking for the data stream: %w", err)
		}
		return o.checkTemplate(ctx)
	}
	m.mu.Lock()
	m.seen = time.Now()
	m.mu.Unlock()
	return nil
}

// ask finds out which events of a request stand in the data stream already, in any of its backing indices, and has them skipped.
// After an error nothing may be sent.
func (o *output) ask(ctx context.Context, r *request) error {
	places := o.memory.mustAsk(r, time.Now())
	if len(places) == 0 {
		return nil
	}
	err := o.askAll(ctx, r, places)
	if f := (*refusal)(nil); errors.As(err, &f) && f.status == http.StatusForbidden {
		// Without the right to ask there is no asking: the guarantee is smaller, and it is said.
		o.memory.pause(time.Now().Add(askPause))
		o.log.Warn("cannot ask for ids that the data stream may hold already: after a rollover events of repeated requests may stand in it twice",
			"data_stream", o.stream, "needs", "read, view_index_metadata", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("asking for known ids: %w", err)
	}
	return nil
}

func (o *output) askAll(ctx context.Context, r *request, places []int) error {
	indices, err := o.backing(ctx)
	if err != nil {
		return err
	}
	found := 0
	for _, index := range slices.Backward(indices) { // the newest first: most are there
		rest := places[:0]
		for from := 0; from < len(places); from += askAtOnce {
			part := places[from:min(from+askAtOnce, len(places))]
			has, err := o.mget(ctx, r, index, part)
			if err != nil {
				return err
			}
			for j, i := range part {
				if has[j] {
					r.skip[i] = true
					found++
				} else {
					rest = append(rest, i)
				}
			}
		}
		if places = rest; len(places) == 0 {
			break
		}
	}
	if found > 0 {
		o.memory.mu.Lock()
		for i := range r.events {
			if r.skip[i] {
				o.memory.takenLocked(r, i, false)
			}
		}
		o.memory.mu.Unlock()
		o.count("known", "asked", int64(found))
	}
	return nil
}

// backing returns the names of the data stream's indices, the current one last. There are none while the data stream does not exist.
func (o *output) backing(ctx context.Context) ([]string, error) {
	var all struct {
		DataStreams []struct {
			Indices []struct {
				Name string `json:"index_name"`
			}
		} `json:"data_streams"`
	}
	err := o.call(ctx, http.MethodGet, "/_data_stream/"+o.stream, "filter_path=data_streams.indices.index_name", nil, &all)
	if f := (*refusal)(nil); errors.As(err, &f) && f.status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range all.DataStreams {
		for _, i := range d.Indices {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// mget asks one index for the ids of events.
func (o *output) mget(ctx context.Context, r *request, index string, places []int) ([]bool, error) {
	body := append(make([]byte, 0, 16+len(places)*(event.IDLen+3)), `{"ids":[`...)
	for j, i := range places {
		if j > 0 {
			body = append(body, ',')
		}
		body = append(body, '"')
		body = append(body, r.id(i)...)
		body = append(body, '"')
	}
	body = append(body, "]}"...)
	var answer struct {
		Docs []struct {
			Found *bool      `json:"found"`
			Error *itemError `json:"error"`
		} `json:"docs"`
	}
	err := o.call(ctx, http.MethodPost, "/"+index+"/_mget", "_source=false&filter_path=docs.found,docs.error.type,docs.error.reason", body, &answer)
	if f := (*refusal)(nil); errors.As(err, &f) && f.status == http.StatusNotFound {
		return make([]bool, len(places)), nil // the index was removed since
	}
	if err != nil {
		return nil, err
	}
	if len(answer.Docs) != len(places) {
		return nil, &fault{text: fmt.Sprintf("the answer has %d documents for %d that were asked for", len(answer.Docs), len(places))}
	}
	has := make([]bool, len(places))
	for j, d := range answer.Docs {
		switch {
		case d.Found != nil:
			has[j] = *d.Found
		case d.Error != nil && d.Error.Type == "index_not_found_exception":
		case d.Error != nil:
			return nil, &fault{text: web.Line(index+": "+d.Error.String(), maxReason)}
		default:
			return nil, &fault{text: "the answer does not say whether a document is there"}
		}
	}
	return has, nil
}

// refusal is the answer to a call that is no _bulk request.
type refusal struct {
	status int
	cause  error
}

func (e *refusal) Error() string { return e.cause.Error() }
func (e *refusal) Unwrap() error { return e.cause }

// call sends a request other than _bulk and decodes its answer.
func (o *output) call(ctx context.Context, method, path, query string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	url := "http://cluster" + path
	if query != "" {
		url += "?" + query
	}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	if body != nil {
		req.Body = &payload{data: body}
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := o.client.Perform(req)
	if err != nil {
		return o.explain(err)
	}
	defer web.Drain(res.Body)
	if res.StatusCode/100 != 2 {
		head := web.ReadHead(res.Body, maxHead)
		return &refusal{res.StatusCode, o.throttled(res, statusFault(res, head, o.auth.secrets()))}
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return o.explain(fmt.Errorf("reading the answer: %w", err))
	}
	return nil
}
