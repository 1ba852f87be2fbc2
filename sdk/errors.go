package sdk

import (
	"errors"
	"strings"
)

// ErrorKind sorts errors by what the caller can do about them.
type ErrorKind uint8

// The kinds of error.
const (
	// Other is everything without a kind.
	Other ErrorKind = iota
	// Invalid: the input is wrong and will stay wrong.
	Invalid
	// NotFound: what was named does not exist.
	NotFound
	// Conflict: the state is not the one the caller expected.
	Conflict
	// Full: a quota is used up.
	Full
	// Unavailable: it may work later; the caller may repeat.
	Unavailable
	// Denied: the caller may not do this.
	Denied
	// Corrupt: stored data contradicts itself.
	Corrupt
	// Unsupported: the implementation does not offer this.
	Unsupported
	// Closed: the object has been closed.
	Closed
)

var kindNames = [...]string{"error", "invalid", "not found", "conflict", "full", "unavailable", "denied", "corrupt", "unsupported", "closed"}

// String is the kind in words.
func (k ErrorKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Error is the error type of this package and of the plugin kinds. A kind is also
// an error itself, so that errors.Is(err, sdk.Corrupt) asks for the kind.
type Error struct {
	Kind ErrorKind
	// Op names what was being done or with what, for example "ledger/file: open".
	Op string
	// Text says what is wrong; lower case, never a secret.
	Text string
	// Err is the cause; may be nil.
	Err error
}

// Error joins operation, text and cause.
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	for _, p := range []string{e.Op, e.Text} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if len(parts) == 0 {
		return e.Kind.String()
	}
	return strings.Join(parts, ": ")
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(ErrorKind)
	return ok && k == e.Kind
}

// Error makes a kind usable as the target of errors.Is.
func (k ErrorKind) Error() string { return k.String() }

// KindOf finds the kind of err, or Other.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k ErrorKind
	if errors.As(err, &k) {
		return k
	}
	var c *ConfigError
	if errors.As(err, &c) {
		return Invalid
	}
	return Other
}
