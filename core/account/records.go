package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// Kinds of record; see the package comment.
const (
	kindUser    = "user"
	kindHandle  = "handle"
	kindDevice  = "device"
	kindEvent   = "key-event"
	kindRetired = "retired-key"
	kindInvite  = "invite"
	kindPair    = "pair"
	kindToken   = "token"
	kindFriends = "friends"
	kindOwed    = "owed-notice"
)

// commitTries bounds how often a use case is decided anew after a lost race.
const commitTries = 16

// eventLife is how long a key event is kept.
const eventLife = 400 * 24 * time.Hour

// maxListed bounds the devices that an account's record names: active ones and,
// beside them, the revoked ones that changed last.
const maxListed = 64

type userRecord struct {
	Handle  string   `json:"handle"`
	Display string   `json:"display,omitempty"`
	Avatar  string   `json:"avatar,omitempty"`
	Created int64    `json:"created"` // unix µs
	Devices []string `json:"devices"` // oldest first
}

type handleRecord struct {
	User   string `json:"user"`
	Handle string `json:"handle"`
}

type deviceRecord struct {
	User    string          `json:"user"`
	Name    string          `json:"name,omitempty"`
	Public  hexBytes        `json:"public"`
	Status  Status          `json:"status"`
	Created int64           `json:"created"`           // unix µs
	Rotated int64           `json:"rotated,omitempty"` // unix µs
	Caps    uint16          `json:"caps,omitempty"`
	Epoch   uint64          `json:"epoch"`
	Cert    json.RawMessage `json:"cert,omitempty"`
	// Keys are public keys for transports, by slot; see ExportSlot.
	Keys map[string]hexBytes `json:"keys,omitempty"`
}

type eventRecord struct {
	Action string   `json:"action"` // register, rotate, certificate, revoke
	Via    string   `json:"via,omitempty"`
	Public hexBytes `json:"public"`
	Serial uint64   `json:"serial,omitempty"`
	At     int64    `json:"at"` // unix µs
}

// hexBytes is a byte string that JSON shows as hex.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexBytes) UnmarshalText(b []byte) error {
	out, err := hex.DecodeString(string(b))
	*h = out
	return err
}

func (h hexBytes) key() (k [32]byte) {
	copy(k[:], h)
	return k
}

// held is a record as read, with what it says.
type held[T any] struct {
	key     storage.Key
	version uint64
	value   T
}

func (h held[T]) exists() bool { return h.version != 0 }

// write asks that the record become h.value, if it still is what was read.
func (h held[T]) write(expires time.Time) storage.Write {
	return storage.Write{Key: h.key, Expect: h.version, Value: encode(h.value), Expires: expires}
}

// check asks that the record still be what was read.
func (h held[T]) check() storage.Write {
	return storage.Write{Key: h.key, Expect: h.version, CheckOnly: true}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("account: " + err.Error()) // our own record types always marshal
	}
	return b
}

func decode[T any](r storage.Record, k storage.Key) (held[T], error) {
	h := held[T]{key: k, version: r.Version}
	if r.Version == 0 {
		return h, nil
	}
	if err := json.Unmarshal(r.Value, &h.value); err != nil {
		return h, &sdk.Error{Kind: sdk.Corrupt, Op: "account: record of kind " + k.Kind, Err: err}
	}
	return h, nil
}

// get reads records, one for each key whatever the storage answers.
func (s *Store) get(ctx context.Context, keys ...storage.Key) ([]storage.Record, error) {
	r, err := s.dir.Get(ctx, s.now(), keys)
	if err == nil && len(r) != len(keys) {
		err = &sdk.Error{Kind: sdk.Corrupt, Op: "account: get", Text: fmt.Sprintf("the storage gave %d answers for %d keys", len(r), len(keys))}
	}
	return r, err
}

func load[T any](ctx context.Context, s *Store, kind, id string) (held[T], error) {
	k := storage.Key{Kind: kind, ID: id}
	if id == "" || len(id) > storage.MaxID {
		return held[T]{key: k}, nil // no such key can exist
	}
	r, err := s.get(ctx, k)
	if err != nil {
		return held[T]{}, err
	}
	return decode[T](r[0], k)
}

func (r userRecord) user(id string) User {
	return User{ID: id, Handle: r.Handle, DisplayName: r.Display, AvatarURL: r.Avatar, Created: fromMicro(r.Created)}
}

// bare is the device without its certificate.
func (r deviceRecord) bare(id string) Device {
	return Device{
		ID: id, User: r.User, Name: r.Name, Public: r.Public.key(), Status: r.Status,
		Created: fromMicro(r.Created), Rotated: fromMicro(r.Rotated), Capabilities: ccp.Capabilities(r.Caps),
	}
}

func (r deviceRecord) device(id string) (Device, error) {
	d := r.bare(id)
	if len(r.Cert) == 0 {
		return d, nil
	}
	c, err := identity.ParseCertificate(r.Cert)
	if err != nil {
		return d, &sdk.Error{Kind: sdk.Corrupt, Op: "account: stored certificate of " + id, Err: err}
	}
	d.Certificate = c
	return d, nil
}

// list adds id to the account's devices, and forgets the oldest of gone (ids of
// revoked devices) where the list would be too long.
func (r *userRecord) list(id string, gone []string) {
	if slices.Contains(r.Devices, id) {
		return
	}
	r.Devices = append(slices.Clone(r.Devices), id)
	for _, g := range gone {
		if len(r.Devices) <= maxListed {
			return
		}
		r.Devices = slices.DeleteFunc(r.Devices, func(d string) bool { return d == g })
	}
}

func (s *Store) event(device string, e eventRecord, at time.Time) storage.Write {
	e.At = at.UnixMicro()
	return storage.Write{
		Key:    storage.Key{Kind: kindEvent, ID: fmt.Sprintf("%s/%016x", device, uint64(e.At))},
		Expect: storage.AnyVersion, Value: encode(e), Expires: at.Add(eventLife),
	}
}

func hashID(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
