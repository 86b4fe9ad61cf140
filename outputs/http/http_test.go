package http

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stacktrail/stacktrail/outputs/internal/webtest"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// collector is a server that keeps what it was sent and answers as told.
type collector struct {
	*httptest.Server
	answer func(w nethttp.ResponseWriter, r *nethttp.Request) // nil: 200

	mu       sync.Mutex // guards what follows
	requests []*nethttp.Request
	bodies   [][]byte // as sent
}

func (c *collector) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(nethttp.ErrAbortHandler) // the client went away
	}
	c.mu.Lock()
	c.requests, c.bodies = append(c.requests, r), append(c.bodies, body)
	c.mu.Unlock()
	if c.answer != nil {
		c.answer(w, r)
	}
}

func (c *collector) seen() ([]*nethttp.Request, [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests), slices.Clone(c.bodies)
}

func quiet(s *httptest.Server) { s.Config.ErrorLog = log.New(io.Discard, "", 0) }

func serve(t testing.TB, answer func(w nethttp.ResponseWriter, r *nethttp.Request)) *collector {
	t.Helper()
	c := &collector{answer: answer}
	c.Server = httptest.NewUnstartedServer(c)
	quiet(c.Server)
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func status(code int, headers ...string) func(w nethttp.ResponseWriter, r *nethttp.Request) {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

func config(t testing.TB, yaml string) Config {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(yaml))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	if err := conf.Interpolate(n, conf.SystemLookup()).Err(); err != nil {
		t.Fatal(err)
	}
	c, faults := conf.Decode(n, Spec.Defaults.(Config))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, yaml string, env plugins.Env) *output {
	t.Helper()
	o, err := build(config(t, yaml), env, conf.SystemLookup())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func events(n int) []*event.Event {
	b := plugintest.Events(n)
	var all []*event.Event
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

func TestContract(t *testing.T) {
	for _, cfg := range []string{"compress: none", "compress: gzip", "encoding: json", "{encoding: json, compress: gzip, method: PUT}"} {
		// One file for each instance stands for its server: the suite compares what arrived.
		c := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Header.Get("Content-Encoding") == "gzip" {
				w.WriteHeader(nethttp.StatusAccepted)
			}
		})
		seen := 0
		read := func(string) []byte {
			_, bodies := c.seen()
			p := bytes.Join(bodies[seen:], nil)
			seen = len(bodies)
			return p
		}
		yaml := strings.TrimSuffix(strings.TrimPrefix(cfg, "{"), "}")
		plugintest.Output(t, Spec, "{url: \""+c.URL+"/$DIR\", "+yaml+"}", plugintest.Observe(read))
	}
}

func records(t *testing.T, body []byte, array bool) (all []map[string]any) {
	t.Helper()
	if array {
		if err := json.Unmarshal(body, &all); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		return all
	}
	for l := range strings.Lines(string(body)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil || !strings.HasSuffix(l, "}\n") {
			t.Fatalf("%v in %q", err, l)
		}
		all = append(all, m)
	}
	return all
}

func TestBodyHoldsEveryEventWithItsID(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"ndjson", "json"} {
		for _, compress := range []string{"none", "gzip"} {
			c := serve(t, nil)
			o := open(t, fmt.Sprintf(`{url: "%s/in?x=1", encoding: %s, compress: %s, method: PUT, headers: {X-Tenant: t1}, username: u, password: sesame}`, c.URL, encoding, compress), plugins.Env{})
			want := events(30)
			if err := o.Write(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			requests, bodies := c.seen()
			r, body := requests[0], bodies[0]
			sum := sha256.Sum256(body)
			if got := r.Header.Get("Idempotency-Key"); got != hex.EncodeToString(sum[:16]) {
				t.Errorf("Idempotency-Key is %q, not that of the body", got)
			}
			wantType := map[string]string{"ndjson": "application/x-ndjson", "json": "application/json"}[encoding]
			user, password, _ := r.BasicAuth()
			if r.Method != "PUT" || r.URL.String() != "/in?x=1" || r.Header.Get("Content-Type") != wantType || r.Header.Get("X-Tenant") != "t1" ||
				user != "u" || password != "sesame" || r.ContentLength != int64(len(body)) || r.Header.Get("User-Agent") != "stacktrail" {
				t.Errorf("%s %s: %s %s %v", encoding, compress, r.Method, r.URL, r.Header)
			}
			if zipped := r.Header.Get("Content-Encoding") == "gzip"; zipped != (compress == "gzip") {
				t.Errorf("Content-Encoding %q with compress %s", r.Header.Get("Content-Encoding"), compress)
			}
			if compress == "gzip" {
				z, err := gzip.NewReader(bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			got := records(t, body, encoding == "json")
			if len(got) != len(want) {
				t.Fatalf("%d records, want %d", len(got), len(want))
			}
			for i, m := range got {
				if m["event_id"] != want[i].ID() || m["schema_version"] != "1" {
					t.Errorf("record %d is %v", i, m)
				}
			}
		}
	}
}

func TestRepetitionHasTheKeyOfTheFirst(t *testing.T) {
	t.Parallel()
	c := serve(t, status(503))
	o := open(t, "{url: \""+c.URL+"\", compress: gzip}", plugins.Env{})
	for _, n := range []int{20, 20, 10} {
		_ = o.Write(t.Context(), events(n))
	}
	r, _ := c.seen()
	k := []string{r[0].Header.Get(idempotencyKey), r[1].Header.Get(idempotencyKey), r[2].Header.Get(idempotencyKey)}
	if k[0] == "" || k[0] != k[1] || k[0] == k[2] {
		t.Errorf("keys are %v", k)
	}
}

// What the runner makes of an answer.
func meaning(err error) string {
	var throttle *plugins.ThrottleError
	var permanent *plugins.PermanentError
	var destination *destinationError
	switch {
	case err == nil:
		return "delivered"
	case errors.Is(err, plugins.ErrTooLarge):
		return "too large"
	case errors.As(err, &permanent):
		return "permanent"
	case errors.As(err, &throttle):
		return "wait " + throttle.After.String()
	case errors.As(err, &destination):
		return "destination"
	}
	return "retry"
}

func TestEachStatusHasItsMeaning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code    int
		headers []string
		want    string
	}{
		{200, nil, "delivered"},
		{201, nil, "delivered"},
		{202, nil, "delivered"},
		{204, nil, "delivered"},
		{207, nil, "delivered"},
		{301, []string{"Location", "https://other.example.org/in?key=sesame"}, "destination"},
		{302, []string{"Location", "/login"}, "destination"},
		{304, nil, "destination"},
		{307, []string{"Location", "::"}, "destination"},
		{308, []string{"Location", "/x"}, "destination"},
		{400, nil, "permanent"},
		{401, nil, "destination"},
		{402, nil, "destination"},
		{403, nil, "destination"},
		{404, nil, "destination"},
		{405, nil, "destination"},
		{406, nil, "destination"},
		{407, nil, "destination"},
		{408, nil, "retry"},
		{409, nil, "destination"},
		{410, nil, "destination"},
		{411, nil, "destination"},
		{413, nil, "too large"},
		{415, nil, "destination"},
		{418, nil, "destination"},
		{422, nil, "permanent"},
		{425, nil, "retry"},
		{429, nil, "retry"},
		{429, []string{"Retry-After", "7"}, "wait 7s"},
		{429, []string{"Retry-After", "Fri, 02 Jan 2026 03:04:05 GMT"}, "wait 0s"},
		{429, []string{"Retry-After", "soon"}, "retry"},
		{499, nil, "destination"},
		{500, nil, "retry"},
		{501, nil, "retry"},
		{502, nil, "retry"},
		{503, []string{"Retry-After", "86400"}, "wait 10m0s"},
		{504, nil, "retry"},
		{599, nil, "retry"},
	} {
		s := serve(t, status(c.code, c.headers...))
		o := open(t, "url: "+s.URL+"/in", plugins.Env{})
		err := o.Write(t.Context(), events(3))
		if got := meaning(err); got != c.want {
			t.Errorf("%d %v: %s (%v), want %s", c.code, c.headers, got, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), strconv.Itoa(c.code)) || !strings.Contains(err.Error(), s.URL+"/in") || strings.Contains(err.Error(), "sesame")) {
			t.Errorf("%d: %v", c.code, err)
		}
	}
}

