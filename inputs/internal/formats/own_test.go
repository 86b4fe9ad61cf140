package formats

import (
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// wants are fields of a record by name, as text.
type wants map[string]string

func (w wants) check(t *testing.T, name string, e *event.Event) {
	t.Helper()
	for f, want := range w {
		if got := schema.Get(e, f).Text(); got != want {
			t.Errorf("%s: %s is %q, want %q", name, f, got, want)
		}
	}
}

func TestTemplateReadsWhatItsWriterMeant(t *testing.T) {
	for name, c := range map[string]struct {
		template, line string
		want           wants
	}{
		"combined": {
			`%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\"`,
			`192.0.2.9 - alice [02/Mar/2026:10:15:30 +0100] "GET /v3/projects?x=\"y\" HTTP/1.1" 200 3391 "-" "a \"b\""`,
			wants{"timestamp": "2026-03-02T09:15:30Z", "method": "GET", "path": "/v3/projects", "query": `x="y"`, "http_version": "HTTP/1.1", "api_response_code_int": "200", "api_response_size_int": "3391", "api_response_size_includes_headers_bool": "false", "user": "alice", "user_name": "alice", "user_agent": `a "b"`, "referer": "", "client": "192.0.2.9", "service": "keystone", "format": "template"},
		},
		"forwarded list and microseconds": {
			`%{X-Forwarded-For}i %l %u %t "%r" %>s %O %D "%{User-Agent}i" %{x-openstack-request-id}o %p`,
			`203.0.113.9, 192.0.2.2 - - [02/Mar/2026:10:15:30 +0000] "GET /v2.1/servers HTTP/1.1" 200 4870 612844 "curl/8" req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 8774`,
			wants{"client": "203.0.113.9", "forwarded_for": "203.0.113.9, 192.0.2.2", "api_response_time_num": "0.612844", "api_response_size_includes_headers_bool": "true", "request_id": "req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01", "attributes": `{"template_port":"8774"}`},
		},
		"a time in pieces": {
			`%h [%{%Y-%m-%dT%H:%M:%S}t.%{usec_frac}t%{%z}t] "%r" %>s`,
			`192.0.2.9 [2026-03-02T10:15:30.661903+0100] "GET / HTTP/1.1" 200`,
			wants{"timestamp": "2026-03-02T09:15:30.661903Z"},
		},
		"a local time": {
			`%{%F %T}t %a "%m %U%q" %s`,
			`2026-03-02 10:15:30 192.0.2.9 "GET /v3?x=1" 200`,
			wants{"timestamp": "2026-03-02T09:15:30Z"},
		},
		"milliseconds and seconds since 1970": {
			`%{msec}t %h %m %U %H %>s %{ms}T %v`,
			`1772446530123 192.0.2.9 GET /v3 HTTP/1.1 204 15 identity.example.org`,
			wants{"timestamp": "2026-03-02T10:15:30.123Z", "api_response_time_num": "0.015", "host": "identity.example.org", "method": "GET", "path": "/v3", "http_version": "HTTP/1.1"},
		},
		"uWSGI": {
			`%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(size) %(micros) "%(uagent)" %(pid) %(var.HTTP_X_REGION)`,
			`192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/volumes?limit=2 HTTP/1.1" 200 5102 31042 "curl/8" 77 west`,
			wants{"path": "/v3/volumes", "query": "limit=2", "api_response_time_num": "0.031042", "api_response_size_includes_headers_bool": "true", "process_id_int": "77", "attributes": `{"template_http_x_region":"west"}`, "user": ""},
		},
		"ctime": {
			`%(ctime) %(addr) %(method) %(uri) => %(status) in %(msecs) ms`,
			`Mon Mar  2 11:15:30 2026 192.0.2.9 GET /v3 => 200 in 31 ms`,
			wants{"timestamp": "2026-03-02T10:15:30Z", "api_response_time_num": "0.031"},
		},
	} {
		if strings.Contains(name, "local") {
			c.template = `%{%F %T}t %a "%m %U" %s`
		}
		p, err := New(Options{Template: c.template, Location: paris(t)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		e, v := parse(p, c.line)
		if v != Access || e.Format != "template" {
			t.Errorf("%s: verdict %d, format %q, %s", name, v, e.Format, p.Reason())
			continue
		}
		c.want.check(t, name, e)
	}
}

func paris(t *testing.T) *time.Location {
	t.Helper()
	l, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWrongTemplatesNameTheColumnAndWhatWasMeant(t *testing.T) {
	for template, want := range map[string]string{
		`%h %d "%r" %>s`:         "column 4: unknown directive %d; did you mean %D?",
		`%h "%r" %>s %Referer`:   "", // %R is the handler, and text follows
		`%h "%r" %i`:             "column 9: unknown directive %i; write the name in braces, as in %{User-Agent}i",
		`%h "%r" %{User-Agent i`: "column 10: the brace is not closed",
		`%h "%r" %>s %`:          "column 13: the directive has no letter",
		`%h%u "%r"`:              "column 3: nothing stands between this directive and the one before it",
		`%h %l %u %t`:            "no directive holds the request",
		`nothing at all`:         "it has no directive",
		``:                       "it has no directive",
		`%h "%r" %{%s}t`:         "column 9: no time in the form",
		`%(adr) %(uri)`:          "column 1: unknown variable %(adr); did you mean addr?",
		`%(addr %(uri`:           "column 1: the parenthesis is not closed",
		`%h "%r" %{sec}T`:        "column 9: unknown directive %{sec}T",
	} {
		err := CheckTemplate(template)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", template, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", template, err, want)
		}
	}
}

func TestTemplateLeavesOtherLinesToTheirFormats(t *testing.T) {
	p := newParser(t, "mixed.log", Options{Template: `%h|%r|%>s`})
	for _, u := range usual {
		if e, v := parse(p, u.line); v != Access || e.Format != u.format {
			t.Errorf("line of %s: verdict %d, format %q", u.format, v, e.Format)
		}
	}
	e, v := parse(p, `Mar  2 10:15:30 ctl1 web[7]: 192.0.2.9|GET /v3 HTTP/1.1|200`)
	if v != Access || e.Format != "template" || e.Path != "/v3" || e.Time.Format(time.RFC3339) != "2026-03-02T10:15:30Z" || e.ProcessID != 7 {
		t.Errorf("in syslog: verdict %d, %+v", v, e)
	}
	p = newParser(t, "mixed.log", Options{Template: `%h|%r|%>s`})
	if e, v = parse(p, `192.0.2.9|GET /v3 HTTP/1.1|OK`); v != Unparsed || p.Reason() != "template:status" || e.Path != "" {
		t.Errorf("a bad status: verdict %d, reason %q, path %q", v, p.Reason(), e.Path)
	}
	for line, want := range map[string]string{
		`Mar  2 10:15:30 ctl1 sshd[99]: Accepted publickey for root from 192.0.2.9`: ReasonSyslog,
		`*** Starting uWSGI 2.0.21 ***`:                                             ReasonUWSGI,
		`2026-03-02 10:15:30.123 4211 INFO cinder.volume [-] created`:               ReasonOslo,
		`{"level":"info"}`: ReasonJSON,
	} {
		p := newParser(t, "x.log", Options{Template: `%h|%r|%>s`, Regex: `^(?P<client>\S+) = (?P<request>.*)$`, JSON: map[string]string{"path": "p"}})
		if _, v = parse(p, line); v != Service || p.Reason() != want {
			t.Errorf("%s: verdict %d, %s, want %s", line, v, p.Reason(), want)
		}
	}
	only := newParser(t, "mixed.log", Options{Template: `%h|%r|%>s`, Formats: []string{"template"}})
	if _, v = parse(only, usual[0].line); v != Service || only.Reason() != ReasonNotEnabled {
		t.Errorf("template alone: verdict %d, %s", v, only.Reason())
	}
}

func TestRegexFillsTheFieldsItsGroupsName(t *testing.T) {
	p := newParser(t, "x.log", Options{Regex: `^(?P<timestamp>\S+) (?P<client>\S+) (?P<request>.+) -> (?P<api_response_code_int>\d{3}) in (?P<api_response_time_ms>[\d.]+) ms by (?P<user>\S+) \((?P<region>\w+)\)(?: (\w+))?$`})
	e, v := parse(p, `2026-03-02T10:15:30.123Z 192.0.2.9 GET /v2.1/servers?x=1 HTTP/1.1 -> 200 in 1.5 ms by 1b2c3d4e5f60718293a4b5c6d7e8f901 (west)`)
	if v != Access || e.Format != "regex" {
		t.Fatalf("verdict %d, %s", v, p.Reason())
	}
	wants{
		"timestamp": "2026-03-02T10:15:30.123Z", "client": "192.0.2.9", "method": "GET", "path": "/v2.1/servers", "query": "x=1", "api_response_code_int": "200",
		"api_response_time_num": "0.0015", "user_id": "1b2c3d4e5f60718293a4b5c6d7e8f901", "region": "west", "outcome": "success",
	}.check(t, "regex", e)
	for regex, want := range map[string]string{
		`(?P<status>\d+) (?P<request>.*)`:  "column 1: group \"status\" is no field of the schema; did you mean api_response_code_int?",
		`(?P<stauts>\d+) (?P<request>.*)`:  "column 1: group \"stauts\" is no field of the schema; did you mean api_response_code_int?",
		`(?P<mehtod>\d+) (?P<request>.*)`:  "; did you mean method?",
		`(?P<clinet>\S+) (?P<request>.*)`:  "did you mean client?",
		`(\S+) (.*)`:                       "it has no named group",
		`(?P<client>\S+)`:                  "no group holds the request",
		`(?P<path>\S+) (?P<path>\S+)`:      "is there twice",
		`(?P<path>[`:                       "missing closing ]",
		`(?P<path>\S+) (?P<format>\S+)`:    "is no field of the schema",
		`(?P<method>\S+) (?P<log_file>\S)`: "is no field of the schema",
	} {
		if err := CheckRegex(regex); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", regex, err, want)
		}
	}
}

func TestJSONMapReadsNestedMembers(t *testing.T) {
	p := newParser(t, "x.log", Options{JSON: map[string]string{
		"timestamp": "ts", "method": "http.verb", "target": "http.url", "api_response_code_int": "http.code", "api_response_time_ms": "ms", "client": "client.ip", "user_agent": "ua",
	}})
	e, v := parse(p, `{"ts":"2026-03-02T10:15:30.123Z","http":{"verb":"GET","url":"/v3/volumes?limit=2","code":200},"ms":31.5,"client.ip":"192.0.2.9","ua":"a\"b\u00e9"}`)
	if v != Access || e.Format != "json" {
		t.Fatalf("verdict %d, %s", v, p.Reason())
	}
	wants{
		"timestamp": "2026-03-02T10:15:30.123Z", "method": "GET", "path": "/v3/volumes", "query": "limit=2", "api_response_code_int": "200",
		"api_response_time_num": "0.0315", "client": "192.0.2.9", "user_agent": `a"bé`, "service": "cinder",
	}.check(t, "json", e)
	if e, v = parse(p, `{"level":"info","msg":"started"}`); v != Service || p.Reason() != ReasonJSON || e.RecordClass != "" {
		t.Errorf("another object: verdict %d, %s", v, p.Reason())
	}
	for name, m := range map[string]map[string]string{
		`"status" is no field of the schema; did you mean api_response_code_int?`: {"status": "x", "path": "y"},
		`did you mean method?`:                  {"methdo": "x", "path": "y"},
		`no entry is the request`:               {"client": "x"},
		`"a..b" is no path to a member`:         {"path": "a..b"},
		`user_agent: "" is no path to a member`: {"path": "a", "user_agent": ""},
	} {
		if err := CheckJSON(m); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %v, want %s", m, err, name)
		}
	}
}

