package client

import (
	"errors"
	"fmt"
)

// Kind classifies an Error.
type Kind uint8

// Error kinds.
const (
	// Refused: the relay said no; Code is its stable code. Not retried.
	Refused Kind = iota + 1
	// Downgraded: the answer does not cover what was offered, or accepts less than
	// this profile once had. Somebody may sit between; not retried on that path
	// within a minute.
	Downgraded
	// Unreachable: no endpoint could be dialled. Retried.
	Unreachable
	// Broken: the connection failed in the middle. Retried.
	Broken
	// Invalid: the caller's input, or a damaged profile.
	Invalid
	// Full: the outbox is full.
	Full
	// InUse: another process holds the profile.
	InUse
)

// Error is the error type of this package.
type Error struct {
	Kind Kind
	// Code is the relay's stable code ("revoked", "invite_invalid" …) when Kind is
	// Refused.
	Code string
	// Text says what happened and what to do.
	Text string
	Err  error
}

func (e *Error) Error() string {
	s := e.Text
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// ErrClosed is returned by calls on a closed client.
var ErrClosed = errors.New("client is closed")

func invalid(format string, a ...any) error {
	return &Error{Kind: Invalid, Text: fmt.Sprintf(format, a...)}
}

func broken(text string, err error) error {
	return &Error{Kind: Broken, Text: text, Err: err}
}

// IsRefused says whether err is a refusal by the relay, and with which code.
func IsRefused(err error) (code string, ok bool) {
	var e *Error
	if errors.As(err, &e) && e.Kind == Refused {
		return e.Code, true
	}
	return "", false
}

// refusals explains the codes that end a client for good: what the user can do.
var refusals = map[string]string{
	"unknown_device":      "the relay does not know this device; register again or pair it with another device",
	"key_mismatch":        "the relay knows this device id with another key",
	"revoked":             "this device was revoked; pair it again from another device of the account",
	"proof_invalid":       "the relay refused the proof of the device key; check that the profile belongs to this relay",
	"certificate_invalid": "the device certificate is not valid any more; pair the device again",
	"invite_invalid":      "the invitation is unknown, spent or expired; ask for a new link",
	"handle_taken":        "that handle is taken; choose another",
	"pairing_invalid":     "the pairing code is unknown, used or expired; create a new one",
}
