package elasticsearch

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/outputs/internal/template"
	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// Config is the output's configuration.
type Config struct {
	URLs       []string    `yaml:"urls" required:"true" doc:"Addresses of the cluster's nodes; one that does not answer is set aside for a while."`
	DataStream *DataStream `yaml:"data_stream" doc:"Write to this data stream."`
	Index      string      `yaml:"index" doc:"Write to plain indices of this name; {{field}} and %Y %m %d %H %M %j (the event's time, UTC) stand for values."`

	APIKey   conf.Secret `yaml:"api_key" doc:"API key, encoded or as id:key; one from a file or credential is read again after a 401."`
	web.Auth `yaml:",inline"`
	TLS      web.TLS `yaml:"tls" doc:"How servers are verified, and what we show them."`

	Flavor   string                 `yaml:"flavor" enum:"auto|elasticsearch|opensearch" doc:"What the server is; auto asks it."`
	Compress string                 `yaml:"compress" enum:"gzip|none" doc:"How requests are compressed."`
	Timeout  time.Duration          `yaml:"timeout" min:"1s" doc:"How long one request may take."`
	Pipeline string                 `yaml:"pipeline" doc:"Ingest pipeline of the server that events go through."`
	Headers  map[string]conf.Secret `yaml:"headers" doc:"Headers to send with each request, for proxies."`
}

// DataStream names a data stream by its three parts: type-dataset-namespace.
type DataStream struct {
	Type      string `yaml:"type" doc:"First part of the name."`
	Dataset   string `yaml:"dataset" required:"true" doc:"Second part of the name, such as openstack.api."`
	Namespace string `yaml:"namespace" doc:"Third part of the name."`
}

// SetDefaults is called by package conf before the section is read.
func (d *DataStream) SetDefaults() { d.Type, d.Namespace = "logs", "default" }

// Name returns the data stream's whole name.
func (d *DataStream) Name() string { return d.Type + "-" + d.Dataset + "-" + d.Namespace }

// Validate finds parts that make no name.
func (d *DataStream) Validate() error {
	var errs []error
	for _, part := range []struct{ key, value string }{{"type", d.Type}, {"dataset", d.Dataset}, {"namespace", d.Namespace}} {
		err := checkName(part.value)
		switch {
		case part.value == "":
			if part.key == "dataset" {
				continue // required says so
			}
			err = errors.New("must not be empty")
		case err == nil && strings.Contains(part.value, "-"):
			err = errors.New("must hold no hyphen: it stands between the three parts")
		case err == nil && len(part.value) > maxPart:
			err = fmt.Errorf("must not be longer than %d bytes", maxPart)
		case err == nil && part.key == "type" && strings.ContainsRune("_+.", rune(part.value[0])):
			err = fmt.Errorf("must not begin with %q", part.value[0])
		}
		if err != nil {
			errs = append(errs, conf.KeyError{Key: part.key, Err: err})
		}
	}
	return errors.Join(errs...)
}

const (
	// maxPart is the longest part of a data stream's name that both servers take.
	maxPart = 100
	// maxIndex is how long an index's name may be, in bytes.
	maxIndex = 255
	// maxValue is a field's share of it.
	maxValue = 64
	// maxFields bounds the names that values can make beside each other.
	maxFields = 3
)

// DefaultLinger collects events for a second: a request costs much more than its events.
func (Config) DefaultLinger() time.Duration { return time.Second }

// Values of Config.Flavor and Config.Compress.
const (
	flavorAuto          = "auto"
	flavorElasticsearch = "elasticsearch"
	flavorOpenSearch    = "opensearch"
	gzipBodies          = "gzip"
)

// Validate finds what the types cannot say.
func (c Config) Validate() error {
	var errs []error
	fault := func(key string, err error) { errs = append(errs, conf.KeyError{Key: key, Err: err}) }
	for i, u := range c.URLs {
		key := fmt.Sprintf("urls[%d]", i)
		if err := web.CheckURL(u); err != nil {
			fault(key, err)
		} else if strings.Contains(u, "?") {
			fault(key, errors.New("a query (?…) has no place in a server's address"))
		} else if slices.Index(c.URLs, u) < i {
			fault(key, errors.New("stands here twice"))
		}
	}
	switch {
	case c.DataStream != nil && c.Index != "":
		fault("index", errors.New("data_stream or index, not both"))
	case c.DataStream == nil && c.Index == "":
		fault("data_stream", errors.New("say where to write: data_stream or index"))
	case c.Index != "":
		if _, err := parseIndex(c.Index); err != nil {
			fault("index", err)
		}
	}
	key := c.APIKey.Reveal()
	if key != "" && (c.Username != "" || c.Password.Reveal() != "" || c.Bearer.Reveal() != "") {
		fault("api_key", errors.New("api_key, or username and password, or bearer: only one of them"))
	}
	if err := checkAPIKey(c.APIKey); err != nil {
		fault("api_key", err)
	}
	if strings.ContainsFunc(c.Pipeline, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		fault("pipeline", errors.New("a pipeline's name holds no space and no control character"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		err := web.CheckHeader(name, c.Headers[name].Reveal())
		switch http.CanonicalHeaderKey(name) {
		case "Authorization":
			err = errors.New("use api_key, username and password, or bearer")
		case "Content-Type", "Accept":
			err = errors.New("the output sets it itself")
		}
		if err != nil {
			fault("headers."+name, err)
		}
	}
	return errors.Join(errs...)
}

// checkAPIKey refuses what would not arrive as it is. The error does not quote it.
func checkAPIKey(s conf.Secret) error {
	for _, c := range []byte(s.Reveal()) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("the key holds a space, a newline or another character that no key has")
		}
	}
	return nil
}

