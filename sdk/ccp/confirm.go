package ccp

import "math"

// MaxConfirm bounds a Confirm payload, in bytes.
const MaxConfirm = 32 << 10

// Limits of a Confirm's pairing request, in bytes.
const (
	MaxPairCode = 64
	MaxPairName = 128
)

// Confirm is the client's first record, a frame of TypeAuth on channel 0
// (protocol-extensions.md section 2).
type Confirm struct {
	// Proof is the signature over the handshake.
	Proof [64]byte
	// Identity is there with sealed, where the Hello had none.
	Identity *Identity
	// Invite is an invitation's secret; nil when absent.
	Invite *[16]byte
	// Pair asks to join a code's account; nil when absent.
	Pair *Pair
	// Resume is an unspent resume token; nil when absent.
	Resume *[32]byte
	// Cursor is the highest position that the client has stored.
	Cursor uint64
	// Keys are the public halves of the device's own keys, for transports whose
	// devices have some; at most MaxTransportKeys, one a transport.
	Keys []TransportKey
}

// Pair is the request to join the account that made a pairing code.
type Pair struct {
	// Code is base64url of 16 bytes, or a short code where the relay allows them.
	Code string
	// Name is what the new device calls itself; may be "".
	Name string
}

// Secret reads the long form of the code.
func (p Pair) Secret() (secret [16]byte, ok bool) {
	ok = decodeB64u(secret[:], []byte(p.Code))
	return secret, ok
}

// PairSecret makes the Pair of a link's secret.
func PairSecret(secret [16]byte, name string) *Pair {
	w := writer{}
	w.b64u(secret[:])
	return &Pair{Code: string(w.b[1 : len(w.b)-1]), Name: name}
}

// ParseConfirm reads the payload. Whether Identity must be there depends on what
// was accepted; the caller checks.
func ParseConfirm(b []byte) (Confirm, error) {
	r, err := readObject(b, "", MaxConfirm, keyCertificate, keyClientStatic, "cursor", keyDeviceID, keyDevicePublic,
		"invite", "pair", "proof", "resume", "transport_keys", keyUser)
	if err != nil {
		return Confirm{}, err
	}
	var c Confirm
	r.hex("proof", required, c.Proof[:])
	c.Identity = r.identity(false)
	c.Cursor = r.uint("cursor", defaulted, math.MaxUint64)
	var invite [16]byte
	if r.b64u("invite", defaulted, invite[:]) {
		c.Invite = &invite
	}
	if v := r.object("pair", defaulted); v != nil {
		n, _ := pick(v, "pair", "code", "name")
		c.Pair = &Pair{Code: n.text("code", required), Name: n.text("name", defaulted)}
		if n.err == nil && (c.Pair.Code == "" || len(c.Pair.Code) > MaxPairCode) {
			n.fail("code", "not 1 to 64 bytes")
		}
		if len(c.Pair.Name) > MaxPairName {
			n.fail("name", "longer than 128 bytes")
		}
		r.note(n.err)
	}
	if v := r.object("resume", defaulted); v != nil {
		n, _ := pick(v, "resume", "token")
		var token [32]byte
		n.b64u("token", required, token[:])
		r.note(n.err)
		c.Resume = &token
	}
	c.Keys = r.transportKeys("transport_keys")
	if r.err != nil {
		return Confirm{}, r.err
	}
	return c, nil
}

// Marshal writes the payload, keys sorted.
func (c Confirm) Marshal() []byte {
	w := writer{}
	w.open('{')
	id := c.Identity
	if id != nil {
		w.optRaw(keyCertificate, id.Certificate)
		w.key(keyClientStatic).hex(id.ClientStatic[:])
	}
	if c.Cursor != 0 {
		w.key("cursor").uint(c.Cursor)
	}
	if id != nil {
		w.key(keyDeviceID).text(id.DeviceID)
		w.key(keyDevicePublic).hex(id.DevicePublic[:])
	}
	if c.Invite != nil {
		w.key("invite").b64u(c.Invite[:])
	}
	if c.Pair != nil {
		w.key("pair").open('{')
		w.key("code").text(c.Pair.Code)
		w.optText("name", c.Pair.Name)
		w.close('}')
	}
	w.key("proof").hex(c.Proof[:])
	if c.Resume != nil {
		w.key("resume").open('{')
		w.key("token").b64u(c.Resume[:])
		w.close('}')
	}
	if len(c.Keys) > 0 {
		w.key("transport_keys").transportKeys(c.Keys)
	}
	if id != nil && id.User != nil {
		w.key(keyUser).user(*id.User)
	}
	return w.close('}')
}
