package link

import "errors"

// ErrorKind says why a link or catalogue is refused.
type ErrorKind uint8

// The kinds of [Error].
const (
	// Malformed: not a link, or one that breaks a limit or is not canonical.
	Malformed ErrorKind = iota + 1
	// NewerVersion: made for a newer version of this program.
	NewerVersion
	// BadSignature: the root key did not sign it.
	BadSignature
	// WrongDomain: the catalogue is another relay's.
	WrongDomain
	// Expired: its time is over.
	Expired
	// Stale: a catalogue with a higher serial has been seen.
	Stale
	// Unsupported: the relay demands a capability that the caller lacks.
	Unsupported
)

var kindTexts = [...]string{
	Malformed:    "malformed",
	NewerVersion: "made for a newer version",
	BadSignature: "signature does not match",
	WrongDomain:  "made for another domain",
	Expired:      "expired",
	Stale:        "older than one seen before",
	Unsupported:  "demands what this program lacks",
}

// String is a short text for people.
func (k ErrorKind) String() string {
	if k == 0 || int(k) >= len(kindTexts) {
		return "unknown error"
	}
	return kindTexts[k]
}

// Error is why a link or catalogue is refused. It never holds a part of it.
type Error struct {
	Kind ErrorKind
	// What is "link" or "catalogue".
	What string
	// Detail is what is wrong, may be "".
	Detail string
}

// Error names what is refused, the kind and the detail.
func (e *Error) Error() string {
	s := e.What + ": " + e.Kind.String()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// KindOf is the kind of the *Error in err's chain, 0 if there is none.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}

func badLink(kind ErrorKind, detail string) error { return &Error{kind, "link", detail} }

func badCatalogue(kind ErrorKind, detail string) error { return &Error{kind, "catalogue", detail} }
