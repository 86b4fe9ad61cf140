package tail

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Config is the input's configuration.
type Config struct {
	Paths   []string `yaml:"paths" required:"true" doc:"Files to follow: absolute paths, in which *, ?, [a-z], {a,b} and ** (any number of folders) may stand. What does not exist yet is waited for. Names that end in .tmp, .part, .swp or ~ are left out unless written in full, those that begin with a dot (rsync writes to such) unless the pattern's name does so too, and so are files in compressions other than gzip and zstd (.xz, .bz2, .lz4, .Z, .lzma), with a warning: logrotate should use gzip or zstd."`
	Exclude []string `yaml:"exclude" doc:"Files to leave out: patterns for the whole path or for the file's name."`

	lines.Config `yaml:",inline"`

	Position     bool          `yaml:"position" doc:"Set log_file and log_offset_int to where the line stands."`
	Start        string        `yaml:"start" doc:"Where to begin with files that are there when the agent first sees them: beginning, end, or a time in RFC 3339, before which records are skipped by their own time. A time also has rotated and compressed files read that paths do not match, if they belong to one that paths match and were written since. Where the checkpoint knows a file, reading goes on there, whatever stands here; what appears while the agent runs is read from its beginning. So a start with end leaves out what was written before it to files that the checkpoint does not know; use beginning, or a time, where that must not be."`
	Engine       string        `yaml:"engine" enum:"native|nxadm" doc:"native: the block reader. nxadm: the library nxadm/tail for files that are read up to their ends. Both promise the same for files, because what the library brings counts only where the file says the same; nxadm takes about five times the CPU. Named pipes are read by the library whatever stands here: a pipe gives each line once, so lines that no output has when the agent is killed are lost."`
	Grace        time.Duration `yaml:"grace" min:"10ms" doc:"How long a rotated or removed file is still read after its last line. Until no program has it open for writing any more, the file that follows it waits for it, too, but at most 5s and at most this time. A compressed file, or a copy, that ends in the middle is being written: it is waited for until it has not grown for this time."`
	Sweep        time.Duration `yaml:"sweep" min:"10ms" doc:"How often to look at the files beside waiting to be told of changes."`
	Unterminated string        `yaml:"unterminated" enum:"wait|read" doc:"With run --once, a last line without a newline: wait leaves and reports it, read takes it as a record."`
}

// Defaults returns the configuration that users start from.
func Defaults() Config {
	return Config{
		Config: lines.Defaults(), Start: "beginning", Engine: "native", Grace: 30 * time.Second, Sweep: time.Second, Unterminated: "wait",
	}
}

// Validate finds patterns and start times that cannot be.
func (c Config) Validate() error {
	var errs []error
	for i, p := range c.Paths {
		key := fmt.Sprintf("paths[%d]", i)
		switch {
		case !filepath.IsAbs(p):
			errs = append(errs, conf.KeyError{Key: key, Err: fmt.Errorf("%q is not an absolute path", p)})
		case !doublestar.ValidatePathPattern(p):
			errs = append(errs, conf.KeyError{Key: key, Err: fmt.Errorf("%q is not a valid pattern", p)})
		case strings.HasSuffix(p, "/"):
			errs = append(errs, conf.KeyError{Key: key, Err: fmt.Errorf("%q names a folder; write %s* for the files in it", p, p)})
		}
	}
	for i, p := range c.Exclude {
		if !doublestar.ValidatePathPattern(p) {
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("exclude[%d]", i), Err: fmt.Errorf("%q is not a valid pattern", p)})
		}
	}
	if _, err := c.notBefore(); err != nil {
		errs = append(errs, conf.KeyError{Key: "start", Err: err})
	}
	return errors.Join(errs...)
}

// notBefore returns the time that Start names; the zero time if it names none.
func (c Config) notBefore() (time.Time, error) {
	switch c.Start {
	case "beginning", "end":
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, c.Start)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither beginning nor end nor a time such as 2026-01-31T00:00:00Z", c.Start)
	}
	return t, nil
}

// Warnings names the patterns that match only files that are left out: the agent says so at its start, and check does.
func (c Config) Warnings() error {
	var errs []error
	for i, p := range c.Paths {
		if onlyUnreadable(p) {
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("paths[%d]", i), Err: fmt.Errorf("%q matches only files in a compression that is not known, which are left out: nothing is read. Logrotate should use gzip or zstd", p)})
		}
	}
	return errors.Join(errs...)
}

// Follows reports whether the configuration would follow this path. It implements plugins.PathFollower.
func (c Config) Follows(path string) bool {
	path = filepath.Clean(path)
	if c.excludes(path) {
		return false
	}
	for _, p := range c.Paths {
		if selects(filepath.Clean(p), path) {
			return true
		}
	}
	return false
}

// excludes reports whether a pattern of Exclude means this path.
func (c Config) excludes(path string) bool {
	return slices.ContainsFunc(c.Exclude, func(p string) bool { return match(p, path) || match(p, filepath.Base(path)) })
}

// selects reports whether a pattern of Paths means this path.
func selects(pattern, path string) bool {
	return pattern == path || match(pattern, path) && !unfinished(path) && unreadable(path) == "" && (!hidden(path) || hidden(pattern))
}

func match(pattern, path string) bool {
	ok, err := doublestar.PathMatch(pattern, path)
	return err == nil && ok
}
