package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

// retired is a file that was put aside. Until a checkpoint is past it, it may have to be cut, so it is neither compressed nor
// removed.
type retired struct {
	name  string // its path before, relative to the base
	inode uint64
	gen   int64 // in which it was put aside
	h     handle
	dirty bool
	after int64 // generation before which compressing is not tried (again)
}

const (
	// maxRetired files wait for a checkpoint; with more, files grow beyond rotate.size instead.
	maxRetired = 64
	// retryCompress: after so many tokens a failed compression is tried again.
	retryCompress = 60
)

// job is a compression in the background: it has its two files, and touches nothing else.
type job struct {
	of   *retired
	temp string
	stop atomic.Bool
	done chan error
}

// slots is what is there of a path's files put aside.
type slots struct {
	dir   string
	plain map[int]string // number to name, relative to the base
	gz    map[int]string
}

func (o *output) slotsOf(name string) (slots, error) {
	dir, base := path.Split(name)
	s := slots{dir: path.Clean(dir), plain: map[int]string{}, gz: map[int]string{}}
	names, err := o.tree.list(s.dir)
	if err != nil {
		return s, fmt.Errorf("reading directory %s: %w", o.full(s.dir), err)
	}
	for _, n := range names {
		if k, gz, ok := slot(base, n); ok && gz {
			s.gz[k] = path.Join(s.dir, n)
		} else if ok {
			s.plain[k] = path.Join(s.dir, n)
		}
	}
	return s, nil
}

// putAside renames the file, and those put aside before it. When that cannot be done now, the file simply grows on.
func (o *output) putAside(f *file) bool {
	if len(o.retired) >= maxRetired {
		f.held = o.gen
		return false
	}
	if err := o.shift(f.name); err != nil {
		f.held = o.gen
		o.log.Warn("putting output file aside", "path", o.full(f.name), "error", err)
		return false
	}
	o.retired = append(o.retired, &retired{name: f.name, inode: f.inode, gen: o.gen, h: f.h, dirty: f.dirty})
	f.h, f.inode, f.length, f.covered, f.dirty = nil, 0, 0, -1, false
	o.open--
	return true
}

// shift renames path to path.1, path.1 to path.2 and so on, up to the first number that is free.
func (o *output) shift(name string) error {
	s, err := o.slotsOf(name)
	if err != nil {
		return err
	}
	last := 0
	for s.plain[last+1] != "" || s.gz[last+1] != "" {
		last++
	}
	o.dirs[s.dir] = struct{}{}
	for k := last; k >= 1; k-- {
		if s.plain[k] != "" {
			if err := o.tree.rename(s.plain[k], fmt.Sprintf("%s.%d", name, k+1)); err != nil {
				return err
			}
		}
		if s.gz[k] != "" {
			if err := o.tree.rename(s.gz[k], fmt.Sprintf("%s.%d.gz", name, k+1)); err != nil {
				return err
			}
		}
	}
	return o.tree.rename(name, name+".1")
}

// adopt finds files that an earlier run put aside. They wait for a checkpoint like our own.
func (o *output) adopt(name string) {
	if _, done := o.adopted[name]; done {
		return
	}
	if len(o.adopted) > 2*o.cfg.MaxPaths {
		clear(o.adopted)
	}
	o.adopted[name] = struct{}{}
	s, err := o.slotsOf(name)
	if err != nil {
		o.log.Warn("looking for output files put aside", "path", o.full(name), "error", err)
		return
	}
	for k, n := range s.plain {
		st, err := o.tree.lstat(n)
		if err != nil || slices.ContainsFunc(o.retired, func(r *retired) bool { return r.inode == st.inode }) {
			continue
		}
		if o.cfg.Rotate.Compress == gzipFiles && k <= o.cfg.Rotate.Keep {
			o.retired = append(o.retired, &retired{name: name, inode: st.inode, gen: o.gen})
		}
	}
	if len(s.plain)+len(s.gz) > o.cfg.Rotate.Keep {
		o.trim[name] = struct{}{}
	}
}

// sealed syncs and closes a file put aside.
func (o *output) sealed(r *retired) error {
	if r.h == nil {
		return nil
	}
	if r.dirty {
		if err := o.sync(r.h, r.name); err != nil {
			return err
		}
	}
	_ = r.h.Close()
	r.h = nil
	return nil
}

// tidy compresses and removes what a stored checkpoint is past. A file put aside in generation g is whole in token g+1, which is
// stored when token g+2 is taken. Faults are said and tried again: they never stop the writing.
func (o *output) tidy() {
	o.retired = slices.DeleteFunc(o.retired, func(r *retired) bool {
		if r.gen+2 > o.gen {
			return false
		}
		o.trim[r.name] = struct{}{}
		if o.cfg.Rotate.Compress == gzipFiles {
			o.queue = append(o.queue, r)
		}
		return true
	})
	for name := range o.trim {
		rest, err := o.trimOne(name)
		if err != nil {
			o.log.Warn("removing old output files", "path", o.full(name), "error", err)
		}
		if !rest {
			delete(o.trim, name)
		}
	}
	for i := 0; o.job == nil && i < len(o.queue); i++ {
		if r := o.queue[i]; r.after <= o.gen {
			o.queue = slices.Delete(o.queue, i, i+1)
			i--
			if err := o.compress(r); err != nil {
				o.log.Warn("compressing output file", "path", o.full(r.name), "error", err)
				r.after = o.gen + retryCompress
				o.queue = append(o.queue, r)
				break
			}
		}
	}
	if o.waitJob {
		o.finishJob(true)
	}
}

