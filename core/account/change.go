package account

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/commucat/commucat/sdk/ccp"
)

// ChangeKind names what happened to a device list.
type ChangeKind string

// The kinds of change; they are the "type" of the GroupEvent that tells an
// account's other devices (protocol-extensions.md section 8).
const (
	DeviceAdded   ChangeKind = "device-added"
	DeviceRevoked ChangeKind = "device-revoked"
	DeviceRotated ChangeKind = "device-rotated"
	// KeysChanged: the device's keys for transports, and nothing else. No other
	// device is told of it.
	KeysChanged ChangeKind = "keys-changed"
)

// Ways in which a device came or changed.
const (
	ViaInvite      = "invite"
	ViaOpen        = "open"
	ViaPairing     = "pairing"
	ViaCertificate = "certificate"
	ViaRotation    = "rotation"
	ViaOperator    = "operator"
	ViaUser        = "user"
)

// Change is one change of an account's device list, told after it is durable.
type Change struct {
	Kind         ChangeKind
	User, Device string
	Public       [32]byte
	Via          string
	// NewUser says that the account was made by this change.
	NewUser bool
	// Came and Gone are the transport keys that are good from now on, and those that
	// are not any more; their Transport is a slot (see SlotTransport).
	Came, Gone []ccp.TransportKey
	// Owed names the record of what the account's other devices have still to be told,
	// for Settle; "" where they need not be. To are those that are left; nil: all.
	Owed string   `json:"-"`
	To   []string `json:"-"`
}

// Fingerprint is how people compare a device key: the first 16 bytes of its
// SHA-256 in hex.
func Fingerprint(public [32]byte) string {
	h := sha256.Sum256(public[:])
	return hex.EncodeToString(h[:16])
}

// Event is the JSON of the GroupEvent for the account's other devices.
func (c Change) Event() []byte {
	b, err := json.Marshal(struct {
		Type        ChangeKind `json:"type"`
		Device      string     `json:"device"`
		Fingerprint string     `json:"fingerprint"`
		Via         string     `json:"via"`
	}{c.Kind, c.Device, Fingerprint(c.Public), c.Via})
	if err != nil {
		panic("account: " + err.Error()) // strings always marshal
	}
	return b
}

// OnChange adds f to the functions that are told of every change made through
// this Store. f is called once per change, after the commit, on the goroutine of
// the operation; it must not block for long. Register before the Store is used.
func (s *Store) OnChange(f func(Change)) {
	s.hooksMu.Lock()
	defer s.hooksMu.Unlock()
	s.hooks = append(s.hooks, f)
}

// Forget makes the Store read a device anew: another node has changed it.
func (s *Store) Forget(device string) { s.cache.drop(device) }

func (s *Store) tell(c Change) {
	s.hooksMu.RLock()
	hooks := s.hooks
	s.hooksMu.RUnlock()
	for _, f := range hooks {
		f(c)
	}
}
