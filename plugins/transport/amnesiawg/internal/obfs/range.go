package obfs

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Range is a closed interval of numbers, of type words or of sizes. As text it is
// "n" or "low-high".
type Range struct{ Low, High uint32 }

var errRange = errors.New(`must be a number or a range "low-high" of numbers up to 4294967295`)

// ParseRange reads "n" or "low-high", decimal.
func ParseRange(s string) (Range, error) {
	low, high, two := strings.Cut(s, "-")
	if !two {
		high = low
	}
	l, err1 := strconv.ParseUint(low, 10, 32)
	h, err2 := strconv.ParseUint(high, 10, 32)
	if err1 != nil || err2 != nil || low[0] == '+' || high[0] == '+' {
		return Range{}, errRange
	}
	if l > h {
		return Range{}, errors.New("the range ends before it begins")
	}
	return Range{uint32(l), uint32(h)}, nil
}

// String is the shortest text that ParseRange reads.
func (r Range) String() string {
	s := strconv.FormatUint(uint64(r.Low), 10)
	if r.Low != r.High {
		s += "-" + strconv.FormatUint(uint64(r.High), 10)
	}
	return s
}

// MarshalText is String.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRange; empty text is the zero Range.
func (r *Range) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*r = Range{}
		return nil
	}
	v, err := ParseRange(string(b))
	if err == nil {
		*r = v
	}
	return err
}

// ConfigType names the type in configuration pages.
func (Range) ConfigType() string { return "number or range" }

// Contains says whether v lies in the range.
func (r Range) Contains(v uint32) bool { return v-r.Low <= r.High-r.Low }

// Overlaps says whether two ranges share a number.
func (r Range) Overlaps(o Range) bool { return r.Low <= o.High && o.Low <= r.High }

// Pick draws a number of the range, each as likely as the others.
func (r Range) Pick() uint32 { return r.Low + uint32(rand.Uint64N(uint64(r.High-r.Low)+1)) }
