package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Exit codes.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitState       = 74 // state of a newer format
	exitUnreachable = 75 // check --connect
	exitBadConfig   = 78
)

// Main runs the command line of an agent with the built-in plugins and these, and exits. A custom build is a main package that
// calls it.
func Main(specs ...plugins.Spec) {
	os.Exit(run(os.Args[1:], specs))
}

func run(args []string, specs []plugins.Spec) int {
	// A reader that goes away is an error of the write, not the end of the process.
	signal.Ignore(syscall.SIGPIPE)
	reg, err := plugins.NewRegistry(append(builtin(), specs...)...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stacktrail:", err)
		return exitFailure
	}
	root := newRootCommand(reg)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	var faults conf.Faults
	var exit *exitError
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			fmt.Fprintln(os.Stderr, f)
		}
		fmt.Fprintf(os.Stderr, "stacktrail: bad configuration: %s\n", count(len(faults), "fault"))
		return exitBadConfig
	case errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, "stacktrail:", exit.err)
		return exit.code
	}
	fmt.Fprintf(os.Stderr, "stacktrail: %v\nTry '%s --help'.\n", err, cmd.CommandPath())
	return exitUsage
}

// count says how many things there are.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// exitError is a failure with its exit code. Errors of other types are faults of usage.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

// fail makes err a failure with an exit code; faults of the configuration keep their own.
func fail(code int, err error) error {
	var faults conf.Faults
	if err == nil || errors.As(err, &faults) {
		return err
	}
	return &exitError{code, err}
}

func newRootCommand(reg *plugins.Registry) *cobra.Command {
	runCmd := newRunCommand(reg)
	root := &cobra.Command{
		Use:   "stacktrail",
		Short: "Ship the access logs of OpenStack services",
		Long: `stacktrail tails the access logs of OpenStack services, parses every line into one common schema, drops, enriches
and redacts events with expressions, and sends them to Elasticsearch, OpenSearch, HTTP collectors and files. Without a command it runs
the agent.

Every flag can be set by an environment variable too: --config-dir is STACKTRAIL_CONFIG_DIR.`,
		Example: `  stacktrail check -c /etc/stacktrail/stacktrail.yaml
  stacktrail run -c /etc/stacktrail/stacktrail.yaml
  stacktrail parse /var/log/nova/nova-api.log | head`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return flagsFromEnv(cmd) },
		RunE:              runCmd.RunE,
	}
	root.Flags().AddFlagSet(runCmd.Flags())
	root.AddCommand(runCmd, newCheckCommand(reg), newParseCommand(reg), newStatusCommand(), newStateCommand(reg), newBackfillCommand(reg), newDeadLetterCommand(reg), newSetupCommand(reg), newVersionCommand())
	root.AddCommand(newSampleCommand(reg), newDocsCommand(reg), newSchemaCommand(reg), newFormatsCommand(reg), newCompletionCommand(), newPluginCommand(reg))
	return root
}

// flagsFromEnv gives every flag that was not set on the command line the value of its environment twin.
func flagsFromEnv(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil || f.Name == "help" {
			return
		}
		name := "STACKTRAIL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok {
			if e := cmd.Flags().Set(f.Name, v); e != nil {
				err = fmt.Errorf("reading %s: %w", name, e)
			}
		}
	})
	return err
}

// group makes a command of one that only has commands below it: without one it shows its help, with one that it does not know it says so.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
		return err
	}
	return cmd
}
