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
	"slices"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/inputs/internal/routes"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the part of an input's configuration that says what becomes of a line. Inputs embed it inline.
type Config struct {
	Format   any               `yaml:"format" doc:"How lines are written: auto, or the name of a format, or a list of names (with commas between them, or as a list). The command formats lists them. template, regex and json stand for your own below."`
	Template string            `yaml:"template" doc:"A format of your own in the syntax of Apache's LogFormat or uWSGI's log-format. It is tried before all others." example:"%h %l %u %t \"%r\" %>s %b %D"`
	Regex    string            `yaml:"regex" doc:"A format of your own as a regular expression (RE2). Its named groups are named after fields: client, request, api_response_code_int and so on."`
	JSON     map[string]string `yaml:"json" doc:"A format of your own for lines that are JSON objects: for each field, which member it is, with dots between the names of nested ones."`
	Records  string            `yaml:"records" enum:"access|audit|all" doc:"access: only API requests are events; audit: CADF audit records too; all: the other lines of the services too."`
	Unparsed string            `yaml:"unparsed" enum:"keep|drop" doc:"What becomes of lines in no known format: keep makes them events of class unparsed, drop only counts them."`
	Original bool              `yaml:"original" doc:"Keep the line as it was in the field original."`
	Observed bool              `yaml:"observed" doc:"Set observed_date to the time at which the line was read."`
	Timezone string            `yaml:"timezone" doc:"Zone of times that are written without one: Local, UTC or an IANA name such as Europe/Paris."`
	MaxLine  conf.Size         `yaml:"max_line" min:"1KiB" max:"64MiB" doc:"A longer line, or one that a container runtime wrote in more parts, is cut here and flagged truncated_bool; the rest of it is skipped."`
	Encoding string            `yaml:"encoding" enum:"utf-8|latin-1" doc:"How the text is encoded. utf-8: a byte order mark at the beginning is left out, and bytes that are no UTF-8 reach outputs as U+FFFD. latin-1: each byte is one character. Control characters, NULs among them, stay and are escaped in JSON; a CR before the end of a line goes. A file in UTF-16 is refused: it is named in the log and by readyz, and looked at again later."`

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
	Timeout  time.Duration `yaml:"timeout" min:"10ms" max:"5m" doc:"How long a file must not have grown for its last record to be complete without the beginning of another one, and how far apart, by their own times, the lines of one record, or the parts of one container line, can be."`
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
	return errors.Join(append(errs, c.validateFormats()...)...)
}

// validateFormats finds faults in the names of formats and in the user's own.
func (c Config) validateFormats() (errs []error) {
	if c.Template != "" {
		if err := formats.CheckTemplate(c.Template); err != nil {
			errs = append(errs, conf.KeyError{Key: "template", Err: err})
		}
	}
	if c.Regex != "" {
		if err := formats.CheckRegex(c.Regex); err != nil {
			errs = append(errs, conf.KeyError{Key: "regex", Err: err})
		}
	}
	if len(c.JSON) > 0 {
		if err := formats.CheckJSON(c.JSON); err != nil {
			errs = append(errs, conf.KeyError{Key: "json", Err: err})
		}
	}
	names, err := c.formats()
	if err != nil {
		return append(errs, conf.KeyError{Key: "format", Err: err})
	}
	for i, n := range names {
		// The user's own are looked at below, together with their keys.
		if _, isList := c.Format.([]any); isList && !slices.Contains([]string{"template", "regex", "json"}, n) {
			if _, err := formats.New(formats.Options{Formats: []string{n}}); err != nil {
				errs = append(errs, conf.KeyError{Key: fmt.Sprintf("format[%d]", i), Err: err})
			}
		}
	}
	if len(errs) > 0 {
		return errs // that the names of those are not set is no fault of its own
	}
	if _, err := formats.New(formats.Options{Formats: names, Template: c.Template, Regex: c.Regex, JSON: c.JSON}); err != nil {
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
	return errs
}

func (c Config) parserOptions(loc *time.Location) formats.Options {
	names, _ := c.formats() // Validate has looked
	o := formats.Options{Formats: names, Location: loc, Template: c.Template, Regex: c.Regex, JSON: c.JSON}
	switch c.Records {
	case "audit":
		o.Records = formats.AccessAndAudit
	case "all":
		o.Records = formats.All
	}
	return o
}

// formats lists the names in Format.
func (c Config) formats() ([]string, error) {
	switch v := c.Format.(type) {
	case nil:
		return nil, nil
	case string:
		return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }), nil
	case []any:
		names := make([]string, len(v))
		for i, x := range v {
			n, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("expected the name of a format as item %d, found %v", i+1, x)
			}
			names[i] = n
		}
		return names, nil
	}
	return nil, fmt.Errorf("expected the name of a format or a list of names, found %v", c.Format)
}

