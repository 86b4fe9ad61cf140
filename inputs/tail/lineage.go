package tail

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"
)

const (
	// orderWait is how long the next file of a lineage waits for a rotated one that is read to its end while a program has it open
	// for writing, or the system does not tell: writers that were told to reopen do so within this time as a rule. Lines that come
	// later are read all the same, but out of order.
	orderWait = 5 * time.Second
	// goneAfter is how long a stream that is read to its end is remembered after its file is gone.
	goneAfter = 30 * 24 * time.Hour
	// maxBackoff is the longest pause between two tries to read a file that cannot be read.
	maxBackoff = 30 * time.Second
	// parserAge is by how much a file's modification time may move on before the parser is told, which finds years by it.
	parserAge = 12 * time.Hour
)

// found is a file as a scan saw it.
type found struct {
	id      fileID
	path    string
	stamp   stamp
	target  string   // what the path leads to, if it is a symbolic link
	matched bool     // by the patterns; else it is only a rotation sibling
	opened  *os.File // the first time that a matched file is seen
}

// file is a file of a lineage. The descriptor is held as long as there may be something to read, so that renames and removals
// change nothing.
type file struct {
	id      fileID
	path    string // where it was last seen
	target  string // what that led to, if it is a symbolic link
	present bool   // it is still there
	ordered bool   // it has its place among the lineage's files
	rotated bool   // it has a rotation's name, or is gone from where it was
	lived   bool   // it was seen where programs write, so that it is no copy
	static  bool   // nothing will be appended: a copy, or compressed
	gz      bool
	listed  stamp // as the last scan saw it

	h *handle // nil while parked
	c content
	// parked: read to its end and closed, or known to be a copy; looked at again when its stamp changes.
	parked bool
	awaits bool // it is parked and must be read, as soon as there is a descriptor

	s      *stream // what it holds, nil until that is known
	copyOf *stream
	was    *stream // what it held before it was rewritten
	after  *stream // it begins like this one, which is read first: then it can be told whether it is a copy

	st       stamp // of the open file when last looked at
	proved   bool  // content was compared since st
	idle     bool  // nothing complete was left at st
	grew     time.Time
	seen     time.Time
	ended    bool  // read to its end once
	started  bool  // its turn in the lineage came
	reported bool  // that its last line has no newline
	initial  bool  // there when the run began
	limit    int64 // in once mode: where it ended when it was first looked at

	damaged bool // counted as such
	fault   error
	retry   time.Time
	backoff time.Duration
	pausing time.Time // when a compressed file was first seen cut short at st

	mistrust bool      // the other engine is not used for it any more
	live     *liveTail // the other engine, while it follows this file
}

// lineage is the files whose names differ only in what rotation appends. One worker at a time takes care of it.
type lineage struct {
	r   *run
	w   *worker
	key string // the path without rotation suffix; also the lane

	mu     sync.Mutex
	posted []found // latest scan, nil when it was taken
	fresh  bool
	have   map[fileID]bool // files that need not be opened by the scan
	held   map[fileID]bool // files that are open
	owed   map[fileID]bool // files that the patterns matched and that could not be opened: they are read under other names, too
	awaits []string        // paths of files that wait for descriptors
	queued bool            // guarded by w.mu

	first    bool // no scan was taken so far
	looked   bool // it had a turn
	initial  bool // something of it was there when the run began
	known    bool // the checkpoint has streams of it
	gated    bool // it waits until another compressed file is read
	byID     map[fileID]*file
	files    []*file // oldest first
	streams  []*stream
	mark     *stream          // says in the checkpoint that the log is followed, as long as there is no stream
	marked   bool             // there was a mark, before there were streams
	siblings []found          // of the last scan, not matched and not open
	since    int64            // when it was seen first (ns): what was not written later is older than what is followed
	history  map[fileID]stamp // siblings that are older than what is followed
	heads    map[fileID]headAt
	active   bool // there is something to do at the next sweep
	aged     time.Time
	savedAt  time.Time
	rescan   bool // guarded by mu: see askScan
	again    bool // guarded by mu: active after the last turn
	wanting  bool // guarded by mu: counted in run.wanting
	done     bool // guarded by mu; in once mode: counted as done
}

