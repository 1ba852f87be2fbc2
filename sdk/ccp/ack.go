package ccp

import (
	"math"
	"time"
)

// Established is the Ack that ends the handshake (ccp1.md 3.7): a record with
// proof-binding, a clear frame without. It is what the contract of the wire
// calls Ack; the name Ack belongs to the capability.
type Established struct {
	// Session is the bearer token with proof-binding, else the public id.
	Session         string
	User            *User
	PairingRequired bool
	// DeviceCA and NoisePublic are 32 bytes, or nil when absent.
	DeviceCA       []byte
	NoisePublic    []byte
	NoiseVersion   uint32
	NoiseRotatesAt time.Time
	NoiseExpiresAt time.Time
	// NoiseKeys are newest first, at most 16.
	NoiseKeys []NoiseKey
	// Keepalive is in seconds.
	Keepalive uint32
	// Certificate sums up DeviceCertificate, which is an object, unparsed.
	Certificate       *CertificateSummary
	DeviceCertificate Raw
	// Ext is nil from a reference server.
	Ext *AckExt
}

// NoiseKey is a server key as the Ack lists it.
type NoiseKey struct {
	Version    uint32
	Public     [32]byte
	ValidAfter time.Time
	RotatesAt  time.Time
	ExpiresAt  time.Time
}

// CertificateSummary has unix seconds.
type CertificateSummary struct {
	Serial    uint64
	IssuedAt  int64
	ExpiresAt int64
}

// AckExt is the key "ext" of the Ack (protocol-extensions.md section 2).
type AckExt struct {
	// Entry is a fresh entry credential; nil when absent.
	Entry *Entry
	// Catalogue is the signed catalogue, an object that sdk/link reads; nil when
	// absent.
	Catalogue Raw
	// Resume is there with the capability ack; its token with resume.
	Resume *ResumeGrant
	// SendWindow is how many counters of Sends may be unanswered.
	SendWindow uint32
	// Time is the server's clock, unix milliseconds.
	Time int64
	// Endpoints are where the keys that the Confirm named are good from now on, and
	// behind them further ways to the relay that need no key, at most MaxEndpoints
	// together. A transport that is not among them does not know its key yet.
	Endpoints []Endpoint
	// Keyed names transports of the relay whose devices have keys of their own, at most
	// MaxTransportKeys: a device that can dial one names a key in its next Confirm.
	Keyed []string
	// Refused names transports that take the key of this Confirm for nobody or for another
	// device, at most MaxTransportKeys: the device draws another for its next Confirm.
	Refused []string
}

// Entry is an entry credential: {"id": 16 hex digits, "key": 32 hex digits}.
type Entry struct {
	ID  [8]byte
	Key [16]byte
}

// ResumeGrant is what of the former session is taken up, and the token for the
// next time (protocol-extensions.md section 6).
type ResumeGrant struct {
	Resumed bool
	// Token is one-use; nil where resume was not accepted.
	Token *[32]byte
	// Window is how long the token lives after the connection, seconds.
	Window uint32
	Fence  uint64
	Cursor uint64
	Logs   []LogState
}

// LogState says which counters of a log are done.
type LogState struct {
	Log  [8]byte
	Done [][2]uint64
}

// Limits of an Ack's lists.
const (
	// MaxLogs is how many logs of a device a server remembers.
	MaxLogs = 4
	// MaxNoiseKeys bounds NoiseKeys.
	MaxNoiseKeys = 16
)

