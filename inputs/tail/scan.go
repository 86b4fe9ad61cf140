package tail

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/fsnotify/fsnotify"
)

// system is what the input asks of file systems, so that tests can have it fail.
type system struct {
	open    func(path string) (*os.File, error)
	stat    func(path string) (os.FileInfo, error)
	readDir func(path string) ([]os.DirEntry, error)
	// remote names the file system of a folder if others may write to it without this host hearing of it.
	remote func(dir string) string
}

func realSystem() system {
	return system{
		// O_NONBLOCK: the path may have become a named pipe, whose opening would wait for a writer.
		open:    func(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) },
		stat:    os.Stat,
		readDir: os.ReadDir,
		remote:  remoteKind,
	}
}

// folder is a directory in which files may match, or through which the way to such directories leads.
type folder struct {
	mtime   int64
	readAt  time.Time
	names   []*name
	watched bool
	fresh   bool // no scan saw it before
	remote  bool // on a file system that does not tell of what others write
}

// name is a file in a folder, with what does not change from scan to scan.
type name struct {
	name, path string
	lineage    string // key
	kept       string // another one that it may belong to, as rotation names files that keep their extension; or empty
	rank       int    // the first pattern that matches, or -1
	sibling    bool   // its lineage's own path is matched, or that of the other one
	link       bool
	seen       bool      // last holds what the last scan saw
	faulty     bool      // looking at it failed, or it was no file
	last       found     // without opened
	looked     time.Time // when last was taken; zero after an event
	told       bool      // an event came since
	fresh      bool      // it was not there at the last scan
	untold     bool      // it changed, and no event came
}

// scanner finds files and says which lineage they belong to. It is used from one goroutine.
type scanner struct {
	r       *run
	watcher *fsnotify.Watcher // nil when there is none: then the sweeps have to do
	folders map[string]*folder
	expand  bool // the folders have to be found anew
	found   time.Time
	paths   map[string]watched // for events: real and configured paths
	empty   map[string]*emptiness
	matched []bool // patterns that something matches, as of the last look
	births  births
	stamps  map[fileID]stamp     // of the files that the last scan handed over
	missed  map[fileID]string    // files that were not where they were seen when they were to be opened, if no event will tell why
	moved   map[string]bool      // lineages of logs that were renamed before a scan saw them
	kin     map[string][]*stream // see byName; nil until a scan asks
	packed  map[string]bool      // folders and suffixes of compressed files of which it was said that they are not read
	vague   int                  // scans in a row that saw no two times the same
	polling bool                 // said that changes are not told
	posted  map[*lineage][]found
	x       scratch
	first   bool
	changed bool      // something is not as the last scan saw it
	blind   bool      // something could not be looked at, so that nothing can be said to be absent
	touched bool      // an event came since the last look
	lookAt  time.Time // when a look is due although no event comes
}

// emptiness is since when a pattern matches nothing.
type emptiness struct {
	since time.Time
	said  bool
}

// sight is a file that was seen.
type sight struct {
	found
	name *name
}

const (
	// maxLooks is how often a scan looks again when what it sees changes meanwhile, before it leaves it to the next sweep.
	maxLooks = 5
	// maxVague is how many sweeps may pass like that: in a folder that never rests, what is seen has to do.
	maxVague = 10
)

func newScanner(r *run) *scanner {
	c := &scanner{
		r: r, folders: map[string]*folder{}, expand: true, paths: map[string]watched{}, empty: map[string]*emptiness{}, missed: map[fileID]string{},
		stamps: map[fileID]stamp{},
		births: births{told: map[string]bool{}, seen: map[string]int{}, failed: map[string]bool{}},
		packed: map[string]bool{}, moved: map[string]bool{},
		posted: map[*lineage][]found{}, first: true, changed: true,
	}
	if !r.env.Once {
		w, err := fsnotify.NewBufferedWatcher(4096)
		if err != nil {
			c.poll(err)
		} else {
			c.watcher = w
		}
	}
	return c
}

