// Package reference makes everything that tells users what can be configured: samples, docs, the JSON Schema, and the files of
// the repository that hold these. All of it comes from the typed structs that the configuration is decoded into, so that none
// can say something else than the code does. What it makes depends on nothing but the plugins that it is given.
package reference
