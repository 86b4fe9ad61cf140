package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// How parse uses all cores. What a parser makes of a line depends on the lines before it, back to the beginning of the file, so each file
// is read, decompressed, parsed and joined by one goroutine, its input, and the result is the same on any number of cores. Two things
// run beside it:
//
//   - making text of records, which takes nearly as long as parsing them: workers do it, a batch each, and one writer takes what they
//     made in the order of the records;
//   - the inputs of the next files, as far as their share of memory goes, for their turn to be written comes later.
//
// There is a worker less than there are cores, so that none takes an input's core. Where the workers have enough to do, an input makes
// text itself: the work is balanced whichever half is dearer, and on one core nothing changes hands.
//
// A chunk is one batch on its way. An input has so many of them and waits for one that is written, so memory is bounded. Nobody
// waits for a later file: the input of the file that is being written has all its chunks there or with a worker, and workers wait
// for nobody.

const (
	// chunksPerCore are how many chunks each input has for each core, beside chunksSpare: enough for workers to have one in hand and
	// one waiting, and for the writer to be late.
	chunksPerCore = 2
	chunksSpare   = 2
	// poolPerInput bounds the memory of the batches of one input. It holds all its chunks on two cores, and more cores wait for
	// the parser anyway.
	poolPerInput = 32 << 20
	// queuedPerWorker is how many chunks wait for each worker, beside the one in its hand.
	queuedPerWorker = 2
)

// source is one of the files, or standard input, with what was made of it so far.
type source struct {
	name string // as the user named it
	path string // of a file; empty: standard input
	size int64  // of the content; -1 where that shows at its end
	err  error  // why it cannot be read, or was not read to its end; good once made is closed

	made chan *chunk // in the order of the records; closed at the end
}

// chunk is a batch on its way. Its owner is the worker until ready, then the writer.
type chunk struct {
	name     string
	batch    *event.Batch
	events   []*event.Event // those with an encoding
	unparsed bytes.Buffer   // what goes to standard error
	tally    tally
	ready    chan struct{}
	free     chan<- *chunk // where it goes when it is written
}

// parser parses sources and prints what comes of them.
type parser struct {
	opt      parseOptions
	open     func(ctx context.Context, s *source, in *lane) error // reads a source to its end
	form     form
	out      *bufio.Writer
	errs     *bufio.Writer
	table    *table // nil: records go to out as they are
	counters pipeline.Counters
	summary  summary
	jobs     chan *chunk
	cores    int
}

// room is how many chunks an input has.
func room(cores int) int { return chunksPerCore*cores + chunksSpare }

// newParser makes a parser; open is called once for each source, from one of several goroutines.
func newParser(opt parseOptions, naming schema.Naming, out, errs io.Writer, open func(context.Context, *source, *lane) error) *parser {
	cores := runtime.GOMAXPROCS(0)
	p := &parser{
		opt: opt, open: open, form: formOf(opt, naming), jobs: make(chan *chunk, queuedPerWorker*(cores-1)), cores: cores,
		out: bufio.NewWriterSize(out, 256<<10), errs: bufio.NewWriterSize(errs, 64<<10),
	}
	if opt.output == outputTable {
		p.table = &table{w: p.out, layout: columns()}
	}
	return p
}

// run parses the sources and prints their records in order. Sources may have failed; the error is that of writing.
func (p *parser) run(ctx context.Context, sources []*source) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, s := range sources {
		s.made = make(chan *chunk, room(p.cores))
	}
	var inputs, workers sync.WaitGroup
	var next atomic.Int64
	for range min(p.cores, len(sources)) {
		inputs.Go(func() {
			in := newLane(p)
			for i := next.Add(1) - 1; i < int64(len(sources)); i = next.Add(1) - 1 {
				in.read(ctx, sources[i])
			}
		})
	}
	for range p.cores - 1 {
		workers.Go(p.work)
	}
	var failed error
	over := false // what follows is not to be printed: something before it is missing
	for _, s := range sources {
		if err := p.write(s, over); err != nil {
			failed = err
			stop()
		}
		over = over || ctx.Err() != nil
	}
	inputs.Wait()
	close(p.jobs)
	workers.Wait()
	return failed
}

