package formats

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// parse parses one line with a fresh event.
func parse(p *Parser, line string) (*event.Event, Verdict) {
	b := event.NewBatch("test")
	e := b.Append()
	v := p.Parse([]byte(line), e, b.Arena())
	return e, v
}

func TestUnknownFormatNamesTheNearest(t *testing.T) {
	for name, want := range map[string]string{
		"nova-eventlt": "nova-eventlet",
		"apache":       "apache-combined, apache-kolla, apache-reqid",
		"haproxy-htp":  "haproxy-http",
		"zzzzzzzzzzzz": "known are auto, nova-eventlet",
	} {
		_, err := New(Options{Formats: []string{"uwsgi", name}})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want a suggestion of %s", name, err, want)
		}
	}
	if _, err := New(Options{Formats: []string{"auto", "uwsgi"}}); err == nil {
		t.Error("auto beside another format was taken")
	}
	if _, err := New(Options{Formats: Names()}); err != nil {
		t.Error(err)
	}
}

func TestChosenFormatsLeaveOthersAlone(t *testing.T) {
	for _, chosen := range usual {
		p := newParser(t, chosen.file, Options{Formats: []string{chosen.format}})
		for _, u := range usual {
			e, v := parse(p, u.line)
			switch {
			case u.format == chosen.format && (v != Access || e.Format != u.format):
				t.Errorf("%s chosen, its line: verdict %d, %s", chosen.format, v, p.Reason())
			case chosen.format == "nginx-combined" && u.format == "apache-combined" && v == Access && e.Format == chosen.format:
				// They look alike, and who chooses nginx's means it.
			case u.format != chosen.format && (v != Service || p.Reason() != ReasonNotEnabled):
				t.Errorf("%s chosen, line of %s: verdict %d, %q", chosen.format, u.format, v, p.Reason())
			case v != Access && e.Path != "":
				t.Errorf("%s chosen, line of %s left a path behind", chosen.format, u.format)
			}
		}
	}
}

// TestAutoChangesItsMind feeds the formats to one parser in many orders: each line is read as if it stood alone.
func TestAutoChangesItsMind(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := newParser(t, "mixed.log", Options{})
	for range 2000 {
		u := usual[r.IntN(len(usual))]
		e, v := parse(p, u.line)
		if v != Access || e.Format != u.format || p.Reason() != "" {
			t.Fatalf("line of %s: verdict %d, format %q, reason %q", u.format, v, e.Format, p.Reason())
		}
	}
}

func TestNoAllocationPerLine(t *testing.T) {
	lines := slices.Clone(wrapped)
	for _, u := range usual {
		lines = append(lines, struct {
			name, file, line string
			options          Options
		}{u.format, u.file, u.line, Options{}})
	}
	for _, u := range lines {
		p := newParser(t, u.file, u.options)
		b := event.NewBatch("alloc")
		b.Arena().Block(1 << 20)
		b.Arena().SetBlock(0)
		line := []byte(u.line)
		e := b.Append()
		if n := testing.AllocsPerRun(500, func() {
			e.Reset()
			b.Arena().SetBlock(0)
			p.Parse(line, e, b.Arena())
		}); n != 0 {
			t.Errorf("%s: %v allocations per line", u.name, n)
		}
		if e.Format == "" {
			t.Errorf("%s: not read: %s", u.name, p.Reason())
		}
	}
}

