package agent

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// commandOutput runs a command line and returns what it prints.
func commandOutput(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newRootCommand(builtins(t))
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestFormatsAreListedWithAnExampleAndTheirFields(t *testing.T) {
	t.Parallel()
	text, err := commandOutput(t, "formats")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := commandOutput(t, "formats", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list []formatInfo
	if err := json.Unmarshal([]byte(doc), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Errorf("%d formats", len(list))
	}
	for _, f := range list {
		if f.Writer == "" || f.Example == "" || !slices.Contains(f.Fields, "api_response_code_int") {
			t.Errorf("%+v", f)
		}
		if !strings.Contains(text, f.Name+": "+f.Writer+"\n  "+f.Example+"\n  fills ") {
			t.Errorf("%s is not in the text", f.Name)
		}
	}
	last := text[strings.LastIndex(text, "\n\n")+2:]
	for _, field := range []string{"route", "action", "api_version", "resource_type", "resource_id", "resource_ids"} {
		if !strings.HasPrefix(last, "Where the line does not, the path") || !strings.Contains(last, field) || !slices.Contains(list[0].FromPath, field) {
			t.Errorf("%s is not told: %s", field, last)
		}
	}
	if _, err := commandOutput(t, "formats", "nova-evenlet"); err == nil || !strings.Contains(err.Error(), `did you mean "nova-eventlet"?`) {
		t.Errorf("an unknown format: %v", err)
	}
	if one, err := commandOutput(t, "formats", "-o", "json", "swift-proxy"); err != nil || strings.Count(one, `"name"`) != 1 {
		t.Errorf("%v: %s", err, one)
	}
	for _, args := range [][]string{{"formats", "swift"}, {"formats", "-o", "yaml"}} {
		if _, err := commandOutput(t, args...); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

func TestParseExplainsALine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{
			[]string{"parse", "--explain", `2026-03-02T10:15:30.881Z [keystone] 192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3 HTTP/1.1" OK 2480 "-" "-"`},
			[]string{
				"envelope  pebble\nunparsed  apache-combined:status\n\napache-combined, apache-kolla, haproxy-clf, nginx-combined: 61 of 77 bytes fit; then its status was expected\n",
				`"GET /v3 HTTP/1.1" OK 2480 "-" "-"` + "\n" + strings.Repeat(" ", 63) + "^\n",
				"It parts earlier from nova-eventlet,",
			},
		},
		{
			[]string{"parse", "--explain", `192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3 HTTP/1.1" 200 2480 "-" "-"`},
			[]string{"record    apache-combined\n"},
		},
		{
			[]string{"parse", "--explain", `2026-03-02 10:15:30.123 1 INFO cinder.volume [-] created`, "cinder-api.log"},
			[]string{"no access line, but one that is known: oslo\n"},
		},
		{[]string{"parse", "--explain", "\x1b]0;x\a"}, []string{"unparsed  no-format\n\nIt follows none of nova-eventlet,"}},
	} {
		out, err := commandOutput(t, c.args...)
		if err != nil {
			t.Errorf("%v: %v", c.args, err)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%v:\n%s\nis missing\n%s", c.args, out, w)
			}
		}
		if strings.ContainsRune(out, '\x1b') {
			t.Errorf("%v: %q would upset a terminal", c.args, out)
		}
	}
	if _, err := commandOutput(t, "parse", "--format", "uwgsi", "--explain", "x"); err == nil || !strings.Contains(err.Error(), "did you mean uwsgi?") {
		t.Errorf("an unknown format: %v", err)
	}
	if _, err := commandOutput(t, "parse", "--explain", "x", "a", "b"); err == nil {
		t.Error("two files were taken")
	}
}
