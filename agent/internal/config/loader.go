package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// loader collects what is found while a configuration is put together.
type loader struct {
	reg    *plugins.Registry
	cfg    *Config
	faults conf.Faults
	// unasked: not all programs said what they have, so a name that is not known may be that of a plugin in one of them.
	unasked bool
	// blind: in the pipeline at hand a plugin that may define fields is not known, or faulty.
	blind bool

	followers []follower
	writers   []writer
	needed    int64 // memory that queues and requests can take
}

type follower struct {
	node conf.Node
	cfg  plugins.PathFollower
}

type writer struct {
	node  conf.Node
	what  string
	paths []string
}

func (l *loader) add(f ...conf.Fault) { l.faults = append(l.faults, f...) }

var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// checkName refuses names that cannot be file names, and names that are taken.
func (l *loader) checkName(n conf.Node, name, what string, taken map[string]bool) {
	switch {
	case name == "":
		return // said already
	case !goodName.MatchString(name):
		l.add(n.Fault("%q is no good name for a %s: use letters, digits, '-', '_' and '.', at most 63", name, what))
	case taken[name]:
		l.add(n.Fault("there are two %ss named %q: give one of them another name", what, name))
	}
	taken[name] = true
}

func (l *loader) pipeline(n conf.Node, sec pipelineSection) {
	p := pipeline.Config{Name: sec.Name}
	fields := map[string]event.Kind{}
	l.blind = false
	ids := map[string]bool{}
	for _, key := range []struct {
		name  string
		items []conf.Node
	}{{"inputs", sec.Inputs}, {"outputs", sec.Outputs}} {
		if at, ok := n.Get(key.name); ok && at.Kind() == conf.List && len(key.items) == 0 {
			l.add(at.Fault("%s is empty: a pipeline needs at least one", key.name))
		}
	}
	for _, item := range sec.Inputs {
		pol, f := conf.Decode(item, InputPolicies{})
		l.add(f...)
		spec, cfg, at, ok := l.plugin(item, plugins.KindInput, pol.Plugin, policyKeys(InputPolicies{}))
		c := pipeline.InputConfig{ID: pol.ID, Type: spec.Name, Set: l.constants(pol.Set, fields)}
		l.id(item, at, &c.ID, spec.Name, "input", ids)
		if !ok {
			l.blind = true
			continue
		}
		define(fields, cfg)
		if fw, is := cfg.(plugins.PathFollower); is {
			l.followers = append(l.followers, follower{at, fw})
		}
		l.warn(at, cfg)
		c.Build = func(env plugins.Env) (plugins.Input, error) { return build[plugins.Input](spec, cfg, env) }
		l.try(at, cfg, func(env plugins.Env) error { _, err := c.Build(env); return err }, fields)
		p.Inputs = append(p.Inputs, c)
	}
	for _, item := range sec.Processors {
		pol, f := conf.Decode(item, ProcessorPolicies{})
		l.add(f...)
		spec, cfg, at, ok := l.plugin(item, plugins.KindProcessor, pol.Plugin, policyKeys(ProcessorPolicies{}))
		c := pipeline.ProcessorConfig{ID: pol.ID, Type: spec.Name}
		l.id(item, at, &c.ID, spec.Name, "processor", ids)
		if !ok {
			l.blind = true
			continue
		}
		before := clone(fields)
		c.Build = func(env plugins.Env) (plugins.Processor, error) {
			env.Fields = before
			return build[plugins.Processor](spec, cfg, env)
		}
		c.Place = placer(at, cfg)
		var plug plugins.Processor
		l.try(at, cfg, func(env plugins.Env) (err error) { plug, err = c.Build(env); return err }, before)
		define(fields, cfg)
		define(fields, plug) // one in a process of its own says it itself
		l.blind = l.blind || plug == nil
		p.Processors = append(p.Processors, c)
	}
	if len(sec.Outputs) > event.MaxOutputs {
		l.add(n.Fault("a pipeline has at most %d outputs", event.MaxOutputs))
	}
	for _, item := range sec.Outputs {
		l.output(&p, item, fields, ids)
	}
	l.cfg.Pipelines = append(l.cfg.Pipelines, p)
}

