//go:build blackbox

package scripts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// What a file is: R12 to R18, and what stands in it: R22.

// counter sums up a counter of the agent's over all its labels, of which one has this text in it.
func (a *agent) counter(name, label string) (sum int64) {
	a.t.Helper()
	_, body := a.get("/metrics")
	for _, m := range regexp.MustCompile(`(?m)^`+name+`\{([^}]*)\} (\S+)$`).FindAllStringSubmatch(body, -1) {
		if !bytes.Contains([]byte(m[1]), []byte(label)) {
			continue
		}
		v := must[float64](a.t)(strconv.ParseFloat(m[2], 64))
		sum += int64(v)
	}
	return sum
}

// lost is how many files and bytes the agent says to have lost.
func (a *agent) lost() (files, bytes int64) {
	return a.counter("stacktrail_plugin_total", `name="lost_files"`), a.counter("stacktrail_input_lost_bytes_total", "")
}

// TestR12InodesThatAreUsedAgainAtOnce has names be removed and made again, thousands of times: the file system gives the new files
// the numbers of the old ones. Each name is made anew as soon as what was in it has arrived, many of them at a time.
func TestR12InodesThatAreUsedAgainAtOnce(t *testing.T) {
	t.Parallel()
	const names = 100
	rounds := number(t, "STACKTRAIL_CHURN", 2000) / names
	b := newBox(t)
	b.write(setup{tail: "grace: 100ms"})
	a := b.start()
	a.says("msg=started")
	beside := newWriter(t, b.log("beside.log"), names)
	inodes := map[uint64]int{}
	writers := []*writer{beside}
	for i := range names {
		w := newWriter(t, b.log(fmt.Sprintf("api-%dx.log", i)), i)
		writers = append(writers, w)
	}
	c := &arrivals{path: b.out}
	want := 0
	for round := range rounds {
		for i, w := range writers[1:] {
			if round > 0 {
				drop(t, w.path)
				w.reopen()
			}
			w.lines(1 + (round+i)%3)
			want += 1 + (round+i)%3
			fi := must[os.FileInfo](t)(w.f.Stat())
			inodes[inode(fi)]++
		}
		if !poll(2*time.Millisecond, patience, func() bool { return c.lines() >= want }) {
			t.Errorf("round %d: %d of %d lines arrived", round, c.lines(), want)
			break
		}
	}
	settle(t, b, a, writers...)
	t.Logf("%d files with %d inodes", rounds*names, len(inodes))
	if len(inodes) > rounds*names/2 && rounds > 2 {
		t.Error("the file system did not give numbers again: this tells nothing")
	}
}

// TestR12FilesThatLiveTooShortAreCounted makes and removes a file as fast as it goes, without waiting for the agent. A line that did not
// arrive has to be counted as a file that was missed.
func TestR12FilesThatLiveTooShortAreCounted(t *testing.T) {
	t.Parallel()
	const rounds = 2000
	b := newBox(t)
	b.write(setup{tail: "grace: 100ms"})
	a := b.start()
	a.says("msg=started")
	beside := newWriter(t, b.log("beside.log"), 1)
	pulse(t, b, a, beside, 1)
	var writers []*writer
	for i := range rounds { // each with a name of its own, so that the agent can know how many there were
		w := newWriter(t, b.log(fmt.Sprintf("short-%dx.log", i)), 10+i)
		w.lines(1)
		ok(t, w.f.Close())
		drop(t, w.path)
		writers = append(writers, w)
	}
	pulse(t, b, a, beside, 8)
	files, _ := a.lost()
	a.stop()
	v := newVerifier(append(writers, beside)...)
	ok(t, v.file(b.out))
	r := v.result()
	t.Logf("%d of %d files arrived, %d are counted as missed", rounds-len(r.missing), rounds, files)
	if int64(len(r.missing)) > files {
		t.Errorf("%d files did not arrive, %d are counted: the others are lost in silence", len(r.missing), files)
	}
	r.missing = nil
	r.exact(t)
}

