// Package scripts tests the built binary from outside, as an operator meets it: files grow, rotate and become unreadable, the
// agent is killed, stopped, starved of memory and disk, and what it wrote is compared with what was written, record by record.
//
// The tests have the build tag blackbox and find the binary in STACKTRAIL_BIN; `make scripts` sets both. They need root and the
// programs that need.sh names. Sizes come from the environment, so that `make soak` runs the same tests for longer:
//
//	STACKTRAIL_SEEDS      seeds of the kill tests (5)
//	STACKTRAIL_KILL_MB    input of one run of them in MB (40)
//	STACKTRAIL_BACKLOG_MB backlog of the memory test in MB (256)
//
// The parts: a writer of lines that can be told from their number (writer_test.go), a rotator (rotator_test.go), the agent as a
// process (agent_test.go), and a verifier that counts what is missing, double, corrupt or out of order (verifier_test.go).
package scripts
