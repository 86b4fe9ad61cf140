//go:build blackbox

package scripts

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/test/elasticsearch"
)

// Backfill: a time is shipped again out of live, rotated and compressed files, beside the agent, and where it overlaps what was
// shipped before nothing comes twice.

// rolling is a data stream of two backing indices. As in the real one, create refuses an id only where it stands in the current index:
// who does not ask for ids in the older one doubles its documents.
type rolling struct {
	server *httptest.Server

	mu      sync.Mutex
	backing []map[string]json.RawMessage // by id; the last one is current
	asked   int                          // ids
	sent    int                          // documents
}

func newRolling(t *testing.T) *rolling {
	r := &rolling{backing: []map[string]json.RawMessage{{}}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// roll begins a new backing index.
func (r *rolling) roll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backing = append(r.backing, map[string]json.RawMessage{})
}

// documents are all, with the ids that stand in several indices.
func (r *rolling) documents() (ids map[string]json.RawMessage, twice []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids = map[string]json.RawMessage{}
	for _, b := range r.backing {
		for id, doc := range b {
			if _, there := ids[id]; there {
				twice = append(twice, id)
			}
			ids[id] = doc
		}
	}
	return ids, twice
}

func (r *rolling) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	text, err := io.ReadAll(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	r.mu.Lock()
	defer r.mu.Unlock()
	switch path := req.URL.Path; {
	case path == "/":
		_, _ = io.WriteString(w, `{"version": {"number": "8.15.0"}}`)
	case strings.HasPrefix(path, "/_data_stream/"):
		var names []string
		for i := range r.backing {
			names = append(names, fmt.Sprintf(`{"index_name": "ds-%d"}`, i))
		}
		fmt.Fprintf(w, `{"data_streams": [{"indices": [%s]}]}`, strings.Join(names, ", "))
	case strings.HasSuffix(path, "/_mget"):
		r.mget(w, path, text)
	case strings.HasSuffix(path, "/_bulk"):
		r.bulk(w, text)
	default:
		http.Error(w, "{}", http.StatusNotFound)
	}
}

func (r *rolling) mget(w io.Writer, path string, text []byte) {
	var want struct{ IDs []string }
	_ = json.Unmarshal(text, &want)
	n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(path, "/ds-"), "/_mget"))
	r.asked += len(want.IDs)
	var docs []string
	for _, id := range want.IDs {
		_, found := r.backing[n][id]
		docs = append(docs, fmt.Sprintf(`{"found": %v}`, found))
	}
	fmt.Fprintf(w, `{"docs": [%s]}`, strings.Join(docs, ", "))
}

func (r *rolling) bulk(w io.Writer, text []byte) {
	current := r.backing[len(r.backing)-1]
	var items []string
	for s := bufio.NewReader(bytes.NewReader(text)); ; {
		action, err := s.ReadBytes('\n')
		if err != nil {
			break
		}
		doc, _ := s.ReadBytes('\n')
		var a struct {
			Create struct {
				ID string `json:"_id"`
			}
		}
		_ = json.Unmarshal(action, &a)
		r.sent++
		if _, there := current[a.Create.ID]; there {
			items = append(items, `{"create": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "document already exists"}}}`)
			continue
		}
		current[a.Create.ID] = doc
		items = append(items, `{"create": {"status": 201}}`)
	}
	fmt.Fprintf(w, `{"errors":true,"items":[%s]}`, strings.Join(items, ", "))
}

// within expects just the records from one number until before another.
func within(t *testing.T, v *verifier, from, to int) {
	t.Helper()
	got := v.result()
	got.missing = slices.DeleteFunc(got.missing, func(r record) bool { return r.seq < from || r.seq >= to })
	got.outOfOrder = nil
	got.exact(t)
	if got.records != to-from {
		t.Errorf("%d records, want the %d from %d until %d", got.records, to-from, from, to)
	}
}

// at is the time of a record, for the command line.
func at(seq int) string {
	return time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).Add(time.Duration(seq) * time.Millisecond).Format(time.RFC3339Nano)
}

func (b *box) backfill(from, to int, args ...string) result {
	b.t.Helper()
	return command(b.t, append([]string{"backfill", "-c", b.config, "--since", at(from), "--until", at(to)}, args...)...)
}

