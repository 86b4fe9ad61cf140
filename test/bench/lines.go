package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// sample is a set of log files and what is in them.
type sample struct {
	files   []string
	bytes   int64
	lines   int64
	healthy int64 // successful HEAD and OPTIONS requests, which P1 drops
	failed  int64 // lines of status 503, none of them healthy
}

// Rates of the lines: one in 50 is a health check, one in 200 fails.
const (
	healthEvery, healthAt = 50, 49
	failEvery, failAt     = 200, 37
)

// generate writes size bytes of nova-api lines into n files of about the same size, nova-api.log in a folder each. The same
// arguments make the same bytes.
func generate(ctx context.Context, dir string, size int64, n int, progress func(written int64)) (sample, error) {
	var s sample
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("controller%d", i+1), "nova-api.log")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return s, fmt.Errorf("generating lines: %w", err)
		}
		if err := s.file(ctx, path, size/int64(n), uint64(i+1), progress); err != nil {
			return s, fmt.Errorf("generating lines: %w", err)
		}
	}
	return s, nil
}

// file adds a file of lines, synced so that nobody pays for its way to the disk later.
func (s *sample) file(ctx context.Context, path string, size int64, seed uint64, progress func(int64)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // closed with its error checked below; this is for the ways out before
	w := bufio.NewWriterSize(f, 256<<10)
	g := newGenerator(seed)
	for written := int64(0); written < size; {
		line := g.next()
		if _, err := w.Write(line); err != nil {
			return err
		}
		written += int64(len(line))
		s.bytes += int64(len(line))
		if g.n%(1<<16) == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress(s.bytes)
		}
	}
	s.files = append(s.files, path)
	s.lines += int64(g.n)
	s.healthy += g.healthy
	s.failed += g.failed
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// generator makes lines as nova-api under eventlet writes them: about 300 bytes each, time moving on, no request id twice.
type generator struct {
	seed            uint64
	n               uint64
	healthy, failed int64
	now             time.Time
	line            []byte
}

func newGenerator(seed uint64) *generator {
	return &generator{seed: seed << 40, now: time.Date(2026, 3, 2, 6, 0, 0, 0, time.UTC)}
}

// next returns a line with its newline, good until the next call.
func (g *generator) next() []byte {
	n := g.n
	g.n++
	r := mix(g.seed + 4*n)
	g.now = g.now.Add(time.Duration(r%3) * time.Millisecond)
	b := g.now.AppendFormat(g.line[:0], "2006-01-02 15:04:05.000")
	b = fmt.Appendf(b, " %d INFO nova.osapi_compute.wsgi.server [", 4211+r>>8%8)
	id := uuid(mix(g.seed+4*n+1), mix(g.seed+4*n+2))
	if n%healthEvery == healthAt {
		g.healthy++
		if r>>16&1 == 0 {
			b = append(b, `-] 192.0.2.2 "OPTIONS / HTTP/1.0"`...)
		} else {
			b = append(b, "None req-"...)
			b = append(b, id[:]...)
			b = append(b, ` - - - - - -] 192.0.2.2 "HEAD /v2.1/ HTTP/1.1"`...)
		}
		b = fmt.Appendf(b, " status: 200 len: 511 time: 0.00%05d\n", r>>20%100000)
		g.line = b
		return b
	}
	user, project := mix(r>>24%97), mix(1000+r>>32%31)
	b = append(b, "None req-"...)
	b = append(b, id[:]...)
	b = fmt.Appendf(b, " %016x%016x %016x%016x - - default default] 192.0.2.%d ", user, mix(user), project, mix(project), 3+r>>40%250)
	status := 200
	server := uuid(mix(r>>16%4096), mix(5000+r>>16%4096))
	switch r >> 48 % 8 {
	case 0, 1, 2:
		b = append(b, `"GET /v2.1/servers/detail?limit=200`...)
	case 3, 4:
		b = append(b, `"GET /v2.1/servers/`...)
		b = append(b, server[:]...)
	case 5:
		b = append(b, `"GET /v2.1/flavors/detail?is_public=None`...)
	case 6:
		status = 202
		b = append(b, `"POST /v2.1/servers/`...)
		b = append(b, server[:]...)
		b = append(b, "/action"...)
	case 7:
		status = 204
		b = append(b, `"DELETE /v2.1/servers/`...)
		b = append(b, server[:]...)
	}
	if n%failEvery == failAt {
		status = 503
		g.failed++
	}
	b = fmt.Appendf(b, " HTTP/1.1\" status: %d len: %d time: 0.%07d\n", status, 200+r>>12%20000, r>>20%10000000)
	g.line = b
	return b
}

// mix is the output function of splitmix64, a bijection.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// uuid writes 122 of these bits as a UUID of version 4.
func uuid(hi, lo uint64) (text [36]byte) {
	const digits = "0123456789abcdef"
	for i := range text {
		switch i {
		case 8, 13, 18, 23:
			text[i] = '-'
			continue
		case 14:
			text[i] = '4'
		case 19:
			text[i] = digits[8|hi&3]
		default:
			text[i] = digits[hi&15]
		}
		hi = hi>>4 | lo<<60
		lo >>= 4
	}
	return text
}
