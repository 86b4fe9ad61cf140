package formats

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestRememberedHoursHaveTheYearThatTheyWouldHaveAlone reads times without a year by a parser that remembers the hour before, and by new
// ones: around the file's modification, the turn of the year, the end of February, and where clocks are set.
func TestRememberedHoursHaveTheYearThatTheyWouldHaveAlone(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	for _, written := range []string{"2026-03-02T10:30:00Z", "2026-01-01T00:10:00Z", "2025-12-31T23:50:00Z", "2024-02-29T12:30:00Z", "2025-03-01T00:30:00Z", "2026-10-26T01:30:00Z", "2026-03-29T01:30:00Z"} {
		mtime, err := time.Parse(time.RFC3339, written)
		if err != nil {
			t.Fatal(err)
		}
		for _, loc := range []*time.Location{time.UTC, berlin} {
			reader := func() *Parser {
				p := newParser(t, "syslog", Options{Location: loc})
				p.File("syslog", mtime)
				return p
			}
			old := reader()
			for range 4000 {
				back := time.Duration(r.IntN(4*60*60)) * time.Second
				switch r.IntN(4) {
				case 0:
					back += 365 * 24 * time.Hour
				case 1:
					back -= 25 * time.Hour
				}
				at := mtime.Add(-back)
				sec := at.Second()
				if r.IntN(50) == 0 {
					sec = 60
				}
				p := reader()
				p.fold, p.yearlessHour = old.fold, hour{}
				want, wantOK := p.withYear(int(at.Month()), at.Day(), at.Hour(), at.Minute(), sec)
				if got, ok := old.withYear(int(at.Month()), at.Day(), at.Hour(), at.Minute(), sec); got != want || ok != wantOK {
					t.Fatalf("%s in %s, written %s: %s, alone %s", at.Format(time.Stamp), loc, written, time.Unix(got, 0).UTC(), time.Unix(want, 0).UTC())
				}
			}
		}
	}
}
