// Package routes tells what a request is about from its method and path: the route, which is the path without what makes it
// one of many, the resource, the version of the API, the action in the words of CADF, and the service where the line did not name
// it. What it knows stands in services.yaml. Package lines calls it for each access record.
package routes

import (
	"strings"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Routes that stand for no path of any service.
const (
	// Other is the route of paths that no service has.
	Other = "other"

	routeRoot    = "/"
	routeStar    = "*"
	routeVersion = "/{version}"
	routeProject = "/{project_id}"
	routeAccount = "/{account}"
)

const (
	wordDate    = "date"
	kindUnknown = "unknown"
)

// maxIDs is how many ids of one path are kept.
const maxIDs = 8

// Table tells paths. It is not changed and can be shared.
type Table struct {
	nodes    []node
	services []service
	all      set
	free     set // services without versions
	account  set // stores
	nameless set // entries without a service
	index    index
}

// Names of the index's rooms beside the nodes' own, which begin at 0.
const (
	roomMount uint32 = 1<<31 + iota
	roomRoot
	roomVersion
	roomNeeds
	roomName
	roomBare // first segments that stand without a version though their services have versions: theirs comes later
)

// finish builds the table.
func (c *compiler) finish() (*Table, error) {
	t := &Table{nodes: c.nodes, services: c.services, account: c.account}
	for n := range c.services {
		s := &c.services[n]
		if s.name == "" {
			t.nameless |= 1 << n
		} else {
			t.all |= 1 << n
		}
		if len(s.versions) == 0 {
			t.free |= 1 << n
		}
		c.routes(s)
		for _, k := range c.nodes[s.root].literals {
			c.roots[c.nodes[k].seg] |= 1 << n
			if c.nodes[k].version != 0 {
				c.bare[c.nodes[k].seg] |= 1 << n
			}
		}
	}
	size := len(c.nodes) + len(c.roots) + len(c.versions) + len(c.needs) + len(c.names) + len(c.mounts) + len(c.bare)
	t.index = newIndex(size)
	for i := range c.nodes {
		for _, k := range c.nodes[i].literals {
			t.index.put(uint32(i), c.nodes[k].seg, uint64(k))
		}
	}
	for m, n := range c.mounts {
		t.index.put(roomMount, m, 1<<n)
	}
	for room, from := range map[uint32]map[string]set{roomRoot: c.roots, roomVersion: c.versions, roomNeeds: c.needs, roomName: c.names, roomBare: c.bare} {
		for k, v := range from {
			t.index.put(room, k, uint64(v))
		}
	}
	return t, nil
}

// routes writes the routes and actions of a service's places.
func (c *compiler) routes(s *service) {
	var walk func(i int32, prefix string, kind string)
	walk = func(i int32, prefix, kind string) {
		x := &c.nodes[i]
		switch {
		case x.idType != "" && s.project == accountProject:
			prefix += "/{" + x.idType + "}"
		case x.idType != "":
			prefix += "/{id}"
		case x.seg != "":
			prefix += "/" + x.seg
		}
		if x.kind == "" {
			x.kind = kind
		}
		if x.id != 0 && !x.explicit && x.idType == "" && i != s.root {
			x.kind = c.nodes[x.id].idType
		}
		x.route, x.rest = prefix, prefix+"/*"
		switch s.project {
		case accountProject:
			x.withProject, x.restWithProject = routeAccount+prefix, routeAccount+prefix+"/*"
		case idProject, anyProject:
			x.withProject, x.restWithProject = routeProject+prefix, routeProject+prefix+"/*"
		case noProject:
		}
		c.actions(s, x)
		below := x.kind
		if x.idType != "" {
			below = ""
		}
		for _, k := range c.below(i) {
			walk(k, prefix, below)
		}
	}
	walk(s.root, "", "")
}

// Router tells the paths of one stream. It remembers which service the last record was of, because the next one is mostly of the same.
// It is used from one goroutine at a time.
type Router struct {
	t *Table

	// Of the last record, and what the table says of it.
	name, kind string
	which      set      // the services of that name, all if there is none
	named      bool     // there is one
	first      *service // the one of that kind; nil: look at all of them

	m match // of the record in hand
}

// NewRouter makes a router for a stream.
func (t *Table) NewRouter() *Router { return &Router{t: t, which: t.all} }

// remember looks a service up.
func (r *Router) remember(name, kind string) {
	r.name, r.kind, r.first = name, kind, nil
	r.which, r.named = r.t.all, false
	if name == "" {
		return
	}
	c := set(r.t.index.get(roomName, name))
	if c == 0 {
		return
	}
	r.which, r.named = c, true
	n := lowest(c)
	for ; c != 0; c &= c - 1 {
		if i := lowest(c); r.t.services[i].kind == kind {
			n = i
			break
		}
	}
	if r.t.account>>n&1 == 0 {
		r.first = &r.t.services[n]
	}
}

// Fill sets what the record's path and method tell. What the line itself told is not changed. The strings that it sets are constants
// or views of the path. It returns the part of the path that is a secret, and whether there may be others in the path: not
// where all of it are words that are known and ids.
func (r *Router) Fill(e *event.Event, a *event.Arena) (secret string, others bool) {
	if e.Path == "" {
		return "", true
	}
	if e.Service != r.name || e.Kind != r.kind {
		r.remember(e.Service, e.Kind)
	}
	m := &r.m
	m.begin(r.t)
	m.path(e.Path, r)
	tell(&e.Route, m.route)
	tell(&e.APIVersion, m.version)
	tell(&e.ResourceType, m.kind)
	if k := methodOf(e.Method); k >= 0 && e.Action == "" {
		if m.action != nil {
			e.Action = m.action[k]
		} else {
			e.Action = defaultActions[k]
		}
	}
	if m.told != nil && m.told.name != "" {
		if e.Service == "" {
			e.Service = m.told.name
		}
		if (e.Kind == "" || e.Kind == kindUnknown) && m.told.kind != "" && e.Service == m.told.name {
			e.Kind = m.told.kind
		}
	}
	tell(&e.ResourceID, m.id)
	if m.count > 0 {
		list := a.Strings(m.count)
		copy(list, m.ids[:m.count])
		n := len(e.Extra) // no parser sets it
		if n < cap(e.Extra) {
			e.Extra = e.Extra[:n+1] // and its value is made in its place, for values take long to move
		} else {
			e.Extra = append(e.Extra, event.Field{})
		}
		e.Extra[n].Key, e.Extra[n].Value = "resource_ids", event.ListValue(list)
	}
	if p := m.project; p != "" && e.ProjectID == "" && proved(e) {
		e.ProjectID = p
	}
	return m.secret, m.odd
}

// tell sets what the line did not tell.
func tell(field *string, s string) {
	if *field == "" {
		*field = s
	}
}

// proved reports whether the service cannot have found the project in the path to be another than the caller's. Services check
// that before all else: 401 is for who is nobody, 400 for another's project.
func proved(e *event.Event) bool {
	return e.Has&event.HasStatus != 0 && e.Status >= 200 && e.Status != 400 && e.Status != 401 && e.Status < 500
}

// match is what a path was found to be.
type match struct {
	t       *Table
	told    *service // the one that the path is of, if there is just one
	route   string
	kind    string // of the resource
	id      string // of the resource, of that kind
	version string
	project string
	action  *[methods]string
	ids     [maxIDs]string
	count   int
	secret  string
	odd     bool // something else in the path may be a secret

	p string // the path
	s string // what is left of it
}

// begin forgets the last path, but for the ids, which count tells of: they need not be cleared.
func (m *match) begin(t *Table) {
	m.t, m.told, m.action = t, nil, nil
	m.route, m.kind, m.id, m.version, m.project, m.secret = "", "", "", "", "", ""
	m.count, m.odd = 0, false
}

// next takes a segment. last says that no other follows. ok is false at the end.
func (m *match) next() (seg string, last, ok bool) {
	s := m.s
	for len(s) > 1 && s[1] == '/' {
		s = s[1:]
	}
	if len(s) < 2 {
		return "", true, false
	}
	s = s[1:]
	j := strings.IndexByte(s, '/')
	if j < 0 {
		m.s = ""
		return s, true, true
	}
	m.s = s[j:]
	return s[:j], len(m.s) == 1 || m.s[1] == '/' && strings.Trim(m.s, "/") == "", true
}

// path tells what a path is.
func (m *match) path(p string, r *Router) {
	t := m.t
	if p[0] != '/' {
		if p == "*" {
			m.route = routeStar
			return
		}
		scheme, rest, ok := strings.Cut(p, "://")
		i := strings.IndexByte(rest, '/')
		if !ok || i < 0 || strings.IndexByte(scheme, '/') >= 0 {
			m.route, m.odd = Other, true
			return
		}
		p = rest[i:]
	}
	m.p, m.s = p, p
	seg, last, ok := m.next()
	if !ok {
		m.route = routeRoot
		return
	}
	which, named, mounted := r.which, r.named, false
	m.version = versionOf(seg)
	if m.version == "" {
		if v := set(t.index.get(roomMount, seg)); v != 0 && (!named || set(t.index.get(roomRoot, seg))&which == 0) {
			which, named, mounted = v, true, true
			if seg, last, ok = m.next(); !ok {
				m.tell(which)
				m.route = routeRoot
				return
			}
			m.version = versionOf(seg)
		}
	}
	if m.version != "" {
		if seg, last, ok = m.next(); !ok {
			m.route = routeVersion
			if mounted {
				m.tell(which)
			}
			return
		}
	}
	if s := r.first; s != nil && !mounted {
		// What most records are: the service is known, and so is the segment.
		if at := int32(t.index.get(uint32(s.root), trimSuffix(seg, last))); at != 0 {
			m.told = s
			m.from(s, at, last, false)
			return
		}
		if s.project != noProject && !last && m.version != "" && isID(seg) {
			before := m.s
			second, end, _ := m.next()
			if at := int32(t.index.get(uint32(s.root), trimSuffix(second, end))); at != 0 {
				m.told, m.project = s, seg
				m.keep(seg)
				m.from(s, at, end, true)
				return
			}
			m.s = before
		}
	}
	m.find(which, named, mounted, r.kind, seg, last, m.s)
}

// find chooses the service by the first segment behind mount and version, or by the one behind a project, and goes on from there.
func (m *match) find(which set, named, mounted bool, kind, seg string, last bool, before string) {
	t := m.t
	switch {
	case named:
	case m.version == "":
		which &= t.free | set(t.index.get(roomBare, seg))
	default:
		which &= t.free | set(t.index.get(roomVersion, versionWord(m.version)))
	}
	if which&t.account != 0 && (strings.HasPrefix(seg, "AUTH_") || named && !mounted && which&t.account == which && m.version != "") {
		m.tell(which & t.account)
		m.accountPath(&t.services[lowest(which&t.account)], seg, last)
		return
	}
	roots := set(t.index.get(roomRoot, trimSuffix(seg, last)))
	if !named && roots != 0 && m.version != "" {
		roots &^= set(t.index.get(roomNeeds, m.version))
	}
	if c := which & roots; c != 0 {
		m.tell(c)
		m.walk(&t.services[m.prefer(c, kind)], seg, last, false)
		return
	}
	if mounted && which&t.account != 0 { // a store that does not name accounts
		m.walk(&t.services[lowest(which&t.account)], seg, last, false)
		m.tell(which)
		return
	}
	if m.version != "" {
		if second, end, ok := m.next(); ok {
			roots = set(t.index.get(roomRoot, trimSuffix(second, end)))
			if c := t.withProjects(which&roots, seg); c != 0 {
				m.tell(c)
				m.keepProject(seg)
				m.walk(&t.services[m.prefer(c, kind)], second, end, true)
				return
			}
			m.s = before
		} else if named && isID(seg) {
			if c := t.withProjects(which, seg); c != 0 {
				m.tell(which)
				m.keepProject(seg)
				m.route, m.kind, m.id = routeProject, "project", seg
				return
			}
		}
	}
	// What any service may have.
	if c := set(t.index.get(roomRoot, seg)) & t.nameless; c != 0 && m.version == "" {
		m.walk(&t.services[lowest(c)], seg, last, false)
		return
	}
	m.route, m.odd = Other, true
	if mounted {
		m.tell(which)
	}
}

// withProjects keeps the services that can have this project behind their version.
func (t *Table) withProjects(c set, project string) set {
	var out set
	for ; c != 0; c &= c - 1 {
		n := lowest(c)
		if p := t.services[n].project; p == anyProject || p == idProject && isID(project) {
			out |= 1 << n
		}
	}
	return out
}

// tell notes the service if the set holds just one of a name.
func (m *match) tell(c set) {
	s := &m.t.services[lowest(c)]
	for c &= c - 1; c != 0; c &= c - 1 {
		if m.t.services[lowest(c)].name != s.name {
			return
		}
	}
	m.told = s
}

// prefer takes the entry of that kind, else the first one.
func (m *match) prefer(c set, kind string) int {
	n := lowest(c)
	if c&(c-1) != 0 && kind != "" {
		for ; c != 0; c &= c - 1 {
			if i := lowest(c); m.t.services[i].kind == kind {
				n = i
				break
			}
		}
	}
	if m.told != nil {
		m.told = &m.t.services[n]
	}
	return n
}

func (m *match) keepProject(seg string) {
	if isID(seg) {
		m.project = seg
	} else {
		m.odd = true
	}
	m.keep(seg)
}

func (m *match) keep(id string) {
	if m.count < maxIDs {
		m.ids[m.count] = id
		m.count++
	}
}

// accountPath takes /ACCOUNT[/CONTAINER[/OBJECT]]. The account is no project of the caller's: public containers and signed addresses
// are for others, and for nobody.
func (m *match) accountPath(s *service, seg string, last bool) {
	m.keep(seg)
	if last {
		m.route, m.kind, m.id, m.action = routeAccount, "account", seg, &m.t.nodes[s.root].actions
		return
	}
	m.odd = true
	second, end, _ := m.next()
	m.walk(s, second, end, true)
}

// walk goes down the tree from a service's root with seg, and what is left behind it.
func (m *match) walk(s *service, seg string, last, behindProject bool) {
	at := m.down(s, s.root, seg, &last)
	if at == 0 {
		m.stop(s.root, behindProject)
		return
	}
	m.from(s, at, last, behindProject)
}

// from goes down the tree from a place that was reached, with what is left of the path.
func (m *match) from(s *service, at int32, last, behindProject bool) {
	for !last {
		var seg string
		seg, last, _ = m.next()
		next := m.down(s, at, seg, &last)
		if next == 0 {
			m.stop(at, behindProject)
			return
		}
		at = next
	}
	x := &m.t.nodes[at]
	m.route = x.route
	if behindProject {
		m.route = x.withProject
	}
	if m.kind == "" {
		m.kind = x.kind
	}
	m.action = &x.actions
}

// stop ends at a place below which nothing is known of what is left.
func (m *match) stop(at int32, behindProject bool) {
	x := &m.t.nodes[at]
	m.odd = true
	m.route = x.rest
	if behindProject {
		m.route = x.restWithProject
	}
	if m.kind == "" {
		m.kind = x.kind
	}
}

// down returns the place below one for a segment; 0: there is none.
func (m *match) down(s *service, at int32, seg string, last *bool) int32 {
	t := m.t
	x := &t.nodes[at]
	uuid := isUUID(seg) // which no literal is
	if !uuid && len(x.literals) > 0 {
		if next := t.index.get(uint32(at), trimSuffix(seg, *last)); next != 0 {
			return int32(next)
		}
	}
	if x.version != 0 {
		if v := versionOf(seg); v != "" {
			m.version = v
			return x.version
		}
	}
	if x.id == 0 {
		return 0
	}
	y := &t.nodes[x.id]
	switch {
	case y.tail:
		seg, *last, uuid = m.p[len(m.p)-len(m.s)-len(seg):], true, false
	case *last && s.project != accountProject:
		seg = trimSuffix(seg, true)
	}
	m.kind, m.id = y.idType, ""
	if y.secret {
		m.secret = seg
		return x.id
	}
	m.keep(seg)
	m.id = seg
	m.odd = m.odd || !uuid && !harmless(seg)
	return x.id
}
