// Package enrich is a processor that sets, renames and removes fields.
//
//	processors:
//	  - enrich:
//	      lookup: {table: /etc/stacktrail/projects.csv, on: project_id, key: id, set: {customer: name, tier_int: tier}}
//	      set:
//	        region: '"RegionOne"'                # a text stands in quotes inside the expression
//	        slow_bool: api_response_time_num > 2
//	        user: user ?? user_id
//	      rename: {region: zone}
//	      remove: [user_agent]
//
// Whatever the order of the keys, the lookup comes first, then all sets, then the renames, then the removals; sets and renames
// happen in the order in which they are written, and each sees what those before it did.
//
// A name of the schema keeps its type; an int may be set where a float is wanted. Any other name defines an extra field, which
// later expressions may use by name. A value that is absent removes the field. Where an expression fails for an event, or its
// value does not fit the field, the field stays as it was and the failure is counted. A rename of an absent field changes
// nothing. schema_version, event_id and log_offset_int cannot be changed.
//
// # Lookup
//
// The row whose key column holds the value of the field on gives the fields of set. An event whose value is not in the table is counted
// and left alone; so is a field whose cell is empty. Cells become values of the type that a field of the schema has; other fields hold
// texts, but for names that end in _int, _num or _bool. A table of 16 MiB at most is held by each lane.
//
// A table must have each key once, all columns that are named, and a row at least: anything else is an error of the configuration. The
// file is looked at once a second at most, when events come, and read again in the background when it changed. One that is faulty or
// gone then leaves the former table in use; that is logged, counted and shown in health.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/eval"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the processor's configuration. Set and Rename are nodes, because their order matters.
type Config struct {
	Lookup *Lookup   `yaml:"lookup" doc:"Set fields from a table, before all else."`
	Set    conf.Node `yaml:"set" doc:"Fields to set: the name of each with the expression of its value, in this order."`
	Rename conf.Node `yaml:"rename" doc:"Fields to rename after that: the old name of each with its new one, in this order."`
	Remove []string  `yaml:"remove" doc:"Fields to remove at the end."`
}

// Spec describes the processor to the agent.
var Spec = plugins.ProcessorSpec("enrich", "Set, rename and remove fields.", Config{}, New).Safe()

// Validate reports everything that is wrong whatever fields there are; New compiles the expressions.
func (c Config) Validate() error {
	var errs []error
	for _, p := range pairs("set", c.Set, &errs) {
		if err := changeable(p.name); err != nil {
			errs = append(errs, conf.KeyError{Key: p.key, Err: err})
		}
	}
	for _, p := range pairs("rename", c.Rename, &errs) {
		if err := errors.Join(changeable(p.name), changeable(p.text)); err != nil {
			errs = append(errs, conf.KeyError{Key: p.key, Err: err})
		} else if p.name == p.text {
			errs = append(errs, conf.KeyError{Key: p.key, Err: errors.New("the new name is the old one")})
		}
	}
	for i, name := range c.Remove {
		if err := changeable(name); err != nil {
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("remove[%d]", i), Err: err})
		}
	}
	return errors.Join(errs...)
}

// DefinedFields returns the extra fields that the processor can leave behind, with their kinds where these are known without
// the fields that were there before.
func (c Config) DefinedFields() map[string]event.Kind {
	known := map[string]event.Kind{}
	var none []error
	if c.Lookup != nil {
		for name := range c.Lookup.Set {
			if schema.Lookup(name) == nil {
				known[name] = kindFor(name)
			}
		}
	}
	for _, s := range pairs("set", c.Set, &none) {
		if schema.Lookup(s.name) == nil {
			known[s.name] = kindOf(s.text, known)
		}
	}
	for _, r := range pairs("rename", c.Rename, &none) {
		if schema.Lookup(r.text) == nil {
			known[r.text] = kindNamed(r.name, known)
		}
		delete(known, r.name)
	}
	for _, name := range c.Remove {
		delete(known, name)
	}
	return known
}

// kindOf is the kind of an expression's value. Names that nobody declared here may have been declared before.
func kindOf(src string, known map[string]event.Kind) event.Kind {
	names := maps.Clone(known)
	for {
		v, err := eval.CompileValue(src, names)
		if err == nil {
			return v.Kind()
		}
		var e *eval.Error
		if !errors.As(err, &e) || e.Name == "" {
			return event.Absent
		}
		if _, again := names[e.Name]; again {
			return event.Absent
		}
		names[e.Name] = event.Absent
	}
}

