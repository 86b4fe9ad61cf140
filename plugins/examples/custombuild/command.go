package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Config is the input's configuration.
type Config struct {
	Argv  []string      `yaml:"argv" required:"true" doc:"The program, by its absolute path, and its arguments." example:"[/usr/bin/uptime]"`
	Every time.Duration `yaml:"every" min:"1s" doc:"How often it is run."`
}

// Validate reports what no tag can say.
func (c Config) Validate() error {
	if len(c.Argv) > 0 && !filepath.IsAbs(c.Argv[0]) {
		return fmt.Errorf("argv: %q is no absolute path", c.Argv[0])
	}
	return nil
}

// Spec describes the input to the agent.
var Spec = plugins.InputSpec("command", "Run a program again and again; each line that it prints is an event.", Config{Every: time.Minute}, New).Safe()

// New builds the input.
func New(c Config, env plugins.Env) (plugins.Input, error) { return &input{cfg: c, env: env}, nil }

const (
	prefix   = "command:"
	lineRoom = 64 << 10 // what is longer is cut
)

type input struct {
	cfg Config
	env plugins.Env

	stream string // of this process: what a program printed cannot be read again
	at     int64  // offset in the stream
	batch  *event.Batch
}

// Run runs the program until ctx is done; with Once, a single time.
func (in *input) Run(ctx context.Context, sink plugins.Sink) error {
	if err := in.open(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(in.cfg.Every)
	defer tick.Stop()
	for {
		if err := in.once(ctx, sink); err != nil || in.env.Once {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// open declares the stream, once for all calls of Run.
func (in *input) open(ctx context.Context) error {
	if in.stream != "" {
		return nil
	}
	for _, s := range in.env.Streams.Known() {
		in.env.Streams.Forget(s.Name) // of an earlier process
	}
	name := prefix + rand.Text()
	if _, err := in.env.Streams.Open(ctx, plugins.Stream{Name: name, Lane: in.env.ID}); err != nil {
		return fmt.Errorf("opening stream: %w", err)
	}
	in.stream = name
	return nil
}

// once runs the program to its end. It gets no environment, and a process group, so that all of it can be ended.
func (in *input) once(ctx context.Context, sink plugins.Sink) error {
	cmd := exec.CommandContext(ctx, in.cfg.Argv[0], in.cfg.Argv[1:]...)
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", in.cfg.Argv[0], err)
	}
	err = in.read(ctx, sink, bufio.NewReaderSize(out, lineRoom))
	if err != nil {
		_ = cmd.Cancel() // nobody reads what it prints
	}
	failed := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case failed != nil:
		in.env.Log.Warn("the program failed", "argv", strings.Join(in.cfg.Argv, " "), "error", failed)
	}
	in.env.Fail("program", failed)
	return nil
}

// read sends what the program prints, as soon as it prints nothing more for now.
func (in *input) read(ctx context.Context, sink plugins.Sink, r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 {
			if err := in.add(ctx, line, cut); err != nil {
				return err
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long line
			var rest []byte
			rest, err = r.ReadSlice('\n')
			in.at += int64(len(rest))
		}
		if err != nil || r.Buffered() == 0 || len(in.batch.Events) == event.MaxBatchRecords || in.batch.Size() > event.MaxBatchBytes {
			if err := in.send(ctx, sink); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading: %w", err)
		}
	}
}

// add appends an event to the batch in hand.
func (in *input) add(ctx context.Context, line []byte, cut bool) error {
	if in.batch == nil {
		b, err := in.env.Pool.Get(ctx, lineRoom)
		if err != nil {
			return err
		}
		b.Stream, b.ReadAt = in.stream, time.Now()
		b.Span.From.Seq = in.at
		in.batch = b
	}
	raw := in.batch.Arena().Alloc(len(line))
	copy(raw, line)
	text := strings.TrimRight(event.View(raw), "\r\n")
	e := in.batch.Append()
	e.Raw, e.Offset, e.Time = raw[:len(text):len(text)], in.at, in.batch.ReadAt
	e.RecordClass, e.Program = event.ClassServiceLog, filepath.Base(in.cfg.Argv[0])
	e.Set("message", event.StringValue(text))
	if cut {
		e.SetBool(event.BoolTruncated, true)
	}
	in.at += int64(len(line))
	return nil
}

// send gives the batch in hand away.
func (in *input) send(ctx context.Context, sink plugins.Sink) error {
	b := in.batch
	if b == nil {
		return nil
	}
	in.batch = nil
	b.Span.To.Seq = in.at
	return sink.Send(ctx, b)
}
