package formats

import (
	"bufio"
	"compress/gzip"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// sample is a line of a real log and the name of its file.
type sample struct{ file, line string }

// realLines are lines of the real logs, every nth.
func realLines(t *testing.T, nth int) []sample {
	t.Helper()
	var all []sample
	n := 0
	root := filepath.Join("..", "..", "..", "test", "testdata", "real-logs")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, ".log") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(path, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				return err
			}
		}
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			if n++; n%nth == 0 {
				all = append(all, sample{filepath.Base(path), s.Text()})
			}
		}
		return s.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no lines of real logs")
	}
	return all
}

// TestRealLinesDamaged cuts lines of real logs at every byte, flips each byte once, doubles lines and glues them to the next: no
// crash, no field that is not on the line, and no request out of a line that tells of none. (checkEvent holds the rest.)
func TestRealLinesDamaged(t *testing.T) {
	lines := realLines(t, 4)
	r := rand.New(rand.NewPCG(7, 8))
	few, all := newParser(t, "x.log", Options{}), newParser(t, "x.log", Options{Records: All})
	for i, l := range lines {
		if len(l.line) > 4096 {
			l.line = l.line[:4096] // some URLs are as long as a server takes them
		}
		fresh := func() {
			few.File(l.file, mtime)
			all.File(l.file, mtime)
		}
		fresh()
		whole, v := parseBoth(t, few, all, []byte(l.line))
		tellsNothing := v == Service && few.Reason() != ReasonNotEnabled
		check := func(what string, damaged []byte) (*event.Event, Verdict) {
			fresh()
			e, w := parseBoth(t, few, all, damaged)
			if tellsNothing && w == Access && e.Has&event.HasStatus != 0 {
				t.Fatalf("%s: %q has status %d, and %q tells of no request", what, damaged, e.Status, l.line)
			}
			return e, w
		}
		step := 1 + len(l.line)/600 // long lines: every second or third byte
		for at := 0; at < len(l.line); at += step {
			e, w := check("cut", []byte(l.line[:at]))
			if w == Access && v == Access && e.Has&event.HasStatus != 0 && e.Status != whole.Status {
				t.Fatalf("%q cut at %d: status %d, whole %d", l.line, at, e.Status, whole.Status)
			}
		}
		b := []byte(l.line)
		for at := r.IntN(step); at < len(b); at += step {
			was := b[at]
			b[at] ^= 1 << r.UintN(8)
			check("flipped", b)
			b[at] = was
		}
		fresh()
		parseBoth(t, few, all, []byte(l.line+l.line))
		parseBoth(t, few, all, []byte(l.line+lines[(i+1)%len(lines)].line))
	}
}

// TestEveryFormatDamaged does the same to a line of each format, in envelopes and by formats of the user's own, and to lines that look like
// requests and are none.
func TestEveryFormatDamaged(t *testing.T) {
	type damaged struct {
		name, file, line string
		options          Options
	}
	var lines []damaged
	for _, u := range usual {
		lines = append(lines, damaged{u.format, u.file, u.line, Options{}})
	}
	for _, w := range wrapped {
		lines = append(lines, damaged{w.name, w.file, w.line, w.options})
	}
	for _, l := range noRequests {
		lines = append(lines, damaged{"none", "nova-api.log", l, Options{}})
	}
	lines = append(lines, damaged{"regex", "x.log", "192.0.2.9 GET /v3/volumes?limit=2 HTTP/1.1 -> 200 in 1.5 ms", Options{
		Regex: `^(?P<client>\S+) (?P<request>.+) -> (?P<api_response_code_int>\d{3}) in (?P<api_response_time_ms>[\d.]+) ms$`,
	}})
	r := rand.New(rand.NewPCG(9, 10))
	for i, l := range lines {
		few, all := newParser(t, l.file, l.options), newParser(t, l.file, l.options)
		few.all, few.audit, all.all, all.audit = false, l.options.Records != AccessOnly, true, true
		check := func(what string, damaged []byte) {
			few.File(l.file, mtime)
			all.File(l.file, mtime)
			e, v := parseBoth(t, few, all, damaged)
			if l.name == "none" && v == Access && e.Has&event.HasStatus != 0 {
				t.Fatalf("%s: %q has status %d, and %q tells of no request", what, damaged, e.Status, l.line)
			}
		}
		check("whole", []byte(l.line))
		for at := range len(l.line) {
			check("cut", []byte(l.line[:at]))
			check("begun late", []byte(l.line[at:]))
		}
		b := []byte(l.line)
		for at, was := range b {
			for _, c := range []byte{was ^ 1<<r.UintN(8), was ^ 1, "\" \\\x00\xff-"[r.IntN(6)]} {
				b[at] = c
				check("flipped", b)
			}
			b[at] = was
		}
		if l.name != "none" {
			check("doubled", []byte(l.line+l.line))
			check("glued", []byte(l.line+lines[(i+1)%len(lines)].line))
			check("glued with a space", []byte(l.line+" "+lines[(i+1)%len(lines)].line))
		}
	}
}

