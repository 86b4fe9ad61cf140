package formats

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// usual are everyday lines, one for each format.
var usual = []struct{ format, file, line string }{
	{"nova-eventlet", "nova-api.log", `2026-03-02 10:15:30.123 4211 INFO nova.osapi_compute.wsgi.server [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9,192.0.2.2 "GET /v2.1/servers/detail?all_tenants=True&limit=200 HTTP/1.1" status: 200 len: 2154 time: 0.3120457`},
	{"oslo-eventlet", "neutron-server.log", `2026-03-02 10:15:30.123 31 INFO neutron.wsgi [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9,192.0.2.2 "PUT /v2.0/routers/5cfb1d2e-3f40-4152-8364-75869798a9ba/add_router_interface HTTP/1.1" status: 200  len: 547 time: 1.3071126`},
	{"nova-requestlog", "nova-api.log", `2026-03-02 10:15:30.123 30 INFO nova.api.openstack.requestlog [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9 "POST /compute/v2.1/servers/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9/action" status: 202 len: 0 microversion: 2.96 time: 0.403988`},
	{"placement-requestlog", "placement-api.log", `2026-03-02 10:15:30.123 335 INFO placement.requestlog [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9 "GET /placement/resource_providers?in_tree=6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9" status: 200 len: 926 microversion: 1.14` + "\x1b[00m"},
	{"uwsgi", "cinder-api-uwsgi.log", `[pid: 21082|app: 0|req: 12/31] 192.0.2.2 () {58 vars in 1211 bytes} [Mon Mar  2 10:15:30 2026] GET /v3/volumes/detail?limit=200&sort=created_at => generated 5102 bytes in 31 msecs (HTTP/1.1 200) 6 headers in 377 bytes (1 switches on core 0)`},
	{"apache-combined", "keystone_access.log", `192.0.2.9 - - [02/Mar/2026:10:15:30 +0100] "POST /v3/auth/tokens HTTP/1.1" 201 3391 "-" "openstacksdk/3.0.0 keystoneauth1/5.6.0 python-requests/2.31.0 CPython/3.12.3"`},
	{"apache-kolla", "keystone_access.log", `192.0.2.9, 192.0.2.2 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/auth/tokens HTTP/1.1" 200 4870 612844 "-" "python-keystoneclient"`},
	{"apache-reqid", "keystone_access.log", `192.0.2.9 - - [2026-03-02T10:15:30.661903+0000] "GET /v3/projects?limit=2 HTTP/1.1" 200 129 9416571 "openstacksdk/3.0.0" req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01`},
	{"haproxy-http", "haproxy.log", `2026-03-02T10:15:30.775917+00:00 ctl1 haproxy[5992]: 192.0.2.9:35430 [02/Mar/2026:10:15:30.655] nova_api nova_api_be/ctl1-uwsgi 0/0/0/116/116 200 319 - - ---- 2/1/0/0/0 0/0 {openstacksdk/3.0.0} {req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01} "GET /v2.1/servers?limit=2 HTTP/1.1"`},
	{"haproxy-clf", "haproxy.log", `2026-03-02T10:15:30.775917+00:00 ctl1 haproxy[5992]: 192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/volumes?limit=2 HTTP/1.1" 200 255 "" "" 46562 132 "cinder_api" "cinder_be" "ctl1-uwsgi" 0 0 0 139 142 ---- 2 1 0 0 0 0 0 "" "" `},
	{"eventlet-clf", "glance-api.log", `2026-03-02 10:15:30.123 22 INFO eventlet.wsgi.server [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9,192.0.2.2 - - [02/Mar/2026 10:15:30] "GET /v2/images?limit=20 HTTP/1.1" 200 2217 0.151027`},
	{"wsgiref", "octavia-api.log", `192.0.2.9 - - [02/Mar/2026 10:15:30] "GET /v2.0/lbaas/loadbalancers?limit=2 HTTP/1.1" 200 -`},
	{"ironic-requestlog", "ironic-api.log", `2026-03-02 10:15:30.123 8 INFO ironic.api [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9 - GET /v1/nodes?fields=uuid,name - 200 (34.56ms)`},
	{"start-done", "cinder-api.log", `2026-03-02 10:15:30.767 30 INFO cinder.api.openstack.wsgi [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] http://192.0.2.2:8776/v3/9f8e7d6c5b4a39281706f5e4d3c2b1a0/volumes returned with HTTP 202`},
	{"apache-vhost", "other_vhosts_access.log", `identity.example.org:5000 192.0.2.9 - - [02/Mar/2026:10:15:30 +0100] "POST /v3/auth/tokens HTTP/1.1" 201 3391 "-" "openstacksdk/3.0.0 keystoneauth1/5.6.0 python-requests/2.31.0 CPython/3.12.3"`},
	{"apache-osa", "syslog", `2026-03-02T10:15:30.5+00:00 ctl1 apache2:keystone-wsgi-public[812]: 192.0.2.11 - - "203.0.113.9" "POST /v3/auth/tokens HTTP/1.1" 201 3478 "-" "openstacksdk/3.0.0 keystoneauth1/5.6.0 python-requests/2.31.0 CPython/3.12.3"`},
	{"nginx-combined", "access.log", `192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/projects HTTP/1.1" 200 3391 "-" "openstacksdk/3.0.0 keystoneauth1/5.6.0 python-requests/2.31.0 CPython/3.12.3" 0.123 0.121`},
	{"nginx-skyline", "skyline.log", `203.0.113.9 - - [02/Mar/2026:10:15:30 +0000] "0.123" "0.121" "GET /api/openstack/skyline/api/v1/profile HTTP/1.1" 200 1234 "https://skyline.example.org/" "Mozilla/5.0 (X11; Linux x86_64)" "-"`},
	{"haproxy-https", "haproxy.log", `2026-03-02T10:15:30.775917+00:00 ctl1 haproxy[5992]: 192.0.2.9:35430 [02/Mar/2026:10:15:30.655] nova_api_front~ nova_api_back/ctl1 0/0/0/116/116 200 319 - - ---- 2/1/0/0/0 0/0 "GET /v2.1/servers?limit=2 HTTP/1.1" 0/0/0/0/0 compute.example.org/TLSv1.3/TLS_AES_256_GCM_SHA384`},
	{"swift-proxy", "proxy.log", `Mar  2 10:15:30 ctl1 proxy-server: 203.0.113.9 192.0.2.2 02/Mar/2026/10/15/30 GET /v1/AUTH_9f8e7d6c5b4a39281706f5e4d3c2b1a0/photos%3Fformat%3Djson HTTP/1.0 200 - openstacksdk/3.0.0%20keystoneauth1/5.6.0 gAAAAABpXyZk... - 4096 - tx9a8b7c6d5e4f30213243a-0069a56c02 - 0.0073 - - 1772446530.664187011 1772446530.671491099 0 1b2c3d4e5f60718293a4b5c6d7e8f901`},
	{"swift-storage", "storage.log", `Mar  2 10:15:30 obj1 object-server: 192.0.2.2 - - [02/Mar/2026:10:15:30 +0000] "GET /sdb1/1023/AUTH_9f8e7d6c5b4a39281706f5e4d3c2b1a0/photos/a" 200 1024 "GET http://storage.example.org/v1/AUTH_9f8e7d6c5b4a39281706f5e4d3c2b1a0/photos/a" "tx9a8b7c6d5e4f30213243a-0069a56c02" "proxy-server 4711" 0.0012 "-" 456 0`},
	{"rgw-beast", "rgw.log", `2026-03-02T10:15:30.404+0000 7fc4a0b1c700  1 beast: 0x7fc4a0b1c710: 203.0.113.9 - operator [02/Mar/2026:10:15:30.404 +0000] "GET /swift/v1/photos?format=json HTTP/1.1" 200 1024 - "openstacksdk/3.0.0" - latency=0.010000000s`},
}

