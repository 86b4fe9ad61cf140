package tail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/inputs/internal/lines"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// meta is what finds and proves a stream's file again, as the checkpoint keeps it.
type meta struct {
	Version int    `json:"v"`
	Path    string `json:"path"`             // without rotation suffix, where it was first seen
	File    string `json:"file"`             // where it was last seen
	Target  string `json:"target,omitempty"` // what a symbolic link there led to
	Dev     uint64 `json:"dev,omitempty"`
	Ino     uint64 `json:"ino,omitempty"`
	Head    string `json:"head"` // XXH3 of the first HeadLen bytes
	HeadLen int    `json:"head_len"`
	Twin    int    `json:"twin,omitempty"`
	// Size and Time are the file's own size (compressed, if it is) and modification time in ns when last looked at; End is the
	// size of its content as far as known.
	Size int64  `json:"size"`
	Time int64  `json:"time,omitempty"`
	End  int64  `json:"end"`
	Boot string `json:"boot,omitempty"`
	// Proofs are some of the places before the position, for telling what a copy that ends before it is a copy of.
	Proofs []place `json:"proofs,omitempty"`
	// Long is XXH3 of the first 1 KiB, once there is that much: programs may begin each of their files with the same line.
	Long string `json:"long,omitempty"`
	// Cuts are offsets at which a record was closed without a newline, or open, when its file was done with: later bytes are records of their own.
	Cuts []int64 `json:"cuts,omitempty"`
	// Quiets are offsets at which a record was closed because the file did not grow: later lines are records of their own.
	Quiets []int64 `json:"quiets,omitempty"`
	// Gone is the time (Unix seconds) since which a drained stream's file is not there any more.
	Gone int64 `json:"gone,omitempty"`
	// Since is when (ns) the lineage was seen first: rotated files that were not written after it are older than what is followed.
	Since int64 `json:"since,omitempty"`
	// Pipe marks the stream of a named pipe: it has no content to find again.
	Pipe bool `json:"pipe,omitempty"`
	// Empty marks what stands for a log of which no line was seen so far: see markEmpty.
	Empty bool `json:"empty,omitempty"`
}

const metaVersion = 1

func decodeMeta(data []byte) (meta, error) {
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("reading what the checkpoint knows of the stream: %w", err)
	}
	if m.Version != metaVersion {
		return m, fmt.Errorf("reading what the checkpoint knows of the stream: version %d is unknown", m.Version)
	}
	return m, nil
}

func (m meta) encode() []byte {
	data, err := json.Marshal(m)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return data
}

// streamName names a stream: see decision on names in the design. line is the first line without its newline, up to 1 KiB.
func streamName(node, path string, line []byte, twin int) string {
	h := sha256.New()
	for _, part := range []string{node, path} {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(line))))
	h.Write(line)
	if twin > 0 {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(twin)))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// A token is the hash of the up to 1 KiB before the position, in hexadecimal digits; after a dot there is room for the offset of
// the oldest state that is still open there.
func tokenOf(sum uint64) string {
	var b [16]byte
	return string(hex.AppendEncode(b[:0], binary.BigEndian.AppendUint64(nil, sum)))
}

// hexSum is how a stream's first line stands in its meta.
func hexSum(head []byte) string { return strconv.FormatUint(xxh3.Hash(head), 16) }

func parseToken(token string) (sum uint64, err error) {
	if i := bytes.IndexByte([]byte(token), '.'); i >= 0 {
		token = token[:i]
	}
	sum, err = strconv.ParseUint(token, 16, 64)
	if err != nil || len(token) != 16 {
		return 0, fmt.Errorf("reading position: token %q is not one of this input", token)
	}
	return sum, nil
}

