package elasticsearch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/template"
	"github.com/stacktrail/stacktrail/outputs/internal/webtest"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// fake is a server that answers as a test wants it to: only for faults that no real server can be made to have.
type fake struct {
	*httptest.Server
	mu   sync.Mutex
	bulk func(w http.ResponseWriter, r *http.Request, ids []string)
	hits int
}

func newFake(t testing.TB) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) answer(bulk func(w http.ResponseWriter, r *http.Request, ids []string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bulk = bulk
}

func (f *fake) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/" {
		_, _ = io.WriteString(w, `{"version":{"number":"8.19.0"}}`)
		return
	}
	f.mu.Lock()
	bulk := f.bulk
	f.hits++
	f.mu.Unlock()
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		http.Error(w, "no gzip", http.StatusBadRequest)
		return
	}
	data, _ := io.ReadAll(z)
	var ids []string
	for line := range bytes.Lines(data) {
		if _, rest, ok := strings.Cut(string(line), `"_id":"`); ok && strings.HasPrefix(string(line), `{"create"`) {
			ids = append(ids, rest[:event.IDLen])
		}
	}
	bulk(w, r, ids)
}

// created answers that all items were taken.
func created(w http.ResponseWriter, _ *http.Request, ids []string) {
	_, _ = io.WriteString(w, answerOf(len(ids), nil))
}