// ParseEstablished reads the payload. The key handshake must be "ok"; the others
// may be absent, but not malformed.
func ParseEstablished(b []byte) (Established, error) {
	r, err := readObject(b, "", MaxControl, "certificate", "device_ca_public", "device_certificate", "ext", "handshake",
		"keepalive_interval", "noise_expires_at", "noise_key_version", "noise_keys", "noise_public",
		"noise_rotates_at", "pairing_required", "session", "user", "user_id")
	if err != nil {
		return Established{}, err
	}
	if r.text("handshake", required) != "ok" {
		r.fail("handshake", "not ok")
	}
	a := Established{
		Session:           r.text("session", optional),
		User:              r.user("user"),
		PairingRequired:   r.bool("pairing_required", optional),
		DeviceCA:          r.hexBytes("device_ca_public", optional, 32, 32),
		NoisePublic:       r.hexBytes("noise_public", optional, 32, 32),
		NoiseVersion:      uint32(r.uint("noise_key_version", optional, math.MaxUint32)),
		NoiseRotatesAt:    r.time("noise_rotates_at", optional),
		NoiseExpiresAt:    r.time("noise_expires_at", optional),
		NoiseKeys:         r.noiseKeys("noise_keys"),
		Keepalive:         uint32(r.uint("keepalive_interval", optional, math.MaxUint32)),
		DeviceCertificate: r.object("device_certificate", optional),
	}
	if id := r.text("user_id", optional); id != "" && a.User == nil {
		a.User = &User{ID: id}
	}
	if v := r.object("certificate", optional); v != nil {
		n, _ := pick(v, "certificate", "expires_at", "issued_at", "serial")
		a.Certificate = &CertificateSummary{
			Serial: n.uint("serial", required, math.MaxUint64), IssuedAt: n.int("issued_at", required), ExpiresAt: n.int("expires_at", required),
		}
		r.note(n.err)
	}
	if v := r.object("ext", defaulted); v != nil {
		a.Ext, err = parseAckExt(v)
		r.note(err)
	}
	if r.err != nil {
		return Established{}, r.err
	}
	return a, nil
}

func (r *reader) time(name string, p presence) time.Time {
	s := r.text(name, p)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		r.fail(name, "not an RFC 3339 time")
	}
	return t.UTC()
}

func (r *reader) noiseKeys(name string) []NoiseKey {
	v, ok := r.value(name, optional)
	if !ok {
		return nil
	}
	if !v.IsArray() {
		r.fail(name, "not an array")
	}
	var keys []NoiseKey
	for e := range v.Elements() {
		n, err := pick(e, r.full(name), "expires_at", "public", "rotates_at", "valid_after", "version")
		r.note(err)
		if len(keys) == MaxNoiseKeys {
			n.fail("version", "too many keys")
		}
		k := NoiseKey{
			Version:    uint32(n.uint("version", required, math.MaxUint32)),
			ValidAfter: n.time("valid_after", optional),
			RotatesAt:  n.time("rotates_at", optional),
			ExpiresAt:  n.time("expires_at", optional),
		}
		n.hex("public", required, k.Public[:])
		if r.note(n.err); r.err != nil {
			return nil
		}
		keys = append(keys, k)
	}
	return keys
}

func parseAckExt(v Raw) (*AckExt, error) {
	r, err := pick(v, "ext", "catalogue", "endpoints", "entry", "keyed", "refused", "resume", "send_window", "time")
	if err != nil {
		return nil, err
	}
	x := &AckExt{
		Catalogue:  r.object("catalogue", defaulted),
		SendWindow: uint32(r.uint("send_window", defaulted, math.MaxUint32)),
		Time:       r.int("time", defaulted),
		Endpoints:  r.endpoints("endpoints"),
		Keyed:      r.texts("keyed", defaulted, MaxTransportKeys, validTransport),
		Refused:    r.texts("refused", defaulted, MaxTransportKeys, validTransport),
	}
	if v := r.object("entry", defaulted); v != nil {
		n, _ := pick(v, "ext.entry", "id", "key")
		x.Entry = new(Entry)
		n.hex("id", required, x.Entry.ID[:])
		n.hex("key", required, x.Entry.Key[:])
		r.note(n.err)
	}
	if v := r.object("resume", defaulted); v != nil {
		x.Resume, err = parseGrant(v)
		r.note(err)
	}
	return x, r.err
}

