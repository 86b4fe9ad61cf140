package plugins_test

import (
	"flag"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// update writes api.txt anew: go test ./plugins -run TestAPI -update, which make generate does too.
var update = flag.Bool("update", false, "write api.txt instead of comparing it")

const (
	apiFile   = "api.txt"
	apiModule = "github.com/stacktrail/stacktrail/"
	apiHead   = `# The API that plugins and custom builds are written against: every exported name of the public packages, one to a line.
# A test compares it with the code. The comment of package plugins says what may change within v1, and what may not.
`
)

// watch looks at all source of the repository, so that no result is remembered from before a change that only the go command sees.
func watch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || strings.HasSuffix(p, ".go")) {
			_, err = os.Stat(p)
		}
		if err == nil && d.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publicPackages lists the packages that others may import, with the files that hold their types as the compiler exported them.
func publicPackages(t *testing.T) map[string]string {
	t.Helper()
	watch(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-f", `{{if ne .Name "main"}}{{.ImportPath}} {{.Export}}{{end}}`, "../plugins/...", "../agent")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v", err)
	}
	public := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !slices.Contains(strings.Split(name, "/"), "internal") && !strings.Contains(name, "/examples/") {
			public[name] = file
		}
	}
	return public
}

// listing lists the API of packages.
func listing(t *testing.T, public map[string]string) []string {
	t.Helper()
	open := func(name string) (io.ReadCloser, error) { return os.Open(public[name]) }
	imp := importer.ForCompiler(token.NewFileSet(), "gc", open)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(public)) {
		pkg, err := imp.Import(name)
		if err != nil {
			t.Fatalf("reading the types of %s: %v", name, err)
		}
		short := strings.TrimPrefix(name, apiModule)
		for _, line := range apiOf(pkg) {
			all = append(all, short+": "+line)
		}
	}
	return all
}

// apiOf lists what a package exports.
func apiOf(pkg *types.Package) (lines []string) {
	names := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return p.Name()
	}
	scope := pkg.Scope()
	for _, name := range scope.Names() {
		obj := scope.Lookup(name)
		if !obj.Exported() {
			continue
		}
		switch o := obj.(type) {
		case *types.Const:
			lines = append(lines, fmt.Sprintf("const %s %s = %s", name, types.TypeString(o.Type(), names), o.Val().ExactString()))
		case *types.TypeName:
			lines = append(lines, apiOfType(o, names)...)
		default:
			lines = append(lines, types.ObjectString(obj, names))
		}
	}
	return lines
}

// apiOfType lists a type with its exported fields and methods.
func apiOfType(o *types.TypeName, names types.Qualifier) []string {
	var lines []string
	under := o.Type().Underlying()
	switch u := under.(type) {
	case *types.Struct:
		lines = append(lines, "type "+types.TypeString(o.Type(), names)+" struct")
		for f := range u.Fields() {
			if f.Exported() {
				lines = append(lines, fmt.Sprintf("type %s struct, %s %s", o.Name(), f.Name(), types.TypeString(f.Type(), names)))
			}
		}
	case *types.Interface:
		lines = append(lines, "type "+types.TypeString(o.Type(), names)+" interface")
		for m := range u.Methods() {
			lines = append(lines, fmt.Sprintf("type %s interface, %s", o.Name(), method(m, names)))
		}
		return lines
	default:
		lines = append(lines, "type "+types.TypeString(o.Type(), names)+" "+types.TypeString(under, names))
	}
	if _, named := o.Type().(*types.Named); !named {
		return lines
	}
	set := types.NewMethodSet(types.NewPointer(o.Type()))
	for m := range set.Methods() {
		if f, ok := m.Obj().(*types.Func); ok && f.Exported() {
			receiver := "*" + o.Name()
			if types.NewMethodSet(o.Type()).Lookup(o.Pkg(), f.Name()) != nil {
				receiver = o.Name()
			}
			lines = append(lines, fmt.Sprintf("method (%s) %s", receiver, method(f, names)))
		}
	}
	return lines
}

func method(f *types.Func, names types.Qualifier) string {
	return f.Name() + strings.TrimPrefix(types.TypeString(f.Type(), names), "func")
}

// compare says what of the old listing is gone and what of the new one it does not have.
func compare(was, is []string) (gone, added []string) {
	only := func(a, b []string) []string {
		known := map[string]bool{}
		for _, line := range b {
			known[line] = true
		}
		return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return known[line] })
	}
	return only(was, is), only(is, was)
}

func TestAPIListingIsThatOfTheCode(t *testing.T) {
	is := listing(t, publicPackages(t))
	if *update {
		if err := os.WriteFile(apiFile, []byte(apiHead+strings.Join(is, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(apiFile)
	if err != nil {
		t.Fatal(err)
	}
	was := strings.Split(strings.TrimSpace(strings.TrimPrefix(string(text), apiHead)), "\n")
	gone, added := compare(was, is)
	if len(gone) > 0 {
		t.Errorf("the API lost or changed what plugins may use, which the promise in plugins/doc.go forbids once v1 is out:\n\t- %s", strings.Join(gone, "\n\t- "))
	}
	if len(added) > 0 {
		t.Errorf("the API has what plugins/%s does not show:\n\t+ %s", apiFile, strings.Join(added, "\n\t+ "))
	}
	switch {
	case t.Failed():
		t.Log("where this is meant, 'make generate' writes plugins/api.txt anew, and the commit says in a Changelog: trailer what plugin authors have to know")
	case !slices.Equal(was, is):
		t.Errorf("plugins/%s is out of order: 'make generate' writes it anew", apiFile)
	}
}

// A name that goes, comes or changes is shown, and nothing else.
func TestAPIComparisonShowsWhatChanged(t *testing.T) {
	gone, added := compare([]string{"a: func F()", "a: func G(int)", "a: func H()"}, []string{"a: func F()", "a: func G(string)", "a: type T struct"})
	if fmt.Sprint(gone) != "[a: func G(int) a: func H()]" || fmt.Sprint(added) != "[a: func G(string) a: type T struct]" {
		t.Errorf("gone %q, added %q", gone, added)
	}
}

// The listing shows everything that another module's code can hang on.
func TestAPIListingShowsEachKindOfName(t *testing.T) {
	is := listing(t, publicPackages(t))
	for _, want := range []string{
		"plugins: const KindInput Kind = \"input\"",
		"plugins: var ErrTooLarge error",
		"plugins: func OutputSpec[C any](name string, summary string, defaults C, build func(C, Env) (Output, error)) Spec",
		"plugins: type Env struct, Once bool",
		"plugins: type Replayer interface, Run(ctx context.Context, sink Sink) error",
		"plugins: method (*PartialError) Error() string",
		"plugins: method (Spec) Safe() Spec",
		"plugins/event: const HasSize Mask = 2",
		"plugins/event: type Set uint64",
		"plugins/plugintest: type TB interface, TempDir() string",
		"agent: func Main(specs ...plugins.Spec)",
	} {
		if !slices.Contains(is, want) {
			t.Errorf("%q is not listed", want)
		}
	}
}
