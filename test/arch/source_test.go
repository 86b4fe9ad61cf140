package arch

import (
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
)

// docFaults: every package has one doc comment, in one of its files. A folder of tests only may have it in a test.
func docFaults(files []goFile) (faults []string) {
	with := map[string][]string{}
	onlyTests := map[string]bool{}
	for _, f := range files {
		if _, known := onlyTests[f.dir()]; !known {
			onlyTests[f.dir()] = true
		}
		if !f.test {
			onlyTests[f.dir()] = false
		}
	}
	for _, f := range files {
		if f.syntax.Doc == nil || isDirective(f.syntax.Doc) {
			continue
		}
		if f.test && !onlyTests[f.dir()] {
			faults = append(faults, f.name+" has a package comment: it belongs to a file that is no test")
			continue
		}
		with[f.dir()] = append(with[f.dir()], f.name)
		text := f.syntax.Doc.Text()
		if f.pkg != "main" && !strings.HasPrefix(text, "Package "+f.pkg+" ") {
			faults = append(faults, f.name+`: the package comment does not begin with "Package `+f.pkg+`"`)
		}
	}
	for dir := range onlyTests {
		switch names := with[dir]; len(names) {
		case 0:
			faults = append(faults, dir+" has no package comment")
		case 1:
		default:
			faults = append(faults, dir+" has several package comments: "+strings.Join(names, ", "))
		}
	}
	slices.Sort(faults)
	return faults
}

// isDirective reports whether a comment group holds nothing to read.
func isDirective(g *ast.CommentGroup) bool { return strings.TrimSpace(g.Text()) == "" }

// initFaults: nothing happens because a package was imported.
func initFaults(files []goFile) (faults []string) {
	for _, f := range files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				faults = append(faults, f.at(fn.Pos())+" has a func init")
			}
		}
	}
	return faults
}

// sleepFaults: tests, and what helps them, wait for conditions and never skip.
func sleepFaults(files []goFile) (faults []string) {
	for _, f := range files {
		if !f.test && !within(f.dir(), "test") && !within(f.dir(), "plugins/plugintest") {
			continue
		}
		timeName, hasTime := f.importName("time")
		testingName, hasTesting := f.importName("testing")
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := sel.X.(*ast.Ident)
			switch {
			case x != nil && hasTime && x.Name == timeName && sel.Sel.Name == "Sleep":
				faults = append(faults, f.at(sel.Pos())+" sleeps: wait for a condition, or use testing/synctest")
			case x != nil && hasTesting && x.Name == testingName && sel.Sel.Name == "Short":
				faults = append(faults, f.at(sel.Pos())+" asks for testing.Short: all tests count")
			case hasTesting && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name):
				faults = append(faults, f.at(sel.Pos())+" skips: a test that cannot run fails and says what is missing")
			}
			return true
		})
	}
	return faults
}

// stateFaults: no package-level variable changes after its declaration, and none is of a kind that lives by changing. Errors,
// tables, expressions and functions stay as they were made.
func stateFaults(files []goFile) (faults []string) {
	packages := map[string][]goFile{}
	for _, f := range files {
		if !f.test {
			packages[f.dir()] = append(packages[f.dir()], f)
		}
	}
	for _, pkg := range packages {
		for _, f := range pkg {
			faults = append(faults, changingKinds(f)...)
		}
		faults = append(faults, changes(pkg)...)
	}
	slices.Sort(faults)
	return faults
}

// changingKinds finds variables that are made to change: locks, counters, pools, channels.
func changingKinds(f goFile) (faults []string) {
	for _, d := range f.syntax.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.VAR {
			continue
		}
		for _, s := range decl.Specs {
			ast.Inspect(s, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncLit:
					return false // its variables are its own
				case *ast.ChanType:
					faults = append(faults, f.at(n.Pos())+" keeps a channel at package level")
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					if !ok {
						break
					}
					for _, p := range []string{"sync", "sync/atomic"} {
						// What sync.OnceFunc and its kin return is a function: it gives the same whenever it is called.
						if name, has := f.importName(p); has && name == x.Name && !strings.HasPrefix(n.Sel.Name, "OnceFunc") && !strings.HasPrefix(n.Sel.Name, "OnceValue") {
							faults = append(faults, f.at(n.Pos())+" keeps a "+p+"."+n.Sel.Name+" at package level")
						}
					}
				}
				return true
			})
		}
	}
	return faults
}