// kindNamed is the kind of a field, event.Absent where it is not known.
func kindNamed(name string, known map[string]event.Kind) event.Kind {
	if f := schema.Lookup(name); f != nil {
		return f.Type
	}
	return known[name]
}

type pair struct{ key, name, text string }

// pairs returns the entries of a section in their order.
func pairs(key string, n conf.Node, errs *[]error) []pair {
	switch {
	case n.Kind() == conf.Invalid || n.IsNull():
		return nil
	case n.Kind() != conf.Section:
		*errs = append(*errs, conf.KeyError{Key: key, Err: errors.New("expected a section, a name and its value on each line")})
		return nil
	}
	var out []pair
	for _, k := range n.Keys() {
		p := pair{key: key + "." + k.Name, name: k.Name, text: k.Value.Scalar()}
		if !plainKey.MatchString(k.Name) {
			p.key = fmt.Sprintf("%s[%q]", key, k.Name)
		}
		if k.Value.Kind() != conf.Scalar || k.Value.IsNull() || strings.TrimSpace(p.text) == "" {
			*errs = append(*errs, conf.KeyError{Key: p.key, Err: errors.New("expected a text")})
			continue
		}
		out = append(out, p)
	}
	return out
}

// plainKey are names that stand in a path as they are. Read only.
var plainKey = regexp.MustCompile(`^[0-9A-Za-z_-]+$`)

func changeable(name string) error {
	if strings.TrimSpace(name) == "" {
		return errors.New("a field needs a name")
	}
	if f := schema.Lookup(name); f != nil && !f.Settable() {
		return fmt.Errorf("%s cannot be changed", name)
	}
	return nil
}

