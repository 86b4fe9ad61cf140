// Package lines turns blocks of bytes into records of a batch: it finds the newlines, cuts what is too long, has each line
// parsed, and counts. Inputs that read text share it, and with it one part of their configuration. It knows nothing of files:
// who reads, from where, and when a last line without a newline counts is the input's business.
package lines

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Config is the part of an input's configuration that says what becomes of a line. Inputs embed it inline.
type Config struct {
	Format   string    `yaml:"format" doc:"How lines are written: auto, or the name of a format, or several names with commas between them."`
	Records  string    `yaml:"records" enum:"access|all" doc:"access: only API requests are events; all: the other lines of the services too."`
	Unparsed string    `yaml:"unparsed" enum:"keep|drop" doc:"What becomes of lines in no known format: keep makes them events of class unparsed, drop only counts them."`
	Original bool      `yaml:"original" doc:"Keep the line as it was in the field original."`
	Observed bool      `yaml:"observed" doc:"Set observed_date to the time at which the line was read."`
	Timezone string    `yaml:"timezone" doc:"Zone of times that are written without one: Local, UTC or an IANA name such as Europe/Paris."`
	MaxLine  conf.Size `yaml:"max_line" min:"1KiB" max:"64MiB" doc:"A longer line is cut here and flagged truncated_bool; the rest of it is skipped."`
}

// Defaults returns the configuration that inputs start from.
func Defaults() Config {
	return Config{Format: "auto", Records: "access", Unparsed: "keep", Timezone: "Local", MaxLine: 256 << 10}
}

// Validate finds formats and zones that do not exist.
func (c Config) Validate() error {
	var errs []error
	if _, err := c.location(); err != nil {
		errs = append(errs, conf.KeyError{Key: "timezone", Err: err})
	}
	if _, err := formats.New(formats.Options{Formats: c.formats()}); err != nil {
		errs = append(errs, conf.KeyError{Key: "format", Err: err})
	}
	return errors.Join(errs...)
}

func (c Config) parserOptions(loc *time.Location) formats.Options {
	o := formats.Options{Formats: c.formats(), Location: loc}
	if c.Records == "all" {
		o.Records = formats.All
	}
	return o
}

// formats lists the names in Format.
func (c Config) formats() []string {
	return strings.FieldsFunc(c.Format, func(r rune) bool { return r == ',' || r == ' ' })
}

func (c Config) location() (*time.Location, error) {
	if c.Timezone == "" {
		return nil, errors.New("empty; use Local, UTC or an IANA name")
	}
	l, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %q; use Local, UTC or an IANA name such as Europe/Paris", c.Timezone)
	}
	return l, nil
}

// ZoneIsGuessed reports that the zone is Local while neither TZ nor /etc/localtime says what that is, as in many
// containers: inputs warn of it once.
func (c Config) ZoneIsGuessed() bool {
	if c.Timezone != "Local" {
		return false
	}
	if _, ok := os.LookupEnv("TZ"); ok {
		return false
	}
	_, err := os.Stat("/etc/localtime")
	return errors.Is(err, os.ErrNotExist)
}
