package tail

import (
	"path/filepath"
	"strconv"
	"strings"
)

// rotation is what a file's name says about its place in its lineage.
type rotation struct {
	stem     string // the name without what rotation appended: x.log of x.log.2.gz
	kept     string // the name without what rotation put before its extension: x.log of x.1.log and x.1.log.gz; often a log's own name is like that
	packed   bool   // .gz or .zst
	rotated  bool
	numbered bool
	number   int64 // of x.log.2: larger is older
	day      int64 // of x.log-20260131 and x.log.2026-01-31, as 20260131: larger is younger
	clock    int64 // what follows the day: 130522 for 13:05:22, or seconds since 1970
}

// rotationOf takes a file's name apart. These suffixes are known, each alone or followed by .gz or .zst, and these alone: .1, .old, and after a
// dot or hyphen a day (20260131 or 2026-01-31) to which a time may be appended (13, 1305, 130522, 13-05-22, or after a day and a
// separator also seconds since 1970). Where the same stands before the extension, as in x.1.log, the stem stays: whether rotation put it
// there only the content tells.
func rotationOf(base string) rotation {
	r := rotation{stem: base}
	for _, suffix := range []string{".gz", ".zst"} {
		if s, ok := strings.CutSuffix(r.stem, suffix); ok && s != "" {
			r.stem, r.packed, r.rotated = s, true, true
			break
		}
	}
	if s, ok := strings.CutSuffix(r.stem, ".old"); ok && s != "" {
		r.stem, r.rotated = s, true
		return r
	}
	if s, ok := r.cut(r.stem); ok {
		r.stem, r.rotated = s, true
		return r
	}
	if i := strings.LastIndexByte(r.stem, '.'); i > 0 {
		if s, ok := r.cut(r.stem[:i]); ok {
			r.kept = s + r.stem[i:]
		}
	}
	return r
}

// cut takes a number or a date off the end of a name, and notes it.
func (r *rotation) cut(name string) (stem string, ok bool) {
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		if n, ok := digits(name[i+1:], 1, 5); ok {
			r.number, r.numbered = n, true
			return name[:i], true
		}
	}
	// The longest suffix that is a date: 20260131-1305 and not 1305 alone. None is longer than 2026-01-31-1700000000.
	for i := max(1, len(name)-len("-2026-01-31-1700000000")); i < len(name); i++ {
		if c := name[i]; c != '.' && c != '-' {
			continue
		}
		if day, clock, ok := dateOf(name[i+1:]); ok {
			r.day, r.clock = day, clock
			return name[:i], true
		}
	}
	return "", false
}

// dateOf reads a day and what may follow it: see rotationOf.
func dateOf(s string) (day, clock int64, ok bool) {
	compact := true
	if len(s) >= 10 && s[4] == '-' && s[7] == '-' {
		s, compact = s[:4]+s[5:7]+s[8:], false
	}
	if len(s) < 8 || !isDay(s[:8]) {
		return 0, 0, false
	}
	day, _ = digits(s[:8], 8, 8)
	s = s[8:]
	if s == "" {
		return day, 0, true
	}
	separated := strings.IndexByte("-_T", s[0]) >= 0
	if separated {
		s = s[1:]
		if epoch, ok := digits(s, 10, 10); ok {
			return day, epoch, true
		}
	} else if !compact {
		return 0, 0, false
	}
	if separated && (len(s) == 5 || len(s) == 8) && (s[2] == '-' || s[2] == ':') {
		colon := s[2]
		if len(s) == 8 && s[5] != colon {
			return 0, 0, false
		}
		s = strings.ReplaceAll(s, string(colon), "")
	}
	n, ok := digits(s, 2, 6)
	if !ok || len(s)%2 != 0 {
		return 0, 0, false
	}
	for range (6 - len(s)) / 2 {
		n *= 100
	}
	return day, n, n/10000 < 24 && n/100%100 < 60 && n%100 <= 60
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

// isDay reports whether s is a day written as 20260131.
func isDay(s string) bool {
	n, ok := digits(s, 8, 8)
	year, month, day := n/10000, n/100%100, n%100
	return ok && year >= 1970 && year < 2200 && month >= 1 && month <= 12 && day >= 1 && day <= 31
}

// lineageOf is the path without what rotation appended: files with the same lineage hold one log, cut in pieces.
func lineageOf(path string) string {
	dir, base := filepath.Split(path)
	return dir + rotationOf(base).stem
}

// keptOf is the lineage of a file whose name keeps its extension, if rotation made that name; else "".
func keptOf(path string) string {
	dir, base := filepath.Split(path)
	if kept := rotationOf(base).kept; kept != "" {
		return dir + kept
	}
	return ""
}

// older reports whether the file at path a holds older lines than the one at path b of the same lineage, as far as names tell;
// known is false when they do not.
func older(a, b string) (is, known bool) {
	ra, rb := rotationOf(filepath.Base(a)), rotationOf(filepath.Base(b))
	switch {
	case ra.rotated != rb.rotated:
		return ra.rotated, true
	case ra.numbered && rb.numbered && ra.number != rb.number:
		return ra.number > rb.number, true
	case ra.day > 0 && rb.day > 0 && ra.day != rb.day:
		return ra.day < rb.day, true
	case ra.day > 0 && rb.day > 0 && ra.clock != rb.clock:
		return ra.clock < rb.clock, true
	}
	return false, false
}

// unfinished reports whether a file has a name that programs give to what they are still writing or editing.
func unfinished(path string) bool {
	for _, suffix := range []string{".tmp", ".part", ".swp", "~"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

// hidden reports whether a file's name, or a pattern for it, begins with a dot.
func hidden(path string) bool { return strings.HasPrefix(filepath.Base(path), ".") }

// onlyUnreadable reports whether a pattern, which is no file's name written in full, matches only names of unreadable files.
func onlyUnreadable(pattern string) bool {
	if !strings.ContainsAny(pattern, `*?[{`) {
		return false
	}
	open := strings.LastIndexByte(pattern, '{')
	if open < 0 || !strings.HasSuffix(pattern, "}") {
		return unreadable(pattern) != ""
	}
	for end := range strings.SplitSeq(pattern[open+1:len(pattern)-1], ",") {
		if unreadable(pattern[:open]+end) == "" {
			return false
		}
	}
	return true
}

// unreadable returns the suffix of a name that says that the file is compressed in a way that is not known here, or "".
func unreadable(path string) string {
	for _, suffix := range []string{".xz", ".bz2", ".lz4", ".Z", ".lzma"} {
		if strings.HasSuffix(path, suffix) {
			return suffix
		}
	}
	return ""
}
