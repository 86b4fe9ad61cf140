package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/checkpoint"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// told is an input that says of every stream the same.
type told struct {
	src plugins.Source
	err error
}

func (told) Run(context.Context, plugins.Sink) error { return nil }

func (d told) Describe(context.Context, plugins.Stream) (plugins.Source, error) { return d.src, d.err }

// mute is an input that says nothing of its streams.
type mute struct{}

func (mute) Run(context.Context, plugins.Sink) error { return nil }

func TestLagsOfAStream(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	s := checkpoint.Stream{Input: "in", Name: "s", Lane: "/lane", Cursors: map[string]checkpoint.Cursor{"a": {Seq: 60}, "b": {Seq: 100}, "c": {Seq: 130}}}
	written := now.Add(-3 * time.Second)
	for name, c := range map[string]struct {
		in   plugins.Input
		want string // as people are told
	}{
		"known":           {told{src: plugins.Source{Name: "/f", Size: 100, Written: written}}, "/f: 100B (100 bytes)|a at 60, 40B behind, written 3s ago|b at 100, 0B behind|c at 130, 0B behind"},
		"no time":         {told{src: plugins.Source{Name: "/f", Size: 100}}, "/f: 100B (100 bytes)|a at 60, 40B behind|b at 100, 0B behind|c at 130, 0B behind"},
		"no size":         {told{src: plugins.Source{Name: "/f", Size: -1, Written: written}}, "/f: size unknown|a at 60|b at 100|c at 130"},
		"gone":            {told{src: plugins.Source{Name: "/f", Size: 100, Gone: true}}, "/f: 100B (100 bytes), gone|a at 60, 40B behind|b at 100, 0B behind|c at 130, 0B behind"},
		"cannot look":     {told{src: plugins.Source{Name: "/f", Size: 100}, err: errors.New("permission denied")}, "/f: size unknown|cannot be looked at: permission denied|a at 60|b at 100|c at 130"},
		"says nothing":    {mute{}, "/lane: size unknown|a at 60|b at 100|c at 130"},
		"not there today": {nil, "/lane: size unknown|a at 60|b at 100|c at 130"},
	} {
		r := describeStream(t.Context(), c.in, s, now)
		var text strings.Builder
		r.print(&text)
		var got []string
		for line := range strings.Lines(text.String()) {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s: %q, want %q", name, strings.Join(got, "|"), c.want)
		}
	}
}

// prover can read again up to a byte.
type prover struct {
	mute
	upTo  int64
	asked *int
}

func (p prover) CanReplay(_ context.Context, _ plugins.Stream, from event.Position) error {
	*p.asked++
	if from.Seq > p.upTo {
		return plugins.ErrGone
	}
	return nil
}

func (prover) Replay(context.Context, plugins.Stream, event.Position, event.Position, plugins.Sink) error {
	return nil
}

func TestCheckProvesEveryPositionOnce(t *testing.T) {
	t.Parallel()
	s := checkpoint.Stream{Input: "in", Lane: "/lane", Cursors: map[string]checkpoint.Cursor{"a": {Seq: 60}, "b": {Seq: 60}, "c": {Seq: 61}}}
	asked := 0
	in := prover{upTo: 60, asked: &asked}
	r := &checkReport{}
	r.prove(t.Context(), "p", in, s)
	if asked != 2 || r.Proved != 2 || len(r.Findings) != 1 || r.Findings[0] != "pipeline p: input in: output c at byte 61 of /lane: the records are gone" {
		t.Errorf("asked %d times: %+v", asked, r)
	}
	s.Drained = true // nothing of it is to be read again
	r = &checkReport{}
	r.prove(t.Context(), "p", in, s)
	s.Drained = false
	r.prove(t.Context(), "p", mute{}, s)
	r.prove(t.Context(), "p", nil, s)
	if asked != 2 || r.Proved != 0 || len(r.Findings) != 0 || len(r.Notes) != 2 {
		t.Errorf("asked %d times: %+v", asked, r)
	}
}
