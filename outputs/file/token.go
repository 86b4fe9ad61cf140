package file

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
)

const tokenVersion = 1

// token is what a checkpoint keeps of the output: a generation of the journal, and the files that are likely to grow after it.
// Files that are not listed are in the journal once they are touched. It lists at most maxOpen files.
type token struct {
	Version int         `json:"v"`
	Journal string      `json:"journal"`
	Gen     int64       `json:"gen"`
	Base    string      `json:"base"`
	Files   []tokenFile `json:"files,omitempty"`
}

type tokenFile struct {
	Path   string `json:"path"` // relative to the base
	Inode  uint64 `json:"inode"`
	Length int64  `json:"length"`
	Hash   string `json:"hash"` // of the last KiB before length
}

// Token syncs what was written and says how long the files are.
func (o *output) Token() ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return nil, o.broken
	}
	if err := o.start(); err != nil {
		return nil, err
	}
	for _, r := range o.retired {
		if err := o.sealed(r); err != nil {
			return nil, err
		}
	}
	t := token{Version: tokenVersion, Journal: o.journal.header.ID, Gen: o.gen + 1, Base: o.template.base}
	var listed []*file
	for _, f := range o.files {
		if f.h == nil {
			continue
		}
		if gone, err := o.look(f); err != nil {
			return nil, err
		} else if gone {
			delete(o.files, f.name)
			continue
		}
		if f.dirty {
			if err := o.sync(f.h, f.name); err != nil {
				return nil, err
			}
			f.dirty = false
		}
		if f.length == 0 || f.written < o.gen-o.idle {
			continue
		}
		hash, err := proof(f.h, f.length)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", o.full(f.name), err)
		}
		t.Files = append(t.Files, tokenFile{f.name, f.inode, f.length, hash})
		listed = append(listed, f)
	}
	if err := o.syncDirs(); err != nil {
		return nil, err
	}
	slices.SortFunc(t.Files, func(a, b tokenFile) int { return strings.Compare(a.Path, b.Path) })
	p, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding the token: %w", err)
	}
	o.gen++
	for _, f := range listed {
		f.covered = o.gen
	}
	// The former token is stored by now, and the one before it is what a damaged checkpoint falls back to: a restart can ask for the
	// last three generations.
	temp := ""
	if o.job != nil {
		temp = o.job.temp
	}
	if err := o.journal.prune(o.gen-fallback, temp); err != nil {
		o.log.Warn("pruning the journal of output files", "error", err)
	}
	// The worker tidies and compresses what is safe by now.
	o.noteTaken(takenToken{o.gen, p})
	o.kickLocked()
	return p, nil
}

// Stored says that no restart asks for a token from before this one. What was put aside before it need not wait for the next.
func (o *output) Stored(tok []byte) {
	o.takenMu.Lock()
	defer o.takenMu.Unlock()
	for _, t := range o.taken {
		if t.gen > o.told.Load() && bytes.Equal(t.text, tok) {
			o.told.Store(t.gen)
			o.worker.nudge()
		}
	}
}

// noteTaken remembers the tokens that Stored can still speak of.
func (o *output) noteTaken(t takenToken) {
	o.takenMu.Lock()
	defer o.takenMu.Unlock()
	if o.taken = append(o.taken, t); len(o.taken) > fallback+1 {
		o.taken = slices.Delete(o.taken, 0, 1)
	}
}

// cut is one file that Restore has to bring back to a length.
type cut struct {
	tree    filesystem
	base    string
	entry   entry
	name    string // where it is now; "" when it is gone
	size    int64
	sibling bool // found under another name
}

// Restore cuts all files back to the token. Nothing is changed before everything is looked at.
func (o *output) Restore(tok []byte) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.restoreLocked(tok)
}

func (o *output) restoreLocked(tok []byte) (int64, error) {
	n, err := o.restore(tok)
	for _, t := range o.others {
		_ = t.close()
	}
	o.others = nil
	if !o.started {
		o.unrestored = err
	}
	return n, err
}

