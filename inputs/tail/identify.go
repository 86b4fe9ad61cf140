package tail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// identifyAll finds out what files hold whose content is not known so far.
func (l *lineage) identifyAll(ctx context.Context, now time.Time) error {
	files := slices.Clone(l.files)
	// Files that lie where the checkpoint saw them go first: copies are told by comparing with them.
	// Originals go before what they are compressed to: that may be half written.
	slices.SortStableFunc(files, func(a, b *file) int {
		return cmp.Or(l.placed(b)-l.placed(a), compareBool(a.gz, b.gz))
	})
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
		} else if f.parked {
			l.succeed(f)
		}
		if z, ok := f.c.(*unpacked); ok && l.w.gz != f {
			z.drop()
		}
	}
	return nil
}

// compareBool is negative when only b is true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
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
	f.after = nil
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
	if !f.gz && hasMagic(head) { // it was empty when it was opened
		f.gz, f.static = true, true
		f.c = open(f.h, true)
		if head, whole, err = headOf(ctx, f.c, l.w.x.block()); err != nil {
			return err
		}
	}
	if !whole {
		if len(head) == 0 {
			if end, known, err := f.c.end(); f.gz && err == nil && known && end == 0 {
				l.park(f) // compressed, and there is nothing in it
				return nil
			}
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
	var block [proof]byte
	n, err := f.c.readAt(ctx, block[:], 0)
	if n < len(head) && err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errCut) {
		return err
	}
	s, wait, err := l.whose(ctx, f, block[:n], now)
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
	return l.begin(ctx, f, head)
}

// whose finds the stream that f holds, or of which it is a copy. wait says that it may be a copy that is still growing.
func (l *lineage) whose(ctx context.Context, f *file, head []byte, now time.Time) (best *stream, wait bool, err error) {
	for _, s := range l.streams {
		if s.meta.Pipe || !s.begins(head) {
			continue
		}
		if s.drained && s.meta.Long == "" && len(head) == proof && s.inode() != f.id && l.alike(s) {
			continue // all of it was less than that; what begins like it and goes on is another file
		}
		if o := s.file; o != nil && o != f && o.rotated && o.lived && !f.rotated {
			continue // the log's last file, renamed: what is there now is a new one, however it begins
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
				switch fault := s.file.fault; {
				case !s.unknown():
					f.copyOf = s
					return nil, false, nil
				case fault == nil:
					f.after, wait = s, true
					continue
				case !errors.Is(fault, errDamaged):
					return nil, false, fmt.Errorf("finding out whether it is a copy of %s: %w", s.file.path, fault)
				case s.pos <= int64(s.meta.HeadLen):
					continue // it begins alike, and more will never be known
				}
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
		case m == tooShort && f.rotated && f.was != s && s.mayGrow(f.c) && now.Sub(f.grew) < l.r.cfg.growWait(f.c) && !l.r.env.Once:
			wait = true
		case m == tooShort && f.rotated && f.was != s:
			// It does not grow any more and ends before the position: copytruncate copied it, more was written and read, and only
			// then the file was cut. Nothing in it is new, if it is this stream's content.
			copied, err := s.holdsPlace(ctx, f.c, &l.w.x)
			if err != nil {
				return nil, false, err
			}
			if copied {
				f.copyOf = s
				return nil, false, nil
			}
		case m == tooShort && !f.rotated && !s.drained && l.lostInCrash(s, f):
			l.shorten(s)
		}
	}
	if best != nil {
		return best, false, nil
	}
	return nil, wait, nil
}

// alike reports whether another stream begins with the same line.
func (l *lineage) alike(s *stream) bool {
	return slices.ContainsFunc(l.streams, func(o *stream) bool { return o != s && o.meta.Head == s.meta.Head })
}

// another reports whether content that may be what s searches is that of a stream which begins like s and was read further.
func (l *lineage) another(ctx context.Context, s *stream, c content) (bool, error) {
	for _, o := range l.streams {
		if o == s || o.meta.Head != s.meta.Head || o.pos <= s.pos {
			continue
		}
		if m, err := o.matches(ctx, c, o.pos, o.sum, &l.w.x); err != nil || m == holds {
			return m == holds, err
		}
	}
	return false, nil
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

// unknown reports whether it is not known what all of s is, because its compressed file is not read to its end so far.
func (s *stream) unknown() bool {
	if s.file == nil || s.file.parked || !s.file.gz || s.file.ended {
		return false
	}
	_, known, err := s.file.c.end()
	return err == nil && !known
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
	if !known { // s reads a compressed file: what it is shows at its end
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
		if s.file.rotated && !f.rotated {
			return differs, nil // a new file that begins like the last one: a live file is no copy of a rotated one
		}
		mine = min(mine, theirs)
	} else if more, err := l.exceeds(ctx, f, s.file, mine); err != nil || more {
		return differs, err
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

// exceeds reports whether f has more than the file of a stream, which ended at the offset a moment ago: then it is no copy of that one,
// however they begin. The other way round the stream's file may be a copy of f that is still being written, unless f is compressed.
func (l *lineage) exceeds(ctx context.Context, f, of *file, end int64) (bool, error) {
	if of.rotated && !f.gz {
		return false, nil
	}
	for {
		n, err := f.c.readAt(ctx, l.w.x.proof[:1], end)
		switch {
		case n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, errCut)):
			return false, nil
		case n == 0:
			return false, err
		}
		now, _, err := of.c.end()
		if err != nil || now <= end {
			return err == nil, err
		}
		end = now // lines came meanwhile, and were copied
	}
}

// adopt says that f holds s.
func (l *lineage) adopt(s *stream, f *file) {
	if old := s.file; old != nil && old != f {
		old.s, old.copyOf = nil, s
	}
	moved := s.meta.Ino != 0 && (s.meta.Dev != f.id.dev || s.meta.Ino != f.id.ino)
	s.file, s.emptied, f.s, f.copyOf, f.was = f, false, s, nil, nil
	s.lost, s.searches = false, 0
	s.clear = 0
	if moved && f.rotated {
		f.static = true // a copy; what is seen here first may be one that is written just now
	}
	f.proved, f.idle, f.ended = false, false, false
	if s.opened {
		l.register(s)
	}
	l.note(s)
	if s.settled { // there may be more in f: a restart has to find that
		s.settled = false
		l.update(s)
	}
	l.r.env.Log.Debug("stream found", "stream", s.name, "path", f.path, "offset", s.pos)
}

// begin makes a new stream of f.
func (l *lineage) begin(ctx context.Context, f *file, head []byte) error {
	line := head
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	m := meta{
		Version: metaVersion, Path: l.key, Head: hexSum(head), HeadLen: len(head), Boot: l.r.boot, Since: l.since,
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
			if err != nil && !errors.Is(err, io.EOF) {
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
			if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
				err = nil
			}
			return last, err
		}
	}
}
