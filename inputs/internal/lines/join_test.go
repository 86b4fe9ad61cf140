package lines

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// joined is a record with all that must not depend on how it was read.
type joined struct {
	offset    int64
	raw       string
	message   string
	class     string
	id        string
	truncated bool
	told      string // of the lines before
}

func collect(b *event.Batch) (all []joined) {
	for i := range b.Events {
		e := &b.Events[i]
		message, _ := e.Get("message")
		suspect, _ := e.Get("suspect")
		all = append(all, joined{
			e.Offset, string(e.Raw), strings.Clone(message.Str()), e.RecordClass, e.ID(), e.Is(event.BoolTruncated),
			fmt.Sprint(e.Method, e.Duration, suspect.List()),
		})
	}
	return all
}

// stamp is the prefix of an oslo line but for the level.
func stamp(n int) string {
	return time.Date(2026, 3, 2, 10, 0, 0, n*7e6, time.UTC).Format("2006-01-02 15:04:05.000") + fmt.Sprintf(" %d ", 300+n%3)
}

const tracebackText = "Traceback (most recent call last):"

// randomLog is a log of a service with everything that has several lines.
func randomLog(r *rand.Rand, records int) string {
	var b strings.Builder
	end := func() {
		b.WriteString([]string{"\n", "\n", "\n", "\n", "\n", "\r\n", "\x1b[00m\n"}[r.IntN(7)])
	}
	write := func(parts ...string) {
		b.WriteString(strings.Join(parts, ""))
		end()
	}
	frames := func(prefix string, n int) {
		for range n {
			write(prefix, `  File "/usr/lib/python3/nova/x.py", line 12, in f`)
			write(prefix, "    ", strings.Repeat("call(", 1+r.IntN(8)))
		}
	}
	for i := range records {
		switch r.IntN(17) {
		case 0, 1:
			write(stamp(i), `INFO nova.osapi_compute.wsgi.server [-] 192.0.2.7 "GET /v2.1/servers HTTP/1.1" status: 200 len: 15 time: 0.1834567`)
		case 2:
			write(stamp(i), "INFO nova.compute.manager [-] text ", strings.Repeat("x", r.IntN(200)))
		case 3, 4:
			p := stamp(i) + "ERROR nova.api "
			write(p, "[-] it failed")
			write(p, "Traceback (most recent call last):")
			frames(p, r.IntN(8))
			write(p, "ValueError: no")
			if r.IntN(2) == 0 {
				write(p)
			}
		case 5:
			write(stamp(i), "INFO eventlet.wsgi.server [-] Traceback (most recent call last):")
			frames("", 1+r.IntN(4))
			write("BrokenPipeError: [Errno 32] Broken pipe")
		case 6:
			write(stamp(i), "ERROR nova.api [-] several lines")
			for range r.IntN(9) {
				write("line of text ", strings.Repeat("y", r.IntN(40)))
			}
		case 7:
			write("/usr/lib/python3/x.py:12: DeprecationWarning: old")
			write("  warnings.warn(")
		case 8:
			write("*** uWSGI is running ***")
			write("os: Linux")
		case 9:
			end()
		case 10:
			write("Traceback (most recent call last):")
			frames("", 2)
			write("KeyError: 1")
			write()
			write("During handling of the above exception, another exception occurred:")
			write()
			write("Traceback (most recent call last):")
			frames("", 1)
			write("KeyError: 2")
		case 11:
			write(strings.Repeat("long ", r.IntN(900)))
		case 12:
			for k := range r.IntN(6) {
				write("2026-03-02 10:00:00.05911", string(rune('0'+k)), " ", []string{tracebackText, "  File \"x.py\"", "    code", "KeyError: 1", "AH00163: text", ""}[r.IntN(6)])
			}
		case 13, 14:
			p := stamp(i) + fmt.Sprintf("INFO cinder.api.openstack.wsgi [None req-%08d-4a59-4e68-9c77-8b86a5945a01 - - - - - -] ", r.IntN(4))
			if r.IntN(2) == 0 {
				write(p, []string{"GET", "DELETE"}[r.IntN(2)], " http://192.0.2.2:8776/v3/volumes")
			} else {
				write(p, "http://192.0.2.2:8776/v3/volumes returned with HTTP 202")
			}
		case 15:
			write(stamp(i), `INFO oslo.messaging.notification.audit.http.request [-] {"event_type": "audit.http.request", "payload": {"typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event", "eventTime": "2026-03-02T10:00:00.000000+0000", "action": "read", "outcome": "pending", "requestPath": "/v3/volumes"}}`)
		default:
			write(`{"a": "` + strings.Repeat("z", r.IntN(30)) + `"}`)
		}
	}
	text := b.String()
	if r.IntN(4) == 0 { // as a rotation leaves it
		text = text[r.IntN(len(text)/2+1):]
	}
	return text
}

