package conf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

type tls struct {
	Cert string `yaml:"cert" required:"true"`
	On   bool   `yaml:"on"`
}

type retry struct {
	Initial time.Duration `yaml:"initial" min:"1ms"`
	Max     time.Duration `yaml:"max" max:"1d"`
}

func (r retry) Validate() error {
	if r.Max < r.Initial {
		return errors.Join(KeyError{"max", errors.New("below initial")}, errors.New("cannot grow"))
	}
	return nil
}

type shared struct {
	ID string `yaml:"id"`
}

func (s shared) Validate() error {
	if s.ID == "bad" {
		return KeyError{"id", errors.New("is bad")}
	}
	return nil
}

type rule struct {
	When string   `yaml:"when" required:"true"`
	Keep int      `yaml:"keep"`
	Tags []string `yaml:"tags"`
}

func (r *rule) SetDefaults() { r.Keep = 7 }

type full struct {
	shared  `yaml:",inline"`
	URL     string            `yaml:"url"`
	Codec   string            `yaml:"codec" enum:"none|gzip"`
	Codecs  []string          `yaml:"codecs" enum:"none|gzip"`
	Paths   []string          `yaml:"paths"`
	Set     map[string]int    `yaml:"set"`
	Names   map[string]string `yaml:"names"`
	Wait    time.Duration     `yaml:"wait"`
	Shift   time.Duration     `yaml:"shift" neg:"true"`
	Bytes   Size              `yaml:"bytes" min:"1KiB" max:"1GiB"`
	Count   int               `yaml:"count" min:"1" max:"10"`
	Small   int8              `yaml:"small"`
	Port    uint16            `yaml:"port"`
	Ratio   float64           `yaml:"ratio" max:"1"`
	On      bool              `yaml:"on"`
	Key     Secret            `yaml:"key"`
	Addr    netip.Addr        `yaml:"addr"`
	Retry   retry             `yaml:"retry"`
	TLS     *tls              `yaml:"tls"`
	Rules   []rule            `yaml:"rules"`
	Rest    Node              `yaml:"rest"`
	Any     any               `yaml:"any"`
	Maybe   *bool             `yaml:"maybe"`
	Skipped int               `yaml:"-"`
}

func defaults() full {
	return full{
		URL: "http://192.0.2.1", Codec: "gzip", Paths: []string{"a", "b"}, Set: map[string]int{"x": 1}, Wait: 5 * time.Second,
		Bytes: 4 << 20, Count: 3, On: true, Key: NewSecret("s"), Retry: retry{Initial: time.Second, Max: time.Minute},
		Rules: []rule{{When: "w", Tags: []string{"t"}}}, Any: map[string]any{"k": []any{int64(1)}},
	}
}

