package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"
)

const (
	// proof is how many bytes before a position, and of a first line, prove what a file holds. 64 are not enough: half of real
	// access lines end in the same 64 bytes as another.
	proof = 1 << 10
	// gzKeep is how far back a compressed file can be read again without starting from its beginning: one block and its proof.
	gzKeep = 260 << 10
)

// fileID tells open files apart. It only finds files again: content proves them.
type fileID struct{ dev, ino uint64 }

func idOf(fi os.FileInfo) fileID {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(st.Dev), st.Ino}
}

// handle is an open file that several readers share; the last one closes it.
type handle struct {
	f    *os.File
	refs atomic.Int32
}

func newHandle(f *os.File) *handle {
	h := &handle{f: f}
	h.refs.Store(1)
	return h
}

// retain adds an owner; false means that the file is closed already.
func (h *handle) retain() bool {
	for {
		n := h.refs.Load()
		if n == 0 {
			return false
		}
		if h.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (h *handle) release() {
	if h.refs.Add(-1) == 0 {
		_ = h.f.Close() // opened for reading: nothing can get lost
	}
}

// content is the uncompressed content of a file. It is used from one goroutine at a time.
type content interface {
	// readAt fills p from off. It returns fewer bytes only with an error: io.EOF at the end, errCut where a compressed file
	// ends in the middle, else what the system or the decoder said.
	readAt(ctx context.Context, p []byte, off int64) (int, error)
	// end is where the content ends as far as known; known is false for compressed files that were not read so far.
	end() (n int64, known bool, err error)
	// settled reports that what was read cannot have changed, so that nothing needs to be compared.
	settled() bool
	close()
}

// errCut says that compressed content ends before its end: it is being written, or damaged.
var errCut = errors.New("compressed content is incomplete")

// errDamaged says that content is no valid gzip, whatever else is appended to it.
var errDamaged = errors.New("damaged")

func isCorrupt(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.As(err, &corrupt)
}

// open makes the content of an open file and takes over one ownership of h.
func open(h *handle, gz bool) content {
	if gz {
		return &gzipped{h: h}
	}
	return plain{h}
}

// compressed reports whether a file is to be read as gzip: its name says so, or its content.
func compressed(f *os.File, path string) bool {
	if rotationOf(filepath.Base(path)).gz {
		return true
	}
	var head [len(gzipMagic)]byte
	n, _ := f.ReadAt(head[:], 0) // what cannot be read shows when it is read in earnest
	return string(head[:n]) == gzipMagic
}

// gzipMagic is how every gzip file begins.
const gzipMagic = "\x1f\x8b\x08"

type plain struct{ h *handle }

func (c plain) readAt(_ context.Context, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.h.f.ReadAt(p, off)
}

func (c plain) end() (int64, bool, error) {
	fi, err := c.h.f.Stat()
	if err != nil {
		return 0, false, err
	}
	return fi.Size(), true, nil
}

func (c plain) settled() bool { return false }
func (c plain) close()        { c.h.release() }

// gzipped reads compressed content in one direction and keeps the last stretch of it, so that going back by less than a block
// costs nothing; going back further starts again from the beginning. Its memory does not depend on the content.
type gzipped struct {
	h    *handle
	z    *gzip.Reader
	buf  []byte
	at   int64 // offset of buf[0]
	err  error // why nothing follows buf
	size int64 // of the compressed file when err was met
}

func (c *gzipped) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := c.reset(off); err != nil {
		return 0, err
	}
	for c.err == nil && c.at+int64(len(c.buf)) < off+int64(len(p)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		c.more(off)
	}
	n := 0
	if skip := off - c.at; skip < int64(len(c.buf)) {
		n = copy(p, c.buf[skip:])
	}
	if n < len(p) {
		return n, c.err
	}
	return n, nil
}

// reset starts again from the beginning if off was left behind, or if the file changed after it seemed to end.
func (c *gzipped) reset(off int64) error {
	again := c.z == nil && c.err == nil || off < c.at
	if c.err != nil {
		fi, err := c.h.f.Stat()
		if err != nil {
			return err
		}
		again = again || fi.Size() != c.size
	}
	if !again {
		return nil
	}
	c.buf, c.at, c.err, c.z = c.buf[:0], 0, nil, nil
	z, err := gzip.NewReader(io.NewSectionReader(c.h.f, 0, 1<<62))
	if err != nil {
		c.fail(err)
		return nil
	}
	c.z = z
	return nil
}

// drop gives the memory back; reading on starts again from the beginning.
func (c *gzipped) drop() { c.buf, c.at, c.err, c.z = nil, 0, nil, nil }

// more reads on by up to 64 KiB and drops what stands more than gzKeep before both the end and off.
func (c *gzipped) more(off int64) {
	const step = 64 << 10
	if keepFrom := min(c.at+int64(len(c.buf))-gzKeep, off-proof); keepFrom > c.at+gzKeep {
		n := copy(c.buf, c.buf[keepFrom-c.at:])
		c.buf, c.at = c.buf[:n], keepFrom
	}
	have := len(c.buf)
	if cap(c.buf)-have < step {
		grown := make([]byte, have, max(2*cap(c.buf), 2*gzKeep+step))
		copy(grown, c.buf)
		c.buf = grown
	}
	for end := have + step; len(c.buf) < end; {
		n, err := c.z.Read(c.buf[len(c.buf):end])
		c.buf = c.buf[:len(c.buf)+n]
		if err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *gzipped) fail(err error) {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF) && c.z == nil: // a header cut short
		err = errCut
	case errors.Is(err, io.EOF):
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), isCorrupt(err):
		err = fmt.Errorf("decompressing: %w: %w", errDamaged, err)
	default:
		err = fmt.Errorf("decompressing: %w", err)
	}
	c.err = err
	if fi, serr := c.h.f.Stat(); serr == nil {
		c.size = fi.Size()
	}
}

func (c *gzipped) end() (int64, bool, error) {
	if errors.Is(c.err, io.EOF) {
		return c.at + int64(len(c.buf)), true, nil
	}
	return 0, false, nil
}

func (c *gzipped) settled() bool { return true }
func (c *gzipped) close()        { c.h.release() }

// sumBefore hashes the up to 1 KiB before off. ok is false when the content does not reach that far.
func sumBefore(ctx context.Context, c content, off int64, scratch []byte) (sum uint64, ok bool, err error) {
	n := min(off, proof)
	got, err := c.readAt(ctx, scratch[:n], off-n)
	if int64(got) == n {
		return xxh3.Hash(scratch[:n]), true, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
		return 0, false, nil
	}
	return 0, false, err
}

// headOf reads the first line with its newline, up to 1 KiB. whole is false while there is less than that.
func headOf(ctx context.Context, c content, scratch []byte) (head []byte, whole bool, err error) {
	n, err := c.readAt(ctx, scratch[:proof], 0)
	if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
		err = nil
	}
	head = scratch[:n]
	for i, b := range head {
		if b == '\n' {
			return head[:i+1], true, err
		}
	}
	return head, n == proof, err
}

// stamp is what stat says about a file: while it stays the same, and is not from just now, the file was not written.
type stamp struct {
	size  int64
	mtime int64 // ns
}

func stampOf(fi os.FileInfo) stamp { return stamp{fi.Size(), fi.ModTime().UnixNano()} }

// racy is how close to now a modification time may be without another write being able to hide behind it: the clock of file
// systems ticks every few milliseconds.
const racy = 50 * time.Millisecond