func TestContextShapes(t *testing.T) {
	const (
		req    = "req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01"
		global = "req-aaaa1c3b-4a59-4e68-9c77-8b86a5945a04"
		u      = "1b2c3d4e5f60718293a4b5c6d7e8f901"
		pr     = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
		ldap   = u + pr
		uuid   = "6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9"
	)
	type want struct{ req, global, user, userID, project, ud, pd, scope, domain string }
	for ctx, w := range map[string]want{
		"-":                                 {},
		"":                                  {},
		req + " None":                       {req: req},
		req + " " + u + " -":                {req: req, user: u, userID: u},
		req + " " + u + " " + pr:            {req: req, user: u, userID: u, project: pr},
		req + " " + u + " " + pr + " - - -": {req: req, user: u, userID: u, project: pr},
		req + " " + u + " " + pr + " - default default": {req: req, user: u, userID: u, project: pr, ud: "default", pd: "default"},
		req + " - - - - -": {req: req},
		"None " + req + " " + u + " " + pr + " - - default default":      {req: req, user: u, userID: u, project: pr, ud: "default", pd: "default"},
		"None " + req + " " + u + " " + pr + " - - " + u + " " + pr:      {req: req, user: u, userID: u, project: pr, ud: u, pd: pr},
		"None " + req + " " + u + " - - all default -":                   {req: req, user: u, userID: u, ud: "default", scope: "all"},
		"None " + req + " " + u + " - " + pr + " - default -":            {req: req, user: u, userID: u, ud: "default", domain: pr},
		"None " + req + " - - - - - -":                                   {req: req},
		global + " " + req + " " + u + " " + pr + " - - default default": {req: req, global: global, user: u, userID: u, project: pr, ud: "default", pd: "default"},
		" " + req + " " + u + " " + pr + " - - default default":          {req: req, user: u, userID: u, project: pr, ud: "default", pd: "default"},
		"None " + req + " demo admin":                                    {req: req, user: "admin"},
		"None " + req + " " + ldap + " " + uuid + " - - default default": {req: req, user: ldap, userID: ldap, project: uuid, ud: "default", pd: "default"},
		"None " + req + " svc " + pr + " - - default default":            {req: req, user: "svc", project: pr, ud: "default", pd: "default"},
		"None req-not-a-uuid " + u + " " + pr + " - - default default":   {req: "req-not-a-uuid", user: u, userID: u, project: pr, ud: "default", pd: "default"},
		"None " + req:             {req: req},
		"something else entirely": {},
	} {
		p := newParser(t, "nova-api.log", Options{})
		e, v := parse(p, `2026-03-02 10:15:30.123 4211 INFO nova.osapi_compute.wsgi.server [`+ctx+`] 192.0.2.9 "GET /v2.1/x HTTP/1.1" status: 200 len: 2154 time: 0.3120457`)
		if v != Access {
			t.Errorf("[%s]: verdict %d, %s", ctx, v, p.Reason())
			continue
		}
		got := want{
			e.RequestID, e.GlobalRequestID, e.User, e.UserID, e.ProjectID, e.UserDomainID, e.ProjectDomainID,
			schema.Get(e, "system_scope").Str(), schema.Get(e, "domain_id").Str(),
		}
		if got != w {
			t.Errorf("[%s]:\n got %+v\nwant %+v", ctx, got, w)
		}
	}
}

// TestZoneAroundItsChanges reads local times on both sides of the changes of summer time, in order, through the same caches.
func TestZoneAroundItsChanges(t *testing.T) {
	for zone, times := range map[string]map[string]string{
		"Europe/Paris": {
			"2026-03-29 01:59:59.999": "2026-03-29T00:59:59.999Z",
			"2026-03-29 03:00:00.000": "2026-03-29T01:00:00Z",
			"2026-10-25 01:59:59.000": "2026-10-24T23:59:59Z",
			"2026-10-25 03:00:00.000": "2026-10-25T02:00:00Z",
		},
		"Australia/Lord_Howe": { // half an hour of summer time
			"2026-04-05 01:15:00.000": "2026-04-04T14:15:00Z",
			"2026-04-05 02:15:00.000": "2026-04-04T15:45:00Z",
			"2026-10-04 01:59:00.000": "2026-10-03T15:29:00Z",
			"2026-10-04 02:45:00.000": "2026-10-03T15:45:00Z",
		},
		"Asia/Kathmandu": {"2026-04-05 00:10:00.000": "2026-04-04T18:25:00Z"},
	} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		p := newParser(t, "nova-api.log", Options{Location: loc})
		locals := make([]string, 0, len(times))
		for l := range times {
			locals = append(locals, l)
		}
		slices.Sort(locals)
		for _, l := range locals {
			e, v := parse(p, l+` 4211 INFO nova.osapi_compute.wsgi.server [-] 192.0.2.9 "GET /v2.1/x HTTP/1.1" status: 200 len: 2154 time: 0.3120457`)
			if got := e.Time.Format(time.RFC3339Nano); v != Access || got != times[l] {
				t.Errorf("%s %s: %s, want %s", zone, l, got, times[l])
			}
		}
	}
}

