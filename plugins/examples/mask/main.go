// Command mask is a plugin with one processor, which masks what matches a pattern in fields that the user names. It is the smallest
// example of a plugin in a process of its own: this file is the program, mask.go is the plugin, README.md goes through both.
package main

import "github.com/stacktrail/stacktrail/plugins/rpc"

func main() { rpc.Serve(Spec) }
