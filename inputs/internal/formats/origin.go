package formats

import (
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// origin is what a name tells about who wrote a line.
type origin struct {
	service string // nova, cinder, …
	kind    string // compute-api, …
	program string // nova-api, haproxy, …
}

const kindUnknown = "unknown"

// Kinds of metadata lines, which nova's own servers write beside its API's.
const (
	kindCompute  = "compute-api"
	kindMetadata = "metadata-api"
)

// byProject returns the origin for the name of an OpenStack project, with the usual name of its API's process.
func byProject(name string) (o origin, ok bool) {
	switch name {
	case "nova":
		return origin{"nova", kindCompute, "nova-api"}, true
	case "placement":
		return origin{"placement", "placement-api", "placement-api"}, true
	case "cinder":
		return origin{"cinder", "volume-api", "cinder-api"}, true
	case "neutron":
		return origin{"neutron", "network-api", "neutron-server"}, true
	case "glance":
		return origin{"glance", "image-api", "glance-api"}, true
	case "keystone":
		return origin{"keystone", "identity-api", "keystone"}, true
	case "swift":
		return origin{"swift", "object-store", "swift-proxy"}, true
	case "heat":
		return origin{"heat", "orchestration-api", "heat-api"}, true
	case "ironic":
		return origin{"ironic", "baremetal-api", "ironic-api"}, true
	case "octavia":
		return origin{"octavia", "load-balancer-api", "octavia-api"}, true
	case "barbican":
		return origin{"barbican", "key-manager-api", "barbican-api"}, true
	case "designate":
		return origin{"designate", "dns-api", "designate-api"}, true
	case "manila":
		return origin{"manila", "share-api", "manila-api"}, true
	case "horizon", "openstack_dashboard":
		return origin{"horizon", "dashboard", "horizon"}, true
	}
	for _, other := range [...]string{"masakari", "trove", "magnum", "tacker", "zun", "aodh", "gnocchi", "cyborg", "mistral", "senlin", "blazar", "freezer", "watcher"} {
		if name == other {
			return origin{other, kindUnknown, ""}, true // name is a view of a line, and an origin outlives it
		}
	}
	return origin{}, false
}

// originOf reads a name such as nova-api, nova_api_external_front~, openstack-cinder-api, devstack@n-api: a project's name, and
// what is no part of it behind. The program stays open.
func originOf(name string) origin {
	name = strings.TrimPrefix(name, "openstack-")
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '@' || name[i] == ':' { // devstack's unit, or apache2:VHOST
			name = name[i+1:]
			break
		}
	}
	end := 0
	for end < len(name) && (name[end] >= 'a' && name[end] <= 'z') {
		end++
	}
	o, ok := byProject(name[:end])
	if !ok {
		switch { // devstack's units
		case strings.HasPrefix(name, "n-api"):
			o, ok = byProject("nova")
		case strings.HasPrefix(name, "c-api"):
			o, ok = byProject("cinder")
		case strings.HasPrefix(name, "g-api"):
			o, ok = byProject("glance")
		case strings.HasPrefix(name, "q-svc"), strings.HasPrefix(name, "neutron"):
			o, ok = byProject("neutron")
		case isSwiftServer(name):
			o, ok = byProject("swift")
		}
		if !ok {
			return origin{}
		}
	}
	rest := name[end:]
	switch {
	case o.service == "nova" && strings.Contains(rest, "placement"):
		o, _ = byProject("placement")
	case o.service == "nova" && strings.Contains(rest, "meta"):
		o.kind = kindMetadata
	}
	o.program = ""
	return o
}

// isSwiftServer knows the names of swift's processes, which do not begin with its own.
func isSwiftServer(name string) bool {
	switch name {
	case "proxy-server", "account-server", "container-server", "object-server", "radosgw", "rgw":
		return true
	}
	return false
}

// originOfFile reads a log file's name: the program is the part before .log, without the words that servers add to it.
func originOfFile(path string) origin {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if i := strings.Index(name, ".log"); i >= 0 {
		name = name[:i]
	} else if name != "" {
		return originOf(name)
	}
	o := originOf(name)
	o.program = programOfFile(name)
	return o
}

// programOfFile takes the words off a file's name that say what kind of log it is.
func programOfFile(name string) string {
	for {
		i := strings.LastIndexAny(name, "-_")
		if i <= 0 {
			return name
		}
		switch name[i+1:] {
		case "access", "error", "uwsgi", "wsgi", "ssl", "public", "main", "admin", "internal", "kolla", "reqid", "combined":
			name = name[:i]
		default:
			return name
		}
	}
}

// loggerMemory remembers the last oslo logger: lines of one kind share it.
type loggerMemory struct {
	text  [64]byte
	n     int
	sum   uint64 // of the whole name
	which loggerKind
	from  origin
}

// loggerKind is what a logger writes.
type loggerKind uint8

const (
	anyLogger loggerKind = iota
	wsgiLogger
	novaRequestLogger
	placementRequestLogger
	notificationLogger
	startDoneLogger
	ironicLogger
)

