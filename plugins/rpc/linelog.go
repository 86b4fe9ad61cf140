package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// linesPerSecond is how much of a plugin's own log gets through: more would drown the agent's.
const linesPerSecond = 100

// lineLog takes what a plugin writes line by line into the agent's log.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex // guards all below
	part    []byte     // of a line that came through Write
	lastOne string
	second  int64 // in which count lines came
	count   int
	cut     int // lines that were left out
}

func newLineLog(log *slog.Logger) *lineLog { return &lineLog{log: log} }

// Write takes output that go-plugin passes on, in pieces of any length.
func (l *lineLog) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		l.mu.Lock()
		l.part = append(l.part, line[:min(len(line), max(0, lineReader-len(l.part)))]...)
		text := slices.Clone(l.part)
		if whole {
			l.part = l.part[:0]
		}
		l.mu.Unlock()
		if !whole {
			return n, nil
		}
		l.line(text)
		b = rest
	}
}

// last is the last line that had something in it.
func (l *lineLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastOne
}

// line logs one line, if it is not too much.
func (l *lineLog) line(b []byte) {
	text := oneLine(string(bytes.TrimSpace(b)))
	if text == "" {
		return
	}
	now := time.Now().Unix()
	l.mu.Lock()
	if l.lastOne = cut(text); l.lastOne != text {
		l.lastOne += cutMark // what was cut off may have been a secret's end
	}
	cut := 0
	if now != l.second {
		l.second, l.count = now, 0
		cut, l.cut = l.cut, 0
	}
	l.count++
	tooMany := l.count > linesPerSecond
	if tooMany {
		l.cut++
	}
	l.mu.Unlock()
	l.tellCut(cut)
	if !tooMany {
		l.emit(bytes.TrimSpace(b), text)
	}
}

// flush says what was left out at last.
func (l *lineLog) flush() {
	l.mu.Lock()
	cut := l.cut
	l.cut = 0
	l.mu.Unlock()
	l.tellCut(cut)
}

func (l *lineLog) tellCut(n int) {
	if n > 0 {
		l.log.Warn("the plugin says too much: lines are left out", "lines", n)
	}
}

// emit logs a line at the level that it has, if it is JSON.
func (l *lineLog) emit(line []byte, text string) {
	var fields map[string]any
	numbers := json.NewDecoder(bytes.NewReader(line))
	numbers.UseNumber() // as they were written
	if line[0] != '{' || numbers.Decode(&fields) != nil || numbers.More() {
		l.log.Info(text)
		return
	}
	msg, _ := fields["msg"].(string)
	severity, _ := fields["level"].(string)
	var level slog.Level
	if msg == "" || level.UnmarshalText([]byte(strings.ToUpper(severity))) != nil {
		l.log.Info(text)
		return
	}
	var attrs []slog.Attr
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		name := k
		switch k {
		case "msg", "level", "time", "plugin":
			continue
		case "pipeline", "id": // the agent's own lines say with them whom they are about
			name = "said_" + k
		}
		if s, ok := fields[k].(string); ok {
			attrs = append(attrs, slog.String(name, oneLine(s)))
		} else {
			attrs = append(attrs, slog.Any(name, fields[k]))
		}
	}
	l.log.LogAttrs(context.Background(), level, oneLine(msg), attrs...)
}
