package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins/event"
)

const (
	// summaryRoutes bounds the memory of a summary: requests of routes that are met when there are as many count as those of the
	// route other. A histogram takes 16 KiB at most.
	summaryRoutes = 500
	// summaryShown is how many routes the text names, those with the most requests; JSON has all.
	summaryShown = 40
	otherRoute   = "other"
)

// routeKey names a route.
type routeKey struct{ service, method, route string }

// Classes of statuses.
const (
	classOther = iota // none, or one that is no 2xx to 5xx
	class2xx
	class3xx
	class4xx
	class5xx
	statusClasses
)

// noDuration stands for the duration of a request whose record has none.
const noDuration time.Duration = -1 << 62

// request is what the summary keeps of an access record until its turn comes.
type request struct {
	key   int32 // in tally.keys
	class uint8
	took  time.Duration
}

// tally is what a chunk adds to the summary. It is made where records are encoded, and added in the order of the records, so that
// which routes are too many does not depend on who was faster.
type tally struct {
	keys        []routeKey
	requests    []request
	first, last time.Time
}

// interned are keys whose texts outlive their batch, each with its place in the tally that is being made.
type interned struct {
	known map[routeKey]*internedKey
	turn  uint64
}

type internedKey struct {
	key   routeKey
	turn  uint64
	place int32
}

// interned is emptied beyond this size: whoever writes paths can make up methods.
const maxInterned = 4 * summaryRoutes

// begin starts a tally.
func (in *interned) begin(t *tally) {
	in.turn++
	if in.known == nil || len(in.known) > maxInterned {
		in.known = map[routeKey]*internedKey{}
	}
	t.keys, t.requests, t.first, t.last = t.keys[:0], t.requests[:0], time.Time{}, time.Time{}
}

// add adds a record to a tally that begin started.
func (in *interned) add(t *tally, e *event.Event) {
	if at := e.Time; !at.IsZero() && e.RecordClass != event.ClassUnparsed {
		if t.first.IsZero() || at.Before(t.first) {
			t.first = at
		}
		if at.After(t.last) {
			t.last = at
		}
	}
	if e.RecordClass != event.ClassAccess {
		return
	}
	k := routeKey{e.Service, e.Method, e.Route}
	x := in.known[k]
	if x == nil {
		k = routeKey{strings.Clone(k.service), strings.Clone(k.method), strings.Clone(k.route)}
		x = &internedKey{key: k}
		in.known[k] = x
	}
	if x.turn != in.turn {
		x.turn, x.place = in.turn, int32(len(t.keys))
		t.keys = append(t.keys, x.key)
	}
	r := request{key: x.place, took: noDuration}
	if e.Has&event.HasStatus != 0 && e.Status >= 200 && e.Status < 600 {
		r.class = uint8(e.Status/100) - 1
	}
	if e.Has&event.HasDuration != 0 && e.Duration >= 0 {
		r.took = e.Duration
	}
	t.requests = append(t.requests, r)
}

// routeStats is what the summary knows of a route.
type routeStats struct {
	key     routeKey
	n       int64
	classes [statusClasses]int64
	took    histogram
}

// summary is what parse says at its end of what it printed. Its memory does not depend on how much that is.
type summary struct {
	first, last time.Time
	routes      map[routeKey]*routeStats
	other       *routeStats // of routes beyond summaryRoutes; nil while there are none
	places      []*routeStats
}

// add adds the tally of the next records.
func (s *summary) add(t *tally) {
	if !t.first.IsZero() && (s.first.IsZero() || t.first.Before(s.first)) {
		s.first = t.first
	}
	if t.last.After(s.last) {
		s.last = t.last
	}
	s.places = s.places[:0]
	for _, k := range t.keys {
		s.places = append(s.places, s.of(k))
	}
	for i := range t.requests {
		q := &t.requests[i]
		r := s.places[q.key]
		r.n++
		r.classes[q.class]++
		if q.took != noDuration {
			r.took.add(q.took)
		}
	}
}

// of returns the statistics in which a route counts.
func (s *summary) of(k routeKey) *routeStats {
	if s.routes == nil {
		s.routes = map[routeKey]*routeStats{}
	}
	r := s.routes[k]
	switch {
	case r != nil:
		return r
	case len(s.routes) < summaryRoutes:
		r = &routeStats{key: k}
		s.routes[k] = r
		return r
	case s.other == nil:
		s.other = &routeStats{key: routeKey{route: otherRoute}}
	}
	return s.other
}

