package identity

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"

	"filippo.io/edwards25519"
	"lukechampine.com/blake3"
)

const proofLabel = "commucat:zkp:handshake:v1"

// Proof is the static proof of the reference (`zkp` in the Hello): a Schnorr
// proof over edwards25519 that the sender holds the device key. It holds no
// nonce, time or transcript, so whoever has seen one can repeat it under the
// same Noise key; SignConfirm is what binds a handshake.
type Proof struct {
	Commitment [32]byte // R = r*B
	Response   [32]byte // s = r + c*a mod L, little endian
}

// proofContext is, with both labels 25 bytes and no terminator:
//
//	label | u32le len | domain | u32le len | device_id | device_public 32 | client_static 32
func proofContext(domain, deviceID string, device, clientStatic [32]byte) []byte {
	b := make([]byte, 0, len(proofLabel)+8+len(domain)+len(deviceID)+64)
	b = append(b, proofLabel...)
	return appendContext(b, domain, deviceID, device, clientStatic)
}

// challenge is c: 64 bytes of BLAKE3 output as a little endian integer mod L.
//
//	label | u64le len(context) | context | device_public | R
func challenge(context []byte, device, commitment [32]byte) (*edwards25519.Scalar, error) {
	h := blake3.New(64, nil)
	var size [8]byte
	binary.LittleEndian.PutUint64(size[:], uint64(len(context)))
	for _, part := range [][]byte{[]byte(proofLabel), size[:], context, device[:], commitment[:]} {
		_, _ = h.Write(part) // never fails
	}
	return edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
}

// ProveStatic makes the static proof of d for a domain, device id and Noise
// static key. It takes 64 bytes of random (nil is crypto/rand), which must never
// repeat for two different contexts: that would give the key away. Error kind:
// KindRandom.
func ProveStatic(d Device, domain, deviceID string, clientStatic [32]byte, random io.Reader) (Proof, error) {
	var seed [64]byte
	if err := fill(random, seed[:]); err != nil {
		return Proof{}, err
	}
	r, err := edwards25519.NewScalar().SetUniformBytes(seed[:])
	if err != nil {
		return Proof{}, &Error{Kind: KindProof, Detail: "nonce", Err: err}
	}
	clear(seed[:])
	digest := sha512.Sum512(d.Private[:])
	a, err := edwards25519.NewScalar().SetBytesWithClamping(digest[:32])
	if err != nil {
		return Proof{}, &Error{Kind: KindProof, Detail: "secret scalar", Err: err}
	}
	clear(digest[:])

	public := [32]byte(new(edwards25519.Point).ScalarBaseMult(a).Bytes())
	p := Proof{Commitment: [32]byte(new(edwards25519.Point).ScalarBaseMult(r).Bytes())}
	c, err := challenge(proofContext(domain, deviceID, public, clientStatic), public, p.Commitment)
	if err != nil {
		return Proof{}, &Error{Kind: KindProof, Detail: "challenge", Err: err}
	}
	p.Response = [32]byte(edwards25519.NewScalar().MultiplyAdd(c, a, r).Bytes())
	return p, nil
}

// VerifyStatic checks a static proof: device passes CheckPublic, the response
// is below L, and s*B = R + c*A with R in its canonical encoding and not of
// small order. Error kinds: KindPublic, KindProof.
func VerifyStatic(device [32]byte, domain, deviceID string, clientStatic [32]byte, p Proof) error {
	s, err := edwards25519.NewScalar().SetCanonicalBytes(p.Response[:])
	if err != nil {
		return ErrProof
	}
	a, err := point(device)
	if err != nil {
		return err
	}
	if _, err := point(p.Commitment); err != nil {
		return ErrProof
	}
	c, err := challenge(proofContext(domain, deviceID, device, clientStatic), device, p.Commitment)
	if err != nil {
		return &Error{Kind: KindProof, Detail: "challenge", Err: err}
	}
	// R = s*B - c*A, compared as bytes. Nothing here is secret.
	r := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(c, a.Negate(a), s)
	if !bytes.Equal(r.Bytes(), p.Commitment[:]) {
		return ErrProof
	}
	return nil
}

type proofJSON struct {
	Commitment string `json:"commitment"`
	Response   string `json:"response"`
}

// MarshalJSON is {"commitment": hex, "response": hex}.
func (p Proof) MarshalJSON() ([]byte, error) {
	return json.Marshal(proofJSON{hex.EncodeToString(p.Commitment[:]), hex.EncodeToString(p.Response[:])})
}

// UnmarshalJSON reads the form of MarshalJSON: both keys are required as text of
// exactly 64 hex digits in either case; other keys are ignored. Whether the
// values are points and scalars is VerifyStatic's question. Error kind: KindProof.
func (p *Proof) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil || fields == nil {
		return &Error{Kind: KindProof, Detail: "proof is not an object"}
	}
	commitment, ok := hexField(fields["commitment"], 32)
	if !ok {
		return &Error{Kind: KindProof, Detail: "proof: commitment"}
	}
	response, ok := hexField(fields["response"], 32)
	if !ok {
		return &Error{Kind: KindProof, Detail: "proof: response"}
	}
	p.Commitment, p.Response = [32]byte(commitment), [32]byte(response)
	return nil
}

// ParseProof is UnmarshalJSON as a function.
func ParseProof(b []byte) (Proof, error) {
	var p Proof
	err := p.UnmarshalJSON(b)
	return p, err
}
