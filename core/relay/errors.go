package relay

import "errors"

var (
	// ErrUnknown is what Accounts answer for a device, user or handle that does
	// not exist.
	ErrUnknown = errors.New("relay: unknown")
	// ErrReplaced says that a newer connection of the device is attached.
	ErrReplaced = errors.New("relay: replaced by a newer connection")
	// ErrClosed says that the hub or the link has ended.
	ErrClosed = errors.New("relay: closed")
	// ErrFatal is wrapped by the errors of Handle after which the session must
	// end: the peer broke the protocol.
	ErrFatal = errors.New("relay: protocol violation")
)

// Codes of Error frames that protocol-extensions.md does not name.
const (
	// CodeBadSender: a control frame names another sender than the session's.
	CodeBadSender = "bad_sender"
	// CodeBadRequest: a control frame lacks a key or has one of the wrong type.
	CodeBadRequest = "bad_request"
	// CodeGroupExists: GroupCreate with an id that is in use.
	CodeGroupExists = "group_exists"
	// CodeNoGroup: a group that does not exist or that the sender may not see.
	CodeNoGroup = "no_group"
	// CodeNotAllowed: the sender's role does not allow the change.
	CodeNotAllowed = "not_allowed"
	// CodeLimit: a table or list is at its limit.
	CodeLimit = "limit"
	// CodeNoCall: a call that does not exist or that the sender is not part of.
	CodeNoCall = "no_call"
	// CodeCallExists: an offer with a call id in use.
	CodeCallExists = "call_exists"
	// CodeBadMedia: a media packet whose header or codec does not fit its call.
	CodeBadMedia = "bad_media"
)

// refusal is an error that becomes an Error frame; the session goes on.
type refusal struct {
	code, detail string
}

func (r *refusal) Error() string {
	if r.detail == "" {
		return r.code
	}
	return r.code + ": " + r.detail
}

func refuse(code, detail string) error { return &refusal{code, detail} }
