package lines

import (
	"strings"
	"unsafe"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/secrets"
)

// masked stands for a secret.
const masked = "***"

func newRedactor() *secrets.Redactor {
	return secrets.New(secrets.Options{Detect: secrets.All, InPlace: true})
}

// meaning tells what a finished record is about, and masks the secrets in it. Most access records are seen to have none without
// looking at their text: their path is words that are known and ids.
func (m *Maker) meaning(e *event.Event, v formats.Verdict, a *event.Arena) {
	if v != formats.Access {
		if m.hide != nil {
			m.hide.Event(e)
		}
		return
	}
	secret, others := m.routes.Fill(e, a)
	if m.hide == nil {
		return
	}
	if secret != "" {
		maskPart(e, &e.Path, secret, a)
	}
	if e.Query != "" {
		if code := codeOf(e); code != "" {
			maskPart(e, &e.Query, code, a)
		}
	}
	if others && (e.Path == "" || m.hide.Sees(e.Path)) || e.Query != "" && m.hide.Sees(e.Query) || e.Referer != "" && m.hide.Sees(e.Referer) || m.seesExtra(e) {
		m.hide.Event(e)
	}
}

// seesExtra reports whether what a format has beyond the usual fields might hold a secret: headers that a proxy logs.
func (m *Maker) seesExtra(e *event.Event) bool {
	if m.figures {
		return false
	}
	for i := range e.Extra {
		x := &e.Extra[i]
		if x.Key == "attributes" && m.hide.Sees(x.Value.Str()) {
			return true
		}
	}
	return false
}

// codeOf returns the code by which one gets a token from an identity provider, if the query has one. Elsewhere the word means much.
func codeOf(e *event.Event) string {
	i := strings.Index(e.Query, "code=")
	if i < 0 || i > 0 && e.Query[i-1] != '&' || !strings.Contains(e.Path, "OS-FEDERATION") && !strings.Contains(e.Path, "websso") && !strings.Contains(e.Path, "redirect_uri") {
		return ""
	}
	code, _, _ := strings.Cut(e.Query[i+len("code="):], "&")
	return code
}

// maskPart masks one part of a field, which is a view of the field's text, there and in the copies of the line. Nowhere else: who
// writes the part could have anything masked by it.
func maskPart(e *event.Event, field *string, part string, a *event.Arena) {
	if raw := event.View(e.Raw); len(raw) > 0 {
		with, ok := without(raw, part, a)
		if !ok { // the field was decoded, or the line was changed before
			with, ok = a.CopyString(strings.ReplaceAll(raw, part, masked)), strings.Contains(raw, part)
		}
		if ok {
			if v, has := e.Get("original"); has && v.Str() == raw {
				e.Set("original", event.StringValue(with))
			}
			e.SetRaw(unsafe.Slice(unsafe.StringData(with), len(with))) // nobody changes what stands there
		}
	}
	if with, ok := without(*field, part, a); ok {
		*field = with
	}
}

// without returns text with part, which is a view into it, masked. ok is false if it is none.
func without(text, part string, a *event.Arena) (string, bool) {
	at := uintptr(unsafe.Pointer(unsafe.StringData(part))) - uintptr(unsafe.Pointer(unsafe.StringData(text)))
	if at > uintptr(len(text)) || at+uintptr(len(part)) > uintptr(len(text)) {
		return "", false
	}
	i := int(at)
	b := a.Alloc(len(text) - len(part) + len(masked))
	n := copy(b, text[:i])
	n += copy(b[n:], masked)
	copy(b[n:], text[i+len(part):])
	return event.View(b), true
}
