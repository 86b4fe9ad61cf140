package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stacktrail/stacktrail/agent/internal/config"
	"github.com/stacktrail/stacktrail/agent/internal/monitor"
	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
)

// statusPatience is how long the agent may take to answer.
const statusPatience = 10 * time.Second

func newStatusCommand() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running agent does",
		Long: `status asks the running agent over its admin socket and shows every input, stream and output: how far it is, what is left to
do, what failed last. It exits 1 when no agent answers.`,
		Example: "  stacktrail status\n  stacktrail status -o json | jq '.pipelines[].outputs[] | {id, in_flight, last_error}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"text", "json"}, format) {
				return fmt.Errorf("--output is text or json, not %q", format)
			}
			raw, err := askAgent(cmd.Context(), socket)
			if err != nil {
				return fail(exitFailure, err)
			}
			if format == "json" {
				_, err := cmd.OutOrStdout().Write(raw)
				return fail(exitFailure, err)
			}
			var s monitor.State
			if err := json.Unmarshal(raw, &s); err != nil {
				return fail(exitFailure, fmt.Errorf("reading the agent's answer: %w", err))
			}
			printStatus(cmd.OutOrStdout(), s, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVar(&socket, "admin-socket", config.DefaultAgent().AdminSocket, "socket of the agent: see agent.admin_socket")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// askAgent gets the agent's state.
func askAgent(ctx context.Context, socket string) ([]byte, error) {
	c := http.Client{Timeout: statusPatience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no agent answers on %s: is it running, and is this its agent.admin_socket?", socket)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s is for the agent's user only: run this as that user or as root", socket)
	case err != nil:
		return nil, fmt.Errorf("asking the agent: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking the agent: it answers %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// printStatus shows a state to people.
func printStatus(w io.Writer, s monitor.State, now time.Time) {
	ready := "ready"
	if len(s.NotReady) > 0 || s.Stuck != "" {
		ready = "NOT READY"
	}
	fmt.Fprintf(w, "stacktrail %s, pid %d, running for %v, positions stored %v ago: %s\n",
		s.Version, s.PID, ago(now, s.Started), ago(now, s.Checkpoint), ready)
	for _, why := range s.NotReady {
		fmt.Fprintln(w, "  not ready:", why)
	}
	if s.Stuck != "" {
		fmt.Fprintln(w, "  stuck:", s.Stuck)
	}
	for _, p := range s.Plugins {
		state := "does not run"
		if p.PID != 0 {
			state = fmt.Sprintf("pid %d", p.PID)
		}
		fmt.Fprintf(w, "plugin %s: %s, %s\n", p.Path, state, count(int(p.Restarts), "restart"))
	}
	for _, p := range s.Pipelines {
		fmt.Fprintf(w, "pipeline %s\n", p.Name)
		for i := range p.Inputs {
			printInput(w, &p.Inputs[i])
		}
		for _, pr := range p.Processors {
			if text := joinCounts(pr.Counts); text != "" {
				fmt.Fprintf(w, "  processor %-12s %s\n", pr.ID, text)
			}
		}
		for i := range p.Outputs {
			printOutput(w, &p.Outputs[i], now)
		}
	}
}

func printInput(w io.Writer, in *pipeline.InputStatus) {
	reportInput(w, *in)
	if len(in.Streams) > 0 {
		fmt.Fprintf(w, "            %-12s %s behind\n", "", human(in.Lag()))
	}
	for i := range in.Streams {
		st := &in.Streams[i]
		if st.Done && st.Lag() == 0 {
			continue
		}
		size := "?"
		if st.Size >= 0 {
			size = human(st.Size)
		}
		fmt.Fprintf(w, "    %s: %s of %s read, %s behind\n", st.Source, human(st.Read), size, human(st.Lag()))
	}
}

func printOutput(w io.Writer, o *pipeline.OutputStatus, now time.Time) {
	fmt.Fprintf(w, "  output    %-12s %d offered = %d delivered + %d filtered + %d dead + %d dropped + %d in flight; %d writes, %d retries\n",
		o.ID, o.Offered, o.Delivered, o.Filtered, o.Dead, o.Dropped, o.InFlight, o.Requests, o.Retried())
	if !o.Oldest.IsZero() {
		fmt.Fprintf(w, "            %-12s waiting for %v, %s\n", "", ago(now, o.Oldest), human(o.InFlightBytes))
	}
	if o.LastError != "" {
		fmt.Fprintf(w, "            %-12s failing for %v: %s\n", "", ago(now, o.FailingSince), o.LastError)
	}
	for key, text := range o.Failures {
		fmt.Fprintf(w, "            %-12s %s: %s\n", "", key, text)
	}
}

func ago(now, then time.Time) time.Duration {
	if then.IsZero() {
		return 0
	}
	return now.Sub(then).Round(time.Second)
}
