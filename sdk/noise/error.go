package noise

import "errors"

// ErrorKind says what went wrong.
type ErrorKind uint8

// The kinds of Error.
const (
	KindConfig  ErrorKind = iota + 1 // a Config that cannot work
	KindState                        // a call out of turn, or after a failure
	KindLength                       // a message or payload shorter or longer than Noise allows
	KindKey                          // an X25519 result of zero
	KindDecrypt                      // a message or record that does not authenticate
	KindPSK                          // the pre-shared key is needed and not set
	KindRecord                       // a record whose length is outside 16 to 65,535
	KindRetired                      // the counter has reached its end
	KindKEM                          // a KEM key or ciphertext that is malformed
	KindRandom                       // the source of randomness failed
)

// Error is the typed error of this package. Two of them match under errors.Is
// when their kinds are equal.
type Error struct {
	Kind   ErrorKind
	Detail string
	Err    error // the cause, may be nil
}

// Error names the input at fault; it holds no secret.
func (e *Error) Error() string {
	if e.Err != nil {
		return "noise: " + e.Detail + ": " + e.Err.Error()
	}
	return "noise: " + e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind
}

// ErrIncomplete says that the input ends before the record does: keep the
// bytes and read more. It is the only error after which an Opener goes on.
var ErrIncomplete = errors.New("noise: incomplete record")

// One error of each kind that callers decide on, for errors.Is.
var (
	// ErrState: a call out of turn or after a failure.
	ErrState = &Error{Kind: KindState, Detail: "call out of turn"}
	// ErrLength: a message that is too short or too long.
	ErrLength = &Error{Kind: KindLength, Detail: "message length"}
	// ErrKey: a public key of low order.
	ErrKey = &Error{Kind: KindKey, Detail: "shared secret is zero"}
	// ErrDecrypt: a message or record that does not authenticate.
	ErrDecrypt = &Error{Kind: KindDecrypt, Detail: "message does not authenticate"}
	// ErrPSK: SetPSK was not called before the last message.
	ErrPSK = &Error{Kind: KindPSK, Detail: "pre-shared key not set"}
	// ErrRecord: an announced record length outside 16 to 65,535.
	ErrRecord = &Error{Kind: KindRecord, Detail: "record length out of range"}
	// ErrRetired: 2^48 records were sealed or opened; the connection must end.
	ErrRetired = &Error{Kind: KindRetired, Detail: "record counter is used up"}
	// ErrKEM: a malformed encapsulation key or ciphertext.
	ErrKEM = &Error{Kind: KindKEM, Detail: "malformed kem value"}
)
