package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

func newSampleCommand(reg *plugins.Registry) *cobra.Command {
	var minimal bool
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "sample [PLUGIN…]",
		Short: "Print a sample configuration",
		Long: `sample prints a commented configuration that passes check: without arguments the example of a whole pipeline, with
plugins one that has every key of these at its default. A plugin is named as in the configuration, or as input:tail; agent
stands for the section of the agent. With -c, plugins in processes of their own that the configuration lists can be named too: they
are asked. The absolute path of such a program stands for all that it has.`,
		Example: `  stacktrail sample > stacktrail.yaml
  stacktrail sample tail output:file
  stacktrail sample --minimal`,
		ValidArgsFunction: pluginNames(reg),
		RunE: func(cmd *cobra.Command, names []string) error {
			reg, names, more, err := flags.withPrograms(reg, names)
			if err != nil {
				return err
			}
			b, err := reference.Sample(reg, names, minimal)
			return printed(cmd, append(b, more...), err)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&minimal, "minimal", false, "only what must be written, without comments")
	return cmd
}

// withPrograms adds the plugins that are programs to a registry: those of the configuration, if one is named, and those whose paths stand
// among the names. more is the section that a configuration needs for the latter.
func (c *configFlags) withPrograms(reg *plugins.Registry, names []string) (*plugins.Registry, []string, []byte, error) {
	if len(c.files) > 0 || c.dir != "" {
		var err error
		if reg, err = config.Plugins(config.Source{Files: c.files, Dir: c.dir, Lookup: conf.SystemLookup()}, reg); err != nil {
			return nil, nil, nil, fail(exitBadConfig, err)
		}
	}
	var all []string
	var more []byte
	for _, name := range names {
		if !filepath.IsAbs(name) {
			all = append(all, name)
			continue
		}
		both, specs, err := config.Program(name, reg)
		if err != nil {
			return nil, nil, nil, fail(exitFailure, err)
		}
		if reg = both; len(more) == 0 {
			more = []byte("plugins:\n")
		}
		more = fmt.Appendf(more, "  - path: %q\n", name)
		for _, s := range specs {
			all = append(all, string(s.Kind)+":"+s.Name)
		}
	}
	return reg, all, more, nil
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
