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
	"sync"
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
	log  *slog.Logger
	args []string
	stop chan struct{} // closed by Close
	done chan struct{} // closed when there is no guard any more

	mu   sync.Mutex // guards both below
	cmd  *exec.Cmd
	pipe io.Closer // its other end is the guard's stdin: the system closes it with us
}

const (
	guardPause    = time.Second     // before a guard that ended is replaced
	guardPatience = 5 * time.Second // with one that does not end
)

// StartGuard starts this program once more, with arguments by which it calls RunGuard with the one that follows them. A guard that ends too
// soon is said and replaced.
func StartGuard(log *slog.Logger, args ...string) (*Guard, error) {
	g := &Guard{log: log, args: append(args, ofAgent()), stop: make(chan struct{}), done: make(chan struct{})}
	if err := g.start(); err != nil {
		return nil, err
	}
	go g.keep()
	return g, nil
}

func (g *Guard) start() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting the plugins' guard: %w", err)
	}
	cmd := exec.Command(path, g.args...)
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal sends is for the agent
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("starting the plugins' guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the plugins' guard: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd, g.pipe = cmd, pipe
	select {
	case <-g.stop: // Close has closed the one before
		_ = pipe.Close()
	default:
	}
	return nil
}

// keep has a guard there until Close.
func (g *Guard) keep() {
	defer close(g.done)
	for {
		err := g.cmd.Wait() // nobody else sets it
		for {
			select {
			case <-g.stop:
				return
			default:
			}
			g.log.Warn("the plugins' guard is gone and is started again", "error", exitText(err))
			select {
			case <-g.stop:
				return
			case <-time.After(guardPause):
			}
			if err = g.start(); err == nil {
				break
			}
		}
	}
}

// Close has the guard do its work, and waits for its end.
func (g *Guard) Close() {
	close(g.stop)
	g.mu.Lock()
	_ = g.pipe.Close()
	g.mu.Unlock()
	select {
	case <-g.done:
		return
	case <-time.After(guardPatience):
	}
	g.log.Warn("the plugins' guard does not end and is killed")
	g.mu.Lock()
	_ = g.cmd.Process.Kill()
	g.mu.Unlock()
	<-g.done
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
