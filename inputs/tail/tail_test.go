package tail

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLinesArriveOnceWhileAFileGrows(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path, textOf(0, 5000))
	start(t, a, testConfig(path))
	until(t, "old lines", has(a, 5000))
	for i := 5000; i < 5050; i++ {
		appendTo(t, path, line(i)+"\n")
		until(t, "live line", has(a, i+1))
	}
	wantLines(t, a, 5050)
}

func TestRenameRotationUnderAWriterLosesAndDoublesNothing(t *testing.T) { // R01
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	start(t, a, testConfig(path))
	n := 0
	for r := range 12 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		must(t, err)
		for range 700 {
			l := line(n) + "\n"
			n++
			_, err = f.WriteString(l[:len(l)/2])
			must(t, err)
			_, err = f.WriteString(l[len(l)/2:])
			must(t, err)
		}
		must(t, f.Close())
		if r == 0 {
			until(t, "first lines", has(a, 1))
		}
		for i := r; i > 0; i-- {
			must(t, os.Rename(numbered(path, i), numbered(path, i+1)))
		}
		must(t, os.Rename(path, numbered(path, 1)))
	}
	until(t, "all lines", has(a, n))
	wantLines(t, a, n)
}

func numbered(path string, i int) string { return path + "." + string(rune('0'+i%10)) + suffix(i) }

func suffix(i int) string {
	if i < 10 {
		return ""
	}
	return string(rune('0' + i/10))
}

func TestAWriterThatKeepsTheRotatedFileIsReadToItsEnd(t *testing.T) { // R02
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	c.Grace = time.Second
	start(t, a, c)
	old, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer old.Close()
	_, err = old.WriteString(textOf(0, 100))
	must(t, err)
	until(t, "first lines", has(a, 100))
	must(t, os.Rename(path, path+".1"))
	for i := 100; i < 150; i++ {
		_, err = old.WriteString(line(i) + "\n")
		must(t, err)
		until(t, "line to the rotated file", has(a, i+1))
	}
	// A line in two pieces is one line here, too: the file is not at its end before its grace has passed.
	l := line(230) + "\n"
	_, err = old.WriteString(l[:10])
	must(t, err)
	since := time.Now()
	until(t, "many looks at the file", func() bool { return time.Since(since) > 10*c.Sweep })
	_, err = old.WriteString(l[10:])
	must(t, err)
	until(t, "line in two pieces", has(a, 151))
	appendTo(t, path, textOf(150, 200))
	_, err = old.WriteString(textOf(200, 220))
	must(t, err)
	until(t, "all lines", has(a, 221))
	if got := a.texts(); got[151] != line(200) || got[171] != line(150) {
		t.Error("the new file did not wait for the old one")
	}
	// The new file's turn came; whatever is still written to the old one arrives all the same.
	_, err = old.WriteString(textOf(220, 230))
	must(t, err)
	until(t, "late lines", has(a, 231))
	wantLines(t, a, 231)
}

func TestCopytruncateIsNoticedWhateverTheNewSize(t *testing.T) { // R04, R05, R06
	t.Parallel()
	for name, grow := range map[string]int{"smaller": 10, "larger": 900} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, path := file1(t)
			a := newFakeAgent(t)
			start(t, a, testConfig(path))
			appendTo(t, path, textOf(0, 300))
			until(t, "first lines", has(a, 300))
			copyTruncate(t, path, path+".1", textOf(300, 300+grow))
			until(t, "all lines", has(a, 300+grow))
			wantLines(t, a, 300+grow)
		})
	}
	t.Run("equal", func(t *testing.T) {
		t.Parallel()
		_, path := file1(t)
		a := newFakeAgent(t)
		start(t, a, testConfig(path))
		appendTo(t, path, "aaaaaaaa\nbbbbbbbb\n")
		until(t, "first lines", has(a, 2))
		copyTruncate(t, path, path+".1", "cccccccc\ndddddddd\n")
		until(t, "all lines", has(a, 4))
		if got := a.texts(); got[2] != "cccccccc" || got[3] != "dddddddd" {
			t.Errorf("got %q", got)
		}
	})
}

func TestARewriteWithTheSameBeginningIsNoticed(t *testing.T) { // R11
	t.Parallel()
	for name, more := range map[string]int{"larger": 400, "smaller": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, path := file1(t)
			banner := strings.Repeat("same beginning ", 150) + "\n"
			a := newFakeAgent(t)
			start(t, a, testConfig(path))
			appendTo(t, path, banner+textOf(0, 200))
			until(t, "first lines", has(a, 201))
			copyTruncate(t, path, path+".1", banner+textOf(200, 200+more))
			until(t, "all lines", has(a, 202+more))
			a.mu.Lock()
			a.events = slices.DeleteFunc(a.events, func(g got) bool { return g.text+"\n" == banner })
			a.mu.Unlock()
			wantLines(t, a, 200+more)
		})
	}
}

// copyTruncate does what logrotate's copytruncate does, and writes new text at once.
func copyTruncate(t testing.TB, path, to, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o644))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(0))
	_, err = f.WriteString(text)
	must(t, err)
}

func TestCopytruncateWhileLaggingIsReadFromTheCopy(t *testing.T) { // R07
	t.Parallel()
	dir, path := file1(t)
	for name, paths := range map[string]string{"copy not matched": path, "copy matched": filepath.Join(dir, "x.log*")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, path := file1(t)
			if paths != filepath.Join(dir, "x.log") {
				paths = path + "*"
			} else {
				paths = path
			}
			a := newFakeAgent(t)
			a.gate = make(chan struct{})
			appendTo(t, path, textOf(0, 20000))
			start(t, a, testConfig(paths))
			a.gate <- struct{}{}
			a.gate <- struct{}{}
			copyTruncate(t, path, path+".1", textOf(20000, 20100))
			close(a.gate)
			until(t, "all lines", has(a, 20100))
			wantLines(t, a, 20100)
			if n := a.count("lost_bytes", "gone"); n != 0 {
				t.Errorf("%d bytes counted as lost", n)
			}
		})
	}
}
