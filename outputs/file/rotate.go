package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// retired is a file that was put aside. Until a checkpoint is past it, it may have to be cut, so it is neither compressed nor
// removed.
type retired struct {
	name  string // its path before, relative to the base
	inode uint64
	gen   int64 // in which it was put aside
	h     handle
	dirty bool
	after time.Time // before it compressing is not tried again
	// adopted: an earlier run put it aside.
	adopted bool
}

const (
	// maxRetired files wait for a checkpoint; with more, files grow beyond rotate.size instead.
	maxRetired = 64
	// retryCompress: after so long a failed compression, or removal, is tried again.
	retryCompress = time.Minute
	// closeBudget is how long Close goes on compressing. What is left then is found by the next run.
	closeBudget = 5 * time.Second
)

// job is one compression. It has its two files, and touches nothing else.
type job struct {
	of       *retired
	temp     string
	src, dst handle
	stop     *atomic.Bool
}

// worker compresses and removes what was put aside, one file after the other, from when there is something to do until Close.
type worker struct {
	manual  bool          // tests take the steps themselves
	started bool          // under the output's mutex, as is all that has no other guard
	wake    chan struct{} // something became safe
	quit    chan struct{} // closed by Close: return when nothing is left to do
	ended   chan struct{} // closed by the worker
	hurry   atomic.Bool   // return now
}

// kickLocked has the worker look for what it can do.
func (o *output) kickLocked() {
	w := &o.worker
	if w.manual || len(o.retired)+len(o.queue)+len(o.trim) == 0 {
		return
	}
	if !w.started {
		w.started = true
		go o.work()
	}
	w.nudge()
}

func (w *worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (o *output) work() {
	w := &o.worker
	defer close(w.ended)
	for {
		j, again := o.claim()
		if j != nil {
			o.settle(j, j.run())
			continue
		}
		var retry <-chan time.Time
		if again {
			retry = time.After(retryCompress)
		}
		select {
		case <-w.quit:
			return
		case <-w.wake:
		case <-retry:
		}
	}
}

// finishWork has the worker do what is safe by now, for at most closeBudget, and waits until it has ended.
func (o *output) finishWork() {
	if o.worker.manual {
		for j, _ := o.claim(); j != nil; j, _ = o.claim() {
			o.settle(j, j.run())
		}
		return
	}
	o.mu.Lock()
	o.kickLocked()
	started := o.worker.started
	o.mu.Unlock()
	close(o.worker.quit)
	if !started {
		return
	}
	t := time.NewTimer(closeBudget)
	defer t.Stop()
	select {
	case <-o.worker.ended:
	case <-t.C:
		o.worker.hurry.Store(true)
		<-o.worker.ended
	}
}

// slots is what is there of a path's files put aside.
type slots struct {
	dir   string
	plain map[int]string // number to name, relative to the base
	gz    map[int]string
}

func (o *output) slotsOf(name string) (slots, error) {
	dir, base := path.Split(name)
	s := slots{dir: path.Clean(dir), plain: map[int]string{}, gz: map[int]string{}}
	names, err := o.tree.list(s.dir)
	if err != nil {
		return s, fmt.Errorf("reading directory %s: %w", o.full(s.dir), err)
	}
	for _, n := range names {
		if k, gz, ok := slot(base, n); ok && gz {
			s.gz[k] = path.Join(s.dir, n)
		} else if ok {
			s.plain[k] = path.Join(s.dir, n)
		}
	}
	return s, nil
}

// beyond returns the numbers above keep, the oldest file's first: whatever interrupts their removal leaves no gap.
func (s slots) beyond(keep int) []int {
	var all []int
	for k := range s.plain {
		all = append(all, k)
	}
	for k := range s.gz {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b int) int { return b - a })
	return slices.DeleteFunc(slices.Compact(all), func(k int) bool { return k <= keep })
}

// putAside renames the file, and those put aside before it. When that cannot be done now, the file simply grows on.
func (o *output) putAside(f *file) bool {
	if o.ownRetired() >= maxRetired {
		f.held = o.gen
		return false
	}
	if err := o.shift(f.name); err != nil {
		f.held = o.gen
		o.log.Warn("putting output file aside", "path", o.full(f.name), "error", err)
		return false
	}
	o.retired = append(o.retired, &retired{name: f.name, inode: f.inode, gen: o.gen, h: f.h, dirty: f.dirty})
	f.h, f.inode, f.length, f.covered, f.dirty = nil, 0, 0, -1, false
	o.open--
	return true
}

func (o *output) ownRetired() (n int) {
	for _, r := range o.retired {
		if !r.adopted {
			n++
		}
	}
	return n
}

