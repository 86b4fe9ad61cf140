package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func newPluginVerifyCommand(reg *plugins.Registry) *cobra.Command {
	var p program
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Prove a plugin program",
		Long: `verify starts a plugin program as the agent does, proves with the conformance suites that each of its plugins keeps the contract,
and that the process behaves: that it says what it has, comes back after a crash, ends when it is told to, and leaves nothing behind. It
says of each rule whether it holds, and why that matters where it does not, and exits 1 then.

A configuration is made of the examples that the plugin gives for required keys; --set and --config bring another. An output really
writes: give it a place for tests. $DIR in a configuration stands for a directory that is removed afterwards.`,
		Example: `  stacktrail plugin verify ./mask --set 'pattern=password=[^&]+'
  stacktrail plugin verify /usr/lib/stacktrail/plugins/sqlite --config verify.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := &verifier{program: &p, reg: reg, out: cmd.OutOrStdout()}
			return v.run(cmd, args[0])
		},
	}
	p.add(cmd)
	return cmd
}

// verifier proves a program.
type verifier struct {
	*program
	reg    *plugins.Registry
	out    io.Writer
	dir    string
	before []int // children that this process had
	failed int
}

func (v *verifier) run(cmd *cobra.Command, path string) (err error) {
	if v.dir, err = os.MkdirTemp("", "stacktrail-verify-"); err != nil {
		return fail(exitFailure, fmt.Errorf("making a directory: %w", err))
	}
	defer func() { err = errors.Join(err, fail(exitFailure, os.RemoveAll(v.dir))) }()
	if err := v.adopt(); err != nil {
		return fail(exitFailure, err)
	}
	began := time.Now()
	err = v.start(cmd.Context(), path, cmd.ErrOrStderr())
	defer v.host.Close()
	fmt.Fprintf(v.out, "verifying %s\n", v.path)
	if err != nil {
		v.bad("start", err.Error(), "the agent refuses a configuration that names a program which does not start")
		return v.verdict()
	}
	v.ok("start", fmt.Sprintf("it said in %v that it has %s", time.Since(began).Round(time.Millisecond), v.listed()))
	if err := v.choose(); err != nil {
		return err
	}
	v.checkDescription()
	if err := v.configure(v.dir); err != nil {
		return err
	}
	v.checkByHand(cmd.Context())
	for _, s := range v.specs {
		fmt.Fprintf(v.out, "\n%s %s\n", s.Kind, s.Name)
		// What fails at first, or does not stay alive, would only fail in more ways.
		if !v.checkOne(s, firstCheck()) || !v.suite(s) {
			fmt.Fprintf(v.out, "      the rest of its rules was not tried\n")
			continue
		}
		v.checkWire(s)
	}
	fmt.Fprintln(v.out, "\nprocess")
	v.checkAgain(cmd.Context())
	v.checkTerm(cmd.Context())
	v.host.Close()
	v.checkOrphans()
	return v.verdict()
}

// listed names the program's plugins.
func (v *verifier) listed() string {
	var names []string
	for _, s := range v.specs {
		names = append(names, string(s.Kind)+" "+s.Name)
	}
	return strings.Join(names, ", ")
}

func (v *verifier) verdict() error {
	if v.failed > 0 {
		return fail(exitFailure, fmt.Errorf("plugin %s: %s", v.path, count(v.failed, "finding")))
	}
	fmt.Fprintf(v.out, "\nall rules hold\n")
	return nil
}

func (v *verifier) ok(rule, text string) { fmt.Fprintf(v.out, "ok    %-10s %s\n", rule, text) }

// bad prints a finding.
func (v *verifier) bad(rule, text, why string) {
	v.failed++
	fmt.Fprintf(v.out, "FAIL  %-10s %s\n", rule, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n                 "))
	if why != "" {
		fmt.Fprintf(v.out, "      why        %s\n", why)
	}
}

// proof is a rule of the conformance suites, as far as it can be proved over a wire.
type proof struct {
	rule       plugintest.Rule
	holds, why string
}

// proofs are the rules for a kind of plugin.
func proofs(k plugins.Kind) []proof {
	if k == plugins.KindOutput {
		return []proof{
			{plugintest.RuleWorks, "writes all samples", "an output that fails on good events holds its queue up, and then the whole pipeline"},
			{plugintest.RuleIndex, "its answers speak of events that there are", "the agent retries what an answer names, and believes that the rest is safe"},
			{plugintest.RuleContext, "a call ends with its context", "a call that goes on keeps the agent from stopping; what it wrote comes again"},
			{plugintest.RuleWorkers, "eight calls at once do not get in each other's way", "the user may set workers: then Write is called at the same time"},
			{plugintest.RuleGrowth, "memory has a bound", "a process that grows without bound takes the memory of the services next to it"},
		}
	}
	return []proof{
		{plugintest.RuleWorks, "takes all samples, one by one too, and an empty batch", "an event that a processor fails on goes to the dead letter"},
		{plugintest.RuleKept, "nothing of earlier batches shows in later ones", "what is kept of a batch turns up in a stranger's events"},
		{plugintest.RuleUnchanged, "leaves dropped events alone, adds and moves none", "every event must be accounted for; one that was dropped is not the plugin's any more"},
		{plugintest.RuleSame, "makes the same of the same", "after a crash events are read again: each must come out as it did before"},
		{plugintest.RuleWorkers, "eight instances at once agree", "there is an instance for each lane, and they are called at the same time"},
		{plugintest.RuleContext, "a call ends with its context", "a call that goes on keeps the agent from stopping"},
		{plugintest.RuleGrowth, "memory has a bound", "a process that grows without bound takes the memory of the services next to it"},
	}
}

// mostDeaths is how often a process may end during a suite before that is given up: it is started again ever later.
const mostDeaths = 5

// suite runs the conformance suite of a plugin and says whether it came to its end.
func (v *verifier) suite(s plugins.Spec) (toTheEnd bool) {
	deaths := v.host.Status().Deaths
	died := func() int64 { return v.host.Status().Deaths - deaths }
	ended := make(chan []plugintest.Finding, 1)
	go func() {
		ended <- plugintest.Try(v.dir, func(string, ...any) {}, func(t plugintest.TB) {
			held := plugintest.Held(func() int64 { _, rss := groupUsage(v.pid()); return rss })
			if s.Kind == plugins.KindOutput {
				plugintest.Output(t, s, v.configs[ownName(s)], held)
			} else {
				plugintest.Processor(t, s, v.configs[ownName(s)], held)
			}
		})
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case found := <-ended:
			return v.findings(s, found, died())
		case <-tick.C:
			if n := died(); n >= mostDeaths {
				return v.findings(s, nil, n)
			}
		}
	}
}

// findings prints what a suite found, and which rules hold. It says whether the process stayed alive and the plugin works.
func (v *verifier) findings(s plugins.Spec, found []plugintest.Finding, deaths int64) bool {
	rules := proofs(s.Kind)
	broken := map[plugintest.Rule]bool{}
	for _, f := range found {
		broken[f.Rule] = true
		rule, why := string(f.Rule), ""
		if i := slices.IndexFunc(rules, func(x proof) bool { return x.rule == f.Rule }); i >= 0 {
			why = rules[i].why
		} else if rule == "" {
			rule = "suite"
		}
		v.bad(rule, f.Text, why)
	}
	if deaths > 0 {
		v.bad("alive", fmt.Sprintf("while it was tried the process ended %s, or did not answer and was killed", times(deaths)),
			"all its instances are opened again then; what it ends on three times goes to the dead letter")
		return false
	}
	if broken[plugintest.RuleWorks] || broken[""] {
		return false
	}
	for _, x := range rules {
		if !broken[x.rule] {
			v.ok(string(x.rule), x.holds)
		}
	}
	return true
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
