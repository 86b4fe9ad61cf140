package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
)

func newSetupCommand(reg *plugins.Registry) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "setup",
		Short:   "Prepare what outputs write to",
		Long:    "setup prepares the far ends of outputs, before the agent writes to them for the first time.",
		Example: "  stacktrail setup elasticsearch --diff",
	}
	var flags configFlags
	var diff, apply bool
	es := &cobra.Command{
		Use:   "elasticsearch",
		Short: "Install the templates and the data stream on Elasticsearch or OpenSearch",
		Long: `setup elasticsearch makes, for every elasticsearch output of the configuration, the component and index templates with the types of
the schema, and the data stream. --diff says what differs from what the server has and changes nothing; it is what happens without
a flag. --apply makes it so. Both need the right to manage index templates, which the agent itself does not.`,
		Example: "  stacktrail setup elasticsearch --diff\n  stacktrail setup elasticsearch --apply -c /etc/stacktrail/stacktrail.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if diff && apply {
				return errors.New("--diff and --apply exclude each other")
			}
			cfg, err := flags.load(reg)
			if err != nil {
				return err
			}
			return setUp(cmd.Context(), cmd.OutOrStdout(), cfg, "elasticsearch", apply)
		},
	}
	flags.add(es.Flags())
	es.Flags().BoolVar(&diff, "diff", false, "say what differs, change nothing")
	es.Flags().BoolVar(&apply, "apply", false, "make it so")
	cmd.AddCommand(es)
	return cmd
}

// setUp prepares the far ends of all outputs of a type.
func setUp(ctx context.Context, w io.Writer, cfg *config.Config, typ string, apply bool) error {
	found := 0
	for _, p := range cfg.Pipelines {
		for _, o := range p.Outputs {
			if o.Type != typ {
				continue
			}
			found++
			plug, err := o.Build(bareEnv(p.Name, o.ID))
			if err != nil {
				return fail(exitFailure, fmt.Errorf("building output %q: %w", o.ID, err))
			}
			in, ok := plug.(plugins.Preparer)
			if !ok {
				return fail(exitFailure, fmt.Errorf("output %q has nothing to set up", o.ID))
			}
			do, done := in.Diff, "nothing to change"
			if apply {
				do, done = in.Apply, "nothing had to be changed"
			}
			lines, err := do(ctx)
			for _, line := range lines {
				if apply {
					line = "mended: " + line
				}
				fmt.Fprintf(w, "pipeline %s: output %s: %s\n", p.Name, o.ID, line)
			}
			if err != nil {
				return fail(exitUnreachable, fmt.Errorf("setting up output %q of pipeline %q: %w", o.ID, p.Name, err))
			}
			if len(lines) == 0 {
				fmt.Fprintf(w, "pipeline %s: output %s: %s\n", p.Name, o.ID, done)
			}
			if c, ok := plug.(plugins.Closer); ok {
				_ = c.Close() // it held no event
			}
		}
	}
	if found == 0 {
		return fail(exitFailure, fmt.Errorf("the configuration has no %s output", typ))
	}
	return nil
}
