package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample(n int) *Snapshot {
	return &Snapshot{
		Written: time.Unix(int64(n), 0).UTC(),
		Pipelines: map[string]Pipeline{"p": {
			Streams: []Stream{{Input: "tail", Name: "s", Lane: "l", Meta: []byte("m"), Cursors: map[string]Cursor{"file": {Seq: int64(n), Token: []byte{0, 1, 0xff}}}}},
			Outputs: map[string]Output{"file": {Token: []byte("t"), DeadToken: []byte("d")}},
		}},
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestLoadsWhatWasSaved(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	if got, damage, err := s.Load(false); got != nil || damage != nil || err != nil {
		t.Fatalf("an empty directory gives %v %v %v", got, damage, err)
	}
	for n := range 3 {
		if err := s.Save(sample(n)); err != nil {
			t.Fatal(err)
		}
		got, damage, err := s.Load(false)
		if err != nil || damage != nil || !reflect.DeepEqual(got, sample(n)) {
			t.Fatalf("got %+v %v %v", got, damage, err)
		}
	}
}

func TestFallsBackToThePreviousGenerationFromAnyDamage(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	s := open(t, filepath.Join(base, "ref"))
	for n := 1; n <= 2; n++ {
		if err := s.Save(sample(n)); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(filepath.Join(base, "ref", fileName))
	if err != nil {
		t.Fatal(err)
	}
	prev, err := os.ReadFile(filepath.Join(base, "ref", prevName))
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"zeroed": make([]byte, len(good)), "empty": {}}
	for i := range len(good) {
		damaged[fmt.Sprintf("cut at %d", i)] = good[:i]
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		damaged[fmt.Sprintf("flipped at %d", i)] = flipped
	}
	dir := filepath.Join(base, "x")
	x := open(t, dir)
	for name, b := range damaged {
		write(t, filepath.Join(dir, fileName), b)
		write(t, filepath.Join(dir, prevName), prev)
		got, damage, err := x.Load(false)
		var newer *NewerError
		if errors.As(err, &newer) && strings.HasPrefix(name, "flipped") {
			continue // the flipped digit was the format's
		}
		if err != nil || len(damage) != 1 || !reflect.DeepEqual(got, sample(1)) {
			t.Fatalf("%s: got %+v, damage %v, err %v", name, got, damage, err)
		}
	}
	write(t, filepath.Join(dir, fileName), []byte("x"))
	write(t, filepath.Join(dir, prevName), []byte("y"))
	if got, damage, err := x.Load(false); got != nil || len(damage) != 2 || err != nil {
		t.Errorf("both damaged: got %v %v %v", got, damage, err)
	}
}

func TestStrictLeavesDamageWhereItIs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last, prev string
		damage     int
		err        bool
	}{"both": {junk, "zzz", 2, false}, "the only one": {junk, "", 1, false}, "the one before": {"", junk, 1, false}, "beside a newer one": {junk, newer, 0, true}} {
		dir := lay(t, c.last, c.prev)
		s := open(t, dir)
		for range 2 {
			if got, damage, err := s.Load(true); got != nil || len(damage) != c.damage || (err != nil) != c.err {
				t.Errorf("%s: got %v, damage %v, err %v", name, got, damage, err)
			}
		}
		for file, want := range map[string]string{fileName: c.last, prevName: c.prev} {
			if b, _ := os.ReadFile(filepath.Join(dir, file)); string(b) != want { // "" stands for none
				t.Errorf("%s: %s was changed to %q", name, file, b)
			}
		}
	}
	// With a good one there is nothing to refuse.
	dir := lay(t, junk, "1")
	if got, damage, err := open(t, dir).Load(true); got == nil || len(damage) != 1 || err != nil {
		t.Errorf("got %v, damage %v, err %v", got, damage, err)
	}
	if _, err := os.Stat(filepath.Join(dir, fileName+asideSuffix)); err != nil {
		t.Error(err)
	}
}

func TestTryRoomLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := lay(t, "2", "1")
	s := open(t, dir)
	before, _ := os.ReadDir(dir)
	if err := s.TryRoom(s.Size()); err != nil || s.Size() == 0 {
		t.Errorf("%d bytes: %v", s.Size(), err)
	}
	if after, _ := os.ReadDir(dir); len(after) != len(before) {
		t.Errorf("%v became %v", before, after)
	}
	// A folder stands where the bytes would go.
	if err := os.Mkdir(filepath.Join(dir, tempName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.TryRoom(1); err == nil {
		t.Error("room was found where nothing can be written")
	}
}

func TestRefusesANewerFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	write(t, filepath.Join(dir, fileName), []byte("stacktrail-checkpoint 2 something else\n"))
	var newer *NewerError
	if _, _, err := s.Load(false); !errors.As(err, &newer) || newer.Format != 2 {
		t.Errorf("got %v", err)
	}
}

func TestSecondInstanceIsRefusedAndToldThePid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	var locked *LockedError
	if _, err := Open(dir); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("got %v", err)
	}
	s.Close()
	open(t, dir)
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAMissingCheckpointIsSaidWhenTheOneBeforeIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, node := range []string{"old", "new"} {
		if err := s.Save(&Snapshot{NodeID: node}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	snap, damage, err := s.Load(false)
	if err != nil || snap == nil || snap.NodeID != "old" || len(damage) != 1 || !strings.Contains(damage[0].Error(), "is not there") {
		t.Errorf("%+v, %v, %v", snap, damage, err)
	}
}

func TestWhatIsEncodedBeforehandIsWhatWouldBeEncodedNow(t *testing.T) {
	t.Parallel()
	s := &Snapshot{NodeID: `a"b`, Written: time.Date(2026, 3, 2, 1, 2, 3, 4, time.UTC), Pipelines: map[string]Pipeline{
		"b": {Streams: []Stream{}, Outputs: map[string]Output{}},
		"a": {
			Streams: []Stream{
				{Input: "i", Name: "1", Lane: "/x<&>", Meta: []byte("{}"), Cursors: map[string]Cursor{"o": {Seq: 7, Token: []byte("t")}}},
				{Input: "i", Name: "2", Drained: true, Cursors: map[string]Cursor{"p": {}, "o": {Seq: 1}}},
			},
			Outputs: map[string]Output{"o": {Token: []byte("x"), DeadToken: []byte("y")}, "p": {}},
		},
	}}
	want, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time with a stream that is encoded
		if got := appendDocument(nil, s); !bytes.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		s.Pipelines["a"].Streams[0] = s.Pipelines["a"].Streams[0].Encoded()
	}
}

func TestThereIsNoMomentWithoutBothGenerations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	save := func(n int) {
		if err := s.Save(sample(n)); err != nil {
			t.Error(err)
		}
	}
	save(0)
	save(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 2; n < 300; n++ {
			save(n)
		}
	}()
	for saving := true; saving; {
		select {
		case <-done:
			saving = false
		default:
		}
		for _, name := range []string{fileName, prevName} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The way it is after a fall back: both are one file.
	if err := errors.Join(os.Remove(filepath.Join(dir, prevName)), os.Link(filepath.Join(dir, fileName), filepath.Join(dir, prevName))); err != nil {
		t.Fatal(err)
	}
	save(300)
	v, err := Look(dir)
	if err != nil || v.Last.Snapshot.Written.Unix() != 300 || v.Prev.Snapshot.Written.Unix() != 299 {
		t.Errorf("last %v, previous %v, %v", v.Last.Snapshot, v.Prev.Snapshot, err)
	}
	if _, err := os.Stat(filepath.Join(dir, linkName)); err == nil {
		t.Error("the third name is left behind")
	}
}
