package file

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// A scenario is a run of numbered events through the output, with a checkpoint after every few writes.
type scenario struct {
	cfg      Config
	services int
	events   int
	maxOpen  int
	idle     int64
	dates    bool // events go over midnight, forth and back
	told     bool // the output is told that the last token is stored
}

// snapshot is what a checkpoint holds: a token, and how many events stand before it.
type snapshot struct {
	token []byte
	count int
}

// agent is the part of the machine that the output relies on.
type agent struct {
	t      *testing.T
	sc     scenario
	disk   *disk
	stored []snapshot // those from which a restart may come: the last that is stored, and the one that is being stored
}

func (a *agent) batch(from, to int) []*event.Event {
	b := event.NewBatch("s")
	b.ReadAt = time.Unix(1_800_000_000, 0)
	for i := from; i < to; i++ {
		e := b.Append()
		e.Service = fmt.Sprintf("svc%d", (i*7+i/5)%a.sc.services)
		if a.sc.dates && i%3 != 0 {
			e.Time = time.Unix(1_800_000_000+int64(i%4)*43_200, 0)
		}
		e.Set("n", event.IntValue(int64(i)))
	}
	events := make([]*event.Event, len(b.Events))
	for i := range b.Events {
		events[i] = &b.Events[i]
	}
	return events
}

func (a *agent) build() *output {
	o, err := build(a.sc.cfg, plugins.Env{StateDir: "/state"}, a.disk.tree)
	if err != nil {
		a.t.Fatal(err)
	}
	o.worker.manual, o.maxOpen, o.idle = true, a.sc.maxOpen, a.sc.idle
	return o
}

// run restores from the snapshot and brings all further events through. It keeps to the three rules of the package comment.
func (a *agent) run(from snapshot, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	a.stored = []snapshot{from}
	o := a.build()
	var j *job // the worker's: any step of it may come between any two of the rest
	var done error
	ran := false
	work := func(most int) {
		for range rng.IntN(most + 1) {
			switch {
			case j == nil:
				j, _ = o.claim()
			case !ran:
				done, ran = j.run(), true
			default:
				o.settle(j, done)
				j, ran = nil, false
			}
		}
	}
	if _, err := o.Restore(from.token); err != nil {
		a.t.Fatalf("restoring: %v", err)
	}
	at := from.count
	checkpoint := func() {
		// What was stored last, and what a damaged checkpoint falls back to.
		a.stored = a.stored[max(0, len(a.stored)-2):]
		tok, err := o.Token()
		if err != nil {
			a.t.Fatalf("taking a token: %v", err)
		}
		a.stored = append(a.stored, snapshot{tok, at})
		work(4)
		if rng.IntN(2) == 0 || at == a.sc.events && a.sc.told {
			a.stored = a.stored[len(a.stored)-1:]
			o.Stored(tok)
			work(8)
		}
	}
	checkpoint()
	if from.token == nil {
		a.stored = a.stored[len(a.stored)-1:] // the first token is stored before anything is written
	}
	for at < a.sc.events {
		for range 1 + rng.IntN(3) {
			to := min(at+1+rng.IntN(9), a.sc.events)
			if err := o.Write(context.Background(), a.batch(at, to)); err != nil {
				a.t.Fatalf("writing: %v", err)
			}
			at = to
			work(4)
		}
		checkpoint()
	}
	if rng.IntN(2) == 0 {
		checkpoint()
		checkpoint()
	}
	for j != nil { // Close waits for the worker
		work(1)
	}
	if err := o.Close(); err != nil {
		a.t.Fatalf("closing: %v", err)
	}
	for name := range a.disk.names {
		if _, gz, ok := slot("all.ndjson", path.Base(name)); ok && !gz && a.sc.told && a.sc.cfg.Rotate.Compress == gzipFiles {
			a.t.Errorf("%s was not compressed though the last token is stored", name)
		}
	}
}

// count reads every file and says how often each event stands there.
func count(t *testing.T, d *disk) map[int]int {
	t.Helper()
	seen := map[int]int{}
	for name, f := range d.names {
		if strings.HasPrefix(name, "/state/") {
			continue
		}
		data := f.data
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("temporary file %s was left", name)
		}
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if data, err = io.ReadAll(z); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			t.Errorf("%s ends within a line", name)
		}
		for line := range bytes.Lines(data) {
			var v struct {
				N       *int
				Service string
			}
			if err := json.Unmarshal(line, &v); err != nil || v.N == nil {
				t.Fatalf("%s holds a broken line %q: %v", name, line, err)
			}
			if !strings.Contains(path.Base(name), v.Service) && !strings.Contains(name, "all.ndjson") {
				t.Errorf("event of %s stands in %s", v.Service, name)
			}
			seen[*v.N]++
		}
	}
	return seen
}

