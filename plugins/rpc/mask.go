package rpc

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/stacktrail/stacktrail/plugins/conf"
)

// masker knows the secrets in the configurations of a plugin's instances and takes them out of what the plugin says. It never forgets one: what
// was said before a reload may be told after it.
type masker struct {
	mu    sync.RWMutex // guards all below
	known map[string]bool
	forms []string // of all secrets, longest first
	all   *strings.Replacer
}

const masked = "***"

// learn adds the secrets of a configuration.
func (m *masker) learn(cfg any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.forms)
	secretsIn(reflect.ValueOf(cfg), func(text string) {
		if m.known[text] {
			return
		}
		if m.known == nil {
			m.known = map[string]bool{}
		}
		m.known[text] = true
		m.forms = append(m.forms, formsOf(text)...)
	})
	if len(m.forms) == before {
		return
	}
	slices.SortFunc(m.forms, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	m.forms = slices.Compact(m.forms)
	pairs := make([]string, 0, 2*len(m.forms))
	for _, f := range m.forms {
		pairs = append(pairs, f, masked)
	}
	m.all = strings.NewReplacer(pairs...)
}

// formsOf lists how a secret may be written in a text.
func formsOf(text string) (forms []string) {
	add := func(s string) {
		for _, x := range []string{s, oneLine(s)} {
			if x != "" {
				forms = append(forms, x)
			}
		}
	}
	quoted, _ := json.Marshal(text) // a text is always written
	for _, s := range []string{text, strings.Trim(strconv.Quote(text), `"`), string(quoted[1 : len(quoted)-1]), url.QueryEscape(text), url.PathEscape(text)} {
		add(s)
	}
	const tooShort = 8 // a line so short tells nothing, and masking it would garble everything
	if lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 1 {
		for _, l := range lines {
			if len(l) >= tooShort {
				add(l)
			}
		}
	}
	return forms
}

// secretsIn yields the texts of the secrets in a configuration.
func secretsIn(v reflect.Value, yield func(string)) {
	if !v.IsValid() {
		return
	}
	if v.Type() == reflect.TypeFor[conf.Secret]() {
		if text := v.Interface().(conf.Secret).Reveal(); text != "" {
			yield(text)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		secretsIn(v.Elem(), yield)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[conf.Node]() {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				secretsIn(v.Field(i), yield)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			secretsIn(v.Index(i), yield)
		}
	case reflect.Map:
		for _, x := range v.Seq2() {
			secretsIn(x, yield)
		}
	}
}

// text takes the secrets out of a text, also one that oneLine has cut.
func (m *masker) text(s string) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.all == nil {
		return s
	}
	parts := strings.Split(m.all.Replace(s), cutMark)
	for i := range parts[:len(parts)-1] {
		parts[i] = m.end(parts[i])
	}
	return strings.Join(parts, cutMark)
}

// end takes out a secret whose end was cut off.
func (m *masker) end(s string) string {
	const tooShort = 4 // so few letters of a secret tell nothing
	bare := strings.TrimSuffix(s, "\uFFFD")
	for _, f := range m.forms {
		for n := min(len(f)-1, len(bare)); n >= tooShort; n-- {
			if strings.HasSuffix(bare, f[:n]) {
				return bare[:len(bare)-n] + masked
			}
		}
	}
	return s
}

// line is text in one line.
func (m *masker) line(s string) string { return oneLine(m.text(s)) }

// err takes the secrets out of an error, which stays as it is if there are none.
func (m *masker) err(err error) error {
	if err == nil {
		return nil
	}
	was := err.Error()
	if text := m.text(was); text != was {
		return textError(text)
	}
	return err
}

// maskedLog takes the secrets out of what is logged.
type maskedLog struct {
	slog.Handler
	secrets *masker
}

// Handle logs a record without the secrets.
func (l maskedLog) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, l.secrets.text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(l.attr(a))
		return true
	})
	return l.Handler.Handle(ctx, out)
}

// WithAttrs returns a handler whose records have these.
func (l maskedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = l.attr(a)
	}
	return maskedLog{l.Handler.WithAttrs(out), l.secrets}
}

// WithGroup returns a handler whose records have their attributes in a group.
func (l maskedLog) WithGroup(name string) slog.Handler {
	return maskedLog{l.Handler.WithGroup(name), l.secrets}
}

func (l maskedLog) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		v = slog.StringValue(l.secrets.text(v.String()))
	case slog.KindGroup:
		var group []slog.Attr
		for _, x := range v.Group() {
			group = append(group, l.attr(x))
		}
		v = slog.GroupValue(group...)
	case slog.KindAny:
		v = slog.AnyValue(l.any(v.Any()))
	}
	return slog.Attr{Key: l.secrets.text(a.Key), Value: v}
}

// any takes the secrets out of what a line of JSON holds, and out of errors.
func (l maskedLog) any(v any) any {
	switch x := v.(type) {
	case string:
		return l.secrets.text(x)
	case json.Number:
		if text := l.secrets.text(x.String()); text != x.String() {
			return text
		}
	case error:
		return l.secrets.err(x)
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = l.any(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[l.secrets.text(k)] = l.any(e)
		}
		return out
	}
	return v
}
