package rpc

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/stacktrail/stacktrail/plugins/event"
)

// writer lays out a frame. Its memory is used again for the next one.
type writer struct {
	buf   []byte
	n     uint32 // columns or failures
	count int

	// Scratch for one column: a value for each event.
	texts []string
	nums  []int64
	has   []byte // bitmap for nums
	lists [][]string
}

// begin begins a frame; notes are ignored in a batch.
func (w *writer) begin(h header, notes []byte) {
	w.buf = append(w.buf[:0], "STKF"...)
	w.buf = append(w.buf, frameVersion, h.kind, 0, 0)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, 0) // length: see end
	w.buf = binary.LittleEndian.AppendUint32(w.buf, h.instance)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, h.sequence)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(h.count))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, 0) // columns or failures: see end
	if h.kind != kindBatch {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(notes)))
		w.buf = append(w.buf, notes...)
	}
	w.n, w.count = 0, h.count
	w.texts = slices.Grow(w.texts[:0], h.count)[:h.count]
	w.nums = slices.Grow(w.nums[:0], h.count)[:h.count]
	w.has = slices.Grow(w.has[:0], (h.count+7)/8)[:(h.count+7)/8]
}

// end ends the frame and returns it. It is the writer's until the next begin.
func (w *writer) end() []byte {
	clear(w.texts) // they are views into what others own
	clear(w.lists)
	binary.LittleEndian.PutUint32(w.buf[8:], uint32(len(w.buf)))
	binary.LittleEndian.PutUint32(w.buf[28:], w.n)
	return w.buf
}

// fail adds a failure to a verdict.
func (w *writer) fail(f failure) {
	index := uint32(wholeIndex)
	if f.index != wholeCall {
		index = uint32(f.index)
	}
	f.reason = strings.ToValidUTF8(f.reason, "\uFFFD")
	f.reason = strings.ToValidUTF8(f.reason[:min(len(f.reason), maxReason)], "") // half a letter at the end
	w.buf = binary.LittleEndian.AppendUint32(w.buf, index)
	w.buf = append(w.buf, f.class)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, f.after)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(f.reason)))
	w.buf = append(w.buf, f.reason...)
	w.n++
}

// column begins a column and returns where the length of its payload stands.
func (w *writer) column(name string, typ event.Kind, layout byte) int {
	w.n++
	w.buf = binary.LittleEndian.AppendUint16(w.buf, uint16(len(name)))
	w.buf = append(w.buf, name...)
	w.buf = append(w.buf, byte(typ), layout)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, 0)
	return len(w.buf)
}

func (w *writer) close(at int) {
	binary.LittleEndian.PutUint32(w.buf[at-4:], uint32(len(w.buf)-at))
}

// none writes a column in which no event has a value.
func (w *writer) none(name string, typ event.Kind) {
	at := w.column(name, typ, layoutSome)
	w.buf = append(w.buf, make([]byte, (w.count+7)/8)...)
	w.close(at)
}

// addTexts adds the column of w.texts, in which "" is absent. keep: also if no event has a value.
func (w *writer) addTexts(name string, typ event.Kind, keep bool) {
	texts := w.texts
	present, size, same := 0, 0, len(texts) > 1
	for _, s := range texts {
		if s != "" {
			present++
			size += len(s)
		}
		if same && s != texts[0] {
			same = false
		}
	}
	switch {
	case present == 0 && keep:
		w.none(name, typ)
	case present == 0:
	case same:
		at := w.column(name, typ, layoutSame)
		w.buf = appendTexts(w.buf, texts[:1], len(texts[0]))
		w.close(at)
	case 2*present < len(texts):
		at := w.column(name, typ, layoutSome)
		from := len(w.buf)
		w.buf = append(w.buf, w.has...)
		bits := w.buf[from:]
		clear(bits)
		some := make([]string, 0, present)
		for i, s := range texts {
			if s != "" {
				bits[i>>3] |= 1 << (i & 7)
				some = append(some, s)
			}
		}
		w.buf = appendTexts(w.buf, some, size)
		w.close(at)
	default:
		at := w.column(name, typ, layoutAll)
		w.buf = appendTexts(w.buf, texts, size)
		w.close(at)
	}
}

// appendTexts appends ends and texts, which have size bytes.
func appendTexts(dst []byte, texts []string, size int) []byte {
	dst = slices.Grow(dst, 4*len(texts)+size)
	ends := dst[len(dst) : len(dst)+4*len(texts)]
	text := dst[len(dst)+4*len(texts) : len(dst)+4*len(texts)+size]
	at := 0
	for i, s := range texts {
		at += copy(text[at:], s)
		binary.LittleEndian.PutUint32(ends[4*i:], uint32(at))
	}
	return dst[:len(dst)+4*len(texts)+size]
}

// addNums adds the column of w.nums, of which w.has says whether they are there: ints, times and the bits of floats, or bools.
func (w *writer) addNums(name string, typ event.Kind, keep bool) {
	present, same := 0, w.count > 1
	for i := range w.nums {
		if w.has[i>>3]>>(i&7)&1 == 0 {
			same = false
			continue
		}
		present++
		same = same && w.nums[i] == w.nums[0]
	}
	one := func(v int64) {
		if typ == event.Bool {
			w.buf = append(w.buf, byte(v))
		} else {
			w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(v))
		}
	}
	switch {
	case present == 0 && keep:
		w.none(name, typ)
	case present == 0:
	case same:
		at := w.column(name, typ, layoutSame)
		one(w.nums[0])
		w.close(at)
	case present < w.count:
		at := w.column(name, typ, layoutSome)
		w.buf = append(w.buf, w.has...)
		for i, v := range w.nums {
			if w.has[i>>3]>>(i&7)&1 != 0 {
				one(v)
			}
		}
		w.close(at)
	default:
		at := w.column(name, typ, layoutAll)
		w.buf = slices.Grow(w.buf, 8*w.count)
		for _, v := range w.nums {
			one(v)
		}
		w.close(at)
	}
}

// addLists adds the column of w.lists, in which an empty one is absent.
func (w *writer) addLists(name string, keep bool) {
	present, same := 0, len(w.lists) > 1
	for _, l := range w.lists {
		if len(l) > 0 {
			present++
		}
		same = same && slices.Equal(l, w.lists[0])
	}
	lists, layout := w.lists, byte(layoutAll)
	switch {
	case present == 0 && keep:
		w.none(name, event.List)
		return
	case present == 0:
		return
	case same:
		lists, layout = w.lists[:1], layoutSame
	case 2*present < len(w.lists):
		layout = layoutSome
	}
	at := w.column(name, event.List, layout)
	if layout == layoutSome {
		from := len(w.buf)
		w.buf = append(w.buf, w.has...)
		bits := w.buf[from:]
		clear(bits)
		lists = make([][]string, 0, present)
		for i, l := range w.lists {
			if len(l) > 0 {
				bits[i>>3] |= 1 << (i & 7)
				lists = append(lists, l)
			}
		}
	}
	items, size := 0, 0
	var all []string
	for _, l := range lists {
		items += len(l)
		w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(items))
		all = append(all, l...)
		for _, s := range l {
			size += len(s)
		}
	}
	w.buf = appendTexts(w.buf, all, size)
	w.close(at)
}

// setNum notes the number of event i.
func (w *writer) setNum(i int, v int64) {
	w.nums[i] = v
	w.has[i>>3] |= 1 << (i & 7)
}

// floatBits is how a float stands among nums.
func floatBits(f float64) int64 { return int64(math.Float64bits(f)) }

func unixNano(n int64) time.Time { return time.Unix(0, n).UTC() }
