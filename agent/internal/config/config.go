// Package config turns configuration files into pipelines that can be built. It finds all faults of all files at once, each with
// its place, and touches nothing but the files, what they interpolate, and the plugins that they name, which are asked.
package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/agent/internal/pipeline"
	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
	"github.com/stacktrail/stacktrail/plugins/rpc"
)

// Agent is the `agent:` section.
type Agent struct {
	StateDir           string        `yaml:"state_dir" doc:"Where positions, tokens and dead letters are kept."`
	NodeID             string        `yaml:"node_id" doc:"Part of every event's id; empty: the machine id."`
	Listen             string        `yaml:"listen" doc:"Address of /metrics, /livez and /readyz; empty: none."`
	AdminSocket        string        `yaml:"admin_socket" doc:"Socket of 'stacktrail status', for the agent's user only; empty: none."`
	DeadLetterMax      conf.Size     `yaml:"dead_letter_max" min:"1MiB" doc:"Most that the dead letters of one output take; at that its output stops until some are removed."`
	MemoryLimit        conf.Size     `yaml:"memory_limit" min:"8MiB" doc:"Bound of all batches in memory."`
	CheckpointInterval time.Duration `yaml:"checkpoint_interval" min:"10ms" doc:"How often positions are saved."`
	StopTimeout        time.Duration `yaml:"stop_timeout" doc:"How long a stop waits for outputs to take what was read."`
	Log                Log           `yaml:"log" doc:"The agent's own log, on stderr."`
}

// Log is the `agent.log:` section.
type Log struct {
	Level  string `yaml:"level" enum:"debug|info|warn|error" doc:"Least level that is written."`
	Format string `yaml:"format" enum:"logfmt|json" doc:"How a line looks."`
}

// DefaultAgent holds the defaults of the `agent:` section.
func DefaultAgent() Agent {
	return Agent{
		StateDir: "/var/lib/stacktrail", Listen: "127.0.0.1:9717", AdminSocket: "/run/stacktrail/admin.sock",
		DeadLetterMax: 256 << 20, MemoryLimit: 64 << 20, CheckpointInterval: time.Second, StopTimeout: 30 * time.Second,
		Log: Log{Level: "info", Format: "logfmt"},
	}
}

// Config is a checked configuration.
type Config struct {
	Agent     Agent
	Pipelines []pipeline.Config
	// ListenSet and SocketSet tell that the configuration names agent.listen and agent.admin_socket: then they have to work.
	ListenSet, SocketSet bool
	// KeepsNothing says that every plugin vows to keep nothing of a batch, so that arenas can be recycled.
	KeepsNothing bool
	// Hosts run the plugins that are programs of their own. None of them runs yet; whoever uses the configuration closes them.
	Hosts []*rpc.Host
	// Warnings are conditions that an operator should know of and that are no faults.
	Warnings []string
}

type document struct {
	Agent     Agent             `yaml:"agent" doc:"What belongs to the whole agent."`
	Plugins   []rpc.Config      `yaml:"plugins" doc:"Plugins in a process of their own: programs that the agent starts. Their names are used in pipelines like those of built-in ones."`
	Pipelines []pipelineSection `yaml:"pipelines" required:"true" doc:"The pipelines."`
}

type pipelineSection struct {
	Name       string      `yaml:"name" required:"true" doc:"Name of the pipeline, unique."`
	Inputs     []conf.Node `yaml:"inputs" required:"true" doc:"Where events come from."`
	Processors []conf.Node `yaml:"processors" doc:"What is done to them, in order."`
	Outputs    []conf.Node `yaml:"outputs" required:"true" doc:"Where they go."`
}

// InputPolicies stand beside an input's key.
type InputPolicies struct {
	ID     string               `yaml:"id" doc:"Name of the input, unique in the pipeline; the plugin's name if empty."`
	Set    conf.Node            `yaml:"set" doc:"Constant fields: a section of names and values."`
	Plugin map[string]conf.Node `yaml:",inline"`
}

// ProcessorPolicies stand beside a processor's key.
type ProcessorPolicies struct {
	ID     string               `yaml:"id" doc:"Name of the processor, unique in the pipeline; the plugin's name if empty."`
	Plugin map[string]conf.Node `yaml:",inline"`
}

// OutputPolicies stand beside an output's key.
type OutputPolicies struct {
	ID         string               `yaml:"id" doc:"Name of the output, unique in the pipeline; the plugin's name if empty."`
	When       string               `yaml:"when" doc:"Only events for which this expression is true; empty: all."`
	Batch      pipeline.Batch       `yaml:"batch" doc:"Limits of one write."`
	Queue      pipeline.Queue       `yaml:"queue" doc:"What waits for the output."`
	Retry      pipeline.Retry       `yaml:"retry" doc:"How failed writes are tried again."`
	Workers    int                  `yaml:"workers" min:"1" max:"64" doc:"Writes at the same time; a stream's events stay in order."`
	DeadLetter bool                 `yaml:"dead_letter" doc:"Keep events that the output refuses for good, under state_dir."`
	Naming     string               `yaml:"naming" enum:"ovh|ecs|otel" doc:"Names of the fields."`
	Plugin     map[string]conf.Node `yaml:",inline"`
}

