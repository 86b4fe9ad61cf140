package tail

import (
	"path/filepath"
	"strconv"
	"strings"
)

// rotation is what a file's name says about its place in its lineage.
type rotation struct {
	stem    string // the name without what rotation appended: x.log of x.log.2.gz
	gz      bool
	rotated bool
	number  int64 // of x.log.2: larger is older
	date    int64 // of x.log-20260101 and x.log-20260101-1700000000: larger is younger
}

// rotationOf takes a file's name apart. These suffixes are known: .1, -20260101, -2026010113, -20260101-1700000000, each alone
// or followed by .gz, and .gz alone.
func rotationOf(base string) rotation {
	r := rotation{stem: base}
	if s, ok := strings.CutSuffix(r.stem, ".gz"); ok && s != "" {
		r.stem, r.gz, r.rotated = s, true, true
	}
	if i := strings.LastIndexByte(r.stem, '.'); i > 0 {
		if n, ok := digits(r.stem[i+1:], 1, 5); ok {
			r.stem, r.number, r.rotated = r.stem[:i], n, true
			return r
		}
	}
	i := strings.LastIndexByte(r.stem, '-')
	if i <= 0 {
		return r
	}
	last := r.stem[i+1:]
	if epoch, ok := digits(last, 10, 10); ok {
		if j := strings.LastIndexByte(r.stem[:i], '-'); j > 0 && isDate(r.stem[j+1:i]) {
			r.stem, r.date, r.rotated = r.stem[:j], epoch, true
			return r
		}
	}
	if isDate(last) || len(last) == 10 && isDate(last[:8]) {
		if n, ok := digits(last, 8, 10); ok {
			if len(last) == 8 {
				n *= 100
			}
			r.stem, r.date, r.rotated = r.stem[:i], n, true
		}
	}
	return r
}

func digits(s string, shortest, longest int) (int64, bool) {
	if len(s) < shortest || len(s) > longest {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// isDate reports whether s is a day written as 20260131.
func isDate(s string) bool {
	n, ok := digits(s, 8, 8)
	year, month, day := n/10000, n/100%100, n%100
	return ok && year >= 1970 && year < 2200 && month >= 1 && month <= 12 && day >= 1 && day <= 31
}

// lineageOf is the path without what rotation appended: files with the same lineage hold one log, cut in pieces.
func lineageOf(path string) string {
	dir, base := filepath.Split(path)
	return dir + rotationOf(base).stem
}

// older reports whether the file at path a holds older lines than the one at path b of the same lineage, as far as names tell;
// known is false when they do not.
func older(a, b string) (is, known bool) {
	ra, rb := rotationOf(filepath.Base(a)), rotationOf(filepath.Base(b))
	switch {
	case ra.rotated != rb.rotated:
		return ra.rotated, true
	case ra.number > 0 && rb.number > 0 && ra.number != rb.number:
		return ra.number > rb.number, true
	case ra.date > 0 && rb.date > 0 && ra.date != rb.date:
		return ra.date < rb.date, true
	}
	return false, false
}
