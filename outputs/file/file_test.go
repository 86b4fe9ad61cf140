package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func readDir(dir string) []byte {
	var out []byte
	_ = filepath.WalkDir(filepath.Join(dir, "out"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, _ := os.ReadFile(p)
			out = fmt.Appendf(out, "== %s\n%s", strings.TrimPrefix(p, dir), data)
		}
		return nil
	})
	return out
}

// readInOrder reads a path and its files put aside, the oldest first: after Restore their numbers may have gaps.
func readInOrder(dir string) (out []byte) {
	for n := maxKept; n >= 0; n-- {
		name := dir + "/out/all.ndjson"
		if n > 0 {
			name = fmt.Sprintf("%s.%d", name, n)
		}
		if data, err := os.ReadFile(name); err == nil {
			out = append(out, data...)
			out = append(out, "==\n"...)
		}
	}
	return out
}

const maxKept = 100

func TestContract(t *testing.T) {
	plugintest.Output(t, Spec, "path: $DIR/out/all.ndjson", plugintest.Observe(readDir))
	plugintest.Output(t, Spec, "path: $DIR/out/{{service}}/%Y-%m-%d.{{method}}.ndjson\nmode: 0600\nevent_id: true\nsync: always", plugintest.Observe(readDir))
	plugintest.Output(t, Spec, "path: $DIR/out/all.ndjson\nrotate: {size: 4KiB, keep: 100}", plugintest.Observe(readInOrder))
}

// event makes one event with a number and a service.
func numbered(service string, ns ...int) []*event.Event {
	b := event.NewBatch("s")
	for _, n := range ns {
		e := b.Append()
		e.Service = service
		e.Set("n", event.IntValue(int64(n)))
	}
	return list(b)
}

func list(b *event.Batch) (all []*event.Event) {
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

func onDisk(t *testing.T, cfg Config, d *disk) *output {
	t.Helper()
	o, err := build(cfg, plugins.Env{StateDir: "/state"}, d.tree)
	if err != nil {
		t.Fatal(err)
	}
	o.worker.manual = true
	return o
}

func onReal(t *testing.T, cfg Config) (*output, string) {
	t.Helper()
	dir := t.TempDir()
	cfg.Path = strings.ReplaceAll(cfg.Path, "$DIR", dir)
	o, err := build(cfg, plugins.Env{StateDir: dir + "/state"}, newTree)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o, dir
}

func config(path string) Config {
	c := Spec.Defaults.(Config)
	c.Path = path
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, p string) []string {
	t.Helper()
	data, err := os.ReadFile(p)
	must(t, err)
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func take(t *testing.T, o *output) []byte {
	t.Helper()
	tok, err := o.Token()
	must(t, err)
	return tok
}

func TestFullDiskTearsAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"/out/all.ndjson", "/out/{{service}}.ndjson"} {
		for free := range int64(900) {
			d := newDisk()
			o := onDisk(t, config(p), d)
			_, err := o.Restore(nil)
			must(t, err)
			take(t, o)
			d.free = free
			todo := append(numbered("a", 0, 1, 2), numbered("b", 3, 4, 5)...)
			todo[1], todo[4] = todo[4], todo[1]
			for range 3 {
				err := o.Write(context.Background(), todo)
				if part, ok := errors.AsType[*plugins.PartialError](err); ok {
					var rest []*event.Event
					for i, e := range todo {
						if cause := part.Failed[i]; cause != nil {
							if !errors.Is(cause, syscall.ENOSPC) {
								t.Fatalf("got %v", cause)
							}
							rest = append(rest, e)
						}
					}
					todo = rest
				} else if err == nil {
					todo = nil
					break
				}
			}
			d.free = -1
			if len(todo) > 0 {
				must(t, o.Write(context.Background(), todo))
			}
			must(t, o.Close())
			seen := map[int]int{}
			for n, f := range d.names {
				if strings.HasPrefix(n, "/out") {
					for l := range bytes.Lines(f.data) {
						var k int
						if i := bytes.Index(l, []byte(`"n":`)); i < 0 || !bytes.HasSuffix(l, []byte("}\n")) {
							t.Fatalf("free %d: torn line %q", free, l)
						} else if _, err := fmt.Sscanf(string(l[i:]), `"n":%d}`, &k); err != nil {
							t.Fatal(err)
						}
						seen[k]++
					}
				}
			}
			for k := range 6 {
				if seen[k] != 1 {
					t.Fatalf("%s, %d bytes free: event %d stands there %d times", p, free, k, seen[k])
				}
			}
		}
	}
}