func joinConfig(r *rand.Rand) Config {
	c := Defaults()
	c.Records, c.MaxLine = "all", 1<<10
	c.Multiline.MaxLines, c.Multiline.MaxBytes = 3+r.IntN(20), conf.Size(1<<10+r.IntN(1<<11))
	switch r.IntN(8) {
	case 0:
		c.Multiline.Start = `^\d{4}-`
	case 1:
		c.Multiline.Continue = "^(long|line|os)"
	case 2:
		c.Encoding = "latin-1"
	}
	return c
}

func maker(t testing.TB, c Config, counts map[string]int64) *Maker {
	t.Helper()
	m, err := New(c, Options{Count: func(n, why string, k int64) { counts[n] += k }})
	if err != nil {
		t.Fatal(err)
	}
	m.File("/var/log/nova/nova-api.log", "/var/log/nova/nova-api.log", time.Unix(1e9, 0))
	return m
}

// reading is how a text is read.
type reading struct {
	grow, block func() int
	restart     func() bool // asked at each place where a batch ends
	limit       func() int
}

// read reads a text as a follower of a file does.
func read(t testing.TB, c Config, text string, how reading) (all []joined, counts map[string]int64) {
	t.Helper()
	counts = map[string]int64{}
	m := maker(t, c, counts)
	at, seen, need := 0, 0, 0
	for at < len(text) {
		n := min(seen-at, max(how.block(), need))
		b := event.NewBatch("s")
		b.ReadAt = time.Unix(2e9, 0)
		block := b.Arena().Block(n)
		copy(block, text[at:])
		end := More
		if at+n == len(text) {
			end = Closed
		}
		used, done, more := m.Join(b, block, int64(at), how.limit(), end)
		if used == 0 {
			m.Discard()
			if len(b.Events) > 0 {
				t.Fatalf("%d events of no bytes", len(b.Events))
			}
			switch {
			case at+n == seen:
				if seen == len(text) {
					t.Fatalf("stuck at %d of %d", at, len(text))
				}
				seen = min(seen+how.grow(), len(text))
			case done > 0 && more <= n:
				t.Fatalf("at %d: %d bytes are not enough, %d are said to be", at, n, more)
			}
			need = max(more, need)
			if done == 0 {
				need = 2*n + 1
			}
			continue
		}
		need = 0
		m.Flush()
		all = append(all, collect(b)...)
		if at += used; how.restart() {
			m = maker(t, c, counts)
			from := max(0, at-formats.Window)
			if from > 0 {
				from += strings.IndexByte(text[from:at], '\n') + 1
			}
			m.Prime([]byte(text[from:at]), int64(from))
		}
	}
	return all, counts
}

func always(n int) func() int { return func() int { return n } }

func never() bool { return false }

// inOneGo reads all at once.
func inOneGo(t testing.TB, c Config, text string) ([]joined, map[string]int64) {
	t.Helper()
	return read(t, c, text, reading{always(len(text)), always(len(text)), never, always(1 << 30)})
}

func differ(a, b []joined) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return fmt.Sprintf("record %d more: %+v", i, b[i])
		case i >= len(b):
			return fmt.Sprintf("record %d is missing: %+v", i, a[i])
		case a[i] != b[i]:
			return fmt.Sprintf("record %d\n is %+v\nnot %+v", i, b[i], a[i])
		}
	}
	return ""
}

