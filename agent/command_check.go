package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
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
	var connect bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration",
		Long: `check reads the whole configuration and prints every fault that it finds with file, line and column. It exits 78 when
there is one. It touches neither logs nor state nor outputs; plugins in processes of their own are started, asked and ended. Where it may read the state, it warns of new names for what is known
there, because that would be sent again.

With --connect it also asks the far end of every output whether it would take events, without sending one: address, certificate,
credentials, rights. It exits 75 when one would not.`,
		Example: "  stacktrail check -c stacktrail.yaml\n  stacktrail check -c stacktrail.yaml --connect",
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
			if connect {
				return connectOutputs(cmd.Context(), cmd.OutOrStdout(), cfg)
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&connect, "connect", false, "ask every output whether it can be reached")
	return cmd
}

// connectPatience is how long one output may take to answer.
const connectPatience = 30 * time.Second

// connectOutputs asks every output that can be asked.
func connectOutputs(ctx context.Context, w io.Writer, cfg *config.Config) error {
	bad := 0
	for _, p := range cfg.Pipelines {
		for _, o := range p.Outputs {
			plug, err := o.Build(bareEnv(p.Name, o.ID))
			if err != nil {
				return fail(exitFailure, fmt.Errorf("building output %q: %w", o.ID, err))
			}
			what := "has no far end to ask"
			if c, ok := plug.(plugins.Checker); ok {
				what = "would take events"
				if err := checkOne(ctx, c); err != nil {
					what, bad = err.Error(), bad+1
				}
			}
			fmt.Fprintf(w, "pipeline %s: output %s: %s\n", p.Name, o.ID, what)
			if c, ok := plug.(plugins.Closer); ok {
				_ = c.Close() // it held no event
			}
		}
	}
	if bad > 0 {
		return fail(exitUnreachable, fmt.Errorf("%s would not take events", count(bad, "output")))
	}
	return nil
}

// bareEnv is for an instance that is asked something and gets no event.
func bareEnv(pipeline, id string) plugins.Env {
	return plugins.Env{
		Log: slog.New(slog.DiscardHandler), Pipeline: pipeline, ID: id, NodeID: "check", Pool: event.NewPool(1),
		Encoder: schema.NewEncoder, Count: func(string, string, int64) {}, Fail: func(string, error) {},
	}
}

func checkOne(ctx context.Context, c plugins.Checker) error {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	return c.Check(ctx)
}
