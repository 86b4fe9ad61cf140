package lines

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

type rec struct {
	offset int64
	text   string
	cut    bool
}

// naive splits the way a reader of the documentation would.
func naive(text string, max int, end bool) (recs []rec, used int64) {
	for text != "" {
		l, rest, ok := strings.Cut(text, "\n")
		if !ok && !end {
			break
		}
		r := rec{used, l, !ok}
		if len(l) > max {
			r.text, r.cut = l[:max], true
		}
		r.text = strings.TrimSuffix(r.text, "\r")
		if r.text != "" {
			recs = append(recs, r)
		}
		used += int64(len(text) - len(rest))
		text = rest
	}
	return recs, used
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(40) {
		switch r.IntN(8) {
		case 0:
			b.WriteString("\r\n")
		case 1:
			b.WriteString("\n")
		case 2:
			b.WriteString("\x00\xff\r")
		default:
			b.WriteString(strings.Repeat("ab\r", r.IntN(12)))
		}
		if r.IntN(2) == 0 {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func TestFillSplitsLikeANaiveSplitter(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 0))
		text, end, limit := randomText(r), r.IntN(2) == 0, 1+r.IntN(20)
		c := Defaults()
		c.MaxLine = conf.Size(1 + r.IntN(20))
		m, err := New(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want, length := naive(text, int(c.MaxLine), end)
		var got []rec
		at := int64(0)
		for {
			b := event.NewBatch("s")
			b.ReadAt = time.Unix(1, 0)
			n := len(text) - int(at)
			block := b.Arena().Block(n)
			copy(block, text[at:])
			used := m.Fill(b, block, 1000+at, limit, end)
			if used == 0 {
				break
			}
			if len(b.Events) > limit {
				t.Fatalf("seed %d: %d records, limit %d", seed, len(b.Events), limit)
			}
			for i := range b.Events {
				e := &b.Events[i]
				got = append(got, rec{e.Offset - 1000, string(e.Raw), e.Is(event.BoolTruncated)})
			}
			at += int64(used)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || at != length {
			t.Fatalf("seed %d: %q\n got %v, %d used\nwant %v, %d used", seed, text, got, at, want, length)
		}
	}
}

const access = `192.0.2.1 - - [01/Jan/2026:10:00:00 +0000] "GET /v3/users HTTP/1.1" 200 310 "-" "curl/8"`

func fill(t *testing.T, c Config, o Options, text string) *event.Batch {
	t.Helper()
	m, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	m.File("/var/log/x.log", "/var/log/x.log", time.Unix(1e9, 0))
	b := event.NewBatch("s")
	b.ReadAt = time.Unix(2e9, 0)
	block := b.Arena().Block(len(text))
	copy(block, text)
	m.Fill(b, block, 0, event.MaxBatchRecords, false)
	m.Flush()
	return b
}

func TestEveryLineIsCountedAsOneThing(t *testing.T) {
	t.Parallel()
	text := access + "\nno format knows this\n\n2026-01-01 10:00:00.123 1 INFO nova.compute.manager [-] hello\n"
	for name, want := range map[string]string{
		"keep": "events=2 lines=4 skipped=2 unparsed=1 format=1", "drop": "dropped_unparsed=1 events=1 lines=4 skipped=2 format=1",
	} {
		counts := map[string]int64{}
		c := Defaults()
		c.Unparsed = name
		fill(t, c, Options{Count: func(n, _ string, k int64) { counts[n] += k }}, text)
		for part := range strings.FieldsSeq(want) {
			k, v, _ := strings.Cut(part, "=")
			if strconv.FormatInt(counts[k], 10) != v {
				t.Errorf("%s: %s is %d, want %s; all: %v", name, k, counts[k], v, counts)
			}
		}
		if counts["bytes"] != int64(len(text)) {
			t.Errorf("%d bytes counted of %d", counts["bytes"], len(text))
		}
	}
}

func TestOptionsAddTheirFields(t *testing.T) {
	t.Parallel()
	c := Defaults()
	b := fill(t, c, Options{}, access+"\n")
	if e := &b.Events[0]; len(e.Extra) != 0 && hasAny(e, "original", "observed_date") || e.LogFile != "" || e.Has&event.HasLogOffset != 0 {
		t.Errorf("fields that nobody asked for: %+v", e.Extra)
	}
	c.Original, c.Observed = true, true
	b = fill(t, c, Options{Positions: true}, access+"\n")
	e := &b.Events[0]
	original, _ := e.Get("original")
	observed, _ := e.Get("observed_date")
	if original.Str() != access || observed.Time().Unix() != 2e9 || e.LogFile != "/var/log/x.log" || e.Has&event.HasLogOffset == 0 {
		t.Errorf("original %q, observed %v, file %q", original.Str(), observed.Time(), e.LogFile)
	}
}

func hasAny(e *event.Event, keys ...string) bool {
	for _, k := range keys {
		if _, ok := e.Get(k); ok {
			return true
		}
	}
	return false
}

func TestRecordsBeforeTheStartAreSkipped(t *testing.T) {
	t.Parallel()
	late := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	text := access + "\n" + strings.Replace(access, "01/Jan", "02/Jan", 1) + "\nno format knows this\n"
	if n := len(fill(t, Defaults(), Options{NotBefore: late}, text).Events); n != 2 {
		t.Errorf("%d records, want the later one and the one without a time", n)
	}
}

func TestConfigNamesWhatDoesNotExist(t *testing.T) {
	t.Parallel()
	c := Defaults()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Format = "nova-eventlet, apache-kolla"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Format, c.Timezone = "apache-kola", "Europe/Atlantis"
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), `did you mean apache-kolla`) || !strings.Contains(err.Error(), "timezone: unknown") {
		t.Errorf("got %v", err)
	}
	if _, ok := errors.AsType[conf.KeyError](err); !ok {
		t.Errorf("%v names no key", err)
	}
}

