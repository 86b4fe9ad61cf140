package tail

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// novaLine is a request as nova's API logs it.
const novaLine = `2026-01-20 10:00:00.123 12 INFO nova.osapi_compute.wsgi.server [None req-7b1f0f4e-5f0c-4c9e-8f63-0d6a5c1f2b3a 4f5d1c2b3a494857a6b5c4d3e2f10987 0123456789abcdef0123456789abcdef - - default default] 192.0.2.7 "GET /v2.1/servers/detail?limit=20 HTTP/1.1" status: 200 len: 15872 time: 0.1834567`

// BenchmarkSteps reads a file in batches: as split lines, and as parsed events.
func BenchmarkSteps(b *testing.B) {
	const n = 100_000
	path := filepath.Join(b.TempDir(), "x.log")
	must(b, os.WriteFile(path, bytes.Repeat([]byte(novaLine+"\n"), n), 0o644))
	pool := event.NewPool(8 << 20)
	b.Run("split", func(b *testing.B) {
		f, err := os.Open(path)
		must(b, err)
		defer f.Close()
		b.ReportAllocs()
		for b.Loop() {
			for at := int64(0); ; {
				batch, err := pool.Get(context.Background(), event.MaxBatchBytes)
				must(b, err)
				block := batch.Arena().Block(event.MaxBatchBytes)
				got, _ := f.ReadAt(block, at)
				used := 0
				for {
					i := bytes.IndexByte(block[used:got], '\n')
					if i < 0 {
						break
					}
					e := batch.Append()
					e.Raw, e.Offset = block[used:used+i], at+int64(used)
					used += i + 1
				}
				batch.Release()
				if at += int64(used); used == 0 {
					break
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/line")
	})
	b.Run("parse", func(b *testing.B) {
		f, err := os.Open(path)
		must(b, err)
		c := open(newHandle(f), false)
		defer c.close()
		a := newFakeAgent(b)
		in := newInput(b, a, testConfig(path), false)
		b.ReportAllocs()
		for b.Loop() {
			x := &scratch{}
			head, _, err := headOf(context.Background(), c, x.block())
			must(b, err)
			s := benchStream(head)
			s.maker = in.newMaker(func(string, string, int64) {}, time.Time{})
			must(b, s.prime(context.Background(), c, time.Now(), x))
			for {
				batch, o, err := s.step(context.Background(), pool, c, math.MaxInt64, false, x)
				must(b, err)
				if o != stepped {
					break
				}
				batch.Release()
			}
			if s.pos != int64(n*(len(novaLine)+1)) {
				b.Fatalf("read %d bytes", s.pos)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/line")
	})
}

func benchStream(head []byte) *stream {
	s := newStream("bench", "bench", meta{Version: metaVersion, Head: hexSum(head), HeadLen: len(head)})
	if err := s.moveTo(event.Position{}); err != nil {
		panic(err)
	}
	return s
}
