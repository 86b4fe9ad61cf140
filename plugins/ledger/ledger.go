// Package ledger turns settlements that come in any order into one position that only moves forward: the end of the longest
// finished prefix. The agent keeps one ledger per stream and output.
package ledger

import "github.com/stacktrail/stacktrail/plugins/event"

// Ticket names one entry of a ledger.
type Ticket uint64

// Ledger is one reader's account of one stream. It is not safe for concurrent use: its owner's mutex guards it.
type Ledger struct {
	position event.Position // end of the longest finished prefix
	head     event.Position // end of what was added last
	entries  []entry        // what is not yet behind position, in the order of Add
	first    Ticket         // ticket of entries[0]
}

type entry struct {
	to   event.Position
	done bool
}

// New makes a ledger whose reader has everything up to at.
func New(at event.Position) *Ledger { return &Ledger{position: at, head: at} }

// Add enters the next part of the stream, which ends at to, and returns its ticket. Parts are added in the stream's order.
func (l *Ledger) Add(to event.Position) Ticket {
	l.entries = append(l.entries, entry{to: to})
	l.head = to
	return l.first + Ticket(len(l.entries)-1)
}

// Settle marks a part as finished and reports whether the position moved. A ticket that is settled already, or was never
// given, changes nothing.
func (l *Ledger) Settle(t Ticket) bool {
	if t < l.first || t >= l.first+Ticket(len(l.entries)) {
		return false
	}
	l.entries[t-l.first].done = true
	n := 0
	for n < len(l.entries) && l.entries[n].done {
		n++
	}
	if n == 0 {
		return false
	}
	l.position = l.entries[n-1].to
	l.first += Ticket(n)
	l.entries = append(l.entries[:0], l.entries[n:]...)
	return true
}

// Position returns the end of the longest finished prefix: where the reader goes on after a restart.
func (l *Ledger) Position() event.Position { return l.position }

// Head returns the end of what was added last: where live reading goes on.
func (l *Ledger) Head() event.Position { return l.head }

// Pending returns how many parts are added and not yet behind the position.
func (l *Ledger) Pending() int { return len(l.entries) }
