package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

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
	output   string
	summary  string
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
		Long: `parse reads log files (also .gz and .zst), or standard input, and prints one JSON object per event, with the file and offset where
it stands, or, with --output, a line or a row of a table. Lines that no format knows go to standard error with the reason, and a
summary at the end: lines by format and by reason, the time from the first to the last record, and for each route its requests by
class of status with the durations that half, 95 % and 99 % of them did not go beyond (to within 0.8 %).

All cores are used. What is printed is in the order of the files and lines, and the same on any number of cores.`,
		Example: `  stacktrail parse /var/log/nova/nova-api.log
  stacktrail parse -o text /var/log/nova/nova-api.log*
  zcat old.gz | stacktrail parse --format haproxy-http --timezone Europe/Berlin`,
		RunE: func(cmd *cobra.Command, files []string) error {
			naming, err := checkParseFlags(opt)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("explain") {
				return explainLine(reg, opt, files, cmd.OutOrStdout())
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return parseFiles(ctx, reg, opt, naming, files, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.format, "format", "auto", "format of the lines, or auto")
	f.StringVar(&opt.timezone, "timezone", "Local", "zone of times that carry none")
	f.StringVar(&opt.records, "records", "access", "access, audit: CADF records too, or all: service-log lines too")
	f.StringVar(&opt.naming, "naming", "ovh", "names of the fields: ovh, ecs or otel")
	f.StringVarP(&opt.output, "output", "o", outputJSON, "json, text: a line for people, or table")
	f.StringVar(&opt.summary, "summary", outputText, "how to print the summary: text or json")
	f.BoolVar(&opt.eventID, "event-id", false, "add event_id")
	f.BoolVar(&opt.mask, "mask-tokens", true, "put *** for tokens, passwords and signatures")
	f.StringVar(&opt.explain, "explain", "", "show for this `LINE` which formats were tried and how far each got; FILE is then only a name")
	f.BoolVar(&opt.unparsed, "unparsed-events", false, "print lines that no format knows as events too, not on standard error")
	return cmd
}

// checkParseFlags finds values of flags that inputs do not look at.
func checkParseFlags(opt parseOptions) (schema.Naming, error) {
	naming, err := schema.NamingByName(opt.naming)
	if err != nil {
		return naming, fmt.Errorf("--naming: %w", err)
	}
	if err := oneOf("output", opt.output, outputJSON, outputText, outputTable); err != nil {
		return naming, err
	}
	return naming, oneOf("summary", opt.summary, outputText, outputJSON)
}

// oneOf refuses a value of a flag that is none of these.
func oneOf(flag, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	last := len(known) - 1
	err := fmt.Errorf("--%s: unknown value %q; use %s or %s", flag, value, strings.Join(known[:last], ", "), known[last])
	if near := conf.Suggest(value, known); near != "" {
		err = fmt.Errorf("%w (did you mean %q?)", err, near)
	}
	return err
}

// parseFiles parses files, or standard input, and prints their records and a summary.
func parseFiles(ctx context.Context, reg *plugins.Registry, opt parseOptions, naming schema.Naming, files []string, out, errs io.Writer) error {
	sources := sourcesOf(files)
	screen := &screen{w: errs}
	p := newParser(opt, naming, out, screen, nil)
	p.open = func(ctx context.Context, s *source, to *lane) error { return p.read(ctx, reg, s, to) }
	shown := startParseProgress(screen, out, sources, &p.counters)
	failed := p.run(ctx, sources)
	shown.stop()
	var all []error
	for _, s := range sources {
		all = append(all, s.err)
	}
	if ctx.Err() != nil {
		all = append(all, errors.New("interrupted: the summary counts what was read, and not all of that was printed"))
	}
	err := errors.Join(append(all, failed, p.end())...)
	if errors.Is(err, syscall.EPIPE) {
		return nil // whoever reads has enough
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		return usage
	}
	return fail(exitFailure, err)
}

// sourcesOf names what is to be read.
func sourcesOf(files []string) []*source {
	if len(files) == 0 {
		files = []string{"-"}
	}
	var list []*source
	for _, f := range files {
		s := &source{name: f, size: -1}
		list = append(list, s)
		if f == "-" {
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
			s.err, s.size = fmt.Errorf("opening %s: %w", f, err), 0
			continue
		}
		s.path = path
		if ext := filepath.Ext(path); fi.Mode().IsRegular() && ext != ".gz" && ext != ".zst" {
			s.size = fi.Size()
		}
	}
	return list
}

// literalGlob makes a pattern that matches just this path.
func literalGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, "{", `\{`, "}", `\}`).Replace(path)
}

