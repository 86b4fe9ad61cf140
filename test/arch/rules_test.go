package arch

import (
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
)

// sources parses a repository of a few files.
func sources(t *testing.T, files map[string]string) []goFile {
	t.Helper()
	fset := token.NewFileSet()
	var list []goFile
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, parse(t, fset, name, files[name]))
	}
	return list
}

// Every rule finds what it forbids, and only that: each case is a file that breaks the rule beside one that keeps it.
func TestEveryRuleCanFail(t *testing.T) {
	const (
		houseEvent = `import _ "github.com/stacktrail/stacktrail/plugins/event"`
		houseConf  = `import _ "github.com/stacktrail/stacktrail/plugins/conf"`
		houseTail  = `import _ "github.com/stacktrail/stacktrail/inputs/tail"`
		houseFile  = `import _ "github.com/stacktrail/stacktrail/outputs/file"`
		houseAgent = `import _ "github.com/stacktrail/stacktrail/agent/internal/pipeline"`
	)
	rooms := func(files []goFile) []string { return roomFaults(files) }
	for name, c := range map[string]struct {
		rule      func([]goFile) []string
		good, bad map[string]string
	}{
		"a client library in the contract": {
			contractFaults,
			map[string]string{"plugins/a.go": "package plugins\n" + houseEvent + "\nimport _ \"io\"\nimport _ \"github.com/zeebo/xxh3\"", "plugins/a_test.go": "package plugins\n" + houseConf},
			map[string]string{"plugins/event/a.go": "package event\nimport _ \"google.golang.org/grpc\""},
		},
		"configuration in the contract's core": {
			contractFaults,
			map[string]string{"plugins/eval/a.go": "package eval\n" + houseConf},
			map[string]string{"plugins/schema/a.go": "package schema\n" + houseConf},
		},
		"a contract that knows the machine": {
			contractReachFaults,
			map[string]string{"plugins/eval/a.go": "package eval\n" + houseEvent},
			map[string]string{"plugins/plugintest/a.go": "package plugintest\n" + houseTail},
		},
		"a built-in that imports another": {
			builtinFaults,
			map[string]string{"outputs/stdout/a.go": "package stdout\n" + houseEvent + "\nimport _ \"github.com/stacktrail/stacktrail/outputs/internal/x\"", "outputs/file/a_test.go": "package file_test\n" + houseFile},
			map[string]string{"outputs/stdout/a.go": "package stdout\n" + houseFile},
		},
		"a built-in that imports another kind's internals": {
			builtinFaults,
			map[string]string{"inputs/tail/a.go": "package tail\nimport _ \"github.com/stacktrail/stacktrail/inputs/internal/lines\""},
			map[string]string{"outputs/stdout/a.go": "package stdout\nimport _ \"github.com/stacktrail/stacktrail/inputs/internal/lines\""},
		},
		"a shared package that imports a built-in": {
			builtinFaults,
			map[string]string{"inputs/internal/lines/a.go": "package lines\nimport _ \"github.com/stacktrail/stacktrail/inputs/internal/formats\""},
			map[string]string{"inputs/internal/lines/a.go": "package lines\n" + houseTail},
		},
		"a second list of built-ins": {
			registrationFaults,
			map[string]string{"agent/builtin.go": "package agent\n" + houseTail, "inputs/tail/a_test.go": "package tail_test\n" + houseTail, "agent/a.go": "package agent\n" + houseEvent},
			map[string]string{"agent/command_run.go": "package agent\n" + houseTail},
		},
		"a stranger in agent/internal": {
			internalFaults,
			map[string]string{"agent/run.go": "package agent\n" + houseAgent, "agent/internal/config/a.go": "package config\n" + houseAgent},
			map[string]string{"test/bench/a.go": "package main\n" + houseAgent},
		},
		"a second importer of a fixed dependency": {
			rooms,
			map[string]string{"inputs/tail/a.go": "package tail\nimport _ \"github.com/nxadm/tail/watch\"", "plugins/conf/a.go": "package conf\nimport _ \"gopkg.in/yaml.v3\""},
			map[string]string{"agent/a.go": "package agent\nimport _ \"gopkg.in/yaml.v3\""},
		},
		"a versioned client outside of its room": {
			rooms,
			map[string]string{"outputs/elasticsearch/a.go": "package elasticsearch\nimport _ \"github.com/elastic/go-elasticsearch/v9\""},
			map[string]string{"outputs/http/a_test.go": "package http\nimport _ \"github.com/elastic/go-elasticsearch/v9/esutil\""},
		},
		"a fixed dependency that nobody uses": {
			func(files []goFile) []string { return roomFaults(files, "gopkg.in/yaml.v3") },
			map[string]string{"plugins/conf/a.go": "package conf\nimport _ \"gopkg.in/yaml.v3\""},
			map[string]string{"plugins/conf/a.go": "package conf"},
		},
		"no package comment": {
			docFaults,
			map[string]string{"a/a.go": "// Package a is.\npackage a", "a/b.go": "package a", "b/b_test.go": "// Package b is.\npackage b"},
			map[string]string{"a/a.go": "//go:build linux\n\npackage a"},
		},
		"two package comments": {
			docFaults,
			map[string]string{"a/a.go": "//go:build linux\n\n// Package a is.\npackage a", "a/b.go": "//go:build linux\n\npackage a"},
			map[string]string{"a/a.go": "// Package a is.\npackage a", "a/b.go": "// Package a does.\npackage a"},
		},
		"a package comment in a test": {
			docFaults,
			map[string]string{"a/a.go": "// Package a is.\npackage a", "a/a_test.go": "package a_test"},
			map[string]string{"a/a.go": "// Package a is.\npackage a", "a/a_test.go": "// Package a tests.\npackage a_test"},
		},
		"a package comment about something else": {
			docFaults,
			map[string]string{"a/a.go": "// Command a runs.\npackage main"},
			map[string]string{"a/a.go": "// This package is a.\npackage a"},
		},
		"an init function": {
			initFaults,
			map[string]string{"a/a.go": "package a\ntype t int\nfunc (t) init() {}\nfunc initAll() {}"},
			map[string]string{"a/a.go": "package a\nfunc init() {}"},
		},
		"an assignment to package-level state": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nvar x = 1\nfunc f() { x := 2; x = 3; x++; _ = x }", "a/b.go": "package a\nimport \"errors\"\nvar err = errors.New(\"e\")\nfunc g() error { err := err; err = nil; return err }"},
			map[string]string{"a/a.go": "package a\nvar x = 1", "a/b.go": "package a\nfunc f() { x = 2 }"},
		},
		"a counter at package level": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nfunc f() { var n int; n++ }"},
			map[string]string{"a/a.go": "package a\nvar n int\nfunc f() { n++ }"},
		},
		"an element that changes": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nvar m = map[string]int{}\nfunc f() int { m := m; return m[\"a\"] }"},
			map[string]string{"a/a.go": "package a\nvar m = map[string]int{}\nfunc f() { m[\"a\"] = 1 }"},
		},
		"a field that changes": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nvar t struct{ n []int }\nfunc f() int { return t.n[0] }"},
			map[string]string{"a/a.go": "package a\nvar t struct{ n []int }\nfunc f() { (t.n)[0] += 2 }"},
		},
		"an element that is deleted": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nfunc f(m map[int]int) { delete(m, 1) }"},
			map[string]string{"a/a.go": "package a\nvar m map[int]int\nfunc f() { delete(m, 1) }"},
		},
		"a variable that a loop sets": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nvar i int\nfunc f() { for i := range 3 { _ = i } }"},
			map[string]string{"a/a.go": "package a\nvar i int\nfunc f() { for i = range 3 { } }"},
		},
		"a lock at package level": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nimport \"sync\"\ntype t struct{ mu sync.Mutex }\nvar once = sync.OnceValue(func() int { var mu sync.Mutex; mu.Lock(); return 1 })"},
			map[string]string{"a/a.go": "package a\nimport \"sync\"\nvar mu sync.Mutex"},
		},
		"an atomic at package level": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nimport a \"sync/atomic\"\ntype t struct{ n a.Int64 }"},
			map[string]string{"a/a.go": "package a\nimport a \"sync/atomic\"\nvar n struct { m a.Int64 }"},
		},
		"a channel at package level": {
			stateFaults,
			map[string]string{"a/a.go": "package a\nfunc f() { _ = make(chan int) }"},
			map[string]string{"a/a.go": "package a\nvar c = make(chan int)"},
		},
		"a variable of another package": {
			foreignFaults,
			map[string]string{"a/a.go": "package a\nimport \"os\"\nfunc f() { os := struct{ Args int }{}; os.Args = 1 }"},
			map[string]string{"a/a_test.go": "package a\nimport \"os\"\nfunc f() { os.Args = nil }"},
		},
		"a test that sleeps": {
			sleepFaults,
			map[string]string{"a/a.go": "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }", "a/a_test.go": "package a\nimport \"time\"\nvar t = time.Second"},
			map[string]string{"a/a_test.go": "package a\nimport clock \"time\"\nfunc f() { clock.Sleep(1) }"},
		},
		"a suite that sleeps": {
			sleepFaults,
			map[string]string{"plugins/a.go": "package plugins\nimport \"time\"\nfunc f() { time.Sleep(1) }"},
			map[string]string{"plugins/plugintest/a.go": "package plugintest\nimport \"time\"\nfunc f() { time.Sleep(1) }"},
		},
		"a test that skips": {
			sleepFaults,
			map[string]string{"a/a_test.go": "package a\nimport \"io/fs\"\nvar _ = fs.SkipDir"},
			map[string]string{"a/a_test.go": "package a\nimport \"testing\"\nfunc f(t *testing.T) { t.Skipf(\"no\") }"},
		},
		"a test for long runs only": {
			sleepFaults,
			map[string]string{"a/a_test.go": "package a\nimport \"testing\"\nvar _ = testing.Verbose()"},
			map[string]string{"a/a_test.go": "package a\nimport \"testing\"\nvar _ = testing.Short()"},
		},
		"a plugin without a test": {
			pluginTestFaults,
			map[string]string{"inputs/x/a.go": "package x", "inputs/x/a_test.go": "package x", "agent/a.go": "package agent"},
			map[string]string{"inputs/x/a.go": "package x", "outputs/x/a_test.go": "package x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if faults := c.rule(sources(t, c.good)); len(faults) != 0 {
				t.Errorf("what is allowed was refused: %s", strings.Join(faults, "; "))
			}
			if faults := c.rule(sources(t, c.bad)); len(faults) != 1 {
				t.Errorf("found %d faults, want 1: %s", len(faults), strings.Join(faults, "; "))
			}
		})
	}
}

