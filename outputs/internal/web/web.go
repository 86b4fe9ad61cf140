// Package web is what the outputs that speak HTTP share: their sections for TLS and authentication, a transport with bounds on all
// that a server could draw out, and messages about faults that fit on one line and hold no secret.
//
// An output puts TLS and Auth into its configuration, builds a transport with NewTransport in Open, has Credentials add the authentication to each
// request, turns what RoundTrip returned into a message with Fault and an unexpected answer's body into one with Excerpt.
package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// dialTimeout and handshakeTimeout bound the parts of a connection that no request waits for longer.
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	// idleTimeout is below the minute or more after which most load balancers drop a silent connection.
	idleTimeout = 50 * time.Second
	// pingAfter and pingTimeout find out that an HTTP/2 connection is dead: nothing else would, as all requests share it.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// idlePerHost connections stay open: one for each of the most workers that make sense.
	idlePerHost = 16
	// headerBytes is the most that an answer's headers may take.
	headerBytes = 64 << 10
)

// NewTransport returns a transport that bounds dialling, handshakes and the size of headers. How long a whole request may take is
// the request's context's matter. Proxies come from the environment (HTTPS_PROXY, NO_PROXY). A t that cannot be used is an error.
//
// It is to be used without an http.Client, or in one whose CheckRedirect follows nothing: a redirect is an operator's mistake that has
// to be said. The caller calls CloseIdleConnections at its end.
func NewTransport(t TLS) (*http.Transport, error) {
	cfg, err := t.Config()
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            d.DialContext,
		TLSClientConfig:        cfg,
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: headerBytes,
	}, nil
}

// CheckURL reports what is wrong with a server's URL. It must be absolute, http or https, without user, password and fragment. The
// error never quotes a query or a password.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		// The error of url.Parse quotes all of it, which may hold a password.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		if strings.ContainsAny(text, "@?") {
			err = errors.New("it does not parse")
		}
		return fmt.Errorf("not a URL: %w", err)
	}
	const example = "such as https://collector.example.org:8443/ingest"
	switch {
	case u.Scheme == "" && u.Host == "", u.Opaque != "", u.Scheme != "http" && u.Scheme != "https":
		if u.Scheme == "" || u.Opaque != "" || strings.Contains(u.Scheme, ".") {
			return errors.New("a URL begins with http:// or https://, " + example)
		}
		return fmt.Errorf("a URL begins with http:// or https://, found %s://", Line(u.Scheme, 20))
	case u.Hostname() == "":
		return errors.New("the URL names no host, expected one " + example)
	case u.User != nil:
		return errors.New("user and password do not belong into a URL, which stands in logs: use the keys for authentication")
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return errors.New("a fragment (#…) is never sent to a server: remove it")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("port %s is not one of 1 to 65535", Line(p, 20))
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return errors.New("the URL's port is empty")
	}
	return nil
}

// ShowURL returns a URL for messages: without user, fragment and the values of its query.
func ShowURL(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	text := c.String()
	if u.RawQuery != "" {
		var b strings.Builder
		for part := range strings.SplitSeq(u.RawQuery, "&") {
			if b.Len() > 0 {
				b.WriteByte('&')
			}
			name, _, has := strings.Cut(part, "=")
			if !has {
				name = "" // a value alone, perhaps
			}
			b.WriteString(name + "=…")
		}
		text += "?" + b.String()
	}
	return Line(text, maxExcerpt)
}

// CheckHeader reports what is wrong with a header that a user wants to have sent: a name that is no token (RFC 9110), a value with a
// newline or another control character, or a header that belongs to the client itself. The error never quotes the value.
func CheckHeader(name, value string) error {
	if name == "" {
		return errors.New("a header needs a name")
	}
	for i := range len(name) {
		if c := name[i]; !isToken(c) {
			return fmt.Errorf("a header's name is made of letters, digits and some signs such as -, found %q", Line(name[i:min(i+1, len(name))], 4))
		}
	}
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Connection":
		return fmt.Errorf("the header %s is set by the client itself", name)
	}
	return checkValue(value)
}

// checkValue refuses what cannot stand in a header.
func checkValue(value string) error {
	for i := range len(value) {
		switch c := value[i]; {
		case c == '\n' || c == '\r':
			return errors.New("a header's value holds a newline")
		case c < ' ' && c != '\t' || c == 0x7f:
			return fmt.Errorf("a header's value holds a control character (%#02x)", c)
		}
	}
	if strings.TrimSpace(value) != value {
		return errors.New("a header's value begins or ends with a space")
	}
	return nil
}

func isToken(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// MaxRetryAfter is the longest pause that a server is granted: what it says beyond that is a mistake more often than not.
const MaxRetryAfter = 10 * time.Minute

// RetryAfter reads the header Retry-After, in seconds or as a date, capped at MaxRetryAfter; a date that has passed is a pause of 0.
// It reports false when there is none that makes sense.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0, false
	}
	if strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > int64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter, true // more digits than a number has: a long time
		}
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter), true
}

// maxDrain is how much of a body that nobody wants is read so that its connection can be used again; a longer one costs the
// connection.
const maxDrain = 256 << 10

// Drain reads what is left of a body, within bounds, and closes it, so that its connection can be used again.
func Drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrain)
	_ = body.Close()
}

// ReadHead reads at most n bytes of a body, for an Excerpt. What was read before an error counts.
func ReadHead(body io.Reader, n int64) []byte {
	p, _ := io.ReadAll(io.LimitReader(body, n))
	return p
}
