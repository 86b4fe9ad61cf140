package monitor

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
)

func get(t *testing.T, c *http.Client, url string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// start serves until the test ends.
func start(t *testing.T, cfg Config, state func() State) (*Server, error) {
	t.Helper()
	s := &Server{}
	t.Cleanup(s.Close)
	return s, s.Add(cfg, state, quiet())
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func sample() State {
	return State{
		Version: "1.2.3", Started: time.Now(), Checkpoint: time.Now(),
		Pipelines: []pipeline.Status{{
			Name: "p",
			Inputs: []pipeline.InputStatus{{
				ID: "api", Type: "tail",
				Counts: []pipeline.Count{
					{Name: "events", N: 70}, {Name: "bytes", N: 7000}, {Name: "unparsed", Reason: "no format fits", N: 3}, {Name: "lost_bytes", Reason: "gone", N: 11},
				},
				Streams: []pipeline.StreamStatus{{Name: "s", Source: "/var/log/a.log", Size: 900, Read: 800, At: map[string]int64{"es": 500, "file": 800}}},
			}},
			Processors: []pipeline.ProcessorStatus{{ID: "drop", Type: "drop", Counts: []pipeline.Count{{Name: "dropped", Reason: "when", N: 9}}}},
			Outputs: []pipeline.OutputStatus{{
				ID: "es", Type: "elasticsearch", Accounts: pipeline.Accounts{Offered: 70, Delivered: 40, Dead: 1, Dropped: 2, Filtered: 9, InFlight: 18},
				Retries: map[string]int64{"throttled": 4}, Oldest: time.Now().Add(-time.Minute),
			}},
		}},
	}
}

func TestMetricsHaveTheirNames(t *testing.T) {
	t.Parallel()
	s, err := start(t, Config{Listen: "127.0.0.1:0"}, sample)
	if err != nil {
		t.Fatal(err)
	}
	code, body := get(t, http.DefaultClient, "http://"+s.Addr()+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("code %d: %s", code, body)
	}
	for _, want := range []string{
		`stacktrail_input_events_total{component="api",pipeline="p",type="tail"} 70`,
		`stacktrail_input_bytes_total{component="api",pipeline="p",type="tail"} 7000`,
		`stacktrail_input_unparsed_total{component="api",pipeline="p",reason="no format fits",type="tail"} 3`,
		`stacktrail_input_lost_bytes_total{component="api",pipeline="p",reason="gone",type="tail"} 11`,
		`stacktrail_file_lag_bytes{component="api",pipeline="p",type="tail"} 400`,
		`stacktrail_processor_dropped_total{component="drop",pipeline="p",type="drop"} 9`,
		`stacktrail_output_offered_total{component="es",pipeline="p",type="elasticsearch"} 70`,
		`stacktrail_output_events_total{component="es",outcome="delivered",pipeline="p",type="elasticsearch"} 40`,
		`stacktrail_output_events_total{component="es",outcome="dead",pipeline="p",type="elasticsearch"} 1`,
		`stacktrail_output_events_total{component="es",outcome="dropped",pipeline="p",type="elasticsearch"} 2`,
		`stacktrail_output_events_total{component="es",outcome="filtered",pipeline="p",type="elasticsearch"} 9`,
		`stacktrail_output_inflight_events{component="es",pipeline="p",type="elasticsearch"} 18`,
		`stacktrail_output_retries_total{component="es",pipeline="p",reason="throttled",type="elasticsearch"} 4`,
		`stacktrail_output_request_seconds_count{component="es",pipeline="p",type="elasticsearch"} 0`,
		`stacktrail_output_attached{component="es",pipeline="p",type="elasticsearch"} 1`,
		"stacktrail_checkpoint_age_seconds ", "stacktrail_config_generation 1", "stacktrail_config_last_reload_success 1", "stacktrail_ready 1",
		`stacktrail_build_info{goversion="go`, `stacktrail_file_lag_seconds{pipeline="p"} 6`, "process_resident_memory_bytes ", "go_goroutines ",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("there is no line %q", want)
		}
	}
}

// seconds reads the lag of pipeline p out of what collect says of a state.
func seconds(t *testing.T, s State) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{func() State { return s }})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "stacktrail_file_lag_seconds" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no stacktrail_file_lag_seconds")
	return 0
}

