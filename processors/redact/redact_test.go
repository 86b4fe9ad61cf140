package redact_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
	"github.com/stacktrail/stacktrail/plugins/schema"
	"github.com/stacktrail/stacktrail/processors/redact"
)

const key = "0123456789abcdef"

func decode(t testing.TB, yaml string) (redact.Config, error) {
	t.Helper()
	n, faults := conf.Parse("test.yaml", []byte(yaml))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	c, faults := conf.Decode(n, redact.Spec.Defaults.(redact.Config))
	return c, faults.Err()
}

func build(t testing.TB, yaml string, env plugins.Env) plugins.Processor {
	t.Helper()
	c, err := decode(t, yaml)
	if err != nil {
		t.Fatal(err)
	}
	p, err := redact.New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run processes the event's batch and returns what was counted.
func run(t testing.TB, yaml string, e *event.Event) map[string]int64 {
	t.Helper()
	counts := map[string]int64{}
	fields := map[string]event.Kind{}
	for _, x := range e.Extra {
		fields[x.Key] = x.Value.Kind()
	}
	p := build(t, yaml, plugins.Env{Fields: fields, Count: func(name, reason string, n int64) { counts[strings.TrimSpace(name+" "+reason)] += n }})
	if err := p.Process(t.Context(), e.Batch()); err != nil {
		t.Fatal(err)
	}
	return counts
}

// record makes an event whose Raw is a view into its batch's arena, with its message.
func record(raw string) *event.Event {
	b := plugintest.Batch(nil, "s", raw)
	e := &b.Events[0]
	e.RecordClass = event.ClassServiceLog
	if raw != "" {
		e.Set("message", event.StringValue(event.View(e.Raw)))
	}
	return e
}

func TestContract(t *testing.T) {
	for _, cfg := range []string{
		"{}", "detect: [all, email]", "{fields: [client, roles], with: remove}", "{fields: [client], with: network, detect: all}",
		"{fields: [client, request_id, api_response_code_int], with: hash, key: " + key + ", unparsed_text: keep}",
		`{fields: [path], when: 'method == "GET"'}`,
	} {
		plugintest.Processor(t, redact.Spec, cfg)
	}
}

// What stands in « » must go; the rest must stay.
func TestDetectorsFindSecretsAndNothingElse(t *testing.T) {
	t.Parallel()
	const fernet = "gAAAAABmVGVzdFRva2VuLW5vdC1yZWFsXzAxMjM0NTY3ODlhYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg"
	const id = "0123456789abcdef0123456789abcdef"
	basic := base64.StdEncoding.EncodeToString([]byte("user:sesame"))
	for _, line := range []string{
		// Nothing to find.
		"", "-", "plain text", `192.0.2.1 "GET /v2.1/servers/` + id + ` HTTP/1.1" status: 200 len: 408 time: 0.0725350`,
		"POST /v3/auth/tokens HTTP/1.1", "GET /v3/auth/tokens/OS-PKI/revoked", "GET /v3/users/" + id + "/password HTTP/1.1",
		"Unable to validate token: Failed to fetch token data from identity server", "the token has expired", "Invalid token",
		"Authorization failed for token: keystonemiddleware.auth_token._exceptions.InvalidToken: Token authorization failed",
		"keystonemiddleware.auth_token [-] Identity response", "password_expires_at: 2026-01-01", "bypass=true", "Bearer token required",
		"Basic auth is off", "secrets: none", "user@example.org wrote", "http://192.0.2.7:8774/v2/users/bob@example.org", "a=b@c",
		"password=", "GET /x?password=&a=b", "GET /x?password= HTTP/1.1", `{"password": null, "token": {"id": 1}}`, "tokens 12 of 30", "gAAAA",
		"-----BEGIN CERTIFICATE-----", "password=***", "X-Auth-Token: ***", "Authorization: Bearer ***", "100% of tok\\en", "50%-token",
		// Fernet.
		"«" + fernet + "»", "x «" + fernet + "», y", "a=«" + fernet + "==»&b", "%22«" + fernet + "»%22", `"gAAAAABm…" «gAAAAABmVGVzd»…`,
		// Tokens.
		"X-Auth-Token: «abc»", "x-auth-token=«abc»", `"X-Subject-Token": "«a b\"c»", "d"`, `{'X-Service-Token': '«abc»'}`,
		`[('X-Auth-Token', '«abc»'), ('A', 'b')]`, `-H "X-Auth-Token: «{SHA256}0a1b2c»" -H "Accept: x"`, `{\"X-Auth-Token\": \"«abc»\"} z`,
		"GET /?token=«" + id + "» HTTP/1.1", "/x?access_token=«abc»&refresh_token=«def»&a=b", "token=«abc;d,e»&x", "Invalid token «" + id + "» here",
		"GET /v2.0/tokens/«" + id + "»/endpoints", "GET /v2.0/tokens/«PKIZ_eJx9V0tv4zYQvvNXGL0W»", "Could not find token: «" + id + "» x",
		"X-Auth-Token%3A%20«abc»%20x", "next=%2Fx%3Ftoken%3D«abc»%26a%3Db&c=d", "X-Auth-Token: «a%20b» c", "x?to%6ben=«abc»&b",
		"oslo token=«a%26b»&c=d", `X-Auth-Token: [u'«abc»']`, `headers["X-Auth-Token"] = "«abc»"`, "X-Storage-Token:«abc»",
		// Passwords.
		"password=«sesame» x", "Password: «sesame»", `"password": "«sesame»"`, `{"adminPass":"«se,s{a}me»"}`, `\"adminPass\": \"«ses\\\"ame»\"}`,
		"--password «sesame» --x", "--os-password «sesame»", "['--password', '«sesame»']", "os_password = «sesame»", "pwd=«sesame»", "db_pass: «sesame»",
		"password%3D«sesame»%26x", "mysql+pymysql://nova:«sesame»@192.0.2.7/nova?charset=utf8", "rabbit://u:«p@ss»@h:5672//", "amqp://u:«p/w»@h/",
		"http://u:«sesame»@example.org:80/a@b", "password='«ses ame»' x", "password=«ses\\ame» x", "f(password=«sesame») x", "PASSWORD=«sesame»,",
		`{"auth": {"passwordCredentials": {"username": "u", "password": "«sesame»"}}}`, "passphrase: «sesame»", `password: "«never closed`,
		// Secrets.
		"client_secret=«abc»&x", "api_key=«abc»", "apikey: «abc»", "X-Auth-Key: «abc»", "X-Account-Meta-Temp-Url-Key: «abc»", `"secret": "«abc»"`,
		"application_credential_secret=«abc»", "-----BEGIN RSA PRIVATE KEY-----«\\nMIIabc\\n»-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----«\nMII»",
		// Headers.
		"Authorization: Bearer «abc» x", "Authorization: Basic «" + basic + "»", "Proxy-Authorization: Negotiate «abc»", "Authorization: «abc»",
		`"Authorization": "AWS4-HMAC-SHA256 «Credential=a/b, Signature=c»", "d"`, "Authorization: AWS «AKID:c2ln»", "Authorization: «Weird a b»", `Authorization: Digest «username="x", response="abc", nc=1»`,
		"Bearer «abcdefgh1»", "Basic «" + basic + "»", "Cookie: «a=b; c=d»", `Set-Cookie: «sessionid=abc; Path=/»`, "authorization%3A%20Bearer%20«abc»%20x",
		// Signatures.
		"GET /v1/AUTH_a/c/o?temp_url_sig=«0a1b»&temp_url_expires=1 HTTP/1.1", "X-Amz-Signature=«abc»&x", "Signature=«a%2Fb»", "?AWSAccessKeyId=a&Signature=«abc»",
	} {
		e := record(strings.NewReplacer("«", "", "»", "").Replace(line))
		counts := run(t, "{}", e)
		var want strings.Builder
		for rest := line; ; {
			before, after, found := strings.Cut(rest, "«")
			want.WriteString(before)
			if !found {
				break
			}
			want.WriteString("***")
			_, rest, _ = strings.Cut(after, "»")
		}
		if got := string(e.Raw); got != want.String() {
			t.Errorf("%q\nbecame %q\nwant   %q", line, got, want.String())
		}
		if got := schema.Get(e, "message").Str(); got != string(e.Raw) {
			t.Errorf("message is %q, the record %q", got, e.Raw)
		}
		if found := int64(strings.Count(line, "«")); (counts["redacted"] == 1) != (found > 0) {
			t.Errorf("%q: counted %v", line, counts)
		}
	}
}

func TestMailIsFoundWhereItIsNamed(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"from Jane.Doe+x@mail.example.org, to <bob@example.org>.":  "from ***, to <***>.",
		"GET /v3/users/bob%40example.org?mail=a.b%40example.org&x": "GET /v3/users/***?mail=***&x",
		"nobody@localhost a@b @x.y z@":                             "nobody@localhost a@b @x.y z@",
		"password=sesame@example.org":                              "password=***",
	} {
		e := record(line)
		run(t, "detect: [email]", e)
		if got := string(e.Raw); got != want {
			t.Errorf("%q became %q, want %q", line, got, want)
		}
		e = record(line)
		run(t, "{}", e)
		if strings.Contains(line, "Jane") && string(e.Raw) != line {
			t.Errorf("%q became %q though nobody asked", line, e.Raw)
		}
	}
}