func TestRedirectsAreNamedAndNotFollowed(t *testing.T) {
	t.Parallel()
	other := serve(t, nil)
	c := serve(t, status(307, "Location", other.URL+"/moved?token=sesame"))
	err := open(t, "url: "+c.URL, plugins.Env{}).Write(t.Context(), events(3))
	if err == nil || !strings.Contains(err.Error(), other.URL+"/moved?token=…") {
		t.Errorf("got %v", err)
	}
	if requests, _ := other.seen(); len(requests) != 0 {
		t.Error("the redirect was followed")
	}
}

// A server that takes only small bodies, and answers before it has read a large one.
func TestAnswerBeforeTheBodyIsReadCounts(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, err := io.ReadAll(nethttp.MaxBytesReader(w, r.Body, 1000))
		if err != nil {
			w.WriteHeader(nethttp.StatusRequestEntityTooLarge)
		}
	}))
	quiet(s)
	s.Start()
	defer s.Close()
	o := open(t, "url: "+s.URL, plugins.Env{})
	all := events(20000) // more than any socket buffer
	for range 3 {
		if err := o.Write(t.Context(), all); !errors.Is(err, plugins.ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if err := o.Write(t.Context(), all[:1]); err != nil {
			t.Error(err)
		}
	}
}

func TestOnlyTheEventAtFaultDies(t *testing.T) {
	t.Parallel()
	var bad atomic.Value
	bad.Store("req-00000013")
	var c *collector
	c = serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		_, bodies := c.seen()
		if bytes.Contains(bodies[len(bodies)-1], []byte(bad.Load().(string))) {
			w.WriteHeader(400)
		}
	})
	o := open(t, "url: "+c.URL, plugins.Env{})
	// As the runner does it.
	var dead []string
	var deliver func(evs []*event.Event)
	deliver = func(evs []*event.Event) {
		for again := 0; ; again++ {
			err := o.Write(t.Context(), evs)
			switch meaning(err) {
			case "delivered":
				return
			case "permanent":
				if len(evs) == 1 {
					dead = append(dead, evs[0].RequestID)
					return
				}
				deliver(evs[:len(evs)/2])
				deliver(evs[len(evs)/2:])
				return
			case "destination":
				if len(evs) != 1 || again > tries {
					t.Fatalf("%d events: %v", len(evs), err)
				}
			default:
				t.Fatal(err)
			}
		}
	}
	deliver(events(32))
	if fmt.Sprint(dead) != "[req-00000013]" {
		t.Errorf("dead: %v", dead)
	}
}

