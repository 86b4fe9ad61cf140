// Package arch proves the rules of the house that no compiler knows: who may import whom, one doc comment for each package, no
// init functions, no package-level state, no sleeping or skipping tests, a fixed top level. It holds tests only; each rule is a
// function over parsed source, and rules_test.go shows for each that it can fail.
package arch
