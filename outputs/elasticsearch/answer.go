package elasticsearch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// answerFields are what is asked for of a _bulk answer. Each item keeps its status, so that items keep their places.
const answerFields = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.type,items.*.error.caused_by.reason"

// answerHead is within how many bytes "errors" stands.
const answerHead = 256

// errShort is an answer that cannot be trusted.
var errShort = errors.New("the answer is cut short")

// readAnswer reads the answer to a _bulk request of n items. Where the server says that no item failed, items are counted and not
// decoded; else each is called with its place. buf is room to read into. Every error means that the fate of all items is unknown.
func readAnswer(r io.Reader, n int, buf []byte, item func(i, status int, e *itemError)) error {
	got, err := io.ReadAtLeast(r, buf, answerHead)
	whole := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !whole {
		return err
	}
	head := buf[:got]
	fine := bytes.Contains(head[:min(got, answerHead)], []byte(`"errors":false`))
	if !fine {
		if !bytes.Contains(head[:min(got, answerHead)], []byte(`"errors":true`)) {
			return errors.New("the answer is not one to a _bulk request")
		}
		return decodeItems(io.MultiReader(bytes.NewReader(head), r), n, item)
	}
	return countItems(r, n, buf, got, whole)
}

// countItems counts the items of an answer, of which buf[:got] is read.
func countItems(r io.Reader, n int, buf []byte, got int, whole bool) error {
	mark := []byte(`"status":`)
	count := 0
	for {
		count += bytes.Count(buf[:got], mark)
		if whole {
			break
		}
		// What may be the beginning of a mark stays for the next round.
		keep := copy(buf, buf[max(got-len(mark)+1, 0):got])
		m, err := io.ReadFull(r, buf[keep:])
		got = keep + m
		whole = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !whole {
			return err
		}
	}
	if tail := bytes.TrimRight(buf[:got], " \r\n\t"); !bytes.HasSuffix(tail, []byte("]}")) {
		return errShort
	}
	if count != n {
		return fmt.Errorf("the answer has %d items for %d that were sent", count, n)
	}
	return nil
}

// bulkItem is an item under whatever the operation is called.
type bulkItem map[string]struct {
	Status int        `json:"status"`
	Error  *itemError `json:"error"`
}

// decodeItems decodes an answer item by item.
func decodeItems(r io.Reader, n int, item func(i, status int, e *itemError)) error {
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	count, items := 0, false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return cut(err)
		}
		if key != "items" {
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return cut(err)
			}
			continue
		}
		items = true
		if err := expect(d, json.Delim('[')); err != nil {
			return err
		}
		for ; d.More(); count++ {
			var it bulkItem
			if err := d.Decode(&it); err != nil {
				return cut(err)
			}
			if count >= n {
				continue // counted below
			}
			if len(it) != 1 {
				return fmt.Errorf("item %d of the answer is none", count)
			}
			for _, x := range it {
				if x.Status == 0 {
					return fmt.Errorf("item %d of the answer has no status", count)
				}
				if x.Error == nil {
					x.Error = &itemError{}
				}
				item(count, x.Status, x.Error)
			}
		}
		if err := expect(d, json.Delim(']')); err != nil {
			return err
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return err
	}
	if !items || count != n {
		return fmt.Errorf("the answer has %d items for %d that were sent", count, n)
	}
	return nil
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return cut(err)
	}
	if t != want {
		return fmt.Errorf("the answer has %v where %v belongs", t, want)
	}
	return nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return err
}

// decodeTop decodes the error of an answer that is nothing but one; nil if it is not.
func decodeTop(body []byte) *itemError {
	var top struct {
		Error  json.RawMessage `json:"error"`
		Status int             `json:"status"`
	}
	if json.Unmarshal(body, &top) != nil || len(top.Error) == 0 {
		return nil
	}
	var e itemError
	if json.Unmarshal(top.Error, &e) == nil {
		return &e
	}
	var text string
	if json.Unmarshal(top.Error, &text) == nil {
		return &itemError{Type: "error", Reason: text}
	}
	return nil
}