// A server that refuses all that it is sent has few events sent to the dead letter, and none quickly.
func TestServerThatRefusesEverythingIsNotBelieved(t *testing.T) {
	t.Parallel()
	var code atomic.Int64
	code.Store(422)
	c := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(int(code.Load())) })
	failed := map[string]string{}
	o := open(t, "url: "+c.URL, plugins.Env{Fail: func(key string, err error) { failed[key] = fmt.Sprint(err) }})
	all := events(40)
	one := func(i int) string { return meaning(o.Write(t.Context(), all[i:i+1])) }
	for i := range tries - 1 {
		if got := one(0); got != "destination" {
			t.Fatalf("try %d: %s", i, got)
		}
	}
	if got := failed["destination"]; !strings.Contains(got, "422") || !strings.Contains(got, "accepts nothing") {
		t.Errorf("health says %q", got)
	}
	if got := one(0); got != "permanent" {
		t.Errorf("last try: %s", got)
	}
	code.Store(200)
	if got := one(1); got != "delivered" || failed["destination"] != "<nil>" {
		t.Errorf("%s, health says %q", got, failed["destination"])
	}
	code.Store(400)
	for i := range doubtful {
		if got := one(2 + i); got != "permanent" {
			t.Errorf("refusal %d after a success: %s", i, got)
		}
	}
	if got := one(20); got != "destination" {
		t.Errorf("after %d refusals in a row: %s", doubtful, got)
	}
}

