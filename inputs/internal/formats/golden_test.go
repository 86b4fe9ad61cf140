package formats

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // zones of the golden files

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

// golden is one file of testdata: directives, lines of one log file, "----", and for each line what becomes of it.
type golden struct {
	head  string
	file  string
	zone  *time.Location
	all   bool
	lines [][]byte
	want  string
}

func readGolden(t testing.TB, path string) golden {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	input, want, _ := strings.Cut(string(b), "----\n")
	g := golden{zone: time.UTC, want: want}
	var body string
	g.head, body, _ = strings.Cut(input, "\n\n")
	for l := range strings.Lines(g.head) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), ": ")
		switch key {
		case "file":
			g.file = value
		case "zone":
			if g.zone, err = time.LoadLocation(value); err != nil {
				t.Fatal(err)
			}
		case "records":
			g.all = value == "all"
		default:
			t.Fatalf("%s: unknown directive %q", path, l)
		}
	}
	for l := range strings.Lines(body) {
		l = strings.TrimSuffix(l, "\n")
		if q, ok := strings.CutPrefix(l, "quoted: "); ok {
			if l, err = strconv.Unquote(q); err != nil {
				t.Fatalf("%s: %q: %v", path, q, err)
			}
		}
		g.lines = append(g.lines, []byte(l))
	}
	return g
}

func (g golden) parser(t testing.TB) *Parser {
	o := Options{Location: g.zone}
	if g.all {
		o.Records = All
	}
	return newParser(t, g.file, o)
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	return files
}

func TestGolden(t *testing.T) {
	enc := schema.NewEncoder(schema.EncodeOptions{Newline: true})
	for _, path := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			g := readGolden(t, path)
			p := g.parser(t)
			var got []byte
			var s schema.Scratch
			for _, l := range g.lines {
				b := event.NewBatch("golden")
				// The line must stand in the arena's block, as a reader puts it there, so that Plain is tested too.
				block := b.Arena().Block(len(l) + 4096)
				copy(block, l)
				b.Arena().SetBlock(len(l))
				b.Clean = event.IsClean(block[:len(l)])
				e := b.Append()
				v := p.Parse(block[:len(l):len(l)], e, b.Arena())
				switch {
				case v == Service && !g.all:
					got = fmt.Appendf(got, "service: %s\n", p.Reason())
				case v == Service:
					got = fmt.Appendf(got, "service: %s: ", p.Reason())
					got = enc.Encode(got, e, &s)
				default:
					got = enc.Encode(got, e, &s)
				}
			}
			if string(got) == g.want {
				return
			}
			if *update {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				input, _, _ := bytes.Cut(b, []byte("----\n"))
				input = append(append(bytes.Clone(input), "----\n"...), got...)
				if err := os.WriteFile(path, input, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := strings.SplitAfter(g.want, "\n")
			for i, l := range strings.SplitAfter(string(got), "\n") {
				if i >= len(want) || l != want[i] {
					w := ""
					if i < len(want) {
						w = want[i]
					}
					t.Errorf("line %d:\n got %s\nwant %s", i+1, l, w)
				}
			}
		})
	}
}

// TestGoldenCoversEveryFormat holds whoever adds a format to adding its lines.
func TestGoldenCoversEveryFormat(t *testing.T) {
	for _, n := range Names() {
		if _, err := os.Stat("testdata/" + n + ".txt"); err != nil {
			t.Errorf("format %s has no golden file: %v", n, err)
		}
	}
}
