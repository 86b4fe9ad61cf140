//go:build blackbox

package scripts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The state directory: what commands say of it, and what a start makes of a checkpoint that is damaged, gone, or cannot be stored.

// stateShown is what `state show -o json` prints.
type stateShown struct {
	Running     bool
	PID         int
	Used        string
	Format      int
	Age         float64 `json:"age_seconds"`
	Generations []struct{ Name, State string }
	Pipelines   []struct {
		Name    string
		Outputs []struct {
			ID           string
			Known, Token bool
		}
		Streams []struct {
			Input, File   string
			Size          int64
			Drained, Gone bool
			Error         string
			Outputs       map[string]struct {
				At         int64
				LagBytes   *int64   `json:"lag_bytes"`
				LagSeconds *float64 `json:"lag_seconds"`
			}
		}
	}
}

// shown runs `state show` and expects it to find a good checkpoint.
func (b *box) shown() (s stateShown) {
	b.t.Helper()
	r := command(b.t, "state", "show", "-c", b.config, "-o", "json")
	if r.code != 0 {
		b.t.Fatalf("state show: code %d\n%s%s", r.code, r.out, r.errors)
	}
	ok(b.t, json.Unmarshal([]byte(r.out), &s))
	return s
}

func (b *box) generation(name string) string { return filepath.Join(b.state(), name) }

// holdings are the files of a directory with their contents.
func holdings(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	ok(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		all[path] = string(p)
		return err
	}))
	return all
}

func TestStateShowBesideARunningAgent(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{output: fmt.Sprintf(`blackhole: {delay: 1h}, id: stuck, queue: {on_full: block}}
      - {file: {path: %q, rotate: {size: 0}}`, b.out), agent: "stop_timeout: 100ms"})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(200)
	a := b.start()
	arrive(t, a, b.out, 200)
	length := w.written.Load()
	waitFor(t, "the checkpoint has what the file has", func() bool {
		c, err := b.readCheckpoint()
		return err == nil && c.known && c.length == size(b.out)
	})
	s := b.shown()
	if !s.Running || s.PID != a.pid() || s.Used != "last" || s.Format != 1 || s.Age < 0 {
		t.Errorf("running %v, pid %d (the agent's is %d), %s generation, format %d, %v seconds old", s.Running, s.PID, a.pid(), s.Used, s.Format, s.Age)
	}
	p := s.Pipelines[0]
	if len(p.Outputs) != 2 || p.Outputs[0].ID != "out" || !p.Outputs[0].Token || !p.Outputs[1].Known || p.Outputs[1].Token {
		t.Errorf("outputs: %+v", p.Outputs)
	}
	st := p.Streams[0]
	if st.Input != "in" || st.File != w.path || st.Size != length || st.Drained || st.Gone {
		t.Errorf("stream: %+v", st)
	}
	out, stuck := st.Outputs["out"], st.Outputs["stuck"]
	if out.At != length || out.LagBytes == nil || *out.LagBytes != 0 || out.LagSeconds != nil {
		t.Errorf("out: %+v", out)
	}
	if stuck.At != 0 || stuck.LagBytes == nil || *stuck.LagBytes != length || stuck.LagSeconds == nil || *stuck.LagSeconds < 0 {
		t.Errorf("stuck: %+v", stuck)
	}
	text := command(t, "state", "show", "-c", b.config).out
	for _, want := range []string{fmt.Sprintf("in use by the agent with pid %d", a.pid()), w.path + ": ", "last generation, format 1", "with a token to cut back to", " behind, written "} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
}