// shift renames path to path.1, path.1 to path.2 and so on, up to the first number that is free.
func (o *output) shift(name string) error {
	s, err := o.slotsOf(name)
	if err != nil {
		return err
	}
	last := 0
	for s.plain[last+1] != "" || s.gz[last+1] != "" {
		last++
	}
	o.dirs[s.dir] = struct{}{}
	for k := last; k >= 1; k-- {
		if s.plain[k] != "" {
			if err := o.tree.rename(s.plain[k], fmt.Sprintf("%s.%d", name, k+1)); err != nil {
				return err
			}
		}
		if s.gz[k] != "" {
			if err := o.tree.rename(s.gz[k], fmt.Sprintf("%s.%d.gz", name, k+1)); err != nil {
				return err
			}
		}
	}
	return o.tree.rename(name, name+".1")
}

// adopt finds files that an earlier run put aside. They wait for a checkpoint like our own.
func (o *output) adopt(name string) {
	if _, done := o.adopted[name]; done {
		return
	}
	if len(o.adopted) > 2*o.cfg.MaxPaths {
		clear(o.adopted)
	}
	o.adopted[name] = struct{}{}
	s, err := o.slotsOf(name)
	if err != nil {
		o.log.Warn("looking for output files put aside", "path", o.full(name), "error", err)
		return
	}
	for k, n := range s.plain {
		st, err := o.tree.lstat(n)
		if err != nil || slices.ContainsFunc(o.retired, func(r *retired) bool { return r.inode == st.inode }) {
			continue
		}
		if o.cfg.Rotate.Compress == gzipFiles && k <= o.cfg.Rotate.Keep {
			o.retired = append(o.retired, &retired{name: name, inode: st.inode, gen: o.gen, adopted: true})
		}
	}
	if len(s.plain)+len(s.gz) > o.cfg.Rotate.Keep {
		o.trim[name] = struct{}{}
	}
}

// adoptKnown finds what earlier runs put aside of paths that may never be opened again: those that the token and the journal
// name, and the only path of a template without fields and dates. A path that somebody else is writing is left alone.
func (o *output) adoptKnown(names map[string]struct{}) {
	if o.cfg.Rotate.Size == 0 {
		return
	}
	if o.template.static {
		names[string(o.render.render(o.template, event.NewBatch("").Append(), time.Time{}))] = struct{}{}
	}
	for name := range names {
		if err := free(o.tree, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			o.adopt(name)
		}
	}
}

// sealed syncs and closes a file put aside.
func (o *output) sealed(r *retired) error {
	if r.h == nil {
		return nil
	}
	if r.dirty {
		if err := o.sync(r.h, r.name); err != nil {
			return err
		}
	}
	_ = r.h.Close()
	r.h = nil
	return nil
}

// fallback is how many generations before the last one a restart can ask for: that one may not be stored yet, and the checkpoint may
// turn out to be damaged.
const fallback = 2

// storedLocked returns the oldest generation that a restart can ask for: the agent has said so, or has taken the ones after it.
func (o *output) storedLocked() int64 { return max(o.gen-fallback, o.told.Load()) }

// tidyLocked removes what a stored checkpoint is past, and queues what may be compressed. A file put aside in generation g is
// whole in token g+1, so no restart touches it once that one is stored. Faults are said and tried again: they never stop the
// writing. It reports whether there are some.
func (o *output) tidyLocked() (again bool) {
	stored := o.storedLocked()
	o.retired = slices.DeleteFunc(o.retired, func(r *retired) bool {
		if r.gen+1 > stored {
			return false
		}
		o.trim[r.name] = struct{}{}
		if o.cfg.Rotate.Compress == gzipFiles {
			o.queue = append(o.queue, r)
		}
		return true
	})
	for name := range o.trim {
		rest, err := o.trimOne(name)
		if err != nil {
			o.log.Warn("removing old output files", "path", o.full(name), "error", err)
			again = true
		}
		if !rest {
			delete(o.trim, name)
		}
	}
	return again
}

