package tail

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// journal keeps what was logged.
type journal struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

func TestAFileThatWaitsForItsTurnIsInTheCheckpoint(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	c.Grace = time.Hour
	old, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer old.Close()
	_, err = old.WriteString(textOf(0, 500))
	must(t, err)
	r := start(t, a, c)
	until(t, "first lines", has(a, 500))
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(500, 800))
	late := 0
	until(t, "both streams to be known while lines keep coming to the old file", func() bool {
		if len(a.all()) == 500+late {
			_, err := old.WriteString(line(1000+late) + "\n")
			must(t, err)
			late++
		}
		return len(a.Known()) == 2
	})
	r.stop()
	if slices.Contains(a.texts(), line(500)) {
		t.Fatal("the new file did not wait")
	}
	a.crash()
	_, err = old.WriteString(line(1000+late) + "\n") // the older file is written later than the younger one
	must(t, err)
	late++
	must(t, old.Close())
	must(t, os.Rename(path+".1", path+".2"))
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(800, 1000))
	c.Grace = 300 * time.Millisecond
	start(t, a, c)
	until(t, "all lines", has(a, 1000+late))
	wantLines(t, a, 1000+late)
}

func TestARotatedFileThatNobodySawIsReadWhateverTheTimesSay(t *testing.T) {
	t.Parallel()
	for _, older := range []string{"there", "compressed", "gone", "strange"} {
		t.Run(older, func(t *testing.T) {
			t.Parallel()
			_, path := file1(t)
			a := newFakeAgent(t)
			c := testConfig(path, path+"_*")
			appendTo(t, path, textOf(0, 100))
			later := time.Now().Add(time.Hour)
			must(t, os.Chtimes(path, later, later))
			r := start(t, a, c)
			until(t, "first lines", has(a, 100))
			now := time.Now()
			r.stop()
			a.crash()
			until(t, "the file system's clock to tick", func() bool {
				must(t, os.WriteFile(path+"-probe", nil, 0o600))
				fi, err := os.Stat(path + "-probe")
				must(t, err)
				return fi.ModTime().After(now)
			})
			must(t, os.Rename(path, path+".2"))
			switch older {
			case "gone":
				must(t, os.Remove(path+".2"))
			case "strange":
				must(t, os.Rename(path+".2", path+"_1"))
			case "compressed":
				compress(t, path+".2")
			}
			appendTo(t, path+".1", textOf(100, 200))
			appendTo(t, path, textOf(200, 300))
			start(t, a, c)
			until(t, "all lines", has(a, 300))
			wantLines(t, a, 300)
		})
	}
}

func TestAFileThatIsCutTwiceBetweenTwoLooksIsReadFromBothCopies(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", ".gz", ".zst"} {
		t.Run("older copy"+suffix, func(t *testing.T) {
			t.Parallel()
			testCutTwice(t, suffix)
		})
	}
}

// testCutTwice gives the older copy that suffix. R09.
func testCutTwice(t *testing.T, suffix string) {
	t.Helper()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.gate = make(chan struct{})
	appendTo(t, path, textOf(0, 9000))
	in := newInput(t, a, testConfig(path), false)
	var looks atomic.Int64
	in.fs.stat = func(p string) (os.FileInfo, error) {
		if p == path+".2"+suffix {
			looks.Add(1)
		}
		return os.Stat(p)
	}
	startInput(t, a, in)
	a.gate <- struct{}{}
	copyTruncate(t, path, path+".1", textOf(9000, 9100))
	must(t, os.Rename(path+".1", path+".2"))
	if suffix != "" {
		compressAs(t, path+".2", suffix)
	}
	copyTruncate(t, path, path+".1", textOf(9100, 9200))
	until(t, "a scan that sees both copies", func() bool { return looks.Load() > 20 })
	close(a.gate)
	until(t, "all lines", has(a, 9200))
	wantLines(t, a, 9200)
	for i, text := range a.texts() {
		if text != line(i) {
			t.Fatalf("record %d is %s: what was written first does not come first", i, text)
		}
	}
}

