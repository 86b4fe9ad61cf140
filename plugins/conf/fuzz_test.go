package conf

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "a: 1\n b: 2\n", "a: &a [*a]\n<<: *a\n", "a: &a {b: 1}\nb: {<<: [*a, *a], <<: 5}\n", "1: x\n? [a]\n: b\n", "a: 1\n---\nb: 2\n",
		"url: ${A}\nkey: ${file:/f}\nwait: ${B:-${A:-5s}}\nbytes: ${cred:x}\ncount: $$${\n", "wait: 1d2h\nbytes: 4MiB\nshift: -1h\nport: 0x10\nsmall: -0o7\n",
		"paths: x\nset: {a: 010}\nrules: [{when: ~}, ~]\ntls:\nany: {a: [.inf, 1e99999, ~, 0x, 2024-01-01]}\nmaybe: \n",
		"retry: {initial: 2m, max: 1m}\nid: bad\ncodec: gzp\naddr: ::g\n", "a: !!binary x\nb: !foo {}\nc: !!int x\n", "\ufeff# x\r\na: |\r\n  b\r\n", "\x00", "a: \"\\u263a", "\t", "%YAML 9.9\n---\n",
	} {
		f.Add([]byte(seed))
	}
	lookup := testLookup(map[string]string{"A": "5", "CREDENTIALS_DIRECTORY": "/c"}, map[string]string{"/f": "x\n", "/c/x": "1KiB\n"})
	f.Fuzz(func(t *testing.T, data []byte) {
		n, faults := Parse("a.yaml", data)
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + strings.Count(string(data), "\u0085") +
			strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029") + 1
		if n.Kind() == Invalid && len(faults) == 0 {
			t.Fatal("nothing was read and nothing is wrong")
		}
		for _, x := range faults {
			if x.Line < 1 || x.Line > lines+1 || x.Column < 1 {
				t.Errorf("fault at %d:%d of %d lines: %s", x.Line, x.Column, lines, x)
			}
		}
		merged, more := Merge([]Node{n, n}, ListKey{"rules", "when"})
		faults = append(append(faults, more...), Interpolate(merged, lookup)...)
		want := defaults()
		d := defaults()
		_, more = Decode(merged, d)
		for _, x := range append(faults, more...) {
			if strings.ContainsAny(x.String(), "\r\n") || x.Message == "" {
				t.Errorf("not one line: %q", x.String())
			}
		}
		if !reflect.DeepEqual(d, want) {
			t.Errorf("the defaults were changed: %+v", d)
		}
	})
}

// The time limit of a fuzz run is per input; this is what one hostile input may cost at most.
func TestHostileInputsEnd(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"open quotes":    strings.Repeat("a: \"x\n", 3000),
		"a long text":    "a: '" + strings.Repeat("x", 100_000),
		"quoted quotes":  "a: '" + strings.Repeat("\"", 100_000),
		"an open text":   "a: '" + strings.Repeat("x\n", 50_000),
		"open flows":     strings.Repeat("[", 9000),
		"interpolations": "url: \"" + strings.Repeat("${A:-", 5000) + strings.Repeat("}", 5000) + "\"",
		"long key":       strings.Repeat("k", 900) + ": 1\n",
		"long number":    "count: " + strings.Repeat("9", 10000) + "\nwait: " + strings.Repeat("9", 10000) + "h\nbytes: " + strings.Repeat("9", 10000) + "MiB\n",
	} {
		done := make(chan Faults, 1)
		go func() {
			n, faults := Parse("a.yaml", []byte(text))
			faults = append(faults, Interpolate(n, testLookup(nil, nil))...)
			_, more := Decode(n, defaults())
			done <- append(faults, more...)
		}()
		select {
		case faults := <-done:
			if len(faults) == 0 || len(faults.Error()) > 5000 {
				t.Errorf("%s: %d faults in %d bytes", name, len(faults), len(faults.Error()))
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: no end", name)
		}
	}
}
