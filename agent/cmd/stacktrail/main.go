// Command stacktrail is the agent with its built-in plugins.
package main

import "github.com/stacktrail/stacktrail/agent"

func main() { agent.Main() }
