package tail

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// restLimit is how long a search waits for a folder to come to rest: rotation with compression of all logs of a host takes less
	// as a rule, and a start must not hang for ever where files never stop moving.
	restLimit = 30 * time.Second
	// restPause is the first pause before a search looks again, restPauseMax the longest.
	restPause    = 20 * time.Millisecond
	restPauseMax = 500 * time.Millisecond
)

// spot is a file where a search looks.
type spot struct {
	path string
	id   fileID
	st   stamp
}

// survey is what stood where a search looks. A search that finds nothing proves that there is nothing only if a survey after it
// agrees with the one before it: a file that is renamed meanwhile may be missed under both names.
type survey struct {
	siblings []spot // of names that belong to the lineage
	strange  []spot // of other names, at which the file with the stream's inode is
	moved    bool   // something was gone between the reading of its name and the look at it
}

// survey looks at a lineage's folder for a search of the file with that inode. extra are further paths, or empty.
func (y system) survey(key string, id fileID, extra ...string) (survey, error) {
	dir, stem := filepath.Split(key)
	entries, err := y.readDir(dir)
	if err != nil {
		return survey{}, err
	}
	var v survey
	for _, e := range entries {
		path := dir + e.Name()
		name := rotationOf(e.Name())
		sibling := name.stem == stem || name.kept == stem
		if e.IsDir() || !sibling && !e.Type().IsRegular() {
			continue
		}
		fi, err := y.stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			v.moved = v.moved || e.Type()&os.ModeSymlink == 0 // else it may lead nowhere, and do so for ever
		case err != nil && sibling:
			v.siblings = append(v.siblings, spot{path: path}) // opening it says what is wrong
		case err != nil:
		case !fi.Mode().IsRegular(): // a device may do something when it is opened
		case sibling:
			v.siblings = append(v.siblings, spot{path, idOf(fi), stampOf(fi)})
		case idOf(fi) == id:
			v.strange = append(v.strange, spot{path, idOf(fi), stampOf(fi)})
		}
	}
	for _, path := range extra {
		if path == "" {
			continue
		}
		if fi, err := y.stat(path); err == nil && fi.Mode().IsRegular() {
			v.siblings = append(v.siblings, spot{path, idOf(fi), stampOf(fi)})
		}
	}
	return v, nil
}

// spots are all places where to look.
func (v survey) spots() []spot {
	return slices.Concat(v.siblings, v.strange)
}

// agrees reports whether what stands there now is what stood there before. That a file grows says nothing where it was as long as
// need before, nor where it is the live one: what it holds at its beginning stays.
func (v survey) agrees(now survey, key string, need int64) bool {
	before, after := v.spots(), now.spots()
	if v.moved || now.moved || len(before) != len(after) {
		return false
	}
	for i, b := range before {
		a := after[i]
		grew := a.st.size >= b.st.size && (b.path == key || b.st.size >= need && !rotationOf(filepath.Base(b.path)).packed)
		if a.path != b.path || a.id != b.id || a.st != b.st && !grew {
			return false
		}
	}
	return true
}

// unsettled reports whether content that ended before it held what is searched may still be growing: it is a copy, or compressed
// content, that is being written.
func (c Config) unsettled(ct content, mtime, now time.Time) bool {
	wait := min(c.Grace, orderWait)
	if cutOff(ct) {
		wait = c.Grace
	}
	age := now.Sub(mtime)
	return age < wait && age > -wait // a time in the future does not keep it growing for ever
}

// growWait is how long after its last change content that ended before it held what is searched may still grow. Compressed content
// that is complete hardly does.
func (c Config) growWait(ct content) time.Duration {
	if z, ok := ct.(*unpacked); ok && errors.Is(z.err, io.EOF) {
		return min(c.Grace, orderWait)
	}
	return c.Grace
}

// cutOff reports whether reading came to the end of compressed content that is cut short.
func cutOff(c content) bool {
	z, ok := c.(*unpacked)
	return ok && errors.Is(z.err, errCut)
}

// sleep waits; it reports whether ctx is still not done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
