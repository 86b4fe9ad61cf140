package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

// What the agent grants a plugin's process.
const (
	termPatience = 2 * time.Second // between SIGTERM and SIGKILL
	handPatience = 5 * time.Second // for one that was started by hand
	// startPatience is for starting again, with some attempts.
	startPatience = 30 * time.Second
)

// adopt has what a plugin leaves behind become a child of this process, so that it can be found.
func (v *verifier) adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("preparing to look for orphans: %w", err)
	}
	v.before = v.children()
	return nil
}

func (v *verifier) children() (pids []int) {
	for _, s := range processes(func(s procStat) bool { return s.parent == os.Getpid() }) {
		pids = append(pids, s.pid)
	}
	return pids
}

// checkDescription looks at what users see of the plugins.
func (v *verifier) checkDescription() {
	found := v.failed
	for _, s := range v.specs {
		who := string(s.Kind) + " " + s.Name
		if _, taken := v.reg.Lookup(s.Kind, s.Name); taken {
			v.bad("describe", who+" has the name of one that is built into this agent", "the agent refuses a configuration with two of one name")
		}
		if s.Summary == "" {
			v.bad("describe", who+" has no summary", "it is what stands in samples and docs")
		}
		for _, k := range conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults) {
			if k.Doc == "" {
				v.bad("describe", fmt.Sprintf("key %q of %s has no description", k.Path, who), "it is what `stacktrail sample` says of the key")
			}
		}
	}
	if v.failed == found {
		v.ok("describe", "each plugin and each key says what it is for")
	}
}

// checkByHand starts the program without the agent's cookie.
func (v *verifier) checkByHand(ctx context.Context) {
	const why = "somebody who starts it by hand should learn what it is, and not leave it running"
	ctx, cancel := context.WithTimeout(ctx, handPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.path)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		v.bad("by hand", fmt.Sprintf("started without the agent's cookie it still runs after %v", handPatience), why)
	case err == nil:
		v.bad("by hand", "started without the agent's cookie it exits 0", why)
	case said.Len() == 0:
		v.bad("by hand", fmt.Sprintf("started without the agent's cookie it says nothing (%v)", err), why)
	default:
		v.ok("by hand", "says what it is when a person starts it")
	}
}

// wireCheck is something that only a process can do wrong.
type wireCheck struct {
	rule, holds, why string
	run              func(t plugintest.TB, call func(context.Context, *event.Batch) error)
}

// firstCheck shows one batch.
func firstCheck() wireCheck {
	return wireCheck{
		"first", "answers a batch of ordinary events", "this is what it will see all the time",
		func(t plugintest.TB, call func(context.Context, *event.Batch) error) {
			if err := call(context.Background(), plugintest.Events(25)); err != nil {
				t.Errorf("%v", err)
			}
		},
	}
}

// checkWire tries what only a process can do wrong.
func (v *verifier) checkWire(s plugins.Spec) {
	for _, c := range []wireCheck{
		{
			"size", "takes a batch of 6 MiB", "batches may be large: a frame has up to 64 MiB, whatever the default of a gRPC library is",
			func(t plugintest.TB, call func(context.Context, *event.Batch) error) {
				if err := call(context.Background(), large()); refuses(s, err) {
					t.Errorf("with a batch of 6 MiB: %v", err)
				}
			},
		},
		{
			"values", "takes every type of field, and texts that are no UTF-8", "logs hold what clients send: an event that fails a call holds up all others",
			func(t plugintest.TB, call func(context.Context, *event.Batch) error) {
				if err := call(context.Background(), strange()); refuses(s, err) {
					t.Errorf("with every type of field and texts that are no UTF-8: %v", err)
				}
			},
		},
		{
			"deadline", "goes on after a call that was given up", "what is given up comes again: the plugin must be free for it",
			func(t plugintest.TB, call func(context.Context, *event.Batch) error) {
				ctx, cancel := context.WithCancel(context.Background())
				defer time.AfterFunc(time.Millisecond, cancel).Stop() // no deadline: one that passes is the plugin's fault
				defer cancel()
				_ = call(ctx, plugintest.Events(1000)) // what becomes of it is not asked
				if err := call(context.Background(), plugintest.Events(10)); err != nil {
					t.Errorf("after a call that was given up the next one fails: %v", err)
				}
			},
		},
		{
			"restart", "comes back after it was killed", "a plugin may be killed at any time, and loses nothing by it",
			func(t plugintest.TB, call func(context.Context, *event.Batch) error) {
				if err := call(context.Background(), plugintest.Events(10)); err != nil {
					t.Fatalf("before it was killed: %v", err)
				}
				v.host.SetLog(discardLog()) // it would tell of what is done here
				defer v.host.SetLog(v.log)
				old := v.pid()
				_ = syscall.Kill(old, syscall.SIGKILL)
				within(termPatience, func() bool { return v.pid() != old })
				var err error
				if !within(startPatience, func() bool { err = call(context.Background(), plugintest.Events(10)); return err == nil }) {
					t.Errorf("after it was killed: %v", err)
				}
			},
		},
	} {
		_ = v.checkOne(s, c) // it said what there is to say
	}
}

