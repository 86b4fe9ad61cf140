package agent

import (
	"errors"
	"fmt"

	"github.com/stacktrail/stacktrail/inputs/stdin"
	"github.com/stacktrail/stacktrail/inputs/tail"
	"github.com/stacktrail/stacktrail/outputs/blackhole"
	"github.com/stacktrail/stacktrail/outputs/elasticsearch"
	"github.com/stacktrail/stacktrail/outputs/file"
	"github.com/stacktrail/stacktrail/outputs/http"
	"github.com/stacktrail/stacktrail/outputs/stdout"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/processors/drop"
	"github.com/stacktrail/stacktrail/processors/enrich"
	"github.com/stacktrail/stacktrail/processors/redact"
)

// builtin lists the plugins that every build has.
func builtin() []plugins.Spec {
	return []plugins.Spec{
		tail.Spec, stdin.Spec,
		drop.Spec, enrich.Spec, redact.Spec,
		elasticsearch.Spec, file.Spec, http.Spec, stdout.Spec, blackhole.Spec,
	}
}

// Dead letters are put aside at this size. None is removed: agent.dead_letter_max bounds them.
const (
	deadLetterFile  = 16 << 20
	deadLetterFiles = 1000
)

// newDeadLetter makes the output that dead letters are written with: the file output, which can undo.
func newDeadLetter(path string, env plugins.Env) (plugins.Committer, error) {
	c, ok := file.Spec.Defaults.(file.Config)
	if !ok {
		return nil, fmt.Errorf("BUG: the file output's defaults are a %T", file.Spec.Defaults)
	}
	c.Path, c.EventID, c.Rotate = path, true, file.Rotate{Size: deadLetterFile, Keep: deadLetterFiles, Compress: c.Rotate.Compress}
	out, err := file.New(c, env)
	if err != nil {
		return nil, err
	}
	undo, ok := out.(plugins.Committer)
	if !ok {
		return nil, errors.New("BUG: the file output cannot undo")
	}
	return undo, nil
}
