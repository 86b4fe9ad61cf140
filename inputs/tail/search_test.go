package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// readAndStopped has a file read to its end and the input stopped. It returns the stream.
func readAndStopped(t testing.TB, a *fakeAgent, c Config, path string, n int) plugins.Stream {
	t.Helper()
	appendTo(t, path, textOf(0, n))
	r := start(t, a, c)
	until(t, "first lines", has(a, n))
	r.stop()
	a.crash()
	return a.Known()[0]
}

// gzipOf returns what compressing a text gives.
func gzipOf(t testing.TB, text string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "z")
	appendTo(t, path, text)
	compress(t, path)
	data, err := os.ReadFile(path + ".gz")
	must(t, err)
	return data
}

func TestNothingIsGoneWhileRotationMovesIt(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		_, path := file1(t)
		a := newFakeAgent(t)
		c := testConfig(path)
		k := readAndStopped(t, a, c, path, 100)
		must(t, os.Rename(path, path+".1"))
		in := newInput(t, newFakeAgent(t), c, false)
		moved := false
		in.fs.open = func(p string) (*os.File, error) {
			if p != path+".1" || moved {
				return realSystem().open(p)
			}
			moved = true
			must(t, os.Rename(path+".1", path+".2"))
			f, err := realSystem().open(p)
			if back {
				must(t, os.Rename(path+".2", path+".1"))
			}
			return f, err
		}
		must(t, in.CanReplay(context.Background(), k, k.Start))
		if !moved {
			t.Error("it was not moved while it was searched")
		}
	}
}

func TestNothingIsGoneWhileItIsSeenUnderNeitherName(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	k := readAndStopped(t, a, c, path, 100)
	must(t, os.Rename(path, path+".2"))
	appendTo(t, path, textOf(200, 201))
	in := newInput(t, newFakeAgent(t), c, false)
	reads := 0
	in.fs.readDir = func(p string) ([]os.DirEntry, error) {
		entries, err := os.ReadDir(p)
		reads++
		if reads == 1 { // the name moved to a place in the folder that was read already
			entries = entries[:1]
		}
		return entries, err
	}
	must(t, in.CanReplay(context.Background(), k, k.Start))
	if reads < 3 {
		t.Errorf("the folder was read %d times", reads)
	}
}

func TestNothingIsGoneWhileItIsBeingCompressed(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	c.Grace = time.Minute
	k := readAndStopped(t, a, c, path, 20000)
	must(t, os.Remove(path))
	data := gzipOf(t, textOf(0, 20000))
	must(t, os.WriteFile(path+".1.gz", data[:len(data)/2], 0o644))
	in := newInput(t, newFakeAgent(t), c, false)
	opened := 0
	in.fs.open = func(p string) (*os.File, error) {
		if opened++; opened == 3 {
			must(t, os.WriteFile(p, data, 0o644))
		}
		return realSystem().open(p)
	}
	must(t, in.CanReplay(context.Background(), k, k.Start))
}

func TestAFolderAtRestProvesThatContentIsGoneAndOneThatNeverRestsDoesNot(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	k := readAndStopped(t, a, c, path, 100)
	must(t, os.Remove(path))
	appendTo(t, path+".1", textOf(200, 201))
	in := newInput(t, newFakeAgent(t), c, false)
	in.rest = 200 * time.Millisecond
	if err := in.CanReplay(context.Background(), k, k.Start); !errors.Is(err, plugins.ErrGone) {
		t.Errorf("at rest: %v", err)
	}
	names := [2]string{path + ".1", path + ".2"}
	in.fs.readDir = func(p string) ([]os.DirEntry, error) {
		entries, err := os.ReadDir(p)
		must(t, os.Rename(names[0], names[1]))
		names[0], names[1] = names[1], names[0]
		return entries, err
	}
	err := in.CanReplay(context.Background(), k, k.Start)
	if err == nil || errors.Is(err, plugins.ErrGone) || !strings.Contains(err.Error(), "did not come to rest") {
		t.Errorf("never at rest: %v", err)
	}
	in.rest = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := in.CanReplay(ctx, k, k.Start); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("canceled: %v", err)
	}
}

