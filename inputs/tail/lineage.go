package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const (
	// orderWait is how long the next file of a lineage waits for a rotated one that is read to its end: writers that were told to
	// reopen do so within this time as a rule. Lines that come later are read all the same, but out of order.
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
	matched bool     // by the patterns; else it is only a rotation sibling
	opened  *os.File // the first time that a matched file is seen
}

// file is a file of a lineage. The descriptor is held as long as there may be something to read, so that renames and removals
// change nothing.
type file struct {
	id      fileID
	path    string // where it was last seen
	present bool   // it is still there
	rotated bool   // it has a rotation's name, or is gone from where it was
	static  bool   // nothing will be appended: a copy, or compressed
	gz      bool
	listed  stamp // as the last scan saw it

	h *handle // nil while parked
	c content
	// parked: read to its end and closed, or known to be a copy; looked at again when its stamp changes.
	parked bool

	s      *stream // what it holds, nil until that is known
	copyOf *stream
	was    *stream // what it held before it was rewritten

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
	queued bool            // guarded by w.mu

	first    bool // no scan was taken so far
	known    bool // the checkpoint has streams of it
	gated    bool // it waits until another compressed file is read
	byID     map[fileID]*file
	files    []*file // oldest first
	streams  []*stream
	siblings []found         // of the last scan, not matched and not open
	since    int64           // modification time after which siblings are new: the latest in the checkpoint, else the run's start
	history  map[fileID]bool // siblings that were there before
	active   bool            // there is something to do at the next sweep
	aged     time.Time
	savedAt  time.Time
	again    bool // guarded by mu: active after the last turn
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
	l.mu.Unlock()
}

func (l *lineage) knows(id fileID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.have[id]
}

func (l *lineage) setHave(id fileID, have bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have {
		l.have[id] = true
	} else {
		delete(l.have, id)
	}
}

