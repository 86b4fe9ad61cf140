package conf

import (
	"strings"
	"unicode/utf8"
)

// Suggest returns the candidate nearest to name, for "did you mean", or "" when none is near: at most one
// edit in three characters, at least one. Upper and lower case count as equal and two characters that
// changed places as one edit; of candidates equally near, the first in the alphabet is returned.
func Suggest(name string, candidates []string) string {
	const longest = 200 // no key is longer; keeps hostile names from costing time
	limit := max(1, utf8.RuneCountInString(name)/3)
	if name == "" || len(name) > longest {
		return ""
	}
	a := []rune(strings.ToLower(name))
	best, bestDistance := "", limit+1
	for _, c := range candidates {
		b := []rune(strings.ToLower(c))
		if c == "" || len(b)-len(a) > limit || len(a)-len(b) > limit {
			continue
		}
		d := distance(a, b)
		if d >= len(a) && d >= len(b) {
			continue // nothing in common
		}
		if d < bestDistance || d == bestDistance && d <= limit && c < best {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the edit distance with swaps of neighbours (optimal string alignment).
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
