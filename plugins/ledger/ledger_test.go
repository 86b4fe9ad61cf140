package ledger

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// naive keeps everything for ever and finds the prefix by walking from the start.
type naive struct {
	at   int64
	to   []int64
	done []bool
}

func (n *naive) position() int64 {
	at := n.at
	for i, d := range n.done {
		if !d {
			break
		}
		at = n.to[i]
	}
	return at
}

func TestCommitsOnlyTheContiguousPrefix(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		start := r.Int64N(1000)
		l, m := New(event.Position{Seq: start}), &naive{at: start}
		at := start
		var tickets []Ticket
		for range 200 {
			if r.IntN(2) == 0 {
				at += 1 + r.Int64N(50)
				tickets = append(tickets, l.Add(event.Position{Seq: at}))
				m.to, m.done = append(m.to, at), append(m.done, false)
			} else if len(tickets) > 0 {
				i := r.IntN(len(tickets)) // often one that is settled already
				before := m.position()
				m.done[i] = true
				if moved := l.Settle(tickets[i]); moved != (m.position() != before) {
					t.Fatalf("seed %d: settling %d says moved=%v, the position went from %d to %d", seed, i, moved, before, m.position())
				}
			}
			if l.Position().Seq != m.position() || l.Head().Seq != at {
				t.Fatalf("seed %d: position %d head %d, want %d and %d", seed, l.Position().Seq, l.Head().Seq, m.position(), at)
			}
			left := 0
			for i := range slices.Backward(m.done) {
				if m.to[i] > m.position() {
					left++
				}
			}
			if l.Pending() != left {
				t.Fatalf("seed %d: %d pending, want %d", seed, l.Pending(), left)
			}
		}
	}
}

func TestIgnoresTicketsItNeverGave(t *testing.T) {
	t.Parallel()
	l := New(event.Position{})
	if l.Settle(7) {
		t.Error("an unknown ticket moved the position")
	}
	k := l.Add(event.Position{Seq: 5})
	if !l.Settle(k) || l.Settle(k) {
		t.Error("a ticket settles exactly once")
	}
}
