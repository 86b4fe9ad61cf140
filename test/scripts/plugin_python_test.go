//go:build blackbox

package scripts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Plugins in Python: the SDK, an example of it and the agent fit together, whatever happens to the processes.

// pythonPlugins are the programs of a virtual environment.
type pythonPlugins struct{ quota, tested, exits string }

// TestPythonPlugins makes the virtual environment once for all tests in it.
func TestPythonPlugins(t *testing.T) {
	p := installPython(t)
	t.Run("FaultsHaveTheirPlaces", p.faults)
	t.Run("EventsAreTagged", p.tags)
	t.Run("KillsLoseAndDoubleNothing", p.kills)
	t.Run("EventsThatItFailsOnAreDeadAndNoOthers", p.trouble)
	t.Run("AProgramThatEndsAtOnceIsAFault", p.ends)
}

// installPython installs the SDK, the example and the plugins of these tests. It needs grpcio from a package registry.
func installPython(t *testing.T) pythonPlugins {
	t.Helper()
	dir := t.TempDir()
	venv := filepath.Join(dir, "venv")
	if out, err := exec.Command(need(t, "python3"), "-m", "venv", venv).CombinedOutput(); err != nil {
		t.Fatalf("making a virtual environment: %v: %s", err, lastLine(out))
	}
	install := []string{"install", "--quiet", "--disable-pip-version-check"}
	for _, source := range []string{"../../plugins/python", "../../plugins/examples/quota", "testdata/plugin-python"} {
		to := filepath.Join(dir, filepath.Base(source))
		copySources(t, source, to)
		install = append(install, to)
	}
	if out, err := exec.Command(filepath.Join(venv, "bin", "pip"), install...).CombinedOutput(); err != nil {
		t.Fatalf("pip cannot install the SDK for Python and grpcio, which it needs from a package registry: %v: %s", err, lastLine(out))
	}
	bin := filepath.Join(venv, "bin")
	return pythonPlugins{filepath.Join(bin, "quota"), filepath.Join(bin, "tested"), filepath.Join(bin, "exits")}
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// copySources copies a package without what was built in it: pip leaves its own behind where it builds.
func copySources(t *testing.T, from, to string) {
	t.Helper()
	ok(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		switch name := d.Name(); {
		case d.IsDir() && (name == ".venv" || name == "build" || name == "__pycache__" || strings.HasSuffix(name, ".egg-info")):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	}))
}

// write makes a configuration with these plugins and processors, and an output beside the file.
func (p pythonPlugins) write(b *box, plugins, processors, output string) {
	b.t.Helper()
	b.write(setup{also: output})
	text := string(must[[]byte](b.t)(os.ReadFile(b.config)))
	text = strings.Replace(text, "pipelines:", "plugins: ["+plugins+"]\npipelines:", 1)
	text = strings.Replace(text, "    outputs:", "    processors: ["+processors+"]\n    outputs:", 1)
	ok(b.t, os.WriteFile(b.config, []byte(text), 0o644))
}

func (p pythonPlugins) both() string { return "{path: " + p.quota + "}, {path: " + p.tested + "}" }

