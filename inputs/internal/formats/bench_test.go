package formats

import (
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

// BenchmarkParse parses one line of each format over and over. The event is reset by hand, as a batch's Append does.
func BenchmarkParse(b *testing.B) {
	for _, u := range usual {
		b.Run(u.format, func(b *testing.B) {
			p := newParser(b, u.file, Options{})
			batch := event.NewBatch("bench")
			batch.Arena().Block(1 << 20)
			line := []byte(u.line)
			e := batch.Append()
			b.SetBytes(int64(len(line) + 1))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%1024 == 0 {
					batch.Arena().SetBlock(0)
				}
				e.Reset()
				if p.Parse(line, e, batch.Arena()) != Access {
					b.Fatal("no access line")
				}
			}
		})
	}
}

// BenchmarkReset is the part of BenchmarkParse that is not the parser's.
func BenchmarkReset(b *testing.B) {
	batch := event.NewBatch("bench")
	e := batch.Append()
	for b.Loop() {
		e.Reset()
	}
}