func access() *event.Event {
	e := record(`192.0.2.77 - bob "GET /v2.1/servers/bob%20smith HTTP/1.1" 200 1192.0.2.770 x-192.0.2.77`)
	b := e.Batch()
	line := event.View(e.Raw)
	e.RecordClass, e.Service, e.Program = event.ClassAccess, "nova", "nova-api"
	e.Client, e.ForwardedFor = line[:10], b.Arena().CopyString("192.0.2.77, 2001:db8:1:2::7")
	e.UserName, e.User = "bob", "bob"
	e.Path = b.Arena().CopyString("/v2.1/servers/bob%20smith")
	e.SetStatus(200)
	e.Set("route", event.StringValue("/servers/{id}"))
	e.Set("resource_ids", event.ListValue([]string{"bob%20smith", "x"}))
	e.Set("attributes", event.ObjectValue(`{"frontend": "192.0.2.77:80", "note":"say \"bob\"", "n": 200, "bob": [1, "BOB", {"x": "bob"}], "bobby": true}`))
	e.Set("original", event.StringValue(line))
	return e
}

func texts(e *event.Event) string {
	return string(schema.NewEncoder(schema.EncodeOptions{Newline: true}).Append(nil, e)) + string(e.Raw)
}

func TestValuesOfFieldsStandNowhere(t *testing.T) {
	t.Parallel()
	e := access()
	id := e.ID()
	counts := run(t, "fields: [user_name, client]", e)
	const raw = `*** - *** "GET /v2.1/servers/***%20smith HTTP/1.1" 200 1192.0.2.770 x-***`
	want := map[string]string{
		"client": "", "forwarded_for": "***, 2001:db8:1:2::7", "user": "***", "user_name": "***", "path": "/v2.1/servers/***%20smith",
		"resource_ids": `["***%20smith","x"]`, "message": raw, "original": raw, "service": "nova", "api_response_code_int": "200",
		"attributes": `{"frontend": "***:80", "note":"say \"***\"", "n": 200, "***": [1, "BOB", {"x": "***"}], "bobby": true}`,
	}
	for name, text := range want {
		if got := schema.Get(e, name).Text(); got != text {
			t.Errorf("%s = %s, want %s", name, got, text)
		}
	}
	if string(e.Raw) != raw || e.ID() != id {
		t.Errorf("the record is %q, its id %s, was %s", e.Raw, e.ID(), id)
	}
	if fmt.Sprint(counts) != "map[redacted:1]" {
		t.Errorf("counted %v", counts)
	}
}

