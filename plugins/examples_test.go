//go:build !poison

// What stands here builds modules of their own: a second time under the race detector it would prove nothing.

package plugins_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// outside runs a command in a module outside of the repository, with nothing but the local module cache to build from. What go.mod and
// go.sum lack of what the repository itself requires is added.
func outside(t *testing.T, dir string, argv ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "PWD="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a command that has to succeed.
func must(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	out, err := outside(t, dir, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// fetch brings the modules of an example into the module cache, if they are not there. That is all that the network is used for.
func fetch(t *testing.T, dir, example string) {
	t.Helper()
	list := []string{"go", "list", "-deps", "-test", "./..."}
	if out, err := outside(t, dir, list...); err == nil || !strings.Contains(out, "GOPROXY=off") {
		return
	}
	proxy, err := exec.CommandContext(t.Context(), "go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatalf("go env GOPROXY: %v", err)
	}
	out, err := outside(t, dir, append([]string{"env", "GOPROXY=" + strings.TrimSpace(string(proxy))}, list...)...)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Fatalf("%s needs modules that are not in the module cache and cannot be fetched; run this test once with a network: %s", example, lines[len(lines)-1])
	}
}

// copyOut copies an example to a folder outside of the repository, points it at this one, and proves and builds it there. Its own go.sum
// holds only what the repository's does not.
func copyOut(t *testing.T, example string) (dir, program string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), example)
	if err := os.CopyFS(dir, os.DirFS("examples/"+example)); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), append(sum, own...), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "go", "mod", "edit", "-replace=github.com/stacktrail/stacktrail="+root)
	fetch(t, dir, example)
	must(t, dir, "go", "vet", "./...")
	must(t, dir, "go", "test", "./...")
	program = filepath.Join(dir, "bin", example)
	must(t, dir, "go", "build", "-o", program, ".")
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s has %.1f MB", example, float64(info.Size())/1e6)
	return dir, program
}

// The examples that run in a process of their own. test/scripts runs them under an agent.
func TestExamplesAreBuiltAndProvedOutsideOfTheRepository(t *testing.T) {
	for _, example := range []string{"mask", "geoip", "sqlite"} {
		t.Run(example, func(t *testing.T) {
			watch(t)
			dir, program := copyOut(t, example)
			out, err := outside(t, dir, program)
			if err == nil || !strings.Contains(out, "plugin") {
				t.Errorf("started by a person it says %q (%v)", out, err)
			}
			for _, file := range []string{"README.md", "Makefile", "stacktrail.yaml"} {
				if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestACustomBuildIsBuiltAndRunsOutsideOfTheRepository(t *testing.T) {
	watch(t)
	dir, custom := copyOut(t, "custombuild")
	began := time.Now()
	must(t, dir, custom, "version")
	t.Logf("the custom build starts in %v", time.Since(began).Round(time.Millisecond))

	if sample := must(t, dir, custom, "sample", "command"); !strings.Contains(sample, "argv:") || !strings.Contains(sample, "every: 1m") {
		t.Errorf("sample does not show the input:\n%s", sample)
	}
	config := "agent: {state_dir: " + dir + "/state, listen: '', admin_socket: ''}\n" +
		"pipelines:\n  - name: own\n    inputs: [{command: {argv: [/bin/sh, -c, 'echo one; echo two']}}]\n" +
		"    processors: [{drop: {when: 'message == \"one\"'}}]\n    outputs: [{file: {path: " + dir + "/out.ndjson}}]\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config)
	must(t, dir, custom, "run", "--once", "-c", "c.yaml")
	got, err := os.ReadFile(filepath.Join(dir, "out.ndjson"))
	if err != nil || bytes.Count(got, []byte("\n")) != 1 || !bytes.Contains(got, []byte(`"message":"two"`)) {
		t.Errorf("the file holds %q (%v)", got, err)
	}
	write(strings.Replace(config, "argv", "argw", 1))
	out, err := outside(t, dir, custom, "check", "-c", "c.yaml")
	if err == nil || !strings.Contains(out, "c.yaml:4:24") || !strings.Contains(out, "did you mean \"argv\"") {
		t.Errorf("a fault in the input's section is shown as: %s (%v)", out, err)
	}
}