func TestOwnFormatsMustBeSetToBeChosen(t *testing.T) {
	for _, n := range []string{"template", "regex", "json"} {
		if _, err := New(Options{Formats: []string{"uwsgi", n}}); err == nil || !strings.Contains(err.Error(), "the key "+n+" is not set") {
			t.Errorf("%s: %v", n, err)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add(`%h %l %u %t "%r" %>s %b`, usual[5].line)
	f.Add(`%(addr) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(rsize)`, `192.0.2.9 [02/Mar/2026:10:15:30 +0000] "GET / HTTP/1.1" 200 1`)
	f.Add(`[%{%Y-%m-%dT%H:%M:%S}t.%{usec_frac}t%{%z}t] "%r"`, `[2026-03-02T10:15:30.661903+0100] "GET / HTTP/1.1"`)
	f.Fuzz(func(t *testing.T, template, line string) {
		if template == "" {
			return
		}
		p, err := New(Options{Template: template})
		if err != nil {
			return
		}
		p.File("x.log", mtime)
		for l := range strings.SplitSeq(line, "\n") {
			e, v := parse(p, l)
			checkEvent(t, []byte(l), e, v, p.Reason(), false)
		}
	})
}

// TestWhatPeopleCallAFieldIsSuggestedByItsName: what is suggested is taken.
func TestWhatPeopleCallAFieldIsSuggestedByItsName(t *testing.T) {
	for _, word := range []string{"status", "code", "size", "bytes", "duration", "latency", "verb", "url", "address", "remote_addr", "time", "date", "agent", "protocol"} {
		err := CheckRegex(`(?P<` + word + `>\S+) (?P<request>.*)`)
		if err == nil {
			t.Errorf("%s is taken", word)
			continue
		}
		_, rest, _ := strings.Cut(err.Error(), "did you mean ")
		if name := strings.TrimSuffix(rest, "?"); CheckRegex(`(?P<`+name+`>\S+) (?P<request>.*)`) != nil {
			t.Errorf("%s: %v", word, err)
		}
	}
}