// TestStateShowIsNeverTorn asks again and again while the agent replaces the checkpoint as often as it can. What is shown has to be
// whole, and the agent must not notice.
func TestStateShowIsNeverTorn(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{agent: "checkpoint_interval: 10ms"})
	text := must[[]byte](t)(os.ReadFile(b.config))
	ok(t, os.WriteFile(b.config, bytes.Replace(text, []byte("checkpoint_interval: 100ms, "), nil, 1), 0o644))
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(100)
	a := b.start()
	arrive(t, a, b.out, 100)
	waitFor(t, "there are two generations", func() bool { return size(b.generation("checkpoint.prev")) > 0 })
	end := load(w)
	last := int64(0)
	for range 60 {
		s := b.shown()
		for _, g := range s.Generations {
			if g.State != "good" {
				t.Errorf("the %s generation is %s", g.Name, g.State)
			}
		}
		at := s.Pipelines[0].Streams[0].Outputs["out"].At
		if at < last {
			t.Errorf("the position went back from %d to %d", last, at)
		}
		last = at
	}
	end()
	settle(t, b, a, w)
	if strings.Contains(a.text(), "positions cannot be saved") {
		t.Error("looking at the state kept the agent from storing it")
	}
}

// TestStateOfAStoppedAgent follows a file through rotation, compression and removal while nobody runs.
func TestStateOfAStoppedAgent(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log")}})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(300)
	if r := b.once(); r.code != 0 {
		t.Fatalf("code %d", r.code)
	}
	at := w.written.Load()
	w.lines(50)
	before := holdings(t, b.state())
	look := func(file string, length int64, gone bool) {
		t.Helper()
		s := b.shown()
		st := s.Pipelines[0].Streams[0]
		if s.Running || st.File != file || st.Size != length || st.Gone != gone || st.Outputs["out"].At != at || st.Error != "" {
			t.Errorf("want %s with %d bytes, gone: %v; got %+v", file, length, gone, st)
		}
	}
	check := func(code int, want string) {
		t.Helper()
		if r := command(t, "state", "check", "-c", b.config); r.code != code || !strings.Contains(r.out, want) {
			t.Errorf("state check: code %d, want %d and %q in:\n%s%s", r.code, code, want, r.out, r.errors)
		}
	}
	look(w.path, w.written.Load(), false)
	check(0, "positions that agree with the files: 1\n")
	ok(t, rename(w.path))
	look(w.path+".1", w.written.Load(), false)
	check(0, "state is good")
	ok(t, compress(w.path+".1"))
	look(w.path+".1.gz", w.written.Load(), false)
	check(0, "state is good")
	ok(t, os.Remove(w.path+".1.gz"))
	look(w.path, at, true)
	check(1, fmt.Sprintf("found: pipeline main: input in: output out at byte %d of %s", at, w.path))
	ok(t, os.WriteFile(w.path, []byte("something else\n"), 0o644))
	check(1, "the records are gone")
	// The same beginning, as long, and other content.
	other := newWriter(t, b.log("other"), 1)
	other.lines(1)
	other.seq = 1000
	other.lines(600)
	ok(t, os.Rename(other.path, w.path))
	check(1, "the records are gone")
	for path, text := range holdings(t, b.state()) {
		if before[path] != text {
			t.Errorf("%s was touched", path)
		}
	}
	ok(t, os.RemoveAll(b.state()))
	for _, c := range []string{"show", "check", "repair"} {
		if r := command(t, "state", c, "-c", b.config); r.code != 1 || !strings.Contains(r.errors, b.state()) {
			t.Errorf("state %s without a state: code %d: %s", c, r.code, r.errors)
		}
	}
	if _, err := os.Stat(b.state()); err == nil {
		t.Error("a state directory was made by looking for one")
	}
}

// damages are the ways in which a checkpoint may be found after a crash of the machine or a fault of the disk.
func damages(rnd *rand.Rand) map[string]func(t *testing.T, path string) {
	change := func(f func(p []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			p := must[[]byte](t)(os.ReadFile(path))
			// Both generations may be one file under two names.
			ok(t, os.Remove(path))
			ok(t, os.WriteFile(path, f(p), 0o640))
		}
	}
	return map[string]func(*testing.T, string){
		"zeroed": change(func(p []byte) []byte { return make([]byte, len(p)) }),
		"cut":    change(func(p []byte) []byte { return p[:rnd.IntN(len(p))] }),
		"flipped": change(func(p []byte) []byte {
			p[rnd.IntN(len(p))] ^= 1 << rnd.IntN(8)
			return p
		}),
		"absent": func(t *testing.T, path string) { t.Helper(); ok(t, os.Remove(path)) },
	}
}

