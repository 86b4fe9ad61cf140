//go:build blackbox

package scripts

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The plugins of plugins/examples under the real agent.

// buildExample builds an example in a copy of its folder, against this repository.
func (b *box) buildExample(name string) (program string) {
	b.t.Helper()
	dir := filepath.Join(b.dir, "src-"+name)
	ok(b.t, os.CopyFS(dir, os.DirFS("../../plugins/examples/"+name)))
	root := must[string](b.t)(filepath.Abs("../.."))
	sum := must[[]byte](b.t)(os.ReadFile(filepath.Join(root, "go.sum")))
	own, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	ok(b.t, os.WriteFile(filepath.Join(dir, "go.sum"), append(sum, own...), 0o644))
	program = filepath.Join(b.dir, name)
	for _, argv := range [][]string{
		{"go", "mod", "edit", "-replace=github.com/stacktrail/stacktrail=" + root},
		{"go", "build", "-mod=mod", "-o", program, "."},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "PWD="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			b.t.Fatalf("building the example %s (its modules come from the module cache, or from the network the first time): %v: %s", name, err, lines[len(lines)-1])
		}
	}
	return program
}

// processesOf lists the processes of a program.
func processesOf(program string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, p := range all {
		if exe, err := os.Readlink(p); err == nil && exe == program {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// mmdb makes a MaxMind database with one record for all IPv4 addresses. (The example's own tests make larger ones.)
func mmdb(country string) []byte {
	text := func(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) } // shorter than 29
	number := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{5<<5 | 2}, n) }
	table := func(pairs ...[]byte) []byte {
		return append([]byte{7<<5 | byte(len(pairs)/2)}, bytes.Join(pairs, nil)...)
	}
	const nodes, separator = 1, 16
	record := []byte{0, 0, nodes + separator} // the data at offset 0
	return slices.Concat(
		record, record, make([]byte, separator),
		table(text("country"), table(text("iso_code"), text(country))),
		[]byte("\xab\xcd\xefMaxMind.com"),
		table(
			text("binary_format_major_version"), number(2), text("binary_format_minor_version"), number(0),
			text("node_count"), number(nodes), text("record_size"), number(24), text("ip_version"), number(4),
			text("database_type"), text("Test-Country"),
		),
	)
}

// pipeline makes a configuration with these plugins, processors and outputs beside the file.
func (b *box) pipeline(programs []string, processors, output string) {
	b.t.Helper()
	b.write(setup{also: output, every: "2s"}) // so that a kill has something sent again
	var paths []string
	for _, p := range programs {
		paths = append(paths, "{path: "+p+"}")
	}
	text := string(must[[]byte](b.t)(os.ReadFile(b.config)))
	text = strings.Replace(text, "pipelines:", "plugins: ["+strings.Join(paths, ", ")+"]\npipelines:", 1)
	text = strings.Replace(text, "    outputs:", "    processors: ["+processors+"]\n    outputs:", 1)
	ok(b.t, os.WriteFile(b.config, []byte(text), 0o644))
}

// rows returns the column event of the example sqlite's table.
func (b *box) rows(db string) (events [][]byte) {
	b.t.Helper()
	const program = "import sqlite3, sys\nfor r in sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True).execute('SELECT event FROM events'): print(r[0])"
	out, err := exec.Command("python3", "-c", program, db).Output()
	if err != nil {
		b.t.Fatalf("reading %s: %v", db, err)
	}
	return bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
}

// onceEach proves that each of n events is there once, was masked, and has its country.
func onceEach(t *testing.T, where string, lines [][]byte, n int) {
	t.Helper()
	ids := map[string]bool{}
	for _, line := range lines {
		var e struct {
			ID      string `json:"event_id"`
			Path    string `json:"path"`
			Query   string `json:"query"`
			Country string `json:"client_country"`
		}
		ok(t, json.Unmarshal(line, &e))
		if !strings.HasSuffix(e.Query, "&crc=***") || e.Country != "CH" {
			t.Fatalf("%s: an event passed a plugin by: %s", where, line)
		}
		ids[e.Path] = true // the tests' paths have a number
	}
	if len(ids) != n || len(lines) != n {
		t.Errorf("%s: %d events, %d different ones, %d were written", where, len(lines), len(ids), n)
	}
}