// wrapped are lines in envelopes, and records that are one JSON object.
var wrapped = []struct {
	name, file, line string
	options          Options
}{
	{"RFC 5424", "syslog", "<142>1 2026-03-02T11:15:30.517596+01:00 ctl1 nova-api 4211 - - " + usual[0].line, Options{}},
	{"RFC 3164", "syslog", "Mar  2 10:15:30 ctl1 nova-api[4211]: " + usual[0].line, Options{}},
	{"pebble in CRI", "0.log", "2026-03-02T10:15:30.123456789Z stdout F 2026-03-02T10:15:30.881Z [nova-api] " + usual[0].line, Options{}},
	{"docker", "x-json.log", `{"log":"[pid: 21082|app: 0|req: 12/31] 192.0.2.2 () {58 vars in 1211 bytes} [Mon Mar  2 10:15:30 2026] GET /v3/volumes => generated 5102 bytes in 31 msecs (HTTP/1.1 200) 6 headers in 377 bytes (1 switches on core 0)\n","stream":"stdout","time":"2026-03-02T10:15:30.881Z"}`, Options{}},
	{"Apache error log", "keystone_error.log", `2026-03-02 10:15:30.123456 2026-03-02 10:15:30.123 335 INFO placement.requestlog [-] 192.0.2.9 "GET /placement/traits" status: 200 len: 926 microversion: 1.14\x1b[00m`, Options{}},
	{"journal", "journal.json", `{"__REALTIME_TIMESTAMP":"1772446530123456","_HOSTNAME":"ctl1","SYSLOG_IDENTIFIER":"haproxy","_PID":"77","MESSAGE":"192.0.2.9:35430 [02/Mar/2026:10:15:30.110] nova_api nova_api_be/ctl1 0/0/0/10/12 200 319 - - ---- 2/1/0/0/0 0/0 \"GET /v2.1/servers?limit=2 HTTP/1.1\""}`, Options{}},
	{"devstack", "syslog", "Mar 02 10:15:30 ctl1 devstack@n-api.service[21067]: \x1b[00;36mINFO nova.api.openstack.requestlog [\x1b[01;36mNone req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 \x1b[00;36mdemo admin\x1b[00;36m] \x1b[01;35m\x1b[00;36m203.0.113.9 \"GET /compute/v2.1/servers\" status: 200 len: 15 microversion: 2.1 time: 0.120301\x1b[00m", Options{}},
	{"oslo JSON", "nova-api.json", `{"message": "192.0.2.9 \"GET /v2.1/servers\" status: 200 len: 15 microversion: 2.1 time: 0.120301", "asctime": "2026-03-02 10:15:30", "name": "nova.api.openstack.requestlog", "levelname": "INFO", "created": 1772446530.1234, "process": 4211, "hostname": "ctl1", "context": {"request_id": "req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01", "user": "1b2c3d4e5f60718293a4b5c6d7e8f901", "project": "9f8e7d6c5b4a39281706f5e4d3c2b1a0"}, "extra": {}}`, Options{}},
	{"cadf", "cinder-api.log", `2026-03-02 10:15:31.184 80 INFO oslo.messaging.notification.audit.http.response [-] {"message_id": "c78f7d0e", "publisher_id": "uwsgi", "event_type": "audit.http.response", "priority": "INFO", "payload": {"typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event", "eventType": "activity", "id": "23a45b35-dbc2-583a-956f-4bf74e196b58", "eventTime": "2026-03-02T10:15:30.702118+0000", "action": "create", "outcome": "success", "initiator": {"id": "1b2c3d4e5f60718293a4b5c6d7e8f901", "typeURI": "service/security/account/user", "name": "demo", "credential": {"token": "***", "identity_status": "Confirmed"}, "host": {"address": "203.0.113.9", "agent": "openstacksdk/3.0.0"}, "project_id": "9f8e7d6c5b4a39281706f5e4d3c2b1a0", "request_id": "req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01"}, "target": {"id": "cinder", "typeURI": "service/storage/block/volumes", "name": "cinderv3"}, "requestPath": "/v3/volumes?limit=2", "reason": {"reasonType": "HTTP", "reasonCode": "202"}, "reporterchain": [{"role": "modifier", "reporterTime": "2026-03-02T10:15:31.190655+0000"}]}, "timestamp": "2026-03-02 10:15:31.191020"}`, Options{Records: AccessAndAudit}},
	{"template", "x.log", usual[5].line, Options{Template: `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`}},
	{"template of uWSGI", "x.log", `192.0.2.9 - demo [02/Mar/2026:10:15:30 +0000] "GET /v3/volumes HTTP/1.1" 200 5102 31`, Options{Template: `%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(rsize) %(msecs)`}},
	{"json", "x.log", `{"ts":"2026-03-02T10:15:30.123Z","http":{"verb":"GET","url":"/v3/volumes?limit=2","code":200},"ms":31.5}`, Options{JSON: map[string]string{"timestamp": "ts", "method": "http.verb", "target": "http.url", "api_response_code_int": "http.code", "api_response_time_ms": "ms"}}},
}

