package routes

import "slices"

// methods is how many methods have actions; methodNames gives their order.
const methods = 6

func methodNames() []string { return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} }

// methodOf returns the place of a method; -1 for those that say nothing of what was done.
func methodOf(m string) int {
	switch m {
	case "GET":
		return 0
	case "HEAD":
		return 1
	case "POST":
		return 2
	case "PUT":
		return 3
	case "PATCH":
		return 4
	case "DELETE":
		return 5
	}
	return -1
}

// defaultActions are those of CADF for a path that ends in nothing that is known.
var defaultActions = [methods]string{"read", "read", "update", "update", "update", "delete"}

// actions writes what the methods do to a place, as keystonemiddleware's audit filter has it: the service's own actions by the last
// segment come first; POST to something that holds others creates, to action it is update/action, for the body is not in the log;
// GET of what holds others reads a list.
func (c *compiler) actions(s *service, x *node) {
	x.actions = defaultActions
	if x.seg == "" {
		return
	}
	switch {
	case x.seg == "action":
		x.actions[methodOf("POST")] = "update/action"
	case x.id != 0 || x.explicit || slices.Contains(s.keywords, x.seg):
		x.actions[methodOf("GET")] = "read/list"
		x.actions[methodOf("POST")] = "create"
	}
	for i, m := range methodNames() {
		if a, ok := s.actions[x.seg]; ok {
			x.actions[i] = a
		}
		if a, ok := s.actions[x.seg+"/"+lower(m)]; ok {
			x.actions[i] = a
		}
	}
}