// said is what a start says of a damage.
func said(kind string) string {
	if kind == "absent" {
		return "checkpoint is not there, the one before it is"
	}
	return "is damaged"
}

// TestC03DamageOfTheLastCheckpoint kills the agent at a random moment, damages the checkpoint, and starts it again: it says so, goes
// on from the generation before, and because the file is cut back to that, nothing is missing and nothing is there twice.
func TestC03DamageOfTheLastCheckpoint(t *testing.T) {
	for kind := range damages(nil) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for seed := range number(t, "STACKTRAIL_SEEDS", 5) {
				rnd := seeded(uint64(seed)<<8 | uint64(len(kind)))
				b := newBox(t)
				b.write(setup{})
				w := newWriter(t, b.log("api.log"), 1)
				w.lines(100)
				a := b.start()
				arrive(t, a, b.out, 100)
				end := load(w)
				arrive(t, a, b.out, 300+rnd.IntN(3000))
				waitFor(t, "there are two generations", func() bool { return size(b.generation("checkpoint.prev")) > 0 })
				a.kill()
				end()
				damages(rnd)[kind](t, b.generation("checkpoint"))
				r := command(t, "state", "check", "-c", b.config)
				if r.code != 1 || !strings.Contains(r.out, said(kind)) {
					t.Errorf("seed %d: state check: code %d, want 1 and %q in: %s%s", seed, r.code, said(kind), r.out, r.errors)
				}
				a = b.start()
				a.says(said(kind))
				a.says("msg=started") // by then the output is cut back: what arrived counts
				settle(t, b, a, w)
			}
		})
	}
}

// TestC03RepeatsNoMoreThanSinceTheLastGoodOne does the same with a far end that cannot be cut back.
func TestC03RepeatsNoMoreThanSinceTheLastGoodOne(t *testing.T) {
	for kind := range damages(nil) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			c := newCollector(t, b.dir)
			b.write(setup{output: fmt.Sprintf("http: {url: %q, tls: {ca_file: %q}}", c.server.URL, c.ca), policy: "batch: {events: 50, linger: 10ms}"})
			w := newWriter(t, b.log("api.log"), 1)
			a := b.start()
			end := load(w)
			waitFor(t, "some have come", func() bool { return c.count() > 2000 && size(b.generation("checkpoint.prev")) > 0 })
			a.kill()
			end()
			damages(seeded(7))[kind](t, b.generation("checkpoint"))
			s := b.shown()
			if s.Used != "previous" {
				t.Errorf("the %s generation would be used", s.Used)
			}
			at := s.Pipelines[0].Streams[0].Outputs["out"].At
			a = b.start()
			a.says(said(kind))
			waitFor(t, "the checkpoint has all", func() bool {
				return b.shown().Pipelines[0].Streams[0].Outputs["out"].At == w.written.Load()
			})
			a.stop()
			c.verifyFrom(t, w, at)
		})
	}
}

// verifyFrom expects all records, and none from before a byte of the log twice.
func (c *collector) verifyFrom(t *testing.T, w *writer, at int64) {
	t.Helper()
	first, n := 0, int64(0)
	for ; n < at; first++ {
		n += int64(len(record{w.stream, first}.appendLine(nil)))
	}
	if n != at || first == 0 {
		t.Fatalf("position %d is not the end of a line, or none was stored", at)
	}
	c.verify(t, w)
	v := newVerifier(w)
	ok(t, v.read(bytes.NewReader(c.lines.Bytes())))
	for _, r := range v.result().duplicate {
		if r.seq < first {
			t.Errorf("record %d came twice, the last good checkpoint has all before %d", r.seq, first)
		}
	}
}