func TestWhatAFieldBecomes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ yaml, field, want, raw string }{
		{"{fields: [user_name], with: hash, key: " + key + "}", "user_name", "hmac:6f32117ae2bc2046", ""},
		{"{fields: [user_name], with: remove}", "user_name", "", `*** "GET`},
		{"{fields: [client], with: mask}", "client", "", `*** - bob`},
		{"{fields: [client], with: remove}", "client", "", `*** - bob`},
		{"{fields: [client], with: network}", "client", "192.0.2.0", `192.0.2.0 - bob`},
		{"{fields: [client], with: network, ipv4_prefix: 16}", "client", "192.0.0.0", `192.0.0.0 - bob`},
		{"{fields: [forwarded_for], with: network}", "forwarded_for", "192.0.2.0, 2001:db8:1::", `192.0.2.0 - bob`},
		{"{fields: [user_name], with: network}", "user_name", "***", `*** "GET`},
		{"{fields: [api_response_code_int]}", "api_response_code_int", "", `HTTP/1.1" *** 1192`},
		{"{fields: [attributes]}", "attributes", "", `*** - *** "GET`},
		{"{fields: [resource_ids]}", "resource_ids", `["***","***"]`, `servers/*** HTTP`},
		{"{fields: [resource_ids], with: remove}", "resource_ids", "", `servers/*** HTTP`},
		{"{fields: [timestamp]}", "timestamp", "", `192.0.2.77 - bob`},
		{"{fields: [identity_unverified_bool]}", "identity_unverified_bool", "", `192.0.2.77 - bob`},
	} {
		e := access()
		e.Time = time.Unix(1_800_000_000, 0)
		e.SetBool(event.BoolIdentityUnverified, true)
		if c.field == "attributes" {
			e.Set("attributes", event.ObjectValue(`{"a": "192.0.2.77", "b": ["bob"]}`))
		}
		run(t, c.yaml, e)
		got := schema.Get(e, c.field).Text()
		if strings.HasPrefix(c.want, "hmac:") {
			if len(got) != len(c.want) || !strings.HasPrefix(got, "hmac:") || got != schema.Get(e, "user").Text() || !strings.Contains(string(e.Raw), got) {
				t.Errorf("%s: %s = %q in %q", c.yaml, c.field, got, e.Raw)
			}
			continue
		}
		if got != c.want || !strings.Contains(string(e.Raw), c.raw) {
			t.Errorf("%s: %s = %q, want %q, in %q", c.yaml, c.field, got, c.want, e.Raw)
		}
	}
}

