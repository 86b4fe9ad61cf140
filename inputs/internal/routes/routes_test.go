package routes

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/conf"

	"github.com/stacktrail/stacktrail/plugins/event"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

func table(t testing.TB, more ...Service) *Table {
	t.Helper()
	tb, err := Compile(more)
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

// fill runs one path through the table.
func fill(tb *Table, method, path, service, kind string) *event.Event {
	b := event.NewBatch("s")
	e := b.Append()
	e.Method, e.Path, e.Service, e.Kind = method, path, service, kind
	e.SetStatus(200)
	tb.NewRouter().Fill(e, b.Arena())
	return e
}

func ids(e *event.Event) []string {
	v, _ := e.Get("resource_ids")
	return v.List()
}

func describe(e *event.Event) string {
	var b strings.Builder
	for _, f := range []struct{ name, value string }{
		{"route", e.Route},
		{"type", e.ResourceType},
		{"id", e.ResourceID},
		{"ids", strings.Join(ids(e), ",")},
		{"version", e.APIVersion},
		{"action", e.Action},
		{"service", e.Service},
		{"kind", e.Kind},
		{"project", e.ProjectID},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, "  %s=%s", f.name, f.value)
		}
	}
	return b.String()
}

func TestPathsComeToWhatIsWrittenDown(t *testing.T) {
	t.Parallel()
	tb := table(t)
	name := filepath.Join("testdata", "paths.txt")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	n := 0
	for i, l := range lines {
		if strings.HasPrefix(l, "  ") {
			continue
		}
		fmt.Fprintln(&out, l)
		if l == "" || l[0] == '#' {
			continue
		}
		w := strings.Fields(l)
		service, kind := "", ""
		if len(w) > 2 {
			service, kind, _ = strings.Cut(w[2], ":")
		}
		got := describe(fill(tb, w[0], w[1], service, kind))
		fmt.Fprintln(&out, got)
		n++
		if !*update && (i+1 == len(lines) || lines[i+1] != got) {
			t.Errorf("%s\n got %s\nwant %s", l, got, lines[min(i+1, len(lines)-1)])
		}
	}
	if n < 100 {
		t.Errorf("only %d paths", n)
	}
	if *update {
		if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// realPaths are the requests that a client really sent to real services.
func realPaths(t testing.TB) (all []struct{ Method, URL, Folder string }) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "test", "testdata", "real-logs", "requests.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for l := range bytes.Lines(text) {
		var r struct{ Method, URL, Folder string }
		if err := json.Unmarshal(l, &r); err != nil {
			t.Fatal(err)
		}
		r.URL, _, _ = strings.Cut(r.URL, "?")
		if r.URL != "" {
			all = append(all, r)
		}
	}
	return all
}

func serviceOf(folder string) string {
	name, _, _ := strings.Cut(folder, "-")
	if name == "haproxy" {
		return ""
	}
	return name
}

func TestRealPathsComeToWhatIsWrittenDown(t *testing.T) {
	t.Parallel()
	tb := table(t)
	seen := map[string]bool{}
	for _, r := range realPaths(t) {
		e := fill(tb, r.Method, r.URL, serviceOf(r.Folder), "")
		checkRoute(t, tb, e)
		seen[strings.TrimRight(fmt.Sprintf("%s %s %s %s %s", r.Method, e.Route, e.Service, e.ResourceType, e.Action), " ")] = true
	}
	got := strings.Join(slices.Sorted(maps.Keys(seen)), "\n") + "\n"
	name := filepath.Join("testdata", "real.txt")
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("routes of real requests changed:\n%s", got)
	}
}

