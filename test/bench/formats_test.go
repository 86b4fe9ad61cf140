package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFiguresOfFormatsAreRead(t *testing.T) {
	const out = `goos: linux
BenchmarkParse/text/nova-eventlet  	   50000	       254.1 ns/op	2076.63 MB/s	       154.1 cpu-ns/line	       320.0 bytes/line	       0 B/op	       0 allocs/op
BenchmarkParse/JSON/docker         	   50000	       999.2 ns/op	 349.08 MB/s	       779.2 cpu-ns/line	       272.0 bytes/line	       8 B/op	       2 allocs/op
PASS
`
	got, err := readParsings(out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(got.names, " ") != "text/nova-eventlet JSON/docker" || got.of["JSON/docker"] != (parsing{779.2, 272, 2}) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", "PASS\n", strings.Replace(out, "320.0 bytes/line", "", 1), strings.Replace(out, "154.1", "fast", 1)} {
		if _, err := readParsings(bad); err == nil {
			t.Errorf("%q, and nobody says so", bad)
		}
	}
}

func TestLinesOfOneLength(t *testing.T) {
	b := bench{}
	for _, length := range []int{1, 92, 300, referenceBlock + 1} {
		s, err := b.lines(t.Context(), filepath.Join(t.TempDir(), "lines"), length, 1e6)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(s.files[0])
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(text)) != s.bytes || int64(strings.Count(string(text), "\n")) != s.lines || s.bytes != s.lines*int64(length) || text[len(text)-1] != '\n' {
			t.Errorf("length %d: %d bytes, %d lines, the sample says %+v", length, len(text), strings.Count(string(text), "\n"), s)
		}
	}
}
