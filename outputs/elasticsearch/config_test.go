package elasticsearch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// read decodes a configuration as the agent does.
func read(t *testing.T, text string) (Config, error) {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(text))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	v, faults := conf.DecodeAny(n, Spec.Defaults)
	c, _ := v.(Config)
	return c, faults.Err()
}

func TestGoodConfigurations(t *testing.T) {
	t.Parallel()
	c, err := read(t, `
urls: ["https://es.example.org:9200", "http://192.0.2.1:9200/es"]
api_key: id:key
data_stream: {dataset: openstack.api}
headers: {X-Found-Cluster: a}
compress: none
`)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.DataStream.Name(); got != "logs-openstack.api-default" {
		t.Errorf("data stream %q", got)
	}
	if c.Timeout != defaultTimeout || c.Flavor != flavorAuto {
		t.Errorf("%+v", c)
	}
	if got := apiKeyHeader(c.APIKey.Reveal()); got != "ApiKey aWQ6a2V5" {
		t.Errorf("%q", got)
	}
	if _, err := read(t, "urls: [\"http://[2001:db8::1]:9200\"]\nindex: openstack-{{service}}-%Y.%m.%d\nusername: u\npassword: p"); err != nil {
		t.Error(err)
	}
}

func TestFaultsOfTheConfigurationNameTheirKey(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const url, stream = "urls: [\"http://192.0.2.1:9200\"]\n", "data_stream: {dataset: a}\n"
	for text, want := range map[string]string{
		stream:                "urls",
		"urls: []\n" + stream: "urls: must not be empty",
		"urls: [\"es.example.org:9200\"]\n" + stream:     "urls[0]",
		"urls: [\"http://a\", \"http://a\"]\n" + stream:  "urls[1]: stands here twice",
		"urls: [\"http://u:p@a\"]\n" + stream:            "urls[0]",
		"urls: [\"http://a?x=y\"]\n" + stream:            "urls[0]: a query",
		url:                                              "data_stream: say where",
		url + stream + "index: a":                        "index: data_stream or index",
		url + "index: Nova":                              `index: column 1: holds the capital 'N'`,
		url + "index: a/b":                               `index: column 1: holds '/'`,
		url + "index: 'a b'":                             `index: column 1: holds ' '`,
		url + "index: _a":                                "index: column 1: must begin",
		url + "index: .a":                                "index: column 1: must begin",
		url + "index: '-a'":                              "index: column 1: must begin",
		url + "index: '{{service}}-a'":                   "index: column 1: must begin",
		url + "index: a-%Q":                              "index: column 3: unknown %Q",
		url + "index: a-%":                               "index: column 3: % at the end",
		url + "index: 'a-{{service'":                     "index: column 3: {{ without }}",
		url + "index: 'a-{{roles}}'":                     "index: column 3: field \"roles\" holds a list",
		url + "index: " + strings.Repeat("a", 256):       "index: makes names of up to 256",
		url + "data_stream: {dataset: A}":                "data_stream.dataset: holds the capital",
		url + "data_stream: {dataset: a-b}":              "data_stream.dataset: must hold no hyphen",
		url + "data_stream: {dataset: a, type: _x}":      "data_stream.type: must not begin",
		url + "data_stream: {dataset: a, namespace: ''}": "data_stream.namespace: must not be empty",
		url + "data_stream: {}":                          "data_stream",
		url + stream + "api_key: k0123456789\nusername: u\npassword: p9876543210": "api_key: api_key, or username",
		url + stream + "api_key: 'a b'":                                           "api_key: the key holds a space",
		url + stream + "bearer: t\nusername: u\npassword: p":                      "bearer",
		url + stream + "username: u":                                              "username",
		url + stream + "tls: {ca_file: " + ca + "}":                               "tls.ca_file",
		url + stream + "tls: {ca_file: /nowhere/ca.pem}":                          "tls.ca_file",
		url + stream + "headers: {Authorization: x}":                              "headers.Authorization: use api_key",
		url + stream + "headers: {X-A: \"a\\nb\"}":                                "headers.X-A",
		url + stream + "timeout: 1ms":                                             "timeout",
		url + stream + "flavor: solr":                                             "flavor",
		url + stream + "pipeline: 'a b'":                                          "pipeline",
	} {
		_, err := read(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngives %v\ninstead of %s", text, err, want)
		}
	}
}

func TestFieldsOfTheIndexAreThoseOfThePipeline(t *testing.T) {
	t.Parallel()
	p, err := parseIndex("a-{{zone}}")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.checkFields(map[string]event.Kind{"zone": event.String}); err != nil {
		t.Error(err)
	}
	if err := p.checkFields(map[string]event.Kind{"zones": event.String}); err == nil || !strings.Contains(err.Error(), `did you mean "zones"`) {
		t.Error(err)
	}
	if err := p.checkFields(map[string]event.Kind{"zone": event.List}); err == nil {
		t.Error("a list as part of a name")
	}
}

func TestIndexNamesAreLegalWhateverTheValue(t *testing.T) {
	t.Parallel()
	p, err := parseIndex("x-{{service}}-{{n}}-%Y.%m.%d.%H.%M.%j")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.pattern(); got != "x-*-*-*.*.*.*.*.*" {
		t.Errorf("pattern %q", got)
	}
	at := time.Date(2026, 2, 3, 4, 5, 0, 0, time.UTC)
	for value, want := range map[string]string{
		"": "_", "nova": "nova", "No Va/*?\"<>|,#:\\": "no_va___________", "ä\x00\xff": "___", strings.Repeat("é", 100): strings.Repeat("_", maxValue),
	} {
		e := event.NewBatch("s").Append()
		e.Service = value
		e.Set("n", event.IntValue(7))
		got := string(p.append(nil, e, at))
		if got != "x-"+want+"-7-2026.02.03.04.05.034" {
			t.Errorf("%q gives %q", value, got)
		}
		if err := checkName(got); err != nil || len(got) > maxIndex {
			t.Errorf("%q: %v", got, err)
		}
	}
}

func TestEventsWithoutATimeTakeThatBeforeThem(t *testing.T) {
	t.Parallel()
	b := event.NewBatch("s")
	b.ReadAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 5 {
		b.Append()
	}
	b.Events[1].Time = b.ReadAt.Add(time.Hour)
	b.Events[3].Time = b.ReadAt.Add(2 * time.Hour)
	var c clock
	var got []byte
	for _, i := range []int{0, 2, 4, 3} { // 1 went elsewhere
		got = fmt.Appendf(got, "%d", c.of(&b.Events[i]).Hour())
	}
	if string(got) != "0122" {
		t.Errorf("hours %s", got)
	}
}
