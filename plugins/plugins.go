package plugins

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Input reads a source until ctx is done, or, with Env.Once, to its end. It owns every goroutine that it starts and none
// outlives Run. A nil error means that the source is exhausted or ctx is done; after any other error the agent says so and
// calls Run again with backoff, on the same value.
type Input interface {
	Run(ctx context.Context, sink Sink) error
}

// Replayer is an Input whose records can be read again. Restart uses it, and whatever else has to read a part of a stream
// for a second time. Its methods are called from other goroutines than Run's, at the same time.
type Replayer interface {
	Input
	// CanReplay reports nil if everything after from can still be read, an error that says why otherwise. It is asked before
	// Run, for streams of the checkpoint. It may wait for a medium that does not answer, until ctx is done.
	CanReplay(ctx context.Context, s Stream, from event.Position) error
	// Replay sends the records of the stream after from and up to to, in the same order and with the same offsets as Run did,
	// and returns when the last one is sent. A batch never reaches beyond to. An error that wraps ErrGone says that the records
	// are proved to be lost; after any other the agent asks again.
	Replay(ctx context.Context, s Stream, from, to event.Position, sink Sink) error
}

// Measurer is implemented by inputs that know how much there is to read. Sources returns the open sources of known streams; it may
// be called at any time.
type Measurer interface {
	Sources() []Source
}

// Source is what a stream is read from at present.
type Source struct {
	Stream string // name of the stream
	Name   string // for people: a path
	Size   int64  // bytes that there are, in the stream's own positions; -1 where that is not known
	// Written is when the source was written last, as far as it tells; the zero time where that is not known.
	Written time.Time
	// Gone says that the source is proved to be there no more. Only Describe sets it.
	Gone bool
}

// Describer is implemented by inputs that can tell people of a stream which only the checkpoint knows of. Describe is called on an
// instance that does not run and changes nothing; s.Start is a position that the source must hold. The error says why it cannot be
// looked at. It may wait for a medium that does not answer, until ctx is done.
type Describer interface {
	Describe(ctx context.Context, s Stream) (Source, error)
}

// Sink takes batches from an input.
type Sink interface {
	// Send takes ownership of b, whatever it returns, and blocks while the pipeline is full. Batches of one stream are sent one
	// after the other. The error is ctx's, or says that the pipeline is gone: the input then returns.
	Send(ctx context.Context, b *event.Batch) error
}

// Stream is what the agent keeps of a source's stream beside the positions of its readers.
type Stream struct {
	// Name is unique in the agent and stable over restarts, moves and copies: with an offset it makes an event's id.
	Name string
	// Lane names what must stay in order with this stream: streams of one lineage (x.log after x.log.1) share it.
	Lane string
	// Meta is the input's own, opaque to the agent: what it needs to find the stream again.
	Meta []byte
	// Start is where a new stream begins; a stored position goes first.
	Start event.Position
	// Drained says that the stream is read to its end and will not grow: it need not be there any more.
	Drained bool
}

// Streams is an input's side of the checkpoint. All methods are safe for concurrent use.
type Streams interface {
	// Known returns the input's streams in the checkpoint, with the positions up to which every output has them (Stream.Start).
	Known() []Stream
	// Open declares a stream before its first batch. Where outputs differ in how far they got, it first has the agent bring the
	// laggards forward through Replay. It returns the position at which to read on: Start for a new stream. The first batch
	// of a new stream waits until the checkpoint names the stream.
	Open(ctx context.Context, s Stream) (event.Position, error)
	// Update replaces Lane, Meta and Drained of an open or known stream.
	Update(s Stream)
	// Forget removes a stream. It must be drained, or proved to be gone.
	Forget(name string)
}

// Processor changes a batch in place: fields of its events, or Dropped. It adds no events. Each lane has its own instance, so
// it needs no locks. It skips events that are Dropped. What it keeps after the call it copies. When it returns an error or
// panics, the agent reads the batch again, feeds it event by event to a fresh instance, and sends the one that fails to the
// dead letter.
type Processor interface {
	Process(ctx context.Context, b *event.Batch) error
}

