package formats

import (
	"bytes"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// Piece is what a line of a container's log holds of a line that the container wrote. Runtimes cut what a container writes at 16 KiB:
//
//	{"log":"TEXT","stream":"stdout",…,"time":"2006-01-02T15:04:05.000000000Z"}    docker: TEXT ends in \n, but for a part
//	2006-01-02T15:04:05.000000000Z stdout F|P TEXT                                  CRI: P is a part, F a whole line or the last part
//
// Parts of standard output and of standard error can stand among each other. What tools that read docker's objects and write them
// again put out has a space behind each colon and comma.
type Piece struct {
	From, To int    // where in the line the text stands; docker's is the inside of a JSON string
	More     bool   // it is a part, and not the last one
	Output   int    // 0: standard output, 1: standard error
	at       string // when the runtime got it
	tag      int    // where CRI's tag stands; 0: docker's
}

// Outputs is how many outputs a container has.
const Outputs = 2

// dockerShape is how a docker line is written: what stands before the text, behind it, and before the time.
type dockerShape struct{ head, tail, stamp string }

// dockerShapeOf tells a docker line's by how it begins; an empty one if it is none.
func dockerShapeOf(line []byte) dockerShape {
	switch {
	case bytes.HasPrefix(line, []byte(`{"log":"`)):
		return dockerShape{`{"log":"`, `","stream":"`, `,"time":"`}
	case bytes.HasPrefix(line, []byte(`{"log": "`)):
		return dockerShape{`{"log": "`, `", "stream": "`, `, "time": "`}
	}
	return dockerShape{}
}

// IsPart reports whether a line could be a part of a line, and not its last one. It is quick.
func IsPart(line []byte) bool {
	if len(line) < 32 {
		return false
	}
	switch {
	case line[10] == 'T' && line[4] == '-' && line[13] == ':':
		p, ok := criPiece(line)
		return ok && p.More
	case line[0] == '{':
		shape := dockerShapeOf(line)
		if shape.tail == "" {
			return false
		}
		const usual = 110 // bytes that follow the text
		tail := line[max(0, len(line)-usual):]
		i := bytes.Index(tail, []byte(shape.tail))
		if i < 0 {
			tail = line
			i = bytes.Index(tail, []byte(shape.tail))
		}
		return i >= 0 && !endsLine(tail[:i])
	}
	return false
}

// endsLine reports whether the inside of a JSON string ends in an escaped newline.
func endsLine(s []byte) bool {
	n := len(s) - 1
	if n < 1 || s[n] != 'n' {
		return false
	}
	k := n
	for k > 0 && s[k-1] == '\\' {
		k--
	}
	return (n-k)%2 == 1
}

// PieceOf reads a line of a container's log; ok is false if it is none.
func PieceOf(line []byte) (p Piece, ok bool) {
	switch {
	case len(line) < 32:
	case line[10] == 'T' && line[4] == '-' && line[13] == ':':
		return criPiece(line)
	case line[0] == '{':
		return dockerPiece(line, dockerShapeOf(line))
	}
	return p, false
}

func criPiece(line []byte) (p Piece, ok bool) {
	const shortest, longest = 20, 36 // of a time
	i := bytes.IndexByte(line[shortest:min(len(line), longest)], ' ') + shortest
	if i < shortest || len(line) < i+10 {
		return p, false
	}
	switch string(line[i : i+8]) {
	case " stdout ":
	case " stderr ":
		p.Output = 1
	default:
		return p, false
	}
	p.at, p.tag = event.View(line[:i]), i+8
	switch line[p.tag] {
	case 'F':
	case 'P':
		p.More = true
	default:
		return p, false
	}
	if c := line[p.tag+1]; c != ' ' && c != ':' {
		return p, false
	}
	n := bytes.IndexByte(line[p.tag:], ' ')
	if n < 0 {
		return p, false
	}
	p.From, p.To = p.tag+n+1, len(line)
	return p, true
}

func dockerPiece(line []byte, shape dockerShape) (p Piece, ok bool) {
	if shape.head == "" {
		return p, false
	}
	p.From = len(shape.head)
	i := bytes.Index(line[p.From:], []byte(shape.tail))
	if i < 0 {
		return p, false
	}
	p.To = p.From + i
	rest := line[p.To+len(shape.tail):]
	switch {
	case bytes.HasPrefix(rest, []byte(`stdout"`)):
	case bytes.HasPrefix(rest, []byte(`stderr"`)):
		p.Output = 1
	default:
		return p, false
	}
	k := bytes.LastIndex(rest, []byte(shape.stamp))
	if k < 0 || !bytes.HasSuffix(rest, []byte(`"}`)) || k > len(`stdout"`) && rest[k-1] != '}' {
		return p, false // somebody else's object
	}
	p.at = event.View(rest[k+len(shape.stamp) : len(rest)-2])
	p.More = !endsLine(line[p.From:p.To])
	return p, true
}

// Time is when the runtime got it; zero if that is no time.
func (p *Piece) Time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, p.at)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Like reports whether p was written by the same runtime as q, on the same output.
func (p *Piece) Like(q *Piece) bool { return p.Output == q.Output && (p.tag == 0) == (q.tag == 0) }

// Join puts a line together from the texts of its parts, as if the runtime had not cut it: what stands around them is that of line,
// whose piece p is. whole says that none is missing.
func (p *Piece) Join(line []byte, texts [][]byte, whole bool, a *event.Arena) []byte {
	n := len(line) - (p.To - p.From)
	for _, t := range texts {
		n += len(t)
	}
	d := append(a.Alloc(n)[:0], line[:p.From]...)
	for _, t := range texts {
		d = append(d, t...)
	}
	if p.tag > 0 && whole {
		d[p.tag] = 'F'
	}
	return append(d, line[p.To:]...)
}

// Continues says whether the next line goes on in the middle of a line that began before, in a container's log. It is no record of
// its own then, whatever it looks like: who has a long line written chooses where it is cut.
func (p *Parser) Continues(on bool) { p.inMiddle = on }
