package elasticsearch

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// under builds an output as the agent does for one with that naming.
func under(t *testing.T, n schema.Naming, text string) *output {
	t.Helper()
	c, err := read(t, text)
	if err != nil {
		t.Fatal(err)
	}
	plug, err := New(c, plugins.Env{Log: slog.New(slog.DiscardHandler), Encoder: func(o schema.EncodeOptions) *schema.Encoder {
		o.Naming = n
		return schema.NewEncoder(o)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return plug.(*output)
}

// typeOf follows a name through the objects of a mapping.
func typeOf(properties object, name string) any {
	for {
		first, rest, nested := strings.Cut(name, ".")
		m, _ := properties[first].(object)
		if !nested {
			return m["type"]
		}
		properties, _ = m["properties"].(object)
		name = rest
	}
}

func TestTemplatesFitTheNaming(t *testing.T) {
	t.Parallel()
	components := map[string]bool{}
	for n, want := range map[schema.Naming]map[string]any{
		schema.OVH:  {"client": "ip", "api_response_time_num": "double", "attributes": "flattened", "timestamp": "date"},
		schema.ECS:  {"source.ip": "ip", "event.duration": "long", "x.attributes": "flattened", "@timestamp": "date", "http.response.status_code": "long", "error.message": "text"},
		schema.OTel: {"client.address": "ip", "http.server.request.duration": "double", "timestamp": "date", "severity_number": "long", "body": "text"},
	} {
		o := under(t, n, "{urls: [http://192.0.2.1:9200], data_stream: {dataset: openstack.api}}")
		component, _, index := o.templates(false)
		name := o.componentName()
		if components[name] {
			t.Errorf("%s: the component template %s is another naming's", n, name)
		}
		components[name] = true
		if got := index["composed_of"].([]any)[0]; got != name {
			t.Errorf("%s: the template is made of %v, not of %s", n, got, name)
		}
		properties := component["template"].(object)["mappings"].(object)["properties"].(object)
		for field, typ := range want {
			if got := typeOf(properties, field); got != typ {
				t.Errorf("%s: %s is %v, want %v", n, field, got, typ)
			}
		}
		fields := schema.Fields()
		for i := range fields {
			if typeOf(properties, n.NameOf(&fields[i])) == nil {
				t.Errorf("%s: %s has no type", n, n.NameOf(&fields[i]))
			}
		}
	}
}

func TestNoNameStandsTwiceInADocument(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 10, 15, 30, 0, time.UTC)
	for _, n := range schema.Namings() {
		o := under(t, n, "{urls: [http://192.0.2.1:9200], data_stream: {dataset: openstack.api}}")
		b := event.NewBatch("s")
		b.ReadAt = at.Add(time.Hour)
		b.Append().Time = at
		b.Append()
		r := &request{}
		r.begin([]*event.Event{&b.Events[0], &b.Events[1]})
		r.build(o)
		docs := bytes.Split(bytes.TrimSuffix(r.body, []byte("\n")), []byte("\n"))
		for i := 1; i < len(docs); i += 2 {
			doc := string(docs[i])
			if k := strings.Count(doc, `"@timestamp":"2026-03-02T10:15:30Z"`); k != 1 || strings.Count(doc, `"@timestamp"`) != 1 {
				t.Errorf("%s: %s", n, doc)
			}
			if !json.Valid(docs[i]) {
				t.Errorf("%s: not JSON: %s", n, doc)
			}
		}
	}
}
