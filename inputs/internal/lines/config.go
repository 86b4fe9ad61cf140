// Package lines turns blocks of bytes into records of a batch: it finds the newlines, cuts what is too long, has each line
// parsed, joins the lines of one record (join.go), and counts. Inputs that read text share it, and with it one part of their
// configuration. It knows nothing of files: who reads, from where, and when a last line without a newline counts is the input's
// business.
//
// Bytes stay as they are, but for the CR of a line's end, a byte order mark at the beginning and what is converted from another
// encoding (encoding.go). What is no UTF-8 becomes U+FFFD where outputs encode it.
package lines

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/inputs/internal/routes"
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
	Encoding string    `yaml:"encoding" enum:"utf-8|latin-1" doc:"How the text is encoded. utf-8: a byte order mark at the beginning is left out, and bytes that are no UTF-8 reach outputs as U+FFFD. latin-1: each byte is one character. Control characters, NULs among them, stay and are escaped in JSON; a CR before the end of a line goes. A file in UTF-16 is refused: it is named in the log and by readyz, and looked at again later."`

	Multiline Multiline `yaml:"multiline" doc:"Which lines make one record. The lines of tracebacks, of uWSGI's messages, of Python's warnings and of messages with several lines are joined without any of this, where the lines of services are events (records: all); an access line is always a record by itself."`

	Routes     []routes.Service `yaml:"routes" doc:"Services of your own, and more paths of known ones, by which route, resource and action are told from a request's path."`
	MaskTokens bool             `yaml:"mask_tokens" doc:"Put *** for tokens, passwords and signatures in paths, queries and other texts, in original too. The processor redact does more."`

	table *routes.Table // of Routes, once Prepare made it
}

// Prepare does once what New would do for each stream. Inputs with several streams call it when they are built.
func (c *Config) Prepare() error {
	t, err := routes.Compile(c.Routes)
	if err != nil {
		return conf.KeyError{Key: "routes", Err: err}
	}
	c.table = t
	return nil
}

// Multiline is the part of Config that says which lines make one record.
type Multiline struct {
	Start    string        `yaml:"start" doc:"Regular expression (RE2) for lines that begin a record. With it alone, every other line continues the record before it."`
	Continue string        `yaml:"continue" doc:"Regular expression (RE2) for lines that continue the record before them."`
	MaxLines int           `yaml:"max_lines" min:"1" max:"100000" doc:"A record of more lines is cut here and flagged truncated_bool; the rest of it is a record of its own, flagged as well."`
	MaxBytes conf.Size     `yaml:"max_bytes" min:"1KiB" max:"1MiB" doc:"The same for a record of more bytes."`
	Timeout  time.Duration `yaml:"timeout" min:"10ms" max:"5m" doc:"How long a file must not have grown for its last record to be complete without the beginning of another one, and how far apart, by their own times, the lines of one record can be."`
}

// Defaults returns the configuration that inputs start from.
func Defaults() Config {
	return Config{
		Format: "auto", Records: "access", Unparsed: "keep", Timezone: "Local", MaxLine: 256 << 10, Encoding: "utf-8",
		Multiline:  Multiline{MaxLines: 500, MaxBytes: 64 << 10, Timeout: 5 * time.Second},
		MaskTokens: true,
	}
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
	for _, k := range []struct{ key, expr string }{{"multiline.start", c.Multiline.Start}, {"multiline.continue", c.Multiline.Continue}} {
		if _, err := regexp.Compile(k.expr); err != nil {
			errs = append(errs, conf.KeyError{Key: k.key, Err: err})
		}
	}
	if _, err := routes.Compile(c.Routes); err != nil {
		errs = append(errs, conf.KeyError{Key: "routes", Err: err})
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
