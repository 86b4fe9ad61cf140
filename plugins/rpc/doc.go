// Package rpc runs plugins in a process of their own. Serve is the plugin's side: a main package that calls it with the same Spec that a
// build of the agent would hold is a plugin. Host is the agent's side: it starts the process, asks what it has, and gives Specs that
// behave like built-in ones. FRAME.md describes the wire between the two for those who write plugins in another language.
package rpc
