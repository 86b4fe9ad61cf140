package tail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// seekOrphans searches the rest of streams whose content is not in an open file. waiting says that one may still be found:
// younger files wait for it.
func (l *lineage) seekOrphans(ctx context.Context, now time.Time) (waiting bool, err error) {
	for _, s := range l.streams {
		if s.file != nil || s.drained || s.lost || s.meta.Pipe {
			continue
		}
		if l.waitsForRoom(s) {
			waiting, l.active = true, true
			continue
		}
		if now.Sub(s.searched) < l.r.cfg.Sweep && s.searches > 0 {
			waiting, l.active = true, true
			continue
		}
		s.searched = now
		was, err := l.search(ctx, s, now)
		if err != nil {
			return false, err
		}
		if was != restless {
			s.restless, s.told = time.Time{}, false
		}
		switch was {
		case hasRest:
			continue
		case missing:
			if s.searches++; s.searches >= 2 || l.r.env.Once {
				if err := l.lose(ctx, s); err != nil {
					return false, err
				}
				continue
			}
		case unsure:
			if l.r.env.Once {
				continue // said already
			}
		case restless:
			if s.restless.IsZero() {
				s.restless = now
			}
			if l.r.env.Once || now.Sub(s.restless) >= l.r.in.rest {
				l.restless(s)
				l.active = true
				continue // it is searched on, but the others do not wait for ever
			}
		}
		waiting, l.active = true, true
	}
	return waiting, nil
}

// waitsForRoom reports whether the stream's file is where it was and only waits to be opened, because as many are open as may be: a
// search would look at all files of the folder.
func (l *lineage) waitsForRoom(s *stream) bool {
	if !l.r.crowded.Load() && !l.r.room.Load() {
		return false
	}
	fi, err := l.r.fs.stat(s.meta.File)
	return err == nil && idOf(fi) == s.inode() && fi.Size() >= s.pos
}

// restless says that it cannot be told whether the rest of s is there.
func (l *lineage) restless(s *stream) {
	if s.told {
		return
	}
	s.told = true
	l.r.env.Log.Warn("the rest of a file is not found and its folder does not come to rest: younger files are read meanwhile",
		"path", s.meta.File, "offset", s.pos, "for", l.r.in.rest)
	if l.r.env.Once {
		l.r.env.Fail(s.meta.File, fmt.Errorf("searching %s after byte %d: %w", s.meta.File, s.pos, errRestless))
	}
}

// finding is what a search came to.
type finding int

const (
	missing  finding = iota // it is nowhere
	hasRest                 // it is read on
	unsure                  // not every file could be looked at
	restless                // files were renamed meanwhile, or, in once mode, written
)

// search looks for the rest of s in all siblings. In once mode there is no later search: it looks until the folder rests.
func (l *lineage) search(ctx context.Context, s *stream, now time.Time) (finding, error) {
	begun := time.Now()
	for pause := restPause; ; pause = min(2*pause, restPauseMax) {
		was, err := l.searchOnce(ctx, s, now)
		if err != nil || was != restless || !l.r.env.Once || time.Since(begun) >= l.r.in.rest {
			return was, err
		}
		if !sleep(ctx, pause) {
			return unsure, ctx.Err()
		}
	}
}

