package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// fault is an error with a text of our own. The cause can be asked for, but what it would print is not printed.
type fault struct {
	text  string
	cause error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.cause }

// Fault turns what a transport or an http.Client, or reading an answer, returned into an error of one line that says what is wrong with the
// connection. It never holds the URL, whose query may hold a secret, and reads alike when the same happens again. nil stays nil.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	if e := (*url.Error)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return &fault{describe(err), err}
}

func describe(err error) string {
	var (
		host      x509.HostnameError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
		alert     tls.AlertError
		dns       *net.DNSError
		operation *net.OpError
	)
	if errors.Is(err, context.Canceled) {
		return context.Canceled.Error()
	}
	switch {
	case errors.As(err, &host):
		return "the server's certificate is for another host: " + Line(host.Error(), maxExcerpt)
	case errors.As(err, &unknown):
		return "the server's certificate is signed by an unknown authority (tls.ca_file names those to trust)"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		c := invalid.Cert
		return fmt.Sprintf("the server's certificate has expired or is not yet valid: it holds from %s to %s",
			c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the server does not speak TLS here (should the URL begin with http://?)"
	case errors.As(err, &operation) && operation.Op == "remote error", errors.As(err, &alert):
		return "the server refuses the connection or our certificate: " + Line(err.Error(), maxExcerpt)
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return fmt.Sprintf("host %s is not known to the resolver", Line(dns.Name, 100))
		}
		return fmt.Sprintf("looking up host %s: %s", Line(dns.Name, 100), Line(dns.Err, 100))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		if errors.As(err, &operation) && operation.Addr != nil {
			return "connection refused by " + operation.Addr.String()
		}
		return "connection refused"
	case strings.Contains(err.Error(), "malformed HTTP"), strings.Contains(err.Error(), "malformed MIME"):
		return "the server does not speak HTTP here: " + Line(err.Error(), maxExcerpt)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed), strings.Contains(err.Error(), "use of closed network connection"),
		strings.Contains(err.Error(), "server closed idle connection"):
		return "the server cut the connection before the answer was complete"
	case errors.As(err, &operation):
		// Without our own port, which is another each time.
		where := ""
		if operation.Addr != nil {
			where = " " + operation.Addr.String()
		}
		return Line(operation.Op+where+": "+operation.Err.Error(), maxExcerpt)
	}
	return Line(err.Error(), maxExcerpt)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// maxExcerpt is how long a foreign text in a message may be, in bytes.
const maxExcerpt = 200

// Line makes one clean line of a foreign text, at most n bytes: runs of spaces, newlines and control characters become one space, bad
// UTF-8 a question mark.
func Line(s string, n int) string {
	var b strings.Builder
	gap := false
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		if r == utf8.RuneError && size == 1 {
			r = '?'
		}
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			gap = b.Len() > 0
			continue
		}
		const room = len(" ") + len("…")
		if b.Len()+utf8.RuneLen(r)+room > n {
			b.WriteString("…")
			return b.String()
		}
		if gap {
			b.WriteByte(' ')
			gap = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Excerpt says in at most 200 bytes what stands in an unexpected answer's body: the title or the first words of an HTML page, else
// the first words. Secrets are hidden before anything is cut.
func Excerpt(body []byte, secrets ...string) string {
	text := Hide(string(body), secrets...)
	low := strings.ToLower(text[:min(len(text), 1<<10)])
	if !strings.Contains(low, "<html") && !strings.Contains(low, "<!doctype") && !strings.Contains(low, "<head") && !strings.Contains(low, "<body") {
		return Line(text, maxExcerpt)
	}
	if title := between(text, "<title", "</title"); title != "" {
		return "an HTML page: " + Line(html.UnescapeString(title), maxExcerpt-len("an HTML page: "))
	}
	return "an HTML page: " + Line(html.UnescapeString(words(text)), maxExcerpt-len("an HTML page: "))
}

// between returns what stands in the first element that begins with open, whatever its case.
func between(text, open, end string) string {
	low := asciiLower(text)
	i := strings.Index(low, open)
	if i < 0 {
		return ""
	}
	j := strings.IndexByte(text[i:], '>')
	if j < 0 {
		return ""
	}
	from := i + j + 1
	to := strings.Index(low[from:], end)
	if to < 0 {
		return ""
	}
	return strings.TrimSpace(text[from : from+to])
}

// asciiLower keeps the length, so that places in the result are places in the text.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// words cuts tags, scripts and styles out of a page.
func words(page string) string {
	var b bytes.Buffer
	low := asciiLower(page)
	for i := 0; i < len(page); {
		if page[i] != '<' {
			b.WriteByte(page[i])
			i++
			continue
		}
		for _, whole := range []string{"script", "style"} {
			if strings.HasPrefix(low[i+1:], whole) {
				end := strings.Index(low[i:], "</"+whole)
				if end < 0 {
					return b.String()
				}
				i += end
			}
		}
		end := strings.IndexByte(page[i:], '>')
		if end < 0 {
			break
		}
		b.WriteByte(' ')
		i += end + 1
	}
	return b.String()
}

// minHidden: a shorter secret would turn ordinary words into stars, and tells less than those would.
const minHidden = 4

// Hide replaces secrets in a text that a server sent: some echo what they were sent. Secrets are hidden as they are and
// percent-encoded.
func Hide(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) < minHidden {
			continue
		}
		text = strings.ReplaceAll(text, s, "***")
		if q := url.QueryEscape(s); q != s {
			text = strings.ReplaceAll(text, q, "***")
		}
		if q := html.EscapeString(s); q != s {
			text = strings.ReplaceAll(text, q, "***")
		}
	}
	return text
}
