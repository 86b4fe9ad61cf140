package elasticsearch

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/stacktrail/stacktrail/outputs/internal/web"
)

// fault says why the destination did not take a request or an event. It is retried.
type fault struct {
	text string
	// busy: there is nothing to mend, the server asks for patience.
	busy bool
	// unsure: what was sent may yet have been taken.
	unsure bool
}

func (f *fault) Error() string { return f.text }

// verdict is what becomes of an item.
type verdict uint8

const (
	delivered verdict = iota
	document          // at fault is the event: it dies
	target            // at fault is the destination: retried for ever
	busy              // nothing is at fault: retried
	strange           // nobody knows: dies after strangeTries
)

// maxReason is how much of a server's reason is kept, in bytes.
const maxReason = 500

// itemError is an item's error as both servers write it.
type itemError struct {
	Type     string     `json:"type"`
	Reason   string     `json:"reason"`
	CausedBy *itemError `json:"caused_by"`
}

// String returns type and reason, with the cause where it says more.
func (e *itemError) String() string {
	s := e.Type + ": " + e.Reason
	if c := e.CausedBy; c != nil && c.Reason != "" && !strings.Contains(e.Reason, c.Reason) {
		s += " (" + c.Type + ": " + c.Reason + ")"
	}
	return web.Line(s, maxReason)
}

// classify judges an item by the type of its error; the status decides only where the type says nothing.
func classify(status int, e *itemError) verdict {
	if status/100 == 2 {
		return delivered
	}
	switch e.Type {
	case "version_conflict_engine_exception":
		return delivered // ids are our own: what has it is this event
	case "document_parsing_exception", "mapper_parsing_exception", "strict_dynamic_mapping_exception", "parsing_exception",
		"parse_exception", "x_content_parse_exception", "json_parse_exception", "mapper_exception", "dynamic_mapping_exception",
		"not_x_content_exception", "max_bytes_length_exceeded_exception":
		return document
	case "illegal_argument_exception", "mapping_exception":
		return classifyArgument(e)
	case "es_rejected_execution_exception", "rejected_execution_exception", "circuit_breaking_exception",
		"unavailable_shards_exception", "no_shard_available_action_exception", "process_cluster_event_timeout_exception",
		"resource_already_exists_exception", "node_closed_exception", "node_disconnected_exception", "node_not_connected_exception",
		"receive_timeout_transport_exception", "connect_transport_exception", "master_not_discovered_exception",
		"not_master_exception", "cluster_manager_not_discovered_exception", "not_cluster_manager_exception",
		"failed_to_commit_cluster_state_exception", "retry_on_primary_exception", "retry_on_replica_exception",
		"shard_not_found_exception", "shard_not_in_primary_mode_exception", "illegal_index_shard_state_exception",
		"index_shard_not_started_exception", "index_shard_recovering_exception", "already_closed_exception", "timeout_exception",
		"delayed_recovery_exception":
		return busy
	case "index_not_found_exception", "index_closed_exception", "cluster_block_exception", "security_exception",
		"invalid_index_name_exception", "validation_exception", "invalid_alias_name_exception", "index_creation_exception",
		"invalid_index_template_exception", "resource_not_found_exception",
		"action_request_validation_exception", "index_shard_closed_exception",
		"i_o_exception", "io_exception", "file_system_exception", "translog_exception",
		"translog_corrupted_exception", "engine_exception", "engine_creation_failure_exception", "illegal_state_exception",
		"license_exception", "authentication_exception",
		"shard_limit_exceeded_exception":
		return target
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return busy
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return target
	}
	return strange
}

// classifyArgument looks at the reason: both servers give this type to faults of documents and of the destination alike. Reasons of
// the former may quote a document, so they are looked for first: no line of a log can pass for a fault of the destination.
func classifyArgument(e *itemError) verdict {
	if e.says(
		"mapper [", "immense term", "Limit of ", "can't merge", "object mapping", "cannot be changed from type", "mapping for",
		"field name", "of different type", "bytes can be at most", "nested", "Cannot write to a field alias", "Field [", "field [", "failed to parse",
	) {
		return document
	}
	if e.says(
		"pipeline with id", "pipeline [", "write index", "alias [", "op_type of create", "number of documents in the index",
		"index template", "data stream [", "more than 1 type", "backing ind", "routing is required",
	) {
		return target
	}
	return strange
}

// says reports whether the reason, or that of a cause, holds one of these.
func (e *itemError) says(parts ...string) bool {
	for c := e; c != nil; c = c.CausedBy {
		if slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(c.Reason, s) }) {
			return true
		}
	}
	return false
}

// statusFault is what a whole request's refusal means. head is the beginning of the answer.
func statusFault(res *http.Response, head []byte, secrets []string) error {
	reason, e := topReason(head)
	if reason == "" {
		reason = web.Excerpt(head, secrets...)
	} else {
		reason = web.Line(web.Hide(reason, secrets...), maxReason)
	}
	status := strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)
	if reason != "" {
		status += ": " + reason
	}
	f := &fault{text: status}
	switch res.StatusCode {
	case http.StatusTooManyRequests:
		f.busy = e == nil || e.Type != "cluster_block_exception"
		f.unsure = true // Elasticsearch 9 takes a request piece by piece, and may refuse one after others
	case http.StatusUnauthorized:
		f.text = "the server refuses our credentials: " + status
	case http.StatusForbidden:
		f.text = "the server refuses us: " + status
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		f.unsure = true
	case http.StatusServiceUnavailable:
		f.busy, f.unsure = true, true
	default:
		switch {
		case res.StatusCode/100 == 3:
			where := ""
			if u, err := res.Location(); err == nil {
				where = " to " + web.ShowURL(u)
			}
			f.text = "the server sends us elsewhere" + where + " (" + status + ")"
		case res.StatusCode >= 500:
			f.unsure = true
		}
	}
	return f
}

// topReason takes the reason out of an error that stands alone.
func topReason(body []byte) (string, *itemError) {
	e := decodeTop(body)
	if e == nil {
		return "", nil
	}
	return e.String(), e
}

// tooLarge reports whether a refusal says that the request could not be taken even if the server had nothing else to do. size is
// the length of the request before compression, of n events. A request of several events that takes more than half of what the server
// has for all counts as too large: what servers reckon is more than its length, and Elasticsearch 9 reckons piece by piece.
func tooLarge(status int, head []byte, size int64, n int) bool {
	if status == http.StatusRequestEntityTooLarge {
		return true
	}
	e := decodeTop(head)
	if status != http.StatusTooManyRequests || e == nil {
		return false
	}
	if n > 1 {
		size *= 2
	}
	if limit, ok := numberAfter(e.Reason, "larger than the limit of ["); ok && e.Type == "circuit_breaking_exception" {
		return size > limit
	}
	for _, name := range []string{"max_coordinating_bytes=", "max_coordinating_and_primary_bytes="} { // the second is OpenSearch's
		limit, ok := numberAfter(e.Reason, name)
		if !ok {
			continue
		}
		own, has := numberAfter(e.Reason, "coordinating_operation_bytes=")
		return size > limit || has && own > limit
	}
	return false
}

// numberAfter reads the digits that follow a text.
func numberAfter(s, text string) (int64, bool) {
	_, rest, found := strings.Cut(s, text)
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(rest[:end], 10, 64)
	return n, found && err == nil
}

// isUnsure reports whether a request that failed so may have been taken.
func isUnsure(err error) bool {
	if f := (*fault)(nil); errors.As(err, &f) {
		return f.unsure
	}
	u := (*unsentError)(nil)
	return err != nil && !errors.As(err, &u)
}
