package config

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

// programs starts every plugin program of the `plugins:` section, asks what it has and adds that to the registry. Faults stand at what the
// user has to change.
func (l *loader) programs(list conf.Node, programs []rpc.Config) {
	specs, owner := allSpecs(l.reg), map[string]string{}
	for _, s := range specs {
		owner[ownerKey(s)] = "built into this agent"
	}
	paths := map[string]bool{}
	l.unasked = l.faulty("plugins")
	for i, c := range programs {
		n := list.Items()[i]
		if at, ok := n.Get("path"); ok {
			n = at
		}
		if l.faulty(fmt.Sprintf("plugins[%d]", i)) {
			continue // nobody runs what may not be what was meant
		}
		if paths[c.Path] {
			l.add(n.Fault("%s is listed already: one process serves any number of its plugins", c.Path))
			continue
		}
		paths[c.Path] = true
		h := rpc.NewHost(c, slog.New(slog.DiscardHandler))
		l.cfg.Hosts = append(l.cfg.Hosts, h)
		has, err := h.Specs(context.Background())
		if err != nil {
			l.add(n.Fault("plugin %s: %s", c.Path, strings.TrimPrefix(err.Error(), c.Path+" ")))
			l.unasked = true
			continue
		}
		for _, s := range has {
			key := ownerKey(s)
			if other, taken := owner[key]; taken {
				l.add(n.Fault("%s %q of %s has the name of one that is %s: one of the two needs another name", s.Kind, s.Name, c.Path, other))
				continue
			}
			owner[key] = "in " + c.Path
			specs = append(specs, s)
		}
	}
	reg, err := plugins.NewRegistry(specs...)
	if err != nil {
		l.add(list.Fault("%s", err))
		return
	}
	l.reg = reg
}

// faulty tells whether something is wrong at or below a path.
func (l *loader) faulty(path string) bool {
	return slices.ContainsFunc(l.faults, func(f conf.Fault) bool {
		rest, below := strings.CutPrefix(f.Path, path)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func ownerKey(s plugins.Spec) string { return string(s.Kind) + " " + s.Name }

// allSpecs lists what a registry has.
func allSpecs(reg *plugins.Registry) (specs []plugins.Spec) {
	for _, k := range []plugins.Kind{plugins.KindInput, plugins.KindProcessor, plugins.KindOutput} {
		for _, name := range reg.Names(k) {
			s, _ := reg.Lookup(k, name)
			specs = append(specs, s)
		}
	}
	return specs
}

// Plugins reads only the `plugins:` section and returns a registry that has what its programs have, for samples and docs. Nothing of them
// runs afterwards.
func Plugins(src Source, reg *plugins.Registry) (*plugins.Registry, error) {
	root, faults, err := read(src)
	if err != nil {
		return nil, err
	}
	list, ok := root.Get("plugins")
	if !ok {
		return reg, nil
	}
	faults = append(faults, conf.Interpolate(list, src.Lookup)...)
	programs, f := conf.Decode(list, []rpc.Config(nil))
	l := &loader{reg: reg, faults: append(faults, f...), cfg: &Config{}}
	l.programs(list, programs)
	l.cfg.StopPlugins()
	if len(l.faults) > 0 {
		l.faults.Sort()
		return nil, l.faults
	}
	return l.reg, nil
}

// Program returns a registry with what one program has.
func Program(path string, reg *plugins.Registry) (*plugins.Registry, []plugins.Spec, error) {
	c := rpc.DefaultConfig()
	c.Path = path
	h := rpc.NewHost(c, slog.New(slog.DiscardHandler))
	defer h.Close()
	specs, err := h.Specs(context.Background())
	if err != nil {
		return nil, nil, fmt.Errorf("plugin %s: %w", path, err)
	}
	both, err := plugins.NewRegistry(append(allSpecs(reg), specs...)...)
	return both, specs, err
}

// StopPlugins ends all processes of plugins; they start again when they are needed.
func (c *Config) StopPlugins() {
	for _, h := range c.Hosts {
		h.Stop()
	}
}

// ClosePlugins ends them for good.
func (c *Config) ClosePlugins() {
	for _, h := range c.Hosts {
		h.Close()
	}
}
