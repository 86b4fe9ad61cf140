package plugins

import (
	"fmt"
	"log/slog"
	"sort"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Kind is what a plugin is.
type Kind string

// The kinds of plugins.
const (
	KindInput     Kind = "input"
	KindProcessor Kind = "processor"
	KindOutput    Kind = "output"
)

// Env is what an instance gets from the agent beside its configuration.
type Env struct {
	Log      *slog.Logger // carries the pipeline and the id already
	Pipeline string
	ID       string // of the instance, unique in its pipeline
	NodeID   string // part of the name of every stream
	// StateDir is a directory of the instance's own, made on demand by whoever needs it; "" while a configuration is only checked.
	StateDir string
	// Once tells an input to read to the end of its source and return, instead of following it.
	Once bool
	// Window tells an input to send only the records of a time; the zero value means all.
	Window Window
	// Repeats tells an output that anything it gets may have been sent before, and not by this agent's state: where its far end knows
	// events by their ids it asks for all of them first.
	Repeats bool

	// Pool is where an input's batches come from.
	Pool *event.Pool
	// Streams is an input's side of the checkpoint.
	Streams Streams
	// Fields are the extra fields that inputs and earlier processors define: expressions may use them by name.
	Fields map[string]event.Kind
	// Encoder returns the encoder that an output is to use; those with equal options share one encoding of each batch.
	Encoder func(schema.EncodeOptions) *schema.Encoder
	// Count adds n to a counter of the instance, which metrics and reports show under its name and reason: "unparsed" with the
	// reason, "lines", "skipped", "lost_bytes", "eval_errors". It is cheap, but for batches, not for events.
	Count func(name, reason string, n int64)
	// Fail reports a lasting condition under a key, such as a file that cannot be read; nil clears it. It shows in health.
	Fail func(key string, err error)
}

// Window is the time from Since until just before Until. Only records whose own time lies in it are meant: the others, and those
// without a time, are left out and counted. A zero time is no limit.
type Window struct{ Since, Until time.Time }

// IsZero reports whether the window leaves nothing out.
func (w Window) IsZero() bool { return w.Since.IsZero() && w.Until.IsZero() }

// FieldDefiner is implemented by configurations of plugins that define extra fields, so that expressions after them may use
// these by name.
type FieldDefiner interface {
	DefinedFields() map[string]event.Kind
}

// PathFollower is implemented by configurations of inputs that follow files: their patterns are compared with what the agent
// writes itself.
type PathFollower interface {
	// Follows reports whether the configuration would follow this absolute path.
	Follows(path string) bool
}

// PathWriter is implemented by configurations of outputs that write files.
type PathWriter interface {
	// WrittenPaths returns examples of absolute paths that the output could write, one for each way its template can go.
	WrittenPaths() []string
}

// Lingering is implemented by configurations of outputs for which a few large writes cost much less than many small ones.
type Lingering interface {
	// DefaultLinger is the default of batch.linger.
	DefaultLinger() time.Duration
}

// Spec describes one type of plugin: the same value serves a plugin compiled in and one in its own process.
type Spec struct {
	Kind    Kind
	Name    string // the key in the configuration, the folder, the package
	Summary string // one sentence
	// Defaults is the configuration's struct with its defaults filled in; a copy is decoded into.
	Defaults any
	// New builds an instance. It starts nothing and touches nothing outside: that is for Open, Run and Write.
	New func(cfg any, env Env) (any, error)
	// KeepsNothing is the author's word, proved by the conformance suite, that no view of a batch is kept after a call. Batches
	// of an agent in which all plugins say so are recycled with their arenas.
	KeepsNothing bool
	// KnowsIDs says of an output that its far end knows events by their ids, so that sending one again does no harm.
	KnowsIDs bool
}

// InputSpec describes an input whose configuration is a C.
func InputSpec[C any](name, summary string, defaults C, build func(C, Env) (Input, error)) Spec {
	return spec(KindInput, name, summary, defaults, build)
}

// ProcessorSpec describes a processor whose configuration is a C.
func ProcessorSpec[C any](name, summary string, defaults C, build func(C, Env) (Processor, error)) Spec {
	return spec(KindProcessor, name, summary, defaults, build)
}

// OutputSpec describes an output whose configuration is a C.
func OutputSpec[C any](name, summary string, defaults C, build func(C, Env) (Output, error)) Spec {
	return spec(KindOutput, name, summary, defaults, build)
}

func spec[C, P any](kind Kind, name, summary string, defaults C, build func(C, Env) (P, error)) Spec {
	return Spec{
		Kind: kind, Name: name, Summary: summary, Defaults: defaults,
		New: func(cfg any, env Env) (any, error) {
			c, ok := cfg.(C)
			if !ok {
				return nil, fmt.Errorf("BUG: %s %q got a %T as its configuration", kind, name, cfg)
			}
			return build(c, env)
		},
	}
}

// Safe returns the spec with KeepsNothing set.
func (s Spec) Safe() Spec {
	s.KeepsNothing = true
	return s
}

// ByID returns the spec with KnowsIDs set.
func (s Spec) ByID() Spec {
	s.KnowsIDs = true
	return s
}

// Registry holds the plugins that configurations can name.
type Registry struct{ specs map[Kind]map[string]Spec }

// NewRegistry makes a registry of these specs. Two of one kind and name are an error.
func NewRegistry(specs ...Spec) (*Registry, error) {
	r := &Registry{specs: map[Kind]map[string]Spec{KindInput: {}, KindProcessor: {}, KindOutput: {}}}
	for _, s := range specs {
		m, ok := r.specs[s.Kind]
		switch {
		case !ok:
			return nil, fmt.Errorf("registering plugin %q: unknown kind %q", s.Name, s.Kind)
		case s.Name == "" || s.New == nil || s.Defaults == nil:
			return nil, fmt.Errorf("registering %s plugin %q: it needs Name, Defaults and New", s.Kind, s.Name)
		}
		if _, dup := m[s.Name]; dup {
			return nil, fmt.Errorf("registering %s plugin %q: the name is taken", s.Kind, s.Name)
		}
		m[s.Name] = s
	}
	return r, nil
}

// Lookup finds a plugin.
func (r *Registry) Lookup(k Kind, name string) (Spec, bool) {
	s, ok := r.specs[k][name]
	return s, ok
}

// Names lists the plugins of a kind in alphabetical order.
func (r *Registry) Names(k Kind) []string {
	var names []string
	for n := range r.specs[k] {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
