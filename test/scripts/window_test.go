//go:build blackbox

package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

var lostRange = regexp.MustCompile(`msg="[^"]*(?:lost|between the copy)[^"]*".* (?:from|offset)=(\d+).* (?:to|bytes)=(\d+)`)

// TestR04FortyCopytruncatesUnderLoad has logrotate copy and empty a log of 2,300 lines a second every half second, forty times, and does
// not hold the writer. What is written between copy and cut stands in no file any more: nothing else may be missing. How much of that
// the agent noticed is printed.
func TestR04FortyCopytruncatesUnderLoad(t *testing.T) {
	t.Parallel()
	rotations := number(t, "STACKTRAIL_ROTATIONS", 40)
	b := newBox(t)
	b.write(setup{paths: []string{b.log("api.log")}, tail: "grace: 2s"})
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(2000)
	a := b.start()
	arrive(t, a, b.out, 2000)
	l := newLogrotate(t, b.dir, w.path, "copytruncate", "nocompress")
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.lines(2 + i%10/7) // 2.3 on average, each with a write of its own
			}
		}
	})
	begun := time.Now()
	beats(rotations, 500*time.Millisecond, func(int) { l.rotate() })
	passed := time.Since(begun)
	close(stop)
	writing.Wait()
	w.lines(1)
	last := string(record{1, w.count() - 1}.appendPath(nil))
	waitFor(t, "the last record arrives", func() bool { return holds(b.out, last) || a.ended() })
	a.quiet()
	_, lostBytes := a.lost()
	a.stop()

	stands := newVerifier(w)
	names := must[[]string](t)(filepath.Glob(w.path + "*"))
	for _, n := range names {
		ok(t, stands.lines(n))
	}
	v := newVerifier(w)
	ok(t, v.file(b.out))
	r := v.result()
	kernel, saved := 0, 0 // lines in no file, and those of them that were read in time
	bytesLost := int64(0)
	for seq := range w.count() {
		if stands.seen[1][seq] > 0 {
			continue
		}
		kernel++
		if v.seen[1][seq] > 0 {
			saved++
		} else {
			bytesLost += int64(len(record{1, seq}.appendLine(nil)))
		}
	}
	for _, m := range r.missing {
		if stands.seen[m.stream][m.seq] > 0 {
			t.Errorf("%v stands in a file and did not arrive", m)
		}
	}
	r.missing = nil
	r.exact(t)
	told := int64(0)
	for _, m := range lostRange.FindAllStringSubmatch(a.text(), -1) {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		told += n
	}
	t.Logf("%d rotations in %v at %.0f lines/s: %d lines (of %d) stand in no file, %d of those were read in time; %d lines of %d bytes are lost; counted by the agent: %d bytes (in its log: %d)",
		len(names)-1, passed.Round(time.Millisecond), float64(w.count())/passed.Seconds(), kernel, w.count(), saved, kernel-saved, bytesLost, lostBytes, told)
	if lostBytes > bytesLost {
		t.Errorf("%d bytes are counted as lost, more than the %d that are", lostBytes, bytesLost)
	}
	if _, err := os.Stat(numbered(w.path, rotations)); err != nil {
		t.Error(err)
	}
}
