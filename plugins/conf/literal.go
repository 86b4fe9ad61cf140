package conf

import "strconv"

// Literal returns a scalar as YAML means it: a bool, an int64, a float64, else a string. Interpolated texts are strings. It
// returns nil for null, for other shapes and for the zero Node.
func (n Node) Literal() any {
	if n.Kind() != Scalar || n.IsNull() {
		return nil
	}
	text := n.Scalar()
	if _, is := n.Template(); is {
		return text
	}
	switch n.n.tag {
	case "!!bool":
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case "!!int":
		if i, err := strconv.ParseInt(text, 0, 64); err == nil {
			return i
		}
	case "!!float":
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	}
	return text
}
