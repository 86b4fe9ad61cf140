package event

import (
	"slices"
	"testing"
)

func TestValuesKeepWhatTheyWereMadeOf(t *testing.T) {
	t.Parallel()
	list := []string{"a", "", "bc"}
	for _, c := range []struct {
		v    Value
		kind Kind
		text string
	}{
		{StringValue("x y"), String, "x y"},
		{ObjectValue(`{"a":1}`), Object, `{"a":1}`},
		{ListValue(list), List, `["a","","bc"]`},
		{IntValue(-7), Int, "-7"},
		{FloatValue(0.5), Float, "0.5"},
		{BoolValue(true), Bool, "true"},
		{StringValue(""), Absent, ""},
		{ObjectValue(""), Absent, ""},
		{ListValue(nil), Absent, ""},
	} {
		if c.v.Kind() != c.kind || c.v.Text() != c.text || !c.v.Equal(c.v.clone()) {
			t.Errorf("%v: %q of kind %v", c.text, c.v.Text(), c.v.Kind())
		}
		if c.kind != List && c.v.List() != nil || c.kind != String && c.kind != Object && c.v.Str() != "" {
			t.Errorf("%v is a text or list too", c.text)
		}
	}
	if !slices.Equal(ListValue(list).List(), list) || ListValue(list).Equal(ListValue([]string{"a", "", "bd"})) || StringValue("7").Equal(ObjectValue("7")) {
		t.Error("lists or texts are not told apart")
	}
}
