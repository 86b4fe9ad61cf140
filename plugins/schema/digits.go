package schema

// zeros makes text of what digits returns.
const zeros = 0x3030303030303030

// digits returns the eight decimal digits of v, which is below 1e8, as numbers from 0 to 9, one in each byte, the first one in the lowest.
// All are made at once: halves, pairs, digits.
func digits(v uint32) uint64 {
	x := uint64(v/1e4) | uint64(v%1e4)<<32
	q := x * 10486 >> 20 & (0x7f | 0x7f<<32) // a hundredth of each half
	x = q | (x-100*q)<<16
	q = x * 103 >> 10 & (0xf | 0xf<<16 | 0xf<<32 | 0xf<<48) // a tenth of each pair
	return q | (x-10*q)<<8
}