// stream is a stream with the place up to which it was read. It is used from one goroutine at a time.
type stream struct {
	name   string
	lane   string
	meta   meta
	pos    int64
	sum    uint64 // of the up to 1 KiB before pos
	maker  *lines.Maker
	fileAt time.Time // modification time that the parser was told

	// clear is the offset up to which there is no newline after pos; it is pos or less when nothing is known.
	clear int64
	want  int // how much one read should ask for

	file    *file // where the content is, nil while it is not found
	opened  bool  // it is read, or was
	drained bool
	stored  bool   // the agent knows it
	named   bool   // declared to the agent in this run
	saved   string // the meta that the agent has
	cutEnd  bool   // the last record ended without a newline, or open, at the end of the file
	quiet   bool   // the last record was closed because the file did not grow

	// pending is where the lines end that are complete in an open record at pos, when nothing follows them so far; 0 if there is none.
	pending int64
	need    int // how much a block must hold to tell where the record at pos ends; 0 when nothing is known

	places []place // that were passed, oldest first

	// emptied: its file was cut or written anew in place, so that whoever copied it before has finished.
	emptied bool
	// settled: all that was ever seen of it was read when its file was emptied. If more of it is found, it is read; if none is, nothing is
	// missing, so a restart need not find it.
	settled bool

	lost     bool // searched for in vain: what was not read is counted
	searches int
	searched time.Time
	restless time.Time // since when the folder did not rest while it was searched
	told     bool      // that it does not
}

func newStream(name, lane string, m meta) *stream {
	return &stream{name: name, lane: lane, meta: m, want: event.MaxBatchBytes, places: slices.Clone(m.Proofs)}
}

// inode is that of the file that held the stream when it was last looked at.
func (s *stream) inode() fileID { return fileID{s.meta.Dev, s.meta.Ino} }

// place is a position that was read past, with the hash of the up to 1 KiB before it.
type place struct {
	Off int64  `json:"o"`
	Sum uint64 `json:"s,string"`
}

// maxPlaces is how many places a stream remembers: each batch ends at one, older ones are thinned out. keptPlaces of them go into
// the checkpoint.
const (
	maxPlaces  = 64
	keptPlaces = 8
)

// passed remembers the position.
func (s *stream) passed() {
	s.places = append(s.places, place{s.pos, s.sum})
	if len(s.places) <= maxPlaces {
		return
	}
	thin := s.places[:0]
	for i, p := range s.places {
		if i%2 == 0 || i >= maxPlaces/2 {
			thin = append(thin, p)
		}
	}
	s.places = thin
}

// keptProofs picks places for the checkpoint: the younger, the denser.
func (s *stream) keptProofs() []place {
	var kept []place
	for back := 1; back <= len(s.places) && len(kept) < keptPlaces; back *= 2 {
		kept = append(kept, s.places[len(s.places)-back])
	}
	slices.Reverse(kept)
	return kept
}

// holdsPlace reports whether content that ends before the position agrees with the stream at the last place that it reaches.
func (s *stream) holdsPlace(ctx context.Context, c content, x *scratch) (bool, error) {
	for _, p := range slices.Backward(s.places) {
		if p.Off >= s.pos {
			continue
		}
		sum, ok, err := sumBefore(ctx, c, p.Off, x.proof[:])
		if err != nil || ok {
			return err == nil && sum == p.Sum, err
		}
	}
	return false, nil
}

func (s *stream) position() event.Position {
	if s.pos == 0 {
		return event.Position{}
	}
	return event.Position{Seq: s.pos, Token: tokenOf(s.sum)}
}

// moveTo sets the place to read from.
func (s *stream) moveTo(p event.Position) error {
	s.pos, s.clear, s.sum = p.Seq, 0, xxh3.Hash(nil)
	s.pending, s.need = 0, 0
	if p.Seq < 0 {
		return fmt.Errorf("reading position: negative offset %d", p.Seq)
	}
	if p.Seq == 0 {
		return nil
	}
	sum, err := parseToken(p.Token)
	s.sum = sum
	return err
}

// head returns the hash and length that the beginning of the content must have.
func (s *stream) head() (uint64, int) {
	sum, err := strconv.ParseUint(s.meta.Head, 16, 64)
	if err != nil {
		return 0, math.MaxInt
	}
	return sum, s.meta.HeadLen
}

// nextCut is the first place after pos where a record ends that does not show it, and how it ended.
func (s *stream) nextCut() (at int64, how lines.End) {
	at, how = math.MaxInt64, lines.Closed
	for _, c := range s.meta.Cuts {
		if c > s.pos {
			at = min(at, c)
		}
	}
	for _, c := range s.meta.Quiets {
		if c > s.pos && c < at {
			at, how = c, lines.Quiet
		}
	}
	return at, how
}

// outcome is what a step came to.
type outcome int

