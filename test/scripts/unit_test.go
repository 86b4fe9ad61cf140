//go:build blackbox

package scripts

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// highestExposure is what `systemd-analyze security` may say of the unit at most.
const highestExposure = 2.0

const unitFile = "../../configs/systemd/stacktrail.service"

func TestTheUnitIsValidAndTight(t *testing.T) {
	t.Parallel()
	analyze := need(t, "systemd-analyze")
	text := string(must[[]byte](t)(os.ReadFile(unitFile)))
	const program = "ExecStart=/usr/bin/stacktrail "
	if !strings.Contains(text, program) {
		t.Fatal("the unit does not start /usr/bin/stacktrail")
	}
	// verify wants the program to be there, as it will be once it is installed.
	unit := filepath.Join(t.TempDir(), "stacktrail.service")
	ok(t, os.WriteFile(unit, []byte(strings.Replace(text, program, "ExecStart="+stacktrail(t)+" ", 1)), 0o644))
	out, err := exec.CommandContext(context.Background(), analyze, "verify", "--man=no", unit).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(context.Background(), analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("security: %v\n%s", err, out)
	}
	if level := must[float64](t)(strconv.ParseFloat(string(m[1]), 64)); level > highestExposure {
		t.Errorf("exposure %.1f, at most %.1f is wanted:\n%s", level, highestExposure, out)
	}
}

func TestInstallPutsEverythingWhereTheUnitLooksForIt(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	install := func() {
		// `build` is done: the binary under test is installed.
		cmd := exec.CommandContext(context.Background(), "make", "-C", "../..", "install", "-o", "build", "BIN="+stacktrail(t), "DESTDIR="+dest)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	install()
	for name, mode := range map[string]os.FileMode{
		"usr/bin/stacktrail": 0o755, "usr/lib/systemd/system/stacktrail.service": 0o644, "usr/lib/sysusers.d/stacktrail.conf": 0o644,
		"usr/lib/tmpfiles.d/stacktrail.conf": 0o644, "etc/stacktrail/stacktrail.yaml": 0o640, "etc/stacktrail/conf.d": 0o750,
	} {
		st, err := os.Stat(filepath.Join(dest, name))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, st, err, mode)
		}
	}
	conf := filepath.Join(dest, "etc/stacktrail/stacktrail.yaml")
	if out, err := exec.CommandContext(context.Background(), filepath.Join(dest, "usr/bin/stacktrail"), "check", "-c", conf).CombinedOutput(); err != nil {
		t.Errorf("the installed configuration: %v\n%s", err, out)
	}
	ok(t, os.WriteFile(conf, []byte("# mine\n"), 0o640))
	install()
	if b := must[[]byte](t)(os.ReadFile(conf)); string(b) != "# mine\n" {
		t.Error("installing again replaced the configuration")
	}
}

// notifications is systemd's end of NOTIFY_SOCKET.
type notifications struct {
	mu  sync.Mutex
	got []string
}

func listenNotify(t *testing.T, path string) *notifications {
	l := must[*net.UnixConn](t)(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))
	ok(t, os.Chmod(path, 0o777))
	t.Cleanup(func() { _ = l.Close() })
	n := &notifications{}
	go func() {
		b := make([]byte, 4096)
		for {
			k, err := l.Read(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.got = append(n.got, string(b[:k]))
			n.mu.Unlock()
		}
	}()
	return n
}

func (n *notifications) count(text string) (k int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.got {
		if s == text {
			k++
		}
	}
	return k
}

// TestUnderTheUnitsRestrictions does what can be done of the unit without systemd: another user, no capability, none to be had, and a
// file system that is read-only but for the unit's folders.
func TestUnderTheUnitsRestrictions(t *testing.T) {
	t.Parallel()
	setpriv, unshare := need(t, "setpriv"), need(t, "unshare")
	b := newBox(t)
	b.write(setup{})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(2000)
	ok(t, os.Chmod(w.path, 0o640))
	const adm = 4
	ok(t, os.Chown(w.path, 0, adm))
	for _, d := range []string{b.state(), filepath.Dir(b.out)} {
		ok(t, os.MkdirAll(d, 0o700))
		ok(t, os.Chown(d, 65534, 65534))
	}
	notify := filepath.Join(b.short, "notify")
	n := listenNotify(t, notify)
	// The binary may lie where another user cannot look.
	bin := filepath.Join(b.dir, "stacktrail")
	ok(t, os.WriteFile(bin, must[[]byte](t)(os.ReadFile(stacktrail(t))), 0o755))
	script := `
for d in "$1" "$2" "$3"; do mount --bind "$d" "$d" || exit 99; done
mount -o remount,ro,bind / 2>/dev/null || { mount --bind / / && mount -o remount,ro,bind /; } || exit 98
shift 3
exec "$@"`
	a := b.launch("env", "NOTIFY_SOCKET="+notify, "WATCHDOG_USEC=400000", unshare, "--mount", "sh", "-c", script, "sh", b.state(), filepath.Dir(b.out), b.short,
		setpriv, "--reuid=65534", "--regid=65534", "--groups=4", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", bin, "run", "-c", b.config)
	waitFor(t, "systemd is told that the agent is ready", func() bool { return n.count("READY=1") == 1 })
	waitFor(t, "the watchdog is fed", func() bool { return n.count("WATCHDOG=1") >= 3 })
	arrive(t, a, b.out, 2000)
	w.lines(500)
	arrive(t, a, b.out, 2500)
	a.stop()
	if n.count("STOPPING=1") != 1 {
		t.Error("systemd was not told that the agent stops")
	}
	verify(t, []*writer{w}, b.out)
}
