package eval

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

// request is an event as a parser makes it: a status and a path, but no size, no time and no user.
func request() *event.Event {
	b := event.NewBatch("s")
	b.ReadAt = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	e := b.Append()
	e.Method, e.Path = "GET", "/v2.1/servers"
	e.SetStatus(503)
	e.SetDuration(1500 * time.Millisecond)
	e.SetBool(event.BoolIdentityUnverified, false)
	schema.Set(e, "tags", event.ListValue([]string{"a", "b"}))
	schema.Set(e, "attributes", event.ObjectValue(`{"haproxy_backend":"nova","n":3,"x":2.5,"deep":{"k":[1,"two"]},"no":null}`))
	e.Set("zone", event.StringValue("eu"))
	e.Set("other", event.StringValue("12"))
	return e
}

func TestMeaningOfExpressions(t *testing.T) {
	const failed = "FAILED"
	for src, want := range map[string]string{
		// Comparisons with what is absent are false, but for !=.
		"api_response_size_int == 0":                     "false",
		"api_response_size_int != 0":                     "true",
		"api_response_size_int < 1":                      "false",
		"api_response_size_int >= 0":                     "false",
		"api_response_size_int == process_id_int":        "false",
		"api_response_size_int != process_id_int":        "true",
		"timestamp < now()":                              "false",
		"timestamp != now()":                             "true",
		"truncated_bool == false":                        "false",
		"truncated_bool != true":                         "true",
		"identity_unverified_bool == false":              "true",
		"load_num < 1":                                   "false",
		"!(api_response_size_int > 1)":                   "true",
		`user == ""`:                                     "true",
		`user != "admin"`:                                "true",
		`user < "a"`:                                     "true",
		`user startsWith ""`:                             "true",
		`user matches "^$"`:                              "true",
		`field("nowhere") == ""`:                         "true",
		`field("nowhere") != "x"`:                        "true",
		`field("nowhere") == 0`:                          "false",
		`field("nowhere") < 5`:                           "false",
		`field("nowhere") contains "x"`:                  "false",
		`field("nowhere") == field("nothere")`:           "false",
		`field("other") > api_response_size_int`:         "false",
		`attributes["none"] == ""`:                       "true",
		"tags == tags":                                   "true",
		`"a" in roles`:                                   "false",
		"api_response_size_int in [0, 1]":                "false",
		"api_response_size_int not in [0, 1]":            "true",
		`user in ["", "admin"]`:                          "true",
		`field("nowhere") in ["", "admin"]`:              "false",
		"api_response_size_int in 0..9":                  "false",
		"has(api_response_size_int)":                     "false",
		"has(api_response_code_int)":                     "true",
		`has("zone") && has(zone)`:                       "true",
		"has(identity_unverified_bool)":                  "true",
		"has(user)":                                      "false",
		"has(tags) and not has(roles)":                   "true",
		"truncated_bool":                                 "",
		"!truncated_bool":                                "true",
		"truncated_bool || true":                         "true",
		"truncated_bool && true":                         "false",
		"truncated_bool ? 1 : 2":                         "2",
		"api_response_size_int ?? 7":                     "7",
		"api_response_time_num ?? 7":                     "1.5",
		"load_num ?? 7":                                  "7",
		`user ?? "nobody"`:                               "nobody",
		"tags ?? roles":                                  `["a","b"]`,
		"roles ?? tags":                                  `["a","b"]`,
		"truncated_bool ?? true":                         "true",
		"(api_response_size_int ?? process_id_int) ?? 3": "3",

		// Arithmetic and functions on what is absent are absent.
		"api_response_size_int + 1":                     "",
		"-api_response_size_int":                        "",
		"1 / api_response_size_int":                     "",
		"api_response_size_int % 0":                     "",
		"(api_response_size_int + 1) != 5":              "true",
		"abs(api_response_size_int)":                    "",
		"max(api_response_size_int, 1)":                 "",
		`"s" + string(api_response_size_int)`:           "s",
		`"s" + string(api_response_code_int)`:           "s503",
		`"s" + field("nowhere")`:                        "",
		`"s" + field("other")`:                          "s12",
		"timestamp.Hour()":                              "",
		"now().Hour()":                                  "3",
		"now() - timestamp":                             "",
		"now().Format(\"2006\")":                        "2026",
		`now() - date("2026-05-04T03:02:00Z")`:          "1",
		`(now() - duration("1h")) < now()`:              "true",
		"len(user)":                                     "0",
		"upper(user)":                                   "",
		"api_response_size_int > 1 ? path : nil":        "",
		`api_response_code_int > 1 ? upper(path) : nil`: "/V2.1/SERVERS",
		"len(roles)":                                    "0",
		`any(roles, # == "a")`:                          "false",
		`any(tags, # == "a")`:                           "true",
		`filter(tags, # != "a")`:                        `["b"]`,
		`map(tags, upper(#))`:                           `["A","B"]`,
		`find(tags, # == "z")`:                          "",
		"tags[0]":                                       "a",
		"tags[-1]":                                      "b",
		"tags[9]":                                       "",
		"roles[0]":                                      "",
		`split(path, "/")[1]`:                           "v2.1",
		`split(path, "/")[7] ?? "none"`:                 "none",
		"path[1:3]":                                     "v2",
		"path[:3] + user[1:]":                           "/v2",
		"path[api_response_size_int:]":                  "",
		`attributes["haproxy_backend"]`:                 "nova",
		`attributes["haproxy_backend"] == "nova"`:       "true",
		"attributes.n + 1":                              "4",
		"attributes.x":                                  "2.5",
		`attributes["none"] + 1`:                        "",
		"attributes.deep.k[1]":                          "two",
		"attributes?.none?.deeper":                      "",
		"metadata.x":                                    "",
		`"n" in attributes`:                             "true",
		`"n" in metadata`:                               "false",
		`attributes.no ?? "null"`:                       "null",
		"attributes.deep":                               `{"k":[1,"two"]}`,
		`get(attributes, "n")`:                          "3",
		`{"a": 1}`:                                      `{"a":1}`,
		`let s = user ?? "x"; s + s`:                    "xx",
		`path | trimPrefix("/") | upper()`:              "V2.1/SERVERS",
		"if api_response_code_int >= 500 {1} else {2}":  "1",
		"truncated_bool ?: identity_unverified_bool":    "false",
		"tags ?: roles":                                 failed + " to compile",
		"api_response_code_int / 2":                     "251.5",
		"api_response_code_int / 0":                     failed,
		"api_response_time_num / 0.0":                   failed,
		"api_response_code_int % 0":                     failed,
		"api_response_code_int % 100":                   "3",
		"9223372036854775807 + 1":                       "-9223372036854775808",
		"1e308 * 10":                                    failed,
		"(1e308 * 10) > 1":                              "true",
		"(1e308 * 10 - 1e308 * 10) == 0":                "false",
		"9007199254740993 == 9007199254740992.0":        "true",
		"int(path)":                                     failed,
		`int(field("other")) == 12`:                     "true",
		`field("other") < 5`:                            failed,
		`field("other") == 12`:                          "false",
		`field("other") and true`:                       failed,
		"api_response_code_int in 500..599":             "true",
		"api_response_time_num in 1..2":                 "false",
		"api_response_code_int in 0..99999999999":       "true",
		"len(0..99999999999) > 1":                       failed,
		`repeat("x", 2000000) == ""`:                    failed,
		`path matches user`:                             "true",
		`path matches ("(" + user)`:                     failed,
		`path matches "^/v[0-9.]+/servers$"`:            "true",
		`path not startsWith "/v3"`:                     "true",
		"2 ** 3":                                        "8",
		"schema_version":                                "1",
		`field("path") + "?"`:                           "/v2.1/servers?",
		"nil":                                           "",
		`[path, "x"]`:                                   `["/v2.1/servers","x"]`,
		"[1, 2]":                                        failed,
		`type(path)`:                                    "string",
	} {
		_, err := analyse(src, testNames())
		if err != nil {
			if want != failed+" to compile" {
				t.Errorf("%s: %v", src, err)
			}
			continue
		}
		check := func(how string, v event.Value, err error) {
			switch {
			case want == failed && err == nil:
				t.Errorf("%s (%s) = %q, want a failure", src, how, v.Text())
			case want == failed:
			case err != nil:
				t.Errorf("%s (%s): %v, want %q", src, how, err, want)
			case v.Text() != want:
				t.Errorf("%s (%s) = %q, want %q", src, how, v.Text(), want)
			}
		}
		closures, virtual := both(t, src)
		if closures != nil {
			v, err := closures(request())
			check("closures", v, err)
		}
		for range 2 { // a failure leaves nothing behind
			e := request()
			x, err := virtual.run(e)
			v := event.Value{}
			if err == nil {
				v, err = fromAny(e, x)
			}
			check("machine", v, err)
		}

	}
}

