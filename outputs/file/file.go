// Package file is an output that writes NDJSON files, each record once, whatever happens to the agent.
//
// # Paths
//
// The path is a template: {{field}} stands for a field of the event, %Y %m %d %H %M %j for its time in UTC. An event without a
// time takes that of the last event before it in its batch, else the time at which the batch was read.
//
// The directories before the first field or date are the base. Nothing is written outside of it: in values, slashes, control
// characters and invalid UTF-8 become underscores, as do an absent value, "." and ".."; a value is cut at 200 bytes; a
// symbolic link is never written through, and directories that are links must not lead out of the base. A value that would
// name a file put aside (x.1, x.2.gz) gets an underscore at its end. Values that make more than max_paths distinct paths send
// their events to the dead letter.
//
// # Once
//
// The output is a plugins.Committer. A token says how long the files are that are being written, by inode, with a hash of the
// last KiB. A journal in the state directory says how long those files were that the token does not list and that were touched
// after it: it is written before the first byte goes to them. Restore cuts all of them back, wherever they were renamed to in
// their directory, and removes those that were made later.
//
// The agent keeps three rules. It stores a token before the first Write that follows Restore. It takes the next token only when
// the former one is stored for good. It restores from the last token stored or, where that is damaged, from the one before. A token
// from further back is refused.
//
// Write puts whole records into a file or none: what a full disk or another fault cut short is taken back before the error is
// returned, and is retried. Nobody else may write to these files while the agent does; a file that another program has cut is
// continued at its end, one that was removed is made anew.
//
// # Putting files aside
//
// A file that would grow beyond rotate.size is renamed: path to path.1, what was path.1 to path.2, and so on. It is compressed,
// and what is beyond rotate.keep is removed, only when the checkpoint is past it. Compression goes to a temporary file that takes the
// place of the plain one in one step: at no moment do the same records stand in two files. Logrotate works as well: send
// SIGUSR1 after it has renamed.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// Defaults of the configuration.
const (
	defaultSize     = 100 << 20
	defaultKeep     = 7
	defaultMode     = 0o640
	defaultMaxPaths = 4096
)

// Spec describes the output to the agent.
var Spec = plugins.OutputSpec("file", "Write NDJSON files, each record exactly once.", Config{
	Rotate:   Rotate{Size: conf.Size(defaultSize), Keep: defaultKeep, Compress: "none"},
	Sync:     "checkpoint",
	Mode:     defaultMode,
	MaxPaths: defaultMaxPaths,
}, New).Safe()

const (
	// maxOpen files are open at once.
	maxOpen = 256
	// chunkFiles files of one call are opened, and entered in the journal, together.
	chunkFiles = 64
	// maxWrite is the most that goes to a file in one write, unless one record is larger.
	maxWrite = 1 << 20
	// minRun is how much has to stand together in a batch to be written from there: less goes into one buffer with its neighbours.
	minRun = 32 << 10
	// writePiece is how much one system call writes: longer calls have the Go scheduler take the processor away from them.
	writePiece = 64 << 10
	// keepBuffer: a write buffer that grew beyond this is not kept.
	keepBuffer = 2 * maxWrite
	// idleTokens: a file that was not written to for so many tokens is left out; if it is touched again the journal knows it.
	idleTokens = 64
)

// New builds the output.
func New(c Config, env plugins.Env) (plugins.Output, error) { return build(c, env, newTree) }

type treeFunc func(base string, dirs fs.FileMode) filesystem

func build(c Config, env plugins.Env, trees treeFunc) (*output, error) {
	t, err := parseTemplate(c.Path)
	if err != nil {
		return nil, conf.KeyError{Key: "path", Err: err}
	}
	if err := checkFields(t, env.Fields); err != nil {
		return nil, err
	}
	o := &output{
		cfg: c, template: t, log: env.Log, fail: env.Fail, stateDir: env.StateDir, trees: trees,
		files: map[string]*file{}, dirs: map[string]struct{}{}, values: map[string]struct{}{},
		adopted: map[string]struct{}{}, trim: map[string]struct{}{}, maxOpen: maxOpen, idle: idleTokens,
		worker: worker{wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})},
	}
	opt := schema.EncodeOptions{Newline: true, EventID: c.EventID}
	if env.Encoder != nil {
		o.enc = env.Encoder(opt)
	} else {
		o.enc = schema.NewEncoder(opt)
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.fail == nil {
		o.fail = func(string, error) {}
	}
	o.tree = trees(t.base, dirMode)
	return o, nil
}

