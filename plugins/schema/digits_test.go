package schema

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestDigitsAreThoseOfTheNumber(t *testing.T) {
	t.Parallel()
	check := func(v uint32) {
		got := string(binary.LittleEndian.AppendUint64(nil, digits(v)|zeros))
		if want := fmt.Sprintf("%08d", v); got != want {
			t.Fatalf("%d has the digits %s", v, got)
		}
	}
	for v := range uint32(20000) { // all halves, in both places
		check(v % 10000)
		check(v % 10000 * 10000)
		check(99999999 - v)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		check(r.Uint32N(1e8))
	}
}
