//go:build blackbox

package scripts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What a plugin in a process of its own says when it is opened: that its configuration cannot be right, which ends the start, or that it
// cannot work now, which is waited for.

// far is the folder that stands for the plugin's far end; what lies in it says what is wrong there.
func (b *box) far(wrong ...string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, "far")
	ok(b.t, os.RemoveAll(dir))
	ok(b.t, os.Mkdir(dir, 0o755))
	for _, name := range wrong {
		ok(b.t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	return dir
}

// beside adds a pipeline that has nothing to do with plugins, and returns its log and what it writes.
func (b *box) beside() (log, out string) {
	b.t.Helper()
	log, out = filepath.Join(b.dir, "beside.log"), filepath.Join(b.dir, "out", "beside.ndjson")
	text := string(must[[]byte](b.t)(os.ReadFile(b.config)))
	text += fmt.Sprintf(`  - name: beside
    inputs:
      - {tail: {paths: [%q], timezone: UTC, sweep: 200ms}}
    outputs:
      - {file: {path: %q, rotate: {size: 0}}}
`, log, out)
	ok(b.t, os.WriteFile(b.config, []byte(text), 0o644))
	return log, out
}

// TestAConfigurationThatAPluginRejectsInOpenIsAFault: with the plugin's words and the place, before any data flows.
func TestAConfigurationThatAPluginRejectsInOpenIsAFault(t *testing.T) {
	b := newBox(t)
	program, far, more := b.buildPlugin(), b.far("refuse"), b.log("../out/more.ndjson")
	newWriter(t, b.log("api.log"), 0).lines(10)
	for _, c := range []struct {
		mark, output string
		says         []string
	}{
		{fmt.Sprintf("far: %q, pattern: x", far), "blackhole: {}", []string{fmt.Sprintf(":7:%d: pipelines[0].processors[0].mark.pattern: ", 35+len(far))}},
		{"pattern: x", fmt.Sprintf("append: {far: %q, path: %q}", far, more), []string{fmt.Sprintf(":10:%d: pipelines[0].outputs[1].append.path: ", 28+len(far))}},
		{fmt.Sprintf("far: %q, pattern: x", far), fmt.Sprintf("append: {far: %q, path: %q}", far, more), []string{"mark.pattern: ", "append.path: "}},
	} {
		b.writePlugin("{path: "+program+"}", c.mark, c.output+", id: more")
		r := command(t, "run", "-c", b.config)
		for _, says := range c.says {
			if !strings.Contains(r.errors, says+"is not known there\n") {
				t.Errorf("{%s} and %s: it said\n%s\nwant %s", c.mark, c.output, r.errors, says)
			}
		}
		if r.code != 78 || !strings.Contains(r.errors, fmt.Sprintf("bad configuration: %d fault", len(c.says))) {
			t.Errorf("{%s} and %s: code %d\n%s", c.mark, c.output, r.code, r.errors)
		}
		if strings.Contains(r.errors, "level=") {
			t.Errorf("it says more than the faults:\n%s", r.errors)
		}
		if size(b.out) > 0 || size(more) > 0 {
			t.Fatal("data flowed")
		}
	}
}

// TestAPluginWhoseFarEndIsDownAtTheStartIsWaitedForAlone: the agent starts, its neighbours work, and nothing is lost.
func TestAPluginWhoseFarEndIsDownAtTheStartIsWaitedForAlone(t *testing.T) {
	for _, wrong := range []string{"down", "slow"} {
		for _, kind := range []string{"processor", "output"} {
			t.Run(kind+" "+wrong, func(t *testing.T) {
				b := newBox(t)
				program, more := b.buildPlugin(), filepath.Join(b.dir, "out", "more.ndjson")
				far := b.far(wrong)
				mark, output, free := "pattern: x", fmt.Sprintf("append: {path: %q}", more), b.out
				if kind == "processor" {
					mark += fmt.Sprintf(", far: %q", far)
				} else {
					output = fmt.Sprintf("append: {path: %q, far: %q}", more, far)
				}
				b.writePlugin("{path: "+program+", timeout: 10m}", mark, output+", id: more")
				log, beside := b.beside()
				w, other := newWriter(t, b.log("api.log"), 0), newWriter(t, log, 1)
				w.lines(100)
				other.lines(100)
				a := b.start()
				a.says("msg=started")
				arrive(t, a, beside, 100)
				if kind == "output" {
					arrive(t, a, free, 100)
				}
				says := map[string]string{
					"processor down": `pipeline main: processors: opening processors: opening processor "mark": `, "processor slow": "pipeline main: processors: opening processors: opening takes long",
					"output down": "pipeline main: output more: failing since ", "output slow": "pipeline main: output more: failing since ",
				}[kind+" "+wrong]
				ready := ""
				waitFor(t, "the agent says who is not ready", func() bool {
					_, ready = a.get("/readyz")
					return strings.Contains(ready, says)
				})
				if wrong == "down" && !strings.Contains(ready, "nobody answers") {
					t.Errorf("/readyz says\n%s", ready)
				}
				if kind == "processor" && size(b.out) > 0 || size(more) > 0 {
					t.Error("events passed what is not open")
				}
				b.far()
				arrive(t, a, b.out, 100)
				arrive(t, a, more, 100)
				waitFor(t, "it is ready again", func() bool { code, _ := a.get("/readyz"); return code == 200 })
				a.stop()
				verify(t, []*writer{w}, b.out).exact(t)
				marked(t, b.out)
				if n := bytes.Count(must[[]byte](t)(os.ReadFile(more)), []byte("\n")); n != 100 {
					t.Errorf("the plugin's output has %d of 100 events", n)
				}
			})
		}
	}
}

// TestOnceThatIsInterruptedIsNoSuccess: whoever runs it from a script has to know that it did not come to its end.
func TestOnceThatIsInterruptedIsNoSuccess(t *testing.T) {
	b := newBox(t)
	b.writePlugin("{path: "+b.buildPlugin()+"}", "pattern: x, far: "+b.far("down"), "blackhole: {}, id: more")
	newWriter(t, b.log("api.log"), 1).lines(10)
	a := b.launch(stacktrail(t), "run", "--once", "-c", b.config)
	a.says("nobody answers") // its events wait, and no output has any
	a.signal(syscall.SIGTERM)
	if code := a.wait(); code != 1 || !strings.Contains(a.text(), "interrupted") {
		t.Errorf("exit code %d, want 1:\n%s", code, a.text())
	}
}
