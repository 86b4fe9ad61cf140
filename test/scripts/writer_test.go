//go:build blackbox

package scripts

import (
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// record is a line of a made-up nova-api. Everything in it follows from its stream and number, so that whoever reads it back can
// tell whether it is whole.
type record struct {
	stream, seq int
}

// mix is splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

const hexDigits = "0123456789abcdef"

func appendHex(p []byte, v uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		p = append(p, hexDigits[v>>(4*uint(i))&15])
	}
	return p
}

func (r record) random(n uint64) uint64 { return mix(uint64(r.stream)<<48 ^ uint64(r.seq)<<8 ^ n) }

func (r record) appendRequestID(p []byte) []byte {
	a, b := r.random(1), r.random(2)
	p = append(p, "req-"...)
	p = append(appendHex(p, a>>32, 8), '-')
	p = append(appendHex(p, a>>16, 4), '-')
	p = append(appendHex(p, a&0xfff|0x4000, 4), '-')
	p = append(appendHex(p, b>>48&0x3fff|0x8000, 4), '-')
	return appendHex(p, b, 12)
}

func (r record) appendPath(p []byte) []byte {
	p = append(p, "/v2.1/servers/s"...)
	p = strconv.AppendInt(p, int64(r.stream), 10)
	return fmt.Appendf(p, "-%09d", r.seq) // as long for every record, so that output can be told from input
}

// appendQuery makes lines of many lengths, with a checksum over the rest of the text.
func (r record) appendQuery(p []byte) []byte {
	from := len(p)
	p = append(p, "pad="...)
	n := r.random(3) % 160
	if r.random(4)%97 == 0 {
		n += 3000
	}
	for i := range n {
		p = append(p, hexDigits[r.random(5+i/8)>>(8*(i%8))&15])
	}
	sum := crc32.ChecksumIEEE(p[from:])
	p = append(p, "&crc="...)
	return appendHex(p, uint64(sum), 8)
}

func (r record) status() int { return []int{200, 202, 204, 404, 500}[r.random(1000)%5] }

func (r record) size() int { return int(r.random(1001) % 100000) }

// micros is the time that the request took.
func (r record) micros() int { return int(r.random(1002) % 3000000) }

// appendLine appends the line with its newline.
func (r record) appendLine(p []byte) []byte {
	at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.seq) * time.Millisecond)
	p = at.AppendFormat(p, "2006-01-02 15:04:05.000")
	p = append(p, " 4211 INFO nova.osapi_compute.wsgi.server [None "...)
	p = r.appendRequestID(p)
	p = append(p, " 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9 \"GET "...)
	p = r.appendPath(p)
	p = append(p, '?')
	p = r.appendQuery(p)
	p = append(p, " HTTP/1.1\" status: "...)
	p = strconv.AppendInt(p, int64(r.status()), 10)
	p = append(p, " len: "...)
	p = strconv.AppendInt(p, int64(r.size()), 10)
	p = append(p, " time: "...)
	p = strconv.AppendFloat(p, float64(r.micros())/1e6, 'f', 7, 64)
	return append(p, '\n')
}

// writer appends the lines of one stream to a file, as a service does: whole lines, one write for each or for a few. Rotators
// hold mu while they work where a line must not fall between two steps of theirs.
type writer struct {
	t      testing.TB
	path   string
	stream int

	mu  sync.Mutex
	f   *os.File
	seq int
	buf []byte

	written atomic.Int64 // bytes
	numbers atomic.Int64 // records
}

func newWriter(t testing.TB, path string, stream int) *writer {
	t.Helper()
	w := &writer{t: t, path: path, stream: stream}
	w.reopen()
	t.Cleanup(func() { _ = w.f.Close() })
	return w
}

// reopen goes on in a new file of the same name, as a service does when it is told of a rotation.
func (w *writer) reopen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		w.t.Errorf("opening the log: %v", err)
		return
	}
	if w.f != nil {
		_ = w.f.Close()
	}
	w.f = f
}

// lines writes n more lines.
func (w *writer) lines(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.linesLocked(n)
}

func (w *writer) linesLocked(n int) {
	w.buf = w.buf[:0]
	for range n {
		w.buf = record{w.stream, w.seq}.appendLine(w.buf)
		w.seq++
		if len(w.buf) >= 64<<10 {
			w.flushLocked()
		}
	}
	w.flushLocked()
}

// bytes writes lines until there are at least n bytes more.
func (w *writer) bytes(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = w.buf[:0]
	for ; n > 0; w.seq++ {
		before := len(w.buf)
		w.buf = record{w.stream, w.seq}.appendLine(w.buf)
		n -= int64(len(w.buf) - before)
		if len(w.buf) >= 64<<10 {
			w.flushLocked()
		}
	}
	w.flushLocked()
}

// raw writes bytes that are no record.
func (w *writer) raw(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf[:0], p...)
	w.flushLocked()
}

func (w *writer) flushLocked() {
	n, err := w.f.Write(w.buf)
	if err != nil {
		w.t.Errorf("writing the log: %v", err)
	}
	w.written.Add(int64(n))
	w.numbers.Store(int64(w.seq))
	w.buf = w.buf[:0]
}

// count returns how many lines were written.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
}

// pace writes total bytes at a bounded rate, in steps of a few milliseconds, until it is done or stop is closed. While ahead says
// so it waits: what is not written meanwhile is not made up for.
func (w *writer) pace(total, perSecond int64, ahead func() bool, stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, budget := time.Now(), int64(0)
	for from := w.written.Load(); w.written.Load()-from < total; {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		passed := min(time.Since(last), 20*time.Millisecond)
		last = time.Now()
		if ahead != nil && ahead() {
			continue
		}
		budget += int64(passed.Seconds() * float64(perSecond))
		before := w.written.Load()
		w.bytes(min(budget, total-(before-from)))
		budget -= w.written.Load() - before
	}
}

// longLine is a line of n bytes without a newline in it that looks like a request at its beginning.
func longLine(n int) []byte {
	head := strings.TrimSuffix(string(record{9, 0}.appendLine(nil)), "\n")
	head = head[:strings.Index(head, "?")+1]
	p := make([]byte, n)
	for i := range p {
		p[i] = 'x'
	}
	copy(p, head)
	return p
}