// scan looks at all folders and files, and hands what changed to the lineages.
func (c *scanner) scan() {
	now := time.Now()
	c.r.room.Store(c.r.crowded.Swap(false))
	defer c.makeRoom()
	for path, f := range c.folders {
		if fi, err := c.r.fs.stat(path); err != nil || fi.ModTime().UnixNano() != f.mtime {
			c.expand = true
			f.readAt = time.Time{}
		}
	}
	c.blind = false
	if now.Sub(c.births.since) > time.Minute {
		c.births.since = now
		clear(c.births.seen) // events come sooner, if they come
	}
	if c.expand || now.Sub(c.found) > lookEvery {
		c.findFolders(now)
	}
	if !c.changed && !c.touched && now.Before(c.lookAt) && c.r.wanting.Load() == 0 {
		return // whatever changes would be told
	}
	c.touched = false
	all, steady := c.look(now)
	if !steady && c.vague < maxVague {
		c.vague++
		c.changed = true
		return
	}
	c.vague = 0
	c.tellEmpty(now)
	c.tellMissed(all)
	if len(c.missed) > 0 || c.waitsForMatch() {
		c.lookAt = now
	}
	c.kin = nil
	asked := map[*lineage]bool{}
	for _, l := range c.r.lineages {
		if l.wantsScan() {
			asked[l], c.changed = true, true
		}
	}
	if !c.changed {
		for _, l := range c.r.lineages {
			if l.wants() {
				c.r.wake(l)
			}
		}
		return
	}
	c.changed = false
	// One file, one stream: of several paths to it the one counts at which it is known, else the first pattern's.
	slices.SortFunc(all, func(a, b sight) int {
		switch {
		case a.matched != b.matched:
			if a.matched {
				return -1
			}
			return 1
		case a.name.rank != b.name.rank:
			return a.name.rank - b.name.rank
		}
		return strings.Compare(a.path, b.path)
	})
	owner := maps.Clone(c.r.owners)
	// What was gone at the last scan and is let go of may come back as the number of another file.
	maps.DeleteFunc(owner, func(id fileID, l *lineage) bool { return c.r.place[id] == "" && !l.knows(id) })
	result, came := map[*lineage][]found{}, map[*lineage][]sight{}
	taken := map[fileID]bool{}
	for pass := range 2 {
		for _, e := range all {
			if taken[e.id] {
				continue
			}
			l := owner[e.id]
			// A file that is not held open may be gone, and its inode another's by now: under another path it is the same only if nothing
			// else about it changed.
			key := c.keyOf(e.name)
			if l != nil && l.key != key && c.r.place[e.id] != e.path && c.stamps[e.id] != e.stamp && !l.holds(e.id) {
				delete(owner, e.id)
				l = nil
			}
			if l == nil {
				if e.matched {
					origin, wait := c.origin(e.found, key)
					if wait {
						c.changed = true
						continue
					}
					key = origin
				}
				if l = c.r.lineages[key]; l == nil && (e.matched || c.born(e)) {
					l = c.r.lineage(key)
					if !e.matched {
						l.since -= int64(racy) // the file system's clock ticks behind
					}
				}
			}
			if l == nil || !e.matched && key != l.key {
				continue
			}
			if pass == 0 && c.r.place[e.id] != e.path && c.r.place[e.id] != "" {
				continue // perhaps it is still where it was: that goes first
			}
			taken[e.id] = true
			knows := l.knows(e.id)
			if e.matched && !knows {
				came[l] = append(came[l], e)
				continue
			}
			if knows { // a search may have found it before
				owner[e.id] = l
			}
			result[l] = append(result[l], e.found)
			c.place(l, e)
		}
	}
	clear(c.moved)
	for _, f := range c.folders {
		f.fresh = false
	}
	for l, sights := range came {
		for _, e := range c.openOldestFirst(l, sights) {
			result[l] = append(result[l], e.found)
			if e.opened != nil {
				owner[e.id] = l
				c.place(l, e)
			}
		}
	}
	c.r.owners = owner
	for id := range c.r.place {
		if !taken[id] {
			delete(c.r.place, id)
			delete(c.stamps, id)
		}
	}
	for _, l := range c.r.lineages {
		entries := result[l]
		slices.SortFunc(entries, func(a, b found) int { return strings.Compare(a.path, b.path) })
		if !c.first && !asked[l] && !l.wants() && slices.Equal(entries, c.posted[l]) {
			continue
		}
		plain := slices.Clone(entries)
		for i := range plain {
			plain[i].opened = nil
		}
		c.posted[l] = plain
		l.post(entries) // which the lineage owns from here on
		c.r.wake(l)
	}
	c.first = false
}

