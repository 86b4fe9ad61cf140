package enrich

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Lookup sets fields from the row of a table.
type Lookup struct {
	Table string            `yaml:"table" required:"true" example:"/etc/stacktrail/projects.csv" doc:"File with the table: .csv with a line of names first, or .json with a list of flat objects. Read again when it changes."`
	On    string            `yaml:"on" required:"true" example:"project_id" doc:"Field whose value is looked up."`
	Key   string            `yaml:"key" required:"true" example:"id" doc:"Column that holds these values; each stands there once."`
	Set   map[string]string `yaml:"set" required:"true" example:"{project_name: name}" doc:"Fields to set, each with the column that it is set from. An empty cell sets nothing."`
}

// maxTable is the largest file: every lane holds the table once.
const maxTable = 16 << 20

// Validate reads the table and reports what is wrong with it.
func (l Lookup) Validate() error {
	if l.Table == "" || l.On == "" || l.Key == "" {
		return nil // said already
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.Set)) {
		err := changeable(name)
		if f := schema.Lookup(name); err == nil && f != nil && !fromText(f.Type) {
			err = fmt.Errorf("%s holds values of type %s, a table has none", name, f.Type)
		}
		if err != nil {
			errs = append(errs, conf.KeyError{Key: setKey(name), Err: err})
		}
	}
	if len(l.Set) == 0 {
		errs = append(errs, conf.KeyError{Key: "set", Err: errors.New("name a field at least")})
	}
	if !filepath.IsAbs(l.Table) {
		errs = append(errs, conf.KeyError{Key: "table", Err: errors.New("expected an absolute path")})
	}
	if len(errs) == 0 {
		if _, _, err := l.load(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func setKey(name string) string {
	if plainKey.MatchString(name) {
		return "set." + name
	}
	return fmt.Sprintf("set[%q]", name)
}

// fromText reports whether a cell's text can become a value of this kind.
func fromText(k event.Kind) bool {
	return k == event.String || k == event.Int || k == event.Float || k == event.Bool
}

// kindFor is the kind of a field that a table sets. The ends of names that are not of the schema tell it as those of the schema do.
func kindFor(name string) event.Kind {
	if f := schema.Lookup(name); f != nil {
		return f.Type
	}
	switch {
	case strings.HasSuffix(name, "_int"):
		return event.Int
	case strings.HasSuffix(name, "_num"):
		return event.Float
	case strings.HasSuffix(name, "_bool"):
		return event.Bool
	}
	return event.String
}

// cell turns a cell's text into the value of a field.
func cell(text string, k event.Kind) (event.Value, error) {
	if text == "" {
		return event.Value{}, nil
	}
	switch k {
	case event.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return event.Value{}, fmt.Errorf("%q is no whole number", short(text))
		}
		return event.IntValue(n), nil
	case event.Float:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return event.Value{}, fmt.Errorf("%q is no number", short(text))
		}
		return event.FloatValue(f), nil
	case event.Bool:
		if text != "true" && text != "false" {
			return event.Value{}, fmt.Errorf("%q is neither true nor false", short(text))
		}
		return event.BoolValue(text == "true"), nil
	}
	return event.StringValue(text), nil
}

