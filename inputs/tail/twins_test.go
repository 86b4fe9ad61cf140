package tail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const title = "# a first line that each of these files has\n"

// Files that begin alike are not copies of each other: programs write a title into each new file. That files are compressed, and so
// short that their ends are not far, changes nothing.
func TestFilesThatBeginAlikeAreReadEach(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string][]string{
		"packed":                   {".3.gz", textOf(0, 5), ".2.zst", textOf(5, 10), ".1.gz", textOf(10, 15), "", textOf(15, 20)},
		"packed and large":         {".2.gz", textOf(0, 20000), ".1.gz", textOf(20000, 30000), "", textOf(30000, 30010)},
		"plain":                    {".3", textOf(0, 5), ".2", textOf(5, 10), ".1", textOf(10, 15), "", textOf(15, 20)},
		"both":                     {".3.gz", textOf(0, 5), ".2", textOf(5, 10), ".1.gz", textOf(10, 15), "", textOf(15, 20)},
		"nothing else so far":      {".3.gz", textOf(0, 5), ".2.zst", textOf(5, 10), "", ""},
		"nothing else, one is not": {".2.gz", textOf(0, 5), ".1", textOf(5, 10), "", ""},
	} {
		for _, once := range []bool{true, false} {
			dir, path := file1(t)
			var want []string
			for i := 0; i < len(parts); i += 2 {
				suffix, text := parts[i], title+parts[i+1]
				plain := strings.TrimSuffix(strings.TrimSuffix(path+suffix, ".gz"), ".zst")
				must(t, os.WriteFile(plain, []byte(text), 0o644))
				if plain != path+suffix {
					compressAs(t, plain, filepath.Ext(suffix))
				}
				want = append(want, strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
			}
			a := newFakeAgent(t)
			c := testConfig(filepath.Join(dir, "x.log*"))
			for range 2 {
				if once {
					runOnce(t, a, c)
				} else {
					r := start(t, a, c)
					until(t, name+": all lines", has(a, len(want)))
					until(t, name+": the rotated files to be done with", func() bool { return a.drained() == len(parts)/2-1 })
					r.stop()
				}
				if got := a.texts(); !slices.Equal(got, want) {
					t.Errorf("%s, once %v: %d lines, want %d: %.300q", name, once, len(got), len(want), got)
				}
				a.crash()
			}
		}
	}
}

// A damaged file is read as far as that is possible. What begins like it is read all the same, and a whole copy of it is read on from
// where the damage is.
func TestFilesThatBeginLikeADamagedOneAreRead(t *testing.T) {
	t.Parallel()
	for _, copied := range []bool{false, true} {
		for _, once := range []bool{true, false} {
			dir, path := file1(t)
			text := title + textOf(0, 20000)
			data := gzipOf(t, text)
			copy(data[len(data)/2:], strings.Repeat("\x00", 1000))
			must(t, os.WriteFile(path+".2.gz", data, 0o644))
			if copied {
				must(t, os.WriteFile(path+".2", []byte(text), 0o644))
				compressAs(t, path+".2", ".zst")
			} else {
				must(t, os.WriteFile(path+".1.gz", gzipOf(t, text[:len(title)]+textOf(20000, 20010)), 0o644))
			}
			must(t, os.WriteFile(path, []byte(title+textOf(30000, 30010)), 0o644))
			a := newFakeAgent(t)
			c := testConfig(filepath.Join(dir, "x.log*"))
			all := func() []string {
				var missing []string
				got := map[string]int{}
				for _, g := range a.texts() {
					got[g]++
				}
				want := textOf(30000, 30010)
				if copied {
					want += textOf(0, 20000)
				} else {
					want += line(0) + "\n" + textOf(20000, 20010)
				}
				for l := range strings.Lines(want) {
					switch got[l[:len(l)-1]] {
					case 1:
					case 0:
						missing = append(missing, l)
					default:
						t.Fatalf("doubled: %q", l)
					}
				}
				return missing
			}
			if once {
				runOnce(t, a, c)
			} else {
				start(t, a, c)
				until(t, "all that can be read", func() bool { return len(all()) == 0 })
			}
			if missing := all(); len(missing) > 0 {
				t.Errorf("copied %v, once %v: %d lines are missing, as %q", copied, once, len(missing), missing[0])
			}
			if n := a.count("damaged_files", "gzip"); n != 1 {
				t.Errorf("copied %v, once %v: %d files are counted as damaged", copied, once, n)
			}
		}
	}
}