// place notes where a file of the lineage is.
func (c *scanner) place(l *lineage, e sight) {
	c.r.place[e.id] = e.path
	c.stamps[e.id] = e.stamp
	c.paths[e.path] = watched{l, e.name}
	if e.name.link {
		c.link(e.path, l)
	}
}

// openOldestFirst opens files that came, and returns them. Those that wait for a descriptor are returned unopened, and what is younger
// is not opened before them: nobody could read it. Those that cannot be opened for another reason are left out.
func (c *scanner) openOldestFirst(l *lineage, came []sight) []sight {
	slices.SortStableFunc(came, func(a, b sight) int {
		if is, known := older(a.path, b.path); known {
			return compareBool(is, true)
		}
		return cmp.Compare(a.stamp.mtime, b.stamp.mtime)
	})
	result := came[:0]
	crowded := false
	for _, e := range came {
		if crowded = crowded || l.behind(e.path); !crowded {
			e.opened, crowded = c.open(e.path, e.id)
		}
		if e.opened != nil {
			l.setHave(e.id, true)
			l.setHeld(e.id, true)
		} else {
			c.changed = true // tried again at the next scan
			l.owe(e.id)
		}
		if e.opened != nil || crowded {
			result = append(result, e)
		}
	}
	return result
}

// makeRoom has lineages close what they can if files wait for descriptors.
func (c *scanner) makeRoom() {
	if c.r.crowded.Load() {
		c.r.room.Store(true)
	}
	if c.r.room.Load() {
		for _, l := range c.r.lineages {
			c.r.wake(l)
		}
	}
}

// tellEmpty says of patterns that nothing matches them. In the middle of a rotation that means nothing: two sweeps must have passed.
func (c *scanner) tellEmpty(now time.Time) {
	for i, p := range c.r.cfg.Paths {
		if c.matched[i] || c.blind {
			delete(c.empty, p)
			continue
		}
		e := c.empty[p]
		if e == nil {
			e = &emptiness{since: now}
			c.empty[p] = e
		}
		if !e.said && (c.r.env.Once || now.Sub(e.since) >= 2*c.r.cfg.Sweep) {
			e.said = true
			c.r.env.Log.Warn("no file matches", "pattern", p)
		}
	}
}

// waitsForMatch reports whether it is still to be said of a pattern that nothing matches it.
func (c *scanner) waitsForMatch() bool {
	for _, e := range c.empty {
		if !e.said {
			return true
		}
	}
	return false
}

// look looks at all files until what it saw is of one moment: a file that is renamed between the reading of a folder and the look at
// its files would be seen under two names, or under none. steady is false when that does not come to pass.
func (c *scanner) look(now time.Time) (all []sight, steady bool) {
	for tries := 0; ; tries++ {
		before := all
		all = c.lookOnce(now)
		if c.rested() || tries > 0 && slices.EqualFunc(all, before, func(a, b sight) bool { return a.path == b.path && a.id == b.id }) {
			return all, true
		}
		if tries >= maxLooks {
			return all, c.r.env.Once // there is no next sweep
		}
	}
}

// rested reports whether no folder has changed since its names were read. In the tick of the clock in which it changed a folder
// may change again without that showing.
func (c *scanner) rested() bool {
	rested := true
	for path, f := range c.folders {
		fi, err := c.r.fs.stat(path)
		switch {
		case err != nil || fi.ModTime().UnixNano() != f.mtime:
			f.readAt, rested = time.Time{}, false
		case f.readAt.Sub(fi.ModTime()) <= time.Second:
			rested = false
		}
	}
	return rested
}

// lookOnce reads the folders that changed and looks at all files, but for those of which the system would have told. It notes when
// a look is due although the system tells of nothing.
func (c *scanner) lookOnce(now time.Time) []sight {
	all := make([]sight, 0, len(c.paths))
	c.lookAt = now.Add(lookEvery)
	c.matched = make([]bool, len(c.r.cfg.Paths))
	for _, dir := range slices.Sorted(maps.Keys(c.folders)) {
		f := c.folders[dir]
		names, fresh := c.list(dir, now)
		if f.readAt.Sub(time.Unix(0, f.mtime)) <= time.Second {
			c.lookAt = now // it has to be read again: see list
		}
		for _, n := range names {
			if n.rank < 0 && !n.sibling && c.r.lineages[c.keyOf(n)] == nil {
				continue
			}
			if fresh || !c.quiet(f, n, now) {
				c.lookAtName(f, n, now)
			}
			if due := c.due(f, n); due.Before(c.lookAt) {
				c.lookAt = due
			}
			if !n.seen {
				continue
			}
			if n.rank >= 0 {
				c.matched[n.rank] = true
			}
			all = append(all, sight{n.last, n})
		}
	}
	return all
}

