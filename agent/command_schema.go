package agent

import (
	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/reference"
	"github.com/stacktrail/stacktrail/plugins"
)

func newSchemaCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Long: `schema prints the JSON Schema (draft 2020-12) of the configuration. Editors that know it complete keys, show what they
mean, and mark what is wrong. For editors with the YAML language server, begin the configuration with:

  # yaml-language-server: $schema=stacktrail.schema.json

With -c, plugins in processes of their own that the configuration lists are asked, and stand in it, too.`,
		Example: "  stacktrail schema > stacktrail.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reg, _, _, err := flags.withPrograms(reg, nil)
			if err != nil {
				return err
			}
			b, err := reference.Schema(reg)
			return printed(cmd, b, err)
		},
	}
	flags.add(cmd.Flags())
	return cmd
}