func TestEveryRuleAboutFilesCanFail(t *testing.T) {
	const slash = "/" // the forbidden names must not stand in this file
	for name, c := range map[string]struct {
		rule      func(map[string]string) []string
		good, bad map[string]string
	}{
		"a new name at the top": {topFaults, map[string]string{"agent/agent.go": "", "README.md": ""}, map[string]string{"pkg/a.go": "", "pkg/b.go": ""}},
		"a path of a machine": {
			pathFaults,
			map[string]string{"a.go": `"/var/log/nova" "/temporary" "example.org` + slash + `home/x" "build` + slash + `tmp/x"`, "test/testdata/real-logs/a.log": slash + "home/stack/x"},
			map[string]string{"a.go": "\n// see " + slash + "home/somebody/notes"},
		},
		"a path in quotes": {pathFaults, map[string]string{"a.yaml": `x: "${STATE:-/var/lib}"`}, map[string]string{"a.yaml": `x: "` + slash + `tmp/state"`}},
		"an unknown target": {
			targetFaults,
			map[string]string{"Makefile": "test: unit\n\tgo test\n", "README.md": "`make test`, we make friends", "a.go": "`make x`"},
			map[string]string{"Makefile": "test-all:\n", "README.md": "```\nmake test\n```"},
		},
		"a link to nothing": {
			linkFaults,
			map[string]string{"README.md": "[a](configs/) [b](https://example.org/x) [c](configs/a.yaml)", "configs/a.yaml": ""},
			map[string]string{"README.md": "[a](docs/a.md)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if faults := c.rule(c.good); len(faults) != 0 {
				t.Errorf("what is allowed was refused: %s", strings.Join(faults, "; "))
			}
			if faults := c.rule(c.bad); len(faults) != 1 {
				t.Errorf("found %d faults, want 1: %s", len(faults), strings.Join(faults, "; "))
			}
		})
	}
}
