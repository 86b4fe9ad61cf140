package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// formatLister is what the configuration of an input that reads lines can do: it knows the formats, and what the path of a request
// tells in any of them.
type formatLister interface {
	EachFormat(yield func(name, writer, example string, fields []string)) error
	FromPath() ([]string, error)
}

// formatInfo is a format as the command prints it.
type formatInfo struct {
	Name    string   `json:"name"`
	Writer  string   `json:"writer"`
	Example string   `json:"example"`
	Fields  []string `json:"fields"`
	// FromPath are those that the request's path fills, in all formats, where the line does not.
	FromPath []string `json:"from_path"`
}

func newFormatsCommand(reg *plugins.Registry) *cobra.Command {
	output := "text"
	cmd := &cobra.Command{
		Use:   "formats [NAME…]",
		Short: "List the formats of log lines",
		Long: `formats lists the formats of lines that inputs know: who writes them, an example, and the fields of the common schema that
their lines can fill. With names it lists these only.

Around a line of any format may stand what syslog (RFC 3164, RFC 5424, rsyslog), the journal (short, json), containers (docker,
CRI, pebble), Apache's error log, fluentd or a terminal put there: it is taken off by itself.`,
		Example: `  stacktrail formats
  stacktrail formats -o json haproxy-http`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output %s: use text or json", output)
			}
			list, err := listFormats(reg, names)
			if err != nil {
				return err
			}
			b, err := renderFormats(list, output)
			return printed(cmd, b, err)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			list, _ := listFormats(reg, nil)
			var names []cobra.Completion
			for _, f := range list {
				names = append(names, f.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", output, "text or json")
	return cmd
}

// lineConfig is the default configuration of the first input that reads lines.
func lineConfig(reg *plugins.Registry) (spec plugins.Spec, lister formatLister, err error) {
	for _, n := range reg.Names(plugins.KindInput) {
		spec, _ = reg.Lookup(plugins.KindInput, n)
		if l, ok := spec.Defaults.(formatLister); ok {
			return spec, l, nil
		}
	}
	return spec, nil, errors.New("listing formats: no input of this build reads lines")
}

// listFormats lists the formats with these names, or all.
func listFormats(reg *plugins.Registry, names []string) ([]formatInfo, error) {
	_, lister, err := lineConfig(reg)
	if err != nil {
		return nil, err
	}
	fromPath, err := lister.FromPath()
	if err != nil {
		return nil, fmt.Errorf("listing formats: %w", err)
	}
	all := map[string]formatInfo{}
	var order []string
	err = lister.EachFormat(func(name, writer, example string, fields []string) {
		all[name] = formatInfo{name, writer, example, fields, fromPath}
		order = append(order, name)
	})
	if err != nil {
		return nil, fmt.Errorf("listing formats: %w", err)
	}
	if len(names) == 0 {
		names = order
	}
	var list []formatInfo
	for _, n := range names {
		f, ok := all[n]
		if !ok {
			if near := conf.Suggest(n, order); near != "" {
				return nil, fmt.Errorf("unknown format %q (did you mean %q?)", n, near)
			}
			return nil, fmt.Errorf("unknown format %q (known are %s)", n, strings.Join(order, ", "))
		}
		list = append(list, f)
	}
	return list, nil
}

// renderFormats makes the text or the JSON of a list.
func renderFormats(list []formatInfo, output string) ([]byte, error) {
	var b strings.Builder
	if output == "json" {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err := enc.Encode(list)
		return []byte(b.String()), err
	}
	for i, f := range list {
		if i > 0 {
			fmt.Fprintln(&b)
		}
		fmt.Fprintf(&b, "%s: %s\n  %s\n", f.Name, f.Writer, f.Example)
		wrapWords(&b, "  fills ", "        ", f.Fields)
	}
	if len(list) > 0 {
		fmt.Fprintln(&b)
		wrapWords(&b, "Where the line does not, the path of the request fills in any format ", "  ", list[0].FromPath)
	}
	return []byte(b.String()), nil
}

// wrapWords writes words in lines of about 120 columns.
func wrapWords(w io.Writer, first, indent string, words []string) {
	line := first
	for i, word := range words {
		if i > 0 {
			line += ", "
		}
		if len(line)+len(word) > 118 && line != indent {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line = indent
		}
		line += word
	}
	fmt.Fprintln(w, line)
}