func (l *lineage) searchOnce(ctx context.Context, s *stream, now time.Time) (finding, error) {
	sure, rested, growing := true, true, false
	for _, f := range l.files {
		if f.s == nil && !f.parked && f.rotated && f.st.size > 0 {
			sure = false // not known so far: it may be what is searched
		}
	}
	id := fileID{s.meta.Dev, s.meta.Ino}
	before, err := l.r.fs.survey(l.key, id, s.meta.Target)
	if err != nil {
		l.r.fail(filepath.Dir(l.key), err)
		return unsure, nil
	}
	// Rotation may have given it a name that is not known. What the patterns match is not searched: the scan says whose it is.
	for _, at := range before.spots() {
		path := at.path
		if lineageOf(path) != l.key && l.r.matches(path) {
			continue
		}
		o, err := l.r.fs.open(path)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				rested = false
			} else {
				sure = false
				l.r.fail(path, err)
			}
			continue
		}
		fi, err := o.Stat()
		if err != nil {
			_ = o.Close()
			sure = false
			continue
		}
		old := l.byID[idOf(fi)]
		if old != nil && (!old.parked || old.s != nil && old.s != s) || !fi.Mode().IsRegular() {
			_ = o.Close()
			if old != nil && old.parked && stampOf(fi) != old.st {
				sure = false // the inode may be another file's by now: when a scan has seen it, its content tells
			}
			continue
		}
		if path == l.key { // a live file that is not open: it will be, and then it is asked whose it is
			_ = o.Close()
			sure = false
			continue
		}
		l.r.ok(path)
		h := newHandle(o)
		c := open(h, compressed(o, path))
		m, err := s.matches(ctx, c, s.pos, s.sum, &l.w.x)
		if m == holds && err == nil {
			var is bool
			if is, err = l.another(ctx, s, c); is || err != nil {
				m = differs
			}
		}
		if ctx.Err() != nil {
			c.close()
			return unsure, ctx.Err()
		}
		if err != nil {
			l.r.fail(path, err)
			sure = false
		}
		if age, wait := now.Sub(fi.ModTime()), l.r.cfg.growWait(c); m == tooShort && s.mayGrow(c) && age < wait && age > -wait {
			growing = true // it may be a copy that is being written
		}
		if m != holds {
			c.close()
			continue
		}
		f := old
		if f == nil {
			f = &file{id: idOf(fi), path: path, present: true, rotated: true, seen: now}
			l.byID[f.id] = f
			l.files = append(l.files, f)
			l.setHave(f.id, true)
		}
		if l.r.held.Load() >= l.r.maxHeld {
			l.r.crowd(errCrowded) // it is held all the same: it is to be read now, and then it is let go
		}
		l.hold(f, h, c)
		f.static, f.parked, f.copyOf = f.gz, false, nil
		f.st = stampOf(fi)
		f.listed, f.grew = f.st, earlier(fi.ModTime(), now)
		l.adopt(s, f)
		l.order()
		return hasRest, nil
	}
	after, err := l.r.fs.survey(l.key, id, s.meta.Target)
	if err != nil {
		l.r.fail(filepath.Dir(l.key), err)
		return unsure, nil
	}
	_, need := s.head()
	switch {
	case !sure || growing && !l.r.env.Once:
		return unsure, nil
	case growing || !rested || !before.agrees(after, l.key, max(s.pos, int64(need))):
		return restless, nil
	}
	return missing, nil
}

// mayGrow reports whether content that ends before the position may be a copy of the stream that is still being written.
func (s *stream) mayGrow(c content) bool {
	_, packed := c.(*unpacked)
	return packed || !s.emptied
}

// lose gives up the search: what is known to have been there and not read is counted.
func (l *lineage) lose(ctx context.Context, s *stream) error {
	if !s.named {
		// Outputs that are behind the others learn in this way that there is nothing for them any more.
		if err := l.declare(ctx, s); err != nil {
			return err
		}
	}
	s.lost, s.drained = true, true
	n := max(0, s.meta.End-s.pos)
	switch {
	case !s.opened: // this run never had it: nobody saw its end
		l.r.env.Log.Error("file vanished, what was appended after the offset is unknown",
			"path", s.meta.File, "offset", s.pos, "known_bytes", n)
		l.r.env.Count("lost_files", "gone", 1)
	case n > 0:
		l.r.env.Log.Error("part of a file is lost: it was removed or overwritten before it was read",
			"path", s.meta.File, "from", s.pos, "to", s.meta.End, "bytes", n)
	}
	if n > 0 {
		l.r.env.Count("lost_bytes", "gone", n)
	}
	s.meta.End = s.pos // said once
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
	if s.settled = s.opened && s.pos >= s.meta.End; s.settled {
		l.update(s)
	}
	s.file, s.emptied, s.searches, s.searched = nil, true, 0, time.Time{}
	f.s, f.was = nil, s
	f.started, f.ended, f.proved, f.idle, f.static, f.reported = false, false, false, false, f.gz, false
	f.grew = time.Now()
	l.active = true
}
