package http

import (
	"errors"
	"fmt"
	"maps"
	nethttp "net/http"
	"regexp"
	"slices"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Config is the output's configuration.
type Config struct {
	URL      string                 `yaml:"url" required:"true" example:"https://collector.example.org/ingest" doc:"Where to send; http or https."`
	Method   string                 `yaml:"method" enum:"POST|PUT" doc:"Method of the requests."`
	Encoding string                 `yaml:"encoding" enum:"ndjson|json" doc:"Body of a request: one JSON object a line, or one JSON array."`
	Compress string                 `yaml:"compress" enum:"none|gzip" doc:"How bodies are compressed."`
	Headers  map[string]conf.Secret `yaml:"headers" doc:"Headers to add; a value from a file or credential is read again after a 401."`
	TLS      web.TLS                `yaml:"tls" doc:"How servers are verified, and what to show them."`
	web.Auth `yaml:",inline"`
	Timeout  time.Duration `yaml:"timeout" min:"10ms" doc:"Longest time from the start of a request to the end of its answer."`
}

// DefaultLinger collects events for a second: a request costs much more than its events.
func (Config) DefaultLinger() time.Duration { return time.Second }

// Values of Config.Encoding and Config.Compress.
const (
	encodingNDJSON = "ndjson"
	encodingJSON   = "json"
	compressNone   = "none"
	compressGzip   = "gzip"
)

// Validate finds what the types cannot say.
func (c Config) Validate() error {
	var errs []error
	if c.URL != "" {
		if err := web.CheckURL(c.URL); err != nil {
			errs = append(errs, conf.KeyError{Key: "url", Err: err})
		}
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		key := "headers." + name
		if !plainKey.MatchString(name) {
			key = fmt.Sprintf("headers[%q]", name)
		}
		canonical := nethttp.CanonicalHeaderKey(name)
		err := web.CheckHeader(name, c.Headers[name].Reveal())
		switch {
		case err != nil:
		case canonical == idempotencyKey:
			err = fmt.Errorf("%s is the output's own", idempotencyKey)
		case canonical == "Authorization" && (c.Username != "" || c.Bearer.Reveal() != ""):
			err = errors.New("username or bearer sets this header already")
		case seen[canonical] != "":
			err = fmt.Errorf("the same header as %s", seen[canonical])
		}
		seen[canonical] = name
		if err != nil {
			errs = append(errs, conf.KeyError{Key: key, Err: err})
		}
	}
	return errors.Join(errs...)
}

// plainKey are names that stand in a path as they are. Read only.
var plainKey = regexp.MustCompile(`^[0-9A-Za-z_-]+$`)
