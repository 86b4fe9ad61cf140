package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

func testLookup(env, files map[string]string) Lookup {
	return Lookup{
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
	}
}

func TestInterpolateReplacesInTextsOnly(t *testing.T) {
	t.Parallel()
	lookup := testLookup(
		map[string]string{"A": "one", "EMPTY": "", "EVIL": "x: {y: [1]}\n- b", "CREDENTIALS_DIRECTORY": "/creds", "N": "${A}"},
		map[string]string{"/f": "text\n", "/crlf": "text\r\n", "/two": "a\n\n", "/creds/k": "key\n"},
	)
	for text, want := range map[string]string{
		"${A}": "one", "x${A}y${A}": "xoney" + "one", "${EMPTY}": "", "${NO:-d}": "d", "${EMPTY:-d}": "d", "${A:-d}": "one", "${NO:-}": "",
		"${A:?m}": "one", "$$": "$", "$${A}": "${A}", "$$$$": "$$", "$A": "$A", "^x$": "^x$", "a$": "a$", "${EVIL}": "x: {y: [1]}\n- b",
		"${file:/f}": "text", "${file:/crlf}": "text", "${file:/two}": "a\n", "${cred:k}": "key", "${NO:-${A}!}": "one!", "${N}": "${A}",
		"${NO:-a:b}": "a:b", "%{X}i": "%{X}i",
	} {
		n := parse(t, "'${A}':\n  - '"+text+"'\n")
		for range 2 { // again: from the template, not from the result
			wantFaults(t, Interpolate(n, lookup))
			k := n.Keys()[0]
			if k.Name != "${A}" {
				t.Errorf("key became %q", k.Name)
			}
			leaf := k.Value.Items()[0]
			if leaf.Kind() != Scalar || leaf.Scalar() != want {
				t.Errorf("%s = %q, want %q", text, leaf.Scalar(), want)
			}
			if template, ok := leaf.Template(); ok != (text != want || strings.HasPrefix(text, "${")) || ok && template != text {
				t.Errorf("%s: template %q %v", text, template, ok)
			}
		}
	}
}

func TestInterpolateReportsEveryFaultAtItsLeaf(t *testing.T) {
	t.Parallel()
	n := parse(t, `a: ${NO}
b: ["${EMPTY:?set it}", "${NO:?}"]
c: x${open
d: ${file:rel}
e: ${file:/missing}
f: ${cred:../x}
g: ${cred:k}
h: ${}
i: ${NO-x}
j: ${NO} ${NO2}
k: ${OK}
`)
	faults := Interpolate(n, testLookup(map[string]string{"EMPTY": "", "OK": "x"}, nil))
	const cannot = "cannot read ${…} here; known are ${VAR}, ${VAR:-default}, ${VAR:?message}, ${file:/path}, ${cred:name}, and $$ for a $ that stands for itself"
	wantFaults(
		t, faults,
		"a.yaml:1:4: a: environment variable NO is not set; write ${NO:-…} to give a default",
		"a.yaml:2:5: b[0]: environment variable EMPTY: set it",
		"a.yaml:2:25: b[1]: environment variable NO: not set",
		"a.yaml:3:4: c: a ${ is not closed by }; write $$ for a $ that stands for itself",
		`a.yaml:4:4: d: ${file:…} wants an absolute path, found "rel"`,
		"a.yaml:5:4: e: reading ${file:/missing}: file does not exist",
		`a.yaml:6:4: f: ${cred:…} wants the name of a credential, found "../x"`,
		"a.yaml:7:4: g: ${cred:k}: CREDENTIALS_DIRECTORY is not set; systemd sets it for units with LoadCredential=",
		"a.yaml:8:4: h: "+cannot,
		"a.yaml:9:4: i: "+cannot,
		"a.yaml:10:4: j: environment variable NO is not set; write ${NO:-…} to give a default",
		"a.yaml:10:4: j: environment variable NO2 is not set; write ${NO2:-…} to give a default",
	)
	// What could not be read is not judged a second time.
	_, faults = Decode(n, struct {
		A, C, D, E, F, G, H, I, J int
		B                         []time.Duration
		K                         string
	}{})
	wantFaults(t, faults)
}

