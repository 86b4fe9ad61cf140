//go:build blackbox

package scripts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soak is four to eight logs, each with a service that writes and rotates in its own way, and somebody who kills, freezes and starves
// the agent meanwhile.
type soak struct {
	t    *testing.T
	b    *box
	seed uint64
	stop chan struct{}
	end  time.Time

	// calm is held for reading by whoever needs an agent that is not killed: what is removed must have been read and stored.
	calm sync.RWMutex
	a    *agent // guarded by calm

	mu   sync.Mutex
	done map[string]int // what happened, and how often
}

func (s *soak) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[what]++
}

// soakGrace is how long the agent waits for what others may still write to.
const soakGrace = 2 * time.Second

// TestC01Soak is random kills, rotations of every kind and faults for STACKTRAIL_SOAK (20s), 0 missing and 0 double at the end.
func TestC01Soak(t *testing.T) {
	length := 20 * time.Second
	if v := os.Getenv("STACKTRAIL_SOAK"); v != "" {
		length = must[time.Duration](t)(time.ParseDuration(v))
	}
	seed := seedOf(t)
	s := &soak{t: t, b: newBox(t), seed: seed, stop: make(chan struct{}), end: time.Now().Add(length), done: map[string]int{}}
	s.b.brief = true
	rnd := seeded(seed)
	disk := s.smallDisk()
	files := 4 + rnd.IntN(5)
	t.Logf("seed %d, %d files, %v; another: STACKTRAIL_SEED=…", seed, files, length)
	var services []*service
	var writers []*writer
	var paths []string
	for i := range files {
		dir := s.b.log(fmt.Sprintf("svc%d", i))
		ok(t, os.Mkdir(dir, 0o755))
		sv := &service{s: s, rnd: seeded(seed<<16 | uint64(i)), dir: dir, w: newWriter(t, filepath.Join(dir, "api.log"), i)}
		home := filepath.Join(s.b.dir, fmt.Sprint("logrotate", i))
		ok(t, os.Mkdir(home, 0o755))
		switch i % 3 { // one way to name files for each service: real ones do not mix them either
		case 1:
			sv.l = newLogrotate(t, home, sv.w.path, "copytruncate", "compress", "delaycompress")
		case 2:
			sv.l = newLogrotate(t, home, sv.w.path, "nocreate", "compress", "delaycompress")
		}
		services, writers = append(services, sv), append(writers, sv.w)
		paths = append(paths, sv.w.path+[]string{"", "*"}[i%2])
	}
	s.b.write(setup{paths: paths, agent: "log: {level: debug}", tail: fmt.Sprintf("grace: %v, position: true", soakGrace), policy: "retry: {initial: 50ms, max: 500ms}"})
	s.start()
	for _, w := range writers { // what is rotated before the first look at a log is history
		w.lines(1)
	}
	arrive(t, s.a, s.b.out, files)
	var all sync.WaitGroup
	for _, sv := range services {
		all.Go(sv.run)
	}
	all.Go(func() { s.harm(rnd, disk) })
	all.Go(func() { s.progress(writers) })
	all.Wait()
	enlarge(t, disk)
	lines := 0
	for _, w := range writers {
		lines += w.count()
	}
	s.a.says("msg=started")
	arrive(t, s.a, s.b.out, lines)
	s.a.quiet()
	s.a.stop()
	t.Logf("%d lines; %v", lines, s.done)
	v := newVerifier(writers...)
	ok(t, v.file(s.b.out))
	r := v.result()
	// A rotated log is waited for its grace, because the agent, which does not own it, cannot know who has it open. Here a log is rotated
	// many times within that, so that files may overtake each other; lines of one file never do.
	t.Logf("%d files overtook another", len(r.outOfOrder))
	r.outOfOrder = nil
	r.exact(t)
	s.said()
	if t.Failed() {
		s.explain(r)
		t.Logf("seed %d", seed)
	}
}

