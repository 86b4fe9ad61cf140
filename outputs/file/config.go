package file

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/template"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the output's configuration.
type Config struct {
	Path     string `yaml:"path" required:"true" doc:"Absolute path of the file; {{field}} and %Y %m %d %H %M %j (the event's time, UTC) stand for values."`
	Rotate   Rotate `yaml:"rotate" doc:"When a file is put aside."`
	Sync     string `yaml:"sync" enum:"checkpoint|always" doc:"When written data is forced to the disk: with each checkpoint, or before each write counts as done."`
	Mode     Mode   `yaml:"mode" doc:"Permissions of new files, octal."`
	MaxPaths int    `yaml:"max_paths" min:"1" doc:"Most distinct paths that the values of fields may make in one run; events beyond go to the dead letter."`
	EventID  bool   `yaml:"event_id" doc:"Add event_id to each record."`
}

// Rotate says when a file is put aside, and what becomes of it.
type Rotate struct {
	Size     conf.Size `yaml:"size" doc:"Put the file aside before it grows beyond this; 0: never."`
	Keep     int       `yaml:"keep" min:"1" doc:"How many files put aside are kept of each path."`
	Compress string    `yaml:"compress" enum:"none|gzip" doc:"How files put aside are compressed."`
}

// Values of Config.Sync and Rotate.Compress.
const (
	syncAlways = "always"
	gzipFiles  = "gzip"
)

// Mode is a file's permissions, written in octal digits such as 0640.
type Mode fs.FileMode

// UnmarshalText reads octal digits.
func (m *Mode) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(string(text), "0o"), 8, 32)
	if err != nil || v == 0 || v > 0o777 {
		return fmt.Errorf("permissions are three octal digits such as 0640, found %q", text)
	}
	*m = Mode(v)
	return nil
}

// MarshalText returns four octal digits.
func (m Mode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(m)), nil }

// String returns what MarshalText returns.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// Validate finds what the types cannot say: faults of the path's template, and permissions that would lock the agent out.
func (c Config) Validate() error {
	var errs []error
	if c.Path != "" {
		if _, err := parseTemplate(c.Path); err != nil {
			errs = append(errs, conf.KeyError{Key: "path", Err: err})
		}
	}
	if c.Mode&0o200 == 0 {
		errs = append(errs, conf.KeyError{Key: "mode", Err: errors.New("the owner must be able to write: add 0200")})
	}
	return errors.Join(errs...)
}

// checkFields finds fields that nobody defines.
func checkFields(t *pathTemplate, extra map[string]event.Kind) error {
	if err := template.CheckFields(t.parts, makes, extra); err != nil {
		return conf.KeyError{Key: "path", Err: err}
	}
	return nil
}

// WrittenPaths returns what the output could write: each file, and what becomes of it when it is put aside.
func (c Config) WrittenPaths() []string {
	t, err := parseTemplate(c.Path)
	if err != nil {
		return nil
	}
	e := event.NewBatch("").Append()
	var r renderer
	var paths []string
	for _, sample := range []string{"x", "nova", "_"} { // a field can be anything, so a pattern is likely to match one of these
		for _, p := range t.parts {
			if p.Field != "" {
				schema.Set(e, p.Field, event.StringValue(sample))
			}
		}
		p := filepath.Join(t.base, string(r.render(t, e, time.Now())))
		paths = append(paths, p)
		if c.Rotate.Size > 0 {
			paths = append(paths, p+".1")
			if c.Rotate.Compress == gzipFiles {
				paths = append(paths, p+".1.gz", tempName(p))
			}
		}
		if t.static {
			break
		}
	}
	return paths
}

var _ plugins.PathWriter = Config{}