// turn does what is due: at most one block is read, so that every file gets its turn. more says that there is more to read
// at once.
func (l *lineage) turn(ctx context.Context) (more bool, err error) {
	now := time.Now()
	l.active, l.gated = false, false
	l.take(ctx, now)
	if err := l.identifyAll(ctx, now); err != nil {
		return false, err
	}
	waiting, err := l.seekOrphans(ctx, now)
	if err != nil {
		return false, err
	}
	// Ranging over a copy: reading may move a file that turns out to be rewritten.
	for _, f := range slices.Clone(l.files) {
		if waiting && !f.started {
			l.active = true
			break
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
	return false, nil
}

// passes reports whether files that are younger than f may be read.
func (l *lineage) passes(f *file, now time.Time) bool {
	if f.parked {
		return true
	}
	if l.r.env.Once {
		return f.s == nil || f.ended || f.fault != nil
	}
	if f.s == nil {
		if f.st.size == 0 || !f.rotated {
			return true // nothing in it, or a live file: there is nothing younger
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
	return f.static || now.Sub(f.grew) >= min(orderWait, l.r.cfg.Grace) || now.Sub(f.seen) >= l.r.cfg.Grace
}

// take looks at the newest scan.
func (l *lineage) take(ctx context.Context, now time.Time) {
	l.mu.Lock()
	entries, fresh := l.posted, l.fresh
	l.posted, l.fresh = nil, false
	l.mu.Unlock()
	if !fresh {
		return
	}
	for _, f := range l.files {
		f.present = false
	}
	l.siblings = l.siblings[:0]
	for _, e := range entries {
		f := l.byID[e.id]
		if f != nil {
			if e.opened != nil {
				_ = e.opened.Close()
			}
			f.present, f.path, f.listed = true, e.path, e.stamp
			l.unpark(f, now)
			continue
		}
		switch {
		case e.opened != nil:
			l.add(e.opened, e.path, now)
		case e.matched:
			// The scan saw it parked here, and it was let go meanwhile: the next scan opens it.
			l.setHave(e.id, false)
			l.active = true
		case l.wanted(e, now):
			if o, err := l.r.fs.open(e.path); err == nil {
				l.add(o, e.path, now)
			} else if !errors.Is(err, os.ErrNotExist) {
				l.r.fail(e.path, err)
				l.siblings = append(l.siblings, e)
			}
		default:
			l.siblings = append(l.siblings, e)
		}
	}
	for _, f := range slices.Clone(l.files) {
		away := !f.present || rotationOf(filepath.Base(f.path)).rotated
		if away && !f.rotated {
			f.rotated, f.grew, f.seen = true, now, now
			l.r.env.Log.Debug("file rotated", "path", f.path, "present", f.present)
		}
		if !away && f.rotated { // renamed back
			f.rotated = false
		}
		if f.parked && !f.present {
			l.drop(f)
		}
	}
	l.order()
	l.first = false
	l.age(now)
}

// wanted reports whether a sibling that the patterns do not match has to be read: it holds a stream that went on after it was
// read to its end, or it was written under the followed name after the last moment that the checkpoint or this run knows of,
// and rotated before anybody saw it there.
func (l *lineage) wanted(e found, now time.Time) bool {
	for _, s := range l.streams {
		if s.file != nil || !s.drained || s.meta.Ino != e.id.ino || s.meta.Dev != e.id.dev {
			continue
		}
		if e.stamp == (stamp{s.meta.Size, s.meta.Time}) {
			return false
		}
		if e.stamp.size > s.meta.Size {
			return true // it grew, or the inode is another file's by now: its content will tell
		}
	}
	if l.history[e.id] {
		return false
	}
	// A compressed file has the time of the original only when it is complete.
	settled := !rotationOf(filepath.Base(e.path)).gz || l.first || now.UnixNano()-e.stamp.mtime > int64(l.r.cfg.Grace)
	if e.stamp.mtime > l.since && settled && l.r.matches(l.key) {
		return true
	}
	if l.first {
		l.history[e.id] = true
	}
	return false
}

func (l *lineage) add(o *os.File, path string, now time.Time) *file {
	fi, err := o.Stat()
	if err != nil {
		_ = o.Close()
		l.r.fail(path, err)
		l.active = true
		return nil
	}
	id := idOf(fi)
	if old := l.byID[id]; old != nil {
		_ = o.Close()
		return old
	}
	r := rotationOf(filepath.Base(path))
	f := &file{
		id: id, path: path, present: true, rotated: r.rotated, gz: r.gz, static: r.gz,
		h: newHandle(o), st: stampOf(fi), listed: stampOf(fi), grew: earlier(fi.ModTime(), now), seen: now,
		initial: l.first,
	}
	if !l.first {
		f.grew = now
	}
	f.c = open(f.h, f.gz)
	l.byID[id] = f
	l.files = append(l.files, f)
	l.setHave(id, true)
	l.order()
	return f
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// unpark opens a parked file again if it changed.
func (l *lineage) unpark(f *file, now time.Time) {
	if !f.parked || f.listed == f.st {
		return
	}
	o, err := l.r.fs.open(f.path)
	if err != nil {
		l.fail(f, err, now)
		return
	}
	fi, err := o.Stat()
	if err != nil || idOf(fi) != f.id {
		_ = o.Close()
		l.active = true
		return
	}
	f.h = newHandle(o)
	f.c = open(f.h, f.gz)
	f.parked, f.proved, f.idle, f.ended, f.copyOf, f.grew = false, false, false, false, nil, now
	f.st = stampOf(fi)
	if f.s != nil {
		if m, err := f.s.matches(context.Background(), f.c, f.s.pos, f.s.sum, &l.w.x); err != nil || m != holds {
			f.was, f.s.file, f.s = f.s, nil, nil
			return
		}
		l.register(f.s)
	}
}

// park closes a file that has nothing to read.
func (l *lineage) park(f *file) {
	l.stopLive(f)
	if f.h != nil {
		if fi, err := f.h.f.Stat(); err == nil && f.s != nil && f.gz {
			f.st = stampOf(fi)
		}
		f.c.close()
		f.c, f.h = nil, nil
	}
	f.parked = true
	l.w.freeGzip(f)
	if !f.present {
		l.drop(f)
	}
}

// drop lets a file go.
func (l *lineage) drop(f *file) {
	l.stopLive(f)
	if f.c != nil {
		f.c.close()
		f.c, f.h = nil, nil
	}
	if f.s != nil && f.s.file == f {
		f.s.file = nil
	}
	l.w.freeGzip(f)
	delete(l.byID, f.id)
	l.setHave(f.id, false)
	if i := slices.Index(l.files, f); i >= 0 {
		l.files = slices.Delete(l.files, i, i+1)
	}
	if f.fault != nil {
		l.r.env.Fail(f.path, nil)
	}
}

// order sorts the files: what is gone from its place first, then as names tell, else as modification times tell.
func (l *lineage) order() {
	sort.SliceStable(l.files, func(i, j int) bool {
		a, b := l.files[i], l.files[j]
		if a.present != b.present {
			return !a.present
		}
		if !a.present {
			return a.seen.Before(b.seen)
		}
		if is, known := older(a.path, b.path); known {
			return is
		}
		return a.st.mtime < b.st.mtime
	})
}

func (l *lineage) fail(f *file, err error, now time.Time) {
	f.backoff = min(max(2*f.backoff, l.r.cfg.Sweep), maxBackoff)
	f.retry = now.Add(f.backoff)
	l.active = true
	if f.fault == nil || f.fault.Error() != err.Error() {
		l.r.env.Log.Warn("file cannot be read", "path", f.path, "error", err)
		l.r.env.Fail(f.path, err)
	}
	if f.fault == nil {
		f.seen = now
	}
	f.fault = err
}

func (l *lineage) succeed(f *file) {
	if f.fault != nil {
		l.r.env.Log.Info("file can be read again", "path", f.path)
		l.r.env.Fail(f.path, nil)
	}
	f.fault, f.backoff, f.retry = nil, 0, time.Time{}
}

// closing reports that what stands at the end of f stands there for good.
func (l *lineage) closing(f *file, now time.Time) bool {
	if l.r.env.Once {
		if l.r.cfg.Unterminated == "read" {
			return true
		}
		return f.rotated && (f.static || now.Sub(f.grew) >= l.r.cfg.Grace)
	}
	return f.rotated && (f.static || now.Sub(f.grew) >= l.r.cfg.Grace)
}

// identifyAll finds out what files hold whose content is not known so far.
func (l *lineage) identifyAll(ctx context.Context, now time.Time) error {
	files := slices.Clone(l.files)
	// Files that lie where the checkpoint saw them go first: copies are told by comparing with them.
	slices.SortStableFunc(files, func(a, b *file) int { return l.placed(b) - l.placed(a) })
	for _, f := range files {
		if f.parked || f.s != nil {
			continue
		}
		if now.Before(f.retry) {
			l.active = true
			continue
		}
		if err := l.identify(ctx, f, now); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			l.fail(f, err, now)
		}
		if z, ok := f.c.(*gzipped); ok && l.w.gz != f {
			z.drop()
		}
	}
	return nil
}

// placed is 1 for a file with the inode of a stream that has no file, else 0.
func (l *lineage) placed(f *file) int {
	for _, s := range l.streams {
		if s.file == nil && s.meta.Dev == f.id.dev && s.meta.Ino == f.id.ino {
			return 1
		}
	}
	return 0
}

func (l *lineage) identify(ctx context.Context, f *file, now time.Time) error {
	fi, err := f.h.f.Stat()
	if err != nil {
		return err
	}
	if st := stampOf(fi); st != f.st {
		f.st, f.grew, f.pausing = st, now, time.Time{}
	}
	// A compressed file that was read to its end, unchanged since: there is no need to decompress it at each start.
	for _, s := range l.streams {
		if s.file == nil && s.drained && s.meta.Dev == f.id.dev && s.meta.Ino == f.id.ino && s.meta.Size == f.st.size && s.meta.Time == f.st.mtime && !s.meta.Pipe {
			l.adopt(s, f)
			l.park(f)
			return nil
		}
	}
	head, whole, err := headOf(ctx, f.c, l.w.x.block())
	if err != nil {
		return err
	}
	if !whole {
		if len(head) == 0 {
			if f.rotated && !f.present {
				l.drop(f)
			} else {
				l.active = l.active || f.rotated && f.st.size > 0
			}
			return nil
		}
		if !l.closing(f, now) || f.gz && f.st.size > 0 && now.Sub(f.grew) < l.r.cfg.Grace && !l.r.env.Once {
			l.active = l.active || f.rotated
			if l.r.env.Once {
				l.unterminated(f, int64(len(head)))
			}
			return nil
		}
	}
	head = slices.Clone(head)
	s, wait, err := l.whose(ctx, f, head, now)
	switch {
	case err != nil:
		return err
	case wait:
		l.active = true
		return nil
	case f.copyOf != nil:
		l.park(f)
		return nil
	case s != nil:
		l.adopt(s, f)
		return nil
	}
	return l.begin(ctx, f, head, now)
}

// whose finds the stream that f holds, or of which it is a copy. wait says that it may be a copy that is still growing.
func (l *lineage) whose(ctx context.Context, f *file, head []byte, now time.Time) (best *stream, wait bool, err error) {
	for _, s := range l.streams {
		sum, size := s.head()
		if size > len(head) || xxh3.Hash(head[:size]) != sum || s.meta.Pipe {
			continue
		}
		var m verdict
		own := s.file != nil && !s.file.parked
		if own {
			if m, err = l.compare(ctx, s, f); err != nil {
				return nil, false, err
			}
			// Was it compared with what the stream really is? If its file was rewritten meanwhile, f may be where it lives on.
			same, err := l.still(ctx, s)
			if err != nil {
				return nil, false, err
			}
			if !same {
				l.rewritten(s.file)
				own = false
			} else if m == holds {
				f.copyOf = s
				return nil, false, nil
			}
		}
		if !own {
			if m, err = s.matches(ctx, f.c, s.pos, s.sum, &l.w.x); err != nil {
				return nil, false, err
			}
		}
		switch {
		case m == holds && (best == nil || s.pos > best.pos):
			best = s
		case m == tooShort && f.rotated && f.was != s && now.Sub(f.grew) < l.r.cfg.Grace && !l.r.env.Once:
			wait = true
		case m == tooShort && !f.rotated && !s.drained && l.lostInCrash(s, f):
			l.shorten(s)
		}
	}
	if best != nil {
		return best, false, nil
	}
	return nil, wait, nil
}

// lostInCrash reports that the file is the very one of the stream, but an operating system that went down has lost its end.
func (l *lineage) lostInCrash(s *stream, f *file) bool {
	return s.meta.Boot != "" && s.meta.Boot != l.r.boot && f.was == nil && s.meta.Dev == f.id.dev && s.meta.Ino == f.id.ino
}

// shorten ends a stream whose file lost its end together with the system: it is the source that lost it, not we, so what
// was delivered stands, and the file goes on as a stream of its own from where it ends.
func (l *lineage) shorten(s *stream) {
	l.r.env.Log.Warn("file is shorter than what was read of it before the system went down", "path", s.meta.File, "read", s.pos)
	s.drained, s.lost = true, true
	l.update(s)
}

// still reports whether the open file of s holds what was read from it.
func (l *lineage) still(ctx context.Context, s *stream) (bool, error) {
	if s.file.c.settled() {
		return true, nil
	}
	m, err := s.matches(ctx, s.file.c, s.pos, s.sum, &l.w.x)
	return m == holds, err
}

// compare says whether f is a copy of what the open file of s holds.
func (l *lineage) compare(ctx context.Context, s *stream, f *file) (verdict, error) {
	m, err := s.matches(ctx, f.c, s.pos, s.sum, &l.w.x)
	if err != nil || m == differs {
		return m, err
	}
	mine, known, err := s.file.c.end()
	if err != nil {
		return differs, err
	}
	if !known { // s reads a compressed file: its own content proves as far as it was read
		return m, nil
	}
	// A twin may share the beginning: compare where the shorter one ends, too.
	if _, ok, err := sumBefore(ctx, f.c, mine, l.w.x.proof[:]); err != nil {
		return differs, err
	} else if !ok {
		theirs, known, err := f.c.end()
		if err != nil {
			return differs, err
		}
		if !known {
			return m, nil // compressed and cut short: it is being written
		}
		mine = min(mine, theirs)
	}
	a, okA, err := sumBefore(ctx, s.file.c, mine, l.w.x.proof[:])
	if err != nil {
		return differs, err
	}
	b, okB, err := sumBefore(ctx, f.c, mine, l.w.x.proof[:])
	if err != nil {
		return differs, err
	}
	if !okA || !okB || a != b {
		return differs, nil
	}
	return m, nil
}

// adopt says that f holds s.
func (l *lineage) adopt(s *stream, f *file) {
	if old := s.file; old != nil && old != f {
		old.s, old.copyOf = nil, s
	}
	moved := s.meta.Dev != f.id.dev || s.meta.Ino != f.id.ino
	s.file, f.s, f.copyOf, f.was = f, s, nil, nil
	s.lost, s.searches = false, 0
	s.clear = 0
	if moved && f.rotated {
		f.static = true // a copy
	}
	f.proved, f.idle, f.ended = false, false, false
	if s.opened {
		l.register(s)
	}
	l.note(s)
	l.r.env.Log.Debug("stream found", "stream", s.name, "path", f.path, "offset", s.pos)
}

// begin makes a new stream of f.
func (l *lineage) begin(ctx context.Context, f *file, head []byte, now time.Time) error {
	line := head
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	m := meta{
		Version: metaVersion, Path: l.key, Head: hexSum(head), HeadLen: len(head), Boot: l.r.boot,
	}
	name := ""
	for ; ; m.Twin++ {
		name = streamName(l.r.env.NodeID, l.key, line, m.Twin)
		if !slices.ContainsFunc(l.streams, func(s *stream) bool { return s.name == name }) {
			break
		}
	}
	s := newStream(name, l.key, m)
	if err := s.moveTo(event.Position{}); err != nil {
		return err
	}
	at := int64(0)
	crashed := slices.ContainsFunc(l.streams, func(o *stream) bool {
		return o.lost && l.lostInCrash(o, f) && o.meta.Head == m.Head
	})
	if crashed || l.r.cfg.Start == "end" && f.initial && !l.known {
		var err error
		if at, err = lastLineEnd(ctx, f.c, l.w.x.block()); err != nil {
			return err
		}
	}
	if at > 0 {
		sum, ok, err := sumBefore(ctx, f.c, at, l.w.x.proof[:])
		if err != nil {
			return err
		}
		if ok {
			s.pos, s.sum = at, sum
		}
	}
	l.streams = append(l.streams, s)
	l.adopt(s, f)
	return nil
}

// lastLineEnd finds where the last complete line ends.
func lastLineEnd(ctx context.Context, c content, scan []byte) (int64, error) {
	last := int64(0)
	if end, known, err := c.end(); err != nil {
		return 0, err
	} else if known {
		for to := end; to > 0; {
			from := max(0, to-int64(len(scan)))
			n, err := c.readAt(ctx, scan[:to-from], from)
			if err != nil && err != io.EOF {
				return 0, err
			}
			for i := n - 1; i >= 0; i-- {
				if scan[i] == '\n' {
					return from + int64(i) + 1, nil
				}
			}
			to = from
		}
		return 0, nil
	}
	for at := int64(0); ; {
		n, err := c.readAt(ctx, scan, at)
		for i := n - 1; i >= 0; i-- {
			if scan[i] == '\n' {
				last = at + int64(i) + 1
				break
			}
		}
		at += int64(n)
		if err != nil {
			if err == io.EOF || errors.Is(err, errCut) {
				err = nil
			}
			return last, err
		}
	}
}

// seekOrphans searches the rest of streams whose content is not in an open file. waiting says that one may still be found:
// younger files wait for it.
func (l *lineage) seekOrphans(ctx context.Context, now time.Time) (waiting bool, err error) {
	for _, s := range l.streams {
		if s.file != nil || s.drained || s.lost || s.meta.Pipe {
			continue
		}
		if now.Sub(s.searched) < l.r.cfg.Sweep && s.searches > 0 {
			waiting, l.active = true, true
			continue
		}
		s.searched = now
		got, sure, err := l.search(ctx, s, now)
		if err != nil {
			return false, err
		}
		if got {
			continue
		}
		if sure {
			s.searches++
		}
		if sure && (s.searches >= 2 || l.r.env.Once) {
			if err := l.lose(ctx, s); err != nil {
				return false, err
			}
			continue
		}
		if !sure && l.r.env.Once {
			continue // said already
		}
		waiting, l.active = true, true
	}
	return waiting, nil
}

// search looks for the rest of s in all siblings. sure says that every one of them could be looked at.
func (l *lineage) search(ctx context.Context, s *stream, now time.Time) (got, sure bool, err error) {
	sure = true
	for _, f := range l.files {
		if f.s == nil && !f.parked && f.rotated && f.st.size > 0 {
			sure = false // not known so far: it may be what is searched
		}
	}
	paths, err := l.r.fs.siblings(l.key)
	if err != nil {
		l.r.fail(filepath.Dir(l.key), err)
		return false, false, nil
	}
	for _, path := range paths {
		o, err := l.r.fs.open(path)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				sure = false
				l.r.fail(path, err)
			}
			continue
		}
		l.r.ok(path)
		fi, err := o.Stat()
		if err != nil {
			_ = o.Close()
			sure = false
			continue
		}
		old := l.byID[idOf(fi)]
		if old != nil && !(old.parked && (old.s == nil || old.s == s)) || !fi.Mode().IsRegular() {
			_ = o.Close()
			continue
		}
		r := rotationOf(filepath.Base(path))
		if !r.rotated {
			_ = o.Close() // a live file that is not open: it will be, and then it is asked whose it is
			continue
		}
		h := newHandle(o)
		c := open(h, r.gz)
		m, err := s.matches(ctx, c, s.pos, s.sum, &l.w.x)
		if ctx.Err() != nil {
			c.close()
			return false, false, ctx.Err()
		}
		if err != nil {
			l.r.fail(path, err)
			sure = false
		}
		if m == tooShort && now.Sub(fi.ModTime()) < l.r.cfg.Grace {
			sure = false // it may be a copy that grows
		}
		if m != holds {
			c.close()
			continue
		}
		f := old
		if f == nil {
			f = &file{id: idOf(fi), path: path, present: true, rotated: true, gz: r.gz, static: r.gz, seen: now}
			l.byID[f.id] = f
			l.files = append(l.files, f)
			l.setHave(f.id, true)
		}
		f.h, f.c, f.parked, f.copyOf = h, c, false, nil
		f.st = stampOf(fi)
		f.listed, f.grew = f.st, earlier(fi.ModTime(), now)
		l.adopt(s, f)
		l.order()
		return true, true, nil
	}
	return false, sure, nil
}

// lose gives up the search: what is known to have been there and not read is counted.
func (l *lineage) lose(ctx context.Context, s *stream) error {
	if s.stored && !s.opened {
		// Outputs that are behind the others learn in this way that there is nothing for them any more.
		p, err := l.r.env.Streams.Open(ctx, s.entry())
		if err != nil {
			return fmt.Errorf("opening stream of %s: %w", s.meta.File, err)
		}
		s.opened = true
		if err := s.moveTo(p); err != nil {
			return err
		}
	}
	s.lost, s.drained = true, true
	if n := s.meta.End - s.pos; n > 0 {
		l.r.env.Log.Error("part of a file is lost: it was removed or overwritten before it was read",
			"path", s.meta.File, "from", s.pos, "to", s.meta.End, "bytes", n)
		l.r.env.Count("lost_bytes", "gone", n)
	}
	l.unregister(s)
	l.update(s)
	return nil
}

// rewritten says that f does not hold its stream any more: it was truncated, or written anew in place.
func (l *lineage) rewritten(f *file) {
	s := f.s
	l.r.env.Log.Info("file was truncated or rewritten in place", "path", f.path, "read", s.pos, "seen", s.meta.End)
	l.stopLive(f)
	l.unregister(s)
	s.file, s.searches, s.searched = nil, 0, time.Time{}
	f.s, f.was = nil, s
	f.started, f.ended, f.proved, f.idle, f.static, f.reported = false, false, false, false, f.gz, false
	f.grew = time.Now()
	l.active = true
}

// read reads one block of f and sends it. progress says that there may be more at once.
func (l *lineage) read(ctx context.Context, f *file, now time.Time) (progress bool, err error) {
	if now.Before(f.retry) {
		l.active = true
		return false, nil
	}
	if l.gated = f.gz && !l.w.takeGzip(f, l); l.gated {
		f.ended = false
		return false, nil
	}
	progress, fault, err := l.tryRead(ctx, f, now)
	if err != nil {
		return false, err
	}
	if fault != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		l.w.freeGzip(f)
		l.fail(f, fault, now)
		return false, nil
	}
	if f.backoff != 0 && f.pausing.IsZero() {
		l.succeed(f)
	}
	return progress, nil
}

// tryRead does what read does; fault is about the file, err ends the run.
func (l *lineage) tryRead(ctx context.Context, f *file, now time.Time) (progress bool, fault, err error) {
	s := f.s
	if !s.opened {
		same, fault, err := l.openStream(ctx, f)
		if fault != nil || err != nil {
			return false, fault, err
		}
		if !same {
			l.rewritten(f)
			return true, nil, nil
		}
	}
	fi, err := f.h.f.Stat()
	if err != nil {
		return false, err, nil
	}
	st := stampOf(fi)
	if st.size != f.st.size {
		f.grew = now
	}
	quiet := st == f.st && f.proved && f.idle
	if st != f.st {
		f.pausing, f.proved, f.idle = time.Time{}, false, false
	}
	f.st = st
	closed := l.closing(f, now)
	end := int64(math.MaxInt64)
	if !f.gz {
		end = st.size
		if end < s.pos {
			l.rewritten(f)
			return true, nil, nil
		}
		s.meta.End = end
	}
	if f.rotated {
		l.active = true
	}
	if quiet && !closed {
		return false, nil, nil
	}
	if fi.ModTime().Sub(s.fileAt) >= parserAge {
		if err := s.prime(ctx, f.c, fi.ModTime(), &l.w.x); err != nil {
			return false, err, nil
		}
	}
	if end == s.pos {
		_, same, err := s.unchanged(ctx, f.c, &l.w.x)
		if err != nil {
			return false, err, nil
		}
		if !same {
			l.rewritten(f)
			return true, nil, nil
		}
		l.ended(f, fi, now, closed)
		return false, nil, nil
	}
	if l.r.env.Once {
		// A file that is written faster than it is read must not keep the run for ever.
		if f.limit == 0 {
			f.limit = end
		}
		end = min(end, f.limit)
	}
	if live := l.liveFor(f, st); live != nil {
		b, o, fault := live.next(ctx, l, f, now)
		switch {
		case ctx.Err() != nil:
			if b != nil {
				b.Release()
			}
			return false, nil, ctx.Err()
		case fault == nil && b != nil:
			return true, nil, l.send(ctx, s, b)
		case fault == nil && o != changed:
			return o == stepped, nil, nil
		}
		// The library lost its way, or the file changed: the block reader finds out.
		l.r.env.Log.Info("engine native takes over", "path", f.path, "offset", s.pos)
		l.stopLive(f)
		f.mistrust = true
	}
	b, o, fault := s.step(ctx, l.r.env.Pool, f.c, end, closed, &l.w.x)
	if errors.Is(fault, errCut) {
		return l.cutShort(f, now)
	}
	switch {
	case ctx.Err() != nil && fault != nil:
		return false, nil, ctx.Err()
	case fault != nil:
		return false, fault, nil
	case o == changed:
		l.rewritten(f)
		return true, nil, nil
	case o == atEnd:
		l.ended(f, fi, now, closed)
		return false, nil, nil
	case b == nil:
		return true, nil, nil
	}
	return true, nil, l.send(ctx, s, b)
}

// cutShort deals with the end of compressed content that is cut short: it is being written, or damaged.
func (l *lineage) cutShort(f *file, now time.Time) (bool, error, error) {
	if f.pausing.IsZero() {
		f.pausing = now
	}
	l.active = true
	if now.Sub(f.pausing) < l.r.cfg.Grace && now.Sub(f.grew) < l.r.cfg.Grace && !l.r.env.Once {
		// Decompressing again from the beginning at each step of its growth would be dear.
		f.backoff = min(max(2*f.backoff, l.r.cfg.Sweep), maxBackoff)
		f.retry = now.Add(f.backoff)
		l.w.freeGzip(f)
		return false, nil, nil
	}
	err := fmt.Errorf("reading %s: %w after byte %d of its content", f.path, errCut, f.s.pos)
	l.r.env.Log.Error("compressed file is damaged", "path", f.path, "offset", f.s.pos)
	l.r.env.Fail(f.path, err)
	l.r.env.Count("damaged_files", "gzip", 1)
	l.finish(f)
	return false, nil, nil
}

// send hands a batch over.
func (l *lineage) send(ctx context.Context, s *stream, b *event.Batch) error {
	if s.cutEnd && !slices.Contains(s.meta.Cuts, s.pos) {
		// The agent has to know of it before any cursor stands behind it.
		s.meta.Cuts = append(s.meta.Cuts, s.pos)
		l.update(s)
	}
	if s.drained {
		s.drained = false
		l.update(s)
	}
	s.maker.Flush()
	return l.r.sink.Send(ctx, b)
}

// ended notes that nothing complete is left in f for now, and finishes it if nothing will follow.
func (l *lineage) ended(f *file, fi os.FileInfo, now time.Time, closed bool) {
	f.ended, f.idle = true, true
	// A write within the same tick of the file system's clock could hide behind an equal stamp.
	f.proved = now.Sub(fi.ModTime()) > racy
	if !f.proved {
		l.active = true
	}
	s := f.s
	if closed && (f.rotated || l.r.env.Once && f.static) {
		l.finish(f)
		return
	}
	if l.r.env.Once && f.st.size > s.pos {
		l.unterminated(f, f.st.size-s.pos)
	}
}

// unterminated reports a last line that was left alone.
func (l *lineage) unterminated(f *file, n int64) {
	if f.reported {
		return
	}
	f.reported = true
	l.r.env.Log.Warn("last line has no newline and was not read", "path", f.path, "bytes", n)
	l.r.env.Count("unterminated", "", 1)
}

// finish ends a stream: it is read to its end and will not grow.
func (l *lineage) finish(f *file) {
	s := f.s
	if f.gz {
		if end, known, err := f.c.end(); err == nil && known {
			s.meta.End = end
		}
	}
	l.unregister(s)
	s.drained = true
	l.note(s)
	l.update(s)
	l.r.env.Log.Debug("file read to its end", "path", f.path, "offset", s.pos)
	l.park(f)
}

// openStream declares the stream to the agent, which says where to read on. same is false when f does not hold it there.
func (l *lineage) openStream(ctx context.Context, f *file) (same bool, fault, err error) {
	s := f.s
	fi, err := f.h.f.Stat()
	if err != nil {
		return false, err, nil
	}
	if s.maker == nil {
		if s.maker, err = l.r.newMaker(); err != nil {
			return false, nil, err
		}
	}
	l.note(s)
	l.register(s)
	s.drained = false
	p, err := l.r.env.Streams.Open(ctx, s.entry())
	if err != nil {
		l.unregister(s)
		return false, nil, fmt.Errorf("opening stream of %s: %w", f.path, err)
	}
	s.opened = true
	s.saved = string(s.meta.encode())
	if p != s.position() {
		if err := s.moveTo(p); err != nil {
			return false, nil, err
		}
	}
	m, fault := s.matches(ctx, f.c, s.pos, s.sum, &l.w.x)
	if fault != nil {
		s.opened = false
		return false, fault, nil
	}
	if m != holds {
		return false, nil, nil
	}
	return true, s.prime(ctx, f.c, fi.ModTime(), &l.w.x), nil
}

// note writes down where the stream's file is.
func (l *lineage) note(s *stream) {
	f := s.file
	if f == nil {
		return
	}
	s.meta.File, s.meta.Dev, s.meta.Ino, s.meta.Size, s.meta.Time = f.path, f.id.dev, f.id.ino, f.st.size, f.st.mtime
	s.meta.Boot, s.meta.Gone = l.r.boot, 0
	if !f.gz {
		s.meta.End = f.st.size
	}
}

func (l *lineage) update(s *stream) {
	if !s.opened && !s.stored {
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
			if f.s != nil && f.s.opened && (f.s.meta.Size != f.st.size || f.s.meta.File != f.path) {
				l.active = true
			}
		}
		return
	}
	l.savedAt = now
	for _, s := range l.streams {
		if !s.opened || s.file == nil || s.drained {
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
		if s.meta.Gone == 0 {
			s.meta.Gone = now.Unix()
			l.update(s)
			return false
		}
		if now.Sub(time.Unix(s.meta.Gone, 0)) < goneAfter {
			return false
		}
		l.r.env.Streams.Forget(s.name)
		return true
	})
}

func (l *lineage) register(s *stream)   { l.r.in.register(s.name, s.file) }
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
