package agent

import (
	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
)

func newRunCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	var opt runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent (the default)",
		Long: `run follows the sources of all pipelines until it is told to stop. TERM and INT stop reading and wait up to
agent.stop_timeout for the outputs; a second one ends at once. USR1 reopens output files. HUP is ignored.

With --once it reads every source to its end, waits until all outputs have it, and says what became of it.`,
		Example: `  stacktrail run -c stacktrail.yaml
  stacktrail run -c stacktrail.yaml --once`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load(reg)
			if err != nil {
				return err
			}
			return runAgent(cmd.Context(), cfg, opt)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&opt.once, "once", false, "read every source to its end and stop")
	cmd.Flags().BoolVar(&opt.strictState, "strict-state", false, "refuse to start (74), each time, when the checkpoint and the one before it are both damaged")
	return cmd
}
