module example.org/geoip

go 1.26.0

require (
	github.com/maxmind/mmdbwriter v1.2.0 // the tests make databases with it
	github.com/oschwald/maxminddb-golang/v2 v2.9.0
	github.com/stacktrail/stacktrail v0.0.0
)

// In a module of your own this line goes away, and the requirement above names a release.
replace github.com/stacktrail/stacktrail => ../../..
