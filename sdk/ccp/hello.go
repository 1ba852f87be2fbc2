package ccp

import (
	"crypto/sha256"
	"math"
)

// Limits of the handshake's fields, in bytes.
const (
	// MaxNoise is the largest Noise message.
	MaxNoise = 65535
	// MaxDeviceID is the longest device id.
	MaxDeviceID = 64
	// MaxEntryToken is the longest entry token in a Hello.
	MaxEntryToken = 128
	// PQKeySize and PQCiphertextSize are ML-KEM-768's.
	PQKeySize        = 1184
	PQCiphertextSize = 1088

	noiseXK1 = 48 // e, es, empty payload
	noiseIK1 = 96 // e, es, s, ss, empty payload
)

// The handshake patterns as the Hello names them.
const (
	PatternXK = "XK"
	PatternIK = "IK"
)

// Hello is the first frame of a connection (ccp1.md 3.3, protocol-extensions.md
// sections 1, 2, 7 and 10). It is sent in clear: with Sealed it names nobody.
type Hello struct {
	// Pattern is PatternXK or PatternIK.
	Pattern string
	// Handshake is Noise message 1.
	Handshake []byte
	// Capabilities are the names offered, also unknown ones.
	Capabilities []string
	// SupportedVersions and ProtocolVersion are kept as they stand for
	// NegotiateVersion, nil when absent.
	SupportedVersions Raw
	ProtocolVersion   Raw
	// KeyVersion is the version of the server key used, 0 when not named.
	KeyVersion uint32
	// PQ is the ML-KEM-768 encapsulation key, PQKeySize bytes, or nil.
	PQ []byte
	// Entry is the entry token of transports without HTTP, "" when absent.
	Entry string

	// Identity is who speaks; nil in a sealed Hello.
	Identity *Identity
	// Proof is the reference's static proof ("zkp"); nil in a sealed Hello.
	Proof *StaticProof
	// DeviceCA is the CA key that the client knows; servers ignore it.
	DeviceCA Raw
}

// Identity is what a Hello or, with sealed, a Confirm says of its sender.
type Identity struct {
	// DeviceID has 1 to 64 of A-Z a-z 0-9 - _ . characters.
	DeviceID string
	// DevicePublic is the Ed25519 key, ClientStatic the X25519 key that Noise
	// proves.
	DevicePublic [32]byte
	ClientStatic [32]byte
	// Certificate is an object, unparsed; nil when absent.
	Certificate Raw
	// User are hints about the account; nil when absent.
	User *UserHints
}

// UserHints are a device's wishes about its account; "" stands for absent.
type UserHints struct {
	ID          string
	Handle      string
	DisplayName string
	AvatarURL   string
}

// StaticProof is the wire form of the Schnorr proof of ccp1.md 2.5.
type StaticProof struct {
	Commitment [32]byte
	Response   [32]byte
}

// Sealed says that the Hello does not name its sender: Confirm will.
func (h Hello) Sealed() bool { return h.Identity == nil }

// Offer is the set of capabilities that a server may accept for this Hello:
// those named, without sealed where the Hello is not sealed and without pq where
// it brings no key.
func (h Hello) Offer() Capabilities {
	set := ParseCapabilities(h.Capabilities)
	if !h.Sealed() {
		set &^= Sealed
	}
	if h.PQ == nil {
		set &^= PQ
	}
	return set
}

// identityKeys are shared by Hello and Confirm.
const (
	keyCertificate  = "certificate"
	keyClientStatic = "client_static"
	keyDeviceID     = "device_id"
	keyDevicePublic = "device_public"
	keyUser         = "user"
)

// ParseHello reads a Hello payload. Unknown keys are ignored. Either all of
// device_id, device_public, client_static and zkp are there, or none of them nor
// certificate and user (a sealed Hello).
//
// On an error of kind Field the versions are filled in nevertheless, so that the
// caller can ask NegotiateVersion first, as the reference does.
func ParseHello(b []byte) (Hello, error) {
	r, err := readObject(b, "", MaxControl, "capabilities", keyCertificate, keyClientStatic, "device_ca_public",
		keyDeviceID, keyDevicePublic, "entry", "handshake", "key", "pattern", "pq", "protocol_version",
		"supported_versions", keyUser, "zkp")
	if err != nil {
		return Hello{}, err
	}
	h := Hello{SupportedVersions: r.raw("supported_versions"), ProtocolVersion: r.raw("protocol_version")}
	partial := h
	least := noiseXK1
	switch h.Pattern = r.text("pattern", required); h.Pattern {
	case PatternXK:
	case PatternIK:
		least = noiseIK1
	default:
		r.fail("pattern", "neither XK nor IK")
	}
	h.Handshake = r.hexBytes("handshake", required, least, MaxNoise)
	h.Capabilities = r.texts("capabilities", defaulted, MaxCapabilities, validCapability)
	h.KeyVersion = uint32(r.uint("key", defaulted, math.MaxUint32))
	h.PQ = r.hexBytes("pq", defaulted, PQKeySize, PQKeySize)
	if h.Entry = r.text("entry", defaulted); len(h.Entry) > MaxEntryToken {
		r.fail("entry", "too long")
	}
	h.DeviceCA = r.raw("device_ca_public")
	if h.Identity = r.identity(r.raw("zkp") != nil); h.Identity != nil {
		h.Proof = r.staticProof("zkp")
	}
	if r.err != nil {
		return partial, r.err
	}
	return h, nil
}

