package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const topRoutes = 15

// print writes the report.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "stacktrail read %d lines of %d files in %v\n", r.said.lines, len(r.read), r.said.took.Round(time.Millisecond))
	fmt.Fprintln(w, "\nLogs, each with its rotated files")
	r.printFiles(w)
	fmt.Fprintln(w, "\nFormats")
	r.printFormats(w)
	fmt.Fprintf(w, "\nDropped: %d health checks and the like, as the configuration says\n", r.said.dropped)
	fmt.Fprintf(w, "\nRequests by route, the %d most frequent (a request counts once for each log that has it)\n", topRoutes)
	r.printRoutes(w)
	fmt.Fprintln(w, "\nThree events")
	for _, e := range r.samples() {
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.TrimSpace(e.line), "  ", "  "); err != nil {
			b.Write(e.line)
		}
		fmt.Fprintf(w, "  %s\n", b.String())
	}
	fmt.Fprintf(w, "\nThe events lie in %s\n", r.out)
	names := map[string]int{}
	for _, e := range r.events {
		names[e.file]++
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(w, "  %-32s %5d lines\n", n, names[n])
	}
}

// table writes rows in columns: the first is text, the others are numbers, but for those whose title begins with a <.
func table(w io.Writer, titles []string, rows [][]string) {
	width := make([]int, len(titles))
	for _, row := range append([][]string{titles}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range append([][]string{titles}, rows...) {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 || strings.HasPrefix(titles[i], "<") {
				line.WriteString("  " + strings.TrimPrefix(cell, "<") + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// rotated finds what a rotation has put behind a file's name.
var rotated = regexp.MustCompile(`\.log\..*$`)

// lineage is the name under which a rotated file was written, below the folder of the logs.
func (r result) lineage(name string) string {
	if rel, err := filepath.Rel(r.logs, name); err == nil && filepath.IsAbs(name) {
		name = rel
	}
	return rotated.ReplaceAllString(name, ".log")
}

// printFiles has a row for each log with its rotated files.
func (r result) printFiles(w io.Writer) {
	type file struct {
		files, lines, shipped int
		formats               map[string]int
	}
	logs := map[string]*file{}
	of := func(name string) *file {
		name = r.lineage(name)
		if logs[name] == nil {
			logs[name] = &file{formats: map[string]int{}}
		}
		return logs[name]
	}
	for name, n := range r.read {
		f := of(name)
		f.files++
		f.lines += n
	}
	for _, e := range r.events {
		f := of(e.LogFile)
		f.shipped++
		f.formats[cmp.Or(e.Format, e.RecordClass)]++
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		f := logs[name]
		rows = append(rows, []string{name, strconv.Itoa(f.files), strconv.Itoa(f.lines), strconv.Itoa(f.shipped), byCount(f.formats)})
	}
	table(w, []string{"", "files", "lines", "shipped", "<as"}, rows)
}

func (r result) printFormats(w io.Writer) {
	kept := map[string]int{}
	for _, e := range r.events {
		kept[e.Format]++
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(r.said.formats)) {
		n := r.said.formats[name]
		rows = append(rows, []string{name, strconv.Itoa(n), strconv.Itoa(n - kept[name]), strconv.Itoa(kept[name])})
	}
	rows = append(rows,
		[]string{"in no known format", strconv.Itoa(r.said.unparsed), strconv.Itoa(r.said.unparsed - kept[""]), strconv.Itoa(kept[""])},
		[]string{"other lines of the services", strconv.Itoa(r.said.skipped), "", ""})
	table(w, []string{"", "lines", "dropped", "shipped"}, rows)
	if len(r.said.reasons) > 0 {
		fmt.Fprintf(w, "  why in no known format: %s\n", byCount(r.said.reasons))
	}
}

// byCount lists names with their counts, the largest first.
func byCount(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
	for i, n := range names {
		names[i] = n + " " + strconv.Itoa(counts[n])
	}
	return strings.Join(names, ", ")
}

type routeCounts struct {
	name    string
	all     int
	classes [6]int // by the first digit of the status
	seconds []float64
}

// routes counts requests by method and route, the most frequent first.
func (r result) routes() []*routeCounts {
	byName := map[string]*routeCounts{}
	for _, e := range r.events {
		if e.Path == "" {
			continue
		}
		name := e.Method + " " + route(e.Path)
		c := byName[name]
		if c == nil {
			c = &routeCounts{name: name}
			byName[name] = c
		}
		c.all++
		if class := e.Status / 100; class >= 1 && class <= 5 {
			c.classes[class]++
		}
		if e.Seconds != nil {
			c.seconds = append(c.seconds, *e.Seconds)
		}
	}
	list := slices.SortedFunc(maps.Values(byName), func(a, b *routeCounts) int {
		return cmp.Or(b.all-a.all, strings.Compare(a.name, b.name))
	})
	for _, c := range list {
		slices.Sort(c.seconds)
	}
	return list
}

func (r result) printRoutes(w io.Writer) {
	var rows [][]string
	all := r.routes()
	for _, c := range all[:min(topRoutes, len(all))] {
		row := []string{c.name, strconv.Itoa(c.all)}
		for class := 2; class <= 5; class++ {
			row = append(row, zeroAsDot(c.classes[class]))
		}
		rows = append(rows, append(row, milliseconds(c.seconds, 50), milliseconds(c.seconds, 95)))
	}
	table(w, []string{"", "requests", "2xx", "3xx", "4xx", "5xx", "p50 ms", "p95 ms"}, rows)
	if rest := len(all) - topRoutes; rest > 0 {
		fmt.Fprintf(w, "  and %d more\n", rest)
	}
}

func zeroAsDot(n int) string {
	if n == 0 {
		return "·"
	}
	return strconv.Itoa(n)
}

// milliseconds is a percentile by nearest rank of sorted seconds.
func milliseconds(sorted []float64, percent int) string {
	if len(sorted) == 0 {
		return "-"
	}
	rank := (len(sorted)*percent + 99) / 100
	return strconv.FormatFloat(sorted[max(rank, 1)-1]*1000, 'f', 1, 64)
}

// samples are three events of different formats, each with what its format can tell: where one has a request id, with that.
func (r result) samples() []shipped {
	var picked []shipped
	for _, format := range []string{"nova-eventlet", "apache-reqid", "haproxy-http", "uwsgi", "apache-combined"} {
		best, score := -1, 0
		for i, e := range r.events {
			n := 0
			for _, has := range []bool{e.Path != "" && e.Status > 0, e.Seconds != nil, e.RequestID != "", e.RequestID != "" && e.Status < 300} {
				if has {
					n++
				}
			}
			if e.Format == format && n > score {
				best, score = i, n
			}
		}
		if best >= 0 && len(picked) < 3 {
			picked = append(picked, r.events[best])
		}
	}
	return picked
}
