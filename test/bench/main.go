// Command bench measures what the agent costs and prints its budgets as a table.
//
//	make build && STACKTRAIL_BIN=bin/stacktrail go run ./test/bench
//
// The unit is R: the CPU per event of a minimal program that reads the same file in blocks of 256 KiB, finds the newlines, and
// writes 1.8 bytes for each byte read. That program is this one, started again as a child (reference.go). Machines are noisy and
// shared, so R and the agent run in turn, and what is judged is the ratio of the least costs of both: a disturbance only ever
// adds. Absolute times and medians inform. CPU is user and system time of the whole process, start and end included.
//
// Before each run the pages that it will write are touched (bench.warm), because a virtual machine may have to get them from its
// host, at ten times the price.
//
// A run counts only if its output holds exactly the records that it should; else its budget is void, which is a miss. The exit
// code is 1 if a budget misses its "must", and 2 if nothing could be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// names of the budgets, in the order of the table.
func names() []string {
	return []string{"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "drop", "formats", "parse"}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == referenceFlag {
		if err := reference(os.Stdout, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	met, err := run(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case !met:
		os.Exit(1)
	}
}

// run measures what the arguments ask for and says whether every must is met.
func run(args []string) (met bool, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	size := conf.Size(300e6)
	flags.TextVar(&size, "size", size, "bytes of log lines that each budget reads")
	runs := flags.Int("runs", 5, "runs of each program; the cheapest counts (for memory the dearest)")
	only := flags.String("only", "", "budgets to measure, as in P1,P3; empty: all")
	dir := flags.String("dir", "", "where to put lines and outputs while measuring; empty: the system's temporary folder")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	wanted := names()
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, w := range wanted {
		if !slices.Contains(names(), w) {
			return false, fmt.Errorf("reading -only: there is no budget %q; there are %s", w, strings.Join(names(), ", "))
		}
	}
	switch {
	case flags.NArg() > 0:
		return false, fmt.Errorf("reading arguments: %q is not expected", flags.Arg(0))
	case *runs < 1:
		return false, fmt.Errorf("reading -runs: %d is less than 1", *runs)
	case size < 1e6:
		return false, fmt.Errorf("reading -size: %v is too little to measure, take at least 1MB", size)
	}
	b := bench{size: int64(size), runs: *runs, progress: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	if b.agent, err = agentBinary(); err != nil {
		return false, err
	}
	if b.self, err = os.Executable(); err != nil {
		return false, fmt.Errorf("finding this program: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if b.dir, err = os.MkdirTemp(*dir, "stacktrail-bench-"); err != nil {
		return false, fmt.Errorf("making a folder for the lines: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.enoughRoom(); err != nil {
		return false, err
	}
	before := loadAverage()
	rows, err := b.measure(ctx, wanted)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		return false, err
	}
	printTable(os.Stdout, rows)
	printMachine(os.Stdout, b, before)
	return !slices.ContainsFunc(rows, func(r row) bool { return r.verdict() == missed }), nil
}

// agentBinary finds the program that is measured.
func agentBinary() (string, error) {
	bin := os.Getenv("STACKTRAIL_BIN")
	if bin == "" {
		return "", errors.New("finding the agent: set STACKTRAIL_BIN to the binary to measure, or run make bench, which builds it")
	}
	bin, err := filepath.Abs(bin)
	if err == nil {
		_, err = os.Stat(bin)
	}
	if err != nil {
		return "", fmt.Errorf("finding the agent: %w", err)
	}
	return bin, nil
}

// enoughRoom refuses to fill a disk: it takes two sets of lines, what two outputs write, and something for everybody else.
func (b *bench) enoughRoom() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &fs); err != nil {
		return fmt.Errorf("asking for free space in %s: %w", b.dir, err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	need := b.size*(2+2*outputFactor) + 512<<20
	if free < need {
		return fmt.Errorf("looking for room in %s: %d MB are free and %d MB are needed: name another folder with -dir or less with -size", b.dir, free/1e6, need/1e6)
	}
	return nil
}
