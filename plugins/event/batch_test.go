package event

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPoolIsABound(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20
	p := NewPool(limit)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 300 {
				size := 100
				if (i+w)%3 == 0 {
					size = MaxBatchBytes
				}
				b, err := p.Get(context.Background(), size)
				if err != nil {
					t.Error(err)
					return
				}
				b.Arena().Alloc(i * 10)
				b.Append()
				b.Charge()
				b.Release()
			}
		})
	}
	wg.Wait()
	if used, peak := p.Usage(); used > limit || peak > limit+8*BatchCost() {
		t.Errorf("used %d, at most %d, of %d", used, peak, limit)
	}
}

func TestPoolMakesGettersWaitAndServesThemInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(BatchCost())
		ctx := context.Background()
		first, err := p.Get(ctx, MaxBatchBytes)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				b, err := p.Get(ctx, MaxBatchBytes)
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				b.Release()
			}()
			synctest.Wait() // it stands in the line before the next one comes
		}
		if len(order) != 0 {
			t.Fatal("a batch came out of an empty pool")
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := p.Get(short, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a getter that gives up gets %v", err)
		}
		first.Release()
		synctest.Wait()
		for want := range 3 {
			if got := <-order; got != want {
				t.Errorf("number %d was served as number %d", got, want)
			}
		}
	})
}

func TestRecycledBatchIsEmpty(t *testing.T) {
	t.Parallel()
	p := NewPool(1 << 20)
	b, err := p.Get(context.Background(), 10)
	if err != nil {
		t.Fatal(err)
	}
	b.Stream, b.For, b.Clean = "s", 3, true
	e := b.Append()
	e.Method, e.Dropped = "GET", true
	e.SetStatus(200)
	e.Set("x", IntValue(1))
	b.Select(0, func(*Event) bool { return true })
	b.Encode("enc", nil, func(dst []byte, _ *Event) []byte { return append(dst, 'x') })
	b.Release()
	again, err := p.Get(context.Background(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if again != b {
		t.Fatal("the batch was not recycled")
	}
	if again.Stream != "" || again.For != 0 || again.Clean || len(again.Events) != 0 || again.Selected(0) != nil || again.Encoded("enc", 0) != nil {
		t.Errorf("a recycled batch is not empty: %+v", again)
	}
	if e := again.Append(); e.Method != "" || e.Has != 0 || len(e.Extra) != 0 || e.Dropped || e.Batch() != again || e.Index() != 0 {
		t.Errorf("a recycled event is not empty: %+v", e)
	}
}

func TestReleasingTwiceIsFoundOut(t *testing.T) {
	t.Parallel()
	b := NewBatch("s")
	b.Retain(1)
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("nobody noticed")
		}
	}()
	b.Release()
}

func TestArenaKeepsWhatItGave(t *testing.T) {
	t.Parallel()
	b := NewBatch("s")
	block := b.Arena().Block(100)
	copy(block, bytes.Repeat([]byte("b"), 100))
	b.Arena().SetBlock(60)
	var views []string
	for i := range 3000 {
		views = append(views, b.Arena().CopyString(strconv.Itoa(i)))
	}
	for i, v := range views {
		if v != strconv.Itoa(i) {
			t.Fatalf("view %d became %q", i, v)
		}
	}
	if !b.Contains(View(block[:60])) || b.Contains(views[0]) || b.Contains(views[2999]) || b.Contains("elsewhere") {
		t.Error("Contains is wrong about the block")
	}
}