const (
	atEnd   outcome = iota // nothing complete is left for now
	stepped                // a batch, or progress in a long line
	changed                // the file does not hold any more what was read from it
)

// scratch is a worker's own memory.
type scratch struct {
	proof [2 * proof]byte
	scan  []byte
}

func (x *scratch) block() []byte {
	if x.scan == nil {
		x.scan = make([]byte, 64<<10)
	}
	return x.scan
}

// scanStep is how much of a long line one step looks at, so that other files get their turns.
const scanStep = 4 << 20

// step reads the next batch. end is where the content ends for now (math.MaxInt64 when that shows only by reading); closed
// says that nothing will follow there, so that a last line without a newline is a record. b is nil unless a batch was made.
func (s *stream) step(ctx context.Context, pool *event.Pool, c content, end int64, closed bool, x *scratch) (b *event.Batch, o outcome, err error) {
	how := lines.More
	if closed {
		how = lines.Closed
	}
	if cut, ended := s.nextCut(); cut <= end {
		end, how = cut, ended
	}
	s.quiet = false
	return s.stepTo(ctx, pool, c, end, how, x)
}

// closePending closes the open record at the position, behind which nothing followed.
func (s *stream) closePending(ctx context.Context, pool *event.Pool, c content, how lines.End, x *scratch) (b *event.Batch, o outcome, err error) {
	end := s.pending
	b, o, err = s.stepTo(ctx, pool, c, end, how, x)
	s.quiet = how == lines.Quiet && s.pos == end
	return b, o, err
}

// stepTo reads the next batch before end; how says what stands there.
func (s *stream) stepTo(ctx context.Context, pool *event.Pool, c content, end int64, how lines.End, x *scratch) (b *event.Batch, o outcome, err error) {
	if s.pos >= end {
		return nil, atEnd, nil
	}
	if s.clear > s.pos {
		return s.longLine(ctx, pool, c, end, how, x)
	}
	n := int(min(end-s.pos, int64(max(s.want, s.need))))
	return s.block(ctx, pool, c, n, end, how, x)
}

// block reads n bytes and makes records of the lines that are complete in them.
func (s *stream) block(ctx context.Context, pool *event.Pool, c content, n int, end int64, how lines.End, x *scratch) (b *event.Batch, o outcome, err error) {
	b, err = pool.Get(ctx, n)
	if err != nil {
		return nil, atEnd, err
	}
	defer func() {
		if b == nil {
			return
		}
		if err != nil || o != stepped {
			s.maker.Discard()
			b.Release()
			b = nil
		}
	}()
	buf := b.Arena().Block(n)
	if n > event.MaxBatchBytes {
		b.Charge()
	}
	got, err := c.readAt(ctx, buf, s.pos)
	ends := s.pos+int64(got) >= end
	if errors.Is(err, io.EOF) {
		err, ends = nil, true
	}
	cut := errors.Is(err, errCut)
	if cut {
		err = nil
	}
	if err != nil {
		return b, atEnd, err
	}
	b.Arena().SetBlock(got)
	buf = buf[:got]
	// The proof comes after the read: what it finds unchanged was unchanged while the block was read.
	before, same, err := s.unchanged(ctx, c, x)
	if err != nil || !same {
		return b, changed, err
	}
	if got == 0 {
		if cut {
			return b, atEnd, errCut
		}
		return b, atEnd, nil
	}
	b.Stream, b.ReadAt = s.name, time.Now()
	from := s.position()
	if !ends {
		how = lines.More
	}
	used, done, need := s.maker.Join(b, buf, s.pos, event.MaxBatchRecords, how)
	s.pending, s.need = 0, need
	if b.Size() > 2*got { // texts that had to be put together
		b.Charge()
	}
	if used == 0 {
		if done > 0 {
			s.pending = s.pos + int64(done)
		} else {
			s.clear = s.pos + int64(got)
		}
		if ends {
			return b, atEnd, nil
		}
		if cut {
			return b, atEnd, errCut
		}
		b.Release()
		b = nil
		return nil, stepped, nil
	}
	s.adapt(n, used, got)
	s.cutEnd = buf[used-1] != '\n' || how == lines.Closed && used == got && s.maker.Continuable()
	s.sum = sumAfter(before, buf[:used], x)
	s.pos += int64(used)
	b.Span = event.Span{From: from, To: s.position()}
	return b, stepped, nil
}