// smallDisk mounts the disk on which state and output are.
func (s *soak) smallDisk() string {
	needRoot(s.t, "to mount a disk and to run the agent as another user")
	disk := filepath.Join(s.b.dir, "disk")
	ok(s.t, os.Mkdir(disk, 0o755))
	tmpfs(s.t, disk)
	for _, d := range []string{"state", "out"} {
		ok(s.t, os.Mkdir(filepath.Join(disk, d), 0o755))
		ok(s.t, os.Chown(filepath.Join(disk, d), 65534, 65534))
	}
	ok(s.t, os.Symlink(filepath.Join(disk, "state"), s.b.state()))
	s.b.out = filepath.Join(disk, "out", "out.ndjson")
	ok(s.t, copyFile(stacktrail(s.t), filepath.Join(s.b.dir, "stacktrail")))
	ok(s.t, os.Chmod(filepath.Join(s.b.dir, "stacktrail"), 0o755))
	return disk
}

// start starts the agent as nobody: root would read what it may not.
func (s *soak) start() {
	s.a = s.b.launch(need(s.t, "setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", filepath.Join(s.b.dir, "stacktrail"), "run", "-c", s.b.config)
}

func (s *soak) over() bool { return time.Now().After(s.end) || s.t.Failed() }

// harm kills, freezes, stops and starves the agent.
func (s *soak) harm(rnd *rand.Rand, disk string) {
	for !s.over() {
		poll(10*time.Millisecond, time.Duration(50+rnd.IntN(2500))*time.Millisecond, s.over)
		switch n := rnd.IntN(10); {
		case n < 6:
			s.note("kill")
			s.again(func() { s.a.kill() })
		case n < 7:
			s.note("term")
			s.again(func() {
				s.a.says("msg=started")
				s.a.stop()
			})
		case n < 8:
			s.note("freeze")
			s.calm.RLock()
			s.a.signal(syscall.SIGSTOP)
			poll(10*time.Millisecond, time.Duration(rnd.IntN(2000))*time.Millisecond, s.over)
			s.a.signal(syscall.SIGCONT)
			s.calm.RUnlock()
		case n < 9:
			s.note("down")
			s.again(func() {
				s.a.kill()
				poll(10*time.Millisecond, time.Duration(rnd.IntN(3000))*time.Millisecond, s.over)
			})
		default:
			s.note("full disk")
			s.calm.Lock() // nobody can wait for anything meanwhile
			shrink(s.t, disk)
			poll(10*time.Millisecond, time.Duration(rnd.IntN(2000))*time.Millisecond, s.over)
			if rnd.IntN(2) == 0 {
				s.note("kill on a full disk")
				s.restart(func() { s.a.kill() })
				poll(10*time.Millisecond, time.Second, s.over)
			}
			enlarge(s.t, disk)
			if s.a.ended() {
				s.restart(nil)
			}
			s.calm.Unlock()
		}
	}
}

// again ends the agent in some way and starts it.
func (s *soak) again(end func()) {
	s.calm.Lock()
	defer s.calm.Unlock()
	s.restart(end)
}

// restart does so while calm is held.
func (s *soak) restart(end func()) {
	if s.a.ended() {
		// On a full disk a start may fail, as it says; every other end is a fault.
		if s.a.cmd.ProcessState.ExitCode() != 0 && !strings.Contains(s.a.text(), "no space left") {
			s.t.Errorf("the agent ended by itself:\n%s", tailOf(s.a.text(), 2000))
		}
		s.note("start failed on a full disk")
	} else {
		end()
	}
	s.start()
}

func (s *soak) progress(writers []*writer) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for !s.over() {
		poll(100*time.Millisecond, 10*time.Second, s.over)
		lines := 0
		for _, w := range writers {
			lines += w.count()
		}
		s.mu.Lock()
		fmt.Fprintf(os.Stderr, "soak: %v left, %d lines, %s out, %v\n", time.Until(s.end).Round(time.Second), lines, mb(size(s.b.out)), s.done)
		s.mu.Unlock()
	}
}