// claim tidies and begins the next compression. Without one, it reports whether something failed that is to be tried again.
func (o *output) claim() (j *job, again bool) {
	if o.worker.hurry.Load() {
		return nil, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	again = o.tidyLocked()
	now := time.Now()
	for i := 0; i < len(o.queue); i++ {
		r := o.queue[i]
		if r.after.After(now) {
			again = true
			continue
		}
		o.queue = slices.Delete(o.queue, i, i+1)
		i--
		j, err := o.compressLocked(r)
		if err != nil {
			o.compressFailedLocked(r, err)
			again = true
		} else if j != nil {
			return j, false
		}
	}
	return nil, again
}

func (o *output) compressFailedLocked(r *retired, err error) {
	o.log.Warn("compressing output file", "path", o.full(r.name), "error", err)
	r.after = time.Now().Add(retryCompress)
	o.queue = append(o.queue, r)
}

// trimOne removes the path's files beyond rotate.keep. It reports whether some have to wait.
func (o *output) trimOne(name string) (rest bool, err error) {
	s, err := o.slotsOf(name)
	if err != nil {
		return true, err
	}
	for _, k := range s.beyond(o.cfg.Rotate.Keep) {
		for _, n := range []string{s.plain[k], s.gz[k]} {
			if n == "" {
				continue
			}
			st, err := o.tree.lstat(n)
			if err != nil {
				return true, err
			}
			if slices.ContainsFunc(o.retired, func(r *retired) bool { return r.inode == st.inode }) {
				return true, nil
			}
			if err := o.tree.remove(n); err != nil {
				return true, err
			}
			// Its inode may be another file's from now on.
			o.queue = slices.DeleteFunc(o.queue, func(r *retired) bool { return r.inode == st.inode })
		}
	}
	return false, nil
}

// nameOf finds the plain file put aside by its inode; "" when it is gone.
func (o *output) nameOf(r *retired) (string, error) {
	s, err := o.slotsOf(r.name)
	if err != nil {
		return "", err
	}
	for _, n := range s.plain {
		if st, err := o.tree.lstat(n); err == nil && st.inode == r.inode {
			return n, nil
		}
	}
	return "", nil
}

// gzipMagic begins every gzip file, and no line of JSON.
const gzipMagic = "\x1f\x8b"

// compressLocked begins to compress a file put aside; there may be nothing to do.
func (o *output) compressLocked(r *retired) (*job, error) {
	if slices.ContainsFunc(o.retired, func(n *retired) bool { return n.inode == r.inode }) {
		return nil, nil // it was removed, and a newer file has got its inode
	}
	name, err := o.nameOf(r)
	if err != nil || name == "" {
		return nil, err
	}
	src, _, err := o.tree.open(name, false, 0)
	if err != nil {
		return nil, err
	}
	if isGzip(src) {
		_ = src.Close()
		return nil, o.nameCompressed(name)
	}
	temp := tempName(r.name)
	if err := o.journal.add(entry{Gen: o.gen, Path: temp, Temp: true}); err != nil {
		_ = src.Close()
		return nil, err
	}
	dst, err := o.tree.make(temp, fs.FileMode(o.cfg.Mode))
	if err != nil {
		_ = src.Close()
		return nil, err
	}
	o.job = &job{of: r, temp: temp, src: src, dst: dst, stop: &o.worker.hurry}
	return o.job, nil
}

var errStopped = errors.New("stopped")

// run fills the temporary file. The plain one stays open: its inode must not become another file's before settle has looked.
func (j *job) run() error {
	err := j.copy(j.src, j.dst)
	if err == nil {
		err = j.dst.Sync()
	}
	return errors.Join(err, j.dst.Close())
}

func (j *job) copy(src, dst handle) error {
	z, err := gzip.NewWriterLevel(dst, gzip.BestSpeed)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for at := int64(0); ; {
		if j.stop.Load() {
			return errStopped
		}
		n, err := src.ReadAt(buf, at)
		at += int64(n)
		if _, werr := z.Write(buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return z.Close()
		} else if err != nil {
			return err
		}
	}
}

// settle puts a finished compression into the place of its plain file.
func (o *output) settle(j *job, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.job = nil
	var name string
	if err == nil {
		name, err = o.nameOf(j.of)
	}
	if err == nil && name != "" {
		if err = o.tree.rename(j.temp, name); err == nil {
			err = o.nameCompressed(name)
		}
	} else if rerr := o.tree.remove(j.temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		o.log.Warn("removing temporary file", "path", o.full(j.temp), "error", rerr)
	}
	_ = j.src.Close()
	if err != nil && !errors.Is(err, errStopped) {
		o.compressFailedLocked(j.of, err)
	}
}

// nameCompressed gives a file put aside, whose content is compressed by now, the name that says so.
func (o *output) nameCompressed(name string) error {
	o.dirs[path.Dir(name)] = struct{}{}
	return o.tree.rename(name, name+".gz")
}

func isGzip(h handle) bool {
	var b [len(gzipMagic)]byte
	n, _ := h.ReadAt(b[:], 0)
	return string(b[:n]) == gzipMagic
}

// dropTemp clears up after a compression that a crash ended: a temporary file, or a compressed file under the plain one's name.
func (o *output) dropTemp(tree filesystem, e entry) error {
	if err := tree.remove(e.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing temporary file %s: %w", e.Path, err)
	}
	dir, base := path.Split(familyOf(e.Path))
	dir = path.Clean(dir)
	names, err := tree.list(dir)
	if err != nil {
		return fmt.Errorf("reading directory %s: %w", dir, err)
	}
	for _, n := range names {
		if _, gz, ok := slot(base, n); !ok || gz {
			continue
		}
		n = path.Join(dir, n)
		h, _, err := tree.open(n, false, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", n, err)
		}
		packed := isGzip(h)
		_ = h.Close()
		if packed {
			if err := tree.rename(n, n+".gz"); err != nil {
				return fmt.Errorf("renaming %s: %w", n, err)
			}
		}
	}
	// The journal forgets it next.
	if err := tree.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	return nil
}