func (o *output) restore(tok []byte) (int64, error) {
	if o.stateDir == "" {
		return 0, errors.New("restoring output files: no state directory is configured")
	}
	state := o.trees(o.stateDir, 0o700)
	hd := header{Version: tokenVersion, ID: newJournalID(), Base: o.template.base}
	known := map[string]struct{}{}
	begin := func(gen int64) error {
		hd.Floor = gen
		j := &journal{tree: state}
		if err := j.reset(hd, nil); err != nil {
			return err
		}
		o.journal, o.gen, o.started = j, gen, true
		o.adoptKnown(known)
		return nil
	}
	old, err := loadJournal(state)
	damaged := new(damagedError)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &damaged) {
		return 0, err // could not look
	}
	if old != nil {
		tree := o.treeAt(old.header.Base)
		for _, e := range old.lines {
			family := e.Path
			if e.Temp {
				if err := o.dropTemp(tree, e); err != nil {
					return 0, err
				}
				family = familyOf(e.Path)
			}
			if old.header.Base == o.template.base {
				known[family] = struct{}{}
			}
		}
	}
	if tok == nil {
		return 0, begin(0)
	}
	kept := func(format string, args ...any) (int64, error) {
		if err := begin(0); err != nil {
			return 0, err
		}
		return 0, &plugins.KeptError{Reason: fmt.Sprintf(format, args...)}
	}
	var t token
	switch jerr := json.Unmarshal(tok, &t); {
	case jerr != nil:
		return kept("the checkpoint's token cannot be read: %v", jerr)
	case t.Version != tokenVersion:
		return kept("the checkpoint's token has version %d, this program knows %d", t.Version, tokenVersion)
	case err != nil:
		return kept("%v", err)
	case old.header.ID != t.Journal:
		return kept("the journal of files in %s is not the one that goes with the checkpoint", o.stateDir)
	case t.Gen < old.header.Floor:
		return kept("the checkpoint is older than the journal of files")
	}
	cuts, reason, err := o.plan(t, old)
	switch {
	case err != nil:
		return 0, err
	case reason != "":
		return kept("%s", reason)
	}
	for _, c := range cuts {
		if c.base == o.template.base {
			known[c.entry.Path] = struct{}{}
		}
		if c.name != "" && (c.rank() > 0 || c.size > c.entry.Length) {
			if err := free(c.tree, c.name); err != nil {
				return 0, fmt.Errorf("opening %s to cut it back: %w", path.Join(c.base, c.name), err)
			}
		}
	}
	// What was made after the token goes first: its names may be those that others take back.
	slices.SortStableFunc(cuts, func(a, b *cut) int { return cmp.Compare(b.rank(), a.rank()) })
	var n int64
	for _, c := range cuts {
		m, err := o.execute(c)
		n += m
		if err != nil {
			return n, err
		}
	}
	hd.ID = t.Journal
	return n, begin(t.Gen)
}

// start begins without a checkpoint, for those who call Write at once. After a Restore that failed nothing goes on.
func (o *output) start() error {
	if o.started || o.unrestored != nil {
		return o.unrestored
	}
	_, err := o.restoreLocked(nil)
	return err
}

// treeAt returns the tree of a base: the output's own, or that of a former configuration.
func (o *output) treeAt(base string) filesystem {
	if base == o.template.base {
		return o.tree
	}
	t := o.trees(base, dirMode)
	o.others = append(o.others, t)
	return t
}

// plan finds every file that may have grown after the token. A reason says why nothing may be cut.
func (o *output) plan(t token, j *journal) (cuts []*cut, reason string, err error) {
	type key struct {
		base, path string
		inode      uint64
	}
	seen := map[key]bool{}
	trees := map[string]filesystem{}
	add := func(base string, e entry) {
		k := key{base, e.Path, e.Inode}
		if seen[k] {
			return // the first one is the oldest
		}
		seen[k] = true
		if trees[base] == nil {
			trees[base] = o.treeAt(base)
		}
		cuts = append(cuts, &cut{tree: trees[base], base: base, entry: e})
	}
	for _, f := range t.Files {
		add(t.Base, entry{Path: f.Path, Inode: f.Inode, Length: f.Length, Hash: f.Hash})
	}
	for _, e := range j.lines {
		if !e.Temp && e.Gen >= t.Gen {
			add(j.header.Base, e)
		}
	}
	dirs := map[string]map[uint64]string{} // inode to name, for each directory
	claimed := map[string]bool{}
	for _, c := range cuts {
		if err := c.find(dirs, claimed); err != nil {
			return nil, "", err
		}
	}
	for _, c := range cuts {
		if c.name == "" && c.entry.Length > 0 && !claimed[c.base+"/"+c.entry.Path] {
			if err := c.findCopy(); err != nil {
				return nil, "", err
			}
		}
		if c.name == "" {
			o.gone(c)
			continue
		}
		full := path.Join(c.base, c.name)
		if c.sibling && !c.putAside() {
			// Another file may have got the inode of one that was removed.
			if ok, err := c.agrees(c.name); err != nil {
				return nil, "", err
			} else if !ok || c.size < c.entry.Length {
				c.name = ""
				o.gone(c)
				continue
			}
		}
		if c.size < c.entry.Length {
			return nil, fmt.Sprintf("%s has %d bytes, the checkpoint knows of %d", full, c.size, c.entry.Length), nil
		}
		if ok, err := c.agrees(c.name); err != nil {
			return nil, "", err
		} else if !ok {
			return nil, fmt.Sprintf("what stands before byte %d of %s is not what the checkpoint knows", c.entry.Length, full), nil
		}
	}
	return cuts, "", nil
}

