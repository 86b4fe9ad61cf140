package agent

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/plugins"
)

func newDeadLetterCommand(reg *plugins.Registry) *cobra.Command {
	var flags configFlags
	var stateDir string
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look at the dead letters",
		Long: `dlq shows the events that outputs will never accept, each with the reason. They lie under <state_dir>/dead as NDJSON, one file for
each pipeline and output; what died in a processor is told by place and reason only. It may be used while the agent runs.`,
		Example: "  stacktrail dlq list\n  stacktrail dlq show controller/es | jq .dead_reason | sort | uniq -c",
	}
	cmd.PersistentFlags().StringVar(&stateDir, "state-dir", "", "the agent's state directory; empty: the configuration's agent.state_dir")
	flags.add(cmd.PersistentFlags())
	find := func() ([]letters, error) {
		dir := stateDir
		if dir == "" {
			cfg, err := flags.load(reg)
			if err != nil {
				return nil, err
			}
			dir = cfg.Agent.StateDir
		}
		all, err := findLetters(filepath.Join(dir, "dead"))
		return all, fail(exitFailure, err)
	}
	var format string
	list := &cobra.Command{
		Use: "list", Short: "List what there is, by pipeline and output", Example: "  stacktrail dlq list -o json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"text", "json"}, format) {
				return fmt.Errorf("--output is text or json, not %q", format)
			}
			all, err := find()
			if err != nil {
				return err
			}
			return fail(exitFailure, listLetters(cmd.OutOrStdout(), all, format))
		},
	}
	list.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	show := &cobra.Command{
		Use: "show PIPELINE/OUTPUT…", Short: "Print dead letters as NDJSON, the oldest first",
		Long:    "show prints the dead letters of these outputs as NDJSON, the oldest first. 'processors' in the place of an output names what died in a processor.",
		Example: "  stacktrail dlq show controller/es | tail -1 | jq", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := find()
			if err != nil {
				return err
			}
			for _, name := range args {
				i := slices.IndexFunc(all, func(l letters) bool { return l.name() == name })
				if i < 0 {
					return fail(exitFailure, fmt.Errorf("there are no dead letters of %s: see 'stacktrail dlq list'", name))
				}
				w := bufio.NewWriter(cmd.OutOrStdout())
				err := all[i].each(func(line []byte) error {
					_, err := w.Write(append(line, '\n'))
					return err
				})
				if err := cmp.Or(err, w.Flush()); errors.Is(err, syscall.EPIPE) {
					return nil // whoever read has enough
				} else if err != nil {
					return fail(exitFailure, err)
				}
			}
			return nil
		},
	}
	cmd.AddCommand(list, show)
	return group(cmd)
}

// letters are the dead letters of one output.
type letters struct {
	pipeline, output string
	files            []string // the oldest first
}

func (l *letters) name() string { return l.pipeline + "/" + l.output }

// letterFile matches a file of dead letters: the output, and the number under which it was put aside.
var letterFile = regexp.MustCompile(`^(.+)\.ndjson(?:\.([1-9][0-9]*)(?:\.gz)?)?$`)

func findLetters(dir string) ([]letters, error) {
	found := map[string]map[int]string{} // by pipeline/output and number
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && strings.HasSuffix(path, ".state"):
			return filepath.SkipDir
		}
		m := letterFile.FindStringSubmatch(d.Name())
		if d.IsDir() || m == nil {
			return nil
		}
		name := filepath.Base(filepath.Dir(path)) + "/" + m[1]
		if found[name] == nil {
			found[name] = map[int]string{}
		}
		n, _ := strconv.Atoi(m[2]) // "" is the file that is written
		found[name][n] = path
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for dead letters: %w", err)
	}
	var all []letters
	for name, files := range found {
		l := letters{}
		l.pipeline, l.output, _ = strings.Cut(name, "/")
		var numbers []int
		for n := range files {
			numbers = append(numbers, n)
		}
		slices.Sort(numbers)
		for _, n := range slices.Backward(numbers) {
			l.files = append(l.files, files[n])
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b letters) int { return cmp.Compare(a.name(), b.name()) })
	return all, nil
}

// each calls f with every letter, the oldest first. A last line that is still being written is left out.
func (l *letters) each(f func(line []byte) error) error {
	for _, name := range l.files {
		if err := eachLine(name, f); err != nil {
			return fmt.Errorf("reading dead letters: %w", err)
		}
	}
	return nil
}

func eachLine(name string, f func(line []byte) error) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	var r io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			return err
		}
	}
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(line[:len(line)-1]); err != nil {
			return err
		}
	}
}

// letterCount sums up the dead letters of one output.
type letterCount struct {
	Pipeline string         `json:"pipeline"`
	Output   string         `json:"output"`
	Files    []string       `json:"files"`
	Events   int            `json:"events"`
	First    time.Time      `json:"first,omitzero"`
	Last     time.Time      `json:"last,omitzero"`
	Reasons  map[string]int `json:"reasons"`
}

func (l *letters) count() (letterCount, error) {
	c := letterCount{Pipeline: l.pipeline, Output: l.output, Files: l.files, Reasons: map[string]int{}}
	err := l.each(func(line []byte) error {
		var letter struct {
			Reason string    `json:"dead_reason"`
			Time   time.Time `json:"dead_time"`
		}
		c.Events++
		if json.Unmarshal(line, &letter) != nil {
			c.Reasons["(damaged line)"]++
			return nil
		}
		c.Reasons[kindOfReason(letter.Reason)]++
		if c.First.IsZero() {
			c.First = letter.Time
		}
		c.Last = letter.Time
		return nil
	})
	return c, err
}

// kindOfReason leaves out of a reason what differs from event to event: numbers, ids, what stands in quotes.
func kindOfReason(reason string) string { return ofOneEvent.ReplaceAllString(reason, "…") }

var ofOneEvent = regexp.MustCompile(`'[^']*'|"[^"]*"|\b[0-9a-f]{16,}\b|\b[0-9]+(:[0-9]+)*\b`)

// shownReasons is how many reasons list names for each output.
const shownReasons = 5

func listLetters(w io.Writer, all []letters, format string) error {
	counts := []letterCount{}
	for i := range all {
		c, err := all[i].count()
		if err != nil {
			return err
		}
		counts = append(counts, c)
	}
	if format == "json" {
		return json.NewEncoder(w).Encode(counts)
	}
	if len(counts) == 0 {
		fmt.Fprintln(w, "there are no dead letters")
	}
	for _, c := range counts {
		if c.Events == 0 {
			continue
		}
		fmt.Fprintf(w, "%s/%s: %s from %s to %s in %s\n", c.Pipeline, c.Output, count(c.Events, "event"),
			c.First.UTC().Format(time.RFC3339), c.Last.UTC().Format(time.RFC3339), count(len(c.Files), "file"))
		var reasons []string
		for r := range c.Reasons {
			reasons = append(reasons, r)
		}
		slices.SortFunc(reasons, func(a, b string) int { return cmp.Or(c.Reasons[b]-c.Reasons[a], cmp.Compare(a, b)) })
		for i, r := range reasons {
			if i == shownReasons {
				fmt.Fprintf(w, "  … and %d more reasons\n", len(reasons)-i)
				break
			}
			fmt.Fprintf(w, "  %d: %s\n", c.Reasons[r], r)
		}
	}
	return nil
}
