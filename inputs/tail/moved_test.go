package tail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
)

// TestARotationThatKeepsTheExtensionIsFollowedWhileTheAgentIsDown has logrotate's "extension .log" put the number, or the day, before the
// extension. What is compressed has another inode: only the content tells whose it is.
func TestARotationThatKeepsTheExtensionIsFollowedWhileTheAgentIsDown(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"x.log", "*.log", "*.log*"} {
		for _, names := range [][3]string{
			{"x.1.log", "x.2.log", ".gz"},
			{"x.1.log", "x.2.log", ".zst"},
			{"x-20260102.log", "x-20260101.log", ".gz"},
			{"x.2026-01-02_13.log", "x.2026-01-02_12.log", ".gz"},
		} {
			dir, path := file1(t)
			a := newFakeAgent(t)
			c := testConfig(filepath.Join(dir, pattern))
			// Of an older rotation than all that is followed: it is left alone, unless it is asked for.
			old := filepath.Join(dir, "x-20250101.log.gz")
			must(t, os.WriteFile(old, gzipOf(t, "long ago\n"), 0o644))
			if pattern == "*.log*" {
				must(t, os.Remove(old))
			}
			k := readAndStopped(t, a, c, path, 100)
			younger, older := filepath.Join(dir, names[0]), filepath.Join(dir, names[1])
			appendTo(t, path, textOf(100, 150))
			must(t, os.Rename(path, older))
			compressAs(t, older, names[2])
			appendTo(t, younger, textOf(150, 160))
			compressAs(t, younger, names[2])
			appendTo(t, path, textOf(160, 170))
			must(t, newInput(t, newFakeAgent(t), c, false).CanReplay(context.Background(), k, k.Start))
			for range 2 {
				r := start(t, a, c)
				until(t, "all lines", has(a, 170))
				until(t, "the rotated files to be done with", func() bool { return a.drained() == 2 })
				r.stop()
				a.crash()
			}
			wantLines(t, a, 170)
			if got := a.texts(); len(got) > 149 && got[149] != line(149) {
				t.Errorf("%s, %s: younger lines came first", pattern, names[0])
			}
			if n := a.count("lost_files", "gone"); n != 0 {
				t.Errorf("%s, %s: %d files counted as lost", pattern, names[0], n)
			}
		}
	}
}

// TestALogWhoseNameHasADayIsOneOfItsOwn has a program name its logs after days, and compress those of yesterday, beside a log that has
// the same name without a day.
func TestALogWhoseNameHasADayIsOneOfItsOwn(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(filepath.Join(dir, "*.log"))
	day := filepath.Join(dir, "x-20260101.log")
	appendTo(t, path, textOf(0, 10))
	appendTo(t, day, textOf(10, 20))
	r := start(t, a, c)
	until(t, "first lines", has(a, 20))
	r.stop()
	a.crash()
	appendTo(t, day, textOf(20, 30))
	compress(t, day)
	appendTo(t, path, textOf(30, 40))
	start(t, a, c)
	until(t, "all lines", has(a, 40))
	wantLines(t, a, 40)
	if n := len(a.Known()); n != 2 {
		t.Errorf("%d streams, want 2", n)
	}
}

func TestAFileThatMovedToAnotherFolderWhileTheAgentWasDownIsKnown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"x.log", "x.log.1", "z.log", "x.log.1.gz"} {
		dir := t.TempDir()
		logs, old := filepath.Join(dir, "logs"), filepath.Join(dir, "old")
		must(t, os.Mkdir(logs, 0o755))
		must(t, os.Mkdir(old, 0o755))
		path := filepath.Join(logs, "x.log")
		a := newFakeAgent(t)
		c := testConfig(filepath.Join(logs, "*.log"), filepath.Join(old, "*"))
		appendTo(t, filepath.Join(old, "x.log.9"), textOf(0, 50)) // there is a log of that name already
		appendTo(t, path, textOf(50, 100))
		r := start(t, a, c)
		until(t, "first lines", has(a, 100))
		r.stop()
		a.crash()
		appendTo(t, path, textOf(100, 130))
		plain, packed := strings.CutSuffix(name, ".gz")
		must(t, os.Rename(path, filepath.Join(old, plain)))
		if packed {
			compress(t, filepath.Join(old, plain))
		}
		appendTo(t, path, textOf(130, 140))
		for _, k := range a.Known() {
			must(t, newInput(t, newFakeAgent(t), c, false).CanReplay(context.Background(), k, k.Start))
		}
		for range 2 {
			r = start(t, a, c)
			until(t, "all lines", has(a, 140))
			until(t, "the moved file to be done with", func() bool { return a.drained() == 2 })
			r.stop()
			a.crash()
		}
		wantLines(t, a, 140)
		if n := a.count("lost_files", "gone"); n != 0 {
			t.Errorf("%s: %d files counted as lost", name, n)
		}
	}
}