// faults: what the agent refuses by the description, and what only the plugin knows to be wrong.
func (p pythonPlugins) faults(t *testing.T) {
	b := newBox(t)
	more := b.log("../out/more.ndjson")
	for _, c := range []struct{ processors, output, says string }{
		{"{quota: {limit: 0}}", more, ":7:34: pipelines[0].processors[0].quota.limit: must be at least 1"},
		{"{quota: {limit: many}}", more, ":7:34: pipelines[0].processors[0].quota.limit: expected a whole number"},
		{"{quota: {limit: 1, windw: 1m}}", more, `:7:37: pipelines[0].processors[0].quota.windw: unknown key "windw" (did you mean "window"?)`},
		{"{quota: {limit: 1, window: 1ms}}", more, ":7:45: pipelines[0].processors[0].quota.window: must be at least 1s"},
		{"{quota: {limit: 1, mode: odd}}", more, ":7:43: pipelines[0].processors[0].quota.mode:"},
		{"{quota: {}}", more, `required key "limit" is missing`},
		{"{quota: {limit: 1, by: user, tag: user}}", more, `:7:47: pipelines[0].processors[0].quota.tag: is the field that is counted by (did you mean "over_quota_bool"?)`},
		{"{mark: {}}", "more.ndjson", ":10:17: pipelines[0].outputs[1].once.path: must be absolute"},
	} {
		p.write(b, p.both(), c.processors, fmt.Sprintf("once: {path: %q}, id: more", c.output))
		if r := command(t, "check", "-c", b.config); r.code != 78 || !strings.Contains(r.errors, c.says) {
			t.Errorf("%s, %s: code %d, and it said\n%s\nwant %s", c.processors, c.output, r.code, r.errors, c.says)
		}
	}
	p.write(b, p.both(), "{quota: {limit: 1}}, {mark: {}}", fmt.Sprintf("once: {path: %q}, id: more", more))
	if r := command(t, "check", "-c", b.config); r.code != 0 {
		t.Errorf("a good configuration: code %d\n%s", r.code, r.errors)
	}
	p.write(b, p.both(), "{mark: {}}", fmt.Sprintf("once: {table: a, path: %q}, id: more", more))
	if r := command(t, "run", "-c", b.config); r.code != 78 || !strings.Contains(r.errors, ":10:17: pipelines[0].outputs[1].once.table: is not known there\n") {
		t.Errorf("a configuration that open rejects: code %d\n%s", r.code, r.errors)
	}
	if size(more) != 0 {
		t.Error("checking wrote the output's file")
	}
}

// tags: the program is proved by its checksum, which works for scripts too.
func (p pythonPlugins) tags(t *testing.T) {
	b := newBox(t)
	sum := sha256.Sum256(must[[]byte](t)(os.ReadFile(p.quota)))
	p.write(b, "{path: "+p.quota+", sha256: "+hex.EncodeToString(sum[:])+"}", "{quota: {limit: 3, window: 240h}}", "blackhole: {}, id: more")
	w := newWriter(t, b.log("api.log"), 0)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	_, metrics := a.get("/metrics")
	if want := `stacktrail_plugin_total{component="quota",name="over_quota",pipeline="main",reason="",type="quota"} 7`; !strings.Contains(metrics, want) {
		t.Errorf("there is no %s in\n%s", want, metrics)
	}
	a.stop()
	verify(t, []*writer{w}, b.out).exact(t)
	lines := bytes.SplitAfter(must[[]byte](t)(os.ReadFile(b.out)), []byte("\n"))
	for i, line := range lines[:10] {
		if tagged := bytes.Contains(line, []byte(`"over_quota_bool":true`)); tagged != (i >= 3) {
			t.Errorf("event %d: tagged is %v", i, tagged)
		}
	}
}

// kills: of the two plugins and the agent, as it comes. quota begins with nothing each time, so that the first event of each beginning is
// not tagged; every other one is, and none passes mark by.
func (p pythonPlugins) kills(t *testing.T) {
	const kills = 16
	rnd := seeded(uint64(number(t, "STACKTRAIL_SEED", 7)))
	b := newBox(t)
	b.brief = true
	more := filepath.Join(b.dir, "out", "more.ndjson")
	p.write(b, p.both(), "{quota: {limit: 1, window: 240h}}, {mark: {}}", fmt.Sprintf("once: {path: %q}, id: more", more))
	w := newWriter(t, b.log("api.log"), 0)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				w.lines(5)
			}
		}
	})
	var a *agent
	ended, agents := map[int]bool{}, 0
	for k := range kills {
		if a == nil {
			a = b.start()
			a.says("msg=started")
		}
		before, beside := size(b.out), size(more)
		waitFor(t, "both outputs grow", func() bool {
			return size(b.out) != before && size(more) != beside && len(pluginsOf(a.pid())) == 2
		})
		poll(time.Millisecond, time.Duration(rnd.IntN(100))*time.Millisecond, func() bool { return false })
		pids := pluginsOf(a.pid())
		for _, pid := range pids {
			ended[pid] = true
		}
		if k%4 == 3 {
			a.kill()
			a, agents = nil, agents+1
		} else if len(pids) > 0 {
			_ = syscall.Kill(pids[rnd.IntN(len(pids))], syscall.SIGKILL)
		}
	}
	close(stop)
	writing.Wait()
	if a != nil {
		a.alive()
		a.stop()
	}
	if r := b.once(); r.code != 0 {
		t.Fatalf("the last start ended with code %d", r.code)
	}
	verify(t, []*writer{w}, b.out).exact(t)
	text := must[[]byte](t)(os.ReadFile(b.out))
	if marks := bytes.Count(text, []byte(`"marked_bool":true`)); marks != w.count() {
		t.Errorf("%d of %d events passed mark by", w.count()-marks, w.count())
	}
	beginnings := kills + agents + 2 // each kill, each start of an agent
	if untagged := w.count() - bytes.Count(text, []byte(`"over_quota_bool":true`)); untagged < 1 || untagged > beginnings {
		t.Errorf("%d events are not tagged, after at most %d beginnings", untagged, beginnings)
	}
	onceMarked(t, more, w.count())
	waitFor(t, "no plugin is left", func() bool {
		for pid := range ended {
			if lives(pid) {
				return false
			}
		}
		return true
	})
	t.Logf("%d kills, %d of the agent, %d events", kills, agents, w.count())
}

