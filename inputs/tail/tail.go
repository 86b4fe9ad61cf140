// Package tail is the input that follows log files through every rotation, without losing a line and without reading one
// twice.
//
// A stream is a log file's content, wherever it lies: its name comes from its first line, and what proves a place in it is the
// content before that place. Device, inode and path only find it again (content.go, stream.go). Files whose names differ only
// in what rotation appends form a lineage, which one goroutine at a time takes care of: it finds out what a file holds, in
// what order files are read, and when one is done (lineage.go, siblings.go, identify.go, orphans.go, read.go). What names say
// stands in names.go. A scanner finds files and keeps them open (scan.go). Named pipes, and files if the user wants it, are read
// by another engine (nxadm.go).
package tail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Spec describes the input to the agent.
var Spec = plugins.InputSpec("tail", "Follow log files through every rotation.", Defaults(), New).Safe()

// New builds the input. The Replayer that the agent uses is the same value.
func New(c Config, env plugins.Env) (plugins.Input, error) {
	in := &input{cfg: c, env: env, fs: realSystem(), open: map[string]shared{}}
	for _, p := range c.Paths {
		in.paths = append(in.paths, filepath.Clean(p))
	}
	if _, err := in.newMaker(nil, time.Time{}); err != nil {
		return nil, err
	}
	return in, nil
}

type input struct {
	cfg   Config
	env   plugins.Env
	fs    system
	paths []string // cleaned

	mu   sync.Mutex // guards open
	open map[string]shared
}

// shared is an open file that replays may use.
type shared struct {
	h  *handle
	gz bool
}

func (in *input) register(name string, f *file) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open[name] = shared{f.h, f.gz}
}

func (in *input) unregister(name string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.open, name)
}

func (in *input) newMaker(count func(name, reason string, n int64), since time.Time) (*lines.Maker, error) {
	return lines.New(in.cfg.Config, lines.Options{Count: count, Positions: in.cfg.Position, NotBefore: since})
}

// CanReplay searches the stream's file.
func (in *input) CanReplay(ctx context.Context, k plugins.Stream, from event.Position) error {
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
	if s.maker, err = in.newMaker(nil, since); err != nil {
		return err
	}
	if err := s.prime(ctx, c, s.fileAt, x); err != nil {
		return fmt.Errorf("replaying %s: %w", s.meta.File, err)
	}
	for s.pos < to.Seq {
		b, o, err := s.step(ctx, in.env.Pool, c, to.Seq, true, x)
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
	proves := func(c content) (bool, error) {
		r, err := s.matches(ctx, c, s.pos, s.sum, x)
		if err != nil || r != holds {
			return false, err
		}
		if to.Seq == 0 {
			return true, nil
		}
		sum, ok, err := sumBefore(ctx, c, to.Seq, x.proof[:])
		return ok && sum == toSum, err
	}
	in.mu.Lock()
	o, ok := in.open[k.Name]
	ok = ok && o.h.retain()
	in.mu.Unlock()
	if ok {
		c := open(o.h, o.gz)
		if same, err := proves(c); err == nil && same {
			if fi, err := o.h.f.Stat(); err == nil {
				s.fileAt = fi.ModTime()
			}
			return s, c, nil
		}
		c.close()
	}
	paths, err := in.fs.siblings(m.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("searching %s: %w", m.Path, err)
	}
	if m.File != "" && lineageOf(m.File) != m.Path {
		paths = append(paths, m.File)
	}
	var found content
	var faults []error
	try := func(path string) {
		f, err := in.fs.open(path)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				faults = append(faults, err)
			}
			return
		}
		fi, err := f.Stat()
		if err != nil || !fi.Mode().IsRegular() {
			_ = f.Close()
			return
		}
		mine := idOf(fi) == fileID{m.Dev, m.Ino}
		if found != nil && !mine {
			_ = f.Close()
			return
		}
		c := open(newHandle(f), compressed(f, path))
		same, err := proves(c)
		if err != nil {
			faults = append(faults, fmt.Errorf("reading %s: %w", path, err))
		}
		if !same || err != nil {
			c.close()
			return
		}
		if found != nil {
			found.close()
		}
		found, s.meta.File, s.fileAt = c, path, fi.ModTime()
	}
	for _, path := range paths {
		try(path)
	}
	if found == nil {
		// Rotation may have given it a name that is not known.
		strange, err := in.fs.strangers(m.Path, fileID{m.Dev, m.Ino})
		if err != nil {
			faults = append(faults, err)
		}
		for _, path := range strange {
			try(path)
		}
	}
	switch {
	case found != nil:
		return s, found, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case len(faults) > 0:
		return nil, nil, fmt.Errorf("searching the content of %s after byte %d: %w", m.Path, from.Seq, errors.Join(faults...))
	}
	return nil, nil, fmt.Errorf("searching the content of %s after byte %d: none of %d files holds it: %w", m.Path, from.Seq, len(paths), plugins.ErrGone)
}