func TestSecretsAreReadAgainAfterA401(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "token")
	extra := filepath.Join(dir, "extra")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, "sesame-old")
	write(extra, "extra-old")
	var wanted atomic.Value
	wanted.Store("Bearer sesame-old extra-old")
	c := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if got := r.Header.Get("Authorization") + " " + r.Header.Get("X-Extra"); got != wanted.Load() {
			w.WriteHeader(401)
			fmt.Fprintf(w, "<html><title>you sent %s</title>", got)
		}
	})
	o := open(t, fmt.Sprintf(`{url: "%s", headers: {X-Extra: "${file:%s}"}, bearer: "${file:%s}"}`, c.URL, extra, secret), plugins.Env{})
	if err := o.Write(t.Context(), events(2)); err != nil {
		t.Fatal(err)
	}
	wanted.Store("Bearer sesame-new extra-new")
	err := o.Write(t.Context(), events(2))
	if meaning(err) != "destination" || strings.Contains(err.Error(), "-old") || !strings.Contains(err.Error(), "you sent Bearer *** ***") {
		t.Errorf("with old secrets: %v", err)
	}
	if requests, _ := c.seen(); len(requests) != 2 {
		t.Errorf("%d requests: sent again with the same secret", len(requests))
	}
	write(secret, "sesame-new")
	write(extra, "extra\x00new")
	if err := o.Write(t.Context(), events(2)); meaning(err) != "destination" || !strings.Contains(err.Error(), "header X-Extra") || strings.Contains(err.Error(), "-new") {
		t.Errorf("with a header that cannot be sent: %v", err)
	}
	write(extra, "extra-new")
	if err := o.Write(t.Context(), events(2)); err != nil {
		t.Errorf("with new secrets: %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := webtest.NewAuthority(t)
	stranger := webtest.NewAuthority(t)
	cert, key := ca.Client("agent")
	badCert, badKey := stranger.Client("agent")
	soon := time.Now().Add(time.Hour)
	server := func(c tls.Certificate, client bool) string {
		s := httptest.NewUnstartedServer(&collector{})
		quiet(s)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
		if client {
			s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	good := server(ca.Server(soon, "127.0.0.1"), false)
	named := server(ca.Server(soon, "collector.example.org"), false)
	expired := server(ca.Server(time.Now().Add(-time.Hour), "127.0.0.1"), false)
	mutual := server(ca.Server(soon, "127.0.0.1"), true)
	plain := serve(t, nil).URL
	trust := "ca_file: " + ca.File
	for _, c := range []struct{ url, tls, want string }{
		{good, trust, ""},
		{good, "skip_verify: true", ""},
		{good, "", "signed by an unknown authority"},
		{good, "ca_file: " + stranger.File, "signed by an unknown authority"},
		{named, trust, "for another host"},
		{named, trust + ", server_name: collector.example.org", ""},
		{expired, trust, "has expired"},
		{mutual, trust, "certificate required"},
		{mutual, trust + ", cert_file: " + cert + ", key_file: " + key, ""},
		{mutual, trust + ", cert_file: " + badCert + ", key_file: " + badKey, "refuses the connection or our certificate"},
		{strings.Replace(plain, "http:", "https:", 1), trust, "does not speak TLS"},
		{strings.Replace(good, "https:", "http:", 1), "", "400"}, // Go's server says so itself
	} {
		err := open(t, fmt.Sprintf("{url: %q, tls: {%s}}", c.url, c.tls), plugins.Env{}).Write(t.Context(), events(2))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s {%s}: %v", c.url, c.tls, err)
			}
			continue
		}
		// With TLS 1.3 a server refuses a client after the handshake: its alert and the end of the connection come together.
		cut := c.url == mutual && err != nil && strings.Contains(err.Error(), "cut the connection")
		if err == nil || !cut && !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
			t.Errorf("%s {%s}: %v, want %q", c.url, c.tls, err, c.want)
		} else if got := meaning(err); got != "retry" && c.want != "400" {
			t.Errorf("%s {%s}: %s", c.url, c.tls, got)
		}
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	ca := webtest.NewAuthority(t)
	c := &collector{answer: func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.ProtoMajor != 2 {
			w.WriteHeader(nethttp.StatusHTTPVersionNotSupported)
		}
	}}
	s := httptest.NewUnstartedServer(c)
	quiet(s)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Server(time.Now().Add(time.Hour), "127.0.0.1")}}
	s.StartTLS()
	defer s.Close()
	o := open(t, "{url: \""+s.URL+"\", tls: {ca_file: "+ca.File+"}}", plugins.Env{})
	var wg sync.WaitGroup
	for range 4 { // all on one connection
		wg.Go(func() {
			for n := range 10 {
				if err := o.Write(t.Context(), events(100+n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_, bodies := c.seen()
	n := 0
	for _, b := range bodies {
		n += len(records(t, b, false))
	}
	if n != 4*(10*100+45) {
		t.Errorf("%d records arrived", n)
	}
}

// raw serves connections by hand.
func raw(t *testing.T, serve func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c)
			})
		}
	})
	return "http://" + l.Addr().String()
}

