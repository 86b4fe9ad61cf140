package secrets

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"unsafe"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

const (
	mask = "***"
	// withheld stands for the text of an unparsed record.
	withheld = "[withheld]"
	// hashPrefix and hashDigits make what stands for a value that was hashed.
	hashPrefix = "hmac:"
	hashDigits = 16
	// minValue: a shorter value that a detector found is looked for as a whole text only, not within texts.
	minValue = 4
	// maxValues is how many different values an event may hold: each is looked for in all texts.
	maxValues = 100
	// fixedTexts is the number of fixed string fields, constants included.
	fixedTexts = 33
)

// texts lists all fixed string fields. Those from given on hold words that the agent itself gives, unless they are views of the record.
func texts(e *event.Event) (all [fixedTexts]*string, given int) {
	return [fixedTexts]*string{
		&e.Method, &e.Path, &e.Query, &e.HTTPVersion, &e.Host, &e.Client, &e.ForwardedFor, &e.UserAgent, &e.Referer,
		&e.RequestID, &e.GlobalRequestID, &e.User, &e.UserID, &e.UserName, &e.UserDomainID, &e.ProjectID, &e.ProjectDomainID,
		&e.Logger, &e.Error, &e.ResourceID, &e.APIVersion,
		&e.Program, &e.Service, &e.Kind, &e.RecordClass, &e.Format, &e.TimestampBasis, &e.Outcome, &e.SourceSystem, &e.LogFile,
		&e.Route, &e.ResourceType, &e.Action,
	}, 21
}

// within reports whether s is a view into raw.
func within(s string, raw []byte) bool {
	at := uintptr(unsafe.Pointer(unsafe.StringData(s)))
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(raw)))
	return at >= lo && at < lo+uintptr(len(raw))
}

// offset is where in raw s stands, which is within it.
func offset(s string, raw []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.StringData(s))) - uintptr(unsafe.Pointer(unsafe.SliceData(raw))))
}

// backed reports whether the arena of the event's batch tells what was taken from the record. It does not where the batch is a copy:
// then everything counts as taken.
func backed(e *event.Event) bool {
	b := e.Batch()
	return b != nil && len(e.Raw) > 0 && b.Owns(event.View(e.Raw))
}

// replaceRaw replaces the record by what lives as long as the batch.
func replaceRaw(e *event.Event, s string) {
	if backed(e) {
		e.SetRaw(unsafe.Slice(unsafe.StringData(s), len(s))) // nobody changes what stands there
		return
	}
	e.SetRaw([]byte(s)) // so that it stays one that tells nothing
}

// Event redacts one event.
func (p *Redactor) Event(e *event.Event) (done Outcome) {
	p.values = p.values[:0]
	unparsed := e.RecordClass == event.ClassUnparsed
	changed := false
	if len(p.fields) > 0 {
		if unparsed && p.opt.Withhold {
			changed = p.withhold(e)
			if changed {
				done |= Withheld
			}
		}
		for i := range p.fields {
			changed = p.named(e, &p.fields[i]) || changed
		}
	}
	p.detecting = p.suspicious(e)
	p.keyed = p.keyed[:0]
	switch {
	case p.detecting && p.opt.InPlace:
		p.collectKeyed(e)
	case p.detecting:
		p.collect(e)
	}
	if len(p.keyed) > maxValues {
		done |= Crowded
	}
	if len(p.values) > maxValues {
		p.withhold(e)
		return done | Changed | Crowded
	}
	if p.detecting || len(p.values) > 0 {
		changed = p.everywhere(e) || changed
	}
	if changed {
		done |= Changed
	}
	return done
}

// suspicious reports whether a detector could find something in the event. It is what a clean event costs.
func (p *Redactor) suspicious(e *event.Event) bool {
	if p.detect.set == 0 {
		return false
	}
	raw := event.View(e.Raw)
	if p.detect.triggered(raw) {
		return true
	}
	b := e.Batch()
	fixed, _ := texts(e)
	for i, t := range fixed {
		s := *t
		if s == "" || within(s, e.Raw) {
			continue // as clean as what it is a view of
		}
		if was := p.known[i]; len(s) == len(was) && unsafe.StringData(s) == unsafe.StringData(was) {
			continue
		}
		if p.detect.triggered(s) {
			return true
		}
		// What an arena owns is used again under another content. known keeps any other string alive and so unchanged.
		if b != nil && !b.Owns(s) {
			p.known[i] = s
		}
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		if p.detect.secretKey(x.Key) || p.detect.triggered(x.Key) {
			return true
		}
		if s := x.Value.Str(); s != "" && !within(s, e.Raw) && p.detect.triggered(s) {
			return true
		}
		for _, s := range x.Value.List() {
			if !within(s, e.Raw) && p.detect.triggered(s) {
				return true
			}
		}
	}
	return false
}

