package agent

import (
	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
)

func newDocsCommand(reg *plugins.Registry) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "docs [PLUGIN…]",
		Short: "Print what every key means",
		Long: `docs prints, as Markdown, what can be configured: every key with its type, its default and its meaning, of the plugins
named, or of everything. A plugin is named as in the configuration, or as input:tail; agent stands for what belongs to no plugin.
docs formats prints the page of the formats of lines.`,
		Example: `  stacktrail docs
  stacktrail docs tail
  stacktrail docs formats`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: pluginNames(reg),
		RunE: func(cmd *cobra.Command, names []string) error {
			b, err := reference.Docs(reg, names)
			return printed(cmd, b, err)
		},
	}
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
