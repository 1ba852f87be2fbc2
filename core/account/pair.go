package account

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

type pairRecord struct {
	User   string `json:"user"`
	Issuer string `json:"issuer"`
}

// PairID is under which a pairing code is stored. Package pairing makes codes;
// this package keeps and spends them, because a code is spent in the transaction
// that adds the device.
func PairID(code []byte) string { return hashID([]byte("commucat/pair/1\x00"), code) }

// CreatePair stores the pairing code with the id of PairID for the account of the
// device issuer, together with further writes of package pairing. issuer "" is the
// operator. It answers ErrNotFound or ErrRevoked when the issuer may
// not add devices to user, and the directory's *ConflictError when one of the
// further writes met a record.
func (s *Store) CreatePair(ctx context.Context, user, issuer, id string, ttl time.Duration, more ...storage.Write) error {
	u, err := load[userRecord](ctx, s, kindUser, user)
	if err != nil {
		return err
	}
	if !u.exists() {
		return ErrNotFound
	}
	now := s.now()
	w := []storage.Write{{
		Key: storage.Key{Kind: kindPair, ID: id}, Expect: 0,
		Value: encode(pairRecord{User: user, Issuer: issuer}), Expires: now.Add(ttl),
	}}
	if issuer != "" {
		d, err := load[deviceRecord](ctx, s, kindDevice, issuer)
		switch {
		case err != nil:
			return err
		case !d.exists(), d.value.User != user:
			return ErrNotFound
		case d.value.Status != Active:
			return ErrRevoked
		}
		w = append(w, d.check())
	}
	return s.dir.Commit(ctx, now, append(w, more...))
}

// DropPair ends a pairing code; unknown ones are ignored.
func (s *Store) DropPair(ctx context.Context, id string) error {
	return s.dir.Commit(ctx, s.now(), []storage.Write{{
		Key: storage.Key{Kind: kindPair, ID: id}, Expect: storage.AnyVersion,
	}})
}

// PairIssuer answers the device that made a live pairing code, "" for the operator;
// ErrNotFound when there is no such code.
func (s *Store) PairIssuer(ctx context.Context, id string) (string, error) {
	h, err := load[pairRecord](ctx, s, kindPair, id)
	if err == nil && !h.exists() {
		err = ErrNotFound
	}
	return h.value.Issuer, err
}