func BenchmarkFill(b *testing.B) {
	for name, l := range map[string]string{
		"access": access,
		"junk":   "no format knows this, " + strings.Repeat("x", 60),
	} {
		b.Run(name, func(b *testing.B) {
			text := bytes.Repeat([]byte(l+"\n"), 1000)
			m, err := New(Defaults(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			m.File("/var/log/x.log", "/var/log/x.log", time.Unix(1e9, 0))
			pool := event.NewPool(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				batch, err := pool.Get(b.Context(), len(text))
				if err != nil {
					b.Fatal(err)
				}
				block := batch.Arena().Block(len(text))
				copy(block, text)
				m.Fill(batch, block, 0, event.MaxBatchRecords, false)
				m.Flush()
				batch.Release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/line")
		})
	}
}

func TestRecordsOutsideATimeAreLeftOutAndCounted(t *testing.T) {
	t.Parallel()
	access := func(at string) string {
		return "192.0.2.1 - - [" + at + ` +0000] "GET /v3/users HTTP/1.1" 200 310 "-" "curl/8"` + "\n"
	}
	text := access("02/Jan/2026:09:59:59") + access("02/Jan/2026:10:00:00") + "no time\n" + access("02/Jan/2026:10:59:59") + access("02/Jan/2026:11:00:00")
	since, until := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 11, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		opt    Options
		events int
		want   map[string]int64
	}{
		"no limit":       {Options{}, 5, map[string]int64{"unparsed": 1}},
		"a beginning":    {Options{NotBefore: since}, 4, map[string]int64{"before_start": 1, "unparsed": 1}},
		"an end":         {Options{NotAfter: until}, 3, map[string]int64{"after_end": 1, "no_time": 1}},
		"both":           {Options{NotBefore: since, NotAfter: until}, 2, map[string]int64{"before_start": 1, "after_end": 1, "no_time": 1}},
		"nothing within": {Options{NotBefore: until.Add(time.Hour), NotAfter: until.Add(2 * time.Hour)}, 0, map[string]int64{"before_start": 4, "no_time": 1}},
	} {
		got := map[string]int64{}
		c.opt.Count = func(name, reason string, n int64) {
			switch name {
			case "skipped":
				got[reason] += n
			case "unparsed":
				got[name] += n
			case "events":
				if n != int64(c.events) {
					t.Errorf("%s: %d events are counted", name, n)
				}
			}
		}
		conf := Defaults()
		conf.Timezone = "UTC"
		m, err := New(conf, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		b := event.NewBatch("s")
		b.ReadAt = time.Unix(1, 0)
		block := b.Arena().Block(len(text))
		copy(block, text)
		if used := m.Fill(b, block, 0, 100, false); used != len(text) {
			t.Errorf("%s: %d bytes used of %d", name, used, len(text))
		}
		m.Flush()
		if len(b.Events) != c.events || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %d events and %v, want %d and %v", name, len(b.Events), got, c.events, c.want)
		}
	}
}
