package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// buildAgent builds the agent as make does.
func buildAgent(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "stacktrail")
	build := exec.Command("go", "build", "-o", bin, "./agent/cmd/stacktrail")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	return bin
}

// yamlBlocks returns what stands between ```yaml and ``` in a document.
func yamlBlocks(doc string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(doc, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// check runs the agent's check on a configuration and returns what it said and its exit code.
func check(t *testing.T, agent, config string) (string, int) {
	t.Helper()
	cmd := exec.Command(agent, "check", "-c", config)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "STACKTRAIL_") })
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestFirstContactWorks(t *testing.T) {
	agent := buildAgent(t)
	t.Run("the demo accounts for every line", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // far above what it takes, so that a hang is told
		defer cancel()
		dir := t.TempDir()
		o := options{agent: agent, config: filepath.Join(root, "configs/quickstart.yaml"), logs: filepath.Join(root, "test/testdata/real-logs"), dir: dir}
		var out bytes.Buffer
		if err := run(ctx, o, &out); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		for _, want := range []string{
			"\n  haproxy/haproxy.log ", "\n  nova-eventlet ", "\n  GET /v3/projects/{id} ", `"format": "nova-eventlet"`, "\nDropped: ", "\nThe events lie in " + dir,
			"\nEvery line is accounted for: ",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the report does not say %q:\n%s", want, out.String())
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "out", "*.ndjson")); len(left) == 0 {
			t.Error("the events were not kept")
		}
	})
	t.Run("the demo fails where a log is not read", func(t *testing.T) {
		logs := t.TempDir()
		for name, text := range map[string]string{"nova/nova-api.log": "one\ntwo\n", "other/other.log": "three\n"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(logs, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(logs, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o := options{agent: agent, config: filepath.Join(root, "configs/quickstart.yaml"), logs: logs, dir: t.TempDir()}
		var out bytes.Buffer
		if err := run(t.Context(), o, &out); err == nil || !strings.Contains(err.Error(), "lines that the agent read: 3 and 2") {
			t.Errorf("err = %v\n%s", err, out.String())
		}
	})
	t.Run("every configuration is good", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(root, "configs/*.yaml"))
		if err != nil || len(files) < 2 {
			t.Fatalf("found %v, %v", files, err)
		}
		for _, f := range files {
			if said, code := check(t, agent, f); code != 0 || strings.Contains(said, "warning") {
				t.Errorf("%s: exit %d: %s", f, code, said)
			}
		}
	})
	t.Run("every configuration in a document is good", func(t *testing.T) {
		found := 0
		for _, doc := range []string{"README.md", "CONTRIBUTING.md"} {
			text, err := os.ReadFile(filepath.Join(root, doc))
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range yamlBlocks(string(text)) {
				found++
				if strings.HasPrefix(block, "plugins:") {
					continue // it names a program of the reader's own
				}
				file := filepath.Join(t.TempDir(), "block.yaml")
				if err := os.WriteFile(file, []byte(block), 0o644); err != nil {
					t.Fatal(err)
				}
				if said, code := check(t, agent, file); code != 0 {
					t.Errorf("%s: exit %d: %s\n%s", doc, code, said, block)
				}
			}
		}
		if found == 0 {
			t.Error("there is no configuration in any document")
		}
	})
	t.Run("every format that the README names is known", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(root, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		_, part, _ := strings.Cut(string(text), "**Formats.**")
		part, _, _ = strings.Cut(part, ". `format: auto`")
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(part, -1)
		if len(names) < 10 {
			t.Fatalf("found %d formats", len(names))
		}
		for _, m := range names {
			if out, err := exec.Command(agent, "parse", "--format", m[1]).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", m[1], err, out)
			}
		}
		if err := exec.Command(agent, "parse", "--format", "no-such").Run(); err == nil {
			t.Error("a format that does not exist was taken")
		}
	})
	t.Run("a wrong configuration is found", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "wrong.yaml")
		if err := os.WriteFile(file, []byte("pipelines: [{name: a, inputs: [{tial: {}}], outputs: [{stdout: {}}]}]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if said, code := check(t, agent, file); code != 78 {
			t.Errorf("exit %d: %s", code, said)
		}
	})
}

func TestBlocksAreFoundInADocument(t *testing.T) {
	got := yamlBlocks("a\n```yaml\nx: 1\n```\n```sh\nls\n```\n```yaml\ny: 2\n```\n")
	if !slices.Equal(got, []string{"x: 1\n", "y: 2\n"}) {
		t.Errorf("got %q", got)
	}
}

const goodSummary = `time=2026-01-01T00:00:00Z level=INFO msg=started
pipeline api
  input     logs         1.2 KiB, 10 lines: 7 events, 1 of them unparsed; 3 service lines skipped
                         format: nova-eventlet 4, uwsgi 2
                         unparsed: no format, really 1
  processor first        dropped (when) 1, eval_errors (when) 5
  processor second       dropped (when) 1
  output    ndjson       7 offered = 5 delivered + 2 filtered + 0 dead + 0 dropped; 2 writes, 0 retries
took 12ms
`