// TestALogThatIsRotatedBeforeItsFolderIsSeenIsRead has a folder appear in which a log is under its rotated name already.
func TestALogThatIsRotatedBeforeItsFolderIsSeenIsRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, made := filepath.Join(dir, "logs"), filepath.Join(dir, "made")
	must(t, os.Mkdir(logs, 0o755))
	appendTo(t, filepath.Join(logs, "a.log"), textOf(0, 10))
	appendTo(t, filepath.Join(logs, "gone.log.1"), "long ago\n") // nobody knows when that was written
	a := newFakeAgent(t)
	start(t, a, testConfig(filepath.Join(logs, "**", "*.log")))
	until(t, "first lines", has(a, 10))
	deep := filepath.Join(made, "d", "e")
	must(t, os.MkdirAll(deep, 0o755))
	appendTo(t, filepath.Join(deep, "s.log.2"), textOf(10, 20))
	appendTo(t, filepath.Join(deep, "s.log.1"), textOf(20, 30))
	must(t, os.Rename(made, filepath.Join(logs, "made")))
	until(t, "lines of the rotated file", has(a, 30))
	wantLines(t, a, 30)
}

func TestTheTargetThatASymlinkLedToIsReadToItsEndAfterAStart(t *testing.T) { // R15
	t.Parallel()
	for _, pattern := range []string{"cur.log", "*"} {
		dir, other := t.TempDir(), t.TempDir()
		link, first, second := filepath.Join(dir, "cur.log"), filepath.Join(other, "0.txt"), filepath.Join(other, "1.txt")
		a := newFakeAgent(t)
		a.log = &journal{}
		c := testConfig(filepath.Join(dir, pattern))
		must(t, os.Symlink(first, link))
		k := readAndStopped(t, a, c, first, 100)
		appendTo(t, first, textOf(100, 120))
		appendTo(t, second, textOf(120, 130))
		must(t, os.Remove(link))
		must(t, os.Symlink(second, link))
		must(t, newInput(t, newFakeAgent(t), c, false).CanReplay(context.Background(), k, k.Start))
		for range 2 {
			r := start(t, a, c)
			until(t, "all lines", has(a, 130))
			until(t, "the first target to be done with", func() bool { return a.drained() == 1 })
			r.stop()
			a.crash()
		}
		wantLines(t, a, 130)
		if got := a.texts(); got[119] != line(119) {
			t.Error("younger lines came first")
		}
		if n := a.log.count("vanished"); n != 0 {
			t.Errorf("said %d times that it vanished", n)
		}
	}
}

// TestALogThatWasEmptyIsReadFromWhatRotationMadeOfIt has the first lines of a log written while the agent is down, and rotated.
func TestALogThatWasEmptyIsReadFromWhatRotationMadeOfIt(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"beginning", "end"} {
		for _, rotate := range []func(path string){
			func(path string) { must(t, os.Rename(path, path+".1")) },
			func(path string) { must(t, os.Rename(path, path+".1")); compress(t, path+".1") },
			func(path string) { appendTo(t, path+".1", textOf(0, 50)); must(t, os.Truncate(path, 0)) },
		} {
			_, path := file1(t)
			a := newFakeAgent(t)
			c := testConfig(path)
			c.Start = at
			appendTo(t, path+".2", "long ago\n")
			must(t, os.Chtimes(path+".2", time.Unix(1e9, 0), time.Unix(1e9, 0)))
			appendTo(t, path, "")
			r := start(t, a, c)
			until(t, "the checkpoint to know of the log", func() bool { return len(a.Known()) == 1 })
			r.stop()
			a.crash()
			seen, probe := time.Now(), filepath.Join(t.TempDir(), "probe")
			until(t, "the file system's clock, which ticks, to go on", func() bool {
				must(t, os.WriteFile(probe, nil, 0o644))
				fi, err := os.Stat(probe)
				must(t, err)
				return fi.ModTime().After(seen)
			})
			appendTo(t, path, textOf(0, 50))
			rotate(path)
			appendTo(t, path, textOf(50, 60))
			k := a.Known()[0]
			in := newInput(t, newFakeAgent(t), c, false)
			must(t, in.CanReplay(context.Background(), k, k.Start))
			if src, err := in.Describe(context.Background(), k); err != nil || src.Name != path || src.Size != 0 || src.Gone {
				t.Errorf("described as %+v, %v", src, err)
			}
			for range 2 {
				r = start(t, a, c)
				until(t, "all lines", has(a, 60))
				r.stop()
				a.crash()
			}
			wantLines(t, a, 60)
			if got := a.texts(); got[49] != line(49) {
				t.Error("younger lines came first")
			}
			if known := a.Known(); len(known) != 2 {
				t.Errorf("%d streams, want 2", len(known))
			}
		}
	}
}

