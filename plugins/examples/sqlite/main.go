// Command sqlite is a plugin with one output, which writes events into a table of a SQLite database: each once, however often it is
// sent. README.md tells how to use it.
package main

import "github.com/stacktrail/stacktrail/plugins/rpc"

func main() { rpc.Serve(Spec) }
