// Command geoip is a plugin with one processor, which says of each client's address where it is and whose network it belongs to, as far
// as MaxMind databases on this machine know. README.md tells how to use it.
package main

import "github.com/stacktrail/stacktrail/plugins/rpc"

func main() { rpc.Serve(Spec) }
