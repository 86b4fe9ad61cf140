package stdout

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// limited takes so many bytes, then fails.
type limited struct {
	bytes.Buffer
	left int
	err  error
}

func (l *limited) write(ctx context.Context, p []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n := min(len(p), l.left)
	l.left -= n
	l.Write(p[:n])
	if n < len(p) {
		return n, l.err
	}
	return n, nil
}

// toFile is the plugin with its writer in a file of the instance.
var toFile = plugins.OutputSpec("stdout", "", Config{}, func(c Config, env plugins.Env) (plugins.Output, error) {
	f, err := os.Create(strings.TrimSuffix(env.StateDir, "/state") + "/out")
	if err != nil {
		return nil, err
	}
	return build(c, env, file{f}), nil
})

func TestContract(t *testing.T) {
	read := plugintest.Observe(func(dir string) []byte { p, _ := os.ReadFile(dir + "/out"); return p })
	for _, cfg := range []string{"pretty: false", "pretty: true", "event_id: true"} {
		plugintest.Output(t, toFile, cfg, read)
	}
}

func events() []*event.Event {
	b := plugintest.Events(5)
	var all []*event.Event
	for i := range b.Events {
		all = append(all, &b.Events[i])
	}
	return all
}

// Wherever a write is cut: what is said to be written is there whole and once, and the rest is after the retry.
func TestTornWritesAreEndedAndCountedExactly(t *testing.T) {
	t.Parallel()
	whole := &limited{left: 1 << 20}
	if err := build(Config{}, plugins.Env{}, whole).Write(context.Background(), events()); err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(whole.String(), "\n"), "\n")
	for cut := range whole.Len() {
		w := &limited{left: cut, err: syscall.EPIPE}
		o := build(Config{}, plugins.Env{}, w)
		todo := events()
		err := o.Write(context.Background(), todo)
		if err == nil && cut == whole.Len()-1 {
			todo = nil // only the last newline is missing
		} else if !errors.Is(err, syscall.EPIPE) {
			part := new(plugins.PartialError)
			if !errors.As(err, &part) || !errors.Is(part.Failed[len(todo)-1], syscall.EPIPE) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			todo = todo[len(todo)-len(part.Failed):]
		}
		// Once more nothing goes through, then all.
		if err := o.Write(context.Background(), todo); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		w.left = 1 << 20
		if err := o.Write(context.Background(), todo); err != nil {
			t.Fatal(err)
		}
		var got []string
		broken := 0
		for l := range strings.SplitSeq(strings.TrimSuffix(w.String(), "\n"), "\n") {
			if strings.HasSuffix(l, "}") && strings.HasPrefix(l, "{") && (len(got) == len(want) || l == want[len(got)]) {
				got = append(got, l)
			} else {
				broken++
			}
		}
		if len(got) != len(want) && broken == 0 || broken > 1 {
			t.Fatalf("cut at %d: %d whole lines, %d broken:\n%s", cut, len(got), broken, w.String())
		}
	}
}

func TestReaderThatIsGoneIsAnErrorThatSaysSo(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer func() { _ = w.Close() }()
	err = build(Config{}, plugins.Env{}, file{w}).Write(context.Background(), events())
	if !errors.Is(err, syscall.EPIPE) || !strings.Contains(err.Error(), "nobody reads") {
		t.Errorf("got %v", err)
	}
}

func TestReaderThatStallsDoesNotHoldTheAgent(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	defer func() { _ = w.Close() }()
	o := build(Config{}, plugins.Env{}, file{w})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for {
			if err := o.Write(ctx, events()); err != nil {
				done <- err
				return
			}
		}
	}()
	full := make([]byte, 4096)
	if _, err := r.Read(full); err != nil { // it writes
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		part := new(plugins.PartialError)
		if !errors.As(err, &part) || !errors.Is(part.Failed[4], context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}
