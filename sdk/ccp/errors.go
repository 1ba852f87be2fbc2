package ccp

import "errors"

// ErrIncomplete says that the input ends before the frame does and that more
// bytes can complete it: the caller keeps what it has and reads on. It is never
// returned for damage inside a complete body.
var ErrIncomplete = errors.New("ccp: incomplete")

// ErrorKind says what is wrong with an input.
type ErrorKind uint8

// The kinds of [Error]. The first group comes from the frame codec, the second
// from control envelopes and extension frames.
const (
	// VarintOverflow: the tenth byte of a varint still has its continuation bit.
	VarintOverflow ErrorKind = iota + 1
	// FrameLimit: the body is longer than MaxFrame.
	FrameLimit
	// EmptyBody: the announced body has no bytes at all.
	EmptyBody
	// UnknownType: the type byte is in no table.
	UnknownType
	// ChannelLimit: the channel is over MaxChannel.
	ChannelLimit
	// SequenceLimit: the sequence is over MaxSequence.
	SequenceLimit
	// PayloadLimit: the payload is longer than MaxFrame.
	PayloadLimit
	// ControlLimit: the control payload is longer than MaxControl.
	ControlLimit
	// Truncated: a length inside a complete body points behind its end.
	Truncated
	// Control: the payload is not the JSON that CCP-1 accepts.
	Control

	// Field: a key or field is missing, has the wrong type or breaks a limit.
	Field
	// Version: no protocol version in common, or a malformed offer.
	Version
	// Capability: a capability list breaks the rules of negotiation.
	Capability
	// Downgrade: the server did not see the Hello that the client sent.
	Downgrade
	// BadKind: an inner frame type that Send or Deliver cannot carry.
	BadKind
	// BadID: a message id whose counter is zero or too far ahead.
	BadID
	// BodyLimit: a message body longer than MaxBody.
	BodyLimit
)

var kindTexts = [...]string{
	VarintOverflow: "varint overflow",
	FrameLimit:     "frame exceeds limits",
	EmptyBody:      "empty frame body",
	UnknownType:    "invalid frame type",
	ChannelLimit:   "channel id exceeds limits",
	SequenceLimit:  "sequence exceeds limits",
	PayloadLimit:   "payload exceeds limits",
	ControlLimit:   "control payload exceeds limits",
	Truncated:      "truncated frame body",
	Control:        "invalid control payload",
	Field:          "invalid field",
	Version:        "protocol negotiation failed",
	Capability:     "invalid capabilities",
	Downgrade:      "hello was changed on the way",
	BadKind:        "inner frame type not allowed",
	BadID:          "invalid message id",
	BodyLimit:      "message body exceeds limits",
}

// String is the text of the reference where it has one, as records and logs of
// decode failures show it.
func (k ErrorKind) String() string {
	if k == 0 || int(k) >= len(kindTexts) {
		return "unknown error"
	}
	return kindTexts[k]
}

// Error is a final defect of an input. It never holds a value of the input that
// could be secret: Field and Detail are names and texts of this package, or for
// kind Version the numbers that the peer offered.
type Error struct {
	Kind ErrorKind
	// Field is the path of the JSON key or the name of the binary field.
	Field string
	// Detail is what is wrong with it.
	Detail string
}

// Error is the kind's text, the field and the detail, as far as present.
func (e *Error) Error() string {
	s := e.Kind.String()
	if e.Field != "" {
		s += ": " + e.Field
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Is makes errors.Is match an *Error of the same kind whose other fields are
// empty: errors.Is(err, &Error{Kind: Truncated}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && (t.Field == "" || t.Field == e.Field) && (t.Detail == "" || t.Detail == e.Detail)
}

// Code is the wire code that names the defect to the peer. Only BadKind, BadID
// and BodyLimit leave the session alive.
func (e *Error) Code() string {
	switch e.Kind {
	case BadKind:
		return CodeBadKind
	case BadID:
		return CodeBadID
	case BodyLimit:
		return CodeTooLarge
	case Downgrade:
		return CodeDowngrade
	case Version, Capability:
		return CodeHandshake
	default:
		return CodeDecode
	}
}

// KindOf is the kind of the *Error in err's chain, 0 if there is none.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}

func malformed(kind ErrorKind) error { return &Error{Kind: kind} }

func badField(name, detail string) error { return &Error{Kind: Field, Field: name, Detail: detail} }