// TestACopyOfALogThatWasEmptyIsReadThoughYoungerLinesCameFirst has the agent, while it runs, see the lines that came after copytruncate
// before the copy.
func TestACopyOfALogThatWasEmptyIsReadThoughYoungerLinesCameFirst(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	in := newInput(t, a, testConfig(path), false)
	var shown atomic.Bool
	in.fs.readDir = func(p string) ([]os.DirEntry, error) {
		entries, err := os.ReadDir(p)
		return slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == "x.log.1" && !shown.Load() }), err
	}
	appendTo(t, path, "")
	startInput(t, a, in)
	until(t, "the checkpoint to know of the log", func() bool { return len(a.Known()) == 1 })
	appendTo(t, path+".1", textOf(10, 60))
	now := time.Now() // a file system's clock is behind
	must(t, os.Chtimes(path+".1", now, now))
	appendTo(t, path, textOf(0, 10))
	until(t, "the younger lines", has(a, 10))
	shown.Store(true)
	appendTo(t, filepath.Join(dir, "other"), "") // the folder is read again
	until(t, "all lines", has(a, 60))
	wantLines(t, a, 60)
}

// TestAnInodeThatASearchFindsInAnotherLogIsThatLogsFromThenOn has the file of one log become a copy of another, as a file system does that
// gives the number of a removed file to the next one, and a search find it there before a scan does.
func TestAnInodeThatASearchFindsInAnotherLogIsThatLogsFromThenOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, other := filepath.Join(dir, "one.log"), filepath.Join(dir, "other.log")
	a := newFakeAgent(t)
	const n = 20000 // several blocks
	appendTo(t, one+".1", textOf(0, 1))
	in := newInput(t, a, testConfig(filepath.Join(dir, "*")), false)
	scans := lockScans(in, dir)
	r := startInput(t, a, in)
	until(t, "the old file is done", func() bool { return a.drained() == 1 })
	gate := a.hold()
	appendTo(t, other, textOf(1, n))
	gate <- struct{}{} // a block is read, and the next one waits
	scans.Lock()
	text, err := os.ReadFile(other)
	must(t, err)
	must(t, os.WriteFile(one+".1", text, 0o644))
	must(t, os.Rename(one+".1", other+".1"))
	must(t, os.WriteFile(other, []byte(textOf(n, n+1)), 0o644))
	close(gate)
	until(t, "the copy is read", has(a, n))
	scans.Unlock()
	for i := range 3 { // scans that something comes of
		appendTo(t, filepath.Join(dir, fmt.Sprintf("new%d.log", i)), textOf(n+1+i, n+2+i))
		until(t, "a new log", has(a, n+2+i))
	}
	r.stop()
	wantLines(t, a, n+4)
}

