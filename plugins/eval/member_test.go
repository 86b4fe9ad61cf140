package eval

import (
	"encoding/json"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// FuzzMember compares with the decoder that the machine uses where the text is valid, and wants no panic where it is not.
func FuzzMember(f *testing.F) {
	for _, text := range []string{
		`{"k":1}`, `{"a":{"k":[2,"}"]},"k":"x\"y"}`, ` { "k" : null , "k":2.5e3} `, `{"\u006b":true}`, `{"k":"ü\ud800"}`, `{`, `{"k"`, `{"k":`,
		"{\"k\":\x01}", "{\"a\":[\x01]}", `{"k":1e999}`, `{"k":-0,"k":""}`, `{"k":"\`, `{"k":1]`, `{,}`, `{"k":1,}`, `[]`, `{"":1}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := member(text, "k")
		if !json.Valid([]byte(text)) {
			return
		}
		x, wantErr := object(text)
		if wantErr != nil {
			if text[0] == '{' {
				t.Fatalf("%q: %v", text, wantErr)
			}
			return
		}
		m, _ := x.(map[string]any)
		if m == nil { // null
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		v, _ := inside(m, "k")
		switch v.(type) {
		case map[string]any, []any:
			if got.Kind() != event.Object {
				t.Fatalf("%q: %s, want an object", text, got.Kind())
			}
			return
		}
		want, err := fromAny(&event.Event{}, v)
		if err != nil || !sameValue(got, want) {
			t.Fatalf("%q: %s %q, want %s %q (%v)", text, got.Kind(), got.Text(), want.Kind(), want.Text(), err)
		}
	})
}
