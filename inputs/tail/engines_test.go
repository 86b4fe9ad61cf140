package tail

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestWhatTheLibraryAloneLoses puts both engines through each situation in which nxadm/tail v1.4.11 in its default use was seen to
// lose, repeat or tear lines, or to fall silent. The names say the situation, the comments what the library does there.
func TestWhatTheLibraryAloneLoses(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"native", "nxadm"} {
		for name, test := range map[string]func(*testing.T, *live){
			"D1 line in two writes":           linesInTwoWrites,
			"D2 writer reopens late":          writerReopensLate,
			"D4 writer rotates itself":        writerRotatesItself,
			"D5 replaced by a smaller file":   func(t *testing.T, v *live) { replaced(t, v, 10) },
			"D5 replaced by a larger file":    func(t *testing.T, v *live) { replaced(t, v, 300) },
			"D7 regrown past the old offset":  regrown,
			"D8 copytruncate five times":      copytruncateFiveTimes,
			"D9 stopped and started at once":  stoppedAndStarted,
			"D11 a line without end":          lineWithoutEnd,
			"D15 two inputs on one file":      twoInputs,
			"D16 slow consumer, 2 rotations":  slowConsumer,
			"D18 position beyond the end":     positionBeyondTheEnd,
			"D20 one line at a time":          oneLineAtATime,
			"deleted, later there again":      deletedAndBack,
			"rename rotation between 2 looks": rotatedBetweenLooks,
		} {
			t.Run(engine+"/"+name, func(t *testing.T) {
				t.Parallel()
				_, path := file1(t)
				c := testConfig(path)
				c.Engine, c.Grace = engine, 2*time.Second // a copy that is written may pause for as long on a loaded machine
				test(t, &live{a: newFakeAgent(t), c: c, path: path})
			})
		}
	}
}

// live is a file that is written and followed.
type live struct {
	a    *fakeAgent
	c    Config
	path string
	n    int // lines written
}

// write appends n lines to the file.
func (v *live) write(t *testing.T, n int) {
	t.Helper()
	appendTo(t, v.path, v.next(n))
}

func (v *live) next(n int) string {
	v.n += n
	return textOf(v.n-n, v.n)
}

// caughtUp waits until all that was written arrived.
func (v *live) caughtUp(t *testing.T) {
	t.Helper()
	until(t, fmt.Sprintf("%d lines", v.n), has(v.a, v.n))
}

// check demands all that was written, each line once.
func (v *live) check(t *testing.T) {
	t.Helper()
	v.caughtUp(t)
	wantLines(t, v.a, v.n)
}

// follow writes some lines and has the live end followed by the engine.
func (v *live) follow(t *testing.T) *running {
	t.Helper()
	v.write(t, 100)
	r := start(t, v.a, v.c)
	v.caughtUp(t)
	v.write(t, 1) // at its end now: the library is used from here on
	v.caughtUp(t)
	return r
}

// The library jumps to the present end after a part of a line.
func linesInTwoWrites(t *testing.T, v *live) {
	v.follow(t)
	f, err := os.OpenFile(v.path, os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer f.Close()
	for range 2000 {
		l := v.next(1)
		_, err = f.WriteString(l[:len(l)/2])
		must(t, err)
		_, err = f.WriteString(l[len(l)/2:])
		must(t, err)
	}
	v.check(t)
}

// The library opens the new file at once and never reads what the writer still puts into the old one.
func writerReopensLate(t *testing.T, v *live) {
	v.follow(t)
	for i := range 5 {
		old, err := os.OpenFile(v.path, os.O_WRONLY|os.O_APPEND, 0o644)
		must(t, err)
		must(t, os.Rename(v.path, fmt.Sprintf("%s.%d", v.path, 9-i)))
		must(t, os.WriteFile(v.path, nil, 0o644))
		_, err = old.WriteString(v.next(200))
		must(t, err)
		must(t, old.Close())
		v.write(t, 200)
		v.caughtUp(t)
	}
	v.check(t)
}

// The library takes whichever of two events comes first.
func writerRotatesItself(t *testing.T, v *live) {
	v.follow(t)
	for range 30 {
		v.write(t, 400)
		for i := 30; i > 0; i-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", v.path, i), fmt.Sprintf("%s.%d", v.path, i+1)) // most do not exist yet
		}
		must(t, os.Rename(v.path, v.path+".1"))
	}
	v.write(t, 10)
	v.check(t)
}