func TestC03BothGenerationsDamaged(t *testing.T) {
	t.Parallel()
	rnd := seeded(11)
	for kind := range damages(nil) {
		b := newBox(t)
		b.write(setup{})
		w := newWriter(t, b.log("api.log"), 1)
		w.lines(200)
		if r := b.once(); r.code != 0 {
			t.Fatalf("code %d", r.code)
		}
		for _, n := range []string{"checkpoint", "checkpoint.prev"} {
			damages(rnd)[kind](t, b.generation(n))
		}
		w.lines(100)
		r := b.once()
		want := "everything is read again"
		if kind == "absent" {
			want = "300 offered = 300 delivered" // which is what a first start does
		}
		if r.code != 0 || !strings.Contains(r.errors, want) {
			t.Errorf("%s: code %d, want 0 and %q: %s", kind, r.code, want, r.errors)
		}
		v := newVerifier(w)
		ok(t, v.file(b.out))
		if got := v.result(); len(got.missing)+len(got.corrupt) > 0 {
			t.Errorf("%s: nothing may be missing:\n%s", kind, got.faults())
		}
	}
}

func TestStateRepair(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(100)
	a := b.start()
	arrive(t, a, b.out, 100)
	for _, args := range [][]string{{"state", "repair", "-c", b.config}, {"state", "repair", "--dry-run", "-c", b.config}} {
		if r := command(t, args...); r.code != 1 || !strings.Contains(r.errors, strconv.Itoa(a.pid())) {
			t.Errorf("%v beside a running agent: code %d, want 1 and pid %d: %s", args, r.code, a.pid(), r.errors)
		}
	}
	if r := command(t, "state", "check", "-c", b.config); r.code != 0 || !strings.Contains(r.out, "not compared with the files, because an agent runs") {
		t.Errorf("state check beside a running agent: code %d\n%s%s", r.code, r.out, r.errors)
	}
	w.lines(100)
	arrive(t, a, b.out, 200)
	a.kill()

	repair := func(want ...string) {
		t.Helper()
		r := command(t, "state", "repair", "-c", b.config)
		for _, text := range want {
			if r.code != 0 || !strings.Contains(r.out, text) {
				t.Errorf("state repair: code %d, want 0 and %q in:\n%s%s", r.code, text, r.out, r.errors)
			}
		}
	}
	last, prev := b.generation("checkpoint"), b.generation("checkpoint.prev")
	repair("there is nothing to repair", "a start will go on from the positions of ")
	damages(seeded(3))["flipped"](t, last)
	before := holdings(t, b.state())
	r := command(t, "state", "repair", "--dry-run", "-c", b.config, "-o", "json")
	var plan struct {
		DryRun bool `json:"dry_run"`
		Steps  []struct{ What, From, To string }
	}
	ok(t, json.Unmarshal([]byte(r.out), &plan))
	if !plan.DryRun || len(plan.Steps) != 2 || plan.Steps[0].To != last+".damaged" || plan.Steps[1].From != prev || plan.Steps[1].To != last {
		t.Errorf("plan: %+v", plan)
	}
	for path, text := range holdings(t, b.state()) {
		if before[path] != text {
			t.Errorf("the dry run touched %s", path)
		}
	}
	repair("set aside what is damaged: "+last, "fall back to the generation before: "+prev)
	after := holdings(t, b.state())
	if after[last+".damaged"] != before[last] || after[last] != before[prev] || after[prev] != before[prev] {
		t.Error("repair did not set the damaged one aside and take the one before it")
	}
	// A second damage must not cost what was set aside for the first.
	damages(seeded(4))["cut"](t, last)
	damages(seeded(5))["zeroed"](t, prev)
	broken := holdings(t, b.state())
	repair("a start will have no positions", last+".damaged.1", prev+".damaged")
	after = holdings(t, b.state())
	if after[last+".damaged"] != before[last] || after[last+".damaged.1"] != broken[last] || after[prev+".damaged"] != broken[prev] || after[last]+after[prev] != "" {
		t.Error("something was removed")
	}
	repair("there is nothing to repair", "a start will have no positions")
	if r := command(t, "state", "show", "-c", b.config); r.code != 1 || !strings.Contains(r.errors, "there is no checkpoint") {
		t.Errorf("state show: code %d: %s", r.code, r.errors)
	}
	if r := b.once(); r.code != 0 || !strings.Contains(r.errors, "200 offered = 200 delivered") {
		t.Errorf("code %d: %s", r.code, r.errors)
	}
}