func TestRecordsDoNotDependOnHowTheyAreRead(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, text := joinConfig(r), randomLog(r, 1+r.IntN(40))
		want, counted := inOneGo(t, c, text)
		for name, how := range map[string]reading{
			"byte by byte": {always(1), always(256), never, always(1024)},
			"small blocks": {always(len(text)), always(100), never, always(1024)},
			"few records":  {always(len(text)), always(len(text)), never, always(1)},
			"restarts":     {always(1 << 10), always(1 << 9), func() bool { return true }, func() int { return 1 + r.IntN(3) }},
			"anything": {
				func() int { return 1 + r.IntN(500) }, func() int { return 1 + r.IntN(3000) },
				func() bool { return r.IntN(3) == 0 }, func() int { return 1 + r.IntN(20) },
			},
		} {
			if name == "byte by byte" && seed%20 != 0 {
				continue
			}
			got, counts := read(t, c, text, how)
			if d := differ(want, got); d != "" {
				t.Fatalf("seed %d, %s: %s\n%q", seed, name, d, text)
			}
			if fmt.Sprint(counts) != fmt.Sprint(counted) {
				t.Fatalf("seed %d, %s: counted %v, want %v", seed, name, counts, counted)
			}
		}
		account(t, text, want, counted)
	}
}

// account demands that every line is in one record or counted as skipped.
func account(t testing.TB, text string, all []joined, counts map[string]int64) {
	t.Helper()
	lines := int64(strings.Count(text, "\n"))
	if text != "" && !strings.HasSuffix(text, "\n") {
		lines++
	}
	if counts["lines"] != lines || counts["bytes"] != int64(len(text)) || counts["events"] != int64(len(all)) {
		t.Fatalf("counted %v of %d lines, %d bytes, %d records", counts, lines, len(text), len(all))
	}
	if sum := counts["events"] + counts["joined"] + counts["skipped"] + counts["dropped_unparsed"]; sum != lines {
		t.Fatalf("%d lines, accounted for %d: %v", lines, sum, counts)
	}
	at := int64(0)
	for _, r := range all {
		if r.offset < at {
			t.Fatalf("record at %d overlaps the one before, which ends at %d", r.offset, at)
		}
		at = r.offset + 1
	}
}

func TestStateOfLongAgoIsForgottenAlike(t *testing.T) {
	t.Parallel()
	c := Defaults()
	c.Records, c.Multiline.MaxLines, c.Multiline.MaxBytes = "all", 50, 4<<10
	for _, line := range []string{"a line of text", "    code", "  File \"x.py\", line 1"} {
		head := stamp(0) + "INFO eventlet.wsgi.server [-] Traceback (most recent call last):\n"
		text := head + strings.Repeat(line+"\n", 3*formats.Window/len(line)) + head + line + "\n"
		want, _ := inOneGo(t, c, text)
		n := 0
		sometimes := func() bool { n++; return n%23 == 0 }
		got, _ := read(t, c, text, reading{always(len(text)), always(5 << 10), sometimes, always(1)})
		if d := differ(want, got); d != "" {
			t.Errorf("%q: %s", line, d)
		}
	}
}

// blocks returns the raw texts of the records of a log, with a mark before those that are flagged.
func blocks(all []joined) (texts []string) {
	for _, r := range all {
		mark := ""
		if r.truncated {
			mark = "!"
		}
		texts = append(texts, mark+r.raw)
	}
	return texts
}

const at1, at2 = "2026-03-02 10:00:00.123 7 ", "2026-03-02 10:00:01.456 7 "