// mtime is when the files of the tests were last written.
var mtime = time.Date(2026, 3, 2, 11, 0, 0, 0, time.UTC)

func newParser(t testing.TB, file string, o Options) *Parser {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.File(file, mtime)
	return p
}

// BenchmarkParse parses lines of one format over and over: text/FORMAT, JSON/NAME, and own/NAME for formats of the user's own.
// test/bench reads what it prints. Lines differ in what differs in a log: ids, figures, fractions. The event is reset by hand, as a
// batch's Append does.
func BenchmarkParse(b *testing.B) {
	for _, u := range usual {
		b.Run("text/"+u.format, func(b *testing.B) { benchmark(b, u.file, u.line, Options{}) })
	}
	for _, w := range wrapped {
		kind := "text/"
		switch {
		case w.options.Template != "":
			continue // measured below, beside scanners by hand
		case w.line[0] == '{', w.name == "cadf":
			kind = "JSON/"
		}
		b.Run(kind+strings.ReplaceAll(w.name, " ", "-"), func(b *testing.B) { benchmark(b, w.file, w.line, w.options) })
	}
	for _, o := range templated {
		for _, u := range usual {
			if u.format == o.format {
				b.Run("own/"+o.format, func(b *testing.B) { benchmark(b, u.file, u.line, Options{Template: o.template}) })
			}
		}
	}
}

