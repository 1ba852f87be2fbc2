package wire

import (
	"math"
	"time"
)

// noTime stands for the zero time.
const noTime = math.MinInt64

// first and last are the ends of what unix nanoseconds can say.
var (
	first = time.Unix(0, math.MinInt64+1)
	last  = time.Unix(0, math.MaxInt64)
)

// FromTime writes a time; what is out of range becomes the nearest that is not.
func FromTime(t time.Time) int64 {
	switch {
	case t.IsZero():
		return noTime
	case t.Before(first):
		return math.MinInt64 + 1
	case t.After(last):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// ToTime reads what FromTime wrote.
func ToTime(n int64) time.Time {
	if n == noTime {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