// answerOf makes an answer to n items, some of which failed.
func answerOf(n int, failed map[int]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"errors":%t,"items":[`, len(failed) > 0)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		if x := failed[i]; x != "" {
			b.WriteString(`{"create":` + x + `}`)
		} else {
			b.WriteString(`{"create":{"status":201}}`)
		}
	}
	return b.String() + "]}"
}

func fakeConfig(urls ...string) Config {
	c := Spec.Defaults.(Config)
	c.URLs, c.Index = urls, "test"
	return c
}

func TestAnswersThatCannotBeTrustedAreRetried(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	o := newOutput(t, fakeConfig(f.URL))
	evs := events("s", 0, 2000)
	n := len(evs)
	bad := map[int]string{1: `{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}`}
	text := func(s string) func(http.ResponseWriter, *http.Request, []string) {
		return func(w http.ResponseWriter, _ *http.Request, _ []string) { _, _ = io.WriteString(w, s) }
	}
	good, mixed := answerOf(n, nil), answerOf(n, bad)
	for name, bulk := range map[string]func(http.ResponseWriter, *http.Request, []string){
		"an item too few":             text(answerOf(n-1, nil)),
		"an item too many":            text(answerOf(n+1, nil)),
		"an item too few, with fault": text(answerOf(n-1, bad)),
		"an item too many and faulty": text(answerOf(n+1, bad)),
		"no items":                    text(`{"errors":false,"items":[]}`),
		"no list of items":            text(`{"errors":true}`),
		"items that are none":         text(`{"errors":true,"items":[` + strings.Repeat(`{},`, n-1) + `{}]}`),
		"items without status":        text(`{"errors":true,"items":[` + strings.Repeat(`{"create":{}},`, n-1) + `{"create":{}}]}`),
		"cut":                         text(good[:len(good)-1]),
		"cut in the middle":           text(good[:len(good)/2]),
		"cut, with fault":             text(mixed[:len(mixed)-1]),
		"empty":                       text(""),
		"no JSON":                     text("hello"),
		"other JSON":                  text(`{"acknowledged":true}`),
		"an HTML page": func(w http.ResponseWriter, _ *http.Request, _ []string) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><title>Login</title></html>")
		},
		"a connection that is cut": func(w http.ResponseWriter, _ *http.Request, _ []string) {
			w.Header().Set("Content-Length", strconv.Itoa(len(good)))
			_, _ = io.WriteString(w, good[:len(good)/2])
			panic(http.ErrAbortHandler)
		},
	} {
		f.answer(bulk)
		err := o.Write(t.Context(), evs)
		permanent, partial := (*plugins.PermanentError)(nil), (*plugins.PartialError)(nil)
		if err == nil || errors.As(err, &permanent) || errors.As(err, &partial) || errors.Is(err, plugins.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.ContainsRune(fmt.Sprint(err), '\n') {
			t.Errorf("%s: more than one line: %q", name, err)
		}
		if o.failing() == nil {
			t.Errorf("%s: health says nothing", name)
		}
	}
	f.answer(created)
	if err := o.Write(t.Context(), evs); err != nil || o.failing() != nil {
		t.Errorf("%v, health says %v", err, o.failing())
	}
	f.answer(text(strings.TrimSuffix(good, "]}") + "]}\n"))
	if err := o.Write(t.Context(), evs); err != nil {
		t.Error(err)
	}
}

func TestOnlyFailedItemsAreSentAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	o := newOutput(t, fakeConfig(f.URL))
	evs := events("s", 0, 100)
	var sent []int
	taken := map[string]int{}
	f.answer(func(w http.ResponseWriter, _ *http.Request, ids []string) {
		sent = append(sent, len(ids))
		failed := map[int]string{}
		for i, id := range ids {
			if len(sent) < 4 && i%10 == 3 {
				failed[i] = `{"status":503,"error":{"type":"unavailable_shards_exception","reason":"not active"}}`
			} else {
				taken[id]++
			}
		}
		_, _ = io.WriteString(w, answerOf(len(ids), failed))
	})
	noneDead(t, deliver(t, o, evs))
	if fmt.Sprint(sent) != "[100 10 1]" {
		t.Errorf("requests of %v items", sent)
	}
	for id, n := range taken {
		if n != 1 {
			t.Errorf("%s was taken %d times", id, n)
		}
	}
	if len(taken) != len(evs) {
		t.Errorf("%d events were taken", len(taken))
	}
}

func TestRefusalsOfWholeRequestsKillNothingAndAreNamed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	o := newOutput(t, fakeConfig(f.URL))
	evs := events("s", 0, 10)
	for status, want := range map[int]string{
		400: "400 Bad Request", 401: "credentials", 403: "refuses us", 404: "404", 405: "405", 406: "406", 408: "408", 302: "elsewhere to http://login.example.org/",
		500: "500", 502: "502", 503: "503", 504: "504", 429: "429",
	} {
		for _, body := range []string{
			"", "<html><head><title>Oops</title></head></html>",
			`{"error":{"type":"security_exception","reason":"no\nway"},"status":1}`, `{"error":"plain"}`,
		} {
			f.answer(func(w http.ResponseWriter, _ *http.Request, _ []string) {
				w.Header().Set("Location", "http://login.example.org/?token=hidden")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			})
			err := o.Write(t.Context(), evs)
			permanent, partial := (*plugins.PermanentError)(nil), (*plugins.PartialError)(nil)
			if err == nil || errors.As(err, &permanent) || errors.As(err, &partial) || errors.Is(err, plugins.ErrTooLarge) {
				t.Fatalf("%d: %v", status, err)
			}
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%d %s: %v", status, body, err)
			}
			unsure := isUnsure(err)
			if want := status == 408 || status == 429 || status >= 500; unsure != want {
				t.Errorf("%d: unknown outcome: %v", status, unsure)
			}
			if strings.Contains(body, "Oops") && !strings.Contains(err.Error(), "Oops") || strings.Contains(body, "way") && !strings.Contains(err.Error(), "security_exception: no way") {
				t.Errorf("%d %s: the reason is missing: %v", status, body, err)
			}
		}
	}
	for _, status := range []int{429, 503} {
		f.answer(func(w http.ResponseWriter, _ *http.Request, _ []string) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
		})
		throttle := (*plugins.ThrottleError)(nil)
		if err := o.Write(t.Context(), evs); !errors.As(err, &throttle) || throttle.After != 7*time.Second {
			t.Errorf("%d: %v", status, err)
		}
	}
	f.answer(func(w http.ResponseWriter, _ *http.Request, _ []string) { w.WriteHeader(413) })
	if err := o.Write(t.Context(), evs); !errors.Is(err, plugins.ErrTooLarge) {
		t.Errorf("413: %v", err)
	}
}

func TestAnUnknownFaultKillsOnlyBesideNeighboursThatAreTaken(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	all := true
	f.answer(func(w http.ResponseWriter, _ *http.Request, ids []string) {
		failed := map[int]string{}
		for i := range ids {
			if all || i == 0 {
				failed[i] = `{"status":500,"error":{"type":"curious_exception","reason":"who knows"}}`
			}
		}
		_, _ = io.WriteString(w, answerOf(len(ids), failed))
	})
	o := newOutput(t, fakeConfig(f.URL))
	evs := events("s", 0, 5)
	for range 30 {
		partial := (*plugins.PartialError)(nil)
		if err := o.Write(t.Context(), evs); !errors.As(err, &partial) || len(partial.Failed) != len(evs) {
			t.Fatal(err)
		}
	}
	if o.failing() == nil {
		t.Error("health says nothing of a destination that takes nothing")
	}
	all = false
	before := f.requests()
	dead := deliver(t, o, evs)
	if len(dead) != 1 || !strings.Contains(dead[0], "10 tries") || !strings.Contains(dead[0], "curious_exception: who knows") {
		t.Fatalf("dead: %q", dead)
	}
	if n := f.requests() - before; n != strangeTries {
		t.Errorf("%d tries", n)
	}
	if len(o.memory.strange) != 0 {
		t.Error("what is settled is remembered")
	}
}

func TestVerdictsGoByTheTypeOfTheError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status      int
		typ, reason string
		want        verdict
	}{
		{201, "", "", delivered},
		{409, "version_conflict_engine_exception", "[a1]: version conflict, document already exists (current version [1])", delivered},
		{400, "document_parsing_exception", "[1:52] failed to parse field [n] of type [long]", document},
		{400, "mapper_parsing_exception", "failed to parse", document},
		{400, "strict_dynamic_mapping_exception", "", document},
		{400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", document},
		{400, "illegal_argument_exception", "mapper [a] cannot be changed from type [long] to [text]", document},
		{400, "illegal_argument_exception", "Document contains at least one immense term in field=\"x\"", document},
		{400, "illegal_argument_exception", "only write ops with an op_type of create are allowed in data streams", target},
		{400, "illegal_argument_exception", "pipeline with id [p] does not exist", target},
		{400, "illegal_argument_exception", "no write index is defined for alias [a]", target},
		{400, "illegal_argument_exception", "something new", strange},
		{400, "illegal_argument_exception", "mapper [a] of different type, value 'pipeline with id [p]'", document},
		{400, "index_closed_exception", "closed", target},
		{404, "index_not_found_exception", "no such index [x]", target},
		{403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];", target},
		{429, "cluster_block_exception", "disk usage exceeded flood-stage watermark", target},
		{403, "security_exception", "", target},
		{400, "validation_exception", "this action would add [2] shards", target},
		{400, "invalid_index_name_exception", "", target},
		{429, "es_rejected_execution_exception", "", busy},
		{429, "rejected_execution_exception", "", busy},
		{429, "new_exception", "", busy},
		{503, "unavailable_shards_exception", "", busy},
		{500, "fail_processor_exception", "no way", strange},
		{500, "exception", "no way", strange},
		{500, "", "", strange},
		{403, "new_exception", "", target},
	} {
		if got := classify(c.status, &itemError{Type: c.typ, Reason: c.reason}); got != c.want {
			t.Errorf("%d %s %s: %d, not %d", c.status, c.typ, c.reason, got, c.want)
		}
	}
}

func TestTooLargeIsWhatCouldNeverPass(t *testing.T) {
	t.Parallel()
	body := func(typ, reason string) []byte {
		return fmt.Appendf(nil, `{"error":{"type":%q,"reason":%q},"status":429}`, typ, reason)
	}
	const pressure = "rejected execution of coordinating operation [coordinating_and_primary_bytes=%d, replica_bytes=0, all_bytes=0, coordinating_operation_bytes=%d, max_coordinating_bytes=102400]"
	for _, c := range []struct {
		head []byte
		size int64
		n    int
		want bool
	}{
		{body("es_rejected_execution_exception", fmt.Sprintf(pressure, 0, 754978)), 50_000, 1, true},
		{body("es_rejected_execution_exception", fmt.Sprintf(pressure, 99999, 5000)), 5000, 9, false},
		{body("es_rejected_execution_exception", fmt.Sprintf(pressure, 99999, 5000)), 60_000, 9, true}, // in pieces
		{body("es_rejected_execution_exception", fmt.Sprintf(pressure, 99999, 5000)), 60_000, 1, false},
		{body("es_rejected_execution_exception", fmt.Sprintf(pressure, 99999, 5000)), 110_000, 1, true},
		{body("circuit_breaking_exception", "[inflight_requests] Data too large, data for [<http_request>] would be [1182780/1.1mb], which is larger than the limit of [204800/200kb]"), 500_000, 1, true},
		{body("circuit_breaking_exception", "[parent] Data too large, data for [<http_request>] would be [1182780/1.1mb], which is larger than the limit of [20480000/20mb]"), 500_000, 9, false},
		{nil, 1, 1, false},
	} {
		if got := tooLarge(http.StatusTooManyRequests, c.head, c.size, c.n); got != c.want {
			t.Errorf("%s: %v", c.head, got)
		}
	}
}

func TestCredentialsAreReadAgainAndNeverShown(t *testing.T) {
	t.Parallel()
	const old, fresh = "old-key-0123456789", "new-key-0123456789"
	file := filepath.Join(t.TempDir(), "key")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(old)
	f := newFake(t)
	var seen atomic.Pointer[string]
	f.answer(func(w http.ResponseWriter, r *http.Request, ids []string) {
		got := r.Header.Get("Authorization")
		seen.Store(&got)
		if got != "ApiKey "+fresh {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":{"type":"security_exception","reason":"unable to authenticate with %s"}}`, got)
			return
		}
		created(w, r, ids)
	})
	n, faults := conf.Parse("test.yaml", []byte("urls: [\""+f.URL+"\"]\nindex: test\napi_key: ${file:"+file+"}\n"))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	if err := conf.Interpolate(n, conf.SystemLookup()).Err(); err != nil {
		t.Fatal(err)
	}
	v, faults := conf.DecodeAny(n, Spec.Defaults)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	o := newOutput(t, v.(Config))
	evs := events("s", 0, 3)
	err := o.Write(t.Context(), evs)
	if err == nil || !strings.Contains(err.Error(), "credentials") || strings.Contains(err.Error(), old) {
		t.Fatal(err)
	}
	write(fresh)
	if err := o.Write(t.Context(), evs); err != nil {
		t.Fatal(err)
	}
	if *seen.Load() != "ApiKey "+fresh {
		t.Errorf("sent %q", *seen.Load())
	}
}

