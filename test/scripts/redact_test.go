//go:build blackbox

package scripts

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// canary is a secret that a line holds: the text to look for, and how a line shows it.
type canary struct {
	secret string
	line   func(secret string) string
}

// novaLine is a line of a nova-api with this target and client.
func novaLine(target, client string) string {
	return `2026-03-02 00:00:00.000 4211 INFO nova.osapi_compute.wsgi.server [None req-11111111-2222-4333-8444-555555555555 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] ` +
		client + ` "GET ` + target + ` HTTP/1.1" status: 200 len: 1 time: 0.1000000`
}

func novaError(text string) string {
	return `2026-03-02 00:00:00.000 4211 ERROR nova.api.openstack [None req-11111111-2222-4333-8444-555555555555 - - - - -] ` + text
}

// canaries are 41 secrets, each another and each in a place of its own.
func canaries() []canary {
	fernet := func(n int) string {
		return "gAAAAAB" + strings.Repeat(string(rune('a'+n)), 20) + fmt.Sprintf("Q%02dx", n) + strings.Repeat("Zk9_-", 20) + "=="
	}
	hex := func(n int) string {
		return fmt.Sprintf("%08x%08x%08x%08x", 0xdeadbe00+n, 0x5ec0de00+n, 0xfeed0000+n, 0xc0ffee00+n)
	}
	word := func(n int) string { return fmt.Sprintf("Hunter%02dSecret", n) }
	query := func(format string) func(string) string {
		return func(s string) string { return novaLine("/v2.1/servers?"+fmt.Sprintf(format, s), "192.0.2.1") }
	}
	log := func(format string) func(string) string {
		return func(s string) string { return novaError(fmt.Sprintf(format, s)) }
	}
	junk := func(format string) func(string) string {
		return func(s string) string { return fmt.Sprintf(format, s) }
	}
	all := []canary{
		{fernet(0), query("x=%s")},
		{fernet(1), query("token=%s")},
		{fernet(2), log("Unexpected token %s in request")},
		{fernet(3), junk("  File \"auth.py\", line 3, in %s")},
		{fernet(4), junk("garbage %s garbage")},
		{fernet(5), func(s string) string { return novaLine("/v3/auth/tokens/"+s, "192.0.2.1") }},
		{hex(0), query("X-Auth-Token=%s")},
		{hex(1), log("headers: {'X-Auth-Token': '%s'}")},
		{hex(2), log("X-Subject-Token: %s")},
		{hex(3), junk("X-Service-Token: %s")},
		{hex(4), query("access_token=%s")},
		{hex(5), log(`{"access_token": "%s"}`)},
		{hex(6), query("temp_url_sig=%s&temp_url_expires=1")},
		{hex(7), junk("GET /v1/AUTH_x/c/o?temp_url_sig=%s&temp_url_expires=1")},
		{hex(8), func(s string) string { return novaLine("/v2.0/tokens/"+s+"/endpoints", "192.0.2.1") }},
		{word(0), query("password=%s")},
		{word(1), log(`{"auth": {"password": "%s"}}`)},
		{word(2), log("adminPass: %s")},
		{word(3), junk("mysql --password=%s --user nova")},
		{word(4), junk("amqp://nova:%s@192.0.2.7:5672/")},
		{word(5), log("connection mysql+pymysql://nova:%s@192.0.2.7/nova failed")},
		{word(6), query("adminPass=%s&x=1")},
		{word(7), query("client_secret=%s")},
		{word(8), log("api_key=%s")},
		{word(9), junk("Authorization: Basic %s")},
		{word(10), log("Authorization: Bearer %s")},
		{word(11), junk("authorization=Bearer%%20%s")},
		{word(12), query("refresh_token=%s")},
		{"quiet%2Fsecret13", query("password=%s")}, // as it stands on the line; its plain form is looked for as well
		{word(14), junk(`{\"password\": \"%s\"}`)},
		{"alice13@example.org", query("mail=%s")},
		{"bob%40example.org", query("mail=%s")},
		{"carol@example.org", log("no user %s")},
		{"dave@example.org", junk("from %s to nobody")},
		{"192.0.2.233", func(s string) string { return novaLine("/v2.1/flavors", s) }},
		{"192.0.2.234", func(s string) string { return novaLine("/v2.1/flavors?from="+s, s) }},
		{"2001:db8::dead:1", func(s string) string { return novaLine("/v2.1/flavors", s) }},
		{"2001:db8::dead:2", func(s string) string { return novaLine("/v2.1/x?ip="+url.QueryEscape(s), s) }},
		{"aaaa1111bbbb2222cccc3333dddd4444", func(s string) string {
			return strings.Replace(novaLine("/v2.1/servers?user="+"aaaa1111bbbb2222cccc3333dddd4444", "192.0.2.1"), "1b2c3d4e5f60718293a4b5c6d7e8f901", s, 1)
		}},
		{"aaaa1111bbbb2222cccc3333dddd5555", func(s string) string {
			return strings.Replace(novaLine("/v2.1/users/aaaa1111bbbb2222cccc3333dddd5555", "192.0.2.1"), "1b2c3d4e5f60718293a4b5c6d7e8f901", s, 1)
		}},
		{"Hunter15Cookie", func(s string) string { // what HAProxy captured of a request is a cookie
			return `Mar  2 00:00:00 ctl1 haproxy[14]: 192.0.2.1:33318 [02/Mar/2026:00:00:00.001] api nova/ctl1 0/0/1/9/10 200 310 session=` + s + ` - --VN 1/1/0/0/0 0/0 "GET /v2.1/flavors HTTP/1.1"`
		}},
	}
	return all
}