// The library reads it twice, or reads the dead inode for ever.
func replaced(t *testing.T, v *live, n int) {
	v.follow(t)
	for range 20 {
		v.caughtUp(t) // what it holds is gone after this
		appendTo(t, v.path+".new", v.next(n))
		must(t, os.Rename(v.path+".new", v.path))
	}
	v.check(t)
}

// The library only notices a smaller size.
func regrown(t *testing.T, v *live) {
	v.follow(t)
	copyTruncate(t, v.path, v.path+".1", v.next(1500))
	v.check(t)
}

// The library misses what is written and cut between two polls.
func copytruncateFiveTimes(t *testing.T, v *live) {
	v.follow(t)
	for range 5 {
		for i := 5; i > 0; i-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", v.path, i), fmt.Sprintf("%s.%d", v.path, i+1)) // most do not exist yet
		}
		v.write(t, 3000)
		copyTruncate(t, v.path, v.path+".1", "")
	}
	v.write(t, 10)
	v.check(t)
}

// The library's second tail of a path is deaf.
func stoppedAndStarted(t *testing.T, v *live) {
	r := v.follow(t)
	for range 10 {
		r.stop()
		v.a.crash()
		r = start(t, v.a, v.c)
		v.write(t, 5)
		v.caughtUp(t)
		v.write(t, 5)
		v.caughtUp(t)
	}
	v.check(t)
}

// The library holds the whole line, and gives its pieces one position.
func lineWithoutEnd(t *testing.T, v *live) {
	v.c.MaxLine = 64 << 10
	v.follow(t)
	long := strings.Repeat("long ", 600<<10)
	appendTo(t, v.path, long+"\n")
	v.write(t, 100)
	until(t, "the lines after it", has(v.a, v.n+1))
	cut := 0
	for _, g := range v.a.all() {
		if strings.HasPrefix(g.text, "long ") {
			cut++
			if !g.truncated || len(g.text) != 64<<10 {
				t.Errorf("%d bytes of the long line arrived, flagged %v", len(g.text), g.truncated)
			}
		}
	}
	if got := v.a.texts(); cut != 1 || len(got) != v.n+1 || got[v.n] != line(v.n-1) {
		t.Errorf("%d records, %d of the long line", len(got), cut)
	}
}

// The library's second tail of a path is deaf once the first one stops.
func twoInputs(t *testing.T, v *live) {
	other := newFakeAgent(t)
	first := start(t, other, v.c)
	v.follow(t)
	until(t, "lines at the other", has(other, v.n))
	first.stop()
	v.write(t, 50)
	v.check(t)
}

// The library opens the newest file again and leaves out what was between.
func slowConsumer(t *testing.T, v *live) {
	v.follow(t)
	v.a.mu.Lock()
	gate := make(chan struct{})
	v.a.gate = gate
	v.a.mu.Unlock()
	v.write(t, 2000)
	must(t, os.Rename(v.path, v.path+".2"))
	v.write(t, 2000)
	must(t, os.Rename(v.path, v.path+".1"))
	v.write(t, 2000)
	gate <- struct{}{}
	close(gate)
	v.check(t)
}

// The library is silent until the next write and then begins at the beginning.
func positionBeyondTheEnd(t *testing.T, v *live) {
	r := v.follow(t)
	r.stop()
	v.a.crash()
	must(t, os.WriteFile(v.path, []byte(v.next(3)), 0o644))
	start(t, v.a, v.c)
	v.check(t)
}

// The library does not look again after it began to watch: a line waits for the next one.
func oneLineAtATime(t *testing.T, v *live) {
	v.follow(t)
	for range 100 {
		v.write(t, 1)
		v.caughtUp(t)
	}
	v.check(t)
}

func deletedAndBack(t *testing.T, v *live) {
	v.follow(t)
	for range 5 {
		v.caughtUp(t)
		must(t, os.Remove(v.path))
		v.write(t, 20)
		v.caughtUp(t)
	}
	v.check(t)
}

func rotatedBetweenLooks(t *testing.T, v *live) {
	v.follow(t)
	for i := range 3 {
		v.write(t, 50)
		must(t, os.Rename(v.path, fmt.Sprintf("%s.%d", v.path, 3-i)))
	}
	v.write(t, 50)
	v.check(t)
}