func TestRefusedExpressionsNameThePlaceAndTheWord(t *testing.T) {
	for _, c := range []struct {
		src                  string
		line, column, offset int
		message, suggestion  string
	}{
		{`pth == "x"`, 1, 1, 0, `unknown name "pth"`, "path"},
		{"method == \"ü\" &&\n  api_response_code == 3", 2, 3, 20, `unknown name "api_response_code"`, "api_response_code_int"},
		{`zoen == "eu"`, 1, 1, 0, `unknown name "zoen"`, "zone"},
		{`hsa(path)`, 1, 1, 0, `unknown name "hsa"`, "has"},
		{`has(usr)`, 1, 5, 4, `unknown name "usr"`, "user"},
		{`qqqqqqqqqq`, 1, 1, 0, `field("…")`, ""},
		{`api_response_code_int == "500"`, 1, 23, 22, "mismatched types int and string", ""},
		{`path > 3`, 1, 6, 5, "mismatched types string and int", ""},
		{`timestamp == 3`, 1, 11, 10, "mismatched types time and int", ""},
		{`path && true`, 1, 6, 5, "mismatched types", ""},
		{`!path`, 1, 1, 0, "mismatched type string", ""},
		{`path == nil`, 1, 6, 5, "has(name)", ""},
		{`path matches "("`, 1, 6, 5, "missing closing )", ""},
		{`path ==`, 1, 7, 6, "unexpected token EOF", ""},
		{``, 1, 1, 0, "unexpected token EOF", ""},
		{`path + `, 1, 7, 6, "unexpected token EOF", ""},
		{`"a`, 1, 3, 2, "literal not terminated", ""},
		{`field(path) == "x"`, 1, 1, 0, `field("path")`, ""},
		{`field()`, 1, 1, 0, `field("name")`, ""},
		{`has(path + "x")`, 1, 1, 0, `has("user")`, ""},
		{`now(1) == timestamp`, 1, 1, 0, "now() takes nothing", ""},
		{`$env.path == ""`, 1, 1, 0, "$env", ""},
		{`"a" + 1 == "a1"`, 1, 5, 4, "mismatched types string and int", ""},
		{`1 + 2`, 1, 3, 2, "a condition is true or false, this is an int", ""},
		{`nil`, 1, 1, 0, "a condition is true or false", ""},
		{"true\x00", 1, 5, 4, "NUL", ""},
	} {
		_, err := CompileCondition(c.src, testNames())
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an *Error", c.src, err)
			continue
		}
		if e.Line != c.line || e.Column != c.column || e.Offset != c.offset {
			t.Errorf("%q: at %d:%d, offset %d, want %d:%d, %d: %v", c.src, e.Line, e.Column, e.Offset, c.line, c.column, c.offset, e)
		}
		if !strings.Contains(e.Message, c.message) || e.Suggestion != c.suggestion {
			t.Errorf("%q: %q, suggestion %q, want %q, %q", c.src, e.Message, e.Suggestion, c.message, c.suggestion)
		}
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q: the message has several lines: %q", c.src, err)
		}
	}
}

