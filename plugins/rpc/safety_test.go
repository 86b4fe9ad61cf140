package rpc

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// many is a batch of n events.
func many(n int) *event.Batch {
	return batchOf(slices.Repeat([]string{"/a"}, n)...)
}

// TestAReplyThatIsSmallOnTheWireMakesNothingLarge: one value stands for a thousand events.
func TestAReplyThatIsSmallOnTheWireMakesNothingLarge(t *testing.T) {
	for name, want := range map[string]string{
		"inflate text":   `the patch makes more than 16777216 bytes of 1000 events`,
		"inflate raw":    `the patch makes more than 16777216 bytes of 1000 events`,
		"inflate object": `(column "metadata")`,
		"inflate list":   `(column "tags")`,
		"inflate names":  `the patch makes more than 16777216 bytes of 1000 events`,
		"inflate fields": `the patch makes more than 16777216 bytes of 1000 events`,
		"inflate one":    `the patch makes 102469 bytes of event 500, at most 65536 are allowed`,
		"inflate reply":  "message larger than max",
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := host(t, name)
			p := processorOf(t, h)
			b := many(1000)
			before := heap()
			err := p.Process(t.Context(), b)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("the error is %.300v, want %s", err, want)
			}
			if grown := heap() - before; grown > 16<<20 {
				t.Errorf("the batch keeps %d bytes more", grown)
			}
			if e := &b.Events[500]; e.Query != "a=secret" || len(e.Extra) > 0 {
				t.Error("the failed call changed events")
			}
			runtime.KeepAlive(b)
			// Taken apart, each event alone must not get it either.
			if err := p.Process(t.Context(), many(1)); err == nil {
				t.Error("a lone event got it")
			}
			if h.Status().Restarts != 0 {
				t.Error("it was started again")
			}
		})
	}
}

// heap is what is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAReplyMayBeAsLargeAsWhatItChanges: large records pass, also where each of their bytes is replaced.
func TestAReplyMayBeAsLargeAsWhatItChanges(t *testing.T) {
	h, _ := host(t, "honest")
	p := processorOf(t, h)
	b := many(3)
	b.Events[1].Query = strings.Repeat("secret", 256<<10)
	if err := p.Process(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := len(b.Events[1].Query); got != 3*256<<10 {
		t.Errorf("it has %d bytes", got)
	}
}

// TestOpeningAgainIsWaitedForWhateverIsWrong: no event dies of an Open that fails after a restart.
func TestOpeningAgainIsWaitedForWhateverIsWrong(t *testing.T) {
	for name, want := range map[string]string{
		"garbage": "the plugin cannot be opened: reading its reply: invalid character",
		"status":  "the plugin cannot be opened: no idea (Internal)",
		"big":     "the plugin cannot be opened: grpc: received message larger than max",
		"refuse":  "the plugin does not open: the far end is gone",
		"die":     "the plugin cannot be opened: the plugin ended: exit status 4",
		"hang":    "the plugin cannot be opened: the plugin did not answer within 500ms (call Open) and was killed for it",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := host(t, "rogue", quick)
			env, health := watchedEnv(t)
			p := build(t, h, plugins.KindProcessor, "pattern: secret", env).(plugins.Processor)
			if err := p.Process(t.Context(), batchOf("/a")); err != nil {
				t.Fatal(err)
			}
			raise(t, h, name)
			b := batchOf("/a", "/b")
			end := make(chan error, 1)
			go func() { end <- p.Process(t.Context(), b) }()
			eventually(t, "its health says why, four times", func() bool {
				select {
				case err := <-end:
					t.Fatalf("it did not wait: %v", err)
				default:
				}
				return strings.Contains(health.of("plugin x"), want) && health.count("plugin_waits") >= 4
			})
			lower(t, h)
			if err := <-end; err != nil || b.Events[1].Query != "a=***" {
				t.Errorf("the error is %v", err)
			}
			if text := health.of("plugin x"); text != "" {
				t.Errorf("its health still says %s", text)
			}
		})
	}
}

