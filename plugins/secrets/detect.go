package secrets

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"sync"
	"unsafe"
)

// Detectors is a set of Detectors.
type Detectors uint8

const (
	fernet Detectors = 1 << iota
	token
	password
	secret
	header
	signature
	email

	// All is what runs when nobody chooses: addresses of e-mail are also names of users.
	All = fernet | token | password | secret | header | signature
)

// Names lists the names of the Detectors in the order of their bits.
func Names() []string {
	return []string{"fernet", "token", "password", "secret", "header", "signature", "email"}
}

// stems are what every finding holds, whatever its case. Each is at least window bytes long, and should end in bytes that are rare in
// logs. Key words that end in one of the words of classify must hold a stem.
func stems() []stem {
	return []stem{
		{"gaaa", fernet},
		{"token", token},
		{"pass", password},
		{"pwd=", password},
		{"pwd:", password},
		{"pwd\"", password},
		{"pwd'", password},
		{"secret", secret},
		{"api_key", secret},
		{"api-key", secret},
		{"apikey", secret},
		{"auth-key", secret},
		{"auth_key", secret},
		{"authkey", secret},
		{"url-key", secret},
		{"url_key", secret},
		{"private_key", secret},
		{"private-key", secret},
		{"privatekey", secret},
		{"private key", secret},
		{"authoriz", header},
		{"cooki", header},
		{"beare", header},
		{"basic", header},
		{"signat", signature},
		{"_sig", signature},
	}
}

type stem struct {
	text string
	set  Detectors
}

// window is how many bytes at the end of a stem the scanner looks for.
const window = 4

// hashBits is the size of the scanner's table.
const hashBits = 14

// scanner finds stems. Of each window it needs to see three bytes in a row, so it looks at every second place of a text only, and
// without waiting for what it found at the one before.
type scanner struct {
	*tables
	decode decoder
	// Where what was found in the view in hand ends, and where what was found in headers does. A value that begins before that ends
	// before that: looking for its end again and again would take the square of the time.
	covered, coveredHeader int
}

// tables are what a scanner looks things up in; nobody changes them.
type tables struct {
	set   Detectors
	stems []stem
	table [1 << hashBits]bool // of three bytes
	// first is by the hash of a window the number, plus one, of the first stem that may end in it; next the one after that.
	first [1 << hashBits]uint8
	next  []uint8
}

// three is the place in the table of the low three bytes of x, whose letters are small.
func three(x uint64) uint32 {
	const spread = 2654435761 // as Knuth has it
	return uint32(x&0xffffff) * spread >> (32 - hashBits)
}

// four is the place in first of the four bytes of x, whose letters are small.
func four(x uint32) uint32 {
	const spread = 2654435761
	return x * spread >> (32 - hashBits)
}

// small makes capital letters small, and changes some other bytes alike.
const small = 0x2020202020202020

// usual are the tables of All: there is a Redactor for each stream.
var usual = sync.OnceValue(func() *tables { return newTables(All) })

func newScanner(set Detectors) *scanner {
	if set == All {
		return &scanner{tables: usual()}
	}
	return &scanner{tables: newTables(set)}
}

func newTables(set Detectors) *tables {
	s := &tables{set: set}
	for _, x := range stems() {
		if x.set&set == 0 {
			continue
		}
		s.stems = append(s.stems, x)
		w := x.text[len(x.text)-window:]
		for i := range window - 2 {
			s.table[three(uint64(w[i])|uint64(w[i+1])<<8|uint64(w[i+2])<<16|small)] = true
		}
		at := four(binary.LittleEndian.Uint32([]byte(w)) | small&0xffffffff)
		s.next, s.first[at] = append(s.next, s.first[at]), uint8(len(s.stems))
	}
	return s
}

// hit returns the place of the first window at from or later in which a stem ends, -1 if there is none.
func (s *scanner) hit(t string, from int) int {
	p := unsafe.Slice(unsafe.StringData(t), len(t))
	i := from
	for ; i+8 <= len(p); i += 6 {
		x := binary.LittleEndian.Uint64(p[i:]) | small
		a, b, c := s.table[three(x)], s.table[three(x>>16)], s.table[three(x>>32)]
		if !a && !b && !c {
			continue
		}
		for q := i - 1; q < i+5; q++ {
			if q >= from && s.ends(t, q) {
				return q
			}
		}
	}
	for q := max(i-1, from); q+window <= len(t); q++ {
		if s.ends(t, q) {
			return q
		}
	}
	return -1
}