// post hands a scan's result over.
func (l *lineage) post(entries []found) {
	l.mu.Lock()
	for _, e := range l.posted { // what was opened and not taken so far must not get lost
		if e.opened != nil {
			i := slices.IndexFunc(entries, func(n found) bool { return n.id == e.id })
			switch {
			case i < 0:
				entries = append(entries, e)
			case entries[i].opened == nil:
				entries[i].opened = e.opened
			}
		}
	}
	l.posted, l.fresh = entries, true
	if l.r.env.Once && l.done {
		l.done = false
		l.r.pending.Add(1)
	}
	l.mu.Unlock()
}

func (l *lineage) knows(id fileID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.have[id]
}

// holds reports whether the lineage has the file open: then its inode is no other file's.
func (l *lineage) holds(id fileID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[id]
}

func (l *lineage) setHeld(id fileID, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held {
		l.held[id] = true
	} else {
		delete(l.held, id)
	}
}

func (l *lineage) setHave(id fileID, have bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have {
		l.have[id] = true
		delete(l.owed, id)
	} else {
		delete(l.have, id)
	}
}

// owe has the file read wherever the next scans see it in the lineage.
func (l *lineage) owe(id fileID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed[id] = true
}

func (l *lineage) owes(id fileID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owed[id]
}

// behind reports whether a file that is older than the one at path waits for a descriptor.
func (l *lineage) behind(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return isBehind(path, l.awaits)
}

func isBehind(path string, awaits []string) bool {
	return slices.ContainsFunc(awaits, func(at string) bool {
		is, known := older(at, path)
		return known && is
	})
}

// turn does what is due: at most one block is read, so that every file gets its turn. more says that there is more to read
// at once.
func (l *lineage) turn(ctx context.Context) (more bool, err error) {
	now := time.Now()
	l.active, l.gated = false, false
	if !l.looked {
		l.looked = true
		defer l.r.looked()
	}
	if l.take(now) {
		l.recheck(ctx)
	}
	if err := l.identifyAll(ctx, now); err != nil {
		return false, err
	}
	if err := l.markEmpty(ctx); err != nil {
		return false, err
	}
	declared, err := l.declareNew(ctx, now)
	if declared || err != nil {
		// Others first: what one checkpoint names can be read at once, and a new stream has to wait for the next one.
		return declared, err
	}
	if err := l.learn(ctx); err != nil {
		return false, err
	}
	waiting, err := l.seekOrphans(ctx, now)
	if err != nil {
		return false, err
	}
	// Ranging over a copy: reading may move a file that turns out to be rewritten.
	files := slices.Clone(l.files)
	for i, f := range files {
		if waiting && !f.started {
			l.active = true
			l.yield(files[i:])
			break
		}
		if !f.started && l.behind(f.path) {
			l.yield(files[i:])
			break // the next scans try again
		}
		if !f.parked && f.s != nil {
			f.started = true
			progress, err := l.read(ctx, f, now)
			if err != nil {
				return false, err
			}
			if progress {
				return true, nil
			}
		}
		if !l.passes(f, now) {
			waiting = true
		}
	}
	l.save(now, false)
	l.makeRoom()
	return slices.ContainsFunc(l.files, func(f *file) bool { return f.after != nil && (!f.after.unknown() || f.after.file.fault != nil) }), nil
}

// learn notes how the files begin whose streams do not know that so far.
func (l *lineage) learn(ctx context.Context) error {
	for _, f := range l.files {
		if f.s == nil || f.s.meta.Long != "" || f.parked {
			continue
		}
		end, known, err := f.c.end()
		if err != nil || known && end < proof || f.gz && l.w.gz != nil && l.w.gz != f {
			continue // what is wrong shows when it is read
		}
		if err := f.s.learn(ctx, f.c, &l.w.x); ctx.Err() != nil {
			return ctx.Err()
		} else if err == nil && f.gz && l.w.gz != f {
			f.c.(*unpacked).drop()
		}
	}
	return nil
}

// yield gives up the worker's memory for compressed content if one of these files has it: it is not read now, and what it waits for may
// need that memory.
func (l *lineage) yield(files []*file) {
	if l.w.gz != nil && slices.Contains(files, l.w.gz) {
		l.w.freeGzip(l.w.gz)
	}
}

