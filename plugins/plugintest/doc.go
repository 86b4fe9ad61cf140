// Package plugintest proves that a plugin keeps the contract of package plugins. Every plugin's tests call its suite:
//
//	func TestConformance(t *testing.T) {
//		plugintest.Output(t, file.Spec, "path: $DIR/out.ndjson", plugintest.Observe(readDir))
//		plugintest.Processor(t, drop.Spec, `when: method == "OPTIONS"`)
//		plugintest.Input(t, tail.Spec, "paths: [$DIR/*.log]", plugintest.Prepare(writeLogs))
//	}
//
// The configuration is YAML, in which $DIR stands for a fresh directory of the instance's own, or a value of the plugin's
// configuration type, or nil for its defaults. Options say what the suite cannot know: Prepare fills $DIR, Observe reads the
// far end, Env changes what the instance gets, Batches brings other sample batches, Stuck brings a far end that does not answer,
// Held says what a plugin in a process of its own holds.
//
// Every finding begins with the Rule that was broken. What each suite tries:
//
//	rule        processor                                output                                  input
//	works       samples, events one by one, an empty     samples, in one call and in a           Run finds what Prepare left
//	            batch; no error, no panic                long row; no error, no panic
//	kept        results with the arenas of earlier       the far end with the arenas             -
//	            batches overwritten; memory that         overwritten; memory that somebody
//	            somebody still holds                     still holds
//	unchanged   places, number, dropped events           events and the slice of them            -
//	context     done before the call; during it          the same                                during Run, with a full pipeline
//	            (Stuck)                                                                          too; nothing sent afterwards
//	goroutines  all gone in the end                      all gone in the end                     all gone in the end
//	index       -                                        indexes and causes of a PartialError    -
//	same        four instances agree                     -                                       live and Once agree
//	growth      ever more requests, up to 65,536         ever more requests, up to 65,536        -
//	workers     eight instances at once                  eight calls at once                     -
//	undo        -                                        a Committer's tokens                    -
//	order       -                                        -                                       spans without gaps
//	settled     -                                        -                                       a Replayer's restart, replays
//
// (growth of what Held says: up to 262,144.)
//
// Eight at once find a race where it changes a result; go test -race finds the others. A Spec is all that a suite asks for, so one whose
// New makes a client proves what is at the other end of a wire. Try runs suites without a test, for commands.
//
// For tests of one's own: Batch and Events make sample batches in an arena, Build makes an instance, Streams is an input's side
// of a checkpoint in memory, Sink collects copies of what an input sends, Leaks finds goroutines that were left behind.
package plugintest
