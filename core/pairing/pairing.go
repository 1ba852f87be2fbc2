package pairing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/storage"
)

// Lives of pairing codes.
const (
	DefaultLife = 5 * time.Minute
	MinLife     = time.Minute
	MaxLife     = time.Hour
)

// Limits of guessing short codes.
const (
	// TriesPerCode wrong guesses end a code, unless Options say otherwise.
	TriesPerCode = 5
	// TriesPerPrefix a minute are heard from one source prefix, likewise.
	TriesPerPrefix = 5
	// TriesPerMinute are heard in all, likewise.
	TriesPerMinute = 60
)

// ErrInvalid answers every claim that fails, whatever the reason: unknown,
// expired, spent, tried too often, malformed.
var ErrInvalid = errors.New("pairing: code is not valid")

// ErrShortCodes: short codes are switched off.
var ErrShortCodes = errors.New("pairing: short codes are not offered")

// Throttled answers a claim that was not looked at.
type Throttled struct {
	// After is how long to wait, one second at least.
	After time.Duration
}

// Error says how long to wait.
func (t *Throttled) Error() string { return fmt.Sprintf("pairing: too many tries; wait %s", t.After) }

// Options configure a Codes. Zero fields take defaults.
type Options struct {
	Accounts *account.Store
	// Directory is the one that Accounts uses.
	Directory storage.Directory
	// Limiter shares the limits between nodes; without one they are kept here.
	Limiter storage.Limiter
	// ShortCodes offers CreateShort and Claim (compat.public_api).
	ShortCodes bool
	// Life is how long a code lives when nothing shorter is asked for (5 min).
	Life time.Duration
	// Tries end a code (TriesPerCode); PerPrefix and PerMinute are heard from one
	// source prefix and in all (TriesPerPrefix, TriesPerMinute).
	Tries, PerPrefix, PerMinute int

	Clock func() time.Time // time.Now
	Rand  io.Reader        // crypto/rand
}

// Codes makes and claims pairing codes. It is safe for concurrent use.
type Codes struct {
	opt   Options
	local *limiter
}

// New makes a Codes. It panics without accounts and directory.
func New(opt Options) *Codes {
	if opt.Accounts == nil || opt.Directory == nil {
		panic("pairing: accounts and directory are required")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if opt.Life <= 0 {
		opt.Life = DefaultLife
	}
	for _, n := range []struct {
		given *int
		def   int
	}{{&opt.Tries, TriesPerCode}, {&opt.PerPrefix, TriesPerPrefix}, {&opt.PerMinute, TriesPerMinute}} {
		if *n.given <= 0 {
			*n.given = n.def
		}
	}
	c := &Codes{opt: opt}
	if opt.Limiter == nil {
		c.local = newLimiter(maxBuckets)
		c.opt.Limiter = c.local
	}
	return c
}

// Code is a link code that was made.
type Code struct {
	// Secret goes into the link; it is stored nowhere.
	Secret  [16]byte
	ID      string
	Issued  time.Time
	Expires time.Time
}

// life bounds a wish: nothing means the default, and never more than it.
func (c *Codes) life(ttl time.Duration) time.Duration {
	if ttl <= 0 || ttl > c.opt.Life {
		ttl = c.opt.Life
	}
	return min(max(ttl, MinLife), MaxLife)
}

// Create makes a link code for user's account, issued by its device ("": by the
// operator). ttl 0 means the default; it is held between a minute and the default.
// The errors are those of account.Store.CreatePair.
func (c *Codes) Create(ctx context.Context, user, device string, ttl time.Duration) (Code, error) {
	code := Code{Issued: c.opt.Clock().UTC()}
	if _, err := io.ReadFull(c.opt.Rand, code.Secret[:]); err != nil {
		return Code{}, fmt.Errorf("pairing: random: %w", err)
	}
	life := c.life(ttl)
	code.ID, code.Expires = account.PairID(code.Secret[:]), code.Issued.Add(life)
	if err := c.opt.Accounts.CreatePair(ctx, user, device, code.ID, life); err != nil {
		return Code{}, err
	}
	return code, nil
}

// Revoke ends a link code before its time; unknown ones are ignored.
func (c *Codes) Revoke(ctx context.Context, id string) error {
	return c.opt.Accounts.DropPair(ctx, id)
}

// RevokeOf ends a link code that device made; account.ErrNotFound when there is none.
func (c *Codes) RevokeOf(ctx context.Context, device, id string) error {
	if issuer, err := c.opt.Accounts.PairIssuer(ctx, id); err != nil || issuer != device {
		if err == nil {
			err = account.ErrNotFound
		}
		return err
	}
	return c.Revoke(ctx, id)
}
