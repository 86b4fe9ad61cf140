//go:build blackbox

package scripts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestARealRsyslogWritesIntoANamedPipe has rsyslog read a log file and hand it on through ompipe, as kolla's and packages' hosts do.
// The agent stops and starts again meanwhile: rsyslog keeps what finds no reader, so each line arrives once.
func TestARealRsyslogWritesIntoANamedPipe(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	pipe := filepath.Join(b.dir, "logs", "nova-api.pipe")
	ok(t, syscall.Mkfifo(pipe, 0o666))
	b.write(setup{paths: []string{pipe}})
	w := newWriter(t, filepath.Join(b.dir, "source.log"), 1)
	w.lines(200)
	a := b.start()
	a.says("started")
	rsyslog(t, b, w.path, pipe)
	arrive(t, a, b.out, 200)
	for i := range 10 {
		w.lines(100)
		arrive(t, a, b.out, 300+100*i)
	}
	a.stop()
	a = b.start()
	w.lines(300)
	arrive(t, a, b.out, w.count())
	a.stop()
	v := newVerifier(w)
	ok(t, v.file(b.out))
	got := v.result()
	got.outOfOrder = nil // rsyslog itself writes a message that found the pipe full after its successors
	got.exact(t)
}

// rsyslog runs the real one over a file until the test ends.
func rsyslog(t *testing.T, b *box, from, to string) {
	t.Helper()
	work := filepath.Join(b.dir, "rsyslog")
	ok(t, os.Mkdir(work, 0o755))
	conf := filepath.Join(work, "rsyslog.conf")
	ok(t, os.WriteFile(conf, []byte(fmt.Sprintf(`global(workDirectory=%q)
main_queue(queue.type="LinkedList" queue.workerThreads="1") # more would change the order
module(load="imfile")
module(load="builtin:ompipe")
input(type="imfile" File=%q Tag="nova-api" reopenOnTruncate="on")
template(name="line" type="string" string="%%msg%%\n")
action(type="ompipe" Pipe=%q template="line" action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList" queue.workerThreads="1")
`, work, from, to)), 0o644))
	cmd := exec.Command("rsyslogd", "-n", "-f", conf, "-i", filepath.Join(work, "pid"))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	ok(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("rsyslogd: %s", said.String())
		}
	})
}