// ends reports whether a stem ends in the window at q.
func (s *scanner) ends(t string, q int) bool {
	if q+window > len(t) {
		return false
	}
	x := uint32(t[q]) | uint32(t[q+1])<<8 | uint32(t[q+2])<<16 | uint32(t[q+3])<<24 | small&0xffffffff
	for k := s.first[four(x)]; k != 0; k = s.next[k-1] {
		if s.stands(t, q, int(k-1)) {
			return true
		}
	}
	return false
}

// stands reports whether stem i ends in the window at q.
func (s *scanner) stands(t string, q, i int) bool {
	w := s.stems[i].text
	from := q + window - len(w)
	return t[q]|0x20 == w[len(w)-window]|0x20 && from >= 0 && equalFold(t[from:q+window], w)
}

// equalFold compares with lower, whose letters are all small, in ASCII.
func equalFold(s, lower string) bool {
	for i := range len(lower) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// triggered reports whether a text, or what it decodes to, could hold anything to find.
func (s *scanner) triggered(t string) bool {
	if s.set == 0 {
		return false
	}
	if s.plain(t) {
		return true
	}
	if nextEscape(t) < 0 {
		return false
	}
	found := false
	s.decode.each(t, true, func(v *view) bool {
		found = v.round > 0 && s.plain(v.text)
		return !found
	})
	return found
}

// plain is triggered for the text as it is.
func (s *scanner) plain(t string) bool {
	if s.hit(t, 0) >= 0 {
		return true
	}
	return s.set&(password|email) != 0 && strings.IndexByte(t, '@') >= 0
}

// secretKey reports whether the value of a field or of a JSON object's member is a secret. What is no name says nothing.
func (s *scanner) secretKey(key string) bool {
	for i := range len(key) {
		if c := key[i]; !isKey(c) && strings.IndexByte(" :/", c) < 0 {
			return false
		}
	}
	_, is := s.classify(key)
	return is
}

// classify says which detector the value of a key belongs to. What is no letter and no digit in the key does not count.
func (s *scanner) classify(key string) (Detectors, bool) {
	const longest = 80
	if len(key) > longest {
		key = key[len(key)-longest:]
	}
	var buf [longest]byte
	w := buf[:0]
	for i := range len(key) {
		c := key[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if isWord(c) {
			w = append(w, c)
		}
	}
	for len(w) > 0 && w[len(w)-1] >= '0' && w[len(w)-1] <= '9' {
		w = w[:len(w)-1]
	}
	set := class(w)
	return set, set&s.set != 0
}

func class(w []byte) Detectors {
	ends := func(suffix string) bool { return len(w) >= len(suffix) && string(w[len(w)-len(suffix):]) == suffix }
	switch {
	case len(w) < 3:
		return 0
	case ends("token"):
		return token
	case ends("bypass"), ends("compass"):
		return 0
	case ends("pass"), ends("password"), ends("passwd"), ends("pwd"), ends("passphrase"), ends("passwordconfirmation"), ends("passwordconfirm"):
		return password
	case ends("secret"), ends("secretkey"), ends("secretaccesskey"), ends("apikey"), ends("authkey"), ends("urlkey"), ends("privatekey"):
		return secret
	case ends("authorization"), ends("cookie"):
		return header
	case ends("signature"), ends("sig"):
		return signature
	}
	return 0
}

// find calls found for each secret that the detectors see in v, by its place in v.text. Places may overlap.
func (s *scanner) find(v *view, found func(from, to int)) {
	if s.set == 0 {
		return
	}
	t := v.text
	s.covered, s.coveredHeader = 0, 0
	report := func(from, to int) {
		s.covered = max(s.covered, to)
		if from < to && !isMask(t[from:to]) {
			found(from, to)
		}
	}
	for q := s.hit(t, 0); q >= 0; q = s.hit(t, q+1) {
		for i := range s.stems {
			if s.stands(t, q, i) {
				w := s.stems[i].text
				s.at(v, q+window-len(w), w, report)
			}
		}
	}
	if s.set&(password|email) == 0 {
		return
	}
	host, seen := -1, 0 // where the last URL's part after the slashes begins; all before seen was looked at
	for i := strings.IndexByte(t, '@'); i >= 0; {
		for ; seen < i; seen++ {
			switch c := t[seen]; c {
			case ' ', '\t', '\n', '\r', '"', '\'', '<', '>':
				host = -1
			case ':':
				if strings.HasPrefix(t[seen:], "://") {
					host = seen + len("://")
				}
			}
		}
		if s.set&password != 0 && host >= 0 {
			userInfo(t, host, i, report)
		}
		if s.set&email != 0 {
			mail(t, i, report)
		}
		next := strings.IndexByte(t[i+1:], '@')
		if next < 0 {
			break
		}
		i += 1 + next
	}
}

// at looks at one stem.
func (s *scanner) at(v *view, at int, w string, report func(from, to int)) {
	t := v.text
	switch w {
	case "gaaa":
		if at >= s.covered {
			fernetAt(t, at, report)
		}
		return
	case "beare":
		if at+len("bearer") <= len(t) && t[at+len(w)]|0x20 == 'r' {
			bearerAt(t, at+len("bearer"), report)
		}
		return
	case "basic":
		basicAt(t, at+len(w), report)
		return
	case "private key":
		if at >= s.covered {
			pemAt(t, at, report)
		}
		return
	case "token":
		hexAfterToken(t, at+len(w), report)
	}
	s.keyAt(v, at, report)
}

// shortest is the least length of what counts as a fernet token: some services cut tokens before they log them.
const shortest = 12

func fernetAt(t string, at int, report func(from, to int)) {
	if !strings.HasPrefix(t[at:], "gAAAA") {
		return
	}
	end := at
	for end < len(t) && isBase64URL(t[end]) {
		end++
	}
	if end-at < shortest {
		return
	}
	for end < len(t) && t[end] == '=' {
		end++
	}
	report(at, end)
}

func isBase64URL(c byte) bool { return isWord(c) || c == '-' || c == '_' }

// isToken68 tells the characters of credentials in a header (RFC 9110).
func isToken68(c byte) bool {
	return isBase64URL(c) || c == '.' || c == '~' || c == '+' || c == '/' || c == '='
}

// bearerAt looks at what stands after the word Bearer.
func bearerAt(t string, at int, report func(from, to int)) {
	from := at
	for from < len(t) && t[from] == ' ' {
		from++
	}
	if from == at {
		return
	}
	end := from
	odd := false // something that words of a sentence do not have
	for end < len(t) && isToken68(t[end]) {
		c := t[end]
		odd = odd || c < 'a' || c > 'z'
		end++
	}
	const least, long = 8, 20
	if end-from >= least && odd || end-from >= long {
		report(from, end)
	}
}

// basicAt looks at what stands after the word Basic: base64 of a name, a colon and a password.
func basicAt(t string, at int, report func(from, to int)) {
	from := at
	for from < len(t) && t[from] == ' ' {
		from++
	}
	end := from
	for end < len(t) && isToken68(t[end]) {
		end++
	}
	if from == at || end-from < window {
		return
	}
	p, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(t[from:end], "="))
	if err == nil && strings.IndexByte(string(p), ':') >= 0 {
		report(from, end)
	}
}

// pemAt looks at the head of a private key: all up to its foot is the key.
func pemAt(t string, at int, report func(from, to int)) {
	const head = "private key-----"
	if len(t)-at < len(head) || !equalFold(t[at:at+len(head)], head) {
		return
	}
	from := at + len(head)
	end := strings.Index(t[from:], "-----END")
	if end < 0 {
		report(from, len(t))
		return
	}
	report(from, from+end)
}

// hexAfterToken looks at what stands after the word token or in a path after tokens: a long hexadecimal number is a token there, and
// in a path anything long that has digits.
func hexAfterToken(t string, at int, report func(from, to int)) {
	i := at
	if i < len(t) && (t[i] == 's' || t[i] == 'S') {
		i++
	}
	path := i > at && i < len(t) && t[i] == '/'
	const gap = 4
	for n := 0; n < gap && i < len(t) && strings.IndexByte(" :/='\"#([<\\", t[i]) >= 0; n++ {
		i++
	}
	if i == at {
		return
	}
	end, digits, onlyHex := i, false, true
	for end < len(t) && isBase64URL(t[end]) {
		c := t[end]
		digit := c >= '0' && c <= '9'
		digits = digits || digit
		onlyHex = onlyHex && (digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '-')
		end++
	}
	const uuid, long = 32, 16
	if onlyHex && end-i >= uuid || path && digits && end-i >= long {
		report(i, end)
	}
}

// userInfo looks for a password between the place after a URL's slashes and an @.
func userInfo(t string, host, at int, report func(from, to int)) {
	const far = 512
	if host >= at || at-host > far {
		return
	}
	info := t[host:at]
	colon := strings.IndexByte(info, ':')
	if colon < 0 {
		return
	}
	if end := strings.IndexAny(info, "/?#"); end >= 0 {
		// Not a password but a port, and the @ stands behind the host, unless it cannot be a port.
		if end < colon || strings.Trim(info[colon+1:end], "0123456789") == "" || strings.IndexByte(info[:end], '@') >= 0 {
			return
		}
	}
	report(host+colon+1, at)
}

// mail looks around an @ for an address of e-mail.
func mail(t string, at int, report func(from, to int)) {
	from, to := at, at+1
	for from > 0 && (isWord(t[from-1]) || t[from-1] >= 0x80 || strings.IndexByte(".!#$&*+-/=?^_{|}~", t[from-1]) >= 0) {
		from--
	}
	for from < at && strings.IndexByte("=/?&", t[from]) >= 0 {
		from++
	}
	if i := strings.LastIndexAny(t[from:at], "=/?&"); i >= 0 { // of a query or a path rather than of the address
		from += i + 1
	}
	for to < len(t) && (isWord(t[to]) || t[to] >= 0x80 || t[to] == '.' || t[to] == '-') {
		to++
	}
	for to > at && (t[to-1] == '.' || t[to-1] == '-') {
		to--
	}
	if from < at && strings.IndexByte(t[at:to], '.') > 1 {
		report(from, to)
	}
}

// keyAt looks at a key word around a stem, and at its value.
func (s *scanner) keyAt(v *view, at int, report func(from, to int)) {
	t := v.text
	from, end := at, at
	const longest = 80
	for from > 0 && at-from < longest && isKey(t[from-1]) {
		from--
	}
	for end < len(t) && end-at < longest && isKey(t[end]) {
		end++
	}
	set, wanted := s.classify(t[from:end])
	if !wanted {
		return
	}
	word := t[from:end]
	// Words of a sentence, and names of Python's exceptions and modules, with a colon after them.
	strict := strings.EqualFold(word, "token") || strings.EqualFold(word, "signature") || strings.IndexByte(word, '.') >= 0
	k := separate(v, from, end)
	if k.at < 0 {
		return
	}
	if set == header {
		if k.at >= s.coveredHeader {
			s.coveredHeader = headerValue(v, k, report)
		}
		return
	}
	if k.at < s.covered {
		return
	}
	to := valueEnd(v, k)
	if to <= k.at {
		return
	}
	if strict && k.colon && !k.quotedKey && !looksSecret(t[k.at:to]) {
		return
	}
	if isNothing(t[k.at:to]) {
		return
	}
	report(k.at, to)
}

// isNothing tells the words that stand where a secret would.
func isNothing(s string) bool {
	switch s {
	case "None", "null", "true", "false", "True", "False":
		return true
	}
	return false
}

func isKey(c byte) bool { return isWord(c) || c == '_' || c == '-' || c == '.' }

// looksSecret tells a token from the words of a sentence.
func looksSecret(s string) bool {
	const least = 12
	return len(s) >= least && strings.ContainsAny(s, "0123456789")
}

// assignment is what stands between a key word and its value.
type assignment struct {
	at        int   // of the value, -1: there is none
	depth     uint8 // how deep the separator was encoded: what ends the value is no deeper
	quote     byte  // that opens the value, 0: none
	slashes   int   // before that quote
	quotedKey bool
	colon     bool
}

// separate looks for a value after the key word t[from:end].
func separate(v *view, from, end int) assignment {
	t := v.text
	none := assignment{at: -1}
	a := none
	i := end
	skip := func(what string) (n int) {
		for i < len(t) && strings.IndexByte(what, t[i]) >= 0 {
			i++
			n++
		}
		return n
	}
	if a.quotedKey = skip("\"'\\") > 0; a.quotedKey {
		skip("]") // headers["X-Auth-Token"] = "value"
	}
	blanks := skip(" \t")
	if i >= len(t) {
		return none
	}
	a.depth = v.deep(i)
	switch c := t[i]; {
	case c == '=':
		i++
		skip("=>~")
		if from == 0 || t[from-1] != '?' && t[from-1] != '&' { // there nothing is the value
			skip(" \t")
		}
	case c == ':':
		i++
		a.colon = true
		skip(":=")
		skip(" \t")
	case c == ',' && a.quotedKey: // ('X-Auth-Token', 'value'), ['--password', 'value']
		i++
		skip(" \t")
		if i >= len(t) || t[i] != '"' && t[i] != '\'' && t[i] != '\\' && (i+1 >= len(t) || t[i+1] != '"' && t[i+1] != '\'') {
			return none
		}
	case blanks > 0 && from < len(t) && t[from] == '-': // --password value
		a.depth = v.deep(i - 1)
	default:
		return none
	}
	// ["value"], u'value', b"value"
	if i < len(t) && (t[i] == '[' || t[i] == '(') && i+1 < len(t) && strings.IndexByte("\"'\\ub", t[i+1]) >= 0 {
		i++
	}
	if i+1 < len(t) && (t[i] == 'u' || t[i] == 'b') && (t[i+1] == '"' || t[i+1] == '\'') {
		i++
	}
	j := i
	for j < len(t) && t[j] == '\\' {
		j++
	}
	if j < len(t) && (t[j] == '"' || t[j] == '\'') {
		a.quote, a.depth, a.slashes = t[j], v.deep(j), j-i
		i = j + 1
	} else if a.quotedKey && i < len(t) && (t[i] == '{' || t[i] == '[') {
		return none // what is in there has keys of its own
	}
	if i >= len(t) {
		return none
	}
	a.at = i
	return a
}

// valueEnd returns where the value of an assignment ends.
func valueEnd(v *view, a assignment) int {
	t := v.text
	for i := a.at; i < len(t); i++ {
		if v.deep(i) > a.depth {
			continue
		}
		c := t[i]
		if a.quote != 0 {
			if c != a.quote {
				continue
			}
			n := 0 // slashes before it
			for i-n > a.at && t[i-n-1] == '\\' {
				n++
			}
			if a.slashes == 0 {
				return i
			} else if n <= a.slashes {
				return i - n
			}
			continue
		}
		switch c {
		case ' ', '\t', '\n', '\r', '&', '"', '\'', '<', '>', '`':
			return i
		case ',', ';', ')', ']', '}':
			// The end only where nothing of the value follows.
			if i+1 == len(t) || strings.IndexByte(" \t\n\r\"'`&<>)]},;", t[i+1]) >= 0 {
				return i
			}
		}
	}
	return len(t)
}

// lineEnd returns where a header's value ends.
func lineEnd(v *view, a assignment) int {
	t := v.text
	for i := a.at; i < len(t); i++ {
		if v.deep(i) > a.depth {
			continue
		}
		switch c := t[i]; {
		case a.quote != 0 && c == a.quote, a.quote == 0 && (c == '\n' || c == '\r' || c == '"' || c == '\''):
			return i
		}
	}
	return len(t)
}

// headerValue finds the credentials in the value of Authorization or Cookie, and returns where it ends. The scheme's name stays.
func headerValue(v *view, a assignment, report func(from, to int)) (end int) {
	t := v.text
	end = lineEnd(v, a)
	scheme, rest, ok := strings.Cut(t[a.at:end], " ")
	if !ok {
		report(a.at, end)
		return end
	}
	from := end - len(rest)
	switch {
	case strings.EqualFold(scheme, "bearer"), strings.EqualFold(scheme, "basic"), strings.EqualFold(scheme, "token"), strings.EqualFold(scheme, "negotiate"):
		for from < end && t[from] == ' ' {
			from++
		}
		to := from
		for to < end && t[to] != ' ' && t[to] != '\t' {
			to++
		}
		report(from, to)
	case strings.EqualFold(scheme, "digest") && a.quote == 0:
		// Its parameters stand in quotes of their own.
		if n := strings.IndexAny(t[end:], "\r\n"); n >= 0 {
			end += n
		} else {
			end = len(t)
		}
		report(from, end)
	case strings.EqualFold(scheme, "aws"), strings.EqualFold(scheme, "digest"), len(scheme) > 4 && strings.EqualFold(scheme[:4], "aws4"):
		report(from, end)
	default:
		if isMask(scheme) {
			return end // what was masked before, in a longer line
		}
		report(a.at, end)
	}
	return end
}