// checkRoute holds what must be true of any path whatsoever.
func checkRoute(t testing.TB, tb *Table, e *event.Event) {
	t.Helper()
	if (e.Route == "") != (e.Path == "") {
		t.Fatalf("%q: route %q", e.Path, e.Route)
	}
	if e.Route != "" && !tb.has(e.Route) {
		t.Fatalf("%q: the route %q is none of the table", e.Path, e.Route)
	}
	for _, id := range append(ids(e), e.ResourceID, e.APIVersion, e.ProjectID) {
		if !strings.Contains(e.Path, id) {
			t.Fatalf("%q: %q does not stand in the path", e.Path, id)
		}
	}
	if e.ResourceID != "" && !slices.Contains(ids(e), e.ResourceID) {
		t.Fatalf("%q: resource_id %q is not among %q", e.Path, e.ResourceID, ids(e))
	}
	if e.ResourceID != "" && e.ResourceType == "" {
		t.Fatalf("%q: an id of nothing", e.Path)
	}
}

// has reports whether a route is among those that the table can give.
func (t *Table) has(route string) bool {
	switch route {
	case Other, routeRoot, routeStar, routeVersion, routeProject, routeAccount:
		return true
	}
	for i := range t.nodes {
		if n := &t.nodes[i]; route == n.route || route == n.rest || route == n.withProject || route == n.restWithProject {
			return true
		}
	}
	return false
}

// TestTableDoesNotContradictItself looks at the services that the program brings with eyes other than the compiler's.
func TestTableDoesNotContradictItself(t *testing.T) {
	t.Parallel()
	list, err := services()
	if err != nil {
		t.Fatal(err)
	}
	tb := table(t)
	if n := len(tb.nodes); n < 500 || n > maxRoutes {
		t.Errorf("%d places", n)
	}
	kinds, mounts := map[string]string{}, map[string]string{}
	for _, s := range list {
		if other, taken := kinds[s.Kind]; taken && s.Kind != "" {
			t.Errorf("%s and %s are both %s", other, s.Service, s.Kind)
		}
		kinds[s.Kind] = s.Service
		for _, m := range s.Mounts {
			if other, taken := mounts[m]; taken {
				t.Errorf("%s is where %s and %s are mounted", m, other, s.Service)
			}
			mounts[m] = s.Service
		}
	}
	for i := range tb.nodes {
		n := &tb.nodes[i]
		if strings.ContainsAny(n.route, " %?") || isID(n.seg) {
			t.Errorf("route %q", n.route)
		}
		for k, a := range n.actions {
			if a == "" && n.route != "" {
				t.Errorf("%s %s has no action", methodNames()[k], n.route)
			}
		}
	}
	// Each path that is written is found again, told by the service's name alone.
	for i := range tb.services {
		s := &tb.services[i]
		var walk func(at int32, path string)
		walk = func(at int32, path string) {
			n := &tb.nodes[at]
			switch {
			case n.seg != "":
				path += "/" + n.seg
			case n.idType != "":
				path += "/" + "0123456789abcdef0123456789abcdef"
			case at != s.root:
				path += "/latest"
			}
			version := ""
			if len(s.versions) > 0 && s.versions[0] != wordDate {
				version = "/" + s.versions[0]
			}
			if s.project == accountProject {
				version += "/AUTH_x"
			}
			if n.route == "/info" {
				version = "" // of the store itself
			}
			if at != s.root {
				e := fill(tb, "GET", version+path, s.name, s.kind)
				if want := []string{n.route, n.withProject}; !slices.Contains(want, e.Route) {
					t.Errorf("%s of %s: route %q, want %q", version+path, s.name, e.Route, want)
				}
			}
			for _, k := range n.literals {
				walk(k, path)
			}
			for _, k := range []int32{n.id, n.version} {
				if k != 0 {
					walk(k, path)
				}
			}
		}
		walk(s.root, "")
	}
}

