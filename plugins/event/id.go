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
	line := e.line
	if line == 0 {
		line = hashLine(e.Raw)
	}
	in = binary.LittleEndian.AppendUint64(in, line)
	if e.Length > 0 {
		in = binary.LittleEndian.AppendUint64(in, uint64(e.Length))
	}
	sum := sha256.Sum256(in)
	return hex.AppendEncode(dst, sum[:IDLen/2])
}

// hashLine returns the hash of the first line of a record.
func hashLine(raw []byte) uint64 {
	if i := bytes.IndexByte(raw, '\n'); i >= 0 {
		raw = raw[:i]
	}
	return xxh3.Hash(raw)
}

// ID returns what AppendID appends.
func (e *Event) ID() string { return string(e.AppendID(nil)) }
