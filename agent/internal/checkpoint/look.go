package checkpoint

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Generation is one of the two snapshots of a state directory.
type Generation struct {
	Path     string
	There    bool
	Size     int64
	Format   int       // as its first line says; 0 where that is unreadable
	Snapshot *Snapshot // nil unless it is good
	Err      error     // why it cannot be used: a *NewerError, damage, or what the system says
}

// State says in a word what became of it.
func (g *Generation) State() string {
	var newer *NewerError
	switch {
	case !g.There:
		return "absent"
	case g.Err == nil:
		return "good"
	case errors.As(g.Err, &newer):
		return "newer"
	case isSystem(g.Err):
		return "unreadable"
	}
	return "damaged"
}

// View is what a state directory holds. The pid is that of the agent that has it open, 0 where that is not known.
type View struct {
	Dir        string
	Last, Prev Generation
	Running    bool
	PID        int
	Aside      []string // damaged snapshots that were set aside
}

// Good returns the snapshot that a start would use: nil where there is none.
func (v *View) Good() *Generation {
	for _, g := range []*Generation{&v.Last, &v.Prev} {
		if g.Snapshot != nil {
			return g
		}
	}
	return nil
}

// Newer returns the error of a snapshot that a newer program wrote.
func (v *View) Newer() error {
	for _, g := range []*Generation{&v.Last, &v.Prev} {
		if n, ok := errors.AsType[*NewerError](g.Err); ok {
			return n
		}
	}
	return nil
}

// Look reads a state directory that may be in use by an agent: it takes no lock and writes nothing. The error says that there is no
// such directory, or that it cannot be read.
func Look(dir string) (*View, error) {
	if fi, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("looking at the state directory: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("looking at the state directory: %s is no directory", dir)
	}
	v := &View{Dir: dir}
	// Each is replaced at once, so that neither is seen torn. In this order the one before is never younger than the last.
	v.Prev = read(filepath.Join(dir, prevName))
	v.Last = read(filepath.Join(dir, fileName))
	v.Running, v.PID = holder(dir)
	var err error
	v.Aside, err = filepath.Glob(filepath.Join(globEscape(dir), fileName+"*"+asideSuffix+"*"))
	if err != nil {
		return nil, fmt.Errorf("looking at the state directory: %w", err)
	}
	return v, nil
}

// globEscape makes a pattern that matches the path itself.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func read(path string) Generation {
	g := Generation{Path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return g
	}
	g.There, g.Size = true, int64(len(b))
	if err != nil {
		g.Err = fmt.Errorf("reading the checkpoint: %w", err)
		return g
	}
	g.Snapshot, g.Err = decode(path, b)
	_, _ = fmt.Sscanf(string(b[:min(len(b), 64)]), magic+" %d", &g.Format) // 0 says that it cannot be read
	return g
}

// holder says whether a process has the directory locked. It asks the kernel's list of locks, for trying the lock would take it: an
// agent that starts at that moment would be refused.
func holder(dir string) (running bool, pid int) {
	path := filepath.Join(dir, lockName)
	fi, err := os.Stat(path)
	if err != nil {
		return false, 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return false, 0
	}
	list, err := os.Open("/proc/locks")
	if err != nil {
		return false, 0
	}
	defer func() { _ = list.Close() }() // only read
	own := pidIn(path)
	for s := bufio.NewScanner(list); s.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 15991 fe:00:10380202 0 EOF
		f := strings.Fields(s.Text())
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		p, _ := strconv.Atoi(f[4])
		device, inode, _ := cutLast(f[5], ":")
		// The device there may be another than stat's, as on btrfs: then the pid in the file tells.
		same := device == fmt.Sprintf("%02x:%02x", major(uint64(st.Dev)), minor(uint64(st.Dev))) || p == own && own != 0
		if inode == strconv.FormatUint(st.Ino, 10) && same {
			return true, p
		}
	}
	return false, 0
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

func major(dev uint64) uint64 { return dev>>8&0xfff | dev>>32&^0xfff }
func minor(dev uint64) uint64 { return dev&0xff | dev>>12&^0xff }

// pidIn reads the pid in a lock's file, 0 where there is none.
func pidIn(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}
