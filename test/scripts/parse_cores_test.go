//go:build blackbox

package scripts

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// parse on several cores prints what it prints on one.

// parseOn runs parse in the folder of the real logs on so many cores.
func parseOn(t *testing.T, cores int, stdin *os.File, args ...string) result {
	t.Helper()
	cmd := exec.Command(stacktrail(t), append([]string{"parse", "--timezone", "UTC"}, args...)...)
	cmd.Dir = realLogs(t)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", cores))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// sampleFiles lists all sample logs, and compressed ones among them.
func sampleFiles(t *testing.T) (list []string) {
	t.Helper()
	dir := realLogs(t)
	ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".ndjson" || filepath.Ext(path) == ".md" {
			return err
		}
		name, err := filepath.Rel(dir, path)
		list = append(list, name)
		return err
	}))
	if !slices.ContainsFunc(list, func(f string) bool { return strings.HasSuffix(f, ".gz") }) || len(list) < 20 {
		t.Fatalf("only %d samples, or no compressed one: %v", len(list), list)
	}
	return list
}

// forms are ways to print that share no code with each other, or join lines.
func forms() [][]string {
	return [][]string{
		nil,
		{"--records", "all", "--event-id"},
		{"--records", "all", "--unparsed-events", "--naming", "ecs", "--summary", "json"},
		{"--records", "audit", "-o", "text"},
		{"-o", "table"},
	}
}

func TestParsePrintsTheSameOnAnyNumberOfCores(t *testing.T) {
	t.Parallel()
	files := sampleFiles(t)
	for _, form := range forms() {
		args := slices.Concat(form, files)
		want := parseOn(t, 1, nil, args...)
		if want.code != 0 || strings.Count(want.out, "\n") < 500 {
			t.Fatalf("%v: code %d, %d lines\n%s", form, want.code, strings.Count(want.out, "\n"), tailOf(want.errors, 2000))
		}
		for _, cores := range []int{2, 8} {
			sameResult(t, fmt.Sprintf("%v on %d cores", form, cores), parseOn(t, cores, nil, args...), want)
		}
		// One file after the other makes the same records: nothing goes from one to the next.
		if slices.Contains(form, "table") {
			continue // has widths of its own
		}
		var alone strings.Builder
		for _, f := range files {
			alone.WriteString(parseOn(t, 2, nil, append(slices.Clone(form), f)...).out)
		}
		if alone.String() != want.out {
			t.Errorf("%v: files by themselves give other records\n%s", form, firstOther(alone.String(), want.out))
		}
	}
}

// sameResult compares all that two calls printed.
func sameResult(t *testing.T, about string, got, want result) {
	t.Helper()
	if got.code != want.code || got.out != want.out {
		t.Errorf("%s: code %d, not %d, or other records\n%s", about, got.code, want.code, firstOther(got.out, want.out))
	}
	if got.errors != want.errors {
		t.Errorf("%s: other errors or another summary\n%s", about, firstOther(got.errors, want.errors))
	}
}

// firstOther shows where two texts part.
func firstOther(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// TestParseJoinsAcrossChunks feeds standard input in packets, each of which is what one read gets: pairs of lines and records of several
// lines stand across their ends, as do lines.
func TestParseJoinsAcrossChunks(t *testing.T) {
	t.Parallel()
	var all []byte
	for _, f := range sampleFiles(t) {
		all = append(all, content(t, filepath.Join(realLogs(t), f))...)
	}
	for _, form := range forms() {
		// The ids of what comes from standard input are of this one run.
		form = slices.DeleteFunc(slices.Clone(form), func(arg string) bool { return arg == "--event-id" })
		whole := parsePackets(t, 1, all, 60<<10, form...)
		if whole.code != 0 || strings.Count(whole.out, "\n") < 500 {
			t.Fatalf("%v: code %d, %d lines\n%s", form, whole.code, strings.Count(whole.out, "\n"), tailOf(whole.errors, 2000))
		}
		for _, size := range []int{97, 311, 4096} {
			for _, cores := range []int{1, 8} {
				sameResult(t, fmt.Sprintf("%v in pieces of %d bytes on %d cores", form, size, cores), parsePackets(t, cores, all, size, form...), whole)
			}
		}
	}
}

// parsePackets runs parse with a text on standard input of which no read gets more than size bytes.
func parsePackets(t *testing.T, cores int, text []byte, size int, args ...string) result {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	ok(t, err)
	theirs := os.NewFile(uintptr(pair[1]), "packets")
	sent := make(chan error, 1)
	go func() {
		defer func() { _ = syscall.Close(pair[0]) }()
		for p := range slices.Chunk(text, size) {
			if _, err := syscall.Write(pair[0], p); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	r := parseOn(t, cores, theirs, args...)
	ok(t, theirs.Close())
	ok(t, <-sent)
	return r
}

// TestParseReadsAheadWithoutMixingFiles has files of very different sizes, the largest first, so that later ones are read long before
// their turn.
func TestParseReadsAheadWithoutMixingFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files, want []string
	for i, n := range []int{40_000, 1, 0, 9_000, 3, 5_000} {
		path := filepath.Join(dir, fmt.Sprintf("api%d.log", i))
		ok(t, os.WriteFile(path, nil, 0o600))
		newWriter(t, path, i+1).lines(n)
		files = append(files, path)
		want = append(want, parseOn(t, 1, nil, path).out)
	}
	missing := filepath.Join(dir, "missing.log")
	files = slices.Insert(files, 3, missing)
	for _, cores := range []int{1, 2, 8} {
		r := parseOn(t, cores, nil, files...)
		if r.out != strings.Join(want, "") {
			t.Errorf("%d cores: %s", cores, firstOther(r.out, strings.Join(want, "")))
		}
		if r.code != 1 || !strings.Contains(r.errors, "opening "+missing+": ") || !strings.Contains(r.errors, " 54004 lines: 54004 events") {
			t.Errorf("%d cores: code %d\n%s", cores, r.code, tailOf(r.errors, 2000))
		}
	}
}