func TestR13TwoHundredFilesWithTheSameBeginning(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{tail: "unparsed: drop"})
	same := bytes.Repeat(banner(), 4)
	var writers []*writer
	for i := range 200 {
		w := newWriter(t, b.log(fmt.Sprintf("same-%dx.log", i)), i)
		w.raw(same)
		w.lines(5)
		writers = append(writers, w)
	}
	a := b.start()
	arrive(t, a, b.out, 1000)
	a.kill()
	for i, w := range writers {
		w.lines(3)
		if i%4 == 0 {
			ok(t, rename(w.path))
			w.reopen()
			w.raw(same)
			w.lines(2)
		}
	}
	a = b.start()
	settle(t, b, a, writers...)
}

// TestR14FilesThatAreShorterThanTheirFingerprint grow in small steps, with restarts and rotations between.
func TestR14FilesThatAreShorterThanTheirFingerprint(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{paths: []string{b.log("*.log*")}, tail: "grace: 300ms"})
	var writers []*writer
	a := b.start()
	for i := range 40 {
		w := newWriter(t, b.log(fmt.Sprintf("short-%dx.log", i)), i)
		line := record{i, 0}.appendLine(nil)
		w.raw(line[:1+i*5]) // part of the first line only
		writers = append(writers, w)
	}
	a.says("msg=started")
	a.kill()
	a = b.start()
	for i, w := range writers {
		line := record{i, 0}.appendLine(nil)
		w.raw(line[1+i*5:])
		w.mu.Lock()
		w.seq++
		w.mu.Unlock()
	}
	arrive(t, a, b.out, 40)
	a.kill()
	for i, w := range writers {
		if i%2 == 0 { // a file of one line is rotated while nobody looks
			ok(t, rename(w.path))
			w.reopen()
		}
		w.lines(1)
	}
	a = b.start()
	for range 5 {
		for _, w := range writers {
			w.lines(1)
		}
	}
	settle(t, b, a, writers...)
}

func TestR15ASymlinkOverThirtyTargets(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	link := b.log("current.log")
	b.write(setup{paths: []string{link}, tail: "grace: 300ms"})
	targets := filepath.Join(b.dir, "targets")
	ok(t, os.Mkdir(targets, 0o755))
	a := b.start()
	a.says("msg=started")
	var writers []*writer
	lines := 0
	for i := range 30 {
		w := newWriter(t, filepath.Join(targets, fmt.Sprintf("t%dx", i)), i)
		writers = append(writers, w)
		swap := link + ".new"
		ok(t, os.Symlink(w.path, swap))
		ok(t, os.Rename(swap, link))
		w.lines(20)
		lines += 20
		arrive(t, a, b.out, lines)
		w.lines(5) // which nobody may have read when the link moves on
		lines += 5
		if i == 17 {
			a.stop()
			a = b.start()
			arrive(t, a, b.out, lines)
		}
	}
	settle(t, b, a, writers...)
}

func TestR16AHardLinkIsReadOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("b.log"), 1)
	beside := newWriter(t, b.log("beside.log"), 2)
	w.lines(100)
	a := b.start()
	arrive(t, a, b.out, 100)
	ok(t, os.Link(w.path, b.log("a.log"))) // first in the alphabet
	ok(t, os.Link(w.path, b.log("c.log")))
	w.lines(100)
	arrive(t, a, b.out, 200)
	pulse(t, b, a, beside, 5)
	a.kill()
	w.lines(50)
	a = b.start()
	arrive(t, a, b.out, 255)
	drop(t, w.path) // the name that was known goes, the content stays
	f := must[*os.File](t)(os.OpenFile(b.log("c.log"), os.O_APPEND|os.O_WRONLY, 0))
	for seq := 250; seq < 300; seq++ {
		_, err := f.Write(record{1, seq}.appendLine(nil))
		ok(t, err)
	}
	ok(t, f.Close())
	w.mu.Lock()
	w.seq = 300
	w.mu.Unlock()
	arrive(t, a, b.out, 305)
	a.stop()
	a = b.start()
	pulse(t, b, a, beside, 6)
	settle(t, b, a, w, beside)
}

