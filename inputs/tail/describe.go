package tail

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/event"
)

var _ plugins.Describer = (*input)(nil)

// Describe says where a stream's content lies and how long it is. One that was read to its end is not searched for: what was noted of
// it then holds.
func (in *input) Describe(ctx context.Context, k plugins.Stream) (plugins.Source, error) {
	m, err := decodeMeta(k.Meta)
	if err != nil {
		return plugins.Source{}, err
	}
	src := plugins.Source{Stream: k.Name, Name: m.File, Size: m.End}
	if m.Time > 0 {
		src.Written = time.Unix(0, m.Time)
	}
	switch {
	case m.Pipe:
		src.Size = -1
		return src, nil
	case k.Drained || m.Empty:
		src.Gone = m.Gone > 0
		return src, nil
	}
	s, c, err := in.locate(ctx, k, k.Start, event.Position{}, &scratch{})
	if errors.Is(err, plugins.ErrGone) {
		src.Gone = true
		return src, nil
	}
	if err != nil {
		return src, err
	}
	defer c.close()
	src.Name = s.meta.File
	src.Size = lengthOf(ctx, c, k.Start.Seq)
	if fi, err := os.Stat(src.Name); err == nil {
		src.Written = fi.ModTime()
	}
	return src, nil
}

// lengthOf returns how long content is that reaches beyond at: compressed content is read to its end for that. It is -1 where the end
// is not reached before ctx is done, or is damaged.
func lengthOf(ctx context.Context, c content, at int64) int64 {
	x := &scratch{}
	for err := error(nil); ; {
		if n, known, e := c.end(); e == nil && known {
			return n
		} else if e != nil {
			return -1
		}
		if err != nil {
			return -1
		}
		var n int
		n, err = c.readAt(ctx, x.block(), at)
		at += int64(n)
	}
}
