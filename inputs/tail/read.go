package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins/event"
)

func (l *lineage) fail(f *file, err error, now time.Time) {
	f.backoff = min(max(2*f.backoff, l.r.cfg.Sweep), maxBackoff)
	f.retry = now.Add(f.backoff)
	l.active = true
	if f.fault == nil || f.fault.Error() != err.Error() {
		l.r.env.Log.Warn("file cannot be read", "path", f.path, "error", err)
		l.r.env.Fail(f.path, err)
	}
	if errors.Is(err, errDamaged) && !f.damaged {
		f.damaged = true
		l.r.env.Count("damaged_files", "gzip", 1)
	}
	if errors.Is(err, errEncoding) && !errors.Is(f.fault, errEncoding) {
		l.r.env.Count("refused_files", "encoding", 1)
	}
	if f.fault == nil {
		f.seen = now
	}
	f.fault = err
}

// errEncoding says that a file is in an encoding that is not read.
var errEncoding = errors.New("encoding is not supported")

// encodingOf names the encoding of content that is refused, "" for any other.
func encodingOf(ctx context.Context, c content, x *scratch) (string, error) {
	n, err := c.readAt(ctx, x.proof[:proof], 0)
	if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
		err = nil
	}
	return lines.UTF16(x.proof[:n]), err
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
	if f.gz && !progress { // others may read now
		l.w.freeGzip(f)
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
	end, known := int64(math.MaxInt64), s.meta.End
	rewritten := func() (bool, error, error) {
		s.meta.End = known // what was seen now is of other content
		l.rewritten(f)
		return true, nil, nil
	}
	if !f.gz {
		end = st.size
		if end < s.pos {
			return rewritten()
		}
		s.meta.End = end
	}
	if f.rotated {
		l.active = true
	}
	if quiet && !closed && !l.due(f, now) {
		l.active = l.active || s.pending > s.pos
		return false, nil, nil
	}
	if fi.ModTime().Sub(s.fileAt) >= parserAge { // of parked ones it is not known
		if err := l.prime(ctx, f, fi.ModTime()); err != nil {
			return false, err, nil
		}
	}
	if end == s.pos {
		_, same, err := s.unchanged(ctx, f.c, &l.w.x)
		if err != nil {
			return false, err, nil
		}
		if !same {
			return rewritten()
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
		case fault == nil && o == atEnd && l.due(f, now):
			return l.closePending(ctx, f)
		case fault == nil && o != changed && live.upto-s.pos < event.MaxBatchBytes:
			l.active = l.active || s.pending > s.pos
			return o == stepped, nil, nil
		}
		// The library lost its way, or the file changed: the block reader finds out.
		l.r.env.Log.Info("engine native takes over", "path", f.path, "offset", s.pos)
		l.stopLive(f)
		f.mistrust = true
	}
	b, o, fault := s.step(ctx, l.r.env.Pool, f.c, end, closed, &l.w.x)
	if errors.Is(fault, errCut) {
		return l.cutShort(ctx, f, now)
	}
	switch {
	case ctx.Err() != nil && fault != nil:
		return false, nil, ctx.Err()
	case fault != nil:
		return false, fault, nil
	case o == changed:
		return rewritten()
	case o == atEnd && l.due(f, now):
		return l.closePending(ctx, f)
	case o == atEnd:
		l.ended(f, fi, now, closed)
		return false, nil, nil
	case b == nil:
		return true, nil, nil
	}
	return true, nil, l.send(ctx, s, b)
}

// due reports that the open record at the end of f is complete, although nothing shows it: the file has not grown for long enough.
func (l *lineage) due(f *file, now time.Time) bool {
	s := f.s
	if s.pending <= s.pos {
		return false
	}
	wait := l.r.cfg.Multiline.Timeout
	switch {
	case l.r.env.Once:
		return true
	case f.rotated:
		return now.Sub(f.grew) >= min(wait, orderWait, l.r.cfg.Grace) || f.left()
	}
	return now.Sub(f.grew) >= wait && l.roomForQuiet(s)
}

// maxQuiets is how many places the checkpoint keeps at which records were closed by time: beyond it the next line is waited for.
const maxQuiets = 1024

// roomForQuiet forgets places that every output is past, once there are many, and reports whether there is room for another.
func (l *lineage) roomForQuiet(s *stream) bool {
	if n := len(s.meta.Quiets); n == 0 || n%64 != 0 {
		return true
	}
	for _, k := range l.r.env.Streams.Known() {
		if k.Name == s.name {
			s.meta.Quiets = slices.DeleteFunc(s.meta.Quiets, func(at int64) bool { return at <= k.Start.Seq })
		}
	}
	return len(s.meta.Quiets) < maxQuiets
}

// closePending sends the open record at the end of f.
func (l *lineage) closePending(ctx context.Context, f *file) (progress bool, fault, err error) {
	s := f.s
	how := lines.Quiet
	if f.rotated {
		how = lines.Closed // what ends it stands in the file, so its length is not in its id
	}
	b, o, fault := s.closePending(ctx, l.r.env.Pool, f.c, how, &l.w.x)
	switch {
	case ctx.Err() != nil && fault != nil:
		return false, nil, ctx.Err()
	case fault != nil:
		return false, fault, nil
	case o == changed:
		l.rewritten(f)
		return true, nil, nil
	case b == nil:
		return o == stepped, nil, nil
	}
	return true, nil, l.send(ctx, s, b)
}

