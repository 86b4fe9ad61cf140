package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Processor(t, Spec, `databases: [$DIR/city.mmdb, $DIR/asn.mmdb]`, plugintest.Prepare(makeBoth))
}

// makeBoth makes a database of places and one of networks.
func makeBoth(dir string) error {
	return errors.Join(makeCity(filepath.Join(dir, "city.mmdb"), "Bern"), makeDatabase(filepath.Join(dir, "asn.mmdb"), "ASN", map[string]mmdbtype.Map{
		"192.0.2.0/24":    {"autonomous_system_number": mmdbtype.Uint32(64496), "autonomous_system_organization": mmdbtype.String("Example Net")},
		"203.0.113.0/24":  {"autonomous_system_number": mmdbtype.Uint32(4200000000)},
		"2001:db8:1::/48": {"autonomous_system_number": mmdbtype.Uint32(64497)},
	}))
}

func makeCity(path, city string) error {
	place := mmdbtype.Map{
		"country": mmdbtype.Map{"iso_code": mmdbtype.String("CH"), "names": mmdbtype.Map{"en": mmdbtype.String("Switzerland")}},
		"city":    mmdbtype.Map{"names": mmdbtype.Map{"de": mmdbtype.String("-"), "en": mmdbtype.String(city)}},
	}
	return makeDatabase(path, "City", map[string]mmdbtype.Map{
		"192.0.2.0/24":     place,
		"198.51.100.0/24":  {"country": mmdbtype.Map{"iso_code": mmdbtype.String("SE")}},
		"2001:db8:1::/48":  place,
		"2001:db8:2::1/64": {},
	})
}

// makeDatabase puts a database at a path as its provider does: written beside it, and renamed.
func makeDatabase(path, kind string, networks map[string]mmdbtype.Map) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-" + kind, IncludeReservedNetworks: true})
	if err != nil {
		return err
	}
	for cidr, record := range networks {
		if err := tree.Insert(network(cidr), record); err != nil {
			return fmt.Errorf("%s: %w", cidr, err)
		}
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = tree.WriteTo(f)
	return errors.Join(err, f.Close(), os.Rename(path+".new", path))
}

// plugin is an instance with its directory and what it says.
type plugin struct {
	plugins.Processor
	t       *testing.T
	dir     string
	counted map[string]int64
	failing map[string]error
}

func open(t *testing.T, cfg string) *plugin {
	t.Helper()
	p := &plugin{t: t, counted: map[string]int64{}, failing: map[string]error{}}
	in := plugintest.Build(t, Spec, cfg, plugintest.Prepare(makeBoth), plugintest.Env(func(e *plugins.Env) {
		e.Count = func(name, reason string, n int64) { p.counted[strings.TrimSpace(name+" "+reason)] += n }
		e.Fail = func(key string, err error) {
			if p.failing[key] = err; err == nil {
				delete(p.failing, key)
			}
		}
	}))
	p.Processor, p.dir = in.Plugin.(plugins.Processor), in.Dir
	if err := p.Processor.(plugins.Opener).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Processor.(plugins.Closer).Close() })
	return p
}

// of looks an address up and says what the event has then.
func (p *plugin) of(client string) string {
	p.t.Helper()
	b := event.NewBatch("s")
	b.Append().Client = client
	if err := p.Process(p.t.Context(), b); err != nil {
		p.t.Fatalf("%s: %v", client, err)
	}
	var words []string
	for _, f := range b.Events[0].Extra {
		words = append(words, f.Key+"="+f.Value.Text())
	}
	return strings.Join(words, " ")
}

const both = `databases: [$DIR/city.mmdb, $DIR/asn.mmdb]`

func TestPlaceAndNetworkOfAClient(t *testing.T) {
	p := open(t, both)
	for client, want := range map[string]string{
		"192.0.2.7":        "client_country=CH client_city=Bern client_as_org=Example Net client_asn_int=64496",
		"::ffff:192.0.2.7": "client_country=CH client_city=Bern client_as_org=Example Net client_asn_int=64496",
		"198.51.100.1":     "client_country=SE",
		"203.0.113.255":    "client_asn_int=4200000000",
		"2001:db8:1::5":    "client_country=CH client_city=Bern client_asn_int=64497",
		"2001:db8:3::5":    "",
	} {
		if got := p.of(client); got != want {
			t.Errorf("%s: %q, want %q", client, got, want)
		}
	}
	if got := fmt.Sprint(p.counted); got != "map[located:5 unlocated unknown:1]" {
		t.Errorf("counted %s", got)
	}
}

