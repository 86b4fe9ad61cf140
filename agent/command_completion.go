package agent

import (
	"bytes"

	"github.com/spf13/cobra"
)

func newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes the command line",
		Long:  "completion prints a script for the shell. Once the shell has read it, the tab key completes commands, flags and names of plugins.",
		Example: `  stacktrail completion bash > /etc/bash_completion.d/stacktrail
  stacktrail completion zsh > /usr/local/share/zsh/site-functions/_stacktrail
  stacktrail completion fish > /etc/fish/completions/stacktrail.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			var b bytes.Buffer
			var err error
			switch root := cmd.Root(); args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&b, true)
			case "zsh":
				err = root.GenZshCompletion(&b)
			case "fish":
				err = root.GenFishCompletion(&b, true)
			}
			return printed(cmd, b.Bytes(), fail(exitFailure, err))
		},
	}
}
