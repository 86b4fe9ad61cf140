// Command demo shows the agent's main job on logs that come with the source: it runs the agent once over them with a fresh state,
// tells in a few tables what became of every line, and fails if the numbers do not add up. `make demo` calls it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/stacktrail", "the agent's binary")
	flag.StringVar(&o.config, "config", "configs/quickstart.yaml", "the configuration to run")
	flag.StringVar(&o.logs, "logs", "test/testdata/real-logs", "folder with the logs")
	flag.StringVar(&o.dir, "dir", "", "where state and results go; empty: a new temporary folder")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct{ agent, config, logs, dir string }

// run runs the agent, prints what it did, and returns an error unless every line is accounted for.
func run(ctx context.Context, o options, out io.Writer) error {
	for _, p := range []*string{&o.agent, &o.config, &o.logs} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("finding %s: %w", *p, err)
		}
		*p = abs
	}
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "stacktrail-demo-")
		if err != nil {
			return fmt.Errorf("making a folder for the results: %w", err)
		}
		o.dir = dir
	}
	read, err := countLines(o.logs)
	if err != nil {
		return err
	}
	said, err := runAgent(ctx, o)
	if err != nil {
		return err
	}
	events, err := readEvents(filepath.Join(o.dir, "out"))
	if err != nil {
		return err
	}
	r := result{logs: o.logs, out: filepath.Join(o.dir, "out"), read: read, said: said, events: events}
	r.print(out)
	if err := r.check(); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(o.dir, "state")); err != nil {
		return fmt.Errorf("clearing the state away: %w", err)
	}
	fmt.Fprintf(out, "\nEvery line is accounted for: %d lines = %d events + %d others; %d events = %d shipped + %d dropped.\n",
		said.lines, said.events, said.skipped, said.events, len(events), said.dropped)
	return nil
}
