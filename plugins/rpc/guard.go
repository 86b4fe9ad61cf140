package rpc

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// No process of a plugin outlives the agent, whatever the plugin starts and however the agent ends. A plugin itself goes with the agent
// (Pdeathsig), and what is in its process group with it. What left the group is told by a variable in its environment, which children
// inherit: the agent ends such processes when their plugin has ended, and a guard, a process that does nothing but wait for the agent's end,
// when the agent has. A process that was given another environment escapes; under systemd the unit's control group has that, too.

// leftEnv is the variable. Its value names the agent's process and the plugin's.
const leftEnv = "STACKTRAIL_PLUGIN_PROCESS"

// sweepTime is how long processes are ended that may start others meanwhile.
const sweepTime = 3 * time.Second

// ofAgent is what the values of all plugins of this process begin with: its number and when it started, for numbers are used again.
func ofAgent() string {
	stat, err := os.ReadFile("/proc/self/stat")
	_, after, _ := strings.Cut(string(stat), ") ")
	const started = 22 - 3 // proc_pid_stat(5) counts from 1, and after begins with the third
	if f := strings.Fields(after); err == nil && len(f) > started {
		return fmt.Sprintf("%d-%s-", os.Getpid(), f[started])
	}
	return fmt.Sprintf("%d-", os.Getpid())
}

// newMark makes the value for one process.
func newMark() string { return ofAgent() + strconv.FormatUint(rand.Uint64(), 36) }

// sweep kills the processes whose value begins so, and those that they start meanwhile. It returns how many there were.
func sweep(mark string) (n int) {
	seen := map[int]bool{}
	for end := time.Now().Add(sweepTime); time.Now().Before(end); {
		killed := killMarked(mark)
		if len(killed) == 0 {
			break
		}
		for _, pid := range killed {
			seen[pid] = true
		}
		<-time.After(5 * time.Millisecond) // a killed process can be seen until it is gone
	}
	return len(seen)
}

// killMarked kills them once.
func killMarked(mark string) (killed []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1) // what cannot be looked at is not ours
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		// The descriptor is of the process that is looked at, whoever has its number when it is killed.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+leftEnv+"="+mark)) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			killed = append(killed, pid)
		}
		_ = unix.Close(fd)
	}
	return killed
}

// Guard is a process that ends what the plugins of this one leave behind, when this one is gone.
type Guard struct {
	cmd  *exec.Cmd
	pipe io.Closer // its other end is the guard's stdin: the system closes it with us
}

// StartGuard starts this program once more, with arguments by which it calls RunGuard with the one that follows them.
func StartGuard(args ...string) (*Guard, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting the plugins' guard: %w", err)
	}
	cmd := exec.Command(path, append(args, ofAgent())...)
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal sends is for the agent
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the plugins' guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the plugins' guard: %w", err)
	}
	return &Guard{cmd, pipe}, nil
}

// Close has the guard do its work, and waits for its end.
func (g *Guard) Close() error {
	_ = g.pipe.Close()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("ending the plugins' guard: %w", err)
	}
	return nil
}

// RunGuard waits until agent, whose value StartGuard gave it, is gone, and ends what its plugins left behind. A stop of the whole unit
// does not end it: the agent, which goes on for a while, does.
func RunGuard(agent string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the agent
	if agent == "" {
		return
	}
	if n := sweep(agent); n > 0 {
		slog.Warn("processes that plugins left behind were ended", "processes", n)
	}
}
