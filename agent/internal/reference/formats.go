package reference

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
)

// grammars holds by name what the code says of each format above its parser. Files makes it, from the same code.
//
//go:embed grammars.json
var grammars []byte

// grammarsPath is where it stands in the repository.
const grammarsPath = "agent/internal/reference/grammars.json"

// formatLister is what the configuration of an input that reads lines can do.
type formatLister interface {
	EachFormat(yield func(name, writer, example string, fields []string)) error
	FromPath() ([]string, error)
}

// Formats returns the page of all formats of lines as Markdown.
func Formats(reg *plugins.Registry) ([]byte, error) {
	known := map[string]string{}
	if err := json.Unmarshal(grammars, &known); err != nil {
		return nil, fmt.Errorf("BUG: reading %s: %w", grammarsPath, err)
	}
	return formatsPage(reg, known)
}

func formatsPage(reg *plugins.Registry, grammars map[string]string) ([]byte, error) {
	var b, list strings.Builder
	b.WriteString(`# Formats

Who writes what, and the fields of the [common schema](fields.md) that each format's lines can fill. With ` + "`format: auto`" + ` each line is read in the
format that it has; ` + "`format`" + ` with names looks for these only. ` + "`stacktrail parse --explain LINE`" + ` shows how a line is read, and
` + "`stacktrail formats`" + ` prints examples and fields.

Around a line of any format may stand what syslog (RFC 3164, RFC 5424, rsyslog), the journal (short, json), containers (docker, CRI,
pebble), Apache's error log, fluentd or a terminal put there: it is taken off by itself. Formats of your own are the keys ` + "`template`, `regex`\nand `json`" + ` of the inputs.

`)
	lister, err := lister(reg)
	if err != nil {
		return nil, err
	}
	fromPath, err := lister.FromPath()
	if err != nil {
		return nil, fmt.Errorf("listing formats: %w", err)
	}
	fmt.Fprintf(&b, "Where the line does not, the path of the request fills in any format `%s`.\n\n", strings.Join(fromPath, "`, `"))
	b.WriteString("| format | written by |\n|---|---|\n")
	var missing []string
	err = lister.EachFormat(func(name, writer, example string, fields []string) {
		grammar, ok := grammars[name]
		if !ok {
			missing = append(missing, name)
		}
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", name, name, escape(writer))
		fmt.Fprintf(&list, "\n## %s\n\n%s\n\n```text\n%s\n```\n\nFills ", name, "Written by "+escape(writer)+".", example)
		for i, f := range fields {
			if i > 0 {
				list.WriteString(", ")
			}
			list.WriteString("`" + f + "`")
		}
		fmt.Fprintf(&list, ".\n\n%s\n", strings.TrimSpace(grammar))
	})
	if err != nil {
		return nil, fmt.Errorf("listing formats: %w", err)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("BUG: nothing says how these formats are written: %s", strings.Join(missing, ", "))
	}
	return []byte(b.String() + list.String()), nil
}

// lister is the configuration of the first input that reads lines.
func lister(reg *plugins.Registry) (formatLister, error) {
	for _, n := range reg.Names(plugins.KindInput) {
		s, _ := reg.Lookup(plugins.KindInput, n)
		if l, ok := s.Defaults.(formatLister); ok {
			return l, nil
		}
	}
	return nil, errors.New("listing formats: no input of this build reads lines")
}
