package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// The JSON of FRAME.md.
type (
	describeRequest struct {
		Protocol int    `json:"protocol"`
		Agent    string `json:"agent,omitempty"`
	}
	describeReply struct {
		Version string      `json:"version,omitempty"`
		SDK     string      `json:"sdk,omitempty"`
		Plugins []described `json:"plugins"`
	}
	described struct {
		Kind     plugins.Kind `json:"kind"`
		Name     string       `json:"name"`
		Summary  string       `json:"summary"`
		KnowsIDs bool         `json:"knows_ids,omitempty"`
		Linger   string       `json:"linger,omitempty"`
		Config   []keyDoc     `json:"config,omitempty"`
	}
	keyDoc struct {
		Path     string   `json:"path"`
		Type     string   `json:"type"`
		Doc      string   `json:"doc,omitempty"`
		Required bool     `json:"required,omitempty"`
		Default  string   `json:"default,omitempty"`
		Optional bool     `json:"optional,omitempty"`
		Enum     []string `json:"enum,omitempty"`
		Min      string   `json:"min,omitempty"`
		Max      string   `json:"max,omitempty"`
		Example  string   `json:"example,omitempty"`
		Loose    bool     `json:"loose,omitempty"`
	}
	openRequest struct {
		Instance uint32          `json:"instance"`
		Kind     plugins.Kind    `json:"kind"`
		Name     string          `json:"name"`
		Check    bool            `json:"check,omitempty"`
		Config   json.RawMessage `json:"config,omitempty"`
		Env      openEnv         `json:"env"`
	}
	openEnv struct {
		Pipeline string            `json:"pipeline,omitempty"`
		ID       string            `json:"id,omitempty"`
		NodeID   string            `json:"node_id,omitempty"`
		StateDir string            `json:"state_dir,omitempty"`
		Once     bool              `json:"once,omitempty"`
		Repeats  bool              `json:"repeats,omitempty"`
		Naming   string            `json:"naming,omitempty"`
		Fields   map[string]string `json:"fields,omitempty"`
	}
	openReply struct {
		Faults []openFault       `json:"faults,omitempty"`
		Error  string            `json:"error,omitempty"`
		Fields map[string]string `json:"fields,omitempty"`
		Writes []string          `json:"writes,omitempty"`
	}
	openFault struct {
		Key        string `json:"key"`
		Message    string `json:"message"`
		Suggestion string `json:"suggestion,omitempty"`
	}
	closeRequest struct {
		Instance uint32 `json:"instance"`
	}
	closeReply struct {
		Error string `json:"error,omitempty"`
	}
	notesJSON struct {
		Count []noteCount `json:"count,omitempty"`
		Fail  []noteFail  `json:"fail,omitempty"`
	}
)

// noteCount says by how much a counter grew.
type noteCount struct {
	name, reason string
	by           int64
}

// MarshalJSON makes a list of it.
func (n noteCount) MarshalJSON() ([]byte, error) { return json.Marshal([]any{n.name, n.reason, n.by}) }

// UnmarshalJSON takes a list of just these three.
func (n *noteCount) UnmarshalJSON(b []byte) error {
	return unmarshalList(b, &n.name, &n.reason, &n.by)
}

// noteFail says what is wrong under a key.
type noteFail struct{ key, text string }

// MarshalJSON makes a list of it.
func (n noteFail) MarshalJSON() ([]byte, error) { return json.Marshal([]any{n.key, n.text}) }

// UnmarshalJSON takes a list of just these two.
func (n *noteFail) UnmarshalJSON(b []byte) error { return unmarshalList(b, &n.key, &n.text) }

// unmarshalList reads a list that holds one value for each of to, none of them null.
func unmarshalList(b []byte, to ...any) error {
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list) != len(to) {
		return fmt.Errorf("a list of %d instead of %d", len(list), len(to))
	}
	for i, v := range to {
		if string(list[i]) == "null" {
			return errors.New("null in a list")
		}
		if err := json.Unmarshal(list[i], v); err != nil {
			return err
		}
	}
	return nil
}

// parseNotes reads the notes of a frame.
func parseNotes(b []byte) (n notesJSON, err error) {
	if len(b) == 0 {
		return n, nil
	}
	if !utf8.Valid(b) || !isObject(b) {
		return n, bad("its notes are no JSON object in UTF-8")
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, bad("its notes: %v", err)
	}
	return n, nil
}

// isObject tells whether a text, if it is JSON, is an object.
func isObject(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}

// kindNames are the types of extra fields by name.
func kindNames(m map[string]event.Kind) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v.String()
	}
	return out
}

func kindsByName(m map[string]string) map[string]event.Kind {
	out := make(map[string]event.Kind, len(m))
	for name, text := range m {
		for k := event.String; k <= event.Object; k++ {
			if k.String() == text {
				out[name] = k
			}
		}
	}
	return out
}

// describe says what a spec is.
func describe(s plugins.Spec) described {
	d := described{Kind: s.Kind, Name: s.Name, Summary: s.Summary, KnowsIDs: s.KnowsIDs}
	if l, ok := s.Defaults.(plugins.Lingering); ok {
		d.Linger = l.DefaultLinger().String()
	}
	for _, k := range conf.Describe(reflect.TypeOf(s.Defaults), s.Defaults) {
		x := keyDoc{k.Path, k.Type, k.Doc, k.Required, k.Default, k.Optional, k.Enum, k.Min, k.Max, k.Example, k.Loose}
		x.Type = plainType(k.Type)
		if k.Secret {
			x.Default = "" // it would be masked; the plugin knows it
		}
		d.Config = append(d.Config, x)
	}
	return d
}

// plainType is a type by its name in FRAME.md: names that types of the plugin give themselves mean nothing to the other side.
func plainType(name string) string {
	for _, prefix := range []string{"list of ", "map of "} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return prefix + plainType(rest)
		}
	}
	switch name {
	case "string", "bool", "integer", "number", "duration", "size", "secret", "section", "any":
		return name
	}
	return "string"
}

// faultsOf says at which keys a configuration is wrong.
func faultsOf(faults conf.Faults) (out []openFault) {
	for _, f := range faults {
		out = append(out, openFault{Key: f.Path, Message: f.Message, Suggestion: f.Suggestion})
	}
	return out
}

// err is what a reply to Open says against the instance, without secrets: errors at their keys where they are about the configuration.
func (r *openReply) err(secrets *masker) error {
	var errs []error
	for _, f := range r.Faults {
		text := f.Message
		if f.Suggestion != "" {
			text += fmt.Sprintf(" (did you mean %q?)", f.Suggestion)
		}
		errs = append(errs, conf.KeyError{Key: f.Key, Err: textError(secrets.line(text))}) // without a key it is about the section
	}
	if r.Error != "" {
		errs = append(errs, textError(secrets.line(r.Error)))
	}
	if len(errs) == 0 {
		return nil
	}
	return faultsError(errs)
}

// faultsError is a joined error that says each fault on one line.
type faultsError []error

// Error says all.
func (e faultsError) Error() string {
	texts := make([]string, len(e))
	for i, x := range e {
		texts[i] = x.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the parts.
func (e faultsError) Unwrap() []error { return e }

// textError is what another process says.
type textError string

// Error returns the text.
func (e textError) Error() string { return string(e) }

// cutMark stands where a text was cut.
const cutMark = "…"

// oneLine keeps what comes from another process from looking like several lines of ours, or drowning them.
func oneLine(s string) string {
	const most = 2000
	if len(s) > most {
		s = s[:most] + cutMark
	}
	return strings.ToValidUTF8(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " "), "\uFFFD")
}