func TestALiveFileThatGrowsDoesNotKeepASearchFromItsEnd(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	k := readAndStopped(t, a, c, path, 100)
	must(t, os.Remove(path))
	appendTo(t, path, textOf(200, 201))
	in := newInput(t, newFakeAgent(t), c, false)
	n := 0
	in.fs.open = func(p string) (*os.File, error) {
		n++
		appendTo(t, path, textOf(200+n, 201+n))
		return realSystem().open(p)
	}
	if err := in.CanReplay(context.Background(), k, k.Start); !errors.Is(err, plugins.ErrGone) {
		t.Error(err)
	}
}

func TestTheRestOfAFileIsNotGivenUpWhileRotationMovesIt(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	readAndStopped(t, a, c, path, 100)
	appendTo(t, path, textOf(100, 120))
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(120, 130))
	in := newInput(t, a, c, false)
	in.rest = time.Minute
	var moves atomic.Int32
	in.fs.open = func(p string) (*os.File, error) {
		if p != path && moves.Add(1) <= 8 {
			other := path + ".1"
			if p == other {
				other = path + ".2"
			}
			_ = os.Rename(p, other) // it may have been moved just before
		}
		return realSystem().open(p)
	}
	startInput(t, a, in)
	until(t, "all lines", has(a, 130))
	wantLines(t, a, 130)
	if got := a.texts(); got[119] != line(119) {
		t.Error("younger lines came first")
	}
	if n := a.count("lost_files", "gone"); n != 0 || moves.Load() <= 8 {
		t.Errorf("%d files counted as lost after %d moves", n, moves.Load())
	}
}

func TestOnceSearchesUntilACopyIsWritten(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	readAndStopped(t, a, c, path, 15000)
	must(t, os.Remove(path))
	data := gzipOf(t, textOf(0, 20000))
	must(t, os.WriteFile(path+".1.gz", data[:len(data)/2], 0o644))
	c.Grace = time.Minute
	in := newInput(t, a, c, true)
	var opened atomic.Int32
	in.fs.open = func(p string) (*os.File, error) {
		if opened.Add(1) == 8 {
			must(t, os.WriteFile(path+".1.gz", data, 0o644))
		}
		return realSystem().open(p)
	}
	must(t, in.Run(context.Background(), a))
	wantLines(t, a, 20000)
	if n := a.count("lost_files", "gone"); n != 0 {
		t.Errorf("%d files counted as lost", n)
	}
}

