package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

// pluginDir is where packages put plugin programs.
const pluginDir = "/usr/lib/stacktrail/plugins"

func newPluginCommand(reg *plugins.Registry) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Make, prove, measure and list plugins",
		Long: `plugin helps to write plugins that run in a process of their own: new makes a folder that builds and runs, verify proves
a program, bench measures it, and list shows what this agent has.`,
		Example: "  stacktrail plugin new mask --kind processor --lang go\n  stacktrail plugin verify ./mask\n  stacktrail plugin list",
	}
	cmd.AddCommand(newPluginNewCommand(reg), newPluginVerifyCommand(reg), newPluginBenchCommand(reg), newPluginListCommand(reg), newPluginGuardCommand())
	return group(cmd)
}

// newPluginGuardCommand makes the command that an agent with plugins starts itself with.
func newPluginGuardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard AGENT",
		Short:  "Wait for the end of an agent and end what its plugins leave behind (agents start it themselves)",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		Run:    func(_ *cobra.Command, args []string) { rpc.RunGuard(args[0]) },
	}
}

// program is a plugin program that a command tries.
type program struct {
	path string
	name string // the only plugin to try; empty: all
	file string // with configurations by the name of the plugin
	sets []string

	timeout time.Duration
	log     *slog.Logger // of the plugin
	host    *rpc.Host
	specs   []plugins.Spec
	configs map[string]string // YAML, by ownName
}

// add adds the flags that say which plugin, and with which configuration.
func (p *program) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.name, "name", "", "try only the plugin of this name, or output:NAME")
	f.StringVar(&p.file, "config", "", "YAML file with the configuration, below the plugin's name; $DIR in it is a fresh directory")
	f.StringArrayVar(&p.sets, "set", nil, "set a key of the configuration: `KEY=VALUE`; may be repeated")
	f.DurationVar(&p.timeout, "timeout", rpc.DefaultConfig().Timeout, "a call that takes longer is given up, as in the agent")
	if err := cmd.MarkFlagFilename("config", "yaml", "yml"); err != nil {
		panic("BUG: " + err.Error())
	}
}

// ownName tells a plugin from others of the program.
func ownName(s plugins.Spec) string { return string(s.Kind) + ":" + s.Name }

// start starts the program as the agent does and asks what it has. The caller closes the host, also after an error.
func (p *program) start(ctx context.Context, path string, log io.Writer) error {
	var err error
	if p.path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("finding %s: %w", path, err)
	}
	c := rpc.DefaultConfig()
	c.Path, c.Timeout = p.path, p.timeout
	p.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p.host = rpc.NewHost(c, p.log)
	p.specs, err = p.host.Specs(ctx)
	return err
}

// choose leaves only the plugin that --name names.
func (p *program) choose() error {
	if p.name == "" {
		return nil
	}
	var names []string
	var chosen []plugins.Spec
	for _, s := range p.specs {
		names = append(names, s.Name)
		if p.name == s.Name || p.name == ownName(s) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		hint := ""
		if near := conf.Suggest(p.name, names); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
		return fmt.Errorf("--name: %s has no plugin %q%s; it has %s", p.path, p.name, hint, strings.Join(slices.Compact(names), ", "))
	}
	p.specs = chosen
	return nil
}

// pid is the number of the process that runs at present, 0 if none does.
func (p *program) pid() int { return p.host.Status().PID }
