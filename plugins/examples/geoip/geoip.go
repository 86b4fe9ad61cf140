package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"runtime/debug"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the processor's configuration.
type Config struct {
	Databases []string `yaml:"databases" required:"true" doc:"MaxMind databases, by absolute paths; each event is looked up in all of them." example:"[/var/lib/GeoIP/GeoLite2-City.mmdb, /var/lib/GeoIP/GeoLite2-ASN.mmdb]"`
	Address   string   `yaml:"address" doc:"Field of the schema that holds the address."`
	Fields    Fields   `yaml:"fields" doc:"What the fields are called that are set; an empty name leaves one out."`
}

// Fields are the names of what is set.
type Fields struct {
	Country      string `yaml:"country" doc:"ISO code of the country, such as CH."`
	City         string `yaml:"city" doc:"English name of the city."`
	ASN          string `yaml:"asn" doc:"Number of the autonomous system, an integer."`
	Organization string `yaml:"organization" doc:"Name of the autonomous system's organization."`
}

// Spec describes the processor to the agent.
var Spec = plugins.ProcessorSpec("geoip", "Say where clients are and whose network they use, by MaxMind databases.", Config{
	Address: "client",
	Fields:  Fields{Country: "client_country", City: "client_city", ASN: "client_asn_int", Organization: "client_as_org"},
}, New).Safe()

// Validate finds what the types cannot say. Whether the databases are there is for Open: a configuration is checked on any machine.
func (c Config) Validate() error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, conf.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	for i, path := range c.Databases {
		if !filepath.IsAbs(path) {
			fault(fmt.Sprintf("databases[%d]", i), "%q is no absolute path", path)
		}
	}
	if f := schema.Lookup(c.Address); f == nil || f.Type != event.String {
		fault("address", "the schema has no field %q with text", c.Address)
	}
	used := map[string]bool{"": true}
	for _, x := range c.targets() {
		switch {
		case x.name == "":
		case !plainName.MatchString(x.name):
			fault("fields."+x.key, "%q is no name: lower-case letters, digits and underscores", x.name)
		case schema.Lookup(x.name) != nil:
			fault("fields."+x.key, "%q is a field of the schema", x.name)
		case used[x.name]:
			fault("fields."+x.key, "the name %q stands twice", x.name)
		}
		used[x.name] = true
	}
	if len(used) == 1 {
		errs = append(errs, conf.KeyError{Key: "fields", Err: errors.New("all of them are left out: there is nothing to do")})
	}
	return errors.Join(errs...)
}

// plainName is what a field may be called. Read only.
var plainName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// target is a field that is set.
type target struct {
	key, name string
	kind      event.Kind
}

func (c Config) targets() []target {
	f := c.Fields
	return []target{
		{"country", f.Country, event.String},
		{"city", f.City, event.String},
		{"asn", f.ASN, event.Int},
		{"organization", f.Organization, event.String},
	}
}

// DefinedFields lets expressions after this processor use its fields by their names.
func (c Config) DefinedFields() map[string]event.Kind {
	defined := map[string]event.Kind{}
	for _, x := range c.targets() {
		if x.name != "" {
			defined[x.name] = x.kind
		}
	}
	return defined
}

// New builds the processor. The databases are opened by Open.
func New(c Config, env plugins.Env) (plugins.Processor, error) {
	p := &processor{cfg: c, address: schema.Lookup(c.Address), known: map[netip.Addr]answer{}, count: env.Count}
	for _, path := range c.Databases {
		p.databases = append(p.databases, &database{path: path, log: env.Log, fail: env.Fail})
	}
	return p, nil
}

type processor struct {
	cfg       Config
	address   *schema.Field
	databases []*database
	known     map[netip.Addr]answer // of the databases as they are now
	count     func(name, reason string, n int64)
}

// mostKnown is how many answers are kept; beyond it all are forgotten. The clients of an API are few most of the time, and a look at
// what is known costs a sixth of a lookup (see the benchmark).
const mostKnown = 4096

// answer is what the databases say of an address.
type answer struct {
	record
	outcome string
}

// Open opens the databases. While one is missing the agent says so, and no event passes.
func (p *processor) Open(context.Context) error {
	for _, d := range p.databases {
		if err := d.open(); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	return nil
}

// Close lets go of the databases.
func (p *processor) Close() error {
	var errs []error
	for _, d := range p.databases {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// Process adds what the databases know. What they don't know is counted and left alone: no event is held up for want of a place.
func (p *processor) Process(_ context.Context, b *event.Batch) error {
	// A file that is cut while it is mapped makes a lookup fault: that is to be an error of the lookup, not the end of the plugin.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	for _, d := range p.databases {
		if d.refresh() {
			clear(p.known)
		}
	}
	counts := map[string]int64{}
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped {
			counts[p.locate(e)]++
		}
	}
	for _, why := range []string{noAddress, private, unknown, failed} {
		if counts[why] > 0 {
			p.count("unlocated", why, counts[why])
		}
	}
	if n := counts[located]; n > 0 {
		p.count("located", "", n)
	}
	return nil
}

// What became of an event.
const (
	located   = ""
	noAddress = "no_address" // the field is empty, or holds no address
	private   = "private"    // nobody knows where such an address is
	unknown   = "unknown"    // no database has it
	failed    = "failed"     // a database is damaged
)

// locate looks an event's address up and sets its fields.
func (p *processor) locate(e *event.Event) (outcome string) {
	addr, err := netip.ParseAddr(p.address.Get(e).Str())
	if err != nil {
		return noAddress
	}
	addr = addr.Unmap().WithZone("")
	if addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() {
		return private
	}
	a, ok := p.known[addr]
	if !ok {
		a = p.ask(addr)
	}
	f := p.cfg.Fields
	setText(e, f.Country, a.Country.ISOCode)
	setText(e, f.City, a.City.Names.English)
	setText(e, f.Organization, a.Organization)
	if f.ASN != "" && a.ASN != 0 {
		e.Set(f.ASN, event.IntValue(int64(a.ASN)))
	}
	return a.outcome
}

// ask looks an address up in the databases, and keeps the answer.
func (p *processor) ask(addr netip.Addr) answer {
	a := answer{outcome: unknown}
	for _, d := range p.databases {
		found, err := d.lookup(addr, &a.record)
		switch {
		case err != nil:
			return answer{outcome: failed} // not kept: the next one may be luckier
		case found:
			a.outcome = located
		}
	}
	if len(p.known) >= mostKnown {
		clear(p.known)
	}
	p.known[addr] = a
	return a
}

func setText(e *event.Event, name, text string) {
	if name != "" && text != "" {
		e.Set(name, event.StringValue(text))
	}
}
