// Package plugins is the contract between the agent and its plugins: what an input, a processor and an output are, who owns a
// batch when, and what each error means. A plugin author needs this package, package event, and nothing else; package
// plugintest proves a plugin.
//
// # The life of a batch
//
// An input takes an empty batch from Env.Pool, which blocks while the agent's memory is in use: the pool's bound is the
// backpressure. It reads a block into the batch's arena and appends one event per record, whose strings are views into the
// arena. Sink.Send gives the batch away.
//
// The processors of the stream's lane change the batch in place, one after the other, as plain calls. A dropped event stays in
// the batch, marked: nobody acknowledges events, only batches. After the last processor the batch is frozen. Nobody changes it
// any more, because its pointer now stands in the queue of every output that it is for.
//
// Each output's runner collects events up to its limits in number, bytes and time, calls Write, and owns retry, halving,
// dead letters, deadlines and concurrency. Outputs stay simple: they write what they are given, once, and say what
// happened.
//
// When all events of a batch are settled at an output, that output's cursor in the stream may move. A ledger takes
// settlements in any order and commits the longest finished prefix. When the last output is done with it the batch goes back
// to the pool and its arena is used again.
//
// # Cursors
//
// The checkpoint holds for every stream one position per output. After a crash everything past a position is read again,
// for just the outputs that lack it: Streams.Open brings outputs that are behind forward through Replayer.Replay before the
// input reads on. An output that can undo (Committer) is cut back to what the checkpoint knows, so that nothing stands in it
// twice.
//
// # Memory
//
// Strings of an event are valid until the batch is released. An input and a processor may put any string into a field, from the
// arena or from the heap. What is forbidden is keeping a string, slice, event or batch after the call: copy it.
//
// # What an output's answer means
//
//	nil             settled
//	PartialError    those events are retried, or die where a PermanentError stands inside
//	ThrottleError   nothing is sent for at least that long, then retried
//	ErrTooLarge     halved; one event alone goes to the dead letter
//	PermanentError  halved; one event alone goes to the dead letter
//	anything else   retried with exponential backoff and full jitter, for ever unless the user set a limit
//
// A panic counts as an error. A dead letter is written as the event was about to be sent, with the reason.
package plugins
