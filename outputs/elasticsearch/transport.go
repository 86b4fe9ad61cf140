package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// credentials are what requests are signed with: an API key, or what web.Auth knows. They are safe for concurrent use.
type credentials struct {
	*web.Credentials
	lookup conf.Lookup

	mu      sync.RWMutex // guards key
	key     conf.Secret
	headers []string // values of the configured headers: they may be secrets, too
}

func newCredentials(c Config, lookup conf.Lookup) *credentials {
	cr := &credentials{Credentials: web.NewCredentials(c.Auth, lookup), lookup: lookup, key: c.APIKey}
	for _, v := range c.Headers {
		cr.headers = append(cr.headers, v.Reveal())
	}
	return cr
}

func (c *credentials) apiKey() conf.Secret {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.key
}

// Apply signs a request.
func (c *credentials) Apply(r *http.Request) {
	if key := c.apiKey().Reveal(); key != "" {
		r.Header.Set("Authorization", apiKeyHeader(key))
		return
	}
	c.Credentials.Apply(r)
}

// secrets returns what must stand in no message.
func (c *credentials) secrets() []string {
	all := append(c.Auth().Secrets(), c.headers...)
	if key := c.apiKey().Reveal(); key != "" {
		all = append(all, strings.TrimPrefix(apiKeyHeader(key), "ApiKey "), key)
	}
	return all
}

// Reread reads the secrets again, after a 401, and reports whether they are others now.
func (c *credentials) Reread() (changed bool, err error) {
	old := c.apiKey()
	if old.Reveal() == "" {
		return c.Credentials.Reread()
	}
	s, err := old.Resolve(c.lookup)
	if err == nil {
		err = checkAPIKey(s)
	}
	if err != nil || s.Equal(old) {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = s
	return true, nil
}

// payload is the body of one attempt. net/http may go on reading from it after it has answered; detach makes that harmless,
// so that the buffer can be used again.
type payload struct {
	mu   sync.Mutex // guards what follows
	data []byte
	at   int
}

var errDetached = errors.New("the request is over")

func (p *payload) Read(dst []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.at < 0:
		return 0, errDetached
	case p.at == len(p.data):
		return 0, io.EOF
	}
	n := copy(dst, p.data[p.at:])
	p.at += n
	return n, nil
}

func (p *payload) Close() error { return nil }

// detach lets go of the data and reports whether any of it was read.
func (p *payload) detach() (touched bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	touched = p.at != 0
	p.data, p.at = nil, -1
	return touched
}

// unsentError is a fault of the connection before any of the body went out: the server knows nothing of the request.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// Setting a node aside: for how long after its first failure in a row, and at most.
const (
	asideFirst = time.Second
	asideMost  = 30 * time.Second
)

// node is one address of the cluster.
type node struct {
	url   *url.URL
	fails int       // in a row
	until time.Time // set aside
}

// cluster is the RoundTripper below the client library: it picks a node, signs, sets nodes that fail aside, and satisfies the
// library's check of the product where the server is an OpenSearch.
type cluster struct {
	base    http.RoundTripper
	auth    *credentials
	headers http.Header
	log     *slog.Logger
	flavor  atomic.Pointer[string] // nil: not known yet

	mu    sync.Mutex // guards what follows
	nodes []*node
	next  int
}

func newCluster(c Config, base http.RoundTripper, auth *credentials, log *slog.Logger) (*cluster, error) {
	cl := &cluster{base: base, auth: auth, log: log, headers: http.Header{"User-Agent": {"stacktrail"}}}
	for name, v := range c.Headers {
		cl.headers.Set(name, v.Reveal())
	}
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, conf.KeyError{Key: fmt.Sprintf("urls[%d]", i), Err: errors.New("it does not parse")}
		}
		u.Path = strings.TrimRight(u.Path, "/")
		cl.nodes = append(cl.nodes, &node{url: u})
	}
	if c.Flavor != flavorAuto {
		cl.flavor.Store(&c.Flavor)
	}
	return cl, nil
}

// pick returns the next node that is not set aside; if all are, the one whose time is up first.
func (c *cluster) pick() *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var best *node
	for i := range c.nodes {
		n := c.nodes[(c.next+i)%len(c.nodes)]
		if !n.until.After(now) {
			c.next = (c.next + i + 1) % len(c.nodes)
			return n
		}
		if best == nil || n.until.Before(best.until) {
			best = n
		}
	}
	return best
}

