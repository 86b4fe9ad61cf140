module example.org/sqlite

go 1.26.0

require (
	github.com/stacktrail/stacktrail v0.0.0
	modernc.org/sqlite v1.61.1
)

// In a module of your own this line goes away, and the requirement above names a release.
replace github.com/stacktrail/stacktrail => ../../..
