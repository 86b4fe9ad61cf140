package formats

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

const realLogs = "../../../test/testdata/real-logs"

// sent is what a client knows of a request that it sent.
type sent struct {
	Case, Method, URL, Folder string
	Status                    int32
	ID                        string `json:"req_id"`
	User                      string `json:"user_id"`
	Project                   string `json:"project_id"`
}

func realRequests(t *testing.T) map[string][]sent {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(realLogs, "requests.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]sent{}
	for l := range bytes.Lines(text) {
		var r sent
		if err := json.Unmarshal(l, &r); err != nil {
			t.Fatal(err)
		}
		if r.ID != "" {
			all[r.ID] = append(all[r.ID], r)
		}
	}
	return all
}

// eachReal parses all real logs and calls do for each line that is recognised.
func eachReal(t *testing.T, do func(path, line string, e *event.Event, v Verdict)) {
	t.Helper()
	err := filepath.WalkDir(realLogs, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".ndjson") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(text))
			if err != nil {
				return err
			}
			if text, err = io.ReadAll(z); err != nil {
				return err
			}
		}
		p := newParser(t, path, Options{Records: All})
		for l := range bytes.Lines(text) {
			l = bytes.TrimRight(l, "\r\n")
			e, v := parse(p, string(l))
			do(path, string(l), e, v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func suspects(e *event.Event) []string {
	v, _ := e.Get("suspect")
	return v.List()
}

// TestRealForgedLinesAreFlaggedAndNoOthers says how many forged lines are flagged, and how many true ones. The forged ones are known
// by what their authors put into them: an address, an id and a user that nothing else has.
func TestRealForgedLinesAreFlaggedAndNoOthers(t *testing.T) {
	t.Parallel()
	const address, user = "6.6.6.6", "ffffffffffffffffffffffffffffffff"
	forged, missed, accused, heads := 0, 0, 0, 0
	eachReal(t, func(path, line string, e *event.Event, v Verdict) {
		flagged := slices.Contains(suspects(e), "forged-line")
		// A forged line that is no record of any format names nobody: its text tells.
		unparsed := v == Unparsed && strings.Contains(line, "[None req-deadbeef-") ||
			v != Access && (strings.HasPrefix(line, "[pid: 1|") || strings.HasPrefix(line, address+" "))
		if unparsed || e.Client == address || e.Path == "/FORGED" || e.UserID == user || strings.HasPrefix(e.RequestID, "req-deadbeef-") {
			forged++
			if unparsed && v == Unparsed && (e.User != "" || e.UserID != "" || e.ProjectID != "" || e.RequestID != "") {
				t.Errorf("%s: names somebody: %.200s", path, line)
			}
			if !flagged || !e.Is(event.BoolIdentityUnverified) {
				missed++
				t.Errorf("%s: not flagged: %.200s", path, line)
			}
			if v == Access {
				t.Errorf("%s: a forged line is a request: %.200s", path, line)
			}
			return
		}
		if flagged {
			accused++
			t.Errorf("%s: flagged, though true: %.200s", path, line)
		}
		if v == Access && e.Is(event.BoolTruncated) && strings.HasSuffix(line, "/resource_providers/x") {
			heads++
			if e.Method != "GET" || e.UserID == "" || e.UserID == user || e.Has&event.HasStatus != 0 {
				t.Errorf("%s: the first half of a forged line lost what is true of it: %.200s", path, line)
			}
		}
	})
	t.Logf("%d forged lines, %d not flagged, %d true lines flagged, %d first halves", forged, missed, accused, heads)
	if forged < 10 || heads < 3 {
		t.Errorf("only %d forged lines and %d first halves found: the samples are not what they were", forged, heads)
	}
}

// is reports whether the record is one of the request. Audit records have no method, nor do second lines whose first is missing: there
// the path must agree, however it is quoted. Elsewhere it may be written decoded, so it is not compared.
func (r sent) is(e *event.Event) bool {
	if r.Status != e.Status && e.Has&event.HasStatus != 0 {
		return false
	}
	if e.RecordClass != event.ClassAudit && (e.Format != "start-done" || e.Method != "") {
		return r.Method == e.Method
	}
	asked := r.URL
	if _, rest, ok := strings.Cut(asked, "://"); ok {
		asked = rest[strings.IndexByte(rest, '/'):]
	}
	asked, _, _ = strings.Cut(asked, "?")
	asked, _ = url.PathUnescape(asked)
	path, err := url.PathUnescape(e.Path)
	if r.Case == "forge-path" {
		return e.Method == "" && strings.HasPrefix(path, asked) // what was asked for is cut in the list
	}
	return err == nil && e.Method == "" && path == asked
}

// loggedIn reports whether the record is keystone's about the request by which its user logged in, who was nobody before.
func (r sent) loggedIn(e *event.Event, users map[string]bool) bool {
	return e.RecordClass == event.ClassAudit && strings.HasSuffix(e.Logger, ".identity.authenticate") && e.Outcome == "success" &&
		r.User == "" && r.URL == "/v3/auth/tokens" && r.Status == 201 && users[e.UserID]
}

// TestRealIdentitiesAreTheirOwnOrFlagged joins the records with what the clients know.
func TestRealIdentitiesAreTheirOwnOrFlagged(t *testing.T) {
	t.Parallel()
	requests := realRequests(t)
	users := map[string]bool{}
	for _, same := range requests {
		for _, r := range same {
			users[r.User] = true
		}
	}
	proved, needless, borrowed, flagged := 0, 0, 0, 0
	eachReal(t, func(path, line string, e *event.Event, v Verdict) {
		if v != Access || e.UserID == "" {
			return
		}
		unverified := e.Is(event.BoolIdentityUnverified)
		for _, r := range requests[e.RequestID] {
			if r.is(e) && r.User == e.UserID && r.Status != 401 || r.loggedIn(e, users) {
				proved++
				if unverified {
					needless++
				}
				return
			}
		}
		if len(requests[e.RequestID]) == 0 {
			return // of no request of the clients: one service asks another
		}
		borrowed++
		if unverified {
			flagged++
			return
		}
		t.Errorf("%s: the identity of another request without a flag: %.300s", path, line)
	})
	t.Logf("%d identities proved, %d of them flagged; %d other identities with a client's request id, %d of them flagged", proved, needless, borrowed, flagged)
	if proved < 50 {
		t.Errorf("only %d identities were proved", proved)
	}
	if needless*100 > proved {
		t.Errorf("%d of %d true identities are flagged, at most one in a hundred may be", needless, proved)
	}
}

func TestForgedLinesThatAreWholeAreFlagged(t *testing.T) {
	t.Parallel()
	const (
		ctx    = "[None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] "
		nobody = "[None req-1f1d2c3b-4a59-4e68-9c77-8b86a5945a02 - - - - - -] "
		tail   = ` HTTP/1.1" status: 200 len: 2154 time: 0.3120457`
		nova   = "INFO nova.osapi_compute.wsgi.server "
	)
	for name, c := range map[string]struct {
		file  string
		lines []string
		want  string // a letter for each line: f forged, . not
	}{
		"another project's process": {"/var/log/keystone/keystone.log", []string{
			"2026-03-02 10:15:30.000 4211 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
			"2026-03-02 10:15:30.100 1 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02 10:15:30.200 1 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02 10:15:30.300 4212 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
		}, ".ff."},
		"a process that is known may use another's logger": {"/var/log/keystone/keystone.log", []string{
			"2026-03-02 10:15:30.000 4211 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
			"2026-03-02 10:15:30.100 4211 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
		}, ".."},
		"behind a name, with the right logger": {"/var/log/keystone/keystone.log", []string{
			"2026-03-02 10:15:30.000 4211 WARNING keystone.auth.plugins.core " + nobody + "Could not find user: x",
			"2026-03-02 10:15:30.100 1 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
			"2026-03-02 10:15:30.101 1 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
			"y",
			"2026-03-02 10:15:30.200 4211 WARNING keystone.auth.plugins.core " + nobody + "Authorization failed",
		}, ".ff.."},
		"behind a name, in another format": {"/var/log/keystone/keystone.log", []string{
			"2026-03-02 10:15:30.000 4211 WARNING keystone.auth.plugins.core " + nobody + "Could not find user: x",
			`192.0.2.6 - admin [02/Mar/2026:10:15:30 +0000] "GET /v3/users HTTP/1.1" 200 1 "-" "-"`,
			"[pid: 1|app: 0|req: 1/1] 192.0.2.6 () {24 vars in 248 bytes} [Mon Mar  2 10:15:30 2026] GET /v3/users => generated 1 bytes in 1 msecs (HTTP/1.1 200) 3 headers in 100 bytes (1 switches on core 0)",
			"2026-03-02 10:15:30.200 4211 WARNING keystone.auth.plugins.core " + nobody + "Authorization failed",
			`192.0.2.7 - - [02/Mar/2026:10:15:31 +0000] "GET /v3/users HTTP/1.1" 200 1 "-" "-"`,
		}, ".ff.."},
		"time runs back": {"/var/log/nova/nova-api.log", []string{
			"2026-03-02 10:15:30.000 4211 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02 10:15:10.000 1 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02 10:15:31.000 4212 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02 10:15:30.900 4213 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
		}, ".f.."},
		"a process that wrote nothing for long": {"/var/log/keystone/keystone.log", []string{
			"2026-03-02 10:15:30.000 4211 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
			"2026-03-02 10:15:30.000 4212 INFO keystone.common.wsgi " + ctx + strings.Repeat("x", rememberPID-1000),
			"2026-03-02 10:15:30.100 4211 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02 10:15:30.000 4212 INFO keystone.common.wsgi " + ctx + strings.Repeat("x", rememberPID),
			"2026-03-02 10:15:30.100 4211 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
		}, "....f"},
		"collected lines come from anybody": {"/var/log/nova/nova-api.log", []string{
			"2026-03-02T10:15:30.000000+00:00 ctl1 nova-api[1]: 2026-03-02 10:15:30.000 1 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
			"2026-03-02T10:15:30.000000+00:00 ctl1 cinder-api[2]: 2026-03-02 10:15:10.000 2 INFO cinder.osapi.wsgi.server " + ctx + `192.0.2.6 "GET /v3/x` + tail,
		}, ".."},
		"a file of everybody": {"/var/log/all.log", []string{
			"2026-03-02 10:15:30.000 4211 INFO keystone.common.wsgi " + ctx + "GET http://192.0.2.1/v3/",
			"2026-03-02 10:15:30.100 17 " + nova + ctx + `192.0.2.6 "GET /v2.1/x` + tail,
		}, ".."},
	} {
		p := newParser(t, c.file, Options{Records: All})
		p.File(c.file, time.Unix(1772446530, 0))
		var marks strings.Builder
		for _, l := range c.lines {
			e, _ := parse(p, l)
			forged := slices.Contains(suspects(e), "forged-line")
			if forged != e.Is(event.BoolIdentityUnverified) {
				t.Errorf("%s: flag and identity differ: %s", name, l)
			}
			if forged {
				marks.WriteByte('f')
			} else {
				marks.WriteByte('.')
			}
		}
		if got := marks.String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// marksOf reads lines and returns a letter for each: f forged, . not.
func marksOf(t *testing.T, p *Parser, lines []string) string {
	t.Helper()
	var marks strings.Builder
	for _, l := range lines {
		e, _ := parse(p, l)
		forged := slices.Contains(suspects(e), "forged-line")
		if forged != e.Is(event.BoolIdentityUnverified) {
			t.Errorf("flag and identity differ: %s", l)
		}
		if forged {
			marks.WriteByte('f')
		} else {
			marks.WriteByte('.')
		}
	}
	return marks.String()
}

const (
	victim   = "[None req-deadbeef-4a59-4e68-9c77-8b86a5945a01 ffffffffffffffffffffffffffffffff eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee - - default default] "
	pathTail = `" status: 404 len: 162 microversion: 1.0`
)

// placed is a line of placement's request log, n tenths of a second after a quarter past ten.
func placed(n, pid int) string {
	return fmt.Sprintf("2026-03-02 10:15:%02d.%d00 %d INFO placement.requestlog [None req-%08d-4a59-4e68-9c77-8b86a5945a01 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default] 192.0.2.9 \"GET /resource_providers/x"+pathTail, n/10, n%10, pid, n)
}

// placedBefore are enough of them to know the file, the last of which may have been completed by its client.
func placedBefore() (lines []string) {
	for n := range 20 {
		lines = append(lines, placed(n, 334))
	}
	return lines
}

// TestForgedLinesBehindARequestThatLooksWholeAreFlagged has the client of a decoded path write the end of the line as well: only what
// it wrote behind that speaks against it. It knows neither processes nor request ids, and its own line's end follows.
func TestForgedLinesBehindARequestThatLooksWholeAreFlagged(t *testing.T) {
	t.Parallel()
	const (
		at  = "2026-03-02 10:15:02.000 "
		own = "INFO placement.requestlog " + victim + `192.0.2.6 "GET /FORGED`
		uw  = "[pid: 1|app: 0|req: 1/%d] 192.0.2.6 () {24 vars in 248 bytes} [Mon Mar  2 10:15:02 2026] GET /FORGED => generated 1 bytes in 1 msecs (HTTP/1.1 200) 3 headers in 100 bytes (1 switches on core 0)"
	)
	served := strings.Replace(fmt.Sprintf(uw, 500), "pid: 1|", "pid: 334|", 1)
	for name, c := range map[string]struct {
		before, lines []string
		want          string
	}{
		"another project":         {nil, []string{at + "1 INFO nova.osapi_compute.wsgi.server " + victim + `192.0.2.6 "GET /FORGED HTTP/1.1" status: 200 len: 1 time: 0.1000000`, pathTail}, "ff"},
		"in a young file":         {placedBefore()[:3], []string{at + "1 INFO nova.x [-] hi", at + "1 INFO nova.osapi_compute.wsgi.server " + victim + `192.0.2.6 "GET /FORGED HTTP/1.1" status: 200 len: 1 time: 0.1000000`}, ".f"},
		"an hour ago":             {nil, []string{"2026-03-02 09:15:02.000 1 " + own + pathTail}, "f"},
		"a year ago":              {nil, []string{"2025-03-02 09:15:02.000 1 " + own + pathTail}, "f"},
		"in an hour":              {nil, []string{"2026-03-02 11:15:02.000 1 " + own + pathTail}, "f"},
		"tomorrow, two of them":   {nil, []string{"2026-03-03 10:15:02.000 1 " + own + pathTail, "2026-03-03 10:15:02.000 1 " + own + pathTail}, "ff"},
		"a request id of another": {nil, []string{at + "334 " + strings.Replace(own, "req-deadbeef", "req-00000019", 1) + pathTail}, "f"},
		"Apache's":                {nil, []string{`192.0.2.6 - victim [02/Mar/2026:10:15:02 +0000] "GET /FORGED HTTP/1.1" 200 1 "-" "-"`, "x" + pathTail}, "ff"},
		"Apache's and the end":    {nil, []string{`192.0.2.6 - victim [02/Mar/2026:10:15:02 +0000] "GET /FORGED HTTP/1.1" 200 1 "-" "-"` + pathTail}, "f"},
		"HAProxy's":               {nil, []string{`Mar  2 10:15:02 ctl1 haproxy[14]: 192.0.2.6:51234 [02/Mar/2026:10:15:02.655] nova_api nova_api/ctl2 0/0/1/120/122 200 2750 - - ---- 41/12/3/1/0 0/0 "GET /FORGED HTTP/1.1"`}, "f"},
		"a container's":           {nil, []string{"2026-03-02T10:15:02.123456789Z stdout F " + at + "334 " + own + pathTail}, "f"},
		"JSON":                    {nil, []string{`{"message": "192.0.2.6 \"GET /FORGED\" status: 200 len: 15 microversion: 2.1 time: 0.120301", "created": 1772446502.3, "name": "nova.api.openstack.requestlog", "levelname": "INFO", "process": 334, "context": {"request_id": "req-deadbeef-4a59-4e68-9c77-8b86a5945a01", "user": "ffffffffffffffffffffffffffffffff"}}`}, "f"},
		"a second line":           {nil, []string{at + "334 INFO cinder.api.openstack.wsgi " + victim + "http://h/FORGED returned with HTTP 200"}, "f"},
		"uWSGI's first":           {nil, []string{fmt.Sprintf(uw, 1)}, "f"},
		"uWSGI's, miscounted":     {append([]string{served}, placedBefore()...), []string{fmt.Sprintf(uw, 1), fmt.Sprintf(uw, 1001000)}, "ff"},
		"uWSGI's, of the file":    {append([]string{served}, placedBefore()...), []string{strings.ReplaceAll(served, "500", "501"), placed(21, 334)}, ".."},
		"without the colour":      {append(strings.Split(strings.Join(placedBefore(), "\x1b[00m\n")+"\x1b[00m", "\n"), placed(20, 334)), []string{at + "1 " + own + pathTail + "\x1b[00m", placed(21, 334) + "\x1b[00m"}, "f."},
		"words before it":         {nil, []string{at + "1 INFO nova.x [-] hi", at + "1 INFO nova.osapi_compute.wsgi.server " + victim + `192.0.2.6 "GET /FORGED HTTP/1.1" status: 200 len: 1 time: 0.1000000`, placed(21, 334)}, ".f."},
		"a plain line before it":  {nil, []string{at + "1 INFO placement.wsgi [-] GET http://h/", `192.0.2.6 - victim [02/Mar/2026:10:15:02 +0000] "GET /FORGED HTTP/1.1" 200 1 "-" "-"`}, ".f"},
		"behind a message":        {append(placedBefore(), at+"334 INFO placement.x [-] No such class: x"), []string{`192.0.2.6 - victim [02/Mar/2026:10:15:02 +0000] "GET /FORGED HTTP/1.1" 200 1 "-" "-"`, fmt.Sprintf(uw, 1), placed(21, 334)}, "ff."},
		"a new process":           {nil, []string{placed(20, 335), placed(21, 334), placed(22, 335)}, "..."},
		"a new process, at once":  {nil, []string{at + "1 " + own + pathTail}, "."},
		"and exposed, once again": {nil, []string{at + "1 " + own + pathTail, pathTail, placed(21, 334), at + "1 " + own + pathTail}, ".f.f"},
	} {
		p := newParser(t, "x.log", Options{Records: All})
		before := c.before
		if before == nil {
			before = placedBefore()
		}
		if got := marksOf(t, p, before); strings.Contains(got, "f") {
			t.Errorf("%s: before: %s", name, got)
		}
		if got := marksOf(t, p, c.lines); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestTheRestOfARequestThatLookedWholeIsCounted(t *testing.T) {
	t.Parallel()
	p := newParser(t, "placement-api.log", Options{})
	marksOf(t, p, placedBefore())
	if _, v := parse(p, "y"+pathTail); v != Service || p.Reason() != ReasonForgedRest {
		t.Errorf("verdict %d, reason %q", v, p.Reason())
	}
}

func TestForgedLinesBehindANameAreFlaggedThoughTheirProcessIsKnown(t *testing.T) {
	t.Parallel()
	const at = "2026-03-02 10:15:30.000 4211 "
	lines := []string{
		at + "INFO keystone.x [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 - - - - - -] hi",
		at + "WARNING keystone.common.wsgi [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 - - - - - -] Authorization failed. Could not find user: x",
		at + "INFO nova.osapi_compute.wsgi.server " + victim + `192.0.2.6 "GET /FORGED HTTP/1.1" status: 200 len: 1 time: 0.1000000`,
		". from 127.0.0.1",
		at + "INFO keystone.x [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 - - - - - -] hi",
	}
	if got := marksOf(t, newParser(t, "x.log", Options{Records: All}), lines); got != "..f.." {
		t.Error(got)
	}
	for i, l := range lines {
		lines[i] = "2026-03-02T10:15:30.100Z stdout F " + l
	}
	if got := marksOf(t, newParser(t, "0.log", Options{Records: All}), lines); got != "..f.." {
		t.Errorf("in a container's log: %s", got)
	}
}

// TestHarmlessTurnsOfALogAreNotFlagged has what operators do to logs and clocks, with processes that the file did not know.
func TestHarmlessTurnsOfALogAreNotFlagged(t *testing.T) {
	t.Parallel()
	nova := func(clock string, pid int) string {
		return fmt.Sprintf(`2026-03-02 %s.000 %d INFO nova.osapi_compute.wsgi.server [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 u p - - - -] 192.0.2.6 "GET /v2.1/x HTTP/1.1" status: 200 len: 2154 time: 0.3120457`, clock, pid)
	}
	for name, lines := range map[string][]string{
		"an older file behind":          {nova("10:15:30", 1), nova("08:15:30", 7), nova("08:15:31", 8)},
		"a clock set back, new workers": {nova("02:59:30", 1), nova("02:00:10", 1), nova("02:00:11", 7), nova("02:00:12", 8)},
		"new workers at once":           {nova("02:59:30", 1), nova("02:00:10", 7), nova("02:00:11", 8)},
		"a quiet night":                 {nova("01:00:00", 1), nova("07:00:00", 7)},
		"a request log's new workers":   append(placedBefore(), placed(50, 7), placed(51, 334), placed(500, 8), placed(501, 9)),
	} {
		if got := marksOf(t, newParser(t, "nova-api.log", Options{}), lines); strings.Contains(got, "f") {
			t.Errorf("%s: %s", name, got)
		}
		if got := marksOf(t, newParser(t, "x.log", Options{}), lines); strings.Contains(got, "f") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestTwoLinesInOneAreFlagged(t *testing.T) {
	t.Parallel()
	for _, u := range usual[:4] {
		p := newParser(t, u.file, Options{})
		if e, v := parse(p, strings.TrimSuffix(u.line, "\x1b[00m")+u.line); v == Access && !slices.Contains(suspects(e), "forged-line") {
			t.Errorf("%s: %v", u.format, suspects(e))
		}
	}
}

// TestALineThatIsReadAgainDoesNotVouchForItself reads each line twice, as who looks ahead does.
func TestALineThatIsReadAgainDoesNotVouchForItself(t *testing.T) {
	t.Parallel()
	const line = `2026-03-02 10:15:%s.000 %d INFO nova.osapi_compute.wsgi.server [None req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01 u p - - - -] 192.0.2.6 "GET /v2.1/x HTTP/1.1" status: 200 len: 2154 time: 0.3120457`
	p := newParser(t, "nova-api.log", Options{})
	for i, l := range []string{fmt.Sprintf(line, "30", 4211), fmt.Sprintf(line, "10", 1)} {
		before := p.Memory()
		for range 2 {
			p.Recall(before)
			p.At(int64(i * len(line)))
			if e, _ := parse(p, l); slices.Contains(suspects(e), "forged-line") != (i == 1) {
				t.Errorf("line %d: suspect %v", i, suspects(e))
			}
		}
	}
}

func TestIdentityWithoutProofIsFlaggedForServicesOfWhichLittleIsKnown(t *testing.T) {
	t.Parallel()
	const req = "req-0f1d2c3b-4a59-4e68-9c77-8b86a5945a01"
	for _, c := range []struct {
		ctx, method, path, status string
		want                      bool
	}{
		{"[None " + req + " 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default]", "GET", "/v2/shares", "401", true},
		{"[None " + req + " 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default]", "OPTIONS", "/v2/shares", "200", true},
		{"[None " + req + " 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default]", "GET", "/v2/", "200", true},
		{"[None " + req + " 1b2c3d4e5f60718293a4b5c6d7e8f901 9f8e7d6c5b4a39281706f5e4d3c2b1a0 - - default default]", "GET", "/v2/shares", "200", false},
		{"[None " + req + " - - - - - -]", "GET", "/v2/shares", "401", false},
	} {
		p := newParser(t, "manila-api.log", Options{})
		e, v := parse(p, "2026-03-02 10:15:30.123 4211 INFO manila.osapi_share.wsgi.server "+c.ctx+` 192.0.2.9 "`+c.method+" "+c.path+` HTTP/1.1" status: `+c.status+"  len: 2154 time: 0.3120457")
		if v != Access || e.Is(event.BoolIdentityUnverified) != c.want {
			t.Errorf("%+v: verdict %d, unverified %v", c, v, e.Is(event.BoolIdentityUnverified))
		}
	}
}
