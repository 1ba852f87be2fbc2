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
	// BootstrapQuota and BootstrapLife are those of the first invitation.
	BootstrapQuota = 16
	BootstrapLife  = 24 * time.Hour
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
	now := s.now()
	id = InviteID(secret[:])
	err = s.dir.Commit(ctx, now, []storage.Write{{
		Key: storage.Key{Kind: kindInvite, ID: id}, Expect: 0,
		Value: encode(inviteRecord{Quota: quota, Created: now.UnixMicro()}), Expires: now.Add(ttl),
	}})
	return secret, id, err
}

// BootstrapInvite makes the first invitation of a relay that has neither users
// nor invitations: 16 accounts, 24 h. Otherwise made is false.
func (s *Store) BootstrapInvite(ctx context.Context) (secret [16]byte, id string, made bool, err error) {
	for _, kind := range []string{kindUser, kindInvite} {
		recs, err := s.dir.List(ctx, s.now(), storage.Range{Kind: kind, Limit: 1})
		if err != nil || len(recs) > 0 {
			return secret, "", false, err
		}
	}
	secret, id, err = s.CreateInvite(ctx, BootstrapQuota, BootstrapLife)
	return secret, id, err == nil, err
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