func TestAServerThatSpeaksNoHTTP(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.6\r\n")
			_ = c.Close()
		}
	}()
	o := newOutput(t, fakeConfig("http://"+l.Addr().String()))
	if err := o.Write(t.Context(), events("s", 0, 3)); err == nil || strings.Contains(err.Error(), "\n") || o.failing() == nil {
		t.Errorf("%v, health says %v", err, o.failing())
	}
	c := fakeConfig("https://" + l.Addr().String())
	if err := newOutput(t, c).Write(t.Context(), events("s", 0, 3)); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("over https: %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority := webtest.NewAuthority(t)
	f := &fake{}
	f.answer(created)
	serve := func(host string) string {
		s := httptest.NewUnstartedServer(f)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		s.TLS = &tls.Config{
			Certificates: []tls.Certificate{authority.Server(time.Now().Add(time.Hour), host)},
			ClientCAs:    authority.Pool, ClientAuth: tls.RequireAndVerifyClientCert,
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	good := fakeConfig(serve("127.0.0.1"))
	good.TLS.CAFile = authority.File
	good.TLS.CertFile, good.TLS.KeyFile = authority.Client("client")
	other, unknown, nobody := good, good, good
	other.URLs = []string{serve("es.example.org")}
	unknown.TLS.CAFile = webtest.NewAuthority(t).File
	nobody.TLS.CertFile, nobody.TLS.KeyFile = "", ""
	evs := events("s", 0, 3)
	if err := newOutput(t, good).Write(t.Context(), evs); err != nil {
		t.Error(err)
	}
	for want, c := range map[string]Config{"another host": other, "unknown authority": unknown, "certificate": nobody} {
		o := newOutput(t, c)
		if err := o.Write(t.Context(), evs); err == nil || !strings.Contains(err.Error(), want) || o.failing() == nil {
			t.Errorf("%s: %v", want, err)
		}
	}
	other.TLS.ServerName = "es.example.org"
	if err := newOutput(t, other).Write(t.Context(), evs); err != nil {
		t.Error(err)
	}
}

func TestServersThatAreNeither(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"version":{"number":"7.10.2"},"tagline":"You Know, for Search"}`: "version 7.10.2",
		`<html><title>Welcome to nginx!</title></html>`:                    "Welcome to nginx!",
		`{"version":{"number":"2.1.0","distribution":"opensearch"}}`:       "",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				_, _ = io.WriteString(w, body)
			} else {
				_, _ = io.WriteString(w, answerOf(3, nil))
			}
		}))
		err := newOutput(t, fakeConfig(s.URL)).Write(t.Context(), events("s", 0, 3))
		s.Close()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDeadNodesAreSetAsideAndTriedAgain(t *testing.T) {
	t.Parallel()
	a, b := newFake(t), newFake(t)
	a.answer(created)
	b.answer(created)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	_ = l.Close()
	o := newOutput(t, fakeConfig(dead, a.URL, b.URL))
	for i := range 20 {
		if err := o.Write(t.Context(), events("s", i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if a.requests() < 8 || b.requests() < 8 {
		t.Errorf("%d and %d requests", a.requests(), b.requests())
	}
	if n := o.cluster.nodes[0]; n.fails == 0 || n.fails > 3 || n.until.IsZero() {
		t.Errorf("the dead node failed %d times until %v", n.fails, n.until)
	}
	// A node that answers 503 is left alone too.
	a.answer(func(w http.ResponseWriter, _ *http.Request, _ []string) { w.WriteHeader(http.StatusServiceUnavailable) })
	failed := 0
	for i := range 10 {
		if err := o.Write(t.Context(), events("s", i, 1)); err != nil {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d requests failed", failed)
	}
	// It comes back when its time is up.
	a.answer(created)
	before := a.requests()
	o.cluster.mu.Lock()
	o.cluster.nodes[1].until = time.Now().Add(-time.Second)
	o.cluster.mu.Unlock()
	for i := range 4 {
		if err := o.Write(t.Context(), events("s", i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if a.requests() == before || o.cluster.nodes[1].fails != 0 {
		t.Error("the node was not tried again")
	}
	// With all of them gone the error says so, and nothing hangs.
	a.Close()
	b.Close()
	o.idle()
	if err := o.Write(t.Context(), events("s", 0, 1)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answer(func(w http.ResponseWriter, r *http.Request, ids []string) {
		q := r.URL.Query()
		user, password, _ := r.BasicAuth()
		got := fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header["Content-Type"], r.Header["Content-Encoding"], r.Header["X-Tenant"], r.Header["User-Agent"],
			q.Get("pipeline"), q.Get("timeout"), user, password, r.TransferEncoding)
		want := "POST /es/_bulk [application/x-ndjson] [gzip] [blue] [stacktrail]p30000msuserpassword[]"
		if got != want || len(ids) != 3 {
			t.Errorf("sent %s\nnot  %s", got, want)
		}
		created(w, r, ids)
	})
	c := fakeConfig(f.URL + "/es/")
	c.Flavor, c.Pipeline, c.Headers = flavorElasticsearch, "p", map[string]conf.Secret{"x-tenant": conf.NewSecret("blue")}
	c.Username, c.Password = "user", conf.NewSecret("password")
	if err := newOutput(t, c).Write(t.Context(), events("s", 0, 3)); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsAskedWithoutTheRight(t *testing.T) {
	t.Parallel()
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		switch {
		case r.URL.Path == "/logs-a-default/_bulk":
			_, _ = io.WriteString(w, answerOf(3, nil))
		case strings.HasPrefix(r.URL.Path, "/_data_stream/"):
			asked++
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"error":{"type":"security_exception","reason":"view_index_metadata"},"status":403}`)
		}
	}))
	defer s.Close()
	c := fakeConfig(s.URL)
	c.Index, c.DataStream = "", &DataStream{Type: "logs", Dataset: "a", Namespace: "default"}
	o := newOutput(t, c)
	for range 3 {
		if err := o.Write(t.Context(), events("s", 0, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 2 { // whether it is there, and for what it is made of
		t.Errorf("asked %d times", asked)
	}
	if err := o.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "view_index_metadata") {
		t.Errorf("Check: %v", err)
	}
}

func TestAskingThatFailsSendsNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"an answer too short": `{"docs":[{"found":false}]}`,
		"a closed index":      `{"docs":[{"found":false},{"found":false},{"error":{"type":"index_closed_exception","reason":"closed"}}]}`,
		"no JSON":             `hello`,
		"nothing said":        `{"docs":[{},{},{}]}`,
	} {
		sent := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Elastic-Product", "Elasticsearch")
			switch {
			case strings.HasSuffix(r.URL.Path, "/_bulk"):
				sent++
			case strings.HasSuffix(r.URL.Path, "/_mget"):
				_, _ = io.WriteString(w, answer)
			case strings.HasPrefix(r.URL.Path, "/_data_stream/"):
				_, _ = io.WriteString(w, `{"data_streams":[{"indices":[{"index_name":".ds-a"}]}]}`)
			}
		}))
		c := fakeConfig(s.URL)
		c.Index, c.DataStream = "", &DataStream{Type: "logs", Dataset: "a", Namespace: "default"}
		err := newOutput(t, c).Write(t.Context(), events("s", 0, 3))
		s.Close()
		if err == nil || !strings.Contains(err.Error(), "asking for known ids") || sent != 0 {
			t.Errorf("%s: %v after %d requests", name, err, sent)
		}
	}
}

