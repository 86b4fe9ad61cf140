package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

// bulk is as much of an Elasticsearch as P5 needs: it takes everything, and counts it. It runs in this program, so what it costs
// is not the agent's.
type bulk struct {
	url    string
	events atomic.Int64
	server *http.Server
}

func startBulk(ctx context.Context) (*bulk, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the stub server: %w", err)
	}
	b := &bulk{url: "http://" + l.Addr().String()}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: stubPatience}
	go func() { _ = b.server.Serve(l) }() // it ends with close
	return b, nil
}

func (b *bulk) close() { _ = b.server.Close() }

// take returns how many events came since it was asked last.
func (b *bulk) take() int64 { return b.events.Swap(0) }

// ServeHTTP answers as a server does that took all.
func (b *bulk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/" {
		fmt.Fprintln(w, `{"version":{"number":"8.19.0","build_flavor":"default"},"tagline":"You Know, for Search"}`)
		return
	}
	n, err := countLines(r)
	if err != nil || n%2 != 0 {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"type":"illegal_argument_exception","reason":"%d lines"}}`, n)
		return
	}
	b.events.Add(n / 2)
	// As a server answers that is asked for the outcomes alone.
	item := []byte(`{"index":{"status":201}}`)
	answer := append([]byte(`{"errors":false,"items":[`), item...)
	for range n/2 - 1 {
		answer = append(append(answer, ','), item...)
	}
	_, _ = w.Write(append(answer, "]}\n"...)) // the agent is gone if that fails
}

func countLines(r *http.Request) (n int64, err error) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return 0, err
		}
	}
	for buf := make([]byte, 256<<10); ; {
		k, err := body.Read(buf)
		n += int64(bytes.Count(buf[:k], []byte("\n")))
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// deadAddress returns a URL at which nobody listens.
func deadAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	return "http://" + l.Addr().String(), l.Close()
}
