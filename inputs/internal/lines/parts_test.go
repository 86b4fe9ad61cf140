package lines

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stacktrail/stacktrail/inputs/internal/formats"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/event"
)

// runtime writes a log as a container's runtime does.
type runtime struct {
	docker bool
	spaced bool // docker's objects were written again by another tool
	now    time.Time
	log    strings.Builder
}

var outputNames = [formats.Outputs]string{"stdout", "stderr"}

// write writes one physical line; more says that the text goes on.
func (r *runtime) write(output int, text string, more bool) (at int, line string) {
	at = r.log.Len()
	r.now = r.now.Add(time.Millisecond)
	stamp := r.now.Format(time.RFC3339Nano)
	if r.docker {
		if !more {
			text += "\n"
		}
		q, err := json.Marshal(text)
		if err != nil {
			panic(err)
		}
		form := `{"log":%s,"stream":%q,"time":%q}`
		if r.spaced {
			form = `{"log": %s, "stream": %q, "time": %q}`
		}
		line = fmt.Sprintf(form, q, outputNames[output], stamp)
	} else {
		tag := "F"
		if more {
			tag = "P"
		}
		line = fmt.Sprintf("%s %s %s %s", stamp, outputNames[output], tag, text)
	}
	r.log.WriteString(line + "\n")
	return at, line
}

func newRuntime(docker bool) *runtime {
	return &runtime{docker: docker, now: time.Date(2026, 3, 2, 10, 15, 30, 123456789, time.UTC)}
}

// longLine is an access line of keystone with a long query and much to escape, which no place of it is an access line from.
func longLine(n int, r *rand.Rand) string {
	var q strings.Builder
	for k := range r.IntN(30) {
		fmt.Fprintf(&q, `k%d=\"%c\\\\&`, k, 'a'+k%26)
	}
	return fmt.Sprintf(`192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/projects/%d?%s HTTP/1.1" 200 3391 "-" "curl/8 \"x\""`, n, q.String())
}

// whatItWrote is a line of the container, and where its parts stand.
type whatItWrote struct {
	text string
	at   int
	raw  string
}

// containerLog is a log of lines that are cut at random and stand among each other.
func containerLog(r *rand.Rand, docker bool, n int) (string, []whatItWrote) {
	w := newRuntime(docker)
	w.spaced = r.IntN(3) == 0
	var all []whatItWrote
	var rest [formats.Outputs]string
	var of [formats.Outputs]int
	for n > 0 || rest != [formats.Outputs]string{} {
		o := r.IntN(formats.Outputs)
		fresh := rest[o] == ""
		if fresh {
			if n == 0 {
				continue
			}
			n--
			rest[o] = longLine(n, r)
			of[o] = len(all)
			all = append(all, whatItWrote{text: rest[o]})
		}
		k := len(rest[o])
		if r.IntN(3) > 0 {
			k = 1 + r.IntN(k)
		}
		text := rest[o][:k]
		rest[o] = rest[o][k:]
		at, line := w.write(o, text, rest[o] != "")
		x := &all[of[o]]
		if fresh {
			x.at, x.raw = at, line
		} else {
			x.raw += "\n" + line
		}
		if r.IntN(20) == 0 {
			w.log.WriteString("\n")
		}
	}
	return w.log.String(), all
}

func TestPartsOfLinesAreAssembledHoweverTheyAreRead(t *testing.T) {
	t.Parallel()
	joinedAny := false
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 3))
		text, wrote := containerLog(r, seed%2 == 0, 1+r.IntN(15))
		c := Defaults()
		c.Records = []string{"access", "all"}[r.IntN(2)]
		switch seed % 10 {
		case 7:
			wrote = nil // its bound is reached
		case 8: // lines of an output are continued by others, in the user's words
			c.Multiline.Continue, wrote = "stderr", nil
		case 9:
			c.Multiline.Start, wrote = "(?i)never", nil
		}
		if wrote == nil {
			c.MaxLine = conf.Size(1 << 10)
		}
		want, counts := inOneGo(t, c, text)
		if wrote != nil && len(want) != len(wrote) {
			t.Fatalf("seed %d: %d records of %d lines\n%s", seed, len(want), len(wrote), text)
		}
		joinedAny = joinedAny || counts["joined"] > 0
		for i, x := range wrote {
			w := want[i]
			if w.offset != int64(x.at) || w.raw != x.raw || w.class != event.ClassAccess || w.truncated {
				t.Fatalf("seed %d: record %d is %+v\nof %+v", seed, i, w, x)
			}
			e := event.Event{Offset: w.offset, Raw: []byte(strings.SplitN(w.raw, "\n", 2)[0])}
			if b := event.NewBatch("s"); !strings.HasPrefix(w.told, "GET") || w.id != idOf(b, e) {
				t.Fatalf("seed %d: record %d: id %s, %s", seed, i, w.id, w.told)
			}
		}
		if counts["lines"] != int64(strings.Count(text, "\n")) || counts["bytes"] != int64(len(text)) {
			t.Fatalf("seed %d: %v of %d lines, %d bytes", seed, counts, strings.Count(text, "\n"), len(text))
		}
		for name, how := range map[string]reading{
			"byte by byte": {always(1), always(64), never, always(1024)},
			"small blocks": {always(len(text)), always(100), never, always(1024)},
			"few records":  {always(len(text)), always(len(text)), never, always(1)},
			"restarts":     {always(1 << 9), always(1 << 8), func() bool { return true }, func() int { return 1 + r.IntN(3) }},
		} {
			got, again := read(t, c, text, how)
			if d := differ(want, got); d != "" {
				t.Fatalf("seed %d, %s: %s\n%s", seed, name, d, text)
			}
			if again["lines"] != counts["lines"] || again["joined"] != counts["joined"] || again["events"] != counts["events"] {
				t.Fatalf("seed %d, %s: %v, in one go %v", seed, name, again, counts)
			}
		}
	}
	if !joinedAny {
		t.Error("no line was cut")
	}
}

