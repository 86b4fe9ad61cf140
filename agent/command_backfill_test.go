package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins/event"
)

func TestAPacerLetsPassWhatTheRateSays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{rate: 1000}
		began := time.Now()
		ended := make(chan struct{})
		for range 4 { // as many workers read at the same time
			go func() {
				for range 25 {
					if err := p.wait(t.Context(), 100); err != nil {
						t.Error(err)
					}
				}
				ended <- struct{}{}
			}()
		}
		for range 4 {
			<-ended
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("10,000 bytes at 1,000 a second took %v", took)
		}
		// What was not read while there was nothing to read is not made up for.
		<-time.After(time.Hour)
		began = time.Now()
		if err := p.wait(t.Context(), 500); err != nil || time.Since(began) != 500*time.Millisecond {
			t.Errorf("after a rest: %v, %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.wait(ctx, 1<<40); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a stop is not heard: %v", err)
		}
	})
}

func TestTheHelpSaysWhichOutputsCannotBeNamed(t *testing.T) {
	t.Parallel()
	help := strings.Join(strings.Fields(newBackfillCommand(nil).Long), " ")
	for _, want := range []string{"cuts back after a crash (file) cannot be named", "another id and another path"} {
		if !strings.Contains(help, want) {
			t.Errorf("%q is not in the help", want)
		}
	}
}

func TestABackfillsFolderIsTheSameForTheSameWork(t *testing.T) {
	t.Parallel()
	wish := backfillWish{since: "2026-03-02T08:00:00Z", until: "2026-03-02T09:00:00Z"}
	folder := func(w backfillWish, pipe string, inputs, outputs []string) string {
		b := &backfill{}
		if err := b.parse(w); err != nil {
			t.Fatal(err)
		}
		var in []pipeline.InputConfig
		for _, id := range inputs {
			in = append(in, pipeline.InputConfig{ID: id})
		}
		var out []pipeline.OutputConfig
		for _, id := range outputs {
			out = append(out, pipeline.OutputConfig{ID: id})
		}
		return b.folder(pipe, in, out)
	}
	want := folder(wish, "p", []string{"a", "b"}, []string{"x", "y"})
	same := wish
	same.since, same.rate = "2026-03-02T09:00:00+01:00", "1MB"
	if got := folder(same, "p", []string{"b", "a"}, []string{"y", "x"}); got != want {
		t.Errorf("%s and %s for the same work", got, want)
	}
	later := wish
	later.until = "2026-03-02T10:00:00Z"
	seen := map[string]bool{want: true}
	for i, other := range []string{
		folder(later, "p", []string{"a", "b"}, []string{"x", "y"}), folder(wish, "q", []string{"a", "b"}, []string{"x", "y"}),
		folder(wish, "p", []string{"a"}, []string{"x", "y"}), folder(wish, "p", []string{"a", "b"}, []string{"x"}),
		folder(wish, "p", []string{"a", "b", "x"}, []string{"y"}),
	} {
		if seen[other] {
			t.Errorf("other work %d has a folder that is taken", i)
		}
		seen[other] = true
	}
}

func TestAFinishedBackfillKeepsItsDeadLetters(t *testing.T) {
	t.Parallel()
	lay := func(letters string) (dir string) {
		dir = filepath.Join(t.TempDir(), "backfill", "0123")
		for name, text := range map[string]string{"checkpoint": "x", "checkpoint.prev": "x", "lock": "1", "plugins/p/o/journal": "x", "dead/p/es.ndjson": letters} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	dir := lay("")
	if err := (&backfill{dir: dir, log: io.Discard}).finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); err == nil {
		t.Error("the folder is left behind")
	}
	dir = lay(`{"dead_reason":"too long","dead_time":"2026-03-02T08:00:00Z"}` + "\n")
	var said strings.Builder
	if err := (&backfill{dir: dir, log: &said}).finish(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "dead" {
		t.Errorf("left: %v, %v", entries, err)
	}
	if want := "1 dead letter of p/es: see 'stacktrail dlq list --state-dir " + dir + "'\n"; said.String() != want {
		t.Errorf("said %q, want %q", said.String(), want)
	}
}

func TestAStreamsLowestAndFurthestPositions(t *testing.T) {
	t.Parallel()
	s := checkpoint.Stream{Cursors: map[string]checkpoint.Cursor{"a": {Seq: 7, Token: []byte("t7")}, "b": {Seq: 3, Token: []byte("t3")}, "c": {Seq: 9, Token: []byte("t9")}}}
	if at := lowest(s); at != (event.Position{Seq: 3, Token: "t3"}) {
		t.Errorf("lowest %v", at)
	}
	if at := furthest(s); at != (event.Position{Seq: 9, Token: "t9"}) {
		t.Errorf("furthest %v", at)
	}
	if lowest(checkpoint.Stream{}) != (event.Position{}) || furthest(checkpoint.Stream{}) != (event.Position{}) {
		t.Error("without a cursor there is a position")
	}
}
