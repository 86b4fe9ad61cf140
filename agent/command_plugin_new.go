package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/scaffold"
	"github.com/stacktrail/stacktrail/plugins"
)

// ownModule is the module that plugins in Go need.
const ownModule = "github.com/stacktrail/stacktrail"

// newOptions are the flags of plugin new.
type newOptions struct {
	kind, lang, dir, module, replace string
}

func newPluginNewCommand(reg *plugins.Registry) *cobra.Command {
	var opt newOptions
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Make the folder of a new plugin",
		Long: `new makes a folder with a plugin that builds, is tested and runs at once: code with one function to edit, a test, a Makefile, a
README, and a configuration that sends sample lines through it.

An agent that was built from a checkout of the repository, or --replace, has the plugin use the SDK of that checkout; else it uses the
release of the agent.`,
		Example: `  stacktrail plugin new mask --kind processor --lang go
  cd mask && make test verify run

  stacktrail plugin new quota --kind processor --lang python --dir /srv/quota`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return newPlugin(reg, args[0], opt, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&opt.kind, "kind", "processor", "processor or output")
	f.StringVar(&opt.lang, "lang", "go", strings.Join(scaffold.Langs(), " or "))
	f.StringVar(&opt.dir, "dir", "", "the folder; empty: that of the name, in this one")
	f.StringVar(&opt.module, "module", "", "path of the Go module; empty: example.org/NAME")
	f.StringVar(&opt.replace, "replace", "", "checkout of the repository whose SDK is used")
	for name, values := range map[string][]cobra.Completion{"kind": {"processor", "output"}, "lang": scaffold.Langs()} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	for _, name := range []string{"dir", "replace"} {
		if err := cmd.MarkFlagDirname(name); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	return cmd
}

// newPlugin makes a plugin's folder and says what to do next.
func newPlugin(reg *plugins.Registry, name string, opt newOptions, out io.Writer) error {
	if err := opt.check(reg, name); err != nil {
		return err
	}
	p := scaffold.Plugin{Name: name, Kind: plugins.Kind(opt.kind), Lang: opt.lang, Module: opt.module}
	if p.Module == "" {
		p.Module = "example.org/" + name
	}
	var err error
	if p.Dir, err = filepath.Abs(opt.dir); opt.dir == "" {
		p.Dir, err = filepath.Abs(name)
	}
	if err != nil {
		return fail(exitFailure, fmt.Errorf("finding the folder: %w", err))
	}
	p.Agent = ownProgram()
	if p.Version, p.Checkout, err = sdk(opt.replace); err != nil {
		return err
	}
	files, err := p.Write()
	if err != nil {
		return fail(exitFailure, err)
	}
	fmt.Fprintf(out, "%s holds the %s %q:\n", p.Dir, p.Kind, name)
	for _, f := range files {
		fmt.Fprintf(out, "  %s\n", f)
	}
	fmt.Fprintf(out, "\nNext:\n  cd %s\n  make test verify run\n\nThen edit the function that README.md names.\n", p.Dir)
	return nil
}

// check refuses what no plugin can be.
func (o newOptions) check(reg *plugins.Registry, name string) error {
	if err := scaffold.CheckName(name); err != nil {
		return err
	}
	switch {
	case o.kind == string(plugins.KindInput):
		return errors.New("--kind input: inputs cannot run in a process of their own yet: build one into an agent, see plugins/examples/custombuild")
	case o.kind != string(plugins.KindProcessor) && o.kind != string(plugins.KindOutput):
		return fmt.Errorf("--kind %s: use processor or output", o.kind)
	case !slices.Contains(scaffold.Langs(), o.lang):
		return fmt.Errorf("--lang %s: use %s", o.lang, strings.Join(scaffold.Langs(), " or "))
	case o.module != "" && o.lang != "go":
		return errors.New("--module is for --lang go")
	case o.module != "" && !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~/-]*$`).MatchString(o.module):
		return fmt.Errorf("--module %s: that is no module path", o.module)
	}
	if _, taken := reg.Lookup(plugins.Kind(o.kind), name); taken {
		return fmt.Errorf("%s %q is built into this agent, and a name may be taken once: what about %q?", o.kind, name, "my-"+name)
	}
	for _, k := range []plugins.Kind{plugins.KindInput, plugins.KindProcessor, plugins.KindOutput} {
		if _, is := reg.Lookup(k, name); is {
			return fmt.Errorf("%s %q is built into this agent, and nobody could tell the two apart: what about %q?", k, name, "my-"+name)
		}
	}
	if field := (scaffold.Plugin{Name: name, Kind: plugins.Kind(o.kind)}).Overwrites(); field != "" {
		return fmt.Errorf("%q is a field of the common schema, which the new processor would overwrite: what about %q?", field, "my-"+name)
	}
	return nil
}

// ownProgram is how to call this agent.
func ownProgram() string {
	self, err := os.Executable()
	if err != nil {
		return "stacktrail"
	}
	if found, err := exec.LookPath("stacktrail"); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil && found == self {
			return "stacktrail"
		}
	}
	return self
}

// sdk says which SDK a new plugin is to use: that of a checkout, or of a release.
func sdk(replace string) (release, checkout string, err error) {
	if replace != "" {
		dir, err := filepath.Abs(replace)
		if err == nil && !isCheckout(dir) {
			err = fmt.Errorf("%s is no checkout of %s", dir, ownModule)
		}
		if err != nil {
			return "", "", fmt.Errorf("--replace: %w", err)
		}
		return "", dir, nil
	}
	if self, err := os.Executable(); err == nil {
		if dir, ok := checkoutAround(filepath.Dir(self)); ok {
			return "", dir, nil
		}
	}
	if v := released(); v != "" {
		return v, "", nil
	}
	if here, err := os.Getwd(); err == nil {
		if dir, ok := checkoutAround(here); ok {
			return "", dir, nil
		}
	}
	return "", "", errors.New("this agent is no release, and stands in no checkout of its repository: name one with --replace DIR")
}

// released is the release that this agent is, or that a custom build is made of; "" if it is none.
func released() string {
	candidates := []string{version}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == ownModule && m.Replace == nil {
				candidates = append(candidates, m.Version)
			}
		}
	}
	for _, v := range candidates {
		if regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.?[0-9]+)?$`).MatchString(v) {
			return v
		}
	}
	return ""
}

// isCheckout tells whether a folder is the top of the repository.
func isCheckout(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && strings.HasPrefix(string(text), "module "+ownModule+"\n")
}

// checkoutAround finds the checkout that a folder is in.
func checkoutAround(dir string) (string, bool) {
	for {
		if isCheckout(dir) {
			return dir, true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", false
		}
		dir = up
	}
}
