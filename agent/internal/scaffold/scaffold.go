// Package scaffold writes the folder of a new plugin: code with one function to edit, tests, a Makefile, and a configuration that
// runs it.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// templates has a folder for each language and one for what both get. A file's path below it is its name, with .tmpl at the end.
// NAME in it stands for the plugin's name. What is below a folder processor or output is for that kind.
//
//go:embed all:templates
var templates embed.FS

// Langs are the languages.
func Langs() []string { return []string{"go", "python"} }

// Plugin is what to make.
type Plugin struct {
	Name string
	Kind plugins.Kind
	Lang string
	Dir  string // absolute

	Module   string // of Go
	Version  string // release of this agent: empty if it is none
	Checkout string // of this repository, absolute; empty: releases are used
	Agent    string // how the Makefile calls the agent
}

// namePattern is what the agent takes for a name.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// CheckName refuses what cannot be a plugin's name, with a suggestion.
func CheckName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	good := regexp.MustCompile(`[^a-z0-9_-]+`).ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "-")
	good = strings.Trim(strings.TrimLeft(good, "0123456789"), "-_")
	good = good[:min(len(good), 40)]
	err := errors.New("a name begins with a small letter and has small letters, digits, '-' and '_' in it, 63 at most")
	if good != "" {
		err = fmt.Errorf("%w (did you mean %q?)", err, good)
	}
	return fmt.Errorf("%q is no name for a plugin: %w", name, err)
}

// Write makes the folder and returns the names of its files. It leaves one that holds anything alone.
func (p Plugin) Write() (files []string, err error) {
	if err := CheckName(p.Name); err != nil {
		return nil, err
	}
	switch there, err := os.ReadDir(p.Dir); {
	case err == nil && len(there) > 0:
		return nil, fmt.Errorf("%s is not empty: name another folder with --dir", p.Dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("looking into the folder: %w", err)
	}
	for _, from := range []string{"both", p.Lang} {
		some, err := p.writeAll(path.Join("templates", from))
		if err != nil {
			return nil, fmt.Errorf("writing the plugin: %w", err)
		}
		files = append(files, some...)
	}
	if p.Lang == "go" && p.Checkout != "" {
		// With the checksums of the checkout nothing need be asked of anybody.
		sum, err := os.ReadFile(filepath.Join(p.Checkout, "go.sum"))
		if err == nil {
			err = os.WriteFile(filepath.Join(p.Dir, "go.sum"), sum, 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("writing the plugin: %w", err)
		}
		files = append(files, "go.sum")
	}
	slices.Sort(files)
	return files, nil
}

// writeAll writes what stands below a folder of the templates.
func (p Plugin) writeAll(from string) (files []string, err error) {
	err = fs.WalkDir(templates, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		to := strings.TrimSuffix(strings.TrimPrefix(name, from+"/"), ".tmpl")
		if kind, rest, ok := strings.Cut(to, "/"); ok {
			if kind != string(p.Kind) {
				return nil
			}
			to = rest
		}
		to = strings.ReplaceAll(to, "MODULE", p.PyModule())
		to = strings.ReplaceAll(to, "NAME", p.Name)
		if err := p.writeFile(name, to); err != nil {
			return err
		}
		files = append(files, to)
		return nil
	})
	return files, err
}

func (p Plugin) writeFile(from, to string) error {
	t, err := template.New(path.Base(from)).Option("missingkey=error").ParseFS(templates, from)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if bytes.HasPrefix(b.Bytes(), []byte("#!")) {
		mode = 0o755
	}
	to = filepath.Join(p.Dir, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b.Bytes(), mode)
}

// Processor tells whether it is one, or else an output.
func (p Plugin) Processor() bool { return p.Kind == plugins.KindProcessor }

// PyModule is the name of the Python module, which none of Python's own has.
func (p Plugin) PyModule() string { return strings.ReplaceAll(p.Name, "-", "_") + "_plugin" }

// Field is the field that the new processor sets.
func (p Plugin) Field() string { return strings.ReplaceAll(p.Name, "-", "_") }

// Overwrites says what the new processor's field is in the common schema already; "" when it is nothing.
func (p Plugin) Overwrites() string {
	for _, f := range schema.Fields() {
		if field := p.Field(); p.Processor() && (field == f.Name || field == f.ECS || field == f.OTel) {
			return f.Name
		}
	}
	return ""
}

// Quoted is a text in double quotes, for YAML, Go and go.mod.
func (p Plugin) Quoted(text string) string { return strconv.Quote(text) }

// Shell is a text in single quotes for a Makefile's shell.
func (p Plugin) Shell(text string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(text, "'", `'\''`), "$", "$$") + "'"
}

// Path is that of a file in the folder.
func (p Plugin) Path(name string) string { return filepath.Join(p.Dir, name) }

// SDK is what pip installs.
func (p Plugin) SDK() string {
	if p.Checkout != "" {
		return filepath.Join(p.Checkout, "plugins", "python")
	}
	return "stacktrail-plugin==" + strings.TrimPrefix(p.Version, "v")
}

// Indirect are the modules that the SDK of a checkout needs, as lines of go.mod. Those of a release are found by `go mod tidy`.
func (p Plugin) Indirect() ([]string, error) {
	if p.Checkout == "" {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(p.Checkout, "go.mod"))
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require)?\s+([^\s()]+ v[^\s()]+)`).FindAllStringSubmatch(string(text), -1) {
		lines = append(lines, m[1])
	}
	return lines, nil
}

// Required is the version that go.mod asks for.
func (p Plugin) Required() string {
	if p.Version == "" {
		return "v0.0.0"
	}
	return p.Version
}
