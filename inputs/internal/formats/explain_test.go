package formats

import (
	"slices"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func TestExplanationNamesEnvelopesAndWhereALineParts(t *testing.T) {
	for _, c := range []struct {
		line, reason string
		peeled       []string
		format       string
		place        string
		rest         string
	}{
		{
			line:   `2026-03-02T10:15:30.123456789Z stdout F 2026-03-02T10:15:30.881Z [cinder-api] [pid: 1|app: 0|req: 1/1] 192.0.2.2 () {58 vars in 1211 bytes} [Mon Mar  2 10:15 2026] GET / => x`,
			reason: "uwsgi:time", peeled: []string{"cri", "pebble"}, format: "uwsgi", place: "time", rest: "Mon Mar  2 10:15 2026] GET / => x",
		},
		{
			line:   `192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3 HTTP/1.1" OK 2480 "-" "-"`,
			reason: "apache-combined:status", format: "apache-combined", place: "status", rest: ` OK 2480 "-" "-"`,
		},
		{
			line:   `2026-03-02 10:15:30.123 4211 INFO nova.osapi_compute.wsgi.server [-] 192.0.2.2 "GET / HTTP/1.0" code: 200`,
			reason: "nova-eventlet:status", format: "nova-eventlet", place: "status", rest: `"GET / HTTP/1.0" code: 200`,
		},
	} {
		p := newParser(t, "x.log", Options{})
		b := event.NewBatch("x")
		x := p.Explain([]byte(c.line), b.Append(), b.Arena())
		if x.Verdict != Unparsed || x.Reason != c.reason || !slices.Equal(x.Peeled, c.peeled) {
			t.Errorf("%s:\n%+v", c.line, x)
		}
		if !slices.ContainsFunc(x.Attempts, func(a Attempt) bool { return a.Format == c.format && a.Place == c.place && a.Text[a.At:] == c.rest }) {
			t.Errorf("%s:\n%+v", c.line, x.Attempts)
		}
	}
	for line, want := range map[string][]string{
		`192.0.2.9 - - [02/Mar/2026:10:15:30 +0100] "GET /v3 HTTP/1.1" 2x0 -`:                                     {"apache-combined", "apache-kolla", "haproxy-clf", "nginx-combined"},
		`192.0.2.9 - - [42/Mar/2026:10:15:30 +0100] "GET /v3 HTTP/1.1" 200 -`:                                     {"apache-combined", "apache-kolla", "haproxy-clf", "nginx-combined", "nginx-skyline", "swift-storage"},
		`192.0.2.9 - - [02/Mar/2026:10:15:30 +0100] "GET /v3 HTTP/1.1" 200 - 12x "-" "-"`:                         {"apache-kolla"},
		`2026-03-02 10:15:30.123 4211 INFO nova.osapi_compute.wsgi.server [-] 192.0.2.2 "GET / HTTP/1.0" code: 2`: {"nova-eventlet", "oslo-eventlet"},
		`192.0.2.9:35430 [02/Mar/2026:10:15:30.655] front back/s 0/0/0/116/116 2x0 319`:                           {"haproxy-http", "haproxy-https"},
	} {
		p := newParser(t, "x.log", Options{})
		b := event.NewBatch("x")
		x := p.Explain([]byte(line), b.Append(), b.Arena())
		var got []string
		for _, a := range x.Attempts {
			got = append(got, a.Format)
			if a.At != x.Attempts[0].At {
				t.Errorf("%s: %+v", line, x.Attempts)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	p := newParser(t, "x.log", Options{})
	b := event.NewBatch("x")
	if x := p.Explain([]byte(usual[0].line), b.Append(), b.Arena()); x.Verdict != Access || x.Format != "nova-eventlet" || len(x.Attempts) != 0 || x.Reason != "" {
		t.Errorf("%+v", x)
	}
}

// TestReasonsAreFewAndHoldNoText: they are labels of metrics.
func TestReasonsAreFewAndHoldNoText(t *testing.T) {
	known := map[string]bool{
		"": true, ReasonNoFormat: true, ReasonNotEnabled: true, ReasonBadTime: true, ReasonOslo: true, ReasonTraceback: true, ReasonContinuation: true, ReasonForgedRest: true,
		ReasonStartDone: true, ReasonCADF: true, ReasonWSGIRef: true, ReasonJSON: true, ReasonApacheError: true, ReasonApacheDummy: true, ReasonUWSGI: true, ReasonHAProxy: true,
		ReasonHAProxyTCP: true, ReasonPebble: true, ReasonSyslog: true, ReasonTail: true, ReasonBlank: true,
	}
	for _, f := range nearReasons {
		for _, r := range f {
			known[r] = true
		}
	}
	if len(known) > 300 {
		t.Errorf("%d reasons", len(known))
	}
	p := newParser(t, "x.log", Options{})
	for _, l := range realLike(t) {
		for cut := range len(l) {
			if parse(p, l[cut:]); !known[p.Reason()] {
				t.Fatalf("%q: reason %q", l[cut:], p.Reason())
			}
		}
	}
}