func TestServicesOfOnesOwn(t *testing.T) {
	t.Parallel()
	tb := table(t,
		Service{
			Service: "billing", Kind: "billing-api", Mounts: []string{"billing"}, Versions: []string{"v7"}, Project: "any",
			Paths: []string{"/invoices[/{invoice}[/pdf|/pay]]", "/rates=rate"}, Actions: map[string]string{"pay/post": "update/pay"}, Keywords: []string{"pdf"},
		},
		Service{Service: "nova", Kind: "compute-api", Paths: []string{"/servers/{server}/os-of-ours[/{thing}]"}},
	)
	for in, want := range map[string]string{
		"POST /v7/17/invoices/9/pay":           "  route=/{project_id}/invoices/{id}/pay  type=invoice  id=9  ids=17,9  version=v7  action=update/pay  service=billing  kind=billing-api",
		"GET /billing/v7/rates":                "  route=/rates  type=rate  version=v7  action=read/list  service=billing  kind=billing-api",
		"GET /v2.1/servers/1/os-of-ours/2":     "  route=/servers/{id}/os-of-ours/{id}  type=thing  id=2  ids=1,2  version=v2.1  action=read  service=nova  kind=compute-api",
		"GET /v2.1/servers/1/os-of-others/2/3": "  route=/servers/{id}/*  type=server  id=1  ids=1  version=v2.1  action=read  service=nova  kind=compute-api",
	} {
		method, path, _ := strings.Cut(in, " ")
		if got := describe(fill(tb, method, path, "", "")); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	if e := fill(table(t), "GET", "/v2.1/servers/1/os-of-ours/2", "", ""); e.Route != "/servers/{id}/*" {
		t.Errorf("the table of everybody was changed: %s", e.Route)
	}
}

func TestFaultsOfServicesSayWhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s    Service
		want string
	}{
		"no name":            {Service{Paths: []string{"/x"}}, "[0].service: a service needs a name"},
		"nothing":            {Service{Service: "billing"}, "[0].paths: no path and no mount"},
		"nearly a name":      {Service{Service: "novaa", Paths: []string{"/x"}}, `[0].service: "novaa" is nearly the known service "nova" (did you mean "nova"?)`},
		"a taken mount":      {Service{Service: "billing", Mounts: []string{"ok", "compute"}, Paths: []string{"/x"}}, `[0].mounts[1]: "compute" is where nova is mounted`},
		"no version":         {Service{Service: "billing", Versions: []string{"two"}, Paths: []string{"/x"}}, `[0].versions[0]: "two" is not a version`},
		"no such version":    {Service{Service: "billing", Versions: []string{"v2"}, NeedsProject: []string{"v3"}, Paths: []string{"/x"}}, `[0].needs_project[0]: "v3" is not among the versions`},
		"no slash":           {Service{Service: "billing", Paths: []string{"/x", "invoices"}}, `[0].paths[1]: at column 1 of "invoices": a path begins with /`},
		"an open bracket":    {Service{Service: "billing", Paths: []string{"/x[/y"}}, `at column 6 of "/x[/y": ] is missing`},
		"a closing bracket":  {Service{Service: "billing", Paths: []string{"/x]"}}, "']' without its bracket"},
		"behind a bracket":   {Service{Service: "billing", Paths: []string{"/x[/y]/z"}}, "ends its part"},
		"an open brace":      {Service{Service: "billing", Paths: []string{"/x/{y"}}, "} is missing"},
		"an id":              {Service{Service: "billing", Paths: []string{"/x/17"}}, "looks like an id"},
		"another id there":   {Service{Service: "nova", Kind: "compute-api", Paths: []string{"/servers/{instance}/x"}}, "{instance} stands where {server} stands in another path"},
		"another type there": {Service{Service: "nova", Kind: "compute-api", Paths: []string{"/os-migrations=move"}}, "is of type migration already"},
		"there already":      {Service{Service: "nova", Kind: "compute-api", Paths: []string{"/servers/{server}/action"}}, "is there already"},
		"behind all":         {Service{Service: "billing", Paths: []string{"/x/{y...}/z"}}, "nothing stands behind all that is left"},
		"an unknown segment": {Service{Service: "billing", Paths: []string{"/invoices"}, Actions: map[string]string{"invoice/get": "read"}}, `[0].actions.invoice/get: no path has a segment "invoice" (did you mean "invoices"?)`},
		"no method":          {Service{Service: "billing", Paths: []string{"/x"}, Actions: map[string]string{"x/fetch": "read"}}, `"fetch" is not a method`},
		"no action":          {Service{Service: "billing", Paths: []string{"/x"}, Actions: map[string]string{"x": "Do It"}}, `"Do It" is not an action`},
		"too deep":           {Service{Service: "billing", Paths: []string{strings.Repeat("/x", 20)}}, "12 segments at most"},
	} {
		_, err := Compile([]Service{c.s})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
			continue
		}
		if _, ok := errors.AsType[conf.KeyError](err); !ok {
			t.Errorf("%s: %v names no key", name, err)
		}
	}
	many := Service{Service: "billing"}
	for i := range maxRoutes {
		many.Paths = append(many.Paths, fmt.Sprintf("/x%d", i))
	}
	if _, err := Compile([]Service{many}); err == nil || !strings.Contains(err.Error(), "more than 4096 paths") {
		t.Errorf("a table without bound: %.200v", err)
	}
}

