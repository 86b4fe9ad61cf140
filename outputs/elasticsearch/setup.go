package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

var _ plugins.Preparer = (*output)(nil)

const (
	// componentName is the component template with the schema's fields, one for all outputs of a cluster with the same naming.
	componentName = "stacktrail-schema-" + schema.Version
	// templatePriority is above that of the templates that Elasticsearch brings along (100).
	templatePriority = 200
	// ignoreAbove is how many characters of a keyword are searchable: longer values are stored only.
	ignoreAbove = 1024
)

type object = map[string]any

// fieldMapping returns the mapping of a field of the schema.
func fieldMapping(f *schema.Field, openSearch bool) object {
	switch f.Name {
	case "client", "fingerprinted_iplb":
		// Some sources log host names there, and redaction may leave a hash: such a value is stored, not searched.
		return object{"type": "ip", "ignore_malformed": true}
	case "message", "error":
		return object{"type": "text"}
	case "original", "request_body_raw", "request_headers_raw":
		return object{"type": "keyword", "index": false, "doc_values": false}
	}
	switch f.Type {
	case event.Int:
		return object{"type": "long"}
	case event.Float:
		return object{"type": "double"}
	case event.Bool:
		return object{"type": "boolean"}
	case event.Time:
		return object{"type": "date"}
	case event.Object:
		if openSearch {
			return object{"type": "flat_object"}
		}
		return object{"type": "flattened", "ignore_above": ignoreAbove}
	}
	return keyword()
}

func keyword() object { return object{"type": "keyword", "ignore_above": ignoreAbove} }

// put sets the mapping of a field by its name, whose dots are objects in objects.
func put(properties object, name string, mapping object) {
	first, rest, nested := strings.Cut(name, ".")
	if !nested {
		properties[first] = mapping
		return
	}
	within, ok := properties[first].(object)
	if !ok {
		within = object{"properties": object{}}
		properties[first] = within
	}
	put(within["properties"].(object), rest, mapping)
}

// mappings returns the mapping of all documents. Fields that the schema does not know get their type from the end of their name, as
// the schema's own have it.
func mappings(openSearch bool, naming schema.Naming) object {
	properties := object{"@timestamp": object{"type": "date"}}
	fields := schema.Fields()
	for i := range fields {
		f := &fields[i]
		mapping := fieldMapping(f, openSearch)
		if naming == schema.ECS && f.Name == "api_response_time_num" {
			mapping = object{"type": "long"} // nanoseconds
		}
		put(properties, naming.NameOf(f), mapping)
	}
	var dynamic []any
	for _, t := range []struct {
		suffix string
		to     object
	}{
		{"int", object{"type": "long"}},
		{"num", object{"type": "double"}},
		{"bool", object{"type": "boolean"}},
		{"date", object{"type": "date"}},
	} {
		dynamic = append(dynamic, object{t.suffix: object{"match": "*_" + t.suffix, "mapping": t.to}})
	}
	dynamic = append(dynamic, object{"text": object{"match_mapping_type": "string", "mapping": keyword()}})
	return object{"date_detection": false, "numeric_detection": false, "dynamic_templates": dynamic, "properties": properties}
}

// naming is what the documents' fields are called.
func (o *output) naming() schema.Naming {
	if n := o.enc.Options().Naming; n != "" {
		return n
	}
	return schema.OVH
}

func (o *output) componentName() string {
	if n := o.naming(); n != schema.OVH {
		return componentName + "-" + string(n)
	}
	return componentName
}

// templates returns the component template, the name of the index template, and the index template.
func (o *output) templates(openSearch bool) (component object, name string, index object) {
	component = object{"template": object{"mappings": mappings(openSearch, o.naming())}}
	pattern := o.stream
	if o.stream == "" {
		pattern = o.index.pattern()
	}
	name = "stacktrail-" + strings.NewReplacer("*", "x").Replace(pattern)
	index = object{"index_patterns": []any{pattern}, "composed_of": []any{o.componentName()}, "priority": templatePriority}
	if o.stream != "" {
		index["data_stream"] = object{}
	}
	return component, name, index
}

// change is one thing that differs.
type change struct {
	text  string
	apply func(context.Context) error // nil: nothing can be done here
}

// Diff says what differs at the server from the templates and the data stream that the output needs.
func (o *output) Diff(ctx context.Context) ([]string, error) {
	changes, err := o.changes(ctx)
	var lines []string
	for _, c := range changes {
		lines = append(lines, c.text)
	}
	return lines, err
}

