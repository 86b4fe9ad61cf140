package agent

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/schema"
)

// parseAs runs parse on all real logs and returns the records under a naming.
func parseAs(t *testing.T, n schema.Naming) (records []map[string]any) {
	t.Helper()
	args := []string{"parse", "--naming", string(n), "--records", "all", "--timezone", "UTC", "--unparsed-events", "--event-id"}
	err := filepath.WalkDir(filepath.Join("..", "test", "testdata", "real-logs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".ndjson") {
			args = append(args, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := output(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(out))
	dec.UseNumber()
	for dec.More() {
		var m map[string]any
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		records = append(records, m)
	}
	return records
}

// common turns a record back into the schema's own names, by the table of names and by what the documents say of the few
// values that look different.
func common(n schema.Naming, m map[string]any) map[string]any {
	out := map[string]any{}
	byName := map[string]string{"source.address": "client", "http.request.method_original": "method"}
	fields := schema.Fields()
	for i := range fields {
		byName[n.NameOf(&fields[i])] = fields[i].Name
	}
	for k, v := range m {
		switch k {
		case "ecs.version", "event.kind", "event.category", "event.type", "log.level", "network.protocol.name", "error.type":
			continue // said elsewhere
		case "event.action":
			if v == m["labels.action"] {
				continue
			}
		}
		name, ok := byName[k]
		if !ok {
			name = strings.TrimPrefix(strings.TrimPrefix(k, "labels."), "x.")
		}
		text, _ := v.(string)
		switch {
		case name == "method" && text == "_OTHER":
			continue
		case name == "kind":
			system := byKey(n, "source_system", m)
			v = strings.ReplaceAll(strings.TrimPrefix(text, system+"."), "_", "-")
		case name == "http_version" && text != "" && text[0] >= '0' && text[0] <= '9':
			v = "HTTP/" + text
		case name == "api_response_time_num" && n == schema.ECS:
			ns, _ := new(big.Rat).SetString(string(v.(json.Number)))
			s := ns.Quo(ns, big.NewRat(1e9, 1)).FloatString(9)
			v = json.Number(strings.TrimSuffix(strings.TrimRight(s, "0"), "."))
		case name == "level" && n == schema.OTel:
			v = json.Number(map[string]string{"21": "0", "19": "1", "18": "2", "17": "3", "13": "4", "10": "5", "9": "6", "5": "7"}[string(v.(json.Number))])
		}
		out[name] = v
	}
	for _, from := range []string{"user_id", "user_name"} {
		if id, ok := out[from]; ok {
			out["user"] = id
		}
	}
	return out
}

func byKey(n schema.Naming, field string, m map[string]any) string {
	s, _ := m[n.NameOf(schema.Lookup(field))].(string)
	return s
}

func TestNamingsCanBeTurnedBackOnEveryRealRecord(t *testing.T) {
	t.Parallel()
	want := parseAs(t, schema.OVH)
	if len(want) < 1000 {
		t.Fatalf("only %d records", len(want))
	}
	for _, n := range []schema.Naming{schema.ECS, schema.OTel} {
		got := parseAs(t, n)
		if len(got) != len(want) {
			t.Fatalf("%s: %d records, want %d", n, len(got), len(want))
		}
		for i := range got {
			if back := common(n, got[i]); !reflect.DeepEqual(back, want[i]) {
				for k := range want[i] {
					if !reflect.DeepEqual(back[k], want[i][k]) {
						t.Errorf("%s: %s is %v, was %v", n, k, back[k], want[i][k])
					}
				}
				for k := range back {
					if _, ok := want[i][k]; !ok {
						t.Errorf("%s: %s is new: %v", n, k, back[k])
					}
				}
				t.Fatalf("%s: record %d", n, i)
			}
		}
	}
}

const tokenLine = `192.0.2.1 - - [01/Jan/2026:10:00:00 +0000] "GET /v2.0/tokens/0f1e2d3c4b5a69788796a5b4c3d2e1f0 HTTP/1.1" 200 310 "-" "curl/8"` + "\n"

func TestParseMasksTokensUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(name, []byte(tokenLine), 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{"--mask-tokens": "/v2.0/tokens/***", "--mask-tokens=false": "/v2.0/tokens/0f1e2d3c4b5a69788796a5b4c3d2e1f0"} {
		out, err := output(t, "parse", flag, name)
		if err != nil || !strings.Contains(out, `"path":"`+want+`"`) || strings.Contains(out, `"resource_id"`) {
			t.Errorf("%s: %v, %s", flag, err, out)
		}
	}
}

func TestOutputsOfOnePipelineHaveEachItsNaming(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, cfg := filepath.Join(dir, "access.log"), filepath.Join(dir, "c.yaml")
	var text strings.Builder
	text.WriteString("agent: {state_dir: " + dir + "/state}\npipelines:\n  - name: p\n    inputs:\n      - tail: {paths: [" + in + "]}\n    outputs:\n")
	for _, n := range schema.Namings() {
		fmt.Fprintf(&text, "      - file: {path: %s/out/%s.ndjson}\n        id: %s\n        naming: %s\n", dir, n, n, n)
	}
	for name, content := range map[string]string{in: tokenLine, cfg: text.String()} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := output(t, "run", "--once", "-c", cfg); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for n, want := range map[schema.Naming]string{schema.OVH: `"route":"/tokens/{id}"`, schema.ECS: `"labels.route":"/tokens/{id}"`, schema.OTel: `"http.route":"/tokens/{id}"`} {
		got, err := os.ReadFile(filepath.Join(dir, "out", string(n)+".ndjson"))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %v: %s", n, err, got)
		}
	}
}