// rotated lays 9,000 records into a live, a rotated and a compressed file, and a line without a time into another.
func (b *box) rotated() *writer {
	b.t.Helper()
	ok(b.t, os.WriteFile(b.log("other.log"), []byte("no format fits this\n"), 0o644))
	w := newWriter(b.t, b.log("api.log"), 1)
	w.lines(3000)
	ok(b.t, rename(w.path))
	w.reopen()
	w.lines(3000)
	ok(b.t, shift(w.path))
	ok(b.t, compress(w.path+".2"))
	ok(b.t, os.Rename(w.path, w.path+".1"))
	w.reopen()
	w.lines(3000)
	return w
}

func TestBackfillShipsARangeOutOfAllFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("*.log*")}})
	w := b.rotated()
	r := b.backfill(1500, 7500, "--outputs", "out")
	if r.code != 0 {
		t.Fatalf("code %d: %s", r.code, r.errors)
	}
	v := newVerifier(w)
	ok(t, v.file(b.out))
	within(t, v, 1500, 7500)
	for _, want := range []string{
		"9001 lines: 6000 events, 0 of them unparsed", "left out because of their time: after_end 1500, before_start 1500, no_time 1",
		"6000 offered = 6000 delivered", "inputs in, outputs out",
	} {
		if !strings.Contains(r.errors, want) {
			t.Errorf("the summary lacks %q:\n%s", want, r.errors)
		}
	}
	if _, err := os.Stat(filepath.Join(b.state(), "backfill")); err == nil {
		t.Error("positions of a backfill that is done are left behind")
	}
	// It is over: the same command begins anew, which a file gets twice, as the one who named it was told.
	if r := b.backfill(1500, 7500, "--outputs", "out"); r.code != 0 || !strings.Contains(r.errors, "6000 delivered") {
		t.Errorf("the second time: code %d: %s", r.code, r.errors)
	}
}

// TestBackfillBesideTheAgentIsHarmless ships what the agent shipped, after a rollover and while it ships more.
func TestBackfillBesideTheAgentIsHarmless(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	es := newRolling(t)
	b.write(setup{
		paths: []string{b.log("*.log*")}, agent: "memory_limit: 64MiB",
		output: fmt.Sprintf(`file: {path: %q, rotate: {size: 0}}, id: file}
      - {elasticsearch: {urls: [%q], data_stream: {dataset: test}}`, b.out, es.server.URL),
		policy: "batch: {linger: 10ms}",
	})
	w := b.rotated()
	a := b.start()
	count := func() int { ids, _ := es.documents(); return len(ids) }
	waitFor(t, "the agent has shipped all", func() bool { return count() >= 9001 })
	waitFor(t, "it has settled", func() bool { return settled(a, 3) })
	es.mu.Lock()
	// A third of the records get lost, and the data stream rolls over.
	for id, doc := range es.backing[0] {
		var d delivered
		ok(t, json.Unmarshal(doc, &d))
		if r, is := recordOf(d.Path); !is || r.seq%3 == 0 {
			delete(es.backing[0], id)
		}
	}
	es.asked, es.sent = 0, 0
	es.mu.Unlock()
	es.roll()
	r := b.backfill(1000, 8000)
	if r.code != 0 || !strings.Contains(r.errors, "7000 offered = 7000 delivered") {
		t.Fatalf("code %d: %s", r.code, r.errors)
	}
	if want := "left out, because they do not know events by their ids and would get them again (--outputs includes them): file\n"; !strings.Contains(r.errors, want) {
		t.Errorf("it does not say %q:\n%s", want, r.errors)
	}
	ids, twice := es.documents()
	if len(twice) > 0 {
		t.Errorf("%d documents stand in two indices", len(twice))
	}
	v := newVerifier(w)
	for _, doc := range ids {
		v.line(doc)
	}
	for _, m := range v.result().missing {
		if m.seq%3 != 0 || m.seq >= 1000 && m.seq < 8000 {
			t.Errorf("record %d is missing", m.seq)
		}
	}
	// 2,333 of the 7,000 were lost; only those are sent.
	es.mu.Lock()
	if es.asked < 7000 || es.sent < 2333 || es.sent > 2400 {
		t.Errorf("%d ids were asked for and %d documents sent", es.asked, es.sent)
	}
	es.mu.Unlock()
	a.alive()
	w.lines(100)
	waitFor(t, "the agent goes on", func() bool {
		ids, _ := es.documents()
		return bytes.Contains(bytes.Join(values(ids), nil), record{1, 9099}.appendPath(nil))
	})
	a.stop()
	if text := a.text(); strings.Contains(text, "level=ERROR") {
		t.Error("the agent was disturbed")
	}
}

