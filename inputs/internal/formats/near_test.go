package formats

import (
	"strings"
	"testing"
)

// TestNearMissesAreCountedByFormatAndPlace changes one place of a line of each format: the reason names the format, and that place.
func TestNearMissesAreCountedByFormatAndPlace(t *testing.T) {
	for format, changes := range map[string][]struct{ was, is, place string }{
		"nova-eventlet": {
			{`"GET /v2.1`, `'GET /v2.1`, "request"},
			{"status: 200", "status: 2x0", "status"},
			{"status: 200", "code: 200", "status"},
			{"len: 2154", "len: 2154B", "size"},
			{"len: 2154", "bytes: 2154", "size"},
			{"time: 0.3120457", "time: 312ms", "duration"},
			{"time: 0.3120457", "took: 0.3120457", "duration"},
			{"time: 0.3120457", "time: 0.3120457 tls: yes", "end"},
		},
		"oslo-eventlet": {
			{`"PUT `, `PUT `, "request"},
			{"status: 200", "status: -", "status"},
			{"len: 547", "len: ?", "size"},
			{"time: 1.3071126", "time: 1,3", "duration"},
			{"time: 1.3071126", "time: 1.3071126 x", "end"},
		},
		"nova-requestlog": {
			{`"POST `, `'POST `, "request"},
			{"status: 202", "status: 2o2", "status"},
			{"len: 0", "len: zero", "size"},
			{"microversion: 2.96", "version: 2.96", "tail"},
			{"time: 0.403988", "time: 403ms", "duration"},
			{"time: 0.403988", "time: 0.403988 x", "end"},
		},
		"placement-requestlog": {
			{`"GET `, `<GET `, "request"},
			{"status: 200", "status: 20", "status"},
			{"len: 926", "length: 926", "size"},
			{"microversion: 1.14", "version: 1.14", "tail"},
			{"microversion: 1.14\x1b[00m", "microversion: 1.14 time: 0.1", "end"},
		},
		"uwsgi": {
			{"|app: 0", "|app: x", "prefix"},
			{"() {58", "{58", "client"},
			{"Mon Mar  2", "Mon Mor  2", "time"},
			{"10:15:30 2026", "10:15 2026", "time"},
			{"generated 5102", "generated 5102K", "size"},
			{"=> generated 5102", "5102", "size"},
			{"31 msecs", "31 secs", "duration"},
			{"1.1 200)", "1.1 2x0)", "status"},
			{"6 headers", "six headers", "tail"},
			{"on core 0)", "on core 0) x", "tail"},
		},
		"apache-combined": {
			{"02/Mar/2026", "02/Mor/2026", "time"},
			{"10:15:30 +0100", "10:15:30 +01:0", "time"},
			{`"POST`, `'POST`, "request"},
			{" 201 ", " 20x ", "status"},
			{" 3391 ", " 3391x ", "size"},
			{`"-" "openstacksdk`, `"-", "openstacksdk`, "tail"},
			{`3.12.3"`, `3.12.3" more words`, "tail"},
		},
		"apache-kolla": {
			{" 612844 ", " 612844us ", "duration"},
			{`"-" "python`, `- "python`, "tail"},
			{`client"`, `client" x`, "end"},
		},
		"apache-reqid": {
			{"2026-03", "2026-13", "time"},
			{" 200 ", " 2x0 ", "status"},
			{" 129 ", " 129x ", "size"},
			{" 9416571 ", " 9.4s ", "duration"},
			{`"openstack`, `openstack`, "tail"},
			{`req-0f1d2c3b`, `req-0f1d2c3b x`, "end"},
		},
		"haproxy-http": {
			{"02/Mar/2026:10:15:30.655", "02/Mar/2026:10:15:61.655", "time"},
			{"nova_api_be/ctl1-uwsgi", "nova_api_be", "tail"},
			{"0/0/0/116/116", "0/0/0/116", "duration"},
			{"0/0/0/116/116", "0/0/0/116/x", "duration"},
			{" 200 ", " OK ", "status"},
			{" 319 ", " 319B ", "size"},
			{" 319 ", " -319 ", "size"},
			{"----", "-----", "tail"},
			{"2/1/0/0/0", "2/1/0/0", "tail"},
			{`"GET`, `'GET`, "request"},
		},
		"haproxy-clf": {
			{"02/Mar/2026:10:15:30 +0000", "02/Mar/2026:10:75:30 +0000", "time"},
			{`"GET /v3`, `'GET /v3`, "request"},
			{" 200 ", " 2x0 ", "status"},
			{" 255 ", " 255x ", "size"},
			{"0 0 0 139 142", "0 0 0 139 x", "tail"},
			{"----", "-----", "tail"},
		},
		"eventlet-clf": {
			{"02/Mar/2026 10", "02/Mor/2026 10", "time"},
			{"02/Mar/2026 10", "02/Mar/2026:10", "time"},
			{`"GET`, `'GET`, "request"},
			{" 200 ", " 2x0 ", "status"},
			{" 2217 ", " 2217B ", "size"},
			{"0.151027", "151ms", "duration"},
			{"0.151027", "0.151027 x", "end"},
		},
		"wsgiref": {
			{"02/Mar/2026 10", "32/Mar/2026 10", "time"},
			{"02/Mar/2026 10", "02/Mar/2026T10", "time"},
			{`"GET /v2.0/lbaas/loadbalancers?limit=2 HTTP/1.1"`, "GET /v2.0", "request"},
			{" 200 ", " 2x0 ", "status"},
			{" 200 -", " 200 ?", "size"},
			{" 200 -", " 200 - x", "end"},
		},
		"ironic-requestlog": {
			{" - 200 ", " - 2x0 ", "status"},
			{"34.56ms", "34,56ms", "duration"},
			{"34.56ms", "0.03s", "duration"},
			{"34.56ms)", "34.56ms) x", "end"},
		},
		"start-done": {
			{"HTTP 202", "HTTP 2x2", "status"},
			{"HTTP 202", "HTTP Accepted", "status"},
			{"HTTP 202", "HTTP HTTPStatus.TEAPOT", "status"},
		},
		"apache-vhost": {
			{"02/Mar/2026", "02/Mar/2O26", "time"},
			{" 201 ", " 20x ", "status"},
			{" 3391 ", " 3391x ", "size"},
			{`3.12.3"`, `3.12.3" x y`, "tail"},
		},
		"apache-osa": {
			{" 201 ", " 20x ", "status"},
			{" 3478 ", " 3478x ", "size"},
			{`3.12.3"`, `3.12.3" x`, "tail"},
		},
		"nginx-skyline": {
			{`"0.123"`, `"fast"`, "duration"},
			{`"0.121"`, `"fast"`, "duration"},
			{`"GET`, `'GET`, "request"},
			{" 200 ", " 2x0 ", "status"},
			{" 1234 ", " 1234x ", "size"},
			{`"-"`, `-`, "tail"},
			{`"-"`, `"-" x`, "end"},
		},
		"swift-proxy": {
			{"02/Mar/2026", "02/Mor/2026", "time"},
			{" GET ", " G.T ", "request"},
			{" 200 ", " 2x0 ", "status"},
			{" 4096 ", " 4096B ", "size"},
			{" 0.0073 ", " 7ms ", "duration"},
			{" 0 1b2c", " 0 - 1b2c", "end"},
		},
		"swift-storage": {
			{`"tx9a8b7c6d5e4f30213243a-0069a56c02" "proxy-server 4711"`, `"tx9a8b7c6d5e4f30213243a-0069a56c02" "proxy-server 4711`, "tail"},
			{" 0.0012 ", " fast ", "duration"},
			{" 456 0", " 456 0 x", "end"},
			{" 456 0", " pid 0", "end"},
		},
		"rgw-beast": {
			{": 203.0.113.9 - ", ": 203.0.113.9 ", "client"},
			{"02/Mar/2026", "02/Mor/2026", "time"},
			{`"GET`, `'GET`, "request"},
			{" 200 ", " 2x0 ", "status"},
			{" 1024 ", " 1024x ", "size"},
			{"latency=0.010000000s", "latency=10ms", "duration"},
			{`- "openstack`, `- - - - "openstack`, "tail"},
		},
	} {
		if len(changes) < 3 {
			t.Errorf("%s has %d", format, len(changes))
		}
		for _, u := range usual {
			if u.format != format {
				continue
			}
			for _, c := range changes {
				i := strings.LastIndex(u.line, c.was)
				if i < 0 {
					t.Fatalf("%s: %q is not on its line", format, c.was)
				}
				line := u.line[:i] + c.is + u.line[i+len(c.was):]
				e, v := parse(newParser(t, u.file, Options{}), line)
				p := newParser(t, u.file, Options{})
				if parse(p, line); v != Unparsed || p.Reason() != format+":"+c.place || e.Error != p.Reason() {
					t.Errorf("verdict %d, %q, want %s:%s: %s", v, p.Reason(), format, c.place, line)
				}
			}
		}
	}
}

