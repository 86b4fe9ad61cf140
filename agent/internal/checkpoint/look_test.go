package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lay writes a state directory: a number is a good snapshot, another text is written as it is, "" is no file.
func lay(t *testing.T, last, prev string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{fileName: last, prevName: prev} {
		if text == "" {
			continue
		}
		b := []byte(text)
		if len(text) == 1 {
			_, b = encode(nil, sample(int(text[0]-'0')))
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	junk  = "junk\nand more"
	newer = magic + " 2 of another time\n{}"
)

func TestLookSaysWhatBothGenerationsAreAndPlanWhatToDo(t *testing.T) {
	t.Parallel()
	const aside, fall = "set aside what is damaged", "fall back to the generation before"
	for name, c := range map[string]struct {
		last, prev  string
		states      [2]string
		used        int64 // the number of the snapshot that a start uses
		steps       []string
		after       int64
		refuseNewer bool
	}{
		"good":                  {last: "2", prev: "1", states: [2]string{"good", "good"}, used: 2, after: 2},
		"the first":             {last: "2", states: [2]string{"good", "absent"}, used: 2, after: 2},
		"none":                  {states: [2]string{"absent", "absent"}},
		"last damaged":          {last: junk, prev: "1", states: [2]string{"damaged", "good"}, used: 1, steps: []string{aside, fall}, after: 1},
		"last absent":           {prev: "1", states: [2]string{"absent", "good"}, used: 1, steps: []string{fall}, after: 1},
		"previous damaged":      {last: "2", prev: junk, states: [2]string{"good", "damaged"}, used: 2, steps: []string{aside}, after: 2},
		"both damaged":          {last: junk, prev: junk, states: [2]string{"damaged", "damaged"}, steps: []string{aside, aside}},
		"last newer":            {last: newer, prev: "1", states: [2]string{"newer", "good"}, used: 1, refuseNewer: true},
		"previous newer":        {last: junk, prev: newer, states: [2]string{"damaged", "newer"}, refuseNewer: true},
		"empty, as after crash": {last: "\x00\x00\x00\x00", prev: "1", states: [2]string{"damaged", "good"}, used: 1, steps: []string{aside, fall}, after: 1},
	} {
		dir := lay(t, c.last, c.prev)
		v, err := Look(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]string{v.Last.State(), v.Prev.State()}; got != c.states || v.Running || v.PID != 0 {
			t.Errorf("%s: states %v, running %v", name, got, v.Running)
		}
		number := func(v *View) int64 {
			if g := v.Good(); g != nil {
				return g.Snapshot.Written.Unix()
			}
			return 0
		}
		if number(v) != c.used {
			t.Errorf("%s: snapshot %d is used, want %d", name, number(v), c.used)
		}
		steps, err := v.Plan()
		if _, is := errors.AsType[*NewerError](err); is != c.refuseNewer || err != nil && !is {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var what []string
		for _, s := range steps {
			what = append(what, s.What)
		}
		if strings.Join(what, ", ") != strings.Join(c.steps, ", ") {
			t.Errorf("%s: steps %q, want %q", name, what, c.steps)
		}
		s := open(t, dir)
		if err := s.Repair(steps); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		after, err := Look(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !c.refuseNewer && (number(after) != c.after || len(after.Aside) != strings.Count(strings.Join(c.steps, ""), aside)) {
			t.Errorf("%s: after it snapshot %d is used, want %d; set aside: %v", name, number(after), c.after, after.Aside)
		}
		if again, err := after.Plan(); err == nil && len(again) > 0 {
			t.Errorf("%s: there is still something to repair: %v", name, again)
		}
	}
}

func TestLookSeesTheOneWhoHoldsTheLockAndNeverATornState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	for n := range 2 {
		if err := s.Save(sample(n)); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for n := 2; ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := s.Save(sample(n)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	last := int64(0)
	for range 200 {
		v, err := Look(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !v.Running || v.PID != os.Getpid() || v.Last.State() != "good" || v.Prev.State() != "good" {
			t.Fatalf("running %v, pid %d, last %s, previous %s: %v %v", v.Running, v.PID, v.Last.State(), v.Prev.State(), v.Last.Err, v.Prev.Err)
		}
		n, before := v.Last.Snapshot.Written.Unix(), v.Prev.Snapshot.Written.Unix()
		if n < last || before > n {
			t.Fatalf("snapshot %d after %d, and %d before it", n, last, before)
		}
		last = n
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := Look(dir); err != nil || v.Running {
		t.Errorf("after it was closed: running %v, %v", v.Running, err)
	}
}

func TestLookMakesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := Look(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(file); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("%v", err)
	}
	dir = lay(t, "1", "")
	if _, err := Look(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("there are %d files, want the one that was there: %v", len(entries), err)
	}
}

func TestWhatCannotBeReadIsNotDamaged(t *testing.T) {
	t.Parallel()
	dir := lay(t, "", "1")
	if err := os.Mkdir(filepath.Join(dir, fileName), 0o700); err != nil { // reading it fails, for root as well
		t.Fatal(err)
	}
	v, err := Look(dir)
	if err != nil || v.Last.State() != "unreadable" {
		t.Fatalf("%s, %v", v.Last.State(), err)
	}
	if steps, err := v.Plan(); err == nil || len(steps) > 0 {
		t.Errorf("it would be repaired: %v", steps)
	}
}