func TestHashIsThatOfTheKeyAndTheValue(t *testing.T) {
	t.Parallel()
	hash := func(key, value string) string {
		e := record("x " + value)
		e.UserName = value
		run(t, "{fields: [user_name], with: hash, key: "+key+"}", e)
		return e.UserName
	}
	const ofBob = "hmac:6f32117ae2bc2046" // printf %s bob | openssl dgst -sha256 -hmac 0123456789abcdef
	if got := hash(key, "bob"); got != ofBob {
		t.Errorf("got %s, want %s", got, ofBob)
	}
	if hash(key, "bob") == hash(key, "eve") || hash(key, "bob") == hash(key+"0", "bob") {
		t.Error("keys or values do not count")
	}
}

func TestNetworkKnowsTheFormsOfAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.77": "192.0.2.0", "192.0.2.77:4711": "192.0.2.0", "2001:db8:1:2::7": "2001:db8:1::", "[2001:db8:1:2::7]:80": "2001:db8:1::",
		"::ffff:192.0.2.77": "192.0.2.0", "fe80::1%eth0": "fe80::", "192.0.2.77, unknown": "***", "unknown": "***", "192.0.2.77,192.0.2.1": "192.0.2.0, 192.0.2.0",
		"2001:DB8:1:2::7": "2001:db8:1::",
	} {
		e := record("seen " + text)
		e.Host = text
		e.Set("other", event.StringValue("at "+text))
		run(t, "{fields: [host], with: network}", e)
		if e.Host != want || strings.Contains(texts(e), "77") || strings.Contains(texts(e), ":7") {
			t.Errorf("%s became %s in %s", text, e.Host, texts(e))
		}
		again := texts(e)
		if run(t, "{fields: [host], with: network}", e); texts(e) != again {
			t.Errorf("again %s became %s", again, texts(e))
		}
	}
}

func TestWordsOfTheAgentStay(t *testing.T) {
	t.Parallel()
	e := access()
	e.UserName, e.User = "nova", "nova" // a service's user has the service's name
	run(t, "fields: [user_name]", e)
	if e.Service != "nova" || e.Program != "nova-api" || e.User != "***" {
		t.Errorf("service %q, program %q, user %q", e.Service, e.Program, e.User)
	}
	e = access()
	e.UserName = "nova"
	e.Service = e.Batch().Arena().CopyString("nova") // taken from the record
	run(t, "fields: [user_name]", e)
	if e.Service != "***" {
		t.Errorf("service %q", e.Service)
	}
}

func unparsed() *event.Event {
	e := record("192.0.2.77 bob did password=sesame what")
	e.RecordClass, e.Error, e.Service = event.ClassUnparsed, "no format matched", "nova"
	line := event.View(e.Raw)
	e.Client, e.UserName = line[:10], line[11:14]
	e.Set("original", event.StringValue(line))
	e.Set("region", event.StringValue("eu"))
	e.Set("parts", event.ListValue([]string{line[:5], "own"}))
	e.Set("attributes", event.ObjectValue(e.Batch().Arena().CopyString(`{"a":"bob"}`)))
	return e
}

