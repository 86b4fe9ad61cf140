package agent

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Where the configuration is unless flags say otherwise.
const (
	defaultConfig    = "/etc/stacktrail/stacktrail.yaml"
	defaultConfigDir = "/etc/stacktrail/conf.d"
)

// configFlags are the flags that say where the configuration is.
type configFlags struct {
	files []string
	dir   string
}

func (c *configFlags) add(f *pflag.FlagSet) {
	f.StringArrayVarP(&c.files, "config", "c", nil, "configuration file; may be repeated, later ones win (default "+defaultConfig+" and "+defaultConfigDir+")")
	f.StringVarP(&c.dir, "config-dir", "C", "", "directory whose *.yaml are read after the files, in alphabetical order")
}

func (c *configFlags) load(reg *plugins.Registry) (*config.Config, error) {
	src := config.Source{Files: c.files, Dir: c.dir, Lookup: conf.SystemLookup()}
	if len(src.Files) == 0 && src.Dir == "" {
		src.Dir = defaultConfigDir
		if _, err := os.Stat(defaultConfig); err == nil {
			src.Files = []string{defaultConfig}
		}
	}
	cfg, err := config.Load(src, reg)
	return cfg, fail(exitBadConfig, err)
}

func newCheckCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration",
		Long: `check reads the whole configuration and prints every fault that it finds with file, line and column. It exits 78 when
there is one. It touches neither logs nor state nor outputs; where it may read the state, it warns of new names for what is known
there, because that would be sent again.`,
		Example: "  stacktrail check -c stacktrail.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load(reg)
			if err != nil {
				return err
			}
			warnings := cfg.Warnings
			if snap := checkpoint.Peek(cfg.Agent.StateDir); snap != nil {
				warnings = append(warnings, renamed(snap, cfg)...)
			}
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			for _, p := range cfg.Pipelines {
				fmt.Fprintf(cmd.OutOrStdout(), "pipeline %s: %s, %s, %s\n",
					p.Name, count(len(p.Inputs), "input"), count(len(p.Processors), "processor"), count(len(p.Outputs), "output"))
			}
			fmt.Fprintln(cmd.OutOrStdout(), "configuration is good")
			return nil
		},
	}
	flags.add(cmd.Flags())
	return cmd
}
