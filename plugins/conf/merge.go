package conf

import "strings"

// ListKey names a list of sections that Merge joins by one of their keys.
type ListKey struct {
	Path string // keys from the root, joined by dots: pipelines
	Key  string // the key that tells one section from another: name
}

// Merge lays documents over each other, the later over the earlier: sections are merged key by key, scalars and
// lists are replaced, and the lists named in byKey are merged item by item. It changes none of the
// documents. Zero Nodes are passed over; without any Node the zero Node is returned.
func Merge(nodes []Node, byKey ...ListKey) (Node, Faults) {
	m := merger{byKey: byKey}
	var out *node
	for _, n := range nodes {
		switch {
		case n.n == nil:
		case out == nil:
			out = m.copyOf(n.n, nil)
		default:
			out = m.merge(out, n.n, nil)
		}
	}
	if out == nil {
		return Node{}, nil
	}
	return Node{n: out}, m.faults.tidy()
}

type merger struct {
	byKey  []ListKey
	faults Faults
}

// merge returns a laid over by b. It owns a, not b.
func (m *merger) merge(a, b *node, at *step) *node {
	switch {
	case a.isNull() || b.isNull():
		return m.copyOf(b, at)
	case (a.kind == Section) != (b.kind == Section):
		m.faults = append(m.faults, Node{n: b, at: at}.Fault("%s here, but %s in %s:%d:%d; the two cannot be merged",
			Node{n: b}.found(true), Node{n: a}.found(true), a.file, a.line, a.column))
		return a
	case b.kind == Section:
		return m.sections(a, b, at)
	case a.kind == List && b.kind == List:
		if key := m.listKey(at); key != "" {
			return m.lists(a, b, key, at)
		}
	}
	return m.copyOf(b, at)
}

func (m *merger) sections(a, b *node, at *step) *node {
	index := make(map[string]int, len(a.pairs))
	for i, p := range a.pairs {
		index[p.key.text] = i
	}
	for _, p := range b.pairs {
		at := &step{up: at, key: p.key.text, index: -1}
		if i, ok := index[p.key.text]; ok {
			old := a.pairs[i].value
			merged := m.merge(old, p.value, at)
			if merged != old {
				a.pairs[i].key = p.key
			}
			a.pairs[i].value = merged
			continue
		}
		index[p.key.text] = len(a.pairs)
		a.pairs = append(a.pairs, pair{p.key, m.copyOf(p.value, at)})
	}
	return a
}

func (m *merger) lists(a, b *node, key string, at *step) *node {
	index := make(map[string]int, len(a.items))
	for i, x := range a.items {
		if name, ok := nameOf(x, key); ok {
			index[name.text] = i
		}
	}
	for _, x := range m.copyOf(b, at).items {
		name, ok := nameOf(x, key)
		if i, known := -1, false; ok {
			if i, known = index[name.text]; known {
				a.items[i] = m.merge(a.items[i], x, &step{up: at, index: i})
				continue
			}
			index[name.text] = len(a.items)
		}
		a.items = append(a.items, x)
	}
	return a
}

// copyOf copies the branches of n, so that merging into the copy leaves n alone; leaves are shared.
// On the way it reports sections of one list that have the same name.
func (m *merger) copyOf(n *node, at *step) *node {
	c := *n
	switch n.kind {
	case Section:
		c.pairs = make([]pair, len(n.pairs))
		for i, p := range n.pairs {
			c.pairs[i] = pair{p.key, m.copyOf(p.value, &step{up: at, key: p.key.text, index: -1})}
		}
	case List:
		c.items = make([]*node, len(n.items))
		key := m.listKey(at)
		seen := map[string]*node{}
		for i, x := range n.items {
			at := &step{up: at, index: i}
			c.items[i] = m.copyOf(x, at)
			if key == "" {
				continue
			}
			name, ok := nameOf(x, key)
			if !ok {
				continue
			}
			if first := seen[name.text]; first != nil {
				m.faults = append(m.faults, Node{n: name, at: &step{up: at, key: key, index: -1}}.Fault(
					"the %s %s is taken, first at line %d", key, quote(name.text), first.line))
				continue
			}
			seen[name.text] = name
		}
	default:
		return n
	}
	return &c
}

// listKey returns the key by which the list at this place is merged, "" when it is replaced.
func (m *merger) listKey(at *step) string {
	if len(m.byKey) == 0 {
		return ""
	}
	var names []string
	for s := at; s != nil; s = s.up {
		if s.index < 0 {
			names = append([]string{s.key}, names...)
		}
	}
	path := strings.Join(names, ".")
	for _, k := range m.byKey {
		if k.Path == path {
			return k.Key
		}
	}
	return ""
}

// nameOf returns the scalar by which a section of a merged list is known.
func nameOf(n *node, key string) (*node, bool) {
	if n.kind == Section {
		for _, p := range n.pairs {
			if p.key.text == key && p.value.kind == Scalar && !p.value.isNull() {
				return p.value, true
			}
		}
	}
	return nil, false
}