func TestTextOfUnparsedRecordsIsWithheld(t *testing.T) {
	t.Parallel()
	e := unparsed()
	id := e.ID()
	counts := run(t, "fields: [user_id]", e)
	for name, want := range map[string]string{
		"message": "[withheld]", "original": "[withheld]", "user_name": "[withheld]", "client": "", "error": "no format matched", "service": "nova",
		"record_class": "unparsed", "region": "eu", "parts": `["[withheld]","own"]`, "attributes": "",
	} {
		if got := schema.Get(e, name).Text(); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if string(e.Raw) != "[withheld]" || e.ID() != id || fmt.Sprint(counts) != "map[redacted:1 withheld unparsed:1]" {
		t.Errorf("record %q, counted %v", e.Raw, counts)
	}
	if counts := run(t, "fields: [user_id]", e); len(counts) != 0 {
		t.Errorf("a second time counted %v", counts)
	}
	e = unparsed()
	run(t, "{fields: [client], detect: all, unparsed_text: keep}", e)
	if got := string(e.Raw); got != "*** bob did password=*** what" {
		t.Errorf("kept: %q", got)
	}
	e = unparsed()
	run(t, "{}", e)
	if got := string(e.Raw); got != "192.0.2.77 bob did password=*** what" {
		t.Errorf("without fields: %q", got)
	}
}

// A batch that was taken apart is a copy, whose arena tells nothing: then all counts as taken from the record.
func TestCopiesAreRedactedAsWell(t *testing.T) {
	t.Parallel()
	e := access()
	e.Service = e.Batch().Arena().CopyString("bob")
	e = &e.Batch().Clone().Events[0]
	run(t, "fields: [user_name]", e)
	if strings.Contains(texts(e), `"bob"`) || strings.Contains(texts(e), " bob") || e.Service != "***" {
		t.Errorf("left in %s", texts(e))
	}
	e = &unparsed().Batch().Clone().Events[0]
	for range 2 {
		run(t, "fields: [user_id]", e)
		if s := texts(e); strings.Contains(s, "bob") || strings.Contains(s, "192.0.2") || !strings.Contains(s, "no format matched") || e.RecordClass != "unparsed" {
			t.Errorf("left in %s", s)
		}
	}
}

func TestFailedConditionRedacts(t *testing.T) {
	t.Parallel()
	for status, want := range map[int32]string{0: "***", 7: "***", 6: "bob"} {
		e := access()
		e.SetStatus(status)
		counts := run(t, `{fields: [user_name], when: '100 % api_response_code_int == 2'}`, e)
		if e.UserName != want || (counts["eval_errors when"] == 1) != (status == 0) {
			t.Errorf("status %d: user %q, counted %v", status, e.UserName, counts)
		}
	}
}

func TestWhatADetectorFindsStandsNowhere(t *testing.T) {
	t.Parallel()
	e := record("curl -H 'X-Auth-Token: tok-4711' http://192.0.2.1/")
	line := event.View(e.Raw)
	at := strings.Index(line, "tok")
	e.Set("captured", event.StringValue(line[at:at+8])) // nothing here tells what it is
	e.Set("attributes", event.ObjectValue(`{"h":["x tok%2D4711"],"adminPass":12345,"db_password":"hunter2","tok-4711":1}`))
	e.Set("api_key", event.StringValue("k1"))
	e.Set("note", event.StringValue("k1"))
	e.Set("other", event.StringValue("k1 hunter2"))
	e.Set("x token=tok-9999 ", event.StringValue("tok-9999"))
	run(t, "{}", e)
	for name, want := range map[string]string{
		"captured": "***", "attributes": `{"h":["x ***"],"adminPass":null,"db_password":"***","***":1}`, "api_key": "***", "note": "***", "other": "k1 ***", "x token=*** ": "***",
		"message": "curl -H 'X-Auth-Token: ***' http://192.0.2.1/",
	} {
		if got := schema.Get(e, name).Text(); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestObjectThatIsNoJSONGoesAsAWhole(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"password": "sesame"`, `{"a": sesame, "password": 1}`, `{"a" "password"}`, strings.Repeat(`{"password":`, 200) + "1" + strings.Repeat("}", 200)} {
		e := record("x")
		e.Set("attributes", event.ObjectValue(text))
		run(t, "{}", e)
		if v, ok := e.Get("attributes"); ok {
			t.Errorf("%.50s became %.50s", text, v.Str())
		}
	}
}

// What somebody can write into a log must not make the agent stand still.
func TestLargeRecordsTakeTimeInProportion(t *testing.T) {
	t.Parallel()
	const size = 1 << 19
	for _, piece := range []string{
		"password=", "gAAAA", "authorization:", "cookie=", "-----BEGIN PRIVATE KEY-----", "token ", "tokens/", "@", "a@b", "://u:p@", "://u:p", "bearer ", "basic ",
		"%25", "\\\\", `password=\"`, "%70assword%3D", "'X-Auth-Token', '", "password=%i ", "{",
	} {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			b.WriteString(strings.Replace(piece, "%i", strconv.Itoa(i), 1))
		}
		e := record(b.String())
		e.UserName = "bob"
		done := make(chan map[string]int64, 1)
		go func() { done <- run(t, "{fields: [user_name], detect: [all, email]}", e) }()
		limit := time.NewTimer(20 * time.Second) // hours, if it took the square of the time
		select {
		case counts := <-done:
			if strings.Contains(piece, "%i") && (counts["withheld crowded"] != 1 || string(e.Raw) != "[withheld]") {
				t.Errorf("%q: %.60q, counted %v", piece, e.Raw, counts)
			}
		case <-limit.C:
			t.Fatalf("%q takes too long", piece)
		}
		limit.Stop()
	}
	var keys strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&keys, `"bob %d": 1, `, i)
	}
	e := record("x")
	e.UserName = "bob"
	e.Set("attributes", event.ObjectValue("{"+keys.String()+`"a": 1}`))
	if run(t, "fields: [user_name]", e); schema.Get(e, "attributes").Kind() != event.Absent {
		t.Error("an object with many keys to change stays")
	}
}