// request reads one whole request.
func request(c net.Conn) {
	r, err := nethttp.ReadRequest(bufio.NewReader(c))
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func TestFaultsOfConnectionsAreSaidOnOneLineAndTriedAgain(t *testing.T) {
	t.Parallel()
	answer := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			request(c)
			_, _ = io.WriteString(c, text)
		}
	}
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	long := strings.Repeat("Welcome \x1b[1m", 1000)
	for name, c := range map[string]struct{ url, want string }{
		"refused":               {"http://" + closed.Addr().String(), "connection refused"},
		"hangs":                 {raw(t, hang), "no answer in time"},
		"closes":                {raw(t, func(net.Conn) {}), "cut the connection"},
		"cuts the status line":  {raw(t, answer("HTTP/1.1 20")), "does not speak HTTP"},
		"cuts after a header":   {raw(t, answer("HTTP/1.1 200 OK\r\nServer: x\r\n")), "cut the connection"},
		"cuts the headers":      {raw(t, answer("HTTP/1.1 200 OK\r\nContent-Le")), "does not speak HTTP"},
		"speaks something else": {raw(t, answer("220 mail.example.org ESMTP\r\n")), "does not speak HTTP here"},
		"speaks binary":         {raw(t, answer("\x00\x01\xff\xfe\r\n\r\n")), "does not speak HTTP here"},
		"speaks at length":      {raw(t, answer(long+"\r\n")), "does not speak HTTP here"},
		"hangs in the headers": {raw(t, func(c net.Conn) {
			answer("HTTP/1.1 200 OK\r\n")(c)
			hang(c)
		}), "no answer in time"},
		"endless headers": {raw(t, func(c net.Conn) {
			answer("HTTP/1.1 200 OK\r\n")(c)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "X: "+long+"\r\n")
			}
		}), "header"},
		"no such host": {"http://nowhere.invalid", "nowhere.invalid"},
	} {
		timeout := "20s"
		if c.want == "no answer in time" {
			timeout = "100ms"
		}
		o := open(t, "{url: \""+c.url+"/in?key=sesame\", timeout: "+timeout+"}", plugins.Env{})
		err := o.Write(t.Context(), events(2))
		if err == nil || !strings.Contains(err.Error(), c.want) || meaning(err) != "retry" {
			t.Errorf("%s: %v, want %q", name, err, c.want)
			continue
		}
		if s := err.Error(); strings.ContainsAny(s, "\r\n\x00\x1b") || strings.Contains(s, "sesame") || len(s) > 400 {
			t.Errorf("%s: %q", name, s)
		}
		if again := o.Write(t.Context(), events(2)); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: first %v, then %v", name, err, again)
		}
	}
}

// The status is the answer, whatever becomes of what follows it.
func TestAnswerThatIsCutAfterItsStatusCounts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf":                               "delivered",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":                      "delivered",
		"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 100\r\n\r\nhalf":           "wait 3s",
		"HTTP/1.1 502 Bad\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk":      "retry",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n":                           "delivered",
		"HTTP/1.1 413 Large\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n<html>": "too large",
	} {
		url := raw(t, func(c net.Conn) {
			request(c)
			_, _ = io.WriteString(c, text)
		})
		if err := open(t, "url: "+url, plugins.Env{}).Write(t.Context(), events(2)); meaning(err) != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestErrorPageIsSaidInAFewWords(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(502)
		_, _ = io.WriteString(w, "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>"+strings.Repeat("<p>nginx</p>\n", 5000))
	})
	err := open(t, "url: "+c.URL, plugins.Env{}).Write(t.Context(), events(2))
	if err == nil || !strings.HasSuffix(err.Error(), "502 Bad Gateway: an HTML page: 502 Bad Gateway") {
		t.Errorf("got %v", err)
	}
}

