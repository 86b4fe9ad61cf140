// Package checkpoint keeps on disk how far every output has read every stream, and what outputs need to undo. It is the one
// place that knows a position.
//
// A state directory holds one snapshot, "checkpoint", replaced atomically, the generation before it, "checkpoint.prev", and a
// lock. A snapshot is a header line with a checksum and a JSON document, so that an operator can read it.
package checkpoint

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Format is the version of the snapshot's format that this program writes, and the newest that it reads.
const Format = 1

const (
	fileName = "checkpoint"
	prevName = "checkpoint.prev"
	tempName = "checkpoint.new"
	linkName = "checkpoint.link" // of the next previous one, for a moment
	lockName = "lock"
	magic    = "stacktrail-checkpoint"
)

// Snapshot is the whole state of an agent at one moment.
type Snapshot struct {
	NodeID    string              `json:"node_id,omitempty"` // only where it was made up: it has to stay the same
	Written   time.Time           `json:"written"`
	Pipelines map[string]Pipeline `json:"pipelines"`
}

// Pipeline is the state of one pipeline.
type Pipeline struct {
	Streams []Stream          `json:"streams"`
	Outputs map[string]Output `json:"outputs"`
}

// Stream is the state of one stream: where every output stands in it.
type Stream struct {
	Input   string            `json:"input"`
	Name    string            `json:"name"`
	Lane    string            `json:"lane"`
	Meta    []byte            `json:"meta,omitempty"`
	Drained bool              `json:"drained,omitempty"`
	Cursors map[string]Cursor `json:"cursors"`

	encoded []byte
}

// Encoded returns the stream with its encoding, which Save uses as it is: of many streams few change between two snapshots.
func (s Stream) Encoded() Stream {
	s.encoded = mustMarshal(s)
	return s
}

// Cursor is a position in a stream.
type Cursor struct {
	Seq   int64  `json:"seq"`
	Token []byte `json:"token,omitempty"`
}

// Output is what an output needs to undo what was written after the snapshot.
type Output struct {
	Token     []byte `json:"token,omitempty"`
	DeadToken []byte `json:"dead_token,omitempty"` // of its dead letter
}

// NewerError says that the state was written by a newer program. The agent leaves it alone.
type NewerError struct {
	Path   string
	Format int
}

// Error says which format was found and which one is known.
func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has format %d, this program knows formats up to %d: run the program that wrote it, or a newer one", e.Path, e.Format, Format)
}

// LockedError says that another agent uses the state directory.
type LockedError struct {
	Dir string
	PID int // 0 when the other one did not say
}

// Error names the process that holds the lock.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("state directory %s is in use by another agent", e.Dir)
	}
	return fmt.Sprintf("state directory %s is in use by the agent with pid %d", e.Dir, e.PID)
}

// Store is an open state directory. Only one process can have it open. Its methods are not safe for concurrent use.
type Store struct {
	dir  string
	lock *os.File
	buf  []byte // of the last snapshot
}

// Open makes the directory if need be and locks it. The error is a *LockedError when another process has it.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }() // nothing was written through it
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking the state directory %s: %w", dir, err)
		}
		b := make([]byte, 20)
		n, _ := f.ReadAt(b, 0) // an unreadable lock names no pid
		pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
		if err != nil {
			pid = 0
		}
		return nil, &LockedError{dir, pid}
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			// A full disk must not keep the agent from running: the lock holds without the number.
			return &Store{dir: dir, lock: f}, nil
		}
	}
	return &Store{dir: dir, lock: f}, nil
}

// Close gives the lock back.
func (s *Store) Close() error { return s.lock.Close() }

// Load reads the newest good snapshot. damage lists what was found damaged and set aside; with damage and a nil snapshot there is
// none that is good: then strict leaves everything where it is, so that the next Load finds the same. A nil snapshot without damage
// means that there is none yet. The error is a *NewerError, or says that a file cannot be read; nothing was set aside.
func (s *Store) Load(strict bool) (snap *Snapshot, damage []error, err error) {
	var missing error
	bad := map[string]error{} // by paths
	for _, name := range []string{fileName, prevName} {
		path := filepath.Join(s.dir, name)
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			if name == fileName {
				missing = fmt.Errorf("%s is not there, the one before it is", path)
				continue
			}
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("reading the checkpoint: %w", err)
		}
		snap, err = decode(path, b)
		if err == nil {
			if missing != nil {
				damage = append(damage, missing)
			}
			break
		}
		if _, newer := errors.AsType[*NewerError](err); newer {
			return nil, nil, err
		}
		bad[path] = err
	}
	for _, path := range slices.Sorted(maps.Keys(bad)) {
		err, aside := bad[path], path+asideSuffix
		if strict && snap == nil {
			damage = append(damage, err)
			continue
		}
		if e := os.Rename(path, aside); e == nil {
			err = fmt.Errorf("%w; set aside as %s", err, aside)
		}
		damage = append(damage, err)
	}
	return snap, damage, nil
}

