package identity

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// The signed form of a certificate: compact JSON, seven keys in this order.
//
//	{"serial":42,"user_id":"u","device_id":"d","public_key":"<64 hex>",
//	 "issuer":"<64 hex>","issued_at":1,"expires_at":2}
//
// The wire form has the key "signature" (128 hex digits) besides, and there the
// order is free.

// SignedBytes is the form that the CA signs. encoding/json cannot write it: it
// escapes more than the reference does.
func (c Certificate) SignedBytes() []byte {
	b := make([]byte, 0, 320+len(c.UserID)+len(c.DeviceID))
	b = append(b, `{"serial":`...)
	b = strconv.AppendUint(b, c.Serial, 10)
	b = append(b, `,"user_id":`...)
	b = appendString(b, c.UserID)
	b = append(b, `,"device_id":`...)
	b = appendString(b, c.DeviceID)
	b = append(b, `,"public_key":"`...)
	b = hex.AppendEncode(b, c.PublicKey[:])
	b = append(b, `","issuer":"`...)
	b = hex.AppendEncode(b, c.Issuer[:])
	b = append(b, `","issued_at":`...)
	b = strconv.AppendInt(b, c.IssuedAt, 10)
	b = append(b, `,"expires_at":`...)
	b = strconv.AppendInt(b, c.ExpiresAt, 10)
	return append(b, '}')
}

// MarshalJSON is the wire form with its keys sorted, as the reference writes it.
// (json.Marshal of a value that holds c escapes < > & and U+2028, which changes
// no meaning: the signature is over SignedBytes of what is parsed.)
func (c Certificate) MarshalJSON() ([]byte, error) {
	if !utf8.ValidString(c.UserID) || !utf8.ValidString(c.DeviceID) {
		return nil, &Error{Kind: KindCertificate, Detail: "id is not utf-8"}
	}
	b := make([]byte, 0, 480+len(c.UserID)+len(c.DeviceID))
	b = append(b, `{"device_id":`...)
	b = appendString(b, c.DeviceID)
	b = append(b, `,"expires_at":`...)
	b = strconv.AppendInt(b, c.ExpiresAt, 10)
	b = append(b, `,"issued_at":`...)
	b = strconv.AppendInt(b, c.IssuedAt, 10)
	b = append(b, `,"issuer":"`...)
	b = hex.AppendEncode(b, c.Issuer[:])
	b = append(b, `","public_key":"`...)
	b = hex.AppendEncode(b, c.PublicKey[:])
	b = append(b, `","serial":`...)
	b = strconv.AppendUint(b, c.Serial, 10)
	b = append(b, `,"signature":"`...)
	b = hex.AppendEncode(b, c.Signature[:])
	b = append(b, `","user_id":`...)
	b = appendString(b, c.UserID)
	return append(b, '}'), nil
}

// UnmarshalJSON reads the wire form (see ParseCertificate).
func (c *Certificate) UnmarshalJSON(b []byte) error {
	parsed, err := ParseCertificate(b)
	if err == nil {
		*c = parsed
	}
	return err
}

// ParseCertificate reads the wire form, at most MaxCertificate bytes: one object
// with all eight keys of exactly their types, numbers as integers without
// fraction or exponent, hex in either case. Unknown keys are ignored, of a
// repeated key the last counts. It verifies nothing. Error kind: KindCertificate.
func ParseCertificate(b []byte) (Certificate, error) {
	if len(b) > MaxCertificate {
		return Certificate{}, &Error{Kind: KindCertificate, Detail: "certificate too long"}
	}
	var fields map[string]json.RawMessage
	if !utf8.Valid(b) || json.Unmarshal(b, &fields) != nil || fields == nil {
		return Certificate{}, &Error{Kind: KindCertificate, Detail: "certificate is not a JSON object"}
	}
	var c Certificate
	key := func(dst []byte) func(json.RawMessage) bool {
		return func(raw json.RawMessage) bool {
			v, ok := hexField(raw, len(dst))
			copy(dst, v)
			return ok
		}
	}
	for _, f := range []struct {
		name string
		read func(json.RawMessage) bool
	}{
		{"serial", func(raw json.RawMessage) (ok bool) { c.Serial, ok = uintField(raw); return ok }},
		{"user_id", func(raw json.RawMessage) (ok bool) { c.UserID, ok = stringField(raw); return ok }},
		{"device_id", func(raw json.RawMessage) (ok bool) { c.DeviceID, ok = stringField(raw); return ok }},
		{"public_key", key(c.PublicKey[:])},
		{"issuer", key(c.Issuer[:])},
		{"issued_at", func(raw json.RawMessage) (ok bool) { c.IssuedAt, ok = intField(raw); return ok }},
		{"expires_at", func(raw json.RawMessage) (ok bool) { c.ExpiresAt, ok = intField(raw); return ok }},
		{"signature", key(c.Signature[:])},
	} {
		if !f.read(fields[f.name]) {
			return Certificate{}, &Error{Kind: KindCertificate, Detail: "certificate: " + f.name}
		}
	}
	return c, nil
}

// appendString writes s as the reference's JSON writer does: quote, backslash
// and the controls below U+0020 are escaped, nothing else.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, digits[c>>4], digits[c&15])
		}
	}
	return append(b, '"')
}

// stringField reads a JSON string. encoding/json turns a lone surrogate into
// U+FFFD without a word; here it is refused, since the signature would be over
// another text than the one sent.
func stringField(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' || !pairedSurrogates(raw) {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// pairedSurrogates reports whether each escaped high surrogate of the valid
// JSON string raw is followed by an escaped low one, and no low one is alone.
func pairedSurrogates(raw []byte) bool {
	high := false
	for i := 0; i < len(raw); i++ {
		unit := uint64(0)
		if raw[i] == '\\' {
			i++
			if i < len(raw) && raw[i] == 'u' && i+4 < len(raw) {
				unit, _ = strconv.ParseUint(string(raw[i+1:i+5]), 16, 16)
				i += 4
			}
		}
		low := unit >= 0xdc00 && unit <= 0xdfff
		if low != high {
			return false
		}
		high = unit >= 0xd800 && unit <= 0xdbff
	}
	return !high
}

// hexField reads a string of exactly 2n hex digits of either case.
func hexField(raw json.RawMessage, n int) ([]byte, bool) {
	s, ok := stringField(raw)
	if !ok || len(s) != 2*n {
		return nil, false
	}
	v, err := hex.DecodeString(s)
	return v, err == nil
}

// uintField reads a JSON integer of the u64 range; -0 is a float.
func uintField(raw json.RawMessage) (uint64, bool) {
	v, err := strconv.ParseUint(string(raw), 10, 64)
	return v, err == nil
}

// intField reads a JSON integer of the i64 range; -0 is a float.
func intField(raw json.RawMessage) (int64, bool) {
	v, err := strconv.ParseInt(string(raw), 10, 64)
	return v, err == nil && string(raw) != "-0"
}
