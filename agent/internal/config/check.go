package config

import (
	"path/filepath"
	"slices"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// checkMemory refuses queues that could take more than half of the memory: batches have to circulate.
func (l *loader) checkMemory(root conf.Node) {
	if half := int64(l.cfg.Agent.MemoryLimit) / 2; l.needed > half {
		n, _ := root.Get("agent")
		if at, ok := n.Get("memory_limit"); ok {
			n = at
		}
		if n.Kind() == conf.Invalid {
			n = root
		}
		l.add(n.Fault("queues and requests of all outputs can take %v, which is %v more than half of memory_limit (%v): raise it to %v or lower queue.bytes and batch.bytes",
			conf.Size(l.needed), conf.Size(l.needed-half), l.cfg.Agent.MemoryLimit, conf.Size(2*l.needed)))
	}
}

// checkSameFiles refuses outputs that write one file: each would cut off what the other wrote.
func (l *loader) checkSameFiles() {
	first := map[string]string{}
	for _, w := range l.writers {
		for _, path := range w.paths {
			if other, taken := first[path]; taken && other != w.what {
				l.add(w.node.Fault("%s is written by %s already: two outputs cannot share a file", path, other))
				break
			}
			first[path] = w.what
		}
	}
}

// checkOwnFiles refuses inputs that would read what the agent writes.
func (l *loader) checkOwnFiles() {
	own := append(slices.Clone(l.writers), writer{what: "the agent's state", paths: []string{
		filepath.Join(l.cfg.Agent.StateDir, "checkpoint"), filepath.Join(l.cfg.Agent.StateDir, "lock"),
		filepath.Join(l.cfg.Agent.StateDir, "dead", "x", "x.ndjson"),
	}})
	for _, f := range l.followers {
		for _, w := range own {
			for _, path := range w.paths {
				if f.cfg.Follows(path) {
					l.add(f.node.Fault("this input would follow %s, which is written by %s: exclude it", path, w.what))
					break
				}
			}
		}
	}
}