// gone says that a file cannot be cut because nobody knows where it is. The others can: what goes to them is read again in any case.
func (o *output) gone(c *cut) {
	if c.entry.Length > 0 {
		o.log.Warn("output file is gone; if it was moved or compressed by another program, its last records may be written again",
			"path", path.Join(c.base, c.entry.Path), "length", c.entry.Length)
	}
}

// putAside reports whether the file has a name that our own rotation gives.
func (c *cut) putAside() bool {
	_, _, ok := slot(path.Base(c.entry.Path), path.Base(c.name))
	return ok
}

// find looks for the file by its inode: at its path, else among the names in its directory.
func (c *cut) find(dirs map[string]map[uint64]string, claimed map[string]bool) error {
	st, err := c.tree.lstat(c.entry.Path)
	switch {
	case err == nil && st.inode == c.entry.Inode:
		c.name, c.size = c.entry.Path, st.size
		claimed[c.base+"/"+c.name] = true
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("looking at %s: %w", path.Join(c.base, c.entry.Path), err)
	}
	dir, base := path.Split(c.entry.Path)
	dir = path.Clean(dir)
	inodes := dirs[c.base+"/"+dir]
	if inodes == nil {
		inodes = map[uint64]string{}
		dirs[c.base+"/"+dir] = inodes
		names, err := c.tree.list(dir)
		if err != nil {
			return fmt.Errorf("reading directory %s: %w", path.Join(c.base, dir), err)
		}
		for _, n := range names {
			st, err := c.tree.lstat(path.Join(dir, n))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return fmt.Errorf("looking at %s: %w", path.Join(c.base, dir, n), err)
			}
			inodes[st.inode] = n
		}
	}
	n, ok := inodes[c.entry.Inode]
	if _, _, ours := slot(base, n); !ok || !ours && c.entry.Length == 0 {
		return nil // an empty file proves nothing: only its name can
	}
	st, err = c.tree.lstat(path.Join(dir, n))
	if err != nil {
		return fmt.Errorf("looking at %s: %w", path.Join(c.base, dir, n), err)
	}
	c.name, c.size, c.sibling = path.Join(dir, n), st.size, true
	claimed[c.base+"/"+c.name] = true
	return nil
}

// findCopy looks for the content at the path: the files may have been copied to another file system.
func (c *cut) findCopy() error {
	st, err := c.tree.lstat(c.entry.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("looking at %s: %w", path.Join(c.base, c.entry.Path), err)
	}
	if st.size < c.entry.Length {
		return nil
	}
	if ok, err := c.agrees(c.entry.Path); err != nil || !ok {
		return err
	}
	c.name, c.size = c.entry.Path, st.size
	return nil
}

// agrees reports whether the bytes before the cut are those that the token or the journal speaks of.
func (c *cut) agrees(name string) (bool, error) {
	if c.entry.Length == 0 {
		return true, nil
	}
	h, _, err := c.tree.open(name, false, 0)
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", path.Join(c.base, name), err)
	}
	defer h.Close() //nolint:errcheck // nothing was written
	hash, err := proof(h, c.entry.Length)
	if errors.Is(err, fs.ErrInvalid) {
		return false, nil
	}
	return hash == c.entry.Hash, err
}

// rank is 1 for files to remove, 0 for files to cut.
func (c *cut) rank() int {
	if c.entry.Created && c.entry.Length == 0 {
		return 1
	}
	return 0
}

// execute cuts one file. Doing it again changes nothing.
func (o *output) execute(c *cut) (n int64, err error) {
	if c.name == "" {
		return 0, nil
	}
	full := path.Join(c.base, c.name)
	if c.rank() > 0 {
		if err := c.tree.remove(c.name); err != nil {
			return 0, fmt.Errorf("removing %s: %w", full, err)
		}
		return c.size, c.tree.syncDir(path.Dir(c.name))
	}
	if c.size > c.entry.Length {
		h, _, err := c.tree.open(c.name, false, 0)
		if err != nil {
			return 0, fmt.Errorf("opening %s: %w", full, err)
		}
		err = h.Truncate(c.entry.Length)
		if err == nil {
			err = h.Sync()
		}
		_ = h.Close()
		if err != nil {
			return 0, fmt.Errorf("cutting %s back: %w", full, err)
		}
		n = c.size - c.entry.Length
	}
	if !c.sibling || !c.putAside() {
		return n, nil
	}
	// It was put aside after the token, so it takes its name back, unless somebody else has it.
	if _, err := c.tree.lstat(c.entry.Path); !errors.Is(err, fs.ErrNotExist) {
		return n, nil //nolint:nilerr // it can stay where it is
	}
	if err := c.tree.rename(c.name, c.entry.Path); err != nil {
		return n, fmt.Errorf("renaming %s back: %w", full, err)
	}
	return n, c.tree.syncDir(path.Dir(c.name))
}
