package rpc

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// openProgram opens a plugin's program and proves that it may be run. The file stays open until the program is started: with a checksum,
// what is executed is what was read.
func openProgram(c Config) (*os.File, error) {
	if !filepath.IsAbs(c.Path) {
		return nil, fmt.Errorf("path %q is not absolute: write the whole path, from /", c.Path)
	}
	f, err := os.OpenFile(c.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not keep us
	if err != nil {
		return nil, err // it names the path
	}
	if err := checkProgram(f, c); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func checkProgram(f *os.File, c Config) error {
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%s is a directory: name the plugin's program in it", c.Path)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", c.Path)
	case st.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s cannot be executed: chmod 0755 it", c.Path)
	}
	if !c.AllowWorldWritable {
		if st.Mode().Perm()&0o002 != 0 {
			return fmt.Errorf("%s can be changed by everybody: chmod o-w it, or set allow_world_writable: true", c.Path)
		}
		dir, err := os.Stat(filepath.Dir(c.Path))
		if err == nil && dir.Mode().Perm()&0o002 != 0 && dir.Mode()&os.ModeSticky == 0 {
			return fmt.Errorf("%s can be replaced by everybody, who may write to its directory: chmod o-w that, or set allow_world_writable: true", c.Path)
		}
	}
	if c.SHA256 == "" {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading %s: %w", c.Path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, string(c.SHA256)) {
		return fmt.Errorf("%s has the checksum %s, and sha256 says %s: it is not the program that was meant", c.Path, got, c.SHA256)
	}
	return nil
}

// process is a running plugin. It is go-plugin's runner: go-plugin shakes hands, and everything about the life of the process is done here.
type process struct {
	cmd  *exec.Cmd
	mark string       // by which what it leaves behind is told
	pid  atomic.Int64 // 0: not started
	conn *grpc.ClientConn
	dir  string // of the socket

	stdout, stderr *os.File // our ends
	log            *lineLog
	first          firstLine
	done           chan struct{} // closed when the process is gone, with all that it started
	exit           error         // after done
	killed         atomic.Bool   // we ended it
	useful         atomic.Bool   // it has answered a call with data
	client         plugin.ClientProtocol
}

// startProcess starts the program and connects to it. It ends with the deadline of ctx.
func startProcess(ctx context.Context, c Config, log *slog.Logger) (*process, error) {
	f, err := openProgram(c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	p := &process{done: make(chan struct{}), log: newLineLog(log)}
	p.first.log = p.log
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  handshake(),
		VersionedPlugins: map[int]plugin.PluginSet{protocol: {pluginName: &both{}}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		SkipHostEnv:      true,
		StartTimeout:     startTimeout + time.Second, // ours comes first
		Logger:           hclog.NewNullLogger(),
		GRPCDialOptions:  dialOptions(),
		SyncStdout:       p.log, SyncStderr: p.log,
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			p.dir = dir
			return p, p.prepare(cmd, c, f)
		},
	})
	defer func() { _ = os.RemoveAll(p.dir) }() // nobody connects to it a second time
	// Whatever go-plugin waits for ends when the process does.
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	if _, err = client.Start(); err == nil {
		p.client, err = client.Client()
	}
	if err == nil {
		conn, e := p.client.Dispense(pluginName)
		if p.conn, _ = conn.(*grpc.ClientConn); p.conn == nil {
			err = fmt.Errorf("BUG: there is no connection: %w", e)
		}
	}
	if err != nil || ctx.Err() != nil {
		late := ctx.Err() != nil
		if p.number() != 0 {
			p.end()
		}
		return nil, p.startError(err, late)
	}
	return p, nil
}

// startError says in our words why the plugin did not start.
func (p *process) startError(err error, late bool) error {
	line := p.first.text()
	parts := strings.Split(line, "|")
	said := p.log.last()
	if said != "" {
		said = "; it said last: " + said
	}
	switch {
	case p.number() == 0:
		return fmt.Errorf("starting it: %w", err)
	case late:
		return fmt.Errorf("it was not ready in %v: is it a plugin?%s", startTimeout, said)
	case line == "":
		return fmt.Errorf("it ended before it was ready (%s): is it a plugin, and of this agent?%s", exitText(p.exit), said)
	case len(parts) < 4:
		return fmt.Errorf("its first line is %q, which is no handshake: is it a plugin?%s", cut(line), said)
	case parts[1] != strconv.Itoa(protocol):
		return fmt.Errorf("it speaks protocol %s, this agent speaks %d: build it with an SDK of this agent's release", cut(parts[1]), protocol)
	}
	return fmt.Errorf("connecting to it: %s%s", oneLine(err.Error()), said)
}

func cut(s string) string { return s[:min(len(s), 100)] }