// TestC07EveryCommandRefusesANewerState has the newer one as the last and as the one before it.
func TestC07EveryCommandRefusesANewerState(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"checkpoint", "checkpoint.prev"} {
		b := newBox(t)
		b.write(setup{})
		newWriter(t, b.log("api.log"), 1).lines(10)
		if r := b.once(); r.code != 0 {
			t.Fatalf("code %d", r.code)
		}
		if name == "checkpoint.prev" {
			ok(t, os.Remove(b.generation("checkpoint")))
		}
		ok(t, os.Remove(b.generation(name)))
		ok(t, os.WriteFile(b.generation(name), []byte("stacktrail-checkpoint 2 something of another time\n{}"), 0o640))
		before := holdings(t, b.state())
		window := []string{"--since", "2026-03-02T00:00:00Z", "--until", "2026-03-03T00:00:00Z", "--outputs", "out"}
		for _, args := range [][]string{
			{"run"},
			{"run", "--once"},
			{"state", "show"},
			{"state", "check"},
			{"state", "repair"},
			{"state", "repair", "--dry-run"},
			append([]string{"backfill"}, window...),
		} {
			r := command(t, append(args, "-c", b.config)...)
			if r.code != 74 || !strings.Contains(r.errors, b.generation(name)) || !strings.Contains(r.errors, "format 2") {
				t.Errorf("%v with a newer %s: code %d, want 74, file and format in: %s", args, name, r.code, r.errors)
			}
		}
		after := holdings(t, b.state())
		delete(before, b.generation("lock"))
		for path, text := range before {
			if after[path] != text {
				t.Errorf("%s was touched", path)
			}
		}
	}
}

// disk runs the agent with its state on a small disk of its own, which is seen from outside through the process.
func (b *box) disk(t *testing.T) (a *agent, inside string) {
	t.Helper()
	needRoot(t, "to mount a small disk")
	ok(t, os.MkdirAll(b.state(), 0o755))
	script := `mount -t tmpfs -o size=1m stacktrail "$1" && shift && exec "$@"`
	a = b.launch(need(t, "unshare"), "--mount", "sh", "-c", script, "sh", b.state(), stacktrail(t), "run", "-c", b.config)
	a.says("msg=started")
	return a, fmt.Sprintf("/proc/%d/root%s", a.pid(), b.state())
}

// readOnly puts a view of the directory that cannot be written to in its place, as the agent sees it. The function that it returns takes
// it away. (A disk with files that are open for writing cannot be mounted anew.)
func (a *agent) readOnly(t *testing.T, dir string) (undo func()) {
	t.Helper()
	inside := func(script string) {
		t.Helper()
		cmd := exec.Command(need(t, "nsenter"), "--target", strconv.Itoa(a.pid()), "--mount", "sh", "-ec", script, "sh", dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	inside(`mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"`)
	return func() { inside(`umount "$1"`) }
}

// TestC04AStateThatCannotBeStored has the state's disk full, then read-only, for a while: delivery goes on, the agent is not ready and
// says why, a scrape shows the age of the checkpoint, and it catches up afterwards. A kill meanwhile repeats nothing in the file.
func TestC04AStateThatCannotBeStored(t *testing.T) {
	for _, kind := range []string{"full", "read-only"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.write(setup{})
			w := newWriter(t, b.log("api.log"), 1)
			w.lines(500)
			a, inside := b.disk(t)
			arrive(t, a, b.out, 500)
			why, mend := "no space left on device", func() { ok(t, os.Remove(filepath.Join(inside, "ballast"))) }
			if kind == "full" {
				fill(t, filepath.Join(inside, "ballast"))
			} else {
				why, mend = "read-only file system", a.readOnly(t, b.state())
			}
			beats(8, 150*time.Millisecond, func(int) { w.lines(100) })
			arrive(t, a, b.out, w.count())
			waitFor(t, "the agent is not ready, and says why", func() bool {
				code, body := a.get("/readyz")
				return code == http.StatusServiceUnavailable && strings.Contains(body, "positions cannot be saved") && strings.Contains(body, why)
			})
			if code, body := a.get("/livez"); code != http.StatusOK {
				t.Errorf("/livez: %d %s", code, body)
			}
			if n := strings.Count(a.text(), "positions cannot be saved"); n != 1 {
				t.Errorf("it is said %d times in the log", n)
			}
			mend()
			waitFor(t, "the agent is ready again", func() bool { code, _ := a.get("/readyz"); return code == http.StatusOK })
			a.says("positions are saved again")
			w.lines(100)
			settle(t, b, a, w)
		})
	}
}

