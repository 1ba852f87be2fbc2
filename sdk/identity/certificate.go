package identity

import (
	"crypto/ed25519"
	"time"
)

// Limits of certificates.
const (
	// MaxCertificate is the longest certificate that is read, in bytes of JSON.
	MaxCertificate = 16 << 10
	// DefaultValidity is how long the reference's certificates last.
	DefaultValidity = 30 * 24 * time.Hour
	// ClockSkew is how far in the future issued_at may lie.
	ClockSkew = 300 * time.Second
)

// Certificate is the statement of a device CA that a key belongs to a device of
// a user. Times are unix seconds.
type Certificate struct {
	Serial    uint64
	UserID    string
	DeviceID  string
	PublicKey [32]byte
	Issuer    [32]byte // public key of the CA
	IssuedAt  int64
	ExpiresAt int64
	Signature [64]byte
}

// Verify checks that issuer, a CA that the caller trusts, has signed c; it looks
// at no date and not at PublicKey, which CheckPublic judges where it is used
// (old reference clients have certificates over their X25519 key). Error kinds:
// KindIssuer, KindSignature.
func (c Certificate) Verify(issuer [32]byte) error {
	if c.Issuer != issuer {
		return ErrIssuer
	}
	if !ed25519.Verify(issuer[:], c.SignedBytes(), c.Signature[:]) {
		return ErrSignature
	}
	return nil
}

// Valid checks the dates: issued_at is at most 300 s after now, now is before
// expires_at, and issued_at before expires_at. Error kind: KindValidity.
func (c Certificate) Valid(now time.Time) error {
	unix := now.Unix()
	switch {
	case c.IssuedAt >= c.ExpiresAt:
		return &Error{Kind: KindValidity, Detail: "certificate expires before it is issued"}
	case c.ExpiresAt <= unix:
		return &Error{Kind: KindValidity, Detail: "certificate has expired"}
	case c.IssuedAt > unix+int64(ClockSkew/time.Second):
		return &Error{Kind: KindValidity, Detail: "certificate is issued in the future"}
	}
	return nil
}

// RenewalDue reports whether less than a third of the validity is left, so that
// the relay should send a new certificate.
func (c Certificate) RenewalDue(now time.Time) bool {
	if c.ExpiresAt <= c.IssuedAt {
		return true
	}
	// Spans of int64 seconds may pass int64; as uint64 they do not.
	left := now.Unix()
	if left >= c.ExpiresAt {
		return true
	}
	return uint64(c.ExpiresAt)-uint64(left) < (uint64(c.ExpiresAt)-uint64(c.IssuedAt))/3
}
