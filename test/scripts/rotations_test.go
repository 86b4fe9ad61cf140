//go:build blackbox

package scripts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/test/elasticsearch"
)

// R01 to R11, each with the agent running, stopped across the rotation, and killed at random moments; at the file output, and for all
// of them at an Elasticsearch, too.

const lag = 20_000_000 // bytes that are not read when the log is rotated

// plays are the rotations in the order of their ids.
func plays() []play {
	fill := func(s *stage) { s.w.lines(1000); s.arrived() }
	more := func(s *stage) { s.w.lines(300) }
	kolla := func(s *stage) { s.held(s.l.rotate) } // copytruncate, the copy plain until the next time
	return []play{
		{name: "R01RenameUnderLoad", siblings: true, before: fill, rotate: renamesUnderLoad, after: more},
		{name: "R02TheWriterKeepsTheOldFile", tail: "grace: 10s", before: fill, rotate: func(s *stage) {
			s.w.lines(100)
			ok(s.t, rename(s.w.path))
		}, after: bothWrite},
		{name: "R03RenamedAndUnlinkedAtOnce", gone: true, before: fill, rotate: func(s *stage) {
			s.hold()
			s.w.lines(500)
			ok(s.t, rename(s.w.path))
			s.w.reopen()
			drop(s.t, numbered(s.w.path, 1))
			s.release()
		}, after: more},
		{name: "R04CopytruncateToLess", before: fill, rotate: func(s *stage) {
			s.hold()
			s.w.lines(500)
			kolla(s)
			s.w.lines(200)
			s.release()
		}, after: more},
		{name: "R05CopytruncateToTheSameSize", tail: "unparsed: drop", before: fill, rotate: func(s *stage) {
			s.hold()
			s.w.lines(200)
			was := size(s.w.path)
			kolla(s)
			toSize(s, s.w, was)
			s.release()
		}, after: more},
		{name: "R05CopytruncateToTheSameSizeAllRead", tail: "unparsed: drop", before: fill, rotate: func(s *stage) {
			s.hold()
			was := size(s.w.path)
			kolla(s)
			toSize(s, s.w, was)
			s.release()
		}, after: more},
		{name: "R06CopytruncateToMore", before: fill, rotate: func(s *stage) {
			s.hold()
			s.w.lines(200)
			kolla(s)
			s.w.lines(3000)
			s.release()
		}, after: more},
		{name: "R07CopytruncateWhileBehind", before: fill, rotate: func(s *stage) {
			s.hold()
			s.w.bytes(lag)
			kolla(s)
			s.w.lines(500)
			s.release()
			mustHave(s.t, numbered(s.w.path, 1))
		}, after: more},
		{name: "R08CopytruncateWhileBehindAndStopped", before: fill, rotate: func(s *stage) {
			if s.mode == running {
				s.down()
			}
			s.w.bytes(lag)
			kolla(s)
			s.w.lines(500)
			if s.mode == running {
				s.up()
			}
		}, after: more},
		{name: "R09TwoCopytruncatesWhileBehind", before: fill, rotate: func(s *stage) {
			s.hold()
			s.w.bytes(lag)
			kolla(s)
			s.w.bytes(lag / 4)
			kolla(s)
			s.w.lines(500)
			s.release()
			mustHave(s.t, numbered(s.w.path, 2)+".gz")
		}, after: more},
		{name: "R10CompressedAfterItWasRead", siblings: true, tail: "grace: 300ms", before: fill, rotate: func(s *stage) {
			ok(s.t, rename(s.w.path))
			s.w.reopen()
			s.w.lines(100)
			ok(s.t, compress(numbered(s.w.path, 1)))
			ok(s.t, shift(s.w.path))
		}, after: more},
		{name: "R11RewrittenWithTheSameBeginning", tail: "unparsed: drop", before: func(s *stage) {
			s.w.raw(banner())
			fill(s)
		}, rotate: func(s *stage) {
			s.hold()
			s.w.lines(100)
			kolla(s)
			s.w.raw(banner())
			s.w.lines(2000)
			s.release()
		}, after: more},
	}
}

