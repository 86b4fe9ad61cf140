// Package stdin is the input that reads lines from the agent's standard input until it ends. What was read cannot be read
// again: after a crash, what was not delivered is gone. What is compressed (gzip, zstd) or in UTF-16 is refused.
package stdin

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Config is the input's configuration.
type Config struct {
	lines.Config `yaml:",inline"`
}

// Spec describes the input to the agent.
var Spec = plugins.InputSpec("stdin", "Read lines from standard input until it ends.", Defaults(), New).Safe()

// Defaults returns the configuration that users start from.
func Defaults() Config { return Config{lines.Defaults()} }

const (
	prefix = "stdin:"
	// looking is how often a reader without input looks whether it should end.
	looking = 200 * time.Millisecond
	piece   = 64 << 10 // how much is read at once
)

// New builds the input.
func New(c Config, env plugins.Env) (plugins.Input, error) {
	if err := c.Prepare(); err != nil {
		return nil, err
	}
	if _, err := lines.New(c.Config, lines.Options{}); err != nil {
		return nil, err
	}
	return &input{cfg: c, env: env, in: os.Stdin}, nil
}

type input struct {
	cfg Config
	env plugins.Env
	in  *os.File

	// What a Run that failed leaves to the next: nothing that was read may get lost by a retry.
	name  string
	at    int64  // offset of buf, or of the line that is being skipped
	buf   []byte // read and not sent
	head  []byte // beginning of the line that is being skipped, because it is too long; nil if none is
	taken int64  // how much of that line was read

	open bool      // buf begins with a record that may go on
	need int       // how much a block must hold to tell where it ends
	last time.Time // when something was read last
}

// Run reads until the end of the input or of ctx.
func (in *input) Run(ctx context.Context, sink plugins.Sink) error {
	m, err := lines.New(in.cfg.Config, lines.Options{Count: in.env.Count})
	if err != nil {
		return err
	}
	m.File("", "", time.Now())
	if in.cfg.ZoneIsGuessed() {
		in.env.Log.Warn("timezone is Local, but neither TZ nor /etc/localtime says which zone that is: times without a zone are read as UTC")
	}
	if in.name == "" {
		for _, k := range in.env.Streams.Known() {
			if strings.HasPrefix(k.Name, prefix) {
				in.env.Streams.Forget(k.Name) // of an earlier process: nobody can read on there
			}
		}
		in.name = prefix + rand.Text()
		if _, err := in.env.Streams.Open(ctx, in.entry()); err != nil {
			return fmt.Errorf("opening stream of standard input: %w", err)
		}
	}
	for {
		ready, err := in.wait(ctx)
		if err != nil || !ready && ctx.Err() != nil {
			return err
		}
		if !ready {
			if err := in.closeOpen(ctx, m, sink); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		}
		end, err := in.read(ctx, m, sink)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if end {
			s := in.entry()
			s.Drained = true
			in.env.Streams.Update(s)
			return nil
		}
	}
}

func (in *input) entry() plugins.Stream { return plugins.Stream{Name: in.name, Lane: in.name} }

