package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// asideSuffix is what the names of damaged snapshots end in, perhaps with a number after it.
const asideSuffix = ".damaged"

// Step is one thing that Repair does, or would do.
type Step struct {
	What     string
	From, To string // paths
	link     bool   // To becomes a second name of From; else From is renamed
}

// Plan says what there is to repair: nothing where a start would find both generations good, or as a first start leaves them. Nothing
// is ever removed. The error is a *NewerError, or says that a snapshot cannot be read for another reason than damage.
func (v *View) Plan() ([]Step, error) {
	if err := v.Newer(); err != nil {
		return nil, err
	}
	var steps []Step
	taken := map[string]bool{}
	for _, g := range []*Generation{&v.Last, &v.Prev} {
		if g.Err == nil {
			continue
		}
		if isSystem(g.Err) {
			return nil, g.Err
		}
		steps = append(steps, Step{What: "set aside what is damaged", From: g.Path, To: freeName(g.Path+asideSuffix, taken)})
	}
	if v.Last.Snapshot == nil && v.Prev.Snapshot != nil {
		steps = append(steps, Step{What: "fall back to the generation before", From: v.Prev.Path, To: v.Last.Path, link: true})
	}
	return steps, nil
}

// isSystem reports that a snapshot could not be read, which says nothing of what it holds.
func isSystem(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no)
}

// freeName returns a path at which nothing is.
func freeName(path string, taken map[string]bool) string {
	name := path
	for n := 1; ; n++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) && !taken[name] {
			taken[name] = true
			return name
		}
		name = fmt.Sprintf("%s.%d", path, n)
	}
}

// Repair does the steps of a plan. The directory is open, so that no agent uses it.
func (s *Store) Repair(steps []Step) error {
	for _, st := range steps {
		do := os.Rename
		if st.link {
			do = os.Link
		}
		if filepath.Dir(st.From) != s.dir {
			return fmt.Errorf("BUG: %s is not in %s", st.From, s.dir)
		}
		if err := do(st.From, st.To); err != nil {
			return fmt.Errorf("repairing the state: %w", err)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	return syncDir(s.dir)
}
