//go:build blackbox

package scripts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Plugins in a process of their own (P01 to P05): whatever happens to the process, nothing is lost, nothing stands twice, and nothing is
// left behind.

// buildPlugin builds the plugin of the tests into the box.
func (b *box) buildPlugin() string {
	b.t.Helper()
	path := filepath.Join(b.dir, "plugin")
	out, err := exec.Command("go", "build", "-o", path, "./testdata/plugin").CombinedOutput()
	if err != nil {
		b.t.Fatalf("building the plugin: %v\n%s", err, out)
	}
	return path
}

// writePlugin makes a configuration with the plugin's processor, and its output beside the file.
func (b *box) writePlugin(program, mark, output string) {
	b.t.Helper()
	b.write(setup{also: output})
	text := string(must[[]byte](b.t)(os.ReadFile(b.config)))
	text = strings.Replace(text, "pipelines:", fmt.Sprintf("plugins: [%s]\npipelines:", program), 1)
	text = strings.Replace(text, "    outputs:", "    processors: [{mark: {"+mark+"}}]\n    outputs:", 1)
	ok(b.t, os.WriteFile(b.config, []byte(text), 0o644))
}

// pluginsOf lists the plugins that an agent started and that run: all its children but its guard, which is the same program.
func pluginsOf(agent int) (pids []int) {
	program := func(pid int) string {
		path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return path
	}
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, p := range all {
		text, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		if ppid, _ := strconv.Atoi(fields[1]); ppid == agent && fields[0] != "Z" && program(pid) != program(agent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func lives(pid int) bool { return syscall.Kill(pid, 0) == nil }

// marked proves that no event passed the plugin by.
func marked(t *testing.T, path string) {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile(path))
	if lines, marks := bytes.Count(text, []byte("\n")), bytes.Count(text, []byte(`"marked":true`)); lines != marks {
		t.Errorf("%d of %d events passed the plugin by", lines-marks, lines)
	}
}

// TestP05KillsOfPluginAndAgentLoseAndDoubleNothing: fifty kills, of the one or the other as it comes.
func TestP05KillsOfPluginAndAgentLoseAndDoubleNothing(t *testing.T) {
	const kills = 50
	rnd := seeded(uint64(number(t, "STACKTRAIL_SEED", 7)))
	b := newBox(t)
	b.brief = true
	b.writePlugin("{path: "+b.buildPlugin()+"}", "pattern: nothing-is-like-this", fmt.Sprintf("append: {path: %q}, id: more", b.log("../out/more.ndjson")))
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
	orphans := map[int]bool{}
	agents := 0
	for k := range kills {
		if a == nil {
			a = b.start()
			a.says("msg=started")
		}
		before := size(b.out)
		waitFor(t, "the output grows", func() bool { return size(b.out) != before && len(pluginsOf(a.pid())) > 0 })
		poll(time.Millisecond, time.Duration(rnd.IntN(60))*time.Millisecond, func() bool { return false })
		for _, pid := range pluginsOf(a.pid()) {
			orphans[pid] = true
			if k%3 != 2 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if k%3 == 2 {
			a.kill()
			a, agents = nil, agents+1
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
	marked(t, b.out)
	ids := map[string]bool{}
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile(filepath.Join(b.dir, "out", "more.ndjson"))))) {
		ids[strings.TrimPrefix(line, `{"event_id":"`)[:32]] = true
	}
	if len(ids) != w.count() {
		t.Errorf("the plugin's output has %d events, %d were written", len(ids), w.count())
	}
	waitFor(t, "no plugin is left", func() bool {
		for pid := range orphans {
			if lives(pid) {
				return false
			}
		}
		return true
	})
	t.Logf("%d kills, %d of the agent, %d events", kills, agents, w.count())
}

// TestP05NoPluginOutlivesAKilledAgent: neither the plugin nor what it started, wherever that went.
func TestP05NoPluginOutlivesAKilledAgent(t *testing.T) {
	for name, end := range map[string]func(*agent){"killed": (*agent).kill, "stopped": (*agent).stop} {
		b := newBox(t)
		list := filepath.Join(b.dir, "pids")
		b.writePlugin("{path: "+b.buildPlugin()+"}", "pattern: x, children: "+list, "blackhole: {}, id: more")
		newWriter(t, b.log("api.log"), 0).lines(10)
		a := b.start()
		arrive(t, a, b.out, 10)
		pids := pluginsOf(a.pid())
		if len(pids) != 1 {
			t.Fatalf("the agent has the plugins %v, want one", pids)
		}
		for pid := range strings.FieldsSeq(string(must[[]byte](t)(os.ReadFile(list)))) {
			pids = append(pids, must[int](t)(strconv.Atoi(pid)))
		}
		if len(pids) != 3 || slices.ContainsFunc(pids, func(pid int) bool { return !lives(pid) }) {
			t.Fatalf("of the processes %v some are gone already", pids)
		}
		end(a)
		for _, pid := range pids {
			waitFor(t, name+": the plugin is gone with its children", func() bool { return !lives(pid) })
		}
	}
}

// TestP01P02EventsThatAPluginDiesOfAreDeadAndNoOthers: one crashes it, one hangs it.
func TestP01P02EventsThatAPluginDiesOfAreDeadAndNoOthers(t *testing.T) {
	b := newBox(t)
	b.writePlugin("{path: "+b.buildPlugin()+", timeout: 300ms}", "pattern: x, crash: /v2.1/crash, hang: /v2.1/hang", "blackhole: {}, id: more")
	w := newWriter(t, b.log("api.log"), 0)
	line := func(path string) []byte {
		return []byte(strings.Replace(string(record{}.appendLine(nil)), "/v2.1/", path+"?/", 1))
	}
	w.lines(50)
	w.raw(line("/v2.1/crash"))
	w.lines(50)
	w.raw(line("/v2.1/hang"))
	w.lines(50)
	r := b.once()
	if r.code != 0 {
		t.Fatalf("exit code %d", r.code)
	}
	if n := must[[]byte](t)(os.ReadFile(b.out)); bytes.Count(n, []byte("\n")) != 150 {
		t.Errorf("%d of 150 events arrived", bytes.Count(n, []byte("\n")))
	}
	dead := string(must[[]byte](t)(os.ReadFile(filepath.Join(b.state(), "dead", "main", "processors.ndjson"))))
	if strings.Count(dead, "\n") != 2 || !strings.Contains(dead, "the plugin ended: exit status 3 3 times on these events") || !strings.Contains(dead, "did not answer within 300ms, 3 times on these events") {
		t.Errorf("the dead letter says\n%s", dead)
	}
}

// TestP04AFaultyPluginIsAFaultyConfiguration: each with its place, before any data flows.
func TestP04AFaultyPluginIsAFaultyConfiguration(t *testing.T) {
	b := newBox(t)
	program := b.buildPlugin()
	sum := sha256.Sum256(must[[]byte](t)(os.ReadFile(program)))
	right := hex.EncodeToString(sum[:])
	collides := filepath.Join(b.dir, "collides")
	ok(t, os.Symlink(program, collides))
	world := filepath.Join(b.dir, "world")
	ok(t, os.WriteFile(world, must[[]byte](t)(os.ReadFile(program)), 0o755))
	ok(t, os.Chmod(world, 0o777))
	notOne := filepath.Join(b.dir, "not-one")
	ok(t, os.WriteFile(notOne, []byte("#!/bin/sh\necho I am a script\n"), 0o755))
	ok(t, os.WriteFile(filepath.Join(b.dir, "norun"), nil, 0o644))
	for _, c := range []struct {
		program, mark, says string
		faults              int
	}{
		{"{path: plugin}", "pattern: x", `:2:18: plugins[0].path: plugin plugin: path "plugin" is not absolute`, 1},
		{"{path: " + b.dir + "}", "pattern: x", "is a directory", 1},
		{"{path: " + b.dir + "/norun}", "pattern: x", "cannot be executed", 1},
		{"{path: " + world + "}", "pattern: x", "can be changed by everybody", 1},
		{"{path: " + program + ", sha256: " + strings.Repeat("0", 64) + "}", "pattern: x", "has the checksum " + right, 1},
		{"{path: " + program + ", sha256: 12}", "pattern: x", "sha256", 1},
		{"{path: " + notOne + ", sha256: 12}", "pattern: x", "a checksum has 64 hexadecimal digits", 1}, // and so it was not run
		{"{path: " + notOne + "}", "pattern: x", `its first line is "I am a script", which is no handshake`, 1},
		{"{path: " + collides + "}", "pattern: x", `processor "drop" of ` + collides + " has the name of one that is built into this agent", 2},
		{"{path: " + program + "}, {path: " + b.dir + "/./plugin}", "pattern: x", `processor "mark" of ` + b.dir + "/./plugin has the name of one that is in " + program, 2},
		{"{path: " + program + "}", "patern: x", `:7:26: pipelines[0].processors[0].mark.patern: unknown key "patern" (did you mean "pattern"?)`, 2},
		{"{path: " + program + "}", "pattern: '['", ":7:26: pipelines[0].processors[0].mark.pattern: error parsing regexp: missing closing ]", 1},
		{"{path: " + program + "}", "", `required key "pattern" is missing`, 1},
		{"{path: " + program + "}, {path: " + program + "}", "pattern: x", `plugins[1].path: the path "/`, 1},
		{"{path: " + program + "}, {path: '${STACKTRAIL_BIN:+}" + program + "'}", "pattern: x", "plugins[1].path", 1},
		{program, "pattern: x", "plugins[0]: expected a section", 1},
		{"{path: " + notOne + "}", `pattern: x}}, {drop: {when: 'mark_color == "red"'`, "which is no handshake", 1}, // nor is the field of a plugin that did not answer
		{"{path: " + program + "}", `patern: x}}, {drop: {when: 'mark_color == "red"'`, `unknown key "patern"`, 2},
	} {
		b.writePlugin(c.program, c.mark, "blackhole: {}, id: more")
		for _, args := range [][]string{{"check", "-c", b.config}, {"run", "-c", b.config}} {
			r := command(t, args...)
			if r.code != 78 || !strings.Contains(r.errors, c.says) || !strings.Contains(r.errors, fmt.Sprintf("bad configuration: %d fault", c.faults)) {
				t.Errorf("%s {%s}: %s ended with code %d and said\n%s\nwant %s", c.program, c.mark, args[0], r.code, r.errors, c.says)
			}
		}
	}
	for _, good := range []string{"{path: " + program + ", sha256: " + right + "}", "{path: " + world + ", allow_world_writable: true}"} {
		b.writePlugin(good, "pattern: x", "blackhole: {}, id: more")
		if r := command(t, "check", "-c", b.config); r.code != 0 {
			t.Errorf("%s: code %d\n%s", good, r.code, r.errors)
		}
	}
}

// TestAPluginIsSeenLikeABuiltIn: in samples, in the reference, in the schema, in metrics, in status.
func TestAPluginIsSeenLikeABuiltIn(t *testing.T) {
	b := newBox(t)
	program := b.buildPlugin()
	b.writePlugin("{path: "+program+"}", "pattern: 'limit=[0-9]+'", "blackhole: {}, id: more")
	for _, args := range [][]string{
		{"sample", program}, {"sample", "mark", "-c", b.config}, {"docs", program}, {"docs", "mark", "-c", b.config}, {"schema", "-c", b.config},
	} {
		r := command(t, args...)
		if r.code != 0 || !strings.Contains(r.out, "Go regular expression to mask in the query.") {
			t.Errorf("%v: code %d\n%s%s", args, r.code, r.out, r.errors)
		}
	}
	newWriter(t, b.log("api.log"), 0).lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	r := command(t, "status", "--admin-socket", b.socket())
	if !strings.Contains(r.out, "plugin "+program+": pid ") || !strings.Contains(r.out, "processor mark         marked 10") {
		t.Errorf("status says\n%s%s", r.out, r.errors)
	}
	_, metrics := a.get("/metrics")
	for _, want := range []string{
		`stacktrail_plugin_total{component="mark",name="marked",pipeline="main",reason="",type="mark"} 10`,
		fmt.Sprintf(`stacktrail_plugin_process_up{path=%q,plugin="plugin"} 1`, program), fmt.Sprintf(`stacktrail_plugin_process_restarts_total{path=%q,plugin="plugin"} 0`, program),
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("there is no %s in\n%s", want, metrics)
		}
	}
	a.stop()
}

// TestAPluginThatIsGoneIsWaitedForAloud: its program is away for a while.
func TestAPluginThatIsGoneIsWaitedForAloud(t *testing.T) {
	b := newBox(t)
	program := b.buildPlugin()
	b.writePlugin("{path: "+program+"}", "pattern: x", "blackhole: {}, id: more")
	w := newWriter(t, b.log("api.log"), 0)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	ok(t, os.Rename(program, program+".away"))
	for _, pid := range pluginsOf(a.pid()) {
		ok(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	w.lines(10)
	ready := ""
	waitFor(t, "the agent says that it is not ready", func() bool {
		_, ready = a.get("/readyz")
		return strings.Contains(ready, "plugin "+program+": ") && strings.Contains(ready, "no such file")
	})
	ok(t, os.Rename(program+".away", program))
	arrive(t, a, b.out, 20)
	waitFor(t, "it is ready again", func() bool { code, _ := a.get("/readyz"); return code == 200 })
	a.stop()
	verify(t, []*writer{w}, b.out).exact(t)
	marked(t, b.out)
}