func TestInterpolatedTextIsReadByTheTypeOfItsKey(t *testing.T) {
	t.Parallel()
	type config struct {
		N    int           `yaml:"n"`
		Q    int           `yaml:"q"`
		B    bool          `yaml:"b"`
		D    time.Duration `yaml:"d"`
		Z    Size          `yaml:"z"`
		S    string        `yaml:"s"`
		P, R any
	}
	n := parse(t, "n: ${N}\nq: \"${N}\"\nb: ${T}\nd: ${N}s\nz: ${N}KiB\ns: ${N}\np: ${N}\nr: \"${N}\"\n")
	wantFaults(t, Interpolate(n, testLookup(map[string]string{"N": "42", "T": "true"}, nil)))
	got, faults := Decode(n, config{})
	wantFaults(t, faults)
	if want := (config{42, 42, true, 42 * time.Second, 42 << 10, "42", int64(42), "42"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

const hidden = "hunter2&co"

type leaky struct {
	Key  Secret            `yaml:"key"`
	Keys map[string]Secret `yaml:"keys"`
	N    int               `yaml:"n"`
	D    time.Duration     `yaml:"d"`
	Z    Size              `yaml:"z"`
	B    bool              `yaml:"b"`
	E    string            `yaml:"e" enum:"a|b"`
	T    time.Time         `yaml:"t"`
	L    []string          `yaml:"l"`
	M    map[string]string `yaml:"m"`
	URL  string            `yaml:"url"`
}

func (l leaky) Validate() error {
	return fmt.Errorf("url %q of %s %s", l.URL, l.Key.Reveal(), strings.TrimPrefix(l.URL, "https://u:"))
}

func TestFaultsNeverShowSecrets(t *testing.T) {
	t.Parallel()
	n := parse(t, `key: ${file:/s}
keys: ${file:/s}
n: ${file:/s}
d: ${cred:s}
z: ${S}
b: ${S}
e: ${S}
t: ${S}
l: ${S}
m: ${S}
url: https://u:${S}@192.0.2.1/
`)
	lookup := testLookup(map[string]string{"S": hidden, "CREDENTIALS_DIRECTORY": "/"}, map[string]string{"/s": hidden + "\n"})
	wantFaults(t, Interpolate(n, lookup))
	_, faults := Decode(n, leaky{})
	if len(faults) != 10 {
		t.Errorf("%d faults, want one for each key but key and url, and one of Validate:\n%v", len(faults), faults)
	}
	if strings.Contains(faults.Error(), "hunter2") {
		t.Errorf("a secret is shown:\n%v", faults)
	}
	_, faults = Decode(parse(t, "key: [hunter2]\nkeys: hunter2\n"), leaky{})
	_, more := Decode(parse(t, "key: 77345\nkeys: {a: 77345, b: true}\n"), leaky{})
	if text := faults.Error() + more.Error(); strings.Contains(text, "hunter2") || strings.Contains(text, "77345") {
		t.Errorf("a literal secret is shown:\n%s", text)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	type outer struct {
		Config struct{ Key Secret }
		hidden struct{ key Secret } // fmt does not ask the methods of what stands in unexported fields
		list   []Secret
	}
	n := parse(t, "key: "+hidden)
	config, faults := Decode(n, struct{ Key Secret }{})
	wantFaults(t, faults)
	if config.Key.Reveal() != hidden {
		t.Fatalf("the secret is %q", config.Key.Reveal())
	}
	o := outer{Config: config, list: []Secret{config.Key}}
	o.hidden.key = config.Key
	var all bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s"} {
		for _, x := range []any{config.Key, &config.Key, config, &config, o, &o, map[Secret]Secret{config.Key: config.Key}} {
			fmt.Fprintf(&all, verb+"\n", x)
		}
	}
	if got := fmt.Sprintf("%v %s %q %#v", config.Key, config.Key, config.Key, config.Key); got != "*** *** *** ***" {
		t.Error(got)
	}
	if j, err := json.Marshal(config); err != nil || string(j) != `{"Key":"***"}` {
		t.Errorf("json: %s %v", j, err)
	}
	if y, err := yaml.Marshal(config); err != nil || !strings.Contains(string(y), "***") {
		t.Errorf("yaml: %s %v", y, err)
	}
	slog.New(slog.NewTextHandler(&all, nil)).Info("x", "key", config.Key, "config", config)
	slog.New(slog.NewJSONHandler(&all, nil)).Info("x", "key", config.Key, "config", config)
	fmt.Fprint(&all, fmt.Errorf("opening %v: %w", config, fmt.Errorf("%s", config.Key)))
	for _, form := range []string{hidden, "hunter2", fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden)} {
		if strings.Contains(all.String(), form) {
			t.Errorf("%q is printed:\n%s", form, all.String())
		}
	}
}

func TestASecretIsReadAnewFromItsSource(t *testing.T) {
	t.Parallel()
	files := map[string]string{"/s": "old\n"}
	lookup := testLookup(nil, files)
	n := parse(t, "key: Bearer ${file:/s}\nfix: x\n")
	wantFaults(t, Interpolate(n, lookup))
	c, faults := Decode(n, struct{ Key, Fix Secret }{})
	wantFaults(t, faults)
	files["/s"] = "new\n"
	again, err := c.Key.Resolve(lookup)
	if err != nil || c.Key.Reveal() != "Bearer old" || again.Reveal() != "Bearer new" || again.Equal(c.Key) {
		t.Errorf("%q, then %q %v", c.Key.Reveal(), again.Reveal(), err)
	}
	if source, ok := again.Source(); !ok || source != "Bearer ${file:/s}" {
		t.Errorf("source %q %v", source, ok)
	}
	if _, ok := c.Fix.Source(); ok {
		t.Error("a literal has a source")
	}
	if same, err := c.Fix.Resolve(lookup); err != nil || !same.Equal(c.Fix) {
		t.Errorf("a literal changed: %v", err)
	}
	delete(files, "/s")
	if _, err = c.Key.Resolve(lookup); err == nil || err.Error() != "reading secret: reading ${file:/s}: file does not exist" {
		t.Error(err)
	}
}

func TestSystemLookupReadsOnlyRegularFilesOfSomeSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	for path, size := range map[string]int{small: 1 << 20, large: 1<<20 + 1} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := SystemLookup().ReadFile
	if data, err := read(small); err != nil || len(data) != 1<<20 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	for _, path := range []string{large, dir, "/dev/zero", filepath.Join(dir, "none")} {
		if _, err := read(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}
