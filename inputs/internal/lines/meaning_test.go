package lines

import (
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/inputs/internal/routes"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/schema"
)

const (
	uuidToken = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
	fernet    = "gAAAAABmZ0abcdefghijklmnopqrstuvwxyz-0123456789_ABCDEFGH="
)

// everything is all that leaves the agent of an event.
func everything(e *event.Event) string {
	return string(schema.NewEncoder(schema.EncodeOptions{}).Append(nil, e)) + "\n" + string(e.Raw)
}

func apache(target, referer string) string {
	return `192.0.2.1 - - [01/Jan/2026:10:00:00 +0000] "GET ` + target + ` HTTP/1.1" 200 310 "` + referer + `" "curl/8"`
}

func TestSecretsOfRequestsAreMaskedUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ line, secret, path, query string }{
		"a token in the path":          {apache("/v2.0/tokens/"+uuidToken, "-"), uuidToken, "/v2.0/tokens/***", ""},
		"a short one":                  {apache("/v2.0/tokens/opensesame/endpoints", "-"), "opensesame", "/v2.0/tokens/***/endpoints", ""},
		"under a mount":                {apache("/identity/v2.0/tokens/"+fernet, "-"), fernet[:20], "/identity/v2.0/tokens/***", ""},
		"under an unknown mount":       {apache("/my-cloud/v2.0/tokens/"+uuidToken, "-"), uuidToken, "/my-cloud/v2.0/tokens/***", ""},
		"of OAuth":                     {apache("/v3/OS-OAUTH1/authorize/opensesame", "-"), "opensesame", "/v3/OS-OAUTH1/authorize/***", ""},
		"where a name stands":          {apache("/v2.1/os-keypairs/"+fernet, "-"), fernet[:20], "/v2.1/os-keypairs/***", ""},
		"a signature in the query":     {apache("/v1/AUTH_x/c/o?temp_url_sig=da39a3ee5e6b4b0d3255bfef95601890afd80709&temp_url_expires=1", "-"), "da39a3ee", "/v1/AUTH_x/c/o", "temp_url_sig=***&temp_url_expires=1"},
		"of S3":                        {apache("/b/o?X-Amz-Signature=abcdef0123456789abcdef&X-Amz-Date=1", "-"), "abcdef0123456789", "/b/o", "X-Amz-Signature=***&X-Amz-Date=1"},
		"an access token":              {apache("/v2.1/servers?access_token=opensesame", "-"), "opensesame", "/v2.1/servers", "access_token=***"},
		"percent-encoded":              {apache("/v2.1/servers?x=1&access%5Ftoken=opensesame", "-"), "opensesame", "/v2.1/servers", "x=1&access%5Ftoken=***"},
		"a code":                       {apache("/v3/OS-FEDERATION/websso/openid/redirect_uri?state=1&code=open.sesame&x=2", "-"), "open.sesame", "/v3/OS-FEDERATION/websso/openid/redirect_uri", "state=1&code=***&x=2"},
		"a token and a code":           {apache("/v2.0/tokens/opensesame/OS-FEDERATION?code=opensesame", "-"), "opensesame", "/v2.0/tokens/***/OS-FEDERATION", "code=***"},
		"in the referer":               {apache("/v2.1/servers", "http://192.0.2.2/v2.0/tokens/"+uuidToken), uuidToken, "/v2.1/servers", ""},
		"in a line that is none":       {"something said: X-Auth-Token: " + fernet, fernet[:20], "", ""},
		"in a line of the service":     {"2026-01-01 10:00:00.123 1 INFO nova.compute.manager [-] REQ: curl -H 'X-Auth-Token: " + fernet + "' http://192.0.2.1", fernet[:20], "", ""},
		"in a request that is no such": {`2026-01-01 10:00:00.123 1 INFO nova.osapi_compute.wsgi.server [-] 192.0.2.1 "?access_token=opensesame" status: 400 len: 1 time: 0.1000000`, "opensesame", "", ""},
	} {
		conf := Defaults()
		conf.Original, conf.Records = true, "all"
		b := fill(t, conf, Options{}, c.line+"\n")
		e := &b.Events[0]
		if all := everything(e); strings.Contains(all, c.secret) {
			t.Errorf("%s: the secret stands in %s", name, all)
		}
		if e.Path != c.path || e.Query != c.query {
			t.Errorf("%s: path %q, query %q, want %q and %q", name, e.Path, e.Query, c.path, c.query)
		}
		if o, _ := e.Get("original"); o.Str() != string(e.Raw) || !strings.Contains(o.Str(), "***") {
			t.Errorf("%s: original %q, record %q", name, o.Str(), e.Raw)
		}
		id := e.ID()
		conf.MaskTokens = false
		b = fill(t, conf, Options{}, c.line+"\n")
		e = &b.Events[0]
		if string(e.Raw) != c.line || strings.Contains(everything(e), "***") {
			t.Errorf("%s: told otherwise, and masked: %s", name, everything(e))
		}
		if e.ID() != id {
			t.Errorf("%s: the id depends on the mask", name)
		}
	}
}