// idOf is the id of an event of that batch.
func idOf(b *event.Batch, like event.Event) string {
	e := b.Append()
	e.Offset, e.Raw = like.Offset, like.Raw
	return e.ID()
}

// TestAssembledLineReadsAsTheWholeOne compares what becomes of a cut line with what becomes of the same line in one piece.
func TestAssembledLineReadsAsTheWholeOne(t *testing.T) {
	t.Parallel()
	text := longLine(1, rand.New(rand.NewPCG(1, 1)))
	for _, docker := range []bool{true, false} {
		for cut := 1; cut < len(text); cut++ {
			whole, parts := newRuntime(docker), newRuntime(docker)
			whole.write(0, text, false)
			parts.write(0, text[:cut], true)
			parts.write(0, text[cut:], false)
			a, b := fill(t, Defaults(), Options{}, whole.log.String()), fill(t, Defaults(), Options{}, parts.log.String())
			if len(a.Events) != 1 || len(b.Events) != 1 {
				t.Fatalf("cut at %d: %d and %d records", cut, len(a.Events), len(b.Events))
			}
			x, y := &a.Events[0], &b.Events[0]
			if x.Path != y.Path || x.Query != y.Query || x.Status != y.Status || x.UserAgent != y.UserAgent || !x.Time.Equal(y.Time) || y.Is(event.BoolTruncated) || y.Plain {
				t.Fatalf("cut at %d:\n%+v\n%+v", cut, x, y)
			}
		}
	}
}

// forged is what a client puts into a URL so that it stands at the beginning of a part.
const forged = `192.0.2.66 - - [02/Mar/2026:10:15:31 +0000] "DELETE /v3/users/1 HTTP/1.1" 204 0 "-" "-"`

func TestLineWhoseEndNeverComes(t *testing.T) {
	t.Parallel()
	const head = `192.0.2.9 - - [02/Mar/2026:10:15:30 +0000] "GET /v3/projects?`
	for _, docker := range []bool{true, false} {
		for name, how := range map[string]func(w *runtime, c *Config) (more string){
			"the container ended": func(*runtime, *Config) string { return "" },
			"the rest is late":    func(w *runtime, _ *Config) string { return w.after(0, forged) },
			"too much time":       func(w *runtime, _ *Config) string { w.now = w.now.Add(time.Minute); return w.after(0, forged) },
			"too many bytes": func(w *runtime, c *Config) string {
				for range 40 {
					w.write(0, strings.Repeat("x", 50), true)
				}
				return w.after(0, forged)
			},
		} {
			w, c := newRuntime(docker), Defaults()
			c.Records, c.MaxLine = "all", conf.Size(1<<10)
			w.write(0, head, true)
			w.write(0, "a=b", true)
			first := w.log.Len()
			more := how(w, &c)
			if name != "too many bytes" && w.log.Len()-len(more) != first {
				t.Fatal("the test is wrong")
			}
			text := w.log.String()
			counts := map[string]int64{}
			m := maker(t, c, counts)
			var got []joined
			at := 0
			for _, step := range []struct {
				to  int
				end End
			}{{first, More}, {first, Quiet}, {len(text), Closed}} {
				if name == "too much time" || name == "too many bytes" { // tell by themselves
					step.end = Closed
					step.to = len(text)
				}
				for at < step.to {
					b := event.NewBatch("s")
					b.ReadAt = time.Unix(2e9, 0)
					block := b.Arena().Block(step.to - at)
					copy(block, text[at:])
					used, done, need := m.Join(b, block, int64(at), 1024, step.end)
					if used == 0 {
						if step.end != More || done != step.to-at || need < int(c.MaxLine) || len(b.Events) > 0 {
							t.Fatalf("%s: stuck at %d: %d, %d", name, at, done, need)
						}
						m.Discard()
						break
					}
					m.Flush()
					got = append(got, collect(b)...)
					at += used
				}
			}
			if at != len(text) || len(got) == 0 || counts["bytes"] != int64(len(text)) || counts["lines"] != int64(strings.Count(text, "\n")) {
				t.Fatalf("%s: %d bytes of %d used, %d records, %v", name, at, len(text), len(got), counts)
			}
			if x := got[0]; x.offset != 0 || x.class != event.ClassAccess || !x.truncated || !strings.HasPrefix(x.told, "GET") {
				t.Errorf("%s: the first record is %+v", name, x)
			}
			line, _, _ := strings.Cut(text, "\n")
			late := got[0].id != idOf(event.NewBatch("s"), event.Event{Raw: []byte(line)})
			if want := name == "the container ended" || name == "the rest is late"; late != want {
				t.Errorf("%s: the length is in the id: %v", name, late)
			}
			if name == "too much time" && (len(got) != 2 || got[1].class != event.ClassAccess) {
				t.Errorf("%s: %+v", name, got)
			}
			for _, x := range got[1:] {
				if x.class == event.ClassAccess && name != "too much time" || name != "too much time" && !x.truncated {
					t.Errorf("%s: %+v", name, x)
				}
			}
			if all := strings.Join(messages(got), " "); more != "" && name != "too much time" && !strings.Contains(all, forged) {
				t.Errorf("%s: the rest was lost: %q", name, all)
			}
		}
	}
}