// lookAtName looks at a file. Not being able to look does not mean that it is gone.
func (c *scanner) lookAtName(f *folder, n *name, now time.Time) {
	fi, err := c.r.fs.stat(n.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.readAt = time.Time{}
		c.unsee(n)
		return
	case err != nil:
		f.readAt = time.Time{}
		if n.rank >= 0 {
			n.faulty, c.blind = true, true
			c.r.fail(n.path, err)
		}
		return
	}
	if mode := fi.Mode(); !mode.IsRegular() {
		if n.rank >= 0 {
			c.matched[n.rank] = true
		}
		switch {
		case n.rank < 0 || mode.IsDir():
		case mode&os.ModeNamedPipe != 0:
			c.r.ok(n.path)
			c.r.pipe(n.path)
		default:
			n.faulty = true
			c.r.fail(n.path, fmt.Errorf("reading %s: it is no regular file and no named pipe", n.path))
		}
		c.unsee(n)
		return
	}
	if n.faulty { // whether it can be opened shows later
		n.faulty = false
		c.r.ok(n.path)
	}
	at := found{id: idOf(fi), path: n.path, stamp: stampOf(fi), matched: n.rank >= 0}
	if n.link {
		at.target = c.target(n.path, at.id)
	}
	c.changed = c.changed || !n.seen || at != n.last
	if n.rank >= 0 && !c.first && (!n.seen || at.id != n.last.id) {
		n.fresh = true
	}
	if n.seen && at.stamp != n.last.stamp && !n.told && now.Sub(n.looked) >= lookEvery {
		n.untold = true
	}
	n.seen, n.last, n.looked, n.told = true, at, now, false
}

// unsee notes that there is no file of that name any more.
func (c *scanner) unsee(n *name) {
	c.changed = c.changed || n.seen
	n.seen, n.fresh = false, false
}

// keyOf is the lineage that a file's name tells. Where that of the name as it stands is not known, rotation may have put a number or
// a date before the extension.
func (c *scanner) keyOf(n *name) string {
	if n.kept != "" && c.r.lineages[n.lineage] == nil && c.r.lineages[n.kept] != nil {
		return n.kept
	}
	return n.lineage
}

// born reports whether a file that the patterns do not match is a piece of a log that came and was rotated since the last scan.
func (c *scanner) born(e sight) bool {
	if !e.name.sibling || c.first {
		return false
	}
	f := c.folders[filepath.Dir(e.path)]
	return f != nil && f.fresh || c.moved[e.name.lineage]
}

// open opens a file that was seen for the first time. If it cannot, it returns nil; crowded says that it is for want of descriptors.
func (c *scanner) open(path string, id fileID) (f *os.File, crowded bool) {
	f, err := c.r.openToHold(path)
	if isCrowded(err) {
		return nil, true
	}
	if err == nil {
		var fi os.FileInfo
		if fi, err = f.Stat(); err == nil && (idOf(fi) != id || !fi.Mode().IsRegular()) {
			_ = f.Close() // replaced meanwhile
			c.miss(path, id)
			return nil, false
		}
		if err == nil {
			c.r.ok(path)
			c.r.held.Add(1) // until its lineage takes it
			return f, false
		}
		_ = f.Close()
	}
	if errors.Is(err, os.ErrNotExist) {
		c.miss(path, id)
		return nil, false
	}
	c.r.fail(path, err)
	return nil, false
}

// tellPacked says of files that the patterns match and that are compressed in another way than gzip or zstd, that they are not read, once
// for each folder and way.
func (c *scanner) tellPacked(dir, path string) {
	suffix := unreadable(path)
	if suffix == "" || c.packed[dir+"\x00"+suffix] || c.r.cfg.excludes(path) {
		return
	}
	for _, p := range c.r.in.paths {
		if match(p, path) {
			c.packed[dir+"\x00"+suffix] = true
			c.r.env.Log.Warn("compression is not known, its lines are not read: exclude it, or have logrotate use gzip or zstd",
				"pattern", p, "folder", dir, "suffix", suffix, "path", path)
			return
		}
	}
}