// output is used from one goroutine at a time, but for Reopen and Stored. mu keeps its worker, which compresses what was put
// aside, away from the rest: it guards all that is not atomic.
type output struct {
	mu sync.Mutex

	cfg      Config
	template *pathTemplate
	enc      *schema.Encoder
	log      *slog.Logger
	fail     func(string, error)
	stateDir string
	trees    treeFunc

	tree    filesystem
	journal *journal
	gen     int64 // of the last token; what is written now goes beyond it
	started bool  // Restore is done
	maxOpen int
	idle    int64 // idleTokens
	// unrestored is why Restore failed.
	unrestored error
	others     []filesystem // opened by Restore for former bases
	broken     error        // the disk lost what was written: nothing is committed any more
	reopen     atomic.Bool

	files  map[string]*file // the open ones, and those of the call in hand
	open   int
	clock  int64               // counts calls, for the least used file
	dirs   map[string]struct{} // with names that are not synced
	values map[string]struct{} // distinct values that made paths in this run
	last   *file               // file of the previous event of the call
	inHand []*file             // files of the call, in the order of their first event
	next   []int32             // for each event of the call the next one for the same file, -1 at the end
	buf    []byte              // of writes
	render renderer
	timed  timed

	// Files put aside: see rotate.go.
	retired []*retired
	adopted map[string]struct{}
	trim    map[string]struct{}
	queue   []*retired
	job     *job
	worker  worker
	told    atomic.Int64 // the newest generation before which the agent has said that none is asked for
	closed  bool

	takenMu sync.Mutex
	taken   []takenToken // the last ones
}

// takenToken is a token that was taken.
type takenToken struct {
	gen  int64
	text []byte
}

// file is one path and its open file.
type file struct {
	name    string // relative to the base
	h       handle // nil: closed
	inode   uint64
	length  int64 // of what is whole
	covered int64 // generation in which token or journal know how long it was at its start
	written int64 // generation of the last write
	used    int64 // clock of the last call
	held    int64 // generation in which putting it aside failed
	created bool
	dirty   bool // not synced
	torn    bool // something stands after length that has to go
	glue    bool // the last line has no newline

	// Of the call in hand.
	first, end int32
	queued     bool
	busy       bool // about to be written
	err        error
}

// Write appends the events to their files. Events of one path keep their order.
func (o *output) Write(ctx context.Context, events []*event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return o.broken
	}
	if err := o.start(); err != nil {
		return err
	}
	if o.reopen.Swap(false) {
		o.letGo()
	}
	failed := o.assign(events)
	for rest := o.inHand; len(rest) > 0; {
		chunk := rest[:min(len(rest), chunkFiles, o.maxOpen)]
		rest = rest[len(chunk):]
		for _, f := range chunk {
			f.busy = true
		}
		o.prepare(chunk)
		for _, f := range chunk {
			from := f.first
			if f.err == nil {
				from = o.append(f, events)
			}
			for i := from; i >= 0; i = o.next[i] {
				failed = fail(failed, int(i), f.err)
			}
			f.busy = false
		}
	}
	o.settleCall()
	return answer(failed, len(events))
}

func fail(failed map[int]error, i int, err error) map[int]error {
	if failed == nil {
		failed = map[int]error{}
	}
	failed[i] = err
	return failed
}

// answer turns the failures of a call into its error: a plain one when nothing was written and nothing can tell the events apart.
func answer(failed map[int]error, n int) error {
	if len(failed) == 0 {
		return nil
	}
	if len(failed) == n {
		first := failed[0]
		same := true
		for _, err := range failed {
			same = same && err == first //nolint:errorlint // the very same value
		}
		if same {
			return first
		}
	}
	return &plugins.PartialError{Failed: failed}
}

// settleCall forgets all about the events of the call.
func (o *output) settleCall() {
	for _, f := range o.inHand {
		f.queued, f.err = false, nil
		if f.h == nil {
			delete(o.files, f.name)
		}
	}
	clear(o.inHand)
	o.inHand, o.last, o.timed = o.inHand[:0], nil, timed{}
	if cap(o.buf) > keepBuffer {
		o.buf = nil
	}
}