func TestErrorShowsThePlaceInAnExcerpt(t *testing.T) {
	_, err := CompileCondition(`method == "GET" && pth == "/v2"`, nil)
	const want = `1:20: unknown name "pth" (did you mean "path"?), at method == "GET" && →pth == "/v2"`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestKindOfAValueIsKnownBeforeThereIsAnEvent(t *testing.T) {
	for src, want := range map[string]event.Kind{
		"path": event.String, "api_response_code_int + 1": event.Int, "api_response_code_int / 2": event.Float,
		"path == user": event.Bool, "now()": event.Time, "tags": event.List, "attributes": event.Object,
		`attributes["x"]`: event.Absent, `field("x")`: event.Absent, "nil": event.Absent, "now() - timestamp": event.Float,
		`split(path, "/")`: event.List, "len(path)": event.Int, "upper(path)": event.String,
	} {
		v, err := CompileValue(src, nil)
		if err != nil {
			t.Errorf("%s: %v", src, err)
		} else if v.Kind() != want {
			t.Errorf("%s is %s, want %s", src, v.Kind(), want)
		}
	}
	if _, err := CompileValue("now", nil); err == nil {
		t.Error("a function is taken as a value")
	}
}

func TestCommonConditionsAreNative(t *testing.T) {
	for _, src := range []string{
		`api_response_code_int >= 500 && path startsWith "/v2"`, `method in ["GET", "HEAD"]`, `method == "OPTIONS" || path == "/healthcheck"`,
		`not has(user) and service != "nova"`, `user matches "^adm"`, `record_class == "api_access"`, `"x" in tags`,
		`api_response_code_int in 400..499`, `field("region") == "eu"`, `zone not in ["a", "b"]`, "truncated_bool",
		"api_response_time_num * 1000 > 2500", `(user ?? "none") == "none"`, "timestamp < now()", `path + "?" + query == "x"`,
		`attributes["haproxy_backend"] == "nova"`, `attributes.n > 3`,
	} {
		c, err := CompileCondition(src, testNames())
		if err != nil {
			t.Errorf("%s: %v", src, err)
		} else if !c.Native() {
			t.Errorf("%s is not native", src)
		}
	}
}

func TestNativeConditionsAllocateNothing(t *testing.T) {
	e := request()
	for _, src := range []string{
		`api_response_code_int >= 500 && path startsWith "/v2"`, `method in ["GET", "HEAD"]`, `path matches "^/v3"`,
		`path + "?" + query == "x"`, `zone == "eu"`, `field("nowhere") == "x"`, "timestamp < now()", `"b" in tags`,
		"api_response_time_num * 1000 > 2500", "has(user)", `attributes["haproxy_backend"] == "nova"`, "api_response_code_int % 0 == 1",
	} {
		c, err := CompileCondition(src, testNames())
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = c.Eval(e) }); n != 0 {
			t.Errorf("%s allocates %v times", src, n)
		}
	}
}

