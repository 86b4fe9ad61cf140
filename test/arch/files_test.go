package arch

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// allowedTop is the whole top level. A new name here is a decision, not a detail.
func allowedTop() []string {
	return []string{
		"agent", "inputs", "processors", "outputs", "plugins", "configs", "test",
		"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md",
		".ci", ".gitignore", ".golangci.yml",
	}
}

// topFaults: the top level is fixed.
func topFaults(files map[string]string) (faults []string) {
	seen := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		if !seen[top] && !slices.Contains(allowedTop(), top) {
			faults = append(faults, top+" does not belong to the top level")
		}
		seen[top] = true
	}
	slices.Sort(faults)
	return faults
}

// machinePath finds paths of the machine that somebody works on. Each name is in brackets so that this file has none.
var machinePath = regexp.MustCompile(`(?:^|[^\w/.}*-])/(?:[w]ork|[t]mp|[h]ome|[r]oot|[U]sers)/[\w.]`)

// pathFaults: nothing in the repository knows the machine that it was written on. Logs that others wrote say what they say.
func pathFaults(files map[string]string) (faults []string) {
	for name, text := range files {
		if strings.Contains("/"+name, "/testdata/") || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			continue
		}
		n := 0
		for line := range strings.Lines(text) {
			n++
			if found := machinePath.FindString(line); found != "" {
				faults = append(faults, name+":"+strconv.Itoa(n)+" names a path of some machine: "+strings.TrimSpace(found)+"…")
			}
		}
	}
	slices.Sort(faults)
	return faults
}

// targetFaults: every make target that a document names stands in the Makefile.
func targetFaults(files map[string]string) (faults []string) {
	mention := regexp.MustCompile("(?m)`make ([a-z-]+)`|^(?:\\$ )?make ([a-z-]+)")
	for name, text := range files {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			target := m[1] + m[2]
			if !regexp.MustCompile(`(?m)^` + target + `:`).MatchString(files["Makefile"]) {
				faults = append(faults, name+" names make "+target+", which the Makefile does not know")
			}
		}
	}
	slices.Sort(faults)
	return faults
}

// linkFaults: every relative link of a document leads to something.
func linkFaults(files map[string]string) (faults []string) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)\)`)
	for name, text := range files {
		if strings.Contains(name, "/") || !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := strings.TrimSuffix(m[1], "/")
			found := false
			for f := range files {
				found = found || within(f, to)
			}
			if !found {
				faults = append(faults, name+" links to "+m[1]+", which is not there")
			}
		}
	}
	slices.Sort(faults)
	return faults
}
