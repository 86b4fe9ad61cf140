//go:build blackbox

package scripts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// trace is a record of oslo.log with an exception, as the file has it and as the event's message has it. Each of its lines can be
// told from every other.
func trace(n, frames int) (text, message string) {
	prefix := time.Date(2026, 3, 2, 0, 0, 0, n*1e6, time.UTC).Format("2006-01-02 15:04:05.000") + " 4211 ERROR nova.api.openstack "
	lines := []string{fmt.Sprintf("failure %d", n), fmt.Sprintf("Traceback (most recent call last): %d", n)}
	for i := range frames {
		lines = append(lines, fmt.Sprintf(`  File "/usr/lib/python3/x%d.py", line %d, in f`, n, i), fmt.Sprintf("    call(%d, %d)", n, i))
	}
	lines = append(lines, fmt.Sprintf("ValueError: %d", n))
	var b strings.Builder
	for i, l := range lines {
		context := ""
		if i == 0 {
			context = "[None req-11111111-2222-4333-8444-555555555555 - - - - - -] "
		}
		b.WriteString(prefix + context + l + "\n")
	}
	return b.String(), strings.Join(lines, "\n")
}

// appendFile appends to a file as a service does that writes a record piece by piece.
func appendFile(t testing.TB, path, text string) {
	t.Helper()
	f := must[*os.File](t)(os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644))
	defer f.Close()
	_ = must[int](t)(f.WriteString(text))
}

// messages returns the messages in the output, with a mark before those of records that are flagged as truncated. It returns none
// while an agent cuts the output back: Linux shows zeroes to who reads a file at the moment in which it is cut.
func (b *box) messages() (all []string) {
	b.t.Helper()
	p, err := os.ReadFile(b.out)
	if err != nil || bytes.IndexByte(p, 0) >= 0 {
		return nil
	}
	for line := range strings.Lines(string(p)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var e struct {
			Message   string `json:"message"`
			Truncated bool   `json:"truncated_bool"`
		}
		ok(b.t, json.Unmarshal([]byte(line), &e))
		if e.Truncated {
			e.Message = "!" + e.Message
		}
		all = append(all, e.Message)
	}
	return all
}

func TestR23ATracebackInPiecesIsOneEventOverKillsAndTwoOverARotation(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		rnd := seeded(seed)
		b := newBox(t)
		b.write(setup{tail: "records: all, multiline: {timeout: 5m}"})
		path := b.log("nova-api.log")
		a := b.start()
		text, message := trace(60, 3)
		appendFile(t, path, text)
		want := []string{message}
		// What is rotated before an agent has ever seen the log is history to it.
		waitFor(t, "the stream stands in the checkpoint", func() bool { return holds(filepath.Join(b.state(), "checkpoint"), "cursors") })
		for i := range 60 {
			text, message := trace(i, rnd.IntN(60))
			if i%20 == 7 { // the file is rotated between two lines of it
				lines := strings.SplitAfter(text, "\n")
				cut := 1 + rnd.IntN(len(lines)-2)
				parts := strings.Split(message, "\n")
				appendFile(t, path, strings.Join(lines[:cut], ""))
				ok(t, rename(path))
				appendFile(t, path, strings.Join(lines[cut:], ""))
				want = append(want, strings.Join(parts[:cut], "\n"), "!"+strings.Join(parts[cut:], "\n"))
				waitFor(t, "the part before the rotation", func() bool { return len(b.messages()) >= len(want)-1 })
				continue
			}
			beats(1+rnd.IntN(3), time.Duration(rnd.IntN(60)+1)*time.Millisecond, func(int) {
				n := rnd.IntN(len(text) + 1)
				appendFile(t, path, text[:n])
				text = text[n:]
			})
			if rnd.IntN(4) == 0 {
				a.kill()
				a = b.start()
			}
			appendFile(t, path, text)
			want = append(want, message)
		}
		appendFile(t, path, novaLine("/v2.1/servers", "192.0.2.1")+"\n")
		arrive(t, a, b.out, len(want)+1)
		a.stop()
		got := b.messages()
		if len(got) == len(want)+1 {
			got = got[:len(want)] // without the access record
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d records, want %d; %s", seed, len(got), len(want), differing(got, want))
		}
		if r := b.once(); r.code != 0 || !strings.Contains(r.errors, " 0 lines") {
			t.Errorf("code %d; read again: %s", r.code, tailOf(r.errors, 400))
		}
	}
}