// TestAnOutputsEventsAreTriedAgainWhateverIsWrongWithOpen: an error for good would kill them.
func TestAnOutputsEventsAreTriedAgainWhateverIsWrongWithOpen(t *testing.T) {
	for _, name := range []string{"garbage", "status", "big", "refuse", "die", "hang"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := host(t, "rogue", quick)
			env, health := watchedEnv(t)
			o := build(t, h, plugins.KindOutput, "path: "+filepath.Join(t.TempDir(), "out"), env).(plugins.Output)
			evs := pointers(nil, batchOf("/a"))
			if err := o.Write(t.Context(), evs); err != nil {
				t.Fatal(err)
			}
			raise(t, h, name)
			for range 4 {
				err := o.Write(t.Context(), evs)
				if _, dead := errors.AsType[*plugins.PermanentError](err); err == nil || dead {
					t.Fatalf("the error is %v", err)
				}
			}
			if health.of("plugin x") == "" {
				t.Error("its health says nothing")
			}
			lower(t, h)
			eventually(t, "it writes", func() bool { return o.Write(t.Context(), evs) == nil })
			if text := health.of("plugin x"); text != "" {
				t.Errorf("its health still says %s", text)
			}
		})
	}
}

// TestAStartWaitsOnceForAPluginThatDoesNotOpen: the lanes open their instances one after the other.
func TestAStartWaitsOnceForAPluginThatDoesNotOpen(t *testing.T) {
	h, log := host(t, "rogue", quick)
	p, q := processorOf(t, h), processorOf(t, h)
	if err := os.WriteFile(flagOf(h.Path()), []byte("hang"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []plugins.Processor{p, q} {
		if err := x.(plugins.Opener).Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := `exit="killed: it did not answer Open within 500ms"`; !strings.Contains(log.String(), want) {
		t.Errorf("the log has no %s:\n%s", want, log)
	}
}

// health is what an instance says of itself.
type health struct {
	mu      sync.Mutex // guards all below
	failing map[string]string
	counted map[string]int64
}

func (h *health) of(key string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failing[key]
}

func (h *health) count(name string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counted[name]
}

// watchedEnv is an environment whose counters and complaints are seen.
func watchedEnv(t *testing.T) (plugins.Env, *health) {
	t.Helper()
	x := &health{failing: map[string]string{}, counted: map[string]int64{}}
	env := runEnv(t)
	env.Count = func(name, _ string, n int64) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.counted[name] += n
	}
	env.Fail = func(key string, err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if delete(x.failing, key); err != nil {
			x.failing[key] = err.Error()
		}
	}
	return env, x
}

// raise has the plugin do something else from its next start on, which comes.
func raise(t *testing.T, h *Host, name string) {
	t.Helper()
	if err := os.WriteFile(flagOf(h.Path()), []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := h.Status().PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
}

func lower(t *testing.T, h *Host) {
	t.Helper()
	if err := os.Remove(flagOf(h.Path())); err != nil {
		t.Fatal(err)
	}
}

// TestAProgramThatIsAnotherOneAfterARestartIsNotUsed: the configuration was checked against what it was.
func TestAProgramThatIsAnotherOneAfterARestartIsNotUsed(t *testing.T) {
	for name, want := range map[string]string{
		"nothing":  `processor "mask" is not in it any more`,
		"other":    `processor "mask" is not in it any more`,
		"type":     `processor "mask" has another type of key "pattern": "integer" instead of "string"`,
		"less":     `processor "mask" has no key "pattern" any more`,
		"required": `processor "mask" has a new key that is required: "fresh"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, log := host(t, "rogue")
			p := processorOf(t, h)
			if err := p.Process(t.Context(), batchOf("/a")); err != nil {
				t.Fatal(err)
			}
			o := build(t, h, plugins.KindOutput, "path: "+filepath.Join(t.TempDir(), "out"), runEnv(t)).(plugins.Output)
			raise(t, h, name)
			end := make(chan error, 1)
			go func() { end <- p.Process(t.Context(), batchOf("/a")) }()
			eventually(t, "it is named", func() bool {
				return strings.Contains(h.Status().Down, want) && strings.Contains(log.String(), "it is not what the configuration was checked against")
			})
			err := o.Write(t.Context(), pointers(nil, batchOf("/a")))
			if _, dead := errors.AsType[*plugins.PermanentError](err); err == nil || dead {
				t.Errorf("the output's error is %v", err)
			}
			lower(t, h)
			if err := <-end; err != nil {
				t.Errorf("the error is %v", err)
			}
		})
	}
	t.Run("more", func(t *testing.T) {
		h, _ := host(t, "rogue")
		p := processorOf(t, h)
		raise(t, h, "more")
		if err := p.Process(t.Context(), batchOf("/a")); err != nil {
			t.Error(err)
		}
	})
}

// TestSecretsOfTheConfigurationAreMaskedInAllThatAPluginSays: on stderr, in errors, in counters and in health.
func TestSecretsOfTheConfigurationAreMaskedInAllThatAPluginSays(t *testing.T) {
	const secret = `sup3r"S3 cret/Pw` + "\nsecond line of it"
	h, log := host(t, "secret")
	env, health := watchedEnv(t)
	yaml := fmt.Sprintf("{pattern: secret, key: %q}", secret)
	p := build(t, h, plugins.KindProcessor, yaml, env).(plugins.Processor)
	var said []string
	say := func(err error) {
		t.Helper()
		if err == nil {
			t.Fatal("there is no error")
		}
		said = append(said, err.Error())
	}
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	say(p.Process(t.Context(), batchOf("/poison")))
	say(p.Process(t.Context(), batchOf("/verdict")))
	if health.count("a***") != 1 || health.of("c***") != "d***" {
		t.Errorf("it counted %v and complained of %v", health.counted, health.failing)
	}
	o := build(t, h, plugins.KindOutput, fmt.Sprintf("{path: %s, key: %q}", filepath.Join(t.TempDir(), "out"), secret), runEnv(t)).(plugins.Output)
	partial, ok := errors.AsType[*plugins.PartialError](o.Write(t.Context(), pointers(nil, batchOf("/poison"))))
	if !ok {
		t.Fatal("the output's answer names no event")
	}
	say(partial.Failed[0])
	raise(t, h, "refuse aloud")
	var err error
	eventually(t, "it refuses", func() bool { err = p.(plugins.Opener).Open(t.Context()); return err != nil })
	say(err)
	said = append(said, h.Status().Down)
	eventually(t, "its log", func() bool {
		return strings.Contains(log.String(), "connecting with ***") && strings.Contains(log.String(), "bad ***") && strings.Contains(log.String(), "yyy***…")
	})
	if !strings.Contains(strings.Join(said, " "), "password=***") {
		t.Errorf("its error is not there: %q", said)
	}
	all := log.String() + strings.Join(said, "\n")
	for _, part := range []string{"sup3r", "S3 cret", "S3+cret", "second line of it", url.QueryEscape(secret)} {
		if i := strings.Index(all, part); i >= 0 {
			t.Errorf("%q stands in …%s…", part, all[max(0, i-100):min(len(all), i+100)])
		}
	}
}

// checkOf returns what checks a processor's configuration.
func checkOf(t *testing.T, h *Host, yaml string) func() (any, error) {
	t.Helper()
	spec, n := specOf(t, h, plugins.KindProcessor, yaml)
	cfg, faults := conf.DecodeAny(n, spec.Defaults)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return func() (any, error) { return spec.New(cfg, plugins.Env{}) }
}

func TestASecretThatWasCutOffIsMaskedToo(t *testing.T) {
	var m masker
	m.learn(struct{ Key conf.Secret }{conf.NewSecret("correct horse battery")})
	for in, want := range map[string]string{
		"it is correct horse battery":  "it is ***",
		"it is correct hor…":           "it is ***…",
		"it is correct hor… (Unknown)": "it is ***… (Unknown)",
		"it is correct\x01":            "it is correct\x01",
		"co…":                          "co…",
		"correct+horse+battery":        "***",
		"nothing…":                     "nothing…",
	} {
		if got := m.text(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestACallThatIsNotAnsweredIsNamed: which one, in how much time, and that the agent ended the process for it.
func TestACallThatIsNotAnsweredIsNamed(t *testing.T) {
	h, log := host(t, "hang", quick)
	o := build(t, h, plugins.KindOutput, "path: "+filepath.Join(t.TempDir(), "out"), runEnv(t)).(plugins.Output)
	check := checkOf(t, h, "pattern: x")
	err := o.Write(t.Context(), pointers(nil, batchOf("/poison")))
	if err == nil || !strings.Contains(err.Error(), "the plugin did not answer within 500ms (call Write) and was killed for it") {
		t.Errorf("the error is %v", err)
	}
	if got, want := h.Status().Down, "it ended (killed: it did not answer Write within 500ms) and is started again for the next events"; got != want {
		t.Errorf("its status is %q", got)
	}
	eventually(t, "it runs again", func() bool { return o.Write(t.Context(), pointers(nil, batchOf("/a"))) == nil })
	if want := `exit="killed: it did not answer Write within 500ms"`; !strings.Contains(log.String(), want) {
		t.Errorf("the log has no %s:\n%s", want, log)
	}
	if err := os.WriteFile(flagOf(h.Path()), []byte("hang on close"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.(plugins.Closer).Close(); err == nil || !strings.Contains(err.Error(), "the plugin did not answer within 500ms (call Close) and was killed for it") {
		t.Errorf("the error of Close is %v", err)
	}
	if err := os.WriteFile(flagOf(h.Path()), []byte("hang"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a check says it", func() bool {
		_, err := check()
		return err != nil && strings.Contains(err.Error(), "cannot say whether this is right: the plugin did not answer within 500ms (call Open) and was killed for it")
	})
}

// TestEventsThatEndAnOutputsProcessAreFoundSoon: taking a batch apart ends the process many times, and is no reason to wait longer each time.
func TestEventsThatEndAnOutputsProcessAreFoundSoon(t *testing.T) {
	h, log := host(t, "crash")
	o := build(t, h, plugins.KindOutput, "path: "+filepath.Join(t.TempDir(), "out"), runEnv(t)).(plugins.Output)
	paths := slices.Repeat([]string{"/a"}, 16)
	paths[0] = "/poison"
	b := batchOf(paths...)
	for n := 16; n >= 1; n /= 2 {
		err := o.Write(t.Context(), pointers(nil, b)[:n])
		if _, ok := errors.AsType[*plugins.PermanentError](err); !ok {
			t.Fatalf("with %d events the error is %v", n, err)
		}
	}
	if err := o.Write(t.Context(), pointers(nil, batchOf("/a"))); err != nil {
		t.Errorf("the next events wait: %v", err)
	}
	waits := regexp.MustCompile(`msg="plugin ended, will start it again for the next events" .* in=(\S+)`).FindAllStringSubmatch(log.String(), -1)
	if len(waits) != 20 {
		t.Errorf("it ended %d times", len(waits))
	}
	for _, w := range waits {
		if d, err := time.ParseDuration(w[1]); err != nil || d > 200*time.Millisecond {
			t.Errorf("it is started again in %s", w[1])
		}
	}
}

// TestAProcessThatNeverDoesAnythingIsStartedLessAndLess: what ends it is not this batch or that.
func TestAProcessThatNeverDoesAnythingIsStartedLessAndLess(t *testing.T) {
	h := NewHost(DefaultConfig(), discard())
	for i := range 2*mostVain + 10 {
		p := &process{}
		h.proc = p
		h.tried.Store(p)
		h.buryLocked()
		if i < mostVain && h.wait != leastBackoff {
			t.Fatalf("after %d times it waits %v", i+1, h.wait)
		}
	}
	if h.wait != mostBackoff {
		t.Errorf("it waits %v", h.wait)
	}
	p := &process{}
	p.useful.Store(true)
	h.proc = p
	h.buryLocked()
	if h.wait != leastBackoff || h.vain != 0 {
		t.Errorf("after some work it waits %v", h.wait)
	}
}

func TestACounterOfAPluginNeverTurnsBack(t *testing.T) {
	h, log := host(t, "counts")
	env, health := watchedEnv(t)
	p := build(t, h, plugins.KindProcessor, "pattern: secret", env).(plugins.Processor)
	for range 3 {
		if err := p.Process(t.Context(), batchOf("/a")); err != nil {
			t.Fatal(err)
		}
	}
	if n := health.count("big"); n != mostCounted {
		t.Errorf("it counted %d", n)
	}
	if n := health.count("less"); n != 0 {
		t.Errorf("it counted %d", n)
	}
	if n := strings.Count(log.String(), "counts or complains too much"); n != 1 {
		t.Errorf("it is told %d times", n)
	}
}

// TestThePluginsNamesAreBounded: each is a series of metrics or a line of the health, for as long as the agent runs.
func TestThePluginsNamesAreBounded(t *testing.T) {
	h, _ := host(t, "names")
	env, health := watchedEnv(t)
	count := env.Count
	env.Count = func(name, reason string, n int64) {
		if !validLabel(reason) {
			t.Errorf("the reason %q is no UTF-8", reason)
		}
		count(name, reason, n)
	}
	for range 3 { // lanes come and go
		p := build(t, h, plugins.KindProcessor, "pattern: secret", env).(plugins.Processor)
		for range 3 {
			if err := p.Process(t.Context(), batchOf("/a")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(health.counted) != mostCounters || len(health.failing) != mostFailing {
		t.Errorf("there are %d counters and %d complaints", len(health.counted), len(health.failing))
	}
}

func validLabel(s string) bool { return strings.ToValidUTF8(s, "") == s }

// TestWhatAPatchMakesIsCountedForEachKindOfColumn: the limit is on what comes out of it.
func TestWhatAPatchMakesIsCountedForEachKindOfColumn(t *testing.T) {
	d := decoder{fields: newFields()}
	b := many(100)
	evs := pointers(nil, b)
	for name, c := range map[string]struct {
		typ  event.Kind
		fill func(w *writer)
		want int // of each event, without the name
	}{
		"query":                 {event.String, func(w *writer) { w.texts[0] = "abc" }, 3},
		"x":                     {event.String, func(w *writer) { w.texts[0] = "abc" }, 3},
		colRaw:                  {kindBytes, func(w *writer) { w.texts[0] = "abc" }, 3},
		"metadata":              {event.Object, func(w *writer) { w.texts[0] = `{"a":1}` }, 7},
		"tags":                  {event.List, func(w *writer) { w.lists[0] = []string{"a", "bc", ""} }, 3 + 3*perItem},
		"api_response_code_int": {event.Int, func(w *writer) { w.setNum(0, 7) }, perNumber},
		"n":                     {event.Float, func(w *writer) { w.setNum(0, floatBits(7)) }, perNumber},
		"truncated_bool":        {event.Bool, func(w *writer) { w.setNum(0, 1) }, perNumber},
		timestamp:               {event.Time, func(w *writer) { w.setNum(0, math.MaxInt64) }, perNumber},
		colDropped:              {event.Bool, func(w *writer) { w.setNum(0, 1) }, 0},
	} {
		for _, layout := range []byte{layoutAll, layoutSame, layoutSome} {
			values := map[byte]int{layoutAll: 100, layoutSame: 100, layoutSome: 1}[layout]
			w := &writer{}
			w.begin(header{kind: kindPatch, count: 100}, nil)
			w.lists = make([][]string, 100)
			c.fill(w)
			if layout != layoutSome {
				for i := range 100 {
					w.texts[i], w.lists[i] = w.texts[0], w.lists[0]
					if w.has[0]&1 != 0 {
						w.setNum(i, w.nums[0])
					}
				}
			}
			if layout == layoutAll && c.typ == event.String {
				w.texts[99] = w.texts[99][:2] + "d" // not the same
			}
			switch c.typ {
			case event.String, event.Object, kindBytes:
				w.addTexts(name, c.typ, true)
			case event.List:
				w.addLists(name, true)
			default:
				w.addNums(name, c.typ, true)
			}
			if err := d.parse(w.end()); err != nil {
				t.Fatal(err)
			}
			if err := d.bound(evs, 1000); err != nil {
				t.Fatal(err)
			}
			sum := 0
			for _, n := range d.sizes {
				sum += n
			}
			want := c.want
			if !own(name) {
				want += perField + len(name)
			}
			if sum != values*want {
				t.Errorf("%s, layout %d: %d, want %d", name, layout, sum, values*want)
			}
		}
	}
}
