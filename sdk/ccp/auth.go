package ccp

import "slices"

// ServerAuth is the server's answer to the Hello, in clear (ccp1.md 3.5). A
// client trusts nothing in it but what the Noise message proves.
type ServerAuth struct {
	// Session is a public id that opens nothing.
	Session string
	// DeviceID echoes the Hello's; "" when that was sealed.
	DeviceID string
	// Handshake is Noise message 2.
	Handshake []byte
	// ServerStatic is the key that matched, 32 bytes, or nil.
	ServerStatic []byte
	// ProtocolVersion is the negotiated version, 0 when absent.
	ProtocolVersion uint16
	// SupportedVersions are the server's.
	SupportedVersions []uint16
	// PQ is the ML-KEM-768 ciphertext, PQCiphertextSize bytes, or nil.
	PQ []byte
}

// ParseServerAuth reads the payload; only handshake is required.
func ParseServerAuth(b []byte) (ServerAuth, error) {
	r, err := readObject(b, "", MaxControl, "device_id", "handshake", "pq", "protocol_version", "server_static",
		"session", "supported_versions")
	if err != nil {
		return ServerAuth{}, err
	}
	a := ServerAuth{
		Session:         r.text("session", defaulted),
		DeviceID:        r.text("device_id", defaulted),
		Handshake:       r.hexBytes("handshake", required, noiseXK1, MaxNoise),
		ServerStatic:    r.hexBytes("server_static", defaulted, 32, 32),
		ProtocolVersion: uint16(r.uint("protocol_version", defaulted, maxVersion)),
		PQ:              r.hexBytes("pq", defaulted, PQCiphertextSize, PQCiphertextSize),
	}
	a.SupportedVersions = r.versions("supported_versions")
	if r.err != nil {
		return ServerAuth{}, r.err
	}
	return a, nil
}

func (r *reader) versions(name string) []uint16 {
	v, ok := r.value(name, defaulted)
	if !ok {
		return nil
	}
	var out []uint16
	for e := range v.Elements() {
		u, ok := e.Uint()
		if !ok || u > maxVersion || len(out) == 16 {
			r.fail(name, "not a short array of versions")
			return nil
		}
		out = append(out, uint16(u))
	}
	return out
}

// Marshal writes the payload, keys sorted.
func (a ServerAuth) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.optText("device_id", a.DeviceID)
	w.key("handshake").hex(a.Handshake)
	w.optHex("pq", a.PQ)
	if a.ProtocolVersion != 0 {
		w.key("protocol_version").uint(uint64(a.ProtocolVersion))
	}
	w.optHex("server_static", a.ServerStatic)
	w.optText("session", a.Session)
	if len(a.SupportedVersions) != 0 {
		w.key("supported_versions").raw(Versions(a.SupportedVersions...))
	}
	return w.close('}')
}

// ClientAuth carries Noise message 3 of XK, in clear (ccp1.md 3.6).
type ClientAuth struct {
	Handshake []byte
}

const noiseXK3 = 64 // s, se, empty payload

// ParseClientAuth reads the payload.
func ParseClientAuth(b []byte) (ClientAuth, error) {
	r, err := readObject(b, "", MaxControl, "handshake")
	if err != nil {
		return ClientAuth{}, err
	}
	a := ClientAuth{Handshake: r.hexBytes("handshake", required, noiseXK3, MaxNoise)}
	return a, r.err
}

// Marshal writes the payload.
func (a ClientAuth) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("handshake").hex(a.Handshake)
	return w.close('}')
}

// User is an account as the server describes it (ccp1.md 3.5).
type User struct {
	ID     string
	Handle string
	// DisplayName and AvatarURL are null on the wire when "".
	DisplayName string
	AvatarURL   string
}

func (r *reader) user(name string) *User {
	v := r.object(name, optional)
	if v == nil {
		return nil
	}
	n, _ := pick(v, r.full(name), "avatar_url", "display_name", "handle", "id", "user_id")
	u := &User{Handle: n.text("handle", optional), DisplayName: n.text("display_name", optional), AvatarURL: n.text("avatar_url", optional)}
	if u.ID = n.text("id", optional); u.ID == "" {
		u.ID = n.text("user_id", optional)
	}
	r.note(n.err)
	return u
}

func (w *writer) nullText(name, s string) {
	if s == "" {
		w.key(name).raw(Raw("null"))
		return
	}
	w.key(name).text(s)
}