func TestDroppedEventsAreLeftAlone(t *testing.T) {
	t.Parallel()
	e := access()
	e.Dropped = true
	if counts := run(t, "fields: [user_name]", e); e.UserName != "bob" || len(counts) != 0 {
		t.Errorf("user %q, counted %v", e.UserName, counts)
	}
}

func TestWhatIsWrongIsNamedByItsKey(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		"with: hash":                           "key: with: hash needs a key",
		"{with: hash, key: short}":             "key: a key has at least 16 bytes",
		"{key: " + key + "}":                   "key: with: mask uses no key",
		"with: network":                        "with: network needs fields",
		"{fields: [client], ipv4_prefix: 33}":  "ipv4_prefix",
		"{fields: [event_id]}":                 "fields[0]: event_id cannot be changed",
		"{fields: [client, client]}":           "fields[1]: client is named twice",
		`{fields: [""]}`:                       "fields[0]: a field needs a name",
		"detect: none":                         "detect: nothing to do",
		"detect: pasword":                      "detect: expected all, none or a list of fernet, ",
		"detect: [token, tokn]":                `detect[1]: expected all or one of fernet, token, password, secret, header, signature, email (did you mean "token"?)`,
		"detect: {a: b}":                       "detect: expected all",
		"detect: [token, [a]]":                 "test.yaml:1:17: detect[1]: expected all or",
		"{fields: [clientt]}":                  `fields[0]: unknown field "clientt" (did you mean "client"?)`,
		"{fields: [client, something_else]}":   "fields[1]: unknown field \"something_else\"",
		"{fields: [client], when: 'pth == 1'}": "when: ",
	} {
		c, err := decode(t, yaml)
		if err == nil {
			_, err = redact.New(c, plugins.Env{})
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "short}") {
			t.Errorf("%s: %v, want %q", yaml, err, want)
		}
		var at conf.KeyError
		var faults conf.Faults
		if !errors.As(err, &at) && !errors.As(err, &faults) {
			t.Errorf("%s: %T has no place", yaml, err)
		}
	}
}

// encodings are the ways in which a value can stand in a text.
func encodings(v string) []string {
	quoted, _ := json.Marshal(v)
	percent := url.PathEscape(v)
	all := "%" + strings.ToUpper(fmt.Sprintf("%x", v[:1])) + v[1:]
	var every strings.Builder
	for i := range len(v) {
		fmt.Fprintf(&every, "%%%02x", v[i])
	}
	return []string{v, string(quoted[1 : len(quoted)-1]), percent, strings.ReplaceAll(url.QueryEscape(v), "%20", "+"), all, every.String(), url.QueryEscape(percent), url.QueryEscape(string(quoted))}
}

// decoded undoes what encodings does.
func decoded(s string) string {
	for range 4 {
		if u, err := url.PathUnescape(s); err == nil {
			s = u
		}
		s = strings.ReplaceAll(s, `\"`, `"`)
	}
	return s
}

// place puts a text at one of the places of an event.
func place(e *event.Event, where int, text string) {
	a := e.Batch().Arena()
	text = a.CopyString(text)
	fixed := []*string{
		&e.Method, &e.Path, &e.Query, &e.HTTPVersion, &e.Host, &e.Client, &e.ForwardedFor, &e.UserAgent, &e.Referer, &e.RequestID,
		&e.GlobalRequestID, &e.User, &e.UserID, &e.UserDomainID, &e.ProjectID, &e.ProjectDomainID, &e.Logger, &e.Program, &e.Service,
		&e.Kind, &e.Format, &e.TimestampBasis, &e.Outcome, &e.SourceSystem, &e.LogFile, &e.Error,
	}
	object := func(k, v string) event.Value {
		p, _ := json.Marshal(map[string]any{k: []any{v, map[string]any{"x": v}}, "n": 1})
		return event.ObjectValue(a.Copy(p))
	}
	switch n := where % (len(fixed) + 7); n {
	case len(fixed):
		e.Raw = []byte(text)
	case len(fixed) + 1:
		e.Set("message", event.StringValue(text))
	case len(fixed) + 2:
		e.Set("resource_ids", event.ListValue([]string{"a", text}))
	case len(fixed) + 3:
		e.Set("attributes", object("k", text))
	case len(fixed) + 4:
		e.Set("metadata", object(text, "v"))
	case len(fixed) + 5:
		e.Set(text, event.StringValue("v"))
	case len(fixed) + 6:
		e.Set("original", event.StringValue(text))
	default:
		*fixed[n] = text
	}
}

