package elasticsearch

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestAServerSurvivesACrashWithItsData(t *testing.T) {
	s := Start(t, Elasticsearch)
	name := s.Name(t, "crash")
	s.Do(t, http.MethodPut, "/"+name+"/_doc/1", `{"a":1}`)
	s.Kill(t)
	if _, err := s.Call(http.MethodGet, "/", ""); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart(t)
	if n := s.Count(t, name); n != 1 {
		t.Fatalf("%d documents after the crash", n)
	}
}

func TestANamedServerGoesFirst(t *testing.T) {
	t.Setenv("OPENSEARCH_URL", "http://192.0.2.1:9200/")
	p := NewPool()
	defer p.Close()
	if s := p.Get(t, OpenSearch); s.URL != "http://192.0.2.1:9200" || s.dir != "" {
		t.Fatalf("%+v", s)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := start(OpenSearch, t.TempDir())
	if err == nil {
		t.Fatal("a server without tools")
	}
	for _, want := range []string{"mvn", "JDK 17", "OPENSEARCH_URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func TestServersEndWithTheProcess(t *testing.T) {
	s, err := start(Elasticsearch, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.end("-9"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir + "/server.pid"); err == nil {
		t.Fatal("server.pid is still there")
	}
	if err := s.end("-9"); err != nil {
		t.Fatalf("ending it twice: %v", err)
	}
}
