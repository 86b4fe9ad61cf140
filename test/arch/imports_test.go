package arch

import (
	"path"
	"slices"
	"strings"
)

// Kinds of built-ins. Each has a folder at the top level.
func kinds() []string { return []string{"inputs", "processors", "outputs"} }

// rooms names, for each fixed dependency, the only folder that may import it.
func rooms() map[string]string {
	return map[string]string{
		"github.com/nxadm/tail":               "inputs/tail",
		"github.com/expr-lang/expr":           "plugins/eval",
		"gopkg.in/yaml.v3":                    "plugins/conf",
		"github.com/hashicorp/go-plugin":      "plugins/rpc",
		"github.com/elastic/go-elasticsearch": "outputs/elasticsearch",
	}
}

// within reports whether p is the folder or import path base, or below it.
func within(p, base string) bool { return p == base || strings.HasPrefix(p, base+"/") }

// standard reports whether an import path is of the standard library: its first element has no dot.
func standard(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

// own cuts the module's path off, so that folders remain.
func own(p string) (folder string, ok bool) { return strings.CutPrefix(p, module) }

// builtinOf returns the folder of the built-in that a folder belongs to.
func builtinOf(dir string) (folder string, ok bool) {
	parts := strings.Split(dir, "/")
	if len(parts) < 2 || !slices.Contains(kinds(), parts[0]) || parts[1] == "internal" {
		return "", false
	}
	return path.Join(parts[0], parts[1]), true
}

// contractFaults: the contract's core imports only the standard library, itself and xxh3, so that the author of a plugin pulls
// in no client library.
func contractFaults(files []goFile) (faults []string) {
	core := []string{"plugins", "plugins/event", "plugins/schema", "plugins/ledger"}
	for _, f := range files {
		if f.test || !slices.Contains(core, f.dir()) {
			continue
		}
		for _, p := range f.imports() {
			folder, ours := own(p)
			if standard(p) || ours && slices.Contains(core, folder) || within(p, "github.com/zeebo/xxh3") {
				continue
			}
			faults = append(faults, f.name+" imports "+p+": the contract imports only the standard library, itself and zeebo/xxh3")
		}
	}
	return faults
}

// contractReachFaults: the contract knows nothing of the machine and of the built-ins. Examples are programs, which do.
func contractReachFaults(files []goFile) (faults []string) {
	for _, f := range files {
		if f.test || !within(f.dir(), "plugins") || within(f.dir(), "plugins/examples") {
			continue
		}
		for _, p := range f.imports() {
			if folder, ours := own(p); ours && !within(folder, "plugins") {
				faults = append(faults, f.name+" imports "+p+": the contract imports nothing of the house but itself")
			}
		}
	}
	return faults
}

// builtinFaults: a built-in imports the contract, internal packages of its own kind, and libraries; never another built-in.
// What built-ins share is held to the same.
func builtinFaults(files []goFile) (faults []string) {
	for _, f := range files {
		kind, _, _ := strings.Cut(f.dir(), "/")
		if !slices.Contains(kinds(), kind) {
			continue
		}
		self, isBuiltin := builtinOf(f.dir())
		for _, p := range f.imports() {
			folder, ours := own(p)
			switch {
			case !ours, within(folder, "plugins"), within(folder, kind+"/internal"), isBuiltin && within(folder, self):
			case f.test && within(folder, "test"):
			default:
				faults = append(faults, f.name+" imports "+p+": a built-in imports the contract, "+kind+"/internal and libraries only")
			}
		}
	}
	return faults
}

// registrationFaults: only agent/builtin.go knows the built-ins. Tests of a built-in know their own.
func registrationFaults(files []goFile) (faults []string) {
	for _, f := range files {
		if f.name == "agent/builtin.go" {
			continue
		}
		for _, p := range f.imports() {
			folder, ours := own(p)
			if !ours {
				continue
			}
			if builtin, ok := builtinOf(folder); ok && !within(f.dir(), builtin) {
				faults = append(faults, f.name+" imports "+p+": only agent/builtin.go imports built-ins")
			}
		}
	}
	return faults
}

// internalFaults: nobody outside agent imports agent/internal.
func internalFaults(files []goFile) (faults []string) {
	for _, f := range files {
		for _, p := range f.imports() {
			if folder, ours := own(p); ours && within(folder, "agent/internal") && !within(f.dir(), "agent") {
				faults = append(faults, f.name+" imports "+p+": nobody outside agent imports agent/internal")
			}
		}
	}
	return faults
}

// roomFaults: each fixed dependency is imported in one folder only. Those in used must be imported there.
func roomFaults(files []goFile, used ...string) (faults []string) {
	found := map[string]bool{}
	for _, f := range files {
		for _, p := range f.imports() {
			for dep, room := range rooms() {
				if !within(p, dep) {
					continue
				}
				found[dep] = true
				if f.dir() != room {
					faults = append(faults, f.name+" imports "+p+": only "+room+" does")
				}
			}
		}
	}
	for _, dep := range used {
		if !found[dep] {
			faults = append(faults, "nobody imports "+dep+": "+rooms()[dep]+" should")
		}
	}
	return faults
}