func checkCanary(t *testing.T, yaml, canary string, e *event.Event) {
	t.Helper()
	p := build(t, yaml, plugins.Env{})
	if err := p.Process(t.Context(), e.Batch()); err != nil {
		t.Fatal(err)
	}
	out := texts(e)
	if line, _, _ := strings.Cut(out, "\n"); !json.Valid([]byte(line)) {
		t.Fatalf("%s\nis no JSON any more", line)
	}
	if strings.Contains(decoded(out), canary) || strings.Contains(out, canary) {
		t.Fatalf("%s: %q survives in\n%s", yaml, canary, out)
	}
	if err := p.Process(t.Context(), e.Batch()); err != nil {
		t.Fatal(err)
	}
	if again := texts(e); again != out {
		t.Fatalf("%s: a second time\n%s\nbecame\n%s", yaml, out, again)
	}
}

// FuzzCanary: the value of a named field, and a secret that stands in its context once, survive at no place of an event.
func FuzzCanary(f *testing.F) {
	f.Add(uint16(3), uint16(30), uint8(0), "x ", " y", "")
	f.Add(uint16(26), uint16(29), uint8(2), "a=b&c=", "&d", "secret word")
	f.Add(uint16(27), uint16(31), uint8(5), `{"a":"`, `"}`, `q"uo\te`)
	f.Add(uint16(28), uint16(1), uint8(6), "%22", "%", "ü+é")
	f.Add(uint16(27), uint16(31), uint8(4), `{"a?;:"`, " ", `q"uo\te`)
	f.Add(uint16(0), uint16(3), uint8(1), "0 ", " 0", "\x0epk?\b?0")
	f.Add(uint16(6), uint16(14), uint8(5), "\x01", "?", "?\v?W~?4_")
	f.Add(uint16(30), uint16(6), uint8(0), "e", "", "v")
	f.Add(uint16(31), uint16(24), uint8(0), "0", "?\x01", "0")
	f.Fuzz(func(t *testing.T, one, two uint16, encoding uint8, before, after, inner string) {
		const core = "CANARY4711"
		if len(before)+len(after)+len(inner) > 300 || strings.Contains(decoded(before+inner+after), core) {
			return
		}
		valid := func(s string) string { return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "?") }
		before, after, inner = valid(before), valid(after), valid(inner)
		// Of a word's boundary: the value must not be within a word.
		before, after = strings.TrimRight(before, "\\%")+" ", " "+after

		canary := core
		if inner != "" {
			canary = core + inner + "z"
		}
		forms := encodings(canary)
		form := forms[int(encoding)%len(forms)]
		for _, yaml := range []string{"fields: [user_name]", "{fields: [user_name], with: hash, detect: all, key: " + key + "}", "{fields: [user_name], with: remove}", "{fields: [user_name], with: network}"} {
			b := event.NewBatch("s")
			b.Arena().Block(1)
			e := b.Append()
			e.RecordClass = event.ClassAccess
			e.UserName = b.Arena().CopyString(canary)
			place(e, int(one), before+form+after)
			place(e, int(two), form)
			checkCanary(t, yaml, core, e)
		}
		if strings.ContainsAny(inner, " \t\r\n\"'&<>`\\;,)]}%") || strings.ContainsAny(before, "\"'") {
			return // what ends a value
		}
		b := event.NewBatch("s")
		b.Arena().Block(1)
		e := b.Append()
		e.RecordClass = event.ClassServiceLog
		keys := []string{"password=", "X-Auth-Token: ", "client_secret=", "temp_url_sig=", "Authorization: Bearer ", "access_token=", "mysql://u:"}
		k := keys[int(one)%len(keys)]
		place(e, int(one), before+k+canary+map[bool]string{true: "@h/", false: ""}[k == "mysql://u:"]+after)
		if int(one) != int(two) {
			place(e, int(two), form)
		}
		if strings.Contains(texts(e), k) { // the second text may have taken the place of the first
			checkCanary(t, "{}", core, e)
		}
	})
}