func TestRotatedFilesFromBeforeTheFirstStartAreLeftAlone(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	appendTo(t, path+".1", textOf(5000, 5100))
	appendTo(t, path, textOf(0, 10))
	r := start(t, a, c)
	until(t, "first lines", has(a, 10))
	appendTo(t, path+".1", textOf(5100, 5110)) // its writer lets go of it late
	appendTo(t, path, textOf(10, 20))
	until(t, "more lines", has(a, 20))
	must(t, os.Rename(path+".1", path+".2"))
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(20, 30))
	until(t, "lines after a rotation", has(a, 30))
	r.stop()
	a.crash()
	appendTo(t, path, textOf(30, 40))
	r = start(t, a, c)
	until(t, "lines after a restart", has(a, 40))
	r.stop()
	a.crash()
	compress(t, path+".2")
	now := time.Now()
	must(t, os.Chtimes(path+".2.gz", now, now))
	appendTo(t, path, textOf(40, 50))
	start(t, a, c)
	until(t, "lines after another restart", has(a, 50))
	wantLines(t, a, 50)
}

func TestABeginningThatFilesShareDoesNotMakeThemKnown(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	banner := strings.Repeat("same beginning ", 100) + "\n"
	a := newFakeAgent(t)
	c := testConfig(path)
	appendTo(t, path+".2", banner+textOf(5000, 5010))
	appendTo(t, path+".1", banner+textOf(5100, 5110))
	appendTo(t, path, banner+textOf(0, 10))
	r := start(t, a, c)
	until(t, "first lines", has(a, 11))
	must(t, os.Rename(path, path+".0"))
	appendTo(t, path, banner+textOf(10, 20))
	until(t, "lines after a rotation", has(a, 22))
	until(t, "the rotated file to be let go", func() bool { return a.drained() == 1 })
	r.stop()
	a.crash()
	must(t, os.Remove(path+".0"))
	appendTo(t, path, textOf(20, 30))
	start(t, a, c)
	until(t, "lines after a restart", has(a, 32))
	a.mu.Lock()
	a.events = slices.DeleteFunc(a.events, func(g got) bool { return g.text+"\n" == banner })
	a.mu.Unlock()
	wantLines(t, a, 30)
}

// newRun makes what Run makes, for tests that drive the scanner themselves.
func newRun(in *input) *run {
	r := &run{
		in: in, cfg: in.cfg, env: in.env, fs: in.fs, started: time.Now(), ctx: context.Background(),
		lineages: map[string]*lineage{}, owners: map[fileID]*lineage{}, place: map[fileID]string{}, pipes: map[string]bool{},
		known: map[string][]*stream{}, lay: map[fileID][]*stream{}, faults: map[string]string{}, maxHeld: in.maxHeld,
	}
	r.workers = []*worker{newWorker(r)}
	return r
}

// posted is what a scan handed over of a lineage, as names to inodes.
func posted(c *scanner, key string) map[string]fileID {
	l := c.r.lineages[key]
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fresh {
		return nil
	}
	m := map[string]fileID{}
	for _, e := range l.posted {
		m[filepath.Base(e.path)] = e.id
	}
	return m
}

func idAt(t testing.TB, path string) fileID {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return idOf(fi)
}

func TestAScanInTheMiddleOfARotationIsNotBelieved(t *testing.T) {
	t.Parallel()
	for _, during := range []string{"x.log", "x.log.1", "x.log.2"} {
		t.Run(during, func(t *testing.T) {
			t.Parallel()
			dir, path := file1(t)
			old := time.Now().Add(-time.Hour)
			for i, name := range []string{"x.log", "x.log.1", "x.log.2"} {
				appendTo(t, filepath.Join(dir, name), textOf(i, i+1))
			}
			in := newInput(t, newFakeAgent(t), testConfig(path), false)
			in.fs.remote = func(string) string { return "test" } // else a file is not looked at unless an event comes
			armed := false
			in.fs.stat = func(p string) (os.FileInfo, error) {
				fi, err := os.Stat(p)
				if armed && filepath.Base(p) == during {
					armed = false
					must(t, os.Rename(path+".2", path+".3"))
					must(t, os.Rename(path+".1", path+".2"))
					must(t, os.Rename(path, path+".1"))
					appendTo(t, path, textOf(9, 10))
				}
				return fi, err
			}
			must(t, os.Chtimes(dir, old, old)) // so that the names are known from the scan before
			c := newScanner(newRun(in))
			defer c.close()
			c.scan()
			armed = true
			c.changed = true
			c.scan()
			got := posted(c, path)
			if armed || len(got) != 4 {
				t.Errorf("%d files seen of 4", len(got))
			}
			for _, name := range []string{"x.log", "x.log.1", "x.log.2", "x.log.3"} {
				if got[name] != idAt(t, filepath.Join(dir, name)) {
					t.Errorf("%s is seen as another file than it is", name)
				}
			}
			for _, l := range c.r.lineages {
				l.close()
			}
		})
	}
}