func TestYoungerFilesDoNotWaitForEverForAFolderThatNeverRests(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.log = &journal{}
	c := testConfig(path)
	readAndStopped(t, a, c, path, 100)
	must(t, os.Remove(path))
	appendTo(t, path, textOf(100, 110))
	appendTo(t, path+".1", textOf(200, 201))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path+".1", old, old)) // older than what is followed
	in := newInput(t, a, c, false)
	in.rest = 100 * time.Millisecond
	var reads atomic.Int32
	in.fs.readDir = func(p string) ([]os.DirEntry, error) {
		entries, err := os.ReadDir(p)
		if reads.Add(1)%2 == 0 {
			entries = entries[:1]
		}
		return entries, err
	}
	startInput(t, a, in)
	until(t, "lines of the new file", has(a, 110))
	if n := a.count("lost_files", "gone"); n != 0 {
		t.Errorf("%d files counted as lost though nobody could look", n)
	}
	if n := a.log.count("does not come to rest"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestAFileThatAScanDoesNotSeeKeepsItsPlace(t *testing.T) {
	t.Parallel()
	now := time.Now()
	// The first scan missed the oldest, so that it was seen last; in the middle of a rotation another misses it again.
	oldest := &file{path: "x.log.2.gz", rotated: true, seen: now.Add(time.Second)}
	older := &file{path: "x.log.1", rotated: true, present: true, seen: now}
	live := &file{path: "x.log", present: true, seen: now}
	l := &lineage{files: []*file{oldest, older, live}}
	for _, f := range l.files {
		f.ordered = true
	}
	want := func(when string, want ...*file) {
		t.Helper()
		l.order()
		for i, f := range want {
			if l.files[i] != f {
				t.Errorf("%s: place %d has %s, want %s", when, i, l.files[i].path, f.path)
			}
		}
	}
	want("the oldest is missed", oldest, older, live)
	oldest.present, older.present = true, false
	want("the middle one is missed", oldest, older, live)
	// The live one was renamed and is not seen; there is a new one.
	older.present, live.present, live.rotated, live.seen = true, false, true, now.Add(2*time.Second)
	fresh := &file{path: "x.log", present: true, seen: now.Add(2 * time.Second)}
	l.files = append(l.files, fresh)
	want("the live one is missed", oldest, older, live, fresh)
}

// TestACompressedFileOfNothingHoldsNothingUp has a file vanish whose siblings are compressed and empty, as logrotate leaves them where
// nobody wrote: what vanished is given up, and the others are read.
func TestACompressedFileOfNothingHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".gz", ".zst"} {
		_, path := file1(t)
		a := newFakeAgent(t)
		c := testConfig(path)
		appendTo(t, path, textOf(0, 100))
		r := start(t, a, c)
		until(t, "first lines", has(a, 100))
		r.stop()
		a.crash()
		must(t, os.Remove(path))
		appendTo(t, path+".1", "")
		compressAs(t, path+".1", suffix)
		appendTo(t, path, textOf(100, 200))
		start(t, a, c)
		until(t, "the lines after", has(a, 200))
		wantLines(t, a, 200)
		if n := a.count("lost_files", "gone"); n != 1 {
			t.Errorf("%d files counted as lost", n)
		}
	}
}

func TestACompressedFileThatIsStillEmptyIsWaitedFor(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	data := gzipOf(t, textOf(0, 100))
	appendTo(t, path+".1.gz", "")
	appendTo(t, path, textOf(100, 110))
	c := testConfig(path + "*")
	c.Grace = time.Minute
	in := newInput(t, a, c, false)
	var looks atomic.Int32
	in.fs.stat = func(p string) (os.FileInfo, error) {
		if p == path && looks.Add(1) == 20 {
			must(t, os.WriteFile(path+".1.gz", data, 0o644))
		}
		return os.Stat(p)
	}
	startInput(t, a, in)
	until(t, "all lines", has(a, 110))
	wantLines(t, a, 110)
	if got := a.texts(); got[0] != line(0) {
		t.Errorf("the first line is %s", got[0])
	}
}

func TestTheOriginalIsReadBeforeWhatItIsBeingCompressedTo(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	data := gzipOf(t, textOf(0, 20000))
	must(t, os.WriteFile(path+".1.gz", data[:len(data)/2], 0o644))
	appendTo(t, path+".1", textOf(0, 20000))
	appendTo(t, path, textOf(20000, 20010))
	c := testConfig(path + "*")
	c.Grace = time.Minute
	start(t, a, c)
	until(t, "all lines", has(a, 20010))
	wantLines(t, a, 20010)
}

