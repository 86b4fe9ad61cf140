package formats

import "strings"

// cursor walks over a line. A step that does not fit sets bad, and all further steps do nothing; ended says that it did not fit
// because the line was at its end: what is there may be the begin of what was wanted.
type cursor struct {
	s          string
	i          int
	bad, ended bool
}

// rest is what was not taken.
func (c *cursor) rest() string { return c.s[c.i:] }

// lit takes a literal text.
func (c *cursor) lit(t string) {
	if c.bad {
		return
	}
	rest := c.s[c.i:]
	if !strings.HasPrefix(rest, t) {
		c.bad, c.ended = true, strings.HasPrefix(t, rest)
		return
	}
	c.i += len(t)
}

// plus takes a plus sign if there is one.
func (c *cursor) plus() bool {
	if c.bad || c.i == len(c.s) || c.s[c.i] != '+' {
		return false
	}
	c.i++
	return true
}

// num takes a number of 1 to 18 digits, with a sign if it has one.
func (c *cursor) num() int64 {
	if c.bad {
		return 0
	}
	i := c.i
	neg := i < len(c.s) && c.s[i] == '-'
	if neg {
		i++
	}
	from := i
	var n int64
	for i < len(c.s) && c.s[i]-'0' <= 9 {
		n = n*10 + int64(c.s[i]-'0')
		i++
	}
	if i == from || i-from > 18 {
		c.bad, c.ended = true, i == len(c.s) && i == from
		return 0
	}
	c.i = i
	if neg {
		return -n
	}
	return n
}

// word takes what stands before the next space, and the space.
func (c *cursor) word() string {
	if c.bad {
		return ""
	}
	j := strings.IndexByte(c.s[c.i:], ' ')
	if j < 0 {
		c.bad, c.ended = true, true
		return ""
	}
	w := c.s[c.i : c.i+j]
	c.i += j + 1
	return w
}

// text takes a quoted text and the space behind it.
func (c *cursor) text() string {
	c.lit(`"`)
	if c.bad {
		return ""
	}
	j := strings.IndexByte(c.s[c.i:], '"')
	if j < 0 {
		c.bad, c.ended = true, true
		return ""
	}
	t := c.s[c.i : c.i+j]
	c.i += j + 1
	if c.i < len(c.s) {
		c.lit(" ")
	}
	return t
}