func values(m map[string]json.RawMessage) (all [][]byte) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// TestBackfillsThatOverlapAcrossARollover ships two ranges, with a rollover between them, into real servers.
func TestBackfillsThatOverlapAcrossARollover(t *testing.T) {
	for _, kind := range elasticsearch.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			s := elasticsearch.Start(t, kind)
			b := newBox(t)
			const stream = "logs-stacktrail.test-backfill"
			b.write(setup{
				paths:  []string{b.log("api.log*")},
				output: fmt.Sprintf(`elasticsearch: {urls: [%q], data_stream: {dataset: stacktrail.test, namespace: backfill}}`, s.URL),
			})
			if r := command(t, "setup", "elasticsearch", "--apply", "-c", b.config); r.code != 0 {
				t.Fatalf("setup: code %d: %s", r.code, r.errors)
			}
			w := b.rotated()
			for i, want := range []string{"5000 offered = 5000 delivered", "6000 offered = 6000 delivered"} {
				if r := b.backfill(3000*i, 5000+4000*i); r.code != 0 || !strings.Contains(r.errors, want) {
					t.Fatalf("code %d, want 0 and %q: %s", r.code, want, r.errors)
				}
				s.Do(t, http.MethodPost, "/"+stream+"/_rollover", "")
			}
			s.Do(t, http.MethodPost, "/"+stream+"/_refresh", "")
			documents(t, s, stream, w)
		})
	}
}

// TestBackfillGivesTheAgentsIDs compares the ids where they are hard to get: two files begin alike, so that only the agent's state tells
// which is which, and the one that came first is gone.
func TestBackfillGivesTheAgentsIDs(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	first := record{1, 0}.appendLine(nil)
	config := func(out, id string) {
		b.write(setup{paths: []string{b.log("api.log*")}, output: fmt.Sprintf("file: {path: %q, rotate: {size: 0}, event_id: true}", out)})
		text := must[[]byte](t)(os.ReadFile(b.config))
		ok(t, os.WriteFile(b.config, bytes.Replace(text, []byte("id: out}"), []byte("id: "+id+"}"), 1), 0o644))
	}
	config(b.out, "out")
	file := func(name string, from int) {
		p := slices.Clone(first)
		for seq := from; seq < from+500; seq++ {
			p = record{1, seq}.appendLine(p)
		}
		ok(t, os.WriteFile(b.log(name), p, 0o644))
	}
	file("api.log.1", 1000)
	file("api.log", 2000)
	if r := b.once(); r.code != 0 {
		t.Fatalf("code %d", r.code)
	}
	idsIn := func(path string) (ids []string) {
		for line := range bytes.Lines(must[[]byte](t)(os.ReadFile(path))) {
			var d struct {
				EventID string `json:"event_id"`
			}
			ok(t, json.Unmarshal(line, &d))
			ids = append(ids, d.EventID)
		}
		return ids
	}
	known := idsIn(b.out)
	ok(t, os.Remove(b.log("api.log.1")))
	again := filepath.Join(b.dir, "out", "again.ndjson")
	config(again, "again")
	if r := b.backfill(1500, 3000, "--outputs", "again"); r.code != 0 {
		t.Fatalf("code %d: %s", r.code, r.errors)
	}
	ids := idsIn(again)
	if len(ids) != 500 {
		t.Errorf("%d records, want 500", len(ids))
	}
	for i, id := range ids {
		if !slices.Contains(known, id) {
			t.Fatalf("id %q of record %d is not the agent's", id, i)
		}
	}
}