func TestWhatMakesOneRecord(t *testing.T) {
	t.Parallel()
	req := "[None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 - - - - - -] "
	wsgi := at2 + `INFO nova.osapi_compute.wsgi.server [-] 192.0.2.7 "GET / HTTP/1.1" status: 200 len: 15 time: 0.1834567`
	for name, records := range map[string][]string{
		"prefix on every line": {
			at1 + "ERROR nova.api " + req + "it failed\n" + at1 + "ERROR nova.api Traceback (most recent call last):\n" +
				at1 + "ERROR nova.api   File \"x.py\", line 1, in f\n" + at1 + "ERROR nova.api ValueError: no\n" + at1 + "ERROR nova.api ",
			wsgi,
		},
		"with an instance": {
			at1 + "ERROR nova.compute.manager " + req + "[instance: 5f5e] it failed\n" +
				at1 + "ERROR nova.compute.manager [instance: 5f5e] Traceback (most recent call last):\n" +
				at1 + "ERROR nova.compute.manager [instance: 5f5e] ValueError: no",
			at2 + "ERROR nova.compute.manager " + req + "another",
		},
		"a warning with an exception": {
			at1 + "WARNING nova.api " + req + "hm\n" + at1 + "ERROR nova.api Traceback (most recent call last):",
		},
		"another process, logger, time": {
			at1 + "ERROR nova.api " + req + "one", strings.Replace(at1, " 7 ", " 8 ", 1) + "ERROR nova.api Traceback (most recent call last):",
			at1 + "ERROR nova.other Traceback (most recent call last):", at2 + "ERROR nova.other Traceback (most recent call last):",
		},
		"eventlet": {
			at1 + "INFO nova.osapi_compute.wsgi.server " + req + "Traceback (most recent call last):\n  File \"w.py\", line 5, in h\n    write(b'')\nBrokenPipeError: [Errno 32] Broken pipe",
			wsgi, wsgi,
		},
		"after an access line": {
			wsgi, "Traceback (most recent call last):\n  File \"w.py\", line 5, in h\nValueError: no",
		},
		"chained": {
			wsgi,
			"Traceback (most recent call last):\n  File \"w.py\", line 5\nKeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"w.py\", line 6\nKeyError: 2",
			"Traceback (most recent call last):\n  File \"w.py\", line 5\nKeyError: 3",
		},
		"message of several lines": {
			at1 + "ERROR keystone.x " + req + "conflict: line1\nline2\n\nline3, and so on", at2 + "INFO keystone.x " + req + "more",
		},
		"warnings of Python": {
			at1 + "INFO nova.x " + req + "text", "/usr/lib/x.py:12: DeprecationWarning: old\n  warnings.warn(",
			"/usr/lib/x.py:13: UserWarning: old", wsgi,
		},
		"uWSGI": {
			"*** Starting uWSGI 2.0.21-debian (64bit) on [Sat Nov 21 03:35:26 2026] ***\ncompiled with version: 12.2.0\nos: Linux",
			"Sat Nov 21 03:35:26 2026 - SIGPIPE: writing to a closed pipe/socket/fd (probably the client disconnected) on request / (ip 192.0.2.1) !!!",
			"!!! uWSGI process 335 got Segmentation Fault !!!", "*** backtrace of 335 ***\n/usr/bin/uwsgi(uwsgi_backtrace+0x2f) [0x564f4b9a94df]",
		},
		"text of an exception in brackets": {
			at1 + "ERROR nova.api " + req + "failed\n" + at1 + "ERROR nova.api [SQL: SELECT 1]\n" + at1 + "ERROR nova.api [parameters: {'a': 1}]\n" + at1 + "ERROR nova.api (Background)",
			at1 + "ERROR nova.api [-] another",
		},
		"Apache's error log": {
			"2026-11-21 03:46:52.044442 mod_wsgi (pid=18052): Exception occurred\n2026-11-21 03:46:52.058879 Traceback (most recent call last):\n2026-11-21 03:46:52.059113   File \"x.py\", line 1\n2026-11-21 03:46:52.059114 KeyError: 1\n2026-11-21 03:46:52.059115 \n" +
				"2026-11-21 03:46:52.059116 During handling of the above exception, another exception occurred:\n2026-11-21 03:46:52.059117 Traceback (most recent call last):\n2026-11-21 03:46:52.059118 KeyError: 2",
			"2026-11-21 03:46:52.059119 Traceback (most recent call last):\n2026-11-21 03:46:52.059120     code()\n2026-11-21 03:46:52.059120 KeyError: 3",
			"2026-11-21 03:46:52.059121 AH00163: Apache configured",
		},
		"lines of unknown writers": {"no format", "  knows this", "at all"},
		"JSON":                     {`{"a": 1}`, `{"a": 2}`},
	} {
		c := Defaults()
		c.Records = "all"
		all, _ := inOneGo(t, c, strings.Join(records, "\n")+"\n")
		if got := blocks(all); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", records) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, records)
		}
	}
}

