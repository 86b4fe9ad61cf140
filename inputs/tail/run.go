package tail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins"
)

// run is what lives as long as one call of Run.
type run struct {
	in      *input
	cfg     Config
	env     plugins.Env
	fs      system
	sink    plugins.Sink
	boot    string
	since   time.Time // records before it are skipped
	started time.Time
	ctx     context.Context
	stop    context.CancelCauseFunc
	workers []*worker
	wg      sync.WaitGroup
	pending sync.WaitGroup // in once mode: lineages and pipes that are not read to their ends

	unseen      atomic.Int64 // lineages that had no turn so far, of those of the first scan
	wanting     atomic.Int64 // lineages that want something of the next scan
	maxHeld     int64        // descriptors that may be held
	held        atomic.Int64 // that are held
	opened      atomic.Int64 // that were ever opened to be held
	crowded     atomic.Bool  // files wait for descriptors
	room        atomic.Bool  // lineages are to close what they can
	crowdedOnce sync.Once    // said so

	// Used by the scanner's goroutine only.
	begins   bool // no scan was made so far
	lineages map[string]*lineage
	owners   map[fileID]*lineage // who has which file open
	place    map[fileID]string   // the path at which a file counts
	pipes    map[string]bool
	known    map[string][]*stream // streams of the checkpoint by lineage
	marks    map[string]*stream   // of logs that were empty so far, by lineage
	lay      map[fileID][]*stream // the same by where they lay: copies that never change

	mu     sync.Mutex // guards faults
	faults map[string]string
}

