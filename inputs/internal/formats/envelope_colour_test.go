package formats

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// TestColoursBehindAKnownHeadAreTakenOffAsElsewhere reads devstack's lines, whole and damaged, behind a head that the parser remembers,
// where it goes on without colours, and behind one that it does not, where it reads the line from its begin again.
func TestColoursBehindAKnownHeadAreTakenOffAsElsewhere(t *testing.T) {
	t.Parallel()
	const (
		head    = "Mar 02 10:15:30 ctl1 devstack@n-api.service[21067]: "
		request = "[None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 \x1b[00;36mdemo admin\x1b[00;36m] \x1b[01;35m"
		usual   = "\x1b[00;36mINFO nova.api.openstack.requestlog [\x1b[01;36mNone req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 \x1b[00;36mdemo admin\x1b[00;36m] \x1b[01;35m\x1b[00;36m" +
			"203.0.113.9 \"GET /compute/v2.1/servers\" status: 200 len: 15 microversion: 2.1 time: 0.120301\x1b[00m"
	)
	messages := []string{
		strings.Replace(usual, "INFO", "WARNING", 1),
		strings.Replace(usual, "demo admin", "1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0", 1),
		strings.Replace(usual, "demo admin", "- -", 1),
		strings.Replace(usual, "demo admin", "demo admin x", 1),
		strings.Replace(usual, "demo admin", "de\"mo admin", 1),
		strings.Replace(usual, "demo admin", " admin", 1),
		strings.Replace(usual, "None", "req-1", 1),
		strings.Replace(usual, "GET", "\x1b[00;33mGET", 1),
		strings.Replace(usual, "len", "size", 1),
		strings.Replace(usual, "nova.api.openstack.requestlog", "requestlog", 1),
		strings.ReplaceAll(usual, "[00;", "[0;"),
		strings.ReplaceAll(usual, "\x1b[00;36m", "\x1b[00;3:m"),
		strings.ReplaceAll(usual, "\x1b", `\x1b`),
		"\x1b[00;36m\x1b[00;36m" + usual,
		"\x1b[00;36m\x1b\x1b[0m[00;36mINFO x",
		"\x1b[01;31mERROR nova.x " + request + "[instance: 6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9] \x1b[01;31mNo host",
		"\x1b[00;32mDEBUG nova.x [\x1b[01;36m-\x1b[00;32m] \x1b[01;35m\x1b[00;32mBegin \x1b[00;33m{{(pid=21067) x}}\x1b[00m",
		"\x1b[00;36mINFO cinder.api.openstack.wsgi " + request + "GET http://192.0.2.2:8776/v3/volumes",
		"\x1b[00;36m192.0.2.9 - - [02/Mar/2026:10:15:30 +0100] \"GET / HTTP/1.1\" 200 - \"-\" \"x\"",
		"\x1b[00;36m192.0.2.9 - - [02/Mar/2026:10:15:30 +0100] \"GET / HTTP/1.1\" 2x0 - \"-\" \"x\"",
		"\x1b[00;36m{\"log\":\"\x1b[00;36mx\"}",
		"\x1b[0m",
	}
	for i := range usual {
		messages = append(messages, usual[:i], usual[:i]+"\x1b[0m"+usual[i:], usual[:i]+" "+usual[i+1:])
	}
	for _, o := range []Options{{Records: All}, {Formats: []string{"uwsgi"}}} {
		for _, m := range messages {
			got, want := colourless(t, o, head, head+m), colourless(t, o, strings.Replace(head, "ctl1", "ctl2", 1), head+m)
			if got != want {
				t.Errorf("%q:\n got %s\nwant %s", m, got, want)
			}
		}
	}
}

// colourless is what becomes of a line behind another one with that head.
func colourless(t *testing.T, o Options, head, line string) string {
	t.Helper()
	p := newParser(t, "syslog", o)
	parse(p, head+"\x1b[00;36mINFO nova.x [\x1b[01;36m-\x1b[00;36m] \x1b[01;35m\x1b[00;36mBegin")
	b := event.NewBatch("x")
	e := b.Append()
	v := p.Parse([]byte(line), e, b.Arena())
	text := ""
	if v != Access {
		text = p.Text()
	}
	return fmt.Sprintf("%d %q %d %v %q %+v %s", v, p.Reason(), p.Part(), p.Torn(), text, p.memory,
		schema.NewEncoder(schema.EncodeOptions{}).Encode(nil, e, &schema.Scratch{}))
}