func messages(all []joined) (texts []string) {
	for _, x := range all {
		texts = append(texts, x.message)
	}
	return texts
}

// after writes a last part and returns it.
func (r *runtime) after(output int, text string) string {
	_, line := r.write(output, text, false)
	return line + "\n"
}

// TestRestIsNoRequestAfterARestart starts to read behind the first part of a line.
func TestRestIsNoRequestAfterARestart(t *testing.T) {
	t.Parallel()
	for _, docker := range []bool{true, false} {
		w := newRuntime(docker)
		w.write(0, "GET /v3/x?", true)
		first := w.log.Len()
		w.write(1, forged, false) // the other output's, which is a line by itself
		w.write(0, forged, true)
		w.write(0, forged, false)
		w.write(0, forged, false) // and a new line
		text := w.log.String()
		c := Defaults()
		m := maker(t, c, map[string]int64{})
		m.Prime([]byte(text[:first]), 0)
		b := event.NewBatch("s")
		b.ReadAt = time.Unix(2e9, 0)
		block := b.Arena().Block(len(text) - first)
		copy(block, text[first:])
		m.Join(b, block, int64(first), 1024, Closed)
		var paths []string
		for i := range b.Events {
			paths = append(paths, b.Events[i].Path)
		}
		if !slices.Equal(paths, []string{"/v3/users/1", "/v3/users/1"}) {
			t.Errorf("docker %v: %q", docker, paths)
		}
	}
}

func TestWhatIsAPart(t *testing.T) {
	t.Parallel()
	const stamp = "2026-03-02T10:15:30.123456789"
	for line, want := range map[string]bool{
		stamp + "Z stdout P text":                                                   true,
		stamp + "+01:00 stderr P text":                                              true,
		stamp + "Z stdout P ":                                                       true,
		stamp + "Z stdout P:x text":                                                 true,
		stamp + "Z stdout F text":                                                   false,
		stamp + "Z stdout Ptext":                                                    false,
		stamp + "Z stdin P text":                                                    false,
		stamp + "Z [nova] stdout P text":                                            false,
		`{"log":"text","stream":"stdout","time":"` + stamp + `Z"}`:                  true,
		`{"log":"","stream":"stdout","time":"` + stamp + `Z"}`:                      true,
		`{"log":"text\\n","stream":"stdout","time":"` + stamp + `Z"}`:               true,
		`{"log":"text\n","stream":"stdout","time":"` + stamp + `Z"}`:                false,
		`{"log":"text\\\n","stream":"stdout","time":"` + stamp + `Z"}`:              false,
		`{"log":"x","stream":"stdout","attrs":{"a":"b"},"time":"` + stamp + `Z"}`:   true,
		`{"log":"x\n","stream":"stdout","attrs":{"a":"b"},"time":"` + stamp + `Z"}`: false,
		`{"log":"x","stream":"stdout","logtag":"F","time":"` + stamp + `Z"}`:        false,
		`{"log":"x","stream":"stdin","time":"` + stamp + `Z"}`:                      false,
		`{"log":"x","time":"` + stamp + `Z","stream":"stdout"}`:                     false,
		`{"log":"a\",\"stream\":\"x\n","stream":"stdout","time":"` + stamp + `Z"}`:  false,
		`{"log": "text", "stream": "stdout", "time": "` + stamp + `Z"}`:             true,
		`{"log": "text\n", "stream": "stderr", "time": "` + stamp + `Z"}`:           false,
		`{"log": "text", "stream": "stdout", "other": 1, "time": "` + stamp + `Z"}`: false,
	} {
		p, ok := formats.PieceOf([]byte(line))
		if got := ok && p.More; got != want {
			t.Errorf("%s: %v", line, got)
		}
		if want && !formats.IsPart([]byte(line)) {
			t.Errorf("%s: not seen", line)
		}
		for i := range line {
			formats.IsPart([]byte(line[:i]))
			formats.PieceOf([]byte(line[i:]))
			formats.PieceOf([]byte(line[:i]))
		}
	}
}