// list returns the names in a folder, which it reads again only when it changed; fresh says that it did.
func (c *scanner) list(dir string, now time.Time) (names []*name, fresh bool) {
	f := c.folders[dir]
	// A change within the clock's tick after the last reading may not show in the modification time.
	if !f.readAt.IsZero() && f.readAt.Sub(time.Unix(0, f.mtime)) > time.Second {
		return f.names, false
	}
	fi, err := c.r.fs.stat(dir)
	var entries []os.DirEntry
	if err == nil {
		f.mtime = fi.ModTime().UnixNano()
		entries, err = c.r.fs.readDir(dir)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.changed = c.changed || len(f.names) > 0
		f.names, c.expand = nil, true
		return nil, true
	case err != nil:
		c.blind = true
		c.r.fail(dir, err)
		return f.names, true // not being able to look does not mean that they are gone
	}
	c.r.ok(dir)
	f.readAt = now
	old := make(map[string]*name, len(f.names))
	for _, n := range f.names {
		old[n.name] = n
	}
	f.names = f.names[:0]
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		n := old[e.Name()]
		delete(old, e.Name())
		link := e.Type()&os.ModeSymlink != 0
		if n == nil || n.link != link {
			path := filepath.Join(dir, e.Name())
			n = &name{name: e.Name(), path: path, lineage: lineageOf(path), rank: c.r.pattern(path), link: link}
			if rotationOf(n.name).packed { // what is not compressed may be another log that is not meant
				n.kept = keptOf(path)
			}
			n.sibling = c.r.matches(n.lineage) || n.kept != "" && c.r.matches(n.kept)
			if n.rank < 0 {
				c.tellPacked(dir, path)
			}
		}
		f.names = append(f.names, n)
	}
	for _, n := range old {
		c.changed = c.changed || n.seen
	}
	return f.names, true
}

// findFolders finds the folders that the patterns speak of and has the system tell of changes in them.
func (c *scanner) findFolders(now time.Time) {
	c.expand, c.found = false, now
	clear(c.paths) // the scan that follows finds what is there
	c.changed = true
	want := map[string]bool{}
	for _, p := range c.r.cfg.Paths {
		base, pattern := doublestar.SplitPattern(filepath.Clean(p))
		parts := strings.Split(pattern, "/")
		if strings.Contains(p, "{") && len(parts) > 1 {
			parts = []string{"**", "*"} // alternatives may hold slashes
		}
		c.walk(base, parts, want)
	}
	for dir := range c.folders {
		if want[dir] {
			continue
		}
		if _, err := c.r.fs.stat(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			c.changed = true
			delete(c.folders, dir)
		}
	}
	for dir := range want {
		f := c.folders[dir]
		if f == nil {
			f = &folder{fresh: true}
			c.folders[dir] = f
		}
		c.watch(dir, f)
	}
}

// walk collects the folders below dir in which files could match parts, and those on the way.
func (c *scanner) walk(dir string, parts []string, want map[string]bool) {
	fi, err := c.r.fs.stat(dir)
	if err != nil || !fi.IsDir() {
		c.expand = true // it is waited for
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			c.blind = true
			c.r.fail(dir, err)
		}
		return
	}
	want[dir] = true
	if len(parts) <= 1 && parts[0] != "**" {
		return
	}
	entries, err := c.r.fs.readDir(dir)
	if err != nil {
		c.blind = true
		c.r.fail(dir, err)
		return
	}
	c.r.ok(dir)
	if parts[0] == "**" && len(parts) > 1 {
		c.walk(dir, parts[1:], want)
	}
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		isDir := e.IsDir()
		if e.Type()&os.ModeSymlink != 0 && parts[0] != "**" {
			fi, err := c.r.fs.stat(sub)
			isDir = err == nil && fi.IsDir()
		}
		switch {
		case !isDir:
		case parts[0] == "**":
			c.walk(sub, parts, want)
		case match(parts[0], e.Name()):
			c.walk(sub, parts[1:], want)
		}
	}
}