func TestWhatHasNoPlaceIsLeftAloneAndCounted(t *testing.T) {
	p := open(t, both)
	for _, client := range []string{"", "-", "unix:", "host.example.org", "192.0.2.300", "10.0.0.1", "fd00::1", "127.0.0.1", "fe80::1%eth0", "0.0.0.0"} {
		if got := p.of(client); got != "" {
			t.Errorf("%q: %s", client, got)
		}
	}
	if got := fmt.Sprint(p.counted); got != "map[unlocated no_address:5 unlocated private:5]" {
		t.Errorf("counted %s", got)
	}
}

func TestFieldsCanBeNamedAndLeftOut(t *testing.T) {
	p := open(t, `{databases: [$DIR/city.mmdb, $DIR/asn.mmdb], address: host, fields: {country: cc, city: "", asn: "", organization: ""}}`)
	b := event.NewBatch("s")
	e := b.Append()
	e.Host, e.Client = "192.0.2.1", "198.51.100.1"
	if err := p.Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if v, _ := e.Get("cc"); v.Str() != "CH" || len(e.Extra) != 1 {
		t.Errorf("got %v", e.Extra)
	}
	if got := fmt.Sprint(Config{Fields: Fields{Country: "cc", ASN: "as_int"}}.DefinedFields()); got != "map[as_int:int cc:string]" {
		t.Errorf("defines %s", got)
	}
}

func TestAReplacedDatabaseIsReadAtOnce(t *testing.T) {
	p := open(t, both)
	path := filepath.Join(p.dir, "city.mmdb")
	for _, city := range []string{"Thun", "Visp", "Chur"} {
		if err := makeCity(path, city); err != nil {
			t.Fatal(err)
		}
		if got := p.of("192.0.2.7"); !strings.Contains(got, "client_city="+city) {
			t.Errorf("got %q, want %s", got, city)
		}
	}
}

