//go:build blackbox

package scripts

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stacktrail/stacktrail/test/elasticsearch"
)

// collector is an HTTP server with TLS that keeps what it was sent.
type collector struct {
	server *httptest.Server
	ca     string // file

	mu    sync.Mutex
	lines bytes.Buffer
	n     int
}

func newCollector(t *testing.T, dir string) *collector {
	c := &collector{ca: filepath.Join(dir, "ca.pem")}
	c.server = httptest.NewTLSServer(c)
	t.Cleanup(c.server.Close)
	ok(t, os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw}), 0o644))
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	// What is cut off in the middle has not come.
	b, err := io.ReadAll(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	c.lines.Write(b)
	c.n += bytes.Count(b, []byte{'\n'})
	c.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// verify checks that every record came at least once.
func (c *collector) verify(t *testing.T, writers ...*writer) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	v := newVerifier(writers...)
	ok(t, v.read(bytes.NewReader(c.lines.Bytes())))
	if got := v.result(); len(got.missing)+len(got.corrupt) > 0 {
		t.Errorf("HTTP: nothing may be missing or broken:\n%s", got.faults())
	}
}

// documents checks that a server holds every record once.
func documents(t *testing.T, s *elasticsearch.Server, name string, writers ...*writer) {
	t.Helper()
	v := newVerifier(writers...)
	total := s.Count(t, name)
	after := ""
	for read := 0; ; {
		var page struct {
			Hits struct {
				Hits []struct {
					Source json.RawMessage   `json:"_source"`
					Sort   []json.RawMessage `json:"sort"`
				} `json:"hits"`
			} `json:"hits"`
		}
		s.Do(t, "POST", "/"+name+"/_search", fmt.Sprintf(`{"size": 10000, "sort": [{"path": "asc"}]%s}`, after)).JSON(t, &page)
		hits := page.Hits.Hits
		for _, h := range hits {
			v.line(h.Source)
		}
		if read += len(hits); len(hits) == 0 || read >= total {
			break
		}
		after = fmt.Sprintf(`, "search_after": [%s]`, hits[len(hits)-1].Sort[0])
	}
	got := v.result()
	if text := got.faults(); text != "" || got.records != total {
		t.Errorf("%s: %d documents, %d read:\n%s", s.Kind, total, got.records, text)
	}
}

// TestFourFarEndsUnderKills ships to a file, Elasticsearch, OpenSearch and an HTTP collector at once, and kills the agent five times
// with SIGKILL and each server once meanwhile. Then it does everything again without the state.
func TestFourFarEndsUnderKills(t *testing.T) {
	b := newBox(t)
	total := number(t, "STACKTRAIL_DELIVERY_EVENTS", 20_000)
	es, open := elasticsearch.Start(t, elasticsearch.Elasticsearch), elasticsearch.Start(t, elasticsearch.OpenSearch)
	c := newCollector(t, b.dir)
	const stream = "logs-stacktrail.test-kills"
	ok(t, os.WriteFile(b.config, fmt.Appendf(nil, `agent: {state_dir: %q, listen: "127.0.0.1:0", admin_socket: %q, checkpoint_interval: 100ms, node_id: box, memory_limit: 96MiB}
pipelines:
  - name: main
    inputs:
      - {tail: {paths: [%q], timezone: UTC, sweep: 200ms}, id: in}
    outputs:
      - {file: {path: %q, rotate: {size: 0}}, id: file}
      - elasticsearch: {urls: [%q], data_stream: {dataset: stacktrail.test, namespace: kills}, timeout: 10s}
        id: es
        batch: {events: 500, linger: 100ms}
        retry: {initial: 50ms, max: 1s}
      - elasticsearch: {urls: [%q], data_stream: {dataset: stacktrail.test, namespace: kills}, timeout: 10s}
        id: opensearch
        batch: {events: 500, linger: 100ms}
        retry: {initial: 50ms, max: 1s}
      - http: {url: %q, compress: gzip, tls: {ca_file: %q}}
        id: http
        batch: {events: 500, linger: 100ms}
`, b.state(), b.socket(), b.log("*.log"), b.out, es.URL, open.URL, c.server.URL, c.ca), 0o644))
	for _, args := range [][]string{{"setup", "elasticsearch", "--apply"}, {"check", "--connect"}} {
		out, err := exec.CommandContext(context.Background(), stacktrail(t), append(args, "-c", b.config)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(total)
	a := b.start()
	for kill := range 5 {
		from := c.count()
		waitFor(t, "some more events have come", func() bool { return c.count() > from+total/12 || c.count() >= total })
		a.kill()
		switch kill {
		case 1:
			es.Kill(t)
			es.Restart(t)
		case 3:
			a = b.start()
			open.Kill(t)
			waitFor(t, "the agent says which output fails", func() bool {
				code, body := a.get("/readyz")
				return code == http.StatusServiceUnavailable && strings.Contains(body, "output opensearch: failing since")
			})
			open.Restart(t)
			a.kill()
		}
		a = b.start()
	}
	delivered := func() { waitFor(t, "everything is delivered", func() bool { return settled(a, 5) }) }
	delivered()
	a.stop()
	check := func() {
		t.Helper()
		documents(t, es, stream, w)
		documents(t, open, stream, w)
		c.verify(t, w)
	}
	check()
	verify(t, []*writer{w}, b.out)
	for name, want := range map[string]string{"client": "ip", "api_response_code_int": "long", "@timestamp": "date", "path": "keyword"} {
		for _, s := range []*elasticsearch.Server{es, open} {
			if got := mappedType(t, s, stream, name); got != want {
				t.Errorf("%s: %s is mapped as %q, want %q", s.Kind, name, got, want)
			}
		}
	}
	// The state is lost: everything is sent again.
	ok(t, os.RemoveAll(b.state()))
	before := c.count()
	a = b.start()
	waitFor(t, "everything is sent again", func() bool { return c.count() >= before+total })
	delivered()
	a.stop()
	check()
	v := newVerifier(w)
	ok(t, v.file(b.out))
	if got := v.result(); len(got.missing)+len(got.corrupt) > 0 {
		t.Errorf("file: nothing may be missing:\n%s", got.faults())
	}
}

// mappedType returns the type of a field in the mapping of what stands behind a name.
func mappedType(t *testing.T, s *elasticsearch.Server, name, field string) string {
	t.Helper()
	var indices map[string]struct {
		Mappings struct {
			Properties map[string]struct{ Type string }
		}
	}
	s.Do(t, "GET", "/"+name+"/_mapping", "").JSON(t, &indices)
	for _, ix := range indices {
		return ix.Mappings.Properties[field].Type
	}
	return ""
}
