package formats

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// osloAt is an access line that was written at a local time.
func osloAt(local string) string {
	return local + ` 4211 INFO nova.osapi_compute.wsgi.server [-] 192.0.2.9 "GET /v2.1/x HTTP/1.1" status: 200 len: 2154 time: 0.3120457`
}

// TestLocalTimesAreThoseThatAClockShows holds every half hour of years against clocks that are set by zones.
func TestLocalTimesAreThoseThatAClockShows(t *testing.T) {
	for _, name := range []string{
		"UTC", "Europe/Paris", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia", "Asia/Tehran",
	} {
		loc := zone(t, name)
		sec := time.Date(2017, 1, 1, 0, 15, 0, 0, time.UTC).Unix()
		for end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Unix(); sec < end; sec += 1800 {
			naive := naiveOf(sec, loc)
			if a, b := readings(loc, naive); a != sec && b != sec || a > b || naiveOf(a, loc) != naive || naiveOf(b, loc) != naive {
				t.Fatalf("%s: %v reads as %v or %v", name, time.Unix(sec, 0).In(loc), time.Unix(a, 0).In(loc), time.Unix(b, 0).In(loc))
			}
		}
	}
}

func naiveOf(sec int64, loc *time.Location) int64 {
	_, off := time.Unix(sec, 0).In(loc).Zone()
	return sec + int64(off)
}

// TestHourThatComesTwiceIsReadInTheOrderOfTheLog writes lines at all times around the change, as many as a busy service and as few as an
// idle one.
func TestHourThatComesTwiceIsReadInTheOrderOfTheLog(t *testing.T) {
	for name, change := range map[string]time.Time{
		"Europe/Paris":        time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC),
		"America/New_York":    time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC),
		"Australia/Lord_Howe": time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC),
	} {
		loc := zone(t, name)
		steps := []time.Duration{20 * time.Minute, 25 * time.Minute}
		if name != "Australia/Lord_Howe" { // where half an hour comes twice
			steps = append(steps, 30*time.Minute, 40*time.Minute, 50*time.Minute)
		}
		for every := time.Second; every <= 8*time.Minute; every *= 2 {
			steps = append(steps, every)
		}
		for _, every := range steps {
			p := newParser(t, "nova-api.log", Options{Location: loc})
			r := rand.New(rand.NewPCG(uint64(every), 1))
			for at := change.Add(-2 * time.Hour); at.Before(change.Add(3 * time.Hour)); at = at.Add(every) {
				// Lines of several processes are a little out of order.
				want := at.Add(-time.Duration(r.IntN(3)) * time.Second)
				e, v := parse(p, osloAt(want.In(loc).Format("2006-01-02 15:04:05.000")))
				if v != Access || !e.Time.Equal(want) {
					t.Fatalf("%s, every %v: %v is read as %v", name, every, want.In(loc), e.Time.In(loc))
				}
			}
		}
	}
}

// TestStartsOfRequestsAreOutOfOrder: a server's line has the time of the start and is written at the end.
func TestStartsOfRequestsAreOutOfOrder(t *testing.T) {
	p := newParser(t, "haproxy.log", Options{Location: zone(t, "Europe/Paris")})
	for _, c := range []struct{ local, want string }{
		{"02:00", "00:00"}, {"02:40", "00:40"}, {"02:11", "00:11"}, {"02:45", "00:45"}, {"02:15", "01:15"}, {"02:05", "01:05"},
	} {
		e, v := parse(p, `192.0.2.9:35430 [25/Oct/2026:`+c.local+`:30.110] nova_api nova_api_be/ctl1 0/0/0/10/12 200 319 - - ---- 2/1/0/0/0 0/0 "GET /v2.1/servers?limit=2 HTTP/1.1"`)
		if got := e.Time.Format("15:04"); v != Access || got != c.want {
			t.Errorf("%s: verdict %d, %s, want %s", c.local, v, got, c.want)
		}
	}
}