func TestCheckReachesTheServer(t *testing.T) {
	t.Parallel()
	for code, ok := range map[int]bool{200: true, 400: true, 404: false, 410: false, 405: true, 500: true, 302: true, 401: false, 403: false, 407: false} {
		c := serve(t, status(code))
		o, err := build(config(t, "{url: \""+c.URL+"/in?key=sesame\", bearer: sesame}"), plugins.Env{}, conf.SystemLookup())
		if err != nil {
			t.Fatal(err)
		}
		err = o.Check(t.Context())
		if (err == nil) != ok || err != nil && (strings.Contains(err.Error(), "sesame") || !strings.HasPrefix(err.Error(), "HEAD http://")) {
			t.Errorf("%d: %v", code, err)
		}
		if requests, _ := c.seen(); requests[0].Method != "HEAD" || requests[0].Header.Get("Authorization") != "Bearer sesame" {
			t.Errorf("asked with %s %v", requests[0].Method, requests[0].Header)
		}
		_ = o.Close()
	}
	o := open(t, "{url: \""+raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })+"\", timeout: 100ms}", plugins.Env{})
	if err := o.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsWrongIsNamedByItsKey(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		`url: collector.example.org`:                                         "1:1: url: a URL begins with http",
		`{url: "https://u:sesame@example.org"}`:                              "url: user and password",
		`{url: "http://x", headers: {"X-A": "a\nsesame"}}`:                   "headers.X-A: a header's value holds a newline",
		`{url: "http://x", headers: {"X A": b}}`:                             `headers["X A"]: a header's name`,
		`{url: "http://x", headers: {content-length: "1"}}`:                  "headers.content-length: the header content-length is set",
		`{url: "http://x", headers: {idempotency-key: a}}`:                   "the output's own",
		`{url: "http://x", headers: {x-a: first, X-A: second}}`:              "headers.x-a: the same header as X-A",
		`{url: "http://x", headers: {authorization: first}, bearer: second}`: "bearer sets this header",
		`{url: "http://x", username: u}`:                                     "username: a username needs",
		`{url: "http://x", tls: {ca_file: /none/ca.pem}}`:                    "tls.ca_file: reading /none/ca.pem: no such file",
		`{url: "http://x", method: GET}`:                                     "method: expected one of POST, PUT",
		`{url: "http://x", timeout: 0s}`:                                     "timeout",
		`{}`:                                                                 "url",
	} {
		n, faults := conf.Parse("test.yaml", []byte(yaml))
		if faults != nil {
			t.Fatal(faults)
		}
		_, faults = conf.Decode(n, Spec.Defaults.(Config))
		if got := faults.Error(); !strings.Contains(got, want) || strings.Contains(got, "sesame") || len(faults) != 1 {
			t.Errorf("%s: %q, want %q", yaml, got, want)
		}
	}
}

// refusing is a client whose server is never reached.
type refusing struct{}

func (refusing) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	return &nethttp.Response{StatusCode: 200, Body: nethttp.NoBody, Request: r}, nil
}
func (refusing) CloseIdleConnections() {}

func TestBodyIsBuiltInReusedMemory(t *testing.T) {
	for _, cfg := range []string{"encoding: ndjson", "encoding: json", "compress: gzip"} {
		o := open(t, "{url: \"http://192.0.2.1\", "+cfg+"}", plugins.Env{})
		b := plugintest.Events(500)
		b.Encode(o.enc, nil, func(dst []byte, e *event.Event) []byte { return o.enc.Append(dst, e) })
		var all []*event.Event
		for i := range b.Events {
			all = append(all, &b.Events[i])
		}
		x := o.body()
		if n := testing.AllocsPerRun(20, func() { _ = x.fill(o, all) }); n != 0 {
			t.Errorf("%s: %v allocations for a body", cfg, n)
		}
		o.client = refusing{}
		if n := testing.AllocsPerRun(20, func() { _ = o.Write(context.Background(), all) }); n > 60 {
			t.Errorf("%s: %v allocations for a request", cfg, n)
		}
	}
}

// A transport may read on after its answer: it must not see the next body.
func TestBodyIsNotReadAfterItsRequest(t *testing.T) {
	t.Parallel()
	data := []byte("first")
	l := &loan{data: data}
	r := l.reader()
	p := make([]byte, 2)
	if n, err := r.Read(p); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	l.recall()
	if n, err := r.Read(p); n != 0 || !errors.Is(err, errRecalled) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if n, err := l.reader().Read(p); n != 0 || !errors.Is(err, errRecalled) {
		t.Errorf("read %d bytes from the start, %v", n, err)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, compress := range []string{"none", "gzip"} {
		b.Run(compress, func(b *testing.B) {
			o := open(b, "{url: \"http://192.0.2.1\", compress: "+compress+"}", plugins.Env{})
			o.client = refusing{}
			x := plugintest.Events(1000)
			x.Encode(o.enc, nil, func(dst []byte, e *event.Event) []byte { return o.enc.Append(dst, e) })
			var all []*event.Event
			for i := range x.Events {
				all = append(all, &x.Events[i])
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := o.Write(b.Context(), all); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
		})
	}
}