// EachFormat names the formats that lines can have, one after the other: who writes them, an example, and the fields that they
// can fill. The command formats calls it, which knows inputs by their configuration only.
func (c Config) EachFormat(yield func(name, writer, example string, fields []string)) error {
	list, err := formats.Describe()
	for _, d := range list {
		yield(d.Name, d.Writer, d.Example, d.Fields)
	}
	return err
}

// FromPath names the fields of a record of any format that the path of the request fills, where the line does not. It is found out by
// looking at a path that tells all there is to tell. The command formats calls it.
func (c Config) FromPath() ([]string, error) {
	t, err := routes.Compile(c.Routes)
	if err != nil {
		return nil, err
	}
	b := event.NewBatch("")
	e := b.Append()
	e.Method, e.Path = "GET", "/volume/v3/9f8e7d6c5b4a39281706f5e4d3c2b1a0/volumes/5cfb1d2e-3f40-4152-8364-75869798a9ba"
	e.SetStatus(200)
	told := map[string]bool{}
	for _, f := range schema.Fields() {
		told[f.Name] = f.Get(e).Kind() != event.Absent
	}
	t.NewRouter().Fill(e, b.Arena())
	var names []string
	for _, f := range schema.Fields() {
		if !told[f.Name] && f.Get(e).Kind() != event.Absent && f.Name != "event_id" {
			names = append(names, f.Name)
		}
	}
	return names, nil
}

// Explain reads one line of the file of that name and says how, in the order in which it was found out: each kind of text is one of
// the Explain constants. at is where in text the line parts from the format. The command parse calls it.
func (c Config) Explain(line []byte, file string, say func(kind, name, place, text string, at int)) error {
	loc, err := c.location()
	if err != nil {
		return err
	}
	p, err := formats.New(c.parserOptions(loc))
	if err != nil {
		return err
	}
	p.File(file, time.Now())
	b := event.NewBatch("")
	x := p.Explain(line, b.Append(), b.Arena())
	for _, n := range x.Peeled {
		say(ExplainEnvelope, n, "", "", 0)
	}
	for _, a := range x.Attempts {
		say(ExplainAttempt, a.Format, a.Place, a.Text, a.At)
	}
	switch x.Verdict {
	case formats.Access:
		say(ExplainRecord, x.Format, "", x.Text, 0)
	case formats.Service:
		say(ExplainService, x.Reason, "", x.Text, 0)
	default:
		say(ExplainUnparsed, x.Reason, "", x.Text, 0)
	}
	return nil
}

// What Explain says.
const (
	ExplainEnvelope = "envelope" // name is what was around the rest of the line
	ExplainAttempt  = "attempt"  // name is a format that text follows to at, where place was expected
	ExplainRecord   = "record"   // name is the format of the record that text is
	ExplainService  = "service"  // name is the kind of line that text is, which tells of no request
	ExplainUnparsed = "unparsed" // name is the reason why text is no record
)

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
