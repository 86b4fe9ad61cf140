//go:build blackbox

package scripts

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// File systems of our own, mounted for one test: one that loses at a power cut what was not synced, and one whose files fail for a
// while.

// mount mounts a file system until unmount is called or the test ends.
func mount(t *testing.T, dir string, root fs.InodeEmbedder) (unmount func()) {
	t.Helper()
	needRoot(t, "to mount a file system")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("this test needs /dev/fuse (modprobe fuse; in a container --device /dev/fuse): %v", err)
	}
	server, err := fs.Mount(dir, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, FsName: "stacktrail-test", DisableXAttrs: true, MaxWrite: 128 << 10,
	}})
	if err != nil {
		t.Fatalf("this test needs FUSE, and mounting failed: %v", err)
	}
	unmount = sync.OnceFunc(func() {
		if !poll(20*time.Millisecond, 10*time.Second, func() bool { return server.Unmount() == nil }) {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		server.Wait()
	})
	t.Cleanup(unmount)
	return unmount
}

// tmpfs mounts a disk in memory that can be made full at once.
func tmpfs(t *testing.T, dir string) string {
	t.Helper()
	needRoot(t, "to mount a disk")
	ok(t, syscall.Mount("stacktrail", dir, "tmpfs", 0, "size=8g"))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// shrink leaves next to no space on it, enlarge gives it back.
func shrink(t *testing.T, dir string) {
	t.Helper()
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	if err == nil {
		used := (int64(st.Blocks) - int64(st.Bfree)) * st.Bsize
		err = syscall.Mount("stacktrail", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", used+64<<10))
	}
	if err != nil {
		t.Errorf("making the disk small: %v", err)
	}
}

func enlarge(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("stacktrail", dir, "tmpfs", syscall.MS_REMOUNT, "size=8g"); err != nil {
		t.Errorf("making the disk large: %v", err)
	}
}

// disk keeps two states of everything: what is read, and what a power cut leaves. A file's content is safe once the file is synced, a
// name once its folder is; nothing else is.
type disk struct {
	mu    sync.Mutex
	last  uint64
	root  *thing
	syncs int
}

// thing is a file or a folder.
type thing struct {
	ino   uint64
	mode  uint32
	mtime time.Time
	links uint32

	data, safe []byte
	dirty      int // from here on data is not safe

	names, safeNames map[string]*thing // nil: a file
}

func newDisk() *disk {
	d := &disk{}
	d.root = d.make(syscall.S_IFDIR | 0o755)
	return d
}

func (d *disk) make(mode uint32) *thing {
	d.last++
	i := &thing{ino: d.last, mode: mode, mtime: time.Now(), links: 1}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		i.names, i.safeNames = map[string]*thing{}, map[string]*thing{}
	}
	return i
}

// folder makes a folder that a power cut leaves.
func (d *disk) folder(name string) {
	i := d.make(syscall.S_IFDIR | 0o755)
	d.root.names[name], d.root.safeNames[name] = i, i
}

// cut is the power cut. The disk must not be mounted.
func (d *disk) cut() (files int, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.cut()
}

func (i *thing) cut() (files int, bytes int64) {
	if i.names == nil {
		if !slices.Equal(i.data, i.safe) {
			files, bytes = 1, int64(len(i.data)-len(i.safe))
		}
		i.data, i.dirty = slices.Clone(i.safe), len(i.safe)
		return files, bytes
	}
	if !maps.Equal(i.names, i.safeNames) {
		files++
	}
	i.names = maps.Clone(i.safeNames)
	for _, c := range i.names {
		f, b := c.cut()
		files, bytes = files+f, bytes+b
	}
	return files, bytes
}

// diskNode is a thing as go-fuse sees it.
type diskNode struct {
	fs.Inode
	d *disk
	i *thing
}

func (n *diskNode) attr(a *fuse.Attr) {
	a.Ino, a.Mode, a.Size, a.Nlink = n.i.ino, n.i.mode, uint64(len(n.i.data)), max(n.i.links, 1)
	a.Blocks = (a.Size + 511) / 512
	a.SetTimes(&n.i.mtime, &n.i.mtime, &n.i.mtime)
}

func (n *diskNode) child(ctx context.Context, i *thing, out *fuse.EntryOut) *fs.Inode {
	c := &diskNode{d: n.d, i: i}
	c.attr(&out.Attr)
	return n.NewInode(ctx, c, fs.StableAttr{Mode: i.mode & syscall.S_IFMT, Ino: i.ino})
}

func (n *diskNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	i := n.i.names[name]
	if i == nil {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, i, out), 0
}

func (n *diskNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	var list []fuse.DirEntry
	for name, i := range n.i.names {
		list = append(list, fuse.DirEntry{Name: name, Mode: i.mode & syscall.S_IFMT, Ino: i.ino})
	}
	return fs.NewListDirStream(list), 0
}

func (n *diskNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = 1<<24, 1<<23, 1<<23, 1<<20, 1<<19
	return 0
}

func (n *diskNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.attr(&out.Attr)
	return 0
}

func (n *diskNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if mode, has := in.GetMode(); has {
		n.i.mode = n.i.mode&syscall.S_IFMT | mode&0o7777
	}
	if size, has := in.GetSize(); has {
		n.i.resize(int(size))
	}
	if at, has := in.GetMTime(); has {
		n.i.mtime = at
	}
	n.attr(&out.Attr)
	return 0
}

func (i *thing) resize(size int) {
	i.dirty = min(i.dirty, size)
	if size <= len(i.data) {
		i.data = i.data[:size]
	} else {
		i.data = append(i.data, make([]byte, size-len(i.data))...)
	}
	i.mtime = time.Now()
}

func (n *diskNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	i := n.i.names[name]
	if i == nil {
		i = n.d.make(syscall.S_IFREG | mode&0o7777)
		n.i.names[name] = i
		n.i.mtime = time.Now()
	} else if flags&syscall.O_TRUNC != 0 {
		i.resize(0)
	}
	return n.child(ctx, i, out), nil, 0, 0
}

func (n *diskNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.i.names[name] != nil {
		return nil, syscall.EEXIST
	}
	i := n.d.make(syscall.S_IFDIR | mode&0o7777)
	n.i.names[name] = i
	n.i.mtime = time.Now()
	return n.child(ctx, i, out), 0
}

func (n *diskNode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.i.names[name] != nil {
		return nil, syscall.EEXIST
	}
	i := target.(*diskNode).i
	i.links++
	n.i.names[name] = i
	return n.child(ctx, i, out), 0
}

func (n *diskNode) Unlink(_ context.Context, name string) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if i := n.i.names[name]; i != nil {
		i.links--
	}
	delete(n.i.names, name)
	n.i.mtime = time.Now()
	return 0
}

