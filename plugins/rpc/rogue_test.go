package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// TestMain makes the test binary a plugin when a host starts it, and a guard. The name of the program says which plugin.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		RunGuard(os.Args[2])
		return
	}
	if os.Getenv("STACKTRAIL_PLUGIN") == "" {
		os.Exit(m.Run())
	}
	runAsPlugin(filepath.Base(os.Args[0]))
}

// program is the test binary under a name that says what it does.
func program(t testing.TB, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func runAsPlugin(name string) {
	cfg := &plugin.ServeConfig{HandshakeConfig: handshake(), GRPCServer: newServer, Logger: hclog.NewNullLogger()}
	s, err := newServed(specs(), slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err != nil {
		panic(err)
	}
	serve := func(version int) {
		cfg.VersionedPlugins = map[int]plugin.PluginSet{version: {pluginName: &both{service: &rogue{served: s, name: name}}}}
		plugin.Serve(cfg)
	}
	switch name {
	case "honest":
		Serve(specs()...)
	case "bench":
		Serve(benchSpecs()...)
	case "bare":
		serveBare(s)
	case "cookie":
		cfg.MagicCookieValue = "another"
		serve(protocol)
	case "old":
		serve(0)
	case "exit0":
		os.Exit(0)
	case "silent":
		fmt.Fprintln(os.Stderr, "I say nothing")
		select {}
	case "hello":
		fmt.Println("hello, world")
		select {}
	case "nosocket":
		fmt.Println("1|1|unix|/nonexistent/socket|grpc|")
		select {}
	case "tcp":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc|")
		select {}
	case "term":
		signal.Ignore(syscall.SIGTERM)
		serve(protocol)
	default:
		serve(protocol)
	}
}

// serveBare serves without go-plugin, as an SDK in another language does: by what FRAME.md says.
func serveBare(s *served) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin.sock"))
	if err != nil {
		panic(err)
	}
	srv := newServer(nil)
	srv.RegisterService(serviceDesc(), s)
	fmt.Printf("1|%s|unix|%s|grpc|\n", os.Getenv("PLUGIN_PROTOCOL_VERSIONS"), l.Addr())
	fmt.Println("what comes now is thrown away")
	_ = srv.Serve(l)
}

// rogue is a plugin that does not keep to the rules.
type rogue struct {
	*served
	name string
	last []byte
}

func (r *rogue) process(ctx context.Context, in *message) (*message, error) {
	poisoned := strings.Contains(string(in.data), "/poison")
	switch r.name {
	case "hang":
		if poisoned {
			select {}
		}
	case "crash":
		if poisoned {
			os.Exit(3)
		}
	case "huge":
		return &message{data: make([]byte, 1<<30)}, nil
	case "garbage":
		return &message{data: []byte("what is a frame?")}, nil
	case "flood":
		line := strings.Repeat("x", 200) + "\n"
		for range 20000 {
			_, _ = syscall.Write(2, []byte(line))
		}
	case "fork", "daemon":
		child := exec.Command("/bin/sleep", "1000")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: r.name == "daemon"}
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, `{"level":"info","msg":"child","child":"%d"}`+"\n", child.Process.Pid)
	case "pipes":
		_ = syscall.Close(1)
		_ = syscall.Close(2)
		_, _ = syscall.Write(1, []byte("x"))
		os.Stdout.Close()
		fmt.Println("x")
	}
	out, err := r.served.process(ctx, in)
	if err != nil {
		return out, err
	}
	switch r.name {
	case "count":
		binary.LittleEndian.PutUint32(out.data[24:], 7)
	case "twice": // the first answer again
		if r.last != nil {
			return &message{data: r.last}, nil
		}
		r.last = append([]byte(nil), out.data...)
	case "instance":
		binary.LittleEndian.PutUint32(out.data[12:], 99)
	}
	return out, nil
}

func (r *rogue) write(ctx context.Context, in *message) (*message, error) {
	if r.name == "crash" && strings.Contains(string(in.data), "/poison") {
		os.Exit(3)
	}
	return r.served.write(ctx, in)
}

// specs are those of an honest plugin.
func specs() []plugins.Spec {
	return []plugins.Spec{
		plugins.ProcessorSpec("mask", "Mask a pattern in the query.", maskConfig{With: "***", Limits: limits{Time: time.Second, Size: 4 << 20}}, newMask),
		plugins.OutputSpec("keep", "Append lines to a file.", keepConfig{}, newKeep).ByID(),
	}
}

