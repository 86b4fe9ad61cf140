// Package tail is the input that follows log files through every rotation, without losing a line and without reading one
// twice.
//
// Every rotation is followed: renaming (create), copying and cutting (copytruncate), compressing with gzip or zstd at once or later,
// renaming by the program itself, removal, a folder that is replaced. A rotated or removed file is read to its end through its open
// descriptor, and what a rotation moved on while the agent was down or behind is found by its content, also compressed. Order is kept:
// a file waits for the one that it succeeds.
//
// What no reader can see: with copytruncate, lines that are written after the copy was read to its end and before the file is cut
// stand in no file afterwards. logrotate leaves a few milliseconds for that: none of 1,492 lines was lost in 3 rotations at 24 lines/s,
// 438 of 55,233 in 40 rotations at 2,300 lines/s. What the agent had read already is not lost, and what it had seen but not read is
// counted (stacktrail_input_lost_bytes_total) and named in the log with its range; the rest nobody can count. Use create with a
// program that opens its file again, where that matters.
//
// A log that is removed, rather than rotated, within a checkpoint's interval before the agent is killed may be repeated by a file output
// at the next start, with what other logs gave in that time: what cannot be read again must not be cut off. The same goes for a start after a
// kill while the logs' folder is not there or cannot be looked into. The log says so.
//
// Where rotation puts its number or day before the extension (logrotate's extension), or moves files to another folder (olddir), that is
// followed, too. What it moves to another folder while the agent is down is found if paths match it there: with olddir, add that folder to
// paths.
//
// A file that is made and removed before it could be opened is counted, too (lost_files). In a folder that was made just before, nobody
// can see it: the system tells of what happens in a folder only once it is asked to, some milliseconds after the folder came.
//
// A line that has no newline when its file is rotated waits for its rest until the file is done with, and comes behind lines of the next
// file then. Files whose names tell no order, as those of multilog and cronolog, are logs of their own: none of them waits for another, and
// a last line without a newline is waited for. If more rotations pass than are kept, what came and went unseen is lost: an agent that was
// stopped meanwhile says so, one that was frozen cannot know.
//
// On network file systems, and where the system refuses to tell of changes (inotify limits), files are looked at every sweep instead. At
// most 4,096 files are held open, or three quarters of the process's limit if that is less: of more, those that are read to their ends
// are closed until they change.
//
// For developers: a stream is a log file's content, wherever it lies. Its name comes from its first line, and what proves a place in it
// is the content before that place; device, inode and path only find it again (content.go, stream.go). Files whose names differ only in
// what rotation appends form a lineage, which one goroutine at a time takes care of: it finds out what a file holds, in what order
// files are read, and when one is done (lineage.go, siblings.go, identify.go, orphans.go, read.go). What names say stands in names.go,
// when a search in vain proves that content is gone in survey.go, how descriptors are shared out in room.go. A scanner finds files
// (scan.go), the system tells of changes (watch.go), and what was gone too soon is counted (missed.go). Named pipes, and files if the
// user wants it, are read by another engine (nxadm.go).
package tail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Spec describes the input to the agent.
var Spec = plugins.InputSpec("tail", "Follow log files through every rotation.", Defaults(), New).Safe()

// New builds the input. The Replayer that the agent uses is the same value.
func New(c Config, env plugins.Env) (plugins.Input, error) {
	if !env.Window.IsZero() {
		c.Start = "beginning" // the window says which records are meant
	}
	in := &input{cfg: c, env: env, fs: realSystem(), rest: restLimit, maxHeld: maxHeld(), open: map[string]shared{}}
	for _, p := range c.Paths {
		in.paths = append(in.paths, filepath.Clean(p))
	}
	if err := in.cfg.Prepare(); err != nil {
		return nil, err
	}
	var err error
	if in.maker, err = lines.New(in.cfg.Config, lines.Options{}); err != nil {
		return nil, err
	}
	return in, nil
}

var _ plugins.Measurer = (*input)(nil)

type input struct {
	cfg   Config
	maker *lines.Maker // of which those of the streams are made
	env   plugins.Env
	fs    system
	paths []string // cleaned
	rest  time.Duration
	// maxHeld is how many files may be held open.
	maxHeld int64

	mu   sync.Mutex // guards open
	open map[string]shared
}

// shared is an open file that replays may use.
type shared struct {
	h    *handle
	gz   bool
	path string
}

// Sources says how long the files are that are open.
func (in *input) Sources() []plugins.Source {
	in.mu.Lock()
	all, files := make([]plugins.Source, 0, len(in.open)), make([]*handle, 0, len(in.open))
	for name, f := range in.open {
		s := plugins.Source{Stream: name, Name: f.path, Size: -1}
		var h *handle
		if !f.gz && f.h.retain() {
			h = f.h
		}
		all, files = append(all, s), append(files, h)
	}
	in.mu.Unlock()
	for i, h := range files {
		if h == nil {
			continue
		}
		if st, err := h.f.Stat(); err == nil {
			all[i].Size, all[i].Written = st.Size(), st.ModTime()
		}
		h.release()
	}
	return all
}

