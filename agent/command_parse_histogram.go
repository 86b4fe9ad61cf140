package agent

import (
	"math"
	"math/bits"
	"time"
)

// The histogram counts durations in whole microseconds. Up to 2^histogramBits of them each has a bucket of its own; beyond, each power of
// two has histogramSteps buckets of the same width, and a bucket stands for its middle: what it says of a duration is off by at
// most 1/(2×histogramSteps) of it, which is 0.8 %, or by half a microsecond, whichever is more.
const (
	histogramBits  = 6
	histogramSteps = 1 << histogramBits
	// histogramTop is the first power of two microseconds that is not told from longer times: 38 hours.
	histogramTop     = 37
	histogramBuckets = (histogramTop - histogramBits + 1) * histogramSteps
)

// histogram counts durations. Its memory does not depend on how many there are.
type histogram struct {
	n       int64
	least   time.Duration
	most    time.Duration
	buckets []int64 // up to the highest that was needed
}

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	us := (uint64(max(d, 0)) + uint64(time.Microsecond/2)) / uint64(time.Microsecond)
	if us >= 1<<histogramTop {
		return histogramBuckets - 1
	}
	shift := bits.Len64(us) - 1 - histogramBits
	if shift <= 0 {
		return int(us)
	}
	return shift<<histogramBits + int(us>>shift)
}

// middleOf returns the duration that a bucket stands for.
func middleOf(bucket int) time.Duration {
	shift := bucket>>histogramBits - 1
	if shift <= 0 {
		return time.Duration(bucket) * time.Microsecond
	}
	low := time.Duration(histogramSteps+bucket&(histogramSteps-1)) << shift
	return low*time.Microsecond + (time.Microsecond<<shift-time.Microsecond)/2
}

// add counts a duration.
func (h *histogram) add(d time.Duration) {
	k := bucketOf(d)
	if k >= len(h.buckets) {
		h.buckets = append(h.buckets, make([]int64, k+1-len(h.buckets))...)
	}
	h.buckets[k]++
	if h.n == 0 || d < h.least {
		h.least = d
	}
	h.most = max(h.most, d)
	h.n++
}

// quantile returns the least duration that the share q of all durations does not go beyond. Without any it is 0.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(1, int64(math.Ceil(q*float64(h.n))))
	for k, n := range h.buckets {
		if rank -= n; rank <= 0 {
			return min(max(middleOf(k), h.least), h.most)
		}
	}
	return h.most
}
