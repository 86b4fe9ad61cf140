package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

func newStateCommand(reg *plugins.Registry) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Look at the positions that are stored, check and repair them",
		Long: `state works on the state directory itself, whether an agent runs or not. show and check only read. The other way to ask a running
agent is 'stacktrail status'.`,
		Example: "  stacktrail state show\n  stacktrail state check && systemctl start stacktrail",
	}
	cmd.AddCommand(newStateShowCommand(reg), newStateCheckCommand(reg), newStateRepairCommand(reg))
	return group(cmd)
}

// stateFlags are the flags that all of them have.
type stateFlags struct {
	config configFlags
	format string
}

func (f *stateFlags) add(cmd *cobra.Command) {
	f.config.add(cmd.Flags())
	cmd.Flags().StringVarP(&f.format, "output", "o", "text", "text or json")
}

// look loads the configuration and reads the state directory that it names.
func (f *stateFlags) look(reg *plugins.Registry) (*config.Config, *checkpoint.View, error) {
	if !slices.Contains([]string{"text", "json"}, f.format) {
		return nil, nil, fmt.Errorf("--output is text or json, not %q", f.format)
	}
	cfg, err := f.config.load(reg)
	if err != nil {
		return nil, nil, err
	}
	v, err := checkpoint.Look(cfg.Agent.StateDir)
	if err != nil {
		return nil, nil, fail(exitFailure, err)
	}
	return cfg, v, nil
}

// print writes v as JSON, or has text write it for people.
func (f *stateFlags) print(w io.Writer, v any, text func(io.Writer)) error {
	if f.format == "json" {
		return fail(exitFailure, json.NewEncoder(w).Encode(v))
	}
	text(w)
	return nil
}

func newStateShowCommand(reg *plugins.Registry) *cobra.Command {
	var flags stateFlags
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show how far every output has every file",
		Long: `show prints what the checkpoint says: for every file its size and how far each output has it, in bytes of the uncompressed content;
for every output whether the checkpoint knows it, and whether it holds a token to cut back to. A running agent is up to
agent.checkpoint_interval ahead of it. The time beside a lag is how long ago the file was written last: what is missing is at least
that old. show changes nothing.`,
		Example: "  stacktrail state show\n  stacktrail state show -o json | jq '.pipelines[].streams[] | {file, outputs}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, v, err := flags.look(reg)
			if err != nil {
				return err
			}
			r := newStateReport(v, time.Now())
			if good := v.Good(); good != nil && v.Newer() == nil {
				if err := r.describe(cmd.Context(), cfg, good.Snapshot, time.Now()); err != nil {
					return fail(exitFailure, err)
				}
			}
			if err := flags.print(cmd.OutOrStdout(), r, r.print); err != nil {
				return err
			}
			return unusable(v)
		},
	}
	flags.add(cmd)
	return cmd
}

// unusable says why a start would have no positions.
func unusable(v *checkpoint.View) error {
	switch {
	case v.Newer() != nil:
		return fail(exitState, v.Newer())
	case v.Good() != nil:
		return nil
	case !v.Last.There && !v.Prev.There:
		return fail(exitFailure, fmt.Errorf("there is no checkpoint in %s", v.Dir))
	}
	return fail(exitFailure, errors.Join(v.Last.Err, v.Prev.Err))
}

// stateReport is what show says.
type stateReport struct {
	Dir         string             `json:"dir"`
	Running     bool               `json:"running"`
	PID         int                `json:"pid,omitempty"`
	Used        string             `json:"used,omitempty"` // the generation that a start would use
	Format      int                `json:"format,omitempty"`
	Written     time.Time          `json:"written,omitzero"`
	Age         float64            `json:"age_seconds"`
	Generations []generationReport `json:"generations"`
	Aside       []string           `json:"set_aside,omitempty"`
	Pipelines   []pipelineReport   `json:"pipelines"`
}

type generationReport struct {
	Name    string    `json:"name"` // last or previous
	Path    string    `json:"path"`
	State   string    `json:"state"` // good, absent, damaged, newer or unreadable
	Format  int       `json:"format,omitempty"`
	Size    int64     `json:"size"`
	Written time.Time `json:"written,omitzero"`
	Error   string    `json:"error,omitempty"`
}

type pipelineReport struct {
	Name       string         `json:"name"`
	Configured bool           `json:"configured"`
	Outputs    []outputReport `json:"outputs"`
	Streams    []streamReport `json:"streams"`
}