type limits struct {
	Time time.Duration `yaml:"time" min:"1ms" doc:"Longest time."`
	Size conf.Size     `yaml:"size" max:"1GiB" doc:"Largest size."`
}

type rule struct {
	When string `yaml:"when" required:"true" doc:"Condition."`
	Drop bool   `yaml:"drop" doc:"Drop it."`
	Many *int   `yaml:"many" doc:"How many."`
}

type maskConfig struct {
	Pattern string            `yaml:"pattern" required:"true" doc:"Regular expression to mask."`
	With    string            `yaml:"with" doc:"What to put in its place."`
	Mode    string            `yaml:"mode" enum:"|hard|soft" doc:"How."`
	Key     conf.Secret       `yaml:"key" doc:"A key."`
	Limits  limits            `yaml:"limits" doc:"Limits."`
	Rules   []rule            `yaml:"rules" doc:"Rules."`
	Names   map[string]string `yaml:"names" doc:"Names."`
	Ratio   float64           `yaml:"ratio" min:"0" max:"1" doc:"Ratio."`
	Workers int32             `yaml:"workers" min:"-4" doc:"Workers."`
	More    conf.Node         `yaml:"more" doc:"Anything."`
	Extra   *limits           `yaml:"extra" doc:"Other limits."`
}

// Validate finds what the types cannot say.
func (c maskConfig) Validate() error {
	if c.Mode == "soft" && c.Limits.Time > time.Minute {
		return conf.KeyError{Key: "limits.time", Err: errors.New("is too long for the soft mode")}
	}
	return nil
}

// DefinedFields are those that the processor sets.
func (c maskConfig) DefinedFields() map[string]event.Kind {
	return map[string]event.Kind{"masked_int": event.Int}
}

type mask struct {
	maskConfig
	re  *regexp.Regexp
	env plugins.Env
}

func newMask(c maskConfig, env plugins.Env) (plugins.Processor, error) {
	re, err := regexp.Compile(c.Pattern)
	if err != nil {
		return nil, conf.KeyError{Key: "pattern", Err: err}
	}
	return &mask{c, re, env}, nil
}

func (m *mask) Process(ctx context.Context, b *event.Batch) error {
	for i := range b.Events {
		e := &b.Events[i]
		switch e.Path {
		case "/drop":
			e.Dropped = true
		case "/panic":
			panic("on purpose")
		case "/error":
			return errors.New("on purpose")
		case "/wait":
			<-ctx.Done()
			return ctx.Err()
		}
		if q := m.re.ReplaceAllString(e.Query, m.With); q != e.Query {
			e.Query = q
			e.Set("masked_int", event.IntValue(1))
			m.env.Count("masked", "query", 1)
			m.env.Fail("far end", errors.New("sulks"))
		}
	}
	m.env.Log.Warn("a batch", "events", len(b.Events))
	return nil
}

type keepConfig struct {
	Path  string `yaml:"path" required:"true" doc:"Where to."`
	Fail  string `yaml:"fail" doc:"Path of events that fail for good."`
	Retry string `yaml:"retry" doc:"Path of events that fail for now."`
}

// DefaultLinger is as long as a file takes.
func (c keepConfig) DefaultLinger() time.Duration { return 2 * time.Second }

// WrittenPaths is the one.
func (c keepConfig) WrittenPaths() []string { return []string{c.Path} }

type keep struct {
	keepConfig
	f *os.File
}

func newKeep(c keepConfig, _ plugins.Env) (plugins.Output, error) { return &keep{keepConfig: c}, nil }

func (k *keep) Open(context.Context) (err error) {
	k.f, err = os.OpenFile(k.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return err
}

func (k *keep) Write(_ context.Context, evs []*event.Event) error {
	failed := map[int]error{}
	for i, e := range evs {
		switch e.Path {
		case k.Fail:
			failed[i] = &plugins.PermanentError{Err: errors.New("never")}
			continue
		case k.Retry:
			failed[i] = &plugins.ThrottleError{Err: errors.New("later"), After: 1500 * time.Millisecond}
			continue
		case "/panic":
			panic("on purpose")
		}
		if _, err := fmt.Fprintf(k.f, "%s %s %s\n", e.ID(), e.Batch().Stream, e.Path); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return &plugins.PartialError{Failed: failed}
	}
	return nil
}

func (k *keep) Close() error { return k.f.Close() }