func TestTheLagInSecondsIsOfWhatWaitsLongest(t *testing.T) {
	t.Parallel()
	const hour = 3600
	for name, c := range map[string]struct {
		held, written  time.Duration
		size, read     int64
		least, atMost  float64
		writtenUnknown bool
	}{
		"nothing waits":                      {written: time.Hour, size: 100, read: 100},
		"a batch is held":                    {held: time.Hour, size: 100, read: 100, written: 5 * time.Hour, least: hour, atMost: hour + 60},
		"bytes are unread":                   {written: 2 * time.Hour, size: 100, read: 99, least: 2 * hour, atMost: 2*hour + 60},
		"both, the file for longer":          {held: time.Hour, written: 2 * time.Hour, size: 100, read: 99, least: 2 * hour, atMost: 2*hour + 60},
		"both, the batch for longer":         {held: 3 * time.Hour, written: 2 * time.Hour, size: 100, read: 99, least: 3 * hour, atMost: 3*hour + 60},
		"a file that is written at present":  {size: 100, read: 50, atMost: 60},
		"a file whose time lies in a future": {written: -time.Hour, size: 100, read: 50},
		"a file of which no time is known":   {size: 100, read: 50, writtenUnknown: true},
		"the length is not known":            {written: time.Hour, size: -1, read: 50},
	} {
		s := sample()
		p := &s.Pipelines[0]
		p.Outputs[0].Oldest = time.Time{}
		if c.held > 0 {
			p.Outputs[0].Oldest = time.Now().Add(-c.held)
		}
		st := &p.Inputs[0].Streams[0]
		st.Size, st.Read, st.Written = c.size, c.read, time.Now().Add(-c.written)
		if c.writtenUnknown {
			st.Written = time.Time{}
		}
		if got := seconds(t, s); got < c.least || got > c.atMost {
			t.Errorf("%s: %v seconds, want %v to %v", name, got, c.least, c.atMost)
		}
	}
}

func TestLagsAndLossesSayHowTheyAreMeasured(t *testing.T) {
	t.Parallel()
	s, err := start(t, Config{Listen: "127.0.0.1:0"}, sample)
	if err != nil {
		t.Fatal(err)
	}
	_, body := get(t, http.DefaultClient, "http://"+s.Addr()+"/metrics")
	for name, want := range map[string]string{
		"file_lag_bytes": "less that output's position", "file_lag_seconds": "0 when nothing waits", "input_lost_bytes_total": "copytruncate",
	} {
		_, rest, found := strings.Cut(body, "# HELP stacktrail_"+name+" ")
		help, _, _ := strings.Cut(rest, "\n")
		if !found || !strings.Contains(help, want) {
			t.Errorf("the help of %s does not say %q: %s", name, want, help)
		}
	}
}

func TestHealthNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	now := sample()
	s, err := start(t, Config{Listen: "127.0.0.1:0"}, func() State { return now })
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string, wantCode int, want string) {
		t.Helper()
		if code, body := get(t, http.DefaultClient, "http://"+s.Addr()+path); code != wantCode || body != want {
			t.Errorf("%s: %d %q, want %d %q", path, code, body, wantCode, want)
		}
	}
	ask("/readyz", 200, "ok\n")
	ask("/livez", 200, "ok\n")
	p := &now.Pipelines[0]
	p.Outputs[0].LastError, p.Outputs[0].FailingSince = "index closed", time.Unix(1795231776, 0)
	p.Inputs[0].Failures = map[string]string{"/var/log/a.log": "permission denied"}
	now.NotReady = NotReady(now.Pipelines)
	ask("/readyz", 503, "pipeline p: input api: /var/log/a.log: permission denied\npipeline p: output es: failing since 2026-11-21T03:29:36Z: index closed\n")
	ask("/livez", 200, "ok\n")
	now.Stuck = "a write does not return"
	ask("/livez", 503, "a write does not return\n")
}

func TestTheAdminSocketIsTheOwnersOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "run", "admin.sock")
	s, err := start(t, Config{Socket: path}, sample)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := start(t, Config{Socket: path}, sample); err == nil || !strings.Contains(err.Error(), "belongs to an agent that runs") {
		t.Errorf("a second agent on the same socket: %v", err)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	code, body := get(t, c, "http://agent/status")
	var got State
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil || got.Pipelines[0].Outputs[0].Offered != 70 {
		t.Errorf("%d %v %s", code, err, body)
	}
	c.CloseIdleConnections()
	s.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is left behind")
	}
	// What a killed agent left.
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	s, err = start(t, Config{Socket: path}, sample)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	s.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := start(t, Config{Socket: path}, sample); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in the place of the socket: %v", err)
	}
}

func TestATakenAddressIsAnError(t *testing.T) {
	t.Parallel()
	s, err := start(t, Config{Listen: "127.0.0.1:0"}, sample)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(t, Config{Listen: s.Addr()}, sample); err == nil || !strings.Contains(err.Error(), "agent.listen") {
		t.Errorf("%v", err)
	}
}
