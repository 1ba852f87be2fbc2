package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// TokenHash is how a bearer token is known to everything but its owner.
type TokenHash [32]byte

// HashToken is the SHA-256 of the token's text.
func HashToken(token string) TokenHash { return sha256.Sum256([]byte(token)) }

// String is the first 8 hex digits, for logs.
func (h TokenHash) String() string { return hex.EncodeToString(h[:4]) }

func (h TokenHash) id() string { return hex.EncodeToString(h[:]) }

// Bearer is what a token stands for.
type Bearer struct {
	User    User
	Device  Device
	Session string // public id of the session that it was made for
	Expires time.Time
	Hash    TokenHash
}

type tokenRecord struct {
	Device  string `json:"device"`
	Epoch   uint64 `json:"epoch"`
	Session string `json:"session"`
}

// NewToken draws the text of a token: 256 random bits in hex. It opens nothing
// until IssueToken or Establish has stored it.
func NewToken(rand io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("account: random: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func (s *Store) tokenWrite(token string, rec tokenRecord, now time.Time) (storage.Write, TokenHash) {
	h := HashToken(token)
	return storage.Write{
		Key: storage.Key{Kind: kindToken, ID: h.id()}, Expect: 0,
		Value: encode(rec), Expires: now.Add(s.opt.TokenTTL),
	}, h
}

// IssueToken makes a token for an active device.
func (s *Store) IssueToken(ctx context.Context, device, session string) (string, error) {
	for try := 0; ; try++ {
		d, err := load[deviceRecord](ctx, s, kindDevice, device)
		if err != nil {
			return "", err
		}
		if !d.exists() {
			return "", ErrNotFound
		}
		if d.value.Status != Active {
			return "", ErrRevoked
		}
		token, err := NewToken(s.opt.Rand)
		if err != nil {
			return "", err
		}
		now := s.now()
		w, _ := s.tokenWrite(token, tokenRecord{device, d.value.Epoch, session}, now)
		err = s.dir.Commit(ctx, now, []storage.Write{d.check(), w})
		if err == nil {
			return token, nil
		}
		if !isConflict(err) || try == commitTries {
			return "", err
		}
	}
}

// Token answers what a token stands for. It always asks the directory, so a
// revocation on any node holds at once: ErrToken for an unknown, expired or
// dropped token, ErrRevoked when the device is not active. A token used with
// less than half of its life left is given a whole one.
func (s *Store) Token(ctx context.Context, token string) (Bearer, error) {
	if len(token) == 0 || len(token) > 256 {
		return Bearer{}, ErrToken
	}
	return s.bearer(ctx, HashToken(token), true)
}

func (s *Store) bearer(ctx context.Context, hash TokenHash, touch bool) (Bearer, error) {
	b, rec, err := s.lookToken(ctx, hash)
	if err != nil {
		return Bearer{}, err
	}
	u, err := s.User(ctx, b.Device.User)
	if isNotFound(err) {
		return Bearer{}, ErrToken
	}
	if err != nil {
		return Bearer{}, err
	}
	b.User = u
	now := s.now()
	if touch && b.Expires.Sub(now) < s.opt.TokenTTL/2 {
		end := now.Add(s.opt.TokenTTL)
		err := s.dir.Commit(ctx, now, []storage.Write{rec.write(end)})
		switch {
		case err == nil:
			b.Expires = end
		case !isConflict(err): // a conflict: somebody else touched or dropped it
			return Bearer{}, err
		}
	}
	return b, nil
}

// lookToken reads a token and its device, and judges both.
func (s *Store) lookToken(ctx context.Context, hash TokenHash) (Bearer, held[tokenRecord], error) {
	key := storage.Key{Kind: kindToken, ID: hash.id()}
	recs, err := s.get(ctx, key)
	if err != nil {
		return Bearer{}, held[tokenRecord]{}, err
	}
	t, err := decode[tokenRecord](recs[0], key)
	if err != nil {
		return Bearer{}, t, err
	}
	if !t.exists() {
		return Bearer{}, t, ErrToken
	}
	h, err := load[deviceRecord](ctx, s, kindDevice, t.value.Device)
	if err != nil {
		return Bearer{}, t, err
	}
	switch {
	case !h.exists():
		return Bearer{}, t, ErrToken
	case h.value.Status != Active:
		return Bearer{}, t, ErrRevoked
	case h.value.Epoch != t.value.Epoch:
		return Bearer{}, t, ErrToken
	}
	d, err := h.value.device(t.value.Device)
	if err != nil {
		return Bearer{}, t, err
	}
	return Bearer{Device: d, Session: t.value.Session, Expires: recs[0].Expires, Hash: hash}, t, nil
}

// TouchToken gives a live token a whole life from now, never a shorter one. It
// answers ErrToken or ErrRevoked when the token no longer holds.
func (s *Store) TouchToken(ctx context.Context, hash TokenHash) error {
	for try := 0; ; try++ {
		b, rec, err := s.lookToken(ctx, hash)
		if err != nil {
			return err
		}
		now := s.now()
		end := now.Add(s.opt.TokenTTL)
		if !end.After(b.Expires) {
			return nil
		}
		err = s.dir.Commit(ctx, now, []storage.Write{rec.write(end)})
		if err == nil || !isConflict(err) || try == commitTries {
			return err
		}
	}
}

// DropToken ends one token; unknown ones are ignored.
func (s *Store) DropToken(ctx context.Context, hash TokenHash) error {
	return s.dir.Commit(ctx, s.now(), []storage.Write{{
		Key: storage.Key{Kind: kindToken, ID: hash.id()}, Expect: storage.AnyVersion,
	}})
}

// DropTokens ends every token of a device, by a new epoch of its record.
func (s *Store) DropTokens(ctx context.Context, device string) error {
	return s.changeDevice(ctx, device, func(d *deviceRecord) error {
		d.Epoch++
		return nil
	})
}

// changeDevice changes one device record, and repeats what lost a race.
func (s *Store) changeDevice(ctx context.Context, device string, change func(*deviceRecord) error) error {
	defer s.cache.drop(device)
	for try := 0; ; try++ {
		d, err := load[deviceRecord](ctx, s, kindDevice, device)
		if err != nil {
			return err
		}
		if !d.exists() {
			return ErrNotFound
		}
		if err := change(&d.value); err != nil {
			return err
		}
		err = s.dir.Commit(ctx, s.now(), []storage.Write{d.write(time.Time{})})
		if err == nil || !isConflict(err) || try == commitTries {
			return err
		}
	}
}