func TestDecodeFindsTheLineAndColumnOfEveryFault(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		text string
		want []string
	}{
		{"codecc: gzip", []string{`1:1: codecc: unknown key "codecc" (did you mean "codec"?)`}},
		{"retry:\n  foo: 1", []string{`2:3: retry.foo: unknown key "foo"; known are initial, max`}},
		{"Skipped: 1", []string{`1:1: Skipped: unknown key "Skipped"`}},
		{"paths: x", []string{`1:8: paths: expected a list, found the text "x" (did you mean "[x]"?)`}},
		{"paths: 'a b'", []string{`1:8: paths: expected a list, found the text "a b" (did you mean "[\"a b\"]"?)`}},
		{"paths: {a: b}", []string{"1:8: paths: expected a list, found a section"}},
		{"paths: [a, [b], 5, true, ~]", []string{
			"1:12: paths[1]: expected a text, found a list",
			`1:17: paths[2]: expected a text; put it in quotes, found the number 5 (did you mean "\"5\""?)`,
			`1:20: paths[3]: expected a text; put it in quotes, found the value true (did you mean "\"true\""?)`,
			"1:26: paths[4]: empty value",
		}},
		{"set: {y: a, z: [1]}", []string{`1:10: set.y: expected a whole number, found the text "a"`, "1:16: set.z: expected a whole number, found a list"}},
		{"set: x", []string{`1:6: set: expected a section, found the text "x"`}},
		{"retry: [x]", []string{"1:8: retry: expected a section, found a list"}},
		{"url: {a: 1}", []string{"1:6: url: expected a text, found a section"}},
		{"url: " + long, nil},
		{"on: " + long, []string{`1:5: on: expected true or false, found the text "` + long[:60] + `…"`}},
		{"url:\n", []string{`1:1: url: empty value; remove the key to use the default "http://192.0.2.1"`}},
		{"wait: ~\n", []string{"1:7: wait: empty value; remove the key to use the default 5s"}},
		{"key:\n", []string{"1:1: key: empty value; remove the key to use the default"}},
		{"maybe:\n", []string{"1:1: maybe: empty value; remove the key to leave it unset"}},
		{"codec: gzp", []string{`1:8: codec: expected one of none, gzip, found the text "gzp" (did you mean "gzip"?)`}},
		{"codecs: [gzip, zstd]", []string{`1:16: codecs[1]: expected one of none, gzip, found the text "zstd"`}},
		{"wait: 5", []string{"1:7: wait: the number 5 has no unit; write 5s"}},
		{"wait: 0.5", []string{"1:7: wait: the number 0.5 has no unit; write 0.5s"}},
		{"wait: -5s", []string{"1:7: wait: a duration must not be negative here"}},
		{"shift: -5s", nil},
		{"wait: 5 sec", []string{`1:7: wait: a duration is a number with a unit, one of ns, us, ms, s, m, h, d, such as 500ms, 5s or 1h30m, found "5 sec" (did you mean "5s"?)`}},
		{"wait: 200000d", []string{`1:7: wait: a duration must be below 106751d, found "200000d"`}},
		{"wait: 9999999999999h", []string{`1:7: wait: a duration must be below 106751d, found "9999999999999h"`}},
		{"wait: [5s]", []string{"1:7: wait: expected a duration such as 5s, found a list"}},
		{"bytes: 4mib", []string{`1:8: bytes: a size is a whole number with a unit, one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, such as 4MiB, found "4mib" (did you mean "4MiB"?)`}},
		{"bytes: 1 parsec", []string{`1:8: bytes: a size is a whole number with a unit, one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, such as 4MiB, found "1 parsec"`}},
		{"bytes: 9000000TiB", []string{`1:8: bytes: a size must be below 8388608TiB, found "9000000TiB"`}},
		{"bytes: -1", []string{"1:8: bytes: a size must not be negative, found the number -1"}},
		{"bytes: 1023", []string{"1:8: bytes: must be at least 1KiB"}},
		{"bytes: 2GiB", []string{"1:8: bytes: must be at most 1GiB"}},
		{"retry: {initial: 1us, max: 2d}", []string{"1:18: retry.initial: must be at least 1ms", "1:28: retry.max: must be at most 1d"}},
		{"count: 0", []string{"1:8: count: must be at least 1"}},
		{"count: 11", []string{"1:8: count: must be at most 10"}},
		{"count: 1.5", []string{"1:8: count: expected a whole number, found the number 1.5"}},
		{"count: '5'", []string{`1:8: count: expected a whole number, found the text "5" (did you mean "5"?)`}},
		{"count: 010", []string{`1:8: count: expected a whole number, found the number 010 (did you mean "10"?)`}},
		{"count: 99999999999999999999", []string{"1:8: count: must be between -9223372036854775808 and 9223372036854775807"}},
		{"small: 128", []string{"1:8: small: must be between -128 and 127"}},
		{"port: 65536", []string{"1:7: port: must be between 0 and 65535"}},
		{"port: -1", []string{"1:7: port: must be between 0 and 65535"}},
		{"ratio: 1.5", []string{"1:8: ratio: must be at most 1"}},
		{"ratio: .nan", []string{"1:8: ratio: expected a number, found the number .nan"}},
		{"ratio: x", []string{`1:8: ratio: expected a number, found the text "x"`}},
		{"on: yes", []string{`1:5: on: expected true or false, found the text "yes" (did you mean "true"?)`}},
		{"on: True", []string{`1:5: on: expected true or false, found the value True (did you mean "true"?)`}},
		{"on: 'off'", []string{`1:5: on: expected true or false, found the text "off" (did you mean "false"?)`}},
		{"on: 1", []string{`1:5: on: expected true or false, found the number 1 (did you mean "true"?)`}},
		{"addr: 192.0.2.300", []string{`1:7: addr: ParseAddr("192.0.2.300"): IPv4 field has value >255`}},
		{"tls: {}", []string{`1:6: tls.cert: required key "cert" is missing`}},
		{"tls:\n  on: true", []string{`2:3: tls.cert: required key "cert" is missing`}},
		{"tls: {cert: ''}", []string{"1:13: tls.cert: must not be empty"}},
		{"tls: {cert: ~}", []string{"1:13: tls.cert: empty value; this key is required"}},
		{"rules: [{when: x}, {keep: 1}, y]", []string{
			`1:20: rules[1].when: required key "when" is missing`,
			`1:31: rules[2]: expected a section, found the text "y"`,
		}},
		{"retry:\n  max: 10ms", []string{"1:1: retry: cannot grow", "2:3: retry.max: below initial"}},
		{"retry:\n  max: 10", []string{"2:8: retry.max: the number 10 has no unit; write 10s"}},
		{"url: x\nid: bad", []string{"2:1: id: is bad"}},
		{"any: {a: True, b: 010}", []string{
			`1:10: any.a: expected true or false, found the value True (did you mean "true"?)`,
			"1:19: any.b: expected a number that fits into 64 bits, written in decimal, 0x or 0o, found the number 010",
		}},
		{"- a", []string{"1:1: expected a section, found a list"}},
		{"x", []string{`1:1: expected a section, found the text "x"`}},
		{"on: 5\nfoo: 1\nwait: x\n", []string{
			"1:5: on: expected true or false, found the number 5", `2:1: foo: unknown key "foo"`,
			`3:7: wait: a duration is a number with a unit, one of ns, us, ms, s, m, h, d, such as 500ms, 5s or 1h30m, found "x"`,
		}},
	} {
		_, faults := Decode(parse(t, c.text), defaults())
		for i := range c.want {
			c.want[i] = "a.yaml:" + c.want[i]
		}
		if got, want := strings.Join(texts(faults), "\n"), strings.Join(c.want, "\n"); got != want {
			t.Errorf("%q:\n%s\nwant:\n%s", c.text, got, want)
		}
	}
}

