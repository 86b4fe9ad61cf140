// Package eval compiles and runs expressions: the conditions of drop and of an output's when, and the values that enrich sets.
//
// The language is expr-lang over the names of the common schema (package schema) and of the extra fields that inputs and
// earlier processors define. Everything is type-checked when the configuration is read: an unknown name and a comparison of
// incompatible types are errors with their place in the expression.
//
//	api_response_code_int >= 500 && path startsWith "/v2"
//	method in ["GET", "HEAD"] and not has(user_id)
//	attributes["haproxy_backend"] == "nova"
//	(now() - timestamp) > duration("1h")
//
// Beside expr-lang's own functions there are field("name") for a field that nobody declared, has(name) or has("name"), and now(),
// the time at which the batch was read.
//
// # Absent values
//
// A comparison with an absent number, time or bool is false, but for !=, which is true. An absent string is "", an absent list
// and an absent object are empty. Arithmetic and functions on an absent value are absent; absent as a condition is false; absent
// in a list is false; a ?? b is b when a is absent or empty. What has no value in a list or an object (tags[9],
// attributes["none"]) is absent. The value of field("name") has no type until it is there: where it is absent it counts as ""
// beside a string in a comparison or after contains and its like, and makes any arithmetic, + on strings included, absent.
//
// # Failures
//
// What can only go wrong with an event at hand is an error of Eval: dividing by zero, a comparison of what field("name")
// turned out to be, int("x"), a number without end. It never ends in a panic.
//
// # Two evaluators
//
// Expressions that use nothing but comparisons, logic, in, string tests, arithmetic, ?: and ?? on fields become closures over
// the event, which allocate nothing. Any other runs whole in expr-lang's virtual machine, with its operators replaced by ones
// that know absent values. A fuzz test holds both to the same results. This is the only package that knows expr-lang.
package eval