// usageError is a wrong value of a flag.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// read reads a source to its end with its input.
func (p *parser) read(ctx context.Context, reg *plugins.Registry, s *source, to *lane) error {
	input, settings := "stdin", map[string]any{}
	if s.path != "" {
		input, settings = "tail", map[string]any{"paths": []string{literalGlob(s.path)}, "position": true, "unterminated": "read"}
	}
	spec, cfg, err := p.configuration(reg, s.name, input, settings)
	if err != nil {
		return err
	}
	var failure error
	var mu sync.Mutex
	v, err := spec.New(cfg, plugins.Env{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Pipeline: "parse", ID: input, NodeID: "parse", Once: true,
		Pool: to.pool, Streams: &openStreams{}, Count: p.counters.Add,
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
	err = in.Run(ctx, to)
	if c, ok := v.(plugins.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	if ctx.Err() != nil {
		return nil // it was stopped, which is no fault of this source
	}
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(err, failure)
}

// configuration is that of an input with what the flags say.
func (p *parser) configuration(reg *plugins.Registry, name, input string, settings map[string]any) (spec plugins.Spec, cfg any, err error) {
	settings["format"], settings["timezone"], settings["records"], settings["unparsed"] = p.opt.format, p.opt.timezone, p.opt.records, "keep"
	settings["mask_tokens"] = p.opt.mask
	doc, err := json.Marshal(settings) // JSON is YAML
	if err != nil {
		return spec, nil, fmt.Errorf("preparing %s: %w", name, err)
	}
	spec, ok := reg.Lookup(plugins.KindInput, input)
	if !ok {
		return spec, nil, fmt.Errorf("preparing %s: there is no input %q", name, input)
	}
	node, faults := conf.Parse("flags", doc)
	if len(faults) > 0 {
		return spec, nil, fmt.Errorf("preparing %s: %w", name, faults.Err())
	}
	cfg, faults = conf.DecodeAny(node, spec.Defaults)
	if len(faults) > 0 {
		return spec, nil, &usageError{flagFault(faults[0])}
	}
	return spec, cfg, nil
}

// flagFault words a fault of the made-up configuration as one of a flag.
func flagFault(f conf.Fault) error {
	msg := fmt.Sprintf("--%s: %s", f.Path, f.Message)
	if f.Suggestion != "" {
		msg += fmt.Sprintf(" (did you mean %q?)", f.Suggestion)
	}
	return errors.New(msg)
}

// shownMost is how many bytes of a text people are shown.
const shownMost = 300

// printable cuts and quotes what could upset a terminal.
func printable(line []byte) string {
	cut := ""
	if len(line) > shownMost {
		line, cut = line[:shownMost], "…"
	}
	q := fmt.Sprintf("%q", line)
	return q[1:len(q)-1] + cut
}

// end prints what is left, and the summary.
func (p *parser) end() error {
	var err error
	if p.table != nil {
		err = p.table.close()
	}
	if p.opt.summary == outputJSON {
		err = errors.Join(err, p.summary.json(p.errs, p.counters.All()))
	} else {
		p.summary.text(p.errs, p.counters.All())
	}
	return errors.Join(err, p.flush())
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
