package tail

import (
	"path/filepath"
	"slices"
	"time"
)

// origin finds the lineage of a file that the patterns match and that is seen first: it may be one of another than its name tells, which
// is key, if it was moved to another folder, or if rotation gave it a name that is not known. wait says that it is being compressed, so
// that a later look will tell.
func (c *scanner) origin(e found, key string) (of string, wait bool) {
	candidates := c.candidates(e, key)
	if !slices.ContainsFunc(candidates, func(s *stream) bool { return s.meta.Path != key }) {
		return key, false
	}
	// A compressed file has the time of the original only when it is complete.
	if rotationOf(filepath.Base(e.path)).packed && !c.first && time.Now().UnixNano()-e.stamp.mtime <= int64(c.r.cfg.Grace) {
		return key, true
	}
	f, err := c.r.fs.open(e.path)
	if err != nil {
		return key, false // said when it is opened in earnest
	}
	content := open(newHandle(f), compressed(f, e.path))
	defer content.close()
	for _, s := range candidates {
		m, err := s.matches(c.r.ctx, content, s.pos, s.sum, &c.x)
		held := m == holds
		if err == nil && m == tooShort { // a copy may end before what was read later
			held, err = s.holdsPlace(c.r.ctx, content, &c.x)
		}
		if err == nil && held {
			return s.meta.Path, false
		}
	}
	return key, false
}

// candidates are the streams that a file may hold, those of its own lineage first: of those that lay where it lies, and of those whose
// log it may be a piece of, as its name tells. Without more than the first line read, a line that several logs begin with would be all that
// tells.
func (c *scanner) candidates(e found, key string) []*stream {
	all := slices.Clone(c.r.lay[e.id])
	r := rotationOf(filepath.Base(e.path))
	if !r.rotated && (r.kept == "" || c.r.lineages[key] != nil) {
		return all
	}
	for _, stem := range []string{r.stem, r.kept} {
		for _, s := range c.byName()[stem] {
			if s.pos > int64(s.meta.HeadLen) {
				all = append(all, s)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *stream) int { return compareBool(b.meta.Path == key, a.meta.Path == key) })
	return all
}

// byName returns the checkpoint's streams by their logs' names, without folders.
func (c *scanner) byName() map[string][]*stream {
	if c.kin != nil {
		return c.kin
	}
	c.kin = map[string][]*stream{}
	for _, k := range c.r.env.Streams.Known() {
		m, err := decodeMeta(k.Meta)
		if err != nil || m.Pipe || m.Empty {
			continue // said at the start
		}
		s := newStream(k.Name, k.Lane, m)
		if s.moveTo(k.Start) == nil {
			base := filepath.Base(m.Path)
			c.kin[base] = append(c.kin[base], s)
		}
	}
	return c.kin
}
