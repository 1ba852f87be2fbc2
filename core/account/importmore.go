package account

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// ImportFriends stores friend lists of accounts that are there, in one Commit; a list
// that is there already stays. Entries that break the rules are left out with a note. At
// most MaxImport lists.
func (s *Store) ImportFriends(ctx context.Context, users []string, lists [][]Friend) ([]Outcome, error) {
	now := s.now()
	im := &importing{read: map[storage.Key]storage.Record{}, writes: map[storage.Key]*storage.Write{}}
	for _, u := range users {
		im.want(kindUser, u)
		im.want(kindFriends, u)
	}
	if err := im.load(ctx, s); err != nil {
		return nil, err
	}
	out := make([]Outcome, len(users))
	for i, u := range users {
		user, err := see[struct{}](im, kindUser, u)
		if err != nil {
			return nil, err
		}
		have, err := see[[]Friend](im, kindFriends, u)
		switch {
		case err != nil:
			return nil, err
		case !user.exists():
			out[i] = left("its account is not here")
		case have.exists():
			out[i].Present = true
		default:
			list, lost := sound(u, lists[i])
			im.set(kindFriends, u, list)
			if lost > 0 {
				out[i].Note = "without entries that break the rules"
			}
		}
	}
	return out, im.commit(ctx, s.dir, now)
}

// sound keeps what may be in a friend list.
func sound(user string, list []Friend) (out []Friend, lost int) {
	seen := map[string]bool{user: true}
	out = []Friend{}
	for _, f := range list {
		if alias := cleanText(f.Alias, MaxAlias); alias != f.Alias {
			f.Alias = alias // the friend is worth more than the name
		}
		if seen[f.User] || len(out) == MaxFriends || checkFriends([]Friend{f}) != nil {
			lost++
			continue
		}
		seen[f.User] = true
		out = append(out, f)
	}
	return out, lost
}

// ForeignKey is a key that a device had or got, as another program noted it.
type ForeignKey struct {
	Device string
	Public [32]byte
	At     time.Time
	// Retired says that the key was rotated away: no device gets it again. Else it is
	// an entry of the device's history.
	Retired bool
}

// ImportKeys stores histories of keys, in one Commit. At most MaxImport.
func (s *Store) ImportKeys(ctx context.Context, keys []ForeignKey) ([]Outcome, error) {
	now := s.now()
	im := &importing{read: map[storage.Key]storage.Record{}, writes: map[storage.Key]*storage.Write{}}
	for i := range keys {
		im.want(kindDevice, keys[i].Device)
		im.want(s.historyKey(&keys[i]))
	}
	if err := im.load(ctx, s); err != nil {
		return nil, err
	}
	out := make([]Outcome, len(keys))
	for i := range keys {
		k := &keys[i]
		device, err := see[deviceRecord](im, kindDevice, k.Device)
		if err != nil {
			return nil, err
		}
		kind, id := s.historyKey(k)
		switch have := im.read[storage.Key{Kind: kind, ID: id}]; {
		case !device.exists():
			out[i] = left("its device is not here")
		case have.Version != 0 || im.writes[storage.Key{Kind: kind, ID: id}] != nil:
			out[i].Present = true
		case k.Retired:
			im.set(kind, id, k.At.UTC().Format(time.RFC3339))
		case !k.At.After(now.Add(-eventLife)) || k.At.After(now):
			out[i] = left("it is older than 400 days, or of the future")
		default:
			im.set(kind, id, eventRecord{Action: "import", Public: k.Public[:], At: k.At.UnixMicro()})
			im.writes[storage.Key{Kind: kind, ID: id}].Expires = k.At.Add(eventLife)
		}
	}
	return out, im.commit(ctx, s.dir, now)
}

func (s *Store) historyKey(k *ForeignKey) (kind, id string) {
	if k.Retired {
		return kindRetired, hexKey(k.Public)
	}
	w := s.event(k.Device, eventRecord{}, k.At)
	return w.Kind, w.ID
}
