package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// parseOptions are the flags of parse.
type parseOptions struct {
	format   string
	timezone string
	records  string
	naming   string
	eventID  bool
	unparsed bool
	mask     bool
	explain  string
}

func newParseCommand(reg *plugins.Registry) *cobra.Command {
	var opt parseOptions
	cmd := &cobra.Command{
		Use:   "parse [FILE…]",
		Short: "Parse log lines into the common schema",
		Long: `parse reads log files (also .gz), or standard input, and prints one JSON object per event, with the file and offset where
it stands. Lines that no format knows go to standard error with the reason, and a summary at the end.`,
		Example: `  stacktrail parse /var/log/nova/nova-api.log
  zcat old.gz | stacktrail parse --format haproxy-http --timezone Europe/Berlin`,
		RunE: func(cmd *cobra.Command, files []string) error {
			naming, err := schema.NamingByName(opt.naming)
			if err != nil {
				return fmt.Errorf("--naming: %w", err)
			}
			if cmd.Flags().Changed("explain") {
				return explainLine(reg, opt, files, cmd.OutOrStdout())
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			p := newParser(reg, opt, naming, cmd.OutOrStdout(), cmd.ErrOrStderr())
			return p.all(ctx, files)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.format, "format", "auto", "format of the lines, or auto")
	f.StringVar(&opt.timezone, "timezone", "Local", "zone of times that carry none")
	f.StringVar(&opt.records, "records", "access", "access, audit: CADF records too, or all: service-log lines too")
	f.StringVar(&opt.naming, "naming", "ovh", "names of the fields: ovh, ecs or otel")
	f.BoolVar(&opt.eventID, "event-id", false, "add event_id")
	f.BoolVar(&opt.mask, "mask-tokens", true, "put *** for tokens, passwords and signatures")
	f.StringVar(&opt.explain, "explain", "", "show for this `LINE` which formats were tried and how far each got; FILE is then only a name")
	f.BoolVar(&opt.unparsed, "unparsed-events", false, "print lines that no format knows as events too, not on standard error")
	return cmd
}

// parser runs an input over one source after the other and prints what comes.
type parser struct {
	reg      *plugins.Registry
	opt      parseOptions
	out      *bufio.Writer
	errs     *bufio.Writer
	enc      *schema.Encoder
	pool     *event.Pool
	counters pipeline.Counters

	// mu guards what follows: an input may send from several goroutines.
	mu      sync.Mutex
	name    string // of the present source as the user named it
	failed  error  // of writing
	scratch schema.Scratch
	buf     []byte
}

func newParser(reg *plugins.Registry, opt parseOptions, naming schema.Naming, out, errs io.Writer) *parser {
	return &parser{
		reg: reg, opt: opt, out: bufio.NewWriterSize(out, 256<<10), errs: bufio.NewWriterSize(errs, 64<<10),
		enc:  schema.NewEncoder(schema.EncodeOptions{Newline: true, EventID: opt.eventID, Naming: naming}),
		pool: event.NewPool(32<<20, event.Forget),
	}
}

func (p *parser) all(ctx context.Context, files []string) error {
	var errs []error
	if len(files) == 0 {
		errs = append(errs, p.one(ctx, "stdin", "-", map[string]any{}))
	}
	for _, f := range files {
		if f == "-" {
			errs = append(errs, p.one(ctx, "stdin", "-", map[string]any{}))
			continue
		}
		path, err := filepath.Abs(f)
		var fi os.FileInfo
		if err == nil {
			fi, err = os.Stat(path)
		}
		if err == nil && fi.IsDir() {
			err = errors.New("it is a directory; name the files in it")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("opening %s: %w", f, err))
			continue
		}
		errs = append(errs, p.one(ctx, "tail", f, map[string]any{
			"paths": []string{literalGlob(path)}, "position": true, "unterminated": "read",
		}))
	}
	p.summary()
	errs = append(errs, p.out.Flush(), p.errs.Flush(), p.failed)
	err := errors.Join(errs...)
	if errors.Is(err, syscall.EPIPE) {
		return nil // whoever reads has enough
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		return usage
	}
	return fail(exitFailure, err)
}

// literalGlob makes a pattern that matches just this path.
func literalGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, "{", `\{`, "}", `\}`).Replace(path)
}