// Apply makes the templates and the data stream what the output needs, and says what it changed.
func (o *output) Apply(ctx context.Context) ([]string, error) {
	changes, err := o.changes(ctx)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, c := range changes {
		if c.apply != nil {
			if err := c.apply(ctx); err != nil {
				return lines, fmt.Errorf("%s: %w", c.text, err)
			}
		}
		lines = append(lines, c.text)
	}
	return lines, nil
}

func (o *output) changes(ctx context.Context) (all []change, err error) {
	within, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	flavor, err := o.cluster.detect(within)
	if err != nil {
		return nil, o.explain(err)
	}
	component, name, index := o.templates(flavor == flavorOpenSearch)
	send := func(path string, body object) func(context.Context) error {
		return func(ctx context.Context) error {
			data, err := json.Marshal(body)
			if err != nil {
				return fmt.Errorf("BUG: %w", err)
			}
			return o.call(ctx, http.MethodPut, path, "", data, nil)
		}
	}
	for _, t := range []struct {
		kind, path, name, list, inside string
		want                           object
	}{
		{"component template", "/_component_template/", o.componentName(), "component_templates", "component_template", component},
		{"index template", "/_index_template/", name, "index_templates", "index_template", index},
	} {
		path := t.path + url.PathEscape(t.name)
		have, err := o.stored(ctx, path, t.list, t.inside)
		if err != nil {
			return nil, err
		}
		if have == nil {
			all = append(all, change{t.kind + " " + t.name + " is missing", send(path, t.want)})
			continue
		}
		if diff := differences(t.want, have); len(diff) > 0 {
			all = append(all, change{t.kind + " " + t.name + " differs: " + strings.Join(diff, ", "), send(path, t.want)})
		}
	}
	if o.stream == "" {
		return all, nil
	}
	names, err := o.backing(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		path := "/_data_stream/" + o.stream
		return append(all, change{"data stream " + o.stream + " is missing", func(ctx context.Context) error {
			return o.call(ctx, http.MethodPut, path, "", nil, nil)
		}}), nil
	}
	current := names[len(names)-1]
	var have map[string]struct {
		Mappings object `json:"mappings"`
	}
	if err := o.call(ctx, http.MethodGet, "/"+current+"/_mapping", "", nil, &have); err != nil {
		return nil, err
	}
	if diff := differences(object{"properties": mappings(flavor == flavorOpenSearch, o.naming())["properties"]}, have[current].Mappings); len(diff) > 0 {
		all = append(all, change{"data stream " + o.stream + " is of another mapping until its next rollover: " + strings.Join(diff, ", "), nil})
	}
	return all, nil
}

// stored returns a template as the server has it; nil if it has none of that name.
func (o *output) stored(ctx context.Context, path, list, inside string) (object, error) {
	var answer map[string][]map[string]json.RawMessage
	err := o.call(ctx, http.MethodGet, path, "", nil, &answer)
	if isStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(answer[list]) == 0 {
		return nil, errors.New("the answer for " + path + " holds no template")
	}
	var have object
	if err := json.Unmarshal(answer[list][0][inside], &have); err != nil {
		return nil, fmt.Errorf("reading the template at %s: %w", path, err)
	}
	return have, nil
}

// maxDifferences are named; the rest is counted.
const maxDifferences = 8

// differences names the places at which have lacks what want has, or has something else.
func differences(want, have object) []string {
	w, h := map[string]string{}, map[string]string{}
	flatten(w, "", want)
	flatten(h, "", have)
	var all []string
	for _, k := range slices.Sorted(maps.Keys(w)) {
		switch v, ok := h[k]; {
		case !ok:
			all = append(all, k+" is missing")
		case v != w[k]:
			all = append(all, k+" is "+v+", not "+w[k])
		}
	}
	if n := len(all) - maxDifferences; n > 0 {
		all = append(all[:maxDifferences], "and "+strconv.Itoa(n)+" more")
	}
	return all
}

// flatten lists the values of a JSON object by their paths, as text: servers turn numbers and bools into strings.
func flatten(into map[string]string, path string, v any) {
	switch v := v.(type) {
	case object:
		if path != "" {
			into[path] = "an object"
		}
		for k, x := range v {
			flatten(into, strings.TrimPrefix(path+"."+k, "."), x)
		}
	case []any:
		for i, x := range v {
			flatten(into, path+"["+strconv.Itoa(i)+"]", x)
		}
	default:
		into[path] = fmt.Sprint(v)
	}
}
