// Command custombuild is the agent with one more input: all built-in plugins, every command, and command.go.
package main

import "github.com/stacktrail/stacktrail/agent"

func main() { agent.Main(Spec) }
