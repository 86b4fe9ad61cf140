package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Output(t, Spec, `{path: $DIR/events.db}`, plugintest.Observe(func(dir string) []byte { return []byte(ask(t, dir, "SELECT event FROM events ORDER BY id")) }))
}

// reader opens a database as another program would.
func reader(t plugintest.TB, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "events.db"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// ask returns the rows of an answer, a line each.
func ask(t plugintest.TB, dir, query string) string {
	t.Helper()
	db := reader(t, dir)
	defer func() { _ = db.Close() }()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatalf("%v", err)
	}
	var out strings.Builder
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatalf("%v", err)
		}
		for i := range values {
			if i > 0 {
				out.WriteByte('|')
			}
			fmt.Fprint(&out, *values[i].(*any))
		}
		out.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%v", err)
	}
	return out.String()
}

// plugin is an instance with its directory and what it counts.
type plugin struct {
	plugins.Output
	dir     string
	counted map[string]int64
}

func start(t *testing.T, cfg string, prepare func(dir string) error) *plugin {
	t.Helper()
	p := &plugin{counted: map[string]int64{}}
	options := []plugintest.Option{plugintest.Env(func(e *plugins.Env) {
		e.Count = func(name, _ string, n int64) { p.counted[name] += n }
	})}
	if prepare != nil {
		options = append(options, plugintest.Prepare(prepare))
	}
	in := plugintest.Build(t, Spec, cfg, options...)
	p.Output, p.dir = in.Plugin.(plugins.Output), in.Dir
	if err := p.Output.(plugins.Opener).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Output.(plugins.Closer).Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func pointers(b *event.Batch) []*event.Event {
	var all []*event.Event
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

func (p *plugin) write(t *testing.T, b *event.Batch) {
	t.Helper()
	if err := p.Write(t.Context(), pointers(b)); err != nil {
		t.Fatal(err)
	}
}

const plain = `path: $DIR/events.db`

func TestEventsStandInColumnsAndWhole(t *testing.T) {
	p := start(t, plain, nil)
	b := plugintest.Events(10)
	e := &b.Events[1]
	e.ProjectID, e.UserID, e.Path = "p1", "u1", "/a\xffb'\"; DROP TABLE events"
	p.write(t, b)
	want := e.ID() + "|2026-01-02T03:04:01.000000Z|nova|GET|/a\uFFFDb'\"; DROP TABLE events|300|0.001|p1|u1|192.0.2.1|limit=3\n"
	const columns = "id, timestamp, service, method, path, status, duration, project_id, user_id, client, json_extract(event, '$.query')"
	if got := ask(t, p.dir, "SELECT "+columns+" FROM events WHERE user_id = 'u1'"); got != want {
		t.Errorf("got  %s want %s", got, want)
	}
	// The tenth has neither instant nor status.
	want = b.Events[9].ID() + "|2026-01-02T03:04:05.000000Z|<nil>|<nil>|<nil>|<nil>|<nil>|<nil>|<nil>|<nil>|<nil>\n"
	if got := ask(t, p.dir, "SELECT "+columns+" FROM events WHERE json_extract(event, '$.record_class') = 'unparsed'"); got != want {
		t.Errorf("got  %s want %s", got, want)
	}
	if got := ask(t, p.dir, "SELECT count(*), count(event), sum(json_valid(event)) FROM events"); got != "10|10|10\n" {
		t.Errorf("got %s", got)
	}
	if got := ask(t, p.dir, "SELECT strftime('%H:%M', timestamp), avg(duration) > 0 FROM events GROUP BY 1"); got != "03:04|1\n" {
		t.Errorf("SQLite makes of the times %s", got)
	}
}

func TestAnEventThatIsSentAgainStandsOnce(t *testing.T) {
	p := start(t, plain, nil)
	for range 3 {
		p.write(t, plugintest.Events(100))
	}
	p.write(t, plugintest.Events(120))
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "120\n" || p.counted["known"] != 300 {
		t.Errorf("%s rows, counted %v", got, p.counted)
	}
}

func TestWhatWasWrittenIsThereAfterARestart(t *testing.T) {
	p := start(t, plain, nil)
	p.write(t, plugintest.Events(10))
	again, err := New(Config{Path: filepath.Join(p.dir, "events.db")}, plugintest.Build(t, Spec, plain).Env)
	if err != nil {
		t.Fatal(err)
	}
	// The first one is still open, as after a kill.
	if err := again.(plugins.Opener).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := again.Write(t.Context(), pointers(plugintest.Events(20))); err != nil {
		t.Fatal(err)
	}
	if err := again.(plugins.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "20\n" {
		t.Errorf("%s rows", got)
	}
}

func TestOldEventsAreDeleted(t *testing.T) {
	p := start(t, `{path: $DIR/events.db, keep_days: 30}`, nil)
	b := plugintest.Events(9)
	for i := range b.Events {
		b.Events[i].Time = time.Now().AddDate(0, 0, -10*i).Add(time.Hour) // 0, 10, 20, 30, … days old, but for an hour
	}
	p.write(t, b)
	if got := ask(t, p.dir, "SELECT count(*), max(client) FROM events"); got != "4|192.0.2.3\n" || p.counted["expired"] != 5 {
		t.Errorf("left %s, counted %v", got, p.counted)
	}
}

// refusing is a table to which somebody added a rule.
func refusing(dir string) error {
	db, err := sql.Open("sqlite", filepath.Join(dir, "events.db"))
	if err != nil {
		return err
	}
	_, err = db.Exec(strings.Replace(schemaSQL, "status     INTEGER", "status     INTEGER CHECK (status < 500)", 1))
	return errors.Join(err, db.Close())
}

func TestAnEventThatTheTableRefusesDiesAlone(t *testing.T) {
	p := start(t, plain, refusing)
	b := plugintest.Events(9) // every fourth has the status 500
	err := p.Write(t.Context(), pointers(b))
	partial, ok := errors.AsType[*plugins.PartialError](err)
	if !ok || len(partial.Failed) != 2 {
		t.Fatalf("got %v", err)
	}
	for _, i := range []int{3, 7} {
		if _, ok := errors.AsType[*plugins.PermanentError](partial.Failed[i]); !ok || !strings.Contains(partial.Failed[i].Error(), "status < 500") {
			t.Errorf("event %d: %v", i, partial.Failed[i])
		}
	}
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "7\n" {
		t.Errorf("%s rows", got)
	}
}

// permanent reports whether an error would have events die.
func permanent(err error) bool {
	_, partial := errors.AsType[*plugins.PartialError](err)
	_, permanent := errors.AsType[*plugins.PermanentError](err)
	return partial || permanent || errors.Is(err, plugins.ErrTooLarge)
}

func TestALockOfAnotherProgramIsWaitedOut(t *testing.T) {
	p := start(t, plain, nil)
	other := reader(t, p.dir)
	defer func() { _ = other.Close() }()
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	err := p.Write(t.Context(), pointers(plugintest.Events(5)))
	if err == nil || permanent(err) || !strings.Contains(err.Error(), "SQLITE_BUSY") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := p.Write(ctx, pointers(plugintest.Events(5))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context: %v", err)
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	p.write(t, plugintest.Events(5))
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "5\n" {
		t.Errorf("%s rows", got)
	}
}

func TestAFullDiskIsWaitedOut(t *testing.T) {
	p := start(t, plain, nil)
	p.write(t, plugintest.Events(1))
	o := p.Output.(*output)
	if _, err := o.db.Exec("PRAGMA max_page_count = 6"); err != nil {
		t.Fatal(err)
	}
	err := p.Write(t.Context(), pointers(plugintest.Events(500)))
	if err == nil || permanent(err) || !strings.Contains(err.Error(), "SQLITE_FULL") && !strings.Contains(err.Error(), "full") {
		t.Errorf("got %v", err)
	}
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "1\n" {
		t.Errorf("%s rows: a transaction is all or nothing", got)
	}
	if _, err := o.db.Exec("PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	p.write(t, plugintest.Events(500))
}

func TestADatabaseThatIsMovedAwayIsMadeAnew(t *testing.T) {
	p := start(t, plain, nil)
	p.write(t, plugintest.Events(5))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(filepath.Join(p.dir, "events.db"+suffix), filepath.Join(p.dir, "old.db"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, plugintest.Events(7))
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "7\n" {
		t.Errorf("%s rows", got)
	}
}

func TestADamagedDatabaseHoldsEventsUpUntilItIsMended(t *testing.T) {
	p := start(t, plain, nil)
	p.write(t, plugintest.Events(500))
	path := filepath.Join(p.dir, "events.db")
	if err := p.Output.(plugins.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	p.Output.(*output).db = nil
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	for i := 4096; i < len(bad); i++ {
		bad[i] = 0x5a
	}
	for what, content := range map[string][]byte{"pages": bad, "a text": []byte(strings.Repeat("not a database\n", 1000))} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			err := p.Write(t.Context(), pointers(plugintest.Events(5)))
			if err == nil || permanent(err) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: got %v", what, err)
			}
			t.Log(err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(t, plugintest.Events(510))
	if got := ask(t, p.dir, "SELECT count(*) FROM events"); got != "510\n" {
		t.Errorf("%s rows", got)
	}
}

func TestWhatCannotBeOpenedIsNamed(t *testing.T) {
	for path, want := range map[string]string{"none/events.db": "none/events.db: no such file or directory", ".": "it is no file", "text": "file is not a database", "other.db": "of another kind"} {
		in := plugintest.Build(t, Spec, "path: $DIR/"+path, plugintest.Prepare(func(dir string) error {
			db, err := sql.Open("sqlite", filepath.Join(dir, "other.db"))
			if err != nil {
				return err
			}
			_, err = db.Exec("CREATE TABLE events (id TEXT PRIMARY KEY, timestamp TEXT, name TEXT)")
			return errors.Join(err, db.Close(), os.WriteFile(filepath.Join(dir, "text"), []byte(strings.Repeat("no database", 100)), 0o600))
		}))
		err := in.Plugin.(plugins.Opener).Open(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "opening database "+in.Dir) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		t.Log(err)
	}
}

func TestAnyPathIsTakenAsItIs(t *testing.T) {
	const name = "a b?mode=ro#%41&'.db"
	in := plugintest.Build(t, Spec, Config{Path: filepath.Join(t.TempDir(), name)})
	o := in.Plugin.(plugins.Output)
	if err := o.(plugins.Opener).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(o.Write(t.Context(), pointers(plugintest.Events(3))), o.(plugins.Closer).Close())
	info, missing := os.Stat(o.(*output).cfg.Path)
	if err != nil || missing != nil || info.Size() == 0 {
		t.Errorf("%v, %v", err, missing)
	}
}

func TestOthersMayNotReadIt(t *testing.T) {
	p := start(t, plain, nil)
	p.write(t, plugintest.Events(5))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(filepath.Join(p.dir, "events.db"+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o007 != 0 {
			t.Errorf("events.db%s has the mode %v", suffix, info.Mode())
		}
	}
}

func TestAFaultIsSaidAtItsKey(t *testing.T) {
	for yaml, want := range map[string]string{
		`{}`:                        `required key "path"`,
		`path: events.db`:           `path: "events.db" is no absolute path`,
		`{path: /x, keep_days: -1}`: "keep_days",
		`{path: /x, keep: 1}`:       `unknown key "keep"`,
	} {
		n, faults := conf.Parse("test.yaml", []byte(yaml))
		if faults != nil {
			t.Fatal(faults)
		}
		_, faults = conf.Decode(n, Spec.Defaults.(Config))
		if got := faults.Error(); !strings.Contains(got, want) || len(faults) != 1 {
			t.Errorf("%s: %q, want %q", yaml, got, want)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	in := plugintest.Build(b, Spec, plain)
	o := in.Plugin.(plugins.Output)
	if err := o.(plugins.Opener).Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = o.(plugins.Closer).Close() }()
	n := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		x := plugintest.Events(1000)
		for i := range x.Events {
			n++
			x.Events[i].Offset = n // another event each time
		}
		if err := o.Write(b.Context(), pointers(x)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
}