func TestOuterZoneDecides(t *testing.T) {
	const tail = ` nova_api nova_api_be/ctl1 0/0/0/1/TOOK 200 319 - - ---- 2/1/0/0/0 0/0 "GET /v2.1/servers HTTP/1.1"`
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, outer, inner, took, want string }{
		{"same zone", "2026-03-02T12:15:30.7+02:00", "02/Mar/2026:12:15:30.655", "5", "2026-03-02T10:15:30.655Z"},
		{"the input's zone under an outer in UTC", "2026-03-02T10:15:30.7Z", "02/Mar/2026:11:15:30.655", "5", "2026-03-02T10:15:30.655Z"},
		{"a third zone, by quarter hours", "2026-03-02T10:15:30.7Z", "02/Mar/2026:16:00:30.655", "5", "2026-03-02T10:15:30.655Z"},
		{"a request of an hour", "2026-03-02T11:15:30.7+00:00", "02/Mar/2026:10:15:30.655", "3600000", "2026-03-02T10:15:30.655Z"},
		{"ten minutes on the way", "2026-03-02T12:25:30.7+02:00", "02/Mar/2026:12:15:30.655", "5", "2026-03-02T10:15:30.655Z"},
		{"west of UTC", "2026-03-02T10:15:30.7Z", "02/Mar/2026:05:15:30.655", "5", "2026-03-02T10:15:30.655Z"},
	} {
		p := newParser(t, "haproxy.log", Options{Location: paris})
		e, v := parse(p, c.outer+" ctl1 haproxy[5992]: 192.0.2.9:35430 ["+c.inner+"]"+strings.Replace(tail, "TOOK", c.took, 1))
		if got := e.Time.Format(time.RFC3339Nano); v != Access || got != c.want {
			t.Errorf("%s: verdict %d, %s, want %s", c.name, v, got, c.want)
		}
	}
}

func TestProgramAndServiceOfFileNames(t *testing.T) {
	const uwsgi = `[pid: 447|app: 0|req: 112/208] 192.0.2.9 () {26 vars in 484 bytes} [Mon Mar  2 10:15:31 2026] GET PATH => generated 15 bytes in 45 msecs (HTTP/1.0 200) 6 headers in 264 bytes (1 switches on core 2)`
	for _, c := range []struct{ file, path, program, service, kind string }{
		{"/var/log/kolla/cinder/cinder-api-uwsgi.log.2.gz", "/v3/x", "cinder-api", "cinder", "volume-api"},
		{"/var/log/nova/nova-api-metadata.log", "/latest", "nova-api-metadata", "nova", "metadata-api"},
		{"/var/log/nova/nova-placement-api.log", "/", "nova-placement-api", "placement", "placement-api"},
		{"/var/log/apache2/keystone_wsgi_main_access_kolla.log", "/", "keystone", "keystone", "identity-api"},
		{"uwsgi.log", "/compute/v2.1/servers", "uwsgi", "nova", "compute-api"},
		{"uwsgi.log", "/v3/auth/tokens", "uwsgi", "keystone", "identity-api"},
		{"uwsgi.log", "/v1/AUTH_x/c", "uwsgi", "swift", "object-store"},
		{"", "/v2/images/x", "", "glance", "image-api"},
		{"", "//v2.0/ports.json", "", "", "unknown"},
		{"openstack-ironic-api.log", "/", "openstack-ironic-api", "ironic", "baremetal-api"},
		{"other.log", "/favicon.ico", "other", "", "unknown"},
	} {
		p := newParser(t, c.file, Options{})
		e, v := parse(p, strings.Replace(uwsgi, "PATH", c.path, 1))
		if v != Access || e.Program != c.program || e.Service != c.service || e.Kind != c.kind {
			t.Errorf("%s %s: %q %q %q, want %q %q %q", c.file, c.path, e.Program, e.Service, e.Kind, c.program, c.service, c.kind)
		}
	}
}

