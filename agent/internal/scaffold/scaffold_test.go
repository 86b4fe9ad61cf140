package scaffold

import (
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// folder makes a plugin's folder, with a path that every file has to quote.
func folder(t *testing.T, kind plugins.Kind, lang string) (Plugin, []string) {
	t.Helper()
	p := Plugin{Name: "my-mask", Kind: kind, Lang: lang, Dir: filepath.Join(t.TempDir(), `it's "new"`), Module: "example.org/my-mask", Version: "v1.2.3", Agent: "stack'trail"}
	files, err := p.Write()
	if err != nil {
		t.Fatal(err)
	}
	return p, files
}

func TestEveryFileIsWhatItsNameSays(t *testing.T) {
	for _, kind := range []plugins.Kind{plugins.KindProcessor, plugins.KindOutput} {
		for _, lang := range Langs() {
			p, files := folder(t, kind, lang)
			for _, name := range files {
				text, err := os.ReadFile(p.Path(name))
				if err != nil {
					t.Fatal(err)
				}
				switch filepath.Ext(name) {
				case ".go":
					if tidy, err := format.Source(text); err != nil || string(tidy) != string(text) {
						t.Errorf("%s %s: %s is not formatted (%v)", kind, lang, name, err)
					}
				case ".yaml":
					if _, faults := conf.Parse(name, text); len(faults) > 0 {
						t.Errorf("%s %s: %v", kind, lang, faults)
					}
				}
				if strings.Contains(string(text), "{{") || strings.Contains(string(text), "<no value>") || !strings.HasSuffix(string(text), "\n") {
					t.Errorf("%s %s: %s is not filled in:\n%s", kind, lang, name, text)
				}
			}
			for _, must := range []string{"README.md", "Makefile", "stacktrail.yaml", "verify.yaml", "sample.log"} {
				if !slices.Contains(files, must) {
					t.Errorf("%s %s lacks %s: %v", kind, lang, must, files)
				}
			}
		}
	}
}

func TestOnlyTheLauncherIsAProgram(t *testing.T) {
	p, files := folder(t, plugins.KindOutput, "python")
	for _, name := range files {
		info, err := os.Stat(p.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		want := fs.FileMode(0)
		if name == "my-mask" {
			want = 0o111
		}
		if got := info.Mode().Perm() & 0o111; got != want {
			t.Errorf("%s has the run bits %v, want %v", name, got, want)
		}
	}
}

func TestAReleaseNeedsNoCheckout(t *testing.T) {
	for lang, want := range map[string][2]string{
		"go":     {"go.mod", "require github.com/stacktrail/stacktrail v1.2.3\n"},
		"python": {"Makefile", "'stacktrail-plugin==1.2.3'"},
	} {
		p, _ := folder(t, plugins.KindProcessor, lang)
		if text, err := os.ReadFile(p.Path(want[0])); err != nil || !strings.Contains(string(text), want[1]) || strings.Contains(string(text), "replace ") {
			t.Errorf("%s: %s holds (%v)\n%s", lang, want[0], err, text)
		}
	}
}

// TestOnlyAProcessorThatSetsAFieldOfTheSchemaOverwritesOne: an output may be called as it likes.
func TestOnlyAProcessorThatSetsAFieldOfTheSchemaOverwritesOne(t *testing.T) {
	for name, field := range map[string]string{"level": "level", "timestamp": "timestamp", "request-id": "request_id", "my-level": "", "mask": ""} {
		p := Plugin{Name: name, Kind: plugins.KindProcessor}
		if got := p.Overwrites(); got != field {
			t.Errorf("the processor %s overwrites %q, want %q", name, got, field)
		}
		p.Kind = plugins.KindOutput
		if got := p.Overwrites(); got != "" {
			t.Errorf("the output %s overwrites %q", name, got)
		}
	}
}

func TestNamesAreRefusedWithASuggestion(t *testing.T) {
	for name, says := range map[string]string{
		"Mask": `"mask"`, "my mask": `"my-mask"`, "9lives": `"lives"`, "": "is no name", "ä": "is no name",
		strings.Repeat("a", 64): `"` + strings.Repeat("a", 40) + `"`,
	} {
		if err := CheckName(name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", name, err, says)
		}
	}
	for _, name := range []string{"a", "my-mask", "my_mask2", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
}