func (n *diskNode) Rmdir(_ context.Context, name string) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if i := n.i.names[name]; i != nil && len(i.names) > 0 {
		return syscall.ENOTEMPTY
	}
	delete(n.i.names, name)
	return 0
}

func (n *diskNode) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	dest := to.(*diskNode).i
	i, was := n.i.names[name], dest.names[newName]
	switch {
	case i == nil:
		return syscall.ENOENT
	case flags&1 != 0 && was != nil: // RENAME_NOREPLACE
		return syscall.EEXIST
	case flags&2 != 0: // RENAME_EXCHANGE
		return syscall.EINVAL
	}
	if was != nil {
		was.links--
	}
	delete(n.i.names, name)
	dest.names[newName] = i
	n.i.mtime, dest.mtime = time.Now(), time.Now()
	return 0
}

func (n *diskNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		n.d.mu.Lock()
		n.i.resize(0)
		n.d.mu.Unlock()
	}
	return nil, 0, 0
}

func (n *diskNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if off >= int64(len(n.i.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.i.data[off:])]), 0
}

func (n *diskNode) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	at := int(off)
	if at > len(n.i.data) {
		n.i.resize(at)
	}
	n.i.dirty = min(n.i.dirty, at)
	n.i.data = append(n.i.data[:at], append(slices.Clone(p), n.i.data[min(len(n.i.data), at+len(p)):]...)...)
	n.i.mtime = time.Now()
	return uint32(len(p)), 0
}

// Fsync is of a file or of a folder.
func (n *diskNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.syncs++
	if n.i.names != nil {
		n.i.safeNames = maps.Clone(n.i.names)
		return 0
	}
	from := min(n.i.dirty, len(n.i.safe))
	n.i.safe = append(n.i.safe[:from], n.i.data[from:]...)
	n.i.dirty = len(n.i.data)
	return 0
}

// faults says what a file system fails with.
type faults struct {
	stat, read, list atomic.Int32 // an errno, 0 if it works
	hits             atomic.Int64
}

func (f *faults) now(v *atomic.Int32) syscall.Errno {
	e := syscall.Errno(v.Load())
	if e != 0 {
		f.hits.Add(1)
	}
	return e
}

// faultNode passes everything on to a folder beneath, if nothing is to fail.
type faultNode struct {
	*fs.LoopbackNode
	f *faults
}

// newFaultNode shows what is in a folder.
func newFaultNode(t *testing.T, dir string, f *faults) *faultNode {
	t.Helper()
	root := must[fs.InodeEmbedder](t)(fs.NewLoopbackRoot(dir))
	return &faultNode{root.(*fs.LoopbackNode), f}
}

func (n *faultNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &faultNode{ops.(*fs.LoopbackNode), n.f}
}

func (n *faultNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if e := n.f.now(&n.f.stat); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *faultNode) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if e := n.f.now(&n.f.stat); e != 0 {
		return e
	}
	return n.LoopbackNode.Getattr(ctx, f, out)
}

func (n *faultNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if e := n.f.now(&n.f.read); e != 0 {
		return nil, 0, e
	}
	h, _, e := n.LoopbackNode.Open(ctx, flags)
	return h, fuse.FOPEN_DIRECT_IO, e
}