// A program that writes a title into each new file and nothing else for a while leaves files of which one is the beginning of the next.
func TestATitleAloneDoesNotHoldUpTheNextFile(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	start(t, a, testConfig(filepath.Join(dir, "x.log")))
	n := 0
	for i := range 6 {
		appendTo(t, path, title)
		n++
		if i%3 == 2 {
			appendTo(t, path, textOf(i, i+1))
			n++
		}
		until(t, "all lines so far", has(a, n))
		if i%2 == 0 {
			for k := i; k > 0; k-- {
				if err := os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1)); !errors.Is(err, os.ErrNotExist) {
					must(t, err)
				}
			}
			must(t, os.Rename(path, path+".1"))
		}
	}
}

// TestMoreThanACopyHeldIsReadOnceTheCopyIs has a copy be seen with what it was made of: that goes on where the copy ends.
func TestMoreThanACopyHeldIsReadOnceTheCopyIs(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	a := newFakeAgent(t)
	appendTo(t, path+".1", textOf(0, 50))
	appendTo(t, path, textOf(0, 80))
	start(t, a, testConfig(filepath.Join(dir, "x.log*")))
	until(t, "all lines", has(a, 80))
	wantLines(t, a, 80)
}

// TestALogInAnotherFolderThatBeginsAlikeIsAnother: of a log that is gone no more is known than the line that all of them begin with.
func TestALogInAnotherFolderThatBeginsAlikeIsAnother(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one", "x.log"), filepath.Join(dir, "two", "x.log")
	must(t, os.Mkdir(filepath.Dir(one), 0o755))
	must(t, os.Mkdir(filepath.Dir(two), 0o755))
	a := newFakeAgent(t)
	appendTo(t, one, title)
	start(t, a, testConfig(filepath.Join(dir, "*", "x.log*")))
	until(t, "the first title", has(a, 1))
	must(t, os.Remove(one))
	until(t, "the first log to be done with", func() bool { return a.drained() == 1 })
	appendTo(t, two+".1", title+textOf(0, 3))
	until(t, "the second title and its lines", has(a, 5))
}

// TestTheFirstKiBTellsStreamsApartThatBeginAlike: before a line is read, the first one is not enough. What is shorter may be a copy that grows.
func TestTheFirstKiBTellsStreamsApartThatBeginAlike(t *testing.T) {
	t.Parallel()
	dir, path := file1(t)
	write := func(name, text string) content {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		f, err := os.Open(filepath.Join(dir, name))
		must(t, err)
		c := open(newHandle(f), false)
		t.Cleanup(c.close)
		return c
	}
	mine, other, part := write("a", title+textOf(0, 50)), write("b", title+textOf(50, 100)), write("c", title+line(0)+"\n")
	s := newStream("s", path, meta{Head: hexSum([]byte(title)), HeadLen: len(title)})
	must(t, s.moveTo(event.Position{}))
	x := &scratch{}
	see := func(what string, c content, want verdict) {
		if m, err := s.matches(t.Context(), c, s.pos, s.sum, x); err != nil || m != want {
			t.Errorf("%s: verdict %d, %v", what, m, err)
		}
	}
	see("another file, before anything else is known", other, holds)
	must(t, s.learn(t.Context(), mine, x))
	see("its own file", mine, holds)
	see("another file", other, differs)
	see("the beginning of a copy", part, holds)
}
