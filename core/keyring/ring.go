package keyring

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/identity"
)

// Options configure a Ring. Domain is required.
type Options struct {
	// Domain enters the catalogue and the self-signed certificate.
	Domain string
	// Rotate is the age at which a new Noise key is made, Grace how long the old
	// one is accepted after that (30 days each).
	Rotate, Grace time.Duration
	// Pinned keeps the first Noise key for ever (compat.pinned_keys).
	Pinned bool
	// Features and Min are what the catalogue promises and demands.
	Features, Min ccp.Capabilities
	// Import gives keys of an earlier installation; it counts only while the
	// folder's first keys are made.
	Import Import
	// Clock and Rand are time.Now and crypto/rand unless set.
	Clock func() time.Time
	Rand  io.Reader
}

// Import are keys to take over; nil ones are drawn.
type Import struct {
	// CA is the device CA's seed, Noise the private static key.
	CA, Noise *[32]byte
}

// Ring is the open key folder. It is safe for concurrent use; reading a key
// takes no lock.
type Ring struct {
	opt Options
	dir folder

	root    ed25519.PrivateKey
	ca      identity.CA
	storage [32]byte
	audit   [32]byte

	mu        sync.Mutex // rotation
	noise     atomic.Pointer[[]NoiseKey]
	masters   atomic.Pointer[[]master]
	catalogue atomic.Pointer[published]
}

// Change is a key that was made.
type Change struct {
	// What is "root", "ca", "noise", "entry", "storage", "audit" or "catalogue".
	What    string
	Version uint32
	// Public identifies it where it has a public half.
	Public [32]byte
}

// Open reads the folder, making all keys where it is empty; changes names what was
// made. A file that is missing from a folder that was complete is an error.
func Open(dir string, opt Options) (r *Ring, changes []Change, err error) {
	if opt.Domain == "" {
		return nil, nil, errors.New("keyring: no domain")
	}
	day := 24 * time.Hour
	if opt.Rotate <= 0 {
		opt.Rotate = 30 * day
	}
	if opt.Grace <= 0 {
		opt.Grace = 30 * day
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	r = &Ring{opt: opt}
	var fresh bool
	if r.dir, fresh, err = openFolder(dir); err != nil {
		return nil, nil, err
	}
	var seed, caSeed [32]byte
	for _, k := range []struct {
		file  string
		to    *[32]byte
		given *[32]byte
	}{{"root", &seed, nil}, {"ca", &caSeed, opt.Import.CA}, {"storage", &r.storage, nil}, {"audit", &r.audit, nil}} {
		var made bool
		if *k.to, made, err = r.dir.key(k.file, fresh, k.given, opt.Rand); err != nil {
			return nil, nil, err
		}
		if made {
			changes = append(changes, Change{What: k.file})
		}
	}
	r.root = ed25519.NewKeyFromSeed(seed[:])
	if r.ca, err = identity.NewCA(caSeed[:]); err != nil {
		return nil, nil, err
	}
	for i := range changes {
		switch changes[i].What {
		case "root":
			changes[i].Public = r.RootPublic()
		case "ca":
			changes[i].Public = r.ca.Public()
		}
	}
	if err := r.loadNoise(fresh); err != nil {
		return nil, nil, err
	}
	if err := r.loadMasters(fresh); err != nil {
		return nil, nil, err
	}
	if err := r.loadCatalogue(); err != nil {
		return nil, nil, err
	}
	more, err := r.Rotate()
	if err != nil {
		return nil, nil, err
	}
	if fresh {
		if err := r.dir.finish(); err != nil {
			return nil, nil, err
		}
	}
	return r, append(changes, more...), nil
}

// Check reads every key of a folder as Open would and makes nothing. Each error names its
// file and what to do; there are none for a folder whose first keys have yet to be made.
func Check(dir string) (faults []error) {
	r := &Ring{dir: folder(dir)}
	if _, err := os.Lstat(r.dir.name(beginFile)); err == nil {
		return nil
	}
	found := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	for _, file := range []string{"root", "ca", "storage", "audit"} {
		_, _, err := r.dir.key(file, false, nil, nil)
		found(err)
	}
	found(r.loadNoise(false))
	found(r.loadMasters(false))
	if _, err := r.dir.tlsKey(); !errors.Is(err, fs.ErrNotExist) { // not needed beside another certificate
		found(err)
	}
	return faults
}

// String names the folder and the root's public key, nothing secret.
func (r *Ring) String() string {
	root := r.RootPublic()
	return fmt.Sprintf("keys %s root %x", string(r.dir), root[:8])
}

// Format prints String for every verb, so that none shows a key.
func (r *Ring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue keeps the keys out of logs.
func (r *Ring) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Root is the private root key: for links and the catalogue only.
func (r *Ring) Root() ed25519.PrivateKey { return r.root }

// RootPublic is its public half, which links carry.
func (r *Ring) RootPublic() [32]byte { return [32]byte(r.root.Public().(ed25519.PublicKey)) }

// CA is the device CA.
func (r *Ring) CA() identity.CA { return r.ca }

// StorageKey seals message bodies.
func (r *Ring) StorageKey() [32]byte { return r.storage }

// AuditKey keys the digests of audit records; AuditSigner signs checkpoints.
func (r *Ring) AuditKey() [32]byte { return r.audit }

// AuditVerifier reads the key that checks a relay's audit checkpoints and touches
// nothing else of the folder.
func AuditVerifier(dir string) (ed25519.PublicKey, error) {
	k, _, err := folder(dir).key("audit", false, nil, nil)
	if err != nil {
		return nil, err
	}
	return (&Ring{audit: k}).AuditSigner().Public().(ed25519.PublicKey), nil
}

// AuditSigner is an Ed25519 key derived for checkpoints alone.
func (r *Ring) AuditSigner() ed25519.PrivateKey {
	seed := derive(r.audit[:], "commucat/audit-checkpoint/1")
	return ed25519.NewKeyFromSeed(seed[:])
}

// NewEntry makes an entry credential that ends at expires, at the latest when the
// present master does.
func (r *Ring) NewEntry(expires time.Time) entry.Credential {
	m := (*r.masters.Load())[0]
	if last := m.Created.Add(masterLife); expires.After(last) {
		expires = last
	}
	return entry.New(m.Key, expires, r.opt.Rand)
}

// FirstInvite is the secret of the first invitation, by when it was made: whoever has the
// relay's keys can show its link again.
func (r *Ring) FirstInvite(created time.Time) [16]byte {
	secret := derive(r.root.Seed(), "commucat/first-invite/1 "+strconv.FormatInt(created.UnixMicro(), 10))
	return [16]byte(secret[:16])
}

// Rotate makes the keys and the catalogue that are due and forgets those whose
// time is over. It is called at start and then every hour or so; it writes
// only when something changes.
func (r *Ring) Rotate() ([]Change, error) { return r.rotate(false) }

// Renew makes a new Noise key at once, for the operator; the old one has its
// grace. While that would end another key's grace it is an error of kind Conflict.
func (r *Ring) Renew() ([]Change, error) { return r.rotate(true) }

func (r *Ring) rotate(force bool) ([]Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opt.Clock().UTC().Truncate(time.Second)
	noise, err := r.rotateNoise(now, force)
	if err != nil {
		return nil, err
	}
	masters, err := r.rotateMasters(now)
	if err != nil {
		return noise, err
	}
	changes := append(noise, masters...)
	published, err := r.publish(now)
	return append(changes, published...), err
}

// Still calls f while no file of the folder changes.
func (r *Ring) Still(f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f()
}