// DefaultOutputPolicies holds the defaults of what stands beside an output's key.
func DefaultOutputPolicies() OutputPolicies {
	return OutputPolicies{
		Batch:   pipeline.Batch{Events: 2000, Bytes: 4 << 20},
		Queue:   pipeline.Queue{Bytes: 4 << 20, OnFull: pipeline.OnFullBlock},
		Retry:   pipeline.Retry{Initial: 500 * time.Millisecond, Max: 30 * time.Second},
		Workers: 1, DeadLetter: true, Naming: "ovh",
	}
}

// Source says where the configuration is.
type Source struct {
	Files []string // merged in this order
	Dir   string   // its *.yaml come after the files, in alphabetical order
	// Env looks up environment variables.
	Lookup conf.Lookup
}

// Load reads, merges, interpolates, decodes and checks everything. err is a conf.Faults with all that is wrong, or says that a
// file cannot be read.
func Load(src Source, reg *plugins.Registry) (*Config, error) {
	root, faults, err := read(src)
	if err != nil {
		return nil, err
	}
	if root.Kind() == conf.Invalid {
		return nil, faults
	}
	faults = append(faults, conf.Interpolate(root, src.Lookup)...)
	doc, f := conf.Decode(root, document{Agent: DefaultAgent()})
	faults = append(faults, f...)
	l := &loader{reg: reg, faults: faults, cfg: &Config{Agent: doc.Agent, KeepsNothing: true}}
	agent, _ := root.Get("agent")
	if n, ok := agent.Get("listen"); ok {
		l.cfg.ListenSet = true
		if err := checkListen(doc.Agent.Listen); err != nil {
			l.add(n.Fault("%s", err))
		}
	}
	if n, ok := agent.Get("admin_socket"); ok {
		l.cfg.SocketSet = true
		if s := doc.Agent.AdminSocket; s != "" && (!filepath.IsAbs(s) || len(s) > maxSocketPath) {
			l.add(n.Fault("admin_socket %q is no absolute path of at most %d bytes", s, maxSocketPath))
		}
	}
	if list, ok := root.Get("plugins"); ok {
		l.programs(list, doc.Plugins)
		// What they are asked while the configuration is read needs them, what comes after starts them again.
		defer l.cfg.StopPlugins()
	}
	if !filepath.IsAbs(doc.Agent.StateDir) || strings.ContainsAny(doc.Agent.StateDir, "%{}") {
		n, _ := root.Get("agent")
		if at, ok := n.Get("state_dir"); ok {
			n = at
		}
		l.add(n.Fault("state_dir %q is no absolute path without %%, { and }", doc.Agent.StateDir))
	}
	if len(doc.Pipelines) == 0 && len(l.faults) == 0 {
		n, _ := root.Get("pipelines")
		l.add(n.Fault("there is no pipeline: write at least one, with a name, inputs and outputs"))
	}
	list, _ := root.Get("pipelines")
	nodes := list.Items()
	names := map[string]bool{}
	for i, p := range doc.Pipelines {
		n, _ := nodes[i].Get("name")
		l.checkName(n, p.Name, "pipeline", names)
		l.pipeline(nodes[i], p)
	}
	l.checkMemory(root)
	l.checkOwnFiles()
	l.checkSameFiles()
	if len(l.faults) > 0 {
		l.faults.Sort()
		return nil, l.faults
	}
	return l.cfg, nil
}

// maxSocketPath is what sockaddr_un has room for: see unix(7).
const maxSocketPath = 107

func checkListen(addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if n, e := strconv.Atoi(port); err != nil || e != nil || n < 0 || n > 65535 {
		return fmt.Errorf("listen %q is no address and port, as in 127.0.0.1:9717", addr)
	}
	if host != "" && host != "localhost" && net.ParseIP(host) == nil {
		return fmt.Errorf("listen %q does not name an IP address, as in 127.0.0.1:9717 or [::1]:9717", addr)
	}
	return nil
}

func read(src Source) (conf.Node, conf.Faults, error) {
	files := slices.Clone(src.Files)
	if src.Dir != "" {
		more, err := filepath.Glob(filepath.Join(src.Dir, "*.yaml"))
		if err != nil {
			return conf.Node{}, nil, fmt.Errorf("looking for configuration in %s: %w", src.Dir, err)
		}
		files = append(files, more...)
	}
	if len(files) == 0 {
		return conf.Node{}, nil, fmt.Errorf("there is no configuration: name a file with -c, or put one into %s", src.Dir)
	}
	var nodes []conf.Node
	var faults conf.Faults
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return conf.Node{}, nil, fmt.Errorf("reading the configuration: %w", err)
		}
		n, fs := conf.Parse(f, b)
		nodes, faults = append(nodes, n), append(faults, fs...)
	}
	root, fs := conf.Merge(nodes, conf.ListKey{Path: "pipelines", Key: "name"}, conf.ListKey{Path: "plugins", Key: "path"})
	return root, append(faults, fs...), nil
}