func TestRestoreCutsNothingWhenOneFileDisagrees(t *testing.T) {
	t.Parallel()
	damages := map[string]func([]byte) []byte{
		"changed": func(p []byte) []byte { p[3] ^= 1; return p },
		"shorter": func(p []byte) []byte { return p[:3] },
	}
	for name, damage := range damages {
		o, dir := onReal(t, config("$DIR/out/{{service}}.ndjson"))
		must(t, o.Write(context.Background(), append(numbered("a", 0), numbered("b", 1)...)))
		tok := take(t, o)
		must(t, o.Write(context.Background(), append(numbered("a", 2), numbered("b", 3)...)))
		must(t, o.Close())
		b := dir + "/out/b.ndjson"
		data, _ := os.ReadFile(b)
		must(t, os.WriteFile(b, damage(data), 0o600))
		again, err := build(o.cfg, plugins.Env{StateDir: dir + "/state"}, newTree)
		must(t, err)
		cut, err := again.Restore(tok)
		var kept *plugins.KeptError
		if cut != 0 || !errors.As(err, &kept) || !strings.Contains(kept.Reason, "b.ndjson") {
			t.Fatalf("%s: cut %d, %v", name, cut, err)
		}
		if n := len(lines(t, dir+"/out/a.ndjson")); n != 2 {
			t.Errorf("%s: a has %d lines", name, n)
		}
		must(t, again.Write(context.Background(), numbered("b", 4))) // it goes on, on a line of its own
		if l := lines(t, b); !strings.HasSuffix(l[len(l)-1], `"n":4}`) || !strings.HasPrefix(l[len(l)-1], "{") {
			t.Errorf("%s: the new record is glued to %q", name, l)
		}
		must(t, again.Close())
	}
}

func TestRestoreRefusesForeignAndDamagedState(t *testing.T) {
	t.Parallel()
	o, dir := onReal(t, config("$DIR/out/a.ndjson"))
	old := take(t, o)
	must(t, o.Write(context.Background(), numbered("a", 0)))
	tok := take(t, o)
	must(t, o.Write(context.Background(), numbered("a", 1)))
	must(t, o.Close())
	restore := func(tok []byte) error {
		again, err := build(o.cfg, plugins.Env{StateDir: dir + "/state"}, newTree)
		must(t, err)
		_, err = again.Restore(tok)
		must(t, again.Close())
		return err
	}
	journal := dir + "/state/" + journalName
	good, err := os.ReadFile(journal)
	must(t, err)
	var kept *plugins.KeptError
	for name, data := range map[string][]byte{
		"another journal": appendLine(nil, header{Version: 1, ID: "ff", Base: dir}),
		"too new":         appendLine(nil, header{Version: 1, ID: o.journal.header.ID, Base: dir, Floor: 99}),
		"damaged":         append([]byte("x"), good...),
		"empty":           nil,
	} {
		must(t, os.WriteFile(journal, data, 0o600))
		if err := restore(tok); !errors.As(err, &kept) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.Remove(journal))
	if err := restore(tok); !errors.As(err, &kept) {
		t.Errorf("missing: %v", err)
	}
	for _, tok := range []string{"", "x", "{}", `{"v":9}`, "null"} {
		must(t, os.WriteFile(journal, good, 0o600))
		if err := restore([]byte(tok)); !errors.As(err, &kept) {
			t.Errorf("token %q: %v", tok, err)
		}
	}
	if n := len(lines(t, dir+"/out/a.ndjson")); n != 2 {
		t.Errorf("%d lines are left", n)
	}
	// A torn last line stands for a file that was not touched.
	must(t, os.WriteFile(journal, append(good, `0123 {"gen`...), 0o600))
	must(t, restore(old))
	if _, err := os.Stat(dir + "/out/a.ndjson"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file that was made after the token is there: %v", err)
	}
}

func TestFilesAreFoundByInodeAfterAnotherProgramRenamedThem(t *testing.T) {
	t.Parallel()
	o, dir := onReal(t, config("$DIR/out/a.ndjson"))
	must(t, o.Write(context.Background(), numbered("a", 0)))
	tok := take(t, o)
	must(t, o.Write(context.Background(), numbered("a", 1)))
	must(t, os.Rename(dir+"/out/a.ndjson", dir+"/out/a.ndjson-20260102"))
	o.Reopen()
	must(t, o.Write(context.Background(), numbered("a", 2)))
	if l := lines(t, dir+"/out/a.ndjson"); len(l) != 1 || !strings.Contains(l[0], `"n":2`) {
		t.Errorf("after Reopen: %q", l)
	}
	must(t, o.Close())
	again, err := build(o.cfg, plugins.Env{StateDir: dir + "/state"}, newTree)
	must(t, err)
	if _, err := again.Restore(tok); err != nil {
		t.Fatal(err)
	}
	must(t, again.Close())
	if l := lines(t, dir+"/out/a.ndjson-20260102"); len(l) != 1 {
		t.Errorf("the renamed file has %d lines", len(l))
	}
	if _, err := os.Stat(dir + "/out/a.ndjson"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new file is there: %v", err)
	}
}

