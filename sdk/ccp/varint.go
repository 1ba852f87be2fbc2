package ccp

import (
	"errors"
	"math/bits"
)

// maxVarint is the longest varint in bytes.
const maxVarint = 10

// AppendVarint appends v as unsigned LEB128 in its shortest form.
func AppendVarint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// VarintLen is the number of bytes that AppendVarint writes for v, 1 to 10.
func VarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// Varint reads a varint from the front of b and says how many bytes it took.
// Overlong forms are read; of the tenth byte only the lowest bit counts
// (ccp1.md 1.1). It returns ErrIncomplete if b ends before the varint does, and
// an *Error of kind VarintOverflow if the tenth byte announces an eleventh.
func Varint(b []byte) (v uint64, n int, err error) {
	for i := range min(len(b), maxVarint) {
		c := b[i]
		v |= uint64(c&0x7f) << (7 * i) // the shift drops surplus bits of byte 10
		if c < 0x80 {
			return v, i + 1, nil
		}
	}
	if len(b) >= maxVarint {
		return 0, 0, malformed(VarintOverflow)
	}
	return 0, 0, ErrIncomplete
}

// bodyVarint reads a varint inside a complete body, where an early end is
// damage.
func bodyVarint(b []byte) (v uint64, n int, err error) {
	v, n, err = Varint(b)
	if errors.Is(err, ErrIncomplete) {
		err = malformed(Truncated)
	}
	return v, n, err
}
