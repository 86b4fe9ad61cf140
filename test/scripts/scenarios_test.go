package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// scenarioIDs are those that must have a test: R01 to R30, C01 to C07 and P01 to P05.
func scenarioIDs() (ids []string) {
	for kind, n := range map[string]int{"R": 30, "C": 7, "P": 5} {
		for i := range n {
			ids = append(ids, fmt.Sprintf("%s%02d", kind, i+1))
		}
	}
	slices.Sort(ids)
	return ids
}

var (
	testName = regexp.MustCompile(`(?m)^func (Test\w+)\(|name: "([RCP]\d\d[A-Z]\w*)"`)
	idInName = regexp.MustCompile(`[RCP]\d\d`)
	inTable  = regexp.MustCompile("`(Test\\w+|[RC]\\d\\d[A-Z]\\w*)`")
)

// testNames returns the names of all tests of the repository, and of the cases in test/scripts whose names begin with an id.
func testNames(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testName.FindAllStringSubmatch(string(text), -1) {
			names[m[1]+m[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEveryScenarioHasATestWithItsName(t *testing.T) {
	names := testNames(t, filepath.Join("..", ".."))
	table, err := os.ReadFile("scenarios.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range scenarioFaults(scenarioIDs(), names, string(table)) {
		t.Error(f)
	}
}

// scenarioFaults finds ids without a test or without a row in the table, and tests in the table that do not exist.
func scenarioFaults(ids []string, names map[string]bool, table string) (faults []string) {
	has := map[string]bool{}
	for n := range names {
		for _, id := range idInName.FindAllString(n, -1) {
			has[id] = true
		}
	}
	for _, id := range ids {
		if !has[id] {
			faults = append(faults, id+" has no test with its id in the name")
		}
		if !strings.Contains(table, "\n| "+id+" |") {
			faults = append(faults, id+" has no row in scenarios.md")
		}
	}
	for _, m := range inTable.FindAllStringSubmatch(table, -1) {
		if !names[m[1]] {
			faults = append(faults, "scenarios.md names "+m[1]+", which is no test")
		}
	}
	return faults
}

func TestAScenarioWithoutATestIsFound(t *testing.T) {
	names := map[string]bool{"TestR01Rename": true, "R02Keeps": true, "TestOther": true}
	table := "\n| R01 | `TestR01Rename` |\n| R02 | `R02Keeps` |\n| R03 | `TestGone` |\n"
	got := scenarioFaults([]string{"R01", "R02", "R03", "R04"}, names, table)
	want := []string{"R03 has no test with its id in the name", "R04 has no test with its id in the name", "R04 has no row in scenarios.md", "scenarios.md names TestGone, which is no test"}
	if !slices.Equal(got, want) {
		t.Errorf("faults %q, want %q", got, want)
	}
}
