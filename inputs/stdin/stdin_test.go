package stdin

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// fakeAgent is the agent's side of the contract: it remembers what arrives.
type fakeAgent struct {
	t testing.TB

	mu      sync.Mutex // guards all below
	texts   []string
	offsets []int64
	cut     []bool
	at      event.Position
	known   []plugins.Stream
	forgot  []string
	drained bool
}

func (a *fakeAgent) Known() []plugins.Stream { return a.known }

func (a *fakeAgent) Open(context.Context, plugins.Stream) (event.Position, error) {
	return event.Position{}, nil
}

func (a *fakeAgent) Update(s plugins.Stream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drained = s.Drained
}

func (a *fakeAgent) Forget(name string) { a.forgot = append(a.forgot, name) }

func (a *fakeAgent) Send(_ context.Context, b *event.Batch) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer b.Release()
	if b.Span.From != a.at || b.Span.To.Seq <= a.at.Seq {
		a.t.Errorf("span %v after %v", b.Span, a.at)
	}
	a.at = b.Span.To
	for i := range b.Events {
		e := &b.Events[i]
		a.texts = append(a.texts, string(e.Raw))
		a.offsets = append(a.offsets, e.Offset)
		a.cut = append(a.cut, e.Is(event.BoolTruncated))
	}
	return nil
}

func (a *fakeAgent) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.texts)
}

func newInput(t testing.TB, a *fakeAgent, c Config, f *os.File) *input {
	t.Helper()
	in, err := New(c, plugins.Env{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Pool: event.NewPool(4 << 20), Streams: a,
		Count: func(string, string, int64) {}, Fail: func(string, error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	in.(*input).in = f
	return in.(*input)
}

func TestEveryLineOfAFileArrivesAtItsOffset(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	var want []string
	var at []int64
	for i := range 20000 {
		l := strings.Repeat("x", 1+i*13%300) + "!"
		want, at = append(want, l), append(at, int64(b.Len()))
		b.WriteString(l + "\n")
	}
	at = append(at, int64(b.Len()))
	want = append(want, strings.Repeat("y", 3000))
	b.WriteString(strings.Repeat("y", 1<<20) + "\n")
	at = append(at, int64(b.Len()))
	want = append(want, "unfinished")
	b.WriteString("unfinished")
	path := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := &fakeAgent{t: t, known: []plugins.Stream{{Name: "stdin:old"}, {Name: "other"}}}
	c := Defaults()
	c.MaxLine = 3000
	if err := newInput(t, a, c, f).Run(context.Background(), a); err != nil {
		t.Fatal(err)
	}
	if len(a.texts) != len(want) {
		t.Fatalf("%d records, want %d", len(a.texts), len(want))
	}
	for i := range want {
		if a.texts[i] != want[i] || a.offsets[i] != at[i] || a.cut[i] != (i >= 20000) {
			t.Fatalf("record %d: %d bytes at %d, cut %v", i, len(a.texts[i]), a.offsets[i], a.cut[i])
		}
	}
	if a.at.Seq != int64(b.Len()) || !a.drained || len(a.forgot) != 1 || a.forgot[0] != "stdin:old" {
		t.Errorf("ended at %v, drained %v, forgot %v", a.at, a.drained, a.forgot)
	}
}

func TestAPipeIsReadLiveAndLeftWhenToldTo(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a := &fakeAgent{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newInput(t, a, Defaults(), r).Run(ctx, a) }()
	if _, err := w.WriteString("one\ntw"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.len() == 1 })
	if _, err := w.WriteString("o\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.len() == 2 })
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run does not end")
	}
	if a.texts[1] != "two" {
		t.Errorf("got %q", a.texts)
	}
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("waited in vain")
		case <-tick.C:
		}
	}
}
