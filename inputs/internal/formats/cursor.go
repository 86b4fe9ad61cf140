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

// num takes a number of 1 to 18 digits.
func (c *cursor) num() int64 {
	if c.bad {
		return 0
	}
	s, i := c.s, c.i
	var n int64
	for i < len(s) && s[i]-'0' <= 9 {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	if k := i - c.i; k == 0 || k > 18 {
		c.bad, c.ended = true, i == len(s) && k == 0
		return 0
	}
	c.i = i
	return n
}

// numTo takes a number and the byte behind it.
func (c *cursor) numTo(end byte) int64 {
	if c.bad {
		return 0
	}
	s, i := c.s, c.i
	var n int64
	for i < len(s) && s[i]-'0' <= 9 {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	if k := i - c.i; k == 0 || k > 18 {
		c.bad, c.ended = true, i == len(s) && k == 0
		return 0
	}
	c.i = i
	if i < len(s) && s[i] == end {
		c.i++
	} else {
		c.bad, c.ended = true, i == len(s)
	}
	return n
}

// numLit takes a number and a literal text behind it.
func (c *cursor) numLit(t string) int64 {
	s, i := c.s, c.i
	var n int64
	for i < len(s) && s[i]-'0' <= 9 {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	if k := i - c.i; c.bad || k == 0 || k > 18 || len(s)-i < len(t) || s[i:i+len(t)] != t {
		n = c.num()
		c.lit(t)
		return n
	}
	c.i = i + len(t)
	return n
}

// signedLit is numLit for a number that may have a minus in front.
func (c *cursor) signedLit(t string) int64 {
	if c.i < len(c.s) && c.s[c.i] == '-' {
		n := c.signed()
		c.lit(t)
		return n
	}
	return c.numLit(t)
}

// signedTo is numTo for a number that may have a minus in front.
func (c *cursor) signedTo(end byte) int64 {
	if c.i < len(c.s) && c.s[c.i] == '-' && !c.bad {
		from := c.i
		c.i++
		n := c.numTo(end)
		if c.bad && c.i == from+1 {
			c.i = from
		}
		return -n
	}
	return c.numTo(end)
}

// signed takes a number that may have a minus in front.
func (c *cursor) signed() int64 {
	if c.i < len(c.s) && c.s[c.i] == '-' && !c.bad {
		c.i++
		n := c.num()
		if c.bad {
			c.i--
		}
		return -n
	}
	return c.num()
}

// word takes what stands before the next space, and the space.
func (c *cursor) word() string {
	if c.bad {
		return ""
	}
	j := space(c.s[c.i:])
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