// apiKeyHeader returns the value of Authorization for a key in either form.
func apiKeyHeader(key string) string {
	if strings.Contains(key, ":") {
		key = base64.StdEncoding.EncodeToString([]byte(key))
	}
	return "ApiKey " + key
}

// illegal are the characters that no index name holds.
const illegal = "\\/*?\"<>| ,#:"

// checkName reports what makes a text no part of an index name.
func checkName(s string) error {
	for _, r := range s {
		switch {
		case r >= 'A' && r <= 'Z':
			return fmt.Errorf("holds the capital %q: names of indices are in lower case", r)
		case strings.ContainsRune(illegal, r), r < ' ', r == 0x7f, r == utf8.RuneError:
			return fmt.Errorf("holds %q, which no name of an index may", r)
		case r >= utf8.RuneSelf && strings.ToLower(string(r)) != string(r):
			return fmt.Errorf("holds the capital %q: names of indices are in lower case", r)
		}
	}
	return nil
}

// indexTemplate is a parsed index name.
type indexTemplate struct {
	parts []template.Part
	// dated says that a date stands in it: then an event always goes to the same index, whenever it is sent.
	dated bool
}

// makes is what a template makes names of, in messages.
const makes = "name of an index"

// parseIndex parses a configured index name. Errors name the column.
func parseIndex(s string) (*indexTemplate, error) {
	parts, err := template.Parse(s, makes, maxFields)
	if err != nil {
		return nil, err
	}
	t := &indexTemplate{parts: parts}
	length := 0
	for i := range parts {
		switch p := &parts[i]; {
		case p.Field != "":
			length += maxValue
		case p.Date != 0:
			t.dated = true
			length += 4
		default:
			if err := checkName(p.Text); err != nil {
				return nil, fmt.Errorf("column %d: %w", p.Column, err)
			}
			length += len(p.Text)
		}
	}
	if c := s[0]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c < utf8.RuneSelf {
		return nil, errors.New("column 1: must begin with a letter or a digit")
	}
	if length > maxIndex {
		return nil, fmt.Errorf("makes names of up to %d bytes; %d are allowed", length, maxIndex)
	}
	return t, nil
}

// checkFields finds fields that nobody defines.
func (t *indexTemplate) checkFields(extra map[string]event.Kind) error {
	if err := template.CheckFields(t.parts, makes, extra); err != nil {
		return conf.KeyError{Key: "index", Err: err}
	}
	return nil
}

// pattern returns what all names of the template match.
func (t *indexTemplate) pattern() string {
	var b strings.Builder
	for _, p := range t.parts {
		switch {
		case p.IsText():
			b.WriteString(p.Text)
		case !strings.HasSuffix(b.String(), "*"):
			b.WriteByte('*')
		}
	}
	return b.String()
}

// append appends the name of e's index. at is its time.
func (t *indexTemplate) append(dst []byte, e *event.Event, at time.Time) []byte {
	for i := range t.parts {
		switch p := &t.parts[i]; {
		case p.Date != 0:
			dst = appendDate(dst, p.Date, at)
		case p.Field != "":
			dst = appendValue(dst, p.Value(e))
		default:
			dst = append(dst, p.Text...)
		}
	}
	return dst
}

// appendValue appends a value as part of an index name: capitals become small, what no name may hold an underscore.
func appendValue(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, '_')
	}
	from := len(dst)
	for _, r := range s {
		switch {
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r < ' ' || r == 0x7f || r >= utf8.RuneSelf || strings.ContainsRune(illegal, r):
			r = '_'
		}
		if len(dst)-from == maxValue {
			break
		}
		dst = append(dst, byte(r))
	}
	return dst
}

func appendDate(dst []byte, code byte, at time.Time) []byte {
	two := func(n int) []byte { return append(dst, byte('0'+n/10%10), byte('0'+n%10)) }
	switch code {
	case 'Y':
		y := at.Year()
		return append(dst, byte('0'+y/1000%10), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10))
	case 'm':
		return two(int(at.Month()))
	case 'd':
		return two(at.Day())
	case 'H':
		return two(at.Hour())
	case 'M':
		return two(at.Minute())
	}
	d := at.YearDay()
	return append(dst, byte('0'+d/100), byte('0'+d/10%10), byte('0'+d%10))
}