func TestIdentityIsUnverifiedOnlyWhereItCanBeAnothers(t *testing.T) {
	line := func(logger, method, path, status, spaces string) string {
		return `2026-03-02 10:15:30.123 4211 INFO ` + logger + ` [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9 "` +
			method + " " + path + ` HTTP/1.1" status: ` + status + spaces + `len: 2154 time: 0.3120457`
	}
	const nova, neutron, cinder = "nova.osapi_compute.wsgi.server", "neutron.wsgi", "cinder.osapi.wsgi.server"
	for _, c := range []struct {
		logger, method, path, status string
		want                         bool
	}{
		{nova, "GET", "/v2.1/servers", "401", true},
		{nova, "OPTIONS", "/v2.1/servers", "200", true},
		{nova, "GET", "/", "200", true},
		{nova, "GET", "/v2.1", "200", true},
		{nova, "GET", "/v2.1/", "200", true},
		{nova, "GET", "/compute/v2.1/", "200", true},
		{nova, "GET", "/v2.1/servers", "200", false},
		{nova, "GET", "/v2.1/servers", "403", false},
		{nova, "GET", "/v2.1/v3", "200", false},
		{neutron, "GET", "/v2.0/networks", "401", true},
		{neutron, "GET", "/v2.0/networks", "200", false},
		{cinder, "GET", "/v3/volumes", "401", false},
		{cinder, "OPTIONS", "/", "200", false},
		{"nova.metadata.wsgi.server", "GET", "/", "200", false},
	} {
		p := newParser(t, "x.log", Options{})
		e, v := parse(p, line(c.logger, c.method, c.path, c.status, " "))
		if v != Access || e.Is(event.BoolIdentityUnverified) != c.want {
			t.Errorf("%+v: verdict %d, unverified %v", c, v, e.Is(event.BoolIdentityUnverified))
		}
	}
}

func TestAddressesAreThoseOfNetip(t *testing.T) {
	check := func(s string) {
		t.Helper()
		a, err := netip.ParseAddr(s)
		want := err == nil && a.Zone() == ""
		if got := isIPv4(s) || isIPv6(s); got != want {
			t.Errorf("%q: %v, netip says %v", s, got, want)
		}
	}
	for _, s := range []string{
		"", "1.2.3.4", "01.2.3.4", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1..2.3", "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:8:9",
		"::ffff:192.0.2.7", "1:2:3:4:5:6:192.0.2.7", "1:2:3:4:5:6:7:192.0.2.7", "::1:2:3:4:5:6:192.0.2.7", "1::2::3", ":1:2", "12345::", "fe80::1%eth0", "1:2:3:4:5:6:7:", "::192.0.2",
	} {
		check(s)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		b := make([]byte, r.IntN(20))
		for i := range b {
			b[i] = ":::...0123fF"[r.IntN(12)]
		}
		check(string(b))
	}
}

func TestHexDigitsEightAtATime(t *testing.T) {
	for c := range 256 {
		for i := range 8 {
			b := []byte("0a9f5e1b")
			b[i] = byte(c)
			want := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
			if hex8(le64(string(b), 0)) != want {
				t.Fatalf("byte %#x at %d: want %v", c, i, want)
			}
		}
	}
}

// realLike are all lines of the golden files and the usual ones.
func realLike(t testing.TB) []string {
	var lines []string
	for _, u := range usual {
		lines = append(lines, u.line)
	}
	for _, f := range goldenFiles(t) {
		for _, l := range readGolden(t, f).lines {
			lines = append(lines, string(l))
		}
	}
	return lines
}

// texts are the fields that hold text of the line.
func texts(e *event.Event) []string {
	return []string{
		e.Method, e.Path, e.Query, e.HTTPVersion, e.Client, e.ForwardedFor, e.UserAgent, e.Referer, e.RequestID, e.GlobalRequestID, e.User, e.UserID,
		e.UserName, e.UserDomainID, e.ProjectID, e.ProjectDomainID, e.Logger,
	}
}

