package conf

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type tree struct {
	Name string `yaml:"name"`
	Subs []tree `yaml:"subs"`
}

type described struct {
	shared `yaml:",inline"`
	URL    string         `yaml:"url" required:"true" doc:"Where to send."`
	Codec  string         `yaml:"codec" enum:"none|gzip"`
	Paths  []string       `yaml:"paths"`
	Wait   time.Duration  `yaml:"wait" min:"1ms"`
	Bytes  Size           `yaml:"bytes" max:"1GiB"`
	Set    map[string]int `yaml:"set"`
	Key    Secret         `yaml:"key"`
	Addr   netip.Addr     `yaml:"addr"`
	TLS    *tls           `yaml:"tls"`
	Rules  []rule         `yaml:"rules"`
	Tree   tree           `yaml:"tree"`
	Raw    Node           `yaml:"raw"`
	Any    any            `yaml:"any"`
	By     map[string]tls `yaml:"by"`
	Maybe  *bool          `yaml:"maybe"`
}

func TestDescribeNamesEveryKey(t *testing.T) {
	t.Parallel()
	docs := Describe(reflect.TypeFor[described](), described{
		URL: "x", Codec: "gzip", Paths: []string{"a", "b: c", "5"}, Wait: time.Minute, Bytes: 4 << 20, Set: map[string]int{"y": 2, "x": 1}, Key: NewSecret("hunter2"),
	})
	var b strings.Builder
	for _, d := range docs {
		fmt.Fprintf(&b, "%s|%s|%s", d.Path, d.Type, d.Default)
		for name, on := range map[string]bool{"required": d.Required, "optional": d.Optional, "secret": d.Secret} {
			if on {
				b.WriteString("|" + name)
			}
		}
		for _, s := range []string{strings.Join(d.Enum, ","), d.Min, d.Max, d.Doc} {
			if s != "" {
				b.WriteString("|" + s)
			}
		}
		b.WriteByte('\n')
		if !strings.HasSuffix(d.Path, d.Name) {
			t.Errorf("%s ends in another name than %s", d.Path, d.Name)
		}
	}
	want := `id|string|""
url|string||required|Where to send.
codec|string|gzip|none,gzip
paths|list of string|[a, "b: c", "5"]
wait|duration|1m|1ms
bytes|size|4MiB|1GiB
set|map of integer|{x: 1, "y": 2}
key|secret|***|secret
addr|string|""
tls|section||optional
tls.cert|string||required
tls.on|bool|false
rules|list of section|[]
rules[].when|string||required
rules[].keep|integer|7
rules[].tags|list of string|[]
tree|section|
tree.name|string|""
tree.subs|list of section|[]
raw|section|
any|any|
by|map of section|{}
by.*.cert|string||required
by.*.on|bool|false
maybe|bool|
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if len(Describe(reflect.TypeFor[described](), nil)) != len(docs) {
		t.Error("without defaults other keys are described")
	}
}

// What Describe calls a default is read by Decode as just this default.
func TestDefaultsReadBackAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	d := defaults()
	d.Names = map[string]string{"y": "no", "a: b": "", "n": "<x & 'y'>\n\"", "ü": "~", "<<": "- x", "x": "a#b", "z": "1_000"}
	d.ID, d.Key = "true", Secret{}
	var b strings.Builder
	for _, doc := range Describe(reflect.TypeFor[full](), d) {
		if doc.Default != "" && !strings.ContainsAny(doc.Path, ".[") && doc.Name != "addr" && doc.Name != "rules" && doc.Name != "any" {
			fmt.Fprintf(&b, "%s: %s\n", doc.Path, doc.Default)
		}
	}
	got, faults := Decode(parse(t, b.String()), d)
	wantFaults(t, faults)
	got.Codecs, got.Key = d.Codecs, d.Key // an empty list where there was none, another empty secret
	if !reflect.DeepEqual(got, d) {
		t.Errorf("%s\nread back as\n%+v\nwant\n%+v", b.String(), got, d)
	}
}