// banner is 1 KiB of lines in no known format, alike in every file.
func banner() []byte { return bytes.Repeat([]byte("= this is the same in each file\n"), 32) }

func renamesUnderLoad(s *stage) {
	plain := newLogrotate(s.t, s.b.dir, s.w.path, "nocompress", "nocreate")
	end := load(s.w)
	beats(4, 500*time.Millisecond, func(i int) {
		if i%2 == 0 {
			plain.rotate()
		} else {
			ok(s.t, rename(s.w.path))
		}
		s.w.reopen()
	})
	end()
}

// bothWrite has the old file and the new one grow for five seconds.
func bothWrite(s *stage) {
	next := s.next()
	beats(50, 100*time.Millisecond, func(int) {
		s.w.lines(10)
		next.lines(10)
	})
}

func TestR01ToR11WithTheAgentRunning(t *testing.T) { playAll(t, running, 0) }

func TestR01ToR11WithTheAgentStoppedAcrossTheRotation(t *testing.T) { playAll(t, stopped, 0) }

func TestR01ToR11WithKillsAtRandomMoments(t *testing.T) {
	for i := range number(t, "STACKTRAIL_PLAYS", 1) {
		playAll(t, killed, seedOf(t)+uint64(i))
	}
}

func playAll(t *testing.T, m mode, seed uint64) {
	for i, p := range plays() {
		name := p.name
		if m == killed {
			name += fmt.Sprintf("/seed=%d", seed)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, p, m, seed<<8|uint64(i), "")
			s.play(p)
			s.exact(p, s.settle(p))
			if s.killer != nil {
				t.Logf("%d kills, %d lines", s.killer.kills, s.lines())
			}
		})
	}
}

// TestR01ToR11InElasticsearch has every rotation delivered to a server, too: running, stopped and killed take turns.
func TestR01ToR11InElasticsearch(t *testing.T) {
	es := elasticsearch.Start(t, elasticsearch.Elasticsearch)
	seed := seedOf(t)
	for i, p := range plays() {
		m := []mode{stopped, killed, running}[i%3]
		if p.gone {
			m = running // else it is not known what the server should have
		}
		t.Run(p.name+"/"+string(m), func(t *testing.T) {
			t.Parallel()
			namespace := strings.ToLower(p.name)
			s := newStage(t, p, m, seed<<8|uint64(i), fmt.Sprintf(
				"elasticsearch: {urls: [%q], data_stream: {dataset: stacktrail.rotations, namespace: %s}, timeout: 20s}, id: es, batch: {events: 1000, linger: 50ms}, retry: {initial: 50ms, max: 1s}",
				es.URL, namespace))
			out, err := exec.Command(stacktrail(t), "setup", "elasticsearch", "--apply", "-c", s.b.config).CombinedOutput()
			if err != nil {
				t.Fatalf("setup: %v\n%s", err, out)
			}
			s.play(p)
			s.arrived()
			waitFor(t, "everything is delivered", func() bool { return settled(s.a, 3) }) // two outputs and the lag
			s.exact(p, s.settle(p))
			documents(t, es, "logs-stacktrail.rotations-"+namespace, s.all...)
		})
	}
}

// TestR11RewrittenInPlaceWithoutACopy has a file that was read be written anew with the same beginning, and nothing kept of it.
func TestR11RewrittenInPlaceWithoutACopy(t *testing.T) {
	t.Parallel()
	p := play{tail: "unparsed: drop"}
	s := newStage(t, p, running, 1, "")
	s.up()
	for _, n := range []int{400, 300, 900, 50} { // less, more, less
		s.w.raw(banner())
		s.w.lines(n)
		s.arrived()
		s.hold()
		ok(t, os.Truncate(s.w.path, 0))
		s.w.raw(banner())
		s.w.lines(n)
		s.release()
		s.arrived()
		ok(t, os.Truncate(s.w.path, 0))
	}
	s.exact(p, s.settle(p))
}