// Run follows the files.
func (in *input) Run(ctx context.Context, sink plugins.Sink) error {
	if in.cfg.ZoneIsGuessed() {
		in.env.Log.Warn("timezone is Local, but neither TZ nor /etc/localtime says which zone that is: times without a zone are read as UTC")
	}
	notBefore, err := in.cfg.notBefore()
	if err != nil {
		return fmt.Errorf("reading start: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	r := &run{
		in: in, cfg: in.cfg, env: in.env, fs: in.fs, sink: sink, boot: bootID(), since: notBefore, started: time.Now(), ctx: ctx, stop: stop,
		lineages: map[string]*lineage{}, owners: map[fileID]*lineage{}, place: map[fileID]string{}, pipes: map[string]bool{},
		known: map[string][]*stream{}, marks: map[string]*stream{}, lay: map[fileID][]*stream{}, faults: map[string]string{}, maxHeld: in.maxHeld, begins: true,
	}
	defer stop(nil)
	for range max(2, runtime.GOMAXPROCS(0)) {
		r.workers = append(r.workers, newWorker(r))
	}
	if err := r.loadKnown(); err != nil {
		return err
	}
	c := newScanner(r)
	defer c.close()
	c.scan()
	r.begins = false
	r.begin(len(r.lineages))
	for _, w := range r.workers {
		r.wg.Go(func() { w.run(ctx) })
	}
	if r.env.Once {
		r.wg.Go(func() {
			r.pending.Wait()
			r.onceMore(c)
			stop(errDone)
		})
	} else {
		r.wg.Go(func() { c.run(ctx) })
	}
	<-ctx.Done()
	if r.env.Once {
		for _, l := range r.lineages {
			l.finishOnce()
		}
	}
	r.wg.Wait()
	for _, l := range r.lineages {
		l.close()
	}
	r.clearFaults()
	if err := context.Cause(ctx); !errors.Is(err, errDone) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// startKey is under what it is reported that a run is not under way so far.
const startKey = "start"

// begin reports that n lineages are not looked at so far: until then it is not known where reading begins.
func (r *run) begin(n int) {
	r.unseen.Store(int64(n))
	if n > 0 && !r.env.Once {
		r.env.Fail(startKey, fmt.Errorf("the first look at %d logs is not over", n))
	}
}

// looked takes back what begin reported, when all lineages had their first turn.
func (r *run) looked() {
	if r.unseen.Add(-1) == 0 && !r.env.Once {
		r.env.Fail(startKey, nil)
	}
}

// onceMore reads, in once mode, what had to wait for descriptors: what is read made room for it.
func (r *run) onceMore(c *scanner) {
	for r.crowded.Load() && r.ctx.Err() == nil {
		before := r.opened.Load()
		c.scan()
		r.pending.Wait()
		if r.opened.Load() == before {
			r.env.Fail("descriptors", fmt.Errorf("opening more files: %w, and none can be closed: raise the limit", errCrowded))
			return
		}
	}
}

var errDone = errors.New("all files are read")

// loadKnown makes the lineages of the checkpoint's streams.
func (r *run) loadKnown() error {
	for _, k := range r.env.Streams.Known() {
		m, err := decodeMeta(k.Meta)
		if err != nil {
			return fmt.Errorf("loading stream %s: %w", k.Name, err)
		}
		if m.Empty {
			r.mark(k, m)
			continue
		}
		s := newStream(k.Name, k.Lane, m)
		if err := s.moveTo(k.Start); err != nil {
			return fmt.Errorf("loading stream %s: %w", k.Name, err)
		}
		// Drained only means that it was read; what is not settled so far has to be read again.
		s.drained = k.Drained && s.pos >= m.End
		s.stored, s.saved = true, string(k.Meta)
		if m.Pipe {
			r.known["pipe:"+m.Path] = append(r.known["pipe:"+m.Path], s)
			continue
		}
		r.known[m.Path] = append(r.known[m.Path], s)
		id, frozen := fileID{m.Dev, m.Ino}, *s
		r.lay[id] = append(r.lay[id], &frozen)
	}
	for path := range r.known {
		if !strings.HasPrefix(path, "pipe:") {
			r.lineage(path)
		}
	}
	for path := range r.marks {
		r.lineage(path)
	}
	return nil
}

// lineage returns the lineage of that key and makes it if there is none.
func (r *run) lineage(key string) *lineage {
	l := r.lineages[key]
	if l != nil {
		return l
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	l = &lineage{
		r: r, w: r.workers[int(h.Sum32()%uint32(len(r.workers)))], key: key, first: true, initial: r.begins,
		have: map[fileID]bool{}, held: map[fileID]bool{}, owed: map[fileID]bool{}, byID: map[fileID]*file{}, history: map[fileID]stamp{}, heads: map[fileID]headAt{},
		streams: r.known[key],
	}
	for _, s := range l.streams {
		at := cmp.Or(s.meta.Since, s.meta.Time)
		if !l.known || at < l.since {
			l.since = at
		}
		l.known = true
	}
	if l.mark = r.marks[key]; l.mark != nil && !l.known {
		l.since, l.known = l.mark.meta.Since, true
	}
	switch {
	case !r.env.Window.IsZero():
		l.since = r.env.Window.Since.UnixNano() - 1
	case l.known:
	case !r.since.IsZero(): // what was rotated since then is asked for, too
		l.since = r.since.UnixNano() - 1
	default:
		l.since = r.started.UnixNano()
	}
	r.lineages[key] = l
	if r.env.Once {
		r.pending.Add(1)
	}
	return l
}

func (r *run) wake(l *lineage) { l.w.push(l) }

func (r *run) matches(path string) bool { return r.pattern(path) >= 0 }

// pattern returns the place of the first pattern that matches the path, or -1.
func (r *run) pattern(path string) int {
	if r.cfg.excludes(path) {
		return -1
	}
	for i, p := range r.in.paths {
		if selects(p, path) {
			return i
		}
	}
	return -1
}

func (r *run) newMaker() *lines.Maker { return r.in.newMaker(r.env.Count, r.since) }

// fail reports that a path cannot be read, once per change.
func (r *run) fail(path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults[path] == err.Error() {
		return
	}
	r.faults[path] = err.Error()
	r.env.Log.Warn("cannot be read", "path", path, "error", err)
	r.env.Fail(path, err)
}

// ok takes back what fail reported.
func (r *run) ok(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, failed := r.faults[path]; failed {
		delete(r.faults, path)
		r.env.Log.Info("can be read again", "path", path)
		r.env.Fail(path, nil)
	}
}

// clearFaults forgets what is only known while the run looks at it; with once, what could not be read stays said.
func (r *run) clearFaults() {
	if r.env.Once {
		return
	}
	for path := range r.faults {
		r.env.Fail(path, nil)
	}
	r.env.Fail(startKey, nil)
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// worker takes care of lineages, one turn at a time, in the order in which they were woken.
type worker struct {
	r      *run
	signal chan struct{}
	x      scratch

	// One compressed file is read at a time: each needs memory of its own.
	gz      *file
	gzWaits []*lineage

	mu    sync.Mutex // guards queue and the lineages' queued
	queue []*lineage
}

func newWorker(r *run) *worker { return &worker{r: r, signal: make(chan struct{}, 1)} }

func (w *worker) push(l *lineage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.queued {
		return
	}
	l.queued = true
	w.queue = append(w.queue, l)
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *worker) pop() *lineage {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return nil
	}
	l := w.queue[0]
	w.queue = w.queue[1:]
	if len(w.queue) == 0 {
		w.queue = nil
	}
	l.queued = false
	return l
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		l := w.pop()
		if l == nil {
			select {
			case <-ctx.Done():
			case <-w.signal:
			}
			continue
		}
		more, err := l.turn(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.r.stop(err)
			}
			return
		}
		l.rest()
		switch {
		case more:
			w.push(l)
		case w.r.env.Once && !l.gated:
			l.finishOnce()
		}
	}
}

// takeGzip reports whether f may be read now; if not, its lineage is woken when it may.
func (w *worker) takeGzip(f *file, l *lineage) bool {
	if w.gz == nil || w.gz == f {
		w.gz = f
		return true
	}
	w.gzWaits = append(w.gzWaits, l)
	return false
}

func (w *worker) freeGzip(f *file) {
	if z, ok := f.c.(*unpacked); ok {
		z.drop()
	}
	if w.gz != f {
		return
	}
	w.gz = nil
	for _, l := range w.gzWaits {
		w.push(l)
	}
	w.gzWaits = nil
}

// wants reports whether the lineage has something to do at the next sweep.
func (l *lineage) wants() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}

// wantsScan reports, once, whether the lineage needs a scan's result although nothing changed.
func (l *lineage) wantsScan() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.rescan
	l.rescan = false
	l.count()
	return was
}

// askScan has the next scan's result handed over even if nothing changed.
func (l *lineage) askScan() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rescan = true
	l.count()
}

// rest notes after a turn whether there is something to do at the next sweep.
func (l *lineage) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again = l.active
	l.count()
}

// count keeps the number of lineages that want something of the next scan. The caller holds mu.
func (l *lineage) count() {
	wanting := l.again || l.rescan
	switch {
	case wanting && !l.wanting:
		l.r.wanting.Add(1)
	case !wanting && l.wanting:
		l.r.wanting.Add(-1)
	}
	l.wanting = wanting
}

// finishOnce says, in once mode, that the lineage is read.
func (l *lineage) finishOnce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.done = true
		l.r.pending.Done()
	}
}
