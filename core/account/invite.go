package account

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// Limits of invitations.
const (
	MaxInviteQuota = 10000
	MaxInviteLife  = 366 * 24 * time.Hour
	// FirstQuota and FirstLife are those of the first invitation.
	FirstQuota = 16
	FirstLife  = 24 * time.Hour
)

// Invite describes an invitation; its secret is known to nobody but its holders.
type Invite struct {
	ID          string // hex SHA-256 of the secret with a label
	Quota, Used int
	Created     time.Time
	Expires     time.Time
}

type inviteRecord struct {
	Quota   int   `json:"quota"`
	Used    int   `json:"used"`
	Created int64 `json:"created"` // unix µs
}

// InviteID is the id of the invitation with this secret.
func InviteID(secret []byte) string { return hashID([]byte("commucat/invite/1\x00"), secret) }

// CreateInvite makes an invitation for quota accounts (1 to 10 000) that ends
// after ttl (at most 366 days). The secret goes into the link and is not stored.
func (s *Store) CreateInvite(ctx context.Context, quota int, ttl time.Duration) (secret [16]byte, id string, err error) {
	if quota < 1 || quota > MaxInviteQuota {
		return secret, "", invalid(fmt.Sprintf("quota %d outside 1 to %d", quota, MaxInviteQuota))
	}
	if ttl < time.Second || ttl > MaxInviteLife {
		return secret, "", invalid("life of an invitation must be 1s to 366 days")
	}
	if _, err := io.ReadFull(s.opt.Rand, secret[:]); err != nil {
		return secret, "", fmt.Errorf("account: random: %w", err)
	}
	id, err = s.storeInvite(ctx, secret, s.now(), quota, ttl)
	return secret, id, err
}

func (s *Store) storeInvite(ctx context.Context, secret [16]byte, now time.Time, quota int, ttl time.Duration) (id string, err error) {
	id = InviteID(secret[:])
	return id, s.dir.Commit(ctx, now, []storage.Write{{
		Key: storage.Key{Kind: kindInvite, ID: id}, Expect: 0,
		Value: encode(inviteRecord{Quota: quota, Created: now.UnixMicro()}), Expires: now.Add(ttl),
	}})
}

// HasUsers says whether a directory holds an account.
func HasUsers(ctx context.Context, d storage.Directory, now time.Time) (bool, error) {
	users, err := d.List(ctx, now, storage.Range{Kind: kindUser, Limit: 1})
	return len(users) > 0, err
}

// FirstInvite is the first invitation of a relay, for 16 accounts and 24 h: made if there
// are neither users nor invitations, and found again while accounts are left of it. Its
// secret is what derive says of the moment it was made, so that nothing need keep it. ok is
// false when there is none (any more).
func (s *Store) FirstInvite(ctx context.Context, derive func(created time.Time) [16]byte) (invite Invite, secret [16]byte, made, ok bool, err error) {
	const page = 500
	none := true
	for after := ""; ; {
		recs, err := s.dir.List(ctx, s.now(), storage.Range{Kind: kindInvite, After: after, Limit: page})
		if err != nil {
			return Invite{}, secret, false, false, err
		}
		for _, r := range recs {
			none, after = false, r.ID
			h, err := decode[inviteRecord](r, r.Key)
			if err != nil {
				continue // a damaged one keeps no relay from starting
			}
			created := fromMicro(h.value.Created)
			if secret := derive(created); InviteID(secret[:]) == r.ID {
				return Invite{r.ID, h.value.Quota, h.value.Used, created, r.Expires}, secret, false, h.value.Used < h.value.Quota, nil
			}
		}
		if len(recs) < page {
			break
		}
	}
	if !none {
		return Invite{}, secret, false, false, nil
	}
	if used, err := HasUsers(ctx, s.dir, s.now()); err != nil || used {
		return Invite{}, secret, false, false, err
	}
	now := fromMicro(s.now().UnixMicro()) // as it will be read back
	secret = derive(now)
	id, err := s.storeInvite(ctx, secret, now, FirstQuota, FirstLife)
	return Invite{ID: id, Quota: FirstQuota, Created: now, Expires: now.Add(FirstLife)}, secret, err == nil, err == nil, err
}

// Invites lists live invitations, spent ones included, in order of their ids, at
// most limit after the id given.
func (s *Store) Invites(ctx context.Context, after string, limit int) ([]Invite, error) {
	recs, err := s.dir.List(ctx, s.now(), storage.Range{Kind: kindInvite, After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	out := make([]Invite, 0, len(recs))
	for _, r := range recs {
		h, err := decode[inviteRecord](r, r.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, Invite{r.ID, h.value.Quota, h.value.Used, fromMicro(h.value.Created), r.Expires})
	}
	return out, nil
}

// RevokeInvite ends an invitation at once; ErrNotFound when there is none.
func (s *Store) RevokeInvite(ctx context.Context, id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 32 {
		return ErrNotFound
	}
	for try := 0; ; try++ {
		h, err := load[inviteRecord](ctx, s, kindInvite, id)
		if err != nil {
			return err
		}
		if !h.exists() {
			return ErrNotFound
		}
		err = s.dir.Commit(ctx, s.now(), []storage.Write{{Key: h.key, Expect: h.version}})
		if err == nil || !isConflict(err) || try == commitTries {
			return err
		}
	}
}

// expiring is a held record together with its end, which a change must keep.
type expiring[T any] struct {
	held[T]
	expires time.Time
}

func loadExpiring[T any](ctx context.Context, s *Store, kind, id string) (expiring[T], error) {
	k := storage.Key{Kind: kind, ID: id}
	recs, err := s.get(ctx, k)
	if err != nil {
		return expiring[T]{}, err
	}
	h, err := decode[T](recs[0], k)
	return expiring[T]{h, recs[0].Expires}, err
}
