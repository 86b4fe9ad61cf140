package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// procStat is what proc(5) says of a process.
type procStat struct {
	pid, parent, group int
	zombie             bool
	cpu                time.Duration // user and system time, that of children it waited for too
	rss                int64
}

// userHZ is the unit of the times in /proc, on every Linux that Go runs on.
const userHZ = 100

// readStat reads the stat of a process.
func readStat(pid int) (s procStat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	const fields = 22 // after the name, which may hold anything
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < fields {
		return s, fmt.Errorf("reading /proc/%d/stat: %d fields", pid, len(f))
	}
	var n [fields]int64
	for i := 1; i < fields; i++ {
		n[i], _ = strconv.ParseInt(f[i], 10, 64) // some are larger than that, none of these
	}
	ticks := n[11] + n[12] + n[13] + n[14]
	return procStat{
		pid: pid, parent: int(n[1]), group: int(n[2]), zombie: f[0] == "Z" || f[0] == "X",
		cpu: time.Duration(ticks) * time.Second / userHZ, rss: n[21] * int64(os.Getpagesize()),
	}, nil
}

// processes lists the running processes that match.
func processes(match func(procStat) bool) (all []procStat) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && !s.zombie && match(s) {
			all = append(all, s)
		}
	}
	return all
}

// groupUsage is what a plugin, with all processes of its group, took of the CPU and holds.
func groupUsage(group int) (cpu time.Duration, rss int64) {
	for _, s := range processes(func(s procStat) bool { return s.group == group && group != 0 }) {
		cpu, rss = cpu+s.cpu, rss+s.rss
	}
	return cpu, rss
}

// within polls until cond holds, and reports whether it did in time.
func within(limit time.Duration, cond func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			return cond()
		}
	}
	return true
}