// checkOne tries one thing with a fresh instance.
func (v *verifier) checkOne(s plugins.Spec, c wireCheck) (holds bool) {
	found := plugintest.Try(v.dir, func(string, ...any) {}, func(t plugintest.TB) {
		in := plugintest.Build(t, s, v.configs[ownName(s)])
		if x, ok := in.Plugin.(plugins.Opener); ok {
			if err := x.Open(context.Background()); err != nil {
				t.Fatalf("opening: %v", err)
			}
		}
		c.run(t, func(ctx context.Context, b *event.Batch) error { return feed(ctx, in.Plugin, b) })
		if x, ok := in.Plugin.(plugins.Closer); ok {
			if err := x.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		}
	})
	for _, f := range found {
		v.bad(c.rule, f.Text, c.why)
	}
	if len(found) == 0 {
		v.ok(c.rule, c.holds)
	}
	return len(found) == 0
}

// refuses tells whether a plugin failed on events that are unusual. An output may say that it will never take some.
func refuses(s plugins.Spec, err error) bool {
	if s.Kind == plugins.KindProcessor || err == nil {
		return err != nil
	}
	if partial, ok := errors.AsType[*plugins.PartialError](err); ok {
		for _, cause := range partial.Failed {
			if refuses(s, cause) {
				return true
			}
		}
		return false
	}
	_, permanent := errors.AsType[*plugins.PermanentError](err)
	return !permanent && !errors.Is(err, plugins.ErrTooLarge)
}

// feed shows a batch to a plugin.
func feed(ctx context.Context, plugin any, b *event.Batch) error {
	switch x := plugin.(type) {
	case plugins.Processor:
		return x.Process(ctx, b)
	case plugins.Output:
		return x.Write(ctx, pointersTo(b))
	}
	return fmt.Errorf("BUG: a %T is neither processor nor output", plugin)
}

func pointersTo(b *event.Batch) (events []*event.Event) {
	for i := range b.Events {
		events = append(events, &b.Events[i])
	}
	return events
}

// large makes a batch of 6 MiB.
func large() *event.Batch {
	const events, each = 192, 32 << 10
	b := plugintest.Events(events)
	for i := range b.Events {
		b.Events[i].Query = strings.Repeat(fmt.Sprintf("&marker=%08d", i), each/16)
	}
	return b
}

// strange makes a batch with fields of every type and bytes that are no text.
func strange() *event.Batch {
	b := plugintest.Events(4)
	for i := range b.Events {
		e := &b.Events[i]
		e.Path, e.Query, e.UserAgent = "/v2.1/\xff\xfe", "name=\xc3", "\x00\x01"
		e.Raw = []byte("\xff" + string(e.Raw))
		for _, f := range []event.Field{
			{Key: "a_string", Value: event.StringValue("\xed\xa0\x80")},
			{Key: "an_int", Value: event.IntValue(-1 << 63)},
			{Key: "a_float", Value: event.FloatValue(-1e300)},
			{Key: "a_bool", Value: event.BoolValue(true)},
			{Key: "a_time", Value: event.TimeValue(time.Unix(-1, 999).UTC())},
			{Key: "a_list", Value: event.ListValue([]string{"", "\xff"})},
			{Key: "an_object", Value: event.ObjectValue(`{"a": [1, {"b": null}]}`)},
		} {
			e.Set(f.Key, f.Value)
		}
	}
	return b
}

// checkAgain asks a fresh process what it has.
func (v *verifier) checkAgain(ctx context.Context) {
	const why = "the agent asks after each start, and knows the configuration by the first answer"
	v.host.Stop()
	var again []plugins.Spec
	var err error
	if !within(startPatience, func() bool { again, err = v.host.Specs(ctx); return err == nil }) {
		v.bad("again", "started again: "+err.Error(), why)
		return
	}
	for _, s := range v.specs {
		i := slices.IndexFunc(again, func(x plugins.Spec) bool { return ownName(x) == ownName(s) })
		if i < 0 {
			v.bad("again", fmt.Sprintf("started again it does not have %s %s", s.Kind, s.Name), why)
			return
		}
		keys := func(s plugins.Spec) []conf.KeyDoc { return conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults) }
		if !reflect.DeepEqual(keys(s), keys(again[i])) || s.Summary != again[i].Summary {
			v.bad("again", fmt.Sprintf("started again it describes %s %s in another way", s.Kind, s.Name), why)
			return
		}
	}
	v.ok("again", "describes itself in the same way after each start")
}

// checkTerm asks the process to end.
func (v *verifier) checkTerm(ctx context.Context) {
	if _, err := v.host.Specs(ctx); err != nil {
		return // said already
	}
	v.host.SetLog(discardLog())
	pid := v.pid()
	began := time.Now()
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	gone := within(termPatience, func() bool {
		s, err := readStat(pid)
		return err != nil || s.zombie
	})
	if !gone {
		v.bad("sigterm", fmt.Sprintf("%v after SIGTERM it still runs", termPatience), "it is killed then, in the middle of what it does")
		return
	}
	v.ok("sigterm", fmt.Sprintf("ends %v after SIGTERM", time.Since(began).Round(time.Millisecond)))
}

// checkOrphans looks for processes that outlived the program, and ends them.
func (v *verifier) checkOrphans() {
	left := func() []int {
		return slices.DeleteFunc(v.children(), func(pid int) bool { return slices.Contains(v.before, pid) })
	}
	if within(termPatience, func() bool { return len(left()) == 0 }) {
		v.ok("orphans", "leaves no process behind")
		return
	}
	var names []string
	for _, pid := range left() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		names = append(names, fmt.Sprintf("%d (%s)", pid, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	v.bad("orphans", "it left behind "+strings.Join(names, ", "), "each restart of the agent would leave more of them; start children in the plugin's own process group")
}