func TestTheLineIsNotOverruled(t *testing.T) {
	t.Parallel()
	tb := table(t)
	const own, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	for _, c := range []struct {
		has    string
		status int32
		want   string
	}{{own, 200, own}, {"", 200, other}, {"", 404, other}, {"", 401, ""}, {"", 400, ""}, {"", 500, ""}, {"", 0, ""}} {
		b := event.NewBatch("s")
		e := b.Append()
		e.Method, e.Path, e.Service, e.Kind, e.ProjectID = "GET", "/v3/"+other+"/volumes", "cinder", "my-kind", c.has
		if c.status != 0 {
			e.SetStatus(c.status)
		}
		tb.NewRouter().Fill(e, b.Arena())
		if e.ProjectID != c.want || e.Kind != "my-kind" || e.Service != "cinder" {
			t.Errorf("%+v: project %q, kind %q, service %q", c, e.ProjectID, e.Kind, e.Service)
		}
	}
}

var shapes = map[string]struct{ method, path, service, kind string }{
	"nova":       {"POST", "/v2.1/servers/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9/action", "nova", "compute-api"},
	"nova-list":  {"GET", "/v2.1/servers/detail", "nova", "compute-api"},
	"mounted":    {"GET", "/compute/v2.1/servers/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9", "", "unknown"},
	"cinder":     {"GET", "/v3/0123456789abcdef0123456789abcdef/volumes/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9", "cinder", "volume-api"},
	"untold":     {"GET", "/v3/0123456789abcdef0123456789abcdef/volumes/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9", "", "unknown"},
	"placement":  {"PUT", "/resource_providers/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9/traits", "placement", "placement-api"},
	"three-ids":  {"PUT", "/v3/projects/0123456789abcdef0123456789abcdef/users/1123456789abcdef0123456789abcdef/roles/2123456789abcdef0123456789abcdef", "keystone", "identity-api"},
	"swift":      {"GET", "/v1/AUTH_0123456789abcdef0123456789abcdef/c1/a/b/c.txt", "swift", "object-store"},
	"identity":   {"POST", "/v3/auth/tokens", "keystone", "identity-api"},
	"stranger":   {"GET", "/cgi-bin/luci/;stok=/locale", "", "unknown"},
	"version":    {"GET", "/v2.1/", "nova", "compute-api"},
	"keypair":    {"DELETE", "/v2.1/os-keypairs/my-key", "nova", "compute-api"},
	"healthz":    {"GET", "/healthcheck", "glance", "image-api"},
	"port.json":  {"GET", "//v2.0/ports/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9.json", "neutron", "network-api"},
	"too-many":   {"GET", "/v1/0123456789abcdef0123456789abcdef/stacks/a/b/resources/c/events/d", "heat", "orchestration-api"},
	"no-service": {"GET", "http://192.0.2.7/v2/images/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9/file", "", ""},
}