// checkEvent holds what must be true of any line whatsoever.
func checkEvent(t testing.TB, line []byte, e *event.Event, v Verdict, reason string, all bool) {
	t.Helper()
	if v == Access != (e.RecordClass == event.ClassAccess || e.RecordClass == event.ClassAudit) {
		t.Fatalf("%q: verdict %d, class %q", line, v, e.RecordClass)
	}
	if v == Access != (reason == "") {
		t.Fatalf("%q: verdict %d, reason %q", line, v, reason)
	}
	if v != Access && (e.Has&event.HasStatus != 0 || e.Outcome != "" || e.Path != "") {
		t.Fatalf("%q: a line without a request has status %d, path %q", line, e.Status, e.Path)
	}
	if v == Service && !all && (e.RecordClass != "" || len(e.Extra) != 0 || e.Logger != "") {
		t.Fatalf("%q: a service line that is not wanted left fields", line)
	}
	if e.Has&event.HasStatus != 0 && (e.Status < 100 || e.Status > 999) {
		t.Fatalf("%q: status %d", line, e.Status)
	}
	if e.Duration < 0 || e.Size < 0 {
		t.Fatalf("%q: duration %v, size %d", line, e.Duration, e.Size)
	}
	if e.Client != "" {
		if _, err := netip.ParseAddr(e.Client); err != nil {
			t.Fatalf("%q: client %q", line, e.Client)
		}
	}
	if !decodes(line, e) {
		for _, s := range texts(e) {
			if !bytes.Contains(line, []byte(s)) {
				t.Fatalf("%q: %q is not on the line", line, s)
			}
			if e.Plain && strings.Contains(s, `"`) {
				t.Fatalf("%q: plain, with a quote in %q", line, s)
			}
		}
	}
	checkFigures(t, line, e)
	var s schema.Scratch
	if out := schema.NewEncoder(schema.EncodeOptions{}).Encode(nil, e, &s); !json.Valid(out) {
		t.Fatalf("%q: %s is no JSON", line, out)
	}
}

// checkFigures holds that figures and attributes are on the line too.
func checkFigures(t testing.TB, line []byte, e *event.Event) {
	t.Helper()
	bare := bytes.ReplaceAll(bytes.ReplaceAll(line, []byte{'0'}, nil), []byte{'\\'}, nil) // in JSON a backslash in front changes no digit
	figure := func(name string, n int64) {
		// Zeros may stand in front, and fractions be cut: what is left must be there.
		digits := strings.ReplaceAll(strconv.FormatInt(max(n, -n), 10), "0", "")
		if !bytes.Contains(bare, []byte(digits)) && !bytes.Contains(line, []byte(`\u`)) && !bytes.Contains(line, []byte(`"MESSAGE":[`)) && !bytes.Contains(line, []byte(`\x`)) && !bytes.ContainsRune(line, 0x1b) {
			t.Fatalf("%q: %s is %d, and no such figure is on the line", line, name, n)
		}
	}
	if e.Has&event.HasStatus != 0 && !bytes.Contains(line, []byte("HTTP ")) { // which has names of statuses
		figure("status", int64(e.Status))
	}
	if e.Has&event.HasSize != 0 {
		figure("size", e.Size)
	}
	if e.Has&event.HasProcessID != 0 {
		figure("process", e.ProcessID)
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		switch {
		case x.Key == "attributes":
			var a map[string]any
			if err := json.Unmarshal([]byte(x.Value.Str()), &a); err != nil {
				t.Fatalf("%q: attributes %q: %v", line, x.Value.Str(), err)
			}
			for k, v := range a {
				if s, ok := v.(string); ok && !decodes(line, e) && utf8.Valid(line) && !bytes.Contains(line, []byte(s)) {
					t.Fatalf("%q: %s is %q, which is not on the line", line, k, s)
				}
				if n, ok := v.(float64); ok && strings.HasSuffix(k, "_int") && n < 1e15 {
					figure(k, int64(n))
				}
			}
		case x.Value.Kind() == event.String && x.Key != "original":
			if s := x.Value.Str(); !decodes(line, e) && !bytes.Contains(line, []byte(s)) {
				t.Fatalf("%q: %s is %q, which is not on the line", line, x.Key, s)
			}
		}
	}
}

