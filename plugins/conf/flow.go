package conf

import "strings"

// Flow returns n as YAML on one line, without comments, such that Parse reads it back; "null" for the zero Node. An interpolated text is
// written as the file has it, not as what was put in. Samples are made with it.
func (n Node) Flow() string {
	switch n.Kind() {
	case Section:
		parts := make([]string, 0, len(n.n.pairs))
		for _, k := range n.Keys() {
			parts = append(parts, flowText(k.Name, "!!str")+": "+k.Value.Flow())
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case List:
		parts := make([]string, 0, len(n.n.items))
		for _, x := range n.Items() {
			parts = append(parts, x.Flow())
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case Scalar:
	default:
		return "null"
	}
	text, templated := n.Template()
	if !templated {
		text = n.Scalar()
	}
	switch {
	case n.IsNull():
		return "null"
	case n.n.tag != "!!str" && n.n.tag != "!!timestamp" && !templated:
		return text
	case strings.Contains(text, `"`) && !strings.ContainsFunc(text, func(r rune) bool { return r == '\'' || r < ' ' || r > '~' }):
		return "'" + text + "'"
	}
	return flowText(text, "!!str")
}