// passes reports whether files that are younger than f may be read.
func (l *lineage) passes(f *file, now time.Time) bool {
	if f.parked {
		return !f.awaits
	}
	if l.r.env.Once {
		return f.s == nil || f.ended || f.fault != nil
	}
	if f.s == nil {
		if f.st.size == 0 && !f.gz || !f.rotated || f.after != nil {
			return true // nothing in it, or a live file: there is nothing younger; compressed content is not written at once
		}
		return now.Sub(f.grew) >= l.r.cfg.Grace
	}
	if !f.rotated {
		return true
	}
	l.active = true
	if f.fault != nil {
		return now.Sub(f.seen) >= l.r.cfg.Grace && now.Sub(f.grew) >= l.r.cfg.Grace
	}
	if !f.ended {
		return false
	}
	return f.static || now.Sub(f.grew) >= min(orderWait, l.r.cfg.Grace) || now.Sub(f.seen) >= l.r.cfg.Grace || f.left()
}

// left reports that no program has f open for writing any more and that nothing was written after it was read to its end. Asking
// for a lease finds that out: the system grants one only then. Where it grants none, as on a network, the answer is no.
func (f *file) left() bool {
	if f.h == nil {
		return false
	}
	lease := func(kind uintptr) bool {
		_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.h.f.Fd(), syscall.F_SETLEASE, kind)
		return errno == 0
	}
	if !lease(syscall.F_RDLCK) {
		return false
	}
	lease(syscall.F_UNLCK)
	fi, err := f.h.f.Stat()
	return err == nil && fi.Size() == f.st.size
}

// recheck looks whether live files still hold what was read of them. A file that came may be what one of them held: then it is not
// to be read before the rest of what was read so far, which may lie in yet another.
func (l *lineage) recheck(ctx context.Context) {
	for _, f := range slices.Clone(l.files) {
		if f.parked || f.h == nil || f.gz || f.s == nil || !f.s.opened {
			continue
		}
		m, err := f.s.matches(ctx, f.c, f.s.pos, f.s.sum, &l.w.x)
		if err == nil && m != holds { // an error shows when it is read
			l.rewritten(f)
		}
	}
}

// take looks at the newest scan. came says that there is a file that was not there before.
func (l *lineage) take(now time.Time) (came bool) {
	l.mu.Lock()
	entries, fresh := l.posted, l.fresh
	l.posted, l.fresh = nil, false
	l.mu.Unlock()
	if !fresh {
		return false
	}
	before := len(l.files)
	for _, f := range l.files {
		f.present = false
	}
	// Where names do not tell the order, it is that of appearance, and of files that appear together that of their times.
	slices.SortStableFunc(entries, func(a, b found) int { return cmp.Compare(a.stamp.mtime, b.stamp.mtime) })
	var opened []found
	var awaits []string
	replaced := slices.ContainsFunc(entries, func(e found) bool { return e.path == l.key })
	l.siblings = l.siblings[:0]
	spots := sync.OnceValues(func() ([]string, bool) { return l.spots(entries) })
	for _, e := range entries {
		f := l.byID[e.id]
		if f != nil {
			if e.opened != nil {
				l.r.held.Add(-1)
				_ = e.opened.Close()
			}
			f.present, f.path, f.target, f.listed = true, e.path, e.target, e.stamp
			if f.parked && (f.awaits || f.listed != f.st) {
				l.unpark(f, now)
			}
			continue
		}
		switch {
		case e.opened != nil:
			opened = append(opened, e)
		case e.matched:
			// It waits for a descriptor, or the scan saw it parked here and it was let go meanwhile: the next scan opens it.
			l.setHave(e.id, false)
			l.askScan()
			awaits = append(awaits, e.path)
		case l.wanted(e, spots, now):
			o, err := l.r.openToHold(e.path)
			switch {
			case err == nil:
				l.r.ok(e.path)
				l.add(o, e.path, now)
			case errors.Is(err, os.ErrNotExist):
			case isCrowded(err):
				l.askScan()
				l.siblings = append(l.siblings, e)
				awaits = append(awaits, e.path)
			default:
				l.r.fail(e.path, err)
				l.askScan()
				l.siblings = append(l.siblings, e)
			}
		default:
			l.siblings = append(l.siblings, e)
		}
	}
	for _, f := range l.files {
		if f.awaits && f.present {
			awaits = append(awaits, f.path)
		}
	}
	for _, e := range opened {
		l.r.held.Add(-1)
		if isBehind(e.path, awaits) { // it would only keep those from being opened
			_ = e.opened.Close()
			l.setHave(e.id, false)
			l.setHeld(e.id, false)
			l.owe(e.id)
			l.askScan()
			awaits = append(awaits, e.path)
			continue
		}
		l.add(e.opened, e.path, now) // which counts it
		if f := l.byID[e.id]; f != nil {
			f.target = e.target
		}
	}
	l.mu.Lock()
	l.awaits = awaits
	l.mu.Unlock()
	came = len(l.files) > before
	for _, f := range slices.Clone(l.files) {
		away := !f.present || rotationOf(filepath.Base(f.path)).rotated || replaced && f.path != l.key
		if away && !f.rotated {
			f.rotated, f.grew, f.seen = true, now, now
			l.r.env.Log.Debug("file rotated", "path", f.path, "present", f.present)
			if f.parked && f.present && f.s != nil && !f.s.drained {
				l.unpark(f, now) // it was closed for want of descriptors; now its last line is a record, newline or not
			}
		}
		if !away {
			f.rotated, f.lived = false, true // perhaps it was renamed back
		}
		if f.parked && !f.present {
			l.drop(f)
		}
	}
	l.order()
	l.first = false
	l.forgetSights(entries)
	l.age(now)
	return came
}

