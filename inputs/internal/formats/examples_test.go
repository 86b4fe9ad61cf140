package formats

import (
	"slices"
	"testing"
)

func TestEveryFormatHasAnExampleThatItReads(t *testing.T) {
	list, err := Describe()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
		for _, f := range []string{"format", "record_class", "timestamp", "path", "api_response_code_int"} {
			if !slices.Contains(d.Fields, f) {
				t.Errorf("the example of %s fills no %s: %v", d.Name, f, d.Fields)
			}
		}
		for _, f := range []string{"suspect", "truncated_bool", "error"} {
			if slices.Contains(d.Fields, f) {
				t.Errorf("the example of %s has %s", d.Name, f)
			}
		}
	}
	if !slices.Equal(names, Names()) {
		t.Errorf("described are %v, known %v", names, Names())
	}
}
