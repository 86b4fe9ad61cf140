package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The package of the formats has benchmarks of its own, because nobody outside can call the parser. They are built once and run as a
// child each, in turn with the reference program over lines of the same length.
const (
	formatsPackage = "github.com/stacktrail/stacktrail/inputs/internal/formats"
	formatsLines   = "100000x" // how many lines a run parses
	mostOfAFormat  = 60e6      // bytes of lines that the reference program reads for one format
)

// How much of R a line may cost, by what it is, and of what the scanner by hand costs, for one that a template reads.
const (
	mustNova, mustText, mustJSON, mustTemplate = 0.8, 1.5, 4, 2
	novaLine                                   = "text/nova-eventlet"
)

// parsing is what a run of one benchmark says.
type parsing struct{ ns, bytes, allocs float64 }

// formats measures how fast each format is parsed.
func (b *bench) formats(ctx context.Context) ([]row, error) {
	dir := filepath.Join(b.dir, "formats")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("measuring formats: %w", err)
	}
	b.say("formats: building their benchmarks")
	binary := filepath.Join(dir, "formats.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, formatsPackage).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the benchmarks of the formats: %w:\n%s", err, out)
	}
	start, err := b.lines(ctx, filepath.Join(dir, "none"), 1, 1)
	if err != nil {
		return nil, err
	}
	all, err := parseOnce(ctx, binary, "")
	if err != nil {
		return nil, err
	}
	hand := map[string]float64{}
	var rows []row
	allocs := row{name: "formats", what: "allocations per line, the format with the most", detail: fmt.Sprintf("%d kinds of lines", len(all.names))}
	for _, name := range all.names {
		b.say("formats: %s", name)
		x, p, err := b.format(ctx, binary, name, all.of[name].bytes, start)
		if err != nil {
			return nil, err
		}
		if p.allocs > allocs.value {
			allocs.value, allocs.detail = p.allocs, name
		}
		kind, short, _ := strings.Cut(name, "/")
		if by := hand[short]; kind == "own" && by > 0 {
			x.value, x.unit, x.goal, x.must = p.ns/by, "by hand", mustTemplate, mustTemplate
			x.what = "a template for the lines of " + short
			x.detail = fmt.Sprintf("by hand %.0f ns, %s", by, x.detail)
		} else {
			hand[short] = p.ns
		}
		rows = append(rows, x)
	}
	b.say("")
	return append(rows, allocs), nil
}

// format measures one kind of lines. start is what the reference program takes for nothing.
func (b *bench) format(ctx context.Context, binary, name string, length float64, start sample) (row, parsing, error) {
	kind, short, _ := strings.Cut(name, "/")
	x := row{name: "formats", what: short, unit: "R", goal: mustText, must: mustText}
	switch {
	case name == novaLine:
		x.goal, x.must = mustNova, mustNova
	case kind == "JSON":
		x.goal, x.must = mustJSON, mustJSON
	}
	s, err := b.lines(ctx, filepath.Join(b.dir, "formats", "lines"), int(length), min(b.size, mostOfAFormat))
	if err != nil {
		return x, parsing{}, err
	}
	defer func() { _ = os.Remove(s.files[0]) }()
	var bare, reference series
	var least parsing
	for range b.runs {
		for _, of := range []struct {
			what sample
			to   *series
		}{{start, &bare}, {s, &reference}} {
			if err := of.to.add(b.runReference(ctx, of.what, 1, referencePercent)); err != nil {
				return x, least, err
			}
		}
		got, err := parseOnce(ctx, binary, name)
		if err != nil {
			return x, least, err
		}
		p, ok := got.of[name]
		if !ok {
			return x, least, fmt.Errorf("measuring %s: the benchmark says nothing of it", name)
		}
		if least.ns == 0 || p.ns < least.ns {
			least.ns = p.ns
		}
		least.allocs = max(least.allocs, p.allocs)
	}
	cpu := func(c cost) float64 { return float64(c.cpu) }
	r := (reference.least(cpu) - bare.least(cpu)) / float64(s.lines)
	x.value = least.ns / r
	x.detail = fmt.Sprintf("%.0f ns, R %.0f ns, line of %.0f bytes", least.ns, r, length)
	return x, least, ctx.Err()
}

// lines writes a file of lines of one length.
func (b *bench) lines(ctx context.Context, path string, length int, size int64) (sample, error) {
	n := max(1, size/int64(length))
	s := sample{files: []string{path}, lines: n, bytes: n * int64(length)}
	line := append(bytes.Repeat([]byte("x"), length-1), '\n')
	f, err := os.Create(path)
	if err != nil {
		return s, fmt.Errorf("writing lines: %w", err)
	}
	defer func() { _ = f.Close() }() // closed with its error checked below; this is for the ways out before
	block := bytes.Repeat(line, max(1, referenceBlock/length))
	for left := s.bytes; left > 0 && ctx.Err() == nil; {
		k, err := f.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return s, fmt.Errorf("writing lines: %w", err)
		}
		left -= int64(k)
	}
	if err := f.Sync(); err != nil {
		return s, fmt.Errorf("writing lines: %w", err)
	}
	return s, f.Close()
}

// parsings are those of one run, by name and in their order.
type parsings struct {
	names []string
	of    map[string]parsing
}

// benchmarkLine is what a benchmark prints: its name, how often, and figures with their units.
var benchmarkLine = regexp.MustCompile(`(?m)^BenchmarkParse/(\S+?)\s+\d+\s+(.+)$`)

// parseOnce runs the benchmark of that name on one core, or all of them very briefly to learn what there is.
func parseOnce(ctx context.Context, binary, name string) (parsings, error) {
	pattern, count := "^BenchmarkParse$", "1x"
	if name != "" {
		pattern += "/^" + strings.ReplaceAll(regexp.QuoteMeta(name), "/", "$/^") + "$"
		count = formatsLines
	}
	_, out, text, err := start(ctx, 1, binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchtime", count)
	if err != nil {
		return parsings{}, fmt.Errorf("running the benchmarks of the formats: %w:\n%s%s", err, out, text)
	}
	return readParsings(out)
}

// readParsings reads what the benchmarks printed.
func readParsings(out string) (parsings, error) {
	all := parsings{of: map[string]parsing{}}
	for _, m := range benchmarkLine.FindAllStringSubmatch(out, -1) {
		var p parsing
		words := strings.Fields(m[2])
		for i := 0; i+1 < len(words); i += 2 {
			v, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				return all, fmt.Errorf("reading the benchmarks of the formats: %w in %q", err, m[0])
			}
			switch words[i+1] {
			case "cpu-ns/line":
				p.ns = v
			case "bytes/line":
				p.bytes = v
			case "allocs/op":
				p.allocs = v
			}
		}
		if p.ns == 0 || p.bytes == 0 {
			return all, fmt.Errorf("reading the benchmarks of the formats: %q has no time or no length", m[0])
		}
		all.names = append(all.names, m[1])
		all.of[m[1]] = p
	}
	if len(all.names) == 0 {
		return all, fmt.Errorf("reading the benchmarks of the formats: there are none:\n%s", out)
	}
	return all, nil
}
