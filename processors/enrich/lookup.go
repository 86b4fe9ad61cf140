package enrich

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// lookEvery is how often the table's file is looked at, at most.
const lookEvery = time.Second

// lookup is a Lookup in use. It belongs to one lane. A changed file is read in a goroutine that ends by itself; what it read is taken
// by a later batch.
type lookup struct {
	cfg  Lookup
	env  plugins.Env
	on   target
	sets []target // in the order of their names, like the values of a row

	table  rows        // nil: never read
	read   fs.FileInfo // of the file that table, or the last failure, comes from
	looked time.Time
	fresh  chan loaded // holds what a goroutine read
	busy   bool        // one is reading
	gone   bool        // the file was not there, or could not be looked at
	now    func() time.Time

	failures
	missing int64 // events of the batch whose value is not in the table
}

// loaded is what became of reading the file.
type loaded struct {
	table rows
	info  fs.FileInfo
	err   error
}

// newLookup checks the names; the table is read with the first batch.
func newLookup(c Lookup, env plugins.Env, known map[string]event.Kind) (*lookup, error) {
	l := &lookup{
		cfg: c, env: env, on: place(c.On), fresh: make(chan loaded, 1), now: time.Now, failures: failures{reason: "lookup"},
	}
	var errs []error
	if err := l.on.declared(known); err != nil {
		errs = append(errs, conf.KeyError{Key: "lookup.on", Err: err})
	}
	if k := kindNamed(c.On, known); k == event.List || k == event.Object || k == event.Time {
		errs = append(errs, conf.KeyError{Key: "lookup.on", Err: errors.New("a " + k.String() + " cannot be looked up")})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		l.sets = append(l.sets, place(name))
		if l.sets[len(l.sets)-1].field == nil {
			known[name] = kindFor(name)
		}
	}
	return l, errors.Join(errs...)
}

// refresh sees to it that the table is there and, within a second and a batch, that it is the one in the file. It waits for the
// first table only: events without what they should get would be worse than late ones. The error is ctx's.
func (l *lookup) refresh(ctx context.Context) error {
	for l.table == nil {
		table, info, err := l.cfg.load()
		if err == nil {
			l.table, l.read, l.looked = table, info, l.now()
			l.mended()
			return nil
		}
		l.keep(err)
		t := time.NewTimer(lookEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	if l.busy {
		select {
		case x := <-l.fresh:
			l.busy = false
			l.take(x)
		default:
		}
		return nil
	}
	now := l.now()
	if now.Sub(l.looked) < lookEvery {
		return nil
	}
	l.looked = now
	info, err := os.Stat(l.cfg.Table)
	if err != nil {
		l.gone = true
		l.keep(err)
		return nil
	}
	if same(info, l.read) {
		if l.gone {
			l.mended()
		}
		return nil
	}
	l.busy = true
	c, out := l.cfg, l.fresh
	go func() {
		table, read, err := c.load()
		if err != nil {
			read = info // what is broken is read again when it changes
		}
		out <- loaded{table, read, err}
	}()
	return nil
}

func same(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (l *lookup) take(x loaded) {
	l.read = x.info
	if x.err != nil {
		l.keep(x.err)
		return
	}
	l.table = x.table
	if l.env.Log != nil {
		l.env.Log.Info("lookup table was read again", "table", l.cfg.Table, "rows", len(x.table))
	}
	l.mended()
	l.count("lookup_reloads", "ok", 1)
}

// mended takes back what keep said.
func (l *lookup) mended() {
	if l.said && l.env.Fail != nil {
		l.env.Fail("lookup", nil)
	}
	l.said, l.gone = false, false
}

// keep goes on with the former table, if there is one, and says so once.
func (l *lookup) keep(err error) {
	l.count("lookup_reloads", "failed", 1)
	if l.env.Fail != nil {
		l.env.Fail("lookup", err)
	}
	if !l.said && l.env.Log != nil {
		l.env.Log.Warn("reading lookup table failed, going on with the former one if there is one", "table", l.cfg.Table, "error", err)
	}
	l.said = true
}

func (l *lookup) count(name, reason string, n int64) {
	if n > 0 && l.env.Count != nil {
		l.env.Count(name, reason, n)
	}
}

// set sets the fields of one event.
func (l *lookup) set(e *event.Event) {
	v := l.on.get(e)
	if v.Kind() == event.Absent {
		return
	}
	row, ok := l.table[v.Text()]
	if !ok {
		l.missing++
		return
	}
	for i := range l.sets {
		if row[i].Kind() != event.Absent && !l.sets[i].put(e, row[i]) {
			l.n++
		}
	}
}

// report counts what went wrong in a batch.
func (l *lookup) report() {
	l.count("lookup_missing", l.cfg.On, l.missing)
	l.count("eval_errors", l.reason, l.n)
	l.missing, l.n = 0, 0
}
