package lines

import (
	"slices"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// decoded reads a configuration as users write it.
func decoded(t *testing.T, text string) (Config, conf.Faults) {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return conf.Decode(n, Defaults())
}

func TestFormatIsANameOrAList(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"format: uwsgi":                        {"uwsgi"},
		"format: nova-eventlet, uwsgi":         {"nova-eventlet", "uwsgi"},
		"format: [nova-eventlet, uwsgi]":       {"nova-eventlet", "uwsgi"},
		"format: [auto]":                       {"auto"},
		"format: template\ntemplate: '%h %r'":  {"template"},
		"format: [json]\njson: {path: a.b}":    {"json"},
		"records: audit":                       {"auto"},
		"regex: '(?P<client>\\S+) (?P<uri>.)'": {"auto"},
	} {
		c, faults := decoded(t, text)
		if len(faults) > 0 {
			t.Errorf("%s: %v", text, faults)
		}
		if names, err := c.formats(); err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %v, %v", text, names, err)
		}
	}
}

func TestWrongFormatsNameTheirPlace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"format: [auto, uwsgi]":                   "test.yaml:1:1: format: choosing formats: auto stands for all of them and stands alone",
		"format: [uwsgi, 7]":                      "test.yaml:1:1: format: expected the name of a format as item 2, found 7",
		"format: {a: b}":                          "test.yaml:1:1: format: expected the name of a format or a list of names",
		"format: [nova-eventlet, uwsig]":          "test.yaml:1:25: format[1]: choosing formats: unknown format \"uwsig\" (did you mean uwsgi?",
		"format: regex":                           "the key regex is not set",
		"format: template\ntemplate: '%h %d %r'":  "test.yaml:2:1: template: column 4: unknown directive %d; did you mean %D?",
		"regex: '(?P<clinet>.) (?P<path>.)'":      "test.yaml:1:1: regex: column 1: group \"clinet\" is no field of the schema; did you mean client?",
		"json: {path: a, methdo: b}":              "\"methdo\" is no field of the schema; did you mean method?",
		"json: {path: [a]}":                       "test.yaml:1:14: json.path: expected a text, found a list",
		"records: everything":                     "access, audit, all",
		"timezone: Europe/Atlantis\nformat: nova": "did you mean nova-eventlet, nova-requestlog?",
	} {
		_, faults := decoded(t, text)
		if len(faults) == 0 || !strings.Contains(faults.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, faults, want)
		}
	}
}

func TestOwnFormatsReachTheParser(t *testing.T) {
	t.Parallel()
	c, faults := decoded(t, "template: '%h|%r|%>s'\ntimezone: UTC")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	b := fill(t, c, Options{}, "192.0.2.9|GET /v3 HTTP/1.1|200\n"+access+"\n")
	if len(b.Events) != 2 || b.Events[0].Format != "template" || b.Events[0].Path != "/v3" || b.Events[1].Format == "template" {
		t.Errorf("%+v", b.Events)
	}
}