func differing(got, want []string) string {
	for i := range want {
		if i >= len(got) {
			return fmt.Sprintf("%d is missing: %q", i, want[i])
		}
		if got[i] != want[i] {
			return fmt.Sprintf("%d is %q, want %q", i, got[i], want[i])
		}
	}
	return "there are more"
}

// TestR23ARecordThatIsClosedByTimeIsNeitherLostNorDoubled kills the agent around the moments at which it closes records because
// their file is quiet: every line of the file is in one event, in order.
func TestR23ARecordThatIsClosedByTimeIsNeitherLostNorDoubled(t *testing.T) {
	t.Parallel()
	rnd := seeded(9)
	b := newBox(t)
	b.write(setup{tail: "records: all, multiline: {timeout: 100ms}"})
	path := b.log("nova-api.log")
	a := b.start()
	want, records := []string{}, 0
	for i := range 25 {
		text, message := trace(i, 5)
		want = append(want, strings.Split(message, "\n")...)
		half := strings.LastIndexByte(text[:len(text)/2], '\n') + 1
		appendFile(t, path, text[:half])
		if i%2 == 0 {
			waitFor(t, "the record is closed", func() bool { return len(b.messages()) > records })
		}
		if rnd.IntN(2) == 0 {
			a.kill()
			a = b.start()
		}
		appendFile(t, path, text[half:])
		if i%3 == 0 {
			waitFor(t, "the rest", func() bool { return len(b.messages()) > records })
		}
		records = len(b.messages())
	}
	appendFile(t, path, novaLine("/v2.1/servers", "192.0.2.1")+"\n")
	waitFor(t, "the last record", func() bool { return holds(b.out, `"api_access"`) })
	a.stop()
	var got []string
	for _, m := range b.messages() {
		if m != "" {
			got = append(got, strings.Split(strings.TrimPrefix(m, "!"), "\n")...)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d lines, want %d; %s", len(got), len(want), differing(got, want))
	}
}

func TestR22AFileInUTF16IsRefusedByNameAndOthersGoOn(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{})
	ok(t, os.WriteFile(b.log("odd.log"), []byte("\xff\xfeo\x00d\x00d\x00\n\x00"), 0o644))
	w := newWriter(t, b.log("api.log"), 1)
	w.lines(500)
	a := b.start()
	arrive(t, a, b.out, 500)
	a.says("UTF-16LE")
	if _, text := a.get("/readyz"); !strings.Contains(text, "odd.log") || !strings.Contains(text, "UTF-16LE") {
		t.Errorf("readyz says %q", text)
	}
	ok(t, os.WriteFile(b.log("odd.log"), nil, 0o644))
	other := newWriter(t, b.log("odd.log"), 2)
	other.lines(100)
	arrive(t, a, b.out, 600)
	a.stop()
	verify(t, []*writer{w, other}, b.out)
}

func TestWrongPatternsOfMultilineAreNamedWithTheirPlace(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write(setup{tail: `multiline: {start: "[", continue: "(", max_lines: 0}`})
	r := command(t, "check", "-c", b.config)
	for _, want := range []string{"multiline.start: ", "multiline.continue: ", "multiline.max_lines: ", "stacktrail.yaml:"} {
		if r.code == 0 || !strings.Contains(r.out+r.errors, want) {
			t.Errorf("code %d, no %q: %s%s", r.code, want, r.out, r.errors)
		}
	}
}