func TestDecodeReadsEveryType(t *testing.T) {
	t.Parallel()
	n := parse(t, `id: x
url: "5"
codec: none
codecs: [gzip, gzip]
paths: [c]
set: {y: 0x10, z: -0o17}
names: {"a.b": c}
wait: 1d12h
shift: -1.5h
bytes: 64KiB
count: +5
small: -128
port: 65535
ratio: 1
on: false
key: text
addr: 192.0.2.1
retry: {max: 2m}
tls: {cert: c}
rules:
  - {when: a}
  - {when: b, keep: 0}
rest: {x: [1]}
any: {a: [1, 2.5, true, ~, x, 2024-01-01], b: 18446744073709551615}
maybe: false
`)
	got, faults := Decode(n, defaults())
	wantFaults(t, faults)
	rest, _ := n.Get("rest")
	if dump(got.Rest) != "{x:[1]}" || got.Rest.Path() != "rest" || got.Rest.Line() != rest.Line() {
		t.Errorf("rest is %s at %s", dump(got.Rest), got.Rest.Path())
	}
	got.Rest = Node{}
	no := false
	want := full{
		shared: shared{"x"}, URL: "5", Codec: "none", Codecs: []string{"gzip", "gzip"}, Paths: []string{"c"},
		Set: map[string]int{"y": 16, "z": -15}, Names: map[string]string{"a.b": "c"}, Wait: 36 * time.Hour, Shift: -90 * time.Minute,
		Bytes: 64 << 10, Count: 5, Small: -128, Port: 65535, Ratio: 1, Key: NewSecret("text"), Addr: netip.MustParseAddr("192.0.2.1"),
		Retry: retry{time.Second, 2 * time.Minute}, TLS: &tls{Cert: "c"}, Rules: []rule{{When: "a", Keep: 7}, {When: "b"}},
		Any: map[string]any{
			"a": []any{int64(1), 2.5, true, nil, "x", "2024-01-01"}, "b": uint64(math.MaxUint64),
		},
		Maybe: &no,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestDecodeNeverChangesItsDefaults(t *testing.T) {
	t.Parallel()
	text := "paths: [z]\nset: {x: 9, q: 2}\nrules: [{when: n, tags: [u]}]\nretry: {max: 3m}\nany: {k: [2]}\ntls: {cert: c, on: true}\n"
	d := defaults()
	d.TLS = &tls{Cert: "c"}
	want := defaults()
	want.TLS = &tls{Cert: "c"}
	first, faults := Decode(parse(t, text), d)
	wantFaults(t, faults)
	second, _ := DecodeAny(parse(t, text), d)
	third := d
	wantFaults(t, DecodeInto(parse(t, text), &third))
	if !reflect.DeepEqual(d, want) {
		t.Errorf("defaults became\n%+v", d)
	}
	if !reflect.DeepEqual(first, second) || !reflect.DeepEqual(first, third) || !first.TLS.On || first.TLS.Cert != "c" || len(first.Set) != 2 || first.Set["x"] != 9 {
		t.Errorf("%+v\n%+v\n%+v", first, second, third)
	}
	none, _ := Decode(parse(t, ""), d)
	none.Paths[0], none.Set["x"], none.Rules[0].Tags[0], none.TLS.Cert = "!", 100, "!", "!"
	none.Any.(map[string]any)["k"].([]any)[0] = "!"
	if !reflect.DeepEqual(d, want) {
		t.Errorf("the result shares memory with its defaults:\n%+v", d)
	}
}

func TestExplicitZeroAndEmptyBeatDefaults(t *testing.T) {
	t.Parallel()
	got, faults := Decode(parse(t, "wait: 0s\nurl: ''\non: false\npaths: []\nset: {}\nrules:\nkey: ''\nany: ~\n"), defaults())
	wantFaults(t, faults)
	if got.Wait != 0 || got.URL != "" || got.On || len(got.Paths) != 0 || len(got.Set) != 0 || got.Rules != nil || got.Key.Reveal() != "" || got.Any != nil {
		t.Errorf("%+v", got)
	}
	d := defaults()
	d.TLS = &tls{Cert: "c"}
	got, faults = Decode(parse(t, "paths: ~\nset:\ntls:\nretry: ~\n"), d)
	wantFaults(t, faults)
	if got.Paths != nil || got.Set != nil || got.TLS != nil || got.Retry != d.Retry {
		t.Errorf("null left %+v", got)
	}
}

func TestTheZeroNodeAndNullAreAnEmptySection(t *testing.T) {
	t.Parallel()
	whole := parse(t, "x: {tail: }\n")
	for _, n := range []Node{{}, whole.find("x.tail")} {
		got, faults := Decode(n, defaults())
		wantFaults(t, faults)
		if !reflect.DeepEqual(got, defaults()) {
			t.Errorf("%+v", got)
		}
	}
	_, faults := Decode(whole.find("x.tail"), tls{})
	wantFaults(t, faults, `a.yaml:1:5: x.tail.cert: required key "cert" is missing`)
	_, faults = Decode(Node{}, tls{})
	wantFaults(t, faults, `cert: required key "cert" is missing`)
}

func TestRequiredKeysOfASectionThatIsNotWrittenAreMissed(t *testing.T) {
	t.Parallel()
	type config struct {
		TLS   tls      `yaml:"tls"`
		Off   *tls     `yaml:"off"`
		Paths []string `yaml:"paths" required:"true"`
		Key   Secret   `yaml:"key" required:"true"`
	}
	_, faults := Decode(parse(t, "o:\n  p: {}\n").find("o.p"), config{})
	wantFaults(
		t, faults,
		`a.yaml:2:6: o.p.tls.cert: required key "cert" is missing`,
		`a.yaml:2:6: o.p.paths: required key "paths" is missing`, `a.yaml:2:6: o.p.key: required key "key" is missing`,
	)
	_, faults = Decode(parse(t, "tls: {cert: c}\npaths: []\nkey: ''\n"), config{})
	wantFaults(t, faults, "a.yaml:2:8: paths: must not be empty", "a.yaml:3:6: key: must not be empty")
}

func TestAnInlineMapTakesUnknownKeys(t *testing.T) {
	t.Parallel()
	type entry struct {
		ID      string          `yaml:"id"`
		Plugins map[string]Node `yaml:",inline"`
	}
	got, faults := Decode(parse(t, "- {id: a, tail: {paths: [x]}, idd: 5}\n"), []entry(nil))
	wantFaults(t, faults)
	tail := got[0].Plugins["tail"]
	if got[0].ID != "a" || len(got[0].Plugins) != 2 || tail.Path() != "[0].tail" || tail.KeyFault("x").String() != "a.yaml:1:11: [0].tail: x" {
		t.Errorf("%+v, %s", got, tail.KeyFault("x"))
	}
}

type placed struct {
	Key Secret `yaml:"key"`
	URL string `yaml:"url"`
}

func TestErrorsArePlacedAtTheirKeys(t *testing.T) {
	t.Parallel()
	n := parse(t, "out:\n  rotate: {size: 1}\n  paths: [a, b]\n  key: hunter2\n  url: x\n").find("out")
	secret := placed{Key: NewSecret("hunter2&"), URL: "x"}
	_, urlErr := url.Parse("http://u:" + url.QueryEscape("hunter2&") + "@[x")
	err := errors.Join(
		KeyError{"rotate.size", errors.New("one")},
		KeyError{"rotate.keep", errors.New("two")},
		KeyError{"paths[1]", errors.New("three")},
		fmt.Errorf("wrapped: %w", errors.Join(KeyError{"url", urlErr})),
		KeyError{"rotate", errors.Join(KeyError{"size", errors.New("four\nlines")}, nil)},
		KeyError{"none", nil},
		errors.New("key is hunter2&, quoted "+fmt.Sprintf("%q", "hunter2&")),
		&KeyError{"nowhere", errors.New("five")},
	)
	faults := n.Place(err, secret)
	faults.Sort()
	wantFaults(
		t, faults,
		`a.yaml:1:1: out: key is ***, quoted "***"`,
		"a.yaml:1:1: out.nowhere: five",
		"a.yaml:2:3: out.rotate.keep: two",
		"a.yaml:2:12: out.rotate.size: one",
		"a.yaml:2:12: out.rotate.size: four; lines",
		"a.yaml:3:14: out.paths[1]: three",
		`a.yaml:5:3: out.url: wrapped: url: parse "http://u:***@[x": missing ']' in host`,
	)
	if n.Place(nil, secret) != nil || Faults(nil).Err() != nil || faults.Err() == nil {
		t.Error("no error is an error")
	}
}

func TestSizesAreReadAndPrinted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0": "0B", "500B": "500B", "1024": "1KiB", "4MiB": "4MiB", "1536KiB": "1536KiB", "1GiB": "1GiB", "2TiB": "2TiB",
		"10MB": "10000000B", "1KB": "1000B", "1kB": "1000B", "8388607TiB": "8388607TiB", "9223372036854775807": "9223372036854775807B",
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%s = %s (%v), want %s", text, s, err, want)
		}
		var again Size
		b, _ := s.MarshalText()
		if err := again.UnmarshalText(b); err != nil || again != s {
			t.Errorf("%s reads back as %s: %v", s, again, err)
		}
	}
	for text, want := range map[string]string{
		"": "", "-1B": "", "x": "", "4M": "4MiB", "4 MiB": "4MiB", "4mb": "4MB", "1.5GiB": "1536MiB", "1.3B": "", "4m": "4MiB", "4Mi": "4MiB", "9223372036854775808": "", "8388608TiB": "", "4MiBs": "",
	} {
		_, bad := parseSize(text)
		if bad == nil || bad.suggestion != want {
			t.Errorf("%q: %v, want the suggestion %q", text, bad, want)
		}
	}
}

