//go:build blackbox

package scripts

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// numbered returns the name of the n-th rotated file, the newest being 1.
func numbered(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

// shift moves path.1 to path.2 and so on, compressed ones too.
func shift(path string) error {
	for n := 200; n >= 1; n-- {
		for _, end := range []string{"", ".gz"} {
			err := os.Rename(numbered(path, n)+end, numbered(path, n+1)+end)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// rename rotates by renaming; the writer goes on in the old file until it reopens.
func rename(path string) error {
	if err := shift(path); err != nil {
		return err
	}
	return os.Rename(path, numbered(path, 1))
}

// copytruncate rotates by copying and emptying the file. Nobody may write meanwhile: what is written between the two steps is
// lost to everybody.
func copytruncate(path string) error {
	if err := shift(path); err != nil {
		return err
	}
	if err := copyFile(path, numbered(path, 1)); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// compress replaces a file by its .gz, as gzip(1) does.
func compress(path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(path + ".gz")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(dst)
	_, err = io.Copy(z, src)
	return errors.Join(err, z.Close(), dst.Close(), os.Remove(path))
}

// logrotate is the real one, with a configuration of its own.
type logrotate struct {
	t                      testing.TB
	bin, config, stateFile string
}

// newLogrotate rotates path whenever rotate is called.
func newLogrotate(t testing.TB, dir, path string, directives ...string) *logrotate {
	t.Helper()
	l := &logrotate{t: t, bin: need(t, "logrotate"), config: filepath.Join(dir, "logrotate.conf"), stateFile: filepath.Join(dir, "logrotate.state")}
	text := fmt.Sprintf("%q {\n  rotate 200\n  missingok\n  %s\n}\n", path, strings.Join(directives, "\n  "))
	ok(t, os.WriteFile(l.config, []byte(text), 0o644))
	return l
}

func (l *logrotate) rotate() {
	l.t.Helper()
	out, err := exec.Command(l.bin, "--force", "--state", l.stateFile, l.config).CombinedOutput()
	if err != nil {
		l.t.Errorf("logrotate: %v\n%s", err, out)
	}
}
