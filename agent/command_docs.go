package agent

import (
	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
)

func newDocsCommand(reg *plugins.Registry) *cobra.Command {
	return &cobra.Command{
		Use:   "docs [PLUGIN…]",
		Short: "Print what every key means",
		Long: `docs prints, as Markdown, what can be configured: every key with its type, its default and its meaning, of the plugins
named, or of everything. A plugin is named as in the configuration, or as input:tail; agent stands for what belongs to no plugin.`,
		Example: `  stacktrail docs
  stacktrail docs tail`,
		ValidArgsFunction: pluginNames(reg),
		RunE: func(cmd *cobra.Command, names []string) error {
			b, err := reference.Docs(reg, names)
			return printed(cmd, b, err)
		},
	}
}
