package file

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/zeebo/xxh3"
)

// journal remembers, for files that the last token does not list, how long they were when they were first touched after it. It
// is on the disk before the first byte goes to such a file. Each line is the CRC-32 of the rest in hexadecimal digits, a space,
// and JSON; the first one is the header. A torn last line stands for a file that was not touched yet.
type journal struct {
	tree   filesystem
	h      handle
	header header
	lines  []entry
	length int64
	torn   bool // the last append failed and could not be taken back
	next   int  // number of lines at which old ones are dropped
}

const (
	journalName = "files.journal"
	journalTemp = "files.journal.tmp"
	journalMode = 0o600
	// Lines beyond this, if most are of old generations, are worth rewriting the journal.
	journalLines = 1024
)

type header struct {
	Version int    `json:"v"`
	ID      string `json:"journal"` // tokens name the journal that goes with them
	Base    string `json:"base"`    // the directory that the paths are relative to
	Floor   int64  `json:"floor"`   // the oldest generation of which all lines are here
}

// entry is a file as it was when it was first touched in a generation, or, with Temp, a file to remove.
type entry struct {
	Gen     int64  `json:"gen"`
	Path    string `json:"path"`
	Inode   uint64 `json:"inode,omitempty"`
	Length  int64  `json:"length"`
	Hash    string `json:"hash,omitempty"`
	Created bool   `json:"created,omitempty"`
	Temp    bool   `json:"temp,omitempty"`
}

func newJournalID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func appendLine(dst []byte, v any) []byte {
	p, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: encoding a line of the journal: %v", err))
	}
	dst = fmt.Appendf(dst, "%08x ", crc32.ChecksumIEEE(p))
	return append(append(dst, p...), '\n')
}

// loadJournal reads the journal. Its handle is not open yet: reset makes it usable.
func loadJournal(tree filesystem) (*journal, error) {
	h, _, err := tree.open(journalName, false, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the journal of files: %w", err)
	}
	defer h.Close() //nolint:errcheck // nothing was written
	st, err := h.stat()
	if err != nil {
		return nil, fmt.Errorf("reading the journal of files: %w", err)
	}
	data := make([]byte, st.size)
	if n, err := h.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the journal of files: %w", err)
	} else {
		data = data[:n]
	}
	j := &journal{tree: tree}
	for line := 1; len(data) > 0; line++ {
		text, rest, whole := bytes.Cut(data, []byte{'\n'})
		var e entry
		var into any = &e
		if line == 1 {
			into = &j.header
		}
		if !whole || !readLine(text, into) {
			if line > 1 && len(rest) == 0 {
				break // torn: its file was not touched
			}
			return nil, &damagedError{line}
		}
		if line > 1 {
			j.lines = append(j.lines, e)
		}
		data = rest
	}
	if j.header.Version != tokenVersion {
		return nil, &damagedError{1}
	}
	return j, nil
}

type damagedError struct{ line int }

func (e *damagedError) Error() string {
	return fmt.Sprintf("the journal of files is damaged in line %d", e.line)
}

func readLine(text []byte, into any) bool {
	const digits = 8
	if len(text) < digits+1 || text[digits] != ' ' {
		return false
	}
	if string(text[:digits]) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(text[digits+1:])) {
		return false
	}
	return json.Unmarshal(text[digits+1:], into) == nil
}

// reset replaces the journal in one step by one with this header and these lines.
func (j *journal) reset(hd header, lines []entry) error {
	h, err := j.tree.make(journalTemp, journalMode)
	if err != nil {
		return fmt.Errorf("making the journal of files: %w", err)
	}
	p := appendLine(nil, hd)
	for _, e := range lines {
		p = appendLine(p, e)
	}
	if _, err = h.Write(p); err == nil {
		err = h.Sync()
	}
	if err == nil {
		err = j.tree.rename(journalTemp, journalName)
	}
	if err != nil {
		_ = h.Close()
		return fmt.Errorf("writing the journal of files: %w", err)
	}
	if j.h != nil {
		_ = j.h.Close()
	}
	j.h, j.header, j.lines, j.length, j.torn = h, hd, lines, int64(len(p)), false
	j.next = max(journalLines, 2*len(lines))
	if err := j.tree.syncDir("."); err != nil {
		return fmt.Errorf("writing the journal of files: %w", err)
	}
	return nil
}

// add appends lines and returns when they are on the disk.
func (j *journal) add(lines ...entry) error {
	if j.torn {
		if err := j.h.Truncate(j.length); err != nil {
			return fmt.Errorf("mending the journal of files: %w", err)
		}
		j.torn = false
	}
	var p []byte
	for _, e := range lines {
		p = appendLine(p, e)
	}
	_, err := j.h.Write(p)
	if err == nil {
		err = j.h.Sync()
	}
	if err != nil {
		j.torn = j.h.Truncate(j.length) != nil
		return fmt.Errorf("writing the journal of files: %w", err)
	}
	j.length += int64(len(p))
	j.lines = append(j.lines, lines...)
	return nil
}

// prune drops generations below floor, when there is enough to drop.
func (j *journal) prune(floor int64, keepTemp string) error {
	if len(j.lines) < j.next {
		return nil
	}
	var live []entry
	for _, e := range j.lines {
		if e.Gen >= floor || e.Temp && e.Path == keepTemp {
			live = append(live, e)
		}
	}
	hd := j.header
	hd.Floor = floor
	return j.reset(hd, live)
}

func (j *journal) close() error {
	if j == nil || j.h == nil {
		return nil
	}
	err := j.h.Close()
	j.h = nil
	return err
}

// proofSize is how much before a cut must agree: lines of one log often share their last hundred bytes.
const proofSize = 1 << 10

// proof returns the hash of what stands before length in the file.
func proof(h handle, length int64) (string, error) {
	var buf [proofSize]byte
	n := min(length, proofSize)
	if n == 0 {
		return "", nil
	}
	if m, err := h.ReadAt(buf[:n], length-n); int64(m) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = fs.ErrInvalid
		}
		return "", err
	}
	return fmt.Sprintf("%016x", xxh3.Hash(buf[:n])), nil
}
