package conf

import (
	"fmt"
	"strings"
	"testing"
)

// dump writes a tree in one line.
func dump(n Node) string {
	var parts []string
	switch n.Kind() {
	case Section:
		for _, k := range n.Keys() {
			parts = append(parts, k.Name+":"+dump(k.Value))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case List:
		for _, x := range n.Items() {
			parts = append(parts, dump(x))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case Invalid:
		return "invalid"
	}
	return n.Scalar()
}

func TestMergeLaysLaterOverEarlier(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b, want string }{
		{"{a: 1, b: {c: 1, d: 2}}", "{b: {d: 3, e: 4}, f: 5}", "{a:1 b:{c:1 d:3 e:4} f:5}"},
		{"{a: [1, 2]}", "{a: [3]}", "{a:[3]}"},
		{"{a: 1}", "{a: ~}", "{a:~}"},
		{"{a: {b: 1}}", "{a: ~}", "{a:~}"},
		{"{a: ~}", "{a: {b: 1}}", "{a:{b:1}}"},
		{"", "{a: 1}", "{a:1}"},
		{
			"{p: [{name: x, in: [1], o: {k: 1}}, {name: y}]}",
			"{p: [{name: y, in: [2]}, {name: x, in: [3], o: {l: 2}}, {name: z}, {id: 1}]}",
			"{p:[{name:x in:[3] o:{k:1 l:2}} {name:y in:[2]} {name:z} {id:1}]}",
		},
	} {
		a, b := parse(t, c.a), parse(t, c.b)
		before := dump(a) + dump(b)
		n, faults := Merge([]Node{{}, a, b}, ListKey{"p", "name"})
		wantFaults(t, faults)
		if got := dump(n); got != c.want {
			t.Errorf("%s + %s = %s, want %s", c.a, c.b, got, c.want)
		}
		if dump(a)+dump(b) != before {
			t.Errorf("Merge changed its documents: %s%s, were %s", dump(a), dump(b), before)
		}
	}
	if n, _ := Merge(nil); n.Kind() != Invalid {
		t.Error("nothing merged is something")
	}
}

func TestMergedValuesKeepTheirFiles(t *testing.T) {
	t.Parallel()
	a, _ := Parse("a.yaml", []byte("x: 1\ny: {z: 1}\n"))
	b, _ := Parse("b.yaml", []byte("\ny: {w: 2}\nx: 3\n"))
	n, _ := Merge([]Node{a, b})
	var got []string
	for _, path := range []string{"x", "y.z", "y.w"} {
		at := n.find(path)
		got = append(got, fmt.Sprintf("%s:%d:%d", at.File(), at.Line(), at.Column()))
	}
	if want := "[b.yaml:3:4 a.yaml:2:8 b.yaml:2:8]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestMergeReportsWhatCannotBeMerged(t *testing.T) {
	t.Parallel()
	a, _ := Parse("a.yaml", []byte("x: {y: 1}\nz: [1]\np: [{name: q}, {name: q}]\n"))
	b, _ := Parse("b.yaml", []byte("x: [1]\nz: {y: 1}\np: [{name: r}, {name: q}, {name: r}]\n"))
	_, faults := Merge([]Node{a, b}, ListKey{"p", "name"})
	wantFaults(
		t, faults,
		`a.yaml:3:23: p[1].name: the name "q" is taken, first at line 3`,
		"b.yaml:1:4: x: a list here, but a section in a.yaml:1:4; the two cannot be merged",
		"b.yaml:2:4: z: a section here, but a list in a.yaml:2:4; the two cannot be merged",
		`b.yaml:3:34: p[2].name: the name "r" is taken, first at line 3`,
	)
}
