//go:build blackbox

package scripts

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// highest watches the memory of a process until it is told to stop or the process ends.
func (a *agent) highest(cond func() bool) (most int64) {
	poll(20*time.Millisecond, 10*patience, func() bool {
		most = max(most, a.peak())
		return cond() || a.ended()
	})
	return max(most, a.peak())
}

// TestR21MemoryStaysBoundedWhileAnOutputHangs: memory_limit 64MiB, one output that takes nothing, a backlog far beyond, and a line
// of 100 MB in it. Afterwards, with an output that works, nothing is lost. (B01, B07, R21)
func TestR21MemoryStaysBoundedWhileAnOutputHangs(t *testing.T) {
	backlog := int64(number(t, "STACKTRAIL_BACKLOG_MB", 256)) * 1e6
	const (
		files    = 4
		longSize = 100_000_000
		limit    = 128 << 20
	)
	b := newBox(t)
	var writers []*writer
	for i := range files {
		w := newWriter(t, b.log([]string{"a.log", "b.log", "c.log", "d.log"}[i]), i)
		writers = append(writers, w)
		w.bytes(300_000) // so that the long line is met before everything stands still
		if i == 0 {
			w.raw(append(longLine(longSize), '\n'))
		}
		w.bytes(backlog/files - 300_000)
	}
	b.write(setup{output: "blackhole: {delay: 1h}", policy: "queue: {bytes: 24MiB}", agent: "memory_limit: 64MiB, stop_timeout: 200ms"})
	a := b.start()
	a.says("msg=started")
	a.quiet()
	held := a.peak()
	t.Logf("with an output that hangs: %d MiB resident at most, backlog %s", held>>20, mb(backlog))
	if held > limit {
		t.Errorf("%d MiB resident while an output hangs, want at most %d", held>>20, limit>>20)
	}
	if held < 4<<20 {
		t.Errorf("%d bytes resident cannot be", held)
	}
	a.stop()
	if !strings.Contains(a.text(), "left for the next start") {
		t.Error("the stop did not say what was left")
	}

	b.write(setup{agent: "memory_limit: 64MiB"})
	a = b.launch(stacktrail(t), "run", "--once", "-c", b.config)
	most := a.highest(func() bool { return false })
	if code := a.wait(); code != 0 {
		t.Fatalf("code %d", code)
	}
	t.Logf("with an output that works: %d MiB resident at most", most>>20)
	if most > limit {
		t.Errorf("%d MiB resident while the backlog is delivered, want at most %d", most>>20, limit>>20)
	}
	oneLong(t, verify(t, writers, b.out), a.text())
}

// oneLong expects one record beside the normal ones: the long line, cut and flagged, and counted in the report.
func oneLong(t *testing.T, v verdict, report string) {
	t.Helper()
	if len(v.others) != 1 {
		t.Fatalf("%d records beside the normal ones, want one for the long line", len(v.others))
	}
	d := v.others[0]
	if !d.Truncated {
		t.Errorf("the long line is not flagged: %+.300v", d)
	}
	if !regexp.MustCompile(`truncated 1\b`).MatchString(report) {
		t.Error("the report does not count the long line as truncated")
	}
}

// TestR21ALineWithoutEndAmidNormalOnesIsCut is R21 with the agent following.
func TestR21ALineWithoutEndAmidNormalOnesIsCut(t *testing.T) {
	b := newBox(t)
	b.write(setup{agent: "memory_limit: 64MiB"})
	w := newWriter(t, b.log("api.log"), 1)
	other := newWriter(t, b.log("other.log"), 2)
	w.lines(500)
	a := b.start()
	arrive(t, a, b.out, 500)
	p := longLine(50_000_000)
	for len(p) > 0 {
		n := min(len(p), 1<<20)
		w.raw(p[:n])
		other.lines(3)
		p = p[n:]
	}
	// While the line has no end its neighbours arrive.
	arrive(t, a, b.out, 500+other.count())
	w.raw([]byte{'\n'})
	w.lines(500)
	arrive(t, a, b.out, 1000+other.count()+1)
	if most := a.peak(); most > 128<<20 {
		t.Errorf("%d MiB resident, want at most 128", most>>20)
	}
	a.stop()
	v := verify(t, []*writer{w, other}, b.out)
	if len(v.others) != 1 || !v.others[0].Truncated {
		t.Errorf("records beside the normal ones: %d, want one that is flagged truncated_bool", len(v.others))
	}
}