func (l *lineage) add(o *os.File, path string, now time.Time) {
	fi, err := o.Stat()
	if err != nil {
		_ = o.Close()
		l.r.fail(path, err)
		l.askScan()
		return
	}
	id := idOf(fi)
	if old := l.byID[id]; old != nil {
		_ = o.Close()
		return
	}
	f := &file{
		id: id, path: path, present: true, rotated: rotationOf(filepath.Base(path)).rotated,
		st: stampOf(fi), listed: stampOf(fi), grew: earlier(fi.ModTime(), now), seen: now,
		initial: l.first && l.initial,
	}
	if !l.first {
		f.grew = now
	}
	h := newHandle(o)
	l.hold(f, h, open(h, compressed(o, path)))
	f.static = f.gz
	l.byID[id] = f
	l.files = append(l.files, f)
	l.setHave(id, true)
	l.order()
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// unpark opens a parked file again.
func (l *lineage) unpark(f *file, now time.Time) {
	o, err := l.r.openToHold(f.path)
	if f.awaits = isCrowded(err); f.awaits {
		l.askScan()
		return
	}
	if err != nil {
		l.fail(f, err, now)
		l.askScan()
		return
	}
	fi, err := o.Stat()
	if err != nil || idOf(fi) != f.id {
		_ = o.Close()
		l.askScan()
		return
	}
	l.succeed(f)
	h := newHandle(o)
	l.hold(f, h, open(h, compressed(o, f.path)))
	f.parked, f.proved, f.idle, f.ended, f.copyOf, f.grew = false, false, false, false, nil, now
	f.st = stampOf(fi)
	if f.s != nil {
		m, err := f.s.matches(context.Background(), f.c, f.s.pos, f.s.sum, &l.w.x)
		if err == nil && m != holds { // an error shows when it is read
			l.rewritten(f)
			return
		}
		l.register(f.s)
	}
}

// park closes a file that has nothing to read.
func (l *lineage) park(f *file) {
	l.stopLive(f)
	l.letGo(f)
	f.parked = true
	if f.s != nil && f.s.file == f {
		f.s.maker, f.s.fileAt = nil, time.Time{} // made and primed again when the file is read
	}
	l.w.freeGzip(f)
	if !f.present {
		l.drop(f)
	}
}

// drop lets a file go.
func (l *lineage) drop(f *file) {
	l.stopLive(f)
	l.letGo(f)
	if f.s != nil && f.s.file == f {
		f.s.file = nil
	}
	l.w.freeGzip(f)
	delete(l.byID, f.id)
	l.setHave(f.id, false)
	if i := slices.Index(l.files, f); i >= 0 {
		l.files = slices.Delete(l.files, i, i+1)
	}
	if f.fault != nil && !l.r.env.Once { // with once, what could not be read stays said
		l.r.env.Fail(f.path, nil)
	}
}

// order sorts the files, the oldest first: those that are there as names tell, and where they do not, as they were. What is gone
// keeps its place among those that were there with it: a scan in the middle of a rotation may see any of them under no name.
func (l *lineage) order() {
	was := make(map[*file]int, len(l.files)) // from 1; a file that came since has no place
	var sorted, gone []*file
	for i, f := range l.files {
		if f.ordered {
			was[f] = i + 1
		}
		if f.present {
			sorted = append(sorted, f)
		} else {
			gone = append(gone, f)
		}
	}
	sort.SliceStable(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		if is, known := older(a.path, b.path); known {
			return is
		}
		return a.rotated && !b.rotated
	})
	for _, f := range gone {
		at := slices.IndexFunc(sorted, func(o *file) bool { return was[o] > was[f] })
		if at < 0 {
			at = len(sorted)
		}
		for ; at > 0 && was[sorted[at-1]] == 0; at-- { // what came since is younger, unless its name says otherwise
			if is, known := older(sorted[at-1].path, f.path); known && is {
				break
			}
		}
		sorted = slices.Insert(sorted, at, f)
	}
	for _, f := range sorted {
		f.ordered = true
	}
	l.files = sorted
}

