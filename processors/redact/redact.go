// Package redact is a processor that takes secrets and personal data out of events, wherever they stand.
//
//	processors:
//	  - redact: {}                                                   # detectors only
//	  - redact: {fields: [client, user_name], with: hash, key: "${cred:redact_key}"}
//	  - redact: {fields: [client], with: network, detect: all}
//
// # Fields
//
// The value of each field named is replaced in the field, and wherever else it stands in the event: in all fixed fields, extra
// fields, lists, objects and their keys, and in the record's text, at the boundaries of words, literally, percent-encoded or escaped
// with backslashes, up to three times over. The words that the agent itself gives (service, program, kind, record_class, format and the
// like) stay: they are not from the record. Numbers are looked for in texts too; times, true and false are not.
//
//	with      the field becomes                                    elsewhere
//	mask      ***                                                  ***
//	hash      hmac: and 16 hexadecimal digits of HMAC-SHA-256      the same
//	remove    absent                                               ***
//	network   the first address of its network                     the same
//
// A field that cannot hold that becomes absent: numbers, times, bools and objects always, and the addresses client and
// fingerprinted_iplb with mask, since far ends keep them as addresses. Each item of a list is replaced. What network finds to be no
// address, with or without port, or a list of such with commas, is masked. event_id stays what it was.
//
// Where fields are named, the text of unparsed records is withheld, because nobody knows where in it the values stand: message,
// original and all else that was taken from the record become [withheld]. With unparsed_text: keep just the detectors run.
//
// # Detectors
//
// They look at every text of the event, percent-encoded and escaped ones too, and replace what they find there and wherever else it
// stands. Without fields all of them run but email; with fields, those that detect names.
//
//	fernet     Keystone's fernet tokens: gAAAAA…
//	token      values of X-Auth-Token, X-Subject-Token, X-Service-Token and their like, access_token, refresh_token, …; after the
//	           word token, and in paths after tokens/, long hexadecimal numbers
//	password   values of password, passwd, adminPass, passphrase, …, --password, and passwords in URLs (scheme://user:password@)
//	secret     values of client_secret, api_key, X-Auth-Key and their like, private keys in PEM form
//	header     Authorization and Cookie, and what stands after Bearer and Basic
//	signature  temp_url_sig, X-Amz-Signature, Signature
//	email      addresses of e-mail; only where it is named
//
// # Failing
//
// A condition in when that fails for an event redacts it; that is counted. A text that does not come to rest, or an object that is no
// JSON, is replaced as a whole. The text of a record that holds more than 100 different values is withheld, like that of unparsed ones.
package redact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
	"github.com/stacktrail/stacktrail/plugins/secrets"
)

// Config is the processor's configuration. Detect may be a word or a list of words.
type Config struct {
	Fields       []string    `yaml:"fields" doc:"Fields whose values are replaced, here and wherever else they stand in the event."`
	Detect       any         `yaml:"detect" doc:"Detectors to run: all, none, or a list of fernet, token, password, secret, header, signature, email. Without fields: all but email; with fields: none."`
	With         string      `yaml:"with" enum:"mask|hash|remove|network" doc:"What values become."`
	Key          conf.Secret `yaml:"key" doc:"Key of the hash, 16 bytes at least."`
	IPv4Prefix   int         `yaml:"ipv4_prefix" min:"0" max:"32" doc:"Bits of an IPv4 address that network keeps."`
	IPv6Prefix   int         `yaml:"ipv6_prefix" min:"0" max:"128" doc:"Bits of an IPv6 address that network keeps."`
	When         string      `yaml:"when" doc:"Expression that is true for the events to redact; empty: all. If it fails, the event is redacted."`
	UnparsedText string      `yaml:"unparsed_text" enum:"withhold|keep" doc:"Where fields are named: withhold the text of unparsed records, or keep it and run just the detectors."`
}

// withholdText is the default of Config.UnparsedText.
const withholdText = "withhold"

// minKey bytes make a key that cannot be guessed.
const minKey = 16

// Spec describes the processor to the agent.
var Spec = plugins.ProcessorSpec("redact", "Take secrets and personal data out of events.", Config{
	With: secrets.Mask, IPv4Prefix: 24, IPv6Prefix: 48, UnparsedText: withholdText,
}, New).Safe()

// Validate finds what the types cannot say, but for the names of extra fields and the condition, which New looks at.
func (c Config) Validate() error {
	var errs []error
	fault := func(key string, err error) { errs = append(errs, conf.KeyError{Key: key, Err: err}) }
	set, err := c.detectors()
	if err != nil {
		errs = append(errs, err)
	} else if set == 0 && len(c.Fields) == 0 {
		fault("detect", errors.New("nothing to do: name fields or detectors"))
	}
	switch key := c.Key.Reveal(); {
	case c.With == secrets.Hash && key == "":
		fault("key", errors.New("with: hash needs a key: a hash without one can be undone by trying"))
	case c.With == secrets.Hash && len(key) < minKey:
		fault("key", fmt.Errorf("a key has at least %d bytes", minKey))
	case c.With != secrets.Hash && key != "":
		fault("key", fmt.Errorf("with: %s uses no key", c.With))
	}
	if c.With == secrets.Network && len(c.Fields) == 0 {
		fault("with", errors.New("network needs fields that hold addresses"))
	}
	for i, name := range c.Fields {
		key := fmt.Sprintf("fields[%d]", i)
		f := schema.Lookup(name)
		switch {
		case strings.TrimSpace(name) == "":
			fault(key, errors.New("a field needs a name"))
		case f != nil && !f.Settable():
			fault(key, fmt.Errorf("%s cannot be changed", name))
		case slices.Contains(c.Fields[:i], name):
			fault(key, fmt.Errorf("%s is named twice", name))
		}
	}
	return errors.Join(errs...)
}

