package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// backfillWish is what the command line asks for.
type backfillWish struct {
	since, until    string
	pipeline        string
	inputs, outputs []string
	rate            string
}

func newBackfillCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	var wish backfillWish
	cmd := &cobra.Command{
		Use:   "backfill --since TIME --until TIME",
		Short: "Ship the records of a time again",
		Long: `backfill reads the files of a pipeline's inputs from their beginnings, the rotated and compressed ones too, and sends the records whose
own time is from --since until just before --until through the pipeline to its outputs. Records without a time are left out and
counted. It may run beside the agent. The records have the ids that the agent gave them, so that an output which knows events by their
ids (elasticsearch) takes only what it lacks; these are the outputs that are used. Others get everything again: name them with --outputs
if that is meant. An output that the agent cuts back after a crash (file) cannot be named while the agent has a position of it: at its
next start the agent would cut off what was added. Use a copy of the configuration in which that output has another id and another path.

It keeps its own positions below the agent's state directory: after an interruption the same command goes on where it was. At the end
they are removed, so that the same command afterwards begins anew.`,
		Example: `  stacktrail backfill --since 2026-03-02T08:00:00Z --until 2026-03-02T12:00:00Z
  stacktrail backfill --since 2026-03-01T00:00:00Z --until 2026-03-02T00:00:00Z --pipeline controller --inputs tail --rate 10MB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := &backfill{log: cmd.ErrOrStderr()}
			if err := b.parse(wish); err != nil {
				return err
			}
			cfg, err := flags.load(reg)
			if err != nil {
				return err
			}
			err = b.plan(cmd.Context(), cfg, reg, wish)
			if _, newer := errors.AsType[*checkpoint.NewerError](err); newer {
				return fail(exitState, err)
			}
			if err != nil {
				return fail(exitFailure, err)
			}
			return runAgent(cmd.Context(), b.cfg, runOptions{once: true, backfill: b})
		},
	}
	flags.add(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&wish.since, "since", "", "first time, as in 2026-03-02T08:00:00Z (RFC 3339)")
	f.StringVar(&wish.until, "until", "", "time before which it ends")
	f.StringVar(&wish.pipeline, "pipeline", "", "name of the pipeline; may be left out where there is one only")
	f.StringSliceVar(&wish.inputs, "inputs", nil, "ids of the inputs, with commas (default: all that read files)")
	f.StringSliceVar(&wish.outputs, "outputs", nil, "ids of the outputs, with commas (default: all that know events by their ids)")
	f.StringVar(&wish.rate, "rate", "", "how much is read in a second at most, as in 10MB (default: no limit)")
	return cmd
}

// backfill is a run over a time that is past.
type backfill struct {
	window plugins.Window
	rate   conf.Size
	log    io.Writer

	cfg  *config.Config       // what is run
	dir  string               // its own state
	seed *checkpoint.Snapshot // what to begin with: the agent's streams, at their beginnings
}

// parse reads what can be wrong on the command line.
func (b *backfill) parse(w backfillWish) error {
	for _, t := range []struct {
		flag, text string
		into       *time.Time
	}{{"since", w.since, &b.window.Since}, {"until", w.until, &b.window.Until}} {
		at, err := time.Parse(time.RFC3339, t.text)
		if err != nil {
			return fmt.Errorf("--%s is a time such as 2026-03-02T08:00:00Z, not %q", t.flag, t.text)
		}
		*t.into = at
	}
	if !b.window.Since.Before(b.window.Until) {
		return fmt.Errorf("--since %s is not before --until %s", w.since, w.until)
	}
	if w.rate == "" {
		return nil
	}
	if err := b.rate.UnmarshalText([]byte(w.rate)); err != nil {
		return fmt.Errorf("reading --rate: %w", err)
	}
	if b.rate == 0 {
		return errors.New("--rate 0 reads nothing: leave it out for no limit")
	}
	return nil
}

// plan chooses what is run, and makes its configuration. The error says why it must not be run.
func (b *backfill) plan(ctx context.Context, cfg *config.Config, reg *plugins.Registry, w backfillWish) error {
	p, err := choosePipeline(cfg, w.pipeline)
	if err != nil {
		return err
	}
	state, err := agentState(cfg.Agent.StateDir)
	if err != nil {
		return err
	}
	inputs, err := b.chooseInputs(p, w.inputs)
	if err != nil {
		return err
	}
	outputs, err := b.chooseOutputs(p, reg, w.outputs, state.Pipelines[p.Name])
	if err != nil {
		return err
	}
	run := *cfg
	if run.Agent.NodeID == "" {
		node, made := nodeID(state.NodeID)
		if made != "" && state.NodeID == "" {
			return errors.New("this machine has no id of its own, and no agent has made one up so far: set agent.node_id, or let the agent run first, so that records get the same ids")
		}
		run.Agent.NodeID = node
	}
	b.dir = filepath.Join(cfg.Agent.StateDir, "backfill", b.folder(p.Name, inputs, outputs))
	run.Agent.StateDir, run.ListenSet, run.SocketSet, run.Warnings = b.dir, false, false, nil
	chosen := *p
	chosen.Inputs, chosen.Outputs = inputs, outputs
	if b.seed, err = seed(ctx, &chosen, state); err != nil {
		return err
	}
	pace := &pacer{rate: int64(b.rate)}
	chosen.Inputs, chosen.Outputs = slices.Clone(inputs), slices.Clone(outputs)
	for i := range chosen.Inputs {
		build := chosen.Inputs[i].Build
		chosen.Inputs[i].Build = func(env plugins.Env) (plugins.Input, error) {
			env.Window = b.window
			in, err := build(env)
			if r, ok := in.(plugins.Replayer); ok && err == nil && pace.rate > 0 {
				return &pacedInput{r, pace}, nil
			}
			return in, err
		}
	}
	for i := range chosen.Outputs {
		build := chosen.Outputs[i].Build
		chosen.Outputs[i].Build = func(env plugins.Env) (plugins.Output, error) {
			env.Repeats = true
			return build(env)
		}
	}
	run.Pipelines = []pipeline.Config{chosen}
	b.cfg = &run
	fmt.Fprintf(b.log, "pipeline %s: records from %s until %s, inputs %s, outputs %s\n", p.Name,
		b.window.Since.Format(time.RFC3339Nano), b.window.Until.Format(time.RFC3339Nano), strings.Join(idsOf(inputs), ", "), strings.Join(outputIDs(outputs), ", "))
	return nil
}

// folder is the name of the state's folder: the same for the same range, inputs and outputs.
func (b *backfill) folder(p string, inputs []pipeline.InputConfig, outputs []pipeline.OutputConfig) string {
	in, out := idsOf(inputs), outputIDs(outputs)
	slices.Sort(in)
	slices.Sort(out)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %d %q %q", p, b.window.Since.UnixNano(), b.window.Until.UnixNano(), in, out))
	return hex.EncodeToString(sum[:8])
}

func idsOf(inputs []pipeline.InputConfig) (ids []string) {
	for _, in := range inputs {
		ids = append(ids, in.ID)
	}
	return ids
}

func outputIDs(outputs []pipeline.OutputConfig) (ids []string) {
	for _, o := range outputs {
		ids = append(ids, o.ID)
	}
	return ids
}

func choosePipeline(cfg *config.Config, name string) (*pipeline.Config, error) {
	var names []string
	for _, p := range cfg.Pipelines {
		names = append(names, p.Name)
	}
	switch {
	case name == "" && len(names) == 1:
		return &cfg.Pipelines[0], nil
	case name == "":
		return nil, fmt.Errorf("there are several pipelines: name one with --pipeline: %s", strings.Join(names, ", "))
	}
	if p := pipelineNamed(cfg, name); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("there is no pipeline %q; the pipelines are: %s", name, strings.Join(names, ", "))
}

// agentState is what the agent has stored, which may run. Nothing where there is no state so far.
func agentState(dir string) (*checkpoint.Snapshot, error) {
	v, err := checkpoint.Look(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &checkpoint.Snapshot{}, nil
	case err != nil:
		return nil, err
	case v.Newer() != nil:
		return nil, v.Newer()
	}
	if good := v.Good(); good != nil {
		return good.Snapshot, nil
	}
	return &checkpoint.Snapshot{}, nil
}

// chooseInputs returns the inputs that are named, or all whose sources can be read again.
func (b *backfill) chooseInputs(p *pipeline.Config, wanted []string) (chosen []pipeline.InputConfig, err error) {
	if err := allThere("input", wanted, idsOf(p.Inputs)); err != nil {
		return nil, err
	}
	built, err := replayers(p.Name, p)
	if err != nil {
		return nil, err
	}
	defer closeAll(built)
	for _, in := range p.Inputs {
		_, again := built[in.ID].(plugins.Replayer)
		switch named := slices.Contains(wanted, in.ID); {
		case named && !again:
			return nil, fmt.Errorf("input %s reads nothing that can be read again", in.ID)
		case named, again && len(wanted) == 0:
			chosen = append(chosen, in)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("pipeline %s has no input whose sources can be read again", p.Name)
	}
	return chosen, nil
}

func allThere(what string, wanted, ids []string) error {
	for _, id := range wanted {
		if !slices.Contains(ids, id) {
			return fmt.Errorf("there is no %s %q in the pipeline; its %ss are: %s", what, id, what, strings.Join(ids, ", "))
		}
	}
	return nil
}

// chooseOutputs returns the outputs that are named, or all that know events by their ids.
func (b *backfill) chooseOutputs(p *pipeline.Config, reg *plugins.Registry, wanted []string, known checkpoint.Pipeline) (chosen []pipeline.OutputConfig, err error) {
	if err := allThere("output", wanted, outputIDs(p.Outputs)); err != nil {
		return nil, err
	}
	var left []string
	for _, o := range p.Outputs {
		spec, _ := reg.Lookup(plugins.KindOutput, o.Type)
		switch {
		case slices.Contains(wanted, o.ID):
			if err := mayAppend(p.Name, o, known); err != nil {
				return nil, err
			}
			chosen = append(chosen, o)
		case len(wanted) > 0:
		case spec.KnowsIDs:
			chosen = append(chosen, o)
		default:
			left = append(left, o.ID)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("pipeline %s has no output that knows events by their ids: %s would get again what was sent already; to send it all the same, name the outputs with --outputs",
			p.Name, strings.Join(left, ", "))
	}
	if len(left) > 0 {
		fmt.Fprintf(b.log, "left out, because they do not know events by their ids and would get them again (--outputs includes them): %s\n", strings.Join(left, ", "))
	}
	return chosen, nil
}

// mayAppend refuses an output that the agent cuts back: at its next start it would remove what was added here.
func mayAppend(name string, o pipeline.OutputConfig, known checkpoint.Pipeline) error {
	if _, agents := known.Outputs[o.ID]; !agents {
		return nil
	}
	plug, err := o.Build(bareEnv(name, o.ID))
	if err != nil {
		return fmt.Errorf("building output %q: %w", o.ID, err)
	}
	if c, ok := plug.(plugins.Closer); ok {
		defer func() { _ = c.Close() }() // it held no event
	}
	if _, cuts := plug.(plugins.Committer); !cuts {
		return nil
	}
	return fmt.Errorf("output %s is what the agent writes, and at its next start it would cut off what is added: use a copy of the configuration, in which the output has another id and another path", o.ID)
}

// seed makes a state in which the agent's streams stand at their beginnings: so they have the names that the agent gave them, and with
// these the ids of their records. Those of which is proved that their content, as far as the agent read it, is gone are left out: a file
// that begins like one of them must not be taken for it.
func seed(ctx context.Context, p *pipeline.Config, agent *checkpoint.Snapshot) (*checkpoint.Snapshot, error) {
	of := checkpoint.Pipeline{Outputs: map[string]checkpoint.Output{}}
	begin := map[string]checkpoint.Cursor{}
	for _, o := range p.Outputs {
		of.Outputs[o.ID], begin[o.ID] = checkpoint.Output{}, checkpoint.Cursor{}
	}
	inputs, err := replayers(p.Name, p)
	if err != nil {
		return nil, err
	}
	defer closeAll(inputs)
	for _, s := range agent.Pipelines[p.Name].Streams {
		in, ok := inputs[s.Input].(plugins.Replayer)
		if !ok {
			continue
		}
		err := in.CanReplay(ctx, plugins.Stream{Name: s.Name, Lane: s.Lane, Meta: s.Meta}, furthest(s))
		if errors.Is(err, plugins.ErrGone) {
			continue
		}
		s.Drained, s.Cursors = false, begin
		of.Streams = append(of.Streams, s)
	}
	return &checkpoint.Snapshot{Pipelines: map[string]checkpoint.Pipeline{p.Name: of}}, nil
}

// furthest is the position of the output that is most advanced.
func furthest(s checkpoint.Stream) (at event.Position) {
	for _, c := range s.Cursors {
		if c.Seq > at.Seq {
			at = event.Position{Seq: c.Seq, Token: string(c.Token)}
		}
	}
	return at
}

// finish removes the positions, unless there are dead letters: those stay.
func (b *backfill) finish() error {
	all, err := findLetters(filepath.Join(b.dir, "dead"))
	if err != nil {
		return err
	}
	for i := range all {
		c, err := all[i].count()
		if err != nil {
			return err
		}
		if c.Events > 0 {
			fmt.Fprintf(b.log, "%s of %s: see 'stacktrail dlq list --state-dir %s'\n", count(c.Events, "dead letter"), all[i].name(), b.dir)
			return b.forget("checkpoint", "checkpoint.prev", "plugins", "lock")
		}
	}
	if err := b.forget(""); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(b.dir)) // unless it holds those of others
	return nil
}

func (b *backfill) forget(names ...string) error {
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(b.dir, name)); err != nil {
			return fmt.Errorf("removing the positions of the backfill: %w", err)
		}
	}
	return nil
}

// pacer lets so many bytes pass in a second.
type pacer struct {
	rate int64

	mu   sync.Mutex // guards next
	next time.Time  // when all that passed so far has had its time
}

// wait returns when n bytes more have had their time.
func (p *pacer) wait(ctx context.Context, n int64) error {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	until := p.next.Sub(now)
	p.mu.Unlock()
	timer := time.NewTimer(until)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pacedInput reads no faster than a rate.
type pacedInput struct {
	plugins.Replayer
	pace *pacer
}

// Run runs the input with a sink that holds it up.
func (in *pacedInput) Run(ctx context.Context, sink plugins.Sink) error {
	return in.Replayer.Run(ctx, &pacedSink{sink, in.pace})
}

// Sources returns those of the input, if it tells.
func (in *pacedInput) Sources() []plugins.Source {
	if m, ok := in.Replayer.(plugins.Measurer); ok {
		return m.Sources()
	}
	return nil
}

// Close closes the input, if it holds something.
func (in *pacedInput) Close() error {
	if c, ok := in.Replayer.(plugins.Closer); ok {
		return c.Close()
	}
	return nil
}

type pacedSink struct {
	plugins.Sink
	pace *pacer
}

// Send passes a batch on when its bytes have had their time.
func (s *pacedSink) Send(ctx context.Context, b *event.Batch) error {
	if err := s.pace.wait(ctx, b.Span.To.Seq-b.Span.From.Seq); err != nil {
		b.Release()
		return err
	}
	return s.Sink.Send(ctx, b)
}
