package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

const (
	// owedLife is how long a notice is worth telling.
	owedLife = 14 * 24 * time.Hour
	// owedWait is how long whoever tells a notice has for it, before another may.
	owedWait = time.Minute
	// owedPage is how many records Owed reads at a time.
	owedPage = 256
)

// owedRecord is a change that the account's other devices have still to be told of. It is
// written in the commit that makes the change, so that neither a crash nor a storage of
// messages that is away loses what may be a user's only sign of a foreign device.
type owedRecord struct {
	Kind   ChangeKind `json:"kind"`
	User   string     `json:"user"`
	Device string     `json:"device"`
	Public hexBytes   `json:"public"`
	Via    string     `json:"via"`
	To     []string   `json:"to,omitempty"`
	Due    int64      `json:"due"` // unix µs
	Until  int64      `json:"until"`
}

// owe is the write that goes with the change, which it gives the id of its record.
func (s *Store) owe(c *Change, now time.Time) storage.Write {
	c.Owed = fmt.Sprintf("%s/%016x/%s", c.Device, uint64(now.UnixMicro()), c.Kind)
	return owedRecord{
		Kind: c.Kind, User: c.User, Device: c.Device, Public: c.Public[:], Via: c.Via,
		Until: now.Add(owedLife).UnixMicro(),
	}.write(c.Owed, storage.AnyVersion, now)
}

// write stores the record, due again after owedWait.
func (r owedRecord) write(id string, expect uint64, now time.Time) storage.Write {
	r.Due = now.Add(owedWait).UnixMicro()
	return storage.Write{
		Key: storage.Key{Kind: kindOwed, ID: id}, Expect: expect, Value: encode(r), Expires: fromMicro(r.Until),
	}
}

// Settle says whom of the account's other devices a change has still to be told to:
// nobody when left is empty. They are told by whoever asks Owed next, a minute later.
func (s *Store) Settle(ctx context.Context, c Change, left ...string) error {
	if c.Owed == "" {
		return nil
	}
	now := s.now()
	w := storage.Write{Key: storage.Key{Kind: kindOwed, ID: c.Owed}, Expect: storage.AnyVersion}
	if len(left) > 0 {
		h, err := load[owedRecord](ctx, s, kindOwed, c.Owed)
		if err != nil || !h.exists() {
			return err
		}
		h.value.To = left
		w = h.value.write(c.Owed, h.version, now)
	}
	return s.dir.Commit(ctx, now, []storage.Write{w})
}

// Owed takes over the notices that were not settled a minute after their change, or
// after they were last taken over: each goes to one caller, among all nodes. What it
// answers beside an error counts.
func (s *Store) Owed(ctx context.Context) (out []Change, err error) {
	for after := ""; ; {
		now := s.now()
		recs, listErr := s.dir.List(ctx, now, storage.Range{Kind: kindOwed, After: after, Limit: owedPage})
		if listErr != nil {
			return out, errors.Join(err, listErr)
		}
		for _, r := range recs {
			after = r.ID
			h, readErr := decode[owedRecord](r, r.Key)
			if readErr != nil {
				err = errors.Join(err, readErr)
				continue
			}
			o := h.value
			if now.Before(fromMicro(o.Due)) {
				continue
			}
			takeErr := s.dir.Commit(ctx, now, []storage.Write{o.write(r.ID, r.Version, now)})
			switch {
			case takeErr == nil:
				out = append(out, Change{Kind: o.Kind, User: o.User, Device: o.Device, Public: o.Public.key(), Via: o.Via, Owed: r.ID, To: o.To})
			case !isConflict(takeErr):
				return out, errors.Join(err, takeErr)
			}
		}
		if len(recs) < owedPage {
			return out, err
		}
	}
}