func TestMessageOfAJoinedRecordHasNoPrefixes(t *testing.T) {
	t.Parallel()
	c := Defaults()
	c.Records = "all"
	p := at1 + "ERROR nova.api "
	for text, want := range map[string]string{
		p + "[-] it failed\n" + p + "Traceback (most recent call last):\n" + p + "  File \"x\", line 1\n" + p + "E: no\n" + p + "\n": "it failed\nTraceback (most recent call last):\n  File \"x\", line 1\nE: no",
		p + "[-] it failed\r\nand so on\r\n":                 "it failed\nand so on",
		p + "[-] it failed\x1b[00m\nand so on\x1b[00m\n":     "it failed\nand so on",
		p + "[-] it failed\nand so on\n\n  to the end\n\n\n": "it failed\nand so on\n\n  to the end",
		p + "[-] alone\n": "alone",
		p + "[-] it failed\n" + p + "[SQL: 1]\n" + p + "[instance: 5f5e] E: no\n":                                                                               "it failed\n[SQL: 1]\nE: no",
		"2026-11-21 03:46:52.044442 mod_wsgi: failed\n2026-11-21 03:46:52.058879 Traceback (most recent call last):\n2026-11-21 03:46:52.058880   File \"x\"\n": "mod_wsgi: failed\nTraceback (most recent call last):\n  File \"x\"",
	} {
		all, _ := inOneGo(t, c, text)
		if len(all) != 1 || all[0].message != want || all[0].class != event.ClassServiceLog {
			t.Errorf("%q\n gives %+v\nwant %q", text, all, want)
		}
	}
}

func TestARecordThatIsClosedByALimitIsFlaggedAndSoIsTheRest(t *testing.T) {
	t.Parallel()
	head, rest := at1+"ERROR nova.api [-] it failed", at2+"INFO nova.api [-] fine"
	c := Defaults()
	c.Records, c.Multiline.MaxLines = "all", 3
	all, counts := inOneGo(t, c, head+"\na\nb\nc\nd\n"+rest+"\n")
	if got := blocks(all); fmt.Sprint(got) != fmt.Sprint([]string{"!" + head + "\na\nb", "!c\nd", rest}) {
		t.Errorf("by lines: %q", got)
	}
	if counts["truncated"] != 2 || counts["joined"] != 3 {
		t.Errorf("counted %v", counts)
	}
	c = Defaults()
	c.Records, c.Multiline.MaxBytes = "all", 1<<10
	long := strings.Repeat("x", 600)
	all, _ = inOneGo(t, c, head+"\n"+long+"\n"+long+"\n"+rest+"\n"+strings.Repeat("y", 5000)+"\n")
	if got := blocks(all); fmt.Sprint(got) != fmt.Sprint([]string{"!" + head + "\n" + long, "!" + long, "!" + rest, "!" + strings.Repeat("y", 5000)}) {
		t.Errorf("by bytes: %q", got)
	}
	// Exactly at the limits nothing is cut.
	c.Multiline.MaxLines = 3
	text := head + "\n" + long + "\n"
	text += strings.Repeat("z", 1<<10-len(text)-1) + "\n"
	if all, _ = inOneGo(t, c, text+rest+"\n"); len(all) != 2 || all[0].truncated {
		t.Errorf("at the limits: %+v", all)
	}
}

