package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/outputs/internal/template"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
	"github.com/stacktrail/stacktrail/plugins/plugintest"
	servers "github.com/stacktrail/stacktrail/test/elasticsearch"
)

var shared = servers.NewPool()

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Close()
	os.Exit(code)
}

// onBoth runs a test against the shared servers.
func onBoth(t *testing.T, test func(t *testing.T, s *servers.Server)) {
	t.Helper()
	for _, k := range servers.Kinds() {
		t.Run(string(k), func(t *testing.T) { test(t, shared.Get(t, k)) })
	}
}

// onOwn runs a test against servers that it may kill and set as it likes.
func onOwn(t *testing.T, test func(t *testing.T, s *servers.Server), settings ...string) {
	t.Helper()
	for _, k := range servers.Kinds() {
		t.Run(string(k), func(t *testing.T) { test(t, servers.Start(t, k, settings...)) })
	}
}

func indexConfig(s *servers.Server, index string) Config {
	c := Spec.Defaults.(Config)
	c.URLs, c.Index = []string{s.URL}, index
	return c
}

func streamConfig(s *servers.Server, dataset string) Config {
	c := indexConfig(s, "")
	c.DataStream = &DataStream{Type: "logs", Dataset: dataset, Namespace: "default"}
	return c
}

// made is an output with what it told the agent.
type made struct {
	*output
	mu     sync.Mutex
	fails  map[string]error
	counts map[string]int64
}

func (m *made) failing() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fails["destination"]
}

func (m *made) counted(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[name]
}

func newOutput(t testing.TB, c Config) *made {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	m := &made{fails: map[string]error{}, counts: map[string]int64{}}
	o, err := build(c, plugins.Env{
		Log: slog.New(slog.DiscardHandler),
		Fail: func(key string, err error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.fails[key] = err
		},
		Count: func(name, reason string, n int64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.counts[name+" "+reason] += n
		},
	}, conf.SystemLookup())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	m.output = o
	return m
}

// prepared makes a data stream from the output's own templates.
func prepared(t testing.TB, s *servers.Server, dataset string) Config {
	t.Helper()
	c := streamConfig(s, dataset)
	if _, err := newOutput(t, c).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// events makes n events of a stream, from number first on.
func events(stream string, first, n int) []*event.Event {
	b := plugintest.Events(first + n)
	b.Stream = stream
	var all []*event.Event
	for i := first; i < first+n; i++ {
		all = append(all, &b.Events[i])
	}
	return all
}

// deliver does what the agent does with an output's answers. It returns why events died.
func deliver(t testing.TB, o *made, evs []*event.Event) (dead []string) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	var last error
	var work func(evs []*event.Event)
	work = func(evs []*event.Event) {
		for len(evs) > 0 {
			if time.Now().After(end) {
				t.Fatalf("not delivered in a minute: %v", last)
			}
			err := o.Write(t.Context(), evs)
			last = err
			if err == nil {
				return
			}
			var partial *plugins.PartialError
			switch {
			case errors.As(err, &partial):
				var again []*event.Event
				for i, e := range evs {
					cause, failed := partial.Failed[i]
					permanent := (*plugins.PermanentError)(nil)
					switch {
					case !failed:
					case errors.As(cause, &permanent):
						dead = append(dead, cause.Error())
					default:
						again = append(again, e)
					}
				}
				evs = again
			case errors.Is(err, plugins.ErrTooLarge):
				if len(evs) == 1 {
					dead = append(dead, err.Error())
					return
				}
				work(evs[:len(evs)/2])
				evs = evs[len(evs)/2:]
				continue
			}
			pause(10 * time.Millisecond)
		}
	}
	work(evs)
	return dead
}

// left returns the events that an answer wants to have sent again.
func left(evs []*event.Event, err error) (again []*event.Event) {
	partial := (*plugins.PartialError)(nil)
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &partial):
		return evs
	}
	for i, e := range evs {
		if partial.Failed[i] != nil {
			again = append(again, e)
		}
	}
	return again
}

func pause(d time.Duration) { <-time.After(d) }

// await waits until a condition holds.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); pause(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func noneDead(t testing.TB, dead []string) {
	t.Helper()
	if len(dead) > 0 {
		t.Fatalf("%d events died, the first: %s", len(dead), dead[0])
	}
}

