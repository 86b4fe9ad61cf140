package file

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
	"sync"
	"syscall"
)

// disk is a file system in memory that can be copied at any moment, as a crash would leave it.
type disk struct {
	mu      sync.Mutex
	names   map[string]*node // absolute path to file
	durable map[string]*node // names as of the last sync of their directories
	inodes  uint64
	free    int64           // bytes until ENOSPC; negative: endless
	before  func(op string) // called before each change, and within each write
	failing func(op string) error
}

type node struct {
	inode uint64
	data  []byte
	kept  []byte // as of the last sync
}

func newDisk() *disk {
	return &disk{names: map[string]*node{}, durable: map[string]*node{}, free: -1}
}

// crash says what of the unsynced survives.
type crash struct{ names, data bool }

// after returns a copy as it stands after a crash.
func (d *disk) after(c crash) *disk {
	n := newDisk()
	n.inodes = d.inodes
	copies := map[*node]*node{}
	from := d.durable
	if c.names {
		from = d.names
	}
	for name, f := range from {
		if copies[f] == nil {
			data := f.kept
			if c.data {
				data = f.data
			}
			copies[f] = &node{inode: f.inode, data: append([]byte(nil), data...), kept: append([]byte(nil), data...)}
		}
		n.names[name] = copies[f]
	}
	maps.Copy(n.durable, n.names)
	return n
}

func (d *disk) tree(base string, _ fs.FileMode) filesystem { return &memTree{d, base} }

// step is called, without the lock, before each change.
func (d *disk) step(op string) error {
	if d.before != nil {
		d.before(op)
	}
	if d.failing != nil {
		return d.failing(op)
	}
	return nil
}

type memTree struct {
	d    *disk
	base string
}

func (t *memTree) at(name string) string { return path.Join(t.base, name) }

func (t *memTree) open(name string, create bool, _ fs.FileMode) (handle, bool, error) {
	t.d.mu.Lock()
	f := t.d.names[t.at(name)]
	t.d.mu.Unlock()
	if f != nil {
		return &memFile{t.d, f, name}, false, nil
	}
	if !create {
		return nil, false, fs.ErrNotExist
	}
	h, err := t.make(name, 0)
	return h, true, err
}

func (t *memTree) make(name string, _ fs.FileMode) (handle, error) {
	if err := t.d.step("make " + name); err != nil {
		return nil, err
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.d.inodes++
	f := &node{inode: t.d.inodes}
	t.d.names[t.at(name)] = f
	return &memFile{t.d, f, name}, nil
}

func (t *memTree) lstat(name string) (info, error) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	f := t.d.names[t.at(name)]
	if f == nil {
		return info{}, fs.ErrNotExist
	}
	return info{f.inode, int64(len(f.data)), 1}, nil
}

func (t *memTree) list(dir string) ([]string, error) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	var names []string
	for n := range t.d.names {
		if rest, ok := strings.CutPrefix(n, t.at(dir)+"/"); ok && !strings.Contains(rest, "/") {
			names = append(names, rest)
		}
	}
	return names, nil
}

func (t *memTree) rename(from, to string) error {
	if err := t.d.step("rename " + from + " " + to); err != nil {
		return err
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	f := t.d.names[t.at(from)]
	if f == nil {
		return fs.ErrNotExist
	}
	delete(t.d.names, t.at(from))
	t.d.names[t.at(to)] = f
	return nil
}

func (t *memTree) remove(name string) error {
	if err := t.d.step("remove " + name); err != nil {
		return err
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if t.d.names[t.at(name)] == nil {
		return fs.ErrNotExist
	}
	delete(t.d.names, t.at(name))
	return nil
}

func (t *memTree) syncDir(dir string) error {
	if err := t.d.step("syncdir " + dir); err != nil {
		return err
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	within := func(n string) bool { return path.Dir(n) == t.at(dir) }
	maps.DeleteFunc(t.d.durable, func(n string, _ *node) bool { return within(n) })
	for n, f := range t.d.names {
		if within(n) {
			t.d.durable[n] = f
		}
	}
	return nil
}

func (t *memTree) close() error { return nil }

type memFile struct {
	d    *disk
	f    *node
	name string
}

func (h *memFile) Write(p []byte) (n int, err error) {
	for _, half := range [][]byte{p[:len(p)/2], p[len(p)/2:]} {
		if err := h.d.step("write " + h.name); err != nil {
			return n, err
		}
		h.d.mu.Lock()
		if h.d.free >= 0 && int64(len(half)) > h.d.free {
			half, err = half[:h.d.free], syscall.ENOSPC
		}
		if h.d.free >= 0 {
			h.d.free -= int64(len(half))
		}
		h.f.data = append(h.f.data, half...)
		h.d.mu.Unlock()
		if n += len(half); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (h *memFile) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memFile) Truncate(size int64) error {
	if err := h.d.step("truncate " + h.name); err != nil {
		return err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if size > int64(len(h.f.data)) {
		return errors.New("truncating to a larger size makes NULs")
	}
	if h.d.free >= 0 {
		h.d.free += int64(len(h.f.data)) - size
	}
	h.f.data = append([]byte(nil), h.f.data[:size]...)
	return nil
}

func (h *memFile) Sync() error {
	if err := h.d.step("sync " + h.name); err != nil {
		return err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.f.kept = append([]byte(nil), h.f.data...)
	return nil
}

func (h *memFile) Close() error { return nil }

func (h *memFile) lock() error { return nil }

func (h *memFile) stat() (info, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	links := uint64(0)
	for _, f := range h.d.names {
		if f == h.f {
			links++
		}
	}
	return info{h.f.inode, int64(len(h.f.data)), links}, nil
}
