package agent

import (
	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
)

func newDocsCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "docs [PLUGIN…]",
		Short: "Print what every key means",
		Long: `docs prints, as Markdown, what can be configured: every key with its type, its default and its meaning, of the plugins
named, or of everything. A plugin is named as in the configuration, or as input:tail; agent stands for what belongs to no plugin.
With -c, plugins in processes of their own that the configuration lists are asked, too; the absolute path of such a program stands for
all that it has. docs formats prints the page of the formats of lines.`,
		Example: `  stacktrail docs
  stacktrail docs tail
  stacktrail docs -c stacktrail.yaml > reference.md
  stacktrail docs formats`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: pluginNames(reg),
		RunE: func(cmd *cobra.Command, names []string) error {
			reg, names, _, err := flags.withPrograms(reg, names)
			if err != nil {
				return err
			}
			b, err := reference.Docs(reg, names)
			return printed(cmd, b, err)
		},
	}
	flags.add(cmd.Flags())
	cmd.AddCommand(&cobra.Command{
		Use:   "formats",
		Short: "Print how the formats of lines are written",
		Long: `docs formats prints, as Markdown, all formats of lines that inputs know: who writes them, an example, the fields of the
common schema that they fill, their grammar, and where it is from.`,
		Example: "  stacktrail docs formats",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := reference.Formats(reg)
			return printed(cmd, b, err)
		},
	})
	return cmd
}