// decodes reports whether a line's texts are not on it as they are: Apache's, JSON's and HAProxy's escapes, swift's, colours that were taken
// out, journald's arrays of bytes, and the method of a start/done pair, which stands on another line.
func decodes(line []byte, e *event.Event) bool {
	return bytes.ContainsAny(line, "\\\x1b") || bytes.Contains(line, []byte(`"MESSAGE":[`)) || e.Format == "start-done" ||
		strings.HasPrefix(e.Format, "haproxy-") && bytes.IndexByte(line, '#') >= 0 || strings.HasPrefix(e.Format, "swift-") || strings.Contains(string(line), `"python_module"`)
}

// parseBoth parses the line with both settings of Records, which must agree.
func parseBoth(t testing.TB, few, all *Parser, line []byte) (*event.Event, Verdict) {
	t.Helper()
	b := event.NewBatch("both")
	x, y := b.Append(), event.NewBatch("both").Append()
	v := few.Parse(line, x, b.Arena())
	w := all.Parse(line, y, y.Batch().Arena())
	if cadf := few.Reason() == ReasonCADF && y.RecordClass == event.ClassAudit; !cadf && (v != w || few.Reason() != all.Reason()) {
		t.Fatalf("%q: verdicts %d and %d, reasons %q and %q", line, v, w, few.Reason(), all.Reason())
	}
	checkEvent(t, line, x, v, few.Reason(), false)
	checkEvent(t, line, y, w, all.Reason(), true)
	return x, v
}

// TestForwardedHeaderIsNoRequest: uWSGI writes X-Forwarded-For as it came, in front of what tells of the request. A header that
// holds all that such a line has cannot be told from a line with a strange protocol, and makes no clean record.
func TestForwardedHeaderIsNoRequest(t *testing.T) {
	const head, tail = " () {28 vars in 533 bytes} [Mon Mar  2 10:15:31 2026] ", " => generated 5 bytes in 1 msecs (HTTP/1.1 202) 6 headers in 282 bytes (1 switches on core 0)"
	const begin, end = `[pid: 447|app: 0|req: 112/216] 198.51.100.6` + head, ", 192.0.2.1" + head + "POST /v3/real" + tail
	p := newParser(t, "cinder-api-uwsgi.log", Options{})
	e, v := parse(p, begin+"GET /fake"+end)
	if v != Access || e.Method != "POST" || e.Path != "/v3/real" || e.Status != 202 || e.Client != "" {
		t.Errorf("verdict %d (%s): %s %s %d of %q", v, p.Reason(), e.Method, e.Path, e.Status, e.Client)
	}
	e, v = parse(p, begin+"GET /fake"+tail+end)
	if suspect, _ := e.Get("suspect"); v != Access || !slices.Contains(suspect.List(), "forged-line") {
		t.Errorf("verdict %d (%s): %s %s", v, p.Reason(), e.Method, e.Path)
	}
}

// TestCutLinesTellNothingElse cuts each line at every byte: what is still told is what the whole line tells.
func TestCutLinesTellNothingElse(t *testing.T) {
	for _, line := range realLike(t) {
		few, all := newParser(t, "nova-api.log", Options{}), newParser(t, "nova-api.log", Options{Records: All})
		for _, u := range usual {
			parseBoth(t, few, all, []byte(u.line)) // so that it is known that Apache's lines here have user agents
		}
		whole, v := parseBoth(t, few, all, []byte(line))
		for i := range len(line) {
			few.open, all.open = 0, 0
			e, w := parseBoth(t, few, all, []byte(line[:i]))
			if w != Access || v != Access {
				continue
			}
			if e.Has&event.HasStatus != 0 && e.Status != whole.Status {
				t.Fatalf("%q cut at %d: status %d, whole %d", line, i, e.Status, whole.Status)
			}
			if e.Has&event.HasSize != 0 && e.Format != "wsgiref" && (whole.Has&event.HasSize == 0 || e.Size != whole.Size) {
				t.Fatalf("%q cut at %d: size %d, whole %d", line, i, e.Size, whole.Size)
			}
			if d := whole.Duration - e.Duration; e.Has&event.HasDuration != 0 && (d < 0 || d > time.Microsecond) {
				t.Fatalf("%q cut at %d: %v, whole %v", line, i, e.Duration, whole.Duration)
			}
			if !strings.HasPrefix(whole.Method, e.Method) || e.UserID != whole.UserID && (e.UserID != "" || e.Format != "swift-proxy") || e.ProjectID != whole.ProjectID || e.Client != whole.Client && whole.Format != "nginx-skyline" {
				t.Fatalf("%q cut at %d: %q %q %q %q", line, i, e.Method, e.UserID, e.ProjectID, e.Client)
			}
		}
	}
}

