package tail

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// TestAReaderThatStartsInTheMiddleKnowsRequestsThatBeganFarBack starts between the two lines of a request, with much between them.
func TestAReaderThatStartsInTheMiddleKnowsRequestsThatBeganFarBack(t *testing.T) {
	t.Parallel()
	half := func(id int, text string) string {
		return fmt.Sprintf("2026-03-02 10:00:%02d.000 30 INFO cinder.api.openstack.wsgi [None req-%08d-4a59-4e68-9c77-8b86a5945a01 - - - - - -] %s\n", id, id, text)
	}
	const url, noise = "http://192.0.2.2:8776/v3/volumes", "2026-03-02 10:00:02.000 30 DEBUG cinder.volume.api [-] nothing of interest\n"
	for name, c := range map[string]struct {
		between int    // bytes behind the first line
		other   string // what stands in the last of them
		method  string
	}{
		"near":                     {1 << 10, "", "DELETE"},
		"far":                      {1 << 20, half(2, "GET "+url), "DELETE"},
		"far, behind a long line":  {1 << 20, strings.Repeat("x", 100<<10) + "\n" + half(2, "GET "+url), "DELETE"},
		"farther than is followed": {5 << 20, half(2, "GET "+url), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, path := file1(t)
			before := half(1, "DELETE "+url) + strings.Repeat(noise, c.between/len(noise)) + c.other
			appendTo(t, path, before+half(3, url+" returned with HTTP 202")+strings.Replace(half(4, url+" returned with HTTP 202"), "req-00000004", "req-00000001", 1))
			f, err := os.Open(path)
			must(t, err)
			content := open(newHandle(f), false)
			defer content.close()
			in := newInput(t, newFakeAgent(t), testConfig(path), false)
			x := &scratch{}
			s := benchStream([]byte(before[:100]))
			s.pos = int64(len(before))
			s.sum, _, err = sumBefore(context.Background(), content, s.pos, x.proof[:])
			must(t, err)
			s.maker = in.newMaker(nil, time.Time{})
			must(t, s.prime(context.Background(), content, time.Now(), x))
			b, _, err := s.step(context.Background(), event.NewPool(1<<20), content, math.MaxInt64, true, x)
			must(t, err)
			defer b.Release()
			if len(b.Events) != 2 || b.Events[0].Method != "" || b.Events[1].Method != c.method {
				t.Errorf("%d events, want 2 of which the second has the method %q: %+v", len(b.Events), c.method, b.Events)
			}
		})
	}
}