func TestChangesByOthersMakeNeitherHolesNorLoss(t *testing.T) {
	t.Parallel()
	o, dir := onReal(t, config("$DIR/out/a.ndjson"))
	p := dir + "/out/a.ndjson"
	must(t, o.Write(context.Background(), numbered("a", 0, 1)))
	must(t, os.Truncate(p, 0))
	must(t, o.Write(context.Background(), numbered("a", 2)))
	if data, _ := os.ReadFile(p); bytes.IndexByte(data, 0) >= 0 || bytes.Count(data, []byte("\n")) != 1 {
		t.Errorf("after a cut: %q", data)
	}
	must(t, os.Remove(p))
	must(t, o.Write(context.Background(), numbered("a", 3)))
	if l := lines(t, p); len(l) != 1 || !strings.Contains(l[0], `"n":3`) {
		t.Errorf("after a removal: %q", l)
	}
	st, err := os.Stat(p)
	must(t, err)
	if st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestCompressionInTheBackground(t *testing.T) {
	t.Parallel()
	c := config("$DIR/out/a.ndjson")
	c.Rotate = Rotate{Size: 500, Keep: 3, Compress: gzipFiles}
	o, dir := onReal(t, c)
	n := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		must(t, o.Write(context.Background(), numbered("a", n, n+1)))
		n += 2
		take(t, o)
		names, _ := filepath.Glob(dir + "/out/a.ndjson.[1-9].gz")
		old, _ := filepath.Glob(dir + "/out/a.ndjson.[1-9]*")
		if len(names) == 3 && len(old) <= 5 {
			return
		}
		<-tick.C
	}
	t.Errorf("there are not three compressed files: %s", readDir(dir)[:500])
}

func TestCompressionNeedsNoFurtherToken(t *testing.T) {
	t.Parallel()
	c := config("$DIR/out/a.ndjson")
	c.Rotate = Rotate{Size: 300, Keep: 50, Compress: gzipFiles}
	plain := func(dir string) []string {
		names, _ := filepath.Glob(dir + "/out/a.ndjson.*")
		return slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, ".gz") })
	}
	fill := func(o *output) []byte {
		for n := range 40 {
			must(t, o.Write(context.Background(), numbered("a", n)))
		}
		return take(t, o)
	}
	t.Run("an idle output", func(t *testing.T) {
		t.Parallel()
		o, dir := onReal(t, c)
		tok := fill(o)
		if len(plain(dir)) == 0 {
			t.Fatal("nothing was put aside")
		}
		o.Stored(tok)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range 10000 {
			if len(plain(dir)) == 0 {
				return
			}
			<-tick.C
		}
		t.Errorf("not compressed: %v", plain(dir))
	})
	t.Run("at the end", func(t *testing.T) {
		t.Parallel()
		o, dir := onReal(t, c)
		o.Stored(fill(o))
		must(t, o.Close())
		if len(plain(dir)) > 0 {
			t.Errorf("not compressed: %v", plain(dir))
		}
	})
	t.Run("by the next run", func(t *testing.T) {
		t.Parallel()
		o, dir := onReal(t, c)
		tok := fill(o)
		must(t, o.Close())
		if len(plain(dir)) == 0 {
			t.Fatal("compressed what a restart may still cut")
		}
		c := c
		c.Path = dir + "/out/a.ndjson"
		o, err := build(c, plugins.Env{StateDir: dir + "/state"}, newTree)
		must(t, err)
		_, err = o.Restore(tok)
		must(t, err)
		o.Stored(take(t, o))
		must(t, o.Close())
		if len(plain(dir)) > 0 {
			t.Errorf("not compressed: %v", plain(dir))
		}
	})
}

