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
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
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

// Values of Config.With and Config.UnparsedText.
const (
	withMask     = "mask"
	withHash     = "hash"
	withRemove   = "remove"
	withNetwork  = "network"
	withholdText = "withhold"
)

// minKey bytes make a key that cannot be guessed.
const minKey = 16

// Spec describes the processor to the agent.
var Spec = plugins.ProcessorSpec("redact", "Take secrets and personal data out of events.", Config{
	With: withMask, IPv4Prefix: 24, IPv6Prefix: 48, UnparsedText: withholdText,
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
	case c.With == withHash && key == "":
		fault("key", errors.New("with: hash needs a key: a hash without one can be undone by trying"))
	case c.With == withHash && len(key) < minKey:
		fault("key", fmt.Errorf("a key has at least %d bytes", minKey))
	case c.With != withHash && key != "":
		fault("key", fmt.Errorf("with: %s uses no key", c.With))
	}
	if c.With == withNetwork && len(c.Fields) == 0 {
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
func (c Config) detectors() (detectors, error) {
	var words []any
	switch x := c.Detect.(type) {
	case nil:
		if len(c.Fields) == 0 {
			return all, nil
		}
		return 0, nil
	case string:
		switch x {
		case "all":
			return all, nil
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
	var set detectors
	var errs []error
	for i, x := range words {
		name, _ := x.(string)
		n := slices.Index(detectorNames(), name)
		switch {
		case name == "all": // [all, email]
			set |= all
		case n >= 0:
			set |= 1 << n
		default:
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("detect[%d]", i), Err: unknownDetector(name, "all or one of ")})
		}
	}
	return set, errors.Join(errs...)
}

func unknownDetector(name, expected string) error {
	err := fmt.Errorf("expected %s%s", expected, strings.Join(detectorNames(), ", "))
	if s := conf.Suggest(name, detectorNames()); s != "" && name != "" {
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
	p := &processor{cfg: c, count: env.Count, log: env.Log, detect: newScanner(set), memos: map[string]memo{}}
	var errs []error
	for i, name := range c.Fields {
		x := target{name: name, field: schema.Lookup(name)}
		if _, known := env.Fields[name]; x.field == nil && !known {
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("fields[%d]", i), Err: unknownField(name, env.Fields)})
		}
		// As ECS has it. The far end keeps these as addresses.
		x.address = x.field != nil && strings.HasSuffix(x.field.ECS, ".ip")
		p.fields = append(p.fields, x)
	}
	if c.When != "" {
		if p.when, err = eval.CompileCondition(c.When, env.Fields); err != nil {
			errs = append(errs, conf.KeyError{Key: "when", Err: err})
		}
	}
	if c.With == withHash {
		p.mac = hmac.New(sha256.New, []byte(c.Key.Reveal()))
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

// target is a field that is named.
type target struct {
	name    string
	field   *schema.Field // nil for an extra field
	address bool
}

func (t *target) get(e *event.Event) event.Value {
	if t.field != nil {
		return t.field.Get(e)
	}
	v, _ := e.Get(t.name)
	return v
}

func (t *target) put(e *event.Event, v event.Value) {
	if t.field == nil {
		e.Set(t.name, v)
	} else if !t.field.Set(e, v) {
		t.field.Set(e, event.Value{})
	}
}

type processor struct {
	cfg    Config
	fields []target
	when   *eval.Condition
	detect *scanner
	mac    hash.Hash
	count  func(name, reason string, n int64)
	log    *slog.Logger
	said   bool // the first failure of when was logged

	// Of the event in hand.
	values    []value // what is replaced wherever it stands
	detecting bool    // a detector could find something
	looked    bool    // spots holds where values stand in the record
	spots     []span
	counts    []int // of values in the text in hand
	rewrite   rewriter

	known [fixedTexts]string // constants that were found to be clean
	memos map[string]memo    // by texts of named fields

	// Of the batch in hand.
	redacted, withheld, crowded, failed int64
}

// value is a text that must not stand anywhere, and what stands there instead.
type value struct {
	text string
	plus string // text with + for each space; "" if it has none
	with string
	// whole values are too short to be looked for within texts.
	whole bool
}

func (p *processor) Process(_ context.Context, b *event.Batch) error {
	p.redacted, p.withheld, p.crowded, p.failed = 0, 0, 0, 0
	for i := range b.Events {
		e := &b.Events[i]
		if e.Dropped || !p.wanted(e) {
			continue
		}
		p.event(e)
	}
	p.add("redacted", "", p.redacted)
	p.add("withheld", "unparsed", p.withheld)
	p.add("withheld", "crowded", p.crowded)
	p.add("eval_errors", "when", p.failed)
	clear(p.values)
	p.values = p.values[:0]
	p.trim()
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