// assign finds each event's file and chains the events of each file.
func (o *output) assign(events []*event.Event) (failed map[int]error) {
	o.clock++
	if cap(o.next) < len(events) {
		o.next = make([]int32, len(events))
	}
	o.next = o.next[:len(events)]
	for i, e := range events {
		f, err := o.fileOf(e)
		if err != nil {
			failed = fail(failed, i, err)
			continue
		}
		o.next[i] = -1
		if !f.queued {
			f.queued, f.used = true, o.clock
			f.first, f.end = int32(i), int32(i)
			o.inHand = append(o.inHand, f)
			continue
		}
		o.next[f.end] = int32(i)
		f.end = int32(i)
	}
	return failed
}

func (o *output) fileOf(e *event.Event) (*file, error) {
	if o.template.static && o.last != nil {
		return o.last, nil
	}
	name := o.render.render(o.template, e, o.timed.of(e))
	if o.last != nil && o.last.name == string(name) {
		return o.last, nil
	}
	f := o.files[string(name)]
	if f == nil {
		if len(name) > maxPathLen {
			return nil, &plugins.PermanentError{Err: fmt.Errorf("the event's path would be %d bytes long, the limit is %d", len(name), maxPathLen)}
		}
		v := o.template.values(nil, e)
		if _, known := o.values[string(v)]; !known {
			if len(o.values) >= o.cfg.MaxPaths {
				return nil, &plugins.PermanentError{Err: fmt.Errorf("the values of fields make more than %d distinct paths (max_paths), the next: %s", o.cfg.MaxPaths, name)}
			}
			o.values[string(v)] = struct{}{}
		}
		f = &file{name: string(name), covered: -1, held: -1}
		o.files[f.name] = f
	}
	o.last = f
	return f, nil
}

// maxPathLen keeps paths below the kernel's 4096 bytes, base included.
const maxPathLen = 2900

// timed finds the time that an event's path takes.
type timed struct {
	batch *event.Batch
	index int
	last  time.Time
}

// of returns the event's time, else that of the last event before it in its batch that has one, else when the batch was read.
func (t *timed) of(e *event.Event) time.Time {
	if !e.Time.IsZero() {
		return e.Time
	}
	b := e.Batch()
	if b == nil {
		return time.Unix(0, 0)
	}
	if t.batch != b || t.index > e.Index() {
		*t = timed{batch: b, last: b.ReadAt}
	}
	for i := e.Index() - 1; i >= t.index; i-- {
		if at := b.Events[i].Time; !at.IsZero() {
			t.last = at
			break
		}
	}
	t.index = e.Index()
	return t.last
}

// prepare opens files and enters those in the journal that the last token does not list. Faults stand in the files.
func (o *output) prepare(files []*file) {
	var lines []entry
	for _, f := range files {
		if f.err = o.ready(f); f.err != nil || f.covered == o.gen {
			continue
		}
		var e entry
		if e, f.err = o.entryOf(f); f.err == nil {
			lines = append(lines, e)
		}
	}
	if len(lines) == 0 {
		return
	}
	err := o.journal.add(lines...)
	for _, f := range files {
		if f.err != nil || f.covered == o.gen {
			continue
		}
		if f.err = err; err == nil {
			f.covered = o.gen
		}
	}
}

// entryOf describes the file as it is before the first write of this generation.
func (o *output) entryOf(f *file) (entry, error) {
	hash, err := proof(f.h, f.length)
	if err != nil {
		return entry{}, fmt.Errorf("reading %s: %w", o.full(f.name), err)
	}
	return entry{Gen: o.gen, Path: f.name, Inode: f.inode, Length: f.length, Hash: hash, Created: f.created && f.length == 0}, nil
}

// full returns the absolute path, for people.
func (o *output) full(name string) string { return filepath.Join(o.template.base, name) }

