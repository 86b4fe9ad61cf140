// Package stdout is an output that writes NDJSON to standard output.
//
// A reader that went away is an ordinary error, retried like any other. When a write fails within a record, the records before it
// count as written; the next write ends the torn line first, so that a reader meets one broken line and then the whole record. A
// record that lacks nothing but its newline counts as written.
package stdout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the output's configuration.
type Config struct {
	Pretty  bool `yaml:"pretty" doc:"Indent each record, for people."`
	EventID bool `yaml:"event_id" doc:"Add event_id to each record."`
}

// Spec describes the output to the agent.
var Spec = plugins.OutputSpec("stdout", "Write NDJSON to standard output.", Config{}, New).Safe()

// New builds the output.
func New(c Config, env plugins.Env) (plugins.Output, error) {
	return build(c, env, file{os.Stdout}), nil
}

// writer writes until all is written, an error comes or ctx is done, and says how much was.
type writer interface {
	write(ctx context.Context, p []byte) (n int, err error)
}

type output struct {
	pretty bool
	enc    *schema.Encoder
	w      writer
	turn   chan struct{} // holds one value; who has it may use what follows
	torn   bool          // the last write ended within a record
	buf    []byte
	one    []byte
	ends   []int // of each event in buf
}

func build(c Config, env plugins.Env, w writer) *output {
	opt := schema.EncodeOptions{Newline: !c.Pretty, EventID: c.EventID}
	o := &output{pretty: c.Pretty, w: w, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	if env.Encoder != nil {
		o.enc = env.Encoder(opt)
	} else {
		o.enc = schema.NewEncoder(opt)
	}
	return o
}

// keepBuffer: buffers that grew beyond this are not kept.
const keepBuffer = 4 << 20

// Write writes the events and returns when all are written.
func (o *output) Write(ctx context.Context, events []*event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-o.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
	o.buf, o.ends = o.buf[:0], o.ends[:0]
	if o.torn {
		o.buf = append(o.buf, '\n')
	}
	mend := len(o.buf)
	for _, e := range events {
		o.encode(e)
		o.ends = append(o.ends, len(o.buf))
	}
	n, err := o.w.write(ctx, o.buf)
	if cap(o.buf) > keepBuffer {
		o.buf = nil
	}
	if err == nil {
		o.torn = false
		return nil
	}
	if errors.Is(err, syscall.EPIPE) {
		err = fmt.Errorf("writing to standard output: nobody reads it any more: %w", err)
	} else if ctx.Err() == nil {
		err = fmt.Errorf("writing to standard output: %w", err)
	}
	whole := sort.SearchInts(o.ends, n+2) // events of which at most the newline is missing: the next write begins with it
	at := mend
	if whole > 0 {
		at = o.ends[whole-1]
	}
	if n >= mend {
		o.torn = n != at
	}
	if whole == 0 {
		return err
	}
	failed := map[int]error{}
	for i := whole; i < len(events); i++ {
		failed[i] = err
	}
	if len(failed) == 0 {
		return nil
	}
	return &plugins.PartialError{Failed: failed}
}

func (o *output) encode(e *event.Event) {
	if !o.pretty {
		o.buf = o.enc.Append(o.buf, e)
		return
	}
	o.one = o.enc.Append(o.one[:0], e)
	b := bytes.NewBuffer(o.buf)
	if err := json.Indent(b, o.one, "", "  "); err != nil {
		b.Write(o.one) // as it is
	}
	o.buf = append(b.Bytes(), '\n')
}

// file is a writer that never blocks for longer than it takes to notice that ctx is done.
type file struct{ f *os.File }

const (
	// A pipe that is ready takes this much without blocking.
	pipeRoom = 4096
	// How long one wait lasts before ctx is asked again, in milliseconds.
	waitMillis = 100
)

func (w file) write(ctx context.Context, p []byte) (n int, err error) {
	st, err := w.f.Stat()
	if err != nil {
		return 0, err
	}
	if st.Mode().IsRegular() {
		return w.f.Write(p)
	}
	fd := []unix.PollFd{{Fd: int32(w.f.Fd()), Events: unix.POLLOUT}}
	for n < len(p) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		ready, err := unix.Poll(fd, waitMillis)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return n, err
		}
		if ready <= 0 {
			continue
		}
		m, err := w.f.Write(p[n:min(n+pipeRoom, len(p))])
		n += m
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
	}
	return n, nil
}
