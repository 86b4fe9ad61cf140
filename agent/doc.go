// Package agent is the machine: it turns a configuration into running pipelines. It is the only place that knows everything;
// plugins know only package plugins.
//
// # The house
//
//	plugins      the contract: what a plugin is, the data it sees, how it is proved
//	inputs       built-in inputs; inputs/internal/formats parses log lines
//	processors   built-in processors
//	outputs      built-in outputs
//	agent        this package: commands, one file each; agent/internal:
//	  config       load, merge, interpolate, check
//	  pipeline     inputs → lanes of processors → queues → runners; cursors; accounts; dead letters
//	  checkpoint   positions on disk
//	  monitor      metrics, health, the admin socket
//	  reference    samples, docs and the JSON schema, made from the configuration's types
//	configs      what users copy
//	test         the proof from outside, with the real binary
//
// Only builtin.go imports the built-ins. Rules of who may import whom are tested in test/arch.
//
// # How it holds together
//
// A source is a replayable log, an output is a reader of it with its own cursor, and the agent is the shortest fast path
// between the two. The log file on disk is the queue: nothing is copied to be safe.
//
// The batch is the unit of everything: of ownership, order, backpressure and acknowledgement (package plugins tells its life).
// The checkpoint holds one position for each stream and output, and a token for each output that can undo. The two are
// taken together at a moment when no batch is partly written at that output, its data is synced before, and the snapshot
// replaces the last one atomically. After a crash such an output is cut back to its token and reads again from its positions:
// nothing is lost and nothing stands there twice.
//
// Memory is bounded by the pool that batches come from: an input that gets no batch waits, and so does its file.
//
// A custom build with plugins of its own is
//
//	func main() { agent.Main(mything.Spec) }
package agent
