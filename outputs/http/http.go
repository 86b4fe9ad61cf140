// Package http is an output that sends events in the body of HTTP requests.
//
//	outputs:
//	  - http:
//	      url: https://collector.example.org/ingest
//	      encoding: ndjson
//	      compress: gzip
//	      headers: {X-Scope-OrgID: tenant}
//	      bearer: "${cred:collector}"
//	      tls: {ca_file: /etc/stacktrail/ca.pem}
//
// A body is NDJSON or one JSON array. Each event holds its event_id, the same whenever it is sent, so that a server can tell
// repetitions. The header Idempotency-Key carries a hash of the body as it is sent (the first 128 bits of SHA-256, in hexadecimal): an
// exact repetition of a request has the key of the first.
//
// # What an answer means
//
//	2xx                      delivered
//	408, 425, 429, 5xx       sent again, after Retry-After if it is given (10 minutes at most)
//	413                      halved; one event alone that is too large goes to the dead letter
//	400, 422                 the server refuses what stands in the body: halved; one event alone goes to the dead letter
//	401                      secrets from files and credentials are read again, sent again
//	any other, redirects     a fault of the destination or of the configuration: sent again for ever, and said so
//
// Redirects are not followed. What goes wrong with a connection is sent again.
//
// A server that refuses everything is more likely to be set up wrongly than fed wrongly: while it has accepted nothing since the
// start, or refused 8 single events in a row, a single event that it refuses is sent 10 times before it goes to the dead letter.
package http

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Spec describes the output to the agent.
var Spec = plugins.OutputSpec("http", "Send events in HTTP requests.", Config{
	Method: nethttp.MethodPost, Encoding: encodingNDJSON, Compress: compressNone, Timeout: 30 * time.Second,
}, New).Safe()

const (
	idempotencyKey = "Idempotency-Key"
	// keyBytes of the hash make the key.
	keyBytes = 16
	// keepBuffer: a body's buffer that grew beyond this is not kept.
	keepBuffer = 8 << 20
	// keepBodies: as many workers as make sense.
	keepBodies = 16
	// drainTime is how long the rest of an answer is waited for after its status is known.
	drainTime = 2 * time.Second
	// errorBytes of an answer are looked at for a message.
	errorBytes = 8 << 10
	// doubtful single events in a row make the server's judgement doubtful.
	doubtful = 8
	// tries are how often a single event is sent while the server's judgement is doubtful.
	tries = 10
	// maxTried bounds how many refused bodies are remembered: one for each worker is enough.
	maxTried = 64
)

// New builds the output.
func New(c Config, env plugins.Env) (plugins.Output, error) {
	return build(c, env, conf.SystemLookup())
}

func build(c Config, env plugins.Env, lookup conf.Lookup) (*output, error) {
	u, err := url.Parse(c.URL)
	if err == nil {
		err = web.CheckURL(c.URL)
	}
	if err != nil {
		return nil, conf.KeyError{Key: "url", Err: err}
	}
	o := &output{
		cfg: c, url: u, name: c.Method + " " + web.ShowURL(u), lookup: lookup, fail: env.Fail, log: env.Log,
		auth: web.NewCredentials(c.Auth, lookup), tried: map[string]int{},
	}
	o.headers.Store(&c.Headers)
	opt := schema.EncodeOptions{Newline: true, EventID: true}
	if env.Encoder != nil {
		o.enc = env.Encoder(opt)
	} else {
		o.enc = schema.NewEncoder(opt)
	}
	if o.fail == nil {
		o.fail = func(string, error) {}
	}
	return o, nil
}

// transport is net/http's; tests have others.
type transport interface {
	nethttp.RoundTripper
	CloseIdleConnections()
}