func TestADatabaseThatGoesOrIsDamagedServesOn(t *testing.T) {
	p := open(t, both)
	path := filepath.Join(p.dir, "city.mmdb")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	key := "database " + path
	if got := p.of("192.0.2.7"); !strings.Contains(got, "Bern") || p.failing[key] == nil {
		t.Errorf("without the file: %q, failing: %v", got, p.failing)
	}
	if err := os.WriteFile(path, []byte("<html>Too many requests"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.of("192.0.2.7"); !strings.Contains(got, "Bern") || p.failing[key] == nil || !strings.Contains(p.failing[key].Error(), path) {
		t.Errorf("with another file: %q, failing: %v", got, p.failing)
	}
	if err := makeCity(path, "Biel"); err != nil {
		t.Fatal(err)
	}
	if got := p.of("192.0.2.7"); !strings.Contains(got, "Biel") || len(p.failing) != 0 {
		t.Errorf("with a good file: %q, failing: %v", got, p.failing)
	}
}

// Nobody should, but somebody will copy a file over it: the mapping loses its pages.
func TestAFileThatIsCutWhileItIsMappedEndsNothing(t *testing.T) {
	p := open(t, both)
	path := filepath.Join(p.dir, "city.mmdb")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if got := p.of("192.0.2.7"); strings.Contains(got, "Bern") {
		t.Errorf("got %q of an empty file", got)
	}
	if p.counted["unlocated failed"] != 1 || p.failing["database "+path] == nil {
		t.Errorf("counted %v, failing %v", p.counted, p.failing)
	}
	if err := makeCity(path, "Biel"); err != nil {
		t.Fatal(err)
	}
	if got := p.of("192.0.2.7"); !strings.Contains(got, "Biel") || len(p.failing) != 0 {
		t.Errorf("with a good file: %q, failing: %v", got, p.failing)
	}
}

func TestAMissingDatabaseStopsTheStart(t *testing.T) {
	for name, want := range map[string]string{"none.mmdb": "none.mmdb: no such file or directory", "text": "/text: ", ".": "opening database "} {
		in := plugintest.Build(t, Spec, "databases: [$DIR/city.mmdb, $DIR/"+name+"]", plugintest.Prepare(func(dir string) error {
			return errors.Join(makeBoth(dir), os.WriteFile(filepath.Join(dir, "text"), []byte("no database"), 0o600))
		}))
		err := in.Plugin.(plugins.Opener).Open(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "opening database ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		t.Log(err)
	}
}

func TestAFaultIsSaidAtItsKey(t *testing.T) {
	for yaml, want := range map[string]string{
		`{}`:                                            "databases",
		`databases: [GeoLite2-City.mmdb]`:               `databases[0]: "GeoLite2-City.mmdb" is no absolute path`,
		`{databases: [/x], address: adress}`:            `address: the schema has no field "adress"`,
		`{databases: [/x], address: level}`:             `address: the schema has no field "level" with text`,
		`{databases: [/x], fields: {country: Country}}`: "fields.country: ",
		`{databases: [/x], fields: {city: path}}`:       `fields.city: "path" is a field of the schema`,
		`{databases: [/x], fields: {city: a, asn: a}}`:  "fields.asn: the name \"a\" stands twice",
		`{databases: [/x], fields: {country: "", city: "", asn: "", organization: ""}}`: "there is nothing to do",
		`{databases: [/x], fields: {contry: a}}`:                                        `did you mean "country"`,
	} {
		n, faults := conf.Parse("test.yaml", []byte(yaml))
		if faults != nil {
			t.Fatal(faults)
		}
		_, faults = conf.Decode(n, Spec.Defaults.(Config))
		if got := faults.Error(); !strings.Contains(got, want) || len(faults) != 1 {
			t.Errorf("%s: %q, want %q", yaml, got, want)
		}
	}
}

// Answers that are kept have a bound, and end with the database that they are from.
func TestWhatIsKnownIsBounded(t *testing.T) {
	p := open(t, both)
	b := event.NewBatch("s")
	for i := range 3 * mostKnown {
		b.Append().Client = fmt.Sprintf("2001:db8:1::%x", i+1)
	}
	if err := p.Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Processor.(*processor).known); n > mostKnown || p.counted["located"] != 3*mostKnown {
		t.Errorf("%d answers are kept, counted %v", n, p.counted)
	}
}

// 65,536 networks: what costs an address that was not asked for lately, and one that was?
func BenchmarkProcess(b *testing.B) {
	dir := b.TempDir()
	networks := map[string]mmdbtype.Map{}
	for i := range 1 << 16 {
		networks[fmt.Sprintf("2001:db8:%x::/48", i)] = mmdbtype.Map{
			"country": mmdbtype.Map{"iso_code": mmdbtype.String("CH")},
			"city":    mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String(fmt.Sprint("City ", i))}},
		}
	}
	if err := errors.Join(makeBoth(dir), makeDatabase(dir+"/city.mmdb", "City", networks)); err != nil {
		b.Fatal(err)
	}
	for _, clients := range []int{50, 1000, 60000} {
		b.Run(fmt.Sprint(clients, " clients"), func(b *testing.B) {
			in := plugintest.Build(b, Spec, fmt.Sprintf("databases: [%s/city.mmdb, %s/asn.mmdb]", dir, dir))
			p := in.Plugin.(plugins.Processor)
			if err := p.(plugins.Opener).Open(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer func() { _ = p.(plugins.Closer).Close() }()
			var batches []*event.Batch
			for i := range 60 {
				x := event.NewBatch("s")
				for k := range 1000 {
					x.Append().Client = fmt.Sprintf("2001:db8:%x::1", (i*1000+k)%clients)
				}
				batches = append(batches, x)
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Process(b.Context(), batches[n%len(batches)]); err != nil {
					b.Fatal(err)
				}
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
		})
	}
}

func network(cidr string) *net.IPNet {
	p := netip.MustParsePrefix(cidr)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
