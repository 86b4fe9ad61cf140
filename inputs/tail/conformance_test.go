package tail

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestConformance(t *testing.T) {
	for _, engine := range []string{"native", "nxadm"} {
		t.Run(engine, func(t *testing.T) {
			plugintest.Input(t, Spec, "{paths: [$DIR/*.log*], grace: 200ms, sweep: 20ms, engine: "+engine+"}", plugintest.Prepare(func(dir string) error {
				if err := os.WriteFile(filepath.Join(dir, "x.log"), []byte(access("03")+access("04")), 0o600); err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(dir, "x.log.1"), []byte(textOf(0, 3000)+access("02")), 0o600)
			}))
		})
	}
}