// lane is what an input writes to: it hands batches to the workers and keeps their order.
type lane struct {
	p    *parser
	pool *event.Pool
	free chan *chunk
	// encoder does what workers have no time for.
	encoder encoder

	mu sync.Mutex // guards to: an input may send from several goroutines
	to *source
}

func newLane(p *parser) *lane {
	n := room(p.cores)
	l := &lane{p: p, pool: event.NewPool(poolPerInput), free: make(chan *chunk, n), encoder: encoder{p: p}}
	for range n {
		l.free <- &chunk{ready: make(chan struct{}, 1), free: l.free}
	}
	return l
}

// read reads a source to its end, unless opening it failed.
func (l *lane) read(ctx context.Context, s *source) {
	defer close(s.made)
	if s.err != nil || ctx.Err() != nil {
		return
	}
	l.to = s
	s.err = l.p.open(ctx, s, l)
}

// Send hands a batch to the workers. It implements plugins.Sink.
func (l *lane) Send(ctx context.Context, b *event.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var c *chunk
	select {
	case c = <-l.free:
	case <-ctx.Done():
		b.Release()
		return ctx.Err()
	}
	c.name, c.batch = l.to.name, b
	select {
	case l.p.jobs <- c:
	default: // all workers have enough to do
		l.encoder.encode(c)
	}
	l.to.made <- c // there is room for all chunks of a lane
	return nil
}

// encoder makes text of batches. Each goroutine that does has its own.
type encoder struct {
	p       *parser
	scratch schema.Scratch
	keys    interned
}

// work makes text of batches until there are no more.
func (p *parser) work() {
	x := encoder{p: p}
	for c := range p.jobs {
		x.encode(c)
	}
}

// encode makes text of one batch.
func (x *encoder) encode(c *chunk) {
	p := x.p
	c.unparsed.Reset()
	x.keys.begin(&c.tally)
	for i := range c.batch.Events {
		e := &c.batch.Events[i]
		if !p.printed(e) {
			fmt.Fprintf(&c.unparsed, "%s:%d: %s: %s\n", c.name, e.Offset, e.Error, printable(e.Raw))
			continue
		}
		e.LogFile = c.name
		e.Has |= event.HasLogOffset
		x.keys.add(&c.tally, e)
	}
	c.events = c.batch.Select(0, p.printed)
	c.batch.Encode(p, func(i int) bool { return p.printed(&c.batch.Events[i]) }, func(dst []byte, e *event.Event) []byte { return p.form(dst, e, &x.scratch) })
	c.batch.Charge()
	c.ready <- struct{}{}
}

// printed reports whether an event is printed as one, and not named on standard error.
func (p *parser) printed(e *event.Event) bool {
	return p.opt.unparsed || e.RecordClass != event.ClassUnparsed
}

// write prints what is made of a source, in order, or throws it away.
func (p *parser) write(s *source, discard bool) (err error) {
	for {
		var c *chunk
		var ok bool
		select {
		case c, ok = <-s.made:
		default:
			// Whoever reads what is printed need not wait until a buffer is full.
			if !discard && err == nil {
				err = p.flush()
			}
			c, ok = <-s.made
		}
		if !ok {
			return err
		}
		<-c.ready
		if !discard && err == nil {
			err = p.print(c)
		}
		c.batch.Release()
		c.batch, c.events = nil, nil
		c.free <- c
	}
}

// print prints a chunk.
func (p *parser) print(c *chunk) error {
	p.summary.add(&c.tally)
	for events := c.events; len(events) > 0; {
		text, n := c.batch.EncodedRun(p, events)
		if n == 0 {
			return errors.New("BUG: a record was not encoded")
		}
		events = events[n:]
		var err error
		if p.table != nil {
			_, err = p.table.Write(text)
		} else {
			_, err = p.out.Write(text)
		}
		if err != nil {
			return err
		}
	}
	_, err := p.errs.Write(c.unparsed.Bytes())
	return err
}

func (p *parser) flush() error { return errors.Join(p.out.Flush(), p.errs.Flush()) }
