// Package conf turns configuration files into typed Go values, and says exactly what is wrong where it cannot.
//
// A plugin describes its configuration once, as a struct:
//
//	type Config struct {
//		URL   string        `yaml:"url" required:"true" doc:"Where to send."`
//		Codec string        `yaml:"codec" enum:"none|gzip" doc:"How to compress."`
//		Wait  time.Duration `yaml:"wait" min:"1ms" doc:"How long to wait for an answer."`
//		Key   conf.Secret   `yaml:"key" doc:"The key to sign with."`
//	}
//
// The name of a key is the yaml tag, its type the Go type, its default the value in a struct of defaults. Other tags:
// required, enum, min and max (numbers, sizes, durations), neg:"true" (a duration may be negative), doc, and example, a value that
// samples show for keys without a useful default, as it would be written in YAML. An embedded struct with
// yaml:",inline" lends its keys; a map with yaml:",inline" takes the keys that the struct does not know. A field tagged
// yaml:"-" is no key, one without a name is known by its Go name in lower case. What no tag can say stands in a method
// Validate() error, whose KeyErrors are put at their keys; values made fresh for a list, a map or a
// nil pointer get their defaults from a method SetDefaults on the pointer, if there is one.
//
// A configuration goes through Parse (one file each), Merge, Interpolate and Decode. Each returns all faults that it finds, with
// file, line and column. Describe reads the same struct for docs, samples and schema.
//
// This is the only package that knows the YAML library.
package conf
