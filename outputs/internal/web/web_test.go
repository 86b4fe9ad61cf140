package web_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/outputs/internal/webtest"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

func TestRetryAfterReadsSecondsAndDates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "601": web.MaxRetryAfter, "99999999999999999999": web.MaxRetryAfter,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:01 GMT": 0, "Sat, 03 Jan 2026 03:04:01 GMT": web.MaxRetryAfter,
		"Friday, 02-Jan-26 03:04:35 GMT": 30 * time.Second,
	} {
		if got, ok := web.RetryAfter(http.Header{"Retry-After": {text}}, now); !ok || got != want {
			t.Errorf("%q: %v %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "-1", "1.5", "soon", "Fri, 99 Jan 2026"} {
		if got, ok := web.RetryAfter(http.Header{"Retry-After": {text}}, now); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestURLsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"collector.example.org/ingest": "begins with http", "collector.example.org:443": "begins with http", "ftp://example.org/x": "found ftp://",
		"https:///x": "names no host", "https://u:sesame@example.org/": "do not belong", "https://u:ses%zzame@example.org/": "not a URL",
		"https://example.org/#x": "fragment", "https://example.org/#": "fragment", "https://example.org:99999/": "port",
		"https://example.org:/": "port is empty", "https://exa mple.org/": "not a URL", "https://[::1/": "not a URL", "": "begins with http",
		"http://example.org/\nX: y?key=sesame": "not a URL",
	} {
		err := web.CheckURL(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "ses") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"http://192.0.2.1", "https://example.org:8443/a/b?c=d", "https://[2001:db8::1]:9200/"} {
		if err := web.CheckURL(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestHeadersThatCannotBeSentAreRefused(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"": "x", "X Y": "x", "X:": "x", "X-É": "x", "X\r\nY": "x", "X-A": "a\nb", "X-B": "a\rb", "X-C": "a\x00b", "X-D": "a\x7f", "X-E": " a",
		"host": "x", "Content-Length": "1", "content-encoding": "gzip", "X-F": "a\t",
	} {
		err := web.CheckHeader(name, value)
		if err == nil || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q: %q: %v", name, value, err)
		}
	}
	for name, value := range map[string]string{"X-Scope-OrgID": "tenant", "x_y~z": "a b\tc", "X-Name": "Zürich", "X-Empty": ""} {
		if err := web.CheckHeader(name, value); err != nil {
			t.Errorf("%q: %q: %v", name, value, err)
		}
	}
}

func TestExcerptIsOneShortLineWithoutSecrets(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 500)
	for body, want := range map[string]string{
		"":                                  "",
		"plain\r\n\x1b[31mtext\x00 here  ":  "plain [31mtext here",
		"\xff\xfebad":                       "??bad",
		`{"error":"no such token sesame1"}`: `{"error":"no such token ***"}`,
		"<!DOCTYPE html><HTML><head><TITLE>\n 502 Bad\n Gateway &amp; co</TITLE></head><body>x</body></html>":                "an HTML page: 502 Bad Gateway & co",
		"<html><script>var a = '<b>';</script><style>p{}</style><body><h1>Log in</h1><p>sesame1 or sesame%2B2</body></html>": "an HTML page: Log in *** or ***",
		"<html><script>never closed": "an HTML page: ",
	} {
		if got := web.Excerpt([]byte(body), "sesame1", "sesame+2", "x"); got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
	for _, body := range []string{long, "<html><title>" + long + "</title>", strings.Repeat("a", 190) + "sesame1" + long, strings.Repeat("\xff", 400)} {
		got := web.Excerpt([]byte(body), "sesame1")
		if len(got) > 200 || !utf8.ValidString(got) || strings.Contains(got, "ses") || !strings.HasSuffix(got, "…") {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
}

func TestShownURLHasNoValues(t *testing.T) {
	t.Parallel()
	u, err := url.Parse("https://u:sesame@example.org:8443/in%20gest?key=sesame&flag&b=#sesame")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := web.ShowURL(u), "https://example.org:8443/in%20gest?key=…&=…&b=…"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func keys(err error) (all []string) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, e := range joined.Unwrap() {
		if k, ok := errors.AsType[conf.KeyError](e); ok {
			all = append(all, k.Key)
		}
	}
	return all
}

func TestTLSFilesThatDoNotParseAreFaultsOfTheirKeys(t *testing.T) {
	t.Parallel()
	a := webtest.NewAuthority(t)
	cert, key := a.Client("agent")
	_, other := a.Client("other")
	junk := filepath.Join(t.TempDir(), "junk.pem")
	damaged := junk + "2"
	for path, text := range map[string]string{junk: "junk\n", damaged: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		tls  web.TLS
		want string
	}{
		{web.TLS{CAFile: junk}, "[ca_file]"},
		{web.TLS{CAFile: damaged}, "[ca_file]"},
		{web.TLS{CAFile: key}, "[ca_file]"},
		{web.TLS{CAFile: junk + "none"}, "[ca_file]"},
		{web.TLS{CAFile: filepath.Dir(junk)}, "[ca_file]"},
		{web.TLS{CAFile: a.File, SkipVerify: true}, "[skip_verify]"},
		{web.TLS{CertFile: cert}, "[cert_file]"},
		{web.TLS{KeyFile: key}, "[key_file]"},
		{web.TLS{CertFile: junk, KeyFile: key}, "[cert_file]"},
		{web.TLS{CertFile: cert, KeyFile: junk}, "[key_file]"},
		{web.TLS{CertFile: cert, KeyFile: other, CAFile: junk}, "[ca_file cert_file]"},
		{web.TLS{ServerName: "a\nb"}, "[server_name]"},
		{web.TLS{}, "[]"},
		{web.TLS{CAFile: a.File, CertFile: cert, KeyFile: key, ServerName: "example.org"}, "[]"},
	} {
		err := c.tls.Validate()
		if got := fmt.Sprint(keys(err)); got != c.want {
			t.Errorf("%+v: faults at %s (%v), want %s", c.tls, got, err, c.want)
		}
		if _, err := c.tls.Config(); c.want == "[]" && err != nil {
			t.Errorf("%+v: %v", c.tls, err)
		}
	}
}

func TestClientCertificateIsReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	a := webtest.NewAuthority(t)
	cert, key := a.Client("agent")
	cfg, err := web.TLS{CertFile: cert, KeyFile: key}.Config()
	if err != nil {
		t.Fatal(err)
	}
	current := func() string {
		c, err := cfg.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.Subject.CommonName
	}
	replace := func(path, from string) {
		data := []byte("half written")
		if from != "" {
			if data, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		later := time.Now().Add(time.Minute)
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
	}
	if got := current(); got != "agent" {
		t.Errorf("got %s", got)
	}
	cert2, key2 := a.Client("renewed")
	replace(cert, "")
	if got := current(); got != "agent" {
		t.Errorf("with a file that does not parse: got %s", got)
	}
	replace(cert, cert2)
	if got := current(); got != "agent" {
		t.Errorf("with a key that does not fit: got %s", got)
	}
	replace(key, key2)
	if got := current(); got != "renewed" {
		t.Errorf("got %s", got)
	}
}

func auth(t *testing.T, yaml string, lookup conf.Lookup) (web.Auth, error) {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(yaml))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	if err := conf.Interpolate(n, lookup).Err(); err != nil {
		t.Fatal(err)
	}
	a, faults := conf.Decode(n, web.Auth{})
	return a, faults.Err()
}

func TestAuthThatCannotWorkIsRefusedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	for yaml, key := range map[string]string{
		"username: u":                                "username",
		"password: sesame":                           "password",
		"{username: a:b, password: sesame}":          "username",
		`{username: "a\tb", password: sesame}`:       "username",
		`{username: a, password: "ses\name"}`:        "password",
		`bearer: "ses ame"`:                          "bearer",
		`bearer: "ses\name"`:                         "bearer",
		"{username: u, password: p, bearer: sesame}": "bearer",
	} {
		_, err := auth(t, yaml, conf.Lookup{})
		if err == nil || !strings.Contains(err.Error(), " "+key+":") || strings.Contains(err.Error(), "ses") {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func TestSecretsAreReadAgain(t *testing.T) {
	t.Parallel()
	content, readErr := "first", error(nil)
	lookup := conf.Lookup{ReadFile: func(string) ([]byte, error) { return []byte(content + "\n"), readErr }}
	a, err := auth(t, `bearer: "${file:/run/secrets/token}"`, lookup)
	if err != nil {
		t.Fatal(err)
	}
	c := web.NewCredentials(a, lookup)
	sent := func() string {
		r, err := http.NewRequest(http.MethodGet, "http://example.org", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Apply(r)
		return r.Header.Get("Authorization")
	}
	if changed, err := c.Reread(); changed || err != nil || sent() != "Bearer first" {
		t.Errorf("unchanged: %v %v %s", changed, err, sent())
	}
	content = "second"
	if changed, err := c.Reread(); !changed || err != nil || sent() != "Bearer second" {
		t.Errorf("changed: %v %v %s", changed, err, sent())
	}
	content = "ses\name"
	if _, err := c.Reread(); err == nil || strings.Contains(err.Error(), "ses") || sent() != "Bearer second" {
		t.Errorf("not to be sent: %v %s", err, sent())
	}
	readErr = os.ErrPermission
	if _, err := c.Reread(); !errors.Is(err, os.ErrPermission) && (err == nil || !strings.Contains(err.Error(), "permission")) || sent() != "Bearer second" {
		t.Errorf("not readable: %v %s", err, sent())
	}
	basic, err := auth(t, "{username: u, password: sesame}", lookup)
	if err != nil {
		t.Fatal(err)
	}
	c = web.NewCredentials(basic, lookup)
	if got := sent(); got != "Basic dTpzZXNhbWU=" || web.Hide("got "+got, basic.Secrets()...) != "got Basic ***" {
		t.Errorf("basic: %s", got)
	}
}