func wantCount(t testing.TB, s *servers.Server, name string, want int) {
	t.Helper()
	if n := s.Count(t, name); n != want {
		t.Fatalf("%s holds %d documents instead of %d", name, n, want)
	}
}

func TestContract(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		name := s.Name(t, "contract")
		plugintest.Output(t, Spec, fmt.Sprintf("urls: [%q]\nindex: %s", s.URL, name), plugintest.Observe(func(string) []byte {
			s.Do(t, http.MethodPost, "/"+name+"/_refresh", "")
			var found struct {
				Hits struct {
					Hits []struct {
						ID     string         `json:"_id"`
						Source map[string]any `json:"_source"`
					}
				}
			}
			s.Do(t, http.MethodGet, "/"+name+"/_search?size=1000", "").JSON(t, &found)
			var lines []string
			for _, h := range found.Hits.Hits {
				lines = append(lines, fmt.Sprint(h.ID, h.Source))
			}
			slices.Sort(lines)
			s.Do(t, http.MethodDelete, "/"+name, "") // so that the next one begins anew
			return []byte(strings.Join(lines, "\n"))
		}))
	})
}

func TestADataStreamHoldsEachEventOnceWithTheSchemasTypes(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		c := prepared(t, s, s.Name(t, "types"))
		name := c.DataStream.Name()
		o := newOutput(t, c)
		if diff, err := o.Diff(t.Context()); err != nil || len(diff) > 0 {
			t.Fatalf("after Apply: %q %v", diff, err)
		}
		if err := o.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		evs := events("s", 0, 500)
		evs[3].Set("attributes", event.ObjectValue(`{"a":"b","n":{"x":1}}`))
		evs[5].Client = "not an address"
		evs[6].Set("extra_int", event.IntValue(5))
		evs[6].Set("extra", event.StringValue("12:30"))
		noneDead(t, deliver(t, o, evs))
		wantCount(t, s, name, len(evs))
		noneDead(t, deliver(t, newOutput(t, c), evs)) // as after a restart
		noneDead(t, deliver(t, o, evs))
		wantCount(t, s, name, len(evs))
		if n := o.counted("known asked"); n != int64(len(evs)) {
			t.Errorf("%d events were counted as known", n)
		}

		var mapping map[string]struct {
			Mappings struct {
				Properties map[string]struct{ Type string }
			}
		}
		s.Do(t, http.MethodGet, "/"+name+"/_mapping", "").JSON(t, &mapping)
		flat := "flattened"
		if s.Kind.IsOpenSearch() {
			flat = "flat_object"
		}
		for _, m := range mapping {
			for field, want := range map[string]string{
				"@timestamp": "date", "timestamp": "date", "client": "ip", "api_response_code_int": "long", "api_response_time_num": "double",
				"identity_unverified_bool": "boolean", "path": "keyword", "roles": "keyword", "attributes": flat, "message": "text",
				"extra_int": "long", "extra": "keyword",
			} {
				if got := m.Mappings.Properties[field].Type; got != want {
					t.Errorf("%s is mapped as %q, not %q", field, got, want)
				}
			}
		}
		if len(mapping) != 1 {
			t.Errorf("%d backing indices", len(mapping))
		}
	})
}

func TestSetupSaysWhatDiffersAndMendsIt(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		c := streamConfig(s, s.Name(t, "setup"))
		o := newOutput(t, c)
		if err := o.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "setup elasticsearch") {
			t.Errorf("Check before setup: %v", err)
		}
		diff, err := o.Diff(t.Context())
		if err != nil || len(diff) < 2 || !strings.Contains(strings.Join(diff, "\n"), "data stream "+c.DataStream.Name()+" is missing") {
			t.Fatalf("%q %v", diff, err)
		}
		if done, err := o.Apply(t.Context()); err != nil || len(done) != len(diff) {
			t.Fatalf("%q %v", done, err)
		}
		path := "/_index_template/stacktrail-" + c.DataStream.Name()
		s.Do(t, http.MethodPut, path, `{"index_patterns":["`+c.DataStream.Name()+`"],"data_stream":{},"priority":201}`)
		diff, err = o.Diff(t.Context())
		if err != nil || len(diff) != 1 || !strings.Contains(diff[0], "priority is 201, not 200") || !strings.Contains(diff[0], "composed_of") {
			t.Fatalf("%q %v", diff, err)
		}
		if _, err := o.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff, err := o.Diff(t.Context()); err != nil || len(diff) != 0 {
			t.Fatalf("%q %v", diff, err)
		}
	})
}

