package ccp

import "encoding/binary"

// MaxDoneRanges is how many ranges a Done may have.
const MaxDoneRanges = 16

// Done says what the client has stored durably; the relay deletes those rows:
//
//	cursor u64 | n u8 | n × (from u64 | to u64)
//
// Integers are big endian.
type Done struct {
	// Cursor: every position up to it.
	Cursor uint64
	// Ranges: from and to, both included, from not above to, at most
	// MaxDoneRanges in any order.
	Ranges [][2]uint64
}

// ParseDone is Done.Parse into a fresh Done.
func ParseDone(payload []byte) (Done, error) {
	var d Done
	err := d.Parse(payload)
	return d, err
}

// Parse reads a payload. The former backing array of Ranges is used again.
func (d *Done) Parse(payload []byte) error {
	ranges := d.Ranges[:0]
	*d = Done{Ranges: ranges}
	if len(payload) < 9 {
		return &Error{Kind: Truncated, Field: "done"}
	}
	n, rest := int(payload[8]), payload[9:]
	switch {
	case n > MaxDoneRanges:
		return badField("ranges", "more than 16")
	case len(rest) < 16*n:
		return &Error{Kind: Truncated, Field: "ranges"}
	case len(rest) > 16*n:
		return badField("ranges", "bytes behind the last one")
	}
	for ; len(rest) > 0; rest = rest[16:] {
		r := [2]uint64{binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[8:])}
		if r[0] > r[1] {
			return badField("ranges", "from above to")
		}
		ranges = append(ranges, r)
	}
	d.Cursor, d.Ranges = binary.BigEndian.Uint64(payload), ranges
	return nil
}

// AppendDone appends the payload. On error dst is returned unchanged.
func AppendDone(dst []byte, d Done) ([]byte, error) {
	if len(d.Ranges) > MaxDoneRanges {
		return dst, badField("ranges", "more than 16")
	}
	for _, r := range d.Ranges {
		if r[0] > r[1] {
			return dst, badField("ranges", "from above to")
		}
	}
	dst = binary.BigEndian.AppendUint64(dst, d.Cursor)
	dst = append(dst, byte(len(d.Ranges)))
	for _, r := range d.Ranges {
		dst = binary.BigEndian.AppendUint64(dst, r[0])
		dst = binary.BigEndian.AppendUint64(dst, r[1])
	}
	return dst, nil
}