// wait waits until there is something to read; ready is false when ctx is done, or when an open record has waited for long enough
// for its next line. A plain read could not be interrupted.
func (in *input) wait(ctx context.Context) (ready bool, err error) {
	fds := []unix.PollFd{{Fd: int32(in.in.Fd()), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, int(looking.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("waiting for standard input: %w", err)
		case n > 0:
			return true, nil
		case in.open && time.Since(in.last) >= in.cfg.Multiline.Timeout:
			return false, nil
		}
	}
	return false, nil
}

// read reads what is there and sends the lines that are complete.
func (in *input) read(ctx context.Context, m *lines.Maker, sink plugins.Sink) (end bool, err error) {
	if room := cap(in.buf) - len(in.buf); room < piece {
		grown := make([]byte, len(in.buf), max(2*cap(in.buf), 2*piece))
		copy(grown, in.buf)
		in.buf = grown
	}
	n, err := in.in.Read(in.buf[len(in.buf):cap(in.buf)])
	in.buf = in.buf[:len(in.buf)+n]
	switch end = errors.Is(err, io.EOF); {
	case end, err == nil:
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return false, nil
	default:
		return false, fmt.Errorf("reading standard input: %w", err)
	}
	if in.at == 0 && in.head == nil {
		if err := readable(in.buf); err != nil {
			return false, fmt.Errorf("reading standard input: %w", err)
		}
	}
	in.last = time.Now()
	how := lines.More
	if end {
		how = lines.Closed
	}
	for more := true; more; {
		if more, err = in.send(ctx, m, sink, how); err != nil {
			return false, err
		}
	}
	return end, nil
}

// readable says why what begins so cannot be read as lines; nil if it can.
func readable(head []byte) error {
	if kind := lines.UTF16(head[:min(len(head), 1<<10)]); kind != "" {
		return fmt.Errorf("it is in %s; convert it to UTF-8", kind)
	}
	switch kind := lines.Compression(head); kind {
	case "gzip":
		return errors.New("it is compressed with gzip; put zcat before it")
	case "zstd":
		return errors.New("it is compressed with zstd; put zstdcat before it")
	}
	return nil
}

// closeOpen sends the open record at the beginning of what was read.
func (in *input) closeOpen(ctx context.Context, m *lines.Maker, sink plugins.Sink) error {
	in.last = time.Now()
	_, err := in.send(ctx, m, sink, lines.Quiet)
	return err
}

// send sends one batch of what was read; more says that there may be another. how says what stands behind it.
func (in *input) send(ctx context.Context, m *lines.Maker, sink plugins.Sink, how lines.End) (more bool, err error) {
	if in.head != nil {
		return in.skip(ctx, m, sink, how == lines.Closed)
	}
	size := min(len(in.buf), max(event.MaxBatchBytes, in.need))
	newline := bytes.LastIndexByte(in.buf[:size], '\n')
	switch {
	case newline >= 0 && how == lines.Quiet:
		size = newline + 1
	case newline >= 0:
	case len(in.buf) > m.MaxLine():
		in.head, in.taken = append([]byte{}, in.buf[:m.MaxLine()]...), 0
		return true, nil
	case bytes.IndexByte(in.buf, '\n') >= 0: // max_line may be more than a block
		size = bytes.IndexByte(in.buf, '\n') + 1
	case how == lines.Closed && len(in.buf) > 0:
		size = len(in.buf)
	default:
		return false, nil
	}
	if how == lines.Closed && size < len(in.buf) {
		how = lines.More
	}
	b, block, err := in.batch(ctx, in.buf[:size])
	if err != nil {
		return false, err
	}
	used, _, need := m.Join(b, block, in.at, event.MaxBatchRecords, how)
	in.open, in.need = used == 0, need
	if used == 0 {
		m.Discard()
		b.Release()
		return size < len(in.buf), nil
	}
	in.consume(used)
	return true, in.pass(ctx, m, sink, b, int64(used))
}

// skip drops the rest of a line that is too long and sends its beginning once it ends.
func (in *input) skip(ctx context.Context, m *lines.Maker, sink plugins.Sink, end bool) (more bool, err error) {
	n := bytes.IndexByte(in.buf, '\n') + 1
	if n == 0 && !end {
		in.taken += int64(len(in.buf))
		in.buf = in.buf[:0]
		return false, nil
	}
	if n == 0 {
		n = len(in.buf)
	}
	b, block, err := in.batch(ctx, in.head)
	if err != nil {
		return false, err
	}
	in.consume(n)
	length := in.taken + int64(n)
	m.FillCut(b, block, in.at, length)
	in.head, in.taken = nil, 0
	return true, in.pass(ctx, m, sink, b, length)
}

// batch makes a batch with a copy of data as its block.
func (in *input) batch(ctx context.Context, data []byte) (b *event.Batch, block []byte, err error) {
	if b, err = in.env.Pool.Get(ctx, len(data)); err != nil {
		return nil, nil, err
	}
	block = b.Arena().Block(len(data))
	copy(block, data)
	b.Stream, b.ReadAt = in.name, time.Now()
	b.Charge() // a recycled batch may have grown for a long line
	return b, block, nil
}

func (in *input) consume(n int) { in.buf = in.buf[:copy(in.buf, in.buf[n:])] }

// pass sends a batch that covers the next n bytes.
func (in *input) pass(ctx context.Context, m *lines.Maker, sink plugins.Sink, b *event.Batch, n int64) error {
	b.Span = event.Span{From: event.Position{Seq: in.at}, To: event.Position{Seq: in.at + n}}
	in.at += n
	m.Flush()
	return sink.Send(ctx, b)
}
