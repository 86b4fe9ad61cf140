package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// benchSpecs are what the benchmarks call: they do next to nothing, so that the way there and back is measured.
func benchSpecs() []plugins.Spec {
	type none struct{}
	return []plugins.Spec{
		plugins.ProcessorSpec("touch", "Change one field.", none{}, func(none, plugins.Env) (plugins.Processor, error) { return touch{}, nil }).Safe(),
		plugins.OutputSpec("void", "Keep nothing.", none{}, func(none, plugins.Env) (plugins.Output, error) { return touch{}, nil }).Safe(),
	}
}

type touch struct{}

func (touch) Process(_ context.Context, b *event.Batch) error {
	for i := range b.Events {
		b.Events[i].Query = "limit=***"
	}
	return nil
}

func (touch) Write(context.Context, []*event.Event) error { return nil }

// novaBatch is like what the parser makes of a thousand lines of nova-api.
func novaBatch() *event.Batch {
	b := event.NewBatch("0123456789abcdef0123456789abcdef")
	b.ReadAt = time.Unix(1700000000, 0).UTC()
	for i := range 1000 {
		line := fmt.Sprintf("2026-11-21 03:40:32.%03d 407 INFO nova.osapi_compute.wsgi.server [None req-4a6b86b9-4d0e-4aa7-9cea-%012d 0c32fec09490474ba83958da17e4a8a6 c3c35624f9ee488d98c33ed764333953 - - default default] 192.0.2.%d \"GET /v2.1/servers/%08d?limit=%d HTTP/1.1\" status: 200 len: %d time: 0.%07d",
			i%1000, i, i%250, i, i, 400+i, i)
		a := b.Arena()
		raw := a.Copy([]byte(line))
		e := b.Append()
		e.Raw = []byte(raw)
		e.Offset = int64(i * 300)
		at := func(s string) string {
			if k := strings.Index(raw, s); k >= 0 {
				return raw[k : k+len(s)]
			}
			return s
		}
		e.Time = b.ReadAt.Add(time.Duration(i) * time.Millisecond)
		e.Method, e.HTTPVersion = at("GET"), at("HTTP/1.1")
		e.Path, e.Query = at(fmt.Sprintf("/v2.1/servers/%08d", i)), at(fmt.Sprintf("limit=%d", i))
		e.RequestID = at(fmt.Sprintf("req-4a6b86b9-4d0e-4aa7-9cea-%012d", i))
		e.UserID, e.User = at("0c32fec09490474ba83958da17e4a8a6"), at("0c32fec09490474ba83958da17e4a8a6")
		e.ProjectID, e.Client = at("c3c35624f9ee488d98c33ed764333953"), at(fmt.Sprintf("192.0.2.%d", i%250))
		e.UserDomainID, e.ProjectDomainID = "default", "default"
		e.Logger, e.Program, e.Service, e.Kind = at("nova.osapi_compute.wsgi.server"), "nova-api", "nova", "compute-api"
		e.RecordClass, e.Format, e.TimestampBasis, e.Outcome, e.SourceSystem = event.ClassAccess, "nova-eventlet", "end", "success", "openstack"
		e.Route, e.ResourceType, e.ResourceID, e.APIVersion, e.Action = "/servers/{id}", "server", fmt.Sprintf("%08d", i), "v2.1", "read"
		e.SetStatus(200)
		e.SetSize(int64(400 + i))
		e.SetDuration(time.Duration(i) * time.Microsecond)
		e.SetProcessID(407)
		e.SetLevel(6)
		e.SetBool(event.BoolSizeIncludesHeaders, true)
	}
	return b
}

func benchInstance(b *testing.B, kind plugins.Kind) any {
	b.Helper()
	c := DefaultConfig()
	if c.Path = os.Getenv("STACKTRAIL_BENCH_PLUGIN"); c.Path == "" { // of another SDK, with the same two plugins
		c.Path = program(b, "bench")
	}
	h := NewHost(c, discard())
	b.Cleanup(h.Close)
	specs, err := h.Specs(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range specs {
		if s.Kind != kind {
			continue
		}
		cfg, _ := conf.DecodeAny(conf.Node{}, s.Defaults)
		v, err := s.New(cfg, plugins.Env{StateDir: "x", Log: discard()})
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	b.Fatalf("there is no %s", kind)
	return nil
}

// BenchmarkProcess is a batch of 1000 events to a processor in another process that changes one field, and back.
func BenchmarkProcess(b *testing.B) {
	p := benchInstance(b, plugins.KindProcessor).(plugins.Processor)
	batch := novaBatch()
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Process(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds()/1e6, "Mev/s")
}

// BenchmarkWrite is a batch of 1000 events to an output in another process.
func BenchmarkWrite(b *testing.B) {
	o := benchInstance(b, plugins.KindOutput).(plugins.Output)
	evs := pointers(nil, novaBatch())
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Write(b.Context(), evs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds()/1e6, "Mev/s")
}

func BenchmarkEncodeBatch(b *testing.B) {
	evs := pointers(nil, novaBatch())
	e := encoder{fields: newFields()}
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(e.batch(header{}, evs))))
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	e := encoder{fields: newFields()}
	frame := e.batch(header{}, pointers(nil, novaBatch()))
	d := decoder{fields: e.fields}
	var batches []*event.Batch
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if batches, err = d.batches(frame, batches); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkServe is what the plugin's side does for a batch, without the way there and back.
func BenchmarkServe(b *testing.B) {
	s, err := newServed(benchSpecs(), slog.DiscardHandler)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.open(b.Context(), &message{data: []byte(`{"instance":1,"kind":"processor","name":"touch"}`)}); err != nil {
		b.Fatal(err)
	}
	e := encoder{fields: newFields()}
	frame := e.batch(header{instance: 1}, pointers(nil, novaBatch()))
	b.ReportAllocs()
	for b.Loop() {
		out, err := s.process(b.Context(), &message{data: frame})
		if err != nil {
			b.Fatal(err)
		}
		*out.back = out.data
		out.pool.Put(out.back)
	}
}
