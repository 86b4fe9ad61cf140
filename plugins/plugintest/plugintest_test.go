package plugintest

import (
	"slices"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
)

type none struct{}

// expect runs a suite, which must find this rule broken and no other; "" for a plugin that is right. text must stand in what it says.
func expect(t *testing.T, name string, rule Rule, text string, suite func(TB)) {
	t.Helper()
	found := Try(t.TempDir(), func(string, ...any) {}, suite)
	var rules []Rule
	var said []string
	for _, f := range found {
		rules, said = append(rules, f.Rule), append(said, string(f.Rule)+": "+f.Text)
	}
	slices.Sort(rules)
	rules = slices.Compact(rules)
	switch {
	case rule == "" && len(found) > 0:
		t.Errorf("%s: a good plugin is blamed: %s", name, strings.Join(said, "\n"))
	case rule == "":
	case !slices.Equal(rules, []Rule{rule}):
		t.Errorf("%s: found %q instead of %q alone: %s", name, rules, rule, strings.Join(said, "\n"))
	case !strings.Contains(strings.Join(said, "\n"), text):
		t.Errorf("%s: %q is not in what was said: %s", name, text, strings.Join(said, "\n"))
	}
}

// A suite that cannot go on says so and ends, in a command too.
func TestTryEndsWhereASuiteCannotGoOn(t *testing.T) {
	t.Parallel()
	broken := plugins.OutputSpec("broken", "", none{}, func(none, plugins.Env) (plugins.Output, error) { panic("no") })
	expect(t, "New panics", RuleWorks, "it panicked: no", func(tb TB) { Output(tb, broken, nil) })
	fails := plugins.ProcessorSpec("fails", "", none{}, func(none, plugins.Env) (plugins.Processor, error) { return nil, t.Context().Err() })
	expect(t, "New makes nothing", RuleWorks, "which is none", func(tb TB) { Processor(tb, fails, nil) })
	expect(t, "a suite that panics", "", "", func(TB) {})
	if found := Try(t.TempDir(), t.Logf, func(TB) { panic("oops") }); len(found) != 1 || !strings.Contains(found[0].Text, "oops") {
		t.Errorf("got %v", found)
	}
}