// TestC04AKillWhileTheStateCannotBeStored starts again from what could be stored last. The disk lives as long as somebody sees it: the
// test keeps a copy of what is on it.
func TestC04ARotationWhileTheStateCannotBeStoredHoldsNothingUp(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	api, other := newWriter(t, b.log("api.log"), 1), newWriter(t, b.log("other.log"), 2)
	api.lines(500)
	other.lines(500)
	a, _ := b.disk(t)
	arrive(t, a, b.out, 1000)
	mend := a.readOnly(t, b.state())
	api.lines(100)
	arrive(t, a, b.out, 1100)
	ok(t, os.Rename(b.log("api.log"), b.log("api.log.1")))
	api.reopen()
	api.lines(300) // into a file that no checkpoint can name
	other.lines(300)
	arrive(t, a, b.out, 1700)
	a.says("positions cannot be saved: a new source is delivered all the same")
	mend()
	a.says("positions are saved again")
	api.lines(100)
	other.lines(100)
	arrive(t, a, b.out, 1900)
	a.stop()
	verify(t, []*writer{api, other}, b.out)
}

func TestC04AKillWhileTheStateCannotBeStored(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(500)
	a, inside := b.disk(t)
	arrive(t, a, b.out, 500)
	a.readOnly(t, b.state())
	w.lines(1000)
	arrive(t, a, b.out, 1500)
	ok(t, os.CopyFS(filepath.Join(b.dir, "kept"), os.DirFS(inside)))
	a.kill()
	ok(t, os.Remove(b.state()))
	ok(t, os.Rename(filepath.Join(b.dir, "kept"), b.state()))
	w.lines(100)
	a = b.start()
	a.says("msg=started")
	settle(t, b, a, w)
	if a.cutBytes() == 0 {
		t.Error("nothing was cut back: the test proves nothing")
	}
}

// TestC05CommandsThatWriteAreRefusedBesideAnAgent names what would write to a state directory that is in use, and what would only read.
func TestC05CommandsThatWriteAreRefusedBesideAnAgent(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	for _, args := range [][]string{{"run"}, {"run", "--once"}, {"state", "repair"}} {
		r := command(t, append(args, "-c", b.config)...)
		if r.code != 1 || !strings.Contains(r.errors, "pid "+strconv.Itoa(a.pid())) {
			t.Errorf("%v: code %d, want 1 and pid %d: %s", args, r.code, a.pid(), r.errors)
		}
	}
	for _, args := range [][]string{{"state", "show"}, {"state", "check"}, {"check"}} {
		if r := command(t, append(args, "-c", b.config)...); r.code != 0 {
			t.Errorf("%v: code %d: %s", args, r.code, r.errors)
		}
	}
	a.signal(syscall.SIGTERM)
	if code := a.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if s := b.shown(); s.Running || s.PID != 0 {
		t.Errorf("the lock of an agent that has ended: %+v", s)
	}
}
