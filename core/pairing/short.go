package pairing

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// alphabet leaves out I, L, O, 0 and 1: 31 symbols.
const alphabet = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"

const kindShort = "pair-short"

// decoy is the id under which tries at codes that do not live are stored; no code
// begins so, nor as malformed does.
const (
	decoy     = "0000"
	malformed = "1111-1111"
)

// draws bounds the search for a first half that no live code has.
const draws = 16

// commitTries bounds repeats of a counted try that lost a race.
const commitTries = 16

// ShortCode is a short code that was made.
type ShortCode struct {
	Text    string // XXXX-XXXX
	Issued  time.Time
	Expires time.Time
	Life    time.Duration
}

type shortRecord struct {
	Hash  [32]byte `json:"hash"`
	Tries int      `json:"tries"`
	// Secret is the link code behind the short one, masked with a hash of it:
	// without the short code the record does not open the account.
	Secret [32]byte `json:"secret"`
}

// CreateShort makes a short code, with the rules of Create.
func (c *Codes) CreateShort(ctx context.Context, user, device string, ttl time.Duration) (ShortCode, error) {
	if !c.opt.ShortCodes {
		return ShortCode{}, ErrShortCodes
	}
	life := c.life(ttl)
	var last error
	for range draws {
		text, err := c.draw()
		if err != nil {
			return ShortCode{}, err
		}
		now := c.opt.Clock().UTC()
		rec, secret, err := c.seal(text)
		if err != nil {
			return ShortCode{}, err
		}
		value, err := json.Marshal(rec)
		if err != nil {
			return ShortCode{}, err
		}
		last = c.opt.Accounts.CreatePair(ctx, user, device, account.PairID(secret), life, storage.Write{
			Key: shortKey(text), Expect: 0, Value: value, Expires: now.Add(life),
		})
		if last == nil {
			return ShortCode{Text: text, Issued: now, Expires: now.Add(life), Life: life}, nil
		}
		var conflict *storage.ConflictError
		if !errors.As(last, &conflict) {
			return ShortCode{}, last
		}
	}
	return ShortCode{}, last
}

func shortKey(text string) storage.Key { return storage.Key{Kind: kindShort, ID: text[:4]} }

func (c *Codes) seal(text string) (shortRecord, []byte, error) {
	secret := make([]byte, 32)
	if _, err := io.ReadFull(c.opt.Rand, secret); err != nil {
		return shortRecord{}, nil, fmt.Errorf("pairing: random: %w", err)
	}
	rec := shortRecord{Hash: sha256.Sum256([]byte("commucat/short-hash/1\x00" + text))}
	mask := sha256.Sum256([]byte("commucat/short-mask/1\x00" + text))
	subtle.XORBytes(rec.Secret[:], secret, mask[:])
	return rec, secret, nil
}

// open answers the link code behind text, or ok false. It takes the same steps
// for a record that does not exist.
func (r shortRecord) open(text string) (secret []byte, ok bool) {
	hash := sha256.Sum256([]byte("commucat/short-hash/1\x00" + text))
	mask := sha256.Sum256([]byte("commucat/short-mask/1\x00" + text))
	secret = make([]byte, 32)
	subtle.XORBytes(secret, r.Secret[:], mask[:])
	return secret, subtle.ConstantTimeCompare(hash[:], r.Hash[:]) == 1
}

// draw makes an unbiased code.
func (c *Codes) draw() (string, error) {
	out := make([]byte, 0, 9)
	var b [32]byte
	for {
		if _, err := io.ReadFull(c.opt.Rand, b[:]); err != nil {
			return "", fmt.Errorf("pairing: random: %w", err)
		}
		for _, x := range b {
			if int(x) >= 256/len(alphabet)*len(alphabet) {
				continue
			}
			out = append(out, alphabet[int(x)%len(alphabet)])
			switch len(out) {
			case 4:
				out = append(out, '-')
			case 9:
				return string(out), nil
			}
		}
	}
}

// normalise trims and upper-cases; the hyphen is required.
func normalise(text string) (string, bool) {
	if len(text) > 64 {
		return "", false
	}
	text = strings.ToUpper(strings.TrimSpace(text))
	if len(text) != 9 || text[4] != '-' {
		return "", false
	}
	for i := range len(text) {
		if i != 4 && strings.IndexByte(alphabet, text[i]) < 0 {
			return "", false
		}
	}
	return text, true
}

// Claim asks for a device by a short code.
type Claim struct {
	Code string
	Name string
	// Prefix is the caller's network prefix as admission counts it.
	Prefix string
	// Public is the device's own key; nil has the server make one (the
	// reference's client expects that).
	Public *[32]byte
	// Device is the id to take; empty draws one.
	Device string
}

// Claimed is what a claim made.
type Claimed struct {
	User        account.User
	Device      account.Device
	Issuer      string
	Certificate identity.Certificate
	// Seed and Key are set only when the server made the key. They exist in this
	// answer alone: nothing of them is stored or logged.
	Seed *[32]byte
	Key  *identity.Device
}