// cutShort deals with the end of compressed content that is cut short: it is being written, or damaged.
func (l *lineage) cutShort(ctx context.Context, f *file, now time.Time) (bool, error, error) {
	if f.pausing.IsZero() {
		f.pausing = now
	}
	l.active = true
	if f.backoff == 0 {
		l.r.env.Log.Info("compressed file ends in the middle: waiting for its rest if it is being written", "path", f.path, "offset", f.s.pos)
	}
	if l.r.env.Once {
		if age := time.Since(time.Unix(0, f.st.mtime)); age < l.r.cfg.Grace && age > -l.r.cfg.Grace {
			// It is being written, and there is no later sweep.
			f.backoff = min(max(2*f.backoff, restPause), restPauseMax)
			l.w.freeGzip(f)
			return sleep(ctx, f.backoff), nil, nil
		}
	} else if now.Sub(f.pausing) < l.r.cfg.Grace && now.Sub(f.grew) < l.r.cfg.Grace {
		// Decompressing again from the beginning at each step of its growth would be dear.
		f.backoff = min(max(2*f.backoff, l.r.cfg.Sweep), maxBackoff)
		f.retry = now.Add(f.backoff)
		l.w.freeGzip(f)
		return false, nil, nil
	}
	if f.s.pending > f.s.pos {
		return l.closePending(ctx, f)
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
	places := &s.meta.Cuts
	if s.quiet {
		places = &s.meta.Quiets
	}
	if (s.cutEnd || s.quiet) && !slices.Contains(*places, s.pos) {
		// The agent has to know of it before any cursor stands behind it.
		*places = append(*places, s.pos)
		l.update(s)
	}
	if s.drained || s.settled {
		s.drained, s.settled = false, false
		l.update(s)
	}
	s.passed()
	s.maker.Flush()
	return l.r.sink.Send(ctx, b)
}

// ended notes that nothing complete is left in f for now, and finishes it if nothing will follow.
func (l *lineage) ended(f *file, fi os.FileInfo, now time.Time, closed bool) {
	f.ended, f.idle = f.s.pending <= f.s.pos, true
	// A write within the same tick of the file system's clock could hide behind an equal stamp.
	f.proved = now.Sub(fi.ModTime()) > racy
	if !f.proved || !f.ended {
		l.active = true
	}
	s := f.s
	if closed && (f.rotated || l.r.env.Once && f.static) {
		l.finish(f)
		return
	}
	if f.rotated && !f.present && !f.gz && f.st.size == s.pos && !s.drained {
		// It was removed and is read to its end. It is still followed, but a restart will not find it, and need not.
		s.drained = true
		l.note(s)
		l.update(s)
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
	for _, o := range slices.Clone(l.files) {
		if o.parked && o.present && o.copyOf == s && !o.gz && o.st.size > s.pos {
			l.unpark(o, time.Now()) // it has more: now that can be read
			l.active = true
		}
	}
}

// declareNew has the agent know new streams, the oldest first, before their turn to be read comes: what the checkpoint knows tells
// a later run which rotated files are older than all that is followed. So nothing is declared before what is older than it.
func (l *lineage) declareNew(ctx context.Context, now time.Time) (declared bool, err error) {
	for _, f := range l.files {
		if f.s == nil && !l.passes(f, now) {
			break
		}
		if f.s == nil || f.s.stored {
			continue
		}
		if err := l.declare(ctx, f.s); err != nil {
			return declared, err
		}
		declared = true
	}
	return declared, nil
}

// declare declares the stream to the agent, which says where to read on.
func (l *lineage) declare(ctx context.Context, s *stream) error {
	p, err := l.r.env.Streams.Open(ctx, s.entry())
	if err != nil {
		return fmt.Errorf("opening stream of %s: %w", s.meta.File, err)
	}
	s.named, s.stored, s.saved = true, true, string(s.meta.encode())
	l.unmark()
	if p != s.position() {
		return s.moveTo(p)
	}
	return nil
}

// openStream declares the stream to the agent, which says where to read on. same is false when f does not hold it there.
func (l *lineage) openStream(ctx context.Context, f *file) (same bool, fault, err error) {
	s := f.s
	fi, err := f.h.f.Stat()
	if err != nil {
		return false, err, nil
	}
	if kind, fault := encodingOf(ctx, f.c, &l.w.x); fault != nil || kind != "" {
		if fault == nil {
			fault = fmt.Errorf("reading %s: %w: it is in %s; convert it, or have its program write UTF-8", f.path, errEncoding, kind)
		}
		return false, fault, nil
	}
	l.note(s)
	l.register(s)
	s.drained = false
	if s.named {
		l.update(s)
	} else if err := l.declare(ctx, s); err != nil {
		l.unregister(s)
		return false, nil, err
	}
	s.opened = true
	m, fault := s.matches(ctx, f.c, s.pos, s.sum, &l.w.x)
	if fault != nil {
		s.opened = false
		return false, fault, nil
	}
	if m != holds {
		return false, nil, nil
	}
	return true, l.prime(ctx, f, fi.ModTime()), nil
}

// prime has the parser of f's stream know what stands before the place to read from.
func (l *lineage) prime(ctx context.Context, f *file, mtime time.Time) error {
	if f.s.maker == nil {
		f.s.maker = l.r.newMaker()
	}
	return f.s.prime(ctx, f.c, mtime, &l.w.x)
}
