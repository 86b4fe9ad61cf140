//go:build blackbox

package scripts

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// delivered is a record as the agent wrote it.
type delivered struct {
	RecordClass string  `json:"record_class"`
	RequestID   string  `json:"request_id"`
	Method      string  `json:"method"`
	Path        string  `json:"path"`
	Query       string  `json:"query"`
	Status      int     `json:"api_response_code_int"`
	Size        *int    `json:"api_response_size_int"`
	Time        float64 `json:"api_response_time_num"`
	Format      string  `json:"format"`
	Truncated   bool    `json:"truncated_bool"`
	Original    string  `json:"original"`
}

// verdict is the difference between what was written and what arrived.
type verdict struct {
	records    int
	missing    []record
	duplicate  []record
	corrupt    []string // lines of the output that are no record as it was written
	outOfOrder []record
	others     []delivered // truncated or unparsed ones, whatever they are
}

// verifier compares output files with what writers wrote, by exact arithmetic over sets of records.
type verifier struct {
	written map[int]int // lines by stream
	seen    map[int][]uint8
	last    map[int]int
	v       verdict
	scratch []byte
}

func newVerifier(writers ...*writer) *verifier {
	v := &verifier{written: map[int]int{}, seen: map[int][]uint8{}, last: map[int]int{}}
	for _, w := range writers {
		v.expect(w.stream, w.count())
	}
	return v
}

// expect says that a stream has this many records.
func (v *verifier) expect(stream, n int) {
	v.written[stream], v.seen[stream], v.last[stream] = n, make([]uint8, n), -1
}

// file reads an output file to its end. Several files are read in the order in which they were written.
func (v *verifier) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !strings.HasSuffix(path, ".gz") {
		return v.read(f)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	return v.read(z)
}

func (v *verifier) read(from io.Reader) error {
	r := bufio.NewReaderSize(from, 1<<20)
	var long []byte
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if errors.Is(err, io.EOF) {
			if len(line) > 0 {
				v.corrupt(line, "no newline at the end")
			}
			return nil
		}
		if err != nil {
			return err
		}
		v.line(line[:len(line)-1])
		long = long[:0]
	}
}

func (v *verifier) corrupt(line []byte, why string) {
	if len(v.v.corrupt) < 20 {
		v.v.corrupt = append(v.v.corrupt, fmt.Sprintf("%s: %.300q", why, line))
	}
}

func (v *verifier) line(line []byte) {
	v.v.records++
	var d delivered
	if err := json.Unmarshal(line, &d); err != nil {
		v.corrupt(line, err.Error())
		return
	}
	if d.Truncated || d.RecordClass != "api_access" {
		v.v.others = append(v.v.others, d)
		return
	}
	r, found := recordOf(d.Path)
	switch n, known := v.written[r.stream]; {
	case !found || !known || r.seq >= n:
		v.corrupt(line, "never written")
		return
	default:
		if why := v.differs(r, d); why != "" {
			v.corrupt(line, why)
			return
		}
	}
	if v.seen[r.stream][r.seq]++; v.seen[r.stream][r.seq] == 2 {
		v.v.duplicate = append(v.v.duplicate, r)
	}
	if r.seq < v.last[r.stream] {
		v.v.outOfOrder = append(v.v.outOfOrder, r)
	}
	v.last[r.stream] = r.seq
}

// recordOf finds stream and number in a path.
func recordOf(path string) (r record, found bool) {
	rest, found := strings.CutPrefix(path, "/v2.1/servers/s")
	a, b, dash := strings.Cut(rest, "-")
	var err1, err2 error
	r.stream, err1 = strconv.Atoi(a)
	r.seq, err2 = strconv.Atoi(b)
	return r, found && dash && err1 == nil && err2 == nil && r.seq >= 0
}

// differs compares every field with what the record's number says.
func (v *verifier) differs(r record, d delivered) string {
	if v.scratch = r.appendRequestID(v.scratch[:0]); string(v.scratch) != d.RequestID {
		return "request_id is not " + string(v.scratch)
	}
	if v.scratch = r.appendPath(v.scratch[:0]); string(v.scratch) != d.Path {
		return "path is not " + string(v.scratch)
	}
	if v.scratch = r.appendQuery(v.scratch[:0]); string(v.scratch) != d.Query {
		return "query is not " + string(v.scratch)
	}
	if d.Original != "" {
		if v.scratch = r.appendLine(v.scratch[:0]); d.Original != string(bytes.TrimSuffix(v.scratch, []byte{'\n'})) {
			return "original is not the line"
		}
	}
	switch {
	case d.Method != "GET":
		return "method is not GET"
	case d.Status != r.status():
		return fmt.Sprint("status is not ", r.status())
	case d.Size == nil || *d.Size != r.size():
		return fmt.Sprint("size is not ", r.size())
	case fmt.Sprintf("%.6f", d.Time) != fmt.Sprintf("%d.%06d", r.micros()/1e6, r.micros()%1e6):
		return fmt.Sprint("time is not ", r.micros(), " microseconds")
	}
	return ""
}