func TestOnceWaitsForCompressedContentThatIsBeingWritten(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	data := gzipOf(t, textOf(0, 20000))
	must(t, os.WriteFile(path+".1.gz", data[:len(data)/2], 0o644))
	c := testConfig(path + "*")
	c.Grace = time.Minute
	half, err := gzip.NewReader(bytes.NewReader(data[:len(data)/2]))
	must(t, err)
	text, err := io.ReadAll(half)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	n := bytes.Count(text, []byte("\n"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		until(t, "the first half", has(a, n))
		appendTo(t, path+".1.gz", string(data[len(data)/2:]))
	}()
	runOnce(t, a, c)
	<-done
	wantLines(t, a, 20000)
	if got := a.count("damaged_files", "gzip"); got != 0 {
		t.Errorf("%d files counted as damaged", got)
	}
}

func TestWhatIsNoFileIsNamedOnce(t *testing.T) {
	t.Parallel()
	dir, _ := file1(t)
	zero := filepath.Join(dir, "zero.log")
	must(t, os.Symlink("/dev/zero", zero))
	var lc net.ListenConfig
	s, err := lc.Listen(context.Background(), "unix", filepath.Join(dir, "s.log"))
	must(t, err)
	defer s.Close()
	a := newFakeAgent(t)
	a.log = &journal{}
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), false)
	var looks atomic.Int32
	in.fs.stat = func(p string) (os.FileInfo, error) {
		if p == zero {
			looks.Add(1)
		}
		return os.Stat(p)
	}
	startInput(t, a, in)
	until(t, "some sweeps", func() bool { return looks.Load() > 20 })
	if no, yes := a.log.count("cannot be read"), a.log.count("can be read again"); no != 2 || yes != 0 {
		t.Errorf("said %d times that they cannot be read, %d times that they can", no, yes)
	}
}

func TestAFileThatIsNoGzipStaysSaidAfterOnce(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	must(t, os.WriteFile(path+".2.gz", []byte(strings.Repeat("not gzip at all\n", 100)), 0o644))
	appendTo(t, path, textOf(0, 10))
	a := newFakeAgent(t)
	runOnce(t, a, testConfig(path+"*"))
	wantLines(t, a, 10)
	if got := a.fault(path + ".2.gz"); !strings.Contains(got, "invalid header") {
		t.Errorf("fault %q", got)
	}
	if n := a.count("damaged_files", "gzip"); n != 1 {
		t.Errorf("%d files counted as damaged, want 1", n)
	}
}

func TestUnknownCompressionsAreLeftOutUnlessNamed(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	appendTo(t, path, textOf(0, 10))
	for i, name := range []string{"x.log.2.xz", "x.log.3.xz", "y.log.bz2", "z.log-20260131.lz4", "named.log.xz"} {
		appendTo(t, filepath.Join(dir, name), textOf(100+i, 101+i))
	}
	c := testConfig(filepath.Join(dir, "*.log*"), filepath.Join(dir, "named.log.xz"))
	c.Exclude = []string{"*.bz2"}
	a := newFakeAgent(t)
	a.log = &journal{}
	runOnce(t, a, c)
	got := map[string]bool{}
	for _, text := range a.texts() {
		got[text] = true
	}
	if len(got) != 11 || !got[line(9)] || !got[line(104)] {
		t.Errorf("%d records", len(got))
	}
	if n := a.log.count("compression is not known"); n != 2 {
		t.Errorf("said %d times, want once for .xz and once for .lz4", n)
	}
	if c.Follows(path+".2.xz") || !c.Follows(filepath.Join(dir, "named.log.xz")) {
		t.Error("Follows does not agree")
	}
}

func TestPatternsOfUnreadableFilesAloneAreWarnedOf(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]bool{
		"/x/*.xz": true, "/x/**/y.log.?.bz2": true, "/x/*.{xz,bz2}": true, "/x/{a,b}.log.xz": true, "/x/*.log{.xz,.lzma}": true,
		"/x/*": false, "/x/*.log*": false, "/x/a.xz": false, "/x/*.{xz,gz}": false, "/x/*.gz": false, "/x/*.{log,log.xz}": false, "/x/*.xz/a.log": false,
	} {
		c := Defaults()
		c.Paths = []string{"/x/a.log", pattern}
		err := c.Warnings()
		if (err != nil) != want {
			t.Errorf("%s: %v", pattern, err)
		}
		if at, ok := errors.AsType[conf.KeyError](err); want && (!ok || at.Key != "paths[1]") {
			t.Errorf("%s: %v does not say where", pattern, err)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: a fault: %v", pattern, err)
		}
	}
}