// sorted lists the routes, those with the most requests first, what is together under other last.
func (s *summary) sorted() []*routeStats {
	var list []*routeStats
	for _, r := range s.routes {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *routeStats) int {
		if a.n != b.n {
			return int(min(max(b.n-a.n, -1), 1))
		}
		return slices.Compare([]string{a.key.service, a.key.route, a.key.method}, []string{b.key.service, b.key.route, b.key.method})
	})
	if s.other != nil {
		list = append(list, s.other)
	}
	return list
}

// text writes the summary for people.
func (s *summary) text(w io.Writer, counts []pipeline.Count) {
	reportInput(w, pipeline.InputStatus{ID: "parse", Counts: counts})
	if !s.first.IsZero() {
		fmt.Fprintf(w, "            %-12s time: %s to %s\n", "", s.first.Format(textTime), s.last.Format(textTime))
	}
	list := s.sorted()
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "requests\t2xx\t3xx\t4xx\t5xx\telse\tp50\tp95\tp99\t  route")
	shown := list
	if len(list) > summaryShown {
		shown = list[:summaryShown]
	}
	for _, r := range shown {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t  %s\n", r.n, r.classes[class2xx], r.classes[class3xx], r.classes[class4xx],
			r.classes[class5xx], r.classes[classOther], r.shownQuantile(0.5), r.shownQuantile(0.95), r.shownQuantile(0.99), r.name())
	}
	_ = t.Flush() // w keeps its error
	if more := list[len(shown):]; len(more) > 0 {
		n := int64(0)
		for _, r := range more {
			n += r.n
		}
		fmt.Fprintf(w, "and %s with %s; --summary json lists all\n", count(len(more), "more route"), count(int(n), "request"))
	}
}

// name is what the text calls a route.
func (r *routeStats) name() string {
	var words []string
	for _, word := range []string{r.key.service, r.key.method, r.key.route} {
		if word != "" {
			words = append(words, printable([]byte(word)))
		}
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, " ")
}

func (r *routeStats) shownQuantile(q float64) string {
	if r.took.n == 0 {
		return "-"
	}
	return milliseconds(r.took.quantile(q))
}

// summaryJSON is the summary for programs.
type summaryJSON struct {
	Counts []pipeline.Count `json:"counts"`
	First  *time.Time       `json:"first,omitempty"`
	Last   *time.Time       `json:"last,omitempty"`
	Routes []routeJSON      `json:"routes"`
}

type routeJSON struct {
	Service  string `json:"service,omitempty"`
	Method   string `json:"method,omitempty"`
	Route    string `json:"route,omitempty"`
	Requests int64  `json:"requests"`
	Class2xx int64  `json:"2xx"`
	Class3xx int64  `json:"3xx"`
	Class4xx int64  `json:"4xx"`
	Class5xx int64  `json:"5xx"`
	Else     int64  `json:"else"`
	// Times are in seconds.
	Timed int64    `json:"timed"` // how many have a duration
	P50   *float64 `json:"p50,omitempty"`
	P95   *float64 `json:"p95,omitempty"`
	P99   *float64 `json:"p99,omitempty"`
}

// json writes the summary for programs, in one line.
func (s *summary) json(w io.Writer, counts []pipeline.Count) error {
	doc := summaryJSON{Counts: counts, Routes: []routeJSON{}}
	if !s.first.IsZero() {
		doc.First, doc.Last = &s.first, &s.last
	}
	for _, r := range s.sorted() {
		x := routeJSON{
			Service: r.key.service, Method: r.key.method, Route: r.key.route, Requests: r.n, Timed: r.took.n,
			Class2xx: r.classes[class2xx], Class3xx: r.classes[class3xx], Class4xx: r.classes[class4xx], Class5xx: r.classes[class5xx], Else: r.classes[classOther],
		}
		if r.took.n > 0 {
			p50, p95, p99 := r.took.quantile(0.5).Seconds(), r.took.quantile(0.95).Seconds(), r.took.quantile(0.99).Seconds()
			x.P50, x.P95, x.P99 = &p50, &p95, &p99
		}
		doc.Routes = append(doc.Routes, x)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}