func TestPatternsOfTheUser(t *testing.T) {
	t.Parallel()
	text := access + "\n# one\n- a\n- b\n" + access + "\n# two\nother\n- c\n"
	for _, x := range []struct {
		start, rest string
		want        []string
	}{
		{"", "", []string{access, "# one", "- a", "- b", access, "# two", "other", "- c"}},
		{"^#", "", []string{access, "# one\n- a\n- b", access, "# two\nother\n- c"}},
		{"", "^-", []string{access, "# one\n- a\n- b", access, "# two", "other\n- c"}},
		{"^#", "^-", []string{access, "# one\n- a\n- b", access, "# two", "other\n- c"}},
	} {
		c := Defaults()
		c.Multiline.Start, c.Multiline.Continue = x.start, x.rest
		if all, _ := inOneGo(t, c, text); fmt.Sprint(blocks(all)) != fmt.Sprint(x.want) {
			t.Errorf("start %q, continue %q: %q", x.start, x.rest, blocks(all))
		}
	}
	// Lines whose own times are too far apart are not joined.
	c := Defaults()
	c.Records, c.Multiline.Continue = "all", "more"
	near, far := at1+"INFO nova.x [-] one\n"+at2+"INFO nova.x [-] more\n", at1+"INFO nova.x [-] one\n"+strings.Replace(at2, ":01.", ":06.", 1)+"INFO nova.x [-] more\n"
	if all, _ := inOneGo(t, c, near); len(all) != 1 {
		t.Errorf("near: %q", blocks(all))
	}
	if all, _ := inOneGo(t, c, far); len(all) != 2 || !all[1].truncated {
		t.Errorf("far: %q", blocks(all))
	}
}

func TestTheRestOfARecordAtTheHeadOfAFileIsFlagged(t *testing.T) {
	t.Parallel()
	p := at1 + "ERROR nova.api "
	for text, flagged := range map[string]bool{
		p + "  File \"x\", line 1\n" + p + "E: no\n": true,
		p + "E: no\n": true,
		"  File \"x\", line 1\n    code\nE: no\n":               true,
		p + "[-] whole\n":                                       false,
		"Traceback (most recent call last):\n  File \"x\"\nE\n": false,
		"no format knows this\n":                                false,
	} {
		c := Defaults()
		c.Records = "all"
		if all, _ := inOneGo(t, c, text); len(all) != 1 || all[0].truncated != flagged {
			t.Errorf("%q: %+v", text, all)
		}
	}
}

func TestARecordThatIsClosedByTimeHasItsLengthInItsID(t *testing.T) {
	t.Parallel()
	c := Defaults()
	c.Records = "all"
	text := at1 + "ERROR nova.api [-] it failed\nand\n"
	ids := map[string]bool{}
	for _, end := range []End{Closed, Quiet} {
		b := event.NewBatch("s")
		block := b.Arena().Block(len(text))
		copy(block, text)
		if used, _, _ := maker(t, c, map[string]int64{}).Join(b, block, 0, 10, end); used != len(text) || len(b.Events) != 1 {
			t.Fatalf("%d bytes used, %d events", used, len(b.Events))
		}
		if n := b.Events[0].Length; (n == int64(len(text))) != (end == Quiet) {
			t.Errorf("length %d", n)
		}
		ids[b.Events[0].ID()] = true
	}
	if len(ids) != 2 {
		t.Error("the ids are the same")
	}
}

func FuzzJoin(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomLog(rand.New(rand.NewPCG(seed, 2)), 10), seed)
		parts, _ := containerLog(rand.New(rand.NewPCG(seed, 4)), seed%2 == 0, 5)
		f.Add(parts, seed)
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := joinConfig(r)
		want, counted := inOneGo(t, c, text)
		account(t, text, want, counted)
		got, counts := read(t, c, text, reading{
			func() int { return 1 + r.IntN(300) }, func() int { return 1 + r.IntN(3000) }, never, func() int { return 1 + r.IntN(20) },
		})
		if d := differ(want, got); d != "" {
			t.Fatalf("%s\n%q", d, text)
		}
		if fmt.Sprint(counts) != fmt.Sprint(counted) {
			t.Fatalf("counted %v, want %v", counts, counted)
		}
	})
}
