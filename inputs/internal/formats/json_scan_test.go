package formats

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
)

// JSON allows blanks behind the bracket that opens an object and before the one that closes it, and some writers set them.
func TestBlanksWithinTheBracketsOfAnObjectMeanNothing(t *testing.T) {
	objects := 0
	for _, path := range goldenFiles(t) {
		g := readGolden(t, path)
		tight, wide := g.parser(t), g.parser(t)
		for _, line := range g.lines {
			a, va := parse(tight, string(line))
			spaced := string(line)
			if json.Valid(line) && line[0] == '{' {
				objects++
				spaced = "{ \t" + string(line[1:len(line)-1]) + " }"
			}
			b, vb := parse(wide, spaced)
			if va != vb || tight.Reason() != wide.Reason() || a.Format != b.Format || a.Time != b.Time || a.Status != b.Status || !slices.Equal(texts(a), texts(b)) {
				t.Errorf("%s: %s\nverdict %d %s %q\nwith blanks %d %s %q", filepath.Base(path), line, va, tight.Reason(), texts(a), vb, wide.Reason(), texts(b))
			}
		}
	}
	if objects < 20 {
		t.Errorf("%d lines are JSON objects", objects)
	}
}

// A line that begins an object begins a record, wherever the blanks are: nothing is joined to the record before it.
func TestAnObjectBeginsARecord(t *testing.T) {
	for line, want := range map[string]bool{`{"log":"x"}`: true, `{ "log":"x"}`: true, "{\t\"log\":\"x\"}": true, `{`: false, `{ `: false, `{address space usage: 1}`: false, `{}`: false} {
		if got := beginsRecord(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
