package tail

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// lookEvery is how often a file is looked at although the system tells of changes in its folder. It does not tell of everything, such
// as writes through a hard link in another folder, or to a file that is mounted over another: a file that turns out to change like
// that is looked at in each sweep from then on.
const lookEvery = 10 * time.Second

// watched is what an event's path stands for. A target of a symbolic link has no name of its own here.
type watched struct {
	l *lineage
	n *name
}

func (c *scanner) poll(err error) {
	if !c.polling {
		c.polling = true
		c.r.env.Log.Warn("the system does not tell of changes; files are looked at regularly instead", "every", c.r.cfg.Sweep, "error", err)
	}
}

func (c *scanner) close() {
	if c.watcher != nil {
		_ = c.watcher.Close()
	}
}

// run scans and follows events until ctx is done.
func (c *scanner) run(ctx context.Context) {
	var events chan fsnotify.Event
	var errs chan error
	if c.watcher != nil {
		events, errs = c.watcher.Events, c.watcher.Errors
	}
	tick := time.NewTicker(c.r.cfg.Sweep)
	defer tick.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			due = true
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			due = c.event(e)
			// What else happened meanwhile needs no scan of its own.
			for more := true; more; {
				select {
				case e := <-events:
					due = c.event(e) || due
				default:
					more = false
				}
			}
		case err := <-errs:
			if err != nil && !errors.Is(err, fsnotify.ErrEventOverflow) {
				c.r.env.Log.Warn("watching files", "error", err)
			}
			due, c.expand = true, true
			for _, f := range c.folders {
				f.readAt = time.Time{}
			}
		}
		if due {
			c.scan()
		}
	}
}

// event wakes whoever an event is about and reports whether a scan is due.
func (c *scanner) event(e fsnotify.Event) (scan bool) {
	c.touched = true
	if e.Op != fsnotify.Write && c.r.matches(e.Name) {
		lost := c.births.event(e)
		if lost && !rotationOf(filepath.Base(e.Name)).rotated && c.r.lineages[keptOf(e.Name)] == nil {
			c.tellGone(e.Name) // what rotation made stood in another file before, or is compressed by now: a search tells if it is lost
		}
		if c.births.moving && len(c.moved) < maxBorn {
			c.moved[lineageOf(e.Name)] = true
		}
	}
	if e.Op == fsnotify.Write {
		if at, ok := c.paths[e.Name]; ok {
			c.r.wake(at.l)
			if at.n != nil {
				at.n.looked, at.n.told = time.Time{}, true // it may be closed: then the next sweep has it opened
			}
			return false
		}
	}
	if f := c.folders[filepath.Dir(e.Name)]; f != nil {
		f.readAt = time.Time{}
	}
	if f := c.folders[e.Name]; f != nil { // the folder itself came, went or moved
		f.readAt, f.watched, c.expand = time.Time{}, false, true
		return true
	}
	if e.Op == fsnotify.Chmod {
		_, ok := c.paths[e.Name]
		return ok || c.r.matches(e.Name)
	}
	return e.Op != fsnotify.Write || c.r.matches(e.Name)
}

// watch has the system tell of changes in a folder.
func (c *scanner) watch(dir string, f *folder) {
	if c.watcher == nil || f.watched {
		return
	}
	if err := c.watcher.Add(dir); err != nil {
		c.poll(err)
		return
	}
	f.watched, f.readAt = true, time.Time{}
	if kind := c.r.fs.remote(dir); kind != "" {
		f.remote = true
		c.r.env.Log.Info("files lie on a file system that does not tell of what other hosts write; they are looked at regularly",
			"folder", dir, "kind", kind, "every", c.r.cfg.Sweep)
	}
}

// tells reports whether the system tells of changes of that file.
func (f *folder) tells(n *name) bool {
	return f.watched && !f.remote && !n.link && !n.untold && !n.faulty && n.seen
}

// due is when the file has to be looked at although no event comes.
func (c *scanner) due(f *folder, n *name) time.Time {
	if !f.tells(n) {
		return time.Time{}
	}
	return n.looked.Add(lookEvery)
}

// quiet reports whether the system would have told if the file had changed since it was looked at.
func (c *scanner) quiet(f *folder, n *name, now time.Time) bool {
	if !now.Before(c.due(f, n)) {
		return false
	}
	// What is being read, searched or waited for is looked at each time.
	l := c.r.lineages[c.keyOf(n)]
	return l != nil && c.r.owners[n.last.id] == l && !l.wants()
}

// target is the file that a symbolic link leads to, or "" if it cannot be told.
func (c *scanner) target(path string, id fileID) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	if fi, err := c.r.fs.stat(target); err != nil || idOf(fi) != id {
		return "" // it was switched meanwhile
	}
	return target
}

// link has events about a symbolic link's target wake the lineage too.
func (c *scanner) link(path string, l *lineage) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil || c.paths[target].l == l {
		return
	}
	c.paths[target] = watched{l: l}
	dir := filepath.Dir(target)
	if c.folders[dir] == nil && c.watcher != nil {
		if err := c.watcher.Add(dir); err != nil {
			c.poll(err)
		}
	}
}

// remoteKind names the file system that a folder lies on if others may write to it without this host hearing of it; "" if not.
// The numbers are statfs(2)'s.
func remoteKind(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return ""
	}
	switch uint32(st.Type) {
	case 0x6969:
		return "nfs"
	case 0xff534d42, 0xfe534d42, 0x517b:
		return "smb"
	case 0x65735546:
		return "fuse"
	case 0x01021997:
		return "9p"
	case 0x00c36400:
		return "ceph"
	case 0x0bd00bd0:
		return "lustre"
	case 0x47504653:
		return "gpfs"
	case 0x7461636f:
		return "ocfs2"
	case 0x01161970:
		return "gfs2"
	case 0x5346414f, 0x6b414653:
		return "afs"
	case 0x786f4256:
		return "vboxsf"
	}
	return ""
}
