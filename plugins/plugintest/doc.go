// Package plugintest proves that a plugin keeps the contract of package plugins. Every plugin's tests call its suite:
//
//	func TestContract(t *testing.T) {
//		plugintest.Output(t, file.Spec, "path: $DIR/out.ndjson", plugintest.Observe(readDir))
//		plugintest.Processor(t, drop.Spec, `when: method == "OPTIONS"`)
//		plugintest.Input(t, tail.Spec, "paths: [$DIR/*.log]", plugintest.Prepare(writeLogs))
//	}
//
// The configuration is YAML, in which $DIR stands for a fresh directory of the instance's own, or a value of the plugin's
// configuration type, or nil for its defaults. Options say what the suite cannot know: Prepare fills $DIR, Observe reads the
// far end, Env changes what the instance gets, Batches brings other sample batches.
//
// For tests of one's own: Batch and Events make sample batches in an arena, Build makes an instance, Streams is an input's side
// of a checkpoint in memory, Sink collects copies of what an input sends, Leaks finds goroutines that were left behind.
//
// Every check is a plain error that names the rule that was broken.
package plugintest
