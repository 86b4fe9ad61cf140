package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
)

func TestCheckWarnsOfPathsThatAreNeverRead(t *testing.T) {
	t.Parallel()
	reg, err := plugins.NewRegistry(builtin()...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	for paths, want := range map[string]string{"/var/log/x/*.xz": "a.yaml:5:24: pipelines[0].inputs[0].tail.paths[0]: ", "/var/log/x/*": ""} {
		text := fmt.Sprintf("agent: {state_dir: %q}\npipelines:\n  - name: p\n    inputs:\n      - tail: {paths: [%q]}\n    outputs:\n      - blackhole: {}\n", filepath.Join(dir, "state"), paths)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		cmd := newCheckCommand(reg)
		cmd.SetOut(&said)
		cmd.SetErr(&said)
		cmd.SetArgs([]string{"-c", file})
		if err := cmd.Execute(); err != nil {
			t.Errorf("%s: %v", paths, err)
		}
		if got := said.String(); strings.Contains(got, "warning: ") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%s: said %q, want %q in it", paths, got, want)
		}
	}
}
