package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// lineExplainer is what the configuration of an input that reads lines can do: it says how a line is read. kind is envelope,
// attempt, record, service or unparsed.
type lineExplainer interface {
	Explain(line []byte, file string, say func(kind, name, place, text string, at int)) error
}

// attempt is a format that a line followed in part.
type attempt struct {
	format, place, text string
	at                  int
}

// explainLine says how a line is read: what is around it, which formats it follows and how far, and what becomes of it.
func explainLine(reg *plugins.Registry, opt parseOptions, files []string, out io.Writer) error {
	if len(files) > 1 {
		return errors.New("--explain takes one FILE at most: the name of the file that the line is of")
	}
	cfg, err := explainer(reg, opt)
	if err != nil {
		return err
	}
	file := ""
	if len(files) == 1 {
		file = files[0]
	}
	var b bytes.Buffer
	var tries []attempt
	outcome := ""
	err = cfg.Explain([]byte(opt.explain), file, func(kind, name, place, text string, at int) {
		switch kind {
		case "envelope":
			fmt.Fprintf(&b, "envelope  %s\n", name)
		case "attempt":
			tries = append(tries, attempt{name, place, text, at})
		case "record":
			fmt.Fprintf(&b, "record    %s\n", name)
		case "service":
			fmt.Fprintf(&b, "no access line, but one that is known: %s\n", name)
		default:
			fmt.Fprintf(&b, "unparsed  %s\n", name)
		}
		outcome = kind
	})
	if err != nil {
		return err
	}
	writeAttempts(&b, tries)
	if outcome == "unparsed" {
		if err := writeOthers(&b, reg, tries); err != nil {
			return err
		}
	}
	if _, err = out.Write(b.Bytes()); errors.Is(err, syscall.EPIPE) {
		return nil // whoever reads has enough
	}
	return fail(exitFailure, err)
}

// explainer is the configuration of an input that reads lines with the settings of the flags.
func explainer(reg *plugins.Registry, opt parseOptions) (lineExplainer, error) {
	spec, _, err := lineConfig(reg)
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(map[string]any{"format": opt.format, "timezone": opt.timezone, "records": opt.records})
	if err != nil {
		return nil, fmt.Errorf("preparing: %w", err)
	}
	node, faults := conf.Parse("flags", doc)
	if len(faults) > 0 {
		return nil, fmt.Errorf("preparing: %w", faults.Err())
	}
	v, faults := conf.DecodeAny(node, spec.Defaults)
	for _, f := range faults {
		switch f.Path {
		case "format", "timezone", "records":
			return nil, flagFault(f)
		}
	}
	x, ok := v.(lineExplainer)
	if !ok {
		return nil, fmt.Errorf("BUG: input %q lists formats and explains none", spec.Name)
	}
	return x, nil
}

// writeAttempts lists the formats that were followed, the furthest first, with a mark where the line parts from each.
func writeAttempts(w io.Writer, tries []attempt) {
	sort.SliceStable(tries, func(i, j int) bool { return tries[i].at > tries[j].at })
	for i := 0; i < len(tries); i++ {
		t := tries[i]
		names := []string{t.format}
		for ; i+1 < len(tries) && tries[i+1].at == t.at && tries[i+1].place == t.place && tries[i+1].text == t.text; i++ {
			names = append(names, tries[i+1].format)
		}
		n := len(t.text)
		fmt.Fprintf(w, "\n%s: %d of %d bytes fit; then %s was expected\n", strings.Join(names, ", "), min(t.at, n), n, wanted(t.place))
		const before, after = 60, 40
		at := min(t.at, n)
		from, to := max(0, at-before), min(n, at+after)
		head, tail := shown(t.text[from:at]), shown(t.text[at:to])
		if from > 0 {
			head = "…" + head
		}
		if to < n {
			tail += "…"
		}
		fmt.Fprintf(w, "  %s%s\n  %s^\n", head, tail, strings.Repeat(" ", len([]rune(head))))
	}
}

// writeOthers lists the formats that the line parts from before it parts from those above.
func writeOthers(w io.Writer, reg *plugins.Registry, tries []attempt) error {
	list, err := listFormats(reg, nil)
	if err != nil {
		return err
	}
	var names []string
	for _, f := range list {
		if !slices.ContainsFunc(tries, func(t attempt) bool { return t.format == f.Name }) {
			names = append(names, f.Name)
		}
	}
	fmt.Fprintln(w)
	if len(tries) == 0 {
		wrapWords(w, "It follows none of ", "  ", names)
	} else {
		wrapWords(w, "It parts earlier from ", "  ", names)
	}
	_, err = fmt.Fprintln(w, "The command formats shows an example of each.")
	return err
}

// shown is a text as a terminal may have it; its quotes stay as they are.
func shown(s string) string { return strings.ReplaceAll(printable([]byte(s)), `\"`, `"`) }

// wanted words the name of a place.
func wanted(place string) string {
	switch place {
	case "prefix":
		return "its prefix"
	case "tail":
		return "the rest of its fields"
	case "end":
		return "the line's end"
	}
	return "its " + place
}
