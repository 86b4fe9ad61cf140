package template

import (
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func TestPartsOfATemplate(t *testing.T) {
	t.Parallel()
	parts, err := Parse("ü-{{ service }}/%Y%%.{{zone}}", "file name", 2)
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	e := event.NewBatch("").Append()
	e.Service = "nova"
	e.Set("zone", event.StringValue("a"))
	for _, p := range parts {
		switch {
		case p.IsText():
			shown = append(shown, p.Text)
		case p.Date != 0:
			shown = append(shown, "date "+string(p.Date))
		default:
			shown = append(shown, p.Field+" "+p.Value(e))
		}
	}
	if got, want := strings.Join(shown, "|"), "ü-|service nova|/|date Y|%.|zone a"; got != want {
		t.Errorf("parts are %s, want %s", got, want)
	}
	if parts[5].Column != 22 {
		t.Errorf("the last field stands in column %d, want 22: runes count", parts[5].Column)
	}
	if err := CheckFields(parts, "file name", map[string]event.Kind{"zone": event.String}); err != nil {
		t.Error(err)
	}
}

func TestFaultsNameTheirColumn(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"a{{x": "column 2: {{ without }}", "a{{}}": "column 2: between", "ab%": "column 3: % at the end", "ü%q": "column 2: unknown %q",
		"{{a}}{{b}}{{c}}": "column 11: more than 2 fields", "x{{roles}}": `column 2: field "roles" holds a list, which makes no index`,
	} {
		if _, err := Parse(s, "index", 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	parts, err := Parse("x{{zome}}", "index", 2)
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{"zone": `column 2: unknown field "zome" (did you mean "zone"?)`, "zome": "holds a list, which makes no index"} {
		if err := CheckFields(parts, "index", map[string]event.Kind{kind: event.List}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %s: %v, want %s", kind, err, want)
		}
	}
}