// TestExamplesTogether: two processors and an output, each in its process, which is killed again and again, and so is the agent.
func TestExamplesTogether(t *testing.T) {
	b := newBox(t)
	b.brief = true
	var programs []string
	for _, name := range []string{"mask", "geoip", "sqlite"} {
		programs = append(programs, b.buildExample(name))
	}
	place, db := filepath.Join(b.dir, "country.mmdb"), filepath.Join(b.dir, "out", "events.db")
	ok(t, os.WriteFile(place, mmdb("CH"), 0o644))
	b.pipeline(programs, fmt.Sprintf(`{mask: {pattern: 'crc=\w+', with: 'crc=***'}}, {geoip: {databases: [%s]}}`, place), "sqlite: {path: "+db+"}, id: db, batch: {linger: 10ms}")
	w := newWriter(t, b.log("api.log"), 0)
	var a *agent
	victims := []string{programs[0], programs[1], programs[2], ""} // "": the agent
	for k := range 12 {
		if a == nil {
			a = b.start()
			a.says("msg=started")
		}
		before := size(b.out)
		w.lines(300)
		waitFor(t, "events arrive", func() bool { return size(b.out) > before || a.ended() })
		a.alive()
		if victim := victims[k%len(victims)]; victim == "" {
			waitFor(t, "the database has them", func() bool { return len(b.rows(db)) == w.count() })
			a.kill() // before the checkpoint knows
			a = nil
		} else {
			for _, pid := range processesOf(victim) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	if a != nil {
		a.stop()
	}
	if r := b.once(); r.code != 0 {
		t.Fatalf("the last start ended with code %d", r.code)
	}
	lines := bytes.Split(bytes.TrimSuffix(must[[]byte](t)(os.ReadFile(b.out)), []byte("\n")), []byte("\n"))
	onceEach(t, "the file", lines, w.count())
	onceEach(t, "the database", b.rows(db), w.count())
	if dead, _ := filepath.Glob(filepath.Join(b.state(), "dead", "main", "*.ndjson")); len(dead) > 0 {
		t.Errorf("there are dead events: %s", must[[]byte](t)(os.ReadFile(dead[0])))
	}
	for _, p := range programs {
		waitFor(t, "no plugin is left", func() bool { return len(processesOf(p)) == 0 })
	}
}

// TestExamplesSayWhatIsWrong: in the configuration with its place, at the start in a sentence.
func TestExamplesSayWhatIsWrong(t *testing.T) {
	b := newBox(t)
	mask, geoip, sqlite := b.buildExample("mask"), b.buildExample("geoip"), b.buildExample("sqlite")
	ok(t, os.WriteFile(filepath.Join(b.dir, "text.mmdb"), []byte("no database"), 0o644))
	newWriter(t, b.log("api.log"), 0).lines(5)
	for _, c := range []struct {
		program, processor, output, says string
		checked                          bool // check finds it too
	}{
		{mask, "{mask: {pattern: '['}}", "", ":7:26: pipelines[0].processors[0].mask.pattern: error parsing regexp: missing closing ]", true},
		{mask, "{mask: {pattern: x, fields: [query, qurey]}}", "", `pipelines[0].processors[0].mask.fields[1]: there is no field "qurey"`, true},
		{geoip, "{geoip: {database: [/x]}}", "", `unknown key "database" (did you mean "databases"?)`, true},
		{geoip, "{geoip: {databases: [x]}}", "", `geoip.databases[0]: "x" is no absolute path`, true},
		{geoip, "{geoip: {databases: [/none.mmdb]}}", "", "opening database /none.mmdb: no such file or directory", false},
		{geoip, "{geoip: {databases: [" + b.dir + "/text.mmdb]}}", "", "invalid MaxMind DB file", false},
		{sqlite, "", "sqlite: {path: events.db}", `sqlite.path: "events.db" is no absolute path`, true},
		{sqlite, "", "sqlite: {path: /none/events.db}", "opening database /none/events.db: no such file or directory", false},
	} {
		if c.output == "" {
			c.output = "blackhole: {}"
		}
		b.pipeline([]string{c.program}, c.processor, c.output+", id: more")
		r := command(t, "check", "-c", b.config)
		if !c.checked {
			if r.code != 0 {
				t.Errorf("%s%s: check touches what is outside: %s", c.processor, c.output, r.errors)
			}
			a := b.start()
			a.says(c.says)
			a.kill()
			continue
		}
		if r.code != 78 || !strings.Contains(r.errors, c.says) {
			t.Errorf("%s %s: check ended with code %d and said\n%s\nwant %s", c.processor, c.output, r.code, r.errors, c.says)
		}
	}
}
