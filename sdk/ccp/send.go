package ccp

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// Limits of the frames of the capability ack (protocol-extensions.md section 5).
const (
	// MaxTo is how many recipients a Send may name.
	MaxTo = 64
	// MaxBody is the largest message body: as much as a Deliver with the longest
	// names can carry in one frame.
	MaxBody = MaxFrame - 1024
	// MaxName is the longest id in bytes.
	MaxName = 255
	// SendWindow is how many counters of Sends may be unanswered.
	SendWindow = 256
)

// MessageID names a message for ever: the sender makes it, so that a repeat
// after a lost Ack is the same message.
type MessageID struct {
	// Log is drawn when a profile is made or restored.
	Log [8]byte
	// Counter is 1, 2, 3 … over everything that the device sends.
	Counter uint64
}

// String is the log in hex, a hyphen and the counter.
func (id MessageID) String() string {
	return hex.EncodeToString(id.Log[:]) + "-" + strconv.FormatUint(id.Counter, 10)
}

// Send flags.
const (
	// SendNoCopies: no copies to the sender's other devices.
	SendNoCopies uint8 = 1
	// SendEphemeral: online recipients only, never stored.
	SendEphemeral uint8 = 2

	sendFlags = SendNoCopies | SendEphemeral
)

// Send is a message on its way to the relay:
//
//	kind u8 | log 8 | counter u64 | flags u8 | n u8 | n × (len u8 | id) | ttl u32 | body
//
// Integers are big endian. The channel is the frame's.
type Send struct {
	Kind  Type
	ID    MessageID
	Flags uint8
	// To are device or user ids, on channel 0 only: 1 to MaxTo of 1 to 255
	// bytes each.
	To [][]byte
	// TTL is in seconds; 0 means the relay's own limit.
	TTL uint32
	// Body is the payload of the inner frame.
	Body []byte
}

const sendFixed = 1 + 8 + 8 + 1 + 1

// ParseSend is Send.Parse into a fresh Send.
func ParseSend(payload []byte) (Send, error) {
	var s Send
	err := s.Parse(payload)
	return s, err
}

// Parse reads a payload; To and Body alias it. To's former backing array is used
// again, so that a caller who keeps a Send (or sets To to an array of MaxTo)
// allocates nothing.
//
// Errors of kind BadKind, BadID and BodyLimit are about this message alone: ID
// is filled in then, and the session goes on. All others are malformed.
func (s *Send) Parse(payload []byte) error {
	to := s.To[:0]
	*s = Send{To: to}
	if len(payload) < sendFixed {
		return &Error{Kind: Truncated, Field: "send"}
	}
	kind := Type(payload[0])
	id := MessageID{Log: [8]byte(payload[1:9]), Counter: binary.BigEndian.Uint64(payload[9:])}
	flags, count := payload[17], int(payload[18])
	if flags&^sendFlags != 0 {
		return badField("flags", "unknown bits")
	}
	if count > MaxTo {
		return badField("to", "more than 64 recipients")
	}
	rest := payload[sendFixed:]
	for range count {
		name, tail, err := shortName(rest, "to")
		switch {
		case err != nil:
			return err
		case len(name) == 0:
			return badField("to", "empty id")
		}
		to, rest = append(to, name), tail
	}
	if len(rest) < 4 {
		return &Error{Kind: Truncated, Field: "ttl"}
	}
	*s = Send{Kind: kind, ID: id, Flags: flags, To: to, TTL: binary.BigEndian.Uint32(rest), Body: rest[4:]}
	return s.check()
}

// check is what Parse and AppendSend have in common.
func (s *Send) check() error {
	switch {
	case !s.Kind.Sendable():
		return &Error{Kind: BadKind, Field: "kind"}
	case s.ID.Counter == 0:
		return &Error{Kind: BadID, Field: "counter"}
	}
	return checkBody(s.Kind, s.Body)
}

// checkBody refuses bodies that the inner frame could not carry.
func checkBody(kind Type, body []byte) error {
	switch {
	case len(body) > MaxBody:
		return &Error{Kind: BodyLimit, Field: "body"}
	case kind.Control():
		return ValidControl(body)
	}
	return nil
}

// CheckChannel returns an *Error of kind Field unless recipients are named
// exactly where they must be: on channel 0.
func (s *Send) CheckChannel(channel uint32) error {
	switch {
	case channel == 0 && len(s.To) == 0:
		return badField("to", "missing on channel 0")
	case channel != 0 && len(s.To) != 0:
		return badField("to", "only allowed on channel 0")
	}
	return nil
}

// shortName reads len u8 | bytes.
func shortName(b []byte, field string) (name, rest []byte, err error) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return nil, nil, &Error{Kind: Truncated, Field: field}
	}
	n := 1 + int(b[0])
	return b[1:n:n], b[n:], nil
}

// AppendSend appends the payload. On error dst is returned unchanged.
func AppendSend(dst []byte, s Send) ([]byte, error) {
	if err := s.check(); err != nil {
		return dst, err
	}
	if s.Flags&^sendFlags != 0 {
		return dst, badField("flags", "unknown bits")
	}
	if len(s.To) > MaxTo {
		return dst, badField("to", "more than 64 recipients")
	}
	for _, to := range s.To {
		if len(to) == 0 || len(to) > MaxName {
			return dst, badField("to", "not 1 to 255 bytes")
		}
	}
	dst = append(dst, byte(s.Kind))
	dst = append(dst, s.ID.Log[:]...)
	dst = binary.BigEndian.AppendUint64(dst, s.ID.Counter)
	dst = append(dst, s.Flags, byte(len(s.To)))
	for _, to := range s.To {
		dst = append(append(dst, byte(len(to))), to...)
	}
	dst = binary.BigEndian.AppendUint32(dst, s.TTL)
	return append(dst, s.Body...), nil
}
