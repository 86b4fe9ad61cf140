package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
)

const (
	// proof is how many bytes before a position, and of a first line, prove what a file holds. 64 are not enough: half of real
	// access lines end in the same 64 bytes as another.
	proof = 1 << 10
	// packedKeep is how far back a compressed file can be read again without starting from its beginning: one block and its proof.
	packedKeep = 260 << 10
	// zstdWindow is the most memory that a zstd file may ask for: what zstd takes without --long or --ultra.
	zstdWindow = 8 << 20
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

// errDamaged says that compressed content is not valid, whatever else is appended to it.
var errDamaged = errors.New("damaged")

// open makes the content of an open file and takes over one ownership of h.
func open(h *handle, packed bool) content {
	if packed {
		return &unpacked{h: h}
	}
	return plain{h}
}

// compressed reports whether a file is to be decompressed: its name says so, or its content.
func compressed(f *os.File, path string) bool {
	if rotationOf(filepath.Base(path)).packed {
		return true
	}
	var head [magicLen]byte
	n, _ := f.ReadAt(head[:], 0) // what cannot be read shows when it is read in earnest
	return hasMagic(head[:n])
}

// How every gzip file (RFC 1952, deflate) and every zstd frame (RFC 8878) begins.
const (
	gzipMagic = "\x1f\x8b\x08"
	zstdMagic = "\x28\xb5\x2f\xfd"
	magicLen  = 4
)

// hasMagic reports whether content begins as compressed content does.
func hasMagic(head []byte) bool {
	return bytes.HasPrefix(head, []byte(gzipMagic)) || bytes.HasPrefix(head, []byte(zstdMagic))
}

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

// unpacked reads compressed content in one direction and keeps the last stretch of it, so that going back by less than a block
// costs nothing; going back further starts again from the beginning. Its memory does not depend on the content.
type unpacked struct {
	h    *handle
	src  *source
	z    io.Reader
	buf  []byte
	at   int64 // offset of buf[0]
	err  error // why nothing follows buf
	size int64 // of the compressed file when err was met
}

func (c *unpacked) readAt(ctx context.Context, p []byte, off int64) (int, error) {
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
func (c *unpacked) reset(off int64) error {
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
	c.letGo()
	c.buf, c.at, c.err = c.buf[:0], 0, nil
	z, err := c.decoder()
	if err != nil {
		c.fail(err)
		return nil
	}
	c.z = z
	return nil
}

// decoder starts to decompress, in the way that the file's first bytes tell: names lie.
func (c *unpacked) decoder() (io.Reader, error) {
	c.src = &source{r: io.NewSectionReader(c.h.f, 0, 1<<62)}
	var head [magicLen]byte
	n, err := c.h.f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		c.src.err = err
		return nil, err
	}
	if strings.HasPrefix(zstdMagic, string(head[:n])) && n > 0 {
		if n < magicLen {
			return nil, io.ErrUnexpectedEOF
		}
		return zstd.NewReader(c.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	}
	return gzip.NewReader(c.src)
}

// letGo gives the decoder's memory back.
func (c *unpacked) letGo() {
	if z, ok := c.z.(*zstd.Decoder); ok {
		z.Close()
	}
	c.z = nil
}

// drop gives all memory back; reading on starts again from the beginning.
func (c *unpacked) drop() {
	c.letGo()
	c.buf, c.at, c.err = nil, 0, nil
}

// more reads on by up to 64 KiB and drops what stands more than packedKeep before both the end and off.
func (c *unpacked) more(off int64) {
	const step = 64 << 10
	if keepFrom := min(c.at+int64(len(c.buf))-packedKeep, off-proof); keepFrom > c.at+packedKeep {
		n := copy(c.buf, c.buf[keepFrom-c.at:])
		c.buf, c.at = c.buf[:n], keepFrom
	}
	have := len(c.buf)
	if cap(c.buf)-have < step {
		grown := make([]byte, have, max(2*cap(c.buf), 2*packedKeep+step))
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

func (c *unpacked) fail(err error) {
	switch {
	case c.src.err != nil: // the system's fault, not the content's
		err = fmt.Errorf("decompressing: %w", c.src.err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF) && c.z == nil: // a header cut short
		err = errCut
	case errors.Is(err, io.EOF):
	default:
		err = fmt.Errorf("decompressing: %w: %w", errDamaged, err)
	}
	c.err = err
	if fi, serr := c.h.f.Stat(); serr == nil {
		c.size = fi.Size()
	}
}

func (c *unpacked) end() (int64, bool, error) {
	if errors.Is(c.err, io.EOF) {
		return c.at + int64(len(c.buf)), true, nil
	}
	return 0, false, nil
}

func (c *unpacked) settled() bool { return true }

func (c *unpacked) close() {
	c.letGo()
	c.h.release()
}

// source is a file that is decompressed; it remembers what was wrong with reading it.
type source struct {
	r   io.Reader
	err error
}

// Read reads on.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

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