// TestDamagedLines flips each byte, doubles and glues lines: nothing breaks and no line tells what is not on it.
func TestDamagedLines(t *testing.T) {
	lines := realLike(t)
	r := rand.New(rand.NewPCG(5, 6))
	few, all := newParser(t, "nova-api.log", Options{}), newParser(t, "nova-api.log", Options{Records: All})
	for _, line := range lines {
		b := []byte(line)
		for i := range b {
			was := b[i]
			b[i] = []byte{was ^ 1<<r.UintN(8), ' ', '"', byte(r.UintN(256))}[r.IntN(4)]
			parseBoth(t, few, all, b)
			b[i] = was
		}
		parseBoth(t, few, all, []byte(line+line))
		parseBoth(t, few, all, []byte(line+lines[r.IntN(len(lines))]))
		at := r.IntN(len(line) + 1)
		parseBoth(t, few, all, []byte(line[:at]+lines[r.IntN(len(lines))]))
		if len(line) > 0 {
			i, j := r.IntN(len(line)), r.IntN(len(line))
			parseBoth(t, few, all, []byte(line[:i]+line[j:]))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, l := range realLike(f) {
		f.Add([]byte(l), "nova-api.log")
	}
	for _, w := range wrapped {
		f.Add([]byte(w.line), w.file)
	}
	for _, path := range goldenFiles(f) {
		g := readGolden(f, path)
		f.Add(bytes.Join(g.lines, []byte("\n")), g.file)
	}
	f.Fuzz(func(t *testing.T, data []byte, file string) {
		few, all := newParser(t, file, Options{}), newParser(t, file, Options{Records: All})
		for l := range bytes.SplitSeq(data, []byte("\n")) {
			parseBoth(t, few, all, l)
		}
	})
}

// TestCachedHourIsTheLinesOwn damages each byte of a time after the same hour was read well: the memory of the hour must not
// cover for it.
func TestCachedHourIsTheLinesOwn(t *testing.T) {
	for _, c := range []struct{ format, stamp string }{
		{"nova-eventlet", "2026-03-02 10:15:30"},
		{"uwsgi", "Mon Mar  2 10:15:30 2026"},
		{"apache-combined", "02/Mar/2026:10:15:30"},
		{"apache-reqid", "2026-03-02T10:15:30"},
		{"haproxy-http", "02/Mar/2026:10:15:30"},
		{"swift-proxy", "02/Mar/2026/10/15/30"},
	} {
		i := slices.IndexFunc(usual, func(u struct{ format, file, line string }) bool { return u.format == c.format })
		line := usual[i].line
		at := strings.LastIndex(line, c.stamp)
		for j := range c.stamp {
			for _, b := range []byte("0123459xZ :") {
				damaged := line[:at+j] + string(b) + line[at+j+1:]
				warm, cold := newParser(t, "x.log", Options{}), newParser(t, "x.log", Options{})
				parse(warm, line)
				e, v := parse(warm, damaged)
				f, w := parse(cold, damaged)
				if w == Access && (v != Access || !e.Time.Equal(f.Time)) || w != Access && v == Access {
					t.Errorf("%s: %q: verdict %d at %v with the hour before, %d at %v without", c.format, damaged, v, e.Time, w, f.Time)
				}
			}
		}
	}
}