// note writes down where the stream's file is.
func (l *lineage) note(s *stream) {
	f := s.file
	if f == nil {
		return
	}
	s.meta.File, s.meta.Dev, s.meta.Ino, s.meta.Size, s.meta.Time = f.path, f.id.dev, f.id.ino, f.st.size, f.st.mtime
	s.meta.Target = f.target
	s.meta.Boot, s.meta.Gone, s.meta.Proofs = l.r.boot, 0, s.keptProofs()
	if !f.gz {
		s.meta.End = f.st.size
	}
}

func (l *lineage) update(s *stream) {
	if !s.stored {
		return // the agent does not know it
	}
	e := s.entry()
	s.saved = string(e.Meta)
	l.r.env.Streams.Update(e)
}

// save tells the agent what changed about the files, once per sweep.
func (l *lineage) save(now time.Time, force bool) {
	if !force && now.Sub(l.savedAt) < l.r.cfg.Sweep {
		for _, f := range l.files {
			if f.s != nil && f.s.stored && (f.s.meta.Size != f.st.size || f.s.meta.File != f.path) {
				l.active = true
			}
		}
		return
	}
	l.savedAt = now
	for _, s := range l.streams {
		if !s.stored || s.file == nil || s.drained {
			continue
		}
		l.note(s)
		if string(s.meta.encode()) != s.saved {
			l.update(s)
		}
	}
}

// age forgets streams whose files are long gone.
func (l *lineage) age(now time.Time) {
	if now.Sub(l.aged) < time.Hour {
		return
	}
	l.aged = now
	l.ageMark(now)
	l.streams = slices.DeleteFunc(l.streams, func(s *stream) bool {
		if !s.drained || s.file != nil || s.meta.Pipe {
			return false
		}
		for _, e := range l.siblings {
			if e.id == (fileID{s.meta.Dev, s.meta.Ino}) {
				s.meta.Gone = 0
				return false
			}
		}
		if !l.longGone(s, now) {
			return false
		}
		l.r.env.Streams.Forget(s.name)
		return true
	})
}

func (l *lineage) register(s *stream) { l.r.in.register(s.name, s.file) }

func (l *lineage) unregister(s *stream) { l.r.in.unregister(s.name) }

// close lets go of everything at the end of the run.
func (l *lineage) close() {
	l.save(time.Now(), true)
	for _, f := range slices.Clone(l.files) {
		if f.s != nil {
			l.unregister(f.s)
		}
		l.drop(f)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.posted {
		if e.opened != nil {
			_ = e.opened.Close()
		}
	}
	l.posted = nil
}