func TestAFolderThatNeverRestsIsBelievedInTheEnd(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	appendTo(t, path, textOf(0, 1))
	in := newInput(t, newFakeAgent(t), testConfig(filepath.Join(dir, "*.log")), false)
	n := 0
	in.fs.stat = func(p string) (os.FileInfo, error) {
		fi, err := os.Stat(p)
		if p == path {
			must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("t%d.log", n))))
			n++
			appendTo(t, filepath.Join(dir, fmt.Sprintf("t%d.log", n)), textOf(n, n+1))
		}
		return fi, err
	}
	c := newScanner(newRun(in))
	defer c.close()
	c.scan()
	if posted(c, path) != nil {
		t.Error("believed what was seen only once")
	}
	for range maxVague {
		c.scan()
	}
	if posted(c, path) == nil {
		t.Error("not believed after many sweeps")
	}
	for _, l := range c.r.lineages {
		l.close()
	}
}

func TestAFileThatIsRenamedBeforeItCouldBeOpenedIsReadUnderItsNewName(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	in := newInput(t, a, testConfig(filepath.Join(dir, "*.log")), false)
	appendTo(t, path, textOf(0, 10))
	gone := filepath.Join(dir, "gone.log")
	appendTo(t, gone, textOf(10, 20))
	var once atomic.Bool
	in.fs.open = func(p string) (*os.File, error) {
		if p == path && once.CompareAndSwap(false, true) {
			must(t, os.Rename(path, path+".1"))
		}
		if p == gone {
			_ = os.Remove(gone)
		}
		return realSystem().open(p)
	}
	startInput(t, a, in)
	until(t, "its lines", has(a, 10))
	until(t, "the file that is gone to be counted", func() bool { return a.count("lost_files", "gone") > 0 })
	appendTo(t, path, textOf(10, 20))
	until(t, "all lines", has(a, 20))
	wantLines(t, a, 20)
	if n := a.count("lost_files", "gone"); n != 1 {
		t.Errorf("%d files counted as lost, want 1", n)
	}
}

func TestWhereNamesDoNotTellFilesKeepTheOrderOfTheirAppearance(t *testing.T) {
	t.Parallel()
	at := func(path string, mtime int64) *file {
		return &file{path: path, present: true, rotated: path != "/x.log", st: stamp{mtime: mtime}}
	}
	l := &lineage{files: []*file{at("/x.log", 1), at("/x.log.old", 9), at("/x.log.1", 5), at("/x.log-20260101", 3)}}
	l.order()
	var got []string
	for _, f := range l.files {
		got = append(got, f.path)
	}
	if want := []string{"/x.log.old", "/x.log.1", "/x.log-20260101", "/x.log"}; !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
}

// TestAnInodeOfAnotherLogIsAFileOfThisOne has a log begin with the inode of another log's rotated file, between two looks.
func TestAnInodeOfAnotherLogIsAFileOfThisOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.log"), filepath.Join(dir, "two.log")
	a := newFakeAgent(t)
	c := testConfig(one, two)
	n := 0
	write := func(path string) {
		appendTo(t, path, textOf(n, n+20))
		n += 20
	}
	used := 0
	for range 20 {
		write(one)
		r := start(t, a, c)
		until(t, "all lines", has(a, n))
		must(t, os.Rename(one, one+".1"))
		known := len(a.Known())
		until(t, "the rotated file to be done", func() bool { return a.drained() >= known })
		was := idAt(t, one+".1")
		must(t, os.Remove(one+".1"))
		write(two)
		if idAt(t, two) == was {
			used++
		}
		until(t, "the other log's lines", has(a, n))
		r.stop()
		for _, k := range a.Known() {
			if m, err := decodeMeta(k.Meta); err == nil && m.File == two && m.Path != two {
				t.Errorf("%s is read as a file of %s", m.File, m.Path)
			}
		}
		a.crash()
		must(t, os.Rename(two, two+".1"))
	}
	start(t, a, c)
	write(one)
	until(t, "the last lines", has(a, n))
	wantLines(t, a, n)
	if used == 0 {
		t.Error("no inode was used again: the test proves nothing")
	}
}