func TestOneReadingOfTimesThatComeTwiceOrNever(t *testing.T) {
	for _, c := range []struct{ zone, lines, want string }{
		{"Europe/Paris", "2026-10-25 02:30:00.000", "00:30:00"},                                                     // the first of two
		{"America/New_York", "2026-11-01 01:30:00.000", "05:30:00"},                                                 // the same
		{"Europe/Paris", "2026-10-25 02:40:00.000,2026-10-25 02:36:00.000", "00:40:00,00:36:00"},                    // out of order, no more
		{"Europe/Paris", "2026-10-25 02:50:00.000,2026-10-25 02:10:01.000,2026-10-25 02:50:00.500", "0,0,01:50:00"}, // not late by that much
		{"Europe/Paris", "2026-10-25 02:59:59.000,2026-10-25 02:00:01.000,2026-10-25 02:59:58.000", "0,0,00:59:58"}, // but by that
		{"Europe/Paris", "2026-10-25 02:50:00.000,2026-10-25 02:10:00.000", "00:50:00,01:10:00"},                    // it was set back
		{"Europe/Paris", "2026-10-25 02:50:00.000,2026-10-25 02:10:00.000,2026-10-25 02:55:00.000", "0,0,01:55:00"}, // and stays so
		{"Europe/Paris", "2026-10-25 02:50:00.000,2026-10-25 03:10:00.000,2026-10-25 03:00:00.000", "0,0,02:00:00"},
		{"Europe/Paris", "2026-10-25 02:50:00.000,2026-10-25 02:10:00.000,2027-10-31 02:30:00.000", "0,0,00:30:00"}, // another year
		{"Europe/Paris", "2026-03-29 02:30:00.000", "01:30:00"},                                                     // left out
		{"America/New_York", "2026-03-08 02:30:00.000", "07:30:00"},                                                 // the same
		{"America/Sao_Paulo", "2018-11-04 00:30:00.000", "03:30:00"},                                                // at midnight
	} {
		p := newParser(t, "nova-api.log", Options{Location: zone(t, c.zone)})
		want := strings.Split(c.want, ",")
		for i, l := range strings.Split(c.lines, ",") {
			e, v := parse(p, osloAt(l))
			if got := e.Time.Format("15:04:05"); v != Access || got != want[i] && want[i] != "0" {
				t.Errorf("%s: line %d of %s: %s, want %s", c.zone, i, c.lines, got, want[i])
			}
		}
	}
}

// TestOuterZoneTellsWhichOfTwo: an envelope with an offset needs no order.
func TestOuterZoneTellsWhichOfTwo(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"first", "2026-10-25T00:30:01.5Z stdout F " + osloAt("2026-10-25 02:30:00.000"), "00:30:00"},
		{"second", "2026-10-25T01:30:01.5Z stdout F " + osloAt("2026-10-25 02:30:00.000"), "01:30:00"},
		{"second, its own offset", "2026-10-25T02:30:01.5+01:00 stdout F " + osloAt("2026-10-25 02:30:00.000"), "01:30:00"},
		{"left out", "2026-03-29T01:30:01.5Z stdout F " + osloAt("2026-03-29 02:30:00.000"), "01:30:00"},
		{"the container's zone is UTC", "2026-10-25T02:30:01.5Z stdout F " + osloAt("2026-10-25 02:30:00.000"), "02:30:00"},
		{"docker", `{"log":"[pid: 1|app: 0|req: 1/1] 192.0.2.2 () {58 vars in 1211 bytes} [Sun Oct 25 02:30:00 2026] GET /v3 => generated 5 bytes in 61000 msecs (HTTP/1.1 200) 6 headers in 377 bytes (1 switches on core 0)\n","stream":"stdout","time":"2026-10-25T01:31:01.1Z"}`, "01:30:00"},
		{"RFC 5424", "<142>1 2026-10-25T02:30:01+01:00 ctl1 nova-api 4211 - - " + osloAt("2026-10-25 02:30:00.000"), "01:30:00"},
		{"journal", `{"__REALTIME_TIMESTAMP":"1792891801500000","_HOSTNAME":"ctl1","SYSLOG_IDENTIFIER":"nova-api","MESSAGE":"` + strings.ReplaceAll(osloAt("2026-10-25 02:30:00.000"), `"`, `\"`) + `"}`, "01:30:00"},
	} {
		p := newParser(t, "x.log", Options{Location: zone(t, "Europe/Paris")})
		for range 2 { // what is read does not change what is read next
			e, v := parse(p, c.line)
			if got := e.Time.Format("15:04:05"); v != Access || got != c.want {
				t.Errorf("%s: verdict %d, %s, want %s", c.name, v, got, c.want)
			}
		}
	}
}

// TestZonedTimesTellNothingOfLocalOnes: an outer time in UTC goes back by no hour, whatever local times do.
func TestZonedTimesTellNothingOfLocalOnes(t *testing.T) {
	p := newParser(t, "x.log", Options{Location: zone(t, "Europe/Paris")})
	for _, l := range []string{"2026-10-25T02:55:00Z", "2026-10-25T02:05:00Z"} {
		parse(p, l+" stdout F text")
	}
	for _, l := range []string{"55", "05"} {
		parse(p, `192.0.2.9 - - [25/Oct/2026:02:`+l+`:00 +0000] "GET / HTTP/1.1" 200 1 "-" "-"`)
		parse(p, `192.0.2.9 192.0.2.9 25/Oct/2026/02/`+l+`/00 GET /v1/AUTH_x HTTP/1.0 200 - - - - - - tx1 - 0.0073 - - 1792891801.664187011 1792891801.671491099 0`)
	}
	if e, _ := parse(p, osloAt("2026-10-25 02:30:00.000")); e.Time.Format("15:04") != "00:30" {
		t.Errorf("%v", e.Time)
	}
}

