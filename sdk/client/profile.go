package client

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// profileFile is the name of the profile inside its folder.
const profileFile = "profile.json"

// newFile begins the names under which it is written.
const newFile = ".new-"

// Bounds of the file that LoadProfile reads, and of the endpoints in it.
const (
	maxProfile   = 1 << 20
	maxEndpoints = 64
)

// entryLasts is how long the saved entry credential must be good for the one of an Ack to
// be saved a while later and not before the session begins: relays give one with each Ack.
const entryLasts = 7 * 24 * time.Hour

// Hex32 is a 32-byte value that JSON shows as hex.
type Hex32 [32]byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex32) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex32) UnmarshalText(b []byte) error {
	if len(b) != 64 {
		return errors.New("want 64 hex digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// EntryCredential is the right to reach the connect path.
type EntryCredential struct {
	ID  []byte `json:"id"`
	Key []byte `json:"key"`
}

// Relay is what a device knows of its relay.
type Relay struct {
	Domain string `json:"domain"`
	// Root signs links and the key catalogue; zero for a relay that was trusted
	// on first use without one.
	Root     Hex32 `json:"root"`
	RootNext Hex32 `json:"root_next,omitzero"`
	// Noise is the relay's static key in use, with its version.
	Noise        Hex32  `json:"noise"`
	NoiseVersion uint32 `json:"noise_version,omitempty"`
	Prologue     string `json:"prologue,omitempty"`
	// Catalogue is the newest signed catalogue as received; its serial is
	// never allowed to fall.
	Catalogue json.RawMessage `json:"catalogue,omitempty"`
	Serial    uint64          `json:"serial,omitempty"`
	// Min are the capabilities that the catalogue insists on, known here or not.
	Min []string `json:"min,omitempty"`
	// Promised are the capabilities that link, catalogue or an earlier session
	// promised (bits of link tag 9): never less is accepted.
	Promised  uint64     `json:"promised"`
	Endpoints []Endpoint `json:"endpoints"`
	// Worked are the keys of the ways by which a session stood, the newest first.
	Worked []string          `json:"worked,omitempty"`
	Pins   []Hex32           `json:"pins,omitempty"`
	Entry  []EntryCredential `json:"entry,omitempty"`
	// Compat says that the user chose to talk to a relay without extensions.
	Compat bool `json:"compat,omitempty"`
	// Insecure skips verification of the relay's TLS certificate.
	Insecure bool `json:"insecure,omitempty"`

	// verified is until when Catalogue needs no second look: it was checked by
	// this process and expires then. Zero: not checked.
	verified time.Time
}

// Endpoint is one way to reach the relay.
type Endpoint struct {
	Transport string            `json:"transport"`
	Host      string            `json:"host"`
	Port      uint16            `json:"port"`
	Params    map[string]string `json:"params,omitempty"`
	// Own says that it is for this device's own key for the transport.
	Own bool `json:"own,omitempty"`
	// Told says that an Ack has named it: a later one may replace it.
	Told bool `json:"told,omitempty"`
}

func (e Endpoint) transport() transport.Endpoint {
	return transport.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Params}
}

// Profile is one device: keys and knowledge of one relay. It holds secrets: it
// is written 0600 into a 0700 folder and redacts itself in logs.
type Profile struct {
	DeviceID string `json:"device_id"`
	// Device is the Ed25519 seed of the device key, Static the X25519 private key
	// for Noise; both are made on this device and never leave it.
	Device Hex32 `json:"device_key"`
	Static Hex32 `json:"noise_key"`

	UserID      string          `json:"user_id,omitempty"`
	Handle      string          `json:"handle,omitempty"`
	DisplayName string          `json:"display_name,omitempty"`
	Name        string          `json:"name,omitempty"`
	Certificate json.RawMessage `json:"certificate,omitempty"`
	Relay       Relay           `json:"relay"`

	// Keys are this device's own keys for transports that want one.
	Keys []TransportKey `json:"transport_keys,omitempty"`
	// Wanted are transports of which the relay has said that devices have keys for them.
	Wanted []string `json:"wanted_keys,omitempty"`
	// Keyless says of transports whose devices have no keys when that was asked: to ask
	// may start a process.
	Keyless map[string]time.Time `json:"keyless_transports,omitempty"`

	// Joining secrets, removed once the relay has accepted the device.
	Invite  []byte `json:"invite,omitempty"`
	Pairing []byte `json:"pairing,omitempty"`

	dir string
}

// NewProfile makes a device with fresh keys for the relay of a link. handle is
// required with an invitation and must be empty for a pairing link.
func NewProfile(l link.Link, handle string, random io.Reader) (*Profile, error) {
	p, err := newDevice(random)
	if err != nil {
		return nil, err
	}
	p.Handle = handle
	p.Relay = Relay{
		Domain: l.Domain, Root: l.Root, Noise: l.NoisePublic, NoiseVersion: l.NoiseVersion,
		Promised: l.Capabilities,
	}
	for _, e := range l.Endpoints {
		p.Relay.Endpoints = append(p.Relay.Endpoints, Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values()})
	}
	for _, pin := range l.Pins {
		p.Relay.Pins = append(p.Relay.Pins, pin)
	}
	if l.Entry != nil {
		p.Relay.Entry = []EntryCredential{{ID: l.Entry.ID[:], Key: l.Entry.Key[:]}}
	}
	switch l.Kind {
	case link.Invite:
		if handle == "" {
			return nil, invalid("an invitation needs a handle for the new account")
		}
		if !isName(handle) {
			return nil, invalid("a handle is text of 1 to 64 characters")
		}
		p.Invite = append([]byte(nil), l.Secret[:]...)
	case link.Pairing:
		if handle != "" {
			return nil, invalid("a pairing link joins an existing account: no handle is chosen")
		}
		p.Pairing = append([]byte(nil), l.Secret[:]...)
	}
	return p, nil
}

// newDevice makes the keys of a device.
func newDevice(random io.Reader) (*Profile, error) {
	device, err := identity.GenerateDevice(random)
	if err != nil {
		return nil, err
	}
	static, err := noise.GenerateKeyPair(random)
	if err != nil {
		return nil, err
	}
	return &Profile{DeviceID: identity.NewDeviceID(random), Device: device.Private, Static: static.Private}, nil
}

// LoadProfile reads the profile in dir.
func LoadProfile(dir string) (*Profile, error) {
	name := filepath.Join(dir, profileFile)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Kind: Invalid, Text: "no profile in " + dir + ": make one with 'commucat client register'", Err: err}
	}
	if err != nil {
		return nil, &Error{Kind: Invalid, Text: "profile cannot be read", Err: err}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return nil, invalid("%s is readable by others: it holds secret keys; run 'chmod 600 %s'", name, name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxProfile))
	if err != nil {
		return nil, &Error{Kind: Invalid, Text: "profile cannot be read", Err: err}
	}
	p := new(Profile)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, &Error{Kind: Invalid, Text: name + " is damaged: take it from a copy, or pair this device anew in another folder", Err: err}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	p.dir = dir
	return p, nil
}