// trimOne removes the path's files beyond rotate.keep. It reports whether some have to wait.
func (o *output) trimOne(name string) (rest bool, err error) {
	s, err := o.slotsOf(name)
	if err != nil {
		return true, err
	}
	for _, m := range []map[int]string{s.plain, s.gz} {
		for k, n := range m {
			if k <= o.cfg.Rotate.Keep {
				continue
			}
			st, err := o.tree.lstat(n)
			if err != nil {
				return true, err
			}
			if slices.ContainsFunc(o.retired, func(r *retired) bool { return r.inode == st.inode }) {
				rest = true
				continue
			}
			if err := o.tree.remove(n); err != nil {
				return true, err
			}
		}
	}
	return rest, nil
}

// nameOf finds the plain file put aside by its inode; "" when it is gone.
func (o *output) nameOf(r *retired) (string, error) {
	s, err := o.slotsOf(r.name)
	if err != nil {
		return "", err
	}
	for _, n := range s.plain {
		if st, err := o.tree.lstat(n); err == nil && st.inode == r.inode {
			return n, nil
		}
	}
	return "", nil
}

// gzipMagic begins every gzip file, and no line of JSON.
const gzipMagic = "\x1f\x8b"

// compress starts to compress a file put aside, in the background.
func (o *output) compress(r *retired) error {
	name, err := o.nameOf(r)
	if err != nil || name == "" {
		return err
	}
	src, _, err := o.tree.open(name, false, 0)
	if err != nil {
		return err
	}
	if isGzip(src) {
		_ = src.Close()
		return o.nameCompressed(name)
	}
	j := &job{of: r, temp: tempName(r.name), done: make(chan error, 1)}
	if err := o.journal.add(entry{Gen: o.gen, Path: j.temp, Temp: true}); err != nil {
		_ = src.Close()
		return err
	}
	dst, err := o.tree.make(j.temp, fs.FileMode(o.cfg.Mode))
	if err != nil {
		_ = src.Close()
		return err
	}
	o.job = j
	go func() { j.done <- j.run(src, dst) }()
	return nil
}

var errStopped = errors.New("stopped")

func (j *job) run(src, dst handle) error {
	err := j.copy(src, dst)
	if err == nil {
		err = dst.Sync()
	}
	_ = src.Close()
	return errors.Join(err, dst.Close())
}

func (j *job) copy(src, dst handle) error {
	z, err := gzip.NewWriterLevel(dst, gzip.BestSpeed)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for at := int64(0); ; {
		if j.stop.Load() {
			return errStopped
		}
		n, err := src.ReadAt(buf, at)
		at += int64(n)
		if _, werr := z.Write(buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return z.Close()
		} else if err != nil {
			return err
		}
	}
}

// finishJob puts a finished compression into the place of its plain file. It waits for the end only if asked to.
func (o *output) finishJob(wait bool) {
	j := o.job
	if j == nil {
		return
	}
	var err error
	if wait {
		err = <-j.done
	} else {
		select {
		case err = <-j.done:
		default:
			return
		}
	}
	o.job = nil
	var name string
	if err == nil {
		name, err = o.nameOf(j.of)
	}
	if err == nil && name != "" {
		if err = o.tree.rename(j.temp, name); err == nil {
			err = o.nameCompressed(name)
		}
	} else if rerr := o.tree.remove(j.temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		o.log.Warn("removing temporary file", "path", o.full(j.temp), "error", rerr)
	}
	if err != nil && !errors.Is(err, errStopped) {
		o.log.Warn("compressing output file", "path", o.full(j.of.name), "error", err)
		j.of.after = o.gen + retryCompress
		o.queue = append(o.queue, j.of)
	}
}

// nameCompressed gives a file put aside, whose content is compressed by now, the name that says so.
func (o *output) nameCompressed(name string) error {
	o.dirs[path.Dir(name)] = struct{}{}
	return o.tree.rename(name, name+".gz")
}

func isGzip(h handle) bool {
	var b [len(gzipMagic)]byte
	n, _ := h.ReadAt(b[:], 0)
	return string(b[:n]) == gzipMagic
}

// dropTemp clears up after a compression that a crash ended: a temporary file, or a compressed file under the plain one's name.
func (o *output) dropTemp(tree filesystem, e entry) error {
	if err := tree.remove(e.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing temporary file %s: %w", e.Path, err)
	}
	dir, temp := path.Split(e.Path)
	base := strings.TrimSuffix(strings.TrimPrefix(temp, "."), tempSuffix)
	dir = path.Clean(dir)
	names, err := tree.list(dir)
	if err != nil {
		return fmt.Errorf("reading directory %s: %w", dir, err)
	}
	for _, n := range names {
		if _, gz, ok := slot(base, n); !ok || gz {
			continue
		}
		n = path.Join(dir, n)
		h, _, err := tree.open(n, false, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", n, err)
		}
		packed := isGzip(h)
		_ = h.Close()
		if packed {
			if err := tree.rename(n, n+".gz"); err != nil {
				return fmt.Errorf("renaming %s: %w", n, err)
			}
		}
	}
	return nil
}