func TestWhatIsKnownOfStreamsAndIDs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	m := newMemory(now, true, false)
	r := &request{}
	ask := func(at time.Time) int { return len(m.mustAsk(r, at)) }
	r.begin(events("s", 0, 10))
	for i := range r.events {
		r.at = append(r.at, i)
	}
	if ask(now) != 10 {
		t.Error("a stream is asked for at first")
	}
	m.allTaken(r)
	if m.streams["s"] != 10 || ask(now) != 10 {
		t.Error("a few new events do not prove that all are new")
	}
	m.streams["s"] = newInARow - 10
	m.takenLocked(r, 0, false)
	if m.streams["s"] != 0 {
		t.Error("a known event begins the count anew")
	}
	m.streams["s"] = newInARow - 10
	m.allTaken(r)
	if ask(now) != 0 {
		t.Error("after many new events in a row nothing is asked")
	}
	m.doubt(r)
	if ask(now) != 10 {
		t.Error("events of an unknown outcome are asked for")
	}
	m.allTaken(r)
	if ask(now) != 0 || len(m.unsure) != 0 {
		t.Error("what is settled is not asked for")
	}
	m.streams["s"] = 0
	for i, e := range r.events {
		e.Time = now.Add(time.Duration(i) * 2 * time.Minute)
	}
	if ask(now.Add(5*time.Minute)) != 10 || ask(now.Add(time.Hour)) != 6 {
		t.Error("events that are younger than the start are new, once it is long ago")
	}
	m = newMemory(now, true, true)
	m.streams["s"] = -1
	if ask(now.Add(time.Hour)) != 10 {
		t.Error("where anything may have been sent before all is asked for, always")
	}
}

