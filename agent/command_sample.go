package agent

import (
	"errors"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
)

func newSampleCommand(reg *plugins.Registry) *cobra.Command {
	var minimal bool
	cmd := &cobra.Command{
		Use:   "sample [PLUGIN…]",
		Short: "Print a sample configuration",
		Long: `sample prints a commented configuration that passes check: without arguments the example of a whole pipeline, with
plugins one that has every key of these at its default. A plugin is named as in the configuration, or as input:tail; agent
stands for the section of the agent.`,
		Example: `  stacktrail sample > stacktrail.yaml
  stacktrail sample tail output:file
  stacktrail sample --minimal`,
		ValidArgsFunction: pluginNames(reg),
		RunE: func(cmd *cobra.Command, names []string) error {
			b, err := reference.Sample(reg, names, minimal)
			return printed(cmd, b, err)
		},
	}
	cmd.Flags().BoolVar(&minimal, "minimal", false, "only what must be written, without comments")
	return cmd
}

// printed prints what a command made. Errors of making it are faults of usage, errors of printing are failures.
func printed(cmd *cobra.Command, b []byte, err error) error {
	if err != nil {
		return err
	}
	if _, err = cmd.OutOrStdout().Write(b); errors.Is(err, syscall.EPIPE) {
		return nil // whoever reads has enough
	}
	return fail(exitFailure, err)
}

// pluginNames completes the names of plugins.
func pluginNames(reg *plugins.Registry) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return reference.Names(reg), cobra.ShellCompDirectiveNoFileComp
	}
}