// said looks for losses that the agents report: there are none.
func (s *soak) said() {
	for n := range s.b.starts {
		l := s.log(n + 1)
		text, _ := os.ReadFile(l)
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte("kept what was written")) {
				s.t.Logf("%s did not cut its output back: %s", filepath.Base(l), line)
			}
			if bytes.Contains(line, []byte("vanished")) || bytes.Contains(line, []byte("is lost")) || bytes.Contains(line, []byte("gone before")) || bytes.Contains(line, []byte("panic")) {
				s.t.Errorf("%s says: %s", filepath.Base(l), line)
				for back := range 3 {
					before, _ := os.ReadFile(s.log(n + 1 - back))
					s.t.Logf("agent %d:\n%s", n+1-back, tailOf(string(before), 16<<10))
				}
			}
		}
	}
}

func (s *soak) log(n int) string { return filepath.Join(s.b.dir, fmt.Sprintf("agent-%d.log", n)) }

// explain says where the first missing and doubled lines stand.
func (s *soak) explain(r verdict) {
	for _, m := range append(r.missing[:min(len(r.missing), 3)], r.duplicate[:min(len(r.duplicate), 3)]...) {
		path := string(m.appendPath(nil))
		names, _ := filepath.Glob(s.b.log(fmt.Sprintf("svc%d*/*", m.stream)))
		for _, n := range names {
			if holds(n, path) {
				s.t.Logf("%v stands in %s", m, n)
			}
		}
		text, _ := os.ReadFile(s.b.out)
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte(path)) {
				s.t.Logf("%v arrived as %s", m, line)
			}
		}
	}
}

// service writes a log and rotates it.
type service struct {
	s   *soak
	rnd *rand.Rand
	dir string
	w   *writer
	l   *logrotate
	n   int

	from int64 // where arrived begins to look
}

func (v *service) run() {
	for !v.s.over() {
		beats(1, time.Duration(1+v.rnd.IntN(40))*time.Millisecond, func(int) {})
		switch n := v.rnd.IntN(2000); {
		case n < 1800:
			v.w.lines(1 + v.rnd.IntN(12))
		case n < 1900 && v.l != nil:
			v.s.note("logrotate")
			v.l.rotate()
			v.w.reopen()
		case n < 1860:
			v.s.note("rename")
			v.must(rename(v.w.path))
			if v.rnd.IntN(2) == 0 {
				v.w.lines(1 + v.rnd.IntN(20)) // the service did not hear of it so far
			}
			v.w.reopen()
			if p := numbered(v.w.path, 2); v.rnd.IntN(2) == 0 && size(p) > 0 {
				v.s.note("compress")
				v.must(compress(p))
			}
		case n < 1900:
			v.s.note("copytruncate")
			v.must(copytruncate(v.w.path))
		case n < 1905:
			v.chmod()
		case n < 1997:
			v.w.lines(100)
		default:
			v.remove()
		}
	}
}

// chmod makes the log unreadable for a while. An agent that starts meanwhile cannot prove what its output may be cut back to: it keeps what
// is there, and lines may come twice. So nobody kills it then.
func (v *service) chmod() {
	if os.Getenv("STACKTRAIL_SOAK_CHMOD") != "kill" {
		v.s.calm.RLock()
		defer v.s.calm.RUnlock()
	}
	v.s.note("chmod")
	v.must(v.w.f.Chmod(0))
	v.w.lines(5)
	poll(10*time.Millisecond, time.Duration(v.rnd.IntN(1500))*time.Millisecond, v.s.over)
	v.must(v.w.f.Chmod(0o644))
}

func (v *service) must(err error) {
	if err != nil {
		v.s.t.Errorf("rotating: %v", err)
	}
}

