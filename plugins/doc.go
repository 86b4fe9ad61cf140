// Package plugins is the contract between the agent and its plugins: what an input, a processor and an output are, who owns a
// batch when, and what each error means. A plugin's author needs this package, package event for the data, and package plugintest,
// which proves a plugin; package conf says what the tags of a configuration mean, package schema names every field of an event.
//
// # A plugin
//
// is a Spec, most often the variable of that name in a package of its own: kind, name, one sentence, a struct with the
// configuration's defaults, and a function that builds an instance. Everything else is made of that: how the section is decoded and what
// is said of its faults, reference, sample and JSON Schema, the labels of metrics. Three ways to have the agent know it, all with the
// same Spec:
//
//	compiled in     a line in agent/builtin.go
//	custom build    a module of your own: func main() { agent.Main(mything.Spec) }      plugins/examples/custombuild
//	own process     a program of your own: func main() { rpc.Serve(mything.Spec) }, named under plugins: in the configuration
//
// Inputs, and outputs that can undo (Committer), run compiled in only. Whatever the way, a name may be taken once for each kind.
//
// New gets the decoded configuration and an Env. It is called whenever a configuration is checked, on any machine, and such an
// instance may be dropped without Close: so New starts nothing and touches nothing outside, it only looks at what it got, and its error
// is a fault of the configuration (a conf.KeyError puts it at its key). A processor or an output that needs the outside world before
// its first event is an Opener. A conf.KeyError from Open, wrapped or not, is a fault of the configuration too: it ends the start, before
// any data flows. Any other error says that it cannot work now, as while a far end is down: the agent starts, health and log say why,
// the events of that output or those processors wait, and Open is called again, with backoff, on the same value or a fresh one; so an
// Open that fails leaves nothing behind. Only a Committer has to open at once, for it is cut back then. Inputs open what they need in
// Run. Close comes once, after the last other call, first to inputs, then to processors, then to outputs, and to a processor that failed
// when it is replaced.
//
// Log, NodeID, Pool, Count and Fail of an Env are set for every kind, and so are Pipeline, ID and StateDir but while a configuration
// is checked; Once, Window and Streams are for inputs, Encoder and Repeats for outputs, Fields for processors and outputs.
//
// # The life of a batch
//
// An input declares a stream, the name of a source that outlives restarts and moves, with Streams.Open, which says where to read on.
// It takes an empty batch from Env.Pool, which blocks while the agent's memory is in use: the pool's bound is the backpressure. It
// fills Stream, Span and ReadAt, allocates in the batch's arena, and appends one event per record, whose strings are views into
// the arena. Sink.Send takes the batch, even when it returns an error, and blocks while the pipeline is full.
//
// The processors of the stream's lane change the batch in place, one after the other, as plain calls. A dropped event stays in
// the batch, marked: nobody acknowledges events, only batches. After the last processor the batch is frozen: its pointer now stands
// in the queue of every output that it is for.
//
// Each output has runners, one for each of its workers. They collect events of any number of batches and streams up to the limits in
// number, bytes and time, call Write, and own retry, halving and dead letters. Outputs stay simple: they write what they are given,
// once, and say what happened. Events of one stream come in their order, from one runner.
//
// When all events of a batch are settled at an output (delivered, or dead and named), its cursor in the stream may move, over the
// longest settled prefix only. When the last output is done the batch goes back to the pool.
//
// # Who owns what, when
//
//	                              owner            may change                    until
//	batch from Pool.Get           the input        all of it                     Send takes it
//	batch in Process              the processor    events' fields, Dropped       Process returns
//	events in Write               nobody           nothing, the slice neither    Write returns
//	Env.StateDir                  the instance     what it likes                 for ever; it makes the directory
//	goroutines                    who started it                                 Run returns; Close does
//
// Strings, slices and events of a batch are good until the call returns; after the last output the arena is used again. Keeping one is
// the one mistake that corrupts a stranger's events: copy it (strings.Clone, Event.Clone). A field may be set to any string, from the
// arena or from the heap. Spec.Safe is the author's word that nothing is kept: an agent that runs one plugin without it works, and gives
// every batch a fresh arena.
//
// An instance of a processor has one caller at a time, and there is one for each lane; Write has as many as workers: says, for a
// Committer one. Run has one; a Replayer's other methods are called at the same time.
//
// A processor ranges over b.Events and over nothing else: after a failure it is called with one event, whose Index is that in
// Event.Batch and not in b.Events. It skips events that are Dropped, adds none, moves none, and makes the same of the same.
//
// # Contexts and panics
//
// Every call ends soon after its context: within a second. Write has no other deadline in the agent's process, a plugin in its own has
// one for each call. What was in hand then is not settled, and read again after the restart. A panic counts as an error of the call.
// What a plugin starts in goroutines of its own has to recover itself.
//
// # What an error means
//
// Write:
//
//	nil             settled
//	PartialError    the events that it names are retried, or die where a PermanentError or ErrTooLarge stands inside; the rest are
//	                settled. One that names an event that there is not counts as any error
//	ThrottleError   nothing for at least that long, then the same again
//	ErrTooLarge     halved; one event alone goes to the dead letter
//	PermanentError  halved; one event alone goes to the dead letter
//	anything else   retried with exponential backoff and full jitter, for ever unless the user set a limit: then the dead letter
//	a panic         as anything else; the third over the same events halves them, and one event alone dies
//
// Errors are found by errors.As and errors.Is: wrap them at will. An event dies with the reason, written as it was about to be sent.
//
// Process: any error has the batch read again and fed to the processors event by event; the one that fails again goes to a dead
// letter of the pipeline, with position and reason only, for who knows what a processor was to take out. Nothing passes a processor
// that did not run. So it returns an error for what it cannot judge, and none for what it leaves alone. One in its own process may make
// 16 MiB of a batch in one call, or 8 times what the batch had, and of one event 64 KiB, or 8 times what that had: more is an error too.
//
// Run: nil says that the source is exhausted or the context done; after any other error Run is called again, on the same value, a
// second later at first, a minute at most. CanReplay and Replay: ErrGone says that the records are proved to be lost, ErrLater that
// they cannot be read at present. Restore: a *KeptError says that nothing was cut.
//
// # Cursors
//
// The checkpoint holds for every stream one position per output. After a crash everything past a position is read again,
// for just the outputs that lack it: Streams.Open brings outputs that are behind forward through Replayer.Replay before the
// input reads on. So an input keeps no position of its own: it reads on where Open says. One that is no Replayer loses at a crash what
// was not settled, and its documentation says so. An output that can undo (Committer) is cut back to what the checkpoint knows,
// so that nothing stands in it twice; one whose far end knows events by their ids says so with Spec.ByID.
//
// # Stability
//
// plugins/api.txt lists every exported name of the public packages; a test compares it with the code. From version 1.0.0 on and
// within version 1, no line of plugins, plugins/conf, plugins/event, plugins/schema, plugins/eval, plugins/plugintest, plugins/rpc and
// agent goes or changes, nor does what its comment promises; neither do the names and types of a plugin's keys and of the schema's
// fields. Packages ledger and secrets are the agent's and may change, with a word in the changelog. What may come:
//
//   - fields in structs: write their literals with keys;
//   - interfaces that a plugin may have beside its first one. Those that plugins implement never grow;
//   - methods of Sink and Streams, which the agent implements: tests use those of package plugintest;
//   - fields in the schema, rules in the conformance suites, error types for Write. What the agent does not know it retries.
//
// The wire between the agent and a plugin's process has versions of its own, see plugins/rpc. Texts of logs and errors and the moment
// of a call are no promise. A build needs one of the two newest releases of Go.
package plugins