// adapt reads less at a time where lines are so short that a batch is full before a block is used.
func (s *stream) adapt(asked, used, got int) {
	switch {
	case got-used > 16<<10 && asked > 32<<10:
		s.want = max(used+used/8, 32<<10)
	case s.want < event.MaxBatchBytes && used > s.want*7/8:
		s.want = min(s.want*2, event.MaxBatchBytes)
	}
}

// unchanged compares the beginning of the file and the bytes before the position with what was read there. It returns the bytes
// before the position, which stand in x.
func (s *stream) unchanged(ctx context.Context, c content, x *scratch) (before []byte, same bool, err error) {
	n := int(min(s.pos, proof))
	before = x.proof[:n]
	got, err := c.readAt(ctx, before, s.pos-int64(n))
	if err != nil && (got < n || !errors.Is(err, io.EOF) && !errors.Is(err, errCut)) {
		if errors.Is(err, io.EOF) {
			return nil, false, nil
		}
		return nil, false, err
	}
	if xxh3.Hash(before) != s.sum {
		return nil, false, nil
	}
	if c.settled() {
		return before, true, nil
	}
	sum, size := s.head()
	if size > proof {
		return nil, false, nil
	}
	head := x.proof[proof : proof+size]
	got, err = c.readAt(ctx, head, 0)
	if got < size {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return nil, false, err
	}
	return before, xxh3.Hash(head) == sum, nil
}

// sumAfter is the proof after data, which follows before; before stands at the beginning of x.
func sumAfter(before, data []byte, x *scratch) uint64 {
	if len(data) >= proof {
		return xxh3.Hash(data[len(data)-proof:])
	}
	keep := min(len(before), proof-len(data))
	w := append(x.proof[:0], before[len(before)-keep:]...)
	return xxh3.Hash(append(w, data...))
}

// longLine goes on where a line was longer than what was looked at so far. It looks at each byte once and keeps none.
func (s *stream) longLine(ctx context.Context, pool *event.Pool, c content, end int64, how lines.End, x *scratch) (*event.Batch, outcome, error) {
	scan := x.block()
	newline := int64(-1)
	ends := s.clear >= end
	for budget := scanStep; budget > 0 && !ends && newline < 0; {
		p := scan[:min(int64(len(scan)), end-s.clear)]
		got, err := c.readAt(ctx, p, s.clear)
		cut := errors.Is(err, errCut)
		if err != nil && !errors.Is(err, io.EOF) && !cut {
			return nil, atEnd, err
		}
		if i := bytes.IndexByte(p[:got], '\n'); i >= 0 {
			newline = s.clear + int64(i)
			break
		}
		s.clear += int64(got)
		budget -= len(p)
		if cut {
			return nil, atEnd, errCut
		}
		ends = errors.Is(err, io.EOF) || s.clear >= end
	}
	if newline < 0 && !ends {
		_, same, err := s.unchanged(ctx, c, x)
		if err != nil || !same {
			return nil, changed, err
		}
		return nil, stepped, nil
	}
	next := newline + 1
	if newline < 0 {
		if how != lines.Closed {
			_, same, err := s.unchanged(ctx, c, x)
			if err != nil || !same {
				return nil, changed, err
			}
			return nil, atEnd, nil
		}
		newline, next = s.clear, s.clear
	}
	if newline-s.pos <= int64(s.maker.MaxLine()) {
		n := max(int(next-s.pos), int(min(end-s.pos, int64(s.want))))
		s.clear = 0
		return s.block(ctx, pool, c, n, end, how, x)
	}
	s.cutEnd = next == newline
	return s.cutLine(ctx, pool, c, next, x)
}