// identity reads the identity's keys: nil if there are none, unless it must be
// there.
func (r *reader) identity(must bool) *Identity {
	for _, k := range []string{keyCertificate, keyClientStatic, keyDeviceID, keyDevicePublic, keyUser} {
		must = must || r.raw(k) != nil
	}
	if !must {
		return nil
	}
	id := &Identity{DeviceID: r.text(keyDeviceID, required)}
	if r.raw(keyDeviceID) != nil && !ValidDeviceID(id.DeviceID) {
		r.fail(keyDeviceID, "not 1 to 64 of A-Z a-z 0-9 - _ .")
	}
	r.hex(keyDevicePublic, required, id.DevicePublic[:])
	r.hex(keyClientStatic, required, id.ClientStatic[:])
	id.Certificate = r.object(keyCertificate, defaulted)
	id.User = userHints(r.raw(keyUser))
	return id
}

// userHints never fails: what has another type counts as absent, and an id of
// another type hides user_id (ccp1.md 3.3).
func userHints(v Raw) *UserHints {
	if !v.IsObject() {
		return nil
	}
	r, err := pick(v, keyUser, "avatar_url", "display_name", "handle", "id", "user_id")
	if err != nil {
		return nil
	}
	var u UserHints
	u.AvatarURL, _ = r.raw("avatar_url").Text()
	u.DisplayName, _ = r.raw("display_name").Text()
	u.Handle, _ = r.raw("handle").Text()
	if id := r.raw("id"); id != nil {
		u.ID, _ = id.Text()
	} else {
		u.ID, _ = r.raw("user_id").Text()
	}
	return &u
}

func (r *reader) staticProof(name string) *StaticProof {
	v := r.object(name, required)
	if v == nil {
		return nil
	}
	n, err := pick(v, name, "commitment", "response")
	if err != nil {
		r.note(err)
		return nil
	}
	var p StaticProof
	n.hex("commitment", required, p.Commitment[:])
	n.hex("response", required, p.Response[:])
	r.note(n.err)
	return &p
}

// Marshal writes the payload, keys sorted. The client must keep exactly these
// bytes for HelloDigest.
func (h Hello) Marshal() []byte {
	w := writer{}
	w.open('{')
	if len(h.Capabilities) != 0 {
		w.key("capabilities").texts(h.Capabilities)
	}
	id := h.Identity
	if id != nil {
		w.optRaw(keyCertificate, id.Certificate)
		w.key(keyClientStatic).hex(id.ClientStatic[:])
	}
	w.optRaw("device_ca_public", h.DeviceCA)
	if id != nil {
		w.key(keyDeviceID).text(id.DeviceID)
		w.key(keyDevicePublic).hex(id.DevicePublic[:])
	}
	w.optText("entry", h.Entry)
	w.key("handshake").hex(h.Handshake)
	if h.KeyVersion != 0 {
		w.key("key").uint(uint64(h.KeyVersion))
	}
	w.key("pattern").text(h.Pattern)
	w.optHex("pq", h.PQ)
	w.optRaw("protocol_version", h.ProtocolVersion)
	w.optRaw("supported_versions", h.SupportedVersions)
	if id != nil && id.User != nil {
		w.key(keyUser).user(*id.User)
	}
	if h.Proof != nil {
		w.key("zkp").open('{')
		w.key("commitment").hex(h.Proof.Commitment[:])
		w.key("response").hex(h.Proof.Response[:])
		w.close('}')
	}
	return w.close('}')
}

func (w *writer) user(u UserHints) {
	w.open('{')
	w.optText("avatar_url", u.AvatarURL)
	w.optText("display_name", u.DisplayName)
	w.optText("handle", u.Handle)
	w.optText("id", u.ID)
	w.close('}')
}

// HelloDigest is the hash of a Hello payload that message 2 repeats: SHA-256
// over "commucat/hello/1", a zero byte and the payload's bytes as they travelled
// (without the frame's header).
func HelloDigest(payload []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("commucat/hello/1\x00"))
	h.Write(payload)
	return [32]byte(h.Sum(nil))
}

// ValidDeviceID says that id has 1 to 64 of A-Z a-z 0-9 - _ . characters.
func ValidDeviceID(id string) bool {
	for i := range len(id) {
		c := id[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && !isDigit(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= MaxDeviceID
}
