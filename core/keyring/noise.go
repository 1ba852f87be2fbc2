package keyring

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/noise"
)

// maxNoiseKeys is how many Noise keys are tried in a handshake.
const maxNoiseKeys = 3

// NoiseKey is one Noise static key of the relay.
type NoiseKey struct {
	Version uint32
	Pair    noise.KeyPair
	// From ValidAfter on it is used; after RotatesAt a newer one is, and after
	// ExpiresAt it is refused. A pinned key has a far ExpiresAt.
	ValidAfter, RotatesAt, ExpiresAt time.Time
}

type noiseFile struct {
	Keys []noiseRow `json:"keys"`
}

type noiseRow struct {
	Version    uint32    `json:"version"`
	Private    string    `json:"private"`
	Check      string    `json:"check"`
	ValidAfter time.Time `json:"valid_after"`
	RotatesAt  time.Time `json:"rotates_at"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// forever is the end of a pinned key: the last second of the year 9999.
var forever = time.Unix(253402300799, 0).UTC()

// NoiseKeys are the keys in force now, newest first, at most 3 and at least one:
// the newest stays in force when its successor could not be made.
func (r *Ring) NoiseKeys() []NoiseKey {
	keys, now := *r.noise.Load(), r.opt.Clock()
	over := func(k NoiseKey) bool { return !k.ExpiresAt.After(now) }
	if len(keys) < 2 || !slices.ContainsFunc(keys[1:], over) {
		return keys
	}
	return append(keys[:1:1], slices.DeleteFunc(slices.Clone(keys[1:]), over)...)
}

func (r *Ring) loadNoise(fresh bool) error {
	var f noiseFile
	if ok, err := r.dir.object("noise.json", &f); err != nil {
		return err
	} else if !ok && !fresh {
		return r.dir.missing("noise.json")
	} else if ok && len(f.Keys) == 0 {
		return r.dir.damaged("noise.json")
	}
	keys := make([]NoiseKey, 0, len(f.Keys))
	for _, row := range f.Keys {
		b, err := hex.DecodeString(row.Private)
		if err != nil || len(b) != 32 || row.Version == 0 || row.Check != check(b) {
			return r.dir.damaged("noise.json")
		}
		keys = append(keys, NoiseKey{
			Version: row.Version, Pair: noise.KeyPairFrom([32]byte(b)),
			ValidAfter: row.ValidAfter, RotatesAt: row.RotatesAt, ExpiresAt: row.ExpiresAt,
		})
	}
	slices.SortFunc(keys, func(a, b NoiseKey) int { return int(b.Version) - int(a.Version) })
	r.noise.Store(&keys)
	return nil
}

// rotateNoise makes a key when the newest is due and drops those that are over.
func (r *Ring) rotateNoise(now time.Time, force bool) (changes []Change, err error) {
	keys := slices.Clone(*r.noise.Load())
	first := uint32(0)
	if r.opt.Pinned && len(keys) > 0 {
		first = keys[len(keys)-1].Version
	}
	due := force || len(keys) == 0 || !keys[0].RotatesAt.After(now)
	if due {
		pair, err := noise.GenerateKeyPair(r.opt.Rand)
		if err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
		if len(keys) == 0 && r.opt.Import.Noise != nil {
			pair = noise.KeyPairFrom(*r.opt.Import.Noise)
		}
		k := NoiseKey{
			Version: 1, Pair: pair, ValidAfter: now,
			RotatesAt: now.Add(r.opt.Rotate), ExpiresAt: now.Add(r.opt.Rotate + r.opt.Grace),
		}
		if len(keys) > 0 {
			k.Version = keys[0].Version + 1
			// The old key's grace begins now, also after a long stop.
			keys[0].ExpiresAt = now.Add(r.opt.Grace)
		}
		keys = slices.Insert(keys, 0, k)
		changes = append(changes, Change{What: "noise", Version: k.Version, Public: pair.Public})
	}
	before := len(keys)
	keys = slices.DeleteFunc(keys, func(k NoiseKey) bool {
		return !k.ExpiresAt.After(now) && k.Version != first && k.Version != keys[0].Version
	})
	for len(keys) > maxNoiseKeys {
		// The oldest goes, unless it is pinned: then the one before it.
		i := len(keys) - 1
		if keys[i].Version == first {
			i--
		}
		if force {
			return nil, &sdk.Error{Kind: sdk.Conflict, Text: fmt.Sprintf(
				"%d Noise keys are in force; another would end version %d before its grace and lock out every device that knows no newer one: wait until %s",
				maxNoiseKeys, keys[i].Version, keys[i].ExpiresAt.Format(time.DateOnly))}
		}
		keys = slices.Delete(keys, i, i+1)
	}
	repinned := r.pin(keys, first, now)
	if !due && len(keys) == before && !repinned {
		return nil, nil
	}
	f := noiseFile{Keys: make([]noiseRow, len(keys))}
	for i, k := range keys {
		f.Keys[i] = noiseRow{k.Version, hex.EncodeToString(k.Pair.Private[:]), check(k.Pair.Private[:]), k.ValidAfter, k.RotatesAt, k.ExpiresAt}
	}
	if err := r.dir.putObject("noise.json", f); err != nil {
		return nil, err
	}
	r.noise.Store(&keys)
	return changes, nil
}

// pin gives the pinned key no end, and an end to one that is no longer pinned.
func (r *Ring) pin(keys []NoiseKey, first uint32, now time.Time) (changed bool) {
	for i := range keys {
		k := &keys[i]
		switch pinned := r.opt.Pinned && (k.Version == first || len(keys) == 1); {
		case pinned && !k.ExpiresAt.Equal(forever):
			k.ExpiresAt, changed = forever, true
		case !pinned && k.ExpiresAt.Equal(forever):
			k.ExpiresAt, changed = now.Add(r.opt.Rotate+r.opt.Grace), true
		}
	}
	return changed
}