func TestAFileUnderNoNameKeepsItsPlaceWhenOthersCome(t *testing.T) {
	t.Parallel()
	gone := func(path string) *file { return &file{path: path, ordered: true, rotated: true} }
	was := func(path string) *file {
		return &file{path: path, present: true, ordered: true, rotated: path != "/x.log"}
	}
	came := func(path string) *file { return &file{path: path, present: true, rotated: path != "/x.log"} }
	for _, c := range []struct {
		files []*file
		want  string
	}{
		{[]*file{was("/x.log.3"), gone("/x.log.2"), was("/x.log.1"), was("/x.log"), came("/x.log.9.gz")}, "/x.log.9.gz /x.log.3 /x.log.2 /x.log.1 /x.log"},
		{[]*file{gone("/x.log.2"), was("/x.log"), came("/x.log.1")}, "/x.log.2 /x.log.1 /x.log"},
		{[]*file{gone("/x.log"), came("/x.log.1"), came("/x.log")}, "/x.log.1 /x.log /x.log"},
		{[]*file{was("/x.log.1"), gone("/x.log.old"), came("/x.log")}, "/x.log.1 /x.log.old /x.log"},
	} {
		l := &lineage{files: c.files}
		l.order()
		var got []string
		for _, f := range l.files {
			got = append(got, f.path)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("order %v, want %s", got, c.want)
		}
	}
}

func TestWhateverNameRotationGivesNothingIsLostOrReadTwice(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{
		".0", ".1", ".old", "-20261121", ".20261121", ".2026-11-21", "-2026-11-21", ".2026-11-21_13-05-22", "-20261121130522", "-20261121-1305",
		"-20261121-1700000000", ".old.gz", ".2026-11-21.gz", "-20261121130522.gz", ".1.zst", "-20261121.zst", ".some-other-name", "_backup",
	} {
		for _, all := range []string{"", "*"} {
			t.Run(suffix+all, func(t *testing.T) {
				t.Parallel()
				_, path := file1(t)
				a := newFakeAgent(t)
				c := testConfig(path + all)
				appendTo(t, path, textOf(0, 500))
				r := start(t, a, c)
				until(t, "first lines", has(a, 500))
				r.stop()
				a.crash()
				appendTo(t, path, textOf(500, 550))
				to, packed := suffix, ""
				if ext := filepath.Ext(suffix); ext == ".gz" || ext == ".zst" {
					to, packed = strings.TrimSuffix(suffix, ext), ext
				}
				must(t, os.Rename(path, path+to))
				if packed != "" {
					compressAs(t, path+to, packed)
				}
				appendTo(t, path, textOf(550, 850))
				r = start(t, a, c)
				until(t, "all lines", has(a, 850))
				wantLines(t, a, 850)
				if got := a.texts(); got[500] != line(500) {
					t.Error("the rest of the older file does not come first")
				}
				until(t, "the rotated file to be let go", func() bool { return a.drained() == 1 })
				// The same while the agent looks.
				must(t, os.Rename(path, path+to+"x"))
				appendTo(t, path, textOf(850, 900))
				until(t, "lines after another rotation", has(a, 900))
				r.stop()
				a.crash()
				start(t, a, c)
				appendTo(t, path, textOf(900, 910))
				until(t, "lines after a restart", has(a, 910))
				wantLines(t, a, 910)
				if n := a.count("lost_files", "gone"); n != 0 {
					t.Errorf("%d files counted as lost", n)
				}
			})
		}
	}
}