func TestPlainIndicesAreNamedByTheEvent(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		base := s.Name(t, "plain")
		o := newOutput(t, indexConfig(s, base+"-{{service}}-%Y.%m.%d"))
		evs := events("s", 0, 20)
		evs[2].Service = "No/Va *"
		evs[3].Service = ""
		noneDead(t, deliver(t, o, evs))
		noneDead(t, deliver(t, newOutput(t, o.cfg), evs))
		wantCount(t, s, base+"-no_va__-2026.01.02", 1)
		wantCount(t, s, base+"-_-2026.01.02", 3) // with the two unparsed ones, which take the time of those before
		wantCount(t, s, base+"-nova-2026.01.02", 16)
		s.Do(t, http.MethodDelete, "/"+base+"-no_va__-2026.01.02,"+base+"-_-2026.01.02,"+base+"-nova-2026.01.02", "")
	})
}

func TestOnlyTheFaultyDocumentDies(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		for name, c := range map[string]struct {
			index, want string
			spoil       func(e *event.Event)
		}{
			"text for a number": {
				`{"mappings":{"properties":{"size":{"type":"long"}}}}`, "parsing_exception",
				func(e *event.Event) { e.Set("size", event.StringValue("many")) },
			},
			"strict mapping": {
				`{"mappings":{"dynamic":"strict","properties":{"known":{"type":"keyword"}}}}`, "strict_dynamic_mapping_exception",
				func(e *event.Event) { e.Set("unknown", event.StringValue("x")) },
			},
			"field limit": {
				`{"settings":{"index.mapping.total_fields.limit":60}}`, "Limit of total fields",
				func(e *event.Event) {
					for i := range 100 {
						e.Set(fmt.Sprint("field", i), event.IntValue(1))
					}
				},
			},
			"object for a text": {
				`{"mappings":{"properties":{"x":{"type":"keyword"}}}}`, "parsing_exception",
				func(e *event.Event) { e.Set("x", event.ObjectValue(`{"a":1}`)) },
			},
			"text for an object": {
				`{"mappings":{"properties":{"x":{"properties":{"a":{"type":"long"}}}}}}`, "object mapping",
				func(e *event.Event) { e.Set("x", event.StringValue("b")) },
			},
			"immense term": {
				`{"mappings":{"properties":{"x":{"type":"keyword"}}}}`, "",
				func(e *event.Event) { e.Set("x", event.StringValue(strings.Repeat("x", 40000))) },
			},
		} {
			t.Run(name, func(t *testing.T) {
				index := s.Name(t, "doc")
				body := c.index
				evs := events("s", 0, 10)
				if name == "strict mapping" {
					s.Do(t, http.MethodPut, "/"+index, "")
					noneDead(t, deliver(t, newOutput(t, indexConfig(s, index)), events("warm", 0, 10))) // maps what is known
					s.Do(t, http.MethodPut, "/"+index+"/_mapping", `{"dynamic":"strict"}`)
				} else {
					s.Do(t, http.MethodPut, "/"+index, body)
				}
				had := s.Count(t, index)
				c.spoil(evs[4])
				o := newOutput(t, indexConfig(s, index))
				dead := deliver(t, o, evs)
				if len(dead) != 1 || !strings.Contains(dead[0], c.want) {
					t.Fatalf("dead: %q", dead)
				}
				if o.failing() != nil {
					t.Errorf("the destination is called faulty: %v", o.failing())
				}
				wantCount(t, s, index, had+9)
			})
		}
	})
}