func TestDurationsAreReadAndPrinted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0s": "0s", "5s": "5s", "60s": "1m", "1h0m": "1h", "90m": "1h30m", "1d": "1d", "36h": "36h", "1.5d": "36h", "1d1ms": "24h0m0.001s", "-2d": "-2d",
		"1us": "1µs", "1µs": "1µs", "10m": "10m", "20h": "20h", "106751d": "106751d", "100s": "1m40s",
	} {
		d, bad := parseDuration(text)
		if bad != nil || formatDuration(d) != want {
			t.Errorf("%s = %s (%v), want %s", text, formatDuration(d), bad, want)
		}
		if again, bad := parseDuration(formatDuration(d)); bad != nil || again != d {
			t.Errorf("%s reads back as %s: %v", d, again, bad)
		}
	}
	for text, want := range map[string]string{
		"": "", "s": "", "5": "", "5 s": "5s", "2min": "2m", "3 Hours": "3h", "2w": "14d", "1d2": "", "106752d": "", "--5s": "", "-+5s": "",
		"1.2.3s": "1.2.3s", "5S": "5s", "1month": "", "250msec": "250ms", "..s": "",
	} {
		_, bad := parseDuration(text)
		if bad == nil || bad.suggestion != want && text != "1.2.3s" && text != "..s" {
			t.Errorf("%q: %v, want the suggestion %q", text, bad, want)
		}
	}
}