// New builds the processor. Its error joins a conf.KeyError for each expression and name that is wrong.
func New(c Config, env plugins.Env) (plugins.Processor, error) {
	p := &processor{count: env.Count, log: env.Log}
	known := maps.Clone(env.Fields)
	if known == nil {
		known = map[string]event.Kind{}
	}
	var errs []error
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Lookup != nil {
		var err error
		if p.lookup, err = newLookup(*c.Lookup, env, known); err != nil {
			errs = append(errs, err)
		}
	}
	for _, s := range pairs("set", c.Set, &errs) {
		v, err := eval.CompileValue(s.text, known)
		if err != nil {
			errs = append(errs, conf.KeyError{Key: s.key, Err: hinted(s.text, err)})
			continue
		}
		to := place(s.name)
		if err := to.fits(v.Kind()); err != nil {
			errs = append(errs, conf.KeyError{Key: s.key, Err: err})
			continue
		}
		x := set{to: to, value: v, failures: failures{reason: "set." + s.name}}
		x.constant, x.fixed = v.Constant()
		p.sets = append(p.sets, x)
		if to.field == nil {
			known[s.name] = v.Kind()
		}
	}
	for _, r := range pairs("rename", c.Rename, &errs) {
		from, to := place(r.name), place(r.text)
		err := from.declared(known)
		if err == nil {
			err = to.fits(kindNamed(r.name, known))
		}
		if err != nil {
			errs = append(errs, conf.KeyError{Key: r.key, Err: err})
			continue
		}
		p.renames = append(p.renames, rename{from: from, to: to, failures: failures{reason: "rename." + r.name}})
		if to.field == nil {
			known[r.text] = kindNamed(r.name, known)
		}
	}
	for i, name := range c.Remove {
		x := place(name)
		if err := x.declared(known); err != nil {
			errs = append(errs, conf.KeyError{Key: fmt.Sprintf("remove[%d]", i), Err: err})
			continue
		}
		p.removes = append(p.removes, x)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// hinted says how a text is written where a plain word was taken for a name.
func hinted(src string, err error) error {
	var e *eval.Error
	if errors.As(err, &e) && e.Name == strings.TrimSpace(src) {
		return fmt.Errorf(`%w; a text is written with quotes inside: '"%s"'`, err, e.Name)
	}
	return err
}

// target is where a field stands.
type target struct {
	name  string
	field *schema.Field // nil for an extra field
	text  bool          // a fixed string field
}

func place(name string) target {
	t := target{name: name, field: schema.Lookup(name)}
	if t.field != nil {
		_, t.text = t.field.TextOffset()
	}
	return t
}

// fits reports whether values of a kind can be put there; those of an unknown kind may.
func (t target) fits(k event.Kind) error {
	if t.field == nil || k == event.Absent || k == t.field.Type || k == event.Int && t.field.Type == event.Float {
		return nil
	}
	return fmt.Errorf("%s holds values of type %s, this is %s", t.name, t.field.Type, k)
}

// declared refuses a name that nobody knows and that looks like one that is known. Other unknown names may be those of fields
// that are not declared.
func (t target) declared(known map[string]event.Kind) error {
	if _, ok := known[t.name]; ok || t.field != nil {
		return nil
	}
	names := slices.Collect(maps.Keys(known))
	for i := range schema.Fields() {
		names = append(names, schema.Fields()[i].Name)
	}
	if s := conf.Suggest(t.name, names); s != "" {
		return fmt.Errorf("unknown field %q (did you mean %q?)", t.name, s)
	}
	return nil
}

func (t *target) get(e *event.Event) event.Value {
	if t.field != nil {
		return t.field.Get(e)
	}
	v, _ := e.Get(t.name)
	return v
}

// put stores a value whose strings live as long as the batch; false if it does not fit.
func (t *target) put(e *event.Event, v event.Value) bool {
	if t.field == nil {
		e.Set(t.name, v)
		return true
	}
	if t.text && v.Kind() == event.String {
		// Event.Plain speaks of the views of the first block in fixed fields: none holds a quote.
		if s, b := v.Str(), e.Batch(); strings.IndexByte(s, '"') >= 0 && b != nil && b.Contains(s) {
			v = event.StringValue(b.Arena().CopyString(s))
		}
	}
	return t.field.Set(e, v)
}

// failures counts what went wrong at one place.
type failures struct {
	reason string
	n      int64 // in this batch
	said   bool  // the first one was logged
}

type set struct {
	to    target
	value *eval.Value
	// A literal is made once and shared by all events.
	constant event.Value
	fixed    bool
	failures
}

type rename struct {
	from, to target
	failures
}

type processor struct {
	lookup  *lookup // nil: none
	sets    []set
	renames []rename
	removes []target
	count   func(name, reason string, n int64)
	log     *slog.Logger
}

func (p *processor) Process(ctx context.Context, b *event.Batch) error {
	if p.lookup != nil {
		if err := p.lookup.refresh(ctx); err != nil {
			return err
		}
		defer p.lookup.report()
	}
	for i := range b.Events {
		if e := &b.Events[i]; !e.Dropped {
			p.change(e)
		}
	}
	for i := range p.sets {
		p.report(&p.sets[i].failures)
	}
	for i := range p.renames {
		p.report(&p.renames[i].failures)
	}
	return nil
}

func (p *processor) change(e *event.Event) {
	if p.lookup != nil {
		p.lookup.set(e)
	}
	for i := range p.sets {
		s := &p.sets[i]
		v, err := s.constant, error(nil)
		if !s.fixed {
			v, err = s.value.Eval(e)
		}
		switch {
		case err != nil:
			p.failed(&s.failures, err)
		case !s.to.put(e, v):
			p.failed(&s.failures, fmt.Errorf("the value does not fit: %s", v.Kind()))
		}
	}
	for i := range p.renames {
		r := &p.renames[i]
		v := r.from.get(e)
		if v.Kind() == event.Absent {
			continue
		}
		if r.to.put(e, v) {
			r.from.put(e, event.Value{})
		} else {
			p.failed(&r.failures, fmt.Errorf("the value does not fit: %s", v.Kind()))
		}
	}
	for i := range p.removes {
		p.removes[i].put(e, event.Value{})
	}
}

// failed counts a failure and logs the first one; the counter tells about the others.
func (p *processor) failed(f *failures, err error) {
	f.n++
	if !f.said && p.log != nil {
		p.log.Warn("changing a field failed, field left alone", "what", f.reason, "error", err)
	}
	f.said = true
}

func (p *processor) report(f *failures) {
	if f.n > 0 && p.count != nil {
		p.count("eval_errors", f.reason, f.n)
	}
	f.n = 0
}
