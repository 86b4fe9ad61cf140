package formats

import (
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// startDone takes the two lines that cinder, manila, tacker and neutron's extensions write about a request.
//
// start-done is
//
//	METHOD URL
//	URL returned with HTTP STATUS
//
// behind the prefix of oslo.log. Source: cinder/api/openstack/wsgi.py, and manila's, neutron's and tacker's copies; their fault
// middleware writes the second line alone. The second line is the access record: its time is the end, its URL is absolute, with
// the host as the client named it. The method and the start come from the first line with the same request id in the same file;
// the duration is the difference of the two times, to the millisecond; one of another user, project or URL is not its first line. The
// first line by itself is a service_log record. STATUS may be the name of one (HTTPStatus.NOT_FOUND). No size, no client, no protocol.
//
// cinder's fault middleware takes the attribute "code" of any exception for a status: `returned with HTTP f405` tells of an error in
// SQLAlchemy, and its client got a 500. Such a line is not of this grammar: it is unparsed, with reason start-done:status. The
// request is in the log of the server in front, with the status that its client got.
func (p *Parser) startDone(s string, e *event.Event) Verdict {
	if strings.HasPrefix(s, "http") {
		return p.secondLine(s, e)
	}
	m, url, ok := field(s)
	if !ok || !isMethod(m) || !isURL(url) {
		return Unparsed
	}
	p.reason = ReasonStartDone
	if e.RequestID != "" && len(m) <= len(pair{}.method) && p.mask>>startDonePair&1 != 0 {
		p.pairs.open(e, m, url, p.at)
	}
	return Service
}

// isURL reports whether s is an absolute URL.
func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") && len(s) > 7 || strings.HasPrefix(s, "https://") && len(s) > 8
}

// secondLine takes the second line.
func (p *Parser) secondLine(s string, e *event.Event) Verdict {
	const returned = " returned with HTTP "
	if !isURL(s) {
		return Unparsed
	}
	i := strings.LastIndex(s, returned)
	if i < 0 {
		if strings.Contains(s, " returned a fault: ") {
			p.reason = ReasonStartDone
			return Service
		}
		return Unparsed
	}
	word, _, _ := strings.Cut(s[i+len(returned):], " ")
	status, ok := status3(word)
	if !ok {
		if status, ok = namedStatus(word); !ok {
			return p.parts(startDonePair, atStatus, s[i+len(returned):])
		}
	}
	if !p.enabled(startDonePair) {
		return Unparsed
	}
	_, rest, _ := strings.Cut(s[:i], "://")
	host, target := rest, ""
	if j := strings.IndexAny(rest, "/?"); j >= 0 {
		host, target = rest[:j], rest[j:]
	}
	e.Path, e.Query = splitTarget(target)
	if e.Path == "" {
		e.Path = "/"
	}
	e.Host = withoutPort(host)
	setStatus(e, status)
	p.pairs.close(e, s[:i], p.at)
	access(e, startDonePair, basisEnd)
	return Access
}

// withoutPort takes the port and the brackets of an address off a host.
func withoutPort(s string) string {
	if len(s) > 2 && s[0] == '[' {
		if i := strings.IndexByte(s, ']'); i > 0 {
			return s[1:i]
		}
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if _, ok := digits(s[i+1:]); ok {
			return s[:i]
		}
	}
	return s
}

// namedStatus reads the name of a status, as Python before 3.11 prints it.
func namedStatus(s string) (int32, bool) {
	switch strings.TrimPrefix(s, "HTTPStatus.") {
	case "OK":
		return 200, true
	case "CREATED":
		return 201, true
	case "ACCEPTED":
		return 202, true
	case "NO_CONTENT":
		return 204, true
	case "MULTIPLE_CHOICES":
		return 300, true
	case "FOUND":
		return 302, true
	case "BAD_REQUEST":
		return 400, true
	case "UNAUTHORIZED":
		return 401, true
	case "FORBIDDEN":
		return 403, true
	case "NOT_FOUND":
		return 404, true
	case "METHOD_NOT_ALLOWED":
		return 405, true
	case "NOT_ACCEPTABLE":
		return 406, true
	case "CONFLICT":
		return 409, true
	case "REQUEST_ENTITY_TOO_LARGE":
		return 413, true
	case "UNSUPPORTED_MEDIA_TYPE":
		return 415, true
	case "INTERNAL_SERVER_ERROR":
		return 500, true
	case "NOT_IMPLEMENTED":
		return 501, true
	case "SERVICE_UNAVAILABLE":
		return 503, true
	}
	return 0, false
}

// PairWindow is how many bytes a second line can stand behind its first one: further back, it is on its own.
const PairWindow = 4 << 20

