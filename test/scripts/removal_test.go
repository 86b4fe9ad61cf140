//go:build blackbox

package scripts

import (
	"os"
	"testing"
)

// TestAKillAfterALogWasRemovedDoublesNothing kills the agent while it still holds a removed log open for its grace: at the restart the
// log is nowhere, and the output is cut back all the same, because the log was read to its end.
func TestAKillAfterALogWasRemovedDoublesNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{tail: "grace: 60s"})
	gone, other := newWriter(t, b.log("gone.log"), 1), newWriter(t, b.log("other.log"), 2)
	gone.lines(500)
	other.lines(10)
	a := b.start()
	arrive(t, a, b.out, 510)
	ok(t, os.Remove(gone.path))
	gone.lines(200) // through the descriptor that the writer still has
	arrive(t, a, b.out, 710)
	pause(t, b)
	// More than one checkpoint later, so that it says that the removed log is done.
	n := 710
	for range 20 {
		other.lines(50)
		n += 50
		arrive(t, a, b.out, n)
		pause(t, b)
	}
	for range 5 {
		other.lines(3000)
		n += 3000
		arrive(t, a, b.out, n)
		a.kill() // before the checkpoint has it, most likely
		a = b.start()
		a.says("started")
		if holds(a.logPath, "kept what was written") {
			t.Error("the output was not cut back")
		}
	}
	arrive(t, a, b.out, n)
	a.stop()
	verify(t, []*writer{gone, other}, b.outputs()...)
}

// pause waits for a checkpoint that knows all of the output.
func pause(t *testing.T, b *box) {
	t.Helper()
	waitFor(t, "a checkpoint", func() bool {
		c, err := b.readCheckpoint()
		return err == nil && c.known && c.length == size(b.out)
	})
}