func (w *writer) account(u User) {
	w.open('{')
	w.nullText("avatar_url", u.AvatarURL)
	w.nullText("display_name", u.DisplayName)
	w.key("handle").text(u.Handle)
	w.key("id").text(u.ID)
	w.key("user_id").text(u.ID)
	w.close('}')
}

// AppendJSON appends the account as the frames of the reference carry it, for
// other payloads that name it (Presence).
func (u User) AppendJSON(dst []byte) []byte {
	w := writer{b: dst}
	w.account(u)
	return w.b
}

// Ext is the encrypted payload of Noise message 2: what the reference puts there
// (ccp1.md 3.5) and the answer of negotiation. To a sealed Hello only Domain,
// ProtocolVersion and Answer are sent.
type Ext struct {
	// Session is the bearer token of peers without proof-binding, else "".
	Session         string
	Domain          string
	ProtocolVersion uint16
	User            *User
	// Answer is the key "ext"; nil from a reference server.
	Answer *Answer
}

// Answer is the server's half of negotiation (protocol-extensions.md section 1).
type Answer struct {
	// Hello is HelloDigest of the payload that the server received.
	Hello [32]byte
	// Offered is everything that the server has, Accepted what holds for this
	// connection. Names are kept as they came.
	Offered  []string
	Accepted []string
}

// NewAnswer makes the server's answer to a Hello payload.
func NewAnswer(payload []byte, offered, accepted Capabilities) *Answer {
	return &Answer{Hello: HelloDigest(payload), Offered: offered.Names(), Accepted: accepted.Names()}
}

// Check is the client's side: payload is the Hello as sent, offer what it
// offered. It returns what was accepted; an *Error of kind Downgrade if the
// server saw another Hello, or of kind Capability if accepted is not within both
// offers or breaks a rule. A nil Answer is a reference server: nothing is
// accepted, and whether that may be is for the caller to decide.
func (a *Answer) Check(payload []byte, offer Capabilities) (Capabilities, error) {
	if a == nil {
		return 0, nil
	}
	if a.Hello != HelloDigest(payload) {
		return 0, malformed(Downgrade)
	}
	for _, name := range a.Accepted {
		if !slices.Contains(a.Offered, name) || ParseCapabilities([]string{name})&offer == 0 {
			return 0, &Error{Kind: Capability, Field: "accepted", Detail: "not offered by both sides"}
		}
	}
	accepted := ParseCapabilities(a.Accepted)
	if err := accepted.Check(); err != nil {
		return 0, err
	}
	return accepted, nil
}

// ParseExt reads the payload of message 2. Domain is required.
func ParseExt(b []byte) (Ext, error) {
	r, err := readObject(b, "", MaxNoise, "domain", "ext", "protocol_version", "session", "user", "user_id")
	if err != nil {
		return Ext{}, err
	}
	e := Ext{
		Session:         r.text("session", optional),
		Domain:          r.text("domain", required),
		ProtocolVersion: uint16(r.uint("protocol_version", defaulted, maxVersion)),
		User:            r.user("user"),
	}
	if id := r.text("user_id", optional); id != "" && e.User == nil {
		e.User = &User{ID: id}
	}
	if v := r.object("ext", defaulted); v != nil {
		n, _ := pick(v, "ext", "accepted", "hello", "offered")
		a := &Answer{
			Offered:  n.texts("offered", required, MaxCapabilities, validCapability),
			Accepted: n.texts("accepted", required, MaxCapabilities, validCapability),
		}
		n.hex("hello", required, a.Hello[:])
		r.note(n.err)
		e.Answer = a
	}
	if r.err != nil {
		return Ext{}, r.err
	}
	return e, nil
}

// Marshal writes the payload, keys sorted.
func (e Ext) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("domain").text(e.Domain)
	if a := e.Answer; a != nil {
		w.key("ext").open('{')
		w.key("accepted").texts(a.Accepted)
		w.key("hello").hex(a.Hello[:])
		w.key("offered").texts(a.Offered)
		w.close('}')
	}
	if e.ProtocolVersion != 0 {
		w.key("protocol_version").uint(uint64(e.ProtocolVersion))
	}
	w.optText("session", e.Session)
	if e.User != nil {
		w.key("user").account(*e.User)
		w.key("user_id").text(e.User.ID)
	}
	return w.close('}')
}
