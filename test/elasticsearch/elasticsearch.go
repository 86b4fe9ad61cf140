// Package elasticsearch gives tests a real Elasticsearch or OpenSearch. It is for tests only.
//
// A server is, in this order, the one that ELASTICSEARCH_URL or OPENSEARCH_URL names, or one that start.sh starts from the vendors'
// own jars on loopback, with its data in a temporary directory. For the latter a JDK with javac and Maven have to be installed; without
// them the test fails and says so.
//
// Pool shares one server of a kind among the tests of a process, each of which uses indices of its own (Server.Name). Start makes a
// server for one test alone, which may stop, kill and restart it. All servers that were started here end with the test process, even
// if that is killed.
package elasticsearch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Kind is which server. Its values are the kinds that start.sh knows.
type Kind string

// The kinds of servers.
const (
	Elasticsearch  Kind = "elasticsearch"  // 8
	Elasticsearch9 Kind = "elasticsearch9" // 9
	OpenSearch     Kind = "opensearch"     // 2
	OpenSearch3    Kind = "opensearch3"    // 3
)

// Kinds returns those that tests run against: Elasticsearch 8 and OpenSearch 2, or what SEARCH_KINDS names, with commas between.
func Kinds() []Kind {
	named := os.Getenv("SEARCH_KINDS")
	if named == "" {
		return []Kind{Elasticsearch, OpenSearch}
	}
	var all []Kind
	for k := range strings.SplitSeq(named, ",") {
		all = append(all, Kind(k))
	}
	return all
}

// IsOpenSearch tells the two families apart.
func (k Kind) IsOpenSearch() bool { return k == OpenSearch || k == OpenSearch3 }

// variable is where a user names a server of his own.
func (k Kind) variable() string {
	switch k {
	case Elasticsearch:
		return "ELASTICSEARCH_URL"
	case OpenSearch:
		return "OPENSEARCH_URL"
	}
	return ""
}

// startTimeout bounds one start; the first one fetches the jars.
const startTimeout = 10 * time.Minute

// Server is a running server, or one of a user's own, which the tests cannot kill.
type Server struct {
	Kind Kind
	URL  string

	dir      string // of the data; "" for a user's own server
	settings []string
}

// Pool holds one server of each kind for all tests of a process. TestMain makes one and closes it at the end.
type Pool struct {
	mu      sync.Mutex
	servers map[Kind]*Server
	faults  map[Kind]error
}

// NewPool makes a pool; servers are started when they are asked for.
func NewPool() *Pool { return &Pool{servers: map[Kind]*Server{}, faults: map[Kind]error{}} }

// Get returns the shared server of a kind. It fails the test when there is none to be had.
func (p *Pool) Get(t testing.TB, kind Kind) *Server {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.servers[kind] == nil && p.faults[kind] == nil {
		p.servers[kind], p.faults[kind] = p.open(kind)
	}
	if err := p.faults[kind]; err != nil {
		t.Fatal(err)
	}
	return p.servers[kind]
}

func (p *Pool) open(kind Kind) (*Server, error) {
	if v := kind.variable(); v != "" && os.Getenv(v) != "" {
		return &Server{Kind: kind, URL: strings.TrimRight(os.Getenv(v), "/")}, nil
	}
	dir, err := os.MkdirTemp("", "search-server-")
	if err != nil {
		return nil, err
	}
	s, err := start(kind, dir)
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return s, err
}

// Close ends the servers that the pool started.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.servers {
		if s != nil && s.dir != "" {
			_ = s.end("-9")
			_ = os.RemoveAll(s.dir)
		}
	}
	clear(p.servers)
}

// Start starts a server for this test alone, with settings such as http.max_content_length=1mb. It ends with the test.
func Start(t testing.TB, kind Kind, settings ...string) *Server {
	t.Helper()
	s, err := start(kind, t.TempDir(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.end("-9"); err != nil {
			t.Errorf("ending the server: %v", err)
		}
	})
	return s
}