// output is safe for any number of writers at once.
type output struct {
	cfg     Config
	url     *url.URL
	name    string // method and URL for messages, without secrets
	enc     *schema.Encoder
	lookup  conf.Lookup
	fail    func(string, error)
	log     *slog.Logger
	auth    *web.Credentials
	headers atomic.Pointer[map[string]conf.Secret]
	client  transport
	faulty  atomic.Bool // a destination fault was reported and not taken back

	mu     sync.Mutex // guards what follows
	bodies []*body    // free ones
	// accepted says that the server's refusals are believed; refused counts single events that it refused since it accepted something.
	accepted bool
	refused  int
	tried    map[string]int // how often a single event's body was refused while the server was not believed
}

// Open builds the transport. It connects to nothing.
func (o *output) Open(context.Context) error {
	if o.client != nil {
		return nil
	}
	c, err := web.NewTransport(o.cfg.TLS)
	if err != nil {
		return fmt.Errorf("opening output: %w", err)
	}
	o.client = c
	if o.cfg.TLS.SkipVerify && o.log != nil {
		o.log.Warn("the server's certificate is not verified (tls.skip_verify)", "url", web.ShowURL(o.url))
	}
	return nil
}

// Close closes idle connections.
func (o *output) Close() error {
	if o.client != nil {
		o.client.CloseIdleConnections()
	}
	return nil
}

// Check asks the server for the URL's head. Any answer counts as reached, but those that say who may not come in.
func (o *output) Check(ctx context.Context) error {
	if err := o.Open(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	r, err := o.request(ctx, nethttp.MethodHead, nil)
	if err != nil {
		return err
	}
	name := nethttp.MethodHead + strings.TrimPrefix(o.name, o.cfg.Method)
	a, err := o.client.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, web.Fault(err))
	}
	web.Drain(a.Body)
	switch a.StatusCode {
	case nethttp.StatusUnauthorized, nethttp.StatusForbidden, nethttp.StatusProxyAuthRequired, nethttp.StatusNotFound, nethttp.StatusGone:
		return fmt.Errorf("%s: the answer was %s", name, statusText(a.StatusCode))
	}
	return nil
}

// Write sends the events in one request.
func (o *output) Write(ctx context.Context, events []*event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(events) == 0 {
		return nil
	}
	if o.client == nil {
		return errors.New("BUG: Write before Open")
	}
	b := o.body()
	defer o.free(b)
	if err := b.fill(o, events); err != nil {
		return err
	}
	err := o.send(ctx, b, len(events))
	if errors.Is(err, errUnauthorized) {
		// The one second try, and only with another secret: all others are the runner's.
		if changed, rereadErr := o.reread(); rereadErr != nil {
			err = fmt.Errorf("%w; reading its secrets again failed: %w", err, rereadErr)
		} else if changed {
			err = o.send(ctx, b, len(events))
		}
	}
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	o.report(err)
	return err
}

// errUnauthorized is wrapped by the error of a 401.
var errUnauthorized = errors.New("the server wants other credentials")

// destinationError is a fault that no repetition mends before somebody changes the server or the configuration.
type destinationError struct{ error }

func (e *destinationError) Unwrap() error { return e.error }

// report tells health about destination faults, and when they are gone.
func (o *output) report(err error) {
	if _, is := errors.AsType[*destinationError](err); is {
		o.faulty.Store(true)
		o.fail("destination", err)
	} else if err == nil && o.faulty.CompareAndSwap(true, false) {
		o.fail("destination", nil)
	}
}

// request builds a request with all headers but those of the body.
func (o *output) request(ctx context.Context, method string, body io.ReadCloser) (*nethttp.Request, error) {
	r, err := nethttp.NewRequestWithContext(ctx, method, o.cfg.URL, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", web.Fault(err))
	}
	r.Header.Set("User-Agent", "stacktrail")
	for name, value := range *o.headers.Load() {
		r.Header.Set(name, value.Reveal())
	}
	o.auth.Apply(r)
	return r, nil
}

