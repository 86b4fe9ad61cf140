package tail

import (
	"os"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
)

func TestDescribeFindsAStreamWhereItsContentIs(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	a := newFakeAgent(t)
	c := testConfig(path)
	k := readAndStopped(t, a, c, path, 100)
	in := newInput(t, newFakeAgent(t), c, false)
	in.rest = 200 * time.Millisecond
	describe := func(want plugins.Source) {
		t.Helper()
		got, err := in.Describe(t.Context(), k)
		must(t, err)
		if got.Written.IsZero() {
			t.Error("it does not say when the file was written")
		}
		want.Stream, got.Written = k.Name, time.Time{}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	read := int64(len(textOf(0, 100)))
	describe(plugins.Source{Name: path, Size: read})
	appendTo(t, path, textOf(100, 5000)) // so much that it is not decompressed at one go
	all := int64(len(textOf(0, 5000)))
	describe(plugins.Source{Name: path, Size: all})
	must(t, os.Rename(path, path+".1"))
	appendTo(t, path, textOf(500, 900))
	describe(plugins.Source{Name: path + ".1", Size: all})
	compress(t, path+".1")
	describe(plugins.Source{Name: path + ".1.gz", Size: all})
	must(t, os.Remove(path+".1.gz"))
	describe(plugins.Source{Name: path, Size: read, Gone: true})
	k.Drained = true // what was read to its end is not searched for
	describe(plugins.Source{Name: path, Size: read})
	k.Meta = []byte("{}")
	if _, err := in.Describe(t.Context(), k); err == nil {
		t.Error("unknown meta is described")
	}
}

func TestAWindowReadsFromTheBeginningAndLeavesTheRestOut(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	for suffix, day := range map[string]string{".2": "01", ".1": "03"} { // not matched, and only the second may hold something
		appendTo(t, path+suffix, access("01")+access(day))
		at, err := time.Parse(time.DateOnly, "2026-01-"+day)
		must(t, err)
		must(t, os.Chtimes(path+suffix, at.Add(20*time.Hour), at.Add(20*time.Hour)))
	}
	compress(t, path+".2")
	compressAs(t, path+".1", ".zst")
	appendTo(t, path, access("01")+access("02")+"no time\n"+access("03")+access("04"))
	a := newFakeAgent(t)
	c := testConfig(path)
	c.Start = "end" // says nothing for a window
	env := a.env(true)
	env.Window = plugins.Window{Since: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), Until: time.Date(2026, 1, 4, 0, 0, 0, 0, time.UTC)}
	in, err := New(c, env)
	must(t, err)
	must(t, in.Run(t.Context(), a))
	if got := a.all(); len(got) != 3 || got[0].offset != int64(len(access("01"))) {
		t.Errorf("got %d records, want those of two days: %v", len(got), got)
	}
	for reason, want := range map[string]int64{"before_start": 2, "after_end": 1, "no_time": 1} {
		if n := a.count("skipped", reason); n != want {
			t.Errorf("%s: %d, want %d", reason, n, want)
		}
	}
}