// report notes how a request to a node ended.
func (c *cluster) report(n *node, cause error) {
	c.mu.Lock()
	fails := n.fails
	if cause == nil {
		n.fails, n.until = 0, time.Time{}
	} else {
		n.fails++
		n.until = time.Now().Add(min(asideFirst<<min(n.fails-1, 10), asideMost))
	}
	c.mu.Unlock()
	if len(c.nodes) == 1 {
		return // the agent says it
	}
	switch {
	case cause == nil && fails > 0:
		c.log.Info("node answers again", "url", web.ShowURL(n.url))
	case cause != nil && fails == 0:
		c.log.Warn("node set aside", "url", web.ShowURL(n.url), "error", cause)
	}
}

// RoundTrip sends the request to one node, or to the next ones where it did not get through at all. The body, if any, is a
// *payload.
func (c *cluster) RoundTrip(req *http.Request) (*http.Response, error) {
	body, _ := req.Body.(*payload)
	reread := false
	var lost error
	for tries := 0; tries < len(c.nodes); tries++ {
		n := c.pick()
		res, err := c.send(req, n, body)
		if err != nil {
			if errors.Is(err, context.Canceled) {
				return nil, err
			}
			c.report(n, web.Fault(err))
			unsent := (*unsentError)(nil)
			if !errors.As(err, &unsent) || req.Context().Err() != nil {
				return nil, err
			}
			lost = err
			continue
		}
		switch res.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			c.report(n, fmt.Errorf("status %d", res.StatusCode))
		default:
			c.report(n, nil)
		}
		if res.StatusCode == http.StatusUnauthorized && !reread {
			reread = true
			changed, err := c.auth.Reread()
			if err != nil {
				c.log.Warn("credentials cannot be read again", "error", err)
			}
			if changed {
				web.Drain(res.Body)
				tries--
				continue
			}
		}
		if f := c.flavor.Load(); f != nil && *f == flavorOpenSearch {
			res.Header.Set("X-Elastic-Product", "Elasticsearch") // what the client library asks for
		}
		return res, nil
	}
	return nil, lost
}

func (c *cluster) send(req *http.Request, n *node, body *payload) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.URL.Scheme, r.URL.Host, r.Host = n.url.Scheme, n.url.Host, ""
	if n.url.Path != "" {
		r.URL.Path = n.url.Path + r.URL.Path
		r.URL.RawPath = ""
	}
	maps.Copy(r.Header, c.headers)
	c.auth.Apply(r)
	if body == nil {
		res, err := c.base.RoundTrip(r)
		if err != nil {
			return nil, &unsentError{err} // asking twice does no harm
		}
		return res, nil
	}
	p := &payload{data: body.data}
	r.Body, r.ContentLength, r.GetBody = p, int64(len(body.data)), nil
	res, err := c.base.RoundTrip(r)
	if err != nil {
		if !p.detach() {
			err = &unsentError{err}
		}
		return nil, err
	}
	res.Body = &answerBody{res.Body, p}
	return res, nil
}

// answerBody detaches the request's body when the answer is closed.
type answerBody struct {
	io.ReadCloser
	sent *payload
}

func (a *answerBody) Close() error {
	a.sent.detach()
	return a.ReadCloser.Close()
}

// detect finds out what the server is, once.
func (c *cluster) detect(ctx context.Context) (flavor string, err error) {
	if f := c.flavor.Load(); f != nil {
		return *f, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cluster/", nil)
	if err != nil {
		return "", err
	}
	res, err := c.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer web.Drain(res.Body)
	head := web.ReadHead(res.Body, 64<<10)
	flavor = flavorElasticsearch
	if res.Header.Get("X-Elastic-Product") != "Elasticsearch" {
		var root struct {
			Version struct{ Distribution, Number string }
		}
		_ = json.Unmarshal(head, &root)
		switch {
		case root.Version.Distribution == flavorOpenSearch:
			flavor = flavorOpenSearch
		case res.StatusCode == http.StatusForbidden:
			// Elasticsearch signs its refusals too. OpenSearch does not let everybody ask.
			flavor = flavorOpenSearch
		case res.StatusCode/100 != 2:
			return "", statusFault(res, head, c.auth.secrets())
		case root.Version.Number != "":
			return "", &fault{text: "the server is neither Elasticsearch 8 or newer nor OpenSearch, but version " + web.Line(root.Version.Number, 40)}
		default:
			return "", &fault{text: "the server is neither Elasticsearch nor OpenSearch: " + web.Excerpt(head, c.auth.secrets()...)}
		}
	}
	if c.flavor.CompareAndSwap(nil, &flavor) {
		c.log.Info("server found", "flavor", flavor)
	}
	return flavor, nil
}
