package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/xxh3"
)

// IDLen is the length of an event's id in text: 128 bits in hexadecimal digits.
const IDLen = 32

// AppendID appends the event's id: the first 128 bits, in lower-case hexadecimal digits, of SHA-256 over the stream's name, a
// zero byte, the offset of the record and the XXH3-64 of its first line, both little endian; for a record that was closed by
// wall time also its length. It is computed anew at each call, so only outputs that need it pay for it. The same record of
// the same stream has the same id after any restart, move or compression.
func (e *Event) AppendID(dst []byte) []byte {
	var scratch [160]byte
	in := scratch[:0]
	if e.batch != nil {
		in = append(in, e.batch.Stream...)
	}
	in = append(in, 0)
	in = binary.LittleEndian.AppendUint64(in, uint64(e.Offset))
	in = binary.LittleEndian.AppendUint64(in, e.LineHash())
	if e.Length > 0 {
		in = binary.LittleEndian.AppendUint64(in, uint64(e.Length))
	}
	sum := sha256.Sum256(in)
	return hex.AppendEncode(dst, sum[:IDLen/2])
}

// LineHash returns the hash of the record's first line as it was read: the part of the id that a copy of the event in another process
// cannot compute once Raw was replaced.
func (e *Event) LineHash() uint64 {
	if e.line != 0 {
		return e.line
	}
	return hashLine(e.Raw)
}

// SetLineHash gives an event that came from another process the hash that LineHash returned there.
func (e *Event) SetLineHash(h uint64) { e.line = h }

// hashLine returns the hash of the first line of a record.
func hashLine(raw []byte) uint64 {
	if i := bytes.IndexByte(raw, '\n'); i >= 0 {
		raw = raw[:i]
	}
	return xxh3.Hash(raw)
}

// ID returns what AppendID appends.
func (e *Event) ID() string { return string(e.AppendID(nil)) }
