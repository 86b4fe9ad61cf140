package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// filesystem is one directory tree and all that the output does in it, so that tests can stop it between any two steps. Names
// are relative to the tree's root. No operation leads outside of it.
type filesystem interface {
	// open opens a regular file for appending and reading, and makes it, with its directories, if create is set.
	open(name string, create bool, mode fs.FileMode) (f handle, created bool, err error)
	// make makes an empty file in the place of whatever file is there.
	make(name string, mode fs.FileMode) (handle, error)
	lstat(name string) (info, error)
	// list returns the names in a directory; a directory that is not there has none.
	list(dir string) ([]string, error)
	rename(from, to string) error
	remove(name string) error
	syncDir(dir string) error
	close() error
}

// handle is an open file. Writes go to its end.
type handle interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	stat() (info, error)
	// lock takes the file for this handle alone, until it is closed, or returns errInUse.
	lock() error
}

var errInUse = errors.New("the file is written by another output or agent")

// free returns errInUse if another handle has locked the file, another error if it cannot be opened.
func free(t filesystem, name string) error {
	h, _, err := t.open(name, false, 0)
	if err != nil {
		return err
	}
	err = h.lock()
	return errors.Join(err, h.Close())
}

// info is what the output asks of a file.
type info struct {
	inode uint64
	size  int64
	links uint64
}

// osTree is a filesystem below a directory of the operating system.
type osTree struct {
	base string
	mode fs.FileMode // of directories that are made
	root *os.Root
}

// dirMode is the mode of directories that the output makes.
const dirMode = 0o750

func newTree(base string, dirs fs.FileMode) filesystem { return &osTree{base: base, mode: dirs} }

// enter opens the root, which need not be there before the first write.
func (t *osTree) enter(create bool) (*os.Root, error) {
	if t.root != nil {
		return t.root, nil
	}
	if create {
		if err := makeDurable(t.base, t.mode); err != nil {
			return nil, err
		}
	}
	r, err := os.OpenRoot(t.base)
	if err != nil {
		return nil, err
	}
	t.root = r
	return r, nil
}

// makeDurable makes a directory and those above it, and syncs the names of those that are new.
func makeDurable(dir string, mode fs.FileMode) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDurable(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(parent)
	if err != nil {
		return nil //nolint:nilerr // a directory that can be searched but not read cannot be synced
	}
	defer d.Close() //nolint:errcheck // nothing was written
	return d.Sync()
}

func (t *osTree) close() error {
	if t.root == nil {
		return nil
	}
	err := t.root.Close()
	t.root = nil
	return err
}

func (t *osTree) open(name string, create bool, mode fs.FileMode) (handle, bool, error) {
	f, created, err := t.tryOpen(name, create, mode)
	if create && errors.Is(err, fs.ErrNotExist) { // the base was removed while it was open
		_ = t.close()
		f, created, err = t.tryOpen(name, create, mode)
	}
	if err != nil {
		return nil, false, err
	}
	return osFile{f}, created, nil
}

func (t *osTree) tryOpen(name string, create bool, mode fs.FileMode) (*os.File, bool, error) {
	r, err := t.enter(create)
	if err != nil {
		return nil, false, err
	}
	const flags = os.O_RDWR | os.O_APPEND | syscall.O_NOFOLLOW | syscall.O_NONBLOCK // a FIFO must not block
	st, err := r.Lstat(name)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return nil, false, fmt.Errorf("opening %s: not a regular file (%s)", path.Join(t.base, name), st.Mode().Type())
	case err == nil:
		f, err := r.OpenFile(name, flags, 0)
		return f, false, err
	case !create || !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	if dir := path.Dir(name); dir != "." {
		if err := r.MkdirAll(dir, t.mode); err != nil {
			return nil, false, err
		}
	}
	f, err := r.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, false, err
	}
	if err := f.Chmod(mode); err != nil { // whatever the umask is
		_ = f.Close()
		return nil, false, err
	}
	return f, true, nil
}

func (t *osTree) make(name string, mode fs.FileMode) (handle, error) {
	r, err := t.enter(true)
	if err != nil {
		return nil, err
	}
	if err := r.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := r.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		_ = f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

func (t *osTree) lstat(name string) (info, error) {
	r, err := t.enter(false)
	if err != nil {
		return info{}, err
	}
	st, err := r.Lstat(name)
	if err != nil {
		return info{}, err
	}
	return infoOf(st), nil
}

func (t *osTree) list(dir string) ([]string, error) {
	r, err := t.enter(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	d, err := r.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // nothing was written
	return d.Readdirnames(-1)
}

func (t *osTree) rename(from, to string) error {
	r, err := t.enter(false)
	if err != nil {
		return err
	}
	return r.Rename(from, to)
}

func (t *osTree) remove(name string) error {
	r, err := t.enter(false)
	if err != nil {
		return err
	}
	return r.Remove(name)
}

// syncDir makes the names in the directory durable, and its own name and those of the directories above it, up to the root.
func (t *osTree) syncDir(dir string) error {
	r, err := t.enter(false)
	if err != nil {
		return err
	}
	for {
		d, err := r.Open(dir)
		if err != nil {
			return err
		}
		err = d.Sync()
		_ = d.Close()
		if err != nil || dir == "." {
			return err
		}
		dir = path.Dir(dir)
	}
}

type osFile struct{ *os.File }

func (f osFile) stat() (info, error) {
	st, err := f.Stat()
	if err != nil {
		return info{}, err
	}
	return infoOf(st), nil
}

// lock takes an advisory lock. Where the file system knows none, there is nothing to protect with: it is as if it was free.
func (f osFile) lock() error {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errInUse
		case errors.Is(err, errors.ErrUnsupported):
			return nil
		default:
			return err
		}
	}
}

func infoOf(st fs.FileInfo) info {
	i := info{size: st.Size(), links: 1}
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		i.inode, i.links = s.Ino, uint64(s.Nlink)
	}
	return i
}
