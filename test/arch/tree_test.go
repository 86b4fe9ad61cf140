package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/stacktrail/stacktrail/"

// goFile is a parsed file, whatever its build tags say.
type goFile struct {
	name   string // slash path from the root of the repository
	pkg    string // name in the package clause
	test   bool
	fset   *token.FileSet
	syntax *ast.File
}

// dir is the file's folder, which is its package's import path below the module.
func (f goFile) dir() string { return path.Dir(f.name) }

// at tells where a node stands, for a reader.
func (f goFile) at(p token.Pos) string { return f.name + ":" + strconv.Itoa(f.fset.Position(p).Line) }

// imports lists what the file imports.
func (f goFile) imports() []string {
	var list []string
	for _, i := range f.syntax.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			p = i.Path.Value
		}
		list = append(list, p)
	}
	return list
}

// importName tells by which name the file knows an imported package.
func (f goFile) importName(importPath string) (string, bool) {
	for i, p := range f.imports() {
		if p != importPath {
			continue
		}
		if n := f.syntax.Imports[i].Name; n != nil {
			return n.Name, true
		}
		return path.Base(p), true
	}
	return "", false
}

// parse makes a goFile of source text. Files of one package share fset.
func parse(t *testing.T, fset *token.FileSet, name, src string) goFile {
	t.Helper()
	f := goFile{name: name, test: strings.HasSuffix(name, "_test.go"), fset: fset}
	var err error
	if f.syntax, err = parser.ParseFile(f.fset, name, src, parser.ParseComments); err != nil {
		t.Fatal(err)
	}
	f.pkg = f.syntax.Name.Name
	return f
}

// root is the top of the repository: tests run in the folder of their package.
const root = "../.."

// readTree returns the contents of all files below the root by their slash paths, but those that .gitignore names and git's own.
func readTree(t *testing.T) map[string]string {
	t.Helper()
	ignored := readIgnored(t)
	files := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case name == ".":
			return nil
		case name == ".git" || ignored(name, d.IsDir()):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(p)
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// readIgnored understands as much of .gitignore as ours uses: /folder/, and folder/ and *.ending in any folder.
func readIgnored(t *testing.T) func(name string, dir bool) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	patterns := strings.Fields(string(b))
	return func(name string, dir bool) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			if folder, ok := strings.CutSuffix(p, "/"); ok {
				if rooted, ok := strings.CutPrefix(folder, "/"); ok {
					return dir && name == rooted
				}
				ok, err := path.Match(folder, path.Base(name))
				return dir && err == nil && ok
			}
			ok, err := path.Match(p, path.Base(name))
			return err == nil && ok
		})
	}
}

// readGo returns all Go files of the repository in the order of their names.
func readGo(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	fset := token.NewFileSet()
	for name, src := range readTree(t) {
		if strings.HasSuffix(name, ".go") && !slices.Contains(strings.Split(path.Dir(name), "/"), "testdata") {
			files = append(files, parse(t, fset, name, src))
		}
	}
	slices.SortFunc(files, func(a, b goFile) int { return strings.Compare(a.name, b.name) })
	if len(files) == 0 {
		t.Fatal("there are no Go files: the root is wrong")
	}
	return files
}
