package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// measured is what calls of a plugin cost.
type measured struct {
	Kind    string  `json:"kind"`
	Name    string  `json:"name"`
	BuiltIn bool    `json:"built_in"`
	Batch   int     `json:"batch"` // events of a call
	Calls   int     `json:"calls"`
	Rate    float64 `json:"events_per_second"` // by time
	Call    float64 `json:"call_us"`           // time
	Agent   float64 `json:"agent_cpu_ns"`      // CPU of an event in this process
	Plugin  float64 `json:"plugin_cpu_ns"`     // in the plugin's
}

func newPluginBenchCommand(reg *plugins.Registry) *cobra.Command {
	var p program
	output, lasting := "text", 2*time.Second
	cmd := &cobra.Command{
		Use:   "bench PATH",
		Short: "Measure a plugin program",
		Long: `bench shows a plugin program batches of 1000 events, made of lines of nova-api by the parser, one call after the other as the agent
does, and says how long a call takes and what it costs in both processes. Beside it, in the same run, it measures what is built in and does
nothing: the output blackhole, and the processor drop with a condition that never holds. Only the ratio of the two can be compared with
that of another machine.

An output really writes: see 'stacktrail plugin verify --help' for its configuration.`,
		Example: `  stacktrail plugin bench ./mask --set 'pattern=password=[^&]+'
  stacktrail plugin bench ./sqlite --config verify.yaml -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output %s: use text or json", output)
			}
			if lasting <= 0 {
				return fmt.Errorf("--for %v: use a duration above zero", lasting)
			}
			rows, err := benchPlugin(cmd, reg, &p, args[0], lasting)
			if err != nil {
				return err
			}
			b, err := renderMeasured(rows, output)
			return printed(cmd, b, err)
		},
	}
	p.add(cmd)
	cmd.Flags().DurationVar(&lasting, "for", lasting, "how long to measure each")
	cmd.Flags().StringVarP(&output, "output", "o", output, "text or json")
	return cmd
}

// benchPlugin measures the plugins of a program and, for each kind, what is built in.
func benchPlugin(cmd *cobra.Command, reg *plugins.Registry, p *program, path string, lasting time.Duration) (rows []measured, err error) {
	dir, err := os.MkdirTemp("", "stacktrail-bench-")
	if err != nil {
		return nil, fail(exitFailure, fmt.Errorf("making a directory: %w", err))
	}
	defer func() { err = errors.Join(err, fail(exitFailure, os.RemoveAll(dir))) }()
	err = p.start(cmd.Context(), path, cmd.ErrOrStderr())
	defer p.host.Close()
	if err != nil {
		return nil, fail(exitFailure, fmt.Errorf("plugin %s: %w", p.path, err))
	}
	if err := p.choose(); err != nil {
		return nil, err
	}
	if err := p.configure(dir); err != nil {
		return nil, err
	}
	batches, err := realBatches(cmd.Context(), reg, dir)
	if err != nil {
		return nil, fail(exitFailure, err)
	}
	w := newBencher(p, batches, lasting, dir)
	done := map[plugins.Kind]bool{}
	for _, s := range p.specs {
		m, err := w.measure(cmd.Context(), s, p.configs[ownName(s)], false)
		if err != nil {
			return nil, fail(exitFailure, fmt.Errorf("%s %q: %w", s.Kind, s.Name, err))
		}
		rows = append(rows, m)
		if done[s.Kind] {
			continue
		}
		done[s.Kind] = true
		name, config := "drop", `{"when": "method == \"NONE\""}`
		if s.Kind == plugins.KindOutput {
			name, config = "blackhole", ""
		}
		nothing, ok := reg.Lookup(s.Kind, name)
		if !ok {
			continue // a build without it
		}
		if m, err = w.measure(cmd.Context(), nothing, config, true); err != nil {
			return nil, fail(exitFailure, fmt.Errorf("%s %q: %w", s.Kind, name, err))
		}
		rows = append(rows, m)
	}
	return rows, nil
}

// bencher calls plugins with the same batches, again and again.
type bencher struct {
	*program
	lasting time.Duration
	dir     string

	batches []*event.Batch
	before  [][]event.Event   // what they are before a call
	extra   [][][]event.Field // room for what a call does to their extra fields
	events  []*event.Event    // of all batches: what an output is shown
}

func newBencher(p *program, batches []*event.Batch, lasting time.Duration, dir string) *bencher {
	const more = 4 // fields that a plugin may add without asking for memory
	w := &bencher{program: p, batches: batches, lasting: lasting, dir: dir}
	for _, b := range batches {
		var extra [][]event.Field
		for i := range b.Events {
			extra = append(extra, make([]event.Field, 0, len(b.Events[i].Extra)+more))
		}
		w.before, w.extra = append(w.before, slices.Clone(b.Events)), append(w.extra, extra)
		w.events = append(w.events, pointersTo(b)...)
	}
	w.events = w.events[:min(len(w.events), benchBatch)]
	return w
}

// measure measures one plugin.
func (w *bencher) measure(ctx context.Context, s plugins.Spec, config string, builtIn bool) (measured, error) {
	m := measured{Kind: string(s.Kind), Name: s.Name, BuiltIn: builtIn}
	n, faults := conf.Parse("config", []byte(strings.ReplaceAll(config, "$DIR", w.dir)))
	cfg, more := conf.DecodeAny(n, s.Defaults)
	if faults = append(faults, more...); len(faults) > 0 {
		return m, faults
	}
	plugin, err := s.New(cfg, benchEnv(s, w.dir))
	if err != nil {
		return m, err
	}
	if x, ok := plugin.(plugins.Opener); ok {
		if err := x.Open(ctx); err != nil {
			return m, fmt.Errorf("opening: %w", err)
		}
	}
	err = w.calls(ctx, plugin, &m)
	if x, ok := plugin.(plugins.Closer); ok {
		err = errors.Join(err, x.Close())
	}
	return m, err
}

// calls warms up, measures what a call costs, and takes off what getting ready for one costs.
func (w *bencher) calls(ctx context.Context, plugin any, m *measured) error {
	call := func(b *event.Batch) (int, error) { return len(b.Events), nil }
	idle, err := w.loop(w.lasting/4, call)
	if err != nil {
		return err
	}
	switch x := plugin.(type) {
	case plugins.Processor:
		call = func(b *event.Batch) (int, error) { return len(b.Events), x.Process(ctx, b) }
	case plugins.Output:
		call = func(*event.Batch) (int, error) { return len(w.events), x.Write(ctx, w.events) }
	}
	if _, err := w.loop(w.lasting/4, call); err != nil {
		return err
	}
	group := w.pid()
	before, _ := groupUsage(group)
	spent, err := w.loop(w.lasting, call)
	if err != nil {
		return err
	}
	after, _ := groupUsage(group)
	if w.pid() != group {
		return errors.New("its process ended while it was measured")
	}
	events := float64(spent.events)
	m.Calls, m.Batch = spent.calls, spent.events/spent.calls
	m.Call, m.Rate = spent.took.Seconds()*1e6/float64(spent.calls), events/spent.took.Seconds()
	ready := float64(idle.cpu) / float64(idle.calls)
	m.Agent = max(0, float64(spent.cpu)-ready*float64(spent.calls)) / events
	if !m.BuiltIn {
		m.Plugin = float64(after-before) / events
	}
	return nil
}

// spent is what calls took: time for the calls alone, and CPU of this process for all.
type spent struct {
	took, cpu     time.Duration
	calls, events int
}

// loop calls for some time, with the events as they were at first.
func (w *bencher) loop(lasting time.Duration, call func(*event.Batch) (int, error)) (s spent, err error) {
	start := ownCPU()
	for end := time.Now().Add(lasting); s.calls == 0 || time.Now().Before(end); s.calls++ {
		i := s.calls % len(w.batches)
		w.reset(i)
		began := time.Now()
		n, err := call(w.batches[i])
		if err != nil {
			return s, err
		}
		s.took, s.events = s.took+time.Since(began), s.events+n
	}
	s.cpu = ownCPU() - start
	return s, nil
}

// reset undoes what a processor did to a batch.
func (w *bencher) reset(i int) {
	events := w.batches[i].Events
	copy(events, w.before[i])
	for k := range events {
		events[k].Extra = append(w.extra[i][k][:0], w.before[i][k].Extra...)
	}
}

// ownCPU is what this process took of the CPU.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("BUG: asking for the CPU time: " + err.Error())
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// renderMeasured makes the text or the JSON of figures.
func renderMeasured(rows []measured, output string) ([]byte, error) {
	var b bytes.Buffer
	if output == "json" {
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		err := enc.Encode(rows)
		return b.Bytes(), err
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "kind\tname\tevents per call\tevents/s\tµs per call\tCPU ns per event\tin the agent\tin the plugin\tevents/s by CPU\t")
	for _, m := range rows {
		name := m.Name
		if m.BuiltIn {
			name += " (built in)"
		}
		cpu := m.Agent + m.Plugin
		fmt.Fprintf(t, "%s\t%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", m.Kind, name, m.Batch, m.Rate, m.Call, cpu, m.Agent, m.Plugin, 1e9/max(cpu, 0.1))
	}
	err := t.Flush()
	return b.Bytes(), err
}

// What is measured with: calls of so many events, made of so many lines.
const (
	benchBatch = 1000
	benchLines = 4000
)

// realBatches has the parser make batches of lines as nova-api writes them.
func realBatches(ctx context.Context, reg *plugins.Registry, dir string) ([]*event.Batch, error) {
	var text bytes.Buffer
	at := time.Date(2026, 3, 2, 6, 0, 0, 0, time.UTC)
	for i := range benchLines {
		at = at.Add(time.Millisecond)
		fmt.Fprintf(&text, "%s %d INFO nova.osapi_compute.wsgi.server [None req-4a6b86b9-4d0e-4aa7-9cea-%012d 0c32fec09490474ba83958da17e4%04x c3c35624f9ee488d98c33ed76433%04x - - default default] "+
			"192.0.2.%d \"GET /v2.1/servers/%08d-9f1c?limit=%d HTTP/1.1\" status: %d len: %d time: 0.%07d\n",
			at.Format("2006-01-02 15:04:05.000"), 4211+i%8, i, i%97, i%31, i%250, i, i, 200+i%200/199*303, 400+i, i*31)
	}
	path := filepath.Join(dir, "nova-api.log")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("writing lines: %w", err)
	}
	spec, ok := reg.Lookup(plugins.KindInput, "tail")
	if !ok {
		return nil, errors.New("parsing lines: this build has no input tail")
	}
	n, faults := conf.Parse("config", fmt.Appendf(nil, "{paths: [%q], timezone: UTC}", path))
	cfg, more := conf.DecodeAny(n, spec.Defaults)
	if faults = append(faults, more...); len(faults) > 0 {
		return nil, fmt.Errorf("parsing lines: %w", faults)
	}
	v, err := spec.New(cfg, benchEnv(spec, dir))
	if err != nil {
		return nil, fmt.Errorf("parsing lines: %w", err)
	}
	in, ok := v.(plugins.Input)
	if !ok {
		return nil, fmt.Errorf("BUG: the input tail built a %T", v)
	}
	var got collector
	if err := in.Run(ctx, &got); err != nil {
		return nil, fmt.Errorf("parsing lines: %w", err)
	}
	if len(got.batches) > 1 {
		got.batches = got.batches[:len(got.batches)-1] // the last one is not full
	}
	if len(got.batches) == 0 {
		return nil, errors.New("parsing lines: nothing came")
	}
	return got.batches, nil
}

// benchEnv is what an instance gets.
func benchEnv(s plugins.Spec, dir string) plugins.Env {
	return plugins.Env{
		Log: discardLog(), Pipeline: "bench", ID: s.Name, NodeID: "bench", StateDir: filepath.Join(dir, "state", s.Name), Once: true,
		Pool: event.NewPool(64 << 20), Streams: &openStreams{}, Encoder: schema.NewEncoder,
		Count: func(string, string, int64) {}, Fail: func(string, error) {},
	}
}

// collector keeps the batches that an input sends.
type collector struct {
	mu      sync.Mutex // guards batches
	batches []*event.Batch
}

// Send takes a batch.
func (c *collector) Send(_ context.Context, b *event.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches = append(c.batches, b)
	return nil
}