// detectors reads Detect.
func (c Config) detectors() (secrets.Detectors, error) {
	var words []any
	switch x := c.Detect.(type) {
	case nil:
		if len(c.Fields) == 0 {
			return secrets.All, nil
		}
		return 0, nil
	case string:
		switch x {
		case "all":
			return secrets.All, nil
		case "none":
			return 0, nil
		}
		return 0, conf.KeyError{Key: "detect", Err: unknownDetector(x, "all, none or a list of ")}
	case []string:
		for _, w := range x {
			words = append(words, w)
		}
	case []any:
		words = x
	default:
		return 0, conf.KeyError{Key: "detect", Err: unknownDetector("", "all, none or a list of ")}
	}
	var set secrets.Detectors
	var errs []error
	for i, x := range words {
		name, _ := x.(string)
		n := slices.Index(secrets.Names(), name)
		switch {
		case name == "all": // [all, email]
			set |= secrets.All
		case n >= 0:
			set |= 1 << n
		default:
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("detect[%d]", i), Err: unknownDetector(name, "all or one of ")})
		}
	}
	return set, errors.Join(errs...)
}

func unknownDetector(name, expected string) error {
	err := fmt.Errorf("expected %s%s", expected, strings.Join(secrets.Names(), ", "))
	if s := conf.Suggest(name, secrets.Names()); s != "" && name != "" {
		return fmt.Errorf("%w (did you mean %q?)", err, s)
	}
	return err
}

// New builds the processor. Its error joins a conf.KeyError for each name that nobody defines and a condition that does not compile.
func New(c Config, env plugins.Env) (plugins.Processor, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	set, err := c.detectors()
	if err != nil {
		return nil, err
	}
	p := &processor{count: env.Count, log: env.Log, secrets: secrets.New(secrets.Options{
		Fields: c.Fields, Detect: set, With: c.With, Key: []byte(c.Key.Reveal()), IPv4Prefix: c.IPv4Prefix, IPv6Prefix: c.IPv6Prefix,
		Withhold: c.UnparsedText == withholdText,
	})}
	var errs []error
	for i, name := range c.Fields {
		if _, known := env.Fields[name]; schema.Lookup(name) == nil && !known {
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("fields[%d]", i), Err: unknownField(name, env.Fields)})
		}
	}
	if c.When != "" {
		if p.when, err = eval.CompileCondition(c.When, env.Fields); err != nil {
			errs = append(errs, conf.KeyError{Key: "when", Err: err})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// unknownField is an error and never let pass: a name that is spelled wrongly would redact nothing.
func unknownField(name string, extra map[string]event.Kind) error {
	names := slices.Collect(maps.Keys(extra))
	for i := range schema.Fields() {
		names = append(names, schema.Fields()[i].Name)
	}
	if s := conf.Suggest(name, names); s != "" {
		return fmt.Errorf("unknown field %q (did you mean %q?)", name, s)
	}
	return fmt.Errorf("unknown field %q: neither the schema nor an input or processor before this one defines it", name)
}

type processor struct {
	secrets *secrets.Redactor
	when    *eval.Condition
	count   func(name, reason string, n int64)
	log     *slog.Logger
	said    bool // the first failure of when was logged

	failed int64 // conditions of the batch in hand
}

func (p *processor) Process(_ context.Context, b *event.Batch) error {
	var redacted, withheld, crowded int64
	p.failed = 0
	for i := range b.Events {
		e := &b.Events[i]
		if e.Dropped || !p.wanted(e) {
			continue
		}
		done := p.secrets.Event(e)
		redacted += int64(done & secrets.Changed)
		if done&secrets.Withheld != 0 {
			withheld++
		}
		if done&secrets.Crowded != 0 {
			crowded++
		}
	}
	p.add("redacted", "", redacted)
	p.add("withheld", "unparsed", withheld)
	p.add("withheld", "crowded", crowded)
	p.add("eval_errors", "when", p.failed)
	p.secrets.Trim()
	return nil
}

func (p *processor) add(name, reason string, n int64) {
	if n > 0 && p.count != nil {
		p.count(name, reason, n)
	}
}

// wanted evaluates the condition; one that fails says yes.
func (p *processor) wanted(e *event.Event) bool {
	if p.when == nil {
		return true
	}
	holds, err := p.when.Eval(e)
	if err == nil {
		return holds
	}
	p.failed++
	if !p.said && p.log != nil {
		p.said = true
		p.log.Warn("condition failed, event redacted", "when", p.when.String()) // the error may quote the event
	}
	return true
}
