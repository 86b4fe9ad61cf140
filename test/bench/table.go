package main

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is a budget with what was measured.
type row struct {
	name, what string
	value      float64
	unit       string
	goal, must float64
	more       bool // more is better; else less
	detail     string
	void       error // the agent failed: there is no figure
}

// Verdicts.
const (
	goalMet = "goal met"
	mustMet = "must met"
	missed  = "MISSED"
)

func (r row) verdict() string {
	as := func(limit float64) bool {
		if r.more {
			return r.value >= limit
		}
		return r.value <= limit
	}
	switch {
	case r.void != nil:
		return missed
	case as(r.goal):
		return goalMet
	case as(r.must):
		return mustMet
	}
	return missed
}

// printTable prints the budgets, and below them why a figure is void.
func printTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\twhat\tfigure\tgoal\tmust\tverdict\tmeasured")
	for _, r := range rows {
		sign := "≤ "
		if r.more {
			sign = "≥ "
		}
		figure := r.number(r.value)
		detail := r.detail
		if r.void != nil {
			figure, detail = "void", "see below"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s%s\t%s%s\t%s\t%s\n", r.name, r.what, figure, sign, limit(r.goal), sign, limit(r.must), r.verdict(), detail)
	}
	if err := t.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "printing the table:", err)
	}
	for _, r := range rows {
		if r.void != nil {
			fmt.Fprintf(w, "\n%s (%s) is void: %v\n", r.name, r.what, r.void)
		}
	}
}

// number writes a figure as exactly as it is worth.
func (r row) number(v float64) string {
	digits := 2
	switch {
	case v >= 10:
		digits = 1
	case v < 0.1:
		digits = 4
	}
	return strings.TrimSpace(strconv.FormatFloat(v, 'f', digits, 64) + " " + r.unit)
}

func limit(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// printMachine prints what the figures were measured on.
func printMachine(w io.Writer, b bench, before string) {
	built := "?"
	if info, err := buildinfo.ReadFile(b.agent); err == nil {
		built = info.GoVersion
	}
	fmt.Fprintf(w, "\nleast of %d runs over %d MB each; %d cores, %s/%s, agent built with %s, R with %s; load %s before, %s after\n",
		b.runs, b.size/1e6, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, built, runtime.Version(), before, loadAverage())
}

// loadAverage returns the load of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
