package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// called is what `stacktrail plugin bench` says of a plugin.
type called struct {
	Kind    string  `json:"kind"`
	Name    string  `json:"name"`
	BuiltIn bool    `json:"built_in"`
	Batch   int     `json:"batch"`
	Rate    float64 `json:"events_per_second"`
	Call    float64 `json:"call_us"`
	Agent   float64 `json:"agent_cpu_ns"`
	Plugin  float64 `json:"plugin_cpu_ns"`
}

// cpu is what an event costs in both processes, in ns.
func (c called) cpu() float64 { return c.Agent + c.Plugin }

// slower is how much more than a plugin in Go one in Python may take.
const slower = 10

// plugins measures P9: what the way to a plugin in another process and back costs, in Go and in Python.
func (b *bench) plugins(ctx context.Context) ([]row, error) {
	dir := filepath.Join(b.dir, "plugin")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("measuring plugins: %w", err)
	}
	s, err := b.sample(ctx, "one", 1)
	if err != nil {
		return nil, err
	}
	var reference series
	programs := []struct {
		lang string
		make func(context.Context, string) (string, error)
		path string
		void error
		runs [][]called
	}{{lang: "Go", make: goPlugin}, {lang: "Python", make: pythonPlugin}}
	for i := range programs {
		p := &programs[i]
		b.say("P9: building the plugin in %s", p.lang)
		p.path, p.void = p.make(ctx, dir)
	}
	for i := range b.runs {
		b.say("P9: run %d of %d", i+1, b.runs)
		for k := range programs {
			p := &programs[k]
			if p.void != nil {
				continue
			}
			if err := reference.add(b.runReference(ctx, s, 1, referencePercent)); err != nil {
				return nil, err
			}
			run, err := b.callPlugin(ctx, p.path)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			p.runs, p.void = append(p.runs, run), err
		}
	}
	b.say("")
	r := reference.least(func(c cost) float64 { return c.perEvent(s.lines) })
	var rows []row
	for k, p := range programs {
		for _, kind := range []string{"processor", "output"} {
			x := row{name: "P9", what: fmt.Sprintf("%s in another process, in %s", kind, p.lang), goal: 7, must: 18, unit: "R", void: p.void}
			if kind == "output" {
				x.goal, x.must = 4, 9
			}
			if k > 0 {
				x.goal, x.must = slower*x.goal, slower*x.must
			}
			if x.void == nil {
				x.value, x.detail = leastCalled(p.runs, kind, r)
			}
			rows = append(rows, x)
		}
	}
	return rows, nil
}

// leastCalled is the least cost of a kind, in R, and what else there is to say of that run.
func leastCalled(runs [][]called, kind string, r float64) (value float64, detail string) {
	var best, beside called
	for _, run := range runs {
		var own, builtIn called
		for _, c := range run {
			switch {
			case c.Kind != kind:
			case c.BuiltIn:
				builtIn = c
			default:
				own = c
			}
		}
		if best.Name == "" || own.cpu() < best.cpu() {
			best, beside = own, builtIn
		}
	}
	return best.cpu() / r, fmt.Sprintf("R %.0f ns, agent %.0f + plugin %.0f ns CPU per event: %.2f M events/s; %.0f µs per call of %d; %s, built in, %.1f µs",
		r, best.Agent, best.Plugin, 1e3/best.cpu(), best.Call, best.Batch, beside.Name, beside.Call)
}

// callPlugin has the agent measure a plugin.
func (b *bench) callPlugin(ctx context.Context, path string) ([]called, error) {
	_, out, said, err := start(ctx, 1, b.agent, "plugin", "bench", path, "--output", "json", "--for", "2s")
	if err != nil {
		return nil, fmt.Errorf("measuring %s: %w: %s", path, err, said)
	}
	var all []called
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("measuring %s: reading what the agent says: %w", path, err)
	}
	kinds := map[string]int{}
	for _, c := range all {
		if c.Batch > 0 && (c.BuiltIn || c.cpu() > 0) {
			kinds[c.Kind]++
		}
	}
	if kinds["processor"] != 2 || kinds["output"] != 2 {
		return nil, fmt.Errorf("measuring %s: a processor and an output were expected, each beside one that is built in: %s", path, out)
	}
	return all, nil
}

// goPlugin builds the plugin in Go.
func goPlugin(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "go-plugin")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/stacktrail/stacktrail/test/bench/plugin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the plugin: %w: %s", err, out)
	}
	return path, nil
}

// pythonPlugin makes the plugin in Python, in a virtual environment of its own.
func pythonPlugin(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/stacktrail/stacktrail").Output()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	top, venv := strings.TrimSpace(string(root)), filepath.Join(dir, "venv")
	for _, argv := range [][]string{
		{"python3", "-m", "venv", venv},
		{filepath.Join(venv, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", filepath.Join(top, "plugins", "python")},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
		}
	}
	path := filepath.Join(dir, "python-plugin")
	text := fmt.Sprintf("#!/bin/sh\nexec '%s' '%s'\n", filepath.Join(venv, "bin", "python"), filepath.Join(top, "test", "bench", "plugin", "plugin.py"))
	return path, errors.Join(os.WriteFile(path, []byte(text), 0o700), os.Chmod(path, 0o700))
}
