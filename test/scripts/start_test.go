//go:build blackbox

package scripts

import (
	"os/exec"
	"strings"
	"testing"
)

// streams returns what `status` says of the agent's streams.
func (b *box) streams() string {
	out, err := exec.Command(stacktrail(b.t), "status", "--admin-socket", b.socket(), "-o", "json").CombinedOutput()
	if err != nil {
		return ""
	}
	return string(out)
}

// TestR30WhereAFileBegins: each start position, with what is there at the first start, what comes to it later, a file that appears
// while the agent runs, and a second start, at which the stored position goes first.
func TestR30WhereAFileBegins(t *testing.T) {
	for name, c := range map[string]struct {
		start       string
		skip, later int // lines of the file that was there, and of the one that appears, that are left out
	}{
		"beginning":      {"beginning", 0, 0},
		"end":            {"end", 1000, 0},
		"time":           {"2026-03-02T00:00:00.400Z", 400, 400}, // a line has its number in milliseconds
		"time after all": {"2026-03-02T00:00:01Z", 1000, 700},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.write(setup{tail: `start: "` + c.start + `"`})
			w := newWriter(t, b.log("api.log"), 1)
			w.lines(1000)
			a := b.start()
			waitFor(t, "the file is known", func() bool { return strings.Contains(b.streams(), w.path) })
			a.quiet()
			later := newWriter(t, b.log("later.log"), 2)
			w.lines(100)
			later.lines(700)
			want := 1100 + 700 - c.skip - c.later
			arrive(t, a, b.out, want)
			a.stop()
			if c.later == 0 || name == "time" {
				later.lines(50)
				want += 50
			}
			w.lines(50)
			want += 50
			a = b.start()
			arrive(t, a, b.out, want)
			a.quiet()
			a.stop()
			v := newVerifier(w, later)
			ok(t, v.file(b.out))
			r := v.result()
			left := 0
			for _, m := range r.missing {
				if m.stream == 1 && m.seq < c.skip || m.stream == 2 && m.seq < c.later || name == "time after all" && m.stream == 2 {
					left++
				} else {
					t.Errorf("%v is missing", m)
				}
			}
			if r.records != want || left != c.skip+c.later {
				t.Errorf("%d records, want %d; %d left out, want %d", r.records, want, left, c.skip+c.later)
			}
			r.missing = nil
			r.exact(t)
		})
	}
}