func (l *loader) output(p *pipeline.Config, item conf.Node, fields map[string]event.Kind, ids map[string]bool) {
	pol, f := conf.Decode(item, l.outputPolicies(item))
	l.add(f...)
	spec, cfg, at, ok := l.plugin(item, plugins.KindOutput, pol.Plugin, policyKeys(OutputPolicies{}))
	c := pipeline.OutputConfig{
		ID: pol.ID, Type: spec.Name, Batch: pol.Batch, Queue: pol.Queue, Retry: pol.Retry, Workers: pol.Workers, DeadLetter: pol.DeadLetter,
	}
	l.id(item, at, &c.ID, spec.Name, "output", ids)
	if pol.Queue.OnFull == "reread" || pol.Queue.OnFull == "spool" {
		n, _ := item.Get("queue")
		n, _ = n.Get("on_full")
		l.add(n.Fault("on_full: %s is not built yet: use block or drop", pol.Queue.OnFull))
	}
	if pol.Retry.Max < pol.Retry.Initial {
		n, _ := item.Get("retry")
		l.add(n.Fault("max (%v) is less than initial (%v)", pol.Retry.Max, pol.Retry.Initial))
	}
	if pol.When != "" {
		cond, err := eval.CompileCondition(pol.When, fields)
		if err != nil && !l.unseen(err) {
			n, _ := item.Get("when")
			l.add(n.Fault("%s", err.Error()))
		}
		c.When = cond
	}
	if !ok {
		return
	}
	final := clone(fields)
	c.Build = func(env plugins.Env) (plugins.Output, error) {
		env.Fields = final
		env.Encoder = named(env.Encoder, schema.Naming(pol.Naming))
		return build[plugins.Output](spec, cfg, env)
	}
	c.Place = placer(at, cfg)
	var plug plugins.Output
	l.try(at, cfg, func(env plugins.Env) (err error) {
		plug, err = c.Build(env)
		if _, undo := plug.(plugins.Committer); err == nil && undo && pol.Workers > 1 {
			n, _ := item.Get("workers")
			l.add(n.Fault("%s writes with one worker only: its data could not be cut back after a crash otherwise", spec.Name))
		}
		return err
	}, final)
	// What a built-in's configuration tells, a plugin in a process of its own tells itself.
	w, is := cfg.(plugins.PathWriter)
	if !is {
		w, is = plug.(plugins.PathWriter)
	}
	if is {
		l.writers = append(l.writers, writer{at, fmt.Sprintf("output %s of pipeline %s", c.ID, p.Name), w.WrittenPaths()})
	}
	if lingers, is := plug.(plugins.Lingering); is {
		if n, _ := item.Get("batch"); !has(n, "linger") {
			c.Batch.Linger = lingers.DefaultLinger()
		}
	}
	l.needed += int64(pol.Queue.Bytes) + int64(pol.Batch.Bytes)
	p.Outputs = append(p.Outputs, c)
}

func has(n conf.Node, key string) bool {
	_, ok := n.Get(key)
	return ok
}

// named gives an output encoders with its naming, whatever else it asks for.
func named(encoder func(schema.EncodeOptions) *schema.Encoder, n schema.Naming) func(schema.EncodeOptions) *schema.Encoder {
	if n == schema.OVH {
		return encoder
	}
	if encoder == nil {
		encoder = schema.NewEncoder
	}
	return func(opt schema.EncodeOptions) *schema.Encoder {
		opt.Naming = n
		return encoder(opt)
	}
}

// outputPolicies are the defaults of what stands beside the key of the plugin that an item names.
func (l *loader) outputPolicies(item conf.Node) OutputPolicies {
	for _, k := range item.Keys() {
		if s, ok := l.reg.Lookup(plugins.KindOutput, k.Name); ok {
			return PoliciesOf(s)
		}
	}
	return DefaultOutputPolicies()
}

// PoliciesOf holds the defaults of what stands beside the key of an output.
func PoliciesOf(s plugins.Spec) OutputPolicies {
	p := DefaultOutputPolicies()
	if c, ok := s.Defaults.(plugins.Lingering); ok {
		p.Batch.Linger = c.DefaultLinger()
	}
	return p
}

// plugin finds the plugin that an item of a list names and decodes its section.
func (l *loader) plugin(item conf.Node, kind plugins.Kind, sections map[string]conf.Node, policies []string) (spec plugins.Spec, cfg any, at conf.Node, ok bool) {
	if item.IsNull() {
		l.add(item.Fault("this item names no plugin; the %ss are: %s", kind, strings.Join(l.reg.Names(kind), ", ")))
	}
	if item.Kind() != conf.Section {
		return spec, nil, item, false // said already
	}
	var found []conf.Key
	var unknown conf.Faults
	known := l.reg.Names(kind)
	for _, k := range item.Keys() {
		if _, is := sections[k.Name]; !is {
			continue
		}
		if s, is := l.reg.Lookup(kind, k.Name); is {
			if len(found) > 0 {
				l.add(k.KeyNode.Fault("a second %s in one item (%s is there already): start a new item with '-'", kind, spec.Name))
				continue
			}
			spec, found = s, append(found, k)
			continue
		}
		f := k.KeyNode.Fault("there is no %s plugin and no policy of this name; the %ss are: %s", kind, kind, strings.Join(known, ", "))
		f.Suggestion = conf.Suggest(k.Name, append(slices.Clone(known), policies...))
		unknown = append(unknown, f)
	}
	if !l.unasked || kind == plugins.KindInput || len(found) > 0 {
		l.add(unknown...)
	}
	if len(found) == 0 {
		if len(sections) == 0 {
			l.add(item.Fault("this item names no plugin; the %ss are: %s", kind, strings.Join(known, ", ")))
		}
		return spec, nil, item, false
	}
	at = found[0].Value
	cfg, f := conf.DecodeAny(at, spec.Defaults)
	l.add(f...)
	if !spec.KeepsNothing {
		l.cfg.KeepsNothing = false
	}
	return spec, cfg, at, len(f) == 0
}

