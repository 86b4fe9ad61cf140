package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	name  string
	last  []byte
	calls int
}

// flag is what a plugin does from its next call on, in a file beside its program: it outlives the process.
func flag() string {
	text, err := os.ReadFile(flagOf(os.Args[0]))
	if err != nil {
		return ""
	}
	return string(text)
}

func flagOf(program string) string { return filepath.Join(filepath.Dir(program), "flag") }

func (r *rogue) describe(ctx context.Context, in *message) (*message, error) {
	out, err := r.served.describe(ctx, in)
	if err != nil {
		return nil, err
	}
	var d describeReply
	if err := json.Unmarshal(out.data, &d); err != nil {
		return nil, err
	}
	switch flag() {
	case "nothing":
		return reply(describeReply{})
	case "other":
		d.Plugins[0].Name = "unmask"
	case "type":
		d.Plugins[0].Config[0].Type = "integer"
	case "less":
		d.Plugins[0].Config = d.Plugins[0].Config[1:]
	case "required":
		d.Plugins[0].Config = append(d.Plugins[0].Config, keyDoc{Path: "fresh", Type: "string", Required: true})
	case "more": // nobody need care
		d.Plugins[0].Config = append(d.Plugins[0].Config, keyDoc{Path: "fresh", Type: "string"})
		d.Plugins[0].Summary = "Another one."
	}
	return reply(d)
}

func (r *rogue) open(ctx context.Context, in *message) (*message, error) {
	switch flag() {
	case "garbage":
		return &message{data: []byte("what is JSON?")}, nil
	case "status":
		return nil, status.Error(codes.Internal, "no idea")
	case "big":
		return &message{data: append(bytes.Repeat([]byte(" "), 2<<20), "{}"...)}, nil
	case "refuse":
		return reply(openReply{Error: "the far end is gone"})
	case "die":
		os.Exit(4)
	case "hang":
		select {}
	}
	if r.name == "secret" {
		return r.openAloud(ctx, in)
	}
	return r.served.open(ctx, in)
}

// openAloud tells the world what it is told.
func (r *rogue) openAloud(ctx context.Context, in *message) (*message, error) {
	var req openRequest
	var cfg struct{ Key string }
	if json.Unmarshal(in.data, &req) != nil || json.Unmarshal(req.Config, &cfg) != nil {
		return nil, status.Error(codes.Internal, "no request")
	}
	r.last = []byte(cfg.Key)
	fmt.Fprintln(os.Stderr, "connecting with", cfg.Key)
	line, err := json.Marshal(map[string]any{
		"level": "error", "msg": "bad " + cfg.Key, "pw": cfg.Key, "all": []any{map[string]any{"in": "x" + cfg.Key}}, cfg.Key: 1, "url": "http://u:" + url.QueryEscape(cfg.Key) + "@h",
	})
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stderr, string(line))
	fmt.Fprintln(os.Stderr, strings.Repeat("y", 2000-5)+cfg.Key)
	if flag() == "refuse aloud" {
		return reply(openReply{Faults: []openFault{{Key: "with", Message: "is not for " + cfg.Key}}, Error: "password=" + cfg.Key})
	}
	return r.served.open(ctx, in)
}

// inflated is a patch that is small on the wire and large in memory.
func inflated(name string, in header) []byte {
	w := &writer{}
	in.kind = kindPatch
	w.begin(in, nil)
	one := func(column string, typ event.Kind, texts ...string) {
		at := w.column(column, typ, layoutSame)
		if typ == event.List {
			w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(texts)))
		}
		w.buf = appendTexts(w.buf, texts, len(strings.Join(texts, "")))
		w.close(at)
	}
	switch name {
	case "inflate text":
		one("query", event.String, strings.Repeat("x", 1<<20))
	case "inflate raw":
		one(colRaw, kindBytes, strings.Repeat("x", 1<<20))
	case "inflate object":
		one("metadata", event.Object, `{"a":"`+strings.Repeat("x", 1<<20)+`"}`)
	case "inflate list":
		one("tags", event.List, slices.Repeat([]string{"x"}, 64<<10)...)
	case "inflate names":
		one(strings.Repeat("n", 65500), event.String, "x")
	case "inflate fields":
		for i := range 4000 {
			one(fmt.Sprintf("f%d", i), event.String, "x")
		}
	case "inflate reply":
		one("query", event.String, strings.Repeat("x", 40<<20))
	case "inflate one":
		for i := range in.count {
			w.texts[i] = ""
		}
		w.texts[in.count/2] = strings.Repeat("x", 100<<10)
		w.addTexts("query", event.String, true)
	}
	return w.end()
}

func (r *rogue) process(ctx context.Context, in *message) (*message, error) {
	poisoned := strings.Contains(string(in.data), "/poison")
	if strings.HasPrefix(r.name, "inflate") {
		var d decoder
		if err := d.parse(in.data); err != nil {
			return nil, err
		}
		return &message{data: inflated(r.name, d.header)}, nil
	}
	switch r.name {
	case "secret":
		switch {
		case poisoned:
			return nil, status.Error(codes.Internal, "cannot "+string(r.last))
		case strings.Contains(string(in.data), "/verdict"):
			return r.says(in, nil, failure{wholeCall, classPermanent, 0, "no " + string(r.last)})
		}
		k := string(r.last)
		text, err := json.Marshal(notesJSON{Count: []noteCount{{"a" + k, "b" + k, 1}}, Fail: []noteFail{{"c" + k, "d" + k}}})
		if err != nil {
			panic(err)
		}
		return r.says(in, text)
	case "counts":
		return r.says(in, []byte(`{"count":[["big","",9223372036854775807],["big","",9223372036854775807],["less","",-5]]}`))
	case "names":
		r.calls++
		var n notesJSON
		for i := range 300 {
			n.Count = append(n.Count, noteCount{fmt.Sprintf("n%d_%d", r.calls, i), "x" + strings.Repeat("é", 80), 1})
			n.Fail = append(n.Fail, noteFail{fmt.Sprintf("k%d_%d", r.calls, i), "x"})
		}
		text, err := json.Marshal(n)
		if err != nil {
			panic(err)
		}
		return r.says(in, text)
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

// says answers with a verdict in which these failed, or with an empty patch.
func (r *rogue) says(in *message, notes []byte, failures ...failure) (*message, error) {
	var d decoder
	if err := d.parse(in.data); err != nil {
		return nil, err
	}
	h := d.header
	h.kind = kindPatch
	if len(failures) > 0 {
		h.kind = kindVerdict
	}
	var w writer
	w.begin(h, notes)
	for _, f := range failures {
		w.fail(f)
	}
	return &message{data: w.end()}, nil
}

func (r *rogue) close(ctx context.Context, in *message) (*message, error) {
	if flag() == "hang on close" {
		select {}
	}
	return r.served.close(ctx, in)
}

func (r *rogue) write(ctx context.Context, in *message) (*message, error) {
	switch {
	case !strings.Contains(string(in.data), "/poison"):
	case r.name == "crash":
		os.Exit(3)
	case r.name == "hang":
		select {}
	case r.name == "secret":
		return r.says(in, nil, failure{0, classRetry, 0, "no " + string(r.last)})
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
	Path  string      `yaml:"path" required:"true" doc:"Where to."`
	Fail  string      `yaml:"fail" doc:"Path of events that fail for good."`
	Retry string      `yaml:"retry" doc:"Path of events that fail for now."`
	Key   conf.Secret `yaml:"key" doc:"A key."`
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