func TestR17AFolderIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	dir := filepath.Join(b.dir, "logs", "nova")
	ok(t, os.Mkdir(dir, 0o755))
	b.write(setup{paths: []string{filepath.Join(dir, "*.log")}, tail: "grace: 1s"})
	a := b.start()
	a.says("msg=started")
	var writers []*writer
	lines := 0
	for i := range 6 {
		w := newWriter(t, filepath.Join(dir, "api.log"), i)
		writers = append(writers, w)
		w.lines(100)
		lines += 100
		arrive(t, a, b.out, lines)
		w.lines(20)
		ok(t, os.Rename(dir, fmt.Sprintf("%s.old%d", dir, i)))
		w.lines(20) // the writer has its file still open
		lines += 40
		ok(t, os.Mkdir(dir, 0o755))
		if i == 3 {
			a.kill()
			a = b.start()
			break // what was moved away while nobody had it open is where no pattern leads
		}
	}
	v := newVerifier(writers...)
	a.says("msg=started")
	w := newWriter(t, filepath.Join(dir, "api.log"), 50)
	w.lines(10)
	last := string(record{50, 9}.appendPath(nil))
	waitFor(t, "the last record arrives", func() bool { return holds(b.out, last) })
	a.stop()
	v.expect(50, 10)
	ok(t, v.file(b.out))
	r := v.result()
	for _, m := range r.missing {
		if m.stream != 3 || m.seq < 100 {
			t.Errorf("%v is missing", m)
		}
	}
	r.missing = nil
	r.exact(t)
}

// TestR18AFileWithOneLineThatIsSoonRemoved: the line arrives, or the file is counted as missed.
func TestR18AFileWithOneLineThatIsSoonRemoved(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{tail: "grace: 1s"})
	a := b.start()
	a.says("msg=started")
	rnd := seeded(seedOf(t))
	beside := newWriter(t, b.log("beside.log"), 1)
	writers := []*writer{beside}
	beats(60, 50*time.Millisecond, func(i int) {
		w := newWriter(t, b.log(fmt.Sprintf("brief-%dx.log", i)), 10+i)
		w.lines(1)
		ok(t, w.f.Close())
		writers = append(writers, w)
		life := time.Duration(rnd.IntN(100)) * time.Millisecond
		if i%10 == 0 {
			life = 0
		}
		time.AfterFunc(life, func() { drop(t, w.path) })
	})
	pulse(t, b, a, beside, 8)
	files, _ := a.lost()
	a.stop()
	v := newVerifier(writers...)
	ok(t, v.file(b.out))
	r := v.result()
	t.Logf("%d of 60 arrived, %d counted as missed", 60-len(r.missing), files)
	if int64(len(r.missing)) > files {
		t.Errorf("%d files are missing, %d counted", len(r.missing), files)
	}
	r.missing = nil
	r.exact(t)
}

// TestR22OddBytesNeverStopAFile has CRLF, NULs, a byte order mark and bytes that are no UTF-8 amid normal lines.
func TestR22OddBytesNeverStopAFile(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	crlf := func() {
		line := record{1, w.count()}.appendLine(nil)
		w.raw(append(line[:len(line)-1], "\r\n"...))
		w.mu.Lock()
		w.seq++
		w.mu.Unlock()
	}
	w.raw([]byte("\xef\xbb\xbf"))
	w.lines(10)
	a := b.start()
	arrive(t, a, b.out, 10)
	odd := [][]byte{
		[]byte("\xff\xfe\x00\x01 no text \xc3\x28\n"), append(bytes.Repeat([]byte{0}, 5000), '\n'), []byte("\n\n\r\n"),
		[]byte("latin: caf\xe9\n"), []byte("\r\r\r\n"),
	}
	for _, p := range odd {
		w.raw(p)
		w.lines(20)
		crlf()
	}
	last := string(record{1, w.count() - 1}.appendPath(nil))
	waitFor(t, "the last record arrives", func() bool { return holds(b.out, last) })
	a.stop()
	r := verify(t, []*writer{w}, b.out)
	if n := len(r.others); n < 1 || n > 6 { // most continue the record before them
		t.Errorf("the odd lines became %d records", n)
	}
}

func inode(fi os.FileInfo) uint64 {
	if st, is := fi.Sys().(*syscall.Stat_t); is {
		return st.Ino
	}
	return 0
}
