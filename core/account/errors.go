package account

import (
	"errors"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// Error is a refusal: the request itself is at fault and will stay so.
type Error struct {
	// Code is the stable code for the wire (protocol-extensions.md section 2).
	Code string
	// Text says why, for logs; it names no secret and never goes to the peer.
	Text string
	// Pairing says that a pairing code would help.
	Pairing bool
	// Kind sorts the error for callers other than the handshake.
	Kind sdk.ErrorKind
}

// Error is the code with its text.
func (e *Error) Error() string { return "account: " + e.Code + ": " + e.Text }

// Is reports whether target is the same code, or this error's kind.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case *Error:
		return t.Code == e.Code && (t.Text == "" || t.Text == e.Text)
	case sdk.ErrorKind:
		return t == e.Kind
	}
	return false
}

// Codes beside those of package ccp.
const (
	// CodeHandleInvalid: the handle breaks the rules of CheckHandle.
	CodeHandleInvalid = ccp.CodeHandleInvalid
	// CodeDeviceLimit: the account has as many active devices as it may have.
	CodeDeviceLimit = ccp.CodeDeviceLimit
)

// Refusals of operations outside the handshake; compare with errors.Is.
var (
	// ErrNotFound: what was named does not exist, or belongs to another account: who
	// asks cannot tell the two apart.
	ErrNotFound = &Error{Code: "not_found", Text: "no such record", Kind: sdk.NotFound}
	// ErrToken: the token is unknown, expired or was dropped.
	ErrToken = &Error{Code: "token_invalid", Text: "token unknown or expired", Kind: sdk.Denied}
	// ErrRevoked: the device was revoked.
	ErrRevoked = &Error{Code: ccp.CodeRevoked, Text: "device is revoked", Kind: sdk.Denied}
	// ErrUnchanged: the new key equals the present one.
	ErrUnchanged = &Error{Code: "key_unchanged", Text: "public key unchanged", Kind: sdk.Conflict}
	// ErrTooSoon: the rotation interval has not elapsed.
	ErrTooSoon = &Error{Code: "too_soon", Text: "rotation interval not elapsed", Kind: sdk.Conflict}
	// ErrKeyReused: the key was rotated away before.
	ErrKeyReused = &Error{Code: "key_reused", Text: "key was used before", Kind: sdk.Conflict}
	// ErrProof: a signature does not verify, or its time is over.
	ErrProof = &Error{Code: ccp.CodeProofInvalid, Text: "signature verification failed", Kind: sdk.Invalid}
	// ErrProofTime: the proof's end lies in the past or too far ahead.
	ErrProofTime = &Error{Code: ccp.CodeProofInvalid, Text: "proof expired or too long", Kind: sdk.Invalid}
)

func refuse(code, text string) *Error { return &Error{Code: code, Text: text, Kind: sdk.Denied} }

func refusePairing(code, text string) *Error {
	return &Error{Code: code, Text: text, Kind: sdk.Denied, Pairing: true}
}

func invalid(text string) *Error { return &Error{Code: "invalid", Text: text, Kind: sdk.Invalid} }

// isConflict reports whether a Commit failed on a condition, so that reading
// again and repeating makes sense.
func isConflict(err error) bool {
	var c *storage.ConflictError
	return errors.As(err, &c)
}
