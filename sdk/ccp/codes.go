package ccp

// Wire codes: the "error" key of Error frames, and of the refusals in a
// [SendAck] (ccp1.md 3.8 and W14, protocol-extensions.md sections 1, 2, 5, 6).
const (
	// CodeHandshake is the only code before Confirm; nothing tells the causes
	// apart on the wire.
	CodeHandshake = "handshake"
	// CodeDecode: a frame that cannot be decoded; the session ends.
	CodeDecode = "decode"
	// CodeDowngrade is the client's own finding: the server saw another Hello.
	CodeDowngrade = "downgrade"

	// After Confirm; the session ends.
	CodeUnknownDevice      = "unknown_device"
	CodeKeyMismatch        = "key_mismatch"
	CodeRevoked            = "revoked"
	CodeProofInvalid       = "proof_invalid"
	CodeCertificateInvalid = "certificate_invalid"
	CodeInviteInvalid      = "invite_invalid"
	CodeHandleTaken        = "handle_taken"
	CodeHandleInvalid      = "handle_invalid"
	CodePairingInvalid     = "pairing_invalid"
	CodeDeviceLimit        = "device_limit"
	CodeUseXK              = "use_xk"

	// CodeUnavailable is a passing failure, before or after establishment.
	CodeUnavailable = "unavailable"
	// CodeReplaced: a newer connection of the same device took over.
	CodeReplaced = "replaced"

	// Of single messages; the session goes on.
	CodeNotMember    = "not_member"
	CodeNoChannel    = "no_channel"
	CodeChannelTaken = "channel_taken"
	CodeUnreachable  = "unreachable"
	CodeBadID        = "bad_id"
	CodeBadKind      = "bad_kind"
	CodeFull         = "full"
	CodeGone         = "gone"
	CodeTooLarge     = "too_large"
)

// ErrorBody is the payload of an Error frame. Only Error is required.
type ErrorBody struct {
	// Error is the stable code.
	Error string
	// Detail is a text for people; peers must not act on it.
	Detail string
	// Ack is the sequence of the frame that the error answers, 0 when none.
	Ack uint32
	// ID names the message that the error is about; its counter is 0 when there
	// is none.
	ID MessageID
	// RetryMS is how long to wait before a repeat, milliseconds; 0 when the code
	// is final.
	RetryMS uint32
	// Title and PairingRequired are the reference's extra keys of its pairing
	// gate.
	Title           string
	PairingRequired bool
}

// Append appends the JSON form, keys sorted and empty ones left out.
func (e ErrorBody) Append(dst []byte) []byte {
	w := writer{b: dst}
	w.open('{')
	if e.Ack != 0 {
		w.key("ack").uint(uint64(e.Ack))
	}
	if e.ID.Counter != 0 {
		w.key("counter").uint(e.ID.Counter)
	}
	w.optText("detail", e.Detail)
	w.key("error").text(e.Error)
	if e.ID.Counter != 0 {
		w.key("log").hex(e.ID.Log[:])
	}
	if e.PairingRequired {
		w.key("pairing_required").bool(true)
	}
	if e.RetryMS != 0 {
		w.key("retry_ms").uint(uint64(e.RetryMS))
	}
	w.optText("title", e.Title)
	return w.close('}')
}

// Marshal is Append to a fresh slice.
func (e ErrorBody) Marshal() []byte { return e.Append(nil) }

// ParseErrorBody reads an Error payload. It is tolerant, because the frame ends
// or explains something and every peer's form should be shown: keys of another
// type count as absent; only a payload that is no JSON object, or one without
// the text "error", fails.
func ParseErrorBody(b []byte) (ErrorBody, error) {
	r, err := readObject(b, "", MaxControl, "ack", "counter", "detail", "error", "log", "pairing_required", "retry_ms", "title")
	if err != nil {
		return ErrorBody{}, err
	}
	var e ErrorBody
	e.Error = r.text("error", required)
	e.Detail, _ = r.raw("detail").Text()
	e.Title, _ = r.raw("title").Text()
	e.PairingRequired, _ = r.raw("pairing_required").Bool()
	if v, ok := r.raw("ack").Uint(); ok && v <= MaxSequence {
		e.Ack = uint32(v)
	}
	if v, ok := r.raw("retry_ms").Uint(); ok {
		e.RetryMS = uint32(min(v, MaxSequence))
	}
	if v, ok := r.raw("counter").Uint(); ok && r.raw("log").Hex(e.ID.Log[:]) {
		e.ID.Counter = v
	}
	if e.ID.Counter == 0 {
		e.ID = MessageID{}
	}
	return e, r.err
}