func parseGrant(v Raw) (*ResumeGrant, error) {
	r, err := pick(v, "ext.resume", "cursor", "fence", "logs", "resumed", "token", "window_s")
	if err != nil {
		return nil, err
	}
	g := &ResumeGrant{
		Resumed: r.bool("resumed", required),
		Window:  uint32(r.uint("window_s", defaulted, math.MaxUint32)),
		Fence:   r.uint("fence", defaulted, math.MaxUint64),
		Cursor:  r.uint("cursor", defaulted, math.MaxUint64),
	}
	var token [32]byte
	if r.b64u("token", defaulted, token[:]) {
		g.Token = &token
	}
	logs, ok := r.value("logs", defaulted)
	if ok && !logs.IsArray() {
		r.fail("logs", "not an array")
	}
	for e := range logs.Elements() {
		n, err := pick(e, "ext.resume.logs", "done", "log")
		r.note(err)
		if len(g.Logs) == MaxLogs {
			r.fail("logs", "more than 4 logs")
		}
		var s LogState
		n.hex("log", required, s.Log[:])
		s.Done, err = parseRanges(nil, n.raw("done"), MaxWindowRanges)
		r.note(n.err)
		if r.note(err); r.err != nil {
			return nil, r.err
		}
		g.Logs = append(g.Logs, s)
	}
	return g, r.err
}

// Marshal writes the payload, keys sorted.
func (a Established) Marshal() []byte {
	w := writer{}
	w.open('{')
	if c := a.Certificate; c != nil {
		w.key("certificate").open('{')
		w.key("expires_at").int(c.ExpiresAt)
		w.key("issued_at").int(c.IssuedAt)
		w.key("serial").uint(c.Serial)
		w.close('}')
	}
	w.optHex("device_ca_public", a.DeviceCA)
	w.optRaw("device_certificate", a.DeviceCertificate)
	if a.Ext != nil {
		w.key("ext").ackExt(*a.Ext)
	}
	w.key("handshake").text("ok")
	w.key("keepalive_interval").uint(uint64(a.Keepalive))
	w.optTime("noise_expires_at", a.NoiseExpiresAt)
	if a.NoiseVersion != 0 {
		w.key("noise_key_version").uint(uint64(a.NoiseVersion))
	}
	if len(a.NoiseKeys) != 0 {
		w.key("noise_keys").noiseKeys(a.NoiseKeys)
	}
	w.optHex("noise_public", a.NoisePublic)
	w.optTime("noise_rotates_at", a.NoiseRotatesAt)
	w.key("pairing_required").bool(a.PairingRequired)
	w.optText("session", a.Session)
	if a.User != nil {
		w.key("user").account(*a.User)
		w.key("user_id").text(a.User.ID)
	}
	return w.close('}')
}

func (w *writer) optTime(name string, t time.Time) {
	if !t.IsZero() {
		w.key(name).text(FormatTime(t))
	}
}

func (w *writer) noiseKeys(keys []NoiseKey) {
	w.open('[')
	for _, k := range keys {
		w.elem().open('{')
		w.optTime("expires_at", k.ExpiresAt)
		w.key("public").hex(k.Public[:])
		w.optTime("rotates_at", k.RotatesAt)
		w.optTime("valid_after", k.ValidAfter)
		w.key("version").uint(uint64(k.Version))
		w.close('}')
	}
	w.close(']')
}

func (w *writer) ackExt(x AckExt) {
	w.open('{')
	w.optRaw("catalogue", x.Catalogue)
	if len(x.Endpoints) > 0 {
		w.key("endpoints").endpoints(x.Endpoints)
	}
	if x.Entry != nil {
		w.key("entry").open('{')
		w.key("id").hex(x.Entry.ID[:])
		w.key("key").hex(x.Entry.Key[:])
		w.close('}')
	}
	if len(x.Keyed) > 0 {
		w.key("keyed").texts(x.Keyed)
	}
	if len(x.Refused) > 0 {
		w.key("refused").texts(x.Refused)
	}
	if g := x.Resume; g != nil {
		w.key("resume").open('{')
		w.key("cursor").uint(g.Cursor)
		w.key("fence").uint(g.Fence)
		w.key("logs").open('[')
		for _, l := range g.Logs {
			w.elem().open('{')
			w.key("done").ranges(l.Done)
			w.key("log").hex(l.Log[:])
			w.close('}')
		}
		w.close(']')
		w.key("resumed").bool(g.Resumed)
		if g.Token != nil {
			w.key("token").b64u(g.Token[:])
		}
		w.key("window_s").uint(uint64(g.Window))
		w.close('}')
	}
	if x.SendWindow != 0 {
		w.key("send_window").uint(uint64(x.SendWindow))
	}
	if x.Time != 0 {
		w.key("time").int(x.Time)
	}
	w.close('}')
}