func TestYearOfTimesWithoutOne(t *testing.T) {
	for _, c := range []struct{ zone, mtime, line, want string }{
		{"UTC", "2026-01-01T00:05:00Z", "Dec 31 23:59:59", "2025-12-31T23:59:59Z"},
		{"UTC", "2026-01-01T00:05:00Z", "Jan  1 00:00:01", "2026-01-01T00:00:01Z"},
		{"UTC", "2025-12-31T23:50:00Z", "Jan  1 00:00:01", "2026-01-01T00:00:01Z"}, // written on since the file was looked at
		{"UTC", "2025-12-31T23:50:00Z", "Jan  2 00:00:01", "2025-01-02T00:00:01Z"},
		{"UTC", "2026-01-15T12:00:00Z", "Jan 15 11:59:59", "2026-01-15T11:59:59Z"},
		{"UTC", "2026-01-15T12:00:00Z", "Nov 15 11:59:59", "2025-11-15T11:59:59Z"}, // an old log in January
		{"UTC", "2025-11-20T12:00:00Z", "Nov 15 11:59:59", "2025-11-15T11:59:59Z"}, // and one that nobody touched
		{"UTC", "2026-03-02T12:00:00Z", "Feb 29 11:59:59", "2024-02-29T11:59:59Z"},
		{"UTC", "2024-02-29T12:00:00Z", "Feb 29 11:59:59", "2024-02-29T11:59:59Z"},
		{"UTC", "2024-02-28T12:00:00Z", "Feb 29 11:59:59", "2024-02-29T11:59:59Z"},
		{"UTC", "2103-03-02T12:00:00Z", "Feb 29 11:59:59", "2096-02-29T11:59:59Z"},
		{"UTC", "2026-03-02T12:00:00Z", "Feb 30 11:59:59", ""},
		{"UTC", "2026-01-01T00:05:00Z", "Dec 31 23:59:60", "2026-01-01T00:00:00Z"}, // a leap second
		{"Pacific/Auckland", "2025-12-31T11:05:00Z", "Jan  1 00:00:01", "2025-12-31T11:00:01Z"},
		{"Pacific/Auckland", "2025-12-31T11:05:00Z", "Dec 31 23:59:59", "2025-12-31T10:59:59Z"},
		{"Pacific/Auckland", "2025-12-31T11:05:00Z", "Jan  2 00:00:00", "2026-01-01T11:00:00Z"},
		{"America/New_York", "2026-01-01T05:05:00Z", "Dec 31 23:59:59", "2026-01-01T04:59:59Z"},
		{"America/Sao_Paulo", "2018-12-01T05:05:00Z", "Nov  4 00:30:00", "2018-11-04T03:30:00Z"}, // left out at midnight
		{"Europe/Paris", "2026-12-01T05:05:00Z", "Oct 25 02:30:00", "2026-10-25T00:30:00Z"},
	} {
		p := newParser(t, "", Options{Location: zone(t, c.zone)})
		at, err := time.Parse(time.RFC3339, c.mtime)
		if err != nil {
			t.Fatal(err)
		}
		p.File("syslog", at)
		e, v := parse(p, c.line+` ctl1 apache2:keystone[812]: 192.0.2.11 - - "GET /v3 HTTP/1.1" 200 3478 "-" "-"`)
		got := ""
		if !e.Time.IsZero() {
			got = e.Time.Format(time.RFC3339)
		}
		if v != Access || got != c.want {
			t.Errorf("%s, %s in a file of %s: verdict %d, %q, want %q", c.zone, c.line, c.mtime, v, got, c.want)
		}
	}
}

// TestNewYearsEveInOneFile reads a file over the turn of the year, as it is followed and as it is read later.
func TestNewYearsEveInOneFile(t *testing.T) {
	for name, told := range map[string]time.Time{
		"followed":       time.Date(2025, 12, 31, 12, 30, 0, 0, time.UTC),
		"read in 2026":   time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		"read in August": time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC),
	} {
		p := newParser(t, "", Options{})
		p.File("syslog", told)
		for at := time.Date(2025, 12, 31, 12, 0, 0, 0, time.UTC); at.Before(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)); at = at.Add(7 * time.Minute) {
			e, _ := parse(p, at.Format("Jan _2 15:04:05")+` ctl1 apache2:keystone[812]: 192.0.2.11 - - "GET /v3 HTTP/1.1" 200 3478 "-" "-"`)
			if !e.Time.Equal(at) {
				t.Fatalf("%s: %v is read as %v", name, at, e.Time)
			}
		}
	}
}