// Bounds of what is remembered of first lines.
const (
	maxPairs = 4096
	pairTime = 60 * time.Second // of the log's own time
)

// pair is a first line whose second has not come.
type pair struct {
	id            uint64 // hash of the request id
	at            int64  // its time in Unix nanoseconds
	seen          int64  // where it stands
	closed        int64  // where its second line stands, if that has come
	url           uint64 // hash of it
	user, project uint64 // hashes; 0: none
	method        [16]byte
	n             uint8 // length of method
	done          bool  // the second line has come
}

// pairs remembers first lines, in their order: a ring that grows to maxPairs. What the lines from some place on did to it can be
// taken back (rewind), for lines are read again, and must then find what they found.
type pairs struct {
	ring []pair
	head int // the oldest
	len  int // how many, done ones among them
	// opened and ended are what the line in hand did.
	opened bool
	ended  *pair

	met bool // the file has such lines
}

// forget drops all of them.
func (r *pairs) forget() { r.head, r.len, r.opened, r.ended, r.met = 0, 0, false, nil, false }

// begin begins a line.
func (r *pairs) begin() { r.opened, r.ended = false, nil }

// undo takes back what the line in hand did.
func (r *pairs) undo() {
	if r.opened {
		r.len--
	}
	if r.ended != nil {
		r.ended.done = false
	}
	r.begin()
}

// nth is the nth oldest.
func (r *pairs) nth(n int) *pair { return &r.ring[(r.head+n)&(len(r.ring)-1)] }

// rewind takes back what the lines from that place on did.
func (r *pairs) rewind(place int64) {
	for r.len > 0 && r.nth(r.len-1).seen >= place {
		r.len--
	}
	for i := range r.len {
		if x := r.nth(i); x.done && x.closed >= place {
			x.done = false
		}
	}
}

// open remembers a first line that stands at place. Of too many the oldest is forgotten.
func (r *pairs) open(e *event.Event, method, url string, place int64) {
	r.met = true
	if r.ring == nil {
		r.ring = make([]pair, 64)
	}
	r.expire(place)
	if r.len == len(r.ring) {
		if len(r.ring) < maxPairs {
			r.grow()
		} else {
			r.drop()
		}
	}
	x := r.nth(r.len)
	*x = pair{id: xxh3.HashString(e.RequestID), at: e.Time.UnixNano(), seen: place, url: xxh3.HashString(url)}
	x.user, x.project = owner(e)
	x.n = uint8(copy(x.method[:], method))
	r.len++
	r.opened = true
}

// drop forgets the oldest.
func (r *pairs) drop() {
	r.head = (r.head + 1) & (len(r.ring) - 1)
	r.len--
}

// grow doubles the ring.
func (r *pairs) grow() {
	bigger := make([]pair, 2*len(r.ring))
	for i := range r.len {
		bigger[i] = *r.nth(i)
	}
	r.ring, r.head = bigger, 0
}

// expire forgets what no second line can follow any more, not even if the lines of another window are read again.
func (r *pairs) expire(place int64) {
	for r.len > 0 && place-r.nth(0).seen >= 2*PairWindow {
		r.drop()
	}
}

// close finds the first line of the request that e, which stands at place, is the second line of, and takes what it knows.
func (r *pairs) close(e *event.Event, url string, place int64) {
	r.met = true
	if r.len == 0 || e.RequestID == "" {
		return
	}
	r.expire(place)
	now := e.Time.UnixNano()
	id := xxh3.HashString(e.RequestID)
	target := xxh3.HashString(url)
	user, project := owner(e)
	for i := r.len - 1; i >= 0; i-- {
		x := r.nth(i)
		if x.id != id || x.done || x.url != target || differ(x.user, user) || differ(x.project, project) {
			continue
		}
		if took := time.Duration(now - x.at); took >= 0 && took <= pairTime && place-x.seen < PairWindow {
			e.Method = knownMethod(x.method[:x.n])
			e.SetDuration(took)
		}
		x.done, x.closed = true, place
		r.ended = x
		return
	}
}

// owner is whose a line is, as hashes; 0 where it does not say.
func owner(e *event.Event) (user, project uint64) {
	if e.User != "" {
		user = xxh3.HashString(e.User)
	}
	if e.ProjectID != "" {
		project = xxh3.HashString(e.ProjectID)
	}
	return user, project
}

// differ reports whether two lines say different things.
func differ(a, b uint64) bool { return a != 0 && b != 0 && a != b }

// knownMethod is the method as a string that outlives every batch; an unusual one costs an allocation.
func knownMethod(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "PATCH":
		return "PATCH"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	}
	return string(b)
}
