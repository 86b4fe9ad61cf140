package main

import (
	"regexp"
	"strings"
)

var (
	word    = regexp.MustCompile(`^[a-z][a-z_-]*$`)
	version = regexp.MustCompile(`^v[0-9](\.[0-9]+)?$`)
	plain   = regexp.MustCompile(`^[A-Za-z][A-Za-z_.-]*[0-9]?$`)
	longHex = regexp.MustCompile(`^[0-9a-f]{32,}$`)
)

// collections are what OpenStack's paths name before the id or name of one of its members.
func collection(s string) bool {
	switch s {
	case "servers", "images", "volumes", "snapshots", "backups", "projects", "users", "groups", "domains", "roles", "flavors",
		"networks", "subnets", "ports", "routers", "os-keypairs", "os-quota-sets", "os-aggregates", "os-hypervisors",
		"os-extra_specs", "tags", "resource_providers", "resource_classes", "traits", "allocations":
		return true
	}
	return false
}

// route makes requests of one kind alike: ids and names become {id}, what cannot be told is cut off with an ellipsis.
func route(path string) string {
	if scheme, rest, ok := strings.Cut(path, "://"); ok && word.MatchString(scheme) {
		_, path, _ = strings.Cut(rest, "/")
	}
	var out strings.Builder
	before := ""
	ids := 0
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		switch {
		case s == "":
			continue
		case s == "detail" && collection(before):
		case collection(before) || longHex.MatchString(s):
			s = "{id}"
			ids++
		case strings.HasPrefix(s, "AUTH_"): // an account of the object store; containers and objects have any name
			return out.String() + "/AUTH_{id}/…"
		case version.MatchString(s), ids == 0 && plain.MatchString(s), word.MatchString(s):
		default:
			return out.String() + "/…"
		}
		out.WriteString("/" + s)
		before = s
	}
	if out.Len() == 0 {
		return "/"
	}
	return out.String()
}