func TestSummaryIsRead(t *testing.T) {
	s, err := parseSummary(goodSummary)
	if err != nil {
		t.Fatal(err)
	}
	if s.lines != 10 || s.events != 7 || s.unparsed != 1 || s.skipped != 3 || s.dropped != 2 ||
		s.offered != 7 || s.delivered != 5 || s.filtered != 2 || s.failed != 0 ||
		s.formats["nova-eventlet"] != 4 || s.formats["uwsgi"] != 2 {
		t.Errorf("read %+v", s)
	}
	for _, bad := range []string{"", strings.Replace(goodSummary, "  output ", "  sink ", 1), strings.Replace(goodSummary, " lines:", " rows:", 1)} {
		if _, err := parseSummary(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestNumbersThatDoNotAddUpAreTold(t *testing.T) {
	balanced := func() result {
		s, err := parseSummary(goodSummary)
		if err != nil {
			t.Fatal(err)
		}
		r := result{said: s, read: map[string]int{"a.log": 6, "a.log.1": 4}}
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			r.events = append(r.events, shipped{EventID: id, LogFile: "a.log"})
		}
		return r
	}
	if err := balanced().check(); err != nil {
		t.Errorf("a good run: %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(*result)
		want  string
	}{
		"a line not read":        {func(r *result) { r.read["a.log"]++ }, "lines that the agent read: 11 and 10"},
		"a line not told of":     {func(r *result) { r.said.skipped-- }, "events and other lines together: 10 and 9"},
		"an event lost":          {func(r *result) { r.events = r.events[1:] }, "shipped and dropped ones together: 7 and 6"},
		"a line doubled":         {func(r *result) { r.events[0].EventID = "2" }, "shipped twice: 1 and 0"},
		"a dropped one not told": {func(r *result) { r.said.dropped-- }, "filtered at the output: 1 and 2"},
		"a dead one":             {func(r *result) { r.said.failed++ }, "dead or given up: 1 and 0"},
		"an event from nowhere":  {func(r *result) { r.events[0].LogFile = "" }, "without an id or a file: 1 and 0"},
	} {
		r := balanced()
		c.spoil(&r)
		if err := r.check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAlikeRequestsShareARoute(t *testing.T) {
	for path, want := range map[string]string{
		"/":                    "/",
		"":                     "/",
		"*":                    "/…",
		"/healthcheck":         "/healthcheck",
		"/v2.1/servers":        "/v2.1/servers",
		"/v2.1/servers/detail": "/v2.1/servers/detail",
		"/v2.1/servers/1b7a5d8e-0000-4000-8000-000000000001/action": "/v2.1/servers/{id}/action",
		"/v2.1/flavors/cli.tiny":                                    "/v2.1/flavors/{id}",
		"/v2.1/flavors/f4/os-extra_specs/hw:cpu":                    "/v2.1/flavors/{id}/os-extra_specs/{id}",
		"/v2.1/os-keypairs/my%20key":                                "/v2.1/os-keypairs/{id}",
		"/v3/0123456789abcdef0123456789abcdef/types":                "/v3/{id}/types",
		"//v3/projects":                                             "/v3/projects",
		"http://example.org:5000/v3/projects/x":                     "/v3/projects/{id}",
		"http://example.org":                                        "/",
		"/v1/AUTH_0123/photos/cat.jpg":                              "/v1/AUTH_{id}/…",
		"/v3/volumes/../../etc/passwd":                              "/v3/volumes/{id}/…",
		"/v2.0/networks.json":                                       "/v2.0/networks.json",
		"/nothing/a b/c":                                            "/nothing/…",
	} {
		if got := route(path); got != want {
			t.Errorf("route(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestPercentilesAreByNearestRank(t *testing.T) {
	var seconds []float64
	for i := range 20 {
		seconds = append(seconds, float64(i+1)/1000)
	}
	for _, c := range []struct {
		of      []float64
		percent int
		want    string
	}{{nil, 50, "-"}, {seconds[:1], 95, "1.0"}, {seconds, 50, "10.0"}, {seconds, 95, "19.0"}, {seconds[:3], 50, "2.0"}} {
		if got := milliseconds(c.of, c.percent); got != c.want {
			t.Errorf("p%d of %d values = %s, want %s", c.percent, len(c.of), got, c.want)
		}
	}
}

func TestRequestsAreCountedByRouteAndClass(t *testing.T) {
	seconds := 0.5
	r := result{events: []shipped{
		{Method: "GET", Path: "/v3/users/a", Status: 200, Seconds: &seconds},
		{Method: "GET", Path: "/v3/users/b", Status: 404},
		{Method: "GET", Path: "/v3/users/c"},
		{Method: "POST", Path: "/v3/users", Status: 503},
		{RecordClass: "unparsed"},
	}}
	got := r.routes()
	if len(got) != 2 || got[0].name != "GET /v3/users/{id}" || got[0].all != 3 || got[0].classes != [6]int{2: 1, 4: 1} || len(got[0].seconds) != 1 ||
		got[1].name != "POST /v3/users" || got[1].classes[5] != 1 {
		t.Errorf("got %+v %+v", got[0], got[len(got)-1])
	}
}

func TestATornResultIsAnError(t *testing.T) {
	for _, text := range []string{"{\"a\":1}\n{\"a\"", "{\"a\":1}\n{}", "[]\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.ndjson"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readEvents(dir); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}
