package secrets

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/event"
)

func record(line, client, query string) *event.Event {
	b := event.NewBatch("s")
	block := b.Arena().Block(len(line))
	copy(block, line)
	e := b.Append()
	e.Raw = block
	at := func(s string) string {
		i := strings.Index(line, s)
		return event.View(block[i : i+len(s)])
	}
	e.Client, e.Query = at(client), at(query)
	return e
}

// What is found in place says nothing of other fields, else it stands nowhere.
func TestInPlaceIsInPlace(t *testing.T) {
	t.Parallel()
	const line = "192.0.2.77 GET /x?access_token=192.0.2.77"
	e := record(line, "192.0.2.77", "access_token=192.0.2.77")
	if done := New(Options{Detect: All, InPlace: true}).Event(e); done != Changed || e.Client != "192.0.2.77" || e.Query != "access_token=***" || string(e.Raw) != "192.0.2.77 GET /x?access_token=***" {
		t.Errorf("%d: client %q, query %q, %q", done, e.Client, e.Query, e.Raw)
	}
	e = record(line, "192.0.2.77", "access_token=192.0.2.77")
	if done := New(Options{Detect: All}).Event(e); done != Changed || e.Client != "***" || e.Query != "access_token=***" || string(e.Raw) != "*** GET /x?access_token=***" {
		t.Errorf("%d: client %q, query %q, %q", done, e.Client, e.Query, e.Raw)
	}
}

// What only a key of the event's own tells is masked in the record and its copies, but not in what is another field there.
func TestWhatAKeyTellsIsMaskedInTheRecord(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ line, query, key, value, want string }{
		"a cookie":                {`192.0.2.77 GET /x?limit=1 "sid=opensesame" "-"`, "limit=1", "request_cookie", "sid=opensesame", `192.0.2.77 GET /x?limit=1 "***" "-"`},
		"one that is encoded":     {`192.0.2.77 GET /x?limit=1 "sid=open%20sesame" "-"`, "limit=1", "request_cookie", "sid=open sesame", `192.0.2.77 GET /x?limit=1 "***" "-"`},
		"that is another field":   {`192.0.2.77 GET /x?limit=1 "192.0.2.77" "-"`, "limit=1", "session_token", "192.0.2.77", `192.0.2.77 GET /x?limit=1 "***" "-"`},
		"and in its own place":    {`192.0.2.77 GET /x?password=a1b2 "a1b2" "-"`, "password=a1b2", "session_token", "a1b2", `192.0.2.77 GET /x?password=*** "***" "-"`},
		"that no key tells":       {`192.0.2.77 GET /x?limit=1 "opensesame" "-"`, "limit=1", "backend", "opensesame", `192.0.2.77 GET /x?limit=1 "opensesame" "-"`},
		"that is none":            {`192.0.2.77 GET /x?limit=1 "None" "-"`, "limit=1", "session_token", "None", `192.0.2.77 GET /x?limit=1 "None" "-"`},
		"that a mask would split": {`192.0.2.77 GET /x?limit=1 "sid=1;token=a1b2c3" "-"`, "limit=1", "request_cookie", "sid=1;token=a1b2c3", `192.0.2.77 GET /x?limit=1 "***" "-"`},
	} {
		for _, object := range []bool{true, false} {
			e := record(c.line, "192.0.2.77", c.query)
			e.Set("original", event.StringValue(event.View(e.Raw)))
			e.Set("message", event.StringValue(event.View(e.Raw[len("192.0.2.77 "):])))
			if object {
				e.Set("attributes", event.ObjectValue(`{"`+c.key+`":"`+c.value+`"}`))
			} else {
				e.Set(c.key, event.StringValue(c.value))
			}
			New(Options{Detect: All, InPlace: true}).Event(e)
			original, _ := e.Get("original")
			message, _ := e.Get("message")
			if e.Client != "192.0.2.77" || string(e.Raw) != c.want || original.Str() != c.want || "192.0.2.77 "+message.Str() != c.want {
				t.Errorf("%s: client %q, record %q, original %q, message %q", name, e.Client, e.Raw, original.Str(), message.Str())
			}
		}
	}
}

// A record with more secrets than are looked for is not let out as it stands.
func TestTooManyKeysWithholdTheRecord(t *testing.T) {
	t.Parallel()
	e := record("192.0.2.78 GET /x secret100", "192.0.2.78", "/x")
	e.Set("original", event.StringValue(event.View(e.Raw)))
	var list []string
	for i := range 150 {
		list = append(list, fmt.Sprintf(`"secret%d"`, 100+i))
	}
	e.Set("attributes", event.ObjectValue(`{"password":[`+strings.Join(list, ",")+"]}"))
	done := New(Options{Detect: All, InPlace: true}).Event(e)
	if original, _ := e.Get("original"); done != Changed|Crowded || e.Client != "192.0.2.78" || string(e.Raw) != withheld || original.Str() != withheld {
		t.Errorf("%d: client %q, record %q, original %q", done, e.Client, e.Raw, original.Str())
	}
}

func TestSeesWhatItWouldFind(t *testing.T) {
	t.Parallel()
	r := New(Options{Detect: All})
	for text, want := range map[string]bool{"limit=1&marker=6a1b2c3d": false, "access_token=x": true, "access%5ftoken=x": true, "/v3/auth/tokens": true, "": false} {
		if r.Sees(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