// What stands there in the clear does not hide what stands there encoded.
func TestEncodedValuesAreFoundBesideOthers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"bob %62ob":             "*** ***",
		"/bob /x%2Fbob":         "/*** /x%2F***",
		"bob%61 x%2Fbob":        "***%61 x%2F***",
		"x%2fbob%61 bob":        "x%2fbob%61 ***", // decoded: boba
		"bob %6262ob \\u0062ob": "*** %6262ob ***",
		"%2562ob bob b%6Fb":     "*** *** ***",
		"bob %41bob":            "*** %41bob",
	} {
		e := record("x")
		e.UserName = "bob"
		e.Set("other", event.StringValue(text))
		run(t, "fields: [user_name]", e)
		if got := schema.Get(e, "other").Str(); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
}

// Every canary at every place in every form.
func TestCanarySurvivesNowhere(t *testing.T) {
	t.Parallel()
	for where := range 33 {
		for i, form := range encodings(`CANARY 4711"x`) {
			for _, yaml := range []string{"fields: [user_name]", "{fields: [user_name], with: hash, detect: all, key: " + key + "}"} {
				b := event.NewBatch("s")
				b.Arena().Block(1)
				e := b.Append()
				e.RecordClass = event.ClassAccess
				e.UserName = b.Arena().CopyString(`CANARY 4711"x`)
				place(e, where, "a "+form+" b="+form+"&")
				checkCanary(t, yaml, "4711", e)
				if t.Failed() {
					t.Fatalf("at place %d in form %d", where, i)
				}
			}
		}
	}
}

// clean makes a batch of requests in which nothing is to be found.
func clean() *event.Batch { return requests("vm-") }

func requests(name string) *event.Batch {
	lines := make([]string, 500)
	for i := range lines {
		id := fmt.Sprintf("%x", sha256.Sum256([]byte(strconv.Itoa(i))))
		lines[i] = fmt.Sprintf(`2026-01-02 03:04:%02d.%03d 406 INFO nova.osapi_compute.wsgi.server [None req-%s-%s-4d08-91e0-%s %s c3c35624f9ee488d98c33ed764333953 - - default default] 192.0.2.%d "GET /v2.1/servers/%s?limit=%d&name=%s%d HTTP/1.1" status: 200 len: %d time: 0.0%d`,
			i%60, i, id[:8], id[8:12], id[12:24], id[24:56], i%250, id[:32], i%9, name, i, 400+i, 100000+i)
	}
	b := plugintest.Batch(nil, "s", lines...)
	for i := range b.Events {
		e := &b.Events[i]
		s := event.View(e.Raw)
		e.RecordClass, e.Kind, e.Service, e.Program, e.Format = event.ClassAccess, "compute-api", "nova", "nova-api", "nova-eventlet"
		e.SourceSystem, e.Outcome, e.TimestampBasis = "openstack", "success", "end"
		w := strings.Fields(s)
		e.Logger, e.RequestID, e.UserID, e.ProjectID = w[4], w[5], w[7], w[8]
		e.Client = w[13]
		e.Method, e.Path = w[14], w[15]
		e.Set("route", event.StringValue("/servers/{id}"))
	}
	return b
}

func TestCleanEventsCostNoMemory(t *testing.T) {
	b := clean()
	p := build(t, "{}", plugins.Env{})
	if n := testing.AllocsPerRun(50, func() { _ = p.Process(t.Context(), b) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
	if strings.Contains(plugintest.Encode(b), "***") {
		t.Error("something was redacted")
	}
}

func BenchmarkProcess(b *testing.B) {
	for _, yaml := range []string{
		"{}", "{fields: [client], with: mask}", "{fields: [client], with: hash, key: " + key + "}", "{fields: [client], with: network, detect: all}",
	} {
		b.Run(strconv.Quote(yaml), func(b *testing.B) {
			p := build(b, yaml, plugins.Env{})
			x := clean()
			size := 0
			for i := range x.Events {
				size += len(x.Events[i].Raw)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			// Each round needs events as they were read. What a processor changes in these stands in few fields.
			client, raw := make([]string, len(x.Events)), make([][]byte, len(x.Events))
			for i := range x.Events {
				client[i], raw[i] = x.Events[i].Client, x.Events[i].Raw
			}
			used := x.Size()
			for b.Loop() {
				for i := range x.Events {
					x.Events[i].Client, x.Events[i].Raw = client[i], raw[i]
				}
				if err := p.Process(b.Context(), x); err != nil {
					b.Fatal(err)
				}
				if x.Size() > used+(1<<20) {
					b.StopTimer()
					x = clean()
					for i := range x.Events {
						client[i], raw[i] = x.Events[i].Client, x.Events[i].Raw
					}
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(x.Events)), "ns/event")
		})
	}
}
