package arch

import "testing"

func none(t *testing.T, faults []string) {
	t.Helper()
	for _, f := range faults {
		t.Error(f)
	}
}

func TestContractStandsAlone(t *testing.T) {
	files := readGo(t)
	none(t, contractFaults(files))
	none(t, contractReachFaults(files))
}

func TestBuiltinsImportOnlyTheContractAndTheirOwn(t *testing.T) { none(t, builtinFaults(readGo(t))) }

func TestOnlyTheListKnowsTheBuiltins(t *testing.T) { none(t, registrationFaults(readGo(t))) }

func TestTheMachineIsPrivate(t *testing.T) { none(t, internalFaults(readGo(t))) }

func TestEachFixedDependencyHasOneImporter(t *testing.T) {
	none(t, roomFaults(readGo(t), "github.com/nxadm/tail", "github.com/expr-lang/expr", "gopkg.in/yaml.v3"))
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) { none(t, docFaults(readGo(t))) }

func TestNothingHappensOnImport(t *testing.T) { none(t, initFaults(readGo(t))) }

func TestPackagesHaveNoState(t *testing.T) {
	files := readGo(t)
	none(t, stateFaults(files))
	none(t, foreignFaults(files))
}

func TestTestsNeitherSleepNorSkip(t *testing.T) { none(t, sleepFaults(readGo(t))) }

func TestEachPluginHasATest(t *testing.T) { none(t, pluginTestFaults(readGo(t))) }

func TestTopLevelIsFixed(t *testing.T) { none(t, topFaults(readTree(t))) }

func TestNoPathOfAMachineIsWrittenDown(t *testing.T) { none(t, pathFaults(readTree(t))) }

func TestDocumentsNameWhatExists(t *testing.T) {
	files := readTree(t)
	none(t, targetFaults(files))
	none(t, linkFaults(files))
}
