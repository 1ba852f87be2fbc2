package identity

import (
	"crypto/ed25519"
	"encoding/binary"

	"lukechampine.com/blake3"
)

const rotationLabel = "commucat:device-rotation:v1"

// Rotation is the statement by which a device names its next key (CCP-1 2.6).
// The relay bounds ExpiresAt and requires that the key changes; the digest has
// no length prefixes, so DeviceID must be the id of the signed-in device.
type Rotation struct {
	DeviceID  string
	NewPublic [32]byte
	ExpiresAt int64  // unix seconds
	Nonce     []byte // may be empty
}

// Digest is what the old key signs, 32 bytes:
//
//	BLAKE3(label | device_id | new_public 32 | i64be expires_at | nonce)
func (r Rotation) Digest() [32]byte {
	b := make([]byte, 0, len(rotationLabel)+len(r.DeviceID)+40+len(r.Nonce))
	b = append(b, rotationLabel...)
	b = append(b, r.DeviceID...)
	b = append(b, r.NewPublic[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.ExpiresAt))
	b = append(b, r.Nonce...)
	return blake3.Sum256(b)
}

// Sign signs the digest with the old key, without a label.
func (r Rotation) Sign(old Device) [64]byte {
	digest := r.Digest()
	return [64]byte(ed25519.Sign(old.key(), digest[:]))
}

// Verify checks the old key's signature and that the new key passes
// CheckPublic. Error kinds: KindPublic, KindSignature.
func (r Rotation) Verify(old [32]byte, signature []byte) error {
	if err := CheckPublic(r.NewPublic); err != nil {
		return err
	}
	digest := r.Digest()
	return verify(old, digest[:], signature)
}