// reread reads the secrets again that come from outside the configuration.
func (o *output) reread() (changed bool, err error) {
	if changed, err = o.auth.Reread(); err != nil {
		return false, err
	}
	old := *o.headers.Load()
	fresh := make(map[string]conf.Secret, len(old))
	for name, value := range old {
		s, err := value.Resolve(o.lookup)
		if err == nil {
			err = web.CheckHeader(name, s.Reveal())
		}
		if err != nil {
			return false, fmt.Errorf("header %s: %w", name, err)
		}
		changed = changed || !s.Equal(value)
		fresh[name] = s
	}
	o.headers.Store(&fresh)
	return changed, nil
}

// secrets lists what an answer may echo and a message must not show.
func (o *output) secrets() []string {
	all := o.auth.Auth().Secrets()
	for _, value := range *o.headers.Load() {
		all = append(all, value.Reveal())
	}
	for _, values := range o.url.Query() {
		all = append(all, values...)
	}
	return all
}

func (o *output) send(ctx context.Context, b *body, n int) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	r, err := o.request(ctx, o.cfg.Method, nil)
	if err != nil {
		return err
	}
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/x-ndjson")
		if o.cfg.Encoding == encodingJSON {
			r.Header.Set("Content-Type", "application/json")
		}
	}
	if o.cfg.Compress == compressGzip {
		r.Header.Set("Content-Encoding", "gzip")
	}
	r.Header.Set(idempotencyKey, string(b.key[:]))
	lend := &loan{data: b.sent}
	defer lend.recall()
	r.ContentLength = int64(len(b.sent))
	r.Body = lend.reader()
	r.GetBody = func() (io.ReadCloser, error) { return lend.reader(), nil }
	a, err := o.client.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("%s: %w", o.name, web.Fault(err))
	}
	// The status is the answer. What follows it must not hold us up.
	t := time.AfterFunc(drainTime, cancel)
	defer t.Stop()
	if a.StatusCode >= 200 && a.StatusCode < 300 {
		web.Drain(a.Body)
		o.believe()
		return nil
	}
	excerpt := web.Excerpt(web.ReadHead(a.Body, errorBytes), o.secrets()...)
	web.Drain(a.Body)
	return o.judge(a, excerpt, b, n)
}

func statusText(code int) string {
	if text := nethttp.StatusText(code); text != "" {
		return fmt.Sprintf("%d %s", code, text)
	}
	return strconv.Itoa(code)
}

// judge turns an answer that is no success into the error that says what becomes of the n events.
func (o *output) judge(a *nethttp.Response, excerpt string, b *body, n int) error {
	said := ""
	if excerpt != "" {
		said = ": " + excerpt
	}
	err := fmt.Errorf("%s: the answer was %s%s", o.name, statusText(a.StatusCode), said)
	code := a.StatusCode
	switch {
	case code == nethttp.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", plugins.ErrTooLarge, err)
	case code == nethttp.StatusBadRequest, code == nethttp.StatusUnprocessableEntity:
		if n > 1 {
			return &plugins.PermanentError{Err: err}
		}
		return o.refuse(err, b)
	case code == nethttp.StatusRequestTimeout, code == nethttp.StatusTooEarly, code == nethttp.StatusTooManyRequests, code >= 500:
		if after, ok := web.RetryAfter(a.Header, time.Now()); ok {
			return &plugins.ThrottleError{Err: err, After: after}
		}
		return err
	case code == nethttp.StatusUnauthorized:
		return &destinationError{fmt.Errorf("%w (%w)", err, errUnauthorized)}
	case code >= 300 && code < 400:
		if to, locationErr := a.Location(); locationErr == nil {
			return &destinationError{fmt.Errorf("%w; redirects are not followed, it points to %s", err, web.Hide(web.ShowURL(to), o.secrets()...))}
		}
	}
	return &destinationError{err}
}

// believe notes that the server accepted something.
func (o *output) believe() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.accepted, o.refused = true, 0
	clear(o.tried)
}

