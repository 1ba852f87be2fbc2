package ccp

import "math"

// Limits of the frame codec (ccp1.md 1.3), in bytes unless they are numbers.
const (
	// MaxFrame bounds the body of a frame and its payload.
	MaxFrame = 16 << 20
	// MaxControl bounds a control payload.
	MaxControl = 256 << 10
	// MaxChannel is the highest channel.
	MaxChannel = math.MaxUint32
	// MaxSequence is the highest sequence number of a connection.
	MaxSequence = math.MaxUint32
	// MaxRecordFrame is the largest frame, with its length prefix, that one Noise
	// record can hold: peers without records receive no larger one.
	MaxRecordFrame = 65519
	// MaxHeader is the largest number of bytes before the payload.
	MaxHeader = 4 + 1 + 5 + 5 + 4
)

// Frame is one decoded frame.
type Frame struct {
	Type     Type
	Channel  uint32
	Sequence uint32
	// Payload aliases the input of Decode.
	Payload []byte
}

// Size reads the length prefix at the front of b and says how many bytes the
// first frame takes with it. It returns ErrIncomplete while the prefix is cut,
// and an *Error of kind VarintOverflow, FrameLimit or EmptyBody as soon as the
// prefix shows it, before the body has arrived.
func Size(b []byte) (total int, err error) {
	body, n, err := Varint(b)
	switch {
	case err != nil:
		return 0, err
	case body > MaxFrame:
		return 0, malformed(FrameLimit)
	case body == 0:
		return 0, malformed(EmptyBody)
	}
	return n + int(body), nil
}

// Decode reads one frame from the front of b and says how many bytes it took,
// which is always the prefix and the announced body. It returns ErrIncomplete
// while bytes are missing and an *Error for everything that more bytes cannot
// mend. Bytes of the body behind the payload are ignored (ccp1.md 1.4).
//
// It does not allocate unless it fails.
func Decode(b []byte) (f Frame, n int, err error) {
	total, err := Size(b)
	if err != nil {
		return Frame{}, 0, err
	}
	if len(b) < total {
		return Frame{}, 0, ErrIncomplete
	}
	_, prefix, _ := Varint(b)
	if f, err = decodeBody(b[prefix:total:total]); err != nil {
		return Frame{}, 0, err
	}
	return f, total, nil
}

func decodeBody(body []byte) (f Frame, err error) {
	f.Type = Type(body[0])
	if !f.Type.Valid() {
		return Frame{}, malformed(UnknownType)
	}
	body = body[1:]
	if f.Channel, body, err = limited(body, ChannelLimit); err != nil {
		return Frame{}, err
	}
	if f.Sequence, body, err = limited(body, SequenceLimit); err != nil {
		return Frame{}, err
	}
	size, n, err := bodyVarint(body)
	switch {
	case err != nil:
		return Frame{}, err
	case size > MaxFrame:
		return Frame{}, malformed(PayloadLimit)
	case size > uint64(len(body)-n):
		return Frame{}, malformed(Truncated)
	}
	f.Payload = body[n : n+int(size) : n+int(size)]
	if f.Type.Control() {
		if err := ValidControl(f.Payload); err != nil {
			return Frame{}, err
		}
	}
	return f, nil
}

// limited reads a varint of at most 32 bits.
func limited(b []byte, over ErrorKind) (uint32, []byte, error) {
	v, n, err := bodyVarint(b)
	switch {
	case err != nil:
		return 0, nil, err
	case v > math.MaxUint32:
		return 0, nil, malformed(over)
	}
	return uint32(v), b[n:], nil
}

// Append appends the canonical encoding of f (shortest varints, no bytes behind
// the payload) to dst. A control payload must be valid JSON already; Append
// checks its size, not its text. On error dst is returned unchanged.
func Append(dst []byte, f Frame) ([]byte, error) {
	out, err := AppendHeader(dst, f.Type, f.Channel, f.Sequence, len(f.Payload))
	if err != nil {
		return dst, err
	}
	return append(out, f.Payload...), nil
}

// AppendHeader appends everything of a frame but its payload, which the caller
// appends next and which must have exactly payloadLen bytes. On error dst is
// returned unchanged.
func AppendHeader(dst []byte, t Type, channel, sequence uint32, payloadLen int) ([]byte, error) {
	body, err := bodyLen(t, channel, sequence, payloadLen)
	if err != nil {
		return dst, err
	}
	dst = AppendVarint(dst, uint64(body))
	dst = append(dst, byte(t))
	dst = AppendVarint(dst, uint64(channel))
	dst = AppendVarint(dst, uint64(sequence))
	return AppendVarint(dst, uint64(payloadLen)), nil
}

// EncodedLen is the number of bytes that Append writes for a frame, or the error
// that it returns.
func EncodedLen(t Type, channel, sequence uint32, payloadLen int) (int, error) {
	body, err := bodyLen(t, channel, sequence, payloadLen)
	if err != nil {
		return 0, err
	}
	return VarintLen(uint64(body)) + body, nil
}

func bodyLen(t Type, channel, sequence uint32, payloadLen int) (int, error) {
	switch {
	case !t.Valid():
		return 0, malformed(UnknownType)
	case t.Control() && payloadLen > MaxControl:
		return 0, malformed(ControlLimit)
	case payloadLen < 0 || payloadLen > MaxFrame:
		return 0, malformed(PayloadLimit)
	}
	n := 1 + VarintLen(uint64(channel)) + VarintLen(uint64(sequence)) + VarintLen(uint64(payloadLen)) + payloadLen
	if n > MaxFrame {
		return 0, malformed(FrameLimit)
	}
	return n, nil
}