// TestNearestFormatIsThatOfTheLineSoFar: what two formats share is counted for the more frequent one.
func TestNearestFormatIsThatOfTheLineSoFar(t *testing.T) {
	for _, c := range []struct{ format, was, is, want string }{
		{"apache-kolla", " 200 ", " 2x0 ", "apache-combined:status"},
		{"apache-kolla", `"GET`, "GET", "apache-combined:request"},
		{"nginx-combined", " 200 ", " 2x0 ", "apache-combined:status"},
		{"nginx-combined", "0.123", "fast", "apache-combined:tail"},
		{"haproxy-https", " 200 ", " 2x0 ", "haproxy-http:status"},
		{"swift-storage", " 200 ", " 2x0 ", "swift-storage:status"},
		{"nova-eventlet", "15:30.123", "15:30_123", "no-format"},
		{"nova-eventlet", "10:15:30.123", "10:65:30.123", "bad-time"},
	} {
		for _, u := range usual {
			if u.format != c.format {
				continue
			}
			p := newParser(t, u.file, Options{})
			if _, v := parse(p, strings.Replace(u.line, c.was, c.is, 1)); v != Unparsed || p.Reason() != c.want {
				t.Errorf("%s with %q: verdict %d, %q, want %q", c.format, c.is, v, p.Reason(), c.want)
			}
		}
	}
	p := newParser(t, "/var/log/nginx/access.log", Options{})
	if parse(p, `192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET / HTTP/1.1" 2x0 1 "-" "-"`); p.Reason() != "nginx-combined:status" {
		t.Errorf("in nginx's file: %q", p.Reason())
	}
}