type outputReport struct {
	ID         string `json:"id"`
	Configured bool   `json:"configured"`
	Known      bool   `json:"known"` // to the checkpoint
	Token      bool   `json:"token"` // there is something to cut back to
}

type streamReport struct {
	Input   string                  `json:"input"`
	Stream  string                  `json:"stream"`
	File    string                  `json:"file"`
	Size    int64                   `json:"size"` // of the uncompressed content; -1: not known
	Written time.Time               `json:"written,omitzero"`
	Drained bool                    `json:"drained"` // read to its end, and will not grow
	Gone    bool                    `json:"gone"`    // the content is there no more
	Error   string                  `json:"error,omitempty"`
	Outputs map[string]cursorReport `json:"outputs"`
}

type cursorReport struct {
	At         int64    `json:"at"`
	LagBytes   *int64   `json:"lag_bytes,omitempty"`   // where the size is known
	LagSeconds *float64 `json:"lag_seconds,omitempty"` // how long ago the file was written last, where bytes are missing
}

func newStateReport(v *checkpoint.View, now time.Time) *stateReport {
	r := &stateReport{Dir: v.Dir, Running: v.Running, PID: v.PID, Generations: generationsOf(v), Aside: v.Aside, Pipelines: []pipelineReport{}}
	if good := v.Good(); good != nil {
		r.Used = "last"
		if good == &v.Prev {
			r.Used = "previous"
		}
		r.Format, r.Written, r.Age = good.Format, good.Snapshot.Written, now.Sub(good.Snapshot.Written).Seconds()
	}
	return r
}

func generationsOf(v *checkpoint.View) (all []generationReport) {
	for _, g := range []struct {
		name string
		*checkpoint.Generation
	}{{"last", &v.Last}, {"previous", &v.Prev}} {
		of := generationReport{Name: g.name, Path: g.Path, State: g.State(), Format: g.Format, Size: g.Size}
		if g.Snapshot != nil {
			of.Written = g.Snapshot.Written
		}
		if g.Err != nil {
			of.Error = g.Err.Error()
		}
		all = append(all, of)
	}
	return all
}

// lookPatience is how long one stream's file is searched.
const lookPatience = 10 * time.Second

// describe adds what the snapshot says, compared with the files as they are now.
func (r *stateReport) describe(ctx context.Context, cfg *config.Config, snap *checkpoint.Snapshot, now time.Time) error {
	for _, name := range slices.Sorted(maps.Keys(snap.Pipelines)) {
		known, conf := snap.Pipelines[name], pipelineNamed(cfg, name)
		p := pipelineReport{Name: name, Configured: conf != nil, Outputs: outputsOf(known, conf), Streams: []streamReport{}}
		inputs, err := replayers(name, conf)
		if err != nil {
			return err
		}
		for _, s := range known.Streams {
			p.Streams = append(p.Streams, describeStream(ctx, inputs[s.Input], s, now))
		}
		closeAll(inputs)
		slices.SortFunc(p.Streams, func(a, b streamReport) int {
			return cmp.Or(cmp.Compare(a.Input, b.Input), cmp.Compare(a.File, b.File), cmp.Compare(a.Stream, b.Stream))
		})
		r.Pipelines = append(r.Pipelines, p)
	}
	return nil
}

func pipelineNamed(cfg *config.Config, name string) *pipeline.Config {
	for i := range cfg.Pipelines {
		if cfg.Pipelines[i].Name == name {
			return &cfg.Pipelines[i]
		}
	}
	return nil
}

// outputsOf lists the outputs that the checkpoint knows or the configuration has.
func outputsOf(known checkpoint.Pipeline, conf *pipeline.Config) []outputReport {
	all := map[string]outputReport{}
	for id, o := range known.Outputs {
		if id != "" { // the dead letter of the processors
			all[id] = outputReport{ID: id, Known: true, Token: o.Token != nil}
		}
	}
	if conf != nil {
		for _, o := range conf.Outputs {
			of := all[o.ID]
			of.ID, of.Configured = o.ID, true
			all[o.ID] = of
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b outputReport) int { return cmp.Compare(a.ID, b.ID) })
}