// Output writes events and returns when they are safe at the far end. It keeps nothing of them after it returns and changes
// nothing in them. The error says what becomes of the events: see the error types.
type Output interface {
	Write(ctx context.Context, events []*event.Event) error
}

// Committer is an Output that can cut back to what a checkpoint knows of. It is used from one goroutine at a time and with one
// worker only.
type Committer interface {
	Output
	// Token returns, after everything written is synced, what Restore needs to return to this very state.
	Token() ([]byte, error)
	// Restore is called once before the first Write. It cuts back to the state of the token; a nil token means that the
	// checkpoint knows nothing: what is there stays. It reports how many bytes it cut. When the bytes before the cut are not
	// those that the token speaks of, it cuts nothing and says so in the error, as a *KeptError.
	Restore(token []byte) (cut int64, err error)
}

// Confirmer is implemented by Committers that put off what no Restore can undo until the checkpoint is past it. Stored says that
// no restart asks for a token from before this one: it is stored, in the generation that is kept for the case that the last one is
// damaged as well. It may be called at any time before Close, also while another method runs, and with a token that it knows of; it
// returns at once. Without it the output learns of it from later calls of Token: a restart asks for the last token, the one before
// it, or the one before that.
type Confirmer interface {
	Stored(token []byte)
}

// ErrGone is wrapped by a Replayer's errors when the records asked for are proved to exist no more. Not being able to look is
// another error.
var ErrGone = errors.New("the records are gone")

// ErrLater is wrapped by CanReplay's errors when the records are there and only cannot be read at present, as a file without the right
// to read it: Run reads them once they can be.
var ErrLater = errors.New("the records cannot be read at present")

// KeptError is Restore's answer when it could not cut back: what follows may repeat what is there.
type KeptError struct{ Reason string }

// Error says why nothing was cut.
func (e *KeptError) Error() string { return "kept what is there: " + e.Reason }

// Opener is implemented by processors and outputs that need the outside world before their first batch: files, connections. New must not
// touch it, so that a configuration can be checked anywhere. A conf.KeyError ends the start; after any other error Open is called again.
type Opener interface {
	Open(ctx context.Context) error
}

// Closer is implemented by plugins that hold something. Close is called once, after the last other call.
type Closer interface {
	Close() error
}

// Reopener is implemented by outputs that let go of their files when told to (SIGUSR1). It may be called at any time.
type Reopener interface {
	Reopen()
}

// Checker is implemented by outputs that can tell whether their far end is there and grants what they need. Check writes nothing. It
// is called on an instance that Open was not called on, before Close; the error says what is missing.
type Checker interface {
	Check(ctx context.Context) error
}

// Preparer is implemented by outputs that need something at their far end before the first event: templates, tables. Both methods
// return one line for each thing that differs from what the output needs; Apply has mended these. They are called like Check.
type Preparer interface {
	Diff(ctx context.Context) ([]string, error)
	Apply(ctx context.Context) ([]string, error)
}

// PermanentError says that these events will never be accepted: they go to the dead letter. With more than one event in the
// call the agent halves first, so that only the one at fault dies.
type PermanentError struct{ Err error }

// Error returns the cause.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// ThrottleError says that the far end asks for a pause: no retry before After has passed.
type ThrottleError struct {
	Err   error
	After time.Duration
}

// Error returns the cause and the pause.
func (e *ThrottleError) Error() string { return fmt.Sprintf("%v (asked to wait %v)", e.Err, e.After) }

// Unwrap returns the cause.
func (e *ThrottleError) Unwrap() error { return e.Err }

// PartialError says which events of the call failed, by their index; the rest are safe. A PermanentError inside sends its
// event to the dead letter, any other error has it retried.
type PartialError struct{ Failed map[int]error }

// Error says how many failed and why one of them did.
func (e *PartialError) Error() string {
	first := -1
	for i := range e.Failed {
		if first < 0 || i < first {
			first = i
		}
	}
	if first < 0 {
		return "no event failed"
	}
	return fmt.Sprintf("%d events failed, the first: %v", len(e.Failed), e.Failed[first])
}

// ErrTooLarge says that the call held too much for the far end: the agent halves it and tries both halves. One event alone
// that is too large goes to the dead letter.
var ErrTooLarge = errors.New("batch too large")