// TestSecretsInHeadersAreMaskedWhateverFollows has HAProxy's captured headers before records whose attributes are figures.
func TestSecretsInHeadersAreMaskedWhateverFollows(t *testing.T) {
	t.Parallel()
	const (
		haproxy = `192.0.2.9:35430 [02/Mar/2026:10:15:30.110] nova_api nova_api_be/ctl1 0/0/0/10/12 200 319 - - ---- 2/1/0/0/0 0/0 {` + fernet + `} "GET /v2.1/servers HTTP/1.1"`
		cookie  = `192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/volumes HTTP/1.1" 200 255 "" "" 46562 132 "fe" "be" "srv" 0 0 0 139 142 ---- 2 1 0 0 0 0 0 "sid=opensesame" "" `
		figures = `[pid: 21082|app: 0|req: 12/31] 192.0.2.2 () {58 vars in 1211 bytes} [Mon Mar  2 10:15:30 2026] GET /v3/volumes => generated 5102 bytes in 31 msecs (HTTP/1.1 200) 6 headers in 377 bytes (1 switches on core 0)`
	)
	for _, records := range []string{"access", "all"} {
		conf := Defaults()
		conf.Records = records
		const tag = "Mar  2 10:15:30 ctl1 haproxy[77]: "
		b := fill(t, conf, Options{}, figures+"\n"+tag+haproxy+"\n"+figures+"\n"+tag+cookie+"\n"+figures+"\n")
		if len(b.Events) != 5 {
			t.Fatalf("%s: %d events", records, len(b.Events))
		}
		for i := range b.Events {
			all, _, _ := strings.Cut(everything(&b.Events[i]), "\n")
			if strings.Contains(all, fernet[:20]) || strings.Contains(all, "opensesame") || strings.Contains(all, "***") != (i%2 == 1) {
				t.Errorf("%s: record %d: %s", records, i, all)
			}
		}
	}
}

// TestCapturedCookiesAreMaskedOnTheLine has a proxy log cookies, of which nothing on the line says that they are some.
func TestCapturedCookiesAreMaskedOnTheLine(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"clf":  `192.0.2.10 - - [02/Mar/2026:08:00:00 +0000] "GET /v2.1/servers HTTP/1.1" 200 1684 "" "" 60886 345 "nova_api" "nova_api" "ctl2" 1 0 1 94 96 ---- 0 0 0 0 0 0 0 "sid=opensesame" "back=openbarley" `,
		"http": `192.0.2.10:60886 [02/Mar/2026:08:00:00.345] nova_api nova_api/ctl2 1/0/1/94/96 200 1684 sid=opensesame back=openbarley ---- 0/0/0/0/0 0/0 "GET /v2.1/servers HTTP/1.1"`,
	} {
		conf := Defaults()
		conf.Original = true
		b := fill(t, conf, Options{}, line+"\n")
		e := &b.Events[0]
		if v, _ := e.Get("attributes"); !strings.Contains(v.Str(), `"haproxy_request_cookie":"***"`) {
			t.Errorf("%s: no cookie was found: %s", name, everything(e))
		}
		if all := everything(e); strings.Contains(all, "opensesame") || strings.Contains(all, "openbarley") {
			t.Errorf("%s: a cookie stands in %s", name, all)
		}
		if o, _ := e.Get("original"); o.Str() != string(e.Raw) || !strings.Contains(o.Str(), `GET /v2.1/servers HTTP/1.1`) {
			t.Errorf("%s: original %q, record %q", name, o.Str(), e.Raw)
		}
	}
}

// TestNobodyHidesByAskingForIt asks with secrets that are something else on the same line.
func TestNobodyHidesByAskingForIt(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"/v2.0/tokens/192.0.2.1", "/v2.0/tokens/GET", "/v2.0/tokens/200", "/v2.1/servers?access_token=192.0.2.1", "/v2.1/servers?password=GET",
		"/v3/OS-FEDERATION/websso?code=192.0.2.1", "/v2.1/servers?access_token=openstack&password=curl/8",
	} {
		b := fill(t, Defaults(), Options{}, apache(target, "-")+"\n")
		e := &b.Events[0]
		if e.Client != "192.0.2.1" || e.Method != "GET" || e.UserAgent != "curl/8" || e.SourceSystem != "openstack" || e.Status != 200 {
			t.Errorf("%s: %s", target, everything(e))
		}
		if strings.Contains(e.Path+e.Query, "192.0.2.1") || !strings.Contains(e.Path+e.Query, "***") {
			t.Errorf("%s: not masked: %s", target, everything(e))
		}
	}
}

func TestRecordsSayWhatTheyAreAbout(t *testing.T) {
	t.Parallel()
	c := Defaults()
	text := apache("/v2.1/servers/6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9/action", "-") + "\n" + apache("/v7/invoices/9", "-") + "\n"
	e := &fill(t, c, Options{}, text).Events[0]
	if e.Route != "/servers/{id}/action" || e.Service != "nova" || e.Action != "read" || e.ResourceID != "6a1b2c3d-4e5f-4061-8273-8495a6b7c8d9" || e.APIVersion != "v2.1" {
		t.Errorf("%s", everything(e))
	}
	c.Routes = []routes.Service{{Service: "billing", Kind: "billing-api", Versions: []string{"v7"}, Paths: []string{"/invoices[/{invoice}]"}}}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	e = &fill(t, c, Options{}, text).Events[1]
	if e.Route != "/invoices/{id}" || e.Service != "billing" || e.ResourceType != "invoice" {
		t.Errorf("%s", everything(e))
	}
	c.Routes[0].Paths[0] = "/invoices[/{invoice}"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "] is missing") {
		t.Errorf("got %v", err)
	}
	if _, err := New(c, Options{}); err == nil {
		t.Error("New took a wrong path")
	}
}