// replayers builds the inputs of a pipeline, to be asked about streams. Those whose streams cannot be read again are there as well.
func replayers(name string, conf *pipeline.Config) (map[string]plugins.Input, error) {
	inputs := map[string]plugins.Input{}
	if conf == nil {
		return inputs, nil
	}
	for _, in := range conf.Inputs {
		plug, err := in.Build(bareEnv(name, in.ID))
		if err != nil {
			closeAll(inputs)
			return nil, fmt.Errorf("building input %q: %w", in.ID, err)
		}
		inputs[in.ID] = plug
	}
	return inputs, nil
}

func closeAll(inputs map[string]plugins.Input) {
	for _, in := range inputs {
		if c, ok := in.(plugins.Closer); ok {
			_ = c.Close() // it read nothing
		}
	}
}

func describeStream(ctx context.Context, in plugins.Input, s checkpoint.Stream, now time.Time) streamReport {
	r := streamReport{Input: s.Input, Stream: s.Name, File: s.Lane, Size: -1, Drained: s.Drained, Outputs: map[string]cursorReport{}}
	if d, ok := in.(plugins.Describer); ok {
		ctx, cancel := context.WithTimeout(ctx, lookPatience)
		defer cancel()
		src, err := d.Describe(ctx, plugins.Stream{Name: s.Name, Lane: s.Lane, Meta: s.Meta, Drained: s.Drained, Start: lowest(s)})
		r.File, r.Size, r.Written, r.Gone = cmp.Or(src.Name, s.Lane), src.Size, src.Written, src.Gone
		if err != nil {
			r.Error, r.Size = err.Error(), -1
		}
	}
	for id, c := range s.Cursors {
		of := cursorReport{At: c.Seq}
		if r.Size >= 0 {
			lag := max(0, r.Size-c.Seq)
			of.LagBytes = &lag
			if lag > 0 && !r.Written.IsZero() {
				age := now.Sub(r.Written).Seconds()
				of.LagSeconds = &age
			}
		}
		r.Outputs[id] = of
	}
	return r
}

// lowest is the position of the output that is furthest behind.
func lowest(s checkpoint.Stream) (at event.Position) {
	first := true
	for _, c := range s.Cursors {
		if first || c.Seq < at.Seq {
			at, first = event.Position{Seq: c.Seq, Token: string(c.Token)}, false
		}
	}
	return at
}

func (r *stateReport) print(w io.Writer) {
	printHead(w, r.Dir, r.Running, r.PID)
	now := r.Written.Add(time.Duration(r.Age * float64(time.Second)))
	if r.Used != "" {
		fmt.Fprintf(w, "checkpoint: %s generation, format %d, stored %v ago\n", r.Used, r.Format, ago(now, r.Written))
	}
	for _, g := range r.Generations {
		if g.Error != "" {
			fmt.Fprintf(w, "  %s generation: %s\n", g.Name, g.Error)
		}
	}
	for _, p := range r.Pipelines {
		fmt.Fprintf(w, "pipeline %s%s\n", p.Name, notConfigured(p.Configured))
		for _, o := range p.Outputs {
			what := "not known to the checkpoint"
			switch {
			case o.Token:
				what = "known, with a token to cut back to"
			case o.Known:
				what = "known, without a token"
			}
			fmt.Fprintf(w, "  output    %-12s %s%s\n", o.ID, what, notConfigured(o.Configured))
		}
		last := ""
		for i := range p.Streams {
			s := &p.Streams[i]
			if s.Input != last {
				fmt.Fprintf(w, "  input     %s\n", s.Input)
				last = s.Input
			}
			s.print(w)
		}
	}
}

func printHead(w io.Writer, dir string, running bool, pid int) {
	switch {
	case running && pid > 0:
		fmt.Fprintf(w, "state directory %s, in use by the agent with pid %d\n", dir, pid)
	case running:
		fmt.Fprintf(w, "state directory %s, in use by an agent\n", dir)
	default:
		fmt.Fprintf(w, "state directory %s, no agent runs with it\n", dir)
	}
}

func notConfigured(configured bool) string {
	if configured {
		return ""
	}
	return " (not configured now)"
}