// refuse decides whether a single event that the server refused dies or is tried again.
func (o *output) refuse(err error, b *body) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused++; o.refused > doubtful {
		o.accepted = false
	}
	if o.accepted {
		return &plugins.PermanentError{Err: err}
	}
	key := string(b.key[:])
	if len(o.tried) >= maxTried {
		clear(o.tried)
	}
	if o.tried[key]++; o.tried[key] < tries {
		return &destinationError{fmt.Errorf("%w (it accepts nothing: try %d of %d with this event)", err, o.tried[key], tries)}
	}
	delete(o.tried, key)
	return &plugins.PermanentError{Err: err}
}

// body is the memory of one request.
type body struct {
	plain []byte
	zip   bytes.Buffer
	gz    *gzip.Writer
	sent  []byte // plain or zip's
	key   [2 * keyBytes]byte
}

func (o *output) body() *body {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.bodies); n > 0 {
		b := o.bodies[n-1]
		o.bodies = o.bodies[:n-1]
		return b
	}
	return &body{}
}

func (o *output) free(b *body) {
	b.sent = nil
	o.mu.Lock()
	defer o.mu.Unlock()
	if cap(b.plain) <= keepBuffer && b.zip.Cap() <= keepBuffer && len(o.bodies) < keepBodies {
		o.bodies = append(o.bodies, b)
	}
}

// fill makes the body and its key.
func (b *body) fill(o *output, events []*event.Event) error {
	b.plain = b.plain[:0]
	if o.cfg.Encoding == encodingJSON {
		b.plain = append(b.plain, '[')
		for _, e := range events {
			b.plain = o.enc.Append(b.plain, e)
			b.plain[len(b.plain)-1] = ',' // was the newline
		}
		b.plain[len(b.plain)-1] = ']'
	} else {
		for i := 0; i < len(events); {
			if p, n := o.enc.Run(events[i:]); n > 0 {
				b.plain = append(b.plain, p...)
				i += n
				continue
			}
			b.plain = o.enc.Append(b.plain, events[i])
			i++
		}
	}
	b.sent = b.plain
	if o.cfg.Compress == compressGzip {
		b.zip.Reset()
		if b.gz == nil {
			gz, err := gzip.NewWriterLevel(&b.zip, gzip.BestSpeed)
			if err != nil {
				return fmt.Errorf("compressing: %w", err)
			}
			b.gz = gz
		} else {
			b.gz.Reset(&b.zip)
		}
		_, err := b.gz.Write(b.plain)
		if err = errors.Join(err, b.gz.Close()); err != nil {
			return fmt.Errorf("compressing: %w", err)
		}
		b.sent = b.zip.Bytes()
	}
	sum := sha256.Sum256(b.sent)
	hex.Encode(b.key[:], sum[:keyBytes])
	return nil
}

// loan lends a body's memory to the transport, which may go on reading after it gave an answer or an error. After recall nobody
// reads any more, and the memory can be used again.
type loan struct {
	mu   sync.Mutex // guards data
	data []byte
	over bool
}

func (l *loan) recall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data, l.over = nil, true
}

func (l *loan) reader() io.ReadCloser { return &loanReader{loan: l} }

// loanReader reads the loan from its start.
type loanReader struct {
	loan *loan
	at   int
}

var errRecalled = errors.New("the request is over")

func (r *loanReader) Read(p []byte) (int, error) {
	r.loan.mu.Lock()
	defer r.loan.mu.Unlock()
	if r.loan.over {
		return 0, errRecalled
	}
	if r.at >= len(r.loan.data) {
		return 0, io.EOF
	}
	n := copy(p, r.loan.data[r.at:])
	r.at += n
	return n, nil
}

func (r *loanReader) Close() error { return nil }

var (
	_ plugins.Opener = (*output)(nil)
	_ plugins.Closer = (*output)(nil)
)
