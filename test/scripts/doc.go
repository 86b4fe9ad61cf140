// Package scripts tests the built binary from outside, as an operator meets it: files grow, rotate and become unreadable, the
// agent is killed, stopped, starved of memory and disk, and what it wrote is compared with what was written, record by record.
//
// The tests have the build tag blackbox and find the binary in STACKTRAIL_BIN; `make scripts` sets both. They need root and the
// programs that need.sh names. Sizes come from the environment, so that `make soak` runs the same tests for longer:
//
//	STACKTRAIL_SEEDS      seeds of the kill tests (5)
//	STACKTRAIL_KILL_MB    input of one run of them in MB (40)
//	STACKTRAIL_BACKLOG_MB backlog of the memory test in MB (256)
//	STACKTRAIL_SOAK       length of the soak (20s)
//	STACKTRAIL_SEED       seed of the soak and of kills during rotations (1)
//	STACKTRAIL_PLAYS      seeds of kills during each rotation (1)
//	STACKTRAIL_CUTS       seeds of the power cuts (2)
//	STACKTRAIL_CHURN      files that come and go in R12 (2,000)
//	STACKTRAIL_IDLE       idle files in R24 (10,000)
//	STACKTRAIL_FAST_MB    what the fast file of R29 gets in MB (250)
//
// scenarios.md says which test does which scenario.
// The parts: a writer of lines that can be told from their number (writer_test.go), a rotator (rotator_test.go), the agent as a
// process (agent_test.go), rotations that it meets running, stopped or killed (stage_test.go), file systems that fail (disk_test.go), and a verifier that counts what is missing, double, corrupt or out of order (verifier_test.go).
package scripts
