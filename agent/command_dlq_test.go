package agent

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDeadLettersAreListedAndShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".gz") {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			_, _ = w.Write([]byte(text))
			_ = w.Close()
			text = b.String()
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("dead/p/es.ndjson.2.gz", `{"n":1,"dead_reason":"mapping","dead_time":"2026-11-21T08:00:00Z"}`+"\n")
	write("dead/p/es.ndjson.1", `{"n":2,"dead_reason":"mapping","dead_time":"2026-11-21T09:00:00Z"}`+"\n")
	write("dead/p/es.ndjson", `{"n":3,"dead_reason":"too large","dead_time":"2026-11-21T10:00:00Z"}`+"\nbroken\n"+`{"n":4,"dead_re`)
	write("dead/p/es.state/files.journal", "not a letter\n")
	write("dead/p/file.ndjson", "")
	runIt := func(args ...string) (string, error) {
		cmd := newDeadLetterCommand(nil)
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs(append(args, "--state-dir", dir))
		err := cmd.Execute()
		return out.String(), err
	}
	out, err := runIt("list")
	want := "p/es: 4 events from 2026-11-21T08:00:00Z to 2026-11-21T10:00:00Z in 3 files\n  2: mapping\n  1: (damaged line)\n  1: too large\n"
	if err != nil || out != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	out, err = runIt("list", "-o", "json")
	if err != nil || !strings.Contains(out, `"events":4`) || strings.Contains(out, "journal") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = runIt("show", "p/es")
	if lines := strings.Split(out, "\n"); err != nil || len(lines) != 5 || !strings.HasPrefix(lines[0], `{"n":1`) || !strings.HasPrefix(lines[2], `{"n":3`) {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err = runIt("show", "p/other"); err == nil || !strings.Contains(err.Error(), "p/other") {
		t.Errorf("an output without dead letters: %v", err)
	}
}
