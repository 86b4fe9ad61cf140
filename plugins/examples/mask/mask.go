package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Config is the processor's configuration.
type Config struct {
	Pattern string   `yaml:"pattern" required:"true" doc:"Go regular expression to mask." example:"'password=[^&]+'"`
	Fields  []string `yaml:"fields" doc:"Fields with text to look at, by their names in the schema."`
	With    string   `yaml:"with" doc:"What stands in its place; $1 or $name is what a group matched."`
}

// Spec describes the processor to the agent.
var Spec = plugins.ProcessorSpec("mask", "Mask a pattern in named fields.",
	Config{Fields: []string{"query", "referer", "message", "original"}, With: "***"}, New).Safe()

// New builds the processor. It looks at the configuration and at nothing else.
func New(c Config, env plugins.Env) (plugins.Processor, error) {
	re, err := regexp.Compile(c.Pattern)
	if err != nil {
		return nil, conf.KeyError{Key: "pattern", Err: err}
	}
	if re.MatchString("") {
		return nil, conf.KeyError{Key: "pattern", Err: errors.New("it matches the empty text, and so between any two letters")}
	}
	if len(c.Fields) == 0 {
		return nil, conf.KeyError{Key: "fields", Err: errors.New("there is nothing to look at")}
	}
	for i, name := range c.Fields {
		f, kind := schema.Lookup(name), env.Fields[name] // of the schema, or defined by a plugin before this one
		if f != nil && f.Settable() {
			kind = f.Type
		}
		if kind != event.String {
			return nil, conf.KeyError{Key: fmt.Sprintf("fields[%d]", i), Err: fmt.Errorf("there is no field %q with text that can be changed", name)}
		}
	}
	return &mask{c, re, env.Count}, nil
}

type mask struct {
	Config
	re    *regexp.Regexp
	count func(name, reason string, n int64)
}

// Process masks the pattern in the events of a batch, in place.
func (m *mask) Process(_ context.Context, b *event.Batch) error {
	for _, name := range m.Fields {
		masked := int64(0)
		for i := range b.Events {
			e := &b.Events[i]
			if text := schema.Get(e, name).Str(); !e.Dropped && m.re.MatchString(text) {
				schema.Set(e, name, event.StringValue(m.re.ReplaceAllString(text, m.With)))
				masked++
			}
		}
		if masked > 0 {
			m.count("masked", name, masked)
		}
	}
	return nil
}
