package account

import (
	"crypto/rand"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// Registration says who may make a new account.
type Registration string

// The registration modes.
const (
	// ByInvite: whoever has the secret of a live invitation.
	ByInvite Registration = "invite"
	// Open: everybody.
	Open Registration = "open"
	// Closed: nobody; the operator makes accounts.
	Closed Registration = "closed"
)

// Status of a device.
type Status string

// The states of a device.
const (
	Active  Status = "active"
	Revoked Status = "revoked"
)

// User is an account.
type User struct {
	ID, Handle             string
	DisplayName, AvatarURL string
	Created                time.Time
}

// Device is one device of an account.
type Device struct {
	ID, User, Name string
	// Public is the device's Ed25519 key.
	Public  [32]byte
	Status  Status
	Created time.Time
	// Rotated is when the key last changed; zero if it never did.
	Rotated time.Time
	// Capabilities are those of the last handshake.
	Capabilities ccp.Capabilities
	// Certificate is the newest one issued; Serial 0 means none.
	Certificate identity.Certificate
}

// Options configure a Store. Zero fields take the defaults named.
type Options struct {
	// Domain is the relay's domain.
	Domain string
	Clock  func() time.Time // time.Now
	Rand   io.Reader        // crypto/rand
	// CA issues certificates; required.
	CA func() identity.CA
	// TrustedCAs are public keys of earlier CAs, whose certificates are
	// accepted from known devices and replaced.
	TrustedCAs func() [][32]byte
	// Registration is ByInvite by default.
	Registration Registration
	// MaxDevices bounds the active devices of an account (16).
	MaxDevices int
	// CertificateValidity is 30 days.
	CertificateValidity time.Duration
	// CertificateGrace is how long after its end a certificate is still renewed (90 days).
	CertificateGrace time.Duration
	// TokenTTL is the sliding life of a bearer token (1 h).
	TokenTTL time.Duration
	// RotationInterval is the least time between two rotations of a key (24 h),
	// RotationProof the longest life of a rotation's signature (10 min).
	RotationInterval, RotationProof time.Duration
	// CacheDevices bounds the cache (16 384 devices); CacheAge bounds the age of
	// an entry and is needed where several nodes share the directory (0: unbounded).
	CacheDevices int
	CacheAge     time.Duration
}

// Store is the accounts of one relay.
type Store struct {
	dir   storage.Directory
	opt   Options
	reg   atomic.Pointer[Registration]
	cache cache
	locks [64]sync.Mutex

	hooksMu sync.RWMutex
	hooks   []func(Change)
}

// New makes a Store over dir. It panics if dir or opt.CA is nil: both are
// mistakes of the program.
func New(dir storage.Directory, opt Options) *Store {
	if dir == nil || opt.CA == nil {
		panic("account: directory and CA are required")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if opt.Registration == "" {
		opt.Registration = ByInvite
	}
	orInt(&opt.MaxDevices, 16)
	orInt(&opt.CacheDevices, 16384)
	orDur(&opt.CertificateValidity, 30*24*time.Hour)
	orDur(&opt.CertificateGrace, 90*24*time.Hour)
	orDur(&opt.TokenTTL, time.Hour)
	orDur(&opt.RotationInterval, 24*time.Hour)
	orDur(&opt.RotationProof, 10*time.Minute)
	s := &Store{dir: dir, opt: opt}
	s.cache.init(opt.CacheDevices, opt.CacheAge)
	s.SetRegistration(opt.Registration)
	return s
}

func orInt(v *int, d int) {
	if *v <= 0 {
		*v = d
	}
}

func orDur(v *time.Duration, d time.Duration) {
	if *v <= 0 {
		*v = d
	}
}

// SetRegistration changes who may register, for a reload.
func (s *Store) SetRegistration(r Registration) { s.reg.Store(&r) }

// Registration is the present mode.
func (s *Store) Registration() Registration { return *s.reg.Load() }

// Domain is the relay's domain.
func (s *Store) Domain() string { return s.opt.Domain }

// TokenTTL is the life of a bearer token.
func (s *Store) TokenTTL() time.Duration { return s.opt.TokenTTL }

func (s *Store) now() time.Time { return s.opt.Clock().UTC() }

// lock serialises use cases of this node that change the same record, so that
// they do not spend their repeats on each other. Correctness rests on the
// conditions of the Commit alone.
func (s *Store) lock(name string) *sync.Mutex {
	h := uint32(2166136261)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return &s.locks[h%uint32(len(s.locks))]
}