func TestFaultsOfTheDestinationAreWaitedOutAndNamed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		for name, c := range map[string]struct {
			breakIt, mend func(t *testing.T, index string)
			cfg           func(*Config)
			want          string
		}{
			"index closed": {
				func(t *testing.T, index string) { s.Do(t, http.MethodPost, "/"+index+"/_close", "") },
				func(t *testing.T, index string) { s.Do(t, http.MethodPost, "/"+index+"/_open", "") },
				nil, "index_closed_exception",
			},
			"write block": {
				func(t *testing.T, index string) {
					s.Do(t, http.MethodPut, "/"+index+"/_settings", `{"index.blocks.write":true}`)
				},
				func(t *testing.T, index string) {
					s.Do(t, http.MethodPut, "/"+index+"/_settings", `{"index.blocks.write":null}`)
				},
				nil, "cluster_block_exception",
			},
			"flood stage": {
				func(t *testing.T, index string) {
					s.Do(t, http.MethodPut, "/"+index+"/_settings", `{"index.blocks.read_only_allow_delete":true}`)
				},
				func(t *testing.T, index string) {
					s.Do(t, http.MethodPut, "/"+index+"/_settings", `{"index.blocks.read_only_allow_delete":null}`)
				},
				nil, "cluster_block_exception",
			},
			"pipeline missing": {
				func(*testing.T, string) {},
				func(t *testing.T, index string) {
					s.Do(t, http.MethodPut, "/_ingest/pipeline/"+index, `{"processors":[]}`)
				},
				func(c *Config) { c.Pipeline = c.Index }, "pipeline with id",
			},
		} {
			t.Run(name, func(t *testing.T) {
				index := s.Name(t, "dest")
				s.Do(t, http.MethodPut, "/"+index, "")
				cfg := indexConfig(s, index)
				if c.cfg != nil {
					c.cfg(&cfg)
				}
				o := newOutput(t, cfg)
				c.breakIt(t, index)
				evs := events("s", 0, 10)
				for range 3 {
					err := o.Write(t.Context(), evs)
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Fatalf("Write: %v", err)
					}
					permanent := (*plugins.PermanentError)(nil)
					if partial := (*plugins.PartialError)(nil); errors.As(err, &partial) {
						for _, e := range partial.Failed {
							if errors.As(e, &permanent) {
								t.Fatalf("an event would die: %v", e)
							}
						}
					} else if errors.As(err, &permanent) {
						t.Fatalf("events would die: %v", err)
					}
					if o.failing() == nil || !strings.Contains(o.failing().Error(), c.want) {
						t.Fatalf("health says %v", o.failing())
					}
				}
				c.mend(t, index)
				noneDead(t, deliver(t, o, evs))
				wantCount(t, s, index, len(evs))
				if o.failing() != nil {
					t.Fatalf("mended, health says %v", o.failing())
				}
			})
		}
	})
}

func TestWithoutATemplateNothingIsMadeInTheDataStreamsPlace(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		c := streamConfig(s, s.Name(t, "bare"))
		name := c.DataStream.Name()
		o := newOutput(t, c)
		evs := events("s", 0, 10)
		if err := o.Write(t.Context(), evs); err == nil || !strings.Contains(err.Error(), "setup elasticsearch") || o.failing() == nil {
			t.Fatalf("%v, health says %v", err, o.failing())
		}
		wantCount(t, s, name, 0)
		s.Do(t, http.MethodPut, "/"+name, "")
		if err := o.Write(t.Context(), evs); err == nil || !strings.Contains(err.Error(), "plain index") {
			t.Fatal(err)
		}
		s.Do(t, http.MethodDelete, "/"+name, "")
		if _, err := o.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		noneDead(t, deliver(t, o, evs))
		wantCount(t, s, name, len(evs))
		if o.failing() != nil {
			t.Fatalf("mended, health says %v", o.failing())
		}
	})
}

func TestAWrongNameIsTheDestinationsFault(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		o := newOutput(t, indexConfig(s, s.Name(t, "x")))
		o.index.parts = []template.Part{{Text: "Capital"}} // what Validate would refuse
		err := o.Write(t.Context(), events("s", 0, 3))
		if err == nil || !strings.Contains(err.Error(), "invalid_index_name_exception") || o.failing() == nil {
			t.Fatalf("%v, health says %v", err, o.failing())
		}
	})
}