// inMemory answers without a network.
type inMemory struct{ answer string }

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	} else {
		m.answer = `{"data_streams":[{"indices":[{"index_name":".ds-a"}]}]}`
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"X-Elastic-Product": {"Elasticsearch"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(m.answer)),
	}, nil
}

func quick(t testing.TB, n int) *made {
	c := fakeConfig("http://192.0.2.1:9200")
	c.Index, c.DataStream, c.Flavor = "", &DataStream{Type: "logs", Dataset: "a", Namespace: "default"}, flavorElasticsearch
	o := newOutput(t, c)
	o.cluster.base = inMemory{answerOf(n, nil)}
	o.memory.streams["sample"] = -1
	return o
}

// cached returns events whose encodings are cached, as the agent hands them on.
func cached(o *made, n int) []*event.Event {
	b := plugintest.Events(n)
	b.Encode(o.enc, nil, func(dst []byte, e *event.Event) []byte { return o.enc.Append(dst, e) })
	var all []*event.Event
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

func TestAnObjectWithNewlinesStaysOneDocument(t *testing.T) {
	t.Parallel()
	o := quick(t, 1)
	evs := events("s", 0, 2)
	evs[0].Set("attributes", event.ObjectValue("{\n\"a\":\n1}\n"))
	for _, index := range []*indexTemplate{nil, {parts: []template.Part{{Text: "x"}}}} {
		o.index = index
		r := &request{}
		r.begin(evs)
		r.build(o.output)
		lines := bytes.Split(bytes.TrimSuffix(r.body, []byte("\n")), []byte("\n"))
		if len(lines) != 4 {
			t.Fatalf("%d lines:\n%s", len(lines), r.body)
		}
		for _, l := range lines {
			if !json.Valid(l) {
				t.Errorf("no JSON: %s", l)
			}
		}
	}
}

func TestTheGoodPathAllocatesPerRequestAndNotPerEvent(t *testing.T) {
	const n = 1000
	o := quick(t, n)
	evs := cached(o, n)
	per := testing.AllocsPerRun(20, func() {
		if err := o.Write(context.Background(), evs); err != nil {
			t.Error(err)
		}
	})
	if per > n/10 {
		t.Errorf("%.0f allocations for %d events", per, n)
	}
}

func BenchmarkBody(b *testing.B) {
	o := quick(b, 1)
	evs := cached(o, 1000)
	r := &request{}
	r.begin(evs)
	r.build(o.output)
	b.SetBytes(int64(len(r.body)))
	b.ReportAllocs()
	for b.Loop() {
		r.begin(evs)
		r.build(o.output)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(evs)), "ns/event")
}

func BenchmarkWrite(b *testing.B) {
	o := quick(b, 1000)
	evs := cached(o, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Write(context.Background(), evs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(evs)), "ns/event")
}

func TestNoValueOfAHeaderStandsInAnError(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "denied "+r.Header.Get("X-Key")+" "+r.Header.Get("Authorization"), http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	c := fakeConfig(s.URL)
	c.Flavor, c.APIKey = flavorElasticsearch, conf.NewSecret("sesame-of-the-key")
	c.Headers = map[string]conf.Secret{"X-Key": conf.NewSecret("sesame-of-the-header")}
	err := newOutput(t, c).Write(t.Context(), events("s", 0, 3))
	if err == nil || !strings.Contains(err.Error(), "denied") || strings.Contains(err.Error(), "sesame") {
		t.Errorf("got %v", err)
	}
}
