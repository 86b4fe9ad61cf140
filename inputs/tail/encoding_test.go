package tail

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16Of encodes as Windows programs do.
func utf16Of(text string, order binary.AppendByteOrder, mark bool) string {
	var out []byte
	if mark {
		out = order.AppendUint16(out, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, u)
	}
	return string(out)
}

func TestR22EveryEncodingIsReadOrRefusedByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name+".log") }
	for name, text := range map[string]string{
		"plain":  "plain é\nsecond é\n",
		"mark":   "\xef\xbb\xbf" + novaLine + "\n",
		"bytes":  "crlf\r\n\n\r\na\x00b\n\xff\xfe bad\n\xef\xbb\xbfmark\n\x00\x00\x00\n" + strings.Repeat("\x00", 5000) + "\nlast\n",
		"le":     utf16Of("one\r\ntwo\r\n", binary.LittleEndian, true),
		"be":     utf16Of("one\r\ntwo\r\n", binary.BigEndian, true),
		"nomark": utf16Of(novaLine+"\r\ntwo\r\n", binary.LittleEndian, false),
	} {
		must(t, os.WriteFile(path(name), []byte(text), 0o644))
	}
	a := newFakeAgent(t)
	a.log = &journal{}
	start(t, a, testConfig(filepath.Join(dir, "*.log")))
	refused := map[string]string{"le": "UTF-16LE", "be": "UTF-16BE", "nomark": "UTF-16LE"}
	until(t, "all that can be read", func() bool {
		got := a.texts()
		return slices.Contains(got, "last") && slices.Contains(got, "second é") && slices.Contains(got, novaLine)
	})
	for name, kind := range refused {
		until(t, name+" refused", func() bool { return strings.Contains(a.fault(path(name)), kind) })
	}
	for _, g := range a.all() {
		if strings.Contains(g.text, "o\x00") {
			t.Errorf("read as text: %q", g.text)
		}
		if strings.Contains(g.text, "nova.osapi_compute") && (g.text != novaLine || g.offset != 0) {
			t.Errorf("behind the mark: %+v", g)
		}
	}
	for _, want := range []string{novaLine, "crlf", "a\x00b", "\xff\xfe bad", "\xef\xbb\xbfmark"} {
		if !slices.Contains(a.texts(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if n := a.count("refused_files", "encoding"); n != int64(len(refused)) {
		t.Errorf("%d files counted as refused", n)
	}
	if n := a.count("format", "nova-eventlet"); n != 1 {
		t.Errorf("%d access lines, want the one behind the mark", n)
	}
	// It is looked at again when it changes.
	must(t, os.WriteFile(path("le"), []byte("now\nin UTF-8\n"), 0o644))
	until(t, "the converted file", func() bool { return slices.Contains(a.texts(), "in UTF-8") })
	until(t, "the fault taken back", func() bool { return a.fault(path("le")) == "" })
}

func TestLatin1IsConvertedAndOffsetsStay(t *testing.T) {
	t.Parallel()
	_, path := file1(t)
	must(t, os.WriteFile(path, []byte("caf\xe9 \x80\r\nnext\n"+p2+"[-] \xfcber\nweiter \xdf\n"), 0o644))
	r := &recorder{fakeAgent: newFakeAgent(t)}
	c := multilineConfig(path)
	c.Encoding = "latin-1"
	must(t, newInput(t, r.fakeAgent, c, true).Run(context.Background(), r))
	var got []string
	for _, x := range r.records() {
		got = append(got, fmt.Sprintf("%d %q", x.offset, x.message))
	}
	if want := []string{`0 "café \u0080"`, `8 "next"`, `13 "über\nweiter ß"`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// The id is made of what stands in the file.
	c.Encoding = "utf-8"
	same := &recorder{fakeAgent: newFakeAgent(t)}
	must(t, newInput(t, same.fakeAgent, c, true).Run(context.Background(), same))
	for i, x := range same.records() {
		if x.id != r.records()[i].id {
			t.Errorf("record %d has another id", i)
		}
	}
}