// note notes a value that must not stand anywhere. named values come from fields, the others from detectors.
func (p *Redactor) note(text, with string, named bool) {
	if len(p.values) > maxValues {
		return
	}
	if text == with || !hasWord(text) || isMask(text) {
		return
	}
	for i := range p.values {
		if p.values[i].text == text {
			return
		}
	}
	v := value{text: text, with: with, whole: !named && len(text) < minValue}
	if strings.Contains(text, " ") {
		v.plus = strings.ReplaceAll(text, " ", "+")
	}
	p.values = append(p.values, v)
}

// hasWord reports whether there is anything in s but punctuation.
func hasWord(s string) bool {
	for i := range len(s) {
		if isWord(s[i]) || s[i] >= 0x80 {
			return true
		}
	}
	return false
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isMask reports whether s is what this processor puts in a value's place.
func isMask(s string) bool {
	if s == mask || s == withheld {
		return true
	}
	digits, ok := strings.CutPrefix(s, hashPrefix)
	return ok && len(digits) == hashDigits && strings.Trim(digits, "0123456789abcdef") == ""
}

// replacement is what stands for a text. It lives as long as the batch, or is a constant.
func (p *Redactor) replacement(text string) string {
	if p.opt.With != Hash {
		return mask
	}
	p.mac.Reset()
	_, _ = p.mac.Write([]byte(text))
	var sum [32]byte
	digits := hex.EncodeToString(p.mac.Sum(sum[:0])[:hashDigits/2])
	return hashPrefix + digits
}

// named replaces a field that is named and notes its values. It reports whether the field was changed.
func (p *Redactor) named(e *event.Event, t *target) bool {
	v := t.get(e)
	switch v.Kind() {
	case event.Absent:
		return false
	case event.String:
		with := p.part(v.Str())
		switch {
		case p.opt.With == Remove, t.address && with == mask:
			t.put(e, event.Value{})
			return true
		case isMask(v.Str()), with == v.Str():
			return false
		}
		t.put(e, event.StringValue(with))
		return true
	case event.List:
		old := v.List()
		list := make([]string, len(old))
		same := true
		for i, s := range old {
			if list[i] = s; s != "" && !isMask(s) {
				list[i] = p.part(s)
			}
			same = same && list[i] == s
		}
		if p.opt.With == Remove {
			t.put(e, event.Value{})
			return true
		}
		if !same {
			t.put(e, event.ListValue(list))
		}
		return !same
	case event.Object:
		p.inner(v.Str())
	case event.Int, event.Float:
		p.note(v.Text(), p.replacement(v.Text()), true)
	}
	t.put(e, event.Value{})
	return true
}

// memo is what became of a text of a named field: the same ones come again and again.
type memo struct {
	with   string
	values []value
}

// maxMemos bounds how many are kept.
const maxMemos = 2048

// part notes a text of a named field and returns what the field holds instead.
func (p *Redactor) part(s string) string {
	if p.opt.With != Hash && p.opt.With != Network {
		p.note(s, mask, true)
		return mask
	}
	if m, ok := p.memos[s]; ok {
		for _, v := range m.values {
			p.note(v.text, v.with, true)
		}
		return m.with
	}
	if len(p.memos) >= maxMemos {
		clear(p.memos)
	}
	own := strings.Clone(s)
	before := p.values
	p.values = nil
	m := memo{}
	if p.opt.With == Hash {
		m.with = p.replacement(own)
		p.note(own, m.with, true)
	} else if cut, ok := p.network(own); ok {
		m.with = cut
	} else {
		p.values = nil
		m.with = mask
		p.note(own, mask, true)
	}
	m.values = p.values
	p.values = before
	p.memos[own] = m
	for _, v := range m.values {
		p.note(v.text, v.with, true)
	}
	return m.with
}

// network cuts an address, or each of a list of them with commas, to its network, and notes them. ok is false where something is no
// address.
func (p *Redactor) network(s string) (cut string, ok bool) {
	var b strings.Builder
	for i, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		addr, err := netip.ParseAddr(strings.Trim(part, "[]"))
		text := strings.Trim(part, "[]")
		if err != nil {
			with, portErr := netip.ParseAddrPort(part)
			if portErr != nil {
				return "", false
			}
			addr = with.Addr()
			text = strings.Trim(part[:strings.LastIndexByte(part, ':')], "[]")
		}
		addr = addr.WithZone("")
		bits := p.opt.IPv6Prefix
		if addr.Is4() {
			bits = p.opt.IPv4Prefix
		} else if addr.Is4In6() {
			addr, bits = addr.Unmap(), p.opt.IPv4Prefix
		}
		prefix, err := addr.Prefix(bits)
		if err != nil {
			return "", false
		}
		network := prefix.Addr().String()
		p.note(text, network, true)
		if plain := addr.String(); plain != text {
			p.note(plain, network, true)
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(network)
	}
	return b.String(), true
}

// withhold replaces all texts that were taken from the record. It reports whether anything was there to replace.
func (p *Redactor) withhold(e *event.Event) bool {
	changed := false
	b, isBacked := e.Batch(), backed(e)
	raw := e.Raw
	taken := func(s string) bool {
		return s != "" && s != withheld && (!isBacked || within(s, raw) || b.Owns(s))
	}
	fixed, given := texts(e)
	for i, t := range fixed {
		switch {
		case i >= given && !isBacked || t == &e.Error && !isBacked || !taken(*t):
		case t == &e.Client: // an address at the far end
			*t, changed = "", true
		default:
			*t, changed = withheld, true
		}
	}
	for i := 0; i < len(e.Extra); i++ {
		x := &e.Extra[i]
		v := x.Value
		always := x.Key == "message" || x.Key == "original"
		switch v.Kind() {
		case event.String:
			if v.Str() != withheld && (always || taken(v.Str())) {
				x.Value, changed = event.StringValue(withheld), true
			}
		case event.Object:
			if taken(v.Str()) {
				e.Set(x.Key, event.Value{})
				i--
				changed = true
			}
		case event.List:
			list := append([]string(nil), v.List()...)
			hit := false
			for j, s := range list {
				if taken(s) {
					list[j], hit = withheld, true
				}
			}
			if hit {
				x.Value, changed = event.ListValue(list), true
			}
		}
	}
	if len(raw) > 0 && string(raw) != withheld {
		if isBacked {
			replaceRaw(e, b.Arena().CopyString(withheld))
		} else {
			replaceRaw(e, withheld)
		}
		changed = true
	}
	return changed
}

// collect runs the detectors over all texts and notes what they find, so that it is found elsewhere too, where nothing tells what it is.
func (p *Redactor) collect(e *event.Event) {
	find := func(s string) {
		p.rewrite.find(p, s, func(found string) { p.note(strings.Clone(found), p.replacement(found), false) })
	}
	find(event.View(e.Raw))
	fixed, _ := texts(e)
	for _, t := range fixed {
		if s := *t; s != "" && !within(s, e.Raw) {
			find(s)
		}
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		find(x.Key)
		sensitive := p.detect.secretKey(x.Key)
		if x.Value.Kind() == event.Object {
			p.rewrite.object(p, x.Value.Str(), sensitive, func(found string) { p.note(strings.Clone(found), p.replacement(found), false) })
			continue
		}
		if s := x.Value.Str(); s != "" {
			if sensitive {
				p.note(s, p.replacement(s), false)
			}
			find(s)
		}
		for _, s := range x.Value.List() {
			if sensitive {
				p.note(s, p.replacement(s), false)
			}
			find(s)
		}
	}
}

// collectKeyed notes the values of which a key of the event's own tells what they are, as haproxy_request_cookie does: in the record
// they stand without it.
func (p *Redactor) collectKeyed(e *event.Event) {
	values := p.values
	p.values = p.keyed
	note := func(s string) {
		if !isNothing(s) {
			p.note(strings.Clone(s), p.replacement(s), false)
		}
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		if p.isNamed(x.Key) {
			continue
		}
		sensitive := p.detect.secretKey(x.Key)
		if x.Value.Kind() == event.Object {
			p.keyedTexts(x.Value.Str(), sensitive, note)
			continue
		}
		if !sensitive {
			continue
		}
		switch x.Value.Kind() {
		case event.String, event.Int, event.Float:
			note(x.Value.Text())
		case event.List:
			for _, s := range x.Value.List() {
				note(s)
			}
		}
	}
	p.keyed, p.values = p.values, values
}

// lookAtFields notes which parts of the record are fixed fields, if there are keyed values: those are not looked for in there.
func (p *Redactor) lookAtFields(e *event.Event) {
	p.parts = p.parts[:0]
	if len(p.keyed) == 0 {
		return
	}
	fixed, _ := texts(e)
	for _, t := range fixed {
		if s := *t; s != "" && within(s, e.Raw) {
			from := offset(s, e.Raw)
			p.parts = append(p.parts, span{from: from, to: from + len(s)})
		}
	}
}

// inner notes all texts of an object that is redacted as a whole.
func (p *Redactor) inner(text string) {
	walkStrings(text, func(s string) { p.note(s, p.replacement(s), true) })
}

// look notes where values stand in the record, so that views of other parts of it need not be looked at.
func (p *Redactor) look(raw string) {
	p.spots = p.spots[:0]
	if p.looked = !p.detecting && nextEscape(raw) < 0; !p.looked {
		return
	}
	for i := range p.values {
		x := &p.values[i]
		for _, text := range [...]string{x.text, x.plus} {
			for at := 0; text != ""; {
				n := strings.Index(raw[at:], text)
				if n < 0 {
					break
				}
				p.spots = append(p.spots, span{from: at + n, to: at + n + len(text)})
				at += n + 1
			}
		}
	}
}

// spared reports whether s is a view of a part of the record in which no value stands.
func (p *Redactor) spared(s string, raw []byte) bool {
	if !p.looked || !within(s, raw) {
		return false
	}
	from := offset(s, raw)
	for _, x := range p.spots {
		if x.from >= from && x.to <= from+len(s) {
			return false
		}
	}
	return from+len(s) <= len(raw)
}

// everywhere replaces values and what detectors find in all texts. It reports whether anything was changed.
func (p *Redactor) everywhere(e *event.Event) bool {
	changed := false
	b, isBacked := e.Batch(), backed(e)
	p.look(event.View(e.Raw))
	p.lookAtFields(e)
	fixed, given := texts(e)
	for i, t := range fixed {
		s := *t
		if s == "" || p.spared(s, e.Raw) || i >= given && isBacked && !b.Owns(s) && !within(s, e.Raw) {
			continue
		}
		if out, hit := p.rewrite.text(p, e, s); hit {
			*t, changed = out, true
		}
	}
	for i := 0; i < len(e.Extra); i++ {
		x := &e.Extra[i]
		sensitive := p.detect.secretKey(x.Key)
		if p.isNamed(x.Key) {
			sensitive = false // it is what it shall be
		}
		if out, hit := p.rewrite.text(p, e, x.Key); hit {
			x.Key, changed = p.free(e, i, out), true
		}
		v := x.Value
		switch v.Kind() {
		case event.String:
			s := v.Str()
			rewrite := p.rewrite.text
			if x.Key == "original" || x.Key == "message" {
				rewrite = p.rewrite.record
			}
			out, hit := rewrite(p, e, s)
			if sensitive && !isMask(s) {
				out, hit = p.replacement(s), true
			}
			if hit {
				x.Value, changed = event.StringValue(out), true
			}
		case event.Object:
			out, hit := p.rewrite.json(p, e, v.Str(), sensitive)
			if !hit {
				continue
			}
			changed = true
			if out == "" {
				e.Set(x.Key, event.Value{})
				i--
				continue
			}
			x.Value = event.ObjectValue(out)
		case event.List:
			var list []string
			for j, s := range v.List() {
				out, hit := p.rewrite.text(p, e, s)
				if sensitive && s != "" && !isMask(s) {
					out, hit = p.replacement(s), true
				}
				if !hit {
					continue
				}
				if list == nil {
					list = append(list, v.List()...)
				}
				list[j] = out
			}
			if list != nil {
				x.Value, changed = event.ListValue(list), true
			}
		case event.Int, event.Float:
			if sensitive {
				e.Set(x.Key, event.Value{})
				i--
				changed = true
			}
		}
	}
	if len(e.Raw) > 0 {
		if out, hit := p.rewrite.record(p, e, event.View(e.Raw)); hit {
			replaceRaw(e, out)
			changed = true
		}
	}
	return changed
}

func (p *Redactor) isNamed(key string) bool {
	for i := range p.fields {
		if p.fields[i].name == key {
			return true
		}
	}
	return false
}

// free returns a name for the extra field i that no other field of the event has.
func (p *Redactor) free(e *event.Event, i int, name string) string {
	for {
		taken := schema.Lookup(name) != nil
		for j := range e.Extra {
			taken = taken || j != i && e.Extra[j].Key == name
		}
		if !taken {
			return name
		}
		name += "_"
	}
}
