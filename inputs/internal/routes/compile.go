package routes

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Bounds of a table: the routes of all services together are the values that a field can have.
const (
	maxRoutes   = 4096
	maxServices = 64 // bits of a set
	maxDepth    = 12 // segments of a path
)

// projects says what may stand behind a version.
type projects uint8

const (
	noProject projects = iota
	idProject
	anyProject
	accountProject
)

// node is a place in the tree of a service's paths.
type node struct {
	route string // of a path that ends here
	rest  string // of a path that goes on with what is not known
	// withProject are the same behind a project; "" where none can stand.
	withProject, restWithProject string

	seg      string // literal that leads here; "" for an id or a version
	kind     string // type of what a path without an id that ends here is about
	explicit bool   // kind was written down
	idType   string // type of the id that leads here; "" for literals
	secret   bool   // that id is a secret
	tail     bool   // that id is all that is left
	id       int32  // place below for any other segment, 0: none
	version  int32  // place below for a version, 0: none
	parent   int32
	literals []int32

	actions [methods]string
}

// service is one compiled entry.
type service struct {
	name, kind string
	root       int32
	project    projects
	keywords   []string
	actions    map[string]string
	versions   []string
}

type compiler struct {
	nodes    []node
	services []service
	mounts   map[string]int // service
	roots    map[string]set // services that have a path with this first segment
	versions map[string]set // services that have this version
	needs    map[string]set // and need a project there
	names    map[string]set // services of this name
	bare     map[string]set // services that have this first segment before a version
	account  set
}

// set is a set of services.
type set uint64

func newCompiler() *compiler {
	return &compiler{
		nodes: make([]node, 1), mounts: map[string]int{}, roots: map[string]set{}, versions: map[string]set{}, needs: map[string]set{}, names: map[string]set{}, bare: map[string]set{},
	}
}

// add adds a service, or more paths of one that is there.
func (c *compiler) add(s *Service) (errs []error) {
	fault := func(key, format string, a ...any) {
		errs = append(errs, conf.KeyError{Key: key, Err: fmt.Errorf(format, a...)})
	}
	n := slices.IndexFunc(c.services, func(x service) bool { return x.name == s.Service && (s.Kind == "" || x.kind == s.Kind) })
	if n < 0 {
		if len(c.services) == maxServices {
			return []error{conf.KeyError{Key: "service", Err: fmt.Errorf("there are more than %d services", maxServices)}}
		}
		n = len(c.services)
		c.services = append(c.services, service{name: s.Service, kind: s.Kind, root: c.place(0, node{}), actions: map[string]string{}})
		if s.Service != "" {
			c.names[s.Service] |= 1 << n
		}
	}
	x := &c.services[n]
	bit := set(1) << n
	if p := slices.Index([]string{"none", "id", "any", "account"}, s.Project); p > 0 {
		x.project = projects(p)
	}
	if x.project == accountProject {
		c.account |= bit
	}
	for i, m := range s.Mounts {
		switch other, taken := c.mounts[m]; {
		case !isLiteral(m):
			fault(fmt.Sprintf("mounts[%d]", i), "%q is not the text of one segment", m)
		case taken && other != n:
			fault(fmt.Sprintf("mounts[%d]", i), "%q is where %s is mounted", m, c.services[other].name)
		default:
			c.mounts[m] = n
		}
	}
	for i, v := range s.Versions {
		if v != wordDate && versionOf(v) != v {
			fault(fmt.Sprintf("versions[%d]", i), "%q is not a version: write v2, v2.1, latest or date", v)
			continue
		}
		x.versions = append(x.versions, v)
		c.versions[v] |= bit
	}
	for i, v := range s.NeedsProject {
		if !slices.Contains(x.versions, v) {
			fault(fmt.Sprintf("needs_project[%d]", i), "%q is not among the versions", v)
		}
		c.needs[v] |= bit
	}
	x.keywords = append(x.keywords, s.Keywords...)
	maps.Copy(x.actions, s.Actions)
	for i, p := range s.Paths {
		if err := c.path(x.root, p); err != nil {
			fault(fmt.Sprintf("paths[%d]", i), "%w", err)
		}
	}
	c.known(n, s, fault)
	return errs
}

// known finds actions and keywords for segments that no path has.
func (c *compiler) known(n int, s *Service, fault func(key, format string, a ...any)) {
	var words []string
	var walk func(i int32)
	walk = func(i int32) {
		for _, k := range c.below(i) {
			if w := c.nodes[k].seg; w != "" {
				words = append(words, w)
			}
			walk(k)
		}
	}
	walk(c.services[n].root)
	check := func(key, word string) {
		if slices.Contains(words, word) {
			return
		}
		if near := conf.Suggest(word, words); near != "" {
			fault(key, "no path has a segment %q (did you mean %q?)", word, near)
			return
		}
		fault(key, "no path has a segment %q", word)
	}
	for i, w := range s.Keywords {
		check(fmt.Sprintf("keywords[%d]", i), w)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Actions)) {
		word, method, given := strings.Cut(k, "/")
		if given && !slices.Contains(methodNames(), strings.ToUpper(method)) {
			fault("actions."+k, "%q is not a method: %s", method, strings.ToLower(strings.Join(methodNames(), ", ")))
		}
		if a := s.Actions[k]; a == "" || strings.Trim(a, "abcdefghijklmnopqrstuvwxyz_/") != "" {
			fault("actions."+k, "%q is not an action such as read or update/add", a)
		}
		check("actions."+k, word)
	}
}