func TestACompleteCopyThatEndsBeforeThePositionHoldsNothingUpForTheWholeGrace(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path + "*")
	readAndStopped(t, a, c, path, 110)
	must(t, os.Remove(path))
	must(t, os.WriteFile(path+".1.gz", gzipOf(t, textOf(0, 100)), 0o644))
	at := time.Now().Add(-2 * orderWait)
	must(t, os.Chtimes(path+".1.gz", at, at))
	appendTo(t, path, textOf(110, 120))
	c.Grace = 10 * time.Minute
	start(t, a, c)
	until(t, "lines of the new file", has(a, 120))
	if n := a.count("lost_files", "gone"); n != 1 {
		t.Errorf("%d files counted as lost, want 1", n)
	}
}

// TestAHalfReadCompressedFileDoesNotKeepOlderOnesFromBeingRead has two older files come while a compressed one is read: the oldest
// needs the memory that the half-read one has, and the other one waits for the oldest.
func TestAHalfReadCompressedFileDoesNotKeepOlderOnesFromBeingRead(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	a.gate = make(chan struct{})
	const each = 20000 // several blocks
	write := func(name, suffix string, from int) {
		piece := filepath.Join(dir, "new")
		appendTo(t, piece, textOf(from, from+each))
		if suffix != "" {
			compress(t, piece)
		}
		must(t, os.Rename(piece+suffix, name+suffix))
	}
	write(path+".1", ".gz", 2*each)
	in := newInput(t, a, testConfig(path+"*"), false)
	fs := in.fs
	var opened, posted atomic.Bool // the last file was opened by a scan, and that scan is over: another one looks
	in.fs.open = func(name string) (*os.File, error) {
		opened.CompareAndSwap(false, name == path+".2")
		return fs.open(name)
	}
	in.fs.stat = func(name string) (os.FileInfo, error) {
		posted.CompareAndSwap(false, name == dir && opened.Load())
		return fs.stat(name)
	}
	r := startInput(t, a, in)
	a.gate <- struct{}{}
	until(t, "a batch of it", func() bool { return len(a.all()) > 0 })
	write(path+".3", ".gz", 0)
	write(path+".2", "", each)
	until(t, "a scan of all", posted.Load)
	close(a.gate)
	until(t, "all lines", has(a, 3*each))
	r.stop()
	wantLines(t, a, 3*each)
}

// TestACompressedFileUnderALogsNameDoesNotKeepOthersFromBeingRead has files that are read to their ends and are not done, because more
// may be written under their names.
func TestACompressedFileUnderALogsNameDoesNotKeepOthersFromBeingRead(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	const n = 8 // more than there are workers, so that each has some of either kind
	for i := range n {
		name := fmt.Sprintf("%s-%d", path, i)
		appendTo(t, name, textOf(i, i+1))
		compress(t, name)
		must(t, os.Rename(name+".gz", name))
	}
	r := start(t, a, testConfig(filepath.Join(dir, "*")))
	until(t, "the first ones", has(a, n))
	for i := range n {
		name := fmt.Sprintf("%s-%d.1", path, n+i)
		appendTo(t, name, textOf(n+i, n+i+1))
		compress(t, name)
	}
	until(t, "the others", has(a, 2*n))
	r.stop()
	wantLines(t, a, 2*n)
}

// TestWhatWasReadIsNotLostWhenItsFileIsWrittenAnewWithMore: how much stands there now says nothing of how much stood there.
func TestWhatWasReadIsNotLostWhenItsFileIsWrittenAnewWithMore(t *testing.T) {
	t.Parallel()
	for range 5 {
		_, path := file1(t)
		a := newFakeAgent(t)
		appendTo(t, path, textOf(0, 10))
		start(t, a, testConfig(path))
		until(t, "first lines", has(a, 10))
		must(t, os.WriteFile(path, []byte(textOf(10, 60)), 0o644))
		until(t, "all lines", has(a, 60))
		until(t, "the search to be over", func() bool { return a.drained() == 1 })
		wantLines(t, a, 60)
		if n := a.count("lost_bytes", "gone"); n != 0 {
			t.Errorf("%d bytes are counted as lost", n)
		}
	}
}