func TestTwoWritersOfOneFileAreRefused(t *testing.T) {
	t.Parallel()
	one, dir := onReal(t, config("$DIR/out/a.ndjson"))
	must(t, one.Write(context.Background(), numbered("a", 1)))
	two, err := build(config(dir+"/out/a.ndjson"), plugins.Env{StateDir: dir + "/state2"}, newTree)
	must(t, err)
	defer func() { _ = two.Close() }()
	if err := two.Write(context.Background(), numbered("a", 2)); !errors.Is(err, errInUse) || !strings.Contains(err.Error(), dir+"/out/a.ndjson") {
		t.Errorf("the second writer: %v", err)
	}
	must(t, one.Close())
	must(t, two.Write(context.Background(), numbered("a", 2)))
}

func TestFieldsStayBelowTheBase(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 500)
	for value, want := range map[string]string{
		"nova": "nova/nova.nova.log", "": "_/_._.log", "..": "_/_._.log", ".": "_/_._.log",
		"../../etc": ".._.._etc/.._.._etc..._.._etc.log", "a/b": "a_b/a_b.a_b.log", "a\x00\n\x7fb": "a___b/a___b.a___b.log",
		"\xff\xfeü": "__ü/__ü.__ü.log", "...": ".../........log",
	} {
		o, dir := onReal(t, config("$DIR/out/{{service}}/{{service}}.{{service}}.log"))
		must(t, o.Write(context.Background(), numbered(value, 1)))
		if _, err := os.Lstat(dir + "/out/" + want); err != nil {
			t.Errorf("%q: %s", value, readDir(dir))
		}
		must(t, o.Write(context.Background(), numbered(long, 1))) // cut, not refused
	}
	// Values cannot name a file that was put aside, nor step up by being joined.
	tm, err := parseTemplate("/b/{{service}}{{method}}")
	must(t, err)
	var r renderer
	for _, c := range [][3]string{{"x", ".1", "x.1_"}, {"x.2.gz", "", "x.2.gz__"}, {".", ".", "._"}, {".x", ".gz.tmp", ".x.gz.tmp_"}, {"x.01", "y", "x.01y"}} {
		e := event.NewBatch("").Append()
		e.Service, e.Method = c[0], c[1]
		if got := string(r.render(tm, e, time.Time{})); got != c[2] && c[0] != "." && c[1] != "" {
			t.Errorf("%q makes %q, not %q", c[:2], got, c[2])
		} else if got == ".." || looksRotated([]byte(got)) {
			t.Errorf("%q makes %q", c[:2], got)
		}
	}
}

func TestLinksAreNotWrittenThrough(t *testing.T) {
	t.Parallel()
	o, dir := onReal(t, config("$DIR/out/{{service}}/a.ndjson"))
	outside := t.TempDir()
	must(t, os.MkdirAll(dir+"/out/link", 0o700))
	must(t, os.WriteFile(outside+"/x", []byte("x"), 0o600))
	must(t, os.Symlink(outside, dir+"/out/dir"))
	must(t, os.Symlink(outside+"/x", dir+"/out/link/a.ndjson"))
	must(t, syscall.Mkdir(dir+"/out/fifo", 0o700))
	must(t, syscall.Mkfifo(dir+"/out/fifo/a.ndjson", 0o600))
	for _, s := range []string{"dir", "link", "fifo"} {
		if err := o.Write(context.Background(), numbered(s, 1)); err == nil {
			t.Errorf("%s was written through", s)
		}
	}
	left, _ := os.ReadDir(outside)
	if data, _ := os.ReadFile(outside + "/x"); len(left) != 1 || string(data) != "x" {
		t.Errorf("outside there is %v, %q", left, data)
	}
}

func TestTooManyPathsAreDeadAndNamed(t *testing.T) {
	t.Parallel()
	c := config("/out/{{service}}-%M")
	c.MaxPaths = 2
	o := onDisk(t, c, newDisk())
	for minute := range 5 { // new dates are no new paths
		b := event.NewBatch("s")
		for i := range 4 {
			e := b.Append()
			e.Service, e.Time = fmt.Sprint("s", i%3), time.Unix(int64(minute)*60, 0)
		}
		var part *plugins.PartialError
		err := o.Write(context.Background(), list(b))
		if !errors.As(err, &part) || len(part.Failed) != 1 {
			t.Fatalf("got %v", err)
		}
		var dead *plugins.PermanentError
		if !errors.As(part.Failed[2], &dead) || !strings.Contains(dead.Error(), "max_paths") {
			t.Errorf("got %v", part.Failed[2])
		}
	}
}

