package rpc

import (
	"strings"
	"sync"

	"github.com/stacktrail/stacktrail/plugins"
)

// Limits of what a plugin may count and complain of under one id: each name is a series of metrics, each key a line of the health.
const (
	mostCounters = 100
	mostFailing  = 100
	// mostCounted is where a counter stops: metrics are floats, which are exact up to there.
	mostCounted = 1 << 53
)

// tallies are the counters and complaints that came from a plugin, by pipeline and id. Instances come and go, counters stay.
type tallies struct {
	mu sync.Mutex // guards by and all in it
	by map[tallyKey]*tally
}

type tallyKey struct {
	pipeline, id string
	kind         plugins.Kind
}

type tally struct {
	counted map[[2]string]int64 // by name and reason
	failing map[string]bool
	told    bool // that something was left out
}

// tallyOf returns that of an instance. The caller holds mu.
func (t *tallies) tallyOf(x *instance) *tally {
	key := tallyKey{x.env.Pipeline, x.env.ID, x.open.Kind}
	own := t.by[key]
	if own == nil {
		own = &tally{counted: map[[2]string]int64{}, failing: map[string]bool{}}
		if t.by == nil {
			t.by = map[tallyKey]*tally{}
		}
		t.by[key] = own
	}
	return own
}

// room returns by how much of n a counter may grow.
func (t *tally) room(name, reason string, n int64) int64 {
	key := [2]string{name, reason}
	was, known := t.counted[key]
	if !known && len(t.counted) >= mostCounters {
		return 0
	}
	n = min(n, mostCounted-was)
	t.counted[key] = was + n
	return n
}

// fails notes whether something is wrong under a key, and tells whether that may be shown.
func (t *tally) fails(key string, wrong bool) bool {
	if !wrong {
		delete(t.failing, key)
		return true
	}
	if !t.failing[key] && len(t.failing) >= mostFailing {
		return false
	}
	t.failing[key] = true
	return true
}

// take passes on what the plugin counts and what it complains of.
func (x *instance) take(n *notesJSON) {
	if len(n.Count) == 0 && len(n.Fail) == 0 {
		return
	}
	clean := func(s string) string {
		return strings.ToValidUTF8(cut(x.host.secrets.line(s)), "") // half a letter would spoil all metrics
	}
	t := &x.host.tallies
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.tallyOf(x)
	left := false
	for _, c := range n.Count {
		if c.name == "" || c.by <= 0 || x.env.Count == nil {
			continue
		}
		name, reason := clean(c.name), clean(c.reason)
		by := own.room(name, reason, c.by)
		if left = left || by < c.by; by > 0 {
			x.env.Count(name, reason, by)
		}
	}
	for _, f := range n.Fail {
		if x.env.Fail == nil {
			break
		}
		key := clean(f.key)
		switch {
		case !own.fails(key, f.text != ""):
			left = true
		case f.text == "":
			x.env.Fail(key, nil)
		default:
			x.env.Fail(key, textError(x.host.secrets.line(f.text)))
		}
	}
	if left && !own.told {
		own.told = true
		x.host.log.Load().Warn("the plugin counts or complains too much: the rest is left out", "pipeline", x.env.Pipeline, "id", x.env.ID,
			"counters", mostCounters, "keys", mostFailing, "most", int64(mostCounted))
	}
}
