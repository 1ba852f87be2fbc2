package identity

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"filippo.io/edwards25519"
)

// CheckPublic reports whether pub may be used as an Ed25519 key: it must be the
// canonical encoding of a point of the curve, and not one of the eight points
// of small order, under which signatures and proofs can be forged (the
// reference's weakness W5). Error kind: KindPublic.
func CheckPublic(pub [32]byte) error {
	_, err := point(pub)
	return err
}

// point decodes pub under the rules of CheckPublic.
func point(pub [32]byte) (*edwards25519.Point, error) {
	if !acceptable(pub) {
		return nil, ErrPublic
	}
	p, err := new(edwards25519.Point).SetBytes(pub[:])
	if err != nil {
		return nil, ErrPublic
	}
	return p, nil
}

// smallOrder is y of the points of order 1, 2, 4, 8 and 8: all eight, since a
// point and its negative differ in the sign of x alone. Where x is 0, an encoding
// with the sign bit is not canonical; these two y are in the list as well.
var smallOrder = [5][32]byte{
	{0: 0x01},
	{
		0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
	},
	{},
	{
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	},
	{
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	},
}

// acceptable judges an encoding without decoding it: if it is a point at all, it
// is the canonical encoding of one that is not of small order.
func acceptable(pub [32]byte) bool {
	y := pub
	y[31] &= 0x7f
	if slices.Contains(smallOrder[:], y) {
		return false
	}
	// p = 2^255 - 19 is ed ff … ff 7f, little endian.
	if y[0] < 0xed || y[31] != 0x7f {
		return true
	}
	for _, b := range y[1:31] {
		if b != 0xff {
			return true
		}
	}
	return false
}

// Sign signs label | 00 | message. Labels keep statements of one kind from
// passing for another; they are written without the zero byte.
func Sign(label string, key ed25519.PrivateKey, message []byte) [64]byte {
	return [64]byte(ed25519.Sign(key, labelled(label, message)))
}

// Verify checks a signature of Sign. The key must pass CheckPublic and S must
// be canonical. Error kinds: KindPublic, KindSignature.
func Verify(label string, public [32]byte, message, signature []byte) error {
	return verify(public, labelled(label, message), signature)
}

// verify is strict Ed25519: CheckPublic, then RFC 8032 without cofactor.
func verify(public [32]byte, message, signature []byte) error {
	if len(signature) != ed25519.SignatureSize {
		return ErrSignature
	}
	if !acceptable(public) {
		return ErrPublic
	}
	if !ed25519.Verify(public[:], message, signature) {
		if err := CheckPublic(public); err != nil {
			return err
		}
		return ErrSignature
	}
	return nil
}

func labelled(label string, message []byte) []byte {
	b := make([]byte, 0, len(label)+1+len(message))
	b = append(b, label...)
	b = append(b, 0)
	return append(b, message...)
}

const confirmLabel = "commucat/proof/1"

// confirmBytes is what a Confirm proof signs, after its label:
//
//	u32le len | domain | u32le len | device_id | device_public 32 | client_static 32 | h 32
func confirmBytes(device [32]byte, domain, deviceID string, clientStatic [32]byte, h []byte) []byte {
	b := make([]byte, 0, 4+len(domain)+4+len(deviceID)+96)
	b = appendContext(b, domain, deviceID, device, clientStatic)
	return append(b, h...)
}

// appendContext appends the part that Confirm and the static proof share.
func appendContext(b []byte, domain, deviceID string, device, clientStatic [32]byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(domain)))
	b = append(b, domain...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(deviceID)))
	b = append(b, deviceID...)
	b = append(b, device[:]...)
	return append(b, clientStatic[:]...)
}

// SignConfirm makes the `proof` of a Confirm record (protocol-extensions,
// section 2): the device's signature over domain, device id, device key, Noise
// key and the final handshake hash h (32 bytes; the signature over any other
// length is refused by VerifyConfirm).
func SignConfirm(d Device, domain, deviceID string, clientStatic [32]byte, h []byte) [64]byte {
	return d.Signer().Confirm(domain, deviceID, clientStatic, h)
}

// Signer is a device's key made ready: who signs often saves a scalar multiplication each
// time, about 20 microseconds. It prints as the public key.
type Signer struct{ key ed25519.PrivateKey }

// Signer makes the key ready.
func (d Device) Signer() Signer { return Signer{d.key()} }

// Public is the Ed25519 public key.
func (s Signer) Public() [32]byte { return [32]byte(s.key[ed25519.SeedSize:]) }

// Confirm is SignConfirm by this key.
func (s Signer) Confirm(domain, deviceID string, clientStatic [32]byte, h []byte) [64]byte {
	return Sign(confirmLabel, s.key, confirmBytes(s.Public(), domain, deviceID, clientStatic, h))
}

// String is the public key in hex.
func (s Signer) String() string {
	public := s.Public()
	return "ed25519:" + hex.EncodeToString(public[:])
}

// Format prints String for every verb, so that none shows the private key.
func (s Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue keeps the private key out of logs.
func (s Signer) LogValue() slog.Value { return slog.StringValue(s.String()) }

// VerifyConfirm checks the proof of a Confirm record. clientStatic must be the
// key that Noise has proved, never one that the client merely names. Error
// kinds: KindPublic, KindSignature.
func VerifyConfirm(devicePublic [32]byte, domain, deviceID string, clientStatic [32]byte, h, proof []byte) error {
	if len(h) != 32 {
		return ErrSignature
	}
	return Verify(confirmLabel, devicePublic, confirmBytes(devicePublic, domain, deviceID, clientStatic, h), proof)
}