func TestAPipelineThatFailsForOneEventKillsOnlyThat(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		index := s.Name(t, "pipe")
		s.Do(t, http.MethodPut, "/_ingest/pipeline/"+index, `{"processors":[{"rename":{"field":"old","target_field":"new"}}]}`)
		c := indexConfig(s, index)
		c.Pipeline = index
		o := newOutput(t, c)
		evs := events("s", 0, 10)
		for i, e := range evs {
			if i != 6 {
				e.Set("old", event.IntValue(1))
			}
		}
		dead := deliver(t, o, evs)
		if len(dead) != 1 || !strings.Contains(dead[0], "10 tries") && !strings.Contains(dead[0], "old") {
			t.Fatalf("dead: %q", dead)
		}
		wantCount(t, s, index, 9)
	})
}

func TestTheFlavorIsKnownAndAWrongOneIsNamed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *servers.Server) {
		o := newOutput(t, indexConfig(s, s.Name(t, "flavor")))
		want := flavorElasticsearch
		if s.Kind.IsOpenSearch() {
			want = flavorOpenSearch
		}
		if got, err := o.cluster.detect(t.Context()); got != want || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		c := indexConfig(s, s.Name(t, "flavor"))
		c.Flavor = flavorElasticsearch
		o = newOutput(t, c)
		err := o.Write(t.Context(), events("s", 0, 3))
		if s.Kind.IsOpenSearch() {
			if err == nil || !strings.Contains(err.Error(), "not Elasticsearch") {
				t.Fatalf("flavor elasticsearch at an OpenSearch: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusalsForSizeAndLoadLoseNothing(t *testing.T) {
	onOwn(t, func(t *testing.T, s *servers.Server) {
		t.Run("413", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "large"))
			o := newOutput(t, c)
			evs := events("s", 0, 5000) // about 2 MB
			// The server may cut the connection before its answer is read: then the next try gets it.
			err := errors.New("not tried")
			for range 100 {
				if err = o.Write(t.Context(), evs); errors.Is(err, plugins.ErrTooLarge) {
					break
				}
			}
			if !errors.Is(err, plugins.ErrTooLarge) {
				t.Fatalf("Write of 5000 events: %v", err)
			}
			evs[77].Set("original", event.StringValue(strings.Repeat("x", 2<<20)))
			dead := deliver(t, o, evs)
			if len(dead) != 1 || !strings.Contains(dead[0], "413") {
				t.Fatalf("dead: %.300q", dead)
			}
			wantCount(t, s, c.DataStream.Name(), len(evs)-1)
		})
		t.Run("indexing pressure", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "pressure"))
			o := newOutput(t, c)
			evs := events("s", 0, 1500) // below 1 MiB, above the limit
			noneDead(t, deliver(t, o, evs))
			wantCount(t, s, c.DataStream.Name(), len(evs))
		})
		t.Run("full queue", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "queue"))
			o := newOutput(t, c)
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					stream := fmt.Sprint("s", w)
					for i := range 10 {
						if dead := deliver(t, o, events(stream, i*20, 20)); len(dead) > 0 {
							t.Errorf("dead: %q", dead)
						}
					}
				})
			}
			wg.Wait()
			wantCount(t, s, c.DataStream.Name(), 16*200)
		})
		t.Run("shard limit", func(t *testing.T) {
			s.Do(t, http.MethodPut, "/_cluster/settings", `{"persistent":{"cluster.max_shards_per_node":1}}`)
			index := s.Name(t, "limit")
			o := newOutput(t, indexConfig(s, index))
			evs := events("s", 0, 10)
			err := o.Write(t.Context(), evs)
			if err == nil || !strings.Contains(err.Error(), "shards") || o.failing() == nil {
				t.Fatalf("%v, health says %v", err, o.failing())
			}
			s.Do(t, http.MethodPut, "/_cluster/settings", `{"persistent":{"cluster.max_shards_per_node":null}}`)
			noneDead(t, deliver(t, o, evs))
			wantCount(t, s, index, len(evs))
		})
	}, "http.max_content_length=1mb", "indexing_pressure.memory.limit=300kb", "thread_pool.write.size=1", "thread_pool.write.queue_size=1")
}

