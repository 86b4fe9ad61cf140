package stdin

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRecordsOfSeveralLines(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a := &fakeAgent{t: t}
	c := Defaults()
	c.Records, c.Multiline.Timeout, c.Multiline.MaxBytes = "all", time.Minute, 1<<20
	c.Multiline.MaxLines = 100_000
	in := newInput(t, a, c, r)
	done := make(chan error, 1)
	go func() { done <- in.Run(context.Background(), a) }()
	write := func(s string) {
		t.Helper()
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	const prefix = "2026-03-02 10:00:00.123 7 ERROR nova.api "
	var want []string
	for i := range 3 {
		text := fmt.Sprintf("%s[-] failure %d\n%sTraceback (most recent call last):\n%s", prefix, i, prefix, strings.Repeat(prefix+"    call()\n", 3000*i))
		write(text[:len(text)/2])
		write(text[len(text)/2:])
		want = append(want, text[:len(text)-1])
	}
	waitFor(t, func() bool { return a.len() == 2 })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if i >= len(a.texts) || a.texts[i] != want[i] || a.cut[i] {
			t.Fatalf("%d records; the one that differs is %d", len(a.texts), i)
		}
	}
}

func TestARecordEndsWhenNothingFollows(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a := &fakeAgent{t: t}
	c := Defaults()
	c.Multiline.Start, c.Multiline.Timeout = "^#", 10*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newInput(t, a, c, r).Run(ctx, a) }()
	if _, err := w.WriteString("# one\nand\nun"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.len() == 1 })
	if _, err := w.WriteString("finished\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.len() == 2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := fmt.Sprintf("%q %v", a.texts, a.cut); got != `["# one\nand" "unfinished"] [false true]` {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsNoTextIsRefused(t *testing.T) {
	t.Parallel()
	for begin, want := range map[string]string{
		"\xff\xfeo\x00n\x00e\x00\n\x00":        "UTF-16LE",
		"\x1f\x8b\x08\x00\x00\n\x00\n":         "gzip; put zcat",
		"\x28\xb5\x2f\xfd\x24\x0d\x69\n\x00\n": "zstd; put zstdcat",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := w.WriteString(begin); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		a := &fakeAgent{t: t}
		if err := newInput(t, a, Defaults(), r).Run(context.Background(), a); err == nil || !strings.Contains(err.Error(), want) || a.len() != 0 {
			t.Errorf("error %v, %d records", err, a.len())
		}
	}
}
