//go:build blackbox

package scripts

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A stage plays one rotation to an agent that runs, that is stopped meanwhile, or that is killed again and again.

// mode is what happens to the agent while a log is rotated.
type mode string

const (
	running mode = "running"
	stopped mode = "stopped" // from before the rotation until after it
	killed  mode = "killed"  // at random moments, and started again at once
)

// play is one scenario of the table in rotations_test.go.
type play struct {
	name string // begins with the scenario's id
	tail string // more keys of the input
	// The parts: what is there when the rotation begins, the rotation, and what is written afterwards.
	before, rotate, after func(s *stage)
	siblings              bool // the patterns match the rotated files, too
	gone                  bool // what was not read when the file was removed is lost, and said
}

type stage struct {
	t    *testing.T
	b    *box
	mode mode
	rnd  *rand.Rand
	w    *writer
	all  []*writer // w, its successors, and one beside

	beside *writer
	a      *agent // nil while none runs
	logs   []*agent
	killer *reaper
	frozen bool
	l      *logrotate
}

func newStage(t *testing.T, p play, m mode, seed uint64, also string) *stage {
	t.Helper()
	b := newBox(t)
	s := &stage{t: t, b: b, mode: m, rnd: seeded(seed)}
	s.w = newWriter(t, b.log("api.log"), 1)
	s.beside = newWriter(t, b.log("beside.log"), 9)
	s.all = []*writer{s.w, s.beside}
	paths := []string{b.log("api.log"), s.beside.path}
	if p.siblings {
		paths[0] += "*"
	}
	s.l = newLogrotate(t, b.dir, s.w.path, "copytruncate", "compress", "delaycompress", "notifempty")
	b.write(setup{paths: paths, tail: p.tail, also: also})
	return s
}

// play goes through the parts and expects every line exactly once.
func (s *stage) play(p play) {
	s.t.Helper()
	s.up()
	p.before(s)
	switch s.mode {
	case stopped:
		s.down()
		p.rotate(s)
		s.up()
		p.after(s)
	case killed:
		s.killer = newReaper(s)
		p.rotate(s)
		p.after(s)
		s.killer.stop()
	default:
		p.rotate(s)
		p.after(s)
	}
}

// up starts the agent.
func (s *stage) up() {
	s.a = s.b.start()
	s.logs = append(s.logs, s.a)
}

// down ends it cleanly.
func (s *stage) down() {
	s.t.Helper()
	s.a.says("msg=started")
	s.a.stop()
}

// hold keeps the agent from looking until release: what happens meanwhile happens between two looks.
func (s *stage) hold() {
	if s.mode == running {
		s.a.says("msg=started")
		s.a.signal(syscall.SIGSTOP)
		s.frozen = true
	}
}

func (s *stage) release() {
	if s.frozen {
		s.a.signal(syscall.SIGCONT)
		s.frozen = false
	}
}

// lines is how many were written in all.
func (s *stage) lines() (n int) {
	for _, w := range s.all {
		n += w.count()
	}
	return n
}

// arrived waits until all has arrived.
func (s *stage) arrived() {
	s.t.Helper()
	s.a.says("msg=started") // by then the output is cut back
	arrive(s.t, s.a, s.b.out, s.lines())
}

// next makes another writer at the log's path, for a stream of its own.
func (s *stage) next() *writer {
	w := newWriter(s.t, s.w.path, len(s.all)+1)
	s.all = append(s.all, w)
	return w
}

// text is what all processes logged.
func (s *stage) text() string {
	var b strings.Builder
	for _, a := range s.logs {
		b.WriteString(a.text())
	}
	return b.String()
}

// settle waits for what was written, looks whether more comes, and returns the difference.
func (s *stage) settle(p play) verdict {
	s.t.Helper()
	if p.gone && s.mode != running {
		// Nobody knows how many lines are to be waited for: those beside, and those after, come last.
		s.w.lines(1)
		last := string(record{s.w.stream, s.w.count() - 1}.appendPath(nil))
		s.a.says("msg=started")
		waitFor(s.t, "the last record arrives", func() bool { return holds(s.b.out, last) || s.a.ended() })
	} else {
		s.arrived()
	}
	pulse(s.t, s.b, s.a, s.beside, 6)
	s.a.stop()
	v := newVerifier(s.all...)
	ok(s.t, v.file(s.b.out))
	return v.result()
}

// exact expects every line once; where the file was removed, what is missing has to be said.
func (s *stage) exact(p play, v verdict) {
	s.t.Helper()
	if p.gone && s.mode != running && len(v.missing) > 0 {
		text := s.text()
		if !strings.Contains(text, "file vanished") && !strings.Contains(text, "part of a file is lost") {
			s.t.Errorf("%d lines of a removed file are missing and the log says nothing", len(v.missing))
		}
		v.missing = nil
	}
	if p.gone && s.mode == killed && strings.Contains(s.text(), "repetitions are possible") {
		// What the checkpoint did not have of a removed file cannot be read again, so the output keeps all that follows the checkpoint,
		// says so, and has the rest twice.
		v.duplicate, v.outOfOrder = nil, nil
	}
	v.exact(s.t)
	if len(v.others) > 0 {
		s.t.Errorf("%d records beside the written ones: %.300v", len(v.others), v.others)
	}
}

// reaper kills the agent at random moments and starts it again, until it is stopped. It has the stage's agent to itself meanwhile.
type reaper struct {
	s     *stage
	quit  chan struct{}
	ended chan struct{}
	kills int
}

func newReaper(s *stage) *reaper {
	r := &reaper{s: s, quit: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		for {
			// Mostly within the start or shortly after it, when most is decided.
			pause := time.Duration(s.rnd.IntN(int(400 * time.Millisecond)))
			select {
			case <-r.quit:
				return
			case <-time.After(pause):
			}
			if s.a.ended() {
				s.t.Error("the agent ended by itself")
				return
			}
			_ = s.a.cmd.Process.Kill()
			<-s.a.done
			r.kills++
			s.up()
		}
	}()
	return r
}

// stop ends it after at least two kills. The agent runs then.
func (r *reaper) stop() {
	r.s.t.Helper()
	poll(10*time.Millisecond, time.Duration(400+r.s.rnd.IntN(800))*time.Millisecond, func() bool { return false })
	close(r.quit)
	<-r.ended
}

// toSize writes lines of w until its file has exactly this size; a line in no known format makes up for the rest.
func toSize(s *stage, w *writer, want int64) {
	s.t.Helper()
	for {
		next := record{w.stream, w.count()}.appendLine(nil)
		if size(w.path)+int64(len(next))+2 > want {
			break
		}
		w.lines(1)
	}
	w.raw([]byte(strings.Repeat("-", int(want-size(w.path))-1) + "\n"))
	if got := size(w.path); got != want {
		s.t.Fatalf("the log has %d bytes, want %d", got, want)
	}
}

// held runs f while nobody writes to the log.
func (s *stage) held(f func()) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	f()
}

// seedOf reads STACKTRAIL_SEED, or gives a fixed one.
func seedOf(t testing.TB) uint64 { return uint64(number(t, "STACKTRAIL_SEED", 1)) }

// mustHave fails the test if a file is not there or empty.
func mustHave(t testing.TB, path string) {
	t.Helper()
	if size(path) == 0 {
		names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
		t.Errorf("%s is not there or empty; there are %v", filepath.Base(path), names)
	}
}

// drop removes a file.
func drop(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Error(fmt.Errorf("removing a log: %w", err))
	}
}
