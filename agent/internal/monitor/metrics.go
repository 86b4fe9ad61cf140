package monitor

import (
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
)

// collector makes metrics of a State. It keeps nothing: all that a scrape says of one output is of one moment.
type collector struct{ state func() State }

// Describe describes nothing: what there is to be counted shows only while the agent runs.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// metric is the description of one metric.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("stacktrail_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("stacktrail_"+name, help, labels, nil), prometheus.GaugeValue}
}

// Names of counters that plugins keep through Env.Count and that have a metric of their own; the others are told by the
// component's counter, under their name and reason.
const (
	countEvents   = "events"
	countBytes    = "bytes"
	countUnparsed = "unparsed"
	countLost     = "lost_bytes"
	countDropped  = "dropped"
)

// What is said of how lags and losses are measured.
const (
	helpLagBytes = "Bytes of the input's files that the output which is furthest behind has not got: the size of each open file less that output's position, " +
		"at the moment of the scrape; of compressed files only what was read counts. A last line without its newline counts."
	helpLagSeconds = "How long at least something has been waiting for an output of the pipeline: the age of the oldest batch that is held, counted from when it was read, " +
		"or, if that is longer, of the last write to an open file with bytes that were not handed on. What was written earlier waits longer. 0 when nothing waits."
	helpLost = "Bytes of uncompressed content that are proved to be lost to the agent, by reason, counted when a search for them has failed; the log names file and range. " +
		"gone: the content was removed or overwritten before every output had it, counted from the position to the last size seen. " +
		"What a program writes between the last read of a copytruncate and its truncate is seen by nobody and counted by nobody."
)

// Collect makes the metrics.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.state()
	send := func(m metric, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	send(gauge("build_info", "Version of the agent; the value is 1.", "version", "goversion"), 1, s.Version, runtime.Version())
	send(gauge("config_generation", "How often a configuration was loaded."), 1)
	send(gauge("config_last_reload_success", "Whether the last configuration was good."), 1)
	send(gauge("checkpoint_age_seconds", "Since when positions are not stored."), time.Since(s.Checkpoint).Seconds())
	ready := 1.0
	if len(s.NotReady) > 0 || s.Stuck != "" {
		ready = 0
	}
	send(gauge("ready", "What /readyz says."), ready)
	of := []string{"pipeline", "component", "type"}
	with := func(more ...string) []string { return append(slices.Clone(of), more...) }
	var (
		inEvents    = counter("input_events_total", "Events that an input made.", of...)
		inBytes     = counter("input_bytes_total", "Bytes that an input read.", of...)
		inUnparsed  = counter("input_unparsed_total", "Events that no format fits, by reason.", with("reason")...)
		inLost      = counter("input_lost_bytes_total", helpLost, with("reason")...)
		inFailures  = gauge("input_failures", "Sources that cannot be read now.", of...)
		lagBytes    = gauge("file_lag_bytes", helpLagBytes, of...)
		lagSeconds  = gauge("file_lag_seconds", helpLagSeconds, "pipeline")
		dropped     = counter("processor_dropped_total", "Events that a processor dropped.", of...)
		offered     = counter("output_offered_total", "Records past the output's own cursor, each once.", of...)
		outEvents   = counter("output_events_total", "What became of them.", with("outcome")...)
		inflight    = gauge("output_inflight_events", "Records that wait for the output or are being sent.", of...)
		inflightB   = gauge("output_inflight_bytes", "Memory of the batches that wait or are being sent.", of...)
		requests    = prometheus.NewDesc("stacktrail_output_request_seconds", "How long writes took.", of, nil)
		retries     = counter("output_retries_total", "Writes that were tried again, by reason.", with("reason")...)
		attached    = gauge("output_attached", "Whether the output gets live batches; 0: it reads again.", of...)
		outFailing  = gauge("output_failing", "Whether the output's writes fail now.", of...)
		pluginCount = counter("plugin_total", "Counters of a plugin's own, by name and reason.", with("name", "reason")...)
	)
	for _, p := range s.Plugins {
		up := 0.0
		if p.PID != 0 {
			up = 1
		}
		send(gauge("plugin_process_up", "Whether the process of a plugin runs.", "plugin", "path"), up, p.Name, p.Path)
		send(counter("plugin_process_restarts_total", "How often the process of a plugin was started again.", "plugin", "path"), float64(p.Restarts), p.Name, p.Path)
	}
	for _, p := range s.Pipelines {
		for _, in := range p.Inputs {
			at := []string{p.Name, in.ID, in.Type}
			send(inEvents, sum(in.Counts, countEvents), at...)
			send(inBytes, sum(in.Counts, countBytes), at...)
			for _, k := range in.Counts {
				switch v := float64(k.N); k.Name {
				case countEvents, countBytes:
				case countUnparsed:
					send(inUnparsed, v, append(at, k.Reason)...)
				case countLost:
					send(inLost, v, append(at, k.Reason)...)
				default:
					send(pluginCount, v, append(at, k.Name, k.Reason)...)
				}
			}
			send(inFailures, float64(len(in.Failures)), at...)
			send(lagBytes, float64(in.Lag()), at...)
		}
		for _, pr := range p.Processors {
			at := []string{p.Name, pr.ID, pr.Type}
			send(dropped, sum(pr.Counts, countDropped), at...)
			for _, k := range pr.Counts {
				if k.Name != countDropped {
					send(pluginCount, float64(k.N), append(at, k.Name, k.Reason)...)
				}
			}
		}
		var oldest time.Time
		for _, in := range p.Inputs {
			if at := in.Unread(); !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
				oldest = at
			}
		}
		for i := range p.Outputs {
			o := &p.Outputs[i]
			at := []string{p.Name, o.ID, o.Type}
			send(offered, float64(o.Offered), at...)
			for outcome, n := range map[string]int64{"delivered": o.Delivered, "dead": o.Dead, "dropped": o.Dropped, "filtered": o.Filtered} {
				send(outEvents, float64(n), append(at, outcome)...)
			}
			send(inflight, float64(o.InFlight), at...)
			send(inflightB, float64(o.InFlightBytes), at...)
			out <- prometheus.MustNewConstHistogram(requests, o.RequestTime.Count, o.RequestTime.Sum, o.RequestTime.Cumulative(), at...)
			for _, reason := range sortedKeys(o.Retries) {
				send(retries, float64(o.Retries[reason]), append(at, reason)...)
			}
			send(attached, 1, at...)
			failing := 0.0
			if o.LastError != "" || len(o.Failures) > 0 {
				failing = 1
			}
			send(outFailing, failing, at...)
			for _, k := range o.Counts {
				send(pluginCount, float64(k.N), append(at, k.Name, k.Reason)...)
			}
			if !o.Oldest.IsZero() && (oldest.IsZero() || o.Oldest.Before(oldest)) {
				oldest = o.Oldest
			}
		}
		lag := 0.0
		if !oldest.IsZero() {
			lag = max(0, time.Since(oldest).Seconds())
		}
		send(lagSeconds, lag, p.Name)
	}
}

// sum adds a counter up, also when it has not moved yet.
func sum(all []pipeline.Count, name string) (n float64) {
	for _, c := range all {
		if c.Name == name {
			n += float64(c.N)
		}
	}
	return n
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
