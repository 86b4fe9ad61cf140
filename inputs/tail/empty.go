package tail

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
)

// markTwin keeps the name of a mark apart from those of streams that begin with an empty line.
const markTwin = math.MaxInt32

// markEmpty has the checkpoint know of a log of which no line was seen so far that it is followed: a later run then reads what rotation
// made of it meanwhile. A mark is a stream without content, and as such no search and no proof concerns it.
func (l *lineage) markEmpty(ctx context.Context) error {
	if l.mark != nil || len(l.streams) > 0 || !l.r.env.Window.IsZero() {
		return nil
	}
	i := slices.IndexFunc(l.files, func(f *file) bool { return f.s == nil && f.present && !f.rotated && !f.gz && f.fault == nil })
	if i < 0 {
		return nil
	}
	m := meta{Version: metaVersion, Path: l.key, File: l.files[i].path, Boot: l.r.boot, Since: l.since, Empty: true}
	s := newStream(streamName(l.r.env.NodeID, l.key, nil, markTwin), l.key, m)
	s.drained, s.stored = true, true
	if _, err := l.r.env.Streams.Open(ctx, s.entry()); err != nil {
		return fmt.Errorf("noting that %s is followed: %w", l.key, err)
	}
	l.mark = s
	return nil
}

// unmark forgets the mark: there is a stream now that says the same.
func (l *lineage) unmark() {
	if l.mark != nil {
		l.r.env.Streams.Forget(l.mark.name)
		l.mark, l.marked = nil, true
	}
}

// ageMark forgets the mark of a log that is long gone.
func (l *lineage) ageMark(now time.Time) {
	switch {
	case l.mark == nil:
	case len(l.files)+len(l.siblings) > 0:
		l.mark.meta.Gone = 0
	case l.longGone(l.mark, now):
		l.unmark()
	}
}

// longGone notes that the stream's file is not there, and reports whether that is so for long.
func (l *lineage) longGone(s *stream, now time.Time) bool {
	if s.meta.Gone == 0 {
		s.meta.Gone = now.Unix()
		l.update(s)
		return false
	}
	return now.Sub(time.Unix(s.meta.Gone, 0)) >= goneAfter
}

// mark takes a mark from the checkpoint.
func (r *run) mark(k plugins.Stream, m meta) {
	s := newStream(k.Name, k.Lane, m)
	s.drained, s.stored, s.saved = true, true, string(k.Meta)
	r.marks[m.Path] = s
}