// ready makes the file open and whole.
func (o *output) ready(f *file) error {
	if f.h != nil {
		gone, err := o.look(f)
		if err != nil || !gone {
			return err
		}
	}
	if o.open >= o.maxOpen {
		if err := o.closeLeastUsed(); err != nil {
			return err
		}
	}
	h, st, created, err := o.openLocked(f.name)
	if err != nil {
		return fmt.Errorf("opening %s: %w", o.full(f.name), err)
	}
	if o.cfg.Rotate.Size > 0 {
		o.adopt(f.name)
	}
	f.h, f.inode, f.length, f.created = h, st.inode, st.size, created
	f.covered, f.written, f.torn, f.dirty = -1, o.gen, false, false
	o.open++
	if err := o.findGlue(f); err != nil {
		o.shut(f)
		return err
	}
	return nil
}

// openLocked opens a file to write it, alone.
func (o *output) openLocked(name string) (h handle, st info, created bool, err error) {
	const tries = 3
	for range tries {
		h, created, err = o.tree.open(name, true, fs.FileMode(o.cfg.Mode))
		if err != nil {
			return nil, st, false, err
		}
		if created {
			o.dirs[path.Dir(name)] = struct{}{}
		}
		if err = h.lock(); err == nil {
			st, err = h.stat()
		}
		var at info
		if err == nil {
			at, err = o.tree.lstat(name)
		}
		if err == nil && at.inode == st.inode {
			return h, st, created, nil
		}
		_ = h.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, st, false, err
		}
		err = errors.New("the file was put aside by another program meanwhile") // and perhaps let go then
	}
	return nil, st, false, err
}

// look compares an open file with what is known of it: others may have cut or removed it.
func (o *output) look(f *file) (gone bool, err error) {
	st, err := f.h.stat()
	if err != nil {
		return false, fmt.Errorf("looking at %s: %w", o.full(f.name), err)
	}
	if st.links == 0 {
		o.log.Warn("output file was removed, making it anew", "path", o.full(f.name))
		o.shut(f)
		return true, nil
	}
	if f.torn && st.size > f.length {
		if err := f.h.Truncate(f.length); err != nil {
			return false, fmt.Errorf("cutting %s back: %w", o.full(f.name), err)
		}
		st.size = f.length
	}
	f.torn = false
	if st.size == f.length {
		return false, nil
	}
	o.log.Warn("output file was changed by another program, going on at its end", "path", o.full(f.name), "expected", f.length, "found", st.size)
	f.length = st.size
	return false, o.findGlue(f)
}

// findGlue finds out whether the file ends within a line.
func (o *output) findGlue(f *file) error {
	f.glue = false
	if f.length == 0 {
		return nil
	}
	var b [1]byte
	if n, err := f.h.ReadAt(b[:], f.length-1); n < 1 {
		return fmt.Errorf("reading %s: %w", o.full(f.name), err)
	}
	f.glue = b[0] != '\n'
	return nil
}

// shut closes the file without more ado.
func (o *output) shut(f *file) {
	_ = f.h.Close()
	f.h, f.inode, f.length, f.covered, f.dirty, f.torn = nil, 0, 0, -1, false, false
	o.open--
}

// release syncs and closes the file.
func (o *output) release(f *file) error {
	if f.torn { // whoever opens it next knows nothing of that
		if _, err := o.look(f); err != nil || f.h == nil {
			return err
		}
	}
	if f.dirty {
		if err := o.sync(f.h, f.name); err != nil {
			return err
		}
	}
	o.shut(f)
	return nil
}

// sync forces a file to the disk. When that fails, the kernel has forgotten what it could not write, and asking again would
// succeed: nothing may be committed on that any more.
func (o *output) sync(h handle, name string) error {
	err := h.Sync()
	if err != nil {
		o.broken = fmt.Errorf("syncing %s: %w (data may be lost; nothing more is committed until the agent is started again)", o.full(name), err)
		o.fail("sync", o.broken)
		return o.broken
	}
	return nil
}

// closeLeastUsed makes room for another open file.
func (o *output) closeLeastUsed() error {
	var least *file
	for _, f := range o.files {
		if f.h != nil && (least == nil || f.used < least.used || f.used == least.used && f.name < least.name) && !f.busy {
			least = f
		}
	}
	if least == nil {
		return nil
	}
	if err := o.release(least); err != nil {
		return err
	}
	if !least.queued {
		delete(o.files, least.name)
	}
	return nil
}