// usageError is a wrong value of a flag.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// one reads one source with the input of that name.
func (p *parser) one(ctx context.Context, input, name string, settings map[string]any) error {
	p.name = name
	settings["format"], settings["timezone"], settings["records"], settings["unparsed"] = p.opt.format, p.opt.timezone, p.opt.records, "keep"
	settings["mask_tokens"] = p.opt.mask
	doc, err := json.Marshal(settings) // JSON is YAML
	if err != nil {
		return fmt.Errorf("preparing %s: %w", name, err)
	}
	spec, ok := p.reg.Lookup(plugins.KindInput, input)
	if !ok {
		return fmt.Errorf("preparing %s: there is no input %q", name, input)
	}
	node, faults := conf.Parse("flags", doc)
	if len(faults) > 0 {
		return fmt.Errorf("preparing %s: %w", name, faults.Err())
	}
	cfg, faults := conf.DecodeAny(node, spec.Defaults)
	if len(faults) > 0 {
		return &usageError{flagFault(faults[0])}
	}
	var failure error
	var mu sync.Mutex
	v, err := spec.New(cfg, plugins.Env{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Pipeline: "parse", ID: input, NodeID: "parse", Once: true,
		Pool: p.pool, Streams: &openStreams{}, Count: p.counters.Add,
		Fail: func(key string, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failure == nil {
				failure = fmt.Errorf("reading %s: %w", key, err)
			}
		},
	})
	if err != nil {
		return &usageError{err}
	}
	in, ok := v.(plugins.Input)
	if !ok {
		return fmt.Errorf("BUG: input %q built a %T", input, v)
	}
	err = in.Run(ctx, p)
	if c, ok := v.(plugins.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(err, failure)
}

// flagFault words a fault of the made-up configuration as one of a flag.
func flagFault(f conf.Fault) error {
	msg := fmt.Sprintf("--%s: %s", f.Path, f.Message)
	if f.Suggestion != "" {
		msg += fmt.Sprintf(" (did you mean %q?)", f.Suggestion)
	}
	return errors.New(msg)
}

// Send prints a batch.
func (p *parser) Send(_ context.Context, b *event.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer b.Release()
	if p.failed != nil {
		return p.failed
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.RecordClass == event.ClassUnparsed && !p.opt.unparsed {
			fmt.Fprintf(p.errs, "%s:%d: %s: %s\n", p.name, e.Offset, e.Error, printable(e.Raw))
			continue
		}
		e.LogFile = p.name
		e.Has |= event.HasLogOffset
		p.buf = p.enc.Encode(p.buf[:0], e, &p.scratch)
		if _, err := p.out.Write(p.buf); err != nil {
			p.failed = err
			return err
		}
	}
	return nil
}

// printable cuts and quotes what could upset a terminal.
func printable(line []byte) string {
	const most = 300
	cut := ""
	if len(line) > most {
		line, cut = line[:most], "…"
	}
	q := fmt.Sprintf("%q", line)
	return q[1:len(q)-1] + cut
}

// summary says on standard error what was read.
func (p *parser) summary() {
	reportInput(p.errs, pipeline.InputStatus{ID: "parse", Counts: p.counters.All()})
}

// openStreams is a checkpoint that knows nothing.
type openStreams struct{}

// Known returns no stream.
func (*openStreams) Known() []plugins.Stream { return nil }

// Open lets every stream begin at its start.
func (*openStreams) Open(_ context.Context, s plugins.Stream) (event.Position, error) {
	return s.Start, nil
}

// Update does nothing.
func (*openStreams) Update(plugins.Stream) {}

// Forget does nothing.
func (*openStreams) Forget(string) {}
