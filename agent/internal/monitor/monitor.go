// Package monitor shows what the agent does: Prometheus metrics and health over HTTP, the state of every stream and output over
// the admin socket. All of it is read from one function, State, when somebody asks.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

// State is the agent at one moment.
type State struct {
	Version    string            `json:"version"`
	PID        int               `json:"pid"`
	Started    time.Time         `json:"started"`
	Checkpoint time.Time         `json:"checkpoint"`           // when positions were stored last, or nothing was to be stored
	SaveError  string            `json:"save_error,omitempty"` // why they cannot be stored
	Pipelines  []pipeline.Status `json:"pipelines"`
	Plugins    []rpc.Status      `json:"plugins,omitempty"` // those in processes of their own
	NotReady   []string          `json:"not_ready,omitempty"`
	Stuck      string            `json:"stuck,omitempty"` // why the agent's own loops do not turn
}

// Config says where to listen. Empty: nowhere.
type Config struct {
	Listen string // address of the HTTP server
	Socket string // path of the admin socket
}

// Server serves until Close. Its zero value serves nothing yet.
type Server struct {
	servers   []*http.Server
	listeners []net.Listener
	addr      string
	socket    string
}

// Add listens and serves. An address that is taken or not allowed is an error; a stale socket is replaced.
func (s *Server) Add(cfg Config, state func() State, log *slog.Logger) error {
	if cfg.Listen != "" {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Listen)
		if err != nil {
			return fmt.Errorf("listening for metrics and health: %w (see agent.listen)", err)
		}
		s.addr = l.Addr().String()
		s.serve(l, public(state, log), log)
	}
	if cfg.Socket != "" {
		l, err := listenUnix(cfg.Socket)
		if err != nil {
			return fmt.Errorf("listening on the admin socket: %w (see agent.admin_socket)", err)
		}
		s.socket = cfg.Socket
		mux := http.NewServeMux()
		mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(state()) // who asked is gone
		})
		s.serve(l, mux, log)
	}
	return nil
}

// Addr is where the HTTP server listens; "" if it does not.
func (s *Server) Addr() string { return s.addr }

func (s *Server) serve(l net.Listener, h http.Handler, log *slog.Logger) {
	srv := &http.Server{
		Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.servers, s.listeners = append(s.servers, srv), append(s.listeners, l)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics, health or status are not served any more", "address", l.Addr().String(), "error", err)
		}
	}()
}

// Close ends all.
func (s *Server) Close() {
	for _, srv := range s.servers {
		_ = srv.Close()
	}
	for _, l := range s.listeners {
		_ = l.Close() // a server that has just begun may not know its listener yet
	}
	if s.socket != "" {
		_ = os.Remove(s.socket)
	}
}

// listenUnix makes a socket that only the owner may use. One that nobody answers on is left from an agent that was killed.
func listenUnix(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket", path)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("%s belongs to an agent that runs", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	syscall.Umask(old)
	return l, err
}

// public is what everybody may see.
func public(state func() State, log *slog.Logger) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{state}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, problems(state().Stuck))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := state()
		answer(w, append(problems(s.Stuck), s.NotReady...))
	})
	return mux
}

func problems(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func answer(w http.ResponseWriter, problems []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(problems) == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, strings.Join(problems, "\n"))
}

// NotReady says what of the pipelines keeps the agent from being ready: inputs that cannot read, outputs that fail.
func NotReady(pipelines []pipeline.Status) (why []string) {
	for _, p := range pipelines {
		for _, key := range sortedKeys(p.Failures) {
			why = append(why, fmt.Sprintf("pipeline %s: processors: %s: %s", p.Name, key, p.Failures[key]))
		}
		for _, in := range p.Inputs {
			for _, key := range sortedKeys(in.Failures) {
				why = append(why, fmt.Sprintf("pipeline %s: input %s: %s: %s", p.Name, in.ID, key, in.Failures[key]))
			}
		}
		for _, o := range p.Outputs {
			if o.LastError != "" {
				why = append(why, fmt.Sprintf("pipeline %s: output %s: failing since %s: %s", p.Name, o.ID, o.FailingSince.UTC().Format(time.RFC3339), o.LastError))
			}
			for _, key := range sortedKeys(o.Failures) {
				why = append(why, fmt.Sprintf("pipeline %s: output %s: %s: %s", p.Name, o.ID, key, o.Failures[key]))
			}
		}
	}
	return why
}