// short keeps messages on a line.
func short(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// rows holds for each key the values of the fields of Lookup.Set, in the order of their names. It is never changed.
type rows map[string][]event.Value

// load reads the table. Its errors are conf.KeyErrors of the section.
func (l Lookup) load() (rows, fs.FileInfo, error) {
	fault := func(err error) (rows, fs.FileInfo, error) { return nil, nil, conf.KeyError{Key: "table", Err: err} }
	data, info, err := readTable(l.Table)
	if err != nil {
		return fault(err)
	}
	var head []string
	var lines []line
	switch filepath.Ext(l.Table) {
	case ".csv":
		head, lines, err = readCSV(data)
	case ".json":
		head, lines, err = readJSON(data)
	default:
		return fault(errors.New("expected a name that ends in .csv or .json"))
	}
	at := func(n int, err error) error { return fmt.Errorf("%s:%d: %w", l.Table, n, err) }
	if err != nil {
		if e := (*lineError)(nil); errors.As(err, &e) {
			return fault(at(e.line, e.error))
		}
		return fault(fmt.Errorf("%s: %w", l.Table, err))
	}
	if len(lines) == 0 {
		return fault(fmt.Errorf("%s: the table has no rows", l.Table))
	}
	column := func(key, name string) (int, error) {
		i := slices.Index(head, name)
		if i >= 0 {
			return i, nil
		}
		hint := "it has " + short(strings.Join(head, ", "))
		if s := conf.Suggest(name, head); s != "" {
			hint = fmt.Sprintf("did you mean %q?", s)
		}
		return 0, conf.KeyError{Key: key, Err: fmt.Errorf("%s has no column %q (%s)", l.Table, name, hint)}
	}
	var errs []error
	keyAt, err := column("key", l.Key)
	errs = append(errs, err)
	names := slices.Sorted(maps.Keys(l.Set))
	from := make([]int, len(names))
	for i, name := range names {
		from[i], err = column(setKey(name), l.Set[name])
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	table := make(rows, len(lines))
	first := make(map[string]int, len(lines))
	for _, x := range lines {
		key := x.cells[keyAt]
		if key == "" {
			return fault(at(x.number, fmt.Errorf("column %q is empty", l.Key)))
		}
		if n, twice := first[key]; twice {
			return fault(at(x.number, fmt.Errorf("%q stands in line %d already", short(key), n)))
		}
		first[key] = x.number
		values := make([]event.Value, len(names))
		for i, name := range names {
			if values[i], err = cell(x.cells[from[i]], kindFor(name)); err != nil {
				return fault(at(x.number, fmt.Errorf("column %q: %w, as %s wants", l.Set[name], err, name)))
			}
		}
		table[key] = values
	}
	return table, info, nil
}

// line is a row with the line of the file that it begins in.
type line struct {
	number int
	cells  []string
}

// lineError is a fault at a line of the table.
type lineError struct {
	line int
	error
}

func readTable(path string) ([]byte, fs.FileInfo, error) {
	fault := func(err error) ([]byte, fs.FileInfo, error) {
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	info, err := os.Stat(path) // before it is opened: a named pipe would block
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return fault(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return fault(err)
	}
	defer func() { _ = f.Close() }()
	if info, err = f.Stat(); err != nil {
		return fault(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err == nil && len(data) > maxTable {
		err = fmt.Errorf("larger than %v", conf.Size(maxTable))
	}
	if err != nil {
		return fault(err)
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), info, nil
}

func readCSV(data []byte) (head []string, lines []line, err error) {
	r := csv.NewReader(bytes.NewReader(data))
	for {
		cells, err := r.Read()
		switch e := (*csv.ParseError)(nil); {
		case errors.Is(err, io.EOF):
			return head, lines, nil
		case errors.As(err, &e):
			if errors.Is(err, csv.ErrFieldCount) {
				return nil, nil, &lineError{e.Line, fmt.Errorf("%d cells where the first line has %d", len(cells), len(head))}
			}
			return nil, nil, &lineError{e.Line, fmt.Errorf("column %d: %w", e.Column, e.Err)}
		case err != nil:
			return nil, nil, err
		}
		n, _ := r.FieldPos(0)
		if head != nil {
			lines = append(lines, line{n, cells})
			continue
		}
		head = cells
		for i, name := range head {
			if slices.Contains(head[:i], name) {
				return nil, nil, &lineError{n, fmt.Errorf("two columns are named %q", short(name))}
			}
		}
	}
}

func readJSON(data []byte) (head []string, lines []line, err error) {
	at := func(offset int64) int { return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n")) }
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	fault := func(err error) ([]string, []line, error) {
		offset := d.InputOffset()
		if e := (*json.SyntaxError)(nil); errors.As(err, &e) {
			offset = e.Offset
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			offset, err = int64(len(data)), errors.New("the JSON ends too early")
		}
		return nil, nil, &lineError{at(offset), err}
	}
	const shape = `expected a list of flat objects: [{"column": "text", …}, …]`
	if t, err := d.Token(); err != nil {
		return fault(err)
	} else if t != json.Delim('[') {
		return fault(errors.New(shape))
	}
	columns := map[string]int{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return fault(err)
		}
		if t != json.Delim('{') {
			return fault(errors.New(shape))
		}
		x := line{number: at(d.InputOffset())}
		seen := map[string]bool{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return fault(err)
			}
			key := name.(string) // the decoder lets nothing else be a key
			if seen[key] {
				return fault(fmt.Errorf("%q stands twice in one object", short(key)))
			}
			seen[key] = true
			v, err := d.Token()
			if err != nil {
				return fault(err)
			}
			i, known := columns[key]
			if !known {
				i = len(head)
				columns[key], head = i, append(head, key)
			}
			for len(x.cells) <= i {
				x.cells = append(x.cells, "")
			}
			switch v := v.(type) {
			case string:
				x.cells[i] = v
			case json.Number:
				x.cells[i] = v.String()
			case bool:
				x.cells[i] = strconv.FormatBool(v)
			case nil:
			default:
				return fault(fmt.Errorf("%q holds a list or an object: %s", short(key), shape))
			}
		}
		if _, err := d.Token(); err != nil {
			return fault(err)
		}
		lines = append(lines, x)
	}
	if _, err := d.Token(); err != nil {
		return fault(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault(errors.New("something follows the list"))
	}
	for i := range lines {
		lines[i].cells = append(lines[i].cells, make([]string, len(head)-len(lines[i].cells))...)
	}
	return head, lines, nil
}