func TestHangsCrashesAndRolloversDoubleNothing(t *testing.T) {
	onOwn(t, func(t *testing.T, s *servers.Server) {
		t.Run("hang across a rollover", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "hang"))
			c.Timeout = time.Second
			name := c.DataStream.Name()
			o := newOutput(t, c)
			first := events("s", 0, 50)
			noneDead(t, deliver(t, o, first))
			o.memory.streams["s"] = -1 // as after a long run
			evs := events("s", 50, 200)
			o.memory.seen = time.Now().Add(time.Hour) // the next request is the one with the events
			s.Freeze(t)
			if err := o.Write(t.Context(), evs); err == nil {
				t.Fatal("a frozen server took events")
			}
			if o.failing() == nil {
				t.Error("health does not say so")
			}
			s.Thaw(t)
			await(t, "the hung request", func() bool { return s.Count(t, name) == 250 })
			s.Do(t, http.MethodPost, "/"+name+"/_rollover", "")
			o.cfg.Timeout = time.Minute
			o.memory.seen = time.Time{}
			noneDead(t, deliver(t, o, evs))
			wantCount(t, s, name, 250)
			if o.failing() != nil {
				t.Errorf("health says %v", o.failing())
			}
		})
		t.Run("restart of the agent across rollovers", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "restart"))
			name := c.DataStream.Name()
			noneDead(t, deliver(t, newOutput(t, c), events("s", 0, 100)))
			s.Do(t, http.MethodPost, "/"+name+"/_rollover", "")
			noneDead(t, deliver(t, newOutput(t, c), events("s", 50, 150)))
			s.Do(t, http.MethodPost, "/"+name+"/_rollover", "")
			noneDead(t, deliver(t, newOutput(t, c), events("s", 0, 300)))
			wantCount(t, s, name, 300)
		})
		t.Run("crash of the server", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "crash"))
			c.Timeout = 5 * time.Second
			name := c.DataStream.Name()
			o := newOutput(t, c)
			const requests, each = 60, 100
			done := make(chan struct{})
			half := make(chan struct{})
			go func() {
				defer close(done)
				for i := range requests {
					if i == requests/3 {
						close(half)
					}
					if dead := deliver(t, o, events("s", i*each, each)); len(dead) > 0 {
						t.Errorf("dead: %q", dead)
					}
				}
			}()
			<-half
			s.Kill(t)
			s.Restart(t)
			<-done
			wantCount(t, s, name, requests*each)
		})
		t.Run("crashes, rollovers and restarts of the agent mixed", func(t *testing.T) {
			c := prepared(t, s, s.Name(t, "mixed"))
			c.Timeout = 5 * time.Second
			name := c.DataStream.Name()
			const streams, total, each = 3, 1600, 80
			random := rand.New(rand.NewPCG(1, 2))
			var cursor [streams]int // what is settled
			for round := range 4 {
				o := newOutput(t, c) // the agent starts again, a little before where it stood
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				end := (round + 1) * total / 4
				began := make(chan struct{}, streams)
				for n := range streams {
					from := max(0, cursor[n]-random.IntN(300))
					wg.Go(func() {
						stream := fmt.Sprint("mixed", n)
						for at := from; at < end && ctx.Err() == nil; at += each {
							size := min(each, end-at)
							evs := events(stream, at, size)
							for len(evs) > 0 && ctx.Err() == nil {
								err := o.Write(ctx, evs)
								if evs = left(evs, err); len(evs) > 0 {
									pause(20 * time.Millisecond)
								}
							}
							if len(evs) == 0 {
								cursor[n] = at + size
							}
							if at == from {
								began <- struct{}{}
							}
						}
					})
				}
				for range streams {
					<-began
				}
				if round%2 == 0 {
					s.Kill(t)
					s.Restart(t)
				}
				if round != 3 {
					s.Do(t, http.MethodPost, "/"+name+"/_rollover", "")
					cancel() // the agent dies in the middle of a request
				}
				wg.Wait()
				cancel()
			}
			wantCount(t, s, name, streams*total)
		})
		t.Run("no answer while writing is cancelled", func(t *testing.T) {
			c := indexConfig(s, s.Name(t, "cancel"))
			o := newOutput(t, c)
			if err := o.Write(t.Context(), events("s", 0, 1)); err != nil {
				t.Fatal(err)
			}
			s.Freeze(t)
			defer s.Thaw(t)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := o.Write(ctx, events("s", 1, 10)); err == nil || time.Since(began) > 10*time.Second {
				t.Fatalf("%v after %v", err, time.Since(began))
			}
		})
	})
}
