// Program plugin is what the tests run in a process of its own: a processor that counts and masks, and an output that appends lines.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

type markConfig struct {
	Pattern string `yaml:"pattern" required:"true" doc:"Go regular expression to mask in the query."`
	Crash   string `yaml:"crash" doc:"The process dies of events with this path."`
	Hang    string `yaml:"hang" doc:"The process hangs on events with this path."`
	// Children are started with the plugin, one in its group and one that leaves it.
	Children string `yaml:"children" doc:"File for the numbers of two processes that are started and never end."`
	Far      string `yaml:"far" doc:"A folder that stands for a far end, see reach."`
}

// reach is an Open that needs a far end: refuse in its folder has it refuse the configuration, down fail, and slow wait until that is gone.
func reach(far, key string) error {
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(far, name))
		return far != "" && err == nil
	}
	for there("slow") {
		time.Sleep(10 * time.Millisecond)
	}
	switch {
	case there("refuse"):
		return conf.KeyError{Key: key, Err: errors.New("is not known there")}
	case there("down"):
		return errors.New("nobody answers")
	}
	return nil
}

type mark struct {
	markConfig
	re  *regexp.Regexp
	env plugins.Env
}

func newMark(c markConfig, env plugins.Env) (plugins.Processor, error) {
	re, err := regexp.Compile(c.Pattern)
	if err != nil {
		return nil, conf.KeyError{Key: "pattern", Err: err}
	}
	return &mark{c, re, env}, startChildren(c.Children)
}

func startChildren(list string) error {
	if list == "" {
		return nil
	}
	var pids []byte
	for _, leaves := range []bool{false, true} {
		child := exec.Command("sleep", "1000")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: leaves}
		if err := child.Start(); err != nil {
			return err
		}
		pids = fmt.Appendln(pids, child.Process.Pid)
	}
	return os.WriteFile(list, pids, 0o600)
}

// Open reaches for the far end.
func (m *mark) Open(context.Context) error { return reach(m.Far, "pattern") }

// Process masks and marks.
func (m *mark) Process(_ context.Context, b *event.Batch) error {
	for i := range b.Events {
		e := &b.Events[i]
		switch e.Path {
		case "":
		case m.Crash:
			os.Exit(3)
		case m.Hang:
			select {}
		}
		e.Query = m.re.ReplaceAllString(e.Query, "***")
		e.Set("marked", event.BoolValue(true))
	}
	m.env.Count("marked", "", int64(len(b.Events)))
	return nil
}

type appendConfig struct {
	Path string `yaml:"path" required:"true" doc:"File to append to: one line of JSON for each event."`
	Far  string `yaml:"far" doc:"A folder that stands for a far end, see reach."`
}

// Validate wants a path that means the same wherever the process runs.
func (c appendConfig) Validate() error {
	if !filepath.IsAbs(c.Path) {
		return conf.KeyError{Key: "path", Err: errors.New("must be absolute")}
	}
	return nil
}

type appendTo struct {
	appendConfig
	f *os.File
}

// Open reaches for the far end and opens the file.
func (a *appendTo) Open(context.Context) (err error) {
	if err := reach(a.Far, "path"); err != nil {
		return err
	}
	a.f, err = os.OpenFile(a.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return err
}

// Write appends a line for each event, all in one write.
func (a *appendTo) Write(_ context.Context, events []*event.Event) error {
	var b []byte
	for _, e := range events {
		b = fmt.Appendf(b, "{\"event_id\":%q,\"path\":%q,\"query\":%q}\n", e.ID(), e.Path, e.Query)
	}
	_, err := a.f.Write(b)
	return err
}

// Close closes the file.
func (a *appendTo) Close() error { return a.f.Close() }

func main() {
	if filepath.Base(os.Args[0]) == "collides" {
		rpc.Serve(plugins.ProcessorSpec("drop", "Has the name of another.", markConfig{}, newMark))
		return
	}
	rpc.Serve(
		plugins.ProcessorSpec("mark", "Mask a pattern in the query and mark the event.", markConfig{}, newMark).Safe(),
		plugins.OutputSpec("append", "Append lines to a file.", appendConfig{}, func(c appendConfig, _ plugins.Env) (plugins.Output, error) {
			return &appendTo{appendConfig: c}, nil
		}).Safe(),
	)
}