// templated are templates for lines that a hand-written scanner reads too.
var templated = []struct{ format, template string }{
	{"apache-combined", `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`},
	{"apache-kolla", `%{X-Forwarded-For}i %l %u %t "%r" %>s %b %D "%{Referer}i" "%{User-Agent}i"`},
	{"apache-vhost", `%v:%p %h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`},
}

// varied makes lines that differ from one in the digits of its ids and figures.
func varied(line string) (all [][]byte) {
	const letters, shortest, seconds = "abcdef", 7, 10
	r := rand.New(rand.NewPCG(1, 2))
	for range 64 {
		b := []byte(line)
		for i := 0; i < len(b); {
			end, digits := i, 0
			for end < len(b) && hexValue[b[end]] >= 0 {
				if b[end] <= '9' {
					digits++
				}
				end++
			}
			from := i
			if digits == end-i && digits >= seconds {
				from = i + seconds // a time since 1970
			}
			for k := from; digits > 0 && end-i >= shortest && k < end; k++ {
				if b[k] <= '9' {
					b[k] = '0' + byte(r.IntN(10))
				} else {
					b[k] = letters[r.IntN(len(letters))]
				}
			}
			i = end + 1
		}
		all = append(all, b)
	}
	return all
}

func benchmark(b *testing.B, file, text string, o Options) {
	p := newParser(b, file, o)
	batch := event.NewBatch("bench")
	batch.Arena().Block(1 << 20)
	lines := varied(text)
	e := batch.Append()
	b.SetBytes(int64(len(text) + 1))
	b.ReportAllocs()
	var began time.Duration
	for i := 0; b.Loop(); i++ {
		if i == 0 {
			began = cpuTime(b)
		}
		if i%1024 == 0 {
			batch.Arena().SetBlock(0)
		}
		e.Reset()
		if p.Parse(lines[i%len(lines)], e, batch.Arena()) != Access {
			b.Fatalf("no access line: %s", lines[i%len(lines)])
		}
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/line")
	b.ReportMetric(float64(len(text)+1), "bytes/line")
}

// cpuTime is what this process took so far: on a busy machine the time on the wall says little.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReset is the part of BenchmarkParse that is not the parser's.
func BenchmarkReset(b *testing.B) {
	batch := event.NewBatch("bench")
	e := batch.Append()
	for b.Loop() {
		e.Reset()
	}
}
