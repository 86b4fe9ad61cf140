//go:build blackbox

package scripts

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// get asks the agent over HTTP.
func (a *agent) get(path string) (code int, body string) {
	a.t.Helper()
	a.says("msg=started")
	m := regexp.MustCompile(`msg=started .*listen=(\S+)`).FindStringSubmatch(a.text())
	if m == nil {
		a.t.Fatal("the log does not say where the agent listens")
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+m[1]+path, http.NoBody)
	ok(a.t, err)
	resp, err := http.DefaultClient.Do(req)
	ok(a.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	ok(a.t, err)
	if path == "/metrics" {
		balanced(a.t, string(b))
	}
	return resp.StatusCode, string(b)
}

// balanced checks that every output accounts for every record: offered is the sum of what became of them, at every scrape.
func balanced(t testing.TB, metrics string) {
	t.Helper()
	offered, became := map[string]int64{}, map[string]int64{}
	for _, m := range regexp.MustCompile(`(?m)^stacktrail_output_(offered_total|events_total|inflight_events)\{component="([^"]*)",.*\} (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		v := must[float64](t)(strconv.ParseFloat(m[3], 64))
		if m[1] == "offered_total" {
			offered[m[2]] += int64(v)
		} else {
			became[m[2]] += int64(v)
		}
	}
	if len(offered) == 0 || !maps.Equal(offered, became) {
		t.Errorf("the accounts do not balance: offered %v, delivered + dead + dropped + filtered + in flight %v", offered, became)
	}
}

func TestStatusMetricsAndHealthOfARunningAgent(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(1000)
	a := b.start()
	waitFor(t, "metrics count all events", func() bool {
		_, body := a.get("/metrics")
		return strings.Contains(body, `stacktrail_output_events_total{component="out",outcome="delivered",pipeline="main",type="file"} 1000`)
	})
	_, body := a.get("/metrics")
	for _, want := range []string{
		`stacktrail_input_events_total{component="in",pipeline="main",type="tail"} 1000`,
		`stacktrail_file_lag_bytes{component="in",pipeline="main",type="tail"} 0`,
		`stacktrail_output_inflight_events{component="out",pipeline="main",type="file"} 0`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for _, path := range []string{"/readyz", "/livez"} {
		if code, body := a.get(path); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	status := func(args ...string) string {
		out, err := exec.CommandContext(context.Background(), stacktrail(t), append([]string{"status", "--admin-socket", b.socket()}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("status %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if text := status(); !strings.Contains(text, ": ready\n") || !strings.Contains(text, "1000 offered = 1000 delivered") {
		t.Errorf("status:\n%s", text)
	}
	var state struct {
		Pipelines []struct {
			Inputs []struct {
				Streams []struct {
					Source     string
					Size, Read int64
					At         map[string]int64
				}
			}
		}
	}
	ok(t, json.Unmarshal([]byte(status("-o", "json")), &state))
	st := state.Pipelines[0].Inputs[0].Streams
	if len(st) != 1 || st[0].Source != w.path || st[0].Size == 0 || st[0].Read != st[0].Size || st[0].At["out"] != st[0].Size {
		t.Errorf("streams: %+v", st)
	}
	a.stop()
	out, err := exec.CommandContext(context.Background(), stacktrail(t), "status", "--admin-socket", b.socket()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no agent answers on") {
		t.Errorf("status without an agent: %v\n%s", err, out)
	}
}

func TestAnOutputThatFailsMakesTheAgentNotReady(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{output: `file: {path: "` + b.dir + `/locked/out.ndjson"}`})
	ok(t, os.WriteFile(filepath.Join(b.dir, "locked"), nil, 0o644)) // where a folder should be
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	a := b.start()
	waitFor(t, "the agent is not ready", func() bool {
		code, body := a.get("/readyz")
		return code == 503 && strings.Contains(body, "pipeline main: output out: failing since") && strings.Contains(body, "locked")
	})
	if code, body := a.get("/livez"); code != 200 {
		t.Errorf("/livez: %d %s", code, body)
	}
	ok(t, os.Remove(filepath.Join(b.dir, "locked")))
	waitFor(t, "the agent is ready again", func() bool { code, _ := a.get("/readyz"); return code == 200 })
	a.stop()
}
