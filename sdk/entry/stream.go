package entry

import (
	"encoding/binary"
	"fmt"
)

const streamSize = 1 + 16 + 8

// Op says what a request of a split stream does.
type Op uint8

// The operations of split streams.
const (
	// OpOpen makes the stream and is its first [OpDown].
	OpOpen Op = 0
	// OpDown fetches downstream bytes from the offset on and frees those below.
	OpDown Op = 1
	// OpUp carries upstream bytes that start at the offset.
	OpUp Op = 2
	// OpClose ends the upstream at the offset; with [Abandon] it ends the stream.
	OpClose Op = 3
)

// Abandon is the offset of an [OpClose] that ends both directions at once.
const Abandon = 1<<64 - 1

// String names the operation.
func (o Op) String() string {
	switch o {
	case OpOpen:
		return "open"
	case OpDown:
		return "down"
	case OpUp:
		return "up"
	case OpClose:
		return "close"
	default:
		return fmt.Sprintf("op %d", uint8(o))
	}
}

// Stream is the part of a token that names a split stream ("st"): op u8,
// id 16, offset u64 big endian.
type Stream struct {
	Op Op
	// ID is drawn by the client.
	ID [16]byte
	// Offset counts bytes of one direction from the stream's start.
	Offset uint64
}

// String is the wire form, [StreamLength] characters.
func (s Stream) String() string {
	var raw [streamSize]byte
	raw[0] = byte(s.Op)
	copy(raw[1:17], s.ID[:])
	binary.BigEndian.PutUint64(raw[17:], s.Offset)
	return strictURL.EncodeToString(raw[:])
}

// ParseStream reads the wire form. Every accepted text is the one that
// [Stream.String] gives back. The error is [ErrMalformed].
func ParseStream(text string) (Stream, error) {
	if len(text) != StreamLength {
		return Stream{}, ErrMalformed
	}
	var raw [streamSize]byte
	if !decode(raw[:], text) || Op(raw[0]) > OpClose {
		return Stream{}, ErrMalformed
	}
	s := Stream{Op: Op(raw[0]), Offset: binary.BigEndian.Uint64(raw[17:])}
	copy(s.ID[:], raw[1:17])
	return s, nil
}

// decode fills dst from text of the matching length; line breaks, which the
// standard decoder skips, make it fail by their missing bytes.
func decode(dst []byte, text string) bool {
	n, err := strictURL.Decode(dst, []byte(text))
	return err == nil && n == len(dst)
}