// lookLogger says what a logger writes, and for whom.
func (p *Parser) lookLogger(name string) *loggerMemory {
	m := &p.logger
	if len(name) == m.n && name == string(m.text[:m.n]) {
		return m
	}
	m.sum = xxh3.HashString(name)
	m.which, m.from = anyLogger, origin{}
	root, _, _ := cutAt(name, '.')
	if o, ok := byProject(root); ok {
		m.from = o
		if o.service == "nova" {
			switch {
			case strings.HasPrefix(name, "nova.metadata"):
				m.from.kind = kindMetadata
			case strings.Contains(name, ".placement."):
				m.from, _ = byProject("placement")
			}
		}
	}
	switch {
	case strings.HasSuffix(name, "placement.requestlog"):
		m.which = placementRequestLogger
	case strings.HasSuffix(name, ".requestlog"):
		m.which = novaRequestLogger
	case strings.HasSuffix(name, ".wsgi.server"), name == "neutron.wsgi", name == "eventlet.wsgi":
		m.which = wsgiLogger
	case strings.HasSuffix(name, ".wsgi"), strings.HasSuffix(name, ".middleware.fault"):
		m.which = startDoneLogger
	case strings.HasPrefix(name, "oslo.messaging.notification."):
		m.which = notificationLogger
	case name == "ironic.api":
		m.which = ironicLogger
	}
	m.n = copy(m.text[:], name)
	if m.n < len(name) {
		m.n = -1
	}
	return m
}

// fillOrigin sets service, kind and program: the logger decides, then the syslog tag, then the file, then what the line itself
// tells (a frontend, a path). A name that says only the project takes its program from a later one of the same project.
func (p *Parser) fillOrigin(e *event.Event, first, last *origin) {
	tag := &p.env.from
	file := &p.file
	if p.env.named {
		file = &p.env.file
	}
	s := first
	if s.service == "" {
		s = tag
	}
	if s.service == "" {
		s = file
	}
	if s.service == "" {
		s = last
	}
	if e.Service, e.Kind = s.service, s.kind; e.Kind == "" {
		e.Kind = kindUnknown
	}
	switch {
	case tag.program != "":
		e.Program = tag.program
	case file.program != "" && (first.service == "" || file.service == first.service):
		e.Program = file.program
	default:
		e.Program = first.program
	}
}

// fillByPath is fillOrigin for formats that name no service themselves.
func (p *Parser) fillByPath(e *event.Event) {
	if p.env.from.service == "" && p.file.service == "" {
		p.fillOrigin(e, &nobody, p.paths.look(e.Path))
		return
	}
	p.fillOrigin(e, &nobody, &nobody)
}

// nobody tells nothing.
var nobody origin

// pathMemory remembers the first two segments of the last path, by which the service is told: most requests to a file's service share
// them with one before.
type pathMemory struct {
	text [48]byte
	n    int // how long they are; 0: nothing is remembered
	from origin
}

// look returns what a path tells.
func (m *pathMemory) look(path string) *origin {
	if n := m.n; n > 0 && n <= len(path) && path[:n] == string(m.text[:n]) && (n == len(path) || path[n] == '/') {
		return &m.from
	}
	m.from, m.n = originOfPath(path), 0
	if i := len(firstSegment(path[min(1, len(path)):])) + 2; i < len(path) && path[1] != '/' {
		if n := i + len(firstSegment(path[i:])); n > i && n <= len(m.text) {
			m.n = copy(m.text[:], path[:n])
		}
	}
	return &m.from
}

// originOfPath tells the service from a request's path, for lines that nothing else tells of. Mounted prefixes are certain;
// else only collections that one service alone has.
func originOfPath(path string) origin {
	for len(path) > 1 && path[1] == '/' {
		path = path[1:]
	}
	if len(path) < 2 || path[0] != '/' {
		return origin{}
	}
	head, rest := path[1:], ""
	if i := strings.IndexByte(head, '/'); i >= 0 {
		head, rest = head[:i], head[i+1:]
	}
	name := ""
	switch head {
	case "compute":
		name = "nova"
	case "placement", "resource_providers", "allocation_candidates", "allocations", "traits", "resource_classes":
		name = "placement"
	case "volume":
		name = "cinder"
	case "networking":
		name = "neutron"
	case "identity":
		name = "keystone"
	case "image":
		name = "glance"
	case "baremetal":
		name = "ironic"
	case "load-balancer":
		name = "octavia"
	case "heat-api":
		name = "heat"
	case "share":
		name = "manila"
	case "dashboard":
		name = "horizon"
	case "latest", "openstack":
		o, _ := byProject("nova")
		o.kind, o.program = kindMetadata, ""
		return o
	case "v1":
		if strings.HasPrefix(rest, "AUTH_") {
			name = "swift"
		}
	case "v2":
		switch firstSegment(rest) {
		case "images", "schemas", "tasks":
			name = "glance"
		}
	case "v2.0":
		switch firstSegment(rest) {
		case "networks", "ports", "subnets", "routers", "floatingips", "security-groups", "security-group-rules", "agents", "subnetpools", "trunks":
			name = "neutron"
		}
	case "v2.1":
		switch firstSegment(rest) {
		case "servers", "flavors", "os-keypairs", "os-hypervisors", "os-aggregates", "os-services", "os-server-external-events", "os-simple-tenant-usage":
			name = "nova"
		}
	case "v3":
		switch firstSegment(rest) {
		case "auth", "users", "projects", "domains", "roles", "endpoints", "credentials", "OS-TRUST", "OS-FEDERATION", "role_assignments":
			name = "keystone"
		case "volumes", "snapshots", "attachments":
			name = "cinder"
		}
	default:
		o := originOf(head)
		return o
	}
	o, _ := byProject(name)
	o.program = ""
	return o
}

func firstSegment(s string) string {
	s, _, _ = cutAt(s, '/')
	return s
}
