package identity

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"time"
	"unicode/utf8"
)

// CA is a relay's device CA. It is a value, safe for concurrent use, and prints
// as its public key only.
type CA struct {
	key ed25519.PrivateKey
}

// NewCA derives the CA of a seed of 32 bytes or more as DeriveDevice does.
// Error kind: KindSeed.
func NewCA(seed []byte) (CA, error) {
	d, err := DeriveDevice(seed)
	if err != nil {
		return CA{}, err
	}
	return CA{key: d.key()}, nil
}

// Public is the CA's key, `device_ca_public` on the wire; zero for a zero CA.
func (ca CA) Public() [32]byte {
	if len(ca.key) != ed25519.PrivateKeySize {
		return [32]byte{}
	}
	return [32]byte(ca.key[ed25519.SeedSize:])
}

// Issue signs a certificate with a random serial, issued now and valid for
// validity in whole seconds (0 is DefaultValidity). nil random is crypto/rand.
// Error kinds: KindPublic for a key that CheckPublic refuses, KindCertificate
// for ids that are not UTF-8, a validity that is not positive, a certificate
// over MaxCertificate, or a zero CA; KindRandom.
func (ca CA) Issue(user, device string, public [32]byte, now time.Time, validity time.Duration, random io.Reader) (Certificate, error) {
	if validity == 0 {
		validity = DefaultValidity
	}
	switch {
	case len(ca.key) != ed25519.PrivateKeySize:
		return Certificate{}, &Error{Kind: KindCertificate, Detail: "issue with a zero ca"}
	case !utf8.ValidString(user), !utf8.ValidString(device):
		return Certificate{}, &Error{Kind: KindCertificate, Detail: "id is not utf-8"}
	case validity < time.Second:
		return Certificate{}, &Error{Kind: KindCertificate, Detail: "validity under a second"}
	}
	if err := CheckPublic(public); err != nil {
		return Certificate{}, err
	}
	var serial [8]byte
	if err := fill(random, serial[:]); err != nil {
		return Certificate{}, err
	}
	c := Certificate{
		Serial:    binary.LittleEndian.Uint64(serial[:]),
		UserID:    user,
		DeviceID:  device,
		PublicKey: public,
		Issuer:    ca.Public(),
		IssuedAt:  now.Unix(),
		ExpiresAt: now.Unix() + int64(validity/time.Second),
	}
	signed := c.SignedBytes()
	if len(signed)+len(`,"signature":""`)+2*len(c.Signature) > MaxCertificate {
		return Certificate{}, &Error{Kind: KindCertificate, Detail: "ids too long for a certificate"}
	}
	c.Signature = [64]byte(ed25519.Sign(ca.key, signed))
	return c, nil
}

// String is the public key in hex.
func (ca CA) String() string { return fmt.Sprintf("ed25519:%x", ca.Public()) }

// Format prints String for every verb, so that none shows the private key.
func (ca CA) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, ca.String()) }

// LogValue keeps the private key out of logs.
func (ca CA) LogValue() slog.Value { return slog.StringValue(ca.String()) }
