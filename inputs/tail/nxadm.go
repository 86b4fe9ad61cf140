package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nxadm/tail"
	"github.com/nxadm/tail/watch"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// This file is the only one that knows the library nxadm/tail, which follows named pipes, and live ends of files if the user
// wants it. It is used in the one form that was proven to lose nothing: one Tail for each open descriptor, on the
// descriptor's own path under /proc/self/fd, which renames and removals do not touch; polling, so that there is no watcher
// shared by the process and no exit of the process on a failing stat of a path; no reopening; complete lines only. And nothing
// that it says counts unless the file itself says the same.

const (
	livePoll  = 20 * time.Millisecond
	liveQueue = 256
	// liveStall is how long the library may take to bring a line before the block reader takes over.
	liveStall = 2 * time.Second
	// liveLag is how far behind a file may be to be read by the library: catching up is the block reader's.
	liveLag = 1 << 20
)

// setPoll sets the library's one poll interval before its first use.
var setPoll = sync.OnceFunc(func() { watch.POLL_DURATION = livePoll })

// engine delivers the lines of one descriptor.
type engine struct {
	t     *tail.Tail
	h     *handle
	lines chan string
	done  chan struct{} // closed when all goroutines have ended
	quit  chan struct{}
	once  sync.Once
}

// startEngine follows what h has open from offset at; woken is called after each line.
func startEngine(h *handle, at int64, pipe bool, woken func()) (*engine, error) {
	setPoll()
	if !h.retain() {
		return nil, os.ErrClosed
	}
	c := tail.Config{Follow: true, Poll: true, CompleteLines: true, Pipe: pipe, Logger: tail.DiscardingLogger}
	if !pipe {
		c.Location = &tail.SeekInfo{Offset: at, Whence: io.SeekStart}
	}
	t, err := tail.TailFile(fmt.Sprintf("/proc/self/fd/%d", h.f.Fd()), c)
	if err != nil {
		h.release()
		return nil, err
	}
	e := &engine{t: t, h: h, lines: make(chan string, liveQueue), done: make(chan struct{}), quit: make(chan struct{})}
	go func() {
		defer close(e.done)
		defer h.release()
		e.forward(woken)
		<-t.Dead()
		// Its poller may still look at the path once: the descriptor stays open until it has.
		timer := time.NewTimer(3 * livePoll)
		defer timer.Stop()
		<-timer.C
	}()
	return e, nil
}

func (e *engine) forward(woken func()) {
	defer woken()
	defer close(e.lines)
	for {
		select {
		case l, ok := <-e.t.Lines:
			if !ok {
				return
			}
			select {
			case e.lines <- l.Text:
				woken()
			case <-e.quit:
				return
			}
		case <-e.quit:
			return
		}
	}
}

// stop ends the engine without waiting for it: done is closed when nothing is left of it.
func (e *engine) stop() {
	e.once.Do(func() {
		e.t.Kill(nil)
		close(e.quit)
	})
}

// liveTail is the engine of one file.
type liveTail struct {
	e     *engine
	upto  int64     // what the library said agrees with the file up to here
	since time.Time // when there was something to read first that the library did not bring
}

// liveFor returns the engine that is to read f now, nil if that is the block reader.
func (l *lineage) liveFor(f *file, st stamp) *liveTail {
	if l.r.cfg.Engine != "nxadm" || f.gz || f.rotated || f.mistrust || l.r.env.Once {
		l.stopLive(f)
		return nil
	}
	if f.live == nil && f.ended && st.size-f.s.pos < liveLag {
		e, err := startEngine(f.h, f.s.pos, false, func() { l.r.wake(l) })
		if err != nil {
			return nil
		}
		l.r.env.Log.Debug("engine nxadm follows file", "path", f.path, "offset", f.s.pos)
		f.live = &liveTail{e: e, upto: f.s.pos}
		l.r.wg.Go(func() {
			select {
			case <-e.done:
			case <-l.r.ctx.Done():
			}
			e.stop()
			<-e.done
		})
	}
	return f.live
}

func (l *lineage) stopLive(f *file) {
	if f.live != nil {
		f.live.e.stop()
		f.live = nil
	}
}

// next makes a batch of what the library brought. atEnd without a batch means that it brought nothing; changed that it is not
// to be trusted with this file any more.
func (v *liveTail) next(ctx context.Context, l *lineage, f *file, now time.Time) (*event.Batch, outcome, error) {
	s := f.s
	for v.upto-s.pos < event.MaxBatchBytes {
		var line string
		ok, have := false, true
		select {
		case line, ok = <-v.e.lines:
		default:
			have = false
		}
		if !have {
			break
		}
		if !ok || !agrees(ctx, f.c, v.upto, line, l.w.x.block()) {
			return nil, changed, nil
		}
		v.upto += int64(len(line)) + 1
		v.since = time.Time{}
	}
	if v.upto == s.pos {
		if v.since.IsZero() {
			v.since = now
		}
		if now.Sub(v.since) > liveStall && l.completeLine(ctx, f) {
			return nil, changed, nil
		}
		l.active = true
		return nil, atEnd, nil
	}
	return s.step(ctx, l.r.env.Pool, f.c, v.upto, false, &l.w.x)
}