// result returns the difference.
func (v *verifier) result() verdict {
	for stream, n := range v.written {
		for seq := range n {
			if v.seen[stream][seq] == 0 {
				v.v.missing = append(v.v.missing, record{stream, seq})
			}
		}
	}
	return v.v
}

// exact reports every difference as a failure: nothing missing, double, corrupt or out of order.
func (v verdict) exact(t testing.TB) {
	t.Helper()
	if text := v.faults(); text != "" {
		t.Errorf("what arrived is not what was written (%d records):\n%s", v.records, text)
	}
}

func (v verdict) faults() string {
	var b strings.Builder
	list := func(what string, rs []record) {
		if len(rs) > 0 {
			fmt.Fprintf(&b, "%d %s: %v\n", len(rs), what, rs[:min(len(rs), 20)])
		}
	}
	list("missing", v.missing)
	list("duplicate", v.duplicate)
	list("out of order", v.outOfOrder)
	if len(v.corrupt) > 0 {
		fmt.Fprintf(&b, "%d or more corrupt:\n  %s\n", len(v.corrupt), strings.Join(v.corrupt, "\n  "))
	}
	return b.String()
}

// verify compares the files with the writers and expects no difference and no record beside.
func verify(t testing.TB, writers []*writer, paths ...string) verdict {
	t.Helper()
	v := newVerifier(writers...)
	for _, p := range paths {
		ok(t, v.file(p))
	}
	r := v.result()
	r.exact(t)
	return r
}

// arrivals counts the lines of a growing output file.
type arrivals struct {
	path  string
	at    int64
	n     int
	whole time.Time // when it was counted from the beginning
}

// lines returns how many whole lines there are by now. An agent that starts may cut the file back and write it again, so it is counted
// anew every second.
func (a *arrivals) lines() int {
	if now := time.Now(); now.Sub(a.whole) > time.Second {
		a.at, a.n, a.whole = 0, 0, now
	}
	f, err := os.Open(a.path)
	if err != nil {
		return a.n
	}
	defer f.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := f.ReadAt(buf, a.at)
		a.n += bytes.Count(buf[:n], []byte{'\n'})
		a.at += int64(n)
		if err != nil {
			return a.n
		}
	}
}

// arrive waits until the output has this many lines.
func arrive(t testing.TB, a *agent, path string, n int) {
	t.Helper()
	c := &arrivals{path: path}
	if !poll(10*time.Millisecond, patience, func() bool { return c.lines() >= n || a.ended() }) {
		t.Errorf("only %d of %d records arrived within %v", c.lines(), n, patience)
	}
	a.alive()
}

func TestVerifierSeesEveryKindOfFault(t *testing.T) {
	t.Parallel()
	line := func(seq int) string {
		r := record{1, seq}
		n := r.size()
		p, err := json.Marshal(delivered{
			RecordClass: "api_access", RequestID: string(r.appendRequestID(nil)), Method: "GET", Path: string(r.appendPath(nil)),
			Query: string(r.appendQuery(nil)), Status: r.status(), Size: &n, Time: float64(r.micros()) / 1e6,
		})
		ok(t, err)
		return string(p) + "\n"
	}
	whole := line(0) + line(1) + line(2) + line(3)
	for name, c := range map[string]struct{ text, want string }{
		"nothing wrong":     {whole, ""},
		"a line hidden":     {line(0) + line(2) + line(3), "1 missing: [{1 1}]\n"},
		"a line doubled":    {line(0) + line(1) + line(2) + line(3) + line(3), "1 duplicate: [{1 3}]\n"},
		"two swapped":       {line(0) + line(2) + line(1) + line(3), "1 out of order: [{1 1}]\n"},
		"one byte changed":  {strings.Replace(whole, "pad=", "pae=", 1), "missing"},
		"torn at the end":   {whole[:len(whole)-1], "no newline at the end"},
		"two glued":         {strings.Replace(whole, "}\n{", "}{", 1), "corrupt"},
		"one never written": {whole + line(4), "never written"},
	} {
		v := newVerifier()
		v.expect(1, 4)
		ok(t, v.read(strings.NewReader(c.text)))
		r := v.result()
		if got := r.faults(); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: verdict %q, want %q", name, got, c.want)
		}
	}
}

// lines reads a log instead of an output: which records stand in it as whole lines.
func (v *verifier) lines(path string) error {
	p, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(p) {
		_, rest, found := bytes.Cut(line, []byte(`"GET `))
		target, _, cut := bytes.Cut(rest, []byte{'?'})
		r, is := recordOf(string(target))
		if found && cut && is && bytes.Equal(line, r.appendLine(nil)) && r.seq < v.written[r.stream] {
			v.seen[r.stream][r.seq]++
		}
	}
	return nil
}

// holds reports whether a file contains a text.
func holds(path, text string) bool {
	p, err := os.ReadFile(path)
	return err == nil && bytes.Contains(p, []byte(text))
}