// cutLine makes a record of the beginning of the line from pos to next, which is too long.
func (s *stream) cutLine(ctx context.Context, pool *event.Pool, c content, next int64, x *scratch) (*event.Batch, outcome, error) {
	n := s.maker.MaxLine()
	b, err := pool.Get(ctx, n)
	if err != nil {
		return nil, atEnd, err
	}
	buf := b.Arena().Block(n)
	if n > event.MaxBatchBytes {
		b.Charge()
	}
	got, err := c.readAt(ctx, buf, s.pos)
	if got < n {
		b.Release()
		if errors.Is(err, io.EOF) {
			return nil, changed, nil
		}
		return nil, atEnd, err
	}
	_, same, err := s.unchanged(ctx, c, x)
	if err != nil || !same {
		b.Release()
		return nil, changed, err
	}
	sum, ok, err := sumBefore(ctx, c, next, x.proof[:])
	if err != nil || !ok {
		b.Release()
		return nil, changed, err
	}
	b.Stream, b.ReadAt = s.name, time.Now()
	from := s.position()
	s.maker.FillCut(b, buf, s.pos, next-s.pos)
	s.pos, s.sum, s.clear = next, sum, 0
	b.Span = event.Span{From: from, To: s.position()}
	return b, stepped, nil
}

// prime tells the parser what it reads, and shows it what stands before the place to read from, so that it knows what it would if it
// had read on: an open traceback, say. What it sees there tells whether it has to see more.
func (s *stream) prime(ctx context.Context, c content, mtime time.Time, x *scratch) error {
	s.maker.File(s.meta.Path, s.meta.File, mtime)
	back := s.maker.Back()
	if err := s.show(ctx, c, s.pos-back, x.block()); err != nil {
		return err
	}
	if more := s.maker.Back(); more > back && s.pos > back {
		s.maker.File(s.meta.Path, s.meta.File, mtime)
		if err := s.show(ctx, c, s.pos-more, x.block()); err != nil {
			return err
		}
	}
	s.fileAt = mtime
	return nil
}

// show shows the parser the lines from an offset on to the place to read from.
func (s *stream) show(ctx context.Context, c content, from int64, block []byte) error {
	inside := from > 0 // a line
	for from = max(0, from); from < s.pos; {
		buf := block[:min(int64(len(block)), s.pos-from)]
		if got, err := c.readAt(ctx, buf, from); got < len(buf) {
			return err
		}
		skip := 0
		if inside {
			skip = bytes.IndexByte(buf, '\n') + 1
		}
		end := bytes.LastIndexByte(buf, '\n') + 1
		switch {
		case from+int64(len(buf)) == s.pos:
			end = len(buf)
		case end == 0: // in the middle of a long line
			inside, from = true, from+int64(len(buf))
			continue
		}
		s.maker.Prime(buf[skip:end], from+int64(skip))
		inside, from = false, from+int64(end)
	}
	return nil
}

// verdict says whether content holds a stream.
type verdict int

const (
	differs verdict = iota
	tooShort
	holds
)

// matches looks whether c holds the stream up to off, as head and sum prove.
func (s *stream) matches(ctx context.Context, c content, off int64, sum uint64, x *scratch) (verdict, error) {
	_, size := s.head()
	if size > proof {
		return differs, nil
	}
	got, err := c.readAt(ctx, x.proof[:proof], 0)
	if got < size {
		if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
			return tooShort, nil
		}
		return differs, err
	}
	if !s.begins(x.proof[:got]) {
		return differs, nil
	}
	found, ok, err := sumBefore(ctx, c, off, x.proof[:])
	switch {
	case err != nil:
		return differs, err
	case !ok:
		return tooShort, nil
	case found != sum:
		return differs, nil
	}
	return holds, nil
}

// begins reports whether content with this beginning, up to 1 KiB of it, can be the stream's.
func (s *stream) begins(block []byte) bool {
	sum, size := s.head()
	return size <= len(block) && xxh3.Hash(block[:size]) == sum && (s.meta.Long == "" || len(block) < proof || hexSum(block[:proof]) == s.meta.Long)
}

// learn notes the first 1 KiB of the stream, once its file has so much.
func (s *stream) learn(ctx context.Context, c content, x *scratch) error {
	if m, err := s.matches(ctx, c, s.pos, s.sum, x); err != nil || m != holds {
		return err // it was written anew: that shows when it is read
	}
	n, err := c.readAt(ctx, x.proof[:proof], 0)
	if n == proof {
		s.meta.Long = hexSum(x.proof[:proof])
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
		return nil
	}
	return err
}

// entry is what the agent gets to keep.
func (s *stream) entry() plugins.Stream {
	return plugins.Stream{Name: s.name, Lane: s.lane, Meta: s.meta.encode(), Start: s.position(), Drained: s.drained || s.settled}
}
