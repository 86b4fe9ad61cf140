package routes

import (
	_ "embed" // services.yaml
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Service is what is known of the paths of one service. Operators add their own under an input's key routes; the head of
// services.yaml says how paths are written.
type Service struct {
	Service      string            `yaml:"service" doc:"The project's name, as in the field service. A service that is known gets the paths beside its own."`
	Kind         string            `yaml:"kind" doc:"Its kind, as in the field kind. Empty: that of the known service of this name, else unknown."`
	Mounts       []string          `yaml:"mounts" doc:"First segments under which a server may have put the service; they are no part of the route."`
	Versions     []string          `yaml:"versions" doc:"Versions of the API as they stand in paths, such as v2.1. Lines that do not name their service are told by them."`
	Project      string            `yaml:"project" enum:"none|id|any|account" doc:"What may stand behind the version: none; id: a project that looks like an id; any: a project of any text; account: the account of an object store."`
	NeedsProject []string          `yaml:"needs_project" doc:"Versions whose paths all have a project."`
	Keywords     []string          `yaml:"keywords" doc:"Last segments that list something although no id follows them: GET is read/list, POST create."`
	Actions      map[string]string `yaml:"actions" doc:"Actions by the last segment, or by segment/method, where the method does not tell them."`
	Paths        []string          `yaml:"paths" doc:"Paths behind the version: /word, /{type} for an id, /{type!} for an id that is a secret, /{type...} for all that is left, /word=type for a collection without ids; [a|b] is nothing, a or b, and ends its part. Example: /invoices[/{invoice}[/pdf]]."`
}

//go:embed services.yaml
var builtin []byte

// known compiles the services that the program brings; no input changes them.
var known = sync.OnceValues(func() (*Table, error) { return compile(nil) })

// services reads services.yaml.
func services() ([]Service, error) {
	n, faults := conf.Parse("services.yaml", builtin)
	if len(faults) > 0 {
		return nil, fmt.Errorf("reading services: %w", faults.Err())
	}
	list, faults := conf.Decode(n, []Service{})
	if len(faults) > 0 {
		return nil, fmt.Errorf("reading services: %w", faults.Err())
	}
	return list, nil
}

// Compile makes a table of the services that are known and of more. The error joins a conf.KeyError for each fault, relative to
// the list.
func Compile(more []Service) (*Table, error) {
	if len(more) == 0 {
		return known()
	}
	return compile(more)
}

func compile(more []Service) (*Table, error) {
	list, err := services()
	if err != nil {
		return nil, err
	}
	c := newCompiler()
	for i := range list {
		if errs := c.add(&list[i]); len(errs) > 0 {
			return nil, fmt.Errorf("BUG: services.yaml: entry %d: %w", i, errors.Join(errs...))
		}
	}
	names := make([]string, 0, len(list))
	for _, s := range list {
		names = append(names, s.Service)
	}
	var all []error
	for i := range more {
		s := &more[i]
		at := fmt.Sprintf("[%d]", i)
		if s.Service == "" {
			all = append(all, conf.KeyError{Key: at + ".service", Err: errors.New("a service needs a name")})
			continue
		}
		if len(s.Paths) == 0 && len(s.Mounts) == 0 {
			all = append(all, conf.KeyError{Key: at + ".paths", Err: errors.New("no path and no mount: there is nothing to know the service by")})
		}
		if !slices.Contains(names, s.Service) {
			// A name that is nearly a known one is rather that one, written wrongly.
			if near := conf.Suggest(s.Service, names); near != "" {
				all = append(all, conf.KeyError{Key: at + ".service", Err: fmt.Errorf("%q is nearly the known service %q (did you mean %q?)", s.Service, near, near)})
			}
		}
		for _, err := range c.add(s) {
			if k, ok := errors.AsType[conf.KeyError](err); ok {
				err = conf.KeyError{Key: at + "." + k.Key, Err: k.Err}
			}
			all = append(all, err)
		}
	}
	if len(all) > 0 {
		return nil, errors.Join(all...)
	}
	return c.finish()
}