func TestAFileWithAStrangeNameCanBeReplayed(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	appendTo(t, path, textOf(0, 100))
	r := start(t, a, c)
	until(t, "first lines", has(a, 100))
	r.stop()
	must(t, os.Rename(path, path+"_put_aside"))
	k := a.Known()[0]
	must(t, newInput(t, newFakeAgent(t), c, false).CanReplay(context.Background(), k, k.Start))
}

func TestAFileThatVanishedIsNamedOnceAndGivenUp(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.log = &journal{}
	c := testConfig(path)
	appendTo(t, path, textOf(0, 100))
	r := start(t, a, c)
	until(t, "first lines", has(a, 100))
	r.stop()
	a.crash()
	k := a.Known()[0]
	must(t, os.Remove(path))
	n := 100
	for range 3 {
		appendTo(t, path, textOf(n, n+10))
		n += 10
		r := start(t, a, c)
		until(t, "lines of the new file", has(a, n))
		until(t, "the old one to be given up", func() bool { return a.drained() == 1 })
		r.stop()
		a.crash()
	}
	wantLines(t, a, n)
	if n := a.count("lost_files", "gone"); n != 1 {
		t.Errorf("%d files counted as lost, want 1", n)
	}
	if n := a.log.count("file vanished, what was appended after the offset is unknown"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if a.log.count(fmt.Sprintf("offset=%d", k.Start.Seq)) == 0 {
		t.Error("the offset is not named")
	}
}

func TestCompressedContentIsKnownByItsBeginningWhateverTheName(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".gz", ".zst"} {
		t.Run(suffix, func(t *testing.T) {
			t.Parallel()
			testCompressedUnderAnotherName(t, suffix)
		})
	}
}

func testCompressedUnderAnotherName(t *testing.T, suffix string) {
	t.Helper()
	dir, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path+".1", textOf(0, 3000))
	compressAs(t, path+".1", suffix)
	must(t, os.Rename(path+".1"+suffix, path+".1"))
	appendTo(t, path, textOf(3000, 3010))
	appendTo(t, filepath.Join(dir, "y.log"), "")
	appendTo(t, filepath.Join(dir, "z"), textOf(3010, 3020))
	compressAs(t, filepath.Join(dir, "z"), suffix)
	c := testConfig(filepath.Join(dir, "*.log*"))
	r := start(t, a, c)
	until(t, "lines of both", has(a, 3010))
	data, err := os.ReadFile(filepath.Join(dir, "z"+suffix))
	must(t, err)
	appendTo(t, filepath.Join(dir, "y.log"), string(data)) // it was empty when it was opened
	until(t, "lines of the file that was empty", has(a, 3020))
	r.stop()
	a.crash()
	appendTo(t, path, textOf(3020, 3021))
	start(t, a, c)
	until(t, "lines after a restart", has(a, 3021))
	wantLines(t, a, 3021)
	if n := len(a.events); n != 3021 {
		t.Errorf("%d events arrived, want 3021", n)
	}
	// It can be read again, too.
	for _, k := range a.Known() {
		must(t, newInput(t, newFakeAgent(t), c, false).CanReplay(context.Background(), k, k.Start))
	}
}

func TestUnfinishedFilesAreLeftOutUnlessNamed(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	for i, name := range []string{"x.log.tmp", "x.log.1.gz.part", "x.log.swp", "x.log~", ".x.log.1mWq3Z"} {
		appendTo(t, filepath.Join(dir, name), textOf(1000+i, 1001+i))
	}
	named, dotted := filepath.Join(dir, "named.tmp"), filepath.Join(dir, ".wanted.log")
	appendTo(t, named, textOf(0, 1))
	appendTo(t, path, textOf(1, 2))
	appendTo(t, dotted, textOf(2, 3))
	c := testConfig(filepath.Join(dir, "*"), named, filepath.Join(dir, ".w*"))
	start(t, a, c)
	until(t, "all files", has(a, 3))
	appendTo(t, path, textOf(3, 4))
	until(t, "one more line", has(a, 4))
	wantLines(t, a, 4)
	if c.Follows(path+"~") || c.Follows(filepath.Join(dir, ".x.log.1mWq3Z")) || !c.Follows(path) || !c.Follows(named) || !c.Follows(dotted) {
		t.Error("Follows says something else")
	}
}

