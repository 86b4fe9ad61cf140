// Package secrets takes secrets and personal data out of events, wherever they stand: what detectors find, and the values of
// fields that are named. The processor redact is made of it, and the inputs mask tokens with it. Detectors look at every text,
// percent-encoded and escaped ones too; what they find, and the value of a field that is named, is replaced in all texts of the event.
package secrets

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Values of Options.With: what values become.
const (
	Mask    = "mask"
	Hash    = "hash"
	Remove  = "remove"
	Network = "network"
)

// Options say what a Redactor looks for and what becomes of it.
type Options struct {
	Fields []string  // fields whose values stand nowhere
	Detect Detectors // what else does not
	With   string    // one of the constants; empty is Mask
	Key    []byte    // of Hash

	// How many bits of an address Network keeps.
	IPv4Prefix, IPv6Prefix int

	// Withhold hides the text of unparsed records where fields are named, because nobody knows where in it the values stand.
	Withhold bool

	// InPlace replaces what detectors find only where they find it: in texts that say what it is. Else whoever writes into one field
	// what stands in another one, as in ?token=ADDRESS, has that replaced, too. Where only the name of an extra field or of an attribute
	// says it, the value is replaced in the record, too, and in the fields original and message: but not in what is another field there.
	InPlace bool
}

// Outcome says what was done with an event.
type Outcome uint8

// The outcomes; several can hold.
const (
	Changed  Outcome = 1 << iota // something was replaced
	Withheld                     // the text of an unparsed record was withheld
	Crowded                      // the texts were withheld, because they held too many values
)

// Redactor takes secrets out of events. It is used from one goroutine at a time.
type Redactor struct {
	opt    Options
	fields []target
	detect *scanner
	mac    hash.Hash

	// Of the event in hand.
	values    []value // what is replaced wherever it stands
	keyed     []value // with InPlace: what is replaced in the record and its copies
	parts     []span  // of the record that are fixed fields, if there are keyed values
	detecting bool    // a detector could find something
	looked    bool    // spots holds where values stand in the record
	spots     []span
	counts    []int // of values in the text in hand
	rewrite   rewriter

	known [fixedTexts]string // constants that were found to be clean
	memos map[string]memo    // by texts of named fields
}

// New builds a Redactor.
func New(o Options) *Redactor {
	p := &Redactor{opt: o, detect: newScanner(o.Detect), memos: map[string]memo{}}
	for _, name := range o.Fields {
		x := target{name: name, field: schema.Lookup(name)}
		// As ECS has it. The far end keeps these as addresses.
		x.address = x.field != nil && strings.HasSuffix(x.field.ECS, ".ip")
		p.fields = append(p.fields, x)
	}
	if o.With == Hash {
		p.mac = hmac.New(sha256.New, o.Key)
	}
	return p
}

// Sees reports whether detectors might find something in a text: if not, there is nothing.
func (p *Redactor) Sees(s string) bool { return p.detect.triggered(s) }

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

// value is a text that must not stand anywhere, and what stands there instead.
type value struct {
	text string
	plus string // text with + for each space; "" if it has none
	with string
	// whole values are too short to be looked for within texts.
	whole bool
}
