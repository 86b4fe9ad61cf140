package tail

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// headAt is the beginning of a file's content, kept as long as the file does not change.
type headAt struct {
	st   stamp
	head []byte // up to 1 KiB
}

// wanted reports whether a sibling that the patterns do not match has to be read: it holds a stream that is known, or lines that
// are younger than those of one. Where the files of known streams stand tells that by the names: what is older than all of them
// was there before the agent came and is left alone. Only where names do not tell, the time does: what was written after the
// agent saw the log first is not older than what is followed. spots are the paths at which known streams are; where these cannot be told
// because rotation goes on, the next scan decides.
func (l *lineage) wanted(e found, spots func() ([]string, bool), now time.Time) bool {
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
	if l.owes(e.id) {
		return true
	}
	was, judged := l.history[e.id]
	if judged && was == e.stamp || !l.r.matches(l.key) {
		return false
	}
	// A compressed file has the time of the original only when it is complete.
	if rotationOf(filepath.Base(e.path)).packed && !l.first && now.UnixNano()-e.stamp.mtime <= int64(l.r.cfg.Grace) {
		l.askScan()
		return false
	}
	young := e.stamp.mtime > l.since
	if !l.r.env.Window.IsZero() {
		return young // it is not about what is followed, but about a time
	}
	if young && l.marked && !judged {
		return true // it came since, and was written since, and before that there were no lines
	}
	paths, sure := spots()
	if !sure {
		l.askScan()
		return false
	}
	for _, at := range paths {
		if at == e.path {
			return true
		}
		if is, known := older(at, e.path); known && (lineageOf(at) == l.key || keptOf(at) == l.key) {
			if is {
				return true
			}
			young = false
		}
	}
	if !young {
		l.history[e.id] = e.stamp
	}
	return young
}

// spots finds the paths at which files of known streams are now; sure is false when one of the files is not where the scan saw it. An
// inode alone does not say so: a file may have been truncated, or be another one by now. Neither does a first line that several files
// begin with.
func (l *lineage) spots(entries []found) (paths []string, sure bool) {
	at, there := make(map[fileID]found, len(entries)), make(map[string]bool, len(entries))
	for _, e := range entries {
		at[e.id], there[e.path] = e, true
	}
	for _, s := range l.streams {
		if s.meta.Pipe {
			continue
		}
		id := s.inode()
		if s.file != nil {
			id = s.file.id
		}
		if e, ok := at[id]; ok {
			stands, sure := l.stands(s, e)
			if !sure {
				return nil, false
			}
			if stands {
				paths = append(paths, e.path)
				continue
			}
		}
		var alike []found
		for _, e := range entries {
			if ext := filepath.Ext(e.path); rotationOf(filepath.Base(e.path)).packed && there[strings.TrimSuffix(e.path, ext)] {
				continue // it is being compressed: the original tells
			}
			begins, sure := l.begins(s, e)
			if !sure {
				return nil, false
			}
			if begins {
				alike = append(alike, e)
			}
		}
		if len(alike) > 1 {
			alike = slices.DeleteFunc(alike, func(e found) bool { return !l.holdsAll(s, e) })
		}
		if len(alike) == 1 {
			paths = append(paths, alike[0].path)
		}
	}
	return paths, true
}

// openSeen opens a file that a scan saw. moved says that it is not there any more, or that another one is.
func (l *lineage) openSeen(e found) (o *os.File, moved bool) {
	o, err := l.r.fs.open(e.path)
	if err != nil {
		return nil, errors.Is(err, os.ErrNotExist)
	}
	fi, err := o.Stat()
	if err == nil && idOf(fi) == e.id {
		return o, false
	}
	_ = o.Close() // only looked at
	return nil, err == nil
}

// stands reports whether a file with the inode of a stream holds it.
func (l *lineage) stands(s *stream, e found) (stands, sure bool) {
	if e.stamp == (stamp{s.meta.Size, s.meta.Time}) {
		return true, true
	}
	o, moved := l.openSeen(e)
	if o == nil {
		return false, !moved
	}
	if compressed(o, e.path) { // decompressing all of it to find out would be dear
		_ = o.Close()
		return l.begins(s, e)
	}
	c := open(newHandle(o), false)
	defer c.close()
	m, err := s.matches(context.Background(), c, s.pos, s.sum, &l.w.x)
	return err == nil && m == holds, true
}

// holdsAll reports whether a file holds all that was read of a stream.
func (l *lineage) holdsAll(s *stream, e found) bool {
	o, _ := l.openSeen(e)
	if o == nil {
		return false
	}
	c := open(newHandle(o), compressed(o, e.path))
	defer c.close()
	m, err := s.matches(context.Background(), c, s.pos, s.sum, &l.w.x)
	return err == nil && m == holds
}

// begins reports whether a file begins as a stream does.
func (l *lineage) begins(s *stream, e found) (begins, sure bool) {
	h, ok := l.heads[e.id]
	if !ok || h.st != e.stamp {
		o, moved := l.openSeen(e)
		if o == nil {
			return false, !moved
		}
		c := open(newHandle(o), compressed(o, e.path))
		n, _ := c.readAt(context.Background(), l.w.x.block()[:proof], 0)
		c.close()
		h = headAt{e.stamp, append([]byte(nil), l.w.x.block()[:n]...)}
		l.heads[e.id] = h
	}
	return s.begins(h.head), true
}

// forgetSights forgets what was noted about files that are not there any more: their inodes may become others'.
func (l *lineage) forgetSights(entries []found) {
	there := make(map[fileID]bool, len(entries))
	for _, e := range entries {
		there[e.id] = true
	}
	maps.DeleteFunc(l.history, func(id fileID, _ stamp) bool { return !there[id] })
	maps.DeleteFunc(l.heads, func(id fileID, _ headAt) bool { return !there[id] })
}