// onceMarked proves that a file of the output once has so many events, each by its id once, and all marked.
func onceMarked(t *testing.T, path string, n int) {
	t.Helper()
	ids := map[string]bool{}
	lines := 0
	for line := range bytes.Lines(must[[]byte](t)(os.ReadFile(path))) {
		var e struct {
			ID     string `json:"event_id"`
			Marked bool   `json:"marked"`
		}
		ok(t, json.Unmarshal(line, &e))
		if !e.Marked {
			t.Errorf("not marked: %s", line)
		}
		ids[e.ID] = true
		lines++
	}
	if len(ids) != n || lines != n {
		t.Errorf("the output in Python has %d lines with %d ids, %d events were written", lines, len(ids), n)
	}
}

// trouble: one event raises, one hangs beyond the deadline, one ends the process.
func (p pythonPlugins) trouble(t *testing.T) {
	b := newBox(t)
	p.write(b, "{path: "+p.tested+", timeout: 2s}", "{mark: {raise_at: /v2.1/raise, hang_at: /v2.1/hang, exit_at: /v2.1/exit}}", fmt.Sprintf("once: {path: %q}, id: more", b.log("../out/more.ndjson")))
	w := newWriter(t, b.log("api.log"), 0)
	w.lines(20)
	for _, path := range []string{"raise", "hang", "exit"} {
		w.raw([]byte(strings.Replace(string(record{}.appendLine(nil)), "/v2.1/", "/v2.1/"+path+"?/", 1)))
		w.lines(20)
	}
	if r := b.once(); r.code != 0 {
		t.Fatalf("exit code %d", r.code)
	}
	verify(t, []*writer{w}, b.out).exact(t)
	onceMarked(t, filepath.Join(b.dir, "out", "more.ndjson"), w.count())
	dead := string(must[[]byte](t)(os.ReadFile(filepath.Join(b.state(), "dead", "main", "processors.ndjson"))))
	for _, want := range []string{"RuntimeError: this path is too much", "did not answer within 2s, 3 times on these events", "the plugin ended: exit status 3 3 times on these events"} {
		if strings.Count(dead, want) != 1 {
			t.Errorf("the dead letter does not say once %q", want)
		}
	}
	if strings.Count(dead, "\n") != 3 {
		t.Errorf("the dead letter says\n%s", dead)
	}
}

func (p pythonPlugins) ends(t *testing.T) {
	b := newBox(t)
	p.write(b, "{path: "+p.exits+"}", "", "blackhole: {}, id: more")
	for _, does := range []string{"check", "run"} {
		r := command(t, does, "-c", b.config)
		if r.code != 78 || !strings.Contains(r.errors, ":2:18: plugins[0].path: ") || !strings.Contains(r.errors, "exit status 3") || !strings.Contains(r.errors, "nothing works here") {
			t.Errorf("%s ended with code %d and said\n%s", does, r.code, r.errors)
		}
	}
}
