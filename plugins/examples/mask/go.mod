module example.org/mask

go 1.26.0

require github.com/stacktrail/stacktrail v0.0.0

// In a module of your own this line goes away, and the one above names a release.
replace github.com/stacktrail/stacktrail => ../../..