func TestAFileIsLeftOnceNoProgramHasItOpenForWriting(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	w, err := os.Create(path)
	must(t, err)
	o, err := os.Open(path)
	must(t, err)
	h := newHandle(o)
	defer h.release()
	f := &file{h: h}
	if f.left() {
		t.Error("a program has it open")
	}
	_, err = w.WriteString("late\n")
	must(t, err)
	must(t, w.Close())
	if f.left() {
		t.Error("what was written last is not read so far")
	}
	f.st.size = 5
	if !f.left() {
		t.Error("no program has it open")
	}
	again, err := os.OpenFile(path, os.O_WRONLY, 0) // the answer keeps nobody away
	must(t, err)
	must(t, again.Close())
	if (&file{}).left() {
		t.Error("a closed file")
	}
}

func TestThatNothingMatchesIsSaidAfterTwoSweepsAndOnce(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	a.log = &journal{}
	conf := testConfig(path)
	conf.Sweep = time.Hour
	c := newScanner(newRun(newInput(t, a, conf, false)))
	defer c.close()
	scan := func(want int, what string) {
		t.Helper()
		c.scan()
		if n := a.log.count("no file matches"); n != want {
			t.Errorf("%s: said %d times, want %d", what, n, want)
		}
	}
	pass := func() {
		for _, e := range c.empty {
			e.since = e.since.Add(-3 * time.Hour)
		}
	}
	scan(0, "at the start")
	scan(0, "at once again")
	appendTo(t, path, textOf(0, 1))
	scan(0, "with a file")
	must(t, os.Rename(path, path+".1"))
	scan(0, "in the middle of a rotation")
	pass()
	scan(1, "after two sweeps")
	scan(1, "after three")
	appendTo(t, path, textOf(0, 1))
	scan(1, "with a file again")
	must(t, os.Remove(path))
	scan(1, "without it")
	pass()
	scan(2, "after two sweeps without it")
	for _, l := range c.r.lineages {
		l.close()
	}
	once := newFakeAgent(t)
	once.log = &journal{}
	runOnce(t, once, testConfig(path))
	if n := once.log.count("no file matches"); n != 1 {
		t.Errorf("with once: said %d times", n)
	}
}

func TestAnUnlinkedOrRotatedFileIsReadForTheGraceAndThenClosed(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"removed", "rotated"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			_, path := file1(t)
			a := newFakeAgent(t)
			c := testConfig(path)
			w, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
			must(t, err)
			defer w.Close()
			_, err = w.WriteString(textOf(0, 10))
			must(t, err)
			start(t, a, c)
			until(t, "first lines", has(a, 10))
			at := path
			if how == "removed" {
				must(t, os.Remove(path))
			} else {
				at += ".1"
				must(t, os.Rename(path, at))
			}
			since := time.Now()
			n := 10
			for time.Since(since) < 3*c.Grace {
				if !opened(t, at) {
					t.Fatal("closed before the grace had passed")
				}
				_, err = w.WriteString(line(n) + "\n")
				must(t, err)
				n++
				until(t, "late line", has(a, n))
			}
			must(t, w.Close())
			until(t, "the file to be closed", func() bool { return !opened(t, at) && a.drained() == 1 })
			wantLines(t, a, n)
		})
	}
}

// opened reports whether this process has a file open for reading.
func opened(t testing.TB, path string) bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || strings.TrimSuffix(to, " (deleted)") != path {
			continue
		}
		if info, err := os.ReadFile("/proc/self/fdinfo/" + fd.Name()); err == nil && !strings.Contains(firstFlags(string(info)), "1") {
			return true
		}
	}
	return false
}

// firstFlags is the last digit of the flags in fdinfo, which holds the access mode: 1 for writing only.
func firstFlags(info string) string {
	_, flags, _ := strings.Cut(info, "flags:")
	flags, _, _ = strings.Cut(flags, "\n")
	flags = strings.TrimSpace(flags)
	return flags[max(0, len(flags)-1):]
}
