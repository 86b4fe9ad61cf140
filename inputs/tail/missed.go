package tail

import (
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxBorn is how many new files are remembered of which only an event told so far, or only a scan.
const maxBorn = 10_000

// births tells of which new files no scan sees anything before they are removed: what stood in them is lost. Events and scans come in
// any order.
type births struct {
	told  map[string]bool // an event told of it, no scan saw it so far
	seen  map[string]int  // scans saw it so many times anew of which no event told so far
	since time.Time       // when seen was emptied
	// failed: it was not there any more when it was to be opened. An event will say whether it was renamed or removed; inodes do not,
	// since the next file may have the same one.
	failed map[string]bool
	// The event before was that a file was given another name, which the next event tells; moving says that nobody has seen the file.
	renamed, moving bool
}

// event takes an event about a path that matches; lost says that a file was removed before it could be opened.
func (b *births) event(e fsnotify.Event) (lost bool) {
	renamed, moving := b.renamed, b.moving
	b.renamed, b.moving = false, false
	switch {
	case e.Op.Has(fsnotify.Create):
		switch {
		case b.seen[e.Name] > 0:
			b.seen[e.Name]--
		case renamed && !moving: // known under its old name
		case len(b.told) < maxBorn:
			b.told[e.Name] = true
		}
	case e.Op.Has(fsnotify.Remove):
		lost = b.told[e.Name] || b.failed[e.Name]
		delete(b.told, e.Name)
		delete(b.failed, e.Name)
	case e.Op.Has(fsnotify.Rename):
		b.renamed, b.moving = true, b.told[e.Name] || b.failed[e.Name]
		delete(b.told, e.Name)
		delete(b.failed, e.Name)
	}
	return lost
}

// sight takes a file that a scan saw; fresh says that the scan before did not. A file that took the place and the inode of another
// does not look fresh.
func (b *births) sight(path string, fresh bool) {
	if b.told[path] {
		delete(b.told, path)
	} else if fresh && len(b.seen) < maxBorn {
		b.seen[path]++
	}
}

// miss notes that a file is not there any more. The next scan shows whether it has another name.
func (c *scanner) miss(path string, id fileID) {
	if f := c.folders[filepath.Dir(path)]; f != nil {
		f.readAt = time.Time{}
		if f.watched && !f.remote && len(c.births.failed) < maxBorn {
			c.births.failed[path] = true
			return
		}
	}
	c.missed[id] = path
	if c.r.env.Once {
		c.tellMissed(nil)
	}
}

// tellMissed says which files are gone for good that were seen and could not be opened.
func (c *scanner) tellMissed(all []sight) {
	for _, s := range all {
		delete(c.missed, s.id)
		if fresh := s.name.fresh; fresh || len(c.births.told) > 0 {
			s.name.fresh = false
			c.births.sight(s.path, fresh)
		}
	}
	for _, path := range c.missed {
		c.tellGone(path)
	}
	clear(c.missed)
}

// tellGone says that a file is gone for good that was there, and counts it.
func (c *scanner) tellGone(path string) {
	c.r.env.Log.Error("file was gone before it could be opened", "path", path)
	c.r.env.Count("lost_files", "gone", 1)
}
