package client

import (
	"errors"
	"fmt"

	"github.com/commucat/commucat/sdk/ccp"
)

// Kind classifies an Error.
type Kind uint8

// Error kinds.
const (
	// Refused: the relay said no; Code is its stable code. Not retried if the
	// code says that the relay will not change its mind.
	Refused Kind = iota + 1
	// Downgraded: the answer does not cover what was offered, or accepts less than
	// this profile once had. Somebody may sit between; not retried on that path
	// within a minute.
	Downgraded
	// Unreachable: no endpoint could be dialled. Retried.
	Unreachable
	// Broken: the connection failed in the middle. Retried.
	Broken
	// Invalid: the caller's input, or a damaged profile or store.
	Invalid
	// Full: the outbox or the list of requests is full.
	Full
	// InUse: another process holds the profile.
	InUse
	// Moved: the relay asked the device to dial again. Retried.
	Moved
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

func downgraded(text string, err error) error {
	return &Error{Kind: Downgraded, Text: text, Err: err}
}

func storeFailed(err error) error {
	return &Error{Kind: Invalid, Text: "the message store failed; check the disk", Err: err}
}

// IsRefused says whether err is a refusal by the relay, and with which code.
func IsRefused(err error) (code string, ok bool) {
	var e *Error
	if errors.As(err, &e) && e.Kind == Refused {
		return e.Code, true
	}
	return "", false
}

func isKind(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}

// final says whether err will not go away by trying again.
func final(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Kind == Invalid || e.Kind == Refused && refusal(e.Code) != ""
}

// refusal explains the codes that end a client for good: what the user can do.
// "" stands for codes that may go away.
func refusal(code string) string {
	switch code {
	case ccp.CodeUnknownDevice:
		return "the relay does not know this device; register again or pair it with another device"
	case ccp.CodeKeyMismatch:
		return "the relay knows this device id with another key; register again under a new profile"
	case ccp.CodeRevoked:
		return "this device was revoked; pair it again from another device of the account"
	case ccp.CodeProofInvalid:
		return "the relay refused the proof of the device key; check that the profile belongs to this relay"
	case ccp.CodeCertificateInvalid:
		return "the device certificate is not valid any more; pair the device again"
	case ccp.CodeInviteInvalid:
		return "the invitation is unknown, spent or expired; ask for a new link"
	case ccp.CodeHandleTaken:
		return "that handle is taken; choose another"
	case ccp.CodeHandleInvalid:
		return "that handle is not allowed; choose one of 1 to 64 letters, digits and signs that print, without spaces and @ / \\ \" < > &"
	case ccp.CodeDeviceLimit:
		return "the account has as many devices as it may; revoke one first"
	case ccp.CodePairingInvalid:
		return "the pairing code is unknown, used or expired; create a new one"
	}
	return ""
}

// ended is the error for an Error frame that ends the session.
func ended(code string) error {
	text := refusal(code)
	switch {
	case text != "":
	case code == ccp.CodeReplaced:
		text = "another connection of this device took over; if this happens again and again, a copy of the profile is in use elsewhere: pair that place as a device of its own"
	case code == ccp.CodeUnavailable:
		text = "the relay cannot serve this device at the moment; trying again"
	default:
		text = "the relay ended the session"
	}
	return &Error{Kind: Refused, Code: printable(code), Text: text}
}

// moving is the error for a session that is left because the relay asked for it.
func moving(reason string) error {
	text := "the relay asked to connect anew"
	switch reason {
	case ccp.MoveDrain:
		text = "the relay stops or starts anew, and asked to connect anew"
	case ccp.MoveBlocked:
		text = "the relay finds this way blocked, and asked for another"
	case ccp.MoveUpgrade:
		text = "the relay ends this transport, or renews it (a reload, a rotation, an upgrade), and asked to connect anew"
	}
	return &Error{Kind: Moved, Text: text}
}

// refusedMessage is the error for a message that the relay refused as a whole.
func refusedMessage(code string) error {
	text := "the relay refused the message"
	switch code {
	case ccp.CodeUnreachable:
		text = "nobody of that name takes messages from this device; check the name, or ask them for contact"
	case ccp.CodeNoChannel, ccp.CodeNotMember:
		text = "this device is not in the channel; join it first"
	case ccp.CodeFull:
		text = "the queues of all recipients are full; try again when they have been connected"
	case ccp.CodeTooLarge:
		text = "the message is too large for a recipient; send it in parts"
	case ccp.CodeBadKind:
		text = "the relay does not carry messages of this kind"
	}
	return &Error{Kind: Refused, Code: printable(code), Text: text}
}

// refusedRequest is the error for a control frame that the relay refused.
func refusedRequest(code string) error {
	text := "the relay refused the request"
	switch code {
	case ccp.CodeChannelTaken:
		text = "a member uses that channel for others already; choose another number"
	case ccp.CodeUnreachable:
		text = "a member is unknown or does not take messages from this device"
	case ccp.CodeNotMember:
		text = "this device is not a member of the group; ask its owner for an invitation"
	case ccp.CodeUnavailable:
		text = "the relay cannot do this at the moment; try again"
	}
	return &Error{Kind: Refused, Code: printable(code), Text: text}
}

// printable shortens a text of the peer for an error.
func printable(s string) string {
	out := make([]rune, 0, 64)
	for _, r := range s {
		if len(out) == 64 {
			break
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}
