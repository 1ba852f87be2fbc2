package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudflare/circl/dh/x25519"
	"lukechampine.com/blake3"
)

// MinSeed is the least length of a seed in bytes.
const MinSeed = 32

// Device is the key of one device. It prints as its public key only.
//
//	Private = BLAKE3-256(seed)
//	Public  = Ed25519 public key of the seed Private (RFC 8032)
//	Static  = X25519 over the same 32 bytes, the reference client's habit
type Device struct {
	Private [32]byte `json:"-"`
}

// DeriveDevice makes the key of a seed of 32 bytes or more. Error kind: KindSeed.
func DeriveDevice(seed []byte) (Device, error) {
	if len(seed) < MinSeed {
		return Device{}, ErrSeed
	}
	return Device{Private: blake3.Sum256(seed)}, nil
}

// GenerateDevice makes a key from a seed of 64 random bytes; nil random is
// crypto/rand. Error kind: KindRandom.
func GenerateDevice(random io.Reader) (Device, error) {
	var seed [64]byte
	if err := fill(random, seed[:]); err != nil {
		return Device{}, err
	}
	d, err := DeriveDevice(seed[:])
	clear(seed[:])
	return d, err
}

// Public is the Ed25519 public key. It costs a scalar multiplication (about 20
// microseconds): keep it where it is needed often.
func (d Device) Public() [32]byte {
	return [32]byte(d.key()[ed25519.SeedSize:])
}

// Static is the X25519 key pair over the same 32 bytes, as the reference client
// uses it for its Noise static key. A client of ours may use any other key.
func (d Device) Static() (private, public [32]byte) {
	secret := x25519.Key(d.Private)
	x25519.KeyGen((*x25519.Key)(&public), &secret)
	return d.Private, public
}

func (d Device) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(d.Private[:]) }

// String is the public key in hex.
func (d Device) String() string {
	public := d.Public()
	return "ed25519:" + hex.EncodeToString(public[:])
}

// Format prints String for every verb, so that none shows the private key.
func (d Device) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// LogValue keeps the private key out of logs.
func (d Device) LogValue() slog.Value { return slog.StringValue(d.String()) }

// fill reads len(b) bytes from random, crypto/rand if nil.
func fill(random io.Reader, b []byte) error {
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, b); err != nil {
		return &Error{Kind: KindRandom, Detail: "read randomness", Err: err}
	}
	return nil
}