// TestBackfillGoesOnAfterAKill throttles it, kills it with SIGKILL several times, interrupts it once, and expects every record once.
func TestBackfillGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log*")}})
	w := b.rotated()
	launch := func(args ...string) *agent {
		return b.launch(append([]string{stacktrail(t), "backfill", "-c", b.config, "--since", at(500), "--until", at(8500), "--outputs", "out"}, args...)...)
	}
	here := &arrivals{path: b.out}
	cut := int64(0)
	for kill := range 4 {
		a := launch("--rate", "1MB")
		have := size(b.out)
		waitFor(t, "some more have come", func() bool { return size(b.out) > have || a.ended() })
		a.alive()
		if kill == 1 {
			r := b.backfill(500, 8500, "--outputs", "out")
			if r.code != 1 || !strings.Contains(r.errors, "this very backfill runs already") || !strings.Contains(r.errors, "pid "+strconv.Itoa(a.pid())) {
				t.Errorf("the same beside it: code %d: %s", r.code, r.errors)
			}
		}
		if kill == 2 {
			a.signal(syscall.SIGTERM)
			if code := a.wait(); code != 1 || !strings.Contains(a.text(), "the same command goes on from here") {
				t.Errorf("code %d after TERM: %s", code, a.text())
			}
			continue
		}
		a.kill()
		cut += a.cutBytes()
	}
	if n := here.lines(); n >= 8000 {
		t.Fatalf("%d of 8000 records came before the last start: the test proves nothing", n)
	}
	a := launch()
	if code := a.wait(); code != 0 {
		t.Fatalf("code %d", code)
	}
	v := newVerifier(w)
	ok(t, v.file(b.out))
	within(t, v, 500, 8500)
}

var progressText = regexp.MustCompile(`(?m)^\d+ of \d+ files?, [0-9.]+ \S+ read, \d+ events?, \d+ events/s, \d+ %, about \S+ left$`)

// TestBackfillIsThrottledAndTellsHowFarItIs reads at a rate at which it cannot be done before a line of progress is due.
func TestBackfillIsThrottledAndTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.bytes(3 << 20)
	began := time.Now()
	r := b.backfill(0, 1<<30, "--outputs", "out", "--rate", "400KiB")
	// 3 MiB at 400 KiB/s take 7.7 seconds at the least, however fast the machine is.
	if took := time.Since(began); r.code != 0 || took < 7*time.Second {
		t.Errorf("code %d after %v: %s", r.code, took, r.errors)
	}
	if !progressText.MatchString(r.errors) {
		t.Errorf("there is no line of progress:\n%s", r.errors)
	}
	v := newVerifier(w)
	ok(t, v.file(b.out))
	within(t, v, 0, w.count())
}

// TestBackfillSaysUpFrontWhatItWillNotDo names the mistakes that people make.
func TestBackfillSaysUpFrontWhatItWillNotDo(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{output: fmt.Sprintf(`stdout: {}, id: print}
      - {file: {path: %q}`, b.out)})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	const since, until = "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"
	refused := func(code int, want string, args ...string) {
		t.Helper()
		r := command(t, append([]string{"backfill", "-c", b.config}, args...)...)
		if r.code != code || !strings.Contains(r.errors, want) {
			t.Errorf("%v: code %d, want %d and %q in: %s", args, r.code, code, want, r.errors)
		}
	}
	refused(2, `--since is a time such as`, "--until", until)
	refused(2, `not "yesterday"`, "--since", "yesterday", "--until", until)
	refused(2, "is not before", "--since", until, "--until", since)
	refused(2, "a size is a whole number with a unit", "--since", since, "--until", until, "--rate", "fast")
	refused(2, "leave it out for no limit", "--since", since, "--until", until, "--rate", "0")
	refused(1, "print, out would get again what was sent already", "--since", since, "--until", until)
	refused(1, "its outputs are: print, out", "--since", since, "--until", until, "--outputs", "nonsense")
	refused(1, "its inputs are: in", "--since", since, "--until", until, "--inputs", "nonsense")
	refused(1, `there is no pipeline "nonsense"; the pipelines are: main`, "--since", since, "--until", until, "--pipeline", "nonsense")
	if _, err := os.Stat(b.state()); err == nil {
		t.Error("a state directory was made for a backfill that was refused")
	}
	// The agent cuts back what it finds added to its file, so that must not be begun.
	a := b.start()
	arrive(t, a, b.out, 10)
	waitFor(t, "the checkpoint knows the file", func() bool { c, err := b.readCheckpoint(); return err == nil && c.known })
	refused(1, "it would cut off what is added", "--since", since, "--until", until, "--outputs", "out")
	a.stop()
	refused(1, "it would cut off what is added", "--since", since, "--until", until, "--outputs", "out")
}