func (s *streamReport) print(w io.Writer) {
	var is []string
	if s.Size >= 0 {
		is = append(is, fmt.Sprintf("%s (%d bytes)", human(s.Size), s.Size))
	} else {
		is = append(is, "size unknown")
	}
	if s.Drained {
		is = append(is, "drained")
	}
	if s.Gone {
		is = append(is, "gone")
	}
	fmt.Fprintf(w, "    %s: %s\n", s.File, strings.Join(is, ", "))
	if s.Error != "" {
		fmt.Fprintf(w, "      cannot be looked at: %s\n", s.Error)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Outputs)) {
		c := s.Outputs[id]
		text := fmt.Sprintf("at %d", c.At)
		if c.LagBytes != nil {
			text += fmt.Sprintf(", %s behind", human(*c.LagBytes))
		}
		if c.LagSeconds != nil {
			text += fmt.Sprintf(", written %v ago", time.Duration(*c.LagSeconds*float64(time.Second)).Round(time.Second))
		}
		fmt.Fprintf(w, "      %-12s %s\n", id, text)
	}
}

func newStateCheckCommand(reg *plugins.Registry) *cobra.Command {
	var flags stateFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the positions that are stored",
		Long: `check reads both generations of the checkpoint and compares their checksums. When no agent runs it also compares every position
with the file: whether its content up to there is still the one that was read. It exits 0 when all is well, 1 when it found something,
74 when a newer version wrote the state. It changes nothing.`,
		Example: "  stacktrail state check\n  stacktrail state check -o json | jq .findings",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, v, err := flags.look(reg)
			if err != nil {
				return err
			}
			if err := v.Newer(); err != nil {
				return fail(exitState, err)
			}
			r := &checkReport{Dir: v.Dir, Running: v.Running, PID: v.PID, Generations: generationsOf(v), Findings: []string{}, Notes: []string{}}
			if err := r.check(cmd.Context(), cfg, v); err != nil {
				return fail(exitFailure, err)
			}
			if err := flags.print(cmd.OutOrStdout(), r, r.print); err != nil {
				return err
			}
			if n := len(r.Findings); n > 0 {
				return fail(exitFailure, errors.New(count(n, "finding")))
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

// checkReport is what check says.
type checkReport struct {
	Dir         string             `json:"dir"`
	Running     bool               `json:"running"`
	PID         int                `json:"pid,omitempty"`
	Generations []generationReport `json:"generations"`
	Proved      int                `json:"proved"` // positions that agree with the files
	Findings    []string           `json:"findings"`
	Notes       []string           `json:"notes"`
}

func (r *checkReport) find(format string, args ...any) {
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

func (r *checkReport) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *checkReport) check(ctx context.Context, cfg *config.Config, v *checkpoint.View) error {
	for _, g := range []*checkpoint.Generation{&v.Last, &v.Prev} {
		if g.Err != nil {
			r.find("%v", g.Err)
		}
	}
	switch {
	case !v.Last.There && !v.Prev.There:
		r.find("there is no checkpoint: a start begins as if for the first time")
	case !v.Last.There:
		r.find("%s is not there, the one before it is", v.Last.Path)
	case !v.Prev.There:
		r.note("%s is not there: only one checkpoint was stored so far", v.Prev.Path)
	}
	for _, a := range v.Aside {
		r.note("%s was set aside, nobody reads it any more", a)
	}
	good := v.Good()
	if good == nil {
		return nil
	}
	if v.Running {
		r.note("positions were not compared with the files, because an agent runs that moves them")
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(good.Snapshot.Pipelines)) {
		conf := pipelineNamed(cfg, name)
		if conf == nil {
			r.note("pipeline %s is not configured, its positions are kept", name)
			continue
		}
		inputs, err := replayers(name, conf)
		if err != nil {
			return err
		}
		for _, s := range good.Snapshot.Pipelines[name].Streams {
			r.prove(ctx, name, inputs[s.Input], s)
		}
		closeAll(inputs)
	}
	return nil
}

// prove compares the positions in a stream with its file.
func (r *checkReport) prove(ctx context.Context, pipeline string, in plugins.Input, s checkpoint.Stream) {
	again, ok := in.(plugins.Replayer)
	switch {
	case s.Drained:
		return // nothing of it has to be read again
	case in == nil:
		r.note("pipeline %s: input %s is not configured, its positions are kept", pipeline, s.Input)
		return
	case !ok:
		r.note("pipeline %s: input %s cannot read %s again", pipeline, s.Input, s.Lane)
		return
	}
	proved := map[int64]error{}
	for _, id := range slices.Sorted(maps.Keys(s.Cursors)) {
		c := s.Cursors[id]
		err, done := proved[c.Seq]
		if !done {
			err = again.CanReplay(ctx, plugins.Stream{Name: s.Name, Lane: s.Lane, Meta: s.Meta}, event.Position{Seq: c.Seq, Token: string(c.Token)})
			proved[c.Seq] = err
		}
		if err != nil {
			r.find("pipeline %s: input %s: output %s at byte %d of %s: %v", pipeline, s.Input, id, c.Seq, s.Lane, err)
			continue
		}
		r.Proved++
	}
}

func (r *checkReport) print(w io.Writer) {
	printHead(w, r.Dir, r.Running, r.PID)
	for _, g := range r.Generations {
		text := g.State
		if g.State == "good" {
			text = fmt.Sprintf("good, format %d, %d bytes, stored %s", g.Format, g.Size, g.Written.UTC().Format(time.RFC3339))
		}
		fmt.Fprintf(w, "%s generation: %s\n", g.Name, text)
	}
	if !r.Running {
		fmt.Fprintf(w, "positions that agree with the files: %d\n", r.Proved)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "note:", n)
	}
	for _, f := range r.Findings {
		fmt.Fprintln(w, "found:", f)
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "state is good")
	}
}