// below lists the places below one.
func (c *compiler) below(i int32) []int32 {
	x := &c.nodes[i]
	l := slices.Clone(x.literals)
	if x.id != 0 {
		l = append(l, x.id)
	}
	if x.version != 0 {
		l = append(l, x.version)
	}
	return l
}

func (c *compiler) place(parent int32, n node) int32 {
	n.parent = parent
	c.nodes = append(c.nodes, n)
	return int32(len(c.nodes) - 1)
}

// path adds one path below a place.
func (c *compiler) path(root int32, p string) error {
	before := len(c.nodes)
	t := template{c: c, s: p}
	if err := t.sequence(root, 0); err != nil {
		return fmt.Errorf("at column %d of %q: %w", t.i+1, p, err)
	}
	if t.i < len(p) {
		return fmt.Errorf("at column %d of %q: %q without its bracket", t.i+1, p, p[t.i])
	}
	if len(c.nodes) == before && !t.changed {
		return fmt.Errorf("%q is there already", p)
	}
	if len(c.nodes) > maxRoutes {
		return fmt.Errorf("the services have more than %d paths", maxRoutes)
	}
	return nil
}

// template reads a path as services are written.
type template struct {
	c       *compiler
	s       string
	i       int
	changed bool
}

// sequence reads segments up to the end, a | or a ].
func (t *template) sequence(at int32, depth int) error {
	if t.i == len(t.s) || t.s[t.i] != '/' {
		return errors.New("a path begins with /")
	}
	for t.i < len(t.s) {
		switch t.s[t.i] {
		case '/':
			if depth++; depth > maxDepth {
				return fmt.Errorf("a path has %d segments at most", maxDepth)
			}
			next, err := t.segment(at)
			if err != nil {
				return err
			}
			at = next
		case '[':
			return t.group(at, depth)
		case '|', ']':
			return nil
		default:
			return fmt.Errorf("%q is not expected here", t.s[t.i])
		}
	}
	return nil
}

// group reads [a|b], which ends its sequence.
func (t *template) group(at int32, depth int) error {
	for {
		t.i++ // over [ or |
		if err := t.sequence(at, depth); err != nil {
			return err
		}
		if t.i == len(t.s) {
			return errors.New("] is missing")
		}
		if t.s[t.i] == ']' {
			t.i++
			break
		}
	}
	if t.i < len(t.s) && t.s[t.i] != '|' && t.s[t.i] != ']' {
		return errors.New("what stands in brackets ends its part")
	}
	return nil
}

// segment reads one segment and returns its place.
func (t *template) segment(at int32) (int32, error) {
	if t.c.nodes[at].tail {
		return 0, errors.New("nothing stands behind all that is left")
	}
	t.i++
	rest := t.s[t.i:]
	n := strings.IndexAny(rest, "/[|]")
	if n < 0 {
		n = len(rest)
	}
	text := rest[:n]
	if strings.HasPrefix(text, "{") {
		name, ok := strings.CutSuffix(text[1:], "}")
		if !ok {
			return 0, errors.New("} is missing")
		}
		t.i += n
		return t.variable(at, name)
	}
	word, kind, typed := strings.Cut(text, "=")
	if !isLiteral(word) {
		return 0, fmt.Errorf("%q is not the text of a segment: letters, digits, _, - and ., and nothing that looks like an id", word)
	}
	if typed && !isName(kind) {
		return 0, fmt.Errorf("%q is not the name of a type", kind)
	}
	t.i += n
	for _, k := range t.c.nodes[at].literals {
		if x := &t.c.nodes[k]; x.seg == word {
			if typed && x.kind != kind {
				if x.explicit {
					return 0, fmt.Errorf("%s is of type %s already", word, x.kind)
				}
				x.kind, x.explicit, t.changed = kind, true, true
			}
			return k, nil
		}
	}
	k := t.c.place(at, node{seg: word, kind: kind, explicit: typed})
	t.c.nodes[at].literals = append(t.c.nodes[at].literals, k)
	return k, nil
}

// variable reads what stands in braces.
func (t *template) variable(at int32, name string) (int32, error) {
	x := &t.c.nodes[at]
	if name == "version" {
		if x.version == 0 {
			k := t.c.place(at, node{})
			t.c.nodes[at].version = k
		}
		return t.c.nodes[at].version, nil
	}
	name, secret := strings.CutSuffix(name, "!")
	name, tail := strings.CutSuffix(name, "...")
	if !isName(name) {
		return 0, fmt.Errorf("%q is not the name of a type", name)
	}
	if x.id == 0 {
		k := t.c.place(at, node{idType: name, secret: secret, tail: tail})
		t.c.nodes[at].id = k
		return k, nil
	}
	if y := &t.c.nodes[x.id]; y.idType != name || y.secret != secret || y.tail != tail {
		return 0, fmt.Errorf("{%s} stands where {%s} stands in another path", name, y.idType)
	}
	return x.id, nil
}

// isLiteral reports whether s can be a segment that is no id.
func isLiteral(s string) bool {
	return s != "" && s != "." && s != ".." && s != "other" && strings.Trim(s, wordBytes) == "" && !isID(s) && !isUUID(s) && strings.Trim(s, "0123456789") != "" && len(s) <= 64
}

func isName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

const wordBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