// TestNoCanaryGetsOut ships lines with secrets to a file, a server, and, refused, to a dead letter, and looks for the secrets in
// everything that the agent wrote or said.
func TestNoCanaryGetsOut(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	c := newCollector(t, b.dir)
	total := number(t, "STACKTRAIL_REDACT_LINES", 30_000)
	ok(t, os.WriteFile(b.config, fmt.Appendf(nil, `agent: {state_dir: %q, listen: "127.0.0.1:0", admin_socket: %q, checkpoint_interval: 100ms, node_id: box, log: {level: debug}, dead_letter_max: 8GiB}
pipelines:
  - name: main
    inputs:
      - {tail: {paths: [%q], timezone: UTC, sweep: 200ms, records: all, original: true}, id: in}
    processors:
      - drop: {when: 'int(query) > 3'}    # fails for most events: what it says of that must not tell the text
        id: fails
      - redact: {fields: [client, user_id, user], with: hash, key: "0123456789abcdef0123", unparsed_text: keep, detect: [fernet, token, password, secret, header, signature, email]}
    outputs:
      - {file: {path: %q, rotate: {size: 0}}, id: file}
      - http: {url: "%s/?key=1", compress: gzip, tls: {ca_file: %q}}
        id: http
        batch: {linger: 100ms}
      - file: {path: "%s/dead-{{request_id}}-{{query}}-{{path}}.ndjson", max_paths: 1}
        id: refused
`, b.state(), b.socket(), b.log("*.log"), b.out, c.server.URL, c.ca, filepath.Dir(b.out)), 0o644))
	all := canaries()
	if len(all) != 41 {
		t.Fatalf("there are %d canaries, not 41", len(all))
	}
	// The canaries stand among many other lines, several times each.
	w := newWriter(t, b.log("api.log"), 1)
	const rounds = 5
	for range rounds {
		w.lines(total / rounds)
		for _, k := range all {
			w.raw([]byte(k.line(k.secret) + "\n"))
		}
	}
	a := b.start()
	if limit := patience + time.Duration(total)*time.Millisecond; !poll(50*time.Millisecond, limit, func() bool { return c.count() >= total && settled(a, 4) }) {
		t.Fatalf("not everything was delivered within %v", limit)
	}
	_, metrics := a.get("/metrics")
	_, ready := a.get("/readyz")
	status, err := exec.CommandContext(context.Background(), stacktrail(t), "status", "-o", "json", "--admin-socket", b.socket()).Output()
	ok(t, err)
	a.stop()
	if letters := command(t, "dlq", "show", "main/refused", "--state-dir", b.state()); letters.code != 0 || len(letters.out) == 0 {
		t.Errorf("there are no dead letters to look at: %d %s", letters.code, letters.errors)
	}
	texts := map[string][]byte{"metrics": []byte(metrics), "readyz": []byte(ready), "status": status, "HTTP": c.lines.Bytes(), "log": []byte(a.text())}
	for _, dir := range []string{b.state(), filepath.Dir(b.out)} {
		ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			p, err := os.ReadFile(path)
			if err == nil && strings.HasSuffix(path, ".gz") {
				var z *gzip.Reader
				if z, err = gzip.NewReader(bytes.NewReader(p)); err == nil {
					p, err = io.ReadAll(z)
				}
			}
			texts[path] = append([]byte(path+"\n"), p...)
			return err
		}))
	}
	for _, k := range all {
		forms := []string{k.secret}
		if plain, err := url.QueryUnescape(k.secret); err == nil {
			forms = append(forms, plain, url.QueryEscape(plain))
		}
		slices.Sort(forms)
		for _, form := range slices.Compact(forms) {
			for where, text := range texts {
				if i := bytes.Index(text, []byte(form)); i >= 0 {
					t.Errorf("%s stands in %s: …%.200q…", form, where, text[max(0, i-100):])
				}
			}
		}
	}
}

// settled reports whether nothing is under way: as many numbers of the metrics are 0 as there are inputs and outputs.
func settled(a *agent, n int) bool {
	_, body := a.get("/metrics")
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "stacktrail_output_inflight_events{") || strings.HasPrefix(line, "stacktrail_file_lag_bytes{") {
			if !strings.HasSuffix(line, "} 0\n") {
				return false
			}
			n--
		}
	}
	return n == 0
}