// exitText says how a process ended.
func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// prepare makes the command ready to be started.
func (p *process) prepare(spec *exec.Cmd, c Config, f *os.File) error {
	p.mark = newMark()
	cmd := &exec.Cmd{
		Path: c.Path, Args: []string{c.Path}, Dir: "/",
		Env:         append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", leftEnv + "=" + p.mark}, spec.Env...),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if c.SHA256 != "" {
		cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{f}
	}
	out, outChild, err := os.Pipe()
	if err != nil {
		return err
	}
	errs, errChild, err := os.Pipe()
	if err != nil {
		_, _ = out.Close(), outChild.Close()
		return err
	}
	cmd.Stdout, cmd.Stderr = outChild, errChild
	p.cmd, p.stdout, p.stderr = cmd, out, errs
	p.first.from = out
	return nil
}

// Start starts the process from a thread that lives as long as it does: the kernel kills the process when the thread that made it ends.
func (p *process) Start(context.Context) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		for _, f := range []any{p.cmd.Stdout, p.cmd.Stderr} {
			_ = f.(*os.File).Close() // the child's ends
		}
		if err == nil {
			p.pid.Store(int64(p.cmd.Process.Pid))
		} else {
			_, _ = p.stdout.Close(), p.stderr.Close()
		}
		started <- err
		if err == nil {
			p.attend()
		}
	}()
	return <-started
}

// attend waits for the end of the process and clears up behind it.
func (p *process) attend() {
	defer close(p.done)
	var reading sync.WaitGroup
	reading.Go(func() { p.log.read(p.stderr) })
	// Waited for without being reaped, its number cannot be another's yet when the rest of its group is killed.
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, p.number(), &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	_ = syscall.Kill(-p.number(), syscall.SIGKILL)
	sweep(p.mark)
	p.exit = p.cmd.Wait()
	// What it said last is read; a child of its own that escaped may hold the pipes open for ever.
	drained := make(chan struct{})
	go func() { reading.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(200 * time.Millisecond):
	}
	_, _ = p.stdout.Close(), p.stderr.Close()
	<-drained
	p.log.flush()
}

func (p *process) number() int { return int(p.pid.Load()) }

// kill kills the process and its group at once.
func (p *process) kill() {
	if p.number() == 0 {
		return
	}
	select {
	case <-p.done:
		return
	default:
	}
	p.killed.Store(true)
	_ = syscall.Kill(p.number(), syscall.SIGKILL)
	_ = syscall.Kill(-p.number(), syscall.SIGKILL)
}

// end kills the process, waits until it is gone and lets go of the connection.
func (p *process) end() {
	p.kill()
	<-p.done
	p.disconnect()
}

// disconnect lets go of the connection to a process that is gone.
func (p *process) disconnect() {
	if p.conn != nil {
		_ = p.conn.Close() // first, or go-plugin would ask the process to end
	}
	if p.client != nil {
		_ = p.client.Close()
	}
}

// stop asks the process to end, and ends it.
func (p *process) stop(patience time.Duration) {
	p.killed.Store(true)
	_ = syscall.Kill(-p.number(), syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
	}
	p.end()
}

// gone tells whether the process has ended, waiting for a moment: a broken connection is seen before its cause.
func (p *process) gone() bool {
	select {
	case <-p.done:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// Wait waits for the end of the process.
func (p *process) Wait(context.Context) error {
	<-p.done
	return p.exit
}

// Kill kills the process.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// Stdout is where the handshake is read from.
func (p *process) Stdout() io.ReadCloser { return &p.first }

// Stderr is empty for go-plugin: it is read here.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name is the path.
func (p *process) Name() string { return p.cmd.Path }

// ID is the number of the process.
func (p *process) ID() string { return strconv.Itoa(p.number()) }

// Diagnose adds nothing: startError says more.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost keeps the plugin to the socket in its own directory.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || !filepath.IsAbs(address) {
		return "", "", fmt.Errorf("it listens on %s %s, and not on a unix socket", cut(network), cut(address))
	}
	return network, address, nil
}

// HostToPlugin changes nothing.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// firstLine passes the plugin's stdout on and remembers how it begins.
type firstLine struct {
	from io.ReadCloser
	log  *lineLog

	mu  sync.Mutex
	got []byte
	all bool // the line is complete
}

// Read reads on.
func (l *firstLine) Read(b []byte) (int, error) {
	n, err := l.from.Read(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 1 << 10
	for _, c := range b[:n] {
		if l.all = l.all || c == '\n' || len(l.got) >= most; l.all {
			break
		}
		l.got = append(l.got, c)
	}
	return n, err
}

// Close ends reading.
func (l *firstLine) Close() error { return l.from.Close() }

func (l *firstLine) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(string(l.got)), "?")
}

// lineReader is as large as the longest line that is kept.
const lineReader = 4 << 10

// read logs all lines of r.
func (l *lineLog) read(r io.Reader) {
	b := bufio.NewReaderSize(r, lineReader)
	for {
		line, err := b.ReadSlice('\n')
		l.line(line)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that is too long
			_, err = b.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}
