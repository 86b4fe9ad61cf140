package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stacktrail/stacktrail/plugins/schema"
)

// What FRAME.md says and no vector shows.

func TestTheDocumentListsEveryFieldOfTheSchema(t *testing.T) {
	text, err := os.ReadFile("FRAME.md")
	if err != nil {
		t.Fatal(err)
	}
	listed, want := map[string]string{}, map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| fields of type (\w+) \| (.*) \|$`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[2], -1) {
			listed[name[1]] = row[1]
		}
	}
	for _, f := range schema.Fields() {
		want[f.Name] = typeName(f.Type)
	}
	if !maps.Equal(listed, want) {
		t.Errorf("the document lists\n%v\nand the schema has\n%v", listed, want)
	}
}

func TestStatusSaysWhoseFaultACallIs(t *testing.T) {
	s, err := newServed(benchSpecs(), slog.DiscardHandler)
	if err != nil {
		t.Fatal(err)
	}
	e := encoder{fields: newFields()}
	frame := e.batch(header{instance: 5}, nil)
	for name, c := range map[string]struct {
		call func(context.Context, *message) (*message, error)
		in   string
		want codes.Code
	}{
		"junk to Describe":  {s.describe, "junk", codes.InvalidArgument},
		"null to Open":      {s.open, "null", codes.InvalidArgument},
		"a list to Close":   {s.close, "[]", codes.InvalidArgument},
		"junk to Process":   {s.process, "junk", codes.InvalidArgument},
		"unknown, Process":  {s.process, string(frame), codes.NotFound},
		"unknown, Write":    {s.write, string(frame), codes.NotFound},
		"Close of the same": {s.close, `{"instance": 5}`, codes.OK},
	} {
		if _, err := c.call(t.Context(), &message{data: []byte(c.in)}); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestAReasonIsCutBetweenLetters(t *testing.T) {
	for _, reason := range []string{"x\xff", "x" + strings.Repeat("é", maxReason)} {
		var w writer
		w.begin(header{kind: kindVerdict, count: 1}, nil)
		w.fail(failure{0, classRetry, 0, reason})
		var f frame
		if err := f.parse(w.end()); err != nil {
			t.Fatal(err)
		}
		if got := f.failures[0].reason; !utf8.ValidString(got) || len(got) > maxReason || len(got) < min(len(reason), maxReason-2) {
			t.Errorf("%d bytes became %d: %.10q", len(reason), len(got), got)
		}
	}
}

func TestACallWaitsWhileTooManyAreUnderWay(t *testing.T) {
	h, _ := host(t, "honest")
	p := processorOf(t, h)
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
	for range mostCalls {
		h.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Process(ctx, batchOf("/a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a call beyond the most ended with %v", err)
	}
	<-h.slots
	if err := p.Process(t.Context(), batchOf("/a")); err != nil {
		t.Fatal(err)
	}
}

// TestAPluginsLinesDoNotPassForTheAgents: a plugin says nothing in another's name.
func TestAPluginsLinesDoNotPassForTheAgents(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := newLineLog(slog.New(slog.NewTextHandler(&out, nil)).With("plugin", "evil"))
	l.line([]byte(`{"level":"ERROR","msg":"x","pipeline":"good","id":"out","plugin":"mask","table":"t"}`))
	got := out.String()
	if !strings.Contains(got, "plugin=evil said_id=out said_pipeline=good table=t\n") || strings.Contains(got, " pipeline=") || strings.Contains(got, "mask") {
		t.Errorf("the log says %s", got)
	}
}