func newStateRepairCommand(reg *plugins.Registry) *cobra.Command {
	var flags stateFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Repair damaged positions, with the agent stopped",
		Long: `repair falls back to the generation before when the last checkpoint is damaged or missing, and sets aside what is damaged. A start
does the same by itself; repair lets you see beforehand what that means. It removes nothing, and is refused while an agent runs.`,
		Example: "  stacktrail state repair --dry-run\n  stacktrail state repair",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, v, err := flags.look(reg)
			if err != nil {
				return err
			}
			if v.Running {
				return fail(exitFailure, fmt.Errorf("%w: stop it first", &checkpoint.LockedError{Dir: v.Dir, PID: v.PID}))
			}
			r, err := repair(v.Dir, dryRun)
			if _, newer := errors.AsType[*checkpoint.NewerError](err); newer {
				return fail(exitState, err)
			}
			if err != nil {
				return fail(exitFailure, err)
			}
			return flags.print(cmd.OutOrStdout(), r, r.print)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

// repairReport is what repair says.
type repairReport struct {
	Dir    string       `json:"dir"`
	DryRun bool         `json:"dry_run"`
	Steps  []repairStep `json:"steps"`
	Then   string       `json:"then"` // what a start will do
}

type repairStep struct {
	What string `json:"what"`
	From string `json:"from"`
	To   string `json:"to"`
}

// repair looks at the directory again with the lock held, so that nobody changes it meanwhile; a dry run only looks.
func repair(dir string, dryRun bool) (*repairReport, error) {
	var store *checkpoint.Store
	if !dryRun {
		var err error
		if store, err = checkpoint.Open(dir); err != nil {
			return nil, err
		}
		defer func() { _ = store.Close() }() // the lock goes with the process anyway
	}
	v, err := checkpoint.Look(dir)
	if err != nil {
		return nil, err
	}
	steps, err := v.Plan()
	if err != nil {
		return nil, err
	}
	r := &repairReport{Dir: dir, DryRun: dryRun, Steps: []repairStep{}, Then: afterRepair(v)}
	for _, s := range steps {
		r.Steps = append(r.Steps, repairStep{s.What, s.From, s.To})
	}
	if store == nil {
		return r, nil
	}
	return r, store.Repair(steps)
}

// afterRepair says what a start will do.
func afterRepair(v *checkpoint.View) string {
	good := v.Good()
	if good == nil {
		return "a start will have no positions: every file is read from where its input's 'start' says, and what outputs have already is sent again; " +
			"Elasticsearch knows such events by their ids, files and HTTP collectors get them twice"
	}
	n := 0
	for _, p := range good.Snapshot.Pipelines {
		n += len(p.Streams)
	}
	return fmt.Sprintf("a start will go on from the positions of %s, in %s: what was sent since is sent again, unless the output can be cut back or knows events by their ids",
		good.Snapshot.Written.UTC().Format(time.RFC3339), count(n, "stream"))
}

func (r *repairReport) print(w io.Writer) {
	if len(r.Steps) == 0 {
		fmt.Fprintf(w, "there is nothing to repair in %s\n", r.Dir)
	}
	becomes := "is now"
	if r.DryRun {
		becomes = "would become"
	}
	for _, s := range r.Steps {
		fmt.Fprintf(w, "%s: %s %s %s\n", s.What, s.From, becomes, s.To)
	}
	fmt.Fprintln(w, r.Then)
}
