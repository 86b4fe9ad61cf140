package formats

import (
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Description says what a format is, for people.
type Description struct {
	Name    string
	Writer  string   // who writes such lines
	Example string   // one of them
	Fields  []string // names of the fields that its lines can fill, in the order of the schema; attributes.NAME for an attribute
}

// example is a line of a format with as much in it as such lines can have.
type example struct {
	format format
	writer string
	file   string
	before string // a line that must come first
	line   string
}

const (
	exampleContext = "[req-aaaa1c3b-4a59-4e68-9c77-8b86a5945a04 req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default]"
	exampleProxy   = `192.0.2.9:35430 [02/Mar/2026:10:15:30.655] nova_api_front~ nova_api_back/ctl1 0/0/0/116/116 200 319 - - ---- 2/1/0/0/0 0/0 {curl/8} {9} "GET /v2.1/servers?limit=2 HTTP/1.1"`
)

// examples has one line of each format, in the order of Names.
func examples() []example {
	const ctx = exampleContext
	return []example{
		{novaEventlet, "nova and masakari under eventlet", "nova-api.log", "", `2026-03-02 10:15:30.123 4211 INFO nova.osapi_compute.wsgi.server ` + ctx + ` 203.0.113.9,192.0.2.2 "GET /v2.1/servers/detail?limit=2 HTTP/1.1" status: 200 len: 2154 time: 0.3120457`},
		{osloEventlet, "cinder, manila, neutron, designate and others under eventlet", "neutron-server.log", "", `2026-03-02 10:15:30.123 31 INFO neutron.wsgi ` + ctx + ` 203.0.113.9,192.0.2.2 "GET /v2.0/ports?limit=2 HTTP/1.1" status: 200  len: 547 time: 1.3071126`},
		{novaRequestlog, "nova under uWSGI or mod_wsgi", "nova-api.log", "", `2026-03-02 10:15:30.123 30 INFO nova.api.openstack.requestlog ` + ctx + ` 203.0.113.9, 192.0.2.2 "GET /compute/v2.1/servers?limit=2" status: 200 len: 15 microversion: 2.96 time: 0.403988`},
		{placementRequestlog, "placement", "placement-api.log", "", `2026-03-02 10:15:30.123 335 INFO placement.requestlog ` + ctx + ` 203.0.113.9, 192.0.2.2 "GET /placement/traits?name=x" status: 200 len: 926 microversion: 1.14`},
		{uwsgiDefault, "uWSGI, without a log-format", "cinder-api-uwsgi.log", "", `[pid: 21082|app: 0|req: 12/31] 203.0.113.9, 192.0.2.2 (demo) {58 vars in 1211 bytes} [Mon Mar  2 10:15:30 2026] GET /v3/volumes/detail?limit=2 => generated 5102 bytes in 31 msecs (HTTP/1.1 200) 6 headers in 377 bytes (1 switches on core 0)`},
		{apacheCombined, "Apache: common, combined, and with %D(us) or %Dμs behind", "keystone_access.log", "", `203.0.113.9, 192.0.2.2 - alice [02/Mar/2026:10:15:30 +0100] "GET /v3/projects?limit=2 HTTP/1.1" 200 3391 "https://horizon.example.org/" "openstacksdk/3.0.0" 48211(us)`},
		{apacheKolla, "Apache as kolla-ansible and Sunbeam run it", "keystone_access.log", "", `203.0.113.9, 192.0.2.2 - alice [02/Mar/2026:10:15:30 +0000] "GET /v3/projects?limit=2 HTTP/1.1" 200 4870 612844 "https://horizon.example.org/" "python-keystoneclient"`},
		{apacheReqID, "Apache with microseconds and the request id of the response", "keystone_access.log", "", `203.0.113.9 - alice [2026-03-02T10:15:30.661903+0000] "GET /v3/projects?limit=2 HTTP/1.1" 200 129 9416571 "openstacksdk/3.0.0" req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01`},
		{haproxyHTTP, "HAProxy: option httplog", "haproxy.log", "", `2026-03-02T10:15:30.775917+00:00 ctl1 haproxy[5992]: ` + exampleProxy},
		{haproxyCLF, "HAProxy: option httplog clf", "haproxy.log", "", `2026-03-02T10:15:30.775917+00:00 ctl1 haproxy[5992]: 203.0.113.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/volumes?limit=2 HTTP/1.1" 200 255 "" "" 46562 132 "cinder_api~" "cinder_be" "ctl1-uwsgi" 0 0 0 139 142 ---- 2 1 0 0 0 0 0 "" "" `},
		{eventletCLF, "glance, heat, trove and tacker under eventlet, and old neutron and keystone", "glance-api.log", "", `2026-03-02 10:15:30.123 22 INFO eventlet.wsgi.server ` + ctx + ` 203.0.113.9,192.0.2.2 - - [02/Mar/2026 10:15:30] "GET /v2/images?limit=20 HTTP/1.1" 200 2217 0.151027`},
		{wsgiref, "services run by hand: werkzeug, wsgiref, http.server", "octavia-api.log", "", `203.0.113.9 - - [02/Mar/2026 10:15:30] "GET /v2.0/lbaas/loadbalancers?limit=2 HTTP/1.1" 200 1042`},
		{ironicRequestlog, "ironic since 2025.2", "ironic-api.log", "", `2026-03-02 10:15:30.123 8 INFO ironic.api ` + ctx + ` 203.0.113.9 - GET /v1/nodes?fields=uuid,name - 200 (34.56ms)`},
		{
			startDonePair, "cinder, manila, tacker, extensions of neutron: two lines for each request, joined", "cinder-api.log",
			`2026-03-02 10:15:30.490 30 INFO cinder.api.openstack.wsgi ` + ctx + ` GET http://volume.example.org:8776/v3/volumes?limit=2`,
			`2026-03-02 10:15:30.767 30 INFO cinder.api.openstack.wsgi ` + ctx + ` http://volume.example.org:8776/v3/volumes?limit=2 returned with HTTP 200`,
		},
		{apacheVhost, "Apache: vhost_combined", "other_vhosts_access.log", "", `identity.example.org:5000 203.0.113.9 - alice [02/Mar/2026:10:15:30 +0100] "GET /v3/projects?limit=2 HTTP/1.1" 200 3391 "https://horizon.example.org/" "openstacksdk/3.0.0"`},
		{apacheOSALog, "Apache as OpenStack-Ansible runs it: the time is the journal's", "syslog", "", `2026-03-02T10:15:30.5+00:00 ctl1 apache2:keystone-wsgi-public[812]: 192.0.2.11 - alice "203.0.113.9" "GET /v3/projects?limit=2 HTTP/1.1" 200 3478 "https://horizon.example.org/" "openstacksdk/3.0.0"`},
		{nginxCombined, "nginx: combined, with its durations or not", "nginx-access.log", "", `203.0.113.9 - alice [02/Mar/2026:10:15:30 +0000] "GET /v3/projects?limit=2 HTTP/1.1" 200 3391 "https://horizon.example.org/" "curl/8" 0.123 0.121`},
		{nginxSkylineLog, "nginx in front of skyline, as kolla-ansible runs it", "skyline-nginx.log", "", `192.0.2.2 - alice [02/Mar/2026:10:15:30 +0000] "0.123" "0.121" "GET /api/openstack/skyline/api/v1/profile?x=1 HTTP/1.1" 200 1234 "https://skyline.example.org/" "Mozilla/5.0" "203.0.113.9, 198.51.100.2"`},
		{haproxyHTTPS, "HAProxy: option httpslog", "haproxy.log", "", `2026-03-02T10:15:30.775917+00:00 ctl1 haproxy[5992]: ` + exampleProxy + ` 0/0/0/0/0 compute.example.org/TLSv1.3/TLS_AES_256_GCM_SHA384`},
		{swiftProxyLog, "swift's proxy, all releases", "swift-proxy.log", "", `Mar  2 10:15:30 ctl1 proxy-server: 203.0.113.9 192.0.2.2 02/Mar/2026/10/15/30 PUT /v1/AUTH_9f8e7d6c5b4a39281706f5e4d3c2b1a0/c/o%3Fx%3D1 HTTP/1.0 201 https://www.example.org/ openstacksdk/3.0.0 gAAAAABpXyZk... 4096 17 9b2cf535f27731c974343645a3985328 tx9a8b7c6d5e4f30213243a-0069a56c02 - 0.0073 SLO x-copy-from:/c/o 1772446530.664187011 1772446530.671491099 0 1b2c3d4e5f60718293a4b5c6d7e8f901`},
		{swiftStorageLog, "swift's account, container and object servers", "swift-storage.log", "", `Mar  2 10:15:30 obj1 object-server: 192.0.2.2 - - [02/Mar/2026:10:15:30 +0000] "GET /sdb1/1023/AUTH_9f8e7d6c5b4a39281706f5e4d3c2b1a0/c/o" 200 1024 "GET http://storage.example.org/v1/AUTH_9f8e7d6c5b4a39281706f5e4d3c2b1a0/c/o" "tx9a8b7c6d5e4f30213243a-0069a56c02" "proxy-server 4711" 0.0012 "x" 456 0`},
		{rgwBeast, "Ceph's object gateway", "ceph-rgw.log", "", `2026-03-02T10:15:30.404+0000 7fc4a0b1c700  1 beast: 0x7fc4a0b1c710: 203.0.113.9 - operator [02/Mar/2026:10:15:30.404 +0000] "GET /swift/v1/photos?format=json HTTP/1.1" 200 1024 bytes=0-1023 "https://www.example.org/" "openstacksdk/3.0.0" - latency=0.010000000s`},
		{cadf, "keystonemiddleware's audit filter and keystone's notifications (records: audit)", "cinder-api.log", "", `2026-03-02 10:15:31.184 80 INFO oslo.messaging.notification.audit.http.response ` + ctx + ` {"message_id": "c78f7d0e-aa1f-4e79-8382-2dedd4ce09a8", "publisher_id": "uwsgi", "event_type": "audit.http.response", "priority": "INFO", "payload": {"typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event", "eventType": "activity", "id": "23a45b35-dbc2-583a-956f-4bf74e196b58", "eventTime": "2026-03-02T10:15:30.702118+0000", "action": "read/list", "outcome": "success", "initiator": {"id": "1b2c3d4e5f60718293a4b5c6d7e8f901", "typeURI": "service/security/account/user", "name": "demo", "credential": {"token": "***", "identity_status": "Confirmed"}, "host": {"address": "203.0.113.9", "agent": "openstacksdk/3.0.0"}, "project_id": "9f8e7d6c5b4a39281706f5e4d3c2b1a0", "request_id": "req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01"}, "target": {"id": "cinder", "typeURI": "service/storage/block/volumes", "name": "cinderv3"}, "requestPath": "/v3/volumes?limit=2", "reason": {"reasonType": "HTTP", "reasonCode": "200"}, "reporterchain": [{"role": "modifier", "reporterTime": "2026-03-02T10:15:31.190655+0000"}]}, "timestamp": "2026-03-02 10:15:31.191020"}`},
	}
}

// Describe describes the formats in the order of Names. What a format fills is found out by reading its example.
func Describe() ([]Description, error) {
	list := make([]Description, 0, formatCount)
	for _, x := range examples() {
		p, err := New(Options{Formats: []string{formatNames[x.format]}, Records: AccessAndAudit})
		if err != nil {
			return nil, err
		}
		p.File(x.file, time.Date(2026, 3, 2, 11, 0, 0, 0, time.UTC))
		b := event.NewBatch("example")
		if x.before != "" {
			p.Parse([]byte(x.before), b.Append(), b.Arena())
		}
		e := b.Append()
		p.Parse([]byte(x.line), e, b.Arena())
		d := Description{Name: formatNames[x.format], Writer: x.writer, Example: x.line}
		for _, f := range schema.Fields() {
			switch v := f.Get(e); {
			case v.Kind() == event.Absent || f.Name == "schema_version" || f.Name == "event_id":
			case f.Name == "attributes":
				m := walk(v.Str())
				for k, _, ok := m.next(); ok; k, _, ok = m.next() {
					d.Fields = append(d.Fields, "attributes."+k)
				}
			default:
				d.Fields = append(d.Fields, f.Name)
			}
		}
		list = append(list, d)
	}
	return list, nil
}