// changes finds assignments to package-level variables. Names are resolved by go/types; what is imported stays unknown to it.
func changes(pkg []goFile) (faults []string) {
	var syntax []*ast.File
	at := map[*ast.File]goFile{}
	// Files of other build tags may declare a name twice. The checker keeps the first and goes on.
	for _, f := range pkg {
		syntax = append(syntax, f.syntax)
		at[f.syntax] = f
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: emptyImporter{}, Error: func(error) {}}
	checked, _ := conf.Check(pkg[0].dir(), pkg[0].fset, syntax, info) // faults of unknown imports are expected
	for _, file := range syntax {
		f := at[file]
		report := func(e ast.Expr) {
			id := target(e, info)
			if id == nil {
				return
			}
			obj := info.Uses[id]
			if v, ok := obj.(*types.Var); ok && v.Parent() == checked.Scope() {
				faults = append(faults, f.at(id.Pos())+" changes the package-level variable "+id.Name)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						report(e)
					}
				}
			case *ast.IncDecStmt:
				report(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					for _, e := range []ast.Expr{n.Key, n.Value} {
						if e != nil {
							report(e)
						}
					}
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear" || fn.Name == "copy") && len(n.Args) > 0 {
					report(n.Args[0])
				}
			}
			return true
		})
	}
	return faults
}

// target finds the variable that an assignment to e changes: x in x, x.f, x[i], x[i:j], *x.
func target(e ast.Expr, info *types.Info) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok {
				if _, isPackage := info.Uses[id].(*types.PkgName); isPackage {
					return nil
				}
			}
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// emptyImporter gives every import an empty package: names of the package itself are all that is asked for.
type emptyImporter struct{}

func (emptyImporter) Import(p string) (*types.Package, error) {
	pkg := types.NewPackage(p, path.Base(p))
	pkg.MarkComplete()
	return pkg, nil
}

// foreignFaults: no assignment to a variable of another package, in tests neither: pkg.Name = … The one exception is the only knob
// that nxadm/tail has for how often it looks at a file; it is set once.
func foreignFaults(files []goFile) (faults []string) {
	for _, f := range files {
		names := map[string]bool{}
		for _, p := range f.imports() {
			if name, ok := f.importName(p); ok {
				names[name] = true
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			assign, ok := n.(*ast.AssignStmt)
			if !ok || assign.Tok == token.DEFINE {
				return true
			}
			for _, e := range assign.Lhs {
				sel, ok := e.(*ast.SelectorExpr)
				if !ok {
					continue
				}
				// A parsed identifier that nothing in the file declares is a package's name.
				if id, ok := sel.X.(*ast.Ident); ok && names[id.Name] && id.Obj == nil && sel.Sel.Name != "POLL_DURATION" {
					faults = append(faults, f.at(id.Pos())+" changes "+id.Name+"."+sel.Sel.Name+", a variable of another package")
				}
			}
			return true
		})
	}
	return faults
}

// pluginTestFaults: each plugin, and each package that plugins share, has a test.
func pluginTestFaults(files []goFile) (faults []string) {
	tested := map[string]bool{}
	for _, f := range files {
		kind, _, _ := strings.Cut(f.dir(), "/")
		if slices.Contains(kinds(), kind) {
			tested[f.dir()] = tested[f.dir()] || f.test
		}
	}
	for dir, yes := range tested {
		if !yes {
			faults = append(faults, dir+" has no test")
		}
	}
	slices.Sort(faults)
	return faults
}
