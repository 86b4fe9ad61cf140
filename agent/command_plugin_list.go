package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

// listed is a plugin as the command prints it.
type listed struct {
	Kind     string `json:"kind,omitempty"`
	Name     string `json:"name,omitempty"`
	Version  string `json:"version,omitempty"`
	Protocol int    `json:"protocol,omitempty"` // 0: it is built in
	SHA256   string `json:"sha256,omitempty"`
	Source   string `json:"source"` // built in, configured or found
	Path     string `json:"path,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Where a plugin is known from.
const (
	fromBuild  = "built in"
	fromConfig = "configured"
	fromDir    = "found"
)

// wireProtocol is the one protocol that package rpc speaks.
const wireProtocol = 1

func newPluginListCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	dir, output := pluginDir, "text"
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the plugins that this agent has",
		Long: `list shows the plugins that are built in, those of the programs that the configuration names, and those of the programs in the
plugin directory, which only wait to be named. It starts each program to ask what it has. A program that does not answer, or that the agent
would refuse, stands there with the reason.`,
		Example: `  stacktrail plugin list
  stacktrail plugin list -c /etc/stacktrail/stacktrail.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output %s: use text or json", output)
			}
			configured, err := flags.programs()
			if err != nil {
				return err
			}
			found, err := programsIn(dir, cmd.Flags().Changed("dir"))
			if err != nil {
				return fail(exitFailure, err)
			}
			b, err := renderPlugins(listPlugins(cmd.Context(), reg, configured, found), output)
			return printed(cmd, b, err)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVar(&dir, "dir", dir, "directory of plugin programs")
	cmd.Flags().StringVarP(&output, "output", "o", output, "text or json")
	return cmd
}

// programs reads which programs the configuration names. Without one there are none. Faults elsewhere are not looked at.
func (c *configFlags) programs() ([]rpc.Config, error) {
	files, dir := c.files, c.dir
	if len(files) == 0 && dir == "" {
		dir = defaultConfigDir
		if _, err := os.Stat(defaultConfig); err == nil {
			files = []string{defaultConfig}
		}
	}
	if dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			return nil, fmt.Errorf("looking for configuration in %s: %w", dir, err)
		}
		files = append(slices.Clone(files), more...)
	}
	var nodes []conf.Node
	var faults conf.Faults
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fail(exitFailure, fmt.Errorf("reading the configuration: %w", err))
		}
		n, some := conf.Parse(f, text)
		nodes, faults = append(nodes, n), append(faults, some...)
	}
	if len(nodes) == 0 {
		return nil, nil
	}
	root, some := conf.Merge(nodes, conf.ListKey{Path: "pipelines", Key: "name"}, conf.ListKey{Path: "plugins", Key: "path"})
	faults = append(faults, some...)
	list, ok := root.Get("plugins")
	if !ok {
		return nil, faults.Err()
	}
	faults = append(faults, conf.Interpolate(list, conf.SystemLookup())...)
	programs, some := conf.Decode(list, []rpc.Config(nil))
	faults = append(faults, some...)
	faults.Sort()
	return programs, faults.Err()
}

// programsIn lists the files of the plugin directory. Only one that was asked for must be there.
func programsIn(dir string, must bool) (programs []rpc.Config, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("looking for plugins: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for plugins: %w", err)
	}
	for _, e := range entries {
		c := rpc.DefaultConfig()
		c.Path = filepath.Join(dir, e.Name())
		info, err := os.Stat(c.Path)
		if err == nil && (info.IsDir() || info.Mode().Perm()&0o111 == 0) {
			continue // what a plugin needs beside its program
		}
		programs = append(programs, c)
	}
	return programs, nil
}

// listPlugins lists all plugins; programs that are configured are not listed as found again.
func listPlugins(ctx context.Context, reg *plugins.Registry, configured, found []rpc.Config) (all []listed) {
	for _, k := range []plugins.Kind{plugins.KindInput, plugins.KindProcessor, plugins.KindOutput} {
		for _, name := range reg.Names(k) {
			all = append(all, listed{Kind: string(k), Name: name, Version: version, Source: fromBuild})
		}
	}
	owner := map[string]string{}
	for _, l := range all {
		owner[l.Kind+" "+l.Name] = "built into this agent"
	}
	known := map[string]bool{}
	for _, c := range configured {
		known[c.Path] = true
		all = append(all, ask(ctx, c, fromConfig, owner)...)
	}
	for _, c := range found {
		if !known[c.Path] {
			all = append(all, ask(ctx, c, fromDir, owner)...)
		}
	}
	return all
}

// ask starts a program and lists what it has, or why it cannot be used. owner says who has which name.
func ask(ctx context.Context, c rpc.Config, source string, owner map[string]string) (all []listed) {
	one := listed{Source: source, Path: c.Path, SHA256: checksum(c.Path)}
	h := rpc.NewHost(c, discardLog())
	defer h.Close()
	specs, err := h.Specs(ctx)
	if err != nil {
		one.Error = strings.TrimPrefix(err.Error(), c.Path+" ")
		return []listed{one}
	}
	one.Version, one.Protocol = h.Status().Version, wireProtocol
	for _, s := range specs {
		x := one
		x.Kind, x.Name = string(s.Kind), s.Name
		key := x.Kind + " " + x.Name
		if other, taken := owner[key]; taken {
			x.Error = "its name is taken by the one that is " + other
		} else {
			owner[key] = "in " + c.Path
		}
		all = append(all, x)
	}
	return all
}

// checksum is what a configuration would pin the program with; empty where it cannot be read.
func checksum(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// renderPlugins makes the text or the JSON of a list.
func renderPlugins(all []listed, output string) ([]byte, error) {
	var b bytes.Buffer
	if output == "json" {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err := enc.Encode(all)
		return b.Bytes(), err
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tNAME\tVERSION\tPROTOCOL\tSHA256\tKNOWN\tRUNS\tERROR")
	for _, l := range all {
		protocol, where := "-", "in process"
		if l.Protocol > 0 {
			protocol = strconv.Itoa(l.Protocol)
		}
		if l.Path != "" {
			where = l.Path
		}
		none := func(s string) string { return cmp.Or(s, "-") }
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", none(l.Kind), none(l.Name), none(l.Version), protocol, none(l.SHA256), l.Source, where, l.Error)
	}
	err := t.Flush()
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return []byte(strings.Join(lines, "\n")), err
}
