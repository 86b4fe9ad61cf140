package schema

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func named(t *testing.T, e *event.Event, n Naming) map[string]any {
	t.Helper()
	text := NewEncoder(EncodeOptions{Naming: n}).Append(nil, e)
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if n := strings.Count(string(text), `"@timestamp"`); n > 1 {
		t.Errorf("a name stands %d times in %s", n, text)
	}
	return m
}

func TestNamingsWriteWhatOthersExpect(t *testing.T) {
	t.Parallel()
	e := sampleEvent()
	e.UserName, e.User = "x", "x"
	e.Route, e.Action, e.ResourceType = "/servers", "read/list", "server"
	e.SetLevel(3)
	e.SetStatus(404)
	e.Outcome = "failure"
	e.Set("attributes", event.ObjectValue(`{"a":1}`))
	e.Set("team", event.StringValue("blue"))
	for n, want := range map[Naming]map[string]any{
		ECS: {
			"@timestamp": "2026-11-21T03:29:36.543Z", "event.module": "openstack", "event.dataset": "openstack.compute_api", "labels.record_class": "api_access",
			"http.version": "1.1", "event.duration": 72535000.0, "source.ip": "192.0.2.7", "log.syslog.severity.code": 3.0, "log.level": "error",
			"user.id": "0c32fec09490474ba83958da17e4a8a6", "labels.user": nil, "labels.route": "/servers", "event.action": "read/list", "event.kind": "event",
			"labels.team": "blue", "ecs.version": "9.0.0", "event.outcome": "failure", "http.response.status_code": 404.0, "labels.schema_version": "1",
		},
		OTel: {
			"timestamp": "2026-11-21T03:29:36.543Z", "cloud.provider": "openstack", "event.name": "openstack.compute_api", "network.protocol.name": "http",
			"network.protocol.version": "1.1", "http.server.request.duration": 0.072535, "client.address": "192.0.2.7", "severity_number": 17.0,
			"http.route": "/servers", "x.team": "blue", "error.type": "404", "http.request.method": "GET", "x.user": nil, "x.schema_version": "1",
		},
		OVH: {"timestamp": "2026-11-21T03:29:36.543Z", "kind": "compute-api", "http_version": "HTTP/1.1", "team": "blue", "user": "x", "level": 3.0},
	} {
		m := named(t, e, n)
		for k, v := range want {
			if got, ok := m[k]; got != v || ok != (v != nil) {
				t.Errorf("%s: %s is %v, want %v", n, k, got, v)
			}
		}
	}
}

func TestNamingsPutOddValuesWhereTheyDoNoHarm(t *testing.T) {
	t.Parallel()
	e := sampleEvent()
	e.Client, e.Method, e.HTTPVersion = "***", "PURGE", "SPDY"
	e.SetLevel(17)
	e.SetDuration(-time.Second)
	if m := named(t, e, ECS); m["source.ip"] != nil || m["source.address"] != "***" || m["http.request.method"] != "PURGE" || m["log.level"] != nil || m["event.duration"] != -1e9 {
		t.Errorf("%v", m)
	}
	if m := named(t, e, OTel); m["client.address"] != "***" || m["http.request.method"] != "_OTHER" || m["http.request.method_original"] != "PURGE" || m["severity_number"] != 17.0 || m["network.protocol.version"] != "SPDY" {
		t.Errorf("%v", m)
	}
	if m := named(t, event.NewBatch("s").Append(), ECS); len(m) != 3 {
		t.Errorf("an empty event: %v", m)
	}
}

func TestNamesDoNotMeet(t *testing.T) {
	t.Parallel()
	for _, n := range Namings() {
		names := map[string]string{}
		for i := range table {
			names[n.NameOf(&table[i])] = table[i].Name
		}
		for name := range names {
			// A name that is also the beginning of another would be a text and an object at once.
			for i := strings.IndexByte(name, '.'); i >= 0 && i < len(name); {
				if other, taken := names[name[:i]]; taken {
					t.Errorf("%s: %s lies within %s", n, name, other)
				}
				next := strings.IndexByte(name[i+1:], '.')
				if next < 0 {
					break
				}
				i += 1 + next
			}
		}
	}
	if _, err := NamingByName("esc"); err == nil {
		t.Error("an unknown naming was taken")
	}
	if n, err := NamingByName(""); n != OVH || err != nil {
		t.Error(n, err)
	}
}