// Peek reads the checkpoint of a state directory that may be another agent's at this moment, and changes nothing. It returns nil
// where there is none that can be read.
func Peek(dir string) *Snapshot {
	for _, name := range []string{fileName, prevName} {
		path := filepath.Join(dir, name)
		if b, err := os.ReadFile(path); err == nil {
			if snap, err := decode(path, b); err == nil {
				return snap
			}
		}
	}
	return nil
}

// Save replaces the snapshot. When it returns nil the new one is on disk, whatever happens next.
func (s *Store) Save(snap *Snapshot) error {
	var b []byte
	s.buf, b = encode(s.buf, snap)
	temp, cur, prev := filepath.Join(s.dir, tempName), filepath.Join(s.dir, fileName), filepath.Join(s.dir, prevName)
	if err := writeSynced(temp, b); err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	if err := keepPrevious(cur, prev, filepath.Join(s.dir, linkName)); err != nil {
		return fmt.Errorf("keeping the previous checkpoint: %w", err)
	}
	if err := os.Rename(temp, cur); err != nil {
		return fmt.Errorf("replacing the checkpoint: %w", err)
	}
	return syncDir(s.dir)
}

// Size is how long the last checkpoint is, 0 where there is none.
func (s *Store) Size() int {
	fi, err := os.Stat(filepath.Join(s.dir, fileName))
	if err != nil {
		return 0
	}
	return int(fi.Size())
}

// TryRoom reports whether the directory takes n bytes more: it writes them where the next checkpoint is written, and removes them.
func (s *Store) TryRoom(n int) error {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails; zeros take no room on some disks
	temp := filepath.Join(s.dir, tempName)
	err := writeSynced(temp, b)
	if e := os.Remove(temp); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("looking for room in the state directory: %w", err)
	}
	return nil
}

// keepPrevious makes the current checkpoint the previous one, too, by a second name, which replaces the old one at once: there is no
// moment without either of them.
func keepPrevious(cur, prev, link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(cur, link); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // there is no current one
		}
		return err
	}
	if err := os.Rename(link, prev); err != nil {
		return err
	}
	// A rename onto another name of the same file does nothing.
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening the state directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing the state directory: %w", err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode makes "stacktrail-checkpoint FORMAT LENGTH CRC32C\n" and the document, at the end of buf, which it may replace.
func encode(buf []byte, snap *Snapshot) (used, all []byte) {
	const room = len(magic) + len(" 1 12345678901234567890 12345678\n")
	used = appendDocument(append(buf[:0], make([]byte, room)...), snap)
	doc := used[room:]
	head := fmt.Sprintf("%s %d %d %08x\n", magic, Format, len(doc), crc32.Checksum(doc, castagnoli))
	all = used[room-len(head):]
	copy(all, head)
	return used, all
}

// appendDocument appends what json.Marshal would make of the snapshot, out of what is encoded already.
func appendDocument(b []byte, snap *Snapshot) []byte {
	b = append(b, '{')
	if snap.NodeID != "" {
		b = append(append(append(b, `"node_id":`...), mustMarshal(snap.NodeID)...), ',')
	}
	b = append(append(append(b, `"written":`...), mustMarshal(snap.Written)...), `,"pipelines":{`...)
	for i, name := range slices.Sorted(maps.Keys(snap.Pipelines)) {
		p := snap.Pipelines[name]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, mustMarshal(name)...), `:{"streams":[`...)
		for j := range p.Streams {
			if j > 0 {
				b = append(b, ',')
			}
			if enc := p.Streams[j].encoded; enc != nil {
				b = append(b, enc...)
			} else {
				b = append(b, mustMarshal(p.Streams[j])...)
			}
		}
		b = append(append(append(b, `],"outputs":`...), mustMarshal(p.Outputs)...), '}')
	}
	return append(b, "}}"...)
}

// mustMarshal encodes what consists of strings, numbers, times and maps of these.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: encoding the checkpoint: " + err.Error())
	}
	return b
}

func decode(path string, b []byte) (*Snapshot, error) {
	head, doc, ok := bytes.Cut(b, []byte{'\n'})
	var format, length int
	var sum uint32
	if n, err := fmt.Sscanf(string(head), magic+" %d %d %x", &format, &length, &sum); !ok || n < 1 || (err != nil && format <= Format) {
		return nil, fmt.Errorf("%s is damaged: its first line is no checkpoint's", path)
	}
	if format > Format {
		return nil, &NewerError{path, format}
	}
	switch {
	case len(doc) != length:
		return nil, fmt.Errorf("%s is damaged: it has %d bytes instead of %d", path, len(doc), length)
	case crc32.Checksum(doc, castagnoli) != sum:
		return nil, fmt.Errorf("%s is damaged: its checksum differs", path)
	}
	snap := new(Snapshot)
	if err := json.Unmarshal(doc, snap); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return snap, nil
}