func TestNoAllocationPerPath(t *testing.T) {
	tb := table(t)
	b := event.NewBatch("alloc")
	e := b.Append()
	b.Arena().Strings(1 << 16)
	r := tb.NewRouter()
	for name, c := range shapes {
		if n := testing.AllocsPerRun(200, func() {
			e.Reset()
			e.Method, e.Path, e.Service, e.Kind = c.method, c.path, c.service, c.kind
			r.Fill(e, b.Arena())
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, c := range shapes {
		f.Add(c.method, c.path, c.service, c.kind)
	}
	for _, r := range realPaths(f) {
		f.Add(r.Method, r.URL, serviceOf(r.Folder), "")
	}
	tb := table(f)
	f.Fuzz(func(t *testing.T, method, path, service, kind string) {
		e := fill(tb, method, path, service, kind)
		checkRoute(t, tb, e)
		if service != "" && e.Service != service {
			t.Fatalf("%q: service %q became %q", path, service, e.Service)
		}
		if again := fill(tb, method, path, service, kind); describe(again) != describe(e) {
			t.Fatalf("%q: %s, then %s", path, describe(e), describe(again))
		}
	})
}

func BenchmarkFill(b *testing.B) {
	tb := table(b)
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		c := shapes[name]
		b.Run(name, func(b *testing.B) {
			pool := event.NewPool(1 << 20)
			batch, err := pool.Get(b.Context(), 1<<18)
			if err != nil {
				b.Fatal(err)
			}
			e := batch.Append()
			r := tb.NewRouter()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; n == event.MaxBatchRecords {
					batch.Release()
					if batch, err = pool.Get(b.Context(), 1<<18); err != nil {
						b.Fatal(err)
					}
					e = batch.Append()
					n = 0
				}
				e.Extra, e.ProjectID, e.ResourceID = e.Extra[:0], "", ""
				e.Method, e.Path, e.Service, e.Kind = c.method, c.path, c.service, c.kind
				r.Fill(e, batch.Arena())
			}
		})
	}
}

func TestHexDigitsEightAtATime(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for i := range 11 {
			b := []byte("0a9f5e1b2c0")
			b[i] = byte(c)
			want := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
			if isHex(string(b)) != want {
				t.Fatalf("byte %#x at %d: want %v", c, i, want)
			}
		}
	}
}

func FuzzServices(f *testing.F) {
	list, err := services()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range list {
		for _, p := range s.Paths {
			f.Add(s.Service, p, "/v1"+strings.NewReplacer("[", "", "]", "", "{", "", "}", "").Replace(p))
		}
	}
	f.Fuzz(func(t *testing.T, service, template, path string) {
		c := newCompiler()
		if errs := c.add(&Service{Service: service, Project: "any", Versions: []string{"v1"}, Paths: []string{template}}); len(errs) > 0 {
			return
		}
		tb, err := c.finish()
		if err != nil {
			t.Fatal(err)
		}
		checkRoute(t, tb, fill(tb, "GET", path, service, ""))
	})
}

// TestWhatTheLineToldStays has audit records and formats of the user's own say what they do.
func TestWhatTheLineToldStays(t *testing.T) {
	t.Parallel()
	table, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := event.Event{Service: "cinder", Method: "GET", Path: "/v3/volumes", Action: "own action", Route: "own route"}
	table.NewRouter().Fill(&e, event.NewBatch("s").Arena())
	if e.Action != "own action" || e.Route != "own route" || e.ResourceType != "volume" {
		t.Errorf("action %q, route %q, type %q", e.Action, e.Route, e.ResourceType)
	}
}