// agrees reports whether the file holds that line with its newline at off.
func agrees(ctx context.Context, c content, off int64, line string, buf []byte) bool {
	for len(line) > 0 {
		n := min(len(line), len(buf))
		if got, _ := c.readAt(ctx, buf[:n], off); got < n || string(buf[:n]) != line[:n] {
			return false
		}
		line, off = line[n:], off+int64(n)
	}
	got, _ := c.readAt(ctx, buf[:1], off)
	return got == 1 && buf[0] == '\n'
}

// completeLine reports whether a newline stands within the next block: only then the library is late.
func (l *lineage) completeLine(ctx context.Context, f *file) bool {
	buf := l.w.x.block()
	n, _ := f.c.readAt(ctx, buf, f.s.pos)
	return n == len(buf) || bytes.IndexByte(buf[:n], '\n') >= 0
}

// pipe starts to follow a named pipe. The scanner calls it at each sight of one.
func (r *run) pipe(path string) {
	if r.pipes[path] {
		return
	}
	r.pipes[path] = true
	if r.env.Once {
		r.env.Log.Warn("named pipe is left alone: it has no end to read to", "path", path)
		return
	}
	var s *stream
	if known := r.known["pipe:"+path]; len(known) > 0 {
		s = known[0]
	} else {
		s = newStream(streamName(r.env.NodeID, path, []byte("named pipe"), 0), path, meta{Version: metaVersion, Path: path, File: path, Pipe: true})
	}
	r.wg.Go(func() {
		for backoff := r.cfg.Sweep; r.ctx.Err() == nil; backoff = min(2*backoff, maxBackoff) {
			err, fatal := r.followPipe(r.ctx, path, s)
			if r.ctx.Err() != nil {
				return
			}
			if fatal {
				r.stop(err)
				return
			}
			r.fail(path, err)
			timer := time.NewTimer(backoff)
			select {
			case <-timer.C:
			case <-r.ctx.Done():
			}
			timer.Stop()
		}
	})
}

// followPipe reads a named pipe until the run ends or it fails. fatal says that the error is the pipeline's, not the pipe's.
func (r *run) followPipe(ctx context.Context, path string, s *stream) (fault error, fatal bool) {
	// Reading and writing: there is always a writer then, so that the pipe never ends and opening it never waits.
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%w (a named pipe is opened for reading and writing, so that it does not end with its writers)", err), false
	}
	h := newHandle(f)
	defer h.release()
	if s.maker == nil {
		s.maker = r.newMaker()
		s.maker.File(path, path, time.Now())
	}
	if !s.opened {
		p, err := r.env.Streams.Open(ctx, s.entry())
		if err != nil {
			return fmt.Errorf("opening stream of %s: %w", path, err), true
		}
		s.pos, s.opened = p.Seq, true
	}
	e, err := startEngine(h, 0, true, func() {})
	if err != nil {
		return err, false
	}
	defer func() {
		e.stop()
		// Its reader waits for a byte: give it one, which nobody reads any more.
		_, _ = f.Write([]byte{'\n'})
		<-e.done
	}()
	r.ok(path)
	for {
		select {
		case <-ctx.Done():
			return nil, false
		case line, ok := <-e.lines:
			if !ok {
				return fmt.Errorf("following %s: %w", path, errors.Join(e.t.Err(), io.ErrUnexpectedEOF)), false
			}
			if err := r.sendPiped(ctx, s, line, e.lines); err != nil {
				return err, true
			}
		}
	}
}

// sendPiped sends a line and what else is there already.
func (r *run) sendPiped(ctx context.Context, s *stream, line string, more <-chan string) error {
	ready := []string{line}
	size := len(line) + 1
	for have := true; have && len(ready) < event.MaxBatchRecords && size < event.MaxBatchBytes; {
		select {
		case l, ok := <-more:
			if have = ok; ok {
				ready = append(ready, l)
				size += len(l) + 1
			}
		default:
			have = false
		}
	}
	b, err := r.env.Pool.Get(ctx, size)
	if err != nil {
		return err
	}
	b.Stream, b.ReadAt = s.name, time.Now()
	block := b.Arena().Block(size)[:0]
	for _, l := range ready {
		block = append(append(block, l...), '\n')
	}
	from := s.position()
	s.maker.Fill(b, block, s.pos, len(ready), false)
	s.pos += int64(size)
	b.Span = event.Span{From: from, To: s.position()}
	s.maker.Flush()
	return r.sink.Send(ctx, b)
}