// remove waits until all is read and stored, and removes old files, the log itself, or the whole folder.
func (v *service) remove() {
	v.s.calm.RLock()
	defer v.s.calm.RUnlock()
	a := v.s.a
	hopeless := a.ended
	if !v.stored(hopeless) {
		return
	}
	switch v.rnd.IntN(3) {
	case 0:
		v.s.note("delete")
		v.must(os.Remove(v.w.path))
		v.w.reopen()
	case 1:
		v.s.note("folder replaced")
		v.n++
		v.must(os.Rename(v.dir, fmt.Sprintf("%s.old%d", v.dir, v.n)))
		v.must(os.Mkdir(v.dir, 0o755))
		v.w.reopen()
	default:
		v.s.note("old ones deleted")
		names, _ := filepath.Glob(v.w.path + ".*")
		for _, n := range names {
			v.must(os.Remove(n))
		}
	}
	// Until the agent has let go of it, a kill makes it keep its output as it is, and lines may come twice.
	v.stored(hopeless)
}

// stored waits until all of the service's lines are delivered and the state says so, unless that is hopeless.
func (v *service) stored(hopeless func() bool) bool {
	v.from = max(0, size(v.s.b.out)-64<<20)
	v.w.lines(1) // so that the log is not empty
	// What was compressed while the agent was down is looked at when its grace is over, and has no stream before.
	var since time.Time
	rested := func() bool {
		if !v.read() {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > soakGrace+time.Second
	}
	if !poll(200*time.Millisecond, patience, func() bool { return rested() || hopeless() }) {
		text := v.s.a.text()
		v.s.t.Errorf("%s is never read to its end: %s\n%s", v.w.path, v.s.b.streams(), text[max(0, len(text)-8<<10):])
		return false
	}
	for range 2 { // the second one began after all was read
		was := v.checkpoint()
		if !poll(20*time.Millisecond, 5*time.Second, func() bool { return v.checkpoint() != was || hopeless() }) {
			break // nothing changes any more, so it is stored
		}
	}
	return !hopeless() && v.read()
}

func (v *service) checkpoint() string {
	fi, err := os.Stat(filepath.Join(v.s.b.state(), "checkpoint"))
	if err != nil {
		return ""
	}
	return fmt.Sprint(fi.ModTime(), fi.Size())
}

// read reports whether the output has everything of this log, as the agent says, and nothing of it is unread on the disk.
func (v *service) read() bool {
	out, err := exec.Command(stacktrail(v.s.t), "status", "--admin-socket", v.s.b.socket(), "-o", "json").Output()
	var state struct {
		Pipelines []struct {
			Inputs []struct {
				Streams []struct {
					Source     string
					Size, Read int64
					At         map[string]int64
					Done       bool
				}
			}
		}
	}
	if err != nil || json.Unmarshal(out, &state) != nil || len(state.Pipelines) == 0 {
		return false
	}
	live := false
	for _, st := range state.Pipelines[0].Inputs[0].Streams {
		if !strings.HasPrefix(st.Source, v.dir+"/") {
			continue
		}
		if st.Source == v.w.path && st.Size == size(v.w.path) && st.At["out"] == st.Size {
			live = true
		} else if !st.Done {
			return false
		}
	}
	// That the last line is in the output, too, is what counts.
	return live && v.arrived()
}

// arrived looks for the last line in what was written since stored was called. An agent that was started just before may have cut the
// output back since.
func (v *service) arrived() bool {
	f, err := os.Open(v.s.b.out)
	if err != nil {
		return false
	}
	defer f.Close()
	want := record{v.w.stream, v.w.count() - 1}.appendPath(nil)
	p, kept := make([]byte, 1<<20), 0
	for at := v.from; ; {
		n, err := f.ReadAt(p[kept:], at)
		if bytes.Contains(p[:kept+n], want) {
			return true
		}
		if err != nil {
			return false
		}
		at += int64(n)
		kept = copy(p, p[kept+n-len(want):kept+n])
	}
}