func start(kind Kind, dir string, settings ...string) (*Server, error) {
	for _, tool := range []string{"mvn", "javac", "curl", "flock", "setsid"} {
		if _, err := exec.LookPath(tool); err != nil {
			hint := ""
			if v := kind.variable(); v != "" {
				hint = ", or name a server of your own in " + v
			}
			return nil, fmt.Errorf("starting %s needs %s: install a JDK 17 or newer with javac, Maven, curl and util-linux%s", kind, tool, hint)
		}
	}
	s := &Server{Kind: kind, dir: dir, settings: settings}
	var err error
	for range 3 { // somebody else may take the port first
		var port int
		if port, err = freePort(); err != nil {
			return nil, err
		}
		s.URL = "http://127.0.0.1:" + strconv.Itoa(port)
		if err = s.run(); err == nil {
			return s, nil
		}
		_ = s.end("-9")
		if !strings.Contains(err.Error(), "BindHttpException") && !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return nil, err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("BUG: a %T for a TCP listener", l.Addr())
	}
	return a.Port, nil
}

// recipe is the folder with start.sh: it is found from the package that is tested.
func recipe() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "test", "elasticsearch"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("looking for test/elasticsearch: there is no go.mod above the working directory")
		}
		dir = up
	}
}

func (s *Server) run() error {
	dir, err := recipe()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "start.sh"), append([]string{string(s.Kind), port, s.dir}, s.settings...)...)
	cmd.Env = append(os.Environ(), "SEARCH_OWNER="+strconv.Itoa(os.Getpid()))
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("starting %s: %w\n%s", s.Kind, err, out)
	}
	return nil
}

func (s *Server) end(how ...string) error {
	if s.dir == "" {
		return errors.New("the server is not ours to end")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "server.pid")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	dir, err := recipe()
	if err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(dir, "stop.sh"), append([]string{s.dir}, how...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// Kill ends the server as a crash does. Its data stays.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.end("-9"); err != nil {
		t.Fatalf("killing the server: %v", err)
	}
}

// Restart starts a server that was killed again, on the same data and port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

// Freeze makes the server hang (SIGSTOP).
func (s *Server) Freeze(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGSTOP) }

// Thaw ends Freeze (SIGCONT).
func (s *Server) Thaw(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if s.dir == "" {
		t.Fatal("the server is not ours to stop: this test needs one that was started for it")
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "server.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		t.Fatalf("reading server.pid: %q", text)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// Name returns a name for an index of this test alone, made of letters, digits and underscores, or for the dataset of a data stream
// logs-NAME-default. What has it is removed when the test ends.
func (s *Server) Name(t testing.TB, base string) string {
	t.Helper()
	name := strings.ToLower(base) + "_" + strconv.FormatInt(time.Now().UnixNano(), 36) + "_" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() {
		stream := "logs-" + name + "-default"
		for _, p := range []string{"/_data_stream/" + stream, "/" + name, "/_index_template/stacktrail-" + stream} {
			if _, err := s.Call(http.MethodDelete, p, ""); err != nil {
				return // it is gone, or about to go
			}
		}
	})
	return name
}

// Answer is what the server said.
type Answer struct {
	Status int
	Body   []byte
}

// JSON decodes the body.
func (a Answer) JSON(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		t.Fatalf("decoding %.500s: %v", a.Body, err)
	}
}

// Call sends a request with a JSON body, or none.
func (s *Server) Call(method, path, body string) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, r)
	if err != nil {
		return Answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	// No connection stays open: tests look for what is left behind.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return Answer{res.StatusCode, data}, err
}

// Do sends a request that must succeed.
func (s *Server) Do(t testing.TB, method, path, body string) Answer {
	t.Helper()
	a, err := s.Call(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.Status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, a.Status, bytes.TrimSpace(a.Body))
	}
	return a
}

// Count refreshes and counts what stands in an index, a data stream or a pattern of them; 0 if there is none.
func (s *Server) Count(t testing.TB, name string) int {
	t.Helper()
	if a, err := s.Call(http.MethodPost, "/"+name+"/_refresh", ""); err != nil {
		t.Fatal(err)
	} else if a.Status == http.StatusNotFound {
		return 0
	}
	var n struct{ Count int }
	s.Do(t, http.MethodGet, "/"+name+"/_count", "").JSON(t, &n)
	return n.Count
}