func (n *faultNode) Read(ctx context.Context, h fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if e := n.f.now(&n.f.read); e != 0 {
		return nil, e
	}
	return h.(fs.FileReader).Read(ctx, dest, off)
}

func (n *faultNode) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if e := n.f.now(&n.f.list); e != 0 {
		return nil, 0, e
	}
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

// TestR28AFileSystemThatFailsForAWhile gives EIO and ESTALE where files are looked at, read and listed, one after the other and all at
// once, while the logs grow and are rotated beneath.
func TestR28AFileSystemThatFailsForAWhile(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	beneath, over := b.log("beneath"), filepath.Join(b.dir, "over")
	ok(t, os.Mkdir(beneath, 0o755))
	ok(t, os.Mkdir(over, 0o755))
	f := &faults{}
	unmount := mount(t, over, newFaultNode(t, beneath, f))
	b.write(setup{paths: []string{filepath.Join(over, "*.log*"), b.log("*.log")}, tail: "grace: 20s"}) // for so long younger files wait
	w, beside := newWriter(t, filepath.Join(beneath, "api.log"), 1), newWriter(t, b.log("beside.log"), 2)
	w.lines(500)
	a := b.start()
	arrive(t, a, b.out, 500)
	lines := func() int { return w.count() + beside.count() }
	for i, errno := range []syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.EIO} {
		for _, which := range [][]*atomic.Int32{{&f.stat}, {&f.read}, {&f.list}, {&f.stat, &f.read, &f.list}} {
			arrive(t, a, b.out, lines())
			before := f.hits.Load()
			for _, v := range which {
				v.Store(int32(errno))
			}
			w.lines(100)
			ok(t, os.WriteFile(filepath.Join(beneath, "something"), nil, 0o644)) // so that the folder is read anew
			ok(t, os.Remove(filepath.Join(beneath, "something")))
			if i == 1 { // and is rotated meanwhile
				ok(t, rename(w.path))
				w.reopen()
				w.lines(100)
			}
			waitFor(t, "the faults are met", func() bool { return f.hits.Load() > before+3 || a.ended() })
			beats(4, 250*time.Millisecond, func(int) { beside.lines(5) })
			waitFor(t, "the neighbour goes on", func() bool { return holds(b.out, string(record{2, beside.count() - 1}.appendPath(nil))) || a.ended() })
			if i == 2 { // and the agent starts anew meanwhile
				a.stop()
				a = b.start()
				a.says("msg=started")
				beats(3, 250*time.Millisecond, func(int) { beside.lines(5) })
			}
			for _, v := range which {
				v.Store(0)
			}
			w.lines(50)
		}
	}
	settle(t, b, a, w, beside)
	unmount()
}

// TestC02APowerCutLosesNothing has the state and the output on a disk that keeps at a power cut what was synced, and nothing else.
func TestC02APowerCutLosesNothing(t *testing.T) {
	for seed := range number(t, "STACKTRAIL_CUTS", 2) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := seeded(uint64(seed) + 100)
			b := newBox(t)
			d := newDisk()
			d.folder("state")
			d.folder("out")
			at := filepath.Join(b.dir, "disk")
			ok(t, os.Mkdir(at, 0o755))
			ok(t, os.Symlink(filepath.Join(at, "state"), b.state()))
			b.out = filepath.Join(at, "out", "out.ndjson")
			b.write(setup{})
			w := newWriter(t, b.log("api.log"), 1)
			stop := make(chan struct{})
			var writing sync.WaitGroup
			writing.Go(func() { w.pace(1<<40, 3e6, nil, stop) })
			end := sync.OnceFunc(func() { close(stop); writing.Wait() })
			t.Cleanup(end)
			lost, changed := int64(0), 0
			for range 8 {
				unmount := mount(t, at, &diskNode{d: d, i: d.root})
				a := b.start()
				a.says("msg=started")
				from, limit := size(b.out), time.Duration(200+rnd.IntN(1200))*time.Millisecond
				waitFor(t, "something is delivered", func() bool { return size(b.out) > from+200_000 || a.ended() })
				poll(time.Millisecond, limit, a.ended)
				a.alive()
				a.kill()
				unmount()
				files, bytes := d.cut()
				lost, changed = lost+bytes, changed+files
			}
			end()
			mount(t, at, &diskNode{d: d, i: d.root})
			if r := b.once(); r.code != 0 {
				t.Fatalf("code %d", r.code)
			}
			v := newVerifier(w)
			ok(t, v.file(b.out))
			r := v.result()
			t.Logf("8 power cuts took %d files or folders and %s with them, %d syncs; %d lines, %d double", changed, mb(lost), d.syncs, w.count(), len(r.duplicate))
			if len(r.missing)+len(r.corrupt) > 0 {
				t.Errorf("after power cuts:\n%s", r.faults())
			}
			if changed == 0 {
				t.Error("the power cuts took nothing: this tells nothing")
			}
		})
	}
}