// TestOneFormatAloneReadsAsAutoDoes holds that naming the format of a file changes no byte of its records.
func TestOneFormatAloneReadsAsAutoDoes(t *testing.T) {
	lines := realLines(t, 1)
	for _, x := range realLike(t) {
		lines = append(lines, sample{"x.log", x})
	}
	auto := newParser(t, "", Options{Records: AccessAndAudit})
	alone := map[string]*Parser{}
	for _, n := range Names() {
		alone[n] = newParser(t, "", Options{Records: AccessAndAudit, Formats: []string{n}})
	}
	file := ""
	enc := schema.NewEncoder(schema.EncodeOptions{})
	seen := map[string]bool{}
	for _, l := range lines {
		if l.file != file {
			file = l.file
			auto.File(file, mtime)
			for _, p := range alone {
				p.File(file, mtime)
			}
		}
		e, v := parse(auto, l.line)
		for n, p := range alone {
			f, w := parse(p, l.line)
			if v != Access || e.Format != n {
				if w == Access && (n != "nginx-combined" || e.Format != "apache-combined") {
					t.Fatalf("%q: %s alone makes a record of it, auto says %d, %s", l.line, n, v, e.Format)
				}
				continue
			}
			seen[n] = true
			var s schema.Scratch
			if a, b := enc.Encode(nil, e, &s), enc.Encode(nil, f, &s); w != Access || string(a) != string(b) {
				t.Fatalf("%q:\n auto %s\nalone %s %s", l.line, a, b, p.Reason())
			}
		}
	}
	if len(seen) != len(alone) {
		t.Errorf("only %d of %d formats were met", len(seen), len(alone))
	}
}

// noRequests are the traps of the logs of services.
var noRequests = func() []string {
	const oslo = "2026-03-02 10:15:30.123 4211 "
	return []string{
		oslo + `DEBUG urllib3.connectionpool [-] "POST /v2.0/tokens HTTP/1.1" 200 10417 _make_request /usr/lib/python3/dist-packages/urllib3/connectionpool.py:442`,
		oslo + `DEBUG urllib3.connectionpool [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 - - - - - -] http://ctl:5000 "GET /v3/auth/tokens HTTP/1.1" 200 None`,
		oslo + `DEBUG keystoneauth.session [-] REQ: curl -g -i -X GET http://192.0.2.2:8774/v2.1/servers -H "Accept: application/json"`,
		oslo + `DEBUG keystoneauth.session [-] RESP: [200] Content-Length: 15`,
		oslo + `DEBUG placement.requestlog [-] Starting request: 192.0.2.9 "GET /placement/traits" __call__ /usr/lib/python3/dist-packages/placement/requestlog.py:61`,
		oslo + `DEBUG heat.api.middleware.version_negotiation [-] Processing request: GET /v1/stacks Accept: application/json`,
		oslo + `DEBUG routes.middleware [-] Matched GET /v2/images __call__ /usr/lib/python3/dist-packages/routes/middleware.py:100`,
		oslo + `INFO nova.api.openstack.wsgi [-] HTTP exception thrown: No instances found for any event`,
		oslo + `DEBUG oslo_service.service [-] wsgi_log_format                = %(client_ip)s "%(request_line)s" status: %(status_code)s len: %(body_length)s time: %(wall_seconds).7f log_opt_values`,
		oslo + `INFO keystone.common.wsgi [-] GET http://ctl:5000/v3/`,
		oslo + `INFO nova.osapi_compute.wsgi.server [-] (4211) wsgi starting up on http://0.0.0.0:8774`,
		oslo + `INFO nova.osapi_compute.wsgi.server [-] (4211) accepted ('192.0.2.9', 49629)`,
		`2026-03-02T10:15:30.881Z [pebble] GET /v1/notices?after=x&timeout=30s 30.0012s 200`,
		`Mar  2 10:15:30 ctl1 haproxy[14]: 192.0.2.9:35430 [02/Mar/2026:10:15:30.655] mysql mysql/ctl1 1/0/116 319 -- 2/1/0/0/0 0/0`,
		`Mar  2 10:15:30 ctl1 haproxy[14]: 192.0.2.9:35430 [02/Mar/2026:10:15:30.655] nova_api_front/1: SSL handshake failure`,
		`Mar  2 10:15:30 ctl1 haproxy[14]: Connect from 192.0.2.9:35430 to 192.0.2.1:443 (nova_api/HTTP)`,
		`SIGPIPE: writing to a closed pipe/socket/fd (probably the client disconnected) on request /v2.1/servers (ip 192.0.2.9) !!!`,
		`{"message": "http://ctl:5000 \"GET /v3 HTTP/1.1\" 200 None", "name": "urllib3.connectionpool", "levelname": "DEBUG", "created": 1772446530.1, "context": {}}`,
	}
}()

func TestLinesThatLookLikeRequestsAndAreNone(t *testing.T) {
	for _, l := range noRequests {
		p := newParser(t, "nova-api.log", Options{})
		if e, v := parse(p, l); v != Service || e.Has&event.HasStatus != 0 {
			t.Errorf("%s: verdict %d, %s, status %d", l, v, p.Reason(), e.Status)
		}
	}
}
