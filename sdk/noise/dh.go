package noise

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudflare/circl/dh/x25519"
	flynn "github.com/flynn/noise"
)

// KeyPair is an X25519 key pair (RFC 7748). Private is kept as it was given and
// clamped on use, so 32 bytes shared with another scheme stay recognisable.
// It prints as its public half only.
type KeyPair struct {
	Private [32]byte `json:"-"`
	Public  [32]byte
}

// GenerateKeyPair makes a key pair from 32 bytes of random; nil means
// crypto/rand. Error kind: KindRandom.
func GenerateKeyPair(random io.Reader) (KeyPair, error) {
	var private [32]byte
	if err := fill(random, private[:]); err != nil {
		return KeyPair{}, err
	}
	return KeyPairFrom(private), nil
}

// KeyPairFrom computes the public half of private.
func KeyPairFrom(private [32]byte) KeyPair {
	k := KeyPair{Private: private}
	secret := x25519.Key(private)
	x25519.KeyGen((*x25519.Key)(&k.Public), &secret)
	return k
}

// String is the public key in hex.
func (k KeyPair) String() string { return "x25519:" + hex.EncodeToString(k.Public[:]) }

// Format prints String for every verb, so that none shows the private key.
func (k KeyPair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue keeps the private key out of logs.
func (k KeyPair) LogValue() slog.Value { return slog.StringValue(k.String()) }

// DH is X25519(private, public) of RFC 7748 section 5. A result of zero, which
// every public key of low order gives, is an Error of KindKey and not a secret.
// It runs in constant time.
func DH(private, public [32]byte) ([32]byte, error) {
	var shared, zero [32]byte
	secret, peer := x25519.Key(private), x25519.Key(public)
	ok := x25519.Shared((*x25519.Key)(&shared), &secret, &peer)
	if !ok || subtle.ConstantTimeCompare(shared[:], zero[:]) == 1 {
		return zero, ErrKey
	}
	return shared, nil
}

// curve is DH as flynn/noise wants it.
type curve struct{}

func (curve) GenerateKeypair(random io.Reader) (flynn.DHKey, error) {
	k, err := GenerateKeyPair(random)
	if err != nil {
		return flynn.DHKey{}, err
	}
	return k.flynn(), nil
}

func (curve) DH(private, public []byte) ([]byte, error) {
	if len(private) != 32 || len(public) != 32 {
		return nil, ErrKey
	}
	shared, err := DH([32]byte(private), [32]byte(public))
	if err != nil {
		return nil, err
	}
	return shared[:], nil
}

func (curve) DHLen() int     { return 32 }
func (curve) DHName() string { return "25519" }

func (k KeyPair) flynn() flynn.DHKey {
	return flynn.DHKey{Private: k.Private[:], Public: k.Public[:]}
}

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