// Claim spends a short code and adds a device. It fails with *Throttled before
// anything is looked at, with ErrInvalid for whatever is wrong with the code, with
// *account.Error when the account is full, or with the directory's error.
func (c *Codes) Claim(ctx context.Context, q Claim) (Claimed, error) {
	secret, err := c.Redeem(ctx, q.Code, q.Prefix)
	if err != nil {
		return Claimed{}, err
	}
	return c.add(ctx, q, secret)
}

// throttle charges one try to the prefix and to all.
func (c *Codes) throttle(ctx context.Context, prefix string) error {
	now := c.opt.Clock()
	for _, l := range []struct {
		key   string
		burst int
	}{{"pair/p/" + prefix, c.opt.PerPrefix}, {"pair/all", c.opt.PerMinute}} {
		wait, err := c.opt.Limiter.Take(ctx, now, l.key, storage.Rate{Burst: uint32(l.burst), Per: time.Minute}, 1)
		if err != nil {
			return err
		}
		if wait > 0 {
			return &Throttled{After: max(wait.Round(time.Second), time.Second)}
		}
	}
	return nil
}

// try counts one guess at the code named by text's first half and answers the
// secret behind it when the guess is right. The try is counted before it is
// judged, in a commit of its own, so that no race gives a sixth. A try at a code that
// does not live is stored as well, at decoy: the time of a commit does not tell which
// first halves are live.
func (c *Codes) try(ctx context.Context, text string) ([]byte, error) {
	for n := 0; ; n++ {
		now := c.opt.Clock()
		recs, err := c.opt.Directory.Get(ctx, now, []storage.Key{shortKey(text)})
		if err == nil && len(recs) != 1 {
			err = fmt.Errorf("pairing: the storage gave %d answers for one key", len(recs))
		}
		if err != nil {
			return nil, err
		}
		var rec shortRecord
		if recs[0].Version != 0 {
			if err := json.Unmarshal(recs[0].Value, &rec); err != nil {
				return nil, fmt.Errorf("pairing: stored code: %w", err)
			}
		}
		secret, ok := rec.open(text)
		w := storage.Write{Key: recs[0].Key, Expect: recs[0].Version, Expires: recs[0].Expires}
		if recs[0].Version == 0 || rec.Tries >= c.opt.Tries {
			ok, rec = false, shortRecord{}
			w = storage.Write{Key: storage.Key{Kind: kindShort, ID: decoy}, Expect: storage.AnyVersion, Expires: now.Add(c.life(0))}
		}
		rec.Tries++
		if w.Value, err = json.Marshal(rec); err != nil {
			return nil, err
		}
		err = c.opt.Directory.Commit(ctx, now, []storage.Write{w})
		var conflict *storage.ConflictError
		if errors.As(err, &conflict) && n < commitTries {
			continue
		}
		if err != nil || !ok {
			return nil, err
		}
		return secret, nil
	}
}

// add makes the device; the code behind the short one is spent with it.
func (c *Codes) add(ctx context.Context, q Claim, secret []byte) (Claimed, error) {
	out := Claimed{}
	r := account.Request{Device: q.Device, Name: q.Name, Pair: secret, NoToken: true}
	if r.Device == "" {
		r.Device = identity.NewID(c.opt.Rand)
	}
	if q.Public != nil {
		r.Public = *q.Public
	} else {
		var seed [32]byte
		if _, err := io.ReadFull(c.opt.Rand, seed[:]); err != nil {
			return out, fmt.Errorf("pairing: random: %w", err)
		}
		key, err := identity.DeriveDevice(seed[:])
		if err != nil {
			return out, err
		}
		out.Seed, out.Key = &seed, &key
		r.Public = key.Public()
	}
	if _, err := c.opt.Accounts.Device(ctx, r.Device); err == nil {
		return Claimed{}, ErrInvalid // a claim adds, it never replaces a key
	}
	issuer, err := c.opt.Accounts.PairIssuer(ctx, account.PairID(secret))
	if errors.Is(err, account.ErrNotFound) {
		return Claimed{}, ErrInvalid
	}
	if err != nil {
		return Claimed{}, err
	}
	g, err := c.opt.Accounts.Establish(ctx, r)
	var refused *account.Error
	if errors.As(err, &refused) && refused.Code != account.CodeDeviceLimit {
		return Claimed{}, ErrInvalid
	}
	if err != nil {
		return Claimed{}, err
	}
	out.User, out.Device, out.Issuer, out.Certificate = g.User, g.Device, issuer, g.Certificate
	return out, nil
}

// Redeem turns a short code into the secret of its link code, for claims inside
// Noise: the limits of Claim hold, and the errors are the same. The code is spent
// when the secret is (account.Request.Pair).
func (c *Codes) Redeem(ctx context.Context, code, prefix string) ([]byte, error) {
	if !c.opt.ShortCodes {
		return nil, ErrShortCodes
	}
	if err := c.throttle(ctx, prefix); err != nil {
		return nil, err
	}
	text, well := normalise(code)
	if !well {
		text = malformed // looked up all the same, so that the answer takes as long
	}
	secret, err := c.try(ctx, text)
	if err == nil && (!well || secret == nil) {
		err = ErrInvalid
	}
	return secret, err
}
