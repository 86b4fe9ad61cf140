package plugins_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// outside runs a command in a module outside of the repository, with nothing but the local module cache to build from.
func outside(t *testing.T, dir string, argv ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "PWD="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a command that has to succeed. What the module cache lacks is said in one line.
func must(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	out, err := outside(t, dir, argv...)
	if err == nil {
		return out
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "GOPROXY=off") {
			t.Fatalf("the module cache lacks what the custom build needs ('go mod download' in the repository brings it): %s", line)
		}
	}
	t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	return ""
}

// copyOut copies an example to a folder outside of the repository and points it at this one.
func copyOut(t *testing.T, example string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "custom")
	if err := os.CopyFS(dir, os.DirFS(example)); err != nil {
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
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "go", "mod", "edit", "-replace=github.com/stacktrail/stacktrail="+root)
	return dir
}

func TestACustomBuildIsBuiltAndRunsOutsideOfTheRepository(t *testing.T) {
	watch(t)
	dir := copyOut(t, "examples/custombuild")
	must(t, dir, "go", "vet", "./...")
	must(t, dir, "go", "build", "-o", "custom", ".")
	must(t, dir, "go", "test", "./...")

	info, err := os.Stat(filepath.Join(dir, "custom"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	must(t, dir, "./custom", "version")
	t.Logf("the custom build has %.1f MB and starts in %v", float64(info.Size())/1e6, time.Since(began).Round(time.Millisecond))

	if sample := must(t, dir, "./custom", "sample", "command"); !strings.Contains(sample, "argv:") || !strings.Contains(sample, "every: 1m") {
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
	must(t, dir, "./custom", "run", "--once", "-c", "c.yaml")
	got, err := os.ReadFile(filepath.Join(dir, "out.ndjson"))
	if err != nil || bytes.Count(got, []byte("\n")) != 1 || !bytes.Contains(got, []byte(`"message":"two"`)) {
		t.Errorf("the file holds %q (%v)", got, err)
	}
	write(strings.Replace(config, "argv", "argw", 1))
	out, err := outside(t, dir, "./custom", "check", "-c", "c.yaml")
	if err == nil || !strings.Contains(out, "c.yaml:4:24") || !strings.Contains(out, "did you mean \"argv\"") {
		t.Errorf("a fault in the input's section is shown as: %s (%v)", out, err)
	}
}