func verify(t *testing.T, sc scenario, d *disk, what string) {
	t.Helper()
	seen := count(t, d)
	lost, doubled := []int{}, []int{}
	first := sc.events
	for i := range sc.events {
		if seen[i] > 0 {
			first = min(first, i)
		} else if first < i || sc.cfg.Rotate.Keep > 100 {
			lost = append(lost, i) // with few files kept, only the oldest may be missing
		}
		if seen[i] > 1 {
			doubled = append(doubled, i)
		}
	}
	if len(lost)+len(doubled) > 0 {
		names := []string{}
		for n, f := range d.names {
			names = append(names, fmt.Sprintf("%s(%d)=%d", n, f.inode, len(f.data)))
		}
		t.Fatalf("%s: lost %v, doubled %v; %v", what, lost, doubled, names)
	}
	if first == sc.events {
		t.Fatalf("%s: nothing is there", what)
	}
}

func scenarios() map[string]scenario {
	base := func(p string) Config {
		return Config{Path: p, Rotate: Rotate{Keep: 1000, Compress: "none"}, Sync: "checkpoint", Mode: 0o640, MaxPaths: 4096}
	}
	one := base("/out/all.ndjson")
	rotating := one
	rotating.Rotate.Size = 300
	packed := rotating
	packed.Rotate.Compress = gzipFiles
	few := packed
	few.Rotate.Keep = 2
	many := base("/out/logs/{{service}}-%Y%m%d.ndjson")
	manyPacked := many
	manyPacked.Rotate = Rotate{Size: 400, Keep: 1000, Compress: gzipFiles}
	always := rotating
	always.Sync = syncAlways
	return map[string]scenario{
		"one file":                {cfg: one, services: 3, events: 26, maxOpen: 256, idle: 64},
		"rotated":                 {cfg: rotating, services: 3, events: 30, maxOpen: 256, idle: 64},
		"rotated, synced always":  {cfg: always, services: 3, events: 20, maxOpen: 256, idle: 64},
		"rotated and compressed":  {cfg: packed, services: 3, events: 30, maxOpen: 256, idle: 64},
		"compressed to the end":   {cfg: packed, services: 3, events: 30, maxOpen: 256, idle: 64, told: true},
		"rotated, few kept":       {cfg: few, services: 1, events: 36, maxOpen: 256, idle: 64},
		"idle paths":              {cfg: base("/out/{{service}}.ndjson"), services: 5, events: 40, maxOpen: 256, idle: 0},
		"many paths":              {cfg: many, services: 7, events: 26, maxOpen: 256, idle: 0, dates: true},
		"many paths, few open":    {cfg: many, services: 7, events: 23, maxOpen: 3, idle: 0, dates: true},
		"many paths, all at once": {cfg: manyPacked, services: 3, events: 23, maxOpen: 2, idle: 1, dates: true},
	}
}

// Whatever instruction is the last one, whatever of the unsynced survives, and whichever of the two tokens was stored: after a
// restart every event stands in the files once.
func TestCrashAtEveryStepLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for name, sc := range scenarios() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			points, restarts := 0, 0
			a := &agent{t: t, sc: sc, disk: newDisk()}
			var deep func(a *agent, depth int, what string)
			deep = func(a *agent, depth int, what string) {
				busy := false
				step := 0
				a.disk.before = func(op string) {
					if busy {
						return
					}
					step++
					if depth > 0 && step > 25 {
						return
					}
					busy = true
					defer func() { busy = false }()
					kinds := []crash{{true, true}, {false, false}, {true, false}, {false, true}}
					if depth > 0 {
						kinds = kinds[:1]
					}
					for _, c := range kinds {
						for i, s := range a.stored {
							points++
							d := a.disk.after(c)
							b := &agent{t: t, sc: sc, disk: d}
							where := fmt.Sprintf("%s; crash before %q (step %d, %+v, token %d of %d)", what, op, step, c, i+1, len(a.stored))
							// Every so often the restart crashes as well, at each of its first steps.
							if depth == 0 && points%97 == 0 {
								deep(b, 1, where)
							}
							b.run(s, uint64(points))
							restarts++
							verify(t, sc, d, where)
						}
					}
				}
			}
			deep(a, 0, "first run")
			a.run(snapshot{}, 42)
			a.disk.before = nil
			verify(t, sc, a.disk, "no crash")
			t.Logf("%d crashes", restarts)
			if restarts < 100 {
				t.Errorf("only %d crashes", restarts)
			}
		})
	}
}