// TestASearchDoesNotPassByAFileWhoseInodeIsUsedAgain has the file of a finished stream become the copy in which another one lives on, which
// no scan has seen so far.
func TestASearchDoesNotPassByAFileWhoseInodeIsUsedAgain(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	const n = 20000 // several blocks
	appendTo(t, path+".1", textOf(0, 1))
	in := newInput(t, a, testConfig(filepath.Join(dir, "*")), false)
	fs := in.fs
	var stale atomic.Pointer[os.FileInfo] // what is said of the copy
	var looks atomic.Int64
	in.fs.stat = func(name string) (os.FileInfo, error) {
		if fi := stale.Load(); fi != nil && name == path+".1" {
			return *fi, nil
		}
		return fs.stat(name)
	}
	in.fs.open = func(name string) (*os.File, error) {
		if name == path+".1" {
			looks.Add(1)
		}
		return fs.open(name)
	}
	r := startInput(t, a, in)
	until(t, "the old file is done", func() bool { return a.drained() == 1 })
	gate := a.hold()
	appendTo(t, path, textOf(1, n))
	gate <- struct{}{} // a block is read, and the next one waits
	fi, err := os.Stat(path + ".1")
	must(t, err)
	stale.Store(&fi)
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path+".1", text, 0o644))
	must(t, os.WriteFile(path, []byte(textOf(n, n+1)), 0o644))
	looks.Store(0)
	close(gate)
	until(t, "several searches", func() bool {
		return looks.Load() >= 4 || a.count("lost_files", "gone")+a.count("lost_bytes", "gone") > 0
	})
	stale.Store(nil)
	until(t, "all lines", has(a, n+1))
	r.stop()
	wantLines(t, a, n+1)
	if lost := a.count("lost_bytes", "gone"); lost > 0 {
		t.Errorf("%d bytes are said to be lost", lost)
	}
}

// TestTheRestThatACopyHoldsIsNotForgottenWhileItWaits has a log cut when all that was seen of it was read, and the agent restarted while
// the copy, which holds more, is found and waits for an older file.
func TestTheRestThatACopyHoldsIsNotForgottenWhileItWaits(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path + "*")
	c.Grace = 20 * time.Second
	in := newInput(t, a, c, false)
	scans := lockScans(in, dir)
	appendTo(t, path, textOf(0, 10))
	r := startInput(t, a, in)
	until(t, "the first lines", has(a, 10))
	scans.Lock()
	older, err := os.Create(path + ".3")
	must(t, err)
	defer older.Close()
	_, err = older.WriteString(textOf(20, 21))
	must(t, err)
	copied := filepath.Join(t.TempDir(), "copy")
	appendTo(t, copied, textOf(0, 20))
	compress(t, copied)
	must(t, os.Rename(copied+".gz", path+".1.gz"))
	must(t, os.WriteFile(path, []byte(textOf(21, 22)), 0o644))
	scans.Unlock()
	until(t, "the copy is found, and the agent knows", func() bool {
		for _, k := range a.Known() {
			if m, err := decodeMeta(k.Meta); err == nil && m.File == path+".1.gz" {
				return true
			}
		}
		return false
	})
	r.stop()
	a.crash()
	must(t, older.Close())
	start(t, a, testConfig(path+"*"))
	until(t, "all lines", has(a, 22))
	wantLines(t, a, 22)
}

// TestAFolderThatCannotBeLookedAtProvesNothing has a log gone from its folder, and another folder to which it may have gone fail.
func TestAFolderThatCannotBeLookedAtProvesNothing(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	archive := filepath.Join(dir, "archive")
	must(t, os.Mkdir(archive, 0o755))
	appendTo(t, filepath.Join(archive, "x.log.9"), "other\n")
	a := newFakeAgent(t)
	c := testConfig(path, filepath.Join(archive, "x.log*"))
	k := readAndStopped(t, a, testConfig(path), path, 10)
	must(t, os.Remove(path))
	in := newInput(t, a, c, false)
	if err := in.CanReplay(t.Context(), k, k.Start); !errors.Is(err, plugins.ErrGone) {
		t.Errorf("everything can be looked at: %v", err)
	}
	stat := in.fs.stat
	in.fs.stat = func(name string) (os.FileInfo, error) {
		if filepath.Dir(name) == archive {
			return nil, syscall.EIO
		}
		return stat(name)
	}
	if err := in.CanReplay(t.Context(), k, k.Start); errors.Is(err, plugins.ErrGone) || errors.Is(err, plugins.ErrLater) || !errors.Is(err, syscall.EIO) {
		t.Errorf("the archive fails: %v", err)
	}
}

// lockScans returns a lock: while it is held no scan of that folder goes on.
func lockScans(in *input, dir string) *sync.Mutex {
	var scans sync.Mutex
	stat := in.fs.stat
	in.fs.stat = func(name string) (os.FileInfo, error) {
		if name == dir {
			scans.Lock()
			defer scans.Unlock()
		}
		return stat(name)
	}
	return &scans
}
