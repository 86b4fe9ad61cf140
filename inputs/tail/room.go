package tail

import (
	"errors"
	"os"
	"slices"
	"syscall"
)

// reserve is how many descriptors are left to the rest of the agent: outputs, connections, the checkpoint. Where the limit is so
// low that this is more than a quarter of it, a quarter has to do, but not less than leastReserve.
const (
	reserve      = 1024
	leastReserve = 40
)

// mostHeld is how many files are held open at most, whatever the process's limit.
const mostHeld = 4096

// maxHeld is how many files the input may hold open under the process's limit.
func maxHeld() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return mostHeld // the system's own refusal is met in the same way
	}
	n := int64(min(limit.Cur, mostHeld+reserve))
	return max(4, n-max(leastReserve, min(reserve, n/4)))
}

// errCrowded says that as many files are held open as may be.
var errCrowded = errors.New("too many files are held open")

// isCrowded reports whether a file could not be opened for want of descriptors: that passes.
func isCrowded(err error) bool {
	return errors.Is(err, errCrowded) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// openToHold opens a file that is to be held, if there is room; else files that are read to their ends are closed, and the next
// scans try again.
func (r *run) openToHold(path string) (*os.File, error) {
	if r.held.Load() >= r.maxHeld {
		r.crowd(errCrowded)
		return nil, errCrowded
	}
	o, err := r.fs.open(path)
	switch {
	case err == nil:
		r.opened.Add(1)
	case isCrowded(err):
		r.crowd(err)
	}
	return o, err
}

// crowd has files that are read to their ends closed, and says so once.
func (r *run) crowd(err error) {
	r.crowded.Store(true)
	r.crowdedOnce.Do(func() {
		r.env.Log.Warn("more files than may be held open: those that are read to their ends are closed until they change", "held", r.held.Load(), "most", r.maxHeld, "error", err)
	})
}

// hold has f keep its descriptor, so that renames and removals change nothing.
func (l *lineage) hold(f *file, h *handle, c content) {
	_, f.gz = c.(*unpacked)
	f.h, f.c = h, c
	l.r.held.Add(1)
	l.setHeld(f.id, true)
}

// letGo closes the descriptor of f, if it holds one.
func (l *lineage) letGo(f *file) {
	if f.h == nil {
		return
	}
	f.c.close()
	f.c, f.h = nil, nil
	l.r.held.Add(-1)
	l.setHeld(f.id, false)
}

// makeRoom closes files that are read to their ends while others wait for descriptors. The scans tell when they change.
func (l *lineage) makeRoom() {
	if !l.r.room.Load() {
		return
	}
	for _, f := range slices.Clone(l.files) {
		if f.parked || f.s == nil || f.fault != nil || !f.ended {
			continue
		}
		rest := l.r.env.Once || f.idle && f.proved
		switch {
		case f.rotated && (f.gz || f.st.size != f.s.pos): // its last line is a record once it is closed for good
		case f.rotated && f.left():
			l.finish(f)
		case f.present && rest:
			l.unregister(f.s)
			l.park(f)
		}
	}
}
