package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"time"
)

// A master makes credentials for masterUse and is accepted for masterLife, so
// that every credential has at least 60 days of overlap.
const (
	masterUse  = 60 * 24 * time.Hour
	masterLife = 2 * masterUse
)

type master struct {
	Key     []byte
	Created time.Time
}

type masterFile struct {
	Masters []masterRow `json:"masters"`
}

type masterRow struct {
	Key     string    `json:"key"`
	Check   string    `json:"check"`
	Created time.Time `json:"created"`
}

// EntryMasters are the masters accepted now, newest first. The result is shared:
// it must not be changed.
func (r *Ring) EntryMasters() [][]byte {
	ms := *r.masters.Load()
	out := make([][]byte, len(ms))
	for i, m := range ms {
		out[i] = m.Key
	}
	return out
}

func (r *Ring) loadMasters(fresh bool) error {
	var f masterFile
	if ok, err := r.dir.object("entry.json", &f); err != nil {
		return err
	} else if !ok && !fresh {
		return r.dir.missing("entry.json")
	}
	ms := make([]master, 0, len(f.Masters))
	for _, row := range f.Masters {
		b, err := hex.DecodeString(row.Key)
		if err != nil || len(b) != 32 || row.Check != check(b) {
			return r.dir.damaged("entry.json")
		}
		ms = append(ms, master{b, row.Created})
	}
	// Of two made at once by two nodes the one that was shared first comes first.
	slices.SortStableFunc(ms, func(a, b master) int { return b.Created.Compare(a.Created) })
	r.masters.Store(&ms)
	return nil
}

func (r *Ring) rotateMasters(now time.Time) ([]Change, error) {
	ms := slices.Clone(*r.masters.Load())
	due := len(ms) == 0 || !ms[0].Created.Add(masterUse).After(now)
	if due {
		m := master{make([]byte, 32), now}
		if _, err := io.ReadFull(r.opt.Rand, m.Key); err != nil {
			return nil, err
		}
		ms = slices.Insert(ms, 0, m)
	}
	before := len(ms)
	ms = slices.DeleteFunc(ms, func(m master) bool { return !m.Created.Add(masterLife).After(now) })
	if !due && len(ms) == before {
		return nil, nil
	}
	f := masterFile{Masters: make([]masterRow, len(ms))}
	for i, m := range ms {
		f.Masters[i] = masterRow{hex.EncodeToString(m.Key), check(m.Key), m.Created}
	}
	if err := r.dir.putObject("entry.json", f); err != nil {
		return nil, err
	}
	r.masters.Store(&ms)
	if !due {
		return nil, nil
	}
	return []Change{{What: "entry"}}, nil
}

// derive gives 32 bytes for one purpose (HKDF-SHA-256).
func derive(key []byte, label string) [32]byte {
	b, err := hkdf.Key(sha256.New, key, nil, label, 32)
	if err != nil {
		panic(err) // only for lengths beyond HKDF's
	}
	return [32]byte(b)
}
