package rpc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// keepsTo proves that a process which was started again is what the configuration was checked against: the program may be another one now. What
// came is no matter, as nobody asks for it; texts for people and defaults, which are sent, may differ.
func (h *Host) keepsTo(offered describeReply) error {
	h.mu.Lock()
	agreed := h.agreed
	h.mu.Unlock()
	for _, was := range agreed {
		i := slices.IndexFunc(offered.Plugins, func(d described) bool { return d.Kind == was.Kind && d.Name == was.Name })
		differs := "is not in it any more"
		if i >= 0 {
			differs = was.differs(offered.Plugins[i])
		}
		if differs != "" {
			return fmt.Errorf("it is not what the configuration was checked against: %s %q %s; restart the agent, or bring the old program back",
				was.Kind, was.Name, differs)
		}
	}
	return nil
}

// differs says in what a plugin is another one now, "" in nothing that matters.
func (d described) differs(now described) string {
	if d.KnowsIDs != now.KnowsIDs {
		return fmt.Sprintf("has knows_ids %t instead of %t", now.KnowsIDs, d.KnowsIDs)
	}
	keys := make(map[string]keyDoc, len(now.Config))
	for _, k := range now.Config {
		keys[k.Path] = k
	}
	for _, was := range d.Config {
		k, ok := keys[was.Path]
		if !ok {
			return fmt.Sprintf("has no key %q any more", was.Path)
		}
		delete(keys, was.Path)
		for _, x := range []struct{ what, was, now string }{
			{"type", was.Type, k.Type},
			{"required", strconv.FormatBool(was.Required), strconv.FormatBool(k.Required)},
			{"optional", strconv.FormatBool(was.Optional), strconv.FormatBool(k.Optional)},
			{"enum", strings.Join(was.Enum, "|"), strings.Join(k.Enum, "|")},
			{"min", was.Min, k.Min},
			{"max", was.Max, k.Max},
			{"loose", strconv.FormatBool(was.Loose), strconv.FormatBool(k.Loose)},
		} {
			if x.was != x.now {
				return fmt.Sprintf("has another %s of key %q: %q instead of %q", x.what, was.Path, cut(oneLine(x.now)), cut(oneLine(x.was)))
			}
		}
	}
	for _, k := range now.Config {
		if _, isNew := keys[k.Path]; isNew && k.Required {
			return fmt.Sprintf("has a new key that is required: %q", k.Path)
		}
	}
	return ""
}