func (in *input) register(name string, f *file) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open[name] = shared{f.h, f.gz, f.path}
}

func (in *input) unregister(name string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.open, name)
}

func (in *input) newMaker(count func(name, reason string, n int64), since time.Time) *lines.Maker {
	w := in.env.Window
	if w.Since.After(since) {
		since = w.Since
	}
	return in.maker.Fresh(lines.Options{Count: count, Positions: in.cfg.Position, NotBefore: since, NotAfter: w.Until})
}

// CanReplay searches the stream's file.
func (in *input) CanReplay(ctx context.Context, k plugins.Stream, from event.Position) error {
	if m, err := decodeMeta(k.Meta); err == nil && m.Empty {
		return nil
	}
	s, c, err := in.locate(ctx, k, from, event.Position{}, &scratch{})
	if err != nil {
		return err
	}
	_ = s
	c.close()
	return nil
}

// Replay reads a part of a stream again.
func (in *input) Replay(ctx context.Context, k plugins.Stream, from, to event.Position, sink plugins.Sink) error {
	if to.Seq <= from.Seq {
		return nil
	}
	x := &scratch{}
	s, c, err := in.locate(ctx, k, from, to, x)
	if err != nil {
		return err
	}
	defer func() {
		if c != nil {
			c.close()
		}
	}()
	since, err := in.cfg.notBefore()
	if err != nil {
		return err
	}
	// What is read again was counted when it was read first.
	s.maker = in.newMaker(nil, since)
	if err := s.prime(ctx, c, s.fileAt, x); err != nil {
		return fmt.Errorf("replaying %s: %w", s.meta.File, err)
	}
	s.maker.StopAt(to.Seq) // how a record ends shows in what follows it
	for s.pos < to.Seq {
		b, o, err := s.step(ctx, in.env.Pool, c, math.MaxInt64, true, x)
		switch {
		case err != nil:
			return fmt.Errorf("replaying %s: %w", s.meta.File, err)
		case o == changed || o == atEnd:
			// It was rewritten while it was read: what is missing may live on in a copy.
			c.close()
			maker, at := s.maker, s.position()
			if s, c, err = in.locate(ctx, k, at, to, x); err != nil {
				return err
			}
			s.maker = maker
			continue
		case b == nil:
			continue
		}
		s.maker.Discard()
		if err := sink.Send(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// locate finds content that holds the stream at from, and at to if that is set. The caller closes it.
func (in *input) locate(ctx context.Context, k plugins.Stream, from, to event.Position, x *scratch) (*stream, content, error) {
	m, err := decodeMeta(k.Meta)
	if err != nil {
		return nil, nil, err
	}
	if m.Pipe {
		return nil, nil, fmt.Errorf("reading %s again: a named pipe gives each line once", m.Path)
	}
	s := newStream(k.Name, k.Lane, m)
	if err := s.moveTo(from); err != nil {
		return nil, nil, err
	}
	toSum := uint64(0)
	if to.Seq > 0 {
		if toSum, err = parseToken(to.Token); err != nil {
			return nil, nil, err
		}
	}
	proves := func(c content) (verdict, error) {
		r, err := s.matches(ctx, c, s.pos, s.sum, x)
		if err != nil || r != holds || to.Seq == 0 {
			return r, err
		}
		sum, ok, err := sumBefore(ctx, c, to.Seq, x.proof[:])
		switch {
		case err != nil:
			return differs, err
		case !ok:
			return tooShort, nil
		case sum != toSum:
			return differs, nil
		}
		return holds, nil
	}
	in.mu.Lock()
	o, ok := in.open[k.Name]
	ok = ok && o.h.retain()
	in.mu.Unlock()
	if ok {
		c := open(o.h, o.gz)
		if r, err := proves(c); err == nil && r == holds {
			if fi, err := o.h.f.Stat(); err == nil {
				s.fileAt = fi.ModTime()
			}
			return s, c, nil
		}
		c.close()
	}
	extra := ""
	if lineageOf(m.File) != m.Path {
		extra = m.File
	}
	_, need := s.head()
	h := &hunt{in: in, s: s, x: x, proves: proves, differ: map[fileID]stamp{}}
	if h.try(m.File); h.found != nil { // where it was seen last: with many files a look at all of them is dear
		return s, h.found, nil
	}
	begun, strayed := time.Now(), false
	for pause := restPause; ; pause = min(2*pause, restPauseMax) {
		before, err := in.fs.survey(m.Path, fileID{m.Dev, m.Ino}, extra, m.Target)
		if err != nil {
			return nil, nil, fmt.Errorf("searching %s: %w", m.Path, err)
		}
		h.look(before.spots())
		if h.found != nil {
			return s, h.found, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		after, err := in.fs.survey(m.Path, fileID{m.Dev, m.Ino}, extra, m.Target)
		if err != nil {
			return nil, nil, fmt.Errorf("searching %s: %w", m.Path, err)
		}
		rested := !h.unsettled && before.agrees(after, m.Path, max(s.pos, to.Seq, int64(need)))
		if rested && !strayed {
			strayed = true
			paths, err := in.strays(s)
			if err != nil { // not being able to look does not mean that it is gone
				return nil, nil, fmt.Errorf("searching the content of %s after byte %d in other folders: %w", m.Path, from.Seq, err)
			}
			for _, path := range paths {
				h.try(path)
			}
			if h.found != nil {
				return s, h.found, nil
			}
			rested = !h.unsettled
		}
		switch {
		case rested && len(h.faults) > 0 && h.there:
			return nil, nil, fmt.Errorf("searching the content of %s after byte %d: %w: %w", m.Path, from.Seq, errors.Join(h.faults...), plugins.ErrLater)
		case rested && len(h.faults) > 0:
			return nil, nil, fmt.Errorf("searching the content of %s after byte %d: %w", m.Path, from.Seq, errors.Join(h.faults...))
		case rested:
			return nil, nil, fmt.Errorf("searching the content of %s after byte %d: none of %d files holds it: %w",
				m.Path, from.Seq, len(after.siblings), plugins.ErrGone)
		case time.Since(begun) >= in.rest:
			return nil, nil, fmt.Errorf("searching the content of %s after byte %d: its folder did not come to rest for %v: %w",
				m.Path, from.Seq, in.rest, errors.Join(append(h.faults, errRestless)...))
		}
		if !sleep(ctx, pause) {
			return nil, nil, ctx.Err()
		}
	}
}

// strays finds the files that the patterns match in other folders and to which rotation may have moved the stream's.
func (in *input) strays(s *stream) (all []string, err error) {
	base := filepath.Base(s.meta.Path)
	for _, p := range in.paths {
		if filepath.Dir(p) == filepath.Dir(s.meta.Path) {
			continue
		}
		err := doublestar.GlobWalk(os.DirFS("/"), strings.TrimPrefix(p, "/"), func(path string, _ fs.DirEntry) error {
			path = "/" + path
			fi, err := in.fs.stat(path)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			r := rotationOf(filepath.Base(path))
			kin := idOf(fi) == s.inode() || r.rotated && r.stem == base || r.kept == base
			if kin && fi.Mode().IsRegular() && selects(p, path) && !in.cfg.excludes(path) {
				all = append(all, path)
			}
			return nil
		}, doublestar.WithFailOnIOErrors())
		if err != nil {
			return nil, fmt.Errorf("looking for files of %s: %w", p, err)
		}
	}
	return all, nil
}

// errRestless says that nothing is known because files were renamed or written all the time.
var errRestless = errors.New("files are renamed or written all the time")

// hunt is a search for content that holds a stream.
type hunt struct {
	in     *input
	s      *stream
	x      *scratch
	proves func(content) (verdict, error)
	differ map[fileID]stamp // files that hold something else, as they were when that was seen

	found     content
	faults    []error
	unsettled bool // a file could not be opened because it was renamed, or is being written
	there     bool // the stream's own file could not be opened, and is as long as it has to be
}

// look looks at files until it finds the content, in the file with the stream's inode if that holds it.
func (h *hunt) look(spots []spot) {
	h.faults, h.unsettled, h.there = nil, false, false
	for _, at := range spots {
		if st, ok := h.differ[at.id]; ok && st == at.st {
			continue
		}
		h.try(at.path)
	}
}

func (h *hunt) try(path string) {
	f, err := h.in.fs.open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			h.unsettled = true // it was there just before
		} else {
			h.faults = append(h.faults, err)
			fi, err := h.in.fs.stat(path)
			h.there = h.there || err == nil && idOf(fi) == h.s.inode() && fi.Size() >= h.s.pos
		}
		return
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		if err != nil {
			h.faults = append(h.faults, err)
		}
		_ = f.Close()
		return
	}
	mine := idOf(fi) == h.s.inode()
	if h.found != nil && !mine {
		_ = f.Close()
		return
	}
	c := open(newHandle(f), compressed(f, path))
	r, err := h.proves(c)
	now := time.Now()
	switch {
	case err != nil:
		h.faults = append(h.faults, fmt.Errorf("reading %s: %w", path, err))
	case r == tooShort:
		live := path == h.s.meta.Path // the file that programs write is never a copy that grows
		h.unsettled = h.unsettled || !live && h.in.cfg.unsettled(c, fi.ModTime(), now)
	case r == differs && now.Sub(fi.ModTime()) > racy:
		h.differ[idOf(fi)] = stampOf(fi)
	}
	if err != nil || r != holds {
		c.close()
		return
	}
	if h.found != nil {
		h.found.close()
	}
	h.found, h.s.meta.File, h.s.fileAt = c, path, fi.ModTime()
}