func TestTokenIsBounded(t *testing.T) {
	t.Parallel()
	o := onDisk(t, config("/out/{{service}}.ndjson"), newDisk())
	most := 0
	for round := range 5 {
		var all []*event.Event
		for i := range 1000 {
			all = append(all, numbered(fmt.Sprintf("service-%d-%d", round%2, i), i)...)
		}
		must(t, o.Write(context.Background(), all))
		most = max(most, len(take(t, o)))
		if o.open > maxOpen {
			t.Errorf("%d files are open", o.open)
		}
	}
	t.Logf("largest token: %d bytes for 2000 paths", most)
	if most > maxOpen*150 {
		t.Errorf("a token has %d bytes", most)
	}
	for range idleTokens + 2 {
		take(t, o)
	}
	if n := len(take(t, o)); n > 200 {
		t.Errorf("with nothing written a token has %d bytes", n)
	}
	must(t, o.Close())
}

func TestFailedSyncStopsCommitting(t *testing.T) {
	t.Parallel()
	d := newDisk()
	o := onDisk(t, config("/out/a.ndjson"), d)
	must(t, o.Write(context.Background(), numbered("a", 1)))
	d.failing = func(op string) error {
		if op == "sync a.ndjson" {
			return syscall.EIO
		}
		return nil
	}
	if _, err := o.Token(); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	d.failing = nil
	if _, err := o.Token(); err == nil {
		t.Error("the second sync was believed")
	}
	if err := o.Write(context.Background(), numbered("a", 2)); err == nil {
		t.Error("it writes on")
	}
}

func TestConfigurationFaultsNameTheColumn(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"out.log": "absolute", "/a/": "directory", "/a/{{x": "column 4", "/a/%q": "column 4", "/a/%": "column 4", "/{{service}}/x": "before the first",
		"/a/../{{service}}": "..", "/a/{{}}": "column 4", "/a/{{roles}}": "list", "/a/\x01": "column 4", "/ü/%!": "column 4",
	} {
		err := config(path).Validate()
		var k conf.KeyError
		if !errors.As(err, &k) || k.Key != "path" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
	must(t, config("/var/log/{{ service }}-%Y%m%d%%.ndjson").Validate())
	env := plugins.Env{Fields: map[string]event.Kind{"tenant": event.String}}
	if _, err := New(config("/a/{{tenant}}"), env); err != nil {
		t.Error(err)
	}
	_, err := New(config("/a/{{servise}}"), env)
	var k conf.KeyError
	if !errors.As(err, &k) || !strings.Contains(err.Error(), `column 4: unknown field "servise" (did you mean "service"?)`) {
		t.Errorf("got %v", err)
	}
	got := config("/a/{{service}}.x").WrittenPaths()
	if len(got) < 4 || got[0] != "/a/x.x" || got[1] != "/a/x.x.1" {
		t.Errorf("written paths %q", got)
	}
	for text, ok := range map[string]bool{"0640": true, "0o600": true, "644": true, "0999": false, "01777": false, "": false, "rw": false} {
		var m Mode
		if err := m.UnmarshalText([]byte(text)); (err == nil) != ok {
			t.Errorf("mode %q: %v", text, err)
		}
	}
}

func TestPathsTakeTheTimeBefore(t *testing.T) {
	t.Parallel()
	b := event.NewBatch("s")
	b.ReadAt = time.Date(2026, 5, 6, 0, 0, 0, 0, time.UTC)
	for i := range 6 {
		e := b.Append()
		if i == 2 || i == 4 {
			e.Time = time.Date(2026, 1, i, 0, 0, 0, 0, time.UTC)
		}
	}
	var tm timed
	var got []string
	for _, i := range []int{0, 1, 2, 3, 5} {
		got = append(got, tm.of(&b.Events[i]).Format("0102"))
	}
	if s := strings.Join(got, " "); s != "0506 0506 0102 0102 0104" {
		t.Errorf("got %s", s)
	}
	var r renderer
	tpl, err := parseTemplate("/x/%Y%m%d-%H%M-%j")
	must(t, err)
	if got := string(r.render(tpl, &b.Events[0], time.Date(1969, 12, 31, 23, 59, 30, 0, time.UTC))); got != "19691231-2359-365" {
		t.Errorf("got %s", got)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, p := range []string{"/all.ndjson", "/{{service}}-%Y%m%d.ndjson"} {
		b.Run(p, func(b *testing.B) {
			o, err := build(config(b.TempDir()+p), plugins.Env{StateDir: b.TempDir()}, newTree)
			if err != nil {
				b.Fatal(err)
			}
			batch := plugintest.Events(1000)
			batch.Encode(o.enc, nil, func(dst []byte, e *event.Event) []byte { return o.enc.Append(dst, e) })
			events := list(batch)
			b.ReportAllocs()
			for b.Loop() {
				if err := o.Write(context.Background(), events); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
			_ = o.Close()
		})
	}
}