func TestComputedStringsLiveInTheBatch(t *testing.T) {
	for _, src := range []string{`path + "?" + method`, `upper(path)`, `has(user) ? user : path + "x"`, "path[1:4]"} {
		v, err := CompileValue(src, nil)
		if err != nil {
			t.Fatal(err)
		}
		e := request()
		first, err := v.Eval(e)
		if err != nil {
			t.Fatal(err)
		}
		before := strings.Clone(first.Str())
		f := request()
		f.Path = "/another/path/that/is/longer"
		if _, err := v.Eval(f); err != nil {
			t.Fatal(err)
		}
		if first.Str() != before {
			t.Errorf("%s: %q became %q when the next event was evaluated", src, before, first.Str())
		}
		e.Batch().Arena().Poison()
		if first.Str() == before {
			t.Errorf("%s: the result is not in the batch's arena", src)
		}
	}
}

func TestWithoutABatchResultsAreOnTheHeap(t *testing.T) {
	v, err := CompileValue(`method + path`, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Eval(&event.Event{Method: "GET ", Path: "/x"})
	if err != nil || got.Str() != "GET /x" {
		t.Errorf("got %q, %v", got.Str(), err)
	}
	now, err := CompileValue("now()", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := now.Eval(&event.Event{}); err != nil || got.Kind() != event.Absent {
		t.Errorf("now() without a batch is %q, %v", got.Text(), err)
	}
}

func TestClonesDoNotShareWhatTheyWorkOn(t *testing.T) {
	for _, src := range []string{`path + "x" == "/ax"`, `lower(path) + "x" == "/ax"`} {
		c, err := CompileCondition(src, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan bool)
		for range 4 {
			go func(c *Condition) {
				ok := true
				for i := range 500 {
					e := &event.Event{Path: "/a"}
					if i%2 == 1 {
						e.Path = "/b"
					}
					got, err := c.Eval(e)
					ok = ok && err == nil && got == (i%2 == 0)
				}
				done <- ok
			}(c.Clone())
		}
		for range 4 {
			if !<-done {
				t.Errorf("%s: clones disturb each other", src)
			}
		}
	}
}

func TestBrokenObjectIsAFailureNotAPanic(t *testing.T) {
	c, err := CompileCondition(`attributes["x"] == "y"`, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := request()
	schema.Set(e, "attributes", event.ObjectValue(`{"x":`))
	if _, err := c.Eval(e); err == nil {
		t.Error("a broken object is no failure")
	}
	if _, err := c.Eval(request()); err != nil {
		t.Errorf("the failure stays: %v", err)
	}
}

func TestFieldsNamedLikeFunctionsLeaveTheFunctions(t *testing.T) {
	c, err := CompileCondition(`len(path) == 13 && field("len") == "x"`, Names{"len": event.String, "has": event.String, "path": event.Int})
	if err != nil {
		t.Fatal(err)
	}
	e := request()
	e.Set("len", event.StringValue("x"))
	if got, err := c.Eval(e); !got || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNoFieldOfTheSchemaIsNamedLikeAFunction(t *testing.T) {
	for i := range schema.Fields() {
		name := schema.Fields()[i].Name
		if _, err := CompileValue(name, nil); err != nil {
			t.Errorf("%s cannot be used by name: %v", name, err)
		}
	}
}

func BenchmarkCondition(b *testing.B) {
	for _, src := range []string{
		`api_response_code_int >= 500 && path startsWith "/v2"`,
		`method == "OPTIONS" || path == "/healthcheck"`,
		`method in ["POST", "PUT", "GET"]`,
		`zone == "eu"`,
		`field("region") == "eu"`,
		`user matches "^adm"`,
		`api_response_time_num > 2`,
		`api_response_code_int in 500..599`,
		`lower(method) == "get"`,
		`attributes["haproxy_backend"] == "nova"`,
	} {
		b.Run(src, func(b *testing.B) {
			c, err := CompileCondition(src, testNames())
			if err != nil {
				b.Fatal(err)
			}
			e := request()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Eval(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValue(b *testing.B) {
	for _, src := range []string{`"constant"`, `api_response_time_num > 2`, `service + "-" + method`, "upper(method)"} {
		b.Run(src, func(b *testing.B) {
			v, err := CompileValue(src, nil)
			if err != nil {
				b.Fatal(err)
			}
			e := request()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%1024 == 0 {
					e = request()
				}
				if _, err := v.Eval(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