func TestIDsDependOnStreamOffsetAndFirstLine(t *testing.T) {
	t.Parallel()
	id := func(stream string, offset int64, raw string, length int64) string {
		b := NewBatch(stream)
		e := b.Append()
		e.Offset, e.Raw, e.Length = offset, []byte(raw), length
		return e.ID()
	}
	base := id("s", 1, "line", 0)
	if len(base) != IDLen || base != id("s", 1, "line", 0) || base != id("s", 1, "line\njoined later", 0) {
		t.Errorf("the id %q is not stable", base)
	}
	for _, other := range []string{id("t", 1, "line", 0), id("s", 2, "line", 0), id("s", 1, "lime", 0), id("s", 1, "line", 9)} {
		if other == base {
			t.Error("two records have one id")
		}
	}
	b := NewBatch("s")
	e := b.Append()
	e.Offset, e.Raw = 1, []byte("line")
	if e.Clone().ID() != base || b.Clone().Events[0].ID() != base {
		t.Error("a copy has another id")
	}
}

func TestCloneOwnsItsMemory(t *testing.T) {
	t.Parallel()
	b := NewBatch("s")
	block := b.Arena().Block(8)
	copy(block, "GET /abc")
	e := b.Append()
	e.Method, e.Path, e.Raw = View(block[:3]), View(block[4:]), block
	e.Set(View(block[:3]), ListValue([]string{View(block[4:])}))
	c := e.Clone()
	b.Arena().Poison()
	v, ok := c.Get("GET")
	if c.Method != "GET" || c.Path != "/abc" || string(c.Raw) != "GET /abc" || !ok || v.List()[0] != "/abc" {
		t.Errorf("the copy changed with the arena: %+v", c)
	}
}

func TestReplacedRawKeepsTheID(t *testing.T) {
	t.Parallel()
	e := NewBatch("s").Append()
	e.Raw = []byte("first line\nsecond")
	id := e.ID()
	e.SetRaw([]byte("*** line"))
	e.SetRaw([]byte("*** ***"))
	if e.ID() != id || e.Clone().ID() != id || string(e.Raw) != "*** ***" {
		t.Errorf("%q has the id %s, a copy %s, want %s", e.Raw, e.ID(), e.Clone().ID(), id)
	}
	e.Reset()
	e.Raw = []byte("first line\nother")
	if e.ID() != id {
		t.Error("a reset event remembers another line")
	}
}

func TestListsStayWhereTheyAreUntilTheBatchIsUsedAgain(t *testing.T) {
	t.Parallel()
	pool := NewPool(1 << 20)
	var last int64
	for round := range 3 {
		b, err := pool.Get(t.Context(), 1<<10)
		if err != nil {
			t.Fatal(err)
		}
		var lists [][]string
		for i := range 500 {
			l := b.Arena().Strings(1 + i%3)
			for k := range l {
				l[k] = strconv.Itoa(i)
			}
			lists = append(lists, l)
		}
		for i, l := range lists {
			for _, s := range l {
				if s != strconv.Itoa(i) {
					t.Fatalf("round %d: list %d is %q", round, i, l)
				}
			}
			if cap(l) != len(l) {
				t.Fatalf("list %d could grow into its neighbour", i)
			}
		}
		b.Charge()
		if b.Charged() < 1000*16 {
			t.Errorf("round %d: %d bytes charged", round, b.Charged())
		}
		last = b.Charged()
		b.Release()
	}
	b, err := pool.Get(t.Context(), 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	e := b.Append()
	l := b.Arena().Strings(1)
	l[0] = "a"
	e.Set("resource_ids", ListValue(l))
	e.Route = "/x"
	c := b.Clone()
	b.Arena().Poison()
	if v, _ := c.Events[0].Get("resource_ids"); v.List()[0] != "a" || c.Events[0].Route != "/x" || l[0] == "a" {
		t.Errorf("the copy holds %q, the poisoned list %q, charged %d", v.List(), l, last)
	}
}

func TestThereIsMemoryBehindTheBlock(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, blockMargin, smallBytes - 1, smallBytes, smallBytes + 1, MaxBatchBytes, 2 * MaxBatchBytes} {
		pooled, err := NewPool(1<<30).Get(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*Batch{pooled, NewBatch("s")} {
			block := b.Arena().Block(n)
			if behind := cap(block) - len(block); behind < blockMargin {
				t.Errorf("%d bytes are behind a block of %d", behind, n)
			}
		}
	}
}