// append writes the file's events of the call. It returns the first one that was not written, -1 if all were; the reason stands
// in the file.
func (o *output) append(f *file, events []*event.Event) int32 {
	limit := int64(o.cfg.Rotate.Size)
	buf := o.buf[:0]
	defer func() { o.buf = buf[:0] }()
	if f.glue {
		buf = append(buf, '\n')
	}
	from := f.first // the first event that stands in buf
	for i := f.first; i >= 0; i = o.next[i] {
		if len(buf) == 0 {
			if p, last := o.run(i, events); len(p) >= minRun && (limit == 0 || f.length+int64(len(p)) <= limit) {
				if f.err = o.flush(f, p); f.err != nil {
					return i
				}
				i, from = last, o.next[last]
				continue
			}
		}
		before := len(buf)
		buf = o.enc.Append(buf, events[i])
		if limit > 0 && f.length+int64(len(buf)) > limit && f.length+int64(before) > 0 && f.held != o.gen {
			if before > 0 {
				if f.err = o.flush(f, buf[:before]); f.err != nil {
					return from
				}
				from = i
			}
			buf = buf[:copy(buf, buf[before:])]
			if o.putAside(f) {
				if o.prepare([]*file{f}); f.err != nil {
					return from
				}
				if f.glue {
					buf = append([]byte{'\n'}, buf...)
				}
			}
		}
		if len(buf) >= maxWrite {
			if f.err = o.flush(f, buf); f.err != nil {
				return from
			}
			buf, from = buf[:0], o.next[i]
		}
	}
	if len(buf) > 0 {
		if f.err = o.flush(f, buf); f.err != nil {
			return from
		}
	}
	return -1
}

// run returns the encodings of the events from i on that stand next to each other in their batch and go to one file, with the
// last of them, so that they are written without a copy.
func (o *output) run(i int32, events []*event.Event) (p []byte, last int32) {
	end := i
	for o.next[end] == end+1 {
		end++
	}
	p, n := o.enc.Run(events[i : end+1])
	return p, i + int32(n) - 1
}

// flush writes whole records, all or none.
func (o *output) flush(f *file, p []byte) error {
	var err error
	for rest := p; err == nil && len(rest) > 0; {
		piece := rest[:min(len(rest), writePiece)]
		_, err = f.h.Write(piece)
		rest = rest[len(piece):]
	}
	if err == nil && o.cfg.Sync == syncAlways {
		if err = f.h.Sync(); err == nil {
			err = o.syncDirs()
		}
	}
	if err != nil {
		f.torn = true
		f.dirty = true
		if f.h.Truncate(f.length) == nil {
			f.torn = false
		}
		return fmt.Errorf("writing %s: %w", o.full(f.name), err)
	}
	f.length += int64(len(p))
	f.written, f.glue = o.gen, false
	f.dirty = o.cfg.Sync != syncAlways
	return nil
}

func (o *output) syncDirs() error {
	for d := range o.dirs {
		if err := o.tree.syncDir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("syncing directory %s: %w", o.full(d), err)
		}
		delete(o.dirs, d)
	}
	return nil
}

// Reopen has the next Write let go of files whose path leads elsewhere by now.
func (o *output) Reopen() { o.reopen.Store(true) }

func (o *output) letGo() {
	_ = o.tree.close() // the base itself may be another one
	for name, f := range o.files {
		st, err := o.tree.lstat(name)
		if f.h == nil || err == nil && st.inode == f.inode || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := o.release(f); err != nil {
			o.log.Warn("letting go of output file", "path", o.full(name), "error", err)
			continue
		}
		delete(o.files, name)
	}
}

// Close compresses what the last token that is known to be stored is past, for at most closeBudget, and lets go of all files.
// What was written after the last token is cut when the next run restores it.
func (o *output) Close() error {
	if o.closed {
		return nil
	}
	o.closed = true
	o.finishWork()
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for name, f := range o.files {
		if f.h != nil {
			errs = append(errs, o.release(f))
		}
		delete(o.files, name)
	}
	for _, r := range o.retired {
		errs = append(errs, o.sealed(r))
	}
	errs = append(errs, o.syncDirs(), o.journal.close(), o.tree.close())
	if o.journal != nil {
		errs = append(errs, o.journal.tree.close())
	}
	return errors.Join(errs...)
}

var (
	_ plugins.Committer = (*output)(nil)
	_ plugins.Confirmer = (*output)(nil)
	_ plugins.Reopener  = (*output)(nil)
	_ plugins.Closer    = (*output)(nil)
)