func (l *loader) id(item, at conf.Node, id *string, plugin, what string, taken map[string]bool) {
	n := at
	if *id == "" {
		*id = plugin
	} else if v, ok := item.Get("id"); ok {
		n = v
	}
	if taken[*id] && n == at && *id != "" {
		l.add(n.Fault("there are two plugins with the id %q: give one of them another with `id:`", *id))
		return
	}
	l.checkName(n, *id, what, taken)
}

// try builds a plugin once, to hear what is wrong with its configuration; building touches nothing outside.
func (l *loader) try(at conf.Node, cfg any, f func(plugins.Env) error, fields map[string]event.Kind) {
	env := plugins.Env{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Fields: fields, NodeID: "check",
		Pool: event.NewPool(1), Encoder: schema.NewEncoder,
		Count: func(string, string, int64) {}, Fail: func(string, error) {},
	}
	if err := f(env); err != nil && !l.unseen(err) {
		l.add(at.Place(err, cfg)...)
	}
}

// unseen tells whether an error may be no more than what follows from a fault that is named: an expression knows a field by the plugin that
// defines it.
func (l *loader) unseen(err error) bool {
	e, is := errors.AsType[*eval.Error](err)
	return is && l.blind && e.Name != ""
}

// placer puts what a plugin says against its section when it is opened at its keys. What others said about that error is left away.
func placer(at conf.Node, cfg any) func(error) conf.Faults {
	return func(err error) conf.Faults {
		for {
			switch err.(type) { //nolint:errorlint // it is unwrapped one level at a time
			case conf.KeyError, *conf.KeyError, conf.Faults, interface{ Unwrap() []error }:
				return at.Place(err, cfg)
			}
			inner := errors.Unwrap(err)
			if inner == nil {
				return at.Place(err, cfg)
			}
			err = inner
		}
	}
}

// warner is implemented by configurations of built-ins in which something that is no fault cannot be what was meant.
type warner interface {
	// Warnings returns nil, or an error that joins what is to be said; a conf.KeyError says where.
	Warnings() error
}

// warn notes what a configuration says of itself that is no fault.
func (l *loader) warn(at conf.Node, cfg any) {
	w, is := cfg.(warner)
	if !is {
		return
	}
	if err := w.Warnings(); err != nil {
		for _, f := range at.Place(err, cfg) {
			l.cfg.Warnings = append(l.cfg.Warnings, f.String())
		}
	}
}

// constants decodes an input's `set:`.
func (l *loader) constants(n conf.Node, fields map[string]event.Kind) []event.Field {
	if n.Kind() == conf.Invalid {
		return nil
	}
	if n.Kind() != conf.Section {
		l.add(n.Fault("expected a section of names and values"))
		return nil
	}
	var set []event.Field
	for _, k := range n.Keys() {
		v, fault := constant(k.Value)
		if fault != nil {
			l.add(*fault)
			continue
		}
		if f := schema.Lookup(k.Name); f != nil {
			var e event.Event
			if !f.Settable() {
				l.add(k.KeyNode.Fault("%s cannot be set", k.Name))
				continue
			}
			if f.Type == event.String && v.Kind() != event.String {
				v = event.StringValue(k.Value.Scalar()) // a number where the schema has a text is one
			}
			if !f.Set(&e, v) {
				l.add(k.Value.Fault("%s is a %s, this is a %s", k.Name, f.Type, v.Kind()))
				continue
			}
		} else {
			fields[k.Name] = v.Kind()
		}
		set = append(set, event.Field{Key: k.Name, Value: v})
	}
	return set
}

// constant reads a scalar as YAML means it.
func constant(n conf.Node) (event.Value, *conf.Fault) {
	switch v := n.Literal().(type) {
	case string:
		return event.StringValue(v), nil
	case int64:
		return event.IntValue(v), nil
	case float64:
		return event.FloatValue(v), nil
	case bool:
		return event.BoolValue(v), nil
	}
	f := n.Fault("expected a text, a number or a bool")
	return event.Value{}, &f
}

func build[P any](spec plugins.Spec, cfg any, env plugins.Env) (p P, err error) {
	v, err := spec.New(cfg, env)
	if err != nil {
		return p, err
	}
	p, ok := v.(P)
	if !ok {
		return p, fmt.Errorf("BUG: %s %q built a %T", spec.Kind, spec.Name, v)
	}
	return p, nil
}

func define(fields map[string]event.Kind, v any) {
	if d, ok := v.(plugins.FieldDefiner); ok {
		maps.Copy(fields, d.DefinedFields())
	}
}

func clone(m map[string]event.Kind) map[string]event.Kind {
	c := make(map[string]event.Kind, len(m))
	maps.Copy(c, m)
	return c
}

// policyKeys lists the keys that stand beside a plugin's.
func policyKeys(v any) (keys []string) {
	for _, d := range conf.Describe(reflect.TypeOf(v), v) {
		if !strings.Contains(d.Path, ".") {
			keys = append(keys, d.Name)
		}
	}
	return keys
}
