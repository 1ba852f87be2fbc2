package api

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/sdk/identity"
)

// Info are the facts of server-info.
type Info struct {
	Domain string
	// Root is the public root key, which signs the catalogue; zero: not told.
	Root [32]byte
	// Noise are the live keys, newest first.
	Noise []NoiseKey
	CA    [32]byte
	// Catalogue is the signed catalogue's wire form.
	Catalogue json.RawMessage
	// Keepalive is the session's, PresenceTTL that of presence, TokenTTL of the
	// bearer token.
	Keepalive, PresenceTTL, TokenTTL time.Duration
	// RotationInterval and RotationProof bound device key rotation; zero: off.
	RotationInterval, RotationProof time.Duration
	PairingTTL                      time.Duration
	// AutoApprove says whether a device may join without pairing; MaxDevices is
	// the limit of an account.
	AutoApprove bool
	MaxDevices  int
	PostQuantum bool
}

// NoiseKey is one key of server-info.
type NoiseKey struct {
	Version    uint32
	Public     [32]byte
	ValidAfter time.Time
	RotatesAt  time.Time
	ExpiresAt  time.Time
}

type object = map[string]any

func (a *REST) serverInfo(w http.ResponseWriter, _ *http.Request, _ *account.Bearer) error {
	i := a.opt.Info()
	keys := make([]object, len(i.Noise))
	newest := ""
	for n, k := range i.Noise {
		keys[n] = object{
			"version": k.Version, "public": hex.EncodeToString(k.Public[:]),
			"valid_after": stamp(k.ValidAfter), "rotates_at": stamp(k.RotatesAt), "expires_at": stamp(k.ExpiresAt),
		}
		if n == 0 {
			newest = hex.EncodeToString(k.Public[:])
		}
	}
	out := object{
		"domain": i.Domain, "noise_public": newest, "noise_keys": keys,
		"device_ca_public":   hex.EncodeToString(i.CA[:]),
		"supported_patterns": []string{"XK", "IK"}, "supported_versions": []int{1},
		"session":         object{"ttl_seconds": seconds(i.TokenTTL), "keepalive_interval": max(5, seconds(i.Keepalive)/2)},
		"presence":        object{"ttl_seconds": seconds(i.PresenceTTL)},
		"device_rotation": object{"enabled": i.RotationProof > 0, "min_interval_seconds": seconds(i.RotationInterval), "proof_ttl_seconds": seconds(i.RotationProof)},
		"pairing":         object{"auto_approve": i.AutoApprove, "pairing_ttl": seconds(i.PairingTTL), "max_auto_devices": i.MaxDevices},
		// The hybrid key is made for each connection, so there is none to publish.
		"post_quantum": object{"enabled": i.PostQuantum, "kem_algorithm": named(i.PostQuantum, "ML-KEM-768"), "signature_algorithm": nil, "kem_public_hex": nil},
	}
	if i.Root != [32]byte{} {
		out["root_public"] = hex.EncodeToString(i.Root[:])
	}
	if len(i.Catalogue) > 0 {
		out["catalogue"] = i.Catalogue
	}
	writeJSON(w, out)
	return nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func named(on bool, name string) any {
	if on {
		return name
	}
	return nil
}

func (a *REST) pair(w http.ResponseWriter, r *http.Request, b *account.Bearer) error {
	var in struct {
		TTL *int64 `json:"ttl"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	var ttl time.Duration
	if in.TTL != nil {
		if *in.TTL <= 0 || *in.TTL > 86400 {
			return problem(400, "bad_request", "ttl must be 1 to 86400 seconds")
		}
		ttl = time.Duration(*in.TTL) * time.Second
	}
	out := object{}
	if a.opt.PairLink != nil {
		link, id, expires, err := a.opt.PairLink(r.Context(), b.User.ID, b.Device.ID, ttl)
		if err != nil {
			return err
		}
		out["link"], out["link_id"], out["expires_at"] = link, id, stamp(expires)
	}
	if !a.opt.Public { // short codes are the reference's and stay with its switch
		writeJSON(w, out)
		return nil
	}
	code, err := a.opt.Pairing.CreateShort(r.Context(), b.User.ID, b.Device.ID, ttl)
	if err != nil {
		return err
	}
	var seed [32]byte // the reference's clients insist on one; it is used for nothing
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	info := a.opt.Info()
	maps.Copy(out, object{
		"pair_code": code.Text, "issued_at": stamp(code.Issued), "expires_at": stamp(code.Expires), "ttl": seconds(code.Life),
		"device_seed": hex.EncodeToString(seed[:]), "issuer_device_id": b.Device.ID, "device_ca_public": hex.EncodeToString(info.CA[:]),
	})
	writeJSON(w, out)
	return nil
}

// unpair ends a link that this device made.
func (a *REST) unpair(w http.ResponseWriter, r *http.Request, b *account.Bearer) error {
	var in struct {
		ID string `json:"link_id"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	if err := a.opt.Pairing.RevokeOf(r.Context(), b.Device.ID, in.ID); err != nil {
		return err
	}
	if a.opt.Unpaired != nil {
		a.opt.Unpaired(in.ID)
	}
	writeJSON(w, object{"link_id": in.ID, "status": "revoked"})
	return nil
}

func (a *REST) claim(w http.ResponseWriter, r *http.Request, _ *account.Bearer) error {
	var in struct {
		Code   string  `json:"pair_code"`
		Name   *string `json:"device_name"`
		Public string  `json:"public_key"`
		Device string  `json:"device_id"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	q := pairing.Claim{Code: in.Code, Device: in.Device, Prefix: prefixOf(r.RemoteAddr).String()}
	if in.Name != nil {
		q.Name = *in.Name
	}
	if in.Public != "" {
		b, err := hex.DecodeString(in.Public)
		if err != nil || len(b) != 32 || identity.CheckPublic([32]byte(b)) != nil {
			return problem(400, "bad_request", "public_key must be an Ed25519 key of 64 hex digits")
		}
		q.Public = (*[32]byte)(b)
	}
	if in.Device != "" && !identity.ValidDeviceID(in.Device) {
		return problem(400, "bad_request", "device_id is not valid")
	}
	c, err := a.opt.Pairing.Claim(r.Context(), q)
	a.opt.Metrics.Inc(metrics.PairingAttempts)
	if err != nil {
		a.opt.Metrics.Inc(metrics.PairingFailures)
		return err
	}
	info := a.opt.Info()
	out := object{
		"device_id": c.Device.ID, "public_key": hex.EncodeToString(c.Device.Public[:]), "issuer_device_id": c.Issuer, "user_id": c.User.ID,
		"user":               userObject(c.User),
		"device_certificate": c.Certificate, "device_ca_public": hex.EncodeToString(info.CA[:]),
	}
	if in.Name != nil {
		out["device_name"] = c.Device.Name
	}
	if c.Seed != nil && c.Key != nil { // the client brought no key of its own
		out["seed"], out["private_key"] = hex.EncodeToString(c.Seed[:]), hex.EncodeToString(c.Key.Private[:])
	}
	writeJSON(w, out)
	return nil
}

func userObject(u account.User) object {
	return object{"id": u.ID, "user_id": u.ID, "handle": u.Handle, "display_name": orNil(u.DisplayName), "avatar_url": orNil(u.AvatarURL)}
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (a *REST) devices(w http.ResponseWriter, r *http.Request, b *account.Bearer) error {
	list, err := a.opt.Accounts.Devices(r.Context(), b.User.ID)
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(x, y account.Device) int { return x.Created.Compare(y.Created) })
	out := make([]object, len(list))
	for i, d := range list {
		out[i] = deviceObject(d)
		out[i]["current"] = d.ID == b.Device.ID
	}
	writeJSON(w, object{"devices": out})
	return nil
}

func deviceObject(d account.Device) object {
	o := object{"device_id": d.ID, "status": string(d.Status), "created_at": stamp(d.Created), "public_key": hex.EncodeToString(d.Public[:])}
	if d.Name != "" {
		o["name"] = d.Name
	}
	return o
}

func (a *REST) revoke(w http.ResponseWriter, r *http.Request, b *account.Bearer) error {
	var in struct {
		Device string `json:"device_id"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	in.Device = strings.TrimSpace(in.Device)
	switch {
	case in.Device == "":
		return problem(400, "bad_request", "device_id is missing")
	case in.Device == b.Device.ID:
		return problem(409, "own_device", "the device of this session cannot revoke itself")
	}
	if err := a.opt.Accounts.RevokeDevice(r.Context(), b.User.ID, in.Device); err != nil {
		return absentOr(err, "no device with the id %q in this account; 'commucat client devices list' shows them", in.Device)
	}
	if a.opt.Revoked != nil {
		a.opt.Revoked(in.Device)
	}
	writeJSON(w, object{"device_id": in.Device, "status": "revoked"})
	return nil
}

func (a *REST) logout(w http.ResponseWriter, r *http.Request, b *account.Bearer) error {
	if err := a.opt.Accounts.DropToken(r.Context(), b.Hash); err != nil {
		return err
	}
	writeJSON(w, object{"status": "ended"})
	return nil
}
