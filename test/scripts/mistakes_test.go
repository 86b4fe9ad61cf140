//go:build blackbox

package scripts

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stacktrail/stacktrail/test/elasticsearch"
)

// TestAnOperatorsMistakeAtTheServerIsNamedAndWaitedOut closes the index and forbids writing to it, while events come, and mends both.
// Nothing may die, and nobody has to touch the agent. A document that the mapping refuses dies alone, with the reason.
func TestAnOperatorsMistakeAtTheServerIsNamedAndWaitedOut(t *testing.T) {
	for _, kind := range elasticsearch.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			b := newBox(t)
			s := elasticsearch.Start(t, kind)
			const index = "stacktrail-mistakes"
			s.Do(t, "PUT", "/"+index, `{"mappings": {"properties": {"n": {"type": "long"}, "path": {"type": "keyword"}}}}`)
			ok(t, os.WriteFile(b.config, fmt.Appendf(nil, `agent: {state_dir: %q, listen: "127.0.0.1:0", admin_socket: %q, checkpoint_interval: 100ms, node_id: box}
pipelines:
  - name: main
    inputs:
      - {tail: {paths: [%q], timezone: UTC, sweep: 200ms}, id: in}
    processors:
      - enrich: {set: {n: 'path endsWith "0000017" ? "no number" : "5"'}}
    outputs:
      - elasticsearch: {urls: [%q], index: %s, timeout: 10s}
        id: es
        batch: {linger: 50ms}
        retry: {initial: 50ms, max: 500ms}
`, b.state(), b.socket(), b.log("*.log"), s.URL, index), 0o644))
			w := newWriter(t, b.log("api.log"), 1)
			w.lines(100)
			a := b.start()
			const dead = 1 // number 17 of the first hundred
			delivered := func(n int) {
				t.Helper()
				waitFor(t, fmt.Sprint(n, " documents"), func() bool { return s.Count(t, index) == n-dead && settled(a, 2) })
				if code, body := a.get("/readyz"); code != http.StatusOK {
					t.Errorf("not ready: %s", body)
				}
			}
			delivered(100)
			total := 100
			for _, mistake := range []struct{ method, path, body, says, mendMethod, mendPath, mendBody string }{
				{"POST", "/" + index + "/_close", "", "closed", "POST", "/" + index + "/_open", ""},
				{
					"PUT", "/" + index + "/_settings", `{"index.blocks.write": true}`, "block",
					"PUT", "/" + index + "/_settings", `{"index.blocks.write": false}`,
				},
			} {
				s.Do(t, mistake.method, mistake.path, mistake.body)
				w.lines(100)
				total += 100
				waitFor(t, "the agent says what is wrong: "+mistake.says, func() bool {
					code, body := a.get("/readyz")
					return code == http.StatusServiceUnavailable && strings.Contains(body, "output es") && strings.Contains(body, mistake.says)
				})
				s.Do(t, mistake.mendMethod, mistake.mendPath, mistake.mendBody)
				delivered(total)
			}
			a.stop()
			letters := command(t, "dlq", "list", "--state-dir", b.state())
			if !strings.HasPrefix(letters.out, "main/es: 1 event ") || !strings.Contains(letters.out, "parsing_exception") {
				t.Errorf("dead letters: %s", letters.out)
			}
			if shown := command(t, "dlq", "show", "main/es", "--state-dir", b.state()); strings.Count(shown.out, "\n") != 1 || !strings.Contains(shown.out, "000000017") {
				t.Errorf("the dead letter: %s", shown.out)
			}
		})
	}
}
