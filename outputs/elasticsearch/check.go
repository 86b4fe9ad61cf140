package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/stacktrail/stacktrail/plugins"
)

var _ plugins.Checker = (*output)(nil)

// Check reaches the server with our credentials. For a data stream it also tries the rights that asking for known ids needs, and
// finds out whether there is a data stream or a template to make it from.
func (o *output) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Timeout)
	defer cancel()
	if _, err := o.cluster.detect(ctx); err != nil {
		return o.explain(err)
	}
	// A flavor that was configured was not asked for, and credentials are not shown by being asked.
	if err := o.call(ctx, http.MethodGet, "/", "", nil, nil); err != nil && !isStatus(err, http.StatusForbidden) {
		return err
	}
	if o.stream == "" {
		return nil
	}
	names, err := o.backing(ctx)
	if isStatus(err, http.StatusForbidden) {
		return fmt.Errorf("the right view_index_metadata on %s is missing (ids are not asked for without it): %w", o.stream, err)
	}
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return o.checkTemplate(ctx)
	}
	r := &request{ids: []byte("00000000000000000000000000000000"), skip: []bool{false}}
	if _, err := o.mget(ctx, r, names[len(names)-1], []int{0}); isStatus(err, http.StatusForbidden) {
		return fmt.Errorf("the right read on %s is missing (ids are not asked for without it): %w", o.stream, err)
	} else if err != nil {
		return err
	}
	return nil
}

// checkTemplate finds out what the data stream would be made from. Not being allowed to ask is no fault.
func (o *output) checkTemplate(ctx context.Context) error {
	var all struct {
		Templates []struct {
			Name  string `json:"name"`
			Index struct {
				Patterns []string        `json:"index_patterns"`
				Stream   *map[string]any `json:"data_stream"`
			} `json:"index_template"`
		} `json:"index_templates"`
	}
	if err := o.call(ctx, http.MethodGet, "/_index_template", "", nil, &all); err != nil {
		if isStatus(err, http.StatusForbidden) {
			return nil
		}
		return err
	}
	for _, t := range all.Templates {
		for _, p := range t.Index.Patterns {
			if t.Index.Stream != nil && matches(p, o.stream) {
				return nil
			}
		}
	}
	return &fault{text: "there is no data stream " + o.stream + " and no template to make it from: run setup elasticsearch --apply"}
}

// matches reports whether a pattern with stars matches a name.
func matches(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	if name, ok := strings.CutPrefix(name, head); ok {
		for i := range len(name) + 1 {
			if matches(rest, name[i:]) {
				return true
			}
		}
	}
	return false
}

func isStatus(err error, status int) bool {
	f := (*refusal)(nil)
	return errors.As(err, &f) && f.status == status
}