// OpenProfile reads the profile in dir and opens its store, which keeps other programs out
// of both. Who opens them one by one must read the profile after it has the store: it may
// have waited for another program, and would write over what that one saved at its end.
// It removes what a crash has left of a profile that was being written, since that holds
// keys. Errors are those of LoadProfile and OpenStore.
func OpenProfile(dir string) (*Profile, *FileStore, error) {
	if _, err := LoadProfile(dir); err != nil { // no store in a folder without a profile
		return nil, nil, err
	}
	s, err := OpenStore(dir)
	if err != nil {
		return nil, nil, err
	}
	p, err := LoadProfile(dir)
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	files, _ := os.ReadDir(dir) // what cannot be removed now can be later
	for _, f := range files {
		if strings.HasPrefix(f.Name(), newFile) && f.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, f.Name()))
		}
	}
	return p, s, nil
}

// isName: the relay has stricter rules for some; what is longer breaks the
// handshake's bounds.
func isName(s string) bool { return len(s) <= maxName && utf8.ValidString(s) }

// Check says whether the profile is complete and within bounds; its error is of kind
// Invalid.
func (p *Profile) Check() error {
	switch {
	case !identity.ValidDeviceID(p.DeviceID):
		return invalid("profile: device_id is not 1 to 64 of A-Z a-z 0-9 - _ .")
	case p.Relay.Domain == "" || len(p.Relay.Domain) > 253:
		return invalid("profile: relay.domain is missing or too long")
	case len(p.Relay.Endpoints) == 0:
		return invalid("profile: the relay has no endpoint")
	case len(p.Relay.Endpoints) > maxEndpoints || len(p.Relay.Worked) > maxEndpoints:
		return invalid("profile: the relay has more than %d endpoints", maxEndpoints)
	case !isName(p.Handle) || !isName(p.DisplayName) || !isName(p.Name):
		return invalid("handle, display name and the device's name are texts of at most %d bytes", maxName)
	case p.Device == Hex32{} || p.Static == Hex32{}:
		return invalid("profile: a secret key is missing; restore the file or register again")
	case len(p.Keys) > maxKeys || len(p.Keyless) > maxEndpoints || len(p.Wanted) > ccp.MaxTransportKeys:
		return invalid("profile: it has more than %d keys for transports", maxKeys)
	case p.Relay.Noise == Hex32{}:
		return invalid("profile: the relay's Noise key is missing")
	}
	return nil
}

// Save writes the profile into dir (0700, file 0600), atomically.
func (p *Profile) Save(dir string) error {
	_, missing := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &Error{Kind: Invalid, Text: "profile folder cannot be made", Err: err}
	}
	if missing != nil {
		_ = syncFolder(filepath.Dir(dir)) // which this user may not be allowed to open
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := writeAtomic(filepath.Join(dir, profileFile), append(b, '\n')); err != nil {
		return &Error{Kind: Invalid, Text: "profile cannot be written", Err: err}
	}
	p.dir = dir
	return nil
}

// Dir is the folder the profile was loaded from or saved to.
func (p *Profile) Dir() string { return p.dir }

// String names the device and its relay, never a key.
func (p *Profile) String() string { return p.DeviceID + " at " + p.Relay.Domain }

// GoString implements fmt.GoStringer so that %#v shows no key.
func (p *Profile) GoString() string { return "client.Profile(" + p.String() + ")" }

func (p *Profile) device() identity.Device { return identity.Device{Private: p.Device} }

// entry returns the newest credential that has not expired, oldest last.
func (r *Relay) entry(now time.Time) (EntryCredential, bool) {
	for i := len(r.Entry) - 1; i >= 0; i-- {
		e := r.Entry[i]
		if len(e.ID) != 8 || len(e.Key) != 16 {
			continue
		}
		if expiry(e.ID).After(now) {
			return e, true
		}
	}
	return EntryCredential{}, false
}

// lasts says that a credential is good for so long that the next one need not be saved at
// once.
func (r *Relay) lasts(now time.Time) bool {
	_, ok := r.entry(now.Add(entryLasts))
	return ok
}

// expiry reads the time that the first four bytes of a credential's id hold.
func expiry(id []byte) time.Time {
	s := uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
	return time.Unix(int64(s), 0)
}

// writeAtomic replaces name with a file of mode 0600 that is on disk when it
// returns.
func writeAtomic(name string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), newFile+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

// syncFolder puts what was made or renamed in a folder on the disk.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
